"""Noise floors: by how much runs of one cell differ on one device, and what change that leaves to be seen.

A/A variation: repeated runs of a cell in one night differ by what the device, and nothing else, does. It is pooled over
cells and nights by pairs: the median difference of two runs of the same cell and night, of logs, over what it is of a
normal distribution with standard deviation 1 (Shamos 1976; 86 % of the efficiency of a standard deviation, and up to
29 % of the runs may be anything). A pair counts 2 / n in a night of n runs, so that the night counts n - 1.

What nights add to that is told apart, from pairs of consecutive nights of a cell, so that a step counts once. A
comparison within a night is free of it, one of two nights is not, however many runs it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis.contrast import detectable, runs_needed
from meltbench.analysis.stats import FEW, Estimate, missing, t_quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from meltbench.analysis.stats import Array

ARMS = (5, 8, 10)  # runs an arm for which the least change that shows is told
GATE_ARM = 8  # runs an arm of a confirmed regression
POLICY = 0.03  # the change that a device should be able to show
_PAIR = 0.953873  # median difference of two draws from the standard normal: sqrt(2) x 0.67449
_NEXT = 0.3  # degrees of freedom of a difference of consecutive nights, as the coverage of the interval has it
_MOST = 50  # runs that are paired with each other: pairs grow with the square
_HALVINGS = 50
_SEED = 20_231


@dataclass(frozen=True)
class NoiseFloor:
    """How far one metric of one device scatters; shares, 0.02 being 2 %.

    ``within``: standard deviation of the logs of runs of a cell within a night, their coefficient of variation, from
    ``n`` runs in ``clusters`` nights of cells. ``between``: what nights add to it, from ``n`` pairs of nights of
    ``clusters`` cells; 0 where runs explain all of it. ``detectable``: for 5, 8 and 10 runs an arm, within a night, the
    least increase that is found four times in five at 5 %, two-sided. ``advice``: what to do where that is above 3 %
    with 8 runs an arm. ``left_out``: runs without a number above zero.
    """

    within: Estimate
    between: Estimate
    detectable: tuple[tuple[int, Estimate], ...]
    advice: str | None
    left_out: int


@dataclass(frozen=True)
class _Pairs:
    """Differences of two logs without their sign, the weight of each, and the cluster it belongs to."""

    sizes: Array
    weights: Array
    clusters: npt.NDArray[np.int64]
    dof: float


def noise_floor(rows: Iterable[tuple[str, str, float | None]]) -> NoiseFloor:
    """The noise floor of one metric of one device in one mode, from the cell, night and number of each run.

    A cell is all that was asked for, so its name holds the point too where a run has several. Order does not matter.
    """
    groups: dict[tuple[str, str], list[float]] = {}
    left_out = 0
    for cell, night, value in rows:
        if value is None or not math.isfinite(value) or value <= 0:
            left_out += 1
        else:
            groups.setdefault((cell, night), []).append(math.log(value))
    ordered = {key: np.sort(groups[key]) for key in sorted(groups)}
    repeated = [logs for logs in ordered.values() if len(logs) > 1]
    within = _scatter(_of_runs(repeated), sum(map(len, repeated)), "no_repeats: no cell has two runs in one night")
    between = _between(ordered, within)
    found = tuple((n, _detectable(within, n)) for n in ARMS)
    return NoiseFloor(within, between, found, _advice(within), left_out)


def _of_runs(groups: Sequence[Array]) -> _Pairs:
    """All pairs of runs of each group; a large group falls into several by chance, always the same."""
    parts: list[Array] = []
    for logs in groups:
        some = -(-len(logs) // _MOST)
        dealt = np.random.default_rng(_SEED).permutation(logs) if some > 1 else logs
        parts += np.array_split(dealt, some)
    sizes, weights, clusters = [np.empty(0)], [np.empty(0)], [np.empty(0, dtype=np.int64)]
    for number, logs in enumerate(parts):
        one, other = _two_of(len(logs))
        sizes.append(np.abs(logs[one] - logs[other]))
        weights.append(np.full(len(one), 2 / len(logs)))
        clusters.append(np.full(len(one), number))
    # The efficiency is 0.86 in large groups and 0.37 in groups of two: a little less, and the interval covers.
    dof = sum((len(logs) - 1) * (0.8 - 1 / len(logs)) for logs in parts)
    return _Pairs(np.concatenate(sizes), np.concatenate(weights), np.concatenate(clusters), dof)


@lru_cache(maxsize=_MOST)
def _two_of(n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.triu_indices(n, 1)


def _between(groups: dict[tuple[str, str], Array], within: Estimate) -> Estimate:
    """What nights add: the scatter from a cell's night to its next, less what the runs behind their medians explain."""
    nights: dict[str, list[tuple[float, int]]] = {}
    for (cell, _), logs in groups.items():
        n = len(logs)
        median = (logs[(n - 1) // 2] + logs[n // 2]) / 2  # they are in order; np.median takes ten times as long
        nights.setdefault(cell, []).append((float(median), n))
    series = [one for one in nights.values() if len(one) > 1]
    if within.value is None:
        return missing(str(within.reason))
    sizes = np.array([abs(a[0] - b[0]) for one in series for a, b in pairwise(one)])
    of_cell = np.array([i for i, one in enumerate(series) for _ in one[1:]], dtype=np.int64)
    pairs = _Pairs(sizes, np.ones(len(sizes)), of_cell, _NEXT * len(sizes))
    # Two nights differ by sqrt(2) times what one scatters, as two runs do.
    seen = _scatter(pairs, len(sizes), "one_night: no cell has runs in two nights")
    if seen.value is None:
        return seen
    counts = [n for one in series for _, n in one]
    share = sum(map(_of_median, counts)) / len(counts)
    off = seen.value**2 - share * within.value**2
    value, method = math.sqrt(max(off, 0.0)), f"{seen.method}, less what runs explain"
    if seen.lo is None or seen.hi is None or within.lo is None or within.hi is None:
        return Estimate(value, n=seen.n, clusters=seen.clusters, method=method)
    down = math.hypot(seen.value**2 - seen.lo**2, share * (within.hi**2 - within.value**2))
    up = math.hypot(seen.hi**2 - seen.value**2, share * (within.value**2 - within.lo**2))
    lo, hi = (math.sqrt(max(x, 0.0)) for x in (off - down, off + up))
    return Estimate(value, lo, hi, None, seen.n, seen.clusters, f"{method}, MOVER")


def _of_median(n: int) -> float:
    """Variance of the median of n normal values of variance 1, to 2 %: that of an even number is less."""
    return 1.0 if n == 1 else math.pi / 2 / (n + (math.pi / 2 - 1 if n % 2 else 1.2))


def _scatter(pairs: _Pairs, n: int, none: str) -> Estimate:
    """The standard deviation that the weighted median of the differences stands for, with its interval."""
    if not len(pairs.sizes):
        return missing(none)
    order = np.argsort(pairs.sizes, kind="stable")
    sizes, weights, clusters = pairs.sizes[order], pairs.weights[order], pairs.clusters[order]
    value = _middle(sizes, weights) / _PAIR
    k = int(clusters.max()) + 1
    if k >= FEW:
        lo, hi = (_limit(sizes, weights, clusters, sign * t_quantile(k - 1)) / _PAIR for sign in (-1, 1))
        return Estimate(value, lo, hi, None, n, k, "pairs; by the scores of clusters")
    if pairs.dof < 1:
        return Estimate(value, n=n, clusters=k, method="pairs; too few for an interval")
    from scipy.special import chdtri

    lo, hi = (value * math.sqrt(pairs.dof / float(chdtri(pairs.dof, tail))) for tail in (0.025, 0.975))
    return Estimate(value, lo, hi, None, n, k, "pairs; chi-square")


def _middle(sizes: Array, weights: Array) -> float:
    """The weighted median of sizes in order; of an even number that weigh the same, the middle of the middle two."""
    sums = np.cumsum(weights)
    half = float(sums[-1]) / 2
    low, high = np.searchsorted(sums, [half * (1 - 1e-9), half * (1 + 1e-9)])
    return float(sizes[low] + sizes[high]) / 2


def _limit(sizes: Array, weights: Array, clusters: npt.NDArray[np.int64], t: float) -> float:
    """The size at which the scores of the clusters, weight below it less weight above, sum to t of their errors.

    A median by its score: whole clusters are what is independent, and nothing is presumed of how they scatter.
    """
    low, high = 0, len(sizes) - 1
    for _ in range(_HALVINGS):
        if low >= high:
            break
        at = (low + high) // 2
        scores = np.bincount(clusters, np.where(sizes <= sizes[at], weights, -weights))
        if float(scores.sum()) < t * math.sqrt(float(scores @ scores)):
            low = at + 1
        else:
            high = at
    return float(sizes[low])


def _detectable(within: Estimate, n: int) -> Estimate:
    if within.value is None:
        return missing(str(within.reason))
    value, lo, hi = (None if x is None else detectable(x, n, n) for x in (within.value, within.lo, within.hi))
    return Estimate(value, lo, hi, None, within.n, within.clusters, within.method)


def _advice(within: Estimate) -> str | None:
    """What to do about a device that cannot show a change of 3 % with 8 runs an arm; None where it can."""
    if within.value is None:
        return None
    least = detectable(within.value, GATE_ARM, GATE_ARM)
    if least <= POLICY:
        return None
    need = runs_needed(within.value, POLICY)
    wanted = "more than 10,000" if need is None else str(need)
    return (
        f"runs scatter by {within.value:.1%} within a night, so {GATE_ARM} an arm show {least:.1%} at the least: "
        f"{POLICY:.0%} takes {wanted} an arm, or a device that is cooled, charged and left alone"
    )
