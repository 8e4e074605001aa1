"""How a run ended and why, from the probe's own events and the answers. The first cause wins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from meltbench.measure.validity import NOT_STARTED
from meltbench.readings import lowmemory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Request

Event = dict[str, Any]

# What a signal tells of a program that nobody of ours sent it to.
_SIGNALS = {
    4: "an instruction this processor does not have: the build is for another one",
    6: "it gave up by itself: its last lines say why",
    7: "a page of its files could not be read: the file was cut meanwhile, or the disk failed",
    8: "it divided by zero",
    9: "it was killed from outside",
    11: "it reached for memory that it does not have: a bug, or a damaged model",
    15: "it was told to end from outside",
    31: "a system call that it may not make here",
}
# What the loader of programs says before a program's first instruction (ld.so(8)).
_LOADER = (
    (
        re.compile(r"error while loading shared libraries: ([^\s:]{1,100}): cannot open"),
        "it needs the library {}, which is not there",
    ),
    (
        re.compile(r"error while loading shared libraries: ([^\s:]{1,100}): ([^\n]{1,100})"),
        "its library {} cannot be loaded: {}",
    ),
    (
        re.compile(r"version [`']([A-Z]{1,20}_[\d.]{1,20})' not found"),
        "it needs {}, which the C library here does not have",
    ),
    (
        re.compile(r"symbol lookup error: [^\n]{1,200}undefined symbol: (\S{1,100})"),
        "a library of another version: it lacks {}",
    ),
)
_CODES = {126: "it may not be executed", 127: "it, or something that it starts, was not found"}
_NO_START = "cannot start: "
_STARTS = {
    "Exec format error": "it is no program for this machine",
    "No such file or directory": "it, or the loader that it names, is not there",
    "Permission denied": "it may not be executed, or its disk is mounted noexec",
}


@dataclass(frozen=True)
class Outcome:
    """``done``, ``failed`` or ``stopped`` (by the user); ``code`` is the validity reason of a run that is not done.

    ``cause``: what of an engine that did not die by itself made it so: the status of the first request that failed, or
    "not_started"; empty where it is neither.
    """

    outcome: Literal["done", "failed", "stopped"]
    code: str | None = None
    detail: str | None = None
    cause: str = ""


def outcome(
    events: Sequence[Event],
    requests: Sequence[Request],
    asked: int,
    process: str,
    kind: str,
    log: str = "",
    kills: bytes = b"",
) -> Outcome:
    """Judge a run. ``asked`` requests were planned; ``kind`` is the workload's, ``log`` what the process printed,
    ``kills`` what the target's log says of a process that was killed."""
    end = next((e for e in events if e["event"] == "end"), None)
    if end is None:
        why = "the journal has no end: the probe died, or the target lost power"
        return Outcome("failed", "probe_killed", why + _low_memory(kills, _probe(events)))
    gone = _worst([e for e in events if e["event"] == "exit" and e.get("proc") == process])
    if gone is not None and gone.get("oom"):
        return Outcome("failed", "oom_killed", f"the kernel killed {process} for memory")
    shot = gone is not None and gone.get("signal") == 9 and not gone.get("by_us")
    if shot and (words := _low_memory(kills, gone)):
        return Outcome("failed", "oom_killed", f"Android's low-memory killer ended {process}{words}")
    if end.get("reason") == "device_rebooted":
        return Outcome("failed", "device_rebooted", "the device rebooted, or lost power, before the run had ended")
    what, code = ("the command", "command_failed") if kind == "exec" else ("the engine", "engine_failed")
    for name, judged in (("full", _full), ("stopping", _stopped)):
        found = next((e for e in events if e["event"] == name), None)
        if found is not None and (judgement := judged(found, code)) is not None:
            return judgement
    how = _how(what, gone, log) if gone is not None and not gone.get("by_us") else ""
    if kind == "exec" and gone is not None and how and (gone.get("signal") or gone.get("code")):
        return Outcome("failed", code, how)
    good = sum(r.status == "ok" for r in requests)
    if end.get("result") == "done" and good >= asked:
        return Outcome("done")
    reason = str(end.get("reason") or "")
    bad = next((r for r in requests if r.status != "ok"), None)
    said = [
        f"{good} of {asked} requests were answered; {bad.item}: {bad.status}: {bad.detail}" if bad else "",
        _failed_step(events, end, what, kills) if reason else "",
        how,
    ]
    detail = "; ".join(part for part in said if part) or f"{good} of {asked} requests were answered"
    if reason == "probe_killed":
        return Outcome("failed", "probe_killed", detail)
    cause = "" if how else NOT_STARTED if reason.startswith(_NO_START) else bad.status if bad is not None else ""
    return Outcome("failed", code, detail, cause)


def _probe(events: Sequence[Event]) -> Event:
    return next((e for e in events if e["event"] == "begin"), {})


def _low_memory(kills: bytes, event: Event | None) -> str:
    """What the low-memory killer said of the process of an event, to be put behind other words."""
    pid = (event or {}).get("pid")
    said = lowmemory.killed(kills, pid) if isinstance(pid, int) and kills else None
    return f": {said}" if said else ""


def _full(event: Event, _code: str) -> Outcome:
    why = "the disk of the target is full" if event.get("reason") == "enospc" else "the journal reached its limit"
    return Outcome("failed", "journal_full", why)


def _stopped(event: Event, code: str) -> Outcome | None:
    by = event.get("by")
    if by == "duration":
        return Outcome("failed", code, "the run took longer than it was given")
    if by == "steal":
        return Outcome("stopped", "aborted", "another controller took the device over, and ended the run")
    return (
        Outcome("stopped", "aborted", "the run was ended before it was complete") if by in ("signal", "stop") else None
    )


def _failed_step(events: Sequence[Event], end: Event, what: str, kills: bytes) -> str:
    """Which step ended the job, and the probe's reason."""
    if end.get("reason") == "probe_killed":
        return "the probe was killed" + _low_memory(kills, _probe(events))
    failed = next((e for e in events if e["event"] == "step" and e.get("state") == "end" and _ended_it(e)), None)
    step = f"{failed.get('op')} {failed.get('name')}" if failed else f"step {end.get('step')}"
    said = str(end.get("reason"))
    words = next((f" ({meant})" for why, meant in _STARTS.items() if said == f"{_NO_START}{why}"), "")
    return f"{what if failed and failed.get('op') == 'exec' else step}: {said}{words}"


def _ended_it(event: Event) -> bool:
    """Whether a step's end ended the job: a try that failed did not."""
    return event.get("result") != "ok" and event.get("op") != "try"


def _worst(gone: Sequence[Event]) -> Event | None:
    """Of several processes of one name the one whose end says most: the first that failed, else the last."""
    bad = (e for e in gone if e.get("oom") or e.get("signal") or e.get("code"))
    return next(bad, gone[-1] if gone else None)


def _how(what: str, gone: Event, log: str) -> str:
    """How a process ended, and what that means where it is known."""
    signal, code = gone.get("signal"), gone.get("code")
    ended = f"{what} ended with " + (f"signal {signal}" if signal else f"status {code}")
    meant = _SIGNALS.get(signal) if isinstance(signal, int) else _said(log) if code else None
    if meant is None and isinstance(code, int):
        meant = _CODES.get(code)
    return f"{ended}: {meant}" if meant else ended


def _said(log: str) -> str | None:
    """What the loader complained of."""
    return next((words.format(*found.groups()) for pattern, words in _LOADER if (found := pattern.search(log))), None)
