"""Scored runs of the made machine with the costs by unit that a run of a server has, for the tables over a store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from analysis_kit import record, with_scores
from store_kit import open_run

from meltbench.records import Measure, RunRecord, Score
from meltbench.store import Store


def scores(marks: list[float], groups: tuple[str, ...] = ("",), **more: Any) -> list[Score]:
    return [
        Score(f"q{at}", more.get("method", "match"), mark, True, requests=str(at), group=groups[at % len(groups)])
        for at, mark in enumerate(marks)
    ]


def scored(run_id: str, marks: list[float], n_out: int = 65, groups: tuple[str, ...] = ("",), **more: Any) -> RunRecord:
    """A run whose requests are alike but for noise, each a question."""
    lengths = [(64, n_out)] * len(marks)
    return with_scores(costed(record(run_id, lengths=lengths, **more)), scores(marks, groups))


def costed(run: RunRecord) -> RunRecord:
    """The run with its energy by request, by token and by second."""
    gross = next(m for m in run.measures if m.name == "energy_j")
    timed = [one for one in run.requests if one.role == "timed"]
    amounts = {
        "j_per_request": (len(timed), "J/request", "ratio_of_sums"),
        "j_per_output_token": (sum(one.n_out or 0 for one in timed), "J/token", "ratio_of_sums"),
        "mean_power_w": (sum(one.e2e_s or 0.0 for one in timed), "W", "value"),
    }
    made = [_by(gross, name, *one) for name, one in amounts.items()]
    return replace(run, measures=[*run.measures, *made])


def _by(gross: Measure, name: str, amount: float, unit: str, stat: str) -> Measure:
    value, u = (None if one is None else one / amount for one in (gross.value, gross.u_k2))
    return replace(gross, name=name, unit=unit, stat=stat, value=value, u_k2=u, n=round(amount))


def keep(store: Store, made: RunRecord) -> str:
    """Store and index a run under an id of the store's."""
    folder = open_run(store)
    run = replace(made, run_id=folder.run_id, manifest=made.manifest | {"run_id": folder.run_id})
    store.commit(folder, run)
    store.ingest(folder.run_id)
    return folder.run_id
