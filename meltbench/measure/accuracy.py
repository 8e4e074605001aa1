"""How good the answers of a run were: accuracy, what could not be read, perplexity; each with its standard error and n.

u is twice the standard error over items (k = 2): sample standard deviation by the root of n, as lm-evaluation-harness
has it. That of a perplexity comes from its chunks, because tokens that follow one another are not independent.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.measure.likelihood import Normalise
    from meltbench.records import Score

_WAYS = {"none": "accuracy_sum", "bytes": "accuracy_per_byte", "tokens": "accuracy_per_token"}


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
        out.append(_mean(_WAYS[way], list(values), "run", "likeliest choice", len(scores) - len(values)))
    points = list(dict.fromkeys(score.point for score in scores))
    if points != [""]:  # of several ways of asking none stands for all
        return [one for point in points for one in _of_point([s for s in scores if s.point == point], point)]
    out += _best(scores, "run")
    groups = list(dict.fromkeys(score.group for score in scores))
    if len(groups) > 1:
        out += [_accuracy([one for one in scores if one.group == group], group or "other") for group in groups]
    return out


def _of_point(scores: Sequence[Score], point: str) -> list[Measure]:
    return [_accuracy(scores, point), *_best(scores, point)]


def _best(scores: Sequence[Score], phase: str) -> list[Measure]:
    """Of several answers to each question: whether any was right."""
    known = [score.best for score in scores if score.best is not None and "," in score.requests]
    if not known:
        return []
    return [_mean("best_of_n", known, phase, "any of its answers, by one who knows", len(scores) - len(known))]


def _accuracy(scores: Sequence[Score], phase: str) -> Measure:
    known = [score.correct for score in scores if score.correct is not None]
    return _mean("accuracy", known, phase, scores[0].method, len(scores) - len(known))


def _mean(name: str, values: Sequence[float], phase: str, method: str, left: int) -> Measure:
    if not values:
        why = f"no_score: none of {left} items has one"
        return Measure(name, None, "1", stat="mean", phase=phase, n=0, method=method, reason=why)
    u = None if len(values) < 2 else 2 * _standard_error(values)
    told = method + (f"; {left} of {left + len(values)} items have no score" if left else "")
    return Measure(
        name, math.fsum(values) / len(values), "1", stat="mean", phase=phase, n=len(values), u_k2=u, method=told
    )


def _unparsed(scores: Sequence[Score]) -> Measure:
    known = [score for score in scores if score.correct is not None]
    method = "answers that nothing could be read out of; they count as wrong"
    return _mean("unparsed", [float(not score.parsed) for score in known], "run", method, len(scores) - len(known))


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


def _standard_error(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((one - mean) ** 2 for one in values) / (len(values) - 1) / len(values))
