"""The spans of a run, from the probe's events and the requests' own times.

Order of a run: idle_before, load, run (with prefill and decode of each request inside), idle_after. A span whose
edges were not both seen is left out, so that nothing is ever measured over a guessed one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.records import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Request

Event = dict[str, Any]


def phases(
    events: Sequence[Event], requests: Sequence[Request], process: str, loaded_ns: int | None = None
) -> list[Phase]:
    """All spans that both edges of were seen, in order of their start.

    ``process`` is the name of the process under test, ``loaded_ns`` when a program that no one can ask whether it is
    ready said that its model was loaded. ``run`` reaches from the first timed request sent to the last one
    ended; without requests it is the life of the process, or the idle window that was measured.
    """
    found = [span for name in ("idle_before", "idle_after") if (span := _step(events, name, name))]
    ready = _first(events, "ready", process)
    # The event is there also for an engine that was given up on: then it has no load time.
    loaded = ready if ready is not None and ready.get("load_ns") is not None else None
    if loaded_ns is not None:
        loaded = {"boot_ns": loaded_ns}
    if load := _between("load", _first(events, "spawn", process), loaded):
        found.append(load)
    timed = [r for r in requests if r.role == "timed" and r.t_end_ns > r.t_send_ns]
    if timed:
        found.append(Phase("run", min(r.t_send_ns for r in timed), max(r.t_end_ns for r in timed)))
    elif not requests:
        whole = _between("run", _first(events, "spawn", process), _first(events, "exit", process))
        if window := _step(events, "window", "run") or (whole if ready is None else None):
            found.append(window)
    for request in requests:
        found += _of_request(request)
    return sorted(found, key=lambda phase: (phase.t0_ns, -phase.t1_ns))


def _of_request(request: Request) -> list[Phase]:
    """Prefill until the first token, decode until the last; until the end, where an engine's tokens are not seen."""
    if request.t_first_ns is None or request.status != "ok":
        return []
    last = request.token_t_ns[-1] if request.token_t_ns else request.t_end_ns
    edges = (("prefill", request.t_send_ns, request.t_first_ns), ("decode", request.t_first_ns, last))
    return [Phase(name, start, end, request.index) for name, start, end in edges if end > start]


def _first(events: Sequence[Event], name: str, process: str) -> Event | None:
    return next((e for e in events if e["event"] == name and e.get("proc") == process), None)


def _between(name: str, start: Event | None, end: Event | None) -> Phase | None:
    if start is None or end is None or end["boot_ns"] <= start["boot_ns"]:
        return None
    return Phase(name, start["boot_ns"], end["boot_ns"])


def _step(events: Sequence[Event], step: str, name: str) -> Phase | None:
    edges = [e for e in events if e["event"] == "step" and e.get("name") == step and e.get("op") == "idle"]
    start = next((e for e in edges if e.get("state") == "start"), None)
    end = next((e for e in edges if e.get("state") == "end" and e.get("result") == "ok"), None)
    return _between(name, start, end)
