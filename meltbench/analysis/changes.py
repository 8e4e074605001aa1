"""Change points: the nights at which a number of one device moved and stayed moved.

A series holds one number a night, the median over the night's runs, of one arm (model and engine), workload, mode and
metric. It is searched as benchmark series are elsewhere (MongoDB: arXiv 2003.00584; Hunter: arXiv 2301.03034): it is
divided where its parts differ most, then each part again, and boundaries that their neighbours do not bear out are
taken away. Different here:

* What is looked for is an *arc*, some nights against those before and after (Olshen et al. 2004, Biostatistics 5:557):
  a change that was taken back is found too.
* Permutations presume that nights are exchangeable. They are not, devices drift: so a difference is held against t with
  the variance of means under AR(1), whose coefficient is estimated within the parts, for its bias (Kendall 1954) and
  plus one standard error. Bonferroni over all arcs stands for the choice of the best.
* A night far off a running median of seven is drawn in towards it, so that one or two odd nights move nothing.

Draws no random numbers. What it finds and what not, as simulated: docs/analysis.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from meltbench.analysis.arcs import SHORTEST, best, chance, drawn_in, errors, may_fall_apart, together
from meltbench.analysis.stats import Estimate, missing, t_quantile
from meltbench.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.analysis.stats import Array

LEVEL = 0.05  # of a series: that chance alone makes its best arc, its drift being known
LONGEST = 200  # nights that are searched, the latest: arcs grow with the square
_NEAR = 1  # nights by which change points of two series may differ and still be of one night
_AROUND = 14  # nights before and after a change that tell whether another series moved with it

Kind = Literal["environment", "series"]


@dataclass(frozen=True)
class Series:
    """One metric of one arm, workload and mode on one device: a number a night, in order of the nights.

    ``arm``: the model and engine; ``name``: what tells it from others of the arm, where it is more; ``nights``: names
    that sort by time, such as 2026-11-20; ``values``: the median over the runs of each, None (or NaN) where there is
    none; ``runs``: how many runs gave it.
    """

    arm: str
    metric: str
    nights: tuple[str, ...]
    values: tuple[float | None, ...]
    runs: tuple[int, ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not len(self.nights) == len(self.values) == len(self.runs):
            raise InternalError(
                f"{len(self.nights)} nights, {len(self.values)} values, {len(self.runs)} counts of runs"
            )
        if list(self.nights) != sorted({*self.nights}):
            raise InternalError("nights of a series are not in order, or one is there twice")


@dataclass(frozen=True)
class ChangePoint:
    """Where a series moved.

    ``index``, ``night``: the first night after; ``last``: the last night with a number before. ``before``, ``after``:
    medians over the nights between this change and its neighbours, in the metric's unit; ``ratio``: after over before,
    its ``n`` the runs and its ``clusters`` the nights behind it. ``p``: that such a step stands somewhere between the
    neighbours when nothing moved. ``kind``: environment where the device's other arms moved in the same night, else
    series; ``moved`` of ``peers`` other series that could tell did.
    """

    index: int
    night: str
    last: str
    before: float
    after: float
    ratio: Estimate
    p: float
    kind: Kind = "series"
    moved: int = 0
    peers: int = 0


@dataclass(frozen=True)
class _Step:
    """Two parts held against each other: the difference of their means, its standard error and degrees of freedom."""

    difference: float
    se: float
    dof: float

    def p(self, choices: int) -> float:
        """That chance alone makes it as large, being the best of so many choices (Bonferroni)."""
        return float(chance(np.float64(self.difference), np.float64(self.se), np.float64(self.dof), choices))

    def reach(self) -> tuple[float, float]:
        """Its 95 % interval."""
        half = t_quantile(self.dof) * self.se
        return self.difference - half, self.difference + half


@dataclass(frozen=True)
class _Cut:
    """A boundary at ``at`` between the nights from ``lo`` and those up to ``hi``."""

    lo: int
    at: int
    hi: int
    step: _Step
    p: float


@dataclass(frozen=True)
class _Searched:
    """A series, the nights of it that have a number, and where it was cut; places count these nights.

    ``values``: those numbers; ``scaled``: as they are searched.
    """

    series: Series
    places: list[int]
    values: Array
    is_log: bool
    scaled: Array
    cuts: list[_Cut]

    @classmethod
    def all_of(cls, several: Sequence[Series]) -> list[_Searched]:
        """Several at once: most have no change, and that they have none is seen of all of them together."""
        numbers = [np.array(one.values, dtype=float) for one in several]  # None becomes NaN
        seen = [np.flatnonzero(np.isfinite(one))[-LONGEST:] for one in numbers]
        values = [one[places] for one, places in zip(numbers, seen, strict=True)]
        logs = [bool((one > 0).all()) for one in values]
        scaled = [_scale(one, is_log) for one, is_log in zip(values, logs, strict=True)]
        cuts: list[list[_Cut]] = [[] for _ in several]
        long = [at for at, one in enumerate(scaled) if len(one) >= 2 * SHORTEST]
        if long:
            x, starts = together([scaled[at] for at in long])
            x = drawn_in(x, starts)
            searched = may_fall_apart(x, starts, LEVEL)
            for at, lo, hi, is_searched in zip(long, starts, starts[1:], searched, strict=False):
                scaled[at] = x[lo:hi]
                cuts[at] = _cuts(scaled[at]) if is_searched else []
        parts = zip(several, seen, values, logs, scaled, cuts, strict=True)
        return [cls(one, places.tolist(), *rest) for one, places, *rest in parts]

    def night(self, cut: _Cut) -> str:
        return self.series.nights[self.places[cut.at]]

    def told(self, cut: _Cut) -> ChangePoint:
        before, after = self.values[cut.lo : cut.at], self.values[cut.at : cut.hi]
        low, high = float(np.median(before)), float(np.median(after))
        return ChangePoint(
            self.places[cut.at], self.night(cut), self.series.nights[self.places[cut.at - 1]], low, high,
            self._ratio(cut, low, high), cut.p,
        )  # fmt: skip

    def _ratio(self, cut: _Cut, before: float, after: float) -> Estimate:
        runs = sum(self.series.runs[i] for i in self.places[cut.lo : cut.hi])
        if not self.is_log:
            return missing("not_positive: a night's number is not above zero", runs)
        value, se = after / before, math.sqrt(math.pi / 2) * cut.step.se
        factor = math.exp(min(t_quantile(cut.step.dof) * se, 700.0))
        method = "t on the log ratio of medians of nights, AR(1)"
        return Estimate(value, value / factor, value * factor, value * se, runs, cut.hi - cut.lo, method)

    def around(self, night: str, days: dict[str, int]) -> _Step | None:
        """What happened here at a night: up to 14 nights before against as many after, up to the next other change."""
        day = days[night]
        here = [days[self.series.nights[i]] for i in self.places]
        at = sum(other < day for other in here)
        others = [cut.at for cut in self.cuts if abs(here[cut.at] - day) > _NEAR]
        lo = max([at - _AROUND, 0, *(c for c in others if c <= at)])
        hi = min([at + _AROUND, len(here), *(c for c in others if c > at)])
        return _step(self.scaled[lo:at], self.scaled[at:hi]) if min(at - lo, hi - at) >= SHORTEST else None


def change_points(series: Series) -> list[ChangePoint]:
    """The change points of one series, by night. Fewer than eight nights have none; of many the latest are searched."""
    (found,) = _Searched.all_of([series])
    return [found.told(cut) for cut in found.cuts]


def changes_of(devices: Sequence[Sequence[Series]], since: str = "") -> list[list[list[ChangePoint]]]:
    """``device_changes`` of several devices, in their order; quicker than one after another.

    ``since``: only those of this night and later ones, by what all nights say.
    """
    found = iter(_Searched.all_of([one for series in devices for one in series]))
    return [_judged([next(found) for _ in series], since) for series in devices]


def device_changes(series: Sequence[Series]) -> list[list[ChangePoint]]:
    """The change points of several series of one device, told apart by ``kind``; a list a series, in their order.

    A change is of the environment where a series of another arm in the same metric has a change point the same way in
    the same night, one night more or less, and no series of another arm stayed where it was. One that is too noisy, or
    has too few nights around it, counts neither way.
    """
    return changes_of([series])[0]


def _judged(found: Sequence[_Searched], since: str) -> list[list[ChangePoint]]:
    """What was found of one device, told apart by kind."""
    wanted = [[cut for cut in one.cuts if one.night(cut) >= since] for one in found]
    if not any(wanted):
        return [[] for _ in found]
    series = [one.series for one in found]
    days = {night: i for i, night in enumerate(sorted({night for one in series for night in one.nights}))}
    moves = [[(days[one.night(cut)], cut.step.difference > 0) for cut in one.cuts] for one in found]

    @cache
    def around(which: int, night: str) -> _Step | None:
        return found[which].around(night, days)

    def judged(mine: _Searched, cut: _Cut) -> ChangePoint:
        point, change = mine.told(cut), cut.step.difference
        arm, metric, day = mine.series.arm, mine.series.metric, days[mine.night(cut)]
        peers = [i for i, one in enumerate(series) if one.metric == metric and one.arm != arm]
        same = {i for i in peers if any(up == (change > 0) and abs(at - day) <= _NEAR for at, up in moves[i])}
        if not same:
            return point
        stayed = sum(_stayed(around(i, point.night), change) for i in peers if i not in same)
        moved = len(same) + sum(_moved(around(i, point.night), change) for i in peers if i not in same)
        return replace(point, kind="series" if stayed else "environment", moved=moved, peers=moved + stayed)

    return [[judged(one, cut) for cut in cuts] for one, cuts in zip(found, wanted, strict=True)]


def _moved(step: _Step | None, change: float) -> bool:
    """Whether a series surely moved the way another did."""
    return step is not None and (step.reach()[0] > 0 if change > 0 else step.reach()[1] < 0)


def _stayed(step: _Step | None, change: float) -> bool:
    """Whether a series surely did not move by half of what another did."""
    if step is None or _moved(step, change):
        return False
    return step.reach()[1] < change / 2 if change > 0 else step.reach()[0] > change / 2


def _scale(values: Array, is_log: bool) -> Array:
    """Numbers whose differences are shares: logs, or where one is not above zero, parts of the largest."""
    if is_log:
        return np.asarray(np.log(values), dtype=float)
    largest = float(np.abs(values).max())
    return values / largest if largest > 0 else values


def _step(before: Array, after: Array, parts: Sequence[Array] = ()) -> _Step:
    """The nights after against those before; they scatter as within ``parts``, under AR(1)."""
    parts = parts or (before, after)
    rests = [part - _mean(part) for part in parts]
    squares, lagged = sum(float(rest @ rest) for rest in rests), sum(float(rest[1:] @ rest[:-1]) for rest in rests)
    n, weight = sum(map(len, parts)), 1 / len(before) + 1 / len(after)
    se, dof = errors(*(np.array(one, dtype=float) for one in (squares, lagged, n, len(parts), weight)))
    return _Step(_mean(after) - _mean(before), float(se), float(dof))


def _mean(x: Array) -> float:
    """As x.mean(), which for a hundred numbers takes four times as long."""
    return float(np.add.reduce(x)) / len(x)


def _best(x: Array) -> tuple[list[int], int]:
    """First night and end of the arc that differs most from the other nights, and of how many it is the best."""
    (first,), (end,), choices = best(x[None])
    return [int(first), int(end)], choices


def _parts(x: Array, arc: list[int]) -> list[Array]:
    """What is before, within and after an arc, of which one side may have no night."""
    return [x[a:b] for a, b in pairwise([0, *arc, len(x)]) if a < b]


def _divided(x: Array, lo: int, hi: int) -> list[int]:
    """Where the nights from lo to hi fall apart, and where their parts do again.

    Further changes look like drift while they are not cut out. So what does not hold is tried once more against the
    scatter within the parts of its parts, which is too small where nothing moved, at a thousandth of the level.
    """
    part = x[lo:hi]
    if len(part) < 2 * SHORTEST:
        return []
    (first, end), choices = _best(part)
    parts = _parts(part, [first, end])
    arc, rest = part[first:end], np.concatenate((part[:first], part[end:]))
    if _step(rest, arc, parts).p(choices) > LEVEL:
        deeper = [piece for one in parts for piece in _parts(one, _best(one)[0] if len(one) >= 2 * SHORTEST else [])]
        if _step(rest, arc, deeper).p(choices) > LEVEL / 1000:
            return []
    edges = [lo, *(lo + cut for cut in (first, end) if 0 < cut < len(part)), hi]
    inner = [cut for a, b in pairwise(edges) for cut in _divided(x, a, b)]
    return sorted([*edges[1:-1], *inner])


def _cuts(x: Array) -> list[_Cut]:
    """The boundaries that hold: the weakest is taken away until each stands between its neighbours."""
    places = _divided(x, 0, len(x))
    while places:
        edges = [0, *places, len(x)]
        found = []
        for lo, at, hi in zip(edges[:-2], places, edges[2:], strict=True):
            step = _step(x[lo:at], x[at:hi])
            found.append(_Cut(lo, at, hi, step, step.p(hi - lo)))
        weakest = max(found, key=lambda cut: cut.p)
        if weakest.p <= LEVEL:
            return found
        places.remove(weakest.at)
    return []
