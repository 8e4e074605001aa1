"""The power files of MELT's runs: a Monsoon's CSV, a phone's gauge over adb, and the sampler's log of a Jetson.

``measurements_monsoon.csv`` (libs/monsoonlib.py) has s since the sampler's start, mA and V, without a header and with
an empty column behind; ``.t_monsoon`` beside it the host's time of that start, taken a moment after it.
``energy_iter*.log`` is jetson-monitor's (meltbench.readings.melt). ``measurements_adb.csv`` is read in
meltbench.imports.melt.gauge.

MELT's own sums are made of what it reads (``Recorded``), ours of series: the same bytes twice, each by its rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from meltbench.errors import UnknownName, UserError
from meltbench.measure.total import Designation
from meltbench.readings import Source
from meltbench.readings.melt import LINE
from meltbench.readings.meters.monsoon import BURST, RATE_HZ, RESTART_S, spread
from meltbench.records import OK, UNPARSED, Readings, Series, SourceStatus, Stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

Kind = Literal["monsoon", "adb", "jetson"]
_MAX_S = 4e9
_MAX_MA, _MAX_V = 1e6, 1e3
_head = re.compile(rb"\s*\"?Time", re.IGNORECASE)
_row = re.compile(rb"^[ \t]*[\d.eE+-]{1,24},[\d.eE+-]{1,24},[\d.eE+-]{1,24},?[ \t\r]*$", re.MULTILINE)


@dataclass(frozen=True)
class Recorded:
    """A rail as MELT holds it: s since 1970, mA, V, a sample each; NaN where a row has none of it.

    ``volts_t_s``: when the voltage of a sample was logged, where that is a line of its own.
    """

    t_s: Floats
    ma: Floats
    volts: Floats
    volts_t_s: Floats | None = None

    def cost(self, start_s: float, end_s: float) -> tuple[float, float]:
        """mWh and mAh between two times, by compute_power_performance of libs/powerlib.py.

        Of the samples strictly inside, each value times the time since the sample before it; the first one's is 0.
        """
        near = self._near(start_s, end_s)
        t_s = self.t_s[near]
        inside = (t_s > start_s) & (t_s < end_s)
        if self.volts_t_s is not None:
            inside &= self.volts_t_s[near] < end_s
        ma, volts, hours = self.ma[near][inside], self.volts[near][inside], np.diff(t_s[inside], prepend=0.0) / 3600
        if len(hours):
            hours[0] = 0.0
        return float(np.nansum(ma * volts * hours)), float(np.nansum(ma * hours))

    @cached_property
    def _in_order(self) -> bool:
        return bool((np.diff(self.t_s) >= 0).all())

    def _near(self, start_s: float, end_s: float) -> slice:
        """A slice that holds every sample between two times: there are thousands of stages in hours of samples."""
        if not self._in_order:
            return slice(None)
        first, last = np.searchsorted(self.t_s, (start_s, end_s), "left")
        return slice(int(first), int(last))


@dataclass(frozen=True)
class Power:
    """What a power file says. ``rails``: MELT's own account of it by rail; none where MELT makes none of such a file.

    ``series`` and ``seen``: ours, at ns of ``clock``: of the machine that logged it, the host or the device under test.
    ``total``: what of it is the device's, None where nothing is. ``emptied``: MELT's report drops the samples of single
    stages before it sums them, and all that is left is 0.
    """

    kind: Kind
    name: str
    rails: Mapping[str, Recorded]
    series: tuple[Series, ...]
    seen: SourceStatus
    total: Designation | None
    clock: Literal["host", "device"]
    notes: tuple[str, ...] = field(default=())
    emptied: bool = False


def parse_monsoon(raw: bytes, name: str, start_s: float | None, rate_hz: float = RATE_HZ) -> Power:
    """A Monsoon's CSV; ``start_s``: what .t_monsoon says; ``rate_hz``: rows a second, where not every sample was kept.
    Raises UserError where the start is missing or no row is read."""
    if start_s is None or not 0 <= start_s <= _MAX_S:
        hint = "give .t_monsoon, which lies beside it, or --option start_s=SECONDS"
        raise UserError(f"{name} counts from its own start, and nothing says when that was", hint=hint)
    t, ma, volts, lost = _rows(raw, name)
    notes = [f"{lost} lines of {name} hold no sample"] if lost else []
    fell = np.flatnonzero(np.diff(t) < -RESTART_S)
    if len(fell):
        cut = int(fell[0]) + 1
        notes.append(f"the times of {name} start anew after {cut} samples: the rest is left out of ours")
        own = t[:cut], ma[:cut], volts[:cut]
    else:
        own = t, ma, volts
    series = _monsoon_series(name, *own, start_s, rate_hz)
    seen = SourceStatus("monsoon", "ok", 1, len(t), "")
    return Power(
        "monsoon",
        name,
        {"main": Recorded(t + start_s, ma, volts)},
        series,
        seen,
        Designation("monsoon", ("meter.power",), "battery"),
        "host",
        tuple(notes),
    )


def _rows(raw: bytes, name: str) -> tuple[Floats, Floats, Floats, int]:
    """Times (s), mA, V, and how many lines are no row. A line that was cut by the sampler's end is none."""
    # numpy from 2.0 on says the type of a number that is printed with repr(), as PyMonsoon prints its samples.
    plain = raw.replace(b"np.float64(", b"").replace(b")", b"") if b"np.float64(" in raw[:4096] else raw
    if _head.match(plain):
        plain = plain[plain.find(b"\n") + 1 :] if b"\n" in plain else b""
    plain = plain[: plain.rfind(b"\n") + 1]
    lines = plain.count(b"\n")
    table = _columns(plain)
    if table is None:
        plain = b"".join(row + b"\n" for row in _row.findall(plain))
        table = _columns(plain)
    if table is None:
        hint = "it writes lines such as 0.0012,812.4,3.98,"
        raise UserError(f"{name} has no row of seconds, mA and V", hint=hint)
    t, ma, volts = table
    good = np.isfinite(t) & (t >= 0) & (t <= _MAX_S)
    good &= (np.abs(ma) <= _MAX_MA) & (np.abs(volts) <= _MAX_V)
    if good.sum() < 2:
        raise UserError(f"{name} has fewer than two samples", hint="a Monsoon takes 5000 a second")
    return t[good], ma[good], volts[good], lines - int(good.sum())


def _columns(plain: bytes) -> tuple[Floats, Floats, Floats] | None:
    """The first three columns as numbers, NaN for an empty cell; None where a line has none of that form."""
    import pyarrow as pa
    import pyarrow.csv as arrow

    wide = 3 if not plain[: plain.find(b"\n")].rstrip().endswith(b",") else 4
    names = ["t", "ma", "volts", "empty"][:wide]
    kinds = {column: pa.float64() if column != "empty" else pa.string() for column in names}
    try:
        read = arrow.read_csv(
            pa.BufferReader(plain),
            read_options=arrow.ReadOptions(column_names=names, use_threads=False),
            parse_options=arrow.ParseOptions(quote_char=False),
            convert_options=arrow.ConvertOptions(column_types=kinds),
        )
    except pa.ArrowInvalid:
        return None
    t, ma, volts = (read[column].to_numpy(zero_copy_only=False).astype(np.float64) for column in names[:3])
    return t, ma, volts


def _monsoon_series(
    name: str, t: Floats, ma: Floats, volts: Floats, start_s: float, rate_hz: float
) -> tuple[Series, ...]:
    """Power, voltage and current at a time of its own for each sample (meltbench.readings.meters.monsoon)."""
    span = float(t[-1] - t[0])
    if (len(t) - 1) / rate_hz > 1.05 * span + BURST / rate_hz:
        hint = f"at {rate_hz:g} a second it cannot have them: are its times seconds, is rate_hz right?"
        raise UserError(f"{name} has {len(t)} samples in {span:.3g} s", hint=hint)
    at = np.round(spread(t, rate_hz) * 1e9).astype(np.int64) + round(start_s * 1e9)
    amps = ma / 1e3
    kinds = (("power", "W", volts * amps), ("voltage_v", "V", volts), ("current_a", "A", amps))
    return tuple(
        Series(
            f"meter.{quantity}", unit, "gauge", "monsoon", "battery", at, at, values,
            np.where(np.isfinite(values), OK, UNPARSED).astype(np.uint8),
            klass=None if unit == "V" else "A",
        )
        for quantity, unit, values in kinds
    )  # fmt: skip


def parse_jetson(raw: bytes, name: str, rail: object = None) -> Power:
    """The log of jetson-monitor: its rails, by MELT's rules and by ours. ``rail``: the one that is the device's, where
    the user says so. Raises UserError where it has no power, or not that rail."""
    one = np.zeros(1, np.int64)
    stream = Stream(0, "jetson", "log", name, "ok", 0, Readings.of(one, one, np.zeros(1, np.int32), [raw]))
    series, sighting = Source.of("jetson", "melt_jetson", {}).read([stream])
    watts = [one for one in series if one.unit == "W"]
    if not watts:
        hint = "it writes lines such as 1709550000000000000 current_VDD_IN: 812 mA"
        raise UserError(f"{name} has no rail with a voltage and a current", hint=hint)
    wanted = f"melt_jetson.{rail}.power"
    inputs = [one for one in watts if (one.scope == "module" if rail is None else one.name == wanted)]
    if rail is not None and not inputs:
        raise UnknownName("rail", str(rail), [one.name.split(".")[1] for one in watts])
    total = Designation("jetson", (inputs[0].name,), inputs[0].scope) if inputs else None
    note = () if inputs else (f"{name} has no input rail: no sum of its rails is the device's",)
    return Power(
        "jetson", name, _jetson_rails(raw), tuple(series), sighting.told(), total, "device", note, emptied=True
    )


def _jetson_rails(raw: bytes) -> dict[str, Recorded]:
    """The lines as MELT's report_performance.py holds them: a row a line, with one column filled; a current's voltage
    is that of the next line which has one."""
    rows: dict[str, list[tuple[int, float, bool]]] = {}
    for time, key, value, _ in LINE.findall(raw):
        kind, _, rail = key.decode("utf-8", "replace").partition("_")
        if kind in ("current", "voltage") and rail and int(time) < 1 << 62:
            rows.setdefault(rail, []).append((int(time), float(value), kind == "current"))
    return {rail: _filled(lines) for rail, lines in rows.items()}


def _filled(lines: Sequence[tuple[int, float, bool]]) -> Recorded:
    volts, volts_t_s = np.nan, np.inf
    out: list[tuple[float, float, float, float]] = []
    for time, value, is_current in reversed(lines):
        if is_current:
            out.append((time / 1e9, value, volts, volts_t_s))
        else:
            volts, volts_t_s = value / 1e3, time / 1e9
    columns = [np.array(column) for column in zip(*reversed(out), strict=True)] if out else [np.empty(0)] * 4
    return Recorded(*columns)
