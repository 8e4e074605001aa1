"""Energy of a window: the difference of a counter, or the trapezoid of a gauge, interpolated at both edges.

Uncertainty (k = 2): u^2 = (gain E)^2 + sum over edges (d |P_left - P_right|)^2 + alias^2, with
gain = class limit / sqrt(3) and d = clock offset bound + width of the stamp + the most that interpolating within one
interval between updates can displace a step of power. An edge of a counter adds (P width)^2 / 12 for scatter. The
repetition term s^2/n of the full formula is 0 here: one window is measured once, and the spread between runs belongs
to the analysis of runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.digest import Digest, digest
from meltbench.records import Measure

if TYPE_CHECKING:
    import numpy.typing as npt

    from meltbench.measure.digest import Columns
    from meltbench.records import Phase, Scope, Series

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

GAIN_LIMIT = {"A": 0.01, "B": 0.05, "C": 0.10, "D": 0.20}  # E, a model or an estimate, has no limit to state
MIN_GAUGE_UPDATES = 10
MIN_COVERAGE = 0.9
STEADY_SHARE = 0.99  # of readings that are new; polling at 97 ms a register of 100 ms repeats 3 % of its values
TRAILING = "_average"  # what the name of a gauge ends in that says the mean of the time before it was read


@dataclass(frozen=True)
class Rail:
    """What an energy is of: one signal, or several that do not contain each other and so add up."""

    name: str
    scope: Scope
    klass: str | None
    parts: tuple[Digest, ...]


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


def rail_of(signal: Digest) -> Rail:
    """The rail that one signal measures."""
    return Rail(signal.name, signal.head.scope, signal.head.klass, (signal,))


def prepare(series: Series) -> Rail:
    """A signal that is held whole as a rail, for windows that are not known yet."""
    return rail_of(digest(series))


def window(rail: Rail, t0_ns: int, t1_ns: int, clock_bound_s: float = 0.0) -> Window:
    """The energy from t0 to t1, or the reason why the evidence is too short for it."""
    if t1_ns <= t0_ns:
        return Window(None, "low_coverage: the window is empty")
    found = [_part(part, t0_ns, t1_ns, clock_bound_s) for part in rail.parts]
    missing = [(part, one) for part, one in zip(rail.parts, found, strict=True) if one.energy_j is None]
    if missing:
        part, one = missing[0]
        # Of one signal alone its name is the rail's already.
        return one if len(found) == 1 else replace(one, reason=f"{one.reason} ({part.name})")
    return Window(
        sum(one.energy_j or 0.0 for one in found), None,
        sum(one.u_edge_j for one in found),  # all parts see the same steps of power at an edge, with one sign
        math.hypot(*(one.u_alias_j for one in found)),
        min(one.n for one in found), min(one.coverage or 0.0 for one in found), found[0].method,
    )  # fmt: skip


def _part(part: Digest, t0: int, t1: int, clock_s: float) -> Window:
    if part.name.endswith(TRAILING):
        return Window(None, f"trailing_average: {part.name} is the mean of the time before each reading")
    if part.head.kind == "counter":
        return _counter_window(part, t0, t1, clock_s)
    return _gauge_window(part, t0, t1, clock_s)


def _counter_window(counter: Digest, t0: int, t1: int, clock_s: float) -> Window:
    t, v, place = (counter.kept[name] for name in ("t", "v", "place"))
    method = "counter difference, interpolated at both edges"
    if not len(t):
        return Window(None, "stale_sensor: the counter never changed", method=method)
    first, last = int(np.searchsorted(t, t0, "left")), int(np.searchsorted(t, t1, "right")) - 1
    n = int(place[last] - place[first]) + 1 if first <= last else 0
    if t0 < t[0] or t1 > t[-1]:
        return Window(None, "low_coverage: no counter update on both sides of both edges", n=n, method=method)
    # A window shorter than the time between updates tells of its surroundings and not of itself.
    around = [_between(counter, edge) for edge in (t0, t1)] if len(t) > 1 else []
    apart = max((int(t[k] - t[k - 1]) for k in around), default=0)
    if n < 1:
        return Window(None, "low_coverage: no counter update inside the window", n=0, method=method)
    if t1 - t0 < apart:
        words = f"low_coverage: {apart / 1e9:.2g} s between updates, the window has {(t1 - t0) / 1e9:.2g} s"
        return Window(None, words, n=n, method=method)
    enclosing = int(t[np.searchsorted(t, t0, "right") - 1]), int(t[np.searchsorted(t, t1, "left")])
    if counter.reset_within(*enclosing):
        return Window(None, "counter_reset: the counter was reset inside the window", n=n, method=method)
    edges = [_counter_edge(counter, edge, clock_s) for edge in (t0, t1)]
    low, high = (_at(t, v, k, edge) for k, edge in zip(around, (t0, t1), strict=True))
    if high < low:
        return Window(None, "counter_reset: the counter ran backwards", n=n, method=method)
    return Window(high - low, None, math.hypot(*edges), 0.0, n, 1.0, method)


def _at(t: Ints, v: Floats, k: int, edge: int) -> float:
    """The counter at an edge that lies between updates k-1 and k."""
    return float(np.interp(edge, t[k - 1 : k + 1], v[k - 1 : k + 1]))


def _counter_edge(counter: Digest, edge: int, clock_s: float) -> float:
    """The uncertainty of one edge, from the mean powers of the intervals beside the one the edge lies in.

    d |P_left - P_right| for all that displaces the edge, and P x width / sqrt(12) for stamps that scatter: unlike
    an offset common to both edges, scatter stretches the window, which costs energy at constant power too.
    """
    t, v = counter.kept["t"], counter.kept["v"]
    k = _between(counter, edge)  # the edge lies between updates k-1 and k
    span = (t[k] - t[k - 1]) / 1e9
    share = (edge - t[k - 1]) / 1e9 / span
    power = np.diff(v[max(k - 2, 0) : k + 2]) / (np.diff(t[max(k - 2, 0) : k + 2]) / 1e9)
    width = max(_stamp_s(counter, i) for i in (k - 1, k)) + counter.head.update_s
    d = clock_s + width + share * (1 - share) * span
    return math.hypot(d * float(power.max() - power.min()), float(power.max()) * width / math.sqrt(12))


def _stamp_s(counter: Digest, i: int) -> float:
    """Seconds in which update ``i`` really happened.

    Repeated values: the register is slower than, or as slow as, the readings, and a change is up to one of them old.
    """
    slow = counter.updates < STEADY_SHARE * (counter.readings - 1)
    return float(counter.kept["stamp_s"][i] + (counter.kept["since_s"][i] if slow else 0.0))


def _between(signal: Digest, edge: int) -> int:
    """k so that the edge lies between kept samples k-1 and k, which were neighbours. There are two or more."""
    t = signal.kept["t"]
    k = int(np.clip(np.searchsorted(t, edge, "right"), 1, len(t) - 1))
    signal.check_neighbours(signal.kept, k)
    return k


def _gauge_window(gauge: Digest, t0: int, t1: int, clock_s: float) -> Window:
    kept, method = gauge.kept, "trapezoid of power, interpolated at both edges"
    t = kept["t"]
    if not len(t) or t0 < t[0] or t1 > t[-1]:
        return Window(None, "low_coverage: no sample on both sides of both edges", method=method)
    if len(t) > 1:
        for edge in (t0, t1):
            _between(gauge, edge)
    a, b = int(np.searchsorted(t, t0, "left")), int(np.searchsorted(t, t1, "right"))
    # A change into the first sample inside counts: its value is new to the window.
    fresh = int(kept["changes"][b - 1] - kept["changes"][max(a - 1, 0)]) if b > a else 0
    if fresh < MIN_GAUGE_UPDATES:
        words = f"stale_sensor: {fresh} fresh values in the window, {MIN_GAUGE_UPDATES} are needed"
        return Window(None, words, n=fresh, method=method)
    coverage = 1.0 - (_gaps_until(gauge, t1) - _gaps_until(gauge, t0)) / ((t1 - t0) / 1e9)
    if coverage < MIN_COVERAGE:
        return Window(None, f"low_coverage: {coverage:.0%} of the window", n=fresh, coverage=coverage, method=method)
    energy = _area(gauge, kept, "area", t1) - _area(gauge, kept, "area", t0)
    # Half the difference between every other sample and the rest: what the choice of instants does to the sum.
    halves = [_area(gauge, half, "own", t1) - _area(gauge, half, "own", t0) for half in gauge.halves]
    edges = [_gauge_edge(gauge, edge, clock_s, side) for side, edge in enumerate((t0, t1))]
    alias = abs(halves[0] - halves[1]) / 2
    return Window(energy, None, math.hypot(*edges), alias, fresh, coverage, method)


def _area(gauge: Digest, rows: Columns, sums: str, edge: int) -> float:
    """Energy (J) of the polyline through these samples from the first to the edge, constant beyond its ends.

    Equal values in a row are kept, or constant power would be 0 J. ``sums`` names the column of the sums up to each.
    """
    t, v, area = (rows[name] for name in ("t", "v", sums))
    k = int(np.searchsorted(t, edge, "right")) - 1
    if k < 0:
        return float(area[0] - (t[0] - edge) / 1e9 * v[0])
    step = float(edge - t[k]) / 1e9
    if k == len(t) - 1 or step == 0:
        return float(area[k] + step * v[k])
    gauge.check_neighbours(rows, k + 1, 1 if sums == "area" else 2)
    power = np.interp(edge, t[k : k + 2], v[k : k + 2])
    return float(area[k] + step * (v[k] + power) / 2)


def _gaps_until(gauge: Digest, edge: int) -> float:
    """Seconds of long pauses between samples from the first of them to the edge."""
    t, gaps, long = (gauge.kept[name] for name in ("t", "gaps", "long"))
    k = int(np.searchsorted(t, edge, "right")) - 1
    under_way = k + 1 < len(t) and bool(long[k + 1])
    return float(gaps[k]) + (float((edge - t[k]) / 1e9) if under_way else 0.0)


def _gauge_edge(gauge: Digest, edge: int, clock_s: float, side: int) -> float:
    t, v, stamp = (gauge.kept[name] for name in ("t", "v", "stamp_s"))
    k = _between(gauge, edge)
    span = (t[k] - t[k - 1]) / 1e9
    share = (edge - t[k - 1]) / 1e9 / span
    inner = share if side else 1 - share  # the part of the interval inside the window
    d = clock_s + float(max(stamp[k - 1], stamp[k])) + inner * inner * span / 2
    return float(d * abs(v[k] - v[k - 1]))


def gain_u(klass: str | None) -> float | None:
    """Relative standard uncertainty of the gain: the class limit / sqrt(3); None for a model or an unknown class."""
    limit = GAIN_LIMIT.get(klass or "")
    return None if limit is None else limit / math.sqrt(3)


def combine_k2(klass: str | None, energy_j: float, *parts_j: float) -> float | None:
    """u at k = 2 from the gain and the parts that do not depend on each other."""
    gain = gain_u(klass)
    return None if gain is None else 2 * math.hypot(gain * energy_j, *parts_j)


def energy(source: Series | Rail, phase: Phase, *, clock_bound_s: float = 0.0) -> Measure:
    """The gross energy of one phase in joules, None with a named reason where evidence is short.

    ``clock_bound_s`` bounds the offset between the clocks of the samples and of the phase: 0 when both were
    stamped by the probe on one clock.
    """
    rail = source if isinstance(source, Rail) else prepare(source)
    found = window(rail, phase.t0_ns, phase.t1_ns, clock_bound_s)
    u = None if found.energy_j is None else combine_k2(rail.klass, found.energy_j, found.u_edge_j, found.u_alias_j)
    return Measure(
        "energy_j", found.energy_j, "J", phase=phase.name, scope=rail.scope, source=rail.name, n=found.n, u_k2=u,
        method=found.method, reason=found.reason, klass=rail.klass, coverage=found.coverage,
    )  # fmt: skip


def mean_power(rail: Rail, t0_ns: int, t1_ns: int, clock_bound_s: float = 0.0) -> tuple[float, float, int] | str:
    """Mean power (W), its standard uncertainty without gain, and updates over the window's inner updates.

    For idle windows, whose edges are the first and last thing recorded: power needs no exact edge, energy does.
    """
    found = [_mean_power(replace(rail, parts=(part,)), t0_ns, t1_ns, clock_bound_s) for part in rail.parts]
    known = [one for one in found if not isinstance(one, str)]
    if len(known) < len(found):
        return next(one for one in found if isinstance(one, str))
    return sum(one[0] for one in known), sum(one[1] for one in known), min(one[2] for one in known)


def _mean_power(rail: Rail, t0_ns: int, t1_ns: int, clock_bound_s: float) -> tuple[float, float, int] | str:
    t = rail.parts[0].kept["t"]
    inside = t[(t >= t0_ns) & (t <= t1_ns)]
    if len(inside) < 2:
        return "low_coverage: fewer than two updates in the idle window"
    a, b = int(inside[0]), int(inside[-1])
    if (b - a) < 0.5 * (t1_ns - t0_ns):
        return f"low_coverage: updates span {(b - a) / (t1_ns - t0_ns):.0%} of the idle window"
    found = window(rail, a, b, clock_bound_s)
    if found.energy_j is None:
        return found.reason or ""
    seconds = (b - a) / 1e9
    return found.energy_j / seconds, math.hypot(found.u_edge_j, found.u_alias_j) / seconds, found.n
