"""Who killed a process that nobody of ours did: asked of the target's log, once its run has ended.

Only where a journal shows a SIGKILL that nothing explains, and only where the target has Android's logcat. What names
the process is kept beside the journal, so that the run can be measured again from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.compose import ENGINE
from meltbench.deadline import Deadline
from meltbench.errors import DeviceError
from meltbench.readings import lowmemory

if TYPE_CHECKING:
    from pathlib import Path

    from meltbench.probe.client import Probe
    from meltbench.probe.journal import Journal

FILE = "kills.log"  # in a run's evidence
_CALL_S = 30.0
_EARLIER_S = 5.0  # the wall clock may have been stepped by that much since


def ask(probe: Probe, journal: Journal, evidence: Path) -> None:
    """Fetch what the target's log says of the process that was killed. Without a word where it says nothing."""
    victim, path = unexplained(journal), evidence / FILE
    if victim is None or path.exists():  # asked before: the log may have forgotten since
        return
    pid, since_s = victim
    try:
        if not probe.programs(["logcat"]):
            return
        log = probe.transport.run(lowmemory.words(since_s - _EARLIER_S), Deadline.after(_CALL_S)).stdout
    except DeviceError:  # the run is here, and says that it was killed
        return
    path.write_bytes(lowmemory.naming(log, pid))


def told(evidence: Path) -> bytes:
    """What was kept of the log; nothing where nobody asked."""
    path = evidence / FILE
    return path.read_bytes() if path.exists() else b""


def unexplained(journal: Journal) -> tuple[int, float] | None:
    """The pid of the process that was killed from outside, and the wall-clock time (s) at which it was started: the
    engine's, else the probe's own where that did not live to end its journal."""
    begin = journal.first("begin") or {}
    starts = {event.get("pid"): event for event in journal.named("spawn") if event.get("proc") == ENGINE}
    for gone in journal.named("exit"):
        if gone.get("proc") == ENGINE and gone.get("signal") == 9 and not gone.get("by_us") and not gone.get("oom"):
            return _of(gone.get("pid"), starts.get(gone.get("pid"), begin), begin)
    end = journal.end
    if end is None or end.get("reason") == "probe_killed":
        return _of(begin.get("pid"), begin, begin)
    return None


def _of(pid: Any, started: dict[str, Any], begin: dict[str, Any]) -> tuple[int, float] | None:
    boot, at_begin, wall = started.get("boot_ns"), begin.get("boot_ns"), begin.get("wall_ns")
    if not (isinstance(pid, int) and isinstance(boot, int) and isinstance(at_begin, int) and isinstance(wall, int)):
        return None
    return pid, (wall + boot - at_begin) / 1e9
