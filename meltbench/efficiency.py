"""Intelligence per watt and per joule of stored runs: their scores joined with the requests behind them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from meltbench.analysis.domains import domain_measures
from meltbench.analysis.intelligence import Accuracy, accuracy_of, intelligence
from meltbench.analysis.observations import TEXT, meter_of, origin_of, queries_of
from meltbench.analysis.perplexity import Chunk, text_intelligence
from meltbench.analysis.sameness import demand_same
from meltbench.errors import UserError
from meltbench.measure.total import TOTAL
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.analysis.intelligence import Cost, Intelligence, Meter
    from meltbench.analysis.perplexity import TextIntelligence
    from meltbench.analysis.stats import Estimate
    from meltbench.records import RunRecord, Score

    Groups = dict[tuple[str, str], dict[str, list[Score]]]

_COSTS = (("mean_power_w", "W"), ("mean_energy_j", "J"))
_PER = ("ipw_per_w", "ipj_per_j", "ppw_per_w", "ppj_per_j")


def joined_accuracy(record: RunRecord) -> Accuracy:
    """The accuracy of another run, to be joined with a cost. Raises UserError where it has not exactly one."""
    groups = {key: of_runs for key, of_runs in _grouped([record]).items() if key[1] != TEXT}
    if not groups:
        raise UserError(f"run {record.run_id} has no accuracy", hint="--accuracy takes a run of an accuracy workload")
    if len(groups) > 1:
        named = ", ".join(" ".join(part for part in key if part) for key in groups)
        hint = "--accuracy takes a run with one"
        raise UserError(f"run {record.run_id} has {len(groups)} accuracies: {named}", hint=hint)
    ((_, method), of_runs) = next(iter(groups.items()))
    marks = [(one.item, one.correct) for one in of_runs[record.run_id] if one.correct is not None]
    return Accuracy(accuracy_of(marks), "loglik" if origin_of(method) == "loglik" else "inherited")


def efficiency(records: Sequence[RunRecord], joined: Accuracy | None = None) -> list[dict[str, Any]]:
    """One document a point and method of these runs, which must be repetitions of each other; keys: docs/json.md.

    Without ``joined`` the runs need scores of their own. With it a query is a scored item, or of runs without scores a
    timed request. Raises UserError.
    """
    hint = "give the repetitions of one cell, and another command for another"
    demand_same([record.manifest for record in records], workload=True, hint=hint)
    meter, groups = meter_of(records), _grouped(records)
    if joined is not None:
        groups = {key: of_runs for key, of_runs in groups.items() if key[1] != TEXT}
        if not groups:
            queries = [query for record in records for query in queries_of(record, None)]
            found = intelligence(queries, meter, joined=joined)
            return [_document(records, "", "", found, _of_accuracy(found), joined.origin)]
    elif not groups:
        hint = "measure an accuracy workload, or join one with --accuracy RUN"
        raise UserError(f"run {records[0].run_id} has no scores", hint=hint)
    return [
        _of_text(records, point, of_runs, meter)
        if method == TEXT
        else _of_answers(records, (point, method), of_runs, meter, joined)
        for (point, method), of_runs in groups.items()
    ]


def _grouped(records: Sequence[RunRecord]) -> Groups:
    """Scores by point and method, in order of their names, and by run."""
    groups: Groups = {}
    for record in records:
        for one in record.scores:
            of_runs = groups.setdefault((one.point, one.method), {each.run_id: [] for each in records})
            of_runs[record.run_id].append(one)
    return dict(sorted(groups.items()))


def _of_answers(
    records: Sequence[RunRecord],
    key: tuple[str, str],
    of_runs: dict[str, list[Score]],
    meter: Meter,
    joined: Accuracy | None,
) -> dict[str, Any]:
    queries = [query for record in records for query in queries_of(record, of_runs[record.run_id])]
    found = intelligence(queries, meter, origin_of(key[1]), joined)
    made = _document(records, *key, found, _of_accuracy(found), found.accuracy.origin)
    unparsed = sum(one.correct is not None and not one.parsed for scores in of_runs.values() for one in scores)
    if unparsed and joined is None:
        made["flags"].append(f"unparsed: {unparsed} answers could not be read, and count as wrong")
    return made


def _of_text(records: Sequence[RunRecord], point: str, of_runs: dict[str, list[Score]], meter: Meter) -> dict[str, Any]:
    chunks = [
        Chunk(query, score.value, score.n or 0)
        for record in records
        for query, score in zip(queries_of(record, of_runs[record.run_id]), of_runs[record.run_id], strict=True)
    ]
    found = text_intelligence(chunks, meter)
    numbers = [_row("perplexity", "1", "", found.perplexity), *_of_costs(found.gross, found.net, "pp")]
    return _document(records, point, TEXT, found, numbers, "loglik")


def _of_accuracy(found: Intelligence) -> list[dict[str, Any]]:
    return [_row("accuracy", "1", "", found.accuracy.estimate), *_of_costs(found.gross, found.net, "ip")]


def _of_costs(gross: Cost, net: Cost, prefix: str) -> list[dict[str, Any]]:
    rows = []
    for which, cost in (("gross", gross), ("net", net)):
        rows += [_row(name, unit, which, getattr(cost, name)) for name, unit in _COSTS]
        rows += [_row(f"{prefix}w_per_w", "1/W", which, cost.per_w), _row(f"{prefix}j_per_j", "1/J", which, cost.per_j)]
    return rows


def _document(
    records: Sequence[RunRecord],
    point: str,
    method: str,
    found: Intelligence | TextIntelligence,
    numbers: list[dict[str, Any]],
    origin: str,
) -> dict[str, Any]:
    about = records[0].manifest
    runner = about["runner"]
    flags = list(found.flags)
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
        "origin": origin,
        "scope": found.scope,
        "klass": found.klass,
        "n_queries": found.n_queries,
        "n_items": found.n_items,
        "numbers": numbers,
        "flags": flags,
    }


def _row(name: str, unit: str, which: str, one: Estimate) -> dict[str, Any]:
    return {"name": name, "energy": which or None, "unit": unit, **asdict(one)}


def run_measures(record: RunRecord) -> list[Measure]:
    """Intelligence per watt and joule of one run by itself, as measures: of the run, or of each way of asking.

    Where its questions are of several domains, how far these are apart. ``u_k2`` is half of the 95 % interval, which
    the method tells; it does not hold how runs differ.
    """
    out = domain_measures(record.scores)
    for found in efficiency([record]):
        for row in found["numbers"]:
            if row["name"] not in _PER:
                continue
            name = row["name"] if row["energy"] == "gross" else f"net_{row['name']}"
            blank = Measure(
                name, None, row["unit"], stat="ratio_of_means", phase=found["point"] or "run", scope=found["scope"],
                source=TOTAL, n=row["n"], klass=found["klass"], method=f"{found['origin']} answers",
            )  # fmt: skip
            if row["value"] is None:
                out.append(replace(blank, reason=row["reason"] or "no_energy: of the questions"))
                continue
            lo, hi = row["lo"], row["hi"]
            known = lo is not None and hi is not None
            told = f"; 95 % interval {lo:.4g} to {hi:.4g}" if known else ""
            u = (hi - lo) / 2 if known else None
            out.append(replace(blank, value=row["value"], u_k2=u, method=f"{blank.method}{told}"))
    return out
