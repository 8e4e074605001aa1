"""Runs of a made machine whose times follow EdgeReasoning's forms and whose power is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from store_kit import manifest_of, open_run

from meltbench.analysis.edgereasoning import decode_time_s, prefill_time_s
from meltbench.records import Measure, Request, RunRecord, Score
from meltbench.store import Store

PREFILL = {"a": 2e-7, "b": 1e-3, "c": 0.05}
DECODE = {"n": 0.02, "m": 1e-6}
PREFILL_W, DECODE_W, IDLE_W = 12.0, 8.0, 3.0
LENGTHS = [(i, o) for i in (64, 128, 512, 1024) for o in (17, 129, 513)]


def joules(prefill_s: float, decode_s: float) -> float:
    return PREFILL_W * prefill_s + DECODE_W * decode_s


def answered(index: int, n_in: int, n_out: int, at_ns: int, noise: float, seed: int, **more: Any) -> Request:
    """A request as a server answers it: the first token comes with the prefill."""
    rng = np.random.default_rng([seed, index])
    first = prefill_time_s(**PREFILL, n_in=n_in) * (1 + noise * rng.normal())
    rest = decode_time_s(**DECODE, n_in=n_in, n_steps=n_out - 1) * (1 + noise * rng.normal())
    energy = joules(first, rest) * (1 + noise * rng.normal())
    end_ns = at_ns + round((first + rest) * 1e9)
    made = Request(index, f"q{index}", "timed", "ok", at_ns, end_ns, n_in=n_in, n_cached=0, n_out=n_out)
    made = replace(made, ttft_s=first, e2e_s=first + rest, energy_j=energy, energy_u_k2_j=0.06 * energy)
    return replace(made, **more)


def in_turn(lengths: list[tuple[int, int]], noise: float, seed: int) -> list[Request]:
    """Requests one after the other, with half a second between them."""
    made: list[Request] = []
    for index, (n_in, n_out) in enumerate(lengths):
        at_ns = made[-1].t_end_ns + 500_000_000 if made else 0
        made.append(answered(index, n_in, n_out, at_ns, noise, seed))
    return made


def measures(requests: list[Request], reason: str | None = None) -> list[Measure]:
    """Energy of the run and idle power of both windows by the total, class B."""
    total = sum(one.energy_j or 0.0 for one in requests)
    like = {"unit": "J", "scope": "soc", "source": "total", "klass": "B"}
    value = None if reason else total
    gross = Measure("energy_j", value, **like, u_k2=None if reason else 0.058 * total, reason=reason)
    idle = [
        Measure("idle_power_w", watts, **like | {"unit": "W"}, phase=phase, u_k2=0.06 * watts)
        for phase, watts in (("idle_before", IDLE_W - 0.05), ("idle_after", IDLE_W + 0.05))
    ]
    return [gross, *idle]


def manifest(run_id: str, **more: Any) -> dict[str, Any]:
    made = manifest_of(run_id) | {"validity": "valid"}
    runner = made["runner"] | {"sha256": "e1"} | more.pop("runner", {})
    return made | {"runner": runner, "workload": {"name": "study", "kind": "generate", "sha256": "w1"}} | more


def record(
    run_id: str = "r1", lengths: list[tuple[int, int]] | None = None, noise: float = 0.0, seed: int = 0, **more: Any
) -> RunRecord:
    requests = more.pop("requests", None) or in_turn(lengths or LENGTHS, noise, seed)
    reason, scores = more.pop("reason", None), more.pop("scores", [])
    about = manifest(run_id, **more)
    asked = [costed(one, requests) for one in scores]
    return RunRecord(run_id, about, requests=requests, measures=measures(requests, reason), scores=asked)


def with_scores(run: RunRecord, scores: list[Score]) -> RunRecord:
    """The run with these scores, each with what it cost."""
    return replace(run, scores=[costed(one, run.requests) for one in scores])


def costed(score: Score, requests: list[Request]) -> Score:
    """A score with what its requests cost, as a run has it: their energies, in the time from first to last."""
    behind = [one for one in requests if str(one.index) in score.requests.split(",")]
    lacking = next((one.energy_reason or "no reason" for one in behind if one.energy_j is None), "")
    if not behind or lacking:
        why = lacking or "no_request: its end was not seen"
        return replace(score, latency_s=None, energy_j=None, energy_reason=why)
    span_s = (max(one.t_end_ns for one in behind) - min(one.t_send_ns for one in behind)) / 1e9
    return replace(score, latency_s=span_s, energy_j=sum(one.energy_j or 0.0 for one in behind))


def stored(store: Store, **more: Any) -> str:
    """A stored and indexed run of the made machine."""
    folder = open_run(store)
    store.commit(folder, record(folder.run_id, **more))
    store.ingest(folder.run_id)
    return folder.run_id
