"""How a run ended and why, from the probe's own events and the answers. The first cause wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Request

Event = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """``done``, ``failed`` or ``stopped`` (by the user); ``code`` is the validity reason of a run that is not done."""

    outcome: Literal["done", "failed", "stopped"]
    code: str | None = None
    detail: str | None = None


def outcome(events: Sequence[Event], requests: Sequence[Request], asked: int, process: str, kind: str) -> Outcome:
    """Judge a run. ``asked`` requests were planned; ``kind`` is the workload's."""
    end = next((e for e in events if e["event"] == "end"), None)
    if end is None:
        return Outcome("failed", "probe_killed", "the journal has no end: the probe died, or the target lost power")
    gone = next((e for e in events if e["event"] == "exit" and e.get("proc") == process), None)
    if gone is not None and gone.get("oom"):
        return Outcome("failed", "oom_killed", f"the kernel killed {process} for memory")
    what, code = ("the command", "command_failed") if kind == "exec" else ("the engine", "engine_failed")
    for name, judged in (("full", _full), ("stopping", _stopped)):
        found = next((e for e in events if e["event"] == name), None)
        if found is not None and (judgement := judged(found, code)) is not None:
            return judgement
    how = _how(what, gone) if gone is not None and not gone.get("by_us") else ""
    if kind == "exec" and gone is not None and how and (gone.get("signal") or gone.get("code")):
        return Outcome("failed", code, how)
    good = sum(r.status == "ok" for r in requests)
    if end.get("result") == "done" and good >= asked:
        return Outcome("done")
    reason = str(end.get("reason") or "")
    bad = next((r for r in requests if r.status != "ok"), None)
    said = [
        f"{good} of {asked} requests were answered; {bad.item}: {bad.status}: {bad.detail}" if bad else "",
        _failed_step(events, end, what) if reason else "",
        how,
    ]
    detail = "; ".join(part for part in said if part) or f"{good} of {asked} requests were answered"
    return Outcome("failed", "probe_killed" if reason == "probe_killed" else code, detail)


def _full(event: Event, _code: str) -> Outcome:
    why = "the disk of the target is full" if event.get("reason") == "enospc" else "the journal reached its limit"
    return Outcome("failed", "journal_full", why)


def _stopped(event: Event, code: str) -> Outcome | None:
    by = event.get("by")
    if by == "duration":
        return Outcome("failed", code, "the run took longer than it was given")
    return (
        Outcome("stopped", "aborted", "the run was ended before it was complete") if by in ("signal", "stop") else None
    )


def _failed_step(events: Sequence[Event], end: Event, what: str) -> str:
    """Which step ended the job, and the probe's reason."""
    if end.get("reason") == "probe_killed":
        return "the probe was killed"
    failed = next(
        (e for e in events if e["event"] == "step" and e.get("state") == "end" and e.get("result") != "ok"), None
    )
    step = f"{failed.get('op')} {failed.get('name')}" if failed else f"step {end.get('step')}"
    return f"{what if failed and failed.get('op') == 'exec' else step}: {end.get('reason')}"


def _how(what: str, gone: Event) -> str:
    return f"{what} ended with " + (f"signal {gone['signal']}" if gone.get("signal") else f"status {gone.get('code')}")
