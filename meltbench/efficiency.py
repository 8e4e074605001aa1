"""Intelligence per watt and per joule of stored runs: their scores joined with the requests behind them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from meltbench.analysis.domains import domain_measures
from meltbench.analysis.inherit import demand_alike, inherited, marks
from meltbench.analysis.intelligence import Accuracy, accuracy_of, intelligence
from meltbench.analysis.observations import TEXT, meter_of, origin_of, queries_of
from meltbench.analysis.perplexity import Chunk, text_intelligence
from meltbench.analysis.sameness import demand_same
from meltbench.errors import UserError
from meltbench.measure.total import TOTAL
from meltbench.records import Measure
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.analysis.inherit import Inherited, Mark
    from meltbench.analysis.intelligence import Cost, Intelligence, Meter
    from meltbench.analysis.perplexity import TextIntelligence
    from meltbench.analysis.stats import Estimate
    from meltbench.records import RunRecord, Score

    Groups = dict[tuple[str, str], dict[str, list[Score]]]

_COSTS = (("mean_power_w", "W"), ("mean_energy_j", "J"))
_NOT_DRAWN = "not_drawn: the {0} shared items are not those that --set subset={0} takes, and may be unlike the rest"
_PER = ("ipw_per_w", "ipj_per_j", "ppw_per_w", "ppj_per_j")


@dataclass(frozen=True)
class Joined:
    """The accuracy of other runs, to be joined with a cost: each item's marks, how they were scored, of which runs."""

    accuracy: Accuracy
    marks: Mapping[str, Mark]
    method: str
    records: tuple[RunRecord, ...]


def joined_accuracy(*records: RunRecord) -> Joined:
    """The accuracy of other runs, which must be of one cell. Raises UserError where they have not exactly one."""
    hint = "--accuracy takes runs of one cell"
    demand_same([record.manifest for record in records], workload=True, hint=hint)
    named = ", ".join(record.run_id for record in records)
    groups = {key: of_runs for key, of_runs in _grouped(records).items() if key[1] != TEXT}
    if not groups:
        raise UserError(f"run {named} has no accuracy", hint="--accuracy takes a run of an accuracy workload")
    if len(groups) > 1:
        several = ", ".join(" ".join(part for part in key if part) for key in groups)
        hint = "--accuracy takes a run with one"
        raise UserError(f"run {named} has {len(groups)} accuracies: {several}", hint=hint)
    ((_, method), of_runs) = next(iter(groups.items()))
    found = marks(score for scores in of_runs.values() for score in scores)
    estimate = accuracy_of([(item, mark.correct) for item, mark in found.items()])
    return Joined(
        Accuracy(estimate, "loglik" if origin_of(method) == "loglik" else "inherited"), found, method, tuple(records)
    )


def efficiency(records: Sequence[RunRecord], joined: Joined | None = None) -> list[dict[str, Any]]:
    """One document a point and method of these runs, which must be of one cell; keys: docs/json.md.

    Without ``joined`` the runs need scores of their own. With it a query is a scored item, or of runs without scores a
    timed request; scores of the same workload then bound how far the joined accuracy is from this device's
    (meltbench.analysis.inherit). Raises UserError.
    """
    hint = "give the repetitions of one cell, and another command for another"
    demand_same([record.manifest for record in records], workload=True, hint=hint)
    meter, groups = meter_of(records), _grouped(records)
    if joined is not None:
        groups = {key: of_runs for key, of_runs in groups.items() if key[1] != TEXT}
        if not groups:
            queries = [query for record in records for query in queries_of(record, None)]
            found = intelligence(queries, meter, joined=joined.accuracy)
            return [_document(records, "", "", found, _of_accuracy(found), joined.accuracy.origin, joined)]
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
            if one.method == "kld":  # it is of another model's answers as much as of this one's
                continue
            of_runs = groups.setdefault((one.point, one.method), {each.run_id: [] for each in records})
            of_runs[record.run_id].append(one)
    return dict(sorted(groups.items()))


def _of_answers(
    records: Sequence[RunRecord],
    key: tuple[str, str],
    of_runs: dict[str, list[Score]],
    meter: Meter,
    joined: Joined | None,
) -> dict[str, Any]:
    queries = [query for record in records for query in queries_of(record, of_runs[record.run_id])]
    taken = None if joined is None else _taken_over(joined, records[0], key[1], of_runs)
    accuracy = None if joined is None else joined.accuracy if taken is None else _accuracy(joined, taken)
    found = intelligence(queries, meter, origin_of(key[1]), accuracy)
    made = _document(records, *key, found, _of_accuracy(found), found.accuracy.origin, joined)
    if taken is not None:
        made["inherited"] = _as_json(taken)
        if not taken.drawn:
            made["flags"].append(_NOT_DRAWN.format(taken.n))
    unparsed = sum(one.correct is not None and not one.parsed for scores in of_runs.values() for one in scores)
    if unparsed and joined is None:
        made["flags"].append(f"unparsed: {unparsed} answers could not be read, and count as wrong")
    return made


def _taken_over(
    joined: Joined, record: RunRecord, method: str, of_runs: Mapping[str, Sequence[Score]]
) -> Inherited | None:
    """The joined accuracy as this device inherits it; None where it was asked another workload, which bounds nothing.

    Raises UserError where both were asked the same workload, but not the same questions in the same way.
    """
    host = joined.records[0].manifest
    if (host.get("workload") or {}).get("name") != (record.manifest.get("workload") or {}).get("name"):
        return None
    demand_alike(host, record.manifest)
    if method != joined.method:
        said = f"answers were scored by {method} here and by {joined.method} there"
        raise UserError(said, hint="measure both with the same runner")
    return inherited(joined.marks, marks(score for scores in of_runs.values() for score in scores), method)


def _accuracy(joined: Joined, taken: Inherited) -> Accuracy:
    """What is inherited, with the evidence for it in words."""
    device = str((joined.records[0].manifest.get("device") or {}).get("name"))
    told = f"scored on {device} by {joined.method}, {taken.accuracy.n} items; of {taken.n} items asked here too "
    if taken.changed is not None and taken.changed_at_most is not None:
        told += f"{taken.changed} have another answer ({_share(taken.changed, taken.n, taken.changed_at_most)}), "
    flips = taken.gained + taken.lost
    told += f"{flips} are right on one of the two alone ({_share(flips, taken.n, taken.bound)}), "
    told += f"so the accuracies differ by at most {taken.bound:.1%}"
    return Accuracy(taken.accuracy, "inherited", told)


def _share(k: int, n: int, at_most: float) -> str:
    return f"{k / n:.1%}, at most {at_most:.1%}"


def _as_json(taken: Inherited) -> dict[str, Any]:
    corrected = {key: getattr(taken.corrected, key) for key in ("value", "lo", "hi", "method")}
    return {
        "n_shared": taken.n,
        "changed": taken.changed,
        "changed_at_most": taken.changed_at_most,
        "gained": taken.gained,
        "lost": taken.lost,
        "bound": taken.bound,
        "drawn": taken.drawn,
        "corrected": corrected,
    }


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
    joined: Joined | None = None,
) -> dict[str, Any]:
    about = records[0].manifest
    runner = about["runner"]
    flags = list(found.flags)
    if joined is not None and (other := _other_model(joined, records[0])):
        flags.append(f"other_model: the accuracy is of {other}")
    invalid = [record.run_id for record in records if record.manifest.get("validity") == "invalid"]
    if invalid:
        flags.append(f"invalid: {', '.join(invalid)} is no valid run, and was used because it was named")
    if (whole := _whole(records)) is not None and found.n_items < whole:
        flags.append(f"piece: {found.n_items} of {whole} items were asked; meltbench run --resume asks the rest")
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
        "accuracy_runs": [] if joined is None else [record.run_id for record in joined.records],
        "inherited": None,
        "scope": found.scope,
        "klass": found.klass,
        "n_queries": found.n_queries,
        "n_items": found.n_items,
        "numbers": numbers,
        "flags": flags,
    }


def _whole(records: Sequence[RunRecord]) -> int | None:
    """How many items the whole has that these runs are parts of; None where they are no parts."""
    pieces = [(record.manifest.get("conditions") or {}).get("piece") for record in records]
    return max((int(one["of"]) for one in pieces if one), default=None)


def _other_model(joined: Joined, record: RunRecord) -> str:
    """The model of the joined accuracy where it is not the one that cost the energy; else nothing."""
    one, other = ((each.manifest.get("model") or {}) for each in (joined.records[0], record))
    return "" if one.get("sha256") == other.get("sha256") else printable(str(one.get("name")))


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
