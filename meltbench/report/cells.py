"""Cells side by side as a sheet: what tells the rows apart, their numbers with intervals, what the energy is of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.efficiency_tables import OURS
from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

Document = dict[str, Any]
_ABOUT = ("model", "quantisation", "device", "engine")
_NAMED = 3  # rows that a remark names; of more it counts them
_PREFIXED = ("s", "B", "J", "W")


def told(value: float, unit: str) -> str:
    """A number as one reads it; shares as per cent, what has no prefix in three digits.

    >>> told(0.6, "share"), told(0.0716, "1/W"), told(0.0004, "EUR"), told(7.512, "J")
    ('60 %', '0.0716 1/W', '0.0004 EUR', '7.51 J')
    """
    if unit == "share":
        return f"{value * 100:.3g} %"
    if unit in _PREFIXED:
        return quantity(value, unit)
    digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return digits if unit == "1" else f"{digits} {unit}".rstrip()


def with_interval(one: Document) -> str:
    """A number with its 95 % interval in brackets, or a dash."""
    if one["value"] is None:
        return MISSING
    value, lo, hi = (None if one[key] is None else told(one[key], one["unit"]) for key in ("value", "lo", "hi"))
    if lo is None or hi is None:
        return str(value)
    units = {text.partition(" ")[2] for text in (str(value), lo, hi)}
    if len(units) > 1:  # of a number below one and a bound above it
        return f"{value} ({lo} to {hi})"
    digits = [text.partition(" ")[0] for text in (str(value), lo, hi)]
    return f"{digits[0]} ({digits[1]} to {digits[2]}) {units.pop()}".rstrip()


def cells_sheet(
    table: Document, columns: Sequence[tuple[str, str | None]], headings: dict[str, str], more: Sequence[str] = ()
) -> Sheet:
    """One table of a document, a row a cell.

    ``columns``: name and energy (gross, net or None) of each number; one that no row has is left out, and why is among
    the notes. ``more``: keys of a row to be shown beside what tells it from the others.
    """
    rows = table["rows"]
    shown = distinct(rows, more)
    held = [column for column in columns if any(number(row, column) for row in rows)]
    heads = [Column(key) for key in shown]
    heads += [Column(headings.get(f"{name} {which}") or headings[name], right=True, whole=True) for name, which in held]
    sheet = Sheet(title(table, shown), (*heads, Column("scope, class"), Column("runs", right=True)))
    for row in rows:
        found = [number(row, column) for column in held]
        numbers = [MISSING if one is None else with_interval(one) for one in found]
        sheet.rows.append((*about(row, shown), *numbers, scope(row), str(len(row["runs"]))))
    return sheet


def distinct(rows: Sequence[Document], more: Sequence[str] = ()) -> list[str]:
    """The keys that tell rows apart, ``more`` first; the quantisation where the model's name does not tell it."""
    unlike = [key for key in _ABOUT if len({word(row, key) for row in rows}) > 1]
    if "model" in unlike and len({word(row, "model") for row in rows}) == len({_weights(row) for row in rows}):
        unlike = [key for key in unlike if key != "quantisation"]
    return list(dict.fromkeys([*more, *unlike]))


def about(row: Document, keys: Sequence[str]) -> list[str]:
    """What a row is, by these keys."""
    return [word(row, key) for key in keys]


def word(row: Document, key: str) -> str:
    """One of them; an engine with its version and what it computes on."""
    if key != "engine":
        return str(row[key] or "")
    on = f"({row['accelerator']})" if row["accelerator"] else ""
    return " ".join(str(part) for part in (row["engine"], row["engine_version"], on) if part)


def title(table: Document, shown: Sequence[str]) -> str:
    """What all rows have in common."""
    imported = "" if table["measured_by"] == OURS else f"imported from {table['measured_by']}"
    of_table = [imported, *(str(table.get(key, "")) for key in ("workload", "point", "method", "mode"))]
    common = [word(table["rows"][0], key) for key in _ABOUT if key not in shown and key != "quantisation"]
    return " · ".join(part for part in (*of_table, *common) if part)


def scope(row: Document) -> str:
    """What the energies of a row cover, and their class."""
    return MISSING if row["klass"] is None else f"{row['scope']}, {row['klass']}"


def number(row: Document, column: tuple[str, str | None]) -> Document | None:
    """A number of a row that has a value."""
    mine = (one for one in row["numbers"] if (one["name"], one["energy"]) == column and one["value"] is not None)
    return next(mine, None)


def _weights(row: Document) -> tuple[str, str]:
    return word(row, "model"), word(row, "quantisation")


def table_notes(table: Document) -> list[str]:
    """Flags of a table, then those of its rows: each once, with the rows that it is of where it is not of all; and why
    a number is missing."""
    rows = table["rows"]
    held: dict[str, list[str]] = {}
    for row in rows:
        name = " on ".join(str(row[key]) for key in ("model", "device") if row[key])
        reasons = dict.fromkeys(str(one["reason"]) for one in row["numbers"] if one["value"] is None)
        for flag in [*row["flags"], *reasons]:
            held.setdefault(flag, []).append(name)
    lines = list(table["flags"])
    for flag, names in held.items():
        some = ", ".join(dict.fromkeys(names)) if len(names) <= _NAMED else f"{len(names)} of {len(rows)} rows"
        lines.append(flag if len(names) == len(rows) else f"{some}: {flag}")
    return lines


def refused_notes(document: Document) -> list[str]:
    """What is in no table, and why."""
    lines = [f"{', '.join(one['runs'])}: {one['reason']}" for one in document["refused"]]
    if document["left_out"]:
        n = document["left_out"]
        lines.append(f"{n} run{'s' * (n > 1)} left out: invalid or failed (validity=invalid shows the invalid)")
    return lines
