"""An accuracy of another machine's answers, and how far this one may be from it: score once, then bound.

A host answered all items, a device ``n`` of the same. Where an item is right on one and wrong on the other it has
*flipped*. No two accuracies differ by more than the share of items that flip,

    |E[device] - E[host]| = |P(gained) - P(lost)| <= P(flipped),

and P(flipped) is at most what Clopper and Pearson's exact limit says of the flips that were seen: of none of 40, 7.2 %.
The inherited accuracy is the host's. Its interval is the host's own widened by that limit on both sides, each of the
two at 97.5 %, so that both hold together at 95 % whatever they have to do with each other (Bonferroni).

Beside it stands the difference estimator, the host's accuracy with the mean difference on the shared items added: it is
not biased, but moves by whole items of ``n`` (Cochran 1977, Sampling Techniques, chapter 7, a regression estimate of
slope 1; the same as prediction-powered inference, Angelopoulos et al. 2023, arXiv:2301.09633). Both presume that the
shared items are drawn at random of the host's (``--set subset=N``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.analysis import stats
from meltbench.analysis.stats import Estimate
from meltbench.errors import UserError
from meltbench.measure.answers import alike
from meltbench.questions.subset import drawn
from meltbench.spec import canonical
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meltbench.records import Score

    Manifest = Mapping[str, Any]

_HALF = 0.975  # of two limits that hold together at 95 %
# What of a workload's settings changes what is asked or what is right; how often and how fast it is asked does not.
_OF_ANSWERS = (
    *("score", "normalise", "shots", "chat", "thinking", "budget", "soft", "samples", "max_tokens", "ignore_eos"),
    *("temperature", "top_k", "top_p", "repeat_penalty"),
)


@dataclass(frozen=True)
class Mark:
    """How one item was answered: 0 to 1, the mean where it was answered several times, and what was read out of each
    answer (empty where nothing could be; None where an engine tells only whether it was right)."""

    correct: float
    answers: tuple[str | None, ...]


@dataclass(frozen=True)
class Inherited:
    """``accuracy``: the host's, with an interval for this device. ``bound``: what both differ by at most, at 95 %.

    Of ``n`` shared items ``changed`` have another answer, a share of at most ``changed_at_most`` (None where the
    answers were not recorded); ``gained`` are better here than on the host, ``lost`` worse. ``corrected``: by the
    difference estimator. ``drawn``: whether the shared items are those that a subset of the host's would be.
    """

    accuracy: Estimate
    bound: float
    n: int
    changed: int | None
    changed_at_most: float | None
    gained: int
    lost: int
    corrected: Estimate
    drawn: bool


def marks(scores: Iterable[Score]) -> dict[str, Mark]:
    """What the scores of one method and point say of each item; one without a score is left out."""
    held: dict[str, list[Score]] = {}
    for one in scores:
        if one.correct is not None:
            held.setdefault(one.item, []).append(one)
    return {
        item: Mark(math.fsum(s.correct or 0.0 for s in of) / len(of), tuple(_read(s) for s in of))
        for item, of in held.items()
    }


def _read(score: Score) -> str | None:
    return None if score.parsed and not score.extracted else score.extracted


def inherited(host: Mapping[str, Mark], device: Mapping[str, Mark], method: str) -> Inherited:
    """The host's accuracy, taken over for a device that answered some of its items. ``method``: what both scored by.

    Raises UserError where they share no item, and where the device has them all: then it measured its own accuracy.
    """
    shared = sorted(host.keys() & device.keys())
    if not shared:
        raise UserError("the two share no item", hint="--set subset=40 takes the same 40 of a set on both")
    if len(shared) == len(host):
        said = f"all {len(host)} items were answered here too"
        raise UserError(f"{said}: this accuracy was measured, and needs none of elsewhere", hint="leave out --accuracy")
    ours, theirs = ([one[item].correct for item in shared] for one in (device, host))
    gained, lost, n = _more(ours, theirs), _more(theirs, ours), len(shared)
    known = all(text is not None for item in shared for text in (*host[item].answers, *device[item].answers))
    changed = sum(not _same(method, host[item], device[item]) for item in shared) if known else None
    every = [one.correct for one in host.values()]
    return Inherited(
        accuracy=_widened(every, gained + lost, n),
        bound=stats.at_most(gained + lost, n),
        n=n,
        changed=changed,
        changed_at_most=None if changed is None else stats.at_most(changed, n),
        gained=gained,
        lost=lost,
        corrected=_corrected(_share(every), stats.paired_accuracy(theirs, ours)),
        drawn=drawn(host, n) == frozenset(shared),
    )


def _more(one: Sequence[float], other: Sequence[float]) -> int:
    return sum(a > b for a, b in zip(one, other, strict=True))


def _same(method: str, host: Mark, device: Mark) -> bool:
    """Whether all answers to an item are one."""
    return all(alike(method, a or "", b or "") for a in host.answers for b in device.answers)


def _share(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean of marks: of right and wrong a proportion."""
    if {*values} <= {0.0, 1.0}:
        return stats.proportion(math.fsum(values), len(values), level)
    return stats.mean(values, level)


def _widened(host: Sequence[float], flips: int, n: int) -> Estimate:
    found, most = _share(host, _HALF), stats.at_most(flips, n, _HALF)
    how = f"{flips} flips of {n} shared items, Clopper and Pearson; host {found.method}"
    lo = None if found.lo is None else max(found.lo - most, 0.0)
    hi = None if found.hi is None else min(found.hi + most, 1.0)
    return Estimate(found.value, lo, hi, None, found.n, found.clusters, how)


def _corrected(host: Estimate, difference: Estimate) -> Estimate:
    """The sum of both, their intervals added in quadrature, side by side, as of independent numbers (MOVER)."""
    assert host.value is not None
    assert difference.value is not None
    value = min(max(host.value + difference.value, 0.0), 1.0)
    if host.lo is None or host.hi is None or difference.lo is None or difference.hi is None:
        return Estimate(value, n=difference.n, clusters=difference.n, method="difference estimator, one item")
    lo = value - math.hypot(host.value - host.lo, difference.value - difference.lo)
    hi = value + math.hypot(host.hi - host.value, difference.hi - difference.value)
    how = f"difference estimator; {difference.method}"
    return Estimate(value, max(lo, 0.0), min(hi, 1.0), None, difference.n, difference.clusters, how)


def demand_alike(host: Manifest, device: Manifest) -> None:
    """Raise UserError unless both runs asked the same model the same questions in the same way."""
    for word, part in (("model", "model"), ("version of the workload, or of its items", "workload")):
        one, other = (manifest.get(part) or {} for manifest in (host, device))
        if (one.get("sha256") or one.get("name")) != (other.get("sha256") or other.get("name")):
            said = " and ".join(f"{each.get('name')} ({str(each.get('sha256'))[:12]})" for each in (other, one))
            raise UserError(printable(f"another {word}: {said}"), hint="measure both with the same")
    one, other = (manifest.get("workload") or {} for manifest in (host, device))
    for name in _OF_ANSWERS:
        mine, theirs = other.get(name), one.get(name)
        if canonical(mine) != canonical(theirs):
            said = f"{name} is {_told(mine)} here and {_told(theirs)} there: these are other questions"
            raise UserError(printable(said), hint=f"measure both with the same, by --set {name}=...")


def _told(value: object) -> str:
    return "not set" if value is None else str(value)
