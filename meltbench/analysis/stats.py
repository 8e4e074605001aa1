"""Proportions, means, paired differences and ratios with 95 % intervals: small, seeded, and one way to do each.

What is resampled, and what degrees of freedom count, are *clusters*: values that are not independent of each other
(the answers to one question, the requests of one run) share a label. A ratio of means with fewer than ``FEW`` clusters
gets its interval from t on the log of the ratio, because a percentile bootstrap covers 88 % at five; with more, from
the BCa bootstrap of whole clusters. The same values give the same interval, always.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from meltbench.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import numpy.typing as npt

    Array = npt.NDArray[np.float64]
    Places = npt.NDArray[np.int64]
    # Sums over clusters, one set a row, to the number that is wanted of each.
    Statistic = Callable[[Array], Array]

FEW = 10
RESAMPLES = 4000
_SEED = 20_231
_LEVEL = 0.95
_AT_ONCE = 1 << 20  # numbers drawn at a time: a bootstrap of many clusters has to fit in memory


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval. ``value`` is None exactly when ``reason`` is set; it is never 0 for missing.

    ``se``: standard error, None where it is not known. ``n``: values behind it; ``clusters``: how many independent
    groups these make. An interval may be missing although there is a value: of one observation nobody knows.
    """

    value: float | None
    lo: float | None = None
    hi: float | None = None
    se: float | None = None
    n: int = 0
    clusters: int = 0
    method: str = ""
    reason: str | None = None


def missing(reason: str, n: int = 0) -> Estimate:
    """No number, and why."""
    return Estimate(None, n=n, reason=reason)


def t_quantile(dof: float, level: float = _LEVEL) -> float:
    """Two-sided quantile of Student's t: 1.96 for many degrees of freedom, 12.7 for one."""
    from scipy.special import stdtrit

    return float(stdtrit(dof, 0.5 + level / 2))


def proportion(k: float, n: int, level: float = _LEVEL) -> Estimate:
    """``k`` right of ``n``, with the standard error of lm-evaluation-harness and Wilson's interval.

    The error is sqrt(p (1 - p) / (n - 1)), as of any sample mean; Wilson's interval (1927) is not symmetric, stays
    between 0 and 1, and has a width also at 0 and n right. There the standard error is None: the sample's is 0, which
    says nothing of the next item. One item has none either. ``k`` may be a sum of part marks.
    """
    if n <= 0:
        return missing("no_items: nothing was scored")
    if not 0 <= k <= n:
        raise InternalError(f"{k} right of {n}")
    z2, p = t_quantile(math.inf, level) ** 2, k / n
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    se = math.sqrt(p * (1 - p) / (n - 1)) if 0 < k < n and n > 1 else None
    lo, hi = 0.0 if k == 0 else max(middle - half, 0.0), 1.0 if k == n else min(middle + half, 1.0)
    return Estimate(p, lo, hi, se, n, n, "Wilson")


def at_most(k: int, n: int, level: float = _LEVEL) -> float:
    """The share that lies above ``k`` of ``n`` seen, one-sided and exact (Clopper and Pearson 1934, Biometrika 26:404).

    Of none seen it is 1 - 0.05^(1/n), about 3 / n: the rule of three (Hanley and Lippman-Hand 1983, JAMA 249:1743).
    """
    if not 0 <= k <= n or not n:
        raise InternalError(f"{k} of {n}")
    from scipy.special import betaincinv

    return 1.0 if k == n else float(betaincinv(k + 1, n - k, level))


def mean(values: Sequence[float], level: float = _LEVEL) -> Estimate:
    """Mean with its standard error and t interval; of one value no interval."""
    n = len(values)
    if n == 0:
        return missing("no_values: there is nothing to take a mean of")
    x = np.asarray(values, dtype=float)
    middle = float(x.mean())
    if n == 1:
        return Estimate(middle, n=1, clusters=1, method="one value")
    se = float(x.std(ddof=1)) / math.sqrt(n)
    half = t_quantile(n - 1, level) * se
    return Estimate(middle, middle - half, middle + half, se, n, n, "t")


def paired_mean(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean of ``second - first`` over pairs, such as log-likelihoods of the same chunks, with its t interval.

    What both have in common, which is most of what makes chunks differ, cancels. Of mean log-likelihoods a token,
    exp of the negative difference is the ratio of the perplexities.
    """
    if len(first) != len(second):
        raise InternalError(f"{len(first)} values against {len(second)}: these are no pairs")
    found = mean([b - a for a, b in zip(first, second, strict=True)])
    return replace(found, method="t on paired differences" if len(first) > 1 else found.method)


def paired_accuracy(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Accuracy of ``second`` less that of ``first`` on the same items, marks being 0 to 1.

    Of right and wrong the standard error is McNemar's: from the items on which they disagree alone, b one way and c
    the other, sqrt(b + c - (b - c)^2 / n) / n. The interval is that of Bonett and Price (2012), which adds one item to
    each of b and c: it covers at small n and has a width where nothing differs. So it does of part marks, such as
    means over runs: t on their differences would have as good as no width where nearly all are alike.
    """
    if len(first) != len(second):
        raise InternalError(f"{len(first)} items against {len(second)}: these are no pairs")
    n = len(first)
    if n == 0:
        return missing("no_items: no item was scored by both")
    d = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    total, squares = float(d.sum()), float((d * d).sum())
    middle = total / (n + 2)
    half = t_quantile(math.inf) * math.sqrt(((squares + 2) / (n + 2) - middle**2) / (n + 2))
    lo, hi = max(middle - half, -1.0), min(middle + half, 1.0)
    se = math.sqrt(max(squares - total**2 / n, 0.0)) / n
    return Estimate(total / n, lo, hi, se, n, n, "Bonett and Price, paired")


def ratio_of_means(
    above: Sequence[float], below: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Mean of ``above`` over mean of ``below``, both of the same cases, with a joint interval.

    Where values below the line may be negative, as net energies are, their mean has to be told from zero, or there is
    no ratio, and the reason says so.
    """
    sums = cluster_sums((above, below), clusters)
    return ratio_of_sums(sums, len(above))


def ratio_of_sums(sums: Array, n: int) -> Estimate:
    """The ratio of two columns of cluster sums, see ``ratio_of_means``; ``n``: the cases in them."""
    k = len(sums)
    if k == 0:
        return missing("no_values: there is nothing to take a ratio of")
    x, y = sums.sum(axis=0)
    if y <= 0:
        return missing(f"not_positive: the mean below the line is {y / n:.3g}", n)
    value = float(x / y)
    if k == 1:
        return Estimate(value, n=n, clusters=1, method="one cluster")
    residual = sums[:, 0] - value * sums[:, 1]
    se = math.sqrt(k / (k - 1) * float(residual @ residual)) / float(y)  # linearised: the delta method
    spread = math.sqrt(k * float(sums[:, 1].var(ddof=1)))
    if t_quantile(k - 1) * spread >= y and float(sums[:, 1].min()) <= 0:
        return missing("not_positive: the mean below the line cannot be told from zero", n)
    if k >= FEW:
        found = bootstrap(sums, lambda s: s[..., 0] / s[..., 1])
        return replace(found, se=se, n=n)
    if value <= 0:
        return Estimate(value, None, None, se, n, k, "few clusters, nothing above the line")
    factor = math.exp(t_quantile(k - 1) * se / value)
    return Estimate(value, value / factor, value * factor, se, n, k, "t on the log ratio")


def ratio_of_medians(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """Median of one arm of runs over that of another, a number a run, all above zero.

    With fewer than ``FEW`` runs in an arm: Welch's t on the logs, their variances times pi / 2, which is by how much a
    median scatters more than a mean where runs scatter normally, and more than it is of few. Of runs that fall
    into two clusters far apart it covers 80 to 88 %. With more: the percentiles of a bootstrap of both arms, which
    presume nothing of how runs scatter.
    """
    a, b = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    n = len(a) + len(b)
    if len(a) == 0 or len(b) == 0:
        return missing("no_values: an arm has no run")
    if a.min() <= 0 or b.min() <= 0:
        return missing("not_positive: a value is not above zero", n)
    value = float(np.median(a) / np.median(b))
    if min(len(a), len(b)) < 2:
        return Estimate(value, n=n, clusters=n, method="one run in an arm")
    if min(len(a), len(b)) >= FEW:
        ranks = _ranks(len(a), len(b))
        drawn = _medians(a, ranks[0]) / _medians(b, ranks[1])
        lo, hi = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        spread = float(drawn.std(ddof=1))
        return Estimate(value, float(lo), float(hi), spread, n, n, "bootstrap of the medians of both arms' runs")
    variance, dof = spread_of_log_ratio(above, below)
    se = math.sqrt(variance)
    factor = math.exp(t_quantile(dof) * se)
    return Estimate(value, value / factor, value * factor, value * se, n, n, "t on the log ratio of medians")


def spread_of_log_ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """Variance of the log of a ratio of medians of two or more runs each, and its degrees of freedom, by Welch."""
    arms = [np.log(np.asarray(one, dtype=float)) for one in (above, below)]
    va, vb = (math.pi / 2 * float(one.var(ddof=1)) / len(one) for one in arms)
    if va + vb == 0:
        return 0.0, math.inf
    return va + vb, (va + vb) ** 2 / (va**2 / (len(above) - 1) + vb**2 / (len(below) - 1))


@lru_cache(maxsize=32)  # many figures are of as many runs; a quarter of a megabyte each
def _ranks(*sizes: int) -> list[tuple[Places, Places]]:
    """Of each resample of each arm the places of the two runs in order of which the median is the mean.

    Ranks are drawn, as those of uniform numbers in order are.
    """
    rng = np.random.default_rng(_SEED)
    found = []
    for n in sizes:
        rank = (n + 1) // 2
        lower = rng.beta(rank, n - rank + 1, RESAMPLES)
        upper = lower + (1 - lower) * rng.beta(1, n - rank, RESAMPLES) if n % 2 == 0 else lower
        found.append(((n * lower).astype(np.int64), np.minimum((n * upper).astype(np.int64), n - 1)))
    return found


def _medians(values: Array, ranks: tuple[Places, Places]) -> Array:
    """The median of every resample of one arm."""
    ordered = np.sort(values)
    return np.asarray((ordered[ranks[0]] + ordered[ranks[1]]) / 2, dtype=float)


def ratio_of_estimates(above: Estimate, below: Estimate) -> Estimate:
    """The ratio of two numbers that are known apart, each with its interval (MOVER: Donner and Zou, 2012).

    For what cannot be resampled together: an accuracy of elsewhere, or one where every answer was right, or wrong.
    """
    if above.value is None or below.value is None:
        return missing(str(above.reason or below.reason), min(above.n, below.n))
    n, k = min(above.n, below.n), min(above.clusters, below.clusters)
    if below.value <= 0:
        return missing(f"not_positive: the mean below the line is {below.value:.3g}", n)
    value = above.value / below.value
    if above.lo is None or above.hi is None or below.lo is None or below.hi is None:
        return Estimate(value, n=n, clusters=k, method="an interval is not known")
    if below.lo <= 0:
        return missing("not_positive: the mean below the line cannot be told from zero", n)
    p, q = above.value, below.value

    def limit(mine: float, other: float, sign: int) -> float:
        inner = (p * q) ** 2 - mine * other * (2 * p - mine) * (2 * q - other)
        return (p * q + sign * math.sqrt(max(inner, 0.0))) / (other * (2 * q - other))

    lo = limit(above.lo, below.hi, -1) if below.hi < 2 * q else 0.0
    return Estimate(value, max(lo, 0.0), limit(above.hi, below.lo, 1), None, n, k, "MOVER")


def widened(found: Estimate, *parts: float) -> Estimate:
    """The interval with further relative half-widths added in quadrature on the log scale; a bound of 0 stays."""
    if found.value is None or found.lo is None or found.hi is None:
        return found
    if found.value <= 0:
        return replace(found, hi=found.hi * math.exp(math.hypot(*parts)))
    up = math.hypot(math.log(found.hi / found.value), *parts)
    down = math.hypot(math.log(found.value / found.lo), *parts) if found.lo > 0 else math.inf
    return replace(found, lo=found.value * math.exp(-down), hi=found.value * math.exp(up))


def scaled(found: Estimate, factor: float) -> Estimate:
    """The number in another unit: times a factor above zero that is exact."""
    value, lo, hi, se = (None if one is None else one * factor for one in (found.value, found.lo, found.hi, found.se))
    return replace(found, value=value, lo=lo, hi=hi, se=se)


def inverted(found: Estimate, above: float = 1.0) -> Estimate:
    """``above`` over the number. A lower bound of zero leaves the inverse without an upper one, and so without an
    interval; of a number that is zero or less there is no inverse."""
    if found.value is None:
        return found
    if found.value <= 0:
        return missing(f"not_positive: the number below the line is {found.value:.3g}", found.n)
    known = found.lo is not None and found.hi is not None and found.lo > 0
    lo, hi = (above / found.hi, above / found.lo) if known and found.hi and found.lo else (None, None)
    return replace(found, value=above / found.value, lo=lo, hi=hi, se=None)


def cluster_sums(columns: Sequence[Sequence[float]], clusters: Sequence[Hashable] | None = None) -> Array:
    """Sums of each column over each cluster: a row a cluster, in order of appearance; without labels a row a value."""
    table = np.array(columns, dtype=float).T.reshape(-1, len(columns))
    if clusters is None:
        return table
    if len(clusters) != len(table):
        raise InternalError(f"{len(clusters)} labels for {len(table)} values")
    places: dict[Hashable, int] = {}
    at = [places.setdefault(label, len(places)) for label in clusters]
    sums = np.zeros((len(places), len(columns)))
    np.add.at(sums, at, table)
    return sums


def bootstrap(sums: Array, statistic: Statistic) -> Estimate:
    """BCa interval (Efron 1987) of a statistic of sums over clusters, which are drawn whole.

    Its percentiles are those of t, times sqrt(k / (k - 1)), in place of the normal's (Hesterberg 2015): draws from k
    clusters scatter too little by as much, and at 12 without it 93 % are covered. Where every draw gives the same
    number, as of answers that are all right, the interval has no width: look for that before. ``se`` is the standard
    deviation of the draws.
    """
    from scipy.special import ndtr, ndtri

    k = len(sums)
    value = float(statistic(sums.sum(axis=0)))
    drawn = _draws(sums, statistic)
    left_out = statistic(sums.sum(axis=0) - sums)
    off = float(left_out.mean()) - left_out
    scale = float((off**2).sum()) ** 1.5
    lean = float((off**3).sum()) / (6 * scale) if scale > 0 else 0.0
    same = np.isclose(drawn, value, rtol=1e-12, atol=0)  # draws that tie, whatever their sums were rounded to
    below = float(((drawn < value) & ~same).mean() + same.mean() / 2)
    bias = float(ndtri(min(max(below, 0.5 / RESAMPLES), 1 - 0.5 / RESAMPLES)))

    def place(z: float) -> float:
        return float(ndtr(bias + (bias + z) / max(1 - lean * (bias + z), 1e-3)))

    z = t_quantile(k - 1) * math.sqrt(k / (k - 1))
    lo, hi = np.quantile(drawn, [place(-z), place(z)])
    lo, hi = min(float(lo), value), max(float(hi), value)
    return Estimate(value, lo, hi, float(drawn.std(ddof=1)), k, k, "BCa bootstrap of clusters")


def _draws(sums: Array, statistic: Statistic) -> Array:
    """The statistic of every resample; the same for the same number of clusters, run after run."""
    rng, k, parts, left = np.random.default_rng(_SEED), len(sums), [], RESAMPLES
    while left:
        now = min(left, max(_AT_ONCE // (k * sums.shape[1]), 1))
        parts.append(statistic(sums[rng.integers(k, size=(now, k))].sum(axis=1)))
        left -= now
    return np.concatenate(parts)
