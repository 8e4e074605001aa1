"""What a Raspberry Pi's firmware says through vcgencmd: power of the Pi 5's rails, under-voltage, throttling, heat.

vcgencmd prints why it cannot answer where its answer would be, in releases also with exit status 0. Those words are a
status, never a number: it may not open its device (which needs the group video), or the board lacks the command.
"""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from meltbench.errors import DefinitionError
from meltbench.readings.base import Column, Command, PathSpec, Reader, folder, int_series, last_text, matching, sighting
from meltbench.readings.signals import named_series, polled
from meltbench.readings.thermal import COLDEST_C, HOTTEST_C

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_CAUSES = (
    (re.compile(rb"VCHI initialization failed|Can't open device file|[Pp]ermission denied"), errno.EACCES),
    (re.compile(rb"Command not registered"), errno.ENODEV),
    (re.compile(rb"error=\d|error_msg="), errno.EIO),
)
_MAX_TOLD = 4


def _answers(command: Command, streams: Sequence[Stream]) -> tuple[list[Stream], str]:
    """What ``command`` printed, with an errno in the place of each complaint, and the complaints."""
    told: dict[str, None] = {}
    out = []
    for stream in polled(command, streams):
        err = stream.readings.err.copy()
        for at, raw in enumerate(stream.readings.raw):
            cause = next((number for words, number in _CAUSES if words.search(raw[:1024])), None)
            if cause is not None:
                err[at] = cause
                told.setdefault(_first_line(raw))
        out.append(replace(stream, readings=replace(stream.readings, err=err)))
    return out, "; ".join([*told][:_MAX_TOLD])


def _first_line(raw: bytes) -> str:
    line = (raw[:1024].strip().splitlines() or [b""])[0][:120]
    return "".join(chr(c) if 32 <= c < 127 else " " for c in line)


_ADC = Command(("vcgencmd", "pmic_read_adc"))
_adc = re.compile(
    rb"^[ \t]*([A-Za-z0-9_]{1,32})_(?:(A)[ \t]+current|(V)[ \t]+volt)\(\d{1,3}\)"
    rb"=(-?\d{1,6}(?:\.\d{1,12})?)([AV])[ \t\r]*$",
    re.MULTILINE,
)
_SUM = Column("pmic.sum.power", "W", "gauge", "rail")
_EXT5V = Column("pmic.ext5v_v", "V", "gauge", "rail")


def _parse_pmic(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``pmic.RAIL.power`` (V x A of each rail that has both), ``pmic.sum.power``, and ``pmic.ext5v_v``, the 5 V
    input, which has no current (nor has the battery of the clock).

    The sum is partial by nature: what draws 5 V directly (USB, HATs, NVMe, the fan) and the converters' losses lie
    outside of it. Voltage and current of a rail are not converted together. The options ``gain`` and ``offset_w`` make
    gain x sum + offset_w of the sum. One board's fit to a meter, 1.1451 and 0.5879 W over means of 50 s
    (github.com/jfikar/RPi5-power), is a figure of that board. Class D; scope rail.
    """
    gain, offset_w = _number(options, "gain", 1.0), _number(options, "offset_w", 0.0)
    if gain <= 0:
        raise DefinitionError(f"gain is {gain!r}", hint="a factor above 0, such as 1.1451")

    def row(raw: bytes) -> dict[Column, float]:
        return _adc_row(raw, gain, offset_w)

    mine, told = _answers(_ADC, streams)
    series = [one for stream in mine for one in named_series(source, stream, row, power_class="D")]
    fitted = (gain, offset_w) != (1.0, 0.0)
    fit = f"{_SUM.name} is {gain:g} x the sum + {offset_w:g} W, by the profile" if fitted and series else ""
    note = "; ".join(filter(None, (told, fit)))
    return series, sighting(source, mine, series, absent="no program vcgencmd", note=note)


def _adc_row(raw: bytes, gain: float, offset_w: float) -> dict[Column, float]:
    amperes: dict[str, float] = {}
    volts: dict[str, float] = {}
    for rail, ampere, volt, value, unit in _adc.findall(raw):
        if unit == (ampere or volt):
            (amperes if ampere else volts).setdefault(rail.decode(), float(value))
    watts = {rail: a * volts[rail] for rail, a in amperes.items() if rail in volts}
    out = {Column(f"pmic.{rail}.power", "W", "gauge", "rail"): power for rail, power in watts.items()}
    # A text that was cut short has currents without their voltage: no sum without them is the sum.
    if watts and len(watts) == len(amperes):
        out[_SUM] = gain * sum(watts.values()) + offset_w
    if "EXT5V" in volts:
        out[_EXT5V] = volts["EXT5V"]
    return out


def _number(options: Mapping[str, object], name: str, default: float) -> float:
    value = options.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not -100 <= value <= 100:
        raise DefinitionError(f"{name} is {value!r}", hint="a number between -100 and 100")
    return float(value)


_GET_THROTTLED = Command(("vcgencmd", "get_throttled"))
_bits = re.compile(rb"\s*(?:throttled=(?:0[xX])?|0[xX])([0-9a-fA-F]{1,8})\s*")
_FLAGS = ("under_voltage", "frequency_capped", "thermal_slowdown", "soft_temp_limit")  # bits 0 to 3
_SINCE_BOOT = 16  # the bit from which on the same four say that it happened since boot
_ALARM = PathSpec("/sys/class/hwmon/hwmon*/in0_lcrit_alarm")
_CHIP = PathSpec("/sys/class/hwmon/hwmon*/name", periodic=False)
_ALARM_S = 2.0  # the driver asks the firmware every 2 s whether there was one since (raspberrypi-hwmon.c)


def _parse_throttled(
    source: str, streams: Sequence[Stream], options: Mapping[str, object]
) -> tuple[list[Series], Sighting]:
    """Flags, 1 while it is so: ``throttled.under_voltage``, ``.frequency_capped``, ``.thermal_slowdown``,
    ``.soft_temp_limit``; each also with ``_since_boot``, which stays 1. Where that was 1 before a run, its end says
    nothing of the run, and the flags of now count alone. ``rpi_volt.under_voltage``: one was seen in the last 2 s.

    Raspberry Pi's documentation of get_throttled.
    """
    del options  # this reader knows none
    mine, told = _answers(_GET_THROTTLED, streams)
    series = [one for stream in mine for one in named_series(source, stream, _flags_row)]
    chips = {folder(stream.path): last_text(stream) for _, stream in matching(_CHIP, streams)}
    # A folder that may not be looked into has no chip that is known.
    alarms = [
        s for _, s in matching(_ALARM, streams) if s.status == "denied" or chips.get(folder(s.path)) == "rpi_volt"
    ]
    column = Column("rpi_volt.under_voltage", "1", "state")
    series += [int_series(source, s, column, scale=1, update_s=_ALARM_S) for s in alarms if len(s.readings)]
    absent = "no program vcgencmd, and no hwmon chip rpi_volt"
    return series, sighting(source, [*mine, *alarms], series, absent=absent, note=told)


def _flags_row(raw: bytes) -> dict[Column, float]:
    found = _bits.fullmatch(raw)
    if found is None:
        return {}
    bits, out = int(found[1], 16), {}
    for place, flag in enumerate(_FLAGS):
        out[Column(f"throttled.{flag}", "1", "state")] = float(bits >> place & 1)
        out[Column(f"throttled.{flag}_since_boot", "1", "state")] = float(bits >> (place + _SINCE_BOOT) & 1)
    return out


_TEMP = Command(("vcgencmd", "measure_temp"))
_degrees = re.compile(rb"\s*temp=(-?\d{1,3}(?:\.\d{1,3})?)'?C\s*")
_SOC = Column("thermal.vcgencmd.soc", "degC", "gauge")


def _temp_row(raw: bytes) -> dict[Column, float]:
    found = _degrees.fullmatch(raw)
    value = None if found is None else float(found[1])
    return {_SOC: value} if value is not None and COLDEST_C <= value <= HOTTEST_C else {}


def _parse_temp(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``thermal.vcgencmd.soc`` in degC, in steps of 0.1: what thermal_zone0 says, for where that may not be read."""
    del options  # this reader knows none
    mine, told = _answers(_TEMP, streams)
    series = [one for stream in mine for one in named_series(source, stream, _temp_row)]
    return series, sighting(source, mine, series, absent="no program vcgencmd", note=told)


PMIC = Reader("pmic", (), _parse_pmic, frozenset({"gain", "offset_w"}), commands=(_ADC,))
THROTTLED = Reader("throttled", (_ALARM, _CHIP), _parse_throttled, commands=(_GET_THROTTLED,))
MEASURE_TEMP = Reader("measure_temp", (), _parse_temp, commands=(_TEMP,), asked=("heat",))
