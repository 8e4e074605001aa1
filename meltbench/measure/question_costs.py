"""What each question cost: the time and the energy from the first sending of its requests to the last one's end.

Several answers to one question are generated at a time, so their requests share an energy: the question has it as one.
Where one of its requests failed, what the others took is not what the question costs: it has neither time nor energy.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from meltbench.measure.energy import window
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.energy import Rail
    from meltbench.records import Request, Score

_TEXT = ("nll", "kld")
_SHARED = "overlapping_requests: another question was under way and shares its energy"
_UNSEEN = "no_request: its end was not seen"
_FAILED = "request_failed"
_TOGETHER = "shared_request: one request is of several questions, and nobody saw where each ends"


def windows(scores: Sequence[Score], requests: Sequence[Request]) -> list[tuple[int, int]]:
    """The window of each question, ns; what is to be asked of the samples must be known before they are read."""
    by_index = {one.index: one for one in requests}
    return [span for score in scores if (span := _span(score, by_index)) is not None]


def with_costs(scores: Sequence[Score], requests: Sequence[Request], rail: Rail | None, why: str) -> list[Score]:
    """The scores with what each question cost; ``rail`` None: there is no total, for the reason ``why``."""
    by_index = {one.index: one for one in requests}
    ordered = sorted(requests, key=lambda one: one.t_send_ns)
    behind = Counter(index for score in scores for index in _indices(score))
    out = []
    for score in scores:
        span = _span(score, by_index)
        if span is None:
            out.append(replace(score, energy_reason=_failed(score, by_index) or _UNSEEN))
            continue
        mine = set(_indices(score))
        if any(behind[index] > 1 for index in mine):
            out.append(replace(score, energy_reason=why or _TOGETHER))
            continue
        one = replace(score, latency_s=(span[1] - span[0]) / 1e9)
        if rail is None:
            out.append(replace(one, energy_reason=why))
        elif any(r.t_send_ns < span[1] and r.t_end_ns > span[0] and r.index not in mine for r in ordered):
            out.append(replace(one, energy_reason=_SHARED))
        else:
            found = window(rail, *span)
            u = None if found.energy_j is None else rail.u_k2(found.energy_j, *found.parts_j)
            out.append(replace(one, energy_j=found.energy_j, energy_u_k2_j=u, energy_reason=found.reason or ""))
    return out


def question_measures(scores: Sequence[Score], total: Measure | None = None) -> list[Measure]:
    """Means over questions, of the run or of each point: latency, and energy where every question has one.

    Those whose requests failed have no latency, and the mean of the others says how many they are.

    ``total``: the run's energy, of whose meter they are. Their u is the mean of theirs: a gain is off for all alike.
    """
    out: list[Measure] = []
    scores = [score for score in scores if score.method not in _TEXT]  # a chunk of a text is no question
    if all(score.latency_s is None and not score.energy_reason.startswith(_FAILED) for score in scores):
        return out
    for point in dict.fromkeys(score.point for score in scores):
        mine = [score for score in scores if score.point == point]
        phase = point or "run"
        energy = [score.energy_j for score in mine if score.energy_j is not None]
        out.append(_latency(mine, phase))
        blank = Measure("j_per_question", None, "J/question", stat="mean", phase=phase, source="total", n=len(mine))
        if total is not None:
            blank = replace(blank, scope=total.scope, klass=total.klass, method="first sending to last end of each")
        if energy and len(energy) == len(mine):
            known = [score.energy_u_k2_j for score in mine if score.energy_u_k2_j is not None]
            u = sum(known) / len(known) if len(known) == len(mine) else None
            out.append(replace(blank, value=sum(energy) / len(energy), u_k2=u))
        else:
            out.append(replace(blank, reason=_why(mine)))
    return out


def _latency(mine: Sequence[Score], phase: str) -> Measure:
    known = [score.latency_s for score in mine if score.latency_s is not None]
    blank = Measure("question_latency_s", None, "s", stat="mean", phase=phase, n=len(known))
    left = [score for score in mine if score.latency_s is None]
    if not known:
        return replace(blank, reason=_why(left))
    told = f"{len(left)} of {len(mine)} questions have none: {_why(left)}" if left else ""
    return replace(blank, value=sum(known) / len(known), method=told)


def _why(scores: Sequence[Score]) -> str:
    """The first reason of those without a cost; one that is of the meter says more than that a request failed."""
    reasons = [score.energy_reason for score in scores if score.energy_reason]
    return next((one for one in reasons if not one.startswith(_FAILED)), (reasons or ["no_reading: nobody looked"])[0])


def _failed(score: Score, by_index: dict[int, Request]) -> str:
    """That a request of a question failed, and how; empty where none did."""
    bad = [one for index in _indices(score) if (one := by_index.get(index)) is not None and one.status != "ok"]
    return f"{_FAILED}: {bad[0].item}: {bad[0].status}" if bad else ""


def _indices(score: Score) -> list[int]:
    return [int(part) for part in score.requests.split(",") if part]


def _span(score: Score, by_index: dict[int, Request]) -> tuple[int, int] | None:
    mine = [by_index[index] for index in _indices(score) if index in by_index]
    if not mine or any(one.status != "ok" for one in mine):
        return None
    first, last = min(one.t_send_ns for one in mine), max(one.t_end_ns for one in mine)
    return (first, last) if last > first else None
