"""Which process looks on at a run, so that others can tell a run that is looked on at from a detached one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Name this process so that a later one with the same pid is not taken for it."""
    return {"host": os.uname().nodename, "pid": os.getpid(), "start_ticks": _start_ticks(os.getpid())}


def is_alive(controller: object) -> bool:
    """Whether the named process still runs on this host; a controller on another host is taken as gone."""
    if not isinstance(controller, dict) or controller.get("host") != os.uname().nodename:
        return False
    pid = controller.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's process: whether it is the one named, its start tells
    return _start_ticks(pid) == controller.get("start_ticks")


def _start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); None where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])
