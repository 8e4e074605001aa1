"""Power files of Battery Historian: "<unix s> <A>" a line, as Android's monsoon.py writes them.

Whole seconds have many lines each: those are one mean over that second. A file has no voltage, so without
``voltage_v``, what the supply was set to, there is a current and no power.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from meltbench.readings.base import Column, Reader
from meltbench.readings.helper import Line, Sink, Span, parse_lines
from meltbench.readings.meters.common import OPTIONS, Asked, between, meter_lines
from meltbench.readings.meters.text import seconds_ns, to_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_row = re.compile(r"(\d{9,10}(?:\.\d{1,9})?)[ \t]{1,8}(\S{1,40})", re.ASCII)
_SECOND = 1_000_000_000


class _Sample(NamedTuple):
    span: Span
    amps: float


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``meter.current_a``, and with ``voltage_v`` ``meter.power``. Times are unix time."""
    asked = Asked.of(options, scope="battery", power_class="A", window_s=0.0)  # what it is a mean of is its span
    volts = between(options, "voltage_v", 0.1, 60) if "voltage_v" in options else None

    def put(line: Line, sink: Sink) -> bool:
        sample = line.data.get("sample")
        if not isinstance(sample, _Sample):
            return False
        current = Column("meter.current_a", "A", "gauge", asked.scope)
        sink.at(current, klass=asked.power_class, window_s=asked.window_s).add(sample.span, sample.amps)
        if volts is not None:
            power = Column("meter.power", "W", "gauge", asked.scope)
            series = sink.at(power, klass=asked.power_class, window_s=asked.window_s)
            series.add(sample.span, sample.amps * volts)
        return True

    absent = "no power file was recorded"
    return parse_lines(source, streams, put, lost="meter.lost", absent=absent, lines=_samples)


def _samples(streams: Sequence[Stream]) -> Iterator[Line]:
    """A line a time: those that share one are their mean."""
    for _, group in groupby(meter_lines(streams), key=_stamp):
        lines = [*group]
        found = [one for line in lines if (one := _sample(line)) is not None]
        if len(found) < len(lines):
            yield from (line for line in lines if _sample(line) is None)
        if found:
            mean = _Sample(found[0].span, sum(one.amps for one in found) / len(found))
            yield lines[0]._replace(data={"sample": mean})


def _stamp(line: Line) -> str:
    found = _row.fullmatch(str(line.data.get("reply", "")).strip())
    return found[1] if found is not None else ""


def _sample(line: Line) -> _Sample | None:
    found = _row.fullmatch(str(line.data.get("reply", "")).strip())
    amps = None if found is None else to_number(found[2])
    t = None if found is None else seconds_ns(found[1])
    if found is None or amps is None or t is None:
        return None
    # Of a whole second nobody knows which part of it.
    return _Sample(Span(t, t + (0 if "." in found[1] else _SECOND)), amps)


HISTORIAN = Reader("historian", (), parse, OPTIONS - {"address", "channel", "energy_class"} | {"voltage_v"})
