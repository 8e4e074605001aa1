"""Logs of jetson-monitor, the sampler of MELT's Jetson runs (github.com/brave-experiments/jetson-monitor).

A line a value, ``TIME KEY: VALUE UNIT``: nanoseconds of the wall clock since 1970, as MELT's marks of stages have; keys
``voltage_RAIL`` (mV), ``current_RAIL`` (mA), ``power_RAIL`` (mW, their product), and a zone's type for its temperature
(mC). Which of them there are, and in which order, was chosen at its start; between them stand lines of other kinds.

Of two rails labelled NC the logger kept one under that name, and nobody knows which: NC is left out.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from meltbench.readings.base import Column, Reader, sighting
from meltbench.readings.helper import Collected, Span
from meltbench.readings.jetson import CONVERSION_S, rail_scope, temperature
from meltbench.readings.signals import nearest, plain, printed
from meltbench.records import GATED, OK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

MAX_SIGNALS = 256
LINE = re.compile(
    rb"^(\d{16,19}) ([A-Za-z][^\s:]{0,63}): (-?\d{1,12}(?:\.\d{1,12})?) (mV|mA|mW|mC)[ \t\r]*$", re.MULTILINE
)
_APART_NS = 1_000_000_000  # voltage and current of one round are logged within milliseconds
_PREFIXES = {"mV": "voltage_", "mA": "current_", "mW": "power_", "mC": ""}  # of the keys, by unit
Samples = dict[str, list[tuple[int, float]]]


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``melt_jetson.RAIL.power`` (W), ``thermal.melt_jetson.ZONE`` (degC), at the times that the log tells.

    Power is what the log says, or voltage times current where it has only these.
    """
    del options  # this reader knows none
    mine = printed(streams)
    found: dict[str, Samples] = {unit: {} for unit in _PREFIXES}
    for stream in mine:
        for time, raw, value, word in LINE.findall(stream.readings.data):
            key, unit = raw.decode("utf-8", "replace"), word.decode()
            if key.startswith(_PREFIXES[unit]) and key != _PREFIXES[unit]:
                _keep(found[unit], int(time), plain(key.removeprefix(_PREFIXES[unit])), float(value) / 1e3)
    watts = _products(found["mV"], found["mA"]) | found["mW"]
    series = [_power(rail, samples) for rail, samples in watts.items() if rail != "NC"]
    series += [_heat(zone, samples) for zone, samples in found["mC"].items()]
    told = "NC is one of two rails that the logger did not tell apart" if "NC" in watts else ""
    made = [one.series(source) for one in series if one.values]
    return made, sighting(source, mine, made, absent="no log of jetson-monitor", note=told)


def _keep(samples: Samples, time: int, name: str, value: float) -> None:
    if time < 1 << 63 and (name in samples or len(samples) < MAX_SIGNALS):
        samples.setdefault(name, []).append((time, value))


def _products(volts: Samples, amperes: Samples) -> Samples:
    """Each current times the voltage that was logged nearest to it."""
    out: Samples = {}
    for rail in (name for name in amperes if name in volts):
        t_v, t_a = (np.array([time for time, _ in one[rail]], dtype=np.int64) for one in (volts, amperes))
        near = nearest(t_v, t_a)
        pairs = zip(amperes[rail], near.tolist(), (np.abs(t_v[near] - t_a) <= _APART_NS).tolist(), strict=True)
        out[rail] = [(time, volts[rail][at][1] * ampere) for (time, ampere), at, close in pairs if close]
    return out


def _power(rail: str, samples: Sequence[tuple[int, float]]) -> Collected:
    column = Column(f"melt_jetson.{rail}.power", "W", "gauge", rail_scope(rail))
    one = Collected(column, "", "C", CONVERSION_S)
    for time, watts in samples:
        one.add(Span(time, time), watts)
    return one


def _heat(zone: str, samples: Sequence[tuple[int, float]]) -> Collected:
    one = Collected(Column(f"thermal.melt_jetson.{zone}", "degC", "gauge"), "", None)
    for time, celsius in samples:
        value = temperature(zone, celsius)
        if value is not None:
            one.add(Span(time, time), value, GATED if math.isnan(value) else OK)
    return one


MELT_JETSON = Reader("melt_jetson", (), parse)
