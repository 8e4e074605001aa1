"""Which queries a local model would have answered, and what that saves: routers over items that were asked of all arms.

After "Intelligence per Watt" (Saad-Falcon et al., arXiv 2511.07885): an oracle sends each query to the cheapest local
model that answers it, else to the cloud, and a router that finds a share r of those saves r of what the oracle saves.
Beside these hypothetical routers stand ones that can be built: everything local, and the queries that a model is the
most sure of. All of it is paired by item. Intervals (95 %) are of other items: Wilson's of shares, t of means; and of
energies the gain of the meters, at k = 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meltbench.analysis.intelligence import accuracy_of
from meltbench.analysis.stats import Estimate, mean, missing, ratio_of_means, scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FOUND = 0.8  # the share of the answerable queries that the paper's router finds
KEPT = (0.25, 0.5, 0.75)  # shares of the queries, the surest first, that stay local
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of what was stated of the cloud
NO_CLOUD = "no_cloud: nothing says what a query takes there"
NO_ACCURACY = "no_cloud_accuracy: nothing says how often it is right there"


@dataclass(frozen=True)
class Asked:
    """One item as one arm answered it, the mean over its queries: ``right`` 0 to 1; ``within``: whether most of them
    were right and within the limits; ``energy_j`` None where it was not measured; ``sure``: log-likelihood by token of
    the answer taken, nat, None where the way of scoring has none."""

    right: float
    within: bool
    energy_j: float | None
    sure: float | None = None


@dataclass(frozen=True)
class Arm:
    """A local model. ``size``: what arms are tried in order of; ``gain_u``: relative standard uncertainty of its
    energies' gain, None where nobody knows it."""

    name: str
    size: float
    asked: Mapping[str, Asked]
    gain_u: float | None = None


@dataclass(frozen=True)
class Cloud:
    """Where the other queries go: stated, one number for every query, or as it was measured on the same items."""

    j_per_query: float | None = None
    accuracy: float | None = None
    asked: Mapping[str, Asked] | None = None
    gain_u: float | None = None

    def energy_j(self, item: str) -> float | None:
        """What an item takes there."""
        return self.j_per_query if self.asked is None else self.asked[item].energy_j

    def right(self, item: str) -> float | None:
        """How right it is there, 0 to 1; of a stated accuracy the same for hard and easy items."""
        return self.accuracy if self.asked is None else self.asked[item].right


@dataclass(frozen=True)
class Way:
    """What becomes of one item: the share of it that is answered locally, the arm whose answer that is, and what the
    arms took for it, of answers that were thrown away too."""

    local: float
    arm: Arm | None
    energy_j: float | None


@dataclass(frozen=True)
class Routed:
    """A router over the items. ``hypothetical``: it knows what no router knows. ``saved``: of the cloud's energy;
    ``break_even_j``: what a query must take in the cloud for anything to be saved, None where nothing stays local;
    ``sensitivity``: the saving at other stated energies of the cloud."""

    name: str
    hypothetical: bool
    local: Estimate
    accuracy: Estimate
    j_per_query: Estimate
    saved: Estimate
    break_even_j: float | None
    sensitivity: tuple[tuple[float, Estimate], ...]


def covered(arms: Sequence[Arm], items: Sequence[str]) -> Estimate:
    """The share of the items that at least one arm answers right within the limits, Wilson's interval."""
    return accuracy_of([(item, float(any(arm.asked[item].within for arm in arms))) for item in items])


def routed(arms: Sequence[Arm], cloud: Cloud, items: Sequence[str]) -> list[Routed]:
    """All routers over items that every arm, and the cloud where it was measured, was asked."""
    out = [_routed(f"all to {arm.name}", [arm], cloud, items, _always(arm)) for arm in arms]
    for arm in arms:
        if all(arm.asked[item].sure is not None for item in items):
            for kept in KEPT:
                name = f"surest {kept:.0%} to {arm.name}"
                out.append(_routed(name, [arm], cloud, items, _surest(arm, items, kept)))
    share = covered(arms, items)
    return [
        *out,
        _routed("cascade, checked", arms, cloud, items, _cascade(arms), share),
        _routed(f"oracle, finds {FOUND:.0%}", arms, cloud, items, _oracle(arms, FOUND), scaled(share, FOUND)),
        _routed("oracle", arms, cloud, items, _oracle(arms, 1.0), share),
    ]


def _always(arm: Arm) -> Callable[[str], Way]:
    return lambda item: Way(1.0, arm, arm.asked[item].energy_j)


def _surest(arm: Arm, items: Sequence[str], kept: float) -> Callable[[str], Way]:
    """The arm answers every query, and its surest answers are taken: the others go to the cloud after all."""
    order = sorted(items, key=lambda item: (-(arm.asked[item].sure or 0.0), item))
    taken = set(order[: round(kept * len(items))])
    return lambda item: Way(float(item in taken), arm, arm.asked[item].energy_j)


def _cascade(arms: Sequence[Arm]) -> Callable[[str], Way]:
    """From the smallest up until a checker, who knows what is right, is content; every try is paid for."""
    ordered = sorted(arms, key=lambda arm: (arm.size, arm.name))

    def way(item: str) -> Way:
        tried = 0.0
        known = True
        for arm in ordered:
            energy = arm.asked[item].energy_j
            known, tried = known and energy is not None, tried + (energy or 0.0)
            if arm.asked[item].within:
                return Way(1.0, arm, tried if known else None)
        return Way(0.0, None, tried if known else None)

    return way


def _oracle(arms: Sequence[Arm], finds: float) -> Callable[[str], Way]:
    """The cheapest arm that answers it, of which a share is found; of arms without an energy the smallest."""

    def way(item: str) -> Way:
        able = [arm for arm in arms if arm.asked[item].within]
        if not able:
            return Way(0.0, None, 0.0)
        best = min(able, key=lambda arm: (_or_inf(arm.asked[item].energy_j), arm.size, arm.name))
        energy = best.asked[item].energy_j
        return Way(finds, best, None if energy is None else finds * energy)

    return way


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value


def _routed(
    name: str,
    arms: Sequence[Arm],
    cloud: Cloud,
    items: Sequence[str],
    way: Callable[[str], Way],
    share: Estimate | None = None,
) -> Routed:
    """``share``: what stays local of a router that knows what is right; None: it was chosen, and has no interval."""
    ways = [way(item) for item in items]
    n, kept = len(ways), sum(one.local for one in ways) / len(ways)
    local = share or Estimate(kept, n=n, clusters=n, method="chosen")
    accuracy = _accuracy(ways, cloud, items)
    here = [one.energy_j for one in ways if one.energy_j is not None]
    if len(here) < n:
        none = missing("no_energy: of a query of a local arm", n)
        return Routed(name, share is not None, local, accuracy, none, none, None, ())
    gain_u = max((arm.gain_u or 0.0 for arm in arms), default=0.0)
    there = [cloud.energy_j(item) for item in items]
    stated = cloud.j_per_query if cloud.asked is None else None

    def saving(costs: Sequence[float | None]) -> Estimate:
        found = _saved(ways, here, costs, math.hypot(gain_u, cloud.gain_u or 0.0))
        return found if share is None else _of_all_or_none(found, ways)

    return Routed(
        name,
        share is not None,
        local,
        accuracy,
        _per_query(ways, here, there, gain_u),
        saving(there),
        sum(here) / n / kept if kept else None,
        () if stated is None else tuple((stated * scale, saving([stated * scale] * n)) for scale in SCALES),
    )


def _accuracy(ways: Sequence[Way], cloud: Cloud, items: Sequence[str]) -> Estimate:
    """How often the answer that is taken is right; a stated accuracy of the cloud is as exact as it was stated."""
    marks = []
    for item, one in zip(items, ways, strict=True):
        there = cloud.right(item)
        if one.local < 1 and there is None:
            return missing(NO_ACCURACY, len(items))
        here = 0.0 if one.arm is None else one.arm.asked[item].right
        marks.append((item, one.local * here + (1 - one.local) * (there or 0.0)))
    values = {mark for _, mark in marks}
    if len(values) == 1 and not values <= {0.0, 1.0}:  # some of it here, some there, of every item alike
        return Estimate(values.pop(), n=len(marks), clusters=len(marks), method="every item alike: no interval")
    return accuracy_of(marks)


def _per_query(ways: Sequence[Way], here: Sequence[float], there: Sequence[float | None], gain_u: float) -> Estimate:
    """Joules a query, here and there together."""
    if any(one.local < 1 for one in ways) and None in there:
        return missing(NO_CLOUD, len(ways))
    found = mean([mine + (1 - one.local) * (cost or 0.0) for mine, one, cost in zip(here, ways, there, strict=True)])
    return _beside(found, 2 * gain_u * sum(here) / len(here))


def _saved(ways: Sequence[Way], here: Sequence[float], there: Sequence[float | None], gain_u: float) -> Estimate:
    """The share of the cloud's energy that is saved, below zero where more is spent."""
    costs = [cost for cost in there if cost is not None]
    if len(costs) < len(there):
        return missing(NO_CLOUD, len(ways))
    if sum(costs) <= 0:
        return missing("not_positive: a query takes nothing in the cloud", len(ways))
    spent = [mine + (1 - one.local) * cost for mine, one, cost in zip(here, ways, costs, strict=True)]
    if len(set(costs)) == 1:
        found = mean([1 - one / costs[0] for one in spent])
    else:
        ratio = ratio_of_means(spent, costs)
        value, lo, hi = (None if one is None else 1 - one for one in (ratio.value, ratio.hi, ratio.lo))
        found = replace(ratio, value=value, lo=lo, hi=hi)
    return _beside(found, 2 * gain_u * sum(here) / sum(costs))


def _of_all_or_none(found: Estimate, ways: Sequence[Way]) -> Estimate:
    """A saving where every item was answered here, or none: other items would not all be, by Wilson's interval."""
    kept = sum(one.local > 0 for one in ways)
    if kept not in (0, len(ways)) or found.value is None:
        return found
    share = accuracy_of([(str(at), float(one.local > 0)) for at, one in enumerate(ways)])
    lo, hi = found.value if found.lo is None else found.lo, found.value if found.hi is None else found.hi
    if kept:
        lo = found.value - math.hypot(found.value - lo, 1 - (share.lo or 0.0))
    else:
        hi = found.value + math.hypot(hi - found.value, share.hi or 0.0)
    return replace(found, lo=lo, hi=hi, method="Wilson, of the share that stays local")


def _beside(found: Estimate, half: float) -> Estimate:
    """The interval with another half-width added in quadrature."""
    if found.value is None or found.lo is None or found.hi is None:
        return found
    return replace(
        found,
        lo=found.value - math.hypot(found.value - found.lo, half),
        hi=found.value + math.hypot(found.hi - found.value, half),
    )
