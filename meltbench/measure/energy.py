"""Energy of a window: the difference of a counter, or the trapezoid of a gauge, interpolated at both edges.

Uncertainty (k = 2): u^2 = (gain E)^2 + edges^2 + clock^2 + alias^2. gain = limit / sqrt(3). The edges: see
meltbench.measure.edges. The clock: what moving the window by the bound of its offset does, over sqrt(3). The
repetition term s^2/n of the full formula is 0 here: one window is measured once, and the spread between runs belongs to
the analysis of runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.digest import Digest, digest, displaced_s
from meltbench.measure.edges import SQRT3, area, at, between, both, counter_edge, gauge_edge
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from meltbench.records import Phase, Scope, Series

GAIN_LIMIT = {"A": 0.01, "B": 0.05, "C": 0.10, "D": 0.20}  # E, a model or an estimate, has no limit to state
MIN_GAUGE_UPDATES = 10
MIN_COVERAGE = 0.9
# Of the square of what leaving out each sample does to the sum: as much as power that is new in every sample scatters
# (its second difference has 3/2 of its variance); four times what power that steps between two samples does.
_ROUGH_SHARE = 2 / 3


@dataclass(frozen=True)
class Rail:
    """What an energy is of: one signal, or several that do not contain each other and so add up."""

    name: str
    scope: Scope
    klass: str | None
    parts: tuple[Digest, ...]

    @property
    def gain(self) -> float | None:
        """Relative standard uncertainty of the gain: the largest limit of its parts / sqrt(3), each its own where it
        has one and else that of its class; None where one has none (a model, an estimate, an unknown class)."""
        limits = [part.head.gain_limit or GAIN_LIMIT.get(part.head.klass or "") for part in self.parts]
        known = [limit for limit in limits if limit is not None]
        return max(known) / SQRT3 if known and len(known) == len(limits) else None

    def u_k2(self, value: float, *parts: float) -> float | None:
        """u at k = 2 of a value, from the gain and the parts (in its unit, k = 1) that do not depend on each other.

        None where one is not known: of a gauge that showed one value throughout nobody knows what it can tell apart.
        """
        u = math.inf if self.gain is None else 2 * math.hypot(self.gain * value, *parts)
        return u if math.isfinite(u) else None


@dataclass(frozen=True)
class Window:
    """What was found for one window; ``reason`` is set exactly when ``energy_j`` is None.

    ``shift_j``: what it has more when the clock of the samples was off by its bound, either way.
    """

    energy_j: float | None
    reason: str | None
    u_edge_j: float = 0.0
    u_alias_j: float = 0.0
    shift_j: tuple[float, float] = (0.0, 0.0)
    n: int = 0
    coverage: float | None = None
    method: str = ""

    @property
    def u_clock_j(self) -> float:
        """The standard uncertainty (J) that comes of the clock: one offset for both edges."""
        return max(map(abs, self.shift_j)) / SQRT3

    @property
    def parts_j(self) -> tuple[float, float, float]:
        """All of u but the gain, at k = 1."""
        return self.u_edge_j, self.u_clock_j, self.u_alias_j


def rail_of(signal: Digest) -> Rail:
    """The rail that one signal measures."""
    return Rail(signal.name, signal.head.scope, signal.head.klass, (signal,))


def prepare(series: Series) -> Rail:
    """A signal that is held whole as a rail, for windows that are not known yet."""
    return rail_of(digest(series))


def window(rail: Rail, t0_ns: int, t1_ns: int, *, sharp: bool = True) -> Window:
    """The energy from t0 to t1, or the reason why the evidence is too short for it. ``sharp``: see ``_part``."""
    if t1_ns <= t0_ns:
        return Window(None, "low_coverage: the window is empty")
    found = [_part(part, t0_ns, t1_ns, sharp=sharp) for part in rail.parts]
    missing = [(part, one) for part, one in zip(rail.parts, found, strict=True) if one.energy_j is None]
    if missing:
        part, one = missing[0]
        # Of one signal alone its name is the rail's already.
        return one if len(found) == 1 else replace(one, reason=f"{one.reason} ({part.name})")
    return added(found, found[0].method)


def added(found: list[Window], method: str) -> Window:
    """The sum of windows that have an energy: parts of a rail, or spans one after the other.

    Steps of power are seen by all parts alike, and smearing has one sign in every span, so edges add up; so does what
    one clock does. What the choice of samples does is each window's own.
    """
    return Window(
        sum(one.energy_j or 0.0 for one in found),
        None,
        sum(one.u_edge_j for one in found),
        math.hypot(*(one.u_alias_j for one in found)),
        (sum(one.shift_j[0] for one in found), sum(one.shift_j[1] for one in found)),
        min(one.n for one in found),
        min(one.coverage or 0.0 for one in found),
        method,
    )


def is_relative(head: Series) -> bool:
    """Whether nobody knows the gain of a signal on this device, so that its joules would be none."""
    return head.klass == "D" and not head.calibration and head.gain_limit is None


def _part(part: Digest, t0: int, t1: int, *, sharp: bool = True) -> Window:
    """``sharp``: the edges are moments of their own; else the first and last samples, and no clock matters to them."""
    head = part.head
    if is_relative(head):
        return Window(None, f"uncalibrated_sensor: relative only, {head.source} was not calibrated on this device")
    if head.kind == "counter":
        return _counter_window(part, t0, t1, sharp=sharp)
    if head.window_s is None:
        return Window(
            None, f"trailing_average: {part.name} is a mean of the time before each reading, nobody knows how long"
        )
    if t1 - t0 < 2 * head.window_s * 1e9:
        took = f"the window has {(t1 - t0) / 1e9:.3g} s, {2 * head.window_s:.3g} s are needed"
        return Window(None, f"trailing_average: {part.name} is a mean of {head.window_s:.3g} s, {took}")
    return _gauge_window(part, t0, t1, sharp=sharp)


def _counter_window(counter: Digest, t0: int, t1: int, *, sharp: bool) -> Window:
    t, place = counter.kept["t"], counter.kept["place"]
    method = "counter difference, interpolated at both edges"
    if not len(t):
        return Window(None, "stale_sensor: the counter never changed", method=method)
    bound = round(displaced_s(counter.head) * 1e9) if sharp else 0
    first, last = int(np.searchsorted(t, t0, "left")), int(np.searchsorted(t, t1, "right")) - 1
    n = int(place[last] - place[first]) + 1 if first <= last else 0
    if t0 - bound < t[0] or t1 + bound > t[-1]:
        return Window(None, "low_coverage: no counter update on both sides of both edges", n=n, method=method)
    # A window shorter than the time between updates tells of its surroundings and not of itself.
    apart = max(int(t[k] - t[k - 1]) for k in (between(counter, t0), between(counter, t1)))
    if n < 1:
        return Window(None, "low_coverage: no counter update inside the window", n=0, method=method)
    if t1 - t0 < apart:
        words = f"low_coverage: {apart / 1e9:.2g} s between updates, the window has {(t1 - t0) / 1e9:.2g} s"
        return Window(None, words, n=n, method=method)
    enclosing = (
        int(t[np.searchsorted(t, t0 - bound, "right") - 1]),
        int(t[np.searchsorted(t, t1 + bound, "left")]),
    )
    if counter.reset_within(*enclosing):
        return Window(None, "counter_reset: the counter was reset inside the window", n=n, method=method)
    energy = at(counter, "v", t1) - at(counter, "v", t0)
    if energy < 0:
        return Window(None, "counter_reset: the counter ran backwards", n=n, method=method)
    edges = both(counter_edge(counter, t0), counter_edge(counter, t1))
    return Window(energy, None, edges, 0.0, _shift(lambda t: at(counter, "v", t), t0, t1, bound), n, 1.0, method)


def _shift(until: Callable[[int], float], t0: int, t1: int, bound: int) -> tuple[float, float]:
    """What a window has more when it is moved by the bound, back and on. ``until``: the energy up to a moment."""
    if not bound:
        return 0.0, 0.0
    back, here, on = (until(t1 + by) - until(t0 + by) for by in (-bound, 0, bound))
    return back - here, on - here


def _gauge_window(gauge: Digest, t0: int, t1: int, *, sharp: bool) -> Window:
    kept, method = gauge.kept, "trapezoid of power, interpolated at both edges"
    t = kept["t"]
    bound = round(displaced_s(gauge.head) * 1e9) if sharp else 0
    if not len(t) or t0 - bound < t[0] or t1 + bound > t[-1]:
        return Window(None, "low_coverage: no sample on both sides of both edges", method=method)
    for edge in (t0, t1):
        between(gauge, edge)
    a, b = int(np.searchsorted(t, t0, "left")), int(np.searchsorted(t, t1, "right"))
    # A change into the first sample inside counts: its value is new to the window.
    fresh = int(kept["changes"][b - 1] - kept["changes"][max(a - 1, 0)]) if b > a else 0
    if fresh < MIN_GAUGE_UPDATES:
        words = f"stale_sensor: {fresh} fresh values in the window, {MIN_GAUGE_UPDATES} are needed"
        return Window(None, words, n=fresh, method=method)
    coverage = max(0.0, 1.0 - (at(gauge, "gaps", t1) - at(gauge, "gaps", t0)) / ((t1 - t0) / 1e9))
    if coverage < MIN_COVERAGE:
        return Window(None, f"low_coverage: {coverage:.0%} of the window", n=fresh, coverage=coverage, method=method)
    missed = [beat.missed(kept, a - 1, b - 1, gauge.period_s) for beat in gauge.beats]
    if refused := [one for one in missed if isinstance(one, str)]:
        return Window(None, refused[0], n=fresh, coverage=coverage, method=method)
    energy = area(gauge, t1) - area(gauge, t0)
    rough = math.sqrt(_ROUGH_SHARE * max(float(kept["rough"][b - 1] - kept["rough"][min(a + 1, b - 1)]), 0.0))
    rough *= max(0.0, 1 - (gauge.head.window_s or 0.0) / gauge.period_s)  # what a mean covers is not between samples
    # Both tell of the same: what lies between the samples.
    alias = max(rough, *(one for one in missed if not isinstance(one, str)), 0.0)
    alias = math.hypot(alias, gauge.quantum_w / math.sqrt(12) * (t1 - t0) / 1e9)  # all may be rounded the same way
    edges = both(gauge_edge(gauge, t0, end=False), gauge_edge(gauge, t1, end=True)) if sharp else 0.0
    shift = _shift(lambda t: area(gauge, t), t0, t1, bound)
    return Window(energy, None, edges, alias, shift, fresh, coverage, method)


def energy(source: Series | Rail, phase: Phase) -> Measure:
    """The gross energy of one phase in joules, None with a named reason where evidence is short."""
    rail = source if isinstance(source, Rail) else prepare(source)
    return of_window(rail, window(rail, phase.t0_ns, phase.t1_ns), phase.name)


def of_window(rail: Rail, found: Window, phase: str) -> Measure:
    """What was found for a window as a measure of its phase."""
    u = None if found.energy_j is None else rail.u_k2(found.energy_j, *found.parts_j)
    return Measure(
        "energy_j", found.energy_j, "J", phase=phase, scope=rail.scope, source=rail.name, n=found.n, u_k2=u,
        method=found.method, reason=found.reason, klass=rail.klass, coverage=found.coverage,
    )  # fmt: skip


def mean_power(rail: Rail, t0_ns: int, t1_ns: int) -> tuple[float, float, int] | str:
    """Mean power (W), its standard uncertainty without gain, and updates over the window's inner updates.

    For idle windows, whose edges are the first and last thing recorded: power needs no exact edge, energy does.
    """
    found = [_mean_power(part, t0_ns, t1_ns) for part in rail.parts]
    known = [one for one in found if not isinstance(one, str)]
    if len(known) < len(found):
        return next(one for one in found if isinstance(one, str))
    return sum(one[0] for one in known), sum(one[1] for one in known), min(one[2] for one in known)


def _mean_power(part: Digest, t0_ns: int, t1_ns: int) -> tuple[float, float, int] | str:
    # What its neighbours may reach of the window, by the clock or by a trailing mean, is left out.
    reach = round((displaced_s(part.head) + (part.head.window_s or 0.0) / 2) * 1e9)
    t = part.kept["t"]
    inside = t[(t >= t0_ns + reach) & (t <= t1_ns - reach)]
    if len(inside) < 2:
        return "low_coverage: fewer than two updates in the idle window"
    a, b = int(inside[0]), int(inside[-1])
    if (b - a) < 0.5 * (t1_ns - t0_ns):
        return f"low_coverage: updates span {(b - a) / (t1_ns - t0_ns):.0%} of the idle window"
    found = _part(part, a, b, sharp=False)
    if found.energy_j is None:
        return found.reason or ""
    seconds = (b - a) / 1e9
    return found.energy_j / seconds, math.hypot(*found.parts_j) / seconds, found.n
