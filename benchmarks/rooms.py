"""Devices to measure: the rooms of the laboratory, each a machine of its own but for kernel and processor."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.claims import Unmeasurable


@contextlib.contextmanager
def rooms(folder: Path, count: int, disk_bytes: int) -> Iterator[dict[str, str]]:
    """So many rooms, each with an sshd, a disk and an identity: their names, and their addresses for meltbench.

    Meanwhile this process has an inventory, a state folder and an ssh_config of its own below ``folder``.
    """
    kits, targets = _kits("rooms_kit", "targets_kit")
    keys = targets.Keys(folder / "keys")
    with _own(folder, {"MELTBENCH_SSH_CONFIG": str(keys.config)}), contextlib.ExitStack() as stack, _unskipped():
        names = [f"room-{number}" for number in range(count)]
        made = [stack.enter_context(kits.plain_room(folder / name, keys, name, disk_bytes)) for name in names]
        yield {one.name: one.address for one in made}


@contextlib.contextmanager
def phone(folder: Path, disk_bytes: int) -> Iterator[Any]:
    """A made phone (tests/phones_kit.py, Phone) on a wire and an adb server of its own, with Android's own adbd.

    Meanwhile this process asks that server, and has an inventory and a state folder of its own below ``folder``.
    """
    servers, phones = _kits("adb_kit", "phones_kit")
    home = folder / "adb"
    home.mkdir(parents=True)
    with _own(folder, {}), contextlib.ExitStack() as stack, _unskipped():
        server = stack.enter_context(servers.adb_server(home))
        made = stack.enter_context(phones.made_phone(folder / "phone", server, disk_bytes=disk_bytes))
        stack.enter_context(kit.environment(made.environment))
        yield made


def _kits(*names: str) -> list[Any]:
    """Modules of the tests."""
    sys.path.insert(0, str(kit.HERE.parent / "tests"))
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise Unmeasurable(f"the laboratory's rooms need the packages of development: {error}") from None
    finally:
        del sys.path[0]


@contextlib.contextmanager
def _own(folder: Path, more: Mapping[str, str]) -> Iterator[None]:
    own = {
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
        "MELTBENCH_LAB": str(kit.lab()),
        "MELTBENCH_INVENTORY": None,
    }
    with kit.environment({**own, **more}):
        yield


@contextlib.contextmanager
def _unskipped() -> Iterator[None]:
    """What skips a test makes a row unmeasurable."""
    import pytest

    try:
        yield
    except pytest.skip.Exception as why:
        raise Unmeasurable(str(why)) from None
