"""Runs of several models, engines or settings side by side: one row an arm, what is alike of them and what is not.

Figures of two modes, of two workloads or of two devices never share a column. Against the first arm stand ratios and
differences with 95 % intervals: of accuracies and perplexities paired item by item, chunk by chunk; of rates and
energies those of the medians over runs, for the run is what is repeated. What stands against the first is of the
numbers that stand in the columns.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from meltbench import factors
from meltbench.analysis.sameness import workload_settings
from meltbench.analysis.stats import Estimate, missing, paired_accuracy, paired_mean, ratio_of_medians
from meltbench.errors import UserError
from meltbench.parity import parity, workload_of
from meltbench.records import bare
from meltbench.report.summary import usable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meltbench.records import Measure, RunRecord

    Items = Mapping[tuple[str, str], float]  # item and point to a mark, or to nats by token
    Column = tuple[str, str, str]  # workload, mode, measure without its mode's prefix

# The measures that are compared, in order: name, stat, heading; of the run, but for those of OF_PHASE.
MEASURES = (
    ("perplexity", "value", "perplexity"),
    ("accuracy", "mean", "accuracy"),
    ("ttft_s", "median", "TTFT"),
    ("prefill_tps", "median", "prefill"),
    ("decode_tps", "median", "decode"),
    ("inference_s", "median", "inference"),
    ("question_latency_s", "mean", "latency/question"),
    ("j_per_output_token", "ratio_of_sums", "energy/token"),
    ("j_per_question", "mean", "energy/question"),
    ("ipj_per_j", "ratio_of_means", "IPJ"),
    ("load_s", "value", "load time"),
    ("energy_j", "value", "energy of load"),
    ("peak_rss_bytes", "max", "peak RSS"),
)
_OF_PHASE = {"energy_j": "load"}
# Of the engine, whatever it was asked: told once, where it was asked for answers.
_ONCE = ("load_s", "energy_j", "peak_rss_bytes")
PAIRED = ("perplexity", "accuracy")
_MODES = ("server", "bench", "in-process")
_SHOWN = 3


@dataclass(frozen=True)
class Arm:
    """Runs that are repetitions of each other but for their workload. ``about``: what names them, by heading."""

    about: tuple[tuple[str, str], ...]
    records: tuple[RunRecord, ...]


def compare(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Arms, their numbers, and how they stand against the first; keys: docs/json.md. Raises UserError for fewer than
    two arms."""
    if len(records) < 2:
        raise UserError("a comparison is of two runs or more", hint="name another one; meltbench runs lists them")
    good = [record for record in records if usable(record) and record.manifest.get("runner")]
    left = len(records) - len(good)
    if not good:
        hint = "name runs that are none of it; meltbench runs lists them"
        raise UserError(f"all {left} runs are invalid, failed, or of no engine", hint=hint)
    found = _arms(good)
    if len(found) < 2:
        said = (
            f"{left} of {len(records)} runs are invalid, failed, or of no engine, the others" if left else "these runs"
        )
        raise UserError(
            f"{said} are of one model, engine and setting",
            hint="name runs that differ in one of them; meltbench runs lists them",
        )
    columns = _columns(found)
    return {
        "columns": [{"workload": w, "mode": m, "name": n, "unit": _unit(found, (w, m, n))} for w, m, n in columns],
        "arms": [_told(arm, found[0], columns) for arm in found],
        "notes": [*([f"{left} runs were left out: invalid, failed, or of no engine"] if left else []), *parity(found)],
    }


def _arms(records: Sequence[RunRecord]) -> list[Arm]:
    """In order of appearance; what is the same of all is not told."""
    unlike = _unlike_settings(records)
    rows = [_about(record) | more for record, more in zip(records, unlike, strict=True)]
    # A setting is told of the workload that it is of; runs of all others stay together.
    of_set = {
        workload_of(r) for r, more in zip(records, unlike, strict=True) if more.keys() & workload_settings(r.manifest)
    }
    for row in rows:
        row[_WORKLOAD] = row[_WORKLOAD] if row[_WORKLOAD] in of_set else ""
    names = dict.fromkeys(name for row in rows for name in row)  # one engine has knobs that another has not
    told = [name for name in names if len({row[name] for row in rows if name in row}) > 1]
    groups: dict[tuple[tuple[str, str], ...], list[RunRecord]] = {}
    for record, row in zip(records, rows, strict=True):
        groups.setdefault(tuple((name, row.get(name, "")) for name in told), []).append(record)
    return [Arm(tuple(_whole(about, group)), tuple(group)) for about, group in groups.items()]


def _whole(about: tuple[tuple[str, str], ...], records: Sequence[RunRecord]) -> Iterator[tuple[str, str]]:
    """What names an arm, with the workloads that its runs are of, and settings of theirs that are alike in it."""
    for name, value in about:
        own = (workload_of(r) if name == _WORKLOAD else workload_settings(r.manifest).get(name, "") for r in records)
        yield name, value or " and ".join(filter(None, dict.fromkeys(map(str, own))))


def _unlike_settings(records: Sequence[RunRecord]) -> list[dict[str, str]]:
    """What each run's workload, or its device, was set to otherwise than others of the same name; and by which file a
    model or an engine is not the one of its name."""
    out: list[dict[str, str]] = [{} for _ in records]
    for part in (_workload_part, _device_part, _model_part, _engine_part):
        groups: dict[str, list[int]] = {}
        told = [part(record) for record in records]
        for at, (group, _) in enumerate(told):
            groups.setdefault(group, []).append(at)
        for mine in groups.values():
            keys = {key for at in mine for key in told[at][1]}
            for key in sorted(keys):
                if len({str(told[at][1].get(key)) for at in mine}) > 1:
                    for at in mine:
                        out[at][key] = str(told[at][1].get(key, "not set"))
    return out


def _workload_part(record: RunRecord) -> tuple[str, dict[str, Any]]:
    return workload_of(record), workload_settings(record.manifest)


def _device_part(record: RunRecord) -> tuple[str, dict[str, Any]]:
    made = (record.manifest.get("conditions") or {}).get("settings") or {}
    return "", {key: one.get("used") if isinstance(one, dict) else one for key, one in made.items()}


def _model_part(record: RunRecord) -> tuple[str, dict[str, Any]]:
    model = record.manifest.get("model") or {}
    return str(model.get("name")), {"model file": str(model.get("sha256"))[:8]}


def _engine_part(record: RunRecord) -> tuple[str, dict[str, Any]]:
    runner = record.manifest["runner"]
    return f"{runner.get('engine')} {runner.get('version')}", {"engine file": str(runner.get("sha256"))[:8]}


def _about(record: RunRecord) -> dict[str, str]:
    about, runner = record.manifest, record.manifest["runner"]
    model, device = about.get("model") or {}, about.get("device") or {}
    knobs = about.get("knobs") or {}
    bits = model.get("bits_per_weight")
    row = {
        "device": str(device.get("name")),
        "model": str(model.get("name")),
        "bits/weight": "" if bits is None else f"{bits:.2f}",
        "runner": str(runner.get("name")),
        "engine": f"{runner.get('engine')} {runner.get('version')}",
        "accelerator": str(runner.get("accelerator")),
        _WORKLOAD: workload_of(record),
    }
    row |= dict.fromkeys(factors.PROCESS, "none")  # of any engine, and not told of a run that has them not
    return row | {name: str(value) for name, value in sorted(knobs.items()) if name not in _FREE}


_FREE = ("ctx",)  # settled by the workload
_WORKLOAD = "workload"


def _columns(arms: Sequence[Arm]) -> list[Column]:
    """What any arm has a value of, measure by measure; of workloads and modes in order of appearance."""
    there: dict[Column, None] = {}
    for name, _, _ in MEASURES:
        for arm in arms:
            for record in arm.records:
                for mode in _MODES:
                    column = (workload_of(record), mode, name)
                    if _mode(record) == mode and any(m.value is not None for m in _of(record, column)):
                        there[column] = None
    # An energy that none has is told as well: a dash with its reason, not a column that is not there.
    for workload, mode, name in list(there):
        if name == "decode_tps":
            there.setdefault((workload, mode, "j_per_output_token"), None)
    for once in _ONCE:
        mine = [column for column in there if column[2] == once]
        kept = ([column for column in mine if (*column[:2], "decode_tps") in there] or mine)[:1]
        for column in mine:
            if column not in kept and any(column[1] == other[1] for other in kept):
                del there[column]
    order = {name: at for at, (name, _, _) in enumerate(MEASURES)}
    return sorted(there, key=lambda column: (order[column[2]], _MODES.index(column[1])))


def _mode(record: RunRecord) -> str:
    return str(record.manifest["runner"].get("mode"))


def _of(record: RunRecord, column: Column) -> list[Measure]:
    workload, mode, name = column
    if workload_of(record) != workload or _mode(record) != mode:
        return []
    stat = next(stat for known, stat, _ in MEASURES if known == name)
    total = ("", "total", "process") if name.startswith(("j_", "ip", "energy_")) else None
    phase = _OF_PHASE.get(name, "run")
    return [
        m for m in record.measures
        if bare(m.name) == name and m.stat == stat and m.phase == phase and (total is None or m.source in total)
    ]  # fmt: skip


def _unit(arms: Sequence[Arm], column: Column) -> str:
    return next((m.unit for arm in arms for record in arm.records for m in _of(record, column)), "")


def _told(arm: Arm, first: Arm, columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "about": dict(arm.about),
        "descends_from": (arm.records[0].manifest.get("model") or {}).get("descends_from"),
        "runs": [record.run_id for record in arm.records],
        "numbers": [_number(arm, first, column) for column in columns],
    }


def _number(arm: Arm, first: Arm, column: Column) -> dict[str, Any]:
    found = [m for record in arm.records for m in _of(record, column)]
    values = [m.value for m in found if m.value is not None]
    reason = next((m.reason for m in found if m.reason), "not_measured: no run of this arm has it")
    one: dict[str, Any] = {
        "value": None,
        "least": None,
        "most": None,
        "u_k2": None,
        "n_runs": len(values),
        "reason": reason,
    }
    if values:
        one |= {"value": statistics.median(values), "least": min(values), "most": max(values), "reason": None}
    # What is paired item by item is of all items of all runs, be these repetitions or parts of a whole.
    if len(values) > 1 and column[2] in PAIRED:
        marks = _by_item([r for r in arm.records if _of(r, column)], column[2]).values()
        if marks:
            mean = math.fsum(marks) / len(marks)
            one["value"] = exp_of(mean) if column[2] == "perplexity" else mean
    if len(values) == 1:
        one["u_k2"] = next(m.u_k2 for m in found if m.value is not None)
    against = None if arm is first else _against(arm, first, column)
    return one | {"against_first": None if against is None else _as_json(against, column[2])}


def _as_json(found: Estimate, name: str) -> dict[str, Any]:
    kind = "difference" if name == "accuracy" else "ratio"
    return {
        "kind": kind, "value": found.value, "lo": found.lo, "hi": found.hi, "n": found.n, "method": found.method,
        "reason": found.reason,
    }  # fmt: skip


def _against(arm: Arm, first: Arm, column: Column) -> Estimate:
    """This arm's number over the first one's, or less it (accuracy)."""
    mine, theirs = ([r for r in one.records if _of(r, column)] for one in (arm, first))
    if not mine or not theirs:
        return missing("not_measured: one of the two has no such run")
    if column[2] in PAIRED:
        return _paired(mine, theirs, column[2])
    values = [[m.value for r in runs for m in _of(r, column) if m.value is not None] for runs in (mine, theirs)]
    if not all(values):
        return missing("no_value: one of the two has none")
    if min(map(len, values)) < 2:
        ratio = statistics.median(values[0]) / statistics.median(values[1]) if statistics.median(values[1]) else None
        if ratio is None:
            return missing("no_value: the first is zero")
        return Estimate(ratio, n=1, method="one run an arm: nobody knows how runs differ; --reps 5 makes more")
    if min(min(each) for each in values) <= 0:
        return missing("no_value: a ratio needs numbers above zero")
    return ratio_of_medians(*values)


def _paired(mine: Sequence[RunRecord], theirs: Sequence[RunRecord], name: str) -> Estimate:
    return by_item(_by_item(theirs, name), _by_item(mine, name), name)


def by_item(first: Items, second: Items, name: str) -> Estimate:
    """How the second arm stands against the first on the items that both have: a difference, of perplexity a ratio."""
    shared = sorted(first.keys() & second.keys())
    if len(shared) < 2:
        return missing("not_paired: the runs share no two items")
    one, other = [first[key] for key in shared], [second[key] for key in shared]
    if name == "accuracy":
        return paired_accuracy(one, other)
    found = paired_mean(one, other)  # of log-perplexities, so that the difference is the log of the ratio
    return replace(found, value=exp_of(found.value), lo=exp_of(found.lo), hi=exp_of(found.hi), se=None)


def exp_of(nats: float | None) -> float | None:
    """Of nats a number, however many nats a broken model has."""
    return None if nats is None else math.exp(min(nats, 700))


def _by_item(records: Sequence[RunRecord], name: str) -> dict[tuple[str, str], float]:
    """What each item came to, the mean over runs: right or not, or nats by token."""
    held: dict[tuple[str, str], list[float]] = {}
    for record in records:
        for score in record.scores:
            if name == "accuracy" and score.correct is not None:
                held.setdefault((score.item, score.point), []).append(score.correct)
            elif name == "perplexity" and score.method == "nll" and score.value is not None and score.n:
                held.setdefault((score.item, score.point), []).append(-score.value / score.n)
    return {key: math.fsum(values) / len(values) for key, values in held.items()}


def heading(name: str) -> str:
    """How a measure is headed in a table."""
    return next(heading for known, _, heading in MEASURES if known == name)


def several(values: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether these have more than one value of that key."""
    return len({str(one[key]) for one in values}) > 1
