"""The INA3221 of a Jetson (or of a hat of that chip): power of up to three rails a chip, by the files of its driver.

Mainline and L4T from R34 on: a hwmon folder with ``inN_input`` (mV) and ``currN_input`` (mA) for N = 1 to 3;
in4 to in6 are the shunts' microvolts, in7 and curr4 sums of several rails, and none of them a rail
(Documentation/hwmon/ina3221.rst). L4T up to R32: an iio folder with ``in_powerN_input`` (mW) for N = 0 to 2.

The chip converts bus and shunt of each channel in turn, so a voltage and a current that are read at one instant belong
to different conversions: 2 % apart in a capture of an Orin Nano, and never exact. What is read faster than the chip
converts repeats its values; they are kept, for equal readings are a measurement of steady power.

Scope is that of the rail's name (meltbench.readings.jetson): the rail of the module's supply contains the others, and
all of them leave out what the carrier draws. Class C: shunts of 1 to 3 %, and steps of 8 mA and 8 mV (40 mW at 5 V).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meltbench.readings.base import (
    NAN,
    Column,
    PathSpec,
    Reader,
    folder,
    int_values,
    last_int,
    last_text,
    make_series,
    matching,
    natural,
    sighting,
    unique_names,
)
from meltbench.readings.jetson import CONVERSION_S, rail_scope
from meltbench.readings.signals import nearest, plain
from meltbench.records import ABSENT, ERROR, OK, STATUSES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from meltbench.readings.base import Codes, Floats, Sighting
    from meltbench.records import Readings, Series, Stream

_HWMON = "/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/"
_IIO = "/sys/bus/i2c/drivers/ina3221x/*/iio:device*/"
_CHANNELS = (1, 2, 3)
_VOLTS = {n: PathSpec(f"{_HWMON}in{n}_input") for n in _CHANNELS}
_AMPERES = {n: PathSpec(f"{_HWMON}curr{n}_input") for n in _CHANNELS}
_LABELS = {n: PathSpec(f"{_HWMON}in{n}_label", periodic=False) for n in _CHANNELS}
_INTERVAL = PathSpec(_HWMON + "update_interval", periodic=False)
_SAMPLES = PathSpec(_HWMON + "samples", periodic=False)
_WATTS = {n: PathSpec(f"{_IIO}in_power{n - 1}_input") for n in _CHANNELS}
_NAMES = {n: PathSpec(f"{_IIO}rail_name_{n - 1}", periodic=False) for n in _CHANNELS}
# A current takes the voltage read next to it, some ms away. It may be the one before or after where that one failed, or
# where a run is read a part at a time: a part can end between the two, and what is sampled is written once a second.
# The supply of a rail is regulated: within such a time its voltage is the same but for a few percent.
_APART_NS = 1_500_000_000


class _Rail(NamedTuple):
    """One channel of one chip: where it is, what it is called, and the streams that tell its power."""

    place: tuple[str, ...]
    channel: int
    label: str | None
    volts: Stream | None
    power: Stream


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``ina3221.RAIL.power`` in watts; without a label ``ina3221.ch1.power`` ...

    Two rails of one label, such as the NC of AGX Orin, are told apart: NC, NC#2, in the order of chips and channels.
    ``update_s`` is the time of a whole conversion, and ``window_s`` too where the chip averages several.
    """
    del options  # this reader knows none
    rails = sorted(_rails(streams), key=lambda rail: ([natural(part) for part in rail.place], rail.channel))
    names = unique_names(rail.label or f"ch{rail.channel}" for rail in rails)
    pace = _pace(streams)
    series = []
    for name, rail in zip(names, rails, strict=True):
        if not len(rail.power.readings):
            continue
        column = Column(f"ina3221.{name}.power", "W", "gauge", rail_scope(name))
        values, codes = _watts(rail)
        update_s, averaged = pace.get(folder(rail.power.path), (CONVERSION_S, False))
        one = make_series(source, rail.power, column, values, codes, klass="C", update_s=update_s)
        series.append(replace(one, window_s=update_s if averaged else 0.0))
    mine = [stream for rail in rails for stream in (rail.volts, rail.power) if stream is not None]
    absent = f"no {_HWMON}in1_input and no {_IIO}in_power0_input on this target"
    return series, sighting(source, mine, series, absent=absent, note=_averages(streams))


def _rails(streams: Sequence[Stream]) -> list[_Rail]:
    found = []
    for n in _CHANNELS:
        volts = dict(matching(_VOLTS[n], streams))
        labels = {groups: last_text(stream) for groups, stream in matching(_LABELS[n], streams)}
        for groups, stream in matching(_AMPERES[n], streams):
            found.append(_Rail(groups, n, _label(labels.get(groups)), volts.get(groups), stream))
        names = {groups: last_text(stream) for groups, stream in matching(_NAMES[n], streams)}
        for groups, stream in matching(_WATTS[n], streams):
            found.append(_Rail(groups, n, _label(names.get(groups)), None, stream))
    return found


def _label(text: str | None) -> str | None:
    return plain(text) if text else None


def _watts(rail: _Rail) -> tuple[Floats, Codes]:
    counts, codes = int_values(rail.power.readings)
    if _WATTS[rail.channel].match(rail.power.path) is not None:
        return counts / 1e3, codes
    if rail.volts is None or rail.volts.status != "ok":
        codes[codes == OK] = ABSENT if rail.volts is None else STATUSES.index(rail.volts.status)
        return np.full(len(counts), NAN), codes
    millivolts, why = _beside(rail.volts.readings, _middle(rail.power.readings))
    codes = np.where(codes == OK, why, codes).astype(np.uint8)
    return np.where(codes == OK, counts * millivolts / 1e6, NAN), codes


def _beside(volts: Readings, t: npt.NDArray[np.int64]) -> tuple[Floats, Codes]:
    """For each time the voltage that was read nearest to it, or a status that says why there is none."""
    values, codes = int_values(volts)
    good = np.flatnonzero(codes == OK)
    if not len(good):
        why = codes[-1] if len(codes) else ERROR
        return np.full(len(t), NAN), np.full(len(t), why, np.uint8)
    near = good[nearest(_middle(volts)[good], t)]
    close = np.abs(_middle(volts)[near] - t) <= _APART_NS
    return values[near], np.where(close, OK, ERROR).astype(np.uint8)


def _middle(readings: Readings) -> npt.NDArray[np.int64]:
    return readings.t0_ns + (readings.t1_ns - readings.t0_ns) // 2


def _pace(streams: Sequence[Stream]) -> dict[str, tuple[float, bool]]:
    """By folder: seconds that a conversion of all channels takes with its averaging, and whether it averages at all."""
    samples, out = _samples(streams), {}
    for groups, stream in matching(_INTERVAL, streams):
        ms = last_int(stream)
        if ms is not None and 0 <= ms <= 60_000:
            # 0 stands for the shortest conversions: the driver tells whole milliseconds.
            out[folder(stream.path)] = (max(ms, 1) / 1e3, (samples.get(groups) or 1) > 1)
    return out


def _samples(streams: Sequence[Stream]) -> dict[tuple[str, ...], int | None]:
    return {groups: last_int(stream) for groups, stream in matching(_SAMPLES, streams)}


def _averages(streams: Sequence[Stream]) -> str:
    """Which chips average, for that smears what a phase cost into the next one."""
    found = [(groups[0], n) for groups, n in _samples(streams).items() if n is not None and n > 1]
    return "; ".join(f"{plain(chip)} averages {n} samples" for chip, n in found[:16])


# Each voltage beside its current: the probe reads them one after the other.
_PAIRS = tuple(spec for n in _CHANNELS for spec in (_VOLTS[n], _AMPERES[n]))
_ONCE = (*_LABELS.values(), _INTERVAL, _SAMPLES)
INA3221 = Reader("ina3221", (*_PAIRS, *_ONCE, *_WATTS.values(), *_NAMES.values()), parse)
