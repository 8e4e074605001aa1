"""Intelligence per watt and per joule of stored runs: their scored items joined with the requests behind them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from meltbench.analysis.intelligence import Accuracy, Intelligence, accuracy_of, intelligence
from meltbench.analysis.observations import meter_of, origin_of, queries_of
from meltbench.analysis.sameness import demand_same
from meltbench.errors import UserError
from meltbench.store import index

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.analysis.stats import Estimate
    from meltbench.records import RunRecord
    from meltbench.store import Store

    Scores = Sequence[Mapping[str, Any]]

_COLUMNS = ("run_id", "item", "point", "method", "correct", "parsed", "requests")
_UNITS = {"accuracy": "1", "mean_power_w": "W", "mean_energy_j": "J", "ipw_per_w": "1/W", "ipj_per_j": "1/J"}


def read_scores(store: Store, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The scores of these runs; none where nothing of the store was ever scored."""
    known = index.query(store, "SELECT 1 FROM duckdb_tables() WHERE table_name = 'scores'", None).fetchall()
    if not known:
        return []
    # One text for all: the number of runs is bounded by the command line.
    places = ", ".join("?" for _ in run_ids)
    found = index.query(
        store, f"SELECT {', '.join(_COLUMNS)} FROM scores WHERE run_id IN ({places})", list(run_ids)
    ).fetchall()
    return [dict(zip(_COLUMNS, row, strict=True)) for row in found]


def joined_accuracy(scores: Scores, run_id: str) -> Accuracy:
    """The accuracy of another run, to be joined with a cost. Raises UserError where it has not exactly one."""
    groups = _grouped(scores)
    if not groups:
        raise UserError(f"run {run_id} has no scores", hint="--accuracy takes a run of an accuracy workload")
    if len(groups) > 1:
        named = ", ".join(" ".join(part for part in key if part) for key in groups)
        raise UserError(f"run {run_id} has {len(groups)} accuracies: {named}", hint="--accuracy takes a run with one")
    ((_, method), rows) = next(iter(groups.items()))
    marks = [(str(row["item"]), float(row["correct"])) for row in rows if row["correct"] is not None]
    return Accuracy(accuracy_of(marks), "loglik" if origin_of(method) == "loglik" else "inherited")


def efficiency(records: Sequence[RunRecord], scores: Scores, joined: Accuracy | None = None) -> list[dict[str, Any]]:
    """One document a point and method of these runs, which must be repetitions of each other; keys: docs/json.md.

    Without ``joined`` the runs need scores of their own. With it a query is a scored item, or of runs without scores a
    timed request. Raises UserError.
    """
    hint = "give the repetitions of one cell, and another command for another"
    demand_same([record.manifest for record in records], workload=True, hint=hint)
    meter = meter_of(records)
    groups = _grouped(scores)
    if not groups and joined is None:
        raise UserError(
            f"run {records[0].run_id} has no scores",
            hint="measure an accuracy workload, or join one with --accuracy RUN",
        )
    made = []
    for (point, method), rows in groups.items() or [(("", ""), None)]:
        queries = [
            query
            for record in records
            for query in queries_of(record, None if rows is None else [r for r in rows if r["run_id"] == record.run_id])
        ]
        found = intelligence(queries, meter, origin_of(method), joined)
        unparsed = 0 if rows is None else sum(row["parsed"] is False for row in rows)
        made.append(_document(records, point, method, found, unparsed))
    return made


def _grouped(scores: Scores) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Scores by point and method, in order of their names."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in scores:
        groups.setdefault((str(row["point"] or ""), str(row["method"] or "")), []).append(row)
    return dict(sorted(groups.items()))


def _document(
    records: Sequence[RunRecord], point: str, method: str, found: Intelligence, unparsed: int
) -> dict[str, Any]:
    about = records[0].manifest
    runner = about["runner"]
    rows = [_row("accuracy", "", found.accuracy.estimate)]
    for which, cost in (("gross", found.gross), ("net", found.net)):
        rows += [_row(name, which, getattr(cost, name)) for name in _UNITS if name != "accuracy"]
    flags = list(found.flags)
    if unparsed:
        flags.append(f"unparsed: {unparsed} answers could not be read, and count as wrong")
    invalid = [record.run_id for record in records if record.manifest.get("validity") == "invalid"]
    if invalid:
        flags.append(f"invalid: {', '.join(invalid)} is no valid run, and was used because it was named")
    return {
        "runs": [record.run_id for record in records],
        "device": (about.get("device") or {}).get("name"),
        "model": (about.get("model") or {}).get("name"),
        "engine": runner.get("engine"),
        "engine_version": runner.get("version"),
        "accelerator": runner.get("accelerator"),
        "mode": runner.get("mode"),
        "workload": (about.get("workload") or {}).get("name"),
        "point": point,
        "method": method,
        "origin": found.accuracy.origin,
        "scope": found.scope,
        "klass": found.klass,
        "n_queries": found.n_queries,
        "n_items": found.n_items,
        "numbers": rows,
        "flags": flags,
    }


def _row(name: str, which: str, one: Estimate) -> dict[str, Any]:
    return {"name": name, "energy": which or None, "unit": _UNITS[name], **asdict(one)}
