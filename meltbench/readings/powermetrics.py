"""Apple's powermetrics: text of samples, as it prints them or as they were recorded.

    *** Sampled system activity (Sat Feb 14 00:42:06 2026 -0500) (503.05ms elapsed) ***
    CPU Power: 310 mW

A power is a mean over the interval that ends with its sample, whose real length stands in the header: what -i asked
for is not it. Powers are Apple's energy model and no measurement (class E). Times of a log are the date of its first
header plus the lengths after it, until a date is off from that: then the tool had stopped, and it is taken.

Counters behind the model are published up to 2.2 s apart (seen on an M5 Max), or not at all (betas of macOS 27):
samples between them say 0 mW for processors that were printing them. Such a zero is no power. Its interval belongs to
the next sample that says more, whose power is spread over both. The GPU has a counter of its own and may really be at
0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from meltbench.readings.base import Column, Command, Reader, read_codes, sighting
from meltbench.readings.helper import MAX_T_NS, Sink, Span
from meltbench.readings.meters.text import time_ns
from meltbench.records import AGAIN, OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Kind, Scope, Series, Stream

MAX_CHANNELS = 64
MAX_DRIFT_NS = 2_500_000_000  # of the date against the sum of the lengths: it has whole seconds
_header = re.compile(
    r"\*{3} Sampled system activity \(([^()]{1,64})\) \((\d{1,9}(?:\.\d{1,6})?) ?ms elapsed\) \*{3}", re.ASCII
)
# A channel's name is all that stands before " Power": "GPU Power" is not a part of "GPU SRAM Power".
_power = re.compile(
    r"([A-Za-z][A-Za-z0-9_-]{0,23}(?: [A-Za-z0-9_-]{1,24}){0,3}) Power(?: \([A-Za-z +]{1,40}\))?: "
    r"(\S{1,16}?) ?([mu]?W)",
    re.ASCII,
)
_package = re.compile(r"Intel energy model derived package power \(CPUs\+GT\+SA\): (\S{1,16}?) ?([mu]?W)", re.ASCII)
_hz = re.compile(r"([A-Za-z0-9]{1,12}(?:-Cluster)?) (?:HW )?active frequency: (\d{1,6}) MHz", re.ASCII)
_busy = re.compile(
    r"([A-Za-z0-9]{1,12}(?:-Cluster)?) (?:HW )?active residency: +(\d{0,3}(?:\.\d{1,3})?)% ?(?:\(.{0,4000})?", re.ASCII
)
_pressure = re.compile(r"Current pressure level: (\w{1,16})", re.ASCII)
_plain = re.compile(r"\d{1,12}(?:\.\d{1,6})?", re.ASCII)
_UNITS = {"W": 1.0, "mW": 1e-3, "uW": 1e-6}
_WHOLE = ("combined", "package")  # what holds the others
_OWN_COUNTER = "gpu"
_SLOWED = "thermal_slowdown"


@dataclass
class _Sample:
    """One sample: when it ended, how long it was, and what it said by name."""

    span: Span
    seconds: float
    date: str
    powers: dict[str, float | None] = field(default_factory=dict)
    states: dict[str, tuple[str, float]] = field(default_factory=dict)


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``powermetrics.cpu.power``, ``.gpu.power``, ``.ane.power``, ``.combined.power`` and others by their names (W,
    means over the printed lengths), ``.gpu.hz``, ``.gpu.busy`` and those of clusters, ``.thermal_slowdown``."""
    del options  # this reader knows none
    sink = Sink()
    mine = [stream for stream in streams if stream.kind in ("lines", "log")]
    lengths: list[float] = []
    for stream in mine:
        samples = _samples(stream, sink)
        lengths += [one.seconds for one in samples]
        if stream.kind == "log":
            _place(samples)
        _put(samples, sink)
    mean_s = round(float(np.median(lengths)), 6) if lengths else 0.0
    series = [one.series(source) for one in sink.found.values()]
    series = [replace(one, window_s=mean_s) if one.unit == "W" else one for one in series]
    absent = "no powermetrics: it is a program of macOS, and nothing of it was recorded"
    return series, sighting(source, mine, series, absent=absent)


def _samples(stream: Stream, sink: Sink) -> list[_Sample]:
    """The samples of a stream; lines before its first header belong to none."""
    out: list[_Sample] = []
    r = stream.readings
    rows = zip(r.t0_ns.tolist(), r.t1_ns.tolist(), read_codes(r).tolist(), r.raw, strict=True)
    for t0, t1, code, raw in rows:
        if code != OK:
            sink.at(Column("powermetrics.lost", "1", "state")).add(Span(t0, t1), None, code)
            continue
        text = raw.decode("utf-8", "replace").strip()
        if (head := _header.fullmatch(text)) is not None and float(head[2]) > 0:
            out.append(_Sample(Span(t0, t1), float(head[2]) / 1e3, head[1]))
        elif out:
            _line(text, out[-1])
    return out


def _line(text: str, sample: _Sample) -> None:
    """What a line says. A sampler may repeat what another one said before: the first counts."""
    if (found := _package.fullmatch(text)) is not None:
        sample.powers.setdefault("package", _watts(found[1], found[2]))
    elif (found := _power.fullmatch(text)) is not None and len(sample.powers) < MAX_CHANNELS:
        sample.powers.setdefault(found[1].lower().replace(" ", "_"), _watts(found[2], found[3]))
    elif len(sample.states) >= MAX_CHANNELS:
        return
    elif (found := _hz.fullmatch(text)) is not None:
        sample.states.setdefault(f"{found[1].lower()}.hz", ("Hz", float(found[2]) * 1e6))
    elif (found := _busy.fullmatch(text)) is not None and _plain.fullmatch("0" + found[2]):
        sample.states.setdefault(f"{found[1].lower()}.busy", ("1", float("0" + found[2]) / 100))
    elif (found := _pressure.fullmatch(text)) is not None:
        sample.states.setdefault(_SLOWED, ("1", float(found[1] != "Nominal")))


def _watts(text: str, unit: str) -> float | None:
    return float(text) * _UNITS[unit] if _plain.fullmatch(text) else None


def _place(samples: Iterable[_Sample]) -> None:
    """The ends of a log's samples by its own word: lengths added up, dates where they are off from that."""
    end: int | None = None
    for one in samples:
        date = _date_ns(one.date)
        end = None if end is None else end + round(one.seconds * 1e9)
        if date is not None and (end is None or abs(date - end) > MAX_DRIFT_NS):
            end = date
        if end is None or end > MAX_T_NS:  # a first header whose date nobody can read: the capture's time
            end = one.span.t1_ns
        one.span = Span(end, end)


def _date_ns(text: str) -> int | None:
    for form in ("%a %b %d %H:%M:%S %Y %z", "%Y-%m-%d %H:%M:%S %z"):
        try:
            return time_ns(int(datetime.strptime(text, form).timestamp()))
        except (ValueError, OverflowError):
            continue
    return None


def _put(samples: Iterable[_Sample], sink: Sink) -> None:
    waiting: dict[str, list[_Sample]] = {}
    for one in samples:
        for name in one.powers:
            series = sink.at(Column(f"powermetrics.{name}.power", "W", "gauge", _scope(name)), klass="E")
            held = waiting.setdefault(name, [])
            if name != _OWN_COUNTER and _unpublished(one):
                held.append(one)
                series.add(one.span, None, AGAIN)
                continue
            watts = _mean([*held, one], name)
            held.clear()
            series.add(one.span, watts, OK if watts is not None else UNPARSED)
        for name, (unit, value) in one.states.items():
            kind: Kind = "state" if name == _SLOWED else "gauge"
            sink.at(Column(f"powermetrics.{name}", unit, kind)).add(one.span, value)
        if not one.powers and not one.states:
            sink.at(Column("powermetrics.lost", "1", "state")).add(one.span, None, UNPARSED)


def _mean(samples: Sequence[_Sample], name: str) -> float | None:
    """Power over all of their intervals, None where one of them said no number."""
    found = [(one.seconds, watts) for one in samples if (watts := one.powers[name]) is not None]
    if len(found) < len(samples):
        return None
    return sum(seconds * watts for seconds, watts in found) / sum(seconds for seconds, _ in found)


def _unpublished(sample: _Sample) -> bool:
    """Whether the processors' counter stood still: they were at work printing this, and cannot have drawn nothing."""
    return sample.powers.get("cpu") == 0


def _scope(name: str) -> Scope:
    return "soc" if name in _WHOLE else "rail"


POWERMETRICS = Reader(
    "powermetrics",
    (),
    parse,
    commands=(
        Command(
            ("powermetrics", "-i", "{period_ms}", "--samplers", "cpu_power,gpu_power,ane_power,thermal"), poll=False
        ),
    ),
)
