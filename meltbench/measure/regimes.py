"""The regimes of a run: burst, throttled, recovery, sustained; and idle, load and unload around it.

They follow one another without a gap or an overlap. ``throttled``: the platform says that it slows the device, its cap
or clock fell, or its token rate did. ``recovery``: after that, until the old rate is back; after the run, until the
device is cool again. ``burst``: the run from its beginning, or after a recovery. ``sustained``: how a run ends that has
settled: the drift of like requests and its 95 % interval lie within 1 % a minute, and the power is not drifting. It
begins ``settling_s`` after the beginning of the last burst, or of the last fall of the token rate; while the platform
itself says that it slows the device, that is ``throttled``, however long.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.costs import SERVED
from meltbench.measure.pace import FELL_BY, Pace, middle_ns, pace
from meltbench.measure.slowed import Heat, Slowed, hottest, platform_slowed, rate_slowed
from meltbench.measure.sustained import MIN_DRIFT_REQUESTS, drift, settling_s
from meltbench.records import Measure, Phase, Regime

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from meltbench.engines.prompts import Kind
    from meltbench.measure.digest import Digest
    from meltbench.records import Request

    Span = tuple[int, int]

_APART_NS = 3_000_000_000  # evidence with shorter pauses is of one piece
COOL_C, COOL_SHARE = 1.0, 0.1  # above the start, or of the run's rise, whichever is more: then a device is cool again
_COOL = f"less than {COOL_C:g} degC or {COOL_SHARE:.0%} of its rise"
_MAX_CAUSES = 4
_AROUND = {"idle_before": "idle", "idle_after": "idle", "load": "load"}


@dataclass(frozen=True)
class Found:
    """``regimes`` of the record in order, the times in which the device was ``throttled``, settled or not, and how long
    it took to recover; ``recovery`` is None where nothing makes it worth a row."""

    regimes: tuple[Regime, ...] = ()
    throttled: tuple[Regime, ...] = ()
    recovery: Measure | None = None


@dataclass
class _Run:
    """What is looked at, and the regimes so far."""

    run: Phase
    whole: Span
    pace: Pace | None
    heat: Heat | None
    slowed: list[Slowed]
    power_drifts: bool
    throttled: list[Regime] = field(default_factory=list)
    regimes: list[Regime] = field(default_factory=list)

    def put(self, one: Regime) -> None:
        """A regime in the place of what was there."""
        if one.t1_ns <= one.t0_ns:
            return
        kept = [one]
        for old in self.regimes:
            sides = (old.t0_ns, min(old.t1_ns, one.t0_ns)), (max(old.t0_ns, one.t1_ns), old.t1_ns)
            kept += [replace(old, t0_ns=t0, t1_ns=t1) for t0, t1 in sides if t1 > t0]
        self.regimes = sorted(kept, key=lambda regime: regime.t0_ns)


def regimes(
    kind: Kind,
    signals: Sequence[Digest],
    phases: Sequence[Phase],
    requests: Sequence[Request],
    power_drift: Measure | None = None,
) -> Found:
    """The regimes of a record. ``power_drift``: as meltbench.measure.sustained tells it, where it does."""
    spans = [phase for phase in phases if phase.request is None]
    if not spans:
        return Found()
    whole = min(span.t0_ns for span in spans), max(span.t1_ns for span in spans)
    run = next((span for span in spans if span.name == "run"), None)
    if run is None:
        return Found(tuple(_around(spans, whole, None)))
    served = kind in SERVED
    heat, rates = hottest(signals, run), pace(requests) if served else None
    slowed = [*platform_slowed(signals, whole, run, loaded=served), *rate_slowed(rates, heat)]
    drifts = power_drift is not None and power_drift.method.startswith("drifting")
    look = _Run(run, whole, rates, heat, slowed, drifts)
    look.regimes = _around(spans, whole, run)
    first = ("idle", "") if kind == "idle" else ("burst", "from the beginning of the run")
    look.put(Regime(first[0], run.t0_ns, run.t1_ns, first[1]))
    _throttle(look)
    recovery = _recover(look)
    _sustain(look, kind)
    worth = look.throttled or kind == "sustained"
    return Found(tuple(look.regimes), tuple(look.throttled), recovery if worth else None)


def _around(spans: Sequence[Phase], whole: Span, run: Phase | None) -> list[Regime]:
    """The phases around the run, and what lies between them: the engine's start and warm-up, and its end."""
    named = sorted((span for span in spans if span.name in _AROUND), key=lambda span: span.t0_ns)
    out: list[Regime] = []
    at = whole[0]
    for span in [*named, Phase("", whole[1], whole[1])]:
        if span.t0_ns > at:
            behind = run is not None and at >= run.t1_ns
            if run is not None and at < run.t1_ns < span.t0_ns:
                out.append(Regime("load", at, run.t1_ns, ""))  # most of it is the run itself, which is put over it
                at, behind = run.t1_ns, True
            out.append(Regime("unload" if behind else "load", at, span.t0_ns, ""))
        if span.t1_ns > max(at, span.t0_ns):
            out.append(Regime(_AROUND[span.name], max(at, span.t0_ns), span.t1_ns, ""))
        at = max(at, span.t1_ns)
    return _joined(out)


def _joined(regimes: Iterable[Regime]) -> list[Regime]:
    out: list[Regime] = []
    for one in regimes:
        if out and (out[-1].name, out[-1].cause, out[-1].t1_ns) == (one.name, one.cause, one.t0_ns):
            out[-1] = replace(out[-1], t1_ns=one.t1_ns)
        else:
            out.append(one)
    return out


def _union(spans: Iterable[Span]) -> list[Span]:
    """Spans with their short pauses filled."""
    out: list[Span] = []
    for t0, t1 in sorted(spans):
        if out and t0 - out[-1][1] < _APART_NS:
            out[-1] = (out[-1][0], max(out[-1][1], t1))
        else:
            out.append((t0, t1))
    return out


def _throttle(look: _Run) -> None:
    """What slowed the device within the run; a flag that stands at the end of it is followed beyond."""
    run = look.run
    for begin, end in _union((one.t0_ns, one.t1_ns) for one in look.slowed):
        t0, t1 = max(begin, run.t0_ns), min(end, look.whole[1])
        if t0 >= min(t1, run.t1_ns):
            continue
        of = [one for one in look.slowed if one.t0_ns < t1 and one.t1_ns > t0]
        of.sort(key=lambda one: (not one.platform, one.t0_ns))
        said = max((one.t1_ns for one in of if one.platform), default=t1)
        if t1 < run.t1_ns:  # the rate is back: from where the platform let go on, it was on its way
            t1 = min(t1, said)
        causes = list(dict.fromkeys(one.cause for one in of))
        words = ", ".join(causes[:_MAX_CAUSES]) + (" ..." if len(causes) > _MAX_CAUSES else "")
        look.throttled.append(Regime("throttled", t0, t1, words + _heat(look, t0)))
        look.put(look.throttled[-1])


def _heat(look: _Run, t_ns: int) -> str:
    heat = look.heat
    temp_c = None if heat is None else heat.course.at(t_ns)
    if heat is None or temp_c is None:
        return "; no thermometer tells why" if not any(one.platform for one in look.slowed) else ""
    return f"; {heat.name} at {temp_c:.1f} degC, {temp_c - heat.start_c:+.1f} since the start"


def _recover(look: _Run) -> Measure:
    """Until the old rate is back, or after the run until the device is cool; the measure is of the last throttling."""
    run, told = look.run, Measure("recovery_s", None, "s", reason="not_throttled: there was nothing to recover from")
    for at, one in enumerate(look.throttled):
        if one.t1_ns >= run.t1_ns:
            told = _cooled(look, one)
            continue
        until = look.throttled[at + 1].t0_ns if at + 1 < len(look.throttled) else run.t1_ns
        back = None if look.pace is None else look.pace.back_ns(one.t1_ns)
        how = f"until the first request within {FELL_BY:.0%} of the rate before"
        if look.pace is None:
            told = Measure("recovery_s", None, "s", reason="no_reading: no request tells the rate after it", method=how)
            continue
        look.put(Regime("recovery", one.t1_ns, until if back is None else min(back, until), how))
        if back is None or back > run.t1_ns:
            told = Measure("recovery_s", None, "s", reason="not_recovered: the rate never came back", method=how)
        else:
            told = Measure("recovery_s", (back - one.t1_ns) / 1e9, "s", method=how)
    return told


def _cooled(look: _Run, last: Regime) -> Measure:
    """After a run that ended throttled: until the hottest zone is near what it was at the start."""
    t0, end, heat = max(last.t1_ns, look.run.t1_ns), look.whole[1], look.heat
    how = f"after the run, until the hottest zone is {_COOL} above what it was at the start"
    if t0 >= end:
        why = "not_recovered: throttled until the end of the record"
        return Measure("recovery_s", None, "s", reason=why, method=how)
    if heat is None:
        why = "no_thermal_sensor: the run ended throttled, and no zone tells when it was cool"
        return Measure("recovery_s", None, "s", reason=why, method=how)
    goal = heat.start_c + max(COOL_C, COOL_SHARE * heat.rise_c(look.run.t0_ns, look.run.t1_ns))
    after = heat.course.within(t0, end)
    cool = np.flatnonzero(after.mean <= goal)
    back = int(after.t_ns[cool[0]]) if len(cool) else end
    look.put(Regime("recovery", t0, back, how))
    if not len(cool):
        last_c = f"{after.mean[-1]:.1f} degC" if len(after) else "no temperature"
        why = f"not_recovered: {last_c} after {(end - t0) / 1e9:.0f} s, {goal:.1f} degC is near the start"
        return Measure("recovery_s", None, "s", reason=why, method=how)
    return Measure("recovery_s", (back - t0) / 1e9, "s", n=len(after), method=how)


def _sustain(look: _Run, kind: Kind) -> None:
    """The end of the run where it has settled, at the old rate or at one that fell."""
    wait_ns, end = round(settling_s(look.run.duration_s) * 1e9), look.run.t1_ns
    for one in list(look.regimes):
        if one.name == "burst" and one.t0_ns > look.run.t0_ns:
            look.put(replace(one, cause="after throttling"))
        if kind not in SERVED or one.name not in ("burst", "throttled") or not one.t0_ns < end <= one.t1_ns:
            continue
        start, before = one.t0_ns, ""
        if one.name == "throttled":
            falls = [s.t1_ns if s.platform else s.t0_ns for s in look.slowed if s.t0_ns < end and s.t1_ns > one.t0_ns]
            start, before = max([start, *falls]), f"; throttled before: {one.cause}"
        if (words := _settled(look, start + wait_ns, end)) is not None:
            look.put(Regime("sustained", start + wait_ns, end, words + before))


def _settled(look: _Run, t0_ns: int, t1_ns: int) -> str | None:
    """The drift in words where it is known to be small; None where it is not, or the stretch is shorter than a wait."""
    if look.pace is None or look.power_drifts or t1_ns - t0_ns < settling_s(0.0) * 1e9:
        return None
    times = np.array([middle_ns(request) for request in look.pace.requests])
    mine = (times >= t0_ns) & (times < t1_ns)
    if mine.sum() < MIN_DRIFT_REQUESTS:
        return None
    found = drift(((times[mine] - t0_ns) / 1e9).tolist(), np.exp(look.pace.relative[mine]).tolist())
    if found is None or found.label != "settled":
        return None
    return f"the token rate drifts by {found.per_min:+.2%} a minute"
