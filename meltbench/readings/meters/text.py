"""Logs of meters as tables of text: rows of numbers under a header, and the ways in which they write time."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from meltbench.readings.helper import MAX_T_NS
from meltbench.readings.meters.common import MAX_NUMBER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_LINE = 4096
MAX_COLUMNS = 64
# By unit, what a column's values are multiplied by to be V, A, W, J or s.
VOLTS = {"v": 1.0, "mv": 1e-3, "uv": 1e-6}
AMPS = {"a": 1.0, "ma": 1e-3, "ua": 1e-6}
WATTS = {"w": 1.0, "mw": 1e-3, "uw": 1e-6}
JOULES = {"j": 1.0, "ws": 1.0, "mj": 1e-3, "uj": 1e-6, "nj": 1e-9, "pj": 1e-12, "wh": 3600.0, "mwh": 3.6, "kwh": 3.6e6}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_SCALES = {"voltage_v": VOLTS, "current_a": AMPS, "power": WATTS, "energy": JOULES, "time_s": SECONDS}

_number = re.compile(r"[+-]?(?:\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE][+-]?\d{1,2})?", re.ASCII)
_seconds = re.compile(r"(\d{1,12})(?:\.(\d{1,18}))?", re.ASCII)
_iso = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(?: ?(Z|[+-]\d\d:?\d\d))?", re.ASCII)
# numpy from 2.0 on says the type of a number that is printed with repr(), as PyMonsoon prints its samples.
_boxed = re.compile(r"(?:np|numpy)\.float(?:32|64)\(([^()]{1,40})\)")


def to_number(text: str) -> float | None:
    """The number that a cell holds, or None: nan and inf are none."""
    text = text.strip()
    if (box := _boxed.fullmatch(text)) is not None:
        text = box[1]
    if not _number.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) <= MAX_NUMBER else None


def seconds_ns(text: str) -> int | None:
    """Seconds written in decimals as whole ns: a float of unix time would be off by 100 ns and more."""
    found = _seconds.fullmatch(text.strip())
    return None if found is None else time_ns(int(found[1]), int((found[2] or "0").ljust(9, "0")[:9]))


def time_ns(seconds: int, ns: int = 0) -> int | None:
    """Seconds and ns as ns; None beyond what a stamp may be (the year 2116 in unix time)."""
    t = seconds * 1_000_000_000 + ns
    return t if 0 <= t <= MAX_T_NS else None


def iso_ns(text: object) -> int | None:
    """ISO 8601 as ns of unix time; a wall clock without a zone as if it were UTC."""
    found = _iso.fullmatch(text.strip()) if isinstance(text, str) and len(text) <= 64 else None
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    return wall_ns(year, month, day, (hour, minute, second), found[7] or "0", found[8])


def wall_ns(
    year: int, month: int, day: int, time: tuple[int, int, int], fraction: str = "0", zone: str | None = None
) -> int | None:
    """A date and a time of day as ns of unix time; None where there is no such day or time."""
    try:
        whole = datetime(year, month, day, *time, tzinfo=UTC)
    except ValueError:
        return None
    offset = 0
    if zone not in (None, "Z"):
        digits = zone.replace(":", "")
        offset = (int(digits[1:3]) * 60 + int(digits[3:5])) * (-60 if digits[0] == "-" else 60)
    seconds = (whole - datetime(1970, 1, 1, tzinfo=UTC)).days * 86_400 + time[0] * 3600 + time[1] * 60 + time[2]
    return time_ns(seconds - offset, int(fraction.ljust(9, "0")[:9]))


def unit_of(header: str) -> tuple[str, str]:
    """A column's name and its unit: ("voltage", "v") of "Voltage (V)", "Voltage[V]", "voltage_V" and "Voltage V"."""
    text = header.strip().strip("\"'\ufeff#").strip().lower().replace("µ", "u").replace("μ", "u")
    found = re.fullmatch(r"(.{0,60}?)[ _]{0,4}[(\[]([^()\[\]]{1,12})[)\]]", text)
    if found is None:
        found = re.fullmatch(r"(.{1,60})[ _]([a-z]{1,3})", text)
    return (found[1].strip(" _"), found[2].strip()) if found is not None else (text, "")


def cells(line: str) -> list[str]:
    """The cells of a row: between tabs, semicolons (where a comma is a decimal point), commas, or blanks."""
    line = line[:MAX_LINE]
    for mark in ("\t", ";", ","):
        if mark in line:
            parts = line.split(mark, MAX_COLUMNS)
            return [
                one.strip().strip('"') if mark != ";" else one.strip().strip('"').replace(",", ".") for one in parts
            ]
    return line.split(None, MAX_COLUMNS)


class Column(NamedTuple):
    """A column that a reader knows: what it holds (with ":N" of channel N), and what its cells are multiplied by."""

    role: str
    scale: float


class Table:
    """Rows under the header that was seen last. ``names``: by a column's name what it holds and the unit that it has
    where the header says none ("" where it must). ``columns``: what stands where before any header. ``scales``: by what
    the columns hold, what their cells are multiplied by."""

    def __init__(self, names: Mapping[str, tuple[str, str]], columns: Sequence[Column | None] = ()) -> None:
        self._names, self._columns, self.scales = names, list(columns), _scales(columns)

    def row(self, line: str) -> dict[str, str] | None:
        """The cells of a row by what they hold; None of a header."""
        found = cells(line)
        # Headers begin with a name, rows with a number or a time. A name or two may be words of a message.
        if found and not any(c.isdigit() for c in found[0]):
            columns = [known(cell, self._names) for cell in found]
            if sum(one is not None for one in columns) >= max(2, len(columns) / 3):
                self._columns, self.scales = columns, _scales(columns)
                return None
        out: dict[str, str] = {}
        for column, cell in zip(self._columns, found, strict=False):
            if column is not None:
                out.setdefault(column.role, cell)
        return out

    def value(self, row: Mapping[str, str], role: str) -> float | None:
        """A cell of a row in the unit of its role, None where there is none or no number in it."""
        value = to_number(row[role]) if role in row else None
        return None if value is None else value * self.scales[role]


def _scales(columns: Sequence[Column | None]) -> dict[str, float]:
    """By what the columns hold what their cells are multiplied by; of two that hold the same the first counts."""
    return {one.role: one.scale for one in reversed(columns) if one is not None}


def known(header: str, names: Mapping[str, tuple[str, str]]) -> Column | None:
    """What a column of that header holds; None for one that nobody asked for, or whose unit nobody knows."""
    name, unit = unit_of(header)
    if name not in names:
        return None
    role, otherwise = names[name]
    scale = _SCALES.get(role.partition(":")[0], {"": 1.0}).get(unit or otherwise)
    return None if scale is None else Column(role, scale)
