"""Lines of SPEC's PTDaemon, as MLPerf's power logs hold them (spl.txt of mlcommons/power-dev).

    Time,28-12-2020 15:21:14.682,Watts,22.950000,Volts,228.570000,Amps,0.206430,PF,0.486400,Mark,LABEL[,Ch1,Watts,...]

The date is the analyser host's: day first in one release of the documentation, month first in the checker of the same.
A log tells which where a number above 12 stands in it, or where the mark begins with a date of its own, as MLPerf's
does. Else ``date_order`` must, or the log is refused: nothing is guessed. Live lines need no date, their arrival is
known. PTDaemon writes -1 for what the analyser did not measure.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from meltbench.readings.base import Reader
from meltbench.readings.meters.common import (
    OPTIONS,
    Asked,
    Found,
    Reply,
    failed,
    live,
    meter_lines,
    one_of,
    parse_replies,
    refused,
    spaced,
)
from meltbench.readings.meters.text import to_number, wall_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_ORDERS = ("dmy", "mdy")
_QUANTITIES = {"Watts": "power", "Volts": "voltage_v", "Amps": "current_a"}
_time = re.compile(r"(\d{1,4})[-/.](\d{1,2})[-/.](\d{1,4})[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?", re.ASCII)
_mark = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?!\d)", re.ASCII)
_channel = re.compile(r"Ch(\d{1,2})", re.ASCII)
_MAX_CELLS = 512
# A mark is the start of a run, by a clock that may be of another zone.
BEFORE_MARK, AFTER_MARK = timedelta(days=1), timedelta(days=2)


class _When(NamedTuple):
    """A date as it stands there, time of day and fraction."""

    parts: tuple[int, int, int]
    time: tuple[int, int, int]
    fraction: str

    @property
    def ambiguous(self) -> bool:
        """Whether the orders make two days of it, or one of them none."""
        return self.parts[0] <= 31 and self.parts[0] != self.parts[1]

    def day(self, order: str) -> date | None:
        """The day it means in that order; None where there is no such day. Four digits at the front are a year."""
        a, b, c = self.parts
        year, month, day = (a, b, c) if a > 31 else (c, b, a) if order == "dmy" else (c, a, b)
        try:
            return date(year, month, day)
        except ValueError:
            return None


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``meter.power``, ``.voltage_v``, ``.current_a`` of the analyser as a whole, or of the ``channel`` that is asked
    for; its channels by themselves are not read otherwise, for their sum is the first value."""
    asked = Asked.of(options, power_class="A")
    said = one_of(options, "date_order", _ORDERS)
    proven, why = _proven(streams)
    take = partial(_take, said or proven, "" if said else why, asked.channel)
    absent = "no log of PTDaemon: its profile names no address of one, or nothing was recorded"
    series, seen = parse_replies(source, streams, replace(asked, channel=None), take, absent=absent)
    return [spaced(one) for one in series], seen


def _take(order: str | None, why: str, channel: int | None, reply: object) -> Reply | None:
    """``why``: the reason why dates of a log may not be read."""
    when = _when(reply)
    found = [] if when is None else [*_values(str(reply).split(",", _MAX_CELLS)[2:], channel)]
    if when is None or not found:
        return None
    if why and when.ambiguous:
        return refused(why)
    if order is None and when.ambiguous:  # nothing was recorded, so no date is needed
        return Reply(found)
    day = when.day(order or "dmy")
    if day is None or (t_ns := wall_ns(day.year, day.month, day.day, when.time, when.fraction)) is None:
        return refused(f"a date is none when it is read as {order}")
    return Reply(found, t_ns)


def _when(line: object) -> _When | None:
    cells = line.split(",", 3) if isinstance(line, str) and line.startswith("Time,") else []
    found = _time.fullmatch(cells[1].strip()) if len(cells) > 3 and len(cells[1]) <= 40 else None
    if found is None:
        return None
    a, b, c, hour, minute, second = map(int, found.groups()[:6])
    return _When((a, b, c), (hour, minute, second), found[7] or "0")


def _values(cells: Sequence[str], channel: int | None) -> Iterator[Found]:
    """Pairs of name and value up to the mark; of a channel those behind its own name."""
    at: int | None = None
    i = 0
    while i + 1 < len(cells):
        name = cells[i].strip()
        if (own := _channel.fullmatch(name)) is not None:
            at, i = int(own[1]), i + 1
            continue
        if at == channel and (quantity := _QUANTITIES.get(name)) is not None:
            value = to_number(cells[i + 1])
            yield failed(None, quantity) if value is None or value == -1 else Found(None, quantity, value)
        i += 2


def _proven(streams: Sequence[Stream]) -> tuple[str | None, str]:
    """The order that the logs prove, and why there is none. Without a log there is neither."""
    seen: set[str] = set()
    dated = False
    for line in meter_lines([stream for stream in streams if stream.kind == "log"]):
        text = line.data.get("reply")
        when = _when(text)
        if when is not None:
            dated = True
            seen |= _evidence(when, str(text))
        if len(seen) == 2:
            return None, "its dates are of both orders, day first and month first"
    if seen or not dated:
        return next(iter(seen), None), ""
    return None, 'its dates may be day first or month first: the profile must say date_order = "dmy" or "mdy"'


def _evidence(when: _When, line: str) -> set[str]:
    """The orders that a line proves: the one that has such a day where the other has none, or the one of its mark."""
    if not when.ambiguous:
        return set()
    days = {order: day for order in _ORDERS if (day := when.day(order)) is not None}
    if len(days) == 2 and (mark := _marked(line)) is not None:
        days = {order: day for order, day in days.items() if mark - BEFORE_MARK <= day <= mark + AFTER_MARK}
    return set(days) if len(days) == 1 else set()


def _marked(line: str) -> date | None:
    """The date that the mark of a line begins with."""
    _, found, mark = line.rpartition(",Mark,")
    stamp = _mark.match(mark) if found else None
    try:
        return None if stamp is None else date(*map(int, stamp.groups()))
    except ValueError:
        return None


PTDAEMON = Reader("ptdaemon", (), parse, OPTIONS - {"energy_class"} | {"date_order"}, live("ptdaemon"))
