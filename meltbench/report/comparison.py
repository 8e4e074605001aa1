"""Arms side by side as a table: what differs of them, their numbers, and each against the first with its interval."""

from __future__ import annotations

from typing import Any

from meltbench.comparing import heading, several
from meltbench.parity import called
from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity
from meltbench.targets import printable

Document = dict[str, Any]


def comparison_sheet(document: Document) -> Sheet:
    """One row an arm; beside a number how it stands against the first one's, where its interval is known."""
    columns, arms = document["columns"], document["arms"]
    named = list(arms[0]["about"])
    heads = [Column(name, whole=name != "engine") for name in named]
    with_interval = []
    for at, column in enumerate(columns):
        parts = [heading(column["name"])]
        alike = [one for one in columns if one["name"] == column["name"]]
        parts += [column["workload"]] if several(alike, "workload") else []
        parts += [column["mode"]] if several(alike, "mode") else []
        heads.append(Column(", ".join(parts), right=True, whole=True))
        shown = any((arm["numbers"][at]["against_first"] or {}).get("lo") is not None for arm in arms)
        with_interval.append(shown)
        if shown:
            heads.append(Column("against first", right=True, whole=True))
    sheet = Sheet("", tuple(heads))
    for arm in arms:
        row = [printable(str(arm["about"][name])) for name in named]
        for at, column in enumerate(columns):
            number = arm["numbers"][at]
            row.append(_value(number, column))
            if with_interval[at]:
                row.append(_against(number["against_first"]))
        sheet.rows.append(tuple(row))
    return sheet


def _value(number: Document, column: Document) -> str:
    if number["value"] is None:
        return MISSING
    told = _said(number["value"], column)
    return told if number["u_k2"] is None else f"{told} ± {_said(number['u_k2'], column)}"


def _said(value: float, column: Document) -> str:
    if column["name"] == "accuracy":
        return f"{value * 100:.3g} %"
    return quantity(value, column["unit"])


def _against(found: Document | None) -> str:
    if found is None:
        return ""
    if found["value"] is None:
        return MISSING
    if found["kind"] == "difference":
        told, edges = f"{found['value'] * 100:+.3g} pp", [found["lo"], found["hi"]]
        inside = None if edges[0] is None else f"{edges[0] * 100:+.3g} to {edges[1] * 100:+.3g}"
    else:
        told = f"x {found['value']:.4g}"
        inside = None if found["lo"] is None else f"{found['lo']:.4g} to {found['hi']:.4g}"
    return told if inside is None else f"{told} ({inside})"


def comparison_notes(document: Document) -> list[str]:
    """Why a number is missing, what an interval is of, and what is not alike of the arms; a line each."""
    columns, arms = document["columns"], document["arms"]
    made: dict[str, list[str]] = {}
    for arm in arms:
        if arm["descends_from"]:
            made.setdefault(arm["descends_from"], []).append(called(arm["about"]))
    out = [f"{'; '.join(who)} {'is' if len(who) == 1 else 'are'} made of {of}" for of, who in made.items()]
    lacking: dict[tuple[str, str, str], list[str]] = {}
    for at, column in enumerate(columns):
        asked = ", ".join(column[key] for key in ("workload", "mode") if several(columns, key))
        where = f" in {asked}" if asked else ""
        whys: dict[str, list[str]] = {}
        for arm in arms:
            if why := arm["numbers"][at]["reason"]:
                whys.setdefault(why, []).append(called(arm["about"]))
        for why, who in whys.items():
            of = "" if len(who) == len(arms) else f" of {'; '.join(who)}"
            lacking.setdefault((where, of, why), []).append(heading(column["name"]))
    out += [f"no {' or '.join(names)}{where}{of}: {why}" for (where, of, why), names in lacking.items()]
    methods = {
        found["method"]
        for arm in arms
        for number in arm["numbers"]
        if (found := number["against_first"]) is not None and found["lo"] is not None
    }
    out += [f"intervals: {'; '.join(sorted(methods))}"] if methods else []
    return [printable(line) for line in [*out, *document["notes"]]]
