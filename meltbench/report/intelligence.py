"""Accuracy, intelligence per watt and per joule as a table: none of them without the others, or without its scope."""

from __future__ import annotations

from typing import Any

from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity

Document = dict[str, Any]
_HEADS = ("", "energy", "value", "95 % interval", "n", "")


def intelligence_sheet(document: Document) -> Sheet:
    """One point and method of some runs."""
    engine = f"{document['engine']} {document['engine_version']} ({document['accelerator']}, {document['mode']})"
    named = ("model", "workload", "point", "method", "device")
    model, *rest = (document[key] for key in named)
    title = " · ".join(str(part) for part in (model, engine, *rest) if part)
    right, whole = {"value", "n"}, {"energy", "value", "95 % interval", "n"}
    last = len(_HEADS) - 1
    columns = (
        Column(head, right=head in right, whole=head in whole or at == 0, faint=at == last)
        for at, head in enumerate(_HEADS)
    )
    sheet = Sheet(title, tuple(columns))
    for one in document["numbers"]:
        name, which = str(one["name"]), one["energy"] or ""
        if one["value"] is None:
            sheet.rows.append((name, which, MISSING, "", str(one["n"]), one["reason"]))
            continue
        interval = MISSING
        if one["lo"] is not None:
            interval = f"{_told(one['lo'], one)} to {_told(one['hi'], one)}"
        sheet.rows.append((name, which, _told(one["value"], one), interval, str(one["n"]), _note(one)))
    return sheet


def notes(document: Document) -> list[str]:
    """Scope, class and flags, a line each."""
    n = len(document["runs"])
    scope = f"scope {document['scope']}, class {document['klass'] or 'unknown'}, {document['origin']}"
    return [
        f"{scope}: {document['n_queries']} queries of {document['n_items']} items in {n} run{'s' * (n > 1)}",
        *document["flags"],
    ]


def _note(one: Document) -> str:
    if one["name"] == "accuracy" and one["se"] is not None:
        return f"standard error {one['se'] * 100:.2g} %, {one['method']}"
    return str(one["method"])


def _told(value: float, one: Document) -> str:
    unit = str(one["unit"])
    if one["name"] == "accuracy":
        return f"{value * 100:.3g} %"
    return f"{value:.3g} {unit}" if unit in ("1/W", "1/J") else quantity(value, unit)
