"""Which arms nothing beats, and how sure that is: fronts over joint draws of what every arm came to.

An arm *dominates* another that is worse on one axis and better on none. The *front* are those that none dominates.
Each draw (``resample``) has a front of its own; the share of draws in which an arm is on it is its probability.
Where a condition is to hold, an arm is on the front of a draw if it meets it there and no arm that meets it dominates.

The *hypervolume* (Zitzler and Thiele 1999) is the share of the box between a reference point and an ideal one that the
front dominates, on a log scale of axes whose scatter is a share. Both points are stated. The best of several scattered
numbers is too good: what was measured is so by some bias, and draws about it are by as much again. The interval is that
of the draws less twice the bias that they show: the difference of their median and the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis.resample import Draws, draw
from meltbench.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from meltbench.analysis.axes import Axis
    from meltbench.analysis.constraints import Condition
    from meltbench.analysis.resample import Point

    Array = npt.NDArray[np.float64]
    Mask = npt.NDArray[np.bool_]

DRAWS = 1000
MOST_AXES = 4
_SEED = 20_231
_TAILS = (0.025, 0.975)
_EXACT_DRAWS = 200  # of a hypervolume over more than two axes, whose cost grows with the front's size


@dataclass(frozen=True)
class Hypervolume:
    """``value`` with its 95 % interval, None where the spread of an arm is not known; ``reference``, ``ideal``: by
    axis, in its unit. ``reason``: why there is no value."""

    value: float | None
    lo: float | None
    hi: float | None
    reference: tuple[float, ...]
    ideal: tuple[float, ...]
    reason: str | None = None


@dataclass(frozen=True)
class Front:
    """What is known of the arms, in their order.

    ``draws``: values, (axes, arms), and what was drawn. ``lo``, ``hi``: 95 % of the draws. ``on_front``: by the
    estimates, among arms that meet the condition. ``meets``: 1, 0, NaN where a missing number leaves it open;
    ``p_meets``: the share of draws in which it does. ``p_front``: NaN where that is open, or the spread of an arm is
    not known on an axis.
    """

    names: tuple[str, ...]
    draws: Draws
    lo: Array
    hi: Array
    on_front: Mask
    p_front: Array
    meets: Array
    p_meets: Array
    hypervolume: Hypervolume
    costs: Array  # (objectives, arms, draws), lower is better
    allowed: Mask  # (arms, draws), whether the condition holds
    share: Array  # of draws in which each is on the front, known spread or not

    def dominates(self, one: int, other: int) -> float:
        """The probability that an arm meets the condition and dominates another, whether that meets it or not."""
        return float((_dominates(self.costs[:, one], self.costs[:, other]) & self.allowed[one]).mean())

    def dominators(self, most: int = 20) -> list[tuple[int, float] | None]:
        """For each arm the one that dominates it in most draws, and its probability; None where none ever does.

        Looked for among the ``most`` arms that are most often on the front themselves.
        """
        best, who = np.zeros(len(self.names)), np.full(len(self.names), -1)
        for at in np.argsort(-self.share, kind="stable")[:most]:
            if self.share[at] == 0:
                break
            p = (_dominates(self.costs[:, at : at + 1], self.costs) & self.allowed[at]).mean(axis=1)
            better = p > best
            best[better], who[better] = p[better], at
        return [None if at < 0 else (int(at), float(p)) for at, p in zip(who, best, strict=True)]


def front(
    points: Sequence[Point],
    axes: Sequence[Axis],
    *,
    objectives: int | None = None,
    where: Condition | None = None,
    asked: Sequence[int] = (),
    draws: int = DRAWS,
    reference: Sequence[float] | None = None,
    ideal: Sequence[float] | None = None,
    seed: int = _SEED,
) -> Front:
    """The front of ``points`` over the first ``objectives`` of ``axes``; ``asked``: the axes that ``where`` is about.

    Every point has to be known on every objective. ``reference`` and ``ideal``: of the hypervolume; left out, the worst
    and the best estimates of the arms that meet the condition.
    """
    k = len(axes) if objectives is None else objectives
    if not 2 <= k <= MOST_AXES:
        raise InternalError(f"a front over {k} axes")
    if any(point.known[at] is None for point in points for at in range(k)):
        raise InternalError("a point of a front is not known on an axis")
    made = draw(points, axes, draws, seed)
    flat = (made.value[..., None], made.drawn)
    meets, p_meets = np.ones(len(points)), np.ones(len(points))
    allowed = [np.ones(one.shape[1:], dtype=bool) for one in flat]
    if where is not None:
        truths = [where.holds([one[at] for at in asked]) for one in flat]
        allowed = [truth == 1 for truth in truths]
        meets, p_meets = truths[0][:, 0], np.where(np.isnan(truths[0][:, 0]), np.nan, allowed[1].mean(axis=1))
    better = np.array([axis.better for axis in axes[:k]])[:, None, None]
    estimates, costs = (-better * one[:k] for one in flat)
    bounded = costs if where is None else np.where(allowed[1], costs, np.inf)
    held = _contenders(bounded)
    by_draw = np.ascontiguousarray(bounded[:, held].transpose(0, 2, 1))
    share = np.zeros(len(points))
    share[held] = on_front(by_draw).mean(axis=0)
    known = made.spread[:k].all(axis=0)
    p_front = np.where(known & ~np.isnan(meets), share, np.nan)
    lo, hi = _percentiles(made.drawn, _TAILS)
    estimates = np.where(allowed[0], estimates, np.inf).transpose(0, 2, 1)
    volume = _hypervolume(made.value[:k], estimates, by_draw, axes[:k], reference, ideal)
    if not known.all():
        volume = replace(volume, lo=None, hi=None)
    names = tuple(point.name for point in points)
    return Front(names, made, lo, hi, on_front(estimates)[0], p_front, meets, p_meets, volume, costs, allowed[1], share)


def _contenders(costs: Array) -> npt.NDArray[np.intp]:
    """Arms (axes, arms, draws) but for those that another one beats in its worst draw: these are never on a front, and
    whatever they dominate that other one does too."""
    worst, best = costs.max(axis=2), costs.min(axis=2)
    held = ~_dominates(worst[:, :, None], best[:, None, :]).any(axis=0) & np.isfinite(best).all(axis=0)
    return np.flatnonzero(held)


def on_front(costs: Array) -> Mask:
    """Who is on the front: ``costs`` (axes, draws, arms), lower is better; what is infinite never is.

    Arms with the same numbers are on it together.
    """
    if costs.shape[2] == 0:
        return np.zeros(costs.shape[1:], dtype=bool)
    return _of_two(*costs) if len(costs) == 2 else _of_many(costs)


def _dominates(one: Array, other: Array) -> Mask:
    """Axes first; no worse on any of them, and better on one."""
    no_worse, better = one[0] <= other[0], one[0] < other[0]
    for mine, theirs in zip(one[1:], other[1:], strict=True):
        no_worse = no_worse & (mine <= theirs)
        better = better | (mine < theirs)
    return np.asarray(no_worse & better)


def _of_two(first: Array, second: Array) -> Mask:
    """By a sort: on the front is what has less of the second cost than all that have less of the first."""
    order = np.argsort(first, axis=1)
    x = np.take_along_axis(first, order, axis=1)
    if _ties(x):
        first, second = second, first
        order = np.argsort(first, axis=1)
        x = np.take_along_axis(first, order, axis=1)
    tied = _ties(x)
    if tied:
        order = np.lexsort((second, first), axis=1)
        x = np.take_along_axis(first, order, axis=1)
    y = np.take_along_axis(second, order, axis=1)
    before = np.full_like(y, np.inf)
    np.minimum.accumulate(y[:, :-1], axis=1, out=before[:, 1:])
    if tied:
        # Of equals in the first cost, who come one after the other, all that have the least of the second are equals.
        starts = np.ones(x.shape, dtype=bool)
        starts[:, 1:] = x[:, 1:] != x[:, :-1]
        at = np.maximum.accumulate(np.where(starts, np.arange(x.shape[1]), 0), axis=1)
        before, head = np.take_along_axis(before, at, axis=1), np.take_along_axis(y, at, axis=1)
        on = (y < before) & (y == head)
    else:
        on = np.less(y, before)
    out = np.zeros(on.shape, dtype=bool)
    np.put_along_axis(out, order, on, axis=1)
    return out


def _ties(ranked: Array) -> bool:
    return bool(((ranked[:, 1:] == ranked[:, :-1]) & np.isfinite(ranked[:, 1:])).any())


def _of_many(costs: Array) -> Mask:
    """By pairs."""
    beaten = np.logical_not(np.isfinite(costs).all(axis=0))
    for at in range(costs.shape[2]):
        beaten |= _dominates(costs[:, :, at : at + 1], costs)
    return np.logical_not(beaten)


def _percentiles(drawn: Array, tails: tuple[float, float]) -> tuple[Array, Array]:
    """Of (axes, arms, draws), by the nearest draws."""
    n = drawn.shape[2]
    places = [min(max(round(tail * (n - 1)), 0), n - 1) for tail in tails]
    ranked = np.partition(drawn, places, axis=2)
    return ranked[..., places[0]], ranked[..., places[1]]


def _hypervolume(
    values: Array,
    estimates: Array,
    costs: Array,
    axes: Sequence[Axis],
    reference: Sequence[float] | None,
    ideal: Sequence[float] | None,
) -> Hypervolume:
    meeting = np.isfinite(estimates[:, 0]).all(axis=0)
    if not meeting.any():
        return Hypervolume(None, None, None, (), (), "no_arm: none meets the condition")
    mine = values[:, meeting]
    ups = np.array([axis.better > 0 for axis in axes])
    low, high = mine.min(axis=1), mine.max(axis=1)
    worst = np.where(ups, low, high) if reference is None else np.array(reference, dtype=float)
    best = np.where(ups, high, low) if ideal is None else np.array(ideal, dtype=float)
    points = (tuple(map(float, worst)), tuple(map(float, best)))
    if reference is None and meeting.sum() == 1:
        return Hypervolume(None, None, None, *points, "one_arm: a single one makes no box")
    if (worst == best).any():
        same = ", ".join(axis.name for axis, is_same in zip(axes, worst == best, strict=True) if is_same)
        return Hypervolume(None, None, None, *points, f"no_range: all arms have the same {same}")
    logs = [axis.log and bool(a > 0 and b > 0) for axis, a, b in zip(axes, worst, best, strict=True)]

    def scaled(costs: Array) -> Array:
        """Costs to shares of the way from the reference, 0, to the ideal, 1; below 0 is nothing."""
        out = np.empty_like(costs)
        for at, log in enumerate(logs):
            ends = np.log([worst[at], best[at]]) if log else [worst[at], best[at]]
            numbers = costs[at] * (-1.0 if ups[at] else 1.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                told = np.log(np.maximum(numbers, 0.0)) if log else numbers
                out[at] = np.where(np.isfinite(costs[at]), np.maximum((told - ends[0]) / (ends[1] - ends[0]), 0.0), 0.0)
        return out

    value = float(dominated_share(scaled(estimates))[0])
    drawn = dominated_share(scaled(costs if len(axes) == 2 else costs[:, :_EXACT_DRAWS]))
    lo, hi = np.quantile(drawn, _TAILS) - 2 * (np.median(drawn) - value)
    # Where the bias is as large as the scatter, an interval that leaves the estimate out would only puzzle.
    return Hypervolume(value, max(min(float(lo), value), 0.0), max(float(hi), value), *points)


def dominated_share(shares: Array) -> Array:
    """The volume of the union of boxes from 0 to each of ``shares`` (axes, draws, arms), by draw."""
    if len(shares) == 2:
        return _area(shares)
    on = on_front(-shares) & (shares > 0).all(axis=0)
    most = int(on.sum(axis=1).max(initial=0))
    keep = np.argsort(~on, axis=1, kind="stable")[:, :most]
    return _sliced(np.where(np.take_along_axis(on, keep, axis=1), _taken(shares, keep), 0.0))


def _area(shares: Array) -> Array:
    x, y = _taken(shares, np.argsort(-shares[0], axis=1))
    most = np.maximum.accumulate(y, axis=1)
    return np.asarray((x * np.diff(most, axis=1, prepend=0.0)).sum(axis=1))


def _taken(shares: Array, order: npt.NDArray[np.intp]) -> Array:
    return np.stack([np.take_along_axis(one, order, axis=1) for one in shares])


def _sliced(shares: Array) -> Array:
    """Slabs between neighbours along the last axis, each with the volume of what reaches as far."""
    if len(shares) == 2:
        return _area(shares)
    ranked = _taken(shares, np.argsort(-shares[-1], axis=1))
    thick = -np.diff(ranked[-1], axis=1, append=0.0)
    total = np.zeros(ranked.shape[1])
    for at in range(ranked.shape[2]):
        total += _sliced(ranked[:-1, :, : at + 1]) * thick[:, at]
    return total
