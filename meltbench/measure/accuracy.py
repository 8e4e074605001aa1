"""How good the answers of a run were: accuracy, what could not be read, perplexity; each with its standard error and n.

u is twice the standard error over items (k = 2): sample standard deviation by the root of n, as lm-evaluation-harness
has it. Where all answers are right, or none, that error is 0 and knows nothing: there u reaches from the share to the
other end of Wilson's interval (1927) at k = 2, which is 4 / (n + 4) of n questions, of a single one too. Answers to one
question that is asked several times are not independent: they count as one cluster. That of a perplexity comes from its
chunks, because tokens that follow one another are not independent either.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from meltbench.measure.repeats import repeat_measures
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.measure.likelihood import Normalise
    from meltbench.records import Score

_WAYS = {"none": "accuracy_sum", "characters": "accuracy_per_character", "tokens": "accuracy_per_token"}


def accuracy_measures(
    scores: Sequence[Score], by_way: Mapping[Normalise, Sequence[float]] | None = None
) -> list[Measure]:
    """What the scores of a run come to; nothing where nobody was to be scored.

    ``by_way``: of choices, what each way of normalising made of each item; all three are shown.
    """
    if not scores:
        return []
    if all(score.method in ("nll", "kld") for score in scores):
        return _of_text(scores)
    out = [_accuracy(scores, "run"), _unparsed(scores)]
    for way, values in (by_way or {}).items():
        out.append(_mean(_WAYS[way], list(values), "run", "likeliest choice", _unscored(scores)))
    points = list(dict.fromkeys(score.point for score in scores))
    if points != [""]:  # of several ways of asking none stands for all
        return [one for point in points for one in _of_point([s for s in scores if s.point == point], point)]
    out += [*_best(scores, "run"), *repeat_measures(scores, "run")]
    groups = list(dict.fromkeys(score.group for score in scores))
    if len(groups) > 1:
        out += [_accuracy([one for one in scores if one.group == group], group or "other") for group in groups]
    return out


def _of_point(scores: Sequence[Score], point: str) -> list[Measure]:
    return [
        _accuracy(scores, point), _unparsed(scores, point), *_best(scores, point), *repeat_measures(scores, point)
    ]  # fmt: skip


def _best(scores: Sequence[Score], phase: str) -> list[Measure]:
    """Of several answers to each question: whether any was right."""
    known = [score.best for score in scores if score.best is not None and "," in score.requests]
    if not known:
        return []
    left = [score.detail for score in scores if score.best is None or "," not in score.requests]
    return [_mean("best_of_n", known, phase, "any of its answers, by one who knows", left)]


def _accuracy(scores: Sequence[Score], phase: str) -> Measure:
    known = [(score.correct, score.item) for score in scores if score.correct is not None]
    values, items = [value for value, _ in known], [item for _, item in known]
    return _mean("accuracy", values, phase, scores[0].method, _unscored(scores), items)


def _unscored(scores: Sequence[Score]) -> list[str]:
    """Why each of those that have no score has none."""
    return [score.detail for score in scores if score.correct is None]


def _mean(
    name: str, values: Sequence[float], phase: str, method: str, left: Sequence[str], items: Sequence[str] | None = None
) -> Measure:
    """``left``: why each of those that were asked and have no value has none. ``items``: whose values these are; those
    of one item are a cluster."""
    whys = ", ".join(f"{n} {why}" if n < len(left) else why for why, n in Counter(filter(None, left)).most_common(3))
    if not values:
        why = f"no_score: none of {len(left)} items has one" + (f": {whys}" if whys else "")
        return Measure(name, None, "1", stat="mean", phase=phase, n=0, method=method, reason=why)
    items = items or [str(n) for n in range(len(values))]
    k = len(set(items))
    unanimous = {*values} in ({0.0}, {1.0})
    u = 4 / (k + 4) if unanimous else None if k < 2 else 2 * _standard_error(values, items)  # z^2 / (n + z^2), z = 2
    told = (
        method
        + (f", {len(left)} of {len(left) + len(values)} items have no score" if left else "")
        + (f": {whys}" if whys else "")
        + ("; u of Wilson" if unanimous else "")
        + (f"; {k} questions" if k < len(values) else "")
    )
    return Measure(
        name, math.fsum(values) / len(values), "1", stat="mean", phase=phase, n=len(values), u_k2=u, method=told
    )


def _unparsed(scores: Sequence[Score], phase: str = "run") -> Measure:
    known = [score for score in scores if score.correct is not None]
    method = "answers that nothing could be read out of; they count as wrong"
    values, items = [float(not score.parsed) for score in known], [score.item for score in known]
    return _mean("unparsed", values, phase, method, _unscored(scores), items)


def _of_text(scores: Sequence[Score]) -> list[Measure]:
    apart = [score for score in scores if score.method == "kld"]
    return _perplexity([score for score in scores if score.method == "nll"]) + (_divergence(apart) if apart else [])


def _divergence(scores: Sequence[Score]) -> list[Measure]:
    """Mean KL divergence from a model of reference, by token."""
    known = [(one.value, one.n) for one in scores if one.value is not None and one.n]
    tokens = sum(n for _, n in known)
    if not tokens:
        return [Measure("kl_divergence", None, "nat", n=0, reason="no_score: of any chunk")]
    mean = math.fsum(value for value, _ in known) / tokens
    se = _ratio_error([value - mean * n for value, n in known], tokens)
    u = None if se is None else 2 * se
    return [Measure("kl_divergence", mean, "nat", n=tokens, u_k2=u, method=f"{len(known)} chunks, by token")]


def _ratio_error(residuals: Sequence[float], total: int) -> float | None:
    """Standard error of a ratio of sums over chunks, by what each is off (Cochran, Sampling Techniques, 6)."""
    k = len(residuals)
    return None if k < 2 else math.sqrt(math.fsum(r * r for r in residuals) * k / (k - 1)) / total


def _perplexity(scores: Sequence[Score]) -> list[Measure]:
    known = [(one.value, one.n) for one in scores if one.value is not None and one.n]
    left = len(scores) - len(known)
    if not known:
        why = f"no_score: none of {left} chunks has one"
        return [
            Measure(name, None, unit, n=0, reason=why) for name, unit in (("perplexity", "1"), ("nll_per_token", "nat"))
        ]
    tokens = sum(n for _, n in known)
    nll = -math.fsum(value for value, _ in known) / tokens
    se = _ratio_error([-value - nll * n for value, n in known], tokens)
    method = f"{len(known)} chunks" + (f"; {left} have no score" if left else "")
    value, u = math.exp(min(nll, 700)), None if se is None else 2 * se
    return [
        Measure("perplexity", value, "1", n=tokens, u_k2=None if u is None else value * u, method=method),
        Measure("nll_per_token", nll, "nat", n=tokens, u_k2=u, method=method),
    ]


def _standard_error(values: Sequence[float], items: Sequence[str]) -> float:
    """Of a mean of values in clusters, by the residual of each cluster; of single values that of any sample mean."""
    mean = math.fsum(values) / len(values)
    residuals: dict[str, float] = {}
    for value, item in zip(values, items, strict=True):
        residuals[item] = residuals.get(item, 0.0) + value - mean
    k = len(residuals)
    return math.sqrt(math.fsum(one * one for one in residuals.values()) * k / (k - 1)) / len(values)
