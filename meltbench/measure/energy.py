"""Energy of a window: the difference of a counter, or the trapezoid of a gauge, interpolated at both edges.

Uncertainty (k = 2): u^2 = (gain E)^2 + sum over edges (d |P_left - P_right|)^2 + alias^2, with
gain = class limit / sqrt(3) and d = clock offset bound + width of the stamp + the most that interpolating within one
interval between updates can displace a step of power. An edge of a counter adds (P width)^2 / 12 for scatter. The
repetition term s^2/n of the full formula is 0 here: one window is measured once, and the spread between runs belongs
to the analysis of runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.counters import Counter, middle_ns, unwrap, usable
from meltbench.records import Measure

if TYPE_CHECKING:
    import numpy.typing as npt

    from meltbench.records import Phase, Series

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

GAIN_LIMIT = {"A": 0.01, "B": 0.05, "C": 0.10, "D": 0.20}  # E, a model or an estimate, has no limit to state
MIN_GAUGE_UPDATES = 10
MIN_COVERAGE = 0.9
STEADY_SHARE = 0.99  # of readings that are new; polling at 97 ms a register of 100 ms repeats 3 % of its values
GAP_FACTOR = 3.0  # a pause longer than this many usual periods is lost evidence


@dataclass(frozen=True)
class Trace:
    """A series made ready once, for many windows. Counter: ``t``/``v`` are its updates. Gauge: its samples.

    ``stamp_s`` is the width of the interval in which each of them really happened.
    """

    series: Series
    counter: Counter | None
    t: Ints
    v: Floats
    stamp_s: Floats


@dataclass(frozen=True)
class Window:
    """What was found for one window; ``reason`` is set exactly when ``energy_j`` is None."""

    energy_j: float | None
    reason: str | None
    u_edge_j: float = 0.0
    u_alias_j: float = 0.0
    n: int = 0
    coverage: float | None = None
    method: str = ""


def prepare(series: Series, max_power_w: float | None = None, update_s: float = 0.0) -> Trace:
    """Unwraps a counter, or drops a gauge's unreadable samples.

    ``update_s``: how old a counter's value can be when it is read. Where readings are slower than the register no
    reading shows that age, so it must be known (RAPL: 976 us); faster ones show it by repeating values.
    """
    if series.kind != "counter":
        good = usable(series)
        stamp = (series.t1_ns - series.t0_ns)[good] / 1e9
        return Trace(series, None, middle_ns(series)[good], series.value[good], stamp)
    counter = unwrap(series, max_power_w)
    at = np.flatnonzero(counter.fresh)
    good = usable(series)
    stamp = (series.t1_ns - series.t0_ns)[good][at] / 1e9
    stamp = stamp + update_s
    # Repeated values: the register is slower than, or as slow as, the readings, and a change is up to one of them old.
    if len(at) < STEADY_SHARE * (len(counter.t_ns) - 1):
        stamp = stamp + (counter.t_ns[at] - counter.t_ns[at - 1]) / 1e9
    return Trace(series, counter, counter.t_ns[at], counter.value[at], stamp)


def window(trace: Trace, t0_ns: int, t1_ns: int, clock_bound_s: float = 0.0) -> Window:
    """The energy from t0 to t1, or the reason why the evidence is too short for it."""
    if t1_ns <= t0_ns:
        return Window(None, "low_coverage: the window is empty")
    if trace.counter is not None:
        return _counter_window(trace, trace.counter, t0_ns, t1_ns, clock_bound_s)
    return _gauge_window(trace, t0_ns, t1_ns, clock_bound_s)


def _counter_window(trace: Trace, counter: Counter, t0: int, t1: int, clock_s: float) -> Window:
    t, method = trace.t, "counter difference, interpolated at both edges"
    n = int(np.searchsorted(t, t1, "right") - np.searchsorted(t, t0, "left"))
    if not len(t):
        return Window(None, "stale_sensor: the counter never changed", method=method)
    if t0 < t[0] or t1 > t[-1]:
        return Window(None, "low_coverage: no counter update on both sides of both edges", n=n, method=method)
    if n < 1:
        return Window(None, "low_coverage: no counter update inside the window", n=0, method=method)
    enclosing = int(t[np.searchsorted(t, t0, "right") - 1]), int(t[np.searchsorted(t, t1, "left")])
    if counter.reset_within(*enclosing):
        return Window(None, "counter_reset: the counter was reset inside the window", n=n, method=method)
    low, high = np.interp([t0, t1], t, trace.v).tolist()
    if high < low:
        return Window(None, "counter_reset: the counter ran backwards", n=n, method=method)
    edges = [_counter_edge(trace, edge, clock_s) for edge in (t0, t1)]
    return Window(high - low, None, math.hypot(*edges), 0.0, n, 1.0, method)


def _counter_edge(trace: Trace, edge: int, clock_s: float) -> float:
    """The uncertainty of one edge, from the mean powers of the intervals beside the one the edge lies in.

    d |P_left - P_right| for all that displaces the edge, and P x width / sqrt(12) for stamps that scatter: unlike
    an offset common to both edges, scatter stretches the window, which costs energy at constant power too.
    """
    t, v = trace.t, trace.v
    k = int(np.clip(np.searchsorted(t, edge, "right"), 1, len(t) - 1))  # the edge lies between updates k-1 and k
    span = (t[k] - t[k - 1]) / 1e9
    share = (edge - t[k - 1]) / 1e9 / span
    power = np.diff(v[max(k - 2, 0) : k + 2]) / (np.diff(t[max(k - 2, 0) : k + 2]) / 1e9)
    width = float(max(trace.stamp_s[k - 1], trace.stamp_s[k]))
    d = clock_s + width + share * (1 - share) * span
    return math.hypot(d * float(power.max() - power.min()), float(power.max()) * width / math.sqrt(12))


def _gauge_window(trace: Trace, t0: int, t1: int, clock_s: float) -> Window:
    t, v, method = trace.t, trace.v, "trapezoid of power, interpolated at both edges"
    if not len(t) or t0 < t[0] or t1 > t[-1]:
        return Window(None, "low_coverage: no sample on both sides of both edges", method=method)
    a, b = int(np.searchsorted(t, t0, "left")), int(np.searchsorted(t, t1, "right"))
    fresh = int((np.diff(v[max(a - 1, 0) : b]) != 0).sum())
    if fresh < MIN_GAUGE_UPDATES:
        words = f"stale_sensor: {fresh} fresh values in the window, {MIN_GAUGE_UPDATES} are needed"
        return Window(None, words, n=fresh, method=method)
    coverage = _gauge_coverage(t, t0, t1)
    if coverage < MIN_COVERAGE:
        return Window(None, f"low_coverage: {coverage:.0%} of the window", n=fresh, coverage=coverage, method=method)
    energy = _trapezoid(t, v, t0, t1)
    # Half the difference between every other sample and the rest: what the choice of instants does to the sum.
    halves = [_trapezoid(t[i::2], v[i::2], t0, t1) for i in (0, 1)]
    edges = [_gauge_edge(trace, edge, clock_s, side) for side, edge in enumerate((t0, t1))]
    alias = abs(halves[0] - halves[1]) / 2
    return Window(energy, None, math.hypot(*edges), alias, fresh, coverage, method)


def _trapezoid(t: Ints, v: Floats, t0: int, t1: int) -> float:
    """Integral of the polyline from t0 to t1; equal values in a row are kept, or constant power would be 0 J."""
    inside = (t > t0) & (t < t1)
    edge = np.interp([t0, t1], t, v)
    x = (np.concatenate([[t0], t[inside], [t1]]) - t0) / 1e9
    y = np.concatenate([edge[:1], v[inside], edge[1:]])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def _gauge_coverage(t: Ints, t0: int, t1: int) -> float:
    """The part of the window outside long pauses between samples."""
    gap = np.diff(t)
    usual = float(np.median(gap))
    overlap = np.clip(np.minimum(t[1:], t1) - np.maximum(t[:-1], t0), 0, None)
    return 1.0 - float(overlap[gap > GAP_FACTOR * usual].sum()) / (t1 - t0)


def _gauge_edge(trace: Trace, edge: int, clock_s: float, side: int) -> float:
    t, v = trace.t, trace.v
    k = int(np.clip(np.searchsorted(t, edge, "right"), 1, len(t) - 1))
    span = (t[k] - t[k - 1]) / 1e9
    share = (edge - t[k - 1]) / 1e9 / span
    inner = share if side else 1 - share  # the part of the interval inside the window
    d = clock_s + float(max(trace.stamp_s[k - 1], trace.stamp_s[k])) + inner * inner * span / 2
    return float(d * abs(v[k] - v[k - 1]))


def gain_u(klass: str | None) -> float | None:
    """Relative standard uncertainty of the gain: the class limit / sqrt(3); None for a model or an unknown class."""
    limit = GAIN_LIMIT.get(klass or "")
    return None if limit is None else limit / math.sqrt(3)


def combine_k2(klass: str | None, energy_j: float, *parts_j: float) -> float | None:
    """u at k = 2 from the gain and the parts that do not depend on each other."""
    gain = gain_u(klass)
    return None if gain is None else 2 * math.hypot(gain * energy_j, *parts_j)


def energy(source: Series | Trace, phase: Phase, *, clock_bound_s: float = 0.0) -> Measure:
    """The gross energy of one phase in joules, None with a named reason where evidence is short.

    ``clock_bound_s`` bounds the offset between the clocks of the samples and of the phase: 0 when both were
    stamped by the probe on one clock.
    """
    trace = source if isinstance(source, Trace) else prepare(source)
    found = window(trace, phase.t0_ns, phase.t1_ns, clock_bound_s)
    s = trace.series
    u = None if found.energy_j is None else combine_k2(s.klass, found.energy_j, found.u_edge_j, found.u_alias_j)
    return Measure(
        "energy_j", found.energy_j, "J", phase=phase.name, scope=s.scope, source=s.name, n=found.n, u_k2=u,
        method=found.method, reason=found.reason, klass=s.klass, coverage=found.coverage,
    )  # fmt: skip


def mean_power(trace: Trace, t0_ns: int, t1_ns: int, clock_bound_s: float = 0.0) -> tuple[float, float, int] | str:
    """Mean power (W), its standard uncertainty without gain, and updates over the window's inner updates.

    For idle windows, whose edges are the first and last thing recorded: power needs no exact edge, energy does.
    """
    inside = trace.t[(trace.t >= t0_ns) & (trace.t <= t1_ns)]
    if len(inside) < 2:
        return "low_coverage: fewer than two updates in the idle window"
    a, b = int(inside[0]), int(inside[-1])
    if (b - a) < 0.5 * (t1_ns - t0_ns):
        return f"low_coverage: updates span {(b - a) / (t1_ns - t0_ns):.0%} of the idle window"
    found = window(trace, a, b, clock_bound_s)
    if found.energy_j is None:
        return found.reason or ""
    seconds = (b - a) / 1e9
    return found.energy_j / seconds, math.hypot(found.u_edge_j, found.u_alias_j) / seconds, found.n
