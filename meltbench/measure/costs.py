"""What the run cost in energy: gross and net, by phase, by point of a grid, by token and by request.

All of it is from the designated total. The run reaches from the first timed request's sending to the last one's end:
pauses between requests count, and so do the prefills that set up the points of a grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from meltbench.measure.energy import Rail, combine_k2, energy, gain_u, mean_power
from meltbench.measure.points import points, unlike
from meltbench.measure.ratios import RATIOS, point_costs
from meltbench.measure.sums import like, summed
from meltbench.measure.total import TOTAL
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.engines.prompts import Kind
    from meltbench.records import Phase, Request

_SUMMED = ("prefill", "decode")
SERVED: tuple[Kind, ...] = ("generate", "chat", "grid", "sustained")
NO_RUN: dict[Kind, str] = dict.fromkeys(SERVED, "no_timed_request: no timed request was sent") | {
    "exec": "no_reading: the command did not run, or its end was not seen",
    "idle": "no_reading: the idle window was not measured",
}


@dataclass(frozen=True)
class _Baseline:
    """Idle power before and after; ``u_w`` is its standard uncertainty without gain."""

    watts: float
    u_w: float


def energy_measures(
    total: Rail | None,
    absent_reason: str,
    phases: Sequence[Phase],
    requests: Sequence[Request],
    *,
    kind: Kind = "generate",
    clock_bound_s: float = 0.0,
) -> list[Measure]:
    """Every energy measure that makes sense for what ran; with no total each is None with ``absent_reason``."""
    if total is None:
        return _absent(absent_reason, kind, requests)
    gross, *of_phases = rail_measures(total, phases, requests, kind=kind, clock_bound_s=clock_bound_s)
    spans = {phase.name: phase for phase in phases}
    idle, baseline = _baseline(total, spans, clock_bound_s)
    seconds = spans["run"].duration_s if "run" in spans else 0.0
    out = [gross, _net(total, gross, seconds, baseline), _power(gross, seconds), *idle, *of_phases]
    if kind not in SERVED:
        return out
    return out + point_costs(total, gross, requests, clock_bound_s, kind)


def rail_measures(
    rail: Rail,
    phases: Sequence[Phase],
    requests: Sequence[Request],
    *,
    kind: Kind = "generate",
    clock_bound_s: float = 0.0,
) -> list[Measure]:
    """Gross energy of one rail: over the run first; of a server's run also over load, prefills and decodes."""
    spans = {phase.name: phase for phase in phases}
    run, load = spans.get("run"), spans.get("load")
    if run is None:
        gross = like(rail, "energy_j", "J", reason=NO_RUN[kind])
    else:
        gross = energy(rail, run, clock_bound_s=clock_bound_s)
    if kind not in SERVED:
        return [gross]
    loaded = [] if load is None else [energy(rail, load, clock_bound_s=clock_bound_s)]
    return [gross, *loaded, *(_phase_sum(rail, name, phases, requests, clock_bound_s) for name in _SUMMED)]


def _absent(reason: str, kind: Kind, requests: Sequence[Request]) -> list[Measure]:
    """The same measures with no total to take them from."""
    out = [
        _none(name, unit, reason) for name, unit in (("energy_j", "J"), ("net_energy_j", "J"), ("mean_power_w", "W"))
    ]
    out += [_none("idle_power_w", "W", reason, name) for name in ("idle_before", "idle_after")]
    if kind not in SERVED:
        return out
    out += [_none("energy_j", "J", reason, name) for name in ("load", *_SUMMED)]
    of_run = unlike(kind, requests) or reason
    out += [_none(name, unit, of_run, stat="ratio_of_sums") for name, unit in RATIOS]
    for point in points(requests):
        out.append(_none("energy_j", "J", reason, point))
        out += [_none(name, unit, reason, point, "ratio_of_sums") for name, unit in RATIOS]
    return out


def _none(name: str, unit: str, reason: str, phase: str = "run", stat: str = "value") -> Measure:
    return Measure(name, None, unit, stat=stat, phase=phase, source=TOTAL, reason=reason)


def _baseline(rail: Rail, spans: dict[str, Phase], clock_bound_s: float) -> tuple[list[Measure], _Baseline | str]:
    """Idle power of both windows, and the baseline they make: their mean, half their difference in its u."""
    measures, found, problem = [], [], ""
    for name in ("idle_before", "idle_after"):
        phase = spans.get(name)
        one = (
            mean_power(rail, phase.t0_ns, phase.t1_ns, clock_bound_s)
            if phase is not None
            else "no_baseline: the window was not run"
        )
        if isinstance(one, str):
            problem = problem or f"no_baseline: {name}: {one.removeprefix('no_baseline: ')}"
            measures.append(like(rail, "idle_power_w", "W", reason=one, phase=name))
            continue
        watts, u_w, n = one
        found.append((watts, u_w))
        u = combine_k2(rail.klass, watts, u_w)
        measures.append(like(rail, "idle_power_w", "W", watts, u_k2=u, phase=name, n=n))
    if problem:
        return measures, problem
    (before, u_before), (after, u_after) = found
    spread = abs(before - after) / 2
    return measures, _Baseline((before + after) / 2, math.hypot(spread, u_before / 2, u_after / 2))


def _net(rail: Rail, gross: Measure, seconds: float, baseline: _Baseline | str) -> Measure:
    """Gross less idle power times duration; below zero by more than its own u the baseline drifted, and it is None."""
    if gross.value is None:
        return replace(gross, name="net_energy_j")
    if isinstance(baseline, str):
        return like(rail, "net_energy_j", "J", reason=baseline)
    net = gross.value - baseline.watts * seconds
    gain = gain_u(rail.klass)
    u = None
    if gain is not None and gross.u_k2 is not None:
        # One instrument measured both, so its gain acts on the difference; the rest of gross.u is edges.
        edges = math.sqrt(max((gross.u_k2 / 2) ** 2 - (gain * gross.value) ** 2, 0.0))
        u = 2 * math.hypot(gain * net, edges, baseline.u_w * seconds)
    if net < 0 and (u is None or -net > u):
        return like(rail, "net_energy_j", "J", reason=f"net_below_baseline: {net:.3g} J, idle drew more than the run")
    method = "gross less the mean idle power before and after times the duration"
    return like(rail, "net_energy_j", "J", net, u_k2=u, n=gross.n, method=method, coverage=gross.coverage)


def _power(gross: Measure, seconds: float) -> Measure:
    if gross.value is None:
        return replace(gross, name="mean_power_w", unit="W")
    u = None if gross.u_k2 is None else gross.u_k2 / seconds
    return replace(gross, name="mean_power_w", unit="W", value=gross.value / seconds, u_k2=u)


def _phase_sum(
    rail: Rail, name: str, phases: Sequence[Phase], requests: Sequence[Request], clock_bound_s: float
) -> Measure:
    """Sum over the timed requests' phases of one name: all of them or none, and none where requests overlapped."""
    timed = {request.index for request in requests if request.role == "timed"}
    spans = sorted((p for p in phases if p.name == name and p.request in timed), key=lambda p: p.t0_ns)
    both = sorted((p for p in phases if p.name in _SUMMED and p.request in timed), key=lambda p: p.t0_ns)
    if not spans:
        return like(rail, "energy_j", "J", reason="no_timed_request: no such phase was seen", phase=name)
    if any(a.t1_ns > b.t0_ns and a.request != b.request for a, b in pairwise(both)):
        why = "overlapping_requests: requests ran at the same time and share their energy"
        return like(rail, "energy_j", "J", reason=why, phase=name)
    return summed(rail, name, [(p.t0_ns, p.t1_ns) for p in spans], f"{name} phases", clock_bound_s)
