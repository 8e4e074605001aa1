"""Energy by token and by request: ratios of sums, never a mean of ratios.

A run of like requests has one set, from the first timed request's sending to the last one's end, pauses between
included. A grid has one set a point: its requests are not alike, and between them lie prefills that only set a context
up. A point's energy is the sum over its own requests from sending to end, and its prompts count without what came from
the cache, because that was paid for outside of them. In a run of like requests cached prompt tokens do count. A level
of concurrency is such a run within the run. Of a chat there are both: the run's, and those of first and later turns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meltbench.measure.energy import energy
from meltbench.measure.points import groups_of, in_a_row, incomplete, points, span_ns, together, unlike
from meltbench.measure.sums import like, summed
from meltbench.records import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.engines.prompts import Kind
    from meltbench.measure.energy import Rail
    from meltbench.records import Measure, Request

RATIOS = (
    ("j_per_output_token", "J/token"),
    ("j_per_total_token", "J/token"),
    ("j_per_request", "J/request"),
    ("tokens_per_joule", "token/J"),
    ("edp_js", "J.s"),
)
NET_RATIOS = tuple((f"net_{name}", unit) for name, unit in RATIOS[:3])
_NET_METHOD = "net energy of the run over sums of its timed requests; prompt tokens with cached ones"
_RUN_METHOD = "energy of the run over sums of its timed requests; prompt tokens with cached ones"
_LEVEL_METHOD = "energy of the level, first sending to last end, over sums of its requests"
_POINT_METHOD = "energy of the point's requests over their sums; prompt tokens without cached ones"
_NO_OUTPUT = "no_output_tokens: the requests generate none"


def run_ratios(gross: Measure, requests: Sequence[Request], method: str = _RUN_METHOD) -> list[Measure]:
    """Ratios of the run's energy over its timed requests, None where one of them failed."""
    timed = [request for request in requests if request.role == "timed"]
    why = incomplete(timed) if timed else "no_timed_request: nothing to divide by"
    return _ratios(gross, timed, why, method, cached=True)


def net_ratios(net: Measure, requests: Sequence[Request], why: str) -> list[Measure]:
    """Net energy of a run of like requests by token and by request; ``why`` there are none."""
    timed = [request for request in requests if request.role == "timed"]
    lacking = incomplete(timed) if timed else "no_timed_request: nothing to divide by"
    why = why or net.reason or lacking
    blank = replace(net, value=None, u_k2=None, stat="ratio_of_sums", n=len(timed), method=_NET_METHOD)
    if net.value is None or why:
        return [replace(blank, name=name, unit=unit, reason=why) for name, unit in NET_RATIOS]
    out = []
    for (name, unit), share in zip(NET_RATIOS, _values(1.0, timed, cached=True), strict=False):
        one = replace(blank, name=name, unit=unit)
        if isinstance(share, str):
            out.append(replace(one, reason=share))
        else:
            out.append(replace(one, value=net.value * share, u_k2=None if net.u_k2 is None else net.u_k2 * share))
    return out


def point_costs(rail: Rail, gross: Measure, requests: Sequence[Request], kind: Kind = "grid") -> list[Measure]:
    """Ratios of the run where its requests are alike; of each point the energy and its ratios, under its name as phase.

    Requests of a level of concurrency overlap, so its energy is that of one window: first sending to last end. Of
    points whose requests lie among others' it is summed over its own, those that were under way at once as one.
    """
    why = unlike(kind, requests)
    out = (
        _ratios(replace(gross, value=None, reason=why), [], "", "", cached=True) if why else run_ratios(gross, requests)
    )
    apart, groups = kind == "generate" and in_a_row(requests), together(requests)
    for point in points(requests):
        timed = [r for r in requests if r.point == point and r.role == "timed"]
        good = [r for r in timed if r.status == "ok"]
        if apart:
            cost = _level_energy(rail, point, timed, requests)
            out += [cost, *run_ratios(cost, timed, _LEVEL_METHOD)]
            continue
        cost = _point_energy(rail, point, groups)
        out += [cost, *_ratios(cost, good, "", _POINT_METHOD, cached=False)]
    return out


def _point_energy(rail: Rail, point: str, groups: Sequence[Sequence[Request]]) -> Measure:
    """Several answers to one question are generated at a time: what they take together is of the point."""
    mine, mixed = groups_of(point, groups)
    good = [group for group in mine if any(r.status == "ok" for r in group)]
    why = ""
    if mixed:
        why = "overlapping_requests: requests ran at the same time and share their energy"
    elif not good:
        why = "no_timed_request: none succeeded"
    elif any(r.status != "ok" for group in good for r in group):
        why = "request_failed: one that failed shares the energy of others"
    if why:
        return like(rail, "energy_j", "J", reason=why, phase=point)
    return summed(rail, point, [span_ns(group) for group in good], f"requests of {point}")


def _level_energy(rail: Rail, point: str, timed: Sequence[Request], requests: Sequence[Request]) -> Measure:
    t0, t1 = span_ns(timed)
    if any(r.point != point and r.t_send_ns < t1 and r.t_end_ns > t0 for r in requests):
        why = "overlapping_requests: another level ran at the same time and shares its energy"
        return like(rail, "energy_j", "J", reason=why, phase=point)
    return energy(rail, Phase(point, t0, t1))


def _ratios(energy: Measure, requests: Sequence[Request], why: str, method: str, *, cached: bool) -> list[Measure]:
    """``RATIOS`` of ``energy``, all None for its own reason or ``why``."""
    reason = energy.reason or why
    if energy.value is not None and not reason and energy.value <= 0:
        reason = "implausible_power: the energy is not above zero"
    if energy.value is None or reason:
        blank = replace(energy, value=None, u_k2=None, stat="ratio_of_sums", reason=reason)
        return [replace(blank, name=name, unit=unit) for name, unit in RATIOS]
    relative = None if energy.u_k2 is None else energy.u_k2 / energy.value
    out = []
    for (name, unit), value in zip(RATIOS, _values(energy.value, requests, cached), strict=True):
        one = replace(energy, name=name, unit=unit, stat="ratio_of_sums", n=len(requests), method=method)
        if isinstance(value, str):
            out.append(replace(one, value=None, u_k2=None, reason=value))
        else:
            out.append(replace(one, value=value, u_k2=None if relative is None else value * relative))
    return out


def _values(energy_j: float, requests: Sequence[Request], cached: bool) -> list[float | str]:
    """The values of ``RATIOS``, in its order; a string is the reason for a missing one."""
    made, taken = _sum([r.n_out for r in requests]), _sum([_prompt(r, cached) for r in requests])
    latency = [request.e2e_s for request in requests if request.e2e_s is not None]
    per_request = energy_j / len(requests)
    by_output: list[float | str] = [_NO_OUTPUT] * 2
    if made is None:
        by_output = ["no_token_count: of the answers"] * 2
    elif made:
        by_output = [energy_j / made, made / energy_j]
    by_total: float | str = "no_token_count: of the prompts or the answers"
    if made is not None and taken is not None:
        by_total = energy_j / (made + taken) if made + taken else "no_tokens: neither taken in nor given out"
    whole = len(latency) == len(requests)
    edp = per_request * sum(latency) / len(requests) if whole else "request_failed: no end-to-end time"
    return [by_output[0], by_total, per_request, by_output[1], edp]


def _prompt(request: Request, cached: bool) -> int | None:
    """Prompt tokens that count: all of them, or those that had to be evaluated."""
    if cached or request.n_in is None:
        return request.n_in
    return None if request.n_cached is None else request.n_in - request.n_cached


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
