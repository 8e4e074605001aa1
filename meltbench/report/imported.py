"""Runs of other tools as a table and as JSON: ours and theirs, each under its own name."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from meltbench.report.sheet import MISSING, Column, Sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.imports.foreign import File, Imported
    from meltbench.records import Measure

_STATS = ("value", "ratio_of_sums", "median", "mean", "max")  # the first that is there stands for a quantity
_UNTOLD = "not_recorded"
_SHOWN = (
    "_tps",
    "_s",
    "_j",
    "_w",
    "_kg",
    "_score",
    "_ts",
    "_c",
    "_bytes",
    "accuracy",
    "_request",
    "_question",
    "_token",
)
_MAX_ROWS = 2000


def as_json(tool: str, files: Sequence[File], runs: Sequence[Imported], stored: Sequence[str]) -> dict[str, Any]:
    """What ``--json`` prints; docs/json.md has the keys."""
    return {
        "tool": tool,
        "files": [file.path for file in files],
        "runs": [_run(one) for one in runs],
        "stored": list(stored),
    }


def _run(one: Imported) -> dict[str, Any]:
    made = one.manifest({})
    return {
        "part": one.part,
        "origin": one.tool,
        "started_at": made["started_at"],
        "clock": one.clock,
        "device": one.device,
        "model": None if one.model is None else made["model"],
        "runner": None if one.runner is None else made["runner"],
        "workload": one.workload["name"],
        "rep": one.rep,
        "knobs": dict(one.knobs),
        "said": dict(one.said),
        "requests": len(one.requests),
        "scores": len(one.scores),
        "series": [series.name for series in one.series],
        "measures": [asdict(measure) for measure in one.measures],
        "validity": one.validity,
        "reasons": [asdict(reason) for reason in one.reasons],
        "notes": list(one.notes),
    }


def sheet(tool: str, runs: Sequence[Imported]) -> Sheet:
    """A row a number of each run; what is missing is there with its reason."""
    heads = (Column("run"), Column("point"), Column("measure"), Column("", faint=True), Column("value", right=True))
    out = Sheet(tool, (*heads, Column("n", right=True), Column("how, or why not", faint=True)))
    for number, one in enumerate(runs):
        what = f"{number} {(one.model or {}).get('name') or one.workload['name']}"
        for measure in _told(one.measures):
            value = MISSING if measure.value is None else f"{measure.value:.5g} {measure.unit}"
            why = measure.reason or measure.method.partition(";")[0]
            count = MISSING if measure.n is None else str(measure.n)
            point = "" if measure.phase == "run" else measure.phase
            out.rows.append((what, point, _named(measure), measure.stat, value, count, why))
            what = ""
    return out


def _named(one: Measure) -> str:
    return one.name if one.source in ("", "total") else f"{one.name} {one.source}"


def _told(measures: Sequence[Measure]) -> list[Measure]:
    """One row a quantity and a point: its median, else its mean; what the tool does not tell at all is a line below."""
    kept: dict[tuple[str, str, str], Measure] = {}
    for one in measures:
        if one.stat not in _STATS or not one.name.endswith(_SHOWN) or (one.reason or "").startswith(_UNTOLD):
            continue
        held = kept.setdefault((one.phase, one.name, one.source), one)
        if held.value is None or (one.value is not None and _STATS.index(one.stat) < _STATS.index(held.stat)):
            kept[one.phase, one.name, one.source] = one
    return sorted(kept.values(), key=lambda one: (one.phase != "run", one.phase))[:_MAX_ROWS]


def lines(runs: Sequence[Imported]) -> list[str]:
    """What is to be said of the runs: why each is not fully valid, and the notes."""
    said: dict[str, list[int]] = {}
    for number, one in enumerate(runs):
        untold = [_named(measure) for measure in one.measures if (measure.reason or "").startswith(_UNTOLD)]
        lacking = [f"{one.tool} does not tell {', '.join(dict.fromkeys(untold))}"] if untold else []
        for text in (*(f"{reason.code}: {reason.detail}" for reason in one.reasons), *one.notes, *lacking):
            said.setdefault(text, []).append(number)
    return [text if len(of) == len(runs) else f"{_numbers(of)}: {text}" for text, of in said.items()]


def _numbers(of: Sequence[int]) -> str:
    more = f" and {len(of) - 6} more" if len(of) > 6 else ""
    return f"run {', '.join(map(str, of[:6]))}{more}"
