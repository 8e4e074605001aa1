from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from adb_kit import Server, adb_server
from cli import Bench
from guest_kit import Guest, arm64_guest
from hypothesis import settings
from made_boards import Board, made_board
from phone_road_kit import PhoneRoad
from phones_kit import Phone, made_phone
from rooms_kit import RoomTarget, arm64_rootfs, plain_room
from targets_kit import Keys, need
from witness import Witness

from meltbench import models
from meltbench.probe import build

# No test asserts how long something takes: other tests run beside it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@cache
def witness() -> Witness:
    return Witness()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What fails while this machine stands still is measured again, twice at most."""
    for item in items:
        if item.path.parent.name in ("lab", "faults"):
            item.add_marker(pytest.mark.flaky(reruns=2, condition=lambda: witness().stood_still()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("flaky"):
        witness().begin()


def pytest_unconfigure() -> None:
    if witness.cache_info().currsize:
        witness().end()


@pytest.fixture(scope="session")
def probe_binary() -> Path:
    """The probe for this machine; its first build takes half a minute."""
    return build.binary(build.host_target())


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The default model, fetched once into the user's cache."""
    return models.ensure(models.resolve("smollm2-135m-q4"))


@pytest.fixture
def bench(tmp_path: Path, probe_binary: Path) -> Bench:
    """A place to run the command line in, with the probe built beforehand so that no test waits for it."""
    return Bench(tmp_path)


@pytest.fixture
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person who runs the tests is read or written on the way to a device."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture(scope="session")
def lab_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The key that the laboratory's targets let in, and the file of ssh that names them."""
    need("ssh", "ssh-keygen")
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys) -> Iterator[RoomTarget]:
    """A machine of this architecture with nothing but sshd and a shell."""
    with plain_room(tmp_path_factory.mktemp("plain"), lab_keys) as target:
        yield target


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys) -> Iterator[RoomTarget]:
    """A machine whose programs are for arm64, and run by emulation."""
    with arm64_rootfs(tmp_path_factory.mktemp("arm64"), lab_keys) as target:
        yield target


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys) -> Iterator[Guest]:
    """An arm64 machine with a kernel of its own."""
    with arm64_guest(tmp_path_factory.mktemp("guest"), lab_keys) as target:
        yield target


@pytest.fixture(scope="module")
def jetson(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys) -> Iterator[Board]:
    """A made Jetson Orin Nano."""
    with made_board("jetson", tmp_path_factory.mktemp("jetson"), lab_keys) as board:
        yield board


@pytest.fixture(scope="module")
def pi5(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys) -> Iterator[Board]:
    """A made Raspberry Pi 5."""
    with made_board("pi5", tmp_path_factory.mktemp("pi5"), lab_keys) as board:
        yield board


@pytest.fixture(scope="module")
def desktop(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys) -> Iterator[Board]:
    """A made desktop with RAPL, which only its root may read."""
    with made_board("desktop", tmp_path_factory.mktemp("desktop"), lab_keys) as board:
        yield board


@pytest.fixture(scope="session")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An adb server of the tests' own."""
    with adb_server(tmp_path_factory.mktemp("adb")) as server:
        yield server


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory, adb: Server) -> Iterator[Phone]:
    """A made Pixel 6 that is reached by adb."""
    with made_phone(tmp_path_factory.mktemp("phone"), adb) as made:
        yield made


@pytest.fixture(scope="module")
def first_phone(tmp_path_factory: pytest.TempPathFactory, phone: Phone, probe_binary: Path) -> PhoneRoad:
    """The controller that found out what the phone is."""
    return PhoneRoad(tmp_path_factory.mktemp("first"), target=phone).added()
