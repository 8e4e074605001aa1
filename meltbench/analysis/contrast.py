"""Whether two arms of runs differ, by how much, and what so many runs could have shown; a number a run.

Tests are exact where they can be counted out: of few runs a normal approximation states shares that it does not hold.
What a shift is taken of is the log of a number, so that it is a ratio, as devices differ by factors.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis.stats import Estimate, missing, ratio_of_medians, spread_of_log_ratio, t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from meltbench.analysis.stats import Array

    Ranks = npt.NDArray[np.int64]

ALPHA = 0.05
POWER = 0.8
MAD_LIMIT = 5.0
_NORMAL_MAD = 1.4826  # the standard deviation over the MAD of a normal distribution
_NORMAL_MEAN_AD = 1.2533
_EXACT = 2**53  # ways of dealing runs into two arms that a double counts exactly
_STEPS = 100_000_000  # additions that counting them out may take
_PAIRS = 10_000_000
_RANK_EFFICIENCY = 3 / math.pi  # of Mann-Whitney against t, where runs scatter normally
_MOST = 10_000


@dataclass(frozen=True)
class Test:
    """A two-sided test. ``delta``: Cliff's, from -1 (all runs of the second arm are below all of the first) to 1.

    ``least``: the least p that arms of this size, with these ties, can give.
    """

    p: float
    delta: float
    method: str
    least: float = 0.0


@dataclass(frozen=True)
class Contrast:
    """The second arm against the first. ``ratio``: of the medians; ``shift``: Hodges and Lehmann's, as a ratio.

    ``test`` is None where an arm has fewer than two runs.
    """

    ratio: Estimate
    shift: Estimate
    test: Test | None


def contrast(first: Sequence[float], second: Sequence[float]) -> Contrast:
    """How the second arm stands against the first; numbers above zero have ratios, all have a test."""
    tested = mann_whitney(first, second) if min(len(first), len(second)) >= 2 else None
    return Contrast(ratio_of_medians(second, first), shift_ratio(first, second), tested)


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> Test:
    """Mann and Whitney's test (1947), two-sided, with Cliff's delta (1993), which is 2 U / (n m) - 1.

    Exact also with ties: every way of dealing the runs into arms of these sizes is counted, and p is the share of those
    whose rank sum lies as far from its mean or farther. Beyond 2^53 ways, 28 runs an arm: normal, with corrections for
    ties and continuity. Five runs an arm reach 0.0079 at best.
    """
    n, m = len(first), len(second)
    ranks = _doubled_ranks(np.asarray([*first, *second], dtype=float))
    # Of the smaller arm, for counting takes time with its size.
    few, sums = (n, ranks[:n]) if n <= m else (m, ranks[n:])
    far = abs(int(sums.sum()) - few * (n + m + 1))
    u = (int(ranks[n:].sum()) - m * (m + 1)) / 2  # pairs in which the second is above, ties being halves
    delta = 2 * u / (n * m) - 1
    values, counts = np.unique(ranks, return_counts=True)
    most = int(np.sort(ranks)[-few:].sum())
    if math.comb(n + m, few) <= _EXACT and len(values) * few * most <= _STEPS:
        ways = _ways(tuple(values.tolist()), tuple(counts.tolist()), few, most)
        off = np.abs(np.arange(most + 1) - few * (n + m + 1))
        p, least = (float(ways[off >= one].sum() / ways.sum()) for one in (far, off[ways > 0].max()))
        return Test(min(p, 1.0), delta, "exact Mann-Whitney", min(least, 1.0))
    return Test(_normal_p(far / 2, n, m, counts), delta, "Mann-Whitney, normal approximation")


def _doubled_ranks(values: Array) -> Ranks:
    """Twice the rank of each value, those that tie having the mean of theirs: a whole number."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((2 * last - counts + 1)[inverse], dtype=np.int64)


@lru_cache(maxsize=64)  # without ties it is the same of all arms of these sizes
def _ways(values: tuple[int, ...], counts: tuple[int, ...], few: int, most: int) -> Array:
    """How many choices of ``few`` runs have each sum of ranks."""
    ways = np.zeros((few + 1, most + 1))
    ways[0, 0] = 1
    for rank, tied in zip(values, counts, strict=True):
        before = ways.copy()
        for k in range(1, min(tied, few) + 1):
            if k * rank > most:
                break
            ways[k:, k * rank :] += math.comb(tied, k) * before[: few + 1 - k, : most + 1 - k * rank]
    return np.array(ways[few], dtype=float)  # a copy: the others are let go of


def _normal_p(far: float, n: int, m: int, counts: Ranks) -> float:
    total = n + m
    ties = float((counts.astype(float) ** 3 - counts).sum()) / (total * (total - 1))
    variance = n * m / 12 * (total + 1 - ties)
    if variance <= 0:
        return 1.0
    return min(math.erfc(max(far - 0.5, 0.0) / math.sqrt(2 * variance)), 1.0)


def shift_ratio(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Hodges and Lehmann's estimate (1963): the median of all ratios of a run of the second arm to one of the first.

    The interval is that of the shifts which Mann and Whitney's test would not refuse at 5 %. Fewer than four runs an
    arm refuse none, and have none.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    n = len(a) + len(b)
    if len(a) == 0 or len(b) == 0:
        return missing("no_values: an arm has no run")
    if a.min() <= 0 or b.min() <= 0:
        return missing("not_positive: a value is not above zero", n)
    if len(a) * len(b) > _PAIRS:
        return missing(f"too_many_pairs: more than {_PAIRS:,} pairs of runs", n)
    ratios = np.sort(np.divide.outer(b, a).ravel())
    value = math.exp(float(np.median(np.log(ratios))))
    skipped = _pairs_outside(min(len(a), len(b)), max(len(a), len(b)))
    if skipped is None:
        return Estimate(value, n=n, clusters=n, method="too few runs for an interval")
    lo, hi = float(ratios[skipped]), float(ratios[-1 - skipped])
    return Estimate(value, min(lo, value), max(hi, value), None, n, n, "Hodges-Lehmann")


@lru_cache(maxsize=1024)
def _lower_tail(few: int, many: int) -> Array | None:
    """The chance of each U or a lower one where no runs tie; None where there are too many to count them out."""
    total = few + many
    if math.comb(total, few) > _EXACT or total * few * (2 * many + few) > _STEPS:
        return None
    ranks = range(1, total + 1)
    ways = _ways(tuple(ranks), (1,) * total, few, sum(ranks[-few:]))[few * (few + 1) // 2 :]
    return np.asarray(np.cumsum(ways) / ways.sum(), dtype=float)


def _attained(few: int, many: int) -> float:
    """The largest p of the exact test that is not above ALPHA; where no p is that low, the least one."""
    below = _lower_tail(few, many)
    if below is None:
        return ALPHA
    return 2 * float(below[max(int(np.searchsorted(below, ALPHA / 2, side="right")) - 1, 0)])


def _pairs_outside(few: int, many: int) -> int | None:
    """How many of the ordered pairs lie outside of a 95 % interval at each end; None: not even all are wide enough."""
    total, below = few + many, _lower_tail(few, many)
    if below is not None:
        skipped = int(np.searchsorted(below, ALPHA / 2, side="right"))
        return skipped - 1 if skipped else None
    sd = math.sqrt(few * many * (total + 1) / 12)
    return max(math.floor(few * many / 2 - t_quantile(math.inf) * sd - 0.5), 0)


def sign_test(first: Sequence[float], second: Sequence[float]) -> Test:
    """Marks of the same items in both arms: of right and wrong McNemar's test (1947), exact.

    Where nothing differs, an item that does not have the same mark in both rose as likely as it fell. ``delta``: the
    share of items that rose less the share that fell.
    """
    up, down = (sum(b > a if rose else b < a for a, b in zip(first, second, strict=True)) for rose in (True, False))
    method = "exact McNemar" if {*first, *second} <= {0, 1} else "sign test of items"
    return Test(_coin(up, down), (up - down) / len(first), method, _coin(0, up + down))


def paired_t(first: Sequence[float], second: Sequence[float]) -> Test:
    """Numbers of the same chunks in both arms, by t on their differences. ``delta`` as of ``sign_test``."""
    d = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    delta = float((d > 0).mean() - (d < 0).mean())
    scatter = float(d.std(ddof=1)) / math.sqrt(len(d))
    if scatter <= 1e-12 * float(np.abs(d).max()):  # all differ by the same: t would call that certain
        return Test(_coin(int((d > 0).sum()), int((d < 0).sum())), delta, "sign test of chunks", _coin(0, len(d)))
    from scipy.special import stdtr

    return Test(2 * float(stdtr(len(d) - 1, -abs(float(d.mean())) / scatter)), delta, "t on paired differences")


def _coin(up: int, down: int) -> float:
    from scipy.special import bdtr

    return min(2 * float(bdtr(min(up, down), up + down, 0.5)), 1.0) if up + down else 1.0


def family_of(tests: Sequence[Test]) -> list[float | None]:
    """Each p adjusted for the others, by ``benjamini_hochberg``; None for a test that cannot come to 5 %.

    What can never be a false alarm, such as of three runs an arm or of runs that are all equal, is no part of a family
    (Gilbert 2005, Journal of the Royal Statistical Society C 54:143).
    """
    able = [at for at, one in enumerate(tests) if one.least <= ALPHA]
    adjusted = dict(zip(able, benjamini_hochberg([tests[at].p for at in able]), strict=True))
    return [adjusted.get(at) for at in range(len(tests))]


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """Each p as the least rate of false discoveries at which it is one (Benjamini and Hochberg 1995), in their order.

    The family is what is handed in. Where nothing differs, so many families have a false alarm as the rate says.
    """
    order = sorted(range(len(ps)), key=lambda at: ps[at], reverse=True)
    out, least = [0.0] * len(ps), 1.0
    for place, at in enumerate(order):
        least = min(least, ps[at] * (len(ps) / (len(ps) - place)))
        out[at] = least
    return out


def outliers(values: Sequence[float]) -> list[bool]:
    """Which lie more than five MADs, scaled to a standard deviation, from the median: to be told, never dropped.

    Where more than half are equal, the mean absolute deviation in its place (Iglewicz and Hoaglin 1993).
    """
    x = np.asarray(values, dtype=float)
    if len(x) == 0:
        return []
    off = np.abs(x - np.median(x))
    scale = _NORMAL_MAD * float(np.median(off)) or _NORMAL_MEAN_AD * float(off.mean())
    return [bool(one > MAD_LIMIT * scale) for one in off]


def ratio_over_strata(arms: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Estimate:
    """Geometric mean of the ratios of medians, second over first, of several strata, each counting once.

    The interval is t on the mean of the log ratios, by the scatter of runs within strata (Satterthwaite): it is of
    these strata, and says nothing of others.
    """
    if not arms or not all(first and second for first, second in arms):
        return missing("no_values: there is no stratum, or an arm of one has no run")
    k, n = len(arms), sum(len(first) + len(second) for first, second in arms)
    if min(min(*first, *second) for first, second in arms) <= 0:
        return missing("not_positive: a value is not above zero", n)
    logs = [math.log(statistics.median(second) / statistics.median(first)) for first, second in arms]
    value = math.exp(math.fsum(logs) / k)
    if any(min(len(first), len(second)) < 2 for first, second in arms):
        return Estimate(value, n=n, clusters=k, method="one run in an arm of a stratum")
    spreads = [spread_of_log_ratio(second, first) for first, second in arms]
    variance = math.fsum(v for v, _ in spreads)
    dof = math.inf if variance == 0 else variance**2 / math.fsum(v * v / d for v, d in spreads)
    factor = math.exp(t_quantile(dof) * math.sqrt(variance) / k)
    return Estimate(value, value / factor, value * factor, None, n, k, "t on the mean log ratio of strata")


def scatter(*arms: Sequence[float]) -> float | None:
    """Standard deviation of the logs within arms, pooled; None where no arm has two runs above zero."""
    logs = [np.log(np.asarray(one, dtype=float)) for one in arms if len(one) > 1 and min(one) > 0]
    dof = sum(len(one) - 1 for one in logs)
    return math.sqrt(sum(float(((one - one.mean()) ** 2).sum()) for one in logs) / dof) if dof else None


def detectable(sd: float, n: int, m: int) -> float:
    """The least increase, as a share, that arms of n and m runs show four times in five, runs scattering normally.

    ``sd`` of the logs. By t, less what a test by ranks loses of it: 3 / pi of the runs count, and of few runs no p lies
    just below 5 %.
    """
    dof = max(n + m - 2, 1)
    need = t_quantile(dof, 1 - _attained(min(n, m), max(n, m))) + t_quantile(dof, 2 * POWER - 1)
    return math.expm1(min(need * sd * math.sqrt((1 / n + 1 / m) / _RANK_EFFICIENCY), 700.0))


def runs_needed(sd: float, effect: float, family: int = 1) -> int | None:
    """Runs an arm from which an increase of ``effect`` (a share) is shown four times in five; None: beyond 10,000."""
    few = floor_runs(family)
    if detectable(sd, _MOST, _MOST) > effect:
        return None
    low, high = few, _MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if detectable(sd, middle, middle) <= effect else (middle + 1, high)
    return low


def floor_p(n: int, m: int) -> float:
    """The least p that the exact test of arms of so many runs can give: all of one above all of the other."""
    return 2 / math.comb(n + m, n)


def floor_runs(family: int = 1) -> int:
    """Runs an arm from which one figure alone of a family that is adjusted together can be shown at all."""
    n = 2
    while floor_p(n, n) * family > ALPHA:
        n += 1
    return n
