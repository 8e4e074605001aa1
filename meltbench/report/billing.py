"""Cost, carbon and battery life as tables, each with the factors that were stated for it."""

from __future__ import annotations

from typing import Any

from meltbench.report.cells import (
    about,
    cells_sheet,
    distinct,
    number,
    refused_notes,
    scope,
    table_notes,
    title,
    with_interval,
)
from meltbench.report.sheet import MISSING, Column, Sheet

Document = dict[str, Any]
_PER = {
    "1000_output_tokens": "1000 tokens out",
    "1000_queries": "1000 queries",
    "right_answer": "right answer",
}
_OF_FACTOR = {"price": ("cost", "cost"), "carbon": ("g_co2e", "CO2e")}
_BATTERY_HEADS = {
    "prompts_per_charge": "prompts/charge",
    "output_tokens_per_charge": "tokens out/charge",
    "right_answers_per_charge": "right answers/charge",
    "battery_life_h": "generating",
    "discharge_mah_per_token": "discharge/token",
}


def cost_sheets(document: Document) -> list[tuple[Sheet, list[str]]]:
    """A sheet and its notes for each table: a row a cell and what it is by, gross and net."""
    whats = [("j", "energy"), *(_OF_FACTOR[one["kind"]] for one in document["factors"])]
    return [(_costs(one, whats), table_notes(one)) for one in document["tables"]]


def _costs(table: Document, whats: list[tuple[str, str]]) -> Sheet:
    shown = distinct(table["rows"])
    heads = [Column(key) for key in (*shown, "per", "")] + [Column(head, right=True, whole=True) for _, head in whats]
    sheet = Sheet(title(table, shown), (*heads, Column("scope, class"), Column("runs", right=True)))
    for row in table["rows"]:
        asked = dict.fromkeys((one["name"].partition("_per_")[2], one["energy"]) for one in row["numbers"])
        for per, which in asked:
            found = [number(row, (f"{what}_per_{per}", which)) for what, _ in whats]
            numbers = [MISSING if one is None else with_interval(one) for one in found]
            sheet.rows.append((*about(row, shown), _PER[per], which, *numbers, scope(row), str(len(row["runs"]))))
    return sheet


def cost_notes(document: Document) -> list[str]:
    """The factors with their sources, and what is in no table."""
    return [*map(_factor, document["factors"]), *refused_notes(document)]


def battery_sheets(document: Document) -> list[tuple[Sheet, list[str]]]:
    """A sheet and its notes for each table."""
    columns = [(name, "gross") for name in _BATTERY_HEADS]
    return [
        (cells_sheet(one, columns, _BATTERY_HEADS), [*_batteries(one), *table_notes(one)]) for one in document["tables"]
    ]


def _factor(one: Document) -> str:
    year = "" if one["year"] is None else f", {one['year']}"
    return f"{one['name']}: {one['value']:g} {one['unit']} ({one['source']}{year}), taken as exact"


def _batteries(table: Document) -> list[str]:
    held = {
        f"battery of {row['device']}: {row['battery_wh']:.4g} Wh, {row['battery_source']}": None
        for row in table["rows"]
        if row["battery_wh"] is not None
    }
    return list(held)
