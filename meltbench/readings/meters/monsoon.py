"""Monsoon power monitors (HVPM, LVPM): the CSV of PyMonsoon and PowerTool, and what our helper sums up of its samples.

The instrument takes 5000 samples a second. PyMonsoon (0.1.88, sampleEngine.py) stamps each USB packet with seconds
since its start, under the header "Time(ms)"; several samples share a stamp, packets come in bursts, and samples are
lost when Python pauses. So the time of a sample is its number over the rate, put off wherever the stamps run away from
it: a step that stays is time in which samples were lost. It is a gap in the series, and nothing is stretched over it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meltbench.readings.base import NAN, Reader, sighting
from meltbench.readings.meters.common import (
    OPTIONS,
    Asked,
    Found,
    Reply,
    between,
    failed,
    live,
    number,
    one_of,
    parse_replies,
    said,
    series_name,
)
from meltbench.readings.meters.text import Table
from meltbench.records import OK, UNPARSED, Series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from meltbench.readings.base import Sighting
    from meltbench.records import Stream

    Floats = npt.NDArray[np.float64]

RATE_HZ = 5000.0
_CHANNELS = ("main", "usb", "aux")
_NAMES = {"time": ("time_s", "")} | {
    f"{name}{middle}{what}": (f"{role}:{at}", "")
    for at, name in enumerate(_CHANNELS)
    for middle in ("", " avg")
    for what, role in (("", "current_a"), (" current", "current_a"), (" voltage", "voltage_v"), (" power", "power"))
}
_MS = 1e-3
BURST = 384  # samples that may share a stamp: 128 packets of 3 (PyMonsoon's bulkProcessRate)
HORIZON_S = 5.0  # a packet is never later than this; clocks that drift apart by 50 ppm are 0.25 ms off in it
MAX_T_S = 4e9  # from the start, or unix time
RESTART_S = 0.5  # a stamp that falls by more is of another recording
GAP = 3.0  # usual distances between samples that a longer pause is a gap from; as meltbench.measure.digest has it
WHOLE = 0.9  # of the samples that a summed block must hold: more missing would stretch its mean over them
_BLOCK = (("amps", "current_a", 1.0), ("volts", "voltage_v", 1.0), ("watts", "power", 1.0))


class _Log(NamedTuple):
    """A log as numbers: times (s), columns by what they hold, how many lines held no row, and what is to be said."""

    t_s: Floats
    columns: Mapping[str, Floats]
    lost: int
    note: str = ""


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``meter.power`` (V x I), ``.voltage_v``, ``.current_a`` of each channel (0 main, 1 USB, 2 auxiliary).

    ``rate_hz``: rows a second of the log, where not every sample was kept. ``voltage_v``: what the output was set to,
    where the log has currents alone. ``time_unit``: of its times, where neither header nor rate tell.
    """
    asked = Asked.of(options, scope="battery", power_class="A", window_s=0.0)
    rate = between(options, "rate_hz", 0.1, RATE_HZ) if "rate_hz" in options else RATE_HZ
    volts = between(options, "voltage_v", 0.1, 60) if "voltage_v" in options else None
    unit = one_of(options, "time_unit", ("s", "ms"))
    logs = [stream for stream in streams if stream.kind == "log" and stream.readings.data[:64].lstrip()[:1] != b"{"]
    if not logs:
        absent = "no Monsoon: none at the machine, or nothing was recorded"
        asked = asked if "window_s" in options else replace(asked, window_s=None)  # a block says how long it is
        return parse_replies(source, streams, asked, _block, absent=absent)
    series, notes = [], []
    for stream in logs:
        log = _timed(*_numbers(stream), rate, unit)
        notes.append(log.note)
        found = _signals(log, asked, volts)
        alone = asked.channel is not None or len({one.channel for one, _ in found}) < 2
        series += [_series(source, asked, log, one, values, alone=alone) for one, values in found]
        series += [_lost(source, stream, log)] if len(stream.readings) and (log.lost or not found) else []
    return series, sighting(source, logs, series, note="; ".join(filter(None, notes)))


def _block(reply: object) -> Reply | None:
    """What our helper says of the samples of a period: their number, how long it was, and means over them."""
    if not isinstance(reply, dict) or "samples" not in reply:
        return None
    samples, seconds = number(reply["samples"]), number(reply.get("seconds"))
    if samples is None or seconds is None or not 0 < seconds < 3600 or samples < WHOLE * RATE_HZ * seconds:
        return Reply((failed(0),), note="samples were dropped")
    return Reply(said(reply, 0, _BLOCK), window_s=seconds)


def _numbers(stream: Stream) -> tuple[_Log, bool]:
    """The rows of a log, and whether its header says milliseconds."""
    table = Table(_NAMES)
    times: list[float] = []
    columns: dict[str, list[float]] = {}
    lost = 0
    for raw in stream.readings.raw:
        line = raw.decode("utf-8", "replace").strip()
        row = table.row(line) if line else None
        if row is None:
            continue
        t = table.value(row, "time_s")
        if t is None or not 0 <= t <= MAX_T_S or len(row) < 2:
            lost += 1
            continue
        for role in row.keys() - {"time_s"}:
            value = table.value(row, role)
            column = columns.setdefault(role, [])
            column += [NAN] * (len(times) - len(column)) + [NAN if value is None else value]
        times.append(t)
    n = len(times)
    whole = {role: np.array(column + [NAN] * (n - len(column))) for role, column in columns.items()}
    return _Log(np.array(times), whole, lost), table.scales.get("time_s") == _MS


def _timed(log: _Log, in_ms: bool, rate: float, unit: str | None) -> _Log:
    """The log with a time of its own for each sample, and gaps where samples were lost; empty where nobody can tell."""
    t = log.t_s * (1.0 if unit is None else {"s": 1.0, "ms": _MS}[unit] / (_MS if in_ms else 1.0))
    n = len(t)
    if n < 2:
        return log._replace(t_s=t)
    fell = np.flatnonzero(np.diff(t) < -RESTART_S)
    if len(fell):
        cut = int(fell[0]) + 1
        short = _Log(t[:cut], {role: column[:cut] for role, column in log.columns.items()}, log.lost + n - cut)
        done = _timed(short._replace(t_s=log.t_s[:cut]), in_ms, rate, unit)
        return done._replace(note="; ".join(filter(None, (done.note, "its times start anew: the rest is left out"))))
    if unit is None and in_ms:
        span = float(t[-1] - t[0])
        if n - 1 > 1.1 * RATE_HZ * span + BURST:  # more samples than there can be: PyMonsoon's header is wrong
            t = t / _MS
        elif n - 1 > 1.1 * RATE_HZ * span:
            return _Log(np.empty(0), {}, n, 'its times may be s or ms: the profile must say time_unit = "s" or "ms"')
    span = float(t[-1] - t[0])
    if (n - 1) / rate > 1.05 * span + BURST / RATE_HZ:
        return _Log(np.empty(0), {}, n, f"rate_hz = {rate:g}, and it has {n} rows in {span:.3g} s")
    t = spread(t, rate)
    return _Log(t, log.columns, log.lost, _gaps(t))


def spread(stamps_s: Floats, rate: float) -> Floats:
    """Times (s) of samples that were taken evenly and stamped late: number over rate, and as much later as the least
    late stamp of the next seconds says. Late stamps move nothing; a step that stays moves all after it."""
    n = len(stamps_s)
    even = np.arange(n) / rate
    late = stamps_s - even
    times: Floats = even + _least_ahead(late, max(1, round(HORIZON_S * rate)))
    return times


def _least_ahead(values: Floats, width: int) -> Floats:
    """The least of each value and the ``width`` - 1 after it (van Herk: blocks, minima from both of their ends)."""
    n = len(values)
    blocks = np.append(values, np.full(-n % width, np.inf)).reshape(-1, width)
    from_start = np.minimum.accumulate(blocks, axis=1).ravel()
    to_end = np.minimum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    at = np.arange(n)
    ahead = np.minimum(at + width - 1, len(from_start) - 1)
    # Within one block the minimum from its start would look back.
    return np.where(ahead // width == at // width, to_end[:n], np.minimum(to_end[:n], from_start[ahead]))


def _gaps(t_s: Floats) -> str:
    dt = np.diff(t_s)
    usual = float(np.median(dt))
    long = dt[dt > GAP * usual]
    return (
        f"{len(long)} gaps, {float(long.sum() - len(long) * usual):.3g} s in all: samples were lost"
        if len(long)
        else ""
    )


def _signals(log: _Log, asked: Asked, volts: float | None) -> list[tuple[Found, Floats]]:
    """Power, voltage and current of each channel that the log has, told by a value without one."""
    numbers = [at for at in range(len(_CHANNELS)) if asked.channel in (None, at)]
    out: list[tuple[Found, Floats]] = []
    for at in numbers:
        amps, volt, watts = (log.columns.get(f"{role}:{at}") for role in ("current_a", "voltage_v", "power"))
        if volt is None and volts is not None and amps is not None:
            volt = np.full(len(amps), volts)
        # Exports round their powers to whole milliwatts.
        power = volt * amps if volt is not None and amps is not None else watts
        for quantity, values in (("power", power), ("voltage_v", volt), ("current_a", amps)):
            if values is not None:
                out.append((Found(at, quantity, None), values))
    return out


def _series(source: str, asked: Asked, log: _Log, one: Found, values: Floats, *, alone: bool) -> Series:
    t = np.round(log.t_s * 1e9).astype(np.int64)
    unit = {"power": "W", "voltage_v": "V", "current_a": "A"}[one.quantity]
    status = np.where(np.isfinite(values), OK, UNPARSED).astype(np.uint8)
    return Series(
        series_name(one, alone=alone), unit, "gauge", source, asked.scope, t, t, values, status,
        klass=asked.power_class if unit in ("W", "A") else None, window_s=asked.window_s,
    )  # fmt: skip


def _lost(source: str, stream: Stream, log: _Log) -> Series:
    """A sample without a value for each line that held no row."""
    r = stream.readings
    n = min(max(log.lost, 1), len(r))
    nothing = np.full(n, UNPARSED, dtype=np.uint8)
    return Series("meter.lost", "1", "state", source, "system", r.t0_ns[:n], r.t1_ns[:n], np.full(n, NAN), nothing)


MONSOON = Reader(
    "monsoon",
    (),
    parse,
    OPTIONS - {"energy_class"} | {"rate_hz", "voltage_v", "time_unit"},
    live("monsoon", "instrument"),
)
