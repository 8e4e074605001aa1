"""How much better a model is in its best domain than in the others: three indices of accuracies by domain.

They have the names that "Fragile Mastery" (Jha and Paudel 2025, arXiv:2503.22698) proposes: Domain Specialization
Index, Generalization Gap, Cross-Domain Transfer Ratio. Its abstract does not define them and its text was not to be
had, so the definitions are our reading of the names, and no number here is to be held against one that is printed
there. With a the accuracy in the best domain and b_i those in the others:

    DSI = a / mean(b)      1 where no domain stands out
    GG = a - mean(b)       0 where no domain stands out
    CDTR = min(b) / a      share of the best that the weakest domain keeps, at most 1

A mean over domains is not weighted by their questions. Intervals (95 %) are made of those of the accuracies: MOVER of a
difference (Zou and Donner 2008) and of a ratio. The best and the weakest domain are found by the same answers, so they
look further apart than they are where questions are few.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from meltbench.analysis.intelligence import accuracy_of
from meltbench.analysis.stats import Estimate, missing, ratio_of_estimates
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.records import Score

    # An item and its mark, 0 to 1.
    Marks = Sequence[tuple[str, float]]

NAMES = ("domain_specialization_index", "generalization_gap", "cross_domain_transfer_ratio")


def indices(marks: Mapping[str, Marks]) -> tuple[tuple[Estimate, ...], str]:
    """DSI, GG and CDTR of marks by domain, two domains at least, and the name of the best one (of equals the first)."""
    found = {domain: accuracy_of(each) for domain, each in marks.items()}
    best = max(found, key=lambda domain: found[domain].value or 0.0)
    a, others = found[best], [one for domain, one in found.items() if domain != best]
    mean = _mean(others)
    if not a.value:
        none = missing("no_right_answer: in any domain", mean.n)
        return (none, _difference(a, mean), none), best
    weakest = min(others, key=lambda one: one.value or 0.0)
    return (ratio_of_estimates(a, mean), _difference(a, mean), ratio_of_estimates(weakest, a)), best


def domain_measures(scores: Sequence[Score]) -> list[Measure]:
    """The indices of a run whose questions are of several domains (groups), asked in one way; else nothing."""
    marks: dict[str, list[tuple[str, float]]] = {}
    for score in scores:
        if score.group and score.correct is not None:
            marks.setdefault(score.group, []).append((score.item, score.correct))
    if len(marks) < 2 or len({score.point for score in scores}) > 1:
        return []
    found, best = indices(marks)
    out = []
    for name, one in zip(NAMES, found, strict=True):
        told, u = f"{best}, the best of {len(marks)} domains, and the others", None
        if one.lo is not None and one.hi is not None:
            told, u = f"{told}; 95 % interval {one.lo:.3g} to {one.hi:.3g}", (one.hi - one.lo) / 2
        n = sum(map(len, marks.values()))
        out.append(Measure(name, one.value, "1", n=n, u_k2=u, method=told, reason=one.reason))
    return out


def _mean(each: Sequence[Estimate]) -> Estimate:
    """The plain mean of accuracies that are known apart."""
    k, n = len(each), sum(one.n for one in each)
    value = sum(one.value or 0.0 for one in each) / k
    down = [(one.value or 0.0) - one.lo for one in each if one.lo is not None]
    up = [one.hi - (one.value or 0.0) for one in each if one.hi is not None]
    if len(down) < k or len(up) < k:
        return Estimate(value, n=n, clusters=n, method="an interval is not known")
    return Estimate(value, value - math.hypot(*down) / k, value + math.hypot(*up) / k, None, n, n, "MOVER")


def _difference(one: Estimate, other: Estimate) -> Estimate:
    value, n = (one.value or 0.0) - (other.value or 0.0), one.n + other.n
    if one.lo is None or one.hi is None or other.lo is None or other.hi is None:
        return Estimate(value, n=n, clusters=n, method="an interval is not known")
    down = math.hypot((one.value or 0.0) - one.lo, other.hi - (other.value or 0.0))
    up = math.hypot(one.hi - (one.value or 0.0), (other.value or 0.0) - other.lo)
    return Estimate(value, value - down, value + up, None, n, n, "MOVER")
