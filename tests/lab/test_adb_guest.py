"""From nothing to stored runs on an arm64 phone that is reached by adb: with a kernel, a boot and a disk of its own,
and Android's adbd, mksh and toybox. It is rebooted, and its adb server and its adbd are killed, in the middle of a run.

It is a Cortex-A72, for which the stock engine is the one that `make lab` had meltbench cross-build.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from adb_guest_kit import OURS, AdbGuest, adb_guest
from adb_kit import Server
from box_kit import SHORT, TINY, Controller, answered, has_real_tokens, reasons, rebooted_in_a_run
from targets_kit import Keys

from meltbench import builds

pytestmark = pytest.mark.slow
BRIGHTNESS = "settings get system screen_brightness"


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys, adb: Server) -> Iterator[AdbGuest]:
    with adb_guest(tmp_path_factory.mktemp("guest"), lab_keys, adb) as target:
        yield target


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, phone: AdbGuest, stock: builds.Record) -> Controller:
    del stock  # without it a run would build one, which takes minutes
    return Controller.of(tmp_path_factory.mktemp("controller"), phone, "--adb", phone.serial, ours=OURS)


@pytest.fixture(autouse=True)
def ended(box: Controller) -> Iterator[None]:
    yield
    box.end()


def test_from_nothing_to_real_tokens_and_then_nothing_is_pushed(
    box: Controller, phone: AdbGuest, stock: builds.Record
) -> None:
    assert phone.shell("id -u; which busybox python3 awk || echo none") == "2000\nnone"
    assert phone.ssh(f"ls {OURS}/cache 2> /dev/null || echo none") == "none"
    done = box.run("run", "--device", "box", *SHORT, *TINY, "--json")
    assert done.returncode == 0, done.stderr
    assert "pushing llama-server, tiny.gguf" in done.stderr
    (first,) = json.loads(done.stdout)
    has_real_tokens(first, stock)
    assert "link_traffic" not in reasons(first)
    assert (first["conditions"]["board"], first["conditions"]["boot_id"]) == ("HUAWEI EVA-L09", phone.boot_id())
    assert first["conditions"]["settings"]["screen_brightness"]["state"] == "set"
    assert box.json("verify") == []
    cached = phone.ssh(f"cd {OURS}/cache && stat -c '%u %i %n' blobs/* trees/*")
    assert {line.split()[0] for line in cached.splitlines()} == {"2000"}
    again = box.run("run", "--device", "box", *SHORT, *TINY, "--json")
    assert "pushing" not in again.stderr
    assert phone.ssh(f"cd {OURS}/cache && stat -c '%u %i %n' blobs/* trees/*") == cached
    (second,) = json.loads(again.stdout)
    has_real_tokens(second, stock)
    assert second["cell_key"] == first["cell_key"]
    assert (box.left(), phone.shell(BRIGHTNESS)) == ("", "102")


def test_a_phone_that_reboots_while_somebody_looks_on(
    box: Controller, phone: AdbGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reboot() -> None:
        assert phone.shell(BRIGHTNESS) == "20"
        phone.reboot()

    rebooted_in_a_run(box, monkeypatch, reboot)
    assert (box.left(), phone.shell(BRIGHTNESS)) == ("", "102")


def run_and(box: Controller, harm: Callable[[], None]) -> dict[str, Any]:
    """A run in the midst of which some harm is done, once it has had an answer."""
    with box.start("run", "--json", "--device", "box", *SHORT, *TINY) as under_way:
        answered(box)
        harm()
        out, err = under_way.communicate(timeout=240)
    assert under_way.returncode == 0, err
    (run,) = json.loads(out)
    # Where the link came back before the run was over, the device was asked while it measured, and it says so.
    assert ("the link is back, the run goes on" in err) == ("link_traffic" in reasons(run))
    assert box.left() == ""
    return dict(run)


def test_a_server_that_is_killed_in_a_run(box: Controller, phone: AdbGuest, stock: builds.Record) -> None:
    try:
        run = run_and(box, phone.server.kill)
        assert phone.server.listens(), "meltbench started another"
    finally:
        phone.server.stop()
        phone.server.start()
        phone.connect()
    has_real_tokens(run, stock)


def test_an_adbd_that_is_killed_in_a_run(box: Controller, phone: AdbGuest, stock: builds.Record) -> None:
    has_real_tokens(run_and(box, phone.kill_adbd), stock)
