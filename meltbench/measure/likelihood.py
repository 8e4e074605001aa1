"""Scores by log-likelihood: of several choices the likeliest one is the answer; a text is scored whole.

The requests of an item, one a scored token, become one request of it here: from the first one's sending to the last
one's end. Sources: lm-evaluation-harness (acc, and acc_norm by characters: ``len(choice)``, without the space before
it), llama.cpp tools/perplexity (by tokens, those that all choices begin with left out), TruthfulQA (MC2: the share of
probability of all true answers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from meltbench.records import Request, Score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.loglik import Scored, Span

Normalise = Literal["none", "characters", "tokens", "mass"]
NORMALISE: tuple[Normalise, ...] = ("none", "characters", "tokens", "mass")


@dataclass(frozen=True)
class Gathered:
    """The items of a run as requests, their scores, and of choices what each way of normalising makes of every item."""

    requests: list[Request]
    scores: list[Score]
    by_way: dict[Normalise, list[float]]


def gathered(items: Sequence[Scored], answers: Mapping[int, Request], way: Normalise, first: int = 0) -> Gathered:
    """What the answers to the single tokens say of each item. ``answers``: by the number of their file; ``first``: the
    index of the first item's request, after those of a warm-up.

    An item of which an answer is missing or failed has no score, and its request says why.
    """
    out = Gathered([], [], {one: [] for one in NORMALISE[:3]})
    for item in items:
        mine = [answers.get(n) for span in item.spans for n in range(span.first, span.first + span.n)]
        seen = [one for one in mine if one is not None]
        if not seen:
            continue
        request = _request(first + len(out.requests), item, seen, whole=len(seen) == len(mine))
        out.requests.append(request)
        logprobs = [
            [one.logprob for n in range(span.first, span.first + span.n) if (one := answers.get(n)) is not None]
            for span in item.spans
        ]
        if request.status != "ok":
            score = Score(
                item.item, _method(item, way), None, parsed=False, group=item.group, requests=str(request.index),
                detail=request.status,
            )  # fmt: skip
            out.scores.append(score)
            continue
        found = [[value for value in span if value is not None] for span in logprobs]
        if item.answer is None:
            out.scores.append(_of_text(item, found, request.index))
            continue
        for each, values in out.by_way.items():
            values.append(_right(item, found, each))
        out.scores.append(_of_choices(item, found, way, request.index))
    return out


def _method(item: Scored, way: Normalise) -> str:
    return "nll" if item.answer is None else f"loglik/{way}"


def _request(index: int, item: Scored, seen: Sequence[Request], *, whole: bool) -> Request:
    first, last = min(one.t_send_ns for one in seen), max(one.t_end_ns for one in seen)
    bad = next((one for one in seen if one.status != "ok" or one.logprob is None), None)
    status, detail = ("ok", "") if bad is None else (bad.status if bad.status != "ok" else "garbage", bad.detail)
    if bad is None and not whole:
        status, detail = "truncated", f"only {len(seen)} of its tokens were asked about"
    fresh = [one.n_in - one.n_cached for one in seen if one.n_in is not None and one.n_cached is not None]
    return Request(
        index=index,
        item=item.item,
        role="timed",
        status=status,
        t_send_ns=first,
        t_end_ns=last,
        n_in=sum(fresh) if len(fresh) == len(seen) else None,
        n_cached=0 if len(fresh) == len(seen) else None,
        e2e_s=(last - first) / 1e9,
        detail=detail,
    )


def _of_text(item: Scored, found: Sequence[Sequence[float]], index: int) -> Score:
    every = [value for span in found for value in span]
    return Score(
        item.item, "nll", None, parsed=True, group=item.group, value=math.fsum(every), n=len(every), requests=str(index)
    )


def _of_choices(item: Scored, found: Sequence[Sequence[float]], way: Normalise, index: int) -> Score:
    taken = _likeliest(item, found, way)
    return Score(
        item=item.item,
        method=_method(item, way),
        correct=_right(item, found, way),
        parsed=True,
        extracted=str(taken),
        gold=",".join(map(str, item.true)) if way == "mass" else str(item.answer),
        group=item.group,
        value=math.fsum(found[taken]),
        n=len(found[taken]),
        requests=str(index),
    )


def _right(item: Scored, found: Sequence[Sequence[float]], way: Normalise) -> float:
    if way == "mass":
        sums = [math.fsum(one) for one in found]
        top = max(sums)
        weights = [math.exp(one - top) for one in sums]
        return math.fsum(weights[at] for at in item.true) / math.fsum(weights)
    return float(_likeliest(item, found, way) in (item.true or (item.answer,)))


def _likeliest(item: Scored, found: Sequence[Sequence[float]], way: Normalise) -> int:
    """The choice taken; of equals the first."""
    values = [_value(span, one, way) for span, one in zip(item.spans, found, strict=True)]
    return values.index(max(values))


def _value(span: Span, found: Sequence[float], way: Normalise) -> float:
    if way == "characters":
        return math.fsum(found) / max(span.characters, 1)
    if way == "tokens":
        return math.fsum(found[span.common :]) / (len(found) - span.common)
    return math.fsum(found)
