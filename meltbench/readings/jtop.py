"""What jtop (the Python package jetson-stats) says of a Jetson: through the helper runners/helpers/jtop.py, or a log.

The helper prints ``power`` and ``temperature`` of jtop's Python interface as JSON. Old releases logged their flat
``stats`` as rows ``key, value``, a record from each ``time`` row to the next.

``power`` of a rail is of now, in mW; ``avg`` is an exponentially weighted mean and is not read. Nor is the total: it is
an input rail on one board and on others a sum that leaves rails out or holds contracts of USB-C (issues 51 and 344 of
jetson_stats). Where jtop moved an input rail there it kept its name, and it is read as that rail. jtop's service looks
at the sensors about twice a second.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench.readings.base import Column, Helper, Reader
from meltbench.readings.helper import MAX_COUNT, Line, Sink, Span, parse_lines, stamps
from meltbench.readings.jetson import rail_scope, temperature
from meltbench.readings.signals import plain
from meltbench.records import GATED, OK, UNPARSED, Readings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_UPDATE_S = 0.5  # the service's interval unless its user asked for another (issue 414 of jetson_stats)
_text_number = re.compile(r"-?\d{1,12}(?:\.\d{1,9})?", re.ASCII)
_row = re.compile(rb"([A-Za-z][A-Za-z0-9 _.-]{0,63}), ?([^\r\n]{0,64})\r?\n?")
_uptime = re.compile(r"(?:(\d{1,5}) days?, )?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d{1,6})?)", re.ASCII)
# The kernel's power supplies stand among the rails; those of a USB-C port are what was agreed on, not what flows.
_usb = re.compile(r"ucsi|^\d+-\d{4}", re.ASCII | re.IGNORECASE)
_end = re.compile(rb'"end_ns": ?(\d{1,18})[,}]')
_cpu = re.compile(r"CPU(\d{1,3})", re.ASCII)


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``jtop.RAIL.power`` (W), ``thermal.jtop.NAME`` (degC); of flat stats also ``jtop.cpu_busy.cpuN``,
    ``jtop.gpu.busy``, ``jtop.ram_used_bytes``, ``jtop.swap_used_bytes``. ``jtop.lost``: lines that gave nothing.

    The oldest stats name one power "cur": it is ``jtop.cur.power``, a rail of which only that release knew what it is.
    """
    del options  # this reader knows none
    lines = [_as_lines(stream) if stream.kind == "log" else stream for stream in streams]
    absent = (
        "not started: no temperature zone, or no Python there that has jetson-stats (sudo pip3 install jetson-stats)"
    )
    return parse_lines(source, lines, _take, lost="jtop.lost", absent=absent)


def _take(line: Line, sink: Sink) -> bool:
    (span,) = stamps(line, "t0_ns", "end_ns")
    taken = False
    for name, rail in _rails(line.data):
        taken |= _put_power(sink, span, name, rail.get("power"), rail)
    for name, zone in _named(line.data.get("temperature")):
        taken |= _put_heat(sink, span, name, zone.get("temp"), zone)
    stats = line.data.get("stats")
    return _take_stats(stats, sink, span) or taken if isinstance(stats, dict) else taken


def _rails(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every rail by name."""
    power = data.get("power")
    if not isinstance(power, dict):
        return
    total = power.get("tot")
    found = dict(_named(power.get("rail")))
    if isinstance(total, dict) and isinstance(total.get("name"), str):
        found.setdefault(total["name"], total)
    for name, rail in found.items():
        if str(rail.get("type", "INA")).startswith("INA") and "status" not in rail and not _usb.search(name):
            yield name, rail


def _named(found: object) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(found, dict):
        yield from ((name, one) for name, one in found.items() if isinstance(one, dict))


def _put_power(sink: Sink, span: Span, name: str, milliwatts: object, said: Mapping[str, object]) -> bool:
    column = Column(f"jtop.{plain(name)}.power", "W", "gauge", rail_scope(name))
    value = _number(milliwatts)
    code = GATED if said.get("online") is False else OK if value is not None else UNPARSED
    sink.at(column, "jtop", "C", _UPDATE_S).add(span, value / 1e3 if code == OK and value is not None else None, code)
    return True


def _put_heat(sink: Sink, span: Span, name: str, celsius: object, said: Mapping[str, object]) -> bool:
    number = _number(celsius)
    value = None if number is None else temperature(name, number)
    if value is None:
        return False
    off = math.isnan(value) or said.get("online") is False
    column = Column(f"thermal.jtop.{plain(name)}", "degC", "gauge")
    sink.at(column, "jtop").add(span, None if off else value, GATED if off else OK)
    return True


def _take_stats(stats: dict[str, Any], sink: Sink, span: Span) -> bool:
    """Flat stats. Of the total, which is named like a rail, and of averages nothing is taken."""
    taken, first = False, 0 if "CPU0" in stats else 1  # jtop counts cores from 1, the kernel from 0
    for key, said in stats.items():
        kind, _, name = str(key).partition(" ")
        if kind.lower() == "power" and name and name.lower() not in ("tot", "avg", "all"):
            taken |= _put_power(sink, span, name, said, {})
        elif kind == "Temp" and name:
            taken |= _put_heat(sink, span, name, said, {})
        elif (core := _cpu.fullmatch(str(key))) is not None:
            taken |= _put_share(sink, span, f"jtop.cpu_busy.cpu{int(core[1]) - first}", said)
        elif key == "GPU":
            taken |= _put_share(sink, span, "jtop.gpu.busy", said)
    # Old releases say kilobytes, newer ones a share of the whole, which is never above 1.
    if (_number(stats.get("RAM")) or 0) > 1:
        for key in ("RAM", "SWAP"):
            if (kilobytes := _number(stats.get(key))) is not None:
                sink.at(Column(f"jtop.{key.lower()}_used_bytes", "B", "gauge"), "jtop").add(span, kilobytes * 1024)
    return taken


def _put_share(sink: Sink, span: Span, name: str, said: object) -> bool:
    value = _number(said)
    if value is None and said != "OFF":
        return False
    if value is not None and not 0 <= value <= 100:
        return False
    sink.at(Column(name, "1", "gauge"), "jtop").add(
        span, None if value is None else value / 100, GATED if value is None else OK
    )
    return True


def _number(said: object) -> float | None:
    if isinstance(said, str) and _text_number.fullmatch(said):
        return float(said)
    good = isinstance(said, (int, float)) and not isinstance(said, bool) and abs(said) <= MAX_COUNT
    return float(said) if good else None  # type: ignore[arg-type]


def _as_lines(stream: Stream) -> Stream:
    """A log as lines of the helper at the times that it tells itself: its JSON as it is, records of rows made into it.

    A record of rows is of the device's uptime, which is CLOCK_BOOTTIME.
    """
    r = stream.readings
    raw = r.raw
    if r.data.lstrip()[:1] == b"{":
        said = [int(found[1]) if (found := _end.search(text)) else None for text in raw]
        firsts, texts = list(range(len(raw))), raw
    else:
        records = list(_records(raw))
        said = [_boot_ns(rows.get("uptime", "")) for _, rows in records]
        firsts, texts = [first for first, _ in records], [json.dumps({"stats": rows}).encode() for _, rows in records]
    t = [int(r.t0_ns[first]) if ns is None else ns for first, ns in zip(firsts, said, strict=True)]
    when, err = np.array(t, dtype=np.int64), np.zeros(len(t), dtype=np.int32)
    return replace(stream, kind="lines", readings=Readings.of(when, when, err, texts))


def _records(lines: Sequence[bytes]) -> Iterator[tuple[int, dict[str, str]]]:
    """Each record of a log: the place of its first row, and its rows."""
    first, rows = 0, dict[str, str]()
    for at, line in enumerate(lines):
        found = _row.fullmatch(line)
        key = found[1].decode("ascii") if found else ""
        if key == "time" or (key in rows and key):
            if rows:
                yield first, rows
            first, rows = at, {}
        if found is not None:
            rows[key] = found[2].decode("ascii", "replace").strip()
    if rows or lines:
        yield first, rows


def _boot_ns(uptime: str) -> int | None:
    found = _uptime.fullmatch(uptime)
    if found is None:
        return None
    whole_s = int(found[1] or 0) * 86_400 + int(found[2]) * 3_600 + int(found[3]) * 60
    return whole_s * 1_000_000_000 + round(float(found[4]) * 1e9)


JTOP = Reader("jtop", (), parse, helper=Helper("jtop", fact="thermal_zones", begins="", package="jtop", own_sys=True))
