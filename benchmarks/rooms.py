"""Devices to measure over SSH: the rooms of the laboratory, each a machine of its own but for kernel and processor."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import kit
from benchmarks.claims import Unmeasurable


@contextlib.contextmanager
def rooms(folder: Path, count: int, disk_bytes: int) -> Iterator[dict[str, str]]:
    """So many rooms, each with an sshd, a disk and an identity: their names, and their addresses for meltbench.

    Meanwhile this process has an inventory, a state folder and an ssh_config of its own below ``folder``.
    """
    sys.path.insert(0, str(kit.HERE.parent / "tests"))
    try:
        pytest, kits, targets = map(importlib.import_module, ("pytest", "rooms_kit", "targets_kit"))
    except ImportError as error:
        raise Unmeasurable(f"the laboratory's rooms need the packages of development: {error}") from None
    finally:
        del sys.path[0]
    keys = targets.Keys(folder / "keys")
    own = {
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
        "MELTBENCH_SSH_CONFIG": str(keys.config),
        "MELTBENCH_LAB": str(kit.lab()),
        "MELTBENCH_INVENTORY": None,
    }
    with kit.environment(own), contextlib.ExitStack() as stack:
        try:
            names = [f"room-{number}" for number in range(count)]
            made = [stack.enter_context(kits.plain_room(folder / name, keys, name, disk_bytes)) for name in names]
            yield {one.name: one.address for one in made}
        except pytest.skip.Exception as why:
            raise Unmeasurable(str(why)) from None
