"""The mean clock of a run, from how long each group of cores ran at each of its states.

Mean = sum(f dt) / sum(dt) over the states of a policy. Polling scaling_cur_freq shows single moments, of which the
lowest and the highest are worth telling; the time in each state misses nothing.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.counters import difference
from meltbench.readings.timeinstate import TICK_S
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.digest import Digest
    from meltbench.records import Phase

# Ticks alone displace the mean of two states that share the time by tick / (wall sqrt(3)) of the span between them
# (k = 2): below 3 % from here on.
MIN_WALL_S = 0.2
MIN_ACCOUNTED = 0.9  # of the run: the states of a policy share all of its time, so less means that some were not read
_state = re.compile(r"cpufreq\.(policy\d+)\.at_hz\.(\d+)")


def mean_clocks(signals: Sequence[Digest], run: Phase | None) -> list[Measure]:
    """``cpu_freq_hz`` with stat "mean", one a policy that has statistics, with u (k = 2) or a reason."""
    policies: dict[str, list[tuple[float, Digest]]] = defaultdict(list)
    for one in signals:
        if match := _state.fullmatch(one.name):
            policies[match[1]].append((float(match[2]), one))
    return [_mean(name, states, run) for name, states in policies.items()] if run is not None else []


def _mean(policy: str, states: list[tuple[float, Digest]], run: Phase) -> Measure:
    source, method = f"cpufreq.{policy}.at_hz", "sum(f dt) / sum(dt) by time_in_state"

    def none(reason: str) -> Measure:
        return Measure("cpu_freq_hz", None, "Hz", "mean", source=source, reason=reason, method=method)

    if run.duration_s < MIN_WALL_S:
        return none(f"low_coverage: {run.duration_s:.2g} s, ticks of 10 ms tell it from {MIN_WALL_S:g} s on")
    found = []
    for hz, one in states:
        spent = difference(one, run.t0_ns, run.t1_ns)
        if isinstance(spent, str):
            return none(spent if ":" in spent else f"no_reading: {spent} of {one.name}")
        found.append((hz, spent, one))
    seconds = sum(spent for _, spent, _ in found)
    if not MIN_ACCOUNTED <= seconds / run.duration_s <= 1 / MIN_ACCOUNTED:
        return none(f"low_coverage: the states account for {seconds:.3g} of {run.duration_s:.3g} s")
    mean = sum(hz * spent for hz, spent, _ in found) / seconds
    # The difference of two readings, each cut to whole ticks, scatters by tick / sqrt(6).
    ticks = math.sqrt(sum((hz - mean) ** 2 for hz, spent, _ in found if spent > 0)) * TICK_S / math.sqrt(6)
    edges = [_edge(found, edge) for edge in (run.t0_ns, run.t1_ns)]
    u_k2 = 2 * math.hypot(ticks, *edges) / seconds
    return Measure("cpu_freq_hz", mean, "Hz", "mean", source=source, n=len(found), u_k2=u_k2, method=method)


def _edge(found: list[tuple[float, float, Digest]], edge: int) -> float:
    """The most (Hz s) that interpolating inside the interval around an edge can displace: share (1 - share) of it,
    times the span between the clocks that were used in it."""
    used = []
    width_s = 0.0
    for hz, _, counter in found:
        t, value = counter.kept["t"], counter.kept["v"]
        k = int(np.clip(np.searchsorted(t, edge, "right"), 1, len(t) - 1))
        if value[k] > value[k - 1]:
            span_s = float(t[k] - t[k - 1]) / 1e9
            share = float(edge - t[k - 1]) / 1e9 / span_s
            width_s = max(width_s, share * (1 - share) * span_s)
            used.append(hz)
    return width_s * (max(used) - min(used)) if used else 0.0
