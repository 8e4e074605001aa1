"""Unit, sign and scale of a battery's gauge, from a load step and from its own counter of charge.

Vendors count in uA or mA, and what flows in or what flows out; nothing in a single number tells which (measurement rule
6). A load does: more current is drawn under it, which gives the sign, and a burn of all processors takes 0.3 to 15 W of
a phone, which of units that lie a thousand apart fits one at most. Where the charge counter moved far enough, what the
current adds up to must agree with it, and gives the scale. Whatever does not fit is refused with its reason: a wrong
unit or sign would be in every joule of that device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from meltbench.calibration.sensors import SURE, look, track
from meltbench.readings import READERS, read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.calibration.sensors import Floats, Track
    from meltbench.calibration.steps import Windows
    from meltbench.records import Series, Stream

STEP_W = (0.3, 15.0)  # what a burn of all processors takes of a phone
VOLTS = (2.5, 20.0)  # of one cell nearly empty to four in a row, full
CURRENT_UNITS = {"uA": 1.0, "mA": 1e3, "A": 1e6}  # beside the smallest, in which it is read
MIN_QUANTA = 20  # steps of the charge counter, of 1 to 2 mAh each: fewer do not tell 10 % for sure
AGREE = 0.10
_NO_COUNTER = "the charge counter was not read"
CHARGING, FULL = 2.0, 5.0  # Android's codes of a battery's status


@dataclass(frozen=True)
class Gauge:
    """What is known of a battery's gauge. ``refused``: ``code: why`` where it cannot be trusted; then no options.

    ``options`` are the reader's, to be laid over the profile's. ``step_w``: the load step in the unit found, ``idle_w``
    and ``load_w`` its levels, W drawn. ``charge_c``: what the counter moved, ``charge_ratio``: that over what the
    current added up to, with its expanded uncertainty (k = 2); None where the counter moved too little, as
    ``charge_note`` then says.
    """

    source: str
    reader: str
    series: str
    refused: str = ""
    options: Mapping[str, str | float] | None = None
    step_w: float | None = None
    idle_w: float | None = None
    load_w: float | None = None
    charge_c: float | None = None
    charge_ratio: float | None = None
    charge_u_k2: float | None = None
    charge_note: str = ""


def is_gauge(reader: str) -> bool:
    """Whether a reader has a unit and a sign of current to be found."""
    return {"current_unit", "discharge_sign"} <= READERS[reader].options


@dataclass(frozen=True)
class Recorded:
    """What a gauge gave, and the options of its profile; read anew with others, for its bytes are kept."""

    source: str
    reader: str
    streams: Sequence[Stream]
    options: Mapping[str, object]

    def read(self, **options: object) -> list[Series]:
        """Its series with options of unit and sign that mean nothing yet, and those given."""
        neutral = {"current_unit": "uA", "discharge_sign": -1, "scale": 1.0, "calibration": ""}
        return read(self.source, self.reader, self.streams, dict(self.options) | neutral | options)[0]


def judge(recorded: Recorded, windows: Windows, max_step_w: float = STEP_W[1]) -> Gauge:
    """What the streams of a gauge say of it. Of the profile's options unit, sign and scale are not used."""
    found = recorded.read()
    current = _named(found, "current_a")
    gauge = Gauge(recorded.source, recorded.reader, current.name if current is not None else "")
    if current is None or not np.isfinite(current.value).any():
        return _refused(gauge, "not_read", "no current was read")
    if why := _not_on_battery(found, current.name, windows):
        return _refused(gauge, *why)
    seen = look(current, windows)
    if seen.seen != "yes" or seen.difference is None or seen.idle is None or seen.load is None or seen.u is None:
        return _refused(gauge, "step_not_seen", seen.why or "the load step is not in it")
    sign = -1 if seen.difference < 0 else 1
    if seen.idle * seen.difference < 0 and abs(seen.idle) > SURE * seen.u:
        words = "at idle the current flows the other way than the load draws it: something charges the battery"
        return _refused(gauge, "charging", words)
    volts = _volts(recorded, current.name)
    if volts is None:
        return _refused(gauge, "no_voltage", f"no unit puts the voltage between {VOLTS[0]:g} and {VOLTS[1]:g} V")
    voltage_unit, voltage = volts
    step_w = {unit: abs(seen.difference) * factor * voltage for unit, factor in CURRENT_UNITS.items()}
    fitting = [unit for unit, watts in step_w.items() if STEP_W[0] <= watts <= max_step_w]
    if len(fitting) != 1:
        tried = ", ".join(f"{watts:.3g} W in {unit}" for unit, watts in step_w.items())
        which = "none of them" if not fitting else "more than one"
        return _refused(gauge, "implausible_step", f"the step is {tried}: {which} is from 0.3 to {max_step_w:g} W")
    unit = fitting[0]
    factor = CURRENT_UNITS[unit]
    gauge = replace(
        gauge,
        options={"current_unit": unit, "discharge_sign": sign, "voltage_unit": voltage_unit},
        step_w=step_w[unit],
        idle_w=abs(seen.idle) * factor * voltage,
        load_w=abs(seen.load) * factor * voltage,
    )
    # Into the battery is positive from here on, as the contract of the readers has it.
    return _against_charge(gauge, recorded, current, factor if sign == -1 else -factor, _steady_span(windows))


def _steady_span(windows: Windows) -> tuple[int, int]:
    """Two times between which the charge is counted, ns. As much flows at the one as at the other, so that a current
    that is told late is late at both: within the long load, else from the first idle window to the end of the last."""
    if (long := windows.charge) is not None:
        return long.t0_ns + (long.t1_ns - long.t0_ns) // 10, long.t1_ns
    first, last = windows.steps[0].before, windows.steps[-1].after
    return (first.t0_ns + first.t1_ns) // 2, last.t1_ns


def _against_charge(gauge: Gauge, recorded: Recorded, current: Series, factor: float, span: tuple[int, int]) -> Gauge:
    """The gauge with its scale, or refused where its two counts contradict each other. ``factor``: to amperes."""
    flow = track(current)
    tried: list[str] = []
    carried = 0.0
    for unit in ("uAh", "mAh"):
        charge = _named(recorded.read(charge_unit=unit), "charge_c", current.name)
        moved = _moved(charge, flow, factor, span) if charge is not None and flow is not None else _NO_COUNTER
        if isinstance(moved, str):
            gauge = replace(gauge, charge_note=gauge.charge_note or moved)
            continue
        counted, carried, u_k2 = moved
        ratio = counted / carried if carried else math.inf
        if abs(ratio - 1) <= AGREE:
            options = dict(gauge.options or {}) | {"charge_unit": unit, "scale": round(ratio, 5)}
            told = {"charge_c": counted, "charge_ratio": ratio, "charge_u_k2": u_k2, "charge_note": ""}
            return replace(gauge, options=options, **told)  # type: ignore[arg-type]
        tried.append(f"{counted:.3g} C in {unit}")
    if tried:
        words = f"the charge counter moved by {', '.join(tried)}, the current carried {carried:.3g} C"
        return replace(_refused(gauge, "charge_contradicts", words), options=None)
    return gauge


def _moved(charge: Series, flow: Track, factor: float, span: tuple[int, int]) -> tuple[float, float, float] | str:
    """Coulombs the counter moved between two of its updates within the span, those the current carried meanwhile, and
    the relative u (k = 2) of their ratio; a word about what is missing."""
    made = track(charge)
    if made is None:
        return _NO_COUNTER
    at = np.flatnonzero(made.fresh)[1:]  # the first value is no update: nobody knows how old it was
    at = at[(made.t[at] >= made.at(span[0])) & (made.t[at] <= made.at(span[1]))]
    if len(at) < 2:
        return "the charge counter did not move"
    first, last = int(at[0]), int(at[-1])
    counted = float(made.v[last] - made.v[first])
    steps = np.abs(np.diff(made.v[at]))
    quantum = float(steps[steps > 0].min())
    if abs(counted) < MIN_QUANTA * quantum:
        return f"the charge counter moved by {abs(counted) / quantum:.0f} of its steps, {MIN_QUANTA} are needed"
    a, b = (float(made.t[k]) + (made.begin_ns - flow.begin_ns) / 1e9 for k in (first, last))
    inside = (flow.t > a) & (flow.t < b)
    if inside.sum() < MIN_QUANTA or a < flow.t[0] or b > flow.t[-1] or _holes(flow, a, b) > AGREE:
        return "the current was not read all the while that the charge counter moved"
    whole = _area(flow.t, flow.v, a, b)
    halves = [_area(flow.t[k::2], flow.v[k::2], a, b) for k in (0, 1)]
    alias = abs(halves[0] - halves[1]) / 2
    # Each end is known to an update of either count: what flows in one of them, spread evenly.
    updates = np.diff(flow.t[flow.fresh])
    ends = (made.every_s + float(np.median(updates))) * float(np.abs(flow.v[inside]).max()) / math.sqrt(6)
    u = math.hypot(quantum / math.sqrt(6) / abs(counted), math.hypot(alias, ends) / abs(whole) if whole else math.inf)
    return counted, whole * factor, 2 * u


def _area(t: Floats, v: Floats, a: float, b: float) -> float:
    """The integral of a polyline from a to b."""
    inside = (t > a) & (t < b)
    x = np.concatenate([[a], t[inside], [b]])
    y = np.concatenate([np.interp([a], t, v), v[inside], np.interp([b], t, v)])
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def _holes(flow: Track, a: float, b: float) -> float:
    """Share of the time from a to b in pauses of more than three usual ones."""
    t = flow.t[(flow.t >= a) & (flow.t <= b)]
    gaps = np.diff(t)
    return float(gaps[gaps > 3 * flow.every_s].sum()) / (b - a)


def _not_on_battery(found: Sequence[Series], beside: str, windows: Windows) -> tuple[str, str] | None:
    """Why the current is not the device's: what flows through a cable does not flow through the battery."""
    stopped, plugged, status = (_in(_named(found, name, beside), windows) for name in _STATES)
    if (stopped == 1).any():
        return "updates_stopped", "the framework's updates are stopped, its values stand still: dumpsys battery reset"
    if (plugged > 0).any():
        words = "a supply is plugged in, and what it gives the gauge does not see: pull the cable, use wireless adb"
        return "plugged", words
    # A status alone may lie, and only where no supply says that it is off is it all there is.
    if not len(plugged) and np.isin(status, (CHARGING, FULL)).any():
        return "plugged", "the battery says that it is charged or full, and nothing says that no supply is plugged in"
    return None


_STATES = ("updates_stopped", "plugged", "status")


def _in(series: Series | None, windows: Windows) -> Floats:
    """The values of a state while the steps were made, with the one in force when they began."""
    if series is None or windows.span is None:
        return np.empty(0)
    good = np.isfinite(series.value)
    t, v = series.t1_ns[good], series.value[good]
    first = max(int(np.searchsorted(t, windows.span.t0_ns, "right")) - 1, 0)
    values: Floats = v[first : int(np.searchsorted(t, windows.span.t1_ns, "right"))]
    return values


def _volts(recorded: Recorded, beside: str) -> tuple[str, float] | None:
    """The unit in which the voltage is one, and its median."""
    for unit in ("uV", "mV", "V"):
        voltage = _named(recorded.read(voltage_unit=unit), "voltage_v", beside)
        if voltage is not None and np.isfinite(voltage.value).any():
            median = float(np.nanmedian(voltage.value))
            if VOLTS[0] <= median <= VOLTS[1]:
                return unit, median
    return None


def _named(found: Sequence[Series], name: str, beside: str = "") -> Series | None:
    """The series of a battery by the last part of its name; ``beside`` names another of the same battery."""
    prefix = beside.rpartition(".")[0]
    mine = [one for one in found if one.name.rpartition(".")[2] == name]
    if prefix:
        # A second battery is told as PREFIX.NAME, and what is plugged in belongs to the machine.
        mine = [one for one in mine if one.name == f"{prefix}.{name}"] or [one for one in mine if name in _STATES]
    return min(mine, key=lambda one: len(one.name), default=None)


def _refused(gauge: Gauge, code: str, why: str) -> Gauge:
    return replace(gauge, refused=f"{code}: {why}")
