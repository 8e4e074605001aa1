"""What the run cost in energy: gross and net, by phase, by point of a grid, by token and by request.

All of it is from the designated total. The run reaches from the first timed request's sending to the last one's end:
pauses between requests count, and so do the prefills that set up the points of a grid.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from meltbench.measure.baseline import Baseline, idle, net_energy
from meltbench.measure.energy import Rail, energy
from meltbench.measure.inference import COSTS, inference_costs
from meltbench.measure.per_request import enclosing, is_short
from meltbench.measure.points import points, unlike
from meltbench.measure.ratios import NET_RATIOS, RATIOS, net_ratios, point_costs, run_ratios
from meltbench.measure.sums import like, summed
from meltbench.measure.total import TOTAL
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.engines.prompts import Kind
    from meltbench.records import Phase, Request

_SUMMED = ("prefill", "decode")
LEAST_W = 0.05  # an eighth of what a Pi Zero idles at; a unit that is off by a thousand lies below for all but servers
SERVED: tuple[Kind, ...] = ("generate", "chat", "grid", "sustained")
SCORED: tuple[Kind, ...] = ("choices", "perplexity")  # servers whose answers are single tokens, of no rate of their own
INFERRED: tuple[Kind, ...] = ("infer",)  # plain models: tensors in and out
_COMPUTED = (*SERVED, *SCORED, *INFERRED)
NO_RUN: dict[Kind, str] = dict.fromkeys(_COMPUTED, "no_timed_request: no timed request was sent") | {
    "exec": "no_reading: the command did not run, or its end was not seen",
    "idle": "no_reading: the idle window was not measured",
}


def energy_measures(
    total: Rail | None,
    absent_reason: str,
    phases: Sequence[Phase],
    requests: Sequence[Request],
    *,
    kind: Kind = "generate",
    max_power_w: float = math.inf,
) -> list[Measure]:
    """Every energy measure that makes sense for what ran; with no total each is None with ``absent_reason``.

    A power that the device cannot have drawn is shown by none of them, see ``_implausible``.
    """
    if total is None:
        return _absent(absent_reason, kind, requests)
    gross, *of_phases = rail_measures(total, phases, requests, kind=kind)
    spans = {phase.name: phase for phase in phases}
    of_idle, baseline = idle(total, spans)
    seconds = spans["run"].duration_s if "run" in spans else 0.0
    net = net_energy(total, gross, seconds, baseline)
    out = [gross, net, _power(gross, seconds), *of_idle]
    for one in of_phases:
        lasted = sum(p.duration_s for p in _of_name(one.phase, phases, requests))
        out += [one, net_energy(total, one, lasted, baseline)]
    if kind in SERVED:
        out += point_costs(total, gross, requests, kind)
        out += net_ratios(net, requests, unlike(kind, requests))
    elif kind in SCORED:
        out += [one for one in run_ratios(gross, requests) if one.name == "j_per_request"]
    elif kind in INFERRED:
        out += inference_costs(gross, net, requests)
    return without(out, _implausible(total, gross, seconds, baseline, kind) or too_much(gross, seconds, max_power_w))


def rail_measures(
    rail: Rail, phases: Sequence[Phase], requests: Sequence[Request], *, kind: Kind = "generate"
) -> list[Measure]:
    """Gross energy of one rail: over the run first; of an engine's also over load, of a server's over
    prefills and decodes."""
    spans = {phase.name: phase for phase in phases}
    run, load = spans.get("run"), spans.get("load")
    gross = like(rail, "energy_j", "J", reason=NO_RUN[kind]) if run is None else energy(rail, run)
    loaded = [] if load is None else [energy(rail, load)]
    if kind in INFERRED:
        return [gross, *loaded]
    if kind not in SERVED:
        return [gross]
    summed_up = [_phase_sum(rail, name, phases, requests) for name in _SUMMED]
    if any(is_short(one.reason) for one in summed_up):
        where = enclosing(rail, requests) or ("" if gross.value is None else "; the run has it")
        summed_up = [replace(m, reason=f"{m.reason}{where}") if is_short(m.reason) else m for m in summed_up]
    return [gross, *loaded, *summed_up]


def too_much(gross: Measure, seconds: float, max_power_w: float) -> str:
    """Why the energy of a run cannot be true, empty where it can: it is more than the device can draw."""
    watts = 0.0 if gross.value is None else gross.value / seconds
    return f"implausible_power: {watts:.3g} W over the run, {max_power_w:.3g} W at most" if watts > max_power_w else ""


def without(measures: Sequence[Measure], why: str) -> list[Measure]:
    """The measures without their values, for the reason ``why``; as they are where there is none."""
    if not why:
        return list(measures)
    return [m if m.value is None else replace(m, value=None, u_k2=None, reason=why) for m in measures]


def _implausible(rail: Rail, gross: Measure, seconds: float, baseline: Baseline | str, kind: Kind) -> str:
    """Why the total of a run cannot be true, empty where it can: it is none at all, or an engine computed and it is
    less than any machine needs for that, or less than idling took by more than what both idle windows differ and the
    rest of its u."""
    if gross.value is None:
        return ""
    watts = gross.value / seconds
    still = [part.name for part in rail.parts if part.head.unit == "W" and part.whole.low == part.whole.high]
    if still and kind in _COMPUTED:
        return f"stale_sensor: {still[0]} had one value, idle and under load"
    if watts <= 0:
        return f"implausible_power: {watts:.3g} W over the run"
    if kind in _COMPUTED and rail.scope != "rail" and watts < LEAST_W:
        return f"implausible_power: {watts:.3g} W over the run, no machine computes on less than {LEAST_W:g} W"
    if isinstance(baseline, str) or kind not in _COMPUTED:
        return ""
    net, u = baseline.above(rail, gross, seconds)
    below = u is not None and net < -u
    return f"implausible_power: {watts:.3g} W over the run, idling took {baseline.watts:.3g} W" if below else ""


def _absent(reason: str, kind: Kind, requests: Sequence[Request]) -> list[Measure]:
    """The same measures with no total to take them from."""
    out = [
        _none(name, unit, reason) for name, unit in (("energy_j", "J"), ("net_energy_j", "J"), ("mean_power_w", "W"))
    ]
    out += [_none("idle_power_w", "W", reason, name) for name in ("idle_before", "idle_after")]
    out += [_none("j_per_request", "J/request", reason, stat="ratio_of_sums")] * (kind in SCORED)
    if kind in INFERRED:
        out += [_none(name, "J", reason, "load") for name in ("energy_j", "net_energy_j")]
        out += [_none(name, unit, reason, stat="ratio_of_sums") for name, unit in COSTS]
    if kind not in SERVED:
        return out
    for phase in ("load", *_SUMMED):
        out += [_none(name, "J", reason, phase) for name in ("energy_j", "net_energy_j")]
    of_run = unlike(kind, requests) or reason
    out += [_none(name, unit, of_run, stat="ratio_of_sums") for name, unit in (*RATIOS, *NET_RATIOS)]
    for point in points(requests):
        out.append(_none("energy_j", "J", reason, point))
        out += [_none(name, unit, reason, point, "ratio_of_sums") for name, unit in RATIOS]
    return out


def _none(name: str, unit: str, reason: str, phase: str = "run", stat: str = "value") -> Measure:
    return Measure(name, None, unit, stat=stat, phase=phase, source=TOTAL, reason=reason)


def _power(gross: Measure, seconds: float) -> Measure:
    if gross.value is None:
        return replace(gross, name="mean_power_w", unit="W")
    u = None if gross.u_k2 is None else gross.u_k2 / seconds
    return replace(gross, name="mean_power_w", unit="W", value=gross.value / seconds, u_k2=u)


def _of_name(name: str, phases: Sequence[Phase], requests: Sequence[Request]) -> list[Phase]:
    """The phases of a name in order: of prefill and decode those of timed requests."""
    timed = {request.index for request in requests if request.role == "timed"}
    mine = (p for p in phases if p.name == name and (name not in _SUMMED or p.request in timed))
    return sorted(mine, key=lambda p: p.t0_ns)


def _phase_sum(rail: Rail, name: str, phases: Sequence[Phase], requests: Sequence[Request]) -> Measure:
    """Sum over the timed requests' phases of one name: all of them or none, and none where requests overlapped."""
    spans = _of_name(name, phases, requests)
    both = sorted((p for one in _SUMMED for p in _of_name(one, phases, requests)), key=lambda p: p.t0_ns)
    if not spans:
        return like(rail, "energy_j", "J", reason="no_timed_request: no such phase was seen", phase=name)
    if any(a.t1_ns > b.t0_ns and a.request != b.request for a, b in pairwise(both)):
        why = "overlapping_requests: requests ran at the same time and share their energy"
        return like(rail, "energy_j", "J", reason=why, phase=name)
    return summed(rail, name, [(p.t0_ns, p.t1_ns) for p in spans], f"{name} phases")
