"""A stored run as the analyses take it: its requests as observations or queries, and what is wrong with its meter."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench.analysis.edgereasoning import Observation
from meltbench.analysis.intelligence import Meter, Query
from meltbench.errors import UserError
from meltbench.measure.energy import GAIN_LIMIT
from meltbench.measure.per_request import overlapping
from meltbench.measure.total import TOTAL
from meltbench.records import CACHE_UNKNOWN, Score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.analysis.intelligence import Origin
    from meltbench.records import Measure, Request, RunRecord

TEXT = "nll"  # the method of a score that is the log-likelihood of a text


@dataclass(frozen=True)
class Observed:
    """What a run has to fit a form to. ``left_out``: how many timed requests were not used, by why.

    ``gain_u``: relative standard uncertainty of its energies' gain; ``energy_reason``: why no request has an energy.
    """

    observations: tuple[Observation, ...]
    left_out: Mapping[str, int]
    gain_u: float | None
    energy_reason: str


def observed(record: RunRecord) -> Observed:
    """The timed requests of a run that were answered, each alone.

    A prompt that was partly found in the cache, or may have been, took less than its length would: it tells of the
    decode alone. Requests that ran side by side are left out. Where the run's own energy was refused, its requests
    have none either.
    """
    bench = (record.manifest.get("runner") or {}).get("mode") == "bench"
    total = total_energy(record)
    meter = meter_of([record])
    refused = "" if total is None or total.value is not None else str(total.reason)
    shared, left, made = overlapping(record.requests), Counter[str](), []
    for one in record.requests:
        if one.role != "timed":
            continue
        why = (
            "not answered"
            if one.status != "ok"
            else "ran beside another"
            if one.index in shared
            else "without a count of its tokens or a time"
            if one.n_in is None or one.n_out is None or one.e2e_s is None
            else ""
        )
        if why:
            left[why] += 1
            continue
        if _cached(one):
            left[f"prompt {'' if one.n_cached else 'perhaps '}in the cache, used for the decode alone"] += 1
        made.append(_observation(one, record.run_id, bench, None if refused else meter.gain_u, refused))
    reasons = [refused, *(one.energy_reason for one in record.requests if one.role == "timed")]
    return Observed(tuple(made), left, meter.gain_u, next((reason for reason in reasons if reason), ""))


def _cached(one: Request) -> bool:
    """Whether its prompt was in the cache in part, for all that is known."""
    return bool(one.n_cached) or one.prefill_source == CACHE_UNKNOWN


def steps_of(n_out: int, mode: str) -> int:
    """Decode steps of an answer: a server's first token comes with the prefill, llama-bench's is one of its own."""
    return n_out if mode == "bench" else max(n_out - 1, 0)


def _observation(one: Request, run: str, bench: bool, gain_u: float | None, refused: str) -> Observation:
    assert one.n_in is not None
    assert one.n_out is not None
    assert one.e2e_s is not None
    steps = steps_of(one.n_out, "bench" if bench else "server")
    first_s = one.ttft_s
    if first_s is None and one.t_first_ns is not None:
        first_s = (one.t_first_ns - one.t_send_ns) / 1e9
    if first_s is None and steps == 0:
        first_s = one.e2e_s
    evaluated, cached = one.n_in - (one.n_cached or 0), _cached(one)
    scatter = None
    if one.energy_j is not None and one.energy_u_k2_j is not None:
        rest = (one.energy_u_k2_j / 2) ** 2 - ((gain_u or 0.0) * one.energy_j) ** 2
        scatter = math.sqrt(rest) if rest > 0 else None
    # The token that is left of a prompt in the cache costs what a step does; of more nobody knows what they cost.
    told = not refused and (not cached or evaluated <= 1)
    return Observation(
        one.n_in,
        steps,
        first_s if evaluated and not cached else None,
        None if first_s is None or not steps else one.e2e_s - first_s,
        one.energy_j if told else None,
        scatter,
        first_s if cached and first_s is not None else 0.0,
        run,
    )


def total_energy(record: RunRecord) -> Measure | None:
    """The run's gross energy by its designated total."""
    mine = (m for m in record.measures if (m.name, m.phase, m.source) == ("energy_j", "run", TOTAL))
    return next(mine, None)


def meter_of(records: Sequence[RunRecord]) -> Meter:
    """What measured these runs, which have one device, with the largest of their uncertainties.

    The gain's is the relative u of the run's energy, which for a whole run is little else; where there is none, that of
    its class. The baseline's is half of what idling before and after differ, with what each is unsure by itself.
    """
    totals = [m for record in records if (m := total_energy(record)) is not None]
    kinds = sorted({f"{m.scope} (class {m.klass})" for m in totals if m.value is not None})
    if len(kinds) > 1:
        said = " and ".join(kinds)
        raise UserError(
            f"the energies of these runs are of {said}: they do not cover the same", hint="name runs of one"
        )
    gains = [_gain_u(m) for m in totals]
    baselines = [_baseline(record, gain) for record, gain in zip(records, gains, strict=False)]
    spreads = [one[1] for one in baselines if one is not None]
    return Meter(
        next((m.scope for m in totals), "none"),
        next((m.klass for m in totals if m.klass), None),
        None if not gains or None in gains else max(gain for gain in gains if gain is not None),
        max(spreads) if spreads and len(spreads) == len(records) else None,
    )


def _gain_u(total: Measure) -> float | None:
    if total.value is not None and total.value > 0 and total.u_k2 is not None:
        return total.u_k2 / 2 / total.value
    limit = GAIN_LIMIT.get(total.klass or "")
    return None if limit is None else limit / math.sqrt(3)


def _baseline(record: RunRecord, gain_u: float | None) -> tuple[float, float] | None:
    """Idle power (W) of a run and its standard uncertainty without the gain; None where a window has none."""
    found = []
    for phase in ("idle_before", "idle_after"):
        one = next((m for m in record.measures if (m.name, m.phase, m.source) == ("idle_power_w", phase, TOTAL)), None)
        if one is None or one.value is None:
            return None
        own = max(((one.u_k2 or 0.0) / 2) ** 2 - ((gain_u or 0.0) * one.value) ** 2, 0.0)
        found.append((one.value, math.sqrt(own)))
    (before, u_before), (after, u_after) = found
    return (before + after) / 2, math.hypot(abs(before - after) / 2, u_before / 2, u_after / 2)


def queries_of(record: RunRecord, scores: Sequence[Score] | None) -> list[Query]:
    """The queries of a run: its scored questions, each with its own cost; ``scores`` None: its timed requests.

    Of votes that were taken side by side latency and energy are of the time in which any of them was under way.
    """
    total = total_energy(record)
    refused = str(total.reason) if total is not None and total.value is None else ""
    idle = _baseline(record, None if total is None else _gain_u(total))
    asked: Sequence[Score | Request] = scores if scores is not None else _timed(record)
    return [_query(record.run_id, one, refused, idle) for one in asked]


def _timed(record: RunRecord) -> list[Request]:
    return [one for one in record.requests if one.role == "timed"]


def _query(run: str, asked: Score | Request, refused: str, idle: tuple[float, float] | None) -> Query:
    correct = asked.correct if isinstance(asked, Score) else None
    latency_s = asked.latency_s if isinstance(asked, Score) else (asked.t_end_ns - asked.t_send_ns) / 1e9
    why = refused or ("" if asked.energy_j is not None else asked.energy_reason or "no reason")
    energy_j = None if why else asked.energy_j
    net_j = None if energy_j is None or latency_s is None or idle is None else energy_j - idle[0] * latency_s
    return Query(asked.item, correct, energy_j, latency_s, net_j, run, why)


def origin_of(method: str) -> Origin:
    """Where an accuracy comes from, by the name of the method that scored it."""
    return "loglik" if method.startswith("loglik") else "generated"
