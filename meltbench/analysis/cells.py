"""Runs in groups, each condensed to its median with a 95 % interval: what stands in a cell of a table of many.

Cheap enough for thousands of runs: nothing is drawn at random. With fewer than ``FEW`` runs the interval is that of t
on the logs of the runs, their variance times pi / 2, as in ``stats.ratio_of_medians``; with more it lies between two
of the runs in order, by the binomial distribution (Conover, Practical Nonparametric Statistics), whatever their shape.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from meltbench.analysis.stats import FEW, Estimate, missing, t_quantile

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

_NO_BOUND = 20.0  # an interval of a factor of e^20 says nothing
Key = TypeVar("Key", bound="Hashable")


def median_of(values: Sequence[float]) -> Estimate:
    """The median of one number a run; of one run without an interval."""
    ordered = sorted(values)
    n = len(ordered)
    if n == 0:
        return missing("no_values: no run has a value")
    middle = ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2
    if n == 1:
        return Estimate(middle, n=1, clusters=1, method="one run")
    if n >= FEW:
        rank = _rank(n)
        return Estimate(middle, ordered[rank - 1], ordered[n - rank], None, n, n, "order statistics")
    if ordered[0] <= 0:
        mean = math.fsum(ordered) / n
        scatter = math.sqrt(math.fsum((v - mean) ** 2 for v in ordered) / (n - 1) * math.pi / 2 / n)
        half = _t(n - 1) * scatter
        return Estimate(middle, middle - half, middle + half, scatter, n, n, "t on the median")
    logs = [math.log(v) for v in ordered]
    mean = math.fsum(logs) / n
    scatter = math.sqrt(math.fsum((v - mean) ** 2 for v in logs) / (n - 1) * math.pi / 2 / n)
    spread = _t(n - 1) * scatter
    if spread > _NO_BOUND:
        return Estimate(middle, n=n, clusters=n, method="none: the runs are too far apart")
    factor = math.exp(spread)
    return Estimate(middle, middle / factor, middle * factor, middle * scatter, n, n, "t on the log of the median")


def grouped(keys: Iterable[Key], values: Iterable[float | None]) -> dict[Key, list[float]]:
    """Values by key, in order of appearance; what is missing is left out, but its key is there."""
    out: dict[Key, list[float]] = {}
    for key, value in zip(keys, values, strict=True):
        mine = out.setdefault(key, [])
        if value is not None and math.isfinite(value):
            mine.append(value)
    return out


@lru_cache(maxsize=64)
def _t(dof: int) -> float:
    return t_quantile(dof)


@lru_cache(maxsize=1024)
def _rank(n: int) -> int:
    """The greatest r for which the r-th smallest and the r-th largest of n hold the median with 95 % at least."""
    from scipy.special import bdtr

    rank = 1
    while rank < n // 2 and 2 * float(bdtr(rank, n, 0.5)) <= 0.05:
        rank += 1
    return rank
