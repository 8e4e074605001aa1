"""What idling takes: the power of the windows before and after a run, and what a run took above it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meltbench.measure.energy import Rail, mean_power
from meltbench.measure.sums import like

if TYPE_CHECKING:
    from meltbench.records import Measure, Phase


@dataclass(frozen=True)
class Baseline:
    """Idle power before and after; ``u_w`` is its standard uncertainty without gain, half the difference in it."""

    watts: float
    u_w: float

    def above(self, rail: Rail, gross: Measure, seconds: float) -> tuple[float, float | None]:
        """A gross energy that has a value, less what idling would have taken (J), and its u at k = 2."""
        assert gross.value is not None
        net = gross.value - self.watts * seconds
        if rail.gain is None or gross.u_k2 is None:
            return net, None
        # One instrument measured both, so its gain acts on the difference; the rest of gross.u is edges.
        edges = math.sqrt(max((gross.u_k2 / 2) ** 2 - (rail.gain * gross.value) ** 2, 0.0))
        return net, rail.u_k2(net, edges, self.u_w * seconds)


def idle(rail: Rail, spans: dict[str, Phase]) -> tuple[list[Measure], Baseline | str]:
    """Idle power of both windows, and the baseline that they make: their mean. Else why there is none."""
    measures, found, problem = [], [], ""
    for name in ("idle_before", "idle_after"):
        phase = spans.get(name)
        one = mean_power(rail, phase.t0_ns, phase.t1_ns) if phase is not None else "no_baseline: the window was not run"
        if isinstance(one, str):
            problem = problem or f"no_baseline: {name}: {one.removeprefix('no_baseline: ')}"
            measures.append(like(rail, "idle_power_w", "W", reason=one, phase=name))
            continue
        watts, u_w, n = one
        found.append((watts, u_w))
        measures.append(like(rail, "idle_power_w", "W", watts, u_k2=rail.u_k2(watts, u_w), phase=name, n=n))
    if problem:
        return measures, problem
    (before, u_before), (after, u_after) = found
    spread = abs(before - after) / 2
    return measures, Baseline((before + after) / 2, math.hypot(spread, u_before / 2, u_after / 2))


def net_energy(rail: Rail, gross: Measure, seconds: float, baseline: Baseline | str) -> Measure:
    """Gross less idle power times duration; below zero by more than its own u the baseline drifted, and it is None."""
    if gross.value is None:
        return replace(gross, name="net_energy_j")
    if isinstance(baseline, str):
        return like(rail, "net_energy_j", "J", reason=baseline, phase=gross.phase)
    net, u = baseline.above(rail, gross, seconds)
    if net < 0 and (u is None or -net > u):
        why = f"net_below_baseline: {net:.3g} J, idle drew more than the {gross.phase}"
        return like(rail, "net_energy_j", "J", reason=why, phase=gross.phase)
    method = "gross less the mean idle power before and after times the duration"
    return replace(gross, name="net_energy_j", value=net, u_k2=u, method=method)
