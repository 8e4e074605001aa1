"""Intelligence per watt and per joule of a set of queries, gross and net, with joint intervals.

From "Intelligence per Watt" (Saad-Falcon et al., arXiv 2511.07885, section 2), which also calls them APW and APJ:

    IPW = E[acc] / E[P]          P: mean power while a query is answered, W
    IPJ = E[acc] / E[P tau]      tau: its latency, s; P tau its energy, J

with E the mean over items, each the mean of its queries where it was asked several times. IPW rewards what is slow, so
IPJ is never given without it, nor it without IPJ.

An interval (95 %) has up to three parts. What other questions would have given: accuracy and cost of whole items are
resampled together, for hard questions have long answers. What other runs would have cost: t over the runs' mean costs,
where the same items were asked in each. And what no repetition shows: the gain of the meter, and for net numbers the
idle baseline, at k = 2. They are added in quadrature, on the log of the number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from meltbench.analysis import stats
from meltbench.analysis.stats import Estimate, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # A cost of every query and the mean of it, to what is wanted per watt or per joule.
    Ratio = Callable[[Sequence[float], Estimate], Estimate]

Origin = Literal["generated", "loglik", "inherited"]


NOT_POSITIVE = "not_positive: the mean cost cannot be told from zero"


@dataclass(frozen=True)
class Query:
    """One question as it was answered once.

    ``correct``: 0 to 1, None where it has no score; ``energy_j`` and ``latency_s`` from its sending to its end, of all
    requests that it took, else ``energy_reason``; ``net_energy_j``: less what idling would have taken.
    """

    item: str
    correct: float | None
    energy_j: float | None
    latency_s: float | None
    net_energy_j: float | None = None
    run: str = ""
    energy_reason: str = ""


@dataclass(frozen=True)
class Meter:
    """What the energies are of, and what is wrong with all of them alike.

    ``gain_u``: relative standard uncertainty (k = 1) of the gain, its limit / sqrt(3); None where nobody knows it.
    ``baseline_u_w``: standard uncertainty of the idle power that net energies are less by.
    """

    scope: str
    klass: str | None
    gain_u: float | None
    baseline_u_w: float | None = None


@dataclass(frozen=True)
class Accuracy:
    """An accuracy, and where it comes from: the very answers that cost the energy, or elsewhere; ``told``: more of
    that, in words."""

    estimate: Estimate
    origin: Origin
    told: str = ""


@dataclass(frozen=True)
class Cost:
    """What a query cost on average, gross or net, and how good the answers were per watt and per joule of it."""

    mean_power_w: Estimate
    mean_energy_j: Estimate
    per_w: Estimate
    per_j: Estimate


@dataclass(frozen=True)
class Intelligence:
    """All of it together, for none of these numbers should stand alone. ``flags``: what to know before comparing."""

    accuracy: Accuracy
    gross: Cost
    net: Cost
    scope: str
    klass: str | None
    n_queries: int
    n_items: int
    n_runs: int
    flags: tuple[str, ...]


def intelligence(
    queries: Sequence[Query], meter: Meter, origin: Origin = "generated", joined: Accuracy | None = None
) -> Intelligence:
    """Accuracy, cost and both ratios of some queries, their scores of ``origin``.

    ``joined``: an accuracy from elsewhere in place of theirs; then it and the cost are not of the same answers, and
    are taken as independent. A query that has a score and no energy makes every number of energy None: what is easy
    to measure is not the same as what was asked.
    """
    scored = list(queries) if joined is not None else [one for one in queries if one.correct is not None]
    accuracy = joined or Accuracy(accuracy_of([(one.item, one.correct or 0.0) for one in scored]), origin)

    def ratio(values: Sequence[float], mean: Estimate) -> Estimate:
        return _ratio(scored, values, mean, accuracy, together=joined is None)

    gross, net = costs_of(scored, meter, ratio)
    return Intelligence(
        accuracy,
        gross,
        net,
        meter.scope,
        meter.klass,
        len(scored),
        len({one.item for one in scored}),
        len({one.run for one in scored}),
        tuple(_of_accuracy(accuracy) + flags_of(queries, scored, meter)),
    )


def accuracy_of(marks: Sequence[tuple[str, float]]) -> Estimate:
    """From pairs of an item and a mark: of items answered once a proportion, of others the mean of the items' means."""
    items, values = [item for item, _ in marks], [mark for _, mark in marks]
    if len(set(items)) == len(items) and {*values} <= {0, 1}:
        return stats.proportion(sum(values), len(values))
    return _by_items(values, items, bounded=True)


def _by_items(values: Sequence[float], items: Sequence[str], *, bounded: bool = False) -> Estimate:
    """The mean of the items' means, for an item that was asked more often counts no more, with a t interval: on its log
    where all values are above zero, so that no power comes out negative."""
    if not values:
        return missing("no_items: nothing was scored" if bounded else "no_values: nothing was asked")
    means = _means(values, items)
    k, n = len(means), len(values)
    found = replace(stats.mean(means), n=n, method="t over items" if k > 1 else "one item")
    if bounded and found.value in (0.0, 1.0):  # no spread at all: as if every item had been asked once
        return replace(stats.proportion(found.value * k, k), n=n, method="Wilson over items")
    if found.value is None or found.lo is None or found.hi is None or found.se is None:
        return found
    lo, hi = found.lo, found.hi
    if bounded:
        lo, hi = max(lo, 0.0), min(hi, 1.0)
    elif min(values) > 0:
        half = (hi - lo) / 2 / found.value
        lo, hi = found.value * math.exp(-half), found.value * math.exp(half)
    return replace(found, lo=lo, hi=hi)


def _means(values: Sequence[float], items: Sequence[str]) -> list[float]:
    """The mean of each item's values, in order of appearance."""
    sums = stats.cluster_sums((values, [1.0] * len(values)), items)
    return [float(total / count) for total, count in sums]


def costs_of(queries: Sequence[Query], meter: Meter, ratio: Ratio) -> tuple[Cost, Cost]:
    """Gross and net. ``ratio``: what to make of every query's cost and the mean of it."""
    gross = _cost(queries, [one.energy_j for one in queries], meter, 0.0, ratio)
    return gross, _cost(queries, [one.net_energy_j for one in queries], meter, meter.baseline_u_w, ratio)


def _cost(
    queries: Sequence[Query], energies: Sequence[float | None], meter: Meter, baseline_u_w: float | None, ratio: Ratio
) -> Cost:
    found = [
        (energy, one.latency_s)
        for one, energy in zip(queries, energies, strict=True)
        if energy is not None and one.latency_s is not None and one.latency_s > 0
    ]
    n = len(queries)
    if len(found) < n or not n:
        return Cost(*([missing(_lacking(queries, n - len(found)), n)] * 4))
    duration_s = sum(s for _, s in found) / n
    made = []
    for values, seconds in (([energy / s for energy, s in found], 1.0), ([energy for energy, _ in found], duration_s)):
        mean = _by_items(values, [one.item for one in queries])
        shared, between = _systematic(meter, mean.value, baseline_u_w, seconds), _between_runs(queries, values)
        if shared < 1:
            made.append((stats.widened(mean, shared, between), stats.widened(ratio(values, mean), shared, between)))
        else:  # what all energies may be off by is more than the mean: a net cost that is next to nothing
            made.append((_down_to_zero(mean, shared), missing(NOT_POSITIVE, n)))
    (power, per_w), (energy, per_j) = made
    return Cost(power, energy, per_w, per_j)


def _lacking(queries: Sequence[Query], n: int) -> str:
    """Why there is no cost: how many queries have none, and why the first of them has none."""
    if not queries:
        return "no_items: nothing was scored"
    without = [one for one in queries if one.energy_j is None]
    if not without:
        return f"no_energy: {n} of {len(queries)} queries have no net energy, for want of an idle baseline or a time"
    why = next((one.energy_reason for one in without if one.energy_reason), "")
    return f"no_energy: {n} of {len(queries)} queries have none" + (f" ({why})" if why else "")


def _ratio(
    queries: Sequence[Query], values: Sequence[float], mean: Estimate, accuracy: Accuracy, *, together: bool
) -> Estimate:
    """Accuracy over a mean cost, before what no resampling shows. ``together``: both are of the same answers."""
    share = accuracy.estimate.value
    if not together or share is None or share in (0.0, 1.0):  # answers that are all alike have nothing to resample
        return stats.ratio_of_estimates(accuracy.estimate, mean)
    items = [one.item for one in queries]
    found = stats.ratio_of_means(_means([float(one.correct or 0) for one in queries], items), _means(values, items))
    return replace(found, n=len(queries))


def _systematic(meter: Meter, mean: float | None, baseline_u_w: float | None, seconds: float) -> float:
    """Relative uncertainty at k = 2 that all energies share: the gain, and of net ones the baseline."""
    if mean is None or mean <= 0:
        return 0.0
    return 2 * math.hypot(meter.gain_u or 0.0, (baseline_u_w or 0.0) * seconds / mean)


def _between_runs(queries: Sequence[Query], values: Sequence[float]) -> float:
    """Half the 95 % interval of the log of a mean cost, by how the runs differ; 0 where they cannot tell."""
    if not _alike(queries):
        return 0.0
    by_run: dict[str, list[float]] = {}
    for one, value in zip(queries, values, strict=True):
        by_run.setdefault(one.run, []).append(value)
    means = np.array([sum(of) / len(of) for of in by_run.values()])
    if len(means) < 2 or means.min() <= 0:
        return 0.0
    return stats.t_quantile(len(means) - 1) * float(np.log(means).std(ddof=1)) / math.sqrt(len(means))


def _alike(queries: Sequence[Query]) -> bool:
    """Whether several runs asked the same items, each as often."""
    by_run: dict[str, list[str]] = {}
    for one in queries:
        by_run.setdefault(one.run, []).append(one.item)
    asked = [sorted(items) for items in by_run.values()]
    return len(asked) > 1 and all(items == asked[0] for items in asked)


def _down_to_zero(mean: Estimate, relative: float) -> Estimate:
    """A mean whose interval, as large as itself and more, has no log scale."""
    if mean.value is None or mean.hi is None:
        return mean
    return replace(mean, lo=0.0, hi=mean.hi + mean.value * relative)


def _of_accuracy(accuracy: Accuracy) -> list[str]:
    if accuracy.origin == "generated":
        return []
    how = {"loglik": "scored by log-likelihood", "inherited": "inherited from another run"}[accuracy.origin]
    told = accuracy.told or f"the accuracy was {how}, not by answers that were generated at this cost"
    return [f"accuracy_{accuracy.origin}: {told}"]


def flags_of(queries: Sequence[Query], scored: Sequence[Query], meter: Meter) -> list[str]:
    """What a reader has to know before these numbers are put beside others."""
    out = []
    if len(scored) < len(queries):
        out.append(f"unscored: {len(queries) - len(scored)} of {len(queries)} queries have no score and are left out")
    if meter.gain_u is None and any(one.energy_j is not None for one in scored):
        out.append("gain_unknown: nobody stated the meter's gain, so the interval holds scatter alone")
    runs = {one.run for one in scored}
    if len(runs) == 1:
        out.append("one_run: how runs differ is not in the interval")
    elif len(runs) > 1 and not _alike(scored):
        out.append("runs_differ: the runs asked other items, so how they differ is not in the interval")
    return out
