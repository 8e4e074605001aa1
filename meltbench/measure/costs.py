"""What the run cost in energy: gross and net, by phase, by token and by request, from the designated total.

Numerator of every ratio: the gross energy from the first timed request's sending to the last one's end, pauses between
requests included. Denominators are sums over the same timed requests. A ratio of sums, never a mean of ratios.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from meltbench.measure.energy import Trace, combine_k2, energy, gain_u, mean_power, prepare, window
from meltbench.measure.total import MAX_POWER_W, RAPL_UPDATE_S, TOTAL
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Phase, Request, Series

_SUMMED = ("prefill", "decode")
_RATIO_METHOD = "energy of the run over sums of its timed requests"
_RATIOS = (
    ("j_per_output_token", "J/token"),
    ("j_per_total_token", "J/token"),
    ("j_per_request", "J/request"),
    ("tokens_per_joule", "token/J"),
    ("edp_js", "J.s"),
)


@dataclass(frozen=True)
class _Baseline:
    """Idle power before and after; ``u_w`` is its standard uncertainty without gain."""

    watts: float
    u_w: float


def energy_measures(
    total: Series | None,
    absent_reason: str,
    phases: Sequence[Phase],
    requests: Sequence[Request],
    *,
    clock_bound_s: float = 0.0,
    max_power_w: float = MAX_POWER_W,
    update_s: float = RAPL_UPDATE_S,
) -> list[Measure]:
    """Every energy measure of a run; with no total each is None with ``absent_reason``."""
    if total is None:
        return [_none(name, unit, absent_reason, phase, stat) for name, unit, phase, stat in _names()]
    trace = prepare(total, max_power_w, update_s)
    spans = {phase.name: phase for phase in phases}
    run = spans.get("run")
    if run is None:
        gross = _none("energy_j", "J", "no_timed_request: no timed request was sent")
    else:
        gross = energy(trace, run, clock_bound_s=clock_bound_s)
    idle, baseline = _baseline(trace, spans, clock_bound_s)
    seconds = run.duration_s if run is not None else 0.0
    out = [gross, _net(trace, gross, seconds, baseline), _power(gross, seconds), *idle]
    load = spans.get("load")
    if load is not None:
        out.append(energy(trace, load, clock_bound_s=clock_bound_s))
    out += [_phase_sum(trace, name, phases, requests, clock_bound_s) for name in _SUMMED]
    return out + _ratios(gross, requests)


def _names() -> list[tuple[str, str, str, str]]:
    return [
        ("energy_j", "J", "run", "value"),
        ("net_energy_j", "J", "run", "value"),
        ("mean_power_w", "W", "run", "value"),
        ("idle_power_w", "W", "idle_before", "value"),
        ("idle_power_w", "W", "idle_after", "value"),
        ("energy_j", "J", "load", "value"),
        *(("energy_j", "J", name, "value") for name in _SUMMED),
        *((name, unit, "run", "ratio_of_sums") for name, unit in _RATIOS),
    ]


def _none(name: str, unit: str, reason: str, phase: str = "run", stat: str = "value") -> Measure:
    return Measure(name, None, unit, stat=stat, phase=phase, source=TOTAL, reason=reason)


def _baseline(trace: Trace, spans: dict[str, Phase], clock_bound_s: float) -> tuple[list[Measure], _Baseline | str]:
    """Idle power of both windows, and the baseline they make: their mean, half their difference in its u."""
    measures, found, problem = [], [], ""
    for name in ("idle_before", "idle_after"):
        phase = spans.get(name)
        one = (
            mean_power(trace, phase.t0_ns, phase.t1_ns, clock_bound_s)
            if phase is not None
            else "no_baseline: the window was not run"
        )
        if isinstance(one, str):
            problem = problem or f"no_baseline: {name}: {one.removeprefix('no_baseline: ')}"
            measures.append(_like(trace, "idle_power_w", "W", reason=one, phase=name))
            continue
        watts, u_w, n = one
        found.append((watts, u_w))
        u = combine_k2(trace.series.klass, watts, u_w)
        measures.append(_like(trace, "idle_power_w", "W", watts, u_k2=u, phase=name, n=n))
    if problem:
        return measures, problem
    (before, u_before), (after, u_after) = found
    spread = abs(before - after) / 2
    return measures, _Baseline((before + after) / 2, math.hypot(spread, u_before / 2, u_after / 2))


def _like(
    trace: Trace,
    name: str,
    unit: str,
    value: float | None = None,
    *,
    reason: str | None = None,
    phase: str = "run",
    stat: str = "value",
    u_k2: float | None = None,
    n: int | None = None,
    method: str = "",
    coverage: float | None = None,
) -> Measure:
    """A measure that carries the total's scope, class and name."""
    s = trace.series
    return Measure(name, value, unit, stat, phase, s.scope, TOTAL, n, u_k2, method, reason, s.klass, coverage)


def _net(trace: Trace, gross: Measure, seconds: float, baseline: _Baseline | str) -> Measure:
    """Gross less idle power times duration; below zero by more than its own u the baseline drifted, and it is None."""
    if gross.value is None:
        return replace(gross, name="net_energy_j")
    if isinstance(baseline, str):
        return _like(trace, "net_energy_j", "J", reason=baseline)
    net = gross.value - baseline.watts * seconds
    gain = gain_u(trace.series.klass)
    u = None
    if gain is not None and gross.u_k2 is not None:
        # One instrument measured both, so its gain acts on the difference; the rest of gross.u is edges.
        edges = math.sqrt(max((gross.u_k2 / 2) ** 2 - (gain * gross.value) ** 2, 0.0))
        u = 2 * math.hypot(gain * net, edges, baseline.u_w * seconds)
    if net < 0 and (u is None or -net > u):
        return _like(trace, "net_energy_j", "J", reason=f"net_below_baseline: {net:.3g} J, idle drew more than the run")
    method = "gross less the mean idle power before and after times the duration"
    return _like(trace, "net_energy_j", "J", net, u_k2=u, n=gross.n, method=method, coverage=gross.coverage)


def _power(gross: Measure, seconds: float) -> Measure:
    if gross.value is None:
        return replace(gross, name="mean_power_w", unit="W")
    u = None if gross.u_k2 is None else gross.u_k2 / seconds
    return replace(gross, name="mean_power_w", unit="W", value=gross.value / seconds, u_k2=u)


def _phase_sum(
    trace: Trace, name: str, phases: Sequence[Phase], requests: Sequence[Request], clock_bound_s: float
) -> Measure:
    """Sum over the timed requests' phases of one name: all of them or none, and none where requests overlapped."""
    timed = {request.index for request in requests if request.role == "timed"}
    spans = sorted((p for p in phases if p.name == name and p.request in timed), key=lambda p: p.t0_ns)
    both = sorted((p for p in phases if p.name in _SUMMED and p.request in timed), key=lambda p: p.t0_ns)
    if not spans:
        return _like(trace, "energy_j", "J", reason="no_timed_request: no such phase was seen", phase=name)
    if any(a.t1_ns > b.t0_ns and a.request != b.request for a, b in pairwise(both)):
        why = "overlapping_requests: requests ran at the same time and share their energy"
        return _like(trace, "energy_j", "J", reason=why, phase=name)
    found = [window(trace, p.t0_ns, p.t1_ns, clock_bound_s) for p in spans]
    short = [one for one in found if one.energy_j is None]
    n = sum(one.n for one in found)
    if short:
        why = f"{short[0].reason} ({len(short)} of {len(found)} {name} phases)"
        return _like(trace, "energy_j", "J", reason=why, phase=name, n=n)
    value = sum(one.energy_j or 0.0 for one in found)
    # Interpolation smears every prefill into its neighbours with the same sign: edges add up, they do not average out.
    edges = sum(one.u_edge_j for one in found)
    alias = math.hypot(*(one.u_alias_j for one in found))
    return _like(
        trace, "energy_j", "J", value, phase=name, n=n, u_k2=combine_k2(trace.series.klass, value, edges, alias),
        method=f"sum over {len(found)} timed requests: {found[0].method}",
        coverage=min(one.coverage or 0.0 for one in found),
    )  # fmt: skip


def _ratios(gross: Measure, requests: Sequence[Request]) -> list[Measure]:
    timed = [request for request in requests if request.role == "timed"]
    bad = [request for request in timed if request.status != "ok" or not request.n_out]
    why = gross.reason
    if gross.value is not None and not timed:
        why = "no_timed_request: nothing to divide by"
    elif gross.value is not None and bad:
        # The energy of a failed request is in the numerator, and nobody knows its tokens.
        why = f"request_failed: {len(bad)} of {len(timed)} timed requests have no whole answer"
    elif gross.value is not None and gross.value <= 0:
        why = "implausible_power: the energy is not above zero"
    if gross.value is None or why is not None:
        blank = replace(gross, value=None, u_k2=None, stat="ratio_of_sums", reason=why)
        return [replace(blank, name=name, unit=unit) for name, unit in _RATIOS]
    relative = None if gross.u_k2 is None else gross.u_k2 / gross.value
    out = []
    for (name, unit), value in zip(_RATIOS, _ratio_values(gross.value, timed), strict=True):
        one = replace(gross, name=name, unit=unit, stat="ratio_of_sums", n=len(timed), method=_RATIO_METHOD)
        if isinstance(value, str):
            out.append(replace(one, value=None, u_k2=None, reason=value))
        else:
            out.append(replace(one, value=value, u_k2=None if relative is None else value * relative))
    return out


def _ratio_values(energy_j: float, timed: Sequence[Request]) -> list[float | str]:
    """The values of ``_RATIOS``, in its order; a string is the reason for a missing one."""
    output = sum(request.n_out or 0 for request in timed)
    prompts = [request.n_in for request in timed if request.n_in is not None]
    latency = [request.e2e_s for request in timed if request.e2e_s is not None]
    per_request = energy_j / len(timed)
    return [
        energy_j / output,
        energy_j / (output + sum(prompts)) if len(prompts) == len(timed) else "no_token_count: of the prompts",
        per_request,
        output / energy_j,
        per_request * sum(latency) / len(timed) if len(latency) == len(timed) else "request_failed: no end-to-end time",
    ]
