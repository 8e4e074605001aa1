"""Joint draws of what arms would have come to with other runs, other items and another gain of the meter.

Every draw has a number an arm and axis. What belongs together is drawn together:

* **Runs.** Numbers of one run stay together. From ``FEW`` runs on whole runs are drawn with replacement, each as often
  as a Poisson number says (Hanley and MacGibbon 2006; Chamandy et al. 2012), and the median is taken. Of fewer a
  bootstrap scatters too little: their median is moved by Student's t with the covariance of the runs, widened by how
  much more a median scatters than a mean.
* **Items.** What is of items alone, as an accuracy, is drawn over items, the same for all arms that were asked them:
  two models that fail on the same questions are told apart by the others alone. Weights are exponential (the Bayesian
  bootstrap, Rubin 1981); of marks each arm gets half a right and half a wrong item more, which makes its own spread
  Jeffreys' beta, also where all are right.
* **Gain.** The error of a meter's gain lies anywhere within its limit, and is one number for all that it measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis.stats import FEW

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from meltbench.analysis.axes import Axis

    Array = npt.NDArray[np.float64]

_AT_ONCE = 1 << 25  # counts of drawn runs held at a time, a byte each
_ALONE = 1 << 18  # multiplications up to which OpenBLAS takes one thread
_WORTH = 32  # draws in a piece, fewer of which are slower than waiting
_FAR = 300.0  # no number is beyond exp of it: t of two runs has no bounds
_STEPS = 1 << 16  # of a random number of 16 bits
# Variance of the median over that of the mean of n normal values, by n; of many it is pi / 2.
_MEDIAN = {1: 1.0, 2: 1.0, 3: 1.346, 4: 1.192, 5: 1.434, 6: 1.288, 7: 1.473, 8: 1.343, 9: 1.495}


@dataclass(frozen=True)
class Known:
    """What is known of one arm on one axis.

    ``runs``: a number a run, one at least. ``u``: what such a number is uncertain by of itself (k = 1, in its unit,
    without the gain), None where nobody knows; used where there is one run, or where every run is off alike.
    ``meter``: which meter it is of, with the ``limit`` of its relative gain error. ``items``: for what is of items
    alone, sums above and below the line by item in the order that all arms share, both 0 for an item that was not
    asked: marks and ones, or nats and tokens of a text. ``n_items``: how many where they are not known one by one.
    """

    runs: Array
    u: float | None = None
    meter: str = ""
    limit: float = 0.0
    items: Array | None = None
    n_items: int = 0


@dataclass(frozen=True)
class Point:
    """One arm: what is known of it on each axis, None where nothing is. ``sources``: axes of an arm with the same
    source have their numbers of the same runs, in the same order."""

    name: str
    known: tuple[Known | None, ...]
    sources: tuple[str, ...] = ()


@dataclass
class Draws:
    """``value``: (axes, arms) estimates; ``drawn``: (axes, arms, draws); NaN where nothing is known. ``spread``: (axes,
    arms) whether it is known how far the number is off."""

    value: Array
    drawn: Array
    spread: npt.NDArray[np.bool_] = field(repr=False)


def draw(points: Sequence[Point], axes: Sequence[Axis], draws: int, seed: int) -> Draws:
    """Draw all arms on all axes. The same input gives the same draws."""
    rng = np.random.default_rng(seed)
    shape = (len(axes), len(points))
    made = Draws(np.full(shape, math.nan), np.full((*shape, draws), math.nan), np.zeros(shape, dtype=bool))
    for (n, numbers), members in sorted(_blocks(points, axes).items()):
        if n >= FEW:
            _bootstrap(made, points, numbers, members, rng)
        else:
            _moved(made, axes, points, numbers, members, rng)
    for at, axis in enumerate(axes):
        if axis.by_item:
            _by_item(made, at, axis, points, rng)
        elif axis.exact:
            held = [(place, one) for place, point in enumerate(points) if (one := point.known[at])]
            for place, one in held:
                made.value[at, place] = made.drawn[at, place] = float(np.median(one.runs))
                made.spread[at, place] = True
        elif axis.within:
            _within(made, at, points, rng)
    _gains(made, points, axes, rng)
    return made


def _blocks(points: Sequence[Point], axes: Sequence[Axis]) -> dict[tuple[int, tuple[int, ...]], list[int]]:
    """Arms by what can be drawn at once: a count of runs, and axes that share them."""
    out: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for place, point in enumerate(points):
        shared: dict[tuple[str, int], list[int]] = {}
        for at, (axis, known) in enumerate(zip(axes, point.known, strict=True)):
            if known is None or axis.by_item or axis.exact:
                continue
            source = point.sources[at] if point.sources else f"axis {at}"
            shared.setdefault((source, len(known.runs)), []).append(at)
        for (_, n), numbers in shared.items():
            out.setdefault((n, tuple(numbers)), []).append(place)
    return out


def _values(points: Sequence[Point], numbers: Sequence[int], members: Sequence[int]) -> Array:
    """(axes, arms, runs)."""
    held = [[points[place].known[at] for place in members] for at in numbers]
    return np.array([[one.runs for one in row if one is not None] for row in held], dtype=float)


def _logs(axis: Axis, values: Array) -> npt.NDArray[np.bool_]:
    """Of which arms the scatter is a share of the value: those whose numbers are all above zero."""
    return np.asarray((values > 0).all(axis=-1) & axis.log)


def _bootstrap(
    made: Draws,
    points: Sequence[Point],
    numbers: Sequence[int],
    members: Sequence[int],
    rng: np.random.Generator,
) -> None:
    """Medians of whole runs drawn with replacement. Runs lie first: each step is over all arms and draws at once."""
    table = _values(points, numbers, members)
    n, draws = table.shape[2], made.drawn.shape[2]
    small = np.uint8 if n < 120 else np.uint32  # sums of counts: 255 is 13 standard deviations from 120
    step = max(_AT_ONCE // (n * draws), 1)
    for start in range(0, len(members), step):
        part = table[:, start : start + step]
        places = np.array(members[start : start + step])
        counts = _poisson(rng, (n, len(places), draws)).astype(small, copy=False)
        total = counts.sum(axis=0, dtype=small)
        lower, upper = (total + small(1)) // small(2), total // small(2) + small(1)
        arms = np.arange(len(places))
        for row, at in enumerate(numbers):
            order = np.argsort(part[row], axis=1)
            ranked = np.take_along_axis(part[row], order, axis=1)
            seen = np.zeros((len(places), draws), dtype=small)
            low, high = np.zeros_like(seen), np.zeros_like(seen)
            for k in range(n - 1):  # past the last but one there is the last alone, also where nothing was drawn
                seen += counts[order[:, k], arms]
                low += seen < lower
                high += seen < upper
            middle = np.median(part[row], axis=1)
            made.value[at, places], made.drawn[at, places] = middle, _between(ranked, low, high)
            made.spread[at, places] = True


def _between(ranked: Array, low: npt.NDArray[np.uint8], high: npt.NDArray[np.uint8]) -> Array:
    """The mean of two order statistics of each arm, for each draw."""
    first = np.take_along_axis(ranked, low.astype(np.intp), axis=1)
    return np.asarray((first + np.take_along_axis(ranked, high.astype(np.intp), axis=1)) / 2)


def _poisson(rng: np.random.Generator, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Poisson numbers of mean 1: how many of the steps of their distribution a random number of 16 bits is above."""
    steps = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(8)]) * _STEPS
    marks = np.minimum(np.rint(steps), _STEPS - 1).astype(np.uint16)
    size = math.prod(shape)
    dice = rng.integers(0, 1 << 64, -(-size // 4), dtype=np.uint64).view(np.uint16)[:size].reshape(shape)
    counts = np.zeros(shape, dtype=np.uint8)
    for run in range(shape[0]):  # a run at a time stays in the processor's cache
        for mark in marks:
            counts[run] += dice[run] >= mark
    return counts


def _moved(
    made: Draws,
    axes: Sequence[Axis],
    points: Sequence[Point],
    numbers: Sequence[int],
    members: Sequence[int],
    rng: np.random.Generator,
) -> None:
    """Medians moved by t with the covariance of the runs; of one run by its own u, where that is known."""
    table = _values(points, numbers, members)
    n, draws = table.shape[2], made.drawn.shape[2]
    logs = np.array([_logs(axes[at], row) for at, row in zip(numbers, table, strict=True)])
    scaled = np.where(logs[..., None], np.log(np.where(logs[..., None], table, 1.0)), table)
    middle = np.median(table, axis=2)
    dice = rng.standard_normal((len(members), draws, len(numbers)))
    if n > 1:
        off = (scaled - scaled.mean(axis=2, keepdims=True)).transpose(1, 2, 0)
        sides = np.linalg.eigh(off.transpose(0, 2, 1) @ off)
        half = sides.eigenvectors * np.sqrt(np.maximum(sides.eigenvalues, 0) * _MEDIAN[n] / n)[:, None, :]
        moved = (dice @ half.transpose(0, 2, 1)) / np.sqrt(rng.chisquare(n - 1, (len(members), draws, 1)))
        move, known = moved.transpose(2, 0, 1), np.ones(middle.shape, dtype=bool)
    else:
        own, known = _own(axes, points, numbers, members, logs, middle)
        move = own[..., None] * dice.transpose(2, 0, 1)
    for row, at in enumerate(numbers):
        by_share = middle[row][:, None] * np.exp(np.clip(move[row], -_FAR, _FAR))
        made.value[at, members] = middle[row]
        made.drawn[at, members] = np.where(logs[row][:, None], by_share, middle[row][:, None] + move[row])
        made.spread[at, members] = known[row]


def _own(
    axes: Sequence[Axis],
    points: Sequence[Point],
    numbers: Sequence[int],
    members: Sequence[int],
    logs: npt.NDArray[np.bool_],
    middle: Array,
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """What single runs are uncertain by, on the scale of their draws, and whether it is known."""
    own, known = np.zeros(middle.shape), np.zeros(middle.shape, dtype=bool)
    for row, at in enumerate(numbers):
        for column, place in enumerate(members):
            one = points[place].known[at]
            if one is None or one.u is None:
                continue
            known[row, column] = True
            if not axes[at].within:  # drawn apart, once for the arm
                own[row, column] = one.u / middle[row, column] if logs[row, column] else one.u
    return own, known


def _within(made: Draws, at: int, points: Sequence[Point], rng: np.random.Generator) -> None:
    """Add what every run of an arm is off by alike."""
    for place, point in enumerate(points):
        one = point.known[at]
        if one is not None and one.u is not None and made.value[at, place] > 0:
            made.drawn[at, place] *= np.exp(one.u / made.value[at, place] * rng.standard_normal(made.drawn.shape[2]))


def _by_item(made: Draws, at: int, axis: Axis, points: Sequence[Point], rng: np.random.Generator) -> None:
    """Draw over items; of arms whose items are not known one by one, each by itself."""
    first: dict[int, int] = {}
    again: dict[int, int] = {}
    for place, point in enumerate(points):
        if (one := point.known[at]) is not None:
            again[place] = first.setdefault(id(one), place)  # arms with the same answers are drawn as one
    by_place = [(place, one) for place in first.values() if (one := points[place].known[at])]
    for place, one in by_place:
        if one.items is None:
            _apart(made, at, axis, place, one, rng)
    _together(made, at, axis, [(place, one.items) for place, one in by_place if one.items is not None], rng)
    for place, like in again.items():
        made.value[at, place], made.drawn[at, place] = made.value[at, like], made.drawn[at, like]
        made.spread[at, place] = made.spread[at, like]


def _apart(made: Draws, at: int, axis: Axis, place: int, one: Known, rng: np.random.Generator) -> None:
    """By the number of items, or the number's own u."""
    draws = made.drawn.shape[2]
    value = made.value[at, place] = float(np.mean(one.runs))
    if not axis.log and one.n_items:
        right = value * one.n_items
        made.drawn[at, place] = rng.beta(right + 0.5, one.n_items - right + 0.5, draws)
    else:
        share = (one.u or 0.0) / value if value > 0 else 0.0
        made.drawn[at, place] = value * np.exp(share * rng.standard_normal(draws))
    made.spread[at, place] = one.u is not None or (one.n_items > 0 and not axis.log)


def _together(made: Draws, at: int, axis: Axis, members: Sequence[tuple[int, Array]], rng: np.random.Generator) -> None:
    """Over items that were the same for all."""
    if not members:
        return
    draws, places = made.drawn.shape[2], [place for place, _ in members]
    held = np.array([items for _, items in members], dtype=float)
    above, below = held[:, 0], held[:, 1]
    made.value[at, places] = _ratio(axis, above.sum(axis=1), below.sum(axis=1))
    top, bottom = np.empty((len(places), draws)), np.empty((len(places), draws))
    for start, end in _parts(held.shape[2], draws):
        weights = rng.standard_exponential((held.shape[2], end - start))
        top[:, start:end], bottom[:, start:end] = _product(above, weights), _product(below, weights)
    if axis.log:
        asked = (below > 0).sum(axis=1)[:, None]
        middle = (above.sum(axis=1) / below.sum(axis=1))[:, None]
        # Weights of k items scatter too little, and of few t has longer tails: one factor a draw, for all arms.
        dof = np.maximum(asked - 1, 1)
        longer = np.sqrt((asked + 1) / rng.chisquare(dof.max(), draws) * dof.max() / dof)
        made.drawn[at, places] = np.exp(np.minimum(middle + (top / bottom - middle) * longer, _FAR))
        made.spread[at, places] = asked[:, 0] > 1
        return
    more = rng.standard_normal((2, len(places), draws)) ** 2 / 2  # gamma of shape 1/2, in a third of the time
    made.drawn[at, places] = (top + more[0]) / (bottom + more[0] + more[1])
    made.spread[at, places] = True


def _product(table: Array, weights: Array) -> Array:
    """The matrix product. One that is soon done goes in pieces that BLAS does not share out among threads: beside
    another busy program these wait for each other a hundred times as long as they reckon."""
    step = _ALONE // max(table.size, 1)
    if step < _WORTH:
        return table @ weights
    parts = [table @ weights[:, start : start + step] for start in range(0, weights.shape[1], step)]
    return np.concatenate(parts, axis=1)


def _ratio(axis: Axis, above: Array, below: Array) -> Array:
    return np.exp(np.minimum(above / below, _FAR)) if axis.log else above / below


def _parts(items: int, draws: int) -> Iterator[tuple[int, int]]:
    step = max((1 << 22) // max(items, 1), 1)
    for start in range(0, draws, step):
        yield start, min(start + step, draws)


def _gains(made: Draws, points: Sequence[Point], axes: Sequence[Axis], rng: np.random.Generator) -> None:
    """Give every meter one gain a draw."""
    meters = {one.meter: one.limit for point in points for one in point.known if one and one.limit > 0}
    for meter, limit in sorted(meters.items()):
        factor = 1 + rng.uniform(-limit, limit, made.drawn.shape[2])
        for at, axis in enumerate(axes):
            if not axis.gain:
                continue
            mine = [p for p, point in enumerate(points) if (one := point.known[at]) and one.meter == meter]
            made.drawn[at, mine] *= factor**axis.gain
