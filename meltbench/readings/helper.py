"""Lines of helper programs (runners/helpers): one JSON object a line, one line a reading.

A helper stamps its own reads in CLOCK_BOOTTIME, and the probe stamps the line's arrival. The helper's stamps are
nearer to the truth and are taken when they can be: not after the arrival, and not long before it. A clock of another
time namespace or a helper that is confused falls back to the arrival.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from meltbench.readings.base import (
    MAX_SERIES,
    NAN,
    Column,
    read_codes,
    sighting,
)
from meltbench.records import ABSENT, AGAIN, DENIED, ERROR, OK, UNPARSED, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Stream

MAX_AGE_NS = 5_000_000_000  # a line that was held up longer says nothing sure about when it was read
MAX_TOLD = 4  # of a helper's own words, in the detail of a status
MAX_COUNT = 2**53  # a larger whole number would not survive as a float, and no helper's counts are as large
_SAID = {"denied": DENIED, "absent": ABSENT, "again": AGAIN, "error": ERROR}


class Span(NamedTuple):
    """When a value was read, in ns of CLOCK_BOOTTIME."""

    t0_ns: int
    t1_ns: int


class Line(NamedTuple):
    """A line: its arrival, a status code, and the object in it (empty where the code is not OK)."""

    arrival: Span
    code: int
    data: dict[str, Any]


@dataclass
class Collected:
    """Values of one series as they come in."""

    column: Column
    path: str
    klass: str | None
    update_s: float = 0.0
    window_s: float | None = 0.0
    t0_ns: list[int] = field(default_factory=list)
    t1_ns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def add(self, span: Span, value: float | None, code: int = OK) -> None:
        """One sample; a value that is missing needs a code that says why."""
        self.t0_ns.append(span.t0_ns)
        self.t1_ns.append(span.t1_ns)
        self.values.append(NAN if value is None else value)
        self.codes.append(code)

    def series(self, source: str) -> Series:
        """The samples as a series."""
        c = self.column
        status = np.array(self.codes, dtype=np.uint8)
        t0, t1 = np.array(self.t0_ns, dtype=np.int64), np.array(self.t1_ns, dtype=np.int64)
        value = np.array(self.values, dtype=np.float64)
        return Series(
            c.name, c.unit, c.kind, source, c.scope, t0, t1, value, status,
            path=self.path, klass=self.klass, update_s=self.update_s, window_s=self.window_s,
        )  # fmt: skip


def _lines(streams: Sequence[Stream]) -> Iterator[Line]:
    """Every line of a helper, in order."""
    for stream in streams:
        if stream.kind != "lines":
            continue
        r = stream.readings
        codes = read_codes(r).tolist()
        for t0, t1, code, raw in zip(r.t0_ns.tolist(), r.t1_ns.tolist(), codes, r.raw, strict=True):
            data = _object(raw) if code == OK else None
            yield Line(Span(t0, t1), UNPARSED if code == OK and data is None else code, data or {})


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) and data else None


def stamps(line: Line, *keys: str) -> list[Span]:
    """The spans between the helper's own stamps ``keys``, or the line's arrival for each of them."""
    found = [line.data.get(key) for key in keys]
    whole = [t for t in found if isinstance(t, int) and not isinstance(t, bool)]
    arrival = line.arrival
    sure = len(whole) == len(keys) and whole == sorted(whole)
    if not sure or not arrival.t1_ns - MAX_AGE_NS <= whole[0] <= whole[-1] <= arrival.t0_ns:
        return [arrival] * (len(keys) - 1)
    return [Span(a, b) for a, b in pairwise(whole)]


def count(value: object) -> float | None:
    """A whole number that is not below zero, or None."""
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return float(value) if good else None  # type: ignore[arg-type]


def said_code(word: object) -> int:
    """The status code of a cause in a helper's words (denied, absent, again, error)."""
    return _SAID.get(word, ERROR) if isinstance(word, str) else ERROR


@dataclass
class Sink:
    """Where the values of a helper's lines go, by the name of their series."""

    found: dict[str, Collected] = field(default_factory=dict)

    def at(
        self,
        column: Column,
        path: str = "",
        klass: str | None = None,
        update_s: float = 0.0,
        window_s: float | None = 0.0,
    ) -> Collected:
        """The samples of one series so far."""
        return self.found.setdefault(column.name, Collected(column, path, klass, update_s, window_s))


def parse_lines(
    source: str, streams: Sequence[Stream], take: Callable[[Line, Sink], bool], *, lost: str, absent: str
) -> tuple[list[Series], Sighting]:
    """Series and status of a helper's lines. ``take`` puts the values of a line into the sink, False if it holds none.

    A line that gave no reading is a sample without a value of the series ``lost``: a helper that may read nothing must
    not look like a machine with nothing to read. ``absent`` says what was looked for before a helper is started at all.
    """
    sink, told = Sink(), dict[str, None]()
    for line in _lines(streams):
        if line.code == OK and "cannot" not in line.data and take(line, sink):
            continue
        code = said_code(line.data["cannot"]) if "cannot" in line.data else line.code or UNPARSED
        sink.at(Column(lost, "1", "state")).add(line.arrival, None, code)
        if len(told) < MAX_TOLD:
            told.setdefault(_printable(line.data.get("detail")))
    mine = [stream for stream in streams if stream.kind == "lines"]
    series = [one.series(source) for one in sink.found.values()][:MAX_SERIES]
    words_of_it = list(told) if sink.found else [_last_complaint(streams)]
    return series, sighting(source, mine, series, absent=absent, note="; ".join(filter(None, words_of_it)))


def _last_complaint(streams: Sequence[Stream]) -> str:
    """The last line of a helper's error stream, for one that died without a word on the other."""
    for stream in streams:
        if stream.kind == "err" and len(stream.readings):
            return _printable(stream.readings.raw[-1].decode("utf-8", "replace"))
    return ""


def _printable(text: object) -> str:
    if not isinstance(text, str):
        return ""
    return "".join(c if c.isprintable() and c.isascii() else " " for c in text[:200]).strip()
