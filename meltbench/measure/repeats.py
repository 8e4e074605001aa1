"""What becomes of answers when the same questions are asked again and again: how many differ, and whether they drift.

After "Biases in Edge Language Models" (Sharma et al. 2025, arXiv:2502.11349), which puts the same prompts to a model
many times and watches its bias over time. Its own score of bias needs a judge of texts; ours needs a right answer, as
"nobody can tell" is to a question that the text leaves open. Two answers are the same where ``answers.alike`` says so,
by the method that scored them: 42.0 is 42, and "The sky." is "the sky". The definitions are ours:

    answer_flip_rate         share of later answers that are not the first one to the same question
    accuracy_drift_per_pass  least squares slope of right (1) or wrong (0) over passes, the mean over questions

Both u are twice the standard error over questions, for the answers to one question are not independent.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from meltbench.measure.answers import alike
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meltbench.records import Score


def repeat_measures(scores: Sequence[Score], phase: str) -> list[Measure]:
    """Both, from the scores of one way of asking in the order of their asking; nothing where each was asked once."""
    passes: dict[str, list[Score]] = {}
    for score in scores:
        passes.setdefault(score.item, []).append(score)
    items = list(passes.values())
    if all(len(item) == 1 for item in items):
        return []
    flips = Measure("answer_flip_rate", None, "1", "mean", phase, method="not as the first answer")
    drift = Measure("accuracy_drift_per_pass", None, "1/pass", "slope", phase, method="least squares")
    return [_over_items(flips, items, _flips), _over_items(drift, items, _slope)]


def _over_items(
    blank: Measure, items: Sequence[Sequence[Score]], of: Callable[[Sequence[Score]], float | None]
) -> Measure:
    values = [value for item in items if (value := of(item)) is not None]
    if not values:
        return replace(blank, n=0, reason="no_score: no question was answered twice")
    mean = math.fsum(values) / len(values)
    se = None
    if len(values) > 1:
        se = math.sqrt(math.fsum((one - mean) ** 2 for one in values) / (len(values) - 1) / len(values))
    told = f"{blank.method}; {len(values)} questions, asked up to {max(map(len, items))} times"
    return replace(blank, value=mean, n=len(values), u_k2=None if se is None else 2 * se, method=told)


def _flips(item: Sequence[Score]) -> float | None:
    """Share of the later answers that are not the first one; answers that cannot be read are alike."""
    found = [one for one in item if one.correct is not None]
    return None if len(found) < 2 else sum(not _same(found[0], one) for one in found[1:]) / (len(found) - 1)


def _same(one: Score, other: Score) -> bool:
    if not (one.parsed and other.parsed):
        return one.parsed == other.parsed
    return alike(one.method, one.extracted, other.extracted)


def _slope(item: Sequence[Score]) -> float | None:
    """Of right over the number of the pass; a request that failed leaves its pass out."""
    found = [(number, one.correct) for number, one in enumerate(item) if one.correct is not None]
    if len(found) < 2:
        return None
    middle = sum(number for number, _ in found) / len(found)
    spread = sum((number - middle) ** 2 for number, _ in found)
    return sum((number - middle) * right for number, right in found) / spread
