"""Battery counters and power rails of a Perfetto trace: the trace itself, or trace_processor's table of its counters.

Numbers of fields: perfetto's protos/perfetto/trace/trace_packet.proto, power/battery_counters.proto and
power/power_rails.proto. Times are CLOCK_BOOTTIME, perfetto's default on Android. A rail's own ``timestamp_ms`` is when
its counter was read; the packet that carries many of them is written later, and its time stands in only where a rail
tells none (as trace_processor does). A packet of another clock cannot be placed and is left out.

The sign of the current is that of the health HAL: perfetto's own comment said positive for discharging until v32 while
its documentation shows a phone that discharges below 0, so it is the profile's, as of any other gauge.

In a run perfetto writes its trace to a pipe, which the probe keeps as lines of base64: a shell may neither give it a
file for its configuration nor read the folder that it writes to on every build.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from meltbench.readings.base import (
    MAX_SERIES,
    NAN,
    Column,
    Command,
    PathSpec,
    Reader,
    make_series,
    matching,
    sighting,
    unique_names,
)
from meltbench.readings.battery import OPTIONS, Gauge, battery_series, gauge, known
from meltbench.readings.odpm import SLOWEST_HZ
from meltbench.readings.polls import Raw
from meltbench.readings.protowire import BYTES, FIXED32, VARINT, fields, float32, signed
from meltbench.records import ABSENT, OK, Readings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

# Written as it goes on: what was measured before a kill is there. base64 outlives the signal that ends the trace.
_CONFIG = (
    "buffers{size_kb:2048 fill_policy:RING_BUFFER} write_into_file:true file_write_period_ms:1000 "
    'data_sources{config{name:"android.power" android_power_config{collect_power_rails:true '
    "battery_poll_ms:{period_ms} battery_counters:BATTERY_COUNTER_CHARGE "
    "battery_counters:BATTERY_COUNTER_CAPACITY_PERCENT battery_counters:BATTERY_COUNTER_CURRENT "
    "battery_counters:BATTERY_COUNTER_VOLTAGE}}}"
)
_SCRIPT = 'printf %s "$1" | perfetto --txt -c - -o - | (trap "" TERM INT; exec base64 -w 1000)'
_RECORD = Command(("sh", "-c", _SCRIPT, "sh", _CONFIG), poll=False, needs="perfetto")
MAX_TRACE_BYTES = 64 << 20
_TRACE = PathSpec("/data/misc/perfetto-traces/*.perfetto-trace", periodic=False)
_PACKET = 1
_TIMESTAMP, _CLOCK, _BATTERY, _RAILS, _DEFLATED = 8, 58, 38, 40, 50
_BOOTTIME = 6  # BuiltinClock of common/builtin_clock.proto
_COUNTERS = {1: "charge", 3: "current", 7: "voltage"}
MAX_PACKETS = 1 << 20
MAX_INFLATED = 4 << 20  # of one packet; perfetto keeps them below 512 kB
MAX_SAMPLES = 1 << 20
_MS = 1_000_000  # ns
_NO_TIME = "what has no time of CLOCK_BOOTTIME was left out"
_odd = re.compile(r"[^A-Za-z0-9_.+-]")
# "ts | name | value" of the documentation, the CSV that trace_processor writes, and the columns that its shell prints.
_between = rb'(?:[ \t"]{0,40}[|,][ \t"]{0,40}|[ \t]{1,40})'
_row = re.compile(
    rb'^[ \t"|]{0,40}(\d{1,19})'
    + _between
    + rb"([A-Za-z][\w.:() -]{0,99}?)"
    + _between
    + rb'(-?\d{1,19}(?:\.\d{1,19})?(?:[eE][+-]?\d{1,3})?)[ \t"|]{0,40}\r?$',
    re.MULTILINE,
)
_WORDS = {
    "charge_uah": "charge",
    "capacity_pct": "level",
    "current_ua": "current",
    "voltage_uv": "voltage",
}


@dataclass
class Trace:
    """What was found: of a battery counts by name at a time (ns), of a rail joules at a time and the end of its stamp.

    ``rates``: how often a rail's meter samples, Hz. ``left_out``: what could not be taken, in words.
    """

    battery: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    rails: dict[str, dict[int, tuple[int, float]]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, None] = field(default_factory=dict)
    samples: int = 0

    def battery_at(self, name: str, t_ns: int, counts: Mapping[str, float]) -> None:
        """Counters of a battery that were read at a time."""
        if self.samples < MAX_SAMPLES and (name in self.battery or len(self.battery) < 16):
            self.battery.setdefault(name, {}).setdefault(t_ns, {}).update(counts)
            self.samples += 1

    def rail_at(self, name: str, t0_ns: int, t1_ns: int, joules: float) -> None:
        """A rail's counter at a time."""
        if self.samples < MAX_SAMPLES and (name in self.rails or len(self.rails) < MAX_SERIES // 2):
            self.rails.setdefault(name, {}).setdefault(t0_ns, (t1_ns, joules))
            self.samples += 1


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``perfetto.rail.RAIL.energy`` in joules (class B), and of the battery ``perfetto.battery.power``, ``.current_a``,
    ``.voltage_v``, ``.charge_c``, ``.soc_percent``; with several batteries ``perfetto.battery.NAME.power`` ...

    Power needs both current and voltage in one packet: perfetto reads voltages from Android 14 on.
    """
    found = gauge(options, voltage="uV")
    mine = [stream for _, stream in matching(_TRACE, streams)]
    series: list[Series] = []
    notes: dict[str, None] = {}
    live = [stream for stream in streams if stream.kind == "lines"]
    for stream in (*mine, *live):
        trace = Trace()
        for raw in [_decoded(stream)] if stream.kind == "lines" else stream.readings.raw:
            read(raw, trace)
        series += _series(source, stream, trace, found)
        notes |= trace.left_out
    absent = f"no perfetto, and no {_TRACE.glob}, on this target"
    return series, sighting(source, [*mine, *live], series, absent=absent, note="; ".join(notes))


def _decoded(stream: Stream) -> bytes:
    """The trace that was kept as lines of base64, up to the first that is none."""
    out = bytearray()
    for raw in stream.readings.raw:
        try:
            out += base64.b64decode(raw.strip(), validate=True)
        except binascii.Error:
            break
        if len(out) > MAX_TRACE_BYTES:
            break
    return bytes(out)


def read(raw: bytes, trace: Trace) -> None:
    """Adds what a table or a trace says."""
    rows = [] if b"\0" in raw else _row.findall(raw)
    for ts, name, value in rows:
        _table_row(trace, int(ts), name.decode("ascii", "replace").strip(), float(value))
    if not rows:
        _binary(memoryview(raw), trace)


def _table_row(trace: Trace, t_ns: int, name: str, value: float) -> None:
    if t_ns >= 2**62 or abs(value) > 1e18:
        return
    if name.startswith("batt."):
        battery, _, word = name.removeprefix("batt.").rpartition(".")
        if word in _WORDS:
            trace.battery_at(battery, t_ns, {_WORDS[word]: value})
    elif name.startswith("power.") and value >= 0:
        rail = name.removeprefix("power.")
        rail = rail.removeprefix("rails.") if rail.startswith("rails.") else rail.removesuffix("_uws")
        trace.rail_at(rail, t_ns, t_ns, value * 1e-6)


def _packets(raw: memoryview) -> Iterator[memoryview]:
    """The packets of a trace, with those that were written compressed."""
    for one in fields(raw):
        if one.number != _PACKET or one.wire != BYTES:
            continue
        yield one.data
        for part in fields(one.data):
            if part.number == _DEFLATED and part.wire == BYTES:
                yield from (f.data for f in fields(_inflated(part.data)) if f.number == _PACKET and f.wire == BYTES)


def _inflated(data: memoryview) -> memoryview:
    try:
        return memoryview(zlib.decompressobj().decompress(data, MAX_INFLATED))
    except zlib.error:
        return data[:0]


def _binary(raw: memoryview, trace: Trace) -> None:
    names: dict[int, str] = {}
    rails: list[tuple[int, memoryview]] = []
    for packet in islice(_packets(raw), MAX_PACKETS):
        numbers = {one.number: one.value for one in fields(packet) if one.wire == VARINT}
        parts = {one.number: one.data for one in fields(packet) if one.wire == BYTES}
        t_ns = numbers.get(_TIMESTAMP, 0)
        if numbers.get(_CLOCK, _BOOTTIME) != _BOOTTIME or t_ns >= 2**62:
            t_ns = 0
        if _BATTERY in parts and t_ns:
            trace.battery_at(*_battery(parts[_BATTERY], t_ns))
        elif _BATTERY in parts:
            trace.left_out.setdefault(_NO_TIME)
        if _RAILS in parts:
            _descriptors(parts[_RAILS], names, trace)
            rails.append((t_ns, parts[_RAILS]))
    for t_ns, power in rails:  # a trace may name its rails after their first energies
        _energies(power, t_ns, names, trace)


def _battery(message: memoryview, t_ns: int) -> tuple[str, int, dict[str, float]]:
    name, counts = "", {}
    for one in fields(message):
        if one.number in _COUNTERS and one.wire == VARINT:
            counts[_COUNTERS[one.number]] = float(signed(one.value))
        elif one.number == 2 and one.wire == FIXED32:
            counts["level"] = float32(one.value)
        elif one.number == 5 and one.wire == BYTES:
            name = bytes(one.data[:64]).decode("utf-8", "replace")
    return name, t_ns, counts


def _descriptors(message: memoryview, names: dict[int, str], trace: Trace) -> None:
    """Names of rails by their index, and how often each is sampled."""
    for one in fields(message):
        if one.number != 1 or one.wire != BYTES:
            continue
        numbers = {part.number: part.value for part in fields(one.data) if part.wire == VARINT}
        texts = {part.number: part.data for part in fields(one.data) if part.wire == BYTES}
        name = bytes(texts.get(2, b"")[:64]).decode("utf-8", "replace")
        if name and len(names) < MAX_SERIES:
            names[numbers.get(1, 0)] = name
            if 0 < numbers.get(4, 0) < 100_000:
                trace.rates[name] = float(numbers[4])


def _energies(message: memoryview, packet_ns: int, names: Mapping[int, str], trace: Trace) -> None:
    for one in fields(message):
        if one.number != 2 or one.wire != BYTES:
            continue
        told = {part.number: part.value for part in fields(one.data) if part.wire == VARINT}
        name = names.get(told.get(1, 0))
        if name is None:
            trace.left_out.setdefault("energy of rails that the trace does not name was left out")
        elif 3 in told and 0 < told.get(2, 0) < 2**42:
            trace.rail_at(name, told[2] * _MS, (told[2] + 1) * _MS, told[3] * 1e-6)
        elif 3 in told and packet_ns:
            trace.rail_at(name, packet_ns, packet_ns, told[3] * 1e-6)
        elif 3 in told:
            trace.left_out.setdefault(_NO_TIME)


def _series(source: str, stream: Stream, trace: Trace, found: Gauge) -> Iterator[Series]:
    prefixes = unique_names("perfetto.battery" + (f".{_word(name)}" if name else "") for name in trace.battery)
    for prefix, by_time in zip(prefixes, trace.battery.values(), strict=True):
        times = sorted(by_time)
        timed = _at(stream, times, times)
        counted = sorted({name for counts in by_time.values() for name in counts})
        raws = {name: _raw([by_time[t].get(name, NAN) for t in times]) for name in counted}
        for name, raw in known(raws, found).items():
            yield battery_series(source, timed, prefix, name, raw, found)
    names = unique_names(_word(rail) for rail in trace.rails)
    for name, (rail, samples) in zip(names, trace.rails.items(), strict=True):
        starts = sorted(samples)
        timed = _at(stream, starts, [samples[t][0] for t in starts])
        raw = _raw([samples[t][1] for t in starts])
        column = Column(f"perfetto.rail.{name}.energy", "J", "counter", "rail")
        update_s = 1 / trace.rates.get(rail, SLOWEST_HZ)
        one = make_series(source, timed, column, raw.values, raw.codes, klass="B", update_s=update_s)
        yield replace(one, calibration=found.calibration)


def _word(name: str) -> str:
    return _odd.sub("_", name)[:64]


def _raw(values: Sequence[float]) -> Raw:
    array = np.array(values, dtype=np.float64)
    finite = np.isfinite(array)
    return Raw(np.where(finite, array, NAN), np.where(finite, OK, ABSENT).astype(np.uint8))


def _at(stream: Stream, t0_ns: Sequence[int], t1_ns: Sequence[int]) -> Stream:
    """The stream with a reading at each of these times instead of its own."""
    t0, t1 = np.array(t0_ns, dtype=np.int64), np.array(t1_ns, dtype=np.int64)
    return replace(stream, readings=Readings.of(t0, t1, np.zeros(len(t0), dtype=np.int32), [b""] * len(t0)))


# A trace has no temperature of the battery.
PERFETTO = Reader("perfetto", (_TRACE,), parse, OPTIONS - {"temp_unit"}, commands=(_RECORD,))
