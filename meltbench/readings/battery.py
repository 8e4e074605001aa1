"""What the readers of a battery's gauge share: units and sign as a profile gives them, and what cannot be true.

A gauge's numbers mean nothing by themselves: vendors count in uA or mA, and count what flows in or what flows out.
Unit and sign are options of the profile and never guessed from a value: 976 uA of an idle phone looks like 976 mA. The
defaults are the contracts of the interfaces: BatteryManager's (a positive current flows into the battery) and
Documentation/power/power_supply_class.rst (uA, uV, uAh, tenths of a degree Celsius).

A value that no battery can have is none, with a status: that is how a wrong unit shows itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meltbench.errors import DefinitionError
from meltbench.readings.base import NAN, Column, make_series
from meltbench.readings.polls import Raw
from meltbench.readings.thermal import COLDEST_C, HOTTEST_C
from meltbench.records import ABSENT, AGAIN, GATED, OK, UNPARSED, Readings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meltbench.readings.base import Floats
    from meltbench.records import Kind, Series, Stream

_UNITS: dict[str, dict[str, float]] = {
    "current_unit": {"uA": 1e-6, "mA": 1e-3, "A": 1.0},
    "charge_unit": {"uAh": 3.6e-3, "mAh": 3.6},
    "voltage_unit": {"uV": 1e-6, "mV": 1e-3, "V": 1.0},
    "temp_unit": {"0.1C": 0.1, "C": 1.0, "mC": 1e-3},
}
OPTIONS = frozenset({*_UNITS, "discharge_sign", "scale", "calibration"})
# What batteries of things that one holds or carries can have; beyond it the unit is wrong.
MAX_CURRENT_A = 100.0
VOLTAGE_V = (0.5, 100.0)
CAPACITY_C = (0.1 * 3600, 30.0 * 3600)  # a watch has a few hundred mAh, a laptop ten Ah
# A battery may hold a little more than its gauge learned as full; a counter that held 2.6 times as much was seen
# (Pixel 8, android_kernel_google_zuma#4).
MAX_FILLED = 1.25
# The filters of gauges take 0.175 to 1 s (MAX1720x, Qualcomm's): no reading is of this very moment.
FILTER_S = 1.0
UNSUPPORTED = -(2**31)  # BatteryManager.getIntProperty where the hardware cannot tell (Integer.MIN_VALUE)


@dataclass(frozen=True)
class Gauge:
    """How a battery's gauge counts, by the options of a profile.

    ``amps``, ``coulombs``, ``volts``, ``degrees``: what one count is. ``sign``: of the raw current while the battery
    is discharged. ``calibration``: name of the record by which unit, sign and scale were checked; "" where none was.
    """

    amps: float
    coulombs: float
    volts: float
    degrees: float
    sign: int
    calibration: str


def gauge(options: Mapping[str, object], *, current: str = "uA", voltage: str) -> Gauge:
    """The gauge that the options describe; ``current`` and ``voltage`` are the units of the interface itself.

    ``scale`` multiplies the current, and so the power: what a calibration found a count to be worth beside its nominal
    unit. Raises DefinitionError for an option's value.
    """
    units = {"current_unit": current, "charge_unit": "uAh", "voltage_unit": voltage, "temp_unit": "0.1C"}
    factors = {}
    for option, default in units.items():
        told = options.get(option, default)
        if not isinstance(told, str) or told not in _UNITS[option]:
            raise DefinitionError(f"{option} is {told!r}", hint=f"one of {', '.join(_UNITS[option])}")
        factors[option] = _UNITS[option][told]
    sign = options.get("discharge_sign", -1)
    if isinstance(sign, bool) or sign not in (-1, 1):
        raise DefinitionError(
            f"discharge_sign is {sign!r}", hint="-1 (a discharging battery reads below 0, Android's contract) or 1"
        )
    scale = options.get("scale", 1.0)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise DefinitionError(f"scale is {scale!r}", hint="a number above 0, 1 where nothing better is known")
    return Gauge(
        factors["current_unit"] * scale,
        factors["charge_unit"],
        factors["voltage_unit"],
        factors["temp_unit"],
        1 if sign == 1 else -1,
        calibration(options),
    )


def calibration(options: Mapping[str, object]) -> str:
    """The option of that name: the record by which a source was held against something known."""
    told = options.get("calibration", "")
    if not isinstance(told, str) or len(told) > 128 or not told.isprintable():
        raise DefinitionError(f"calibration is {told!r}", hint="the name of a calibration record")
    return told


def current_a(raw: Raw, found: Gauge) -> Raw:
    """Amperes into the battery: below 0 while it is discharged."""
    scaled = _scaled(raw.where(raw.values == UNSUPPORTED, ABSENT), found.amps * -found.sign)
    return scaled.where(np.abs(scaled.values) > MAX_CURRENT_A, UNPARSED)


def voltage_v(raw: Raw, found: Gauge) -> Raw:
    """Volts. 0 is what Android's framework tells where nothing measures it."""
    scaled = _scaled(raw.where(raw.values == 0, ABSENT), found.volts)
    return scaled.where((scaled.values < VOLTAGE_V[0]) | (scaled.values > VOLTAGE_V[1]), UNPARSED)


def temp_c(raw: Raw, found: Gauge) -> Raw:
    """Degrees Celsius. 0 is the framework's word for none, as it is of thermal zones."""
    scaled = _scaled(raw.where(raw.values == 0, ABSENT), found.degrees)
    return scaled.where((scaled.values < COLDEST_C) | (scaled.values > HOTTEST_C), UNPARSED)


def soc_percent(raw: Raw) -> Raw:
    """Percent of full."""
    return raw.where((raw.values < 0) | (raw.values > 100), UNPARSED)


def status_code(raw: Raw) -> Raw:
    """Android's codes: 1 unknown, 2 charging, 3 discharging, 4 not charging, 5 full. What is told, true or not."""
    return raw.where(~np.isin(raw.values, (1, 2, 3, 4, 5)), UNPARSED)


def charge_c(raw: Raw, found: Gauge, soc: Raw | None, full: Floats | None) -> Raw:
    """Coulombs that the gauge's counter stands at, for what they are good for: one step is often 1 to 2 mAh.

    0 and below mean that nothing counts. ``full``: counts of a full battery where the device tells them, ``soc`` the
    percent of it that is left: a counter far above the one, or that makes a battery of no size with the other, is none.
    """
    raw = raw.where((raw.values <= 0) & (raw.values != UNSUPPORTED), ABSENT).where(raw.values == UNSUPPORTED, ABSENT)
    scaled = _scaled(raw, found.coulombs)
    with np.errstate(invalid="ignore", divide="ignore"):
        if full is not None:
            scaled = scaled.where(scaled.values > MAX_FILLED * full * found.coulombs, UNPARSED)
        if soc is not None:
            size = np.where(soc.values >= 1, scaled.values * 100 / soc.values, NAN)
            scaled = scaled.where((size < CAPACITY_C[0]) | (size > CAPACITY_C[1]), UNPARSED)
    return scaled


def full_c(raw: Raw, found: Gauge) -> Raw:
    """Coulombs that a full battery holds, as its driver says. A size that no battery has is none: its unit is wrong."""
    scaled = _scaled(raw.where(raw.values <= 0, ABSENT), found.coulombs)
    return scaled.where((scaled.values < CAPACITY_C[0]) | (scaled.values > CAPACITY_C[1]), UNPARSED)


def power_w(current: Raw, voltage: Raw) -> Raw:
    """Watts drawn from the battery, below 0 while it is charged; none where either is missing."""
    values = 0.0 - current.values * voltage.values
    codes = np.where(current.codes != OK, current.codes, voltage.codes).astype(np.uint8)
    return Raw(np.where(codes == OK, values, NAN), codes)


def _scaled(raw: Raw, factor: float) -> Raw:
    return Raw(raw.values * factor, raw.codes)


class Quantity(NamedTuple):
    """A signal of a battery: the unit and kind of its values."""

    unit: str
    kind: Kind = "gauge"


QUANTITIES = {
    "power": Quantity("W"),
    "current_a": Quantity("A"),
    "voltage_v": Quantity("V"),
    "charge_c": Quantity("C"),  # a gauge, for it falls and rises
    "full_c": Quantity("C"),  # what a full one holds: as its gauge learned it, and as it was made
    "full_design_c": Quantity("C"),
    "soc_percent": Quantity("%"),
    "temp_c": Quantity("degC"),
    "status": Quantity("1", "state"),
    "plugged": Quantity("1", "state"),
    "updates_stopped": Quantity("1", "state"),
}


def known(raws: Mapping[str, Raw], found: Gauge) -> dict[str, Raw]:
    """The quantities in counts that were told together, one a reading. ``raws`` has those of ``RAW`` that were.

    Where the framework's updates are stopped, or were set by hand, nothing but that is known.
    """
    out: dict[str, Raw] = {}
    stopped = raws.get("updates_stopped")
    if stopped is not None:
        out["updates_stopped"] = stopped
        raws = {name: raw.where(stopped.values == 1, GATED) for name, raw in raws.items() if name != "updates_stopped"}
    soc = soc_percent(raws["level"]) if "level" in raws else None
    if "current" in raws:
        out["current_a"] = current_a(raws["current"], found)
    if "voltage" in raws:
        out["voltage_v"] = voltage_v(raws["voltage"], found)
    if "current_a" in out and "voltage_v" in out:
        out["power"] = power_w(out["current_a"], out["voltage_v"])
    if "charge" in raws:
        out["charge_c"] = charge_c(raws["charge"], found, soc, _largest(raws))
    for name, told in (("full", "full_c"), ("design", "full_design_c")):
        if name in raws:
            out[told] = full_c(raws[name], found)
    if soc is not None:
        out["soc_percent"] = soc
    if "temp" in raws:
        out["temp_c"] = temp_c(raws["temp"], found)
    if "status" in raws:
        out["status"] = status_code(raws["status"])
    if "plugged" in raws:
        out["plugged"] = raws["plugged"]
    return out


def _largest(raws: Mapping[str, Raw]) -> Floats | None:
    """The larger of the two counts of a full battery; None where none is told."""
    told = [np.nan_to_num(raws[name].values) for name in ("full", "design") if name in raws]
    most = np.max(told, axis=0) if told else np.zeros(1)
    return np.where(most > 0, most, NAN) if most.any() else None


RAW = ("current", "voltage", "charge", "full", "design", "level", "temp", "status", "plugged", "updates_stopped")


def battery_series(
    source: str,
    stream: Stream,
    prefix: str,
    name: str,
    raw: Raw,
    found: Gauge,
    *,
    update_s: float = 0.0,
    window_s: float | None = FILTER_S,
) -> Series:
    """``PREFIX.NAME`` (``thermal.PREFIX`` for a temperature) at the times of the stream.

    Power and current are class D: until a calibration names unit, sign and scale of this very device they tell of
    differences alone.
    """
    quantity = QUANTITIES[name]
    heat = name == "temp_c"
    column = Column(
        f"thermal.{prefix}" if heat else f"{prefix}.{name}",
        quantity.unit,
        quantity.kind,
        "system" if heat else "battery",
    )
    values = np.where(raw.codes == OK, raw.values, NAN)
    series = make_series(source, stream, column, values, raw.codes, update_s=update_s)
    if name in ("power", "current_a"):
        series = replace(series, klass="D", window_s=window_s, calibration=found.calibration)
    return series


def beside(stream: Stream, other: Stream, raw: Raw, limit_ns: int) -> tuple[Stream, Raw]:
    """The values ``raw`` of another stream as they were read nearest to each reading of this one.

    None where nothing was read within the limit. The stream that comes back has stamps that span both reads.
    """
    r, o = stream.readings, other.readings
    at, times = (one.t0_ns + (one.t1_ns - one.t0_ns) // 2 for one in (r, o))
    if not len(times):
        return stream, Raw(np.full(len(at), NAN), np.full(len(at), AGAIN, dtype=np.uint8))
    right = np.clip(np.searchsorted(times, at), 0, len(times) - 1)
    left = np.maximum(right - 1, 0)
    place = np.where(np.abs(times[left] - at) <= np.abs(times[right] - at), left, right)
    near = np.abs(times[place] - at) <= limit_ns
    values, codes = np.where(near, raw.values[place], NAN), np.where(near, raw.codes[place], AGAIN).astype(np.uint8)
    t0 = np.where(near, np.minimum(r.t0_ns, o.t0_ns[place]), r.t0_ns)
    t1 = np.where(near, np.maximum(r.t1_ns, o.t1_ns[place]), r.t1_ns)
    return replace(stream, readings=Readings(t0, t1, r.err, r.data, r.ends)), Raw(values, codes)
