"""FNIRSI USB meters (FNB58, FNB48, FNB48S, C1): packets of four samples, 10 ms apart.

The protocol and the text are those of fnirsi-usb-power-data-logger (MIT). A packet has 64 bytes: 0xAA, 0x04, four
times 15 bytes (voltage and current, each 32 bits little-endian of 10 uV and 10 uA, two data lines, a temperature). The
meter sends no energy: ``energy_Ws`` of the text is the logger's sum of V x I x 10 ms, and leaves out what was lost
with a packet. So it stands as ``meter.energy`` only where the log has as many samples as its own time has room for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meltbench.readings.base import Column, Reader, sighting
from meltbench.readings.helper import Line, Sink, Span, parse_lines, stamps
from meltbench.readings.meters.common import OPTIONS, Asked, live, meter_lines
from meltbench.readings.meters.text import Table, seconds_ns
from meltbench.records import ERROR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

SAMPLE_S = 0.01
_PACKET, _SAMPLE, _PER_PACKET = 64, 15, 4
_HEADER = "timestamp sample_in_packet voltage_V current_A dp_V dn_V temp_C_ema energy_Ws capacity_As"
_NAMES = {
    "timestamp": ("unix", ""),
    "voltage": ("voltage_v", ""),
    "current": ("current_a", ""),
    "energy": ("energy", ""),
}
MAX_LOST = 0.02  # of the samples that the time has room for: the stamps of packets are off by some ms


class _Sample(NamedTuple):
    t_ns: int | None
    volts: float
    amps: float
    joules: float | None = None


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``meter.power`` (V x I of each sample), ``.voltage_v``, ``.current_a``; of a log without gaps ``.energy``."""
    asked = Asked.of(options, scope="module", energy_class="C", window_s=0.0)
    table = Table(_NAMES)
    table.row(_HEADER)

    def put(line: Line, sink: Sink) -> bool:
        reply = line.data["reply"]
        samples = _packet(reply) if isinstance(reply, dict) else _text(table, reply)
        if samples is None:
            return True  # a header
        (arrival,) = stamps(line, "t0_ns", "t1_ns")
        for at, sample in enumerate(samples):
            _put(sink, asked, sample, _span(line, arrival, sample, len(samples) - at))
        return bool(samples)

    absent = "no FNIRSI meter: none at the machine, or nothing was recorded"
    series, seen = parse_lines(source, streams, put, lost="meter.lost", absent=absent, lines=meter_lines)
    series, note = _checked(series)
    if not note:
        return series, seen
    mine = [stream for stream in streams if stream.kind in ("lines", "log")]
    return series, sighting(source, mine, series, absent=absent, note="; ".join(filter(None, (seen.note, note))))


def _text(table: Table, reply: object) -> list[_Sample] | None:
    row = table.row(reply) if isinstance(reply, str) else {}
    if row is None:
        return None
    volts, amps = table.value(row, "voltage_v"), table.value(row, "current_a")
    if volts is None or amps is None or (t := seconds_ns(row.get("unix", ""))) is None:
        return []
    return [_Sample(t, volts, amps, table.value(row, "energy"))]


def _packet(reply: Mapping[str, object]) -> list[_Sample]:
    """The samples of a packet that came as hexadecimal digits; none of another packet."""
    text = reply.get("packet")
    if not isinstance(text, str) or len(text) != 2 * _PACKET:
        return []
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        return []
    if len(raw) != _PACKET or raw[:2] != b"\xaa\x04":
        return []
    return [*_samples(raw)]


def _samples(raw: bytes) -> Iterator[_Sample]:
    for at in range(2, 2 + _PER_PACKET * _SAMPLE, _SAMPLE):
        volts, amps = (int.from_bytes(raw[i : i + 4], "little") * 1e-5 for i in (at, at + 4))
        yield _Sample(None, volts, amps)


def _span(line: Line, arrival: Span, sample: _Sample, before_end: int) -> Span:
    """Its own time in a log; of a packet that many samples before the arrival."""
    if line.log and sample.t_ns is not None:
        return Span(sample.t_ns, sample.t_ns)
    back = round((before_end - 1) * SAMPLE_S * 1e9)
    return Span(arrival.t0_ns - back, arrival.t1_ns - back)


def _put(sink: Sink, asked: Asked, sample: _Sample, span: Span) -> None:
    power = Column("meter.power", "W", "gauge", asked.scope)
    sink.at(power, klass=asked.power_class, window_s=asked.window_s).add(span, sample.volts * sample.amps)
    sink.at(Column("meter.voltage_v", "V", "gauge", asked.scope)).add(span, sample.volts)
    sink.at(Column("meter.current_a", "A", "gauge", asked.scope)).add(span, sample.amps)
    if sample.joules is not None:
        energy = Column("meter.energy", "J", "counter", asked.scope)
        sink.at(energy, klass=asked.energy_class).add(span, sample.joules)


def _checked(series: list[Series]) -> tuple[list[Series], str]:
    """The logger's own sum without its values where packets are missing from it, and what was found."""
    note = ""
    out = []
    for one in series:
        if one.name == "meter.energy":
            room = (int(one.t1_ns.max()) - int(one.t1_ns.min())) / 1e9 / SAMPLE_S + 1
            lost = room - len(one)
            if lost > MAX_LOST * room + _PER_PACKET:
                note = f"{lost:.0f} of {room:.0f} samples are missing, and from energy_Ws with them"
                nothing = np.full(len(one), np.nan)
                one = replace(one, value=nothing, status=np.full(len(one), ERROR, dtype=np.uint8))  # noqa: PLW2901
        out.append(one)
    return out, note


FNB58 = Reader("fnb58", (), parse, OPTIONS - {"address", "channel"}, live("fnb58", "instrument"))
