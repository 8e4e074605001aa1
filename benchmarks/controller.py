"""One controller of many devices, a process of its own: what it takes is measured apart from what the devices take.

    python -m benchmarks.controller < WISH        WISH: JSON of Wish; what it found goes to stdout, JSON of Told

Each device has a thread that calls the very road that `meltbench exec` calls.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from meltbench import enrol, plan, road
from meltbench.report.progress import Quiet
from meltbench.spec import Spec, parse_sets
from meltbench.store import open_store
from meltbench.targets import Place


@dataclass(frozen=True)
class Wish:
    """``devices``: name to address; each is due ``apart_s`` after the one before, and runs ``sleep sleep_s``."""

    devices: dict[str, str]
    store: str
    apart_s: float
    sleep_s: float
    idle_s: float


@dataclass
class Turn:
    """One device's run, on this machine's wall clock: when it was due, was begun with, and was stored."""

    device: str
    due_ns: int
    called_ns: int = 0
    stored_ns: int = 0
    run_id: str = ""
    error: str = ""


@dataclass
class Told:
    """All turns; processor seconds of this process and of the programs it started, and its resident set in bytes, idle
    and at most."""

    turns: list[Turn] = field(default_factory=list)
    cpu_s: float = 0.0
    cpu_of_children_s: float = 0.0
    idle_bytes: int = 0
    most_bytes: int = 0


def _status(key: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def cpu_s_of(who: int) -> float:
    """Processor seconds, by getrusage(2): of this process, or of its children that have ended."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def enrolled(devices: dict[str, str], kind: Literal["ssh", "adb"] = "ssh") -> None:
    """Every device in the inventory, and the probe on it."""

    def refuse(error: Exception) -> None:
        raise error

    for name, address in devices.items():
        enrol.add(enrol.Asked(name, Place(kind, address)), Quiet(), refuse)


def measured(wish: Wish) -> Told:
    """All devices at once, each in its turn. One run of the first goes before: it imports what runs need."""
    knobs = parse_sets([f"idle_s={wish.idle_s}", "gate_timeout_s=0"])
    store = open_store(wish.store)
    wanted = {
        name: Spec(device=name, workload="exec", knobs=knobs, command=("sleep", str(wish.sleep_s)))
        for name in wish.devices
    }
    first = Spec(device=next(iter(wanted)), workload="exec", knobs=knobs, command=("sleep", "0"))
    assert len(list(road.run(plan.make(first), store, Quiet()))) == 1

    told = Told(idle_bytes=_status("VmRSS"))
    Path("/proc/self/clear_refs").write_text("5")  # the most of the resident set counts from here
    own_s, children_s = cpu_s_of(resource.RUSAGE_SELF), cpu_s_of(resource.RUSAGE_CHILDREN)
    began_ns = time.time_ns() + int(0.5e9)

    def one(turn: Turn) -> None:
        time.sleep(max(0.0, (turn.due_ns - time.time_ns()) / 1e9))
        turn.called_ns = time.time_ns()
        try:
            (record,) = road.run(plan.make(wanted[turn.device]), store, Quiet())
            turn.run_id, turn.stored_ns = record.run_id, time.time_ns()
            if record.manifest["outcome"] != "done":
                turn.error = str(record.manifest["failure"])
        except Exception:  # noqa: BLE001  one device's failure is a finding, and keeps no other from its turn
            turn.error = traceback.format_exc()

    told.turns = [Turn(name, began_ns + int(i * wish.apart_s * 1e9)) for i, name in enumerate(wanted)]
    threads = [threading.Thread(target=one, args=(turn,)) for turn in told.turns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.cpu_s = cpu_s_of(resource.RUSAGE_SELF) - own_s
    told.cpu_of_children_s = cpu_s_of(resource.RUSAGE_CHILDREN) - children_s
    told.most_bytes = _status("VmHWM")
    return told


def main() -> None:
    """Read the wish, do it, tell."""
    wish = Wish(**json.load(sys.stdin))
    enrolled(wish.devices)
    json.dump(asdict(measured(wish)), sys.stdout)


if __name__ == "__main__":
    main()
