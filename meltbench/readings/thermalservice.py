"""Android's thermal service: `dumpsys thermalservice`, and what Google's thermal HAL says itself and logs.

frameworks/base, ThermalManagerService.java: the dump prints a block of cached temperatures, which callbacks fill now
and then, and one of temperatures that the HAL is asked for at that moment. One phone had 84 degC in the first and 58 in
the second, so the cached block is never read. Types and status codes are those of android.hardware.thermal
(TemperatureType.aidl, ThrottlingSeverity.aidl). BCL_VOLTAGE, BCL_CURRENT and BCL_PERCENTAGE are limits of the battery
and no temperatures, and a value of type UNKNOWN may be in any unit. A sensor that is not fitted reads 0 (Samsung's
SUBBAT, USB).

hardware/google/pixel, thermal/Thermal.cpp: virtual sensors of another meaning are left out, as ANGLE's power tests do
(restricted_trace_perf.py): those that steer charging, hold an estimate, a model's output, or a warning of the USB port.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from meltbench.readings.base import NAN, Column, Command, Reader, make_series, sighting
from meltbench.readings.polls import Table, answers, polled
from meltbench.readings.thermal import COLDEST_C, HOTTEST_C
from meltbench.records import ERROR, GATED, OK, UNPARSED, Readings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meltbench.readings.base import Parse, Sighting
    from meltbench.readings.polls import Raw
    from meltbench.records import Series, Stream

TYPES = (
    *("CPU", "GPU", "BATTERY", "SKIN", "USB_PORT", "POWER_AMPLIFIER", "BCL_VOLTAGE", "BCL_CURRENT", "BCL_PERCENTAGE"),
    *("NPU", "TPU", "DISPLAY", "MODEM", "SOC", "WIFI", "CAMERA", "FLASHLIGHT", "SPEAKER", "AMBIENT", "POGO"),
)
NO_TEMPERATURE = frozenset({"BCL_VOLTAGE", "BCL_CURRENT", "BCL_PERCENTAGE", "UNKNOWN"})
# Parts whose severity slows computing; that of a battery, port or radio steers charging and sending.
COMPUTING = frozenset({"SKIN", "CPU", "GPU", "NPU", "TPU", "SOC"})
SEVERITIES = ("NONE", "LIGHT", "MODERATE", "SEVERE", "CRITICAL", "EMERGENCY", "SHUTDOWN")
MAX_SENSORS = 128  # of one text
STATUS = "thermal_status"
_number = r"(-?\d{1,7}(?:\.\d{1,12})?(?:[eE][+-]?\d{1,2})?|-?nan|NaN|-?inf)"
_block = re.compile(
    r"^[ \t]{0,8}Current temperatures from HAL:[ \t]*\n((?:[ \t]{0,16}(?:Temperature\{[^\n]{0,400})?(?:\n|\Z)){0,256})",
    re.M,
)
_temperature = re.compile(r"Temperature\{([^{}\n]{0,300})\}")
_member = re.compile(r"m(Value|Type|Name|Status)\s{0,4}=\s{0,4}([^,}]{0,80})")
_float = re.compile(_number)
_status = re.compile(r"^[ \t]{0,8}Thermal Status:[ \t]{0,4}(\d{1,2})[ \t]*$", re.M)
_not_ready = re.compile(r"^[ \t]{0,8}HAL Ready:[ \t]{0,4}false[ \t]*$", re.M | re.I)
_override = re.compile(r"^[ \t]{0,8}IsStatusOverride:[ \t]{0,4}true[ \t]*$", re.M | re.I)
_known_dump = re.compile(r"^[ \t]{0,8}(?:IsStatusOverride|HAL Ready|Thermal Status):", re.M)
# One line of the HAL's dump and of its log. Cooling devices and thresholds lack the status at the end.
_sensor = re.compile(
    r"Type: (\w{1,32}) Name: (\S{1,64}) CurrentValue: "
    + _number
    + r" ThrottlingStatus: (?:\w{1,32}::)?([A-Z]{1,16})\s*$"
)
_stamp = re.compile(rb"(\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) ")
_odd = re.compile(r"[^A-Za-z0-9_.+-]")


def dropped(name: str) -> bool:
    """Whether a sensor of that name tells something else than how hot a part is."""
    return "-CHARGE" in name or "-EQ" in name or "MODEL" in name.split("-") or name == "VIRTUAL-USB-UI"


def _label(kind: str, name: str) -> str:
    """``SKIN`` where the name says no more than the type, else ``SKIN.VIRTUAL-SKIN``."""
    plain = _odd.sub("_", name)[:64]
    return kind if plain.upper() == kind else f"{kind}.{plain}"


def _put(table: Table, at: int, name: str, text: str) -> None:
    """A temperature, or why there is none: 0 is what a sensor says that is not fitted."""
    value = float(text) if _float.fullmatch(text) else NAN
    if value == 0:
        table.put(at, name, NAN, GATED)
    elif COLDEST_C <= value <= HOTTEST_C:
        table.put(at, name, value)
    else:
        table.put(at, name, NAN, UNPARSED)


def _read_service(table: Table, at: int, text: str) -> str:
    """Puts what a dump of the service says; returns what there is to say of it."""
    if not _known_dump.search(text):
        table.fail(at)
        return ""
    said = _status.search(text)
    if _not_ready.search(text):
        table.put(at, STATUS, NAN, GATED)  # the 0 it prints is what it began with
        return "HAL Ready: false, the service has no sensors"
    note = ""
    if _override.search(text):
        table.put(at, STATUS, NAN, ERROR)
        note = "the thermal status is overridden by hand: cmd thermalservice reset"
    elif said is not None and int(said[1]) < len(SEVERITIES):
        table.put(at, STATUS, float(said[1]))
    block = _block.search(text)
    seen: dict[str, int] = {}
    for body in _temperature.findall(block[1] if block else "")[:MAX_SENSORS]:
        found = dict(_member.findall(body))
        kind = found.get("Type", "").strip()
        word = TYPES[int(kind)] if kind.isdigit() and len(kind) < 4 and int(kind) < len(TYPES) else "UNKNOWN"
        name = found.get("Name", "").strip()
        if word in NO_TEMPERATURE or not name or dropped(name):
            continue
        label = _label(word, name)
        seen[label] = seen.get(label, 0) + 1
        _put(table, at, label if seen[label] == 1 else f"{label}#{seen[label]}", found.get("Value", "").strip())
    return note


def _read_hal(table: Table, at: int, text: str) -> str:
    """Puts the current temperatures of a dump of the HAL, and the worst severity of the parts that compute."""
    found = [match for line in text.split("\n") if (match := _sensor.search(line))][:MAX_SENSORS]
    kept = [match for match in found if match[1] not in NO_TEMPERATURE and not dropped(match[2])]
    if not found:
        table.fail(at)
    for match in kept:
        _put(table, at, _label(match[1], match[2]), match[3])
    severities = [SEVERITIES.index(match[4]) for match in kept if match[1] in COMPUTING and match[4] in SEVERITIES]
    if severities:
        table.put(at, STATUS, float(max(severities)))
    return ""


def _polling(reader: str, command: Command, read: Callable[[Table, int, str], str], absent: str) -> Parse:
    """A reader of one polled text: ``thermal.READER.LABEL`` for every sensor, ``READER.thermal_status`` for the state.

    A reading that failed shows in the state.
    """

    def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
        del options  # this reader knows none
        mine = polled(command, streams)
        series: list[Series] = []
        notes: dict[str, None] = {}
        for stream in mine:
            table = Table(len(stream.readings))
            for at, (code, text) in enumerate(answers(stream)):
                if code != OK:
                    table.fail(at, code)
                else:
                    notes.setdefault(read(table, at, text.decode("utf-8", "replace")))
            if STATUS in table.names or table.failed:
                series.append(_of(source, stream, Column(f"{reader}.{STATUS}", "1", "state"), table.raw(STATUS)))
            for name in table.names:
                if name != STATUS:
                    column = Column(f"thermal.{reader}.{name}", "degC", "gauge")
                    series.append(_of(source, stream, column, table.raw(name)))
        return series, sighting(source, mine, series, absent=absent, note="; ".join(filter(None, notes)))

    return parse


def _of(source: str, stream: Stream, column: Column, raw: Raw) -> Series:
    return make_series(source, stream, column, raw.values, raw.codes)


def parse_log(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``thermal.pixel_thermal.LABEL`` and ``pixel_thermal.LABEL.thermal_status`` of the lines that the HAL logs.

    The state is that of the skin and of parts that compute.
    A line is a reading at its arrival; in a recorded log at the time it tells, counted from the first that tells one.
    """
    del options  # this reader knows none
    mine = [stream for stream in streams if stream.kind in ("lines", "log")]
    series: list[Series] = []
    for stream in mine:
        found: dict[str, list[tuple[int, str, str]]] = {}
        for at, raw in enumerate(stream.readings.raw):
            match = _sensor.search(raw.decode("utf-8", "replace"))
            if match and match[1] not in NO_TEMPERATURE and not dropped(match[2]) and len(found) < MAX_SENSORS:
                found.setdefault(_label(match[1], match[2]), []).append((at, match[3], match[4]))
        timed = _own_times(stream) if stream.kind == "log" else stream
        for label, lines in found.items():
            series += _of_lines(source, timed, label, lines)
    return series, sighting(source, mine, series, absent="no logcat on this target")


def _of_lines(source: str, stream: Stream, label: str, lines: list[tuple[int, str, str]]) -> list[Series]:
    """A sensor's temperature and severity at the lines that name it."""
    table = Table(len(lines))
    for at, (_, value, severity) in enumerate(lines):
        _put(table, at, "value", value)
        if severity in SEVERITIES:
            table.put(at, STATUS, float(SEVERITIES.index(severity)))
    places = [at for at, _, _ in lines]
    r = stream.readings
    own = Readings.of(r.t0_ns[places], r.t1_ns[places], r.err[places], [b""] * len(places))
    part = replace(stream, readings=own)
    out = [_of(source, part, Column(f"thermal.pixel_thermal.{label}", "degC", "gauge"), table.raw("value"))]
    if label.partition(".")[0] in COMPUTING:
        out.append(_of(source, part, Column(f"pixel_thermal.{label}.{STATUS}", "1", "state"), table.raw(STATUS)))
    return out


def _own_times(stream: Stream) -> Stream:
    """The lines at logcat's own times, which know no year; a line without one stands where the one before it does."""
    r = stream.readings
    told = [_own_ms(raw) for raw in r.raw]
    last = next((ms for ms in told if ms is not None), 0)
    ms = np.zeros(len(told), dtype=np.int64)
    for at, one in enumerate(told):
        last = last if one is None else one
        ms[at] = last
    # Across the turn of a year the clock falls by one.
    ms += np.cumsum(np.diff(ms, prepend=ms[:1]) < -_HALF_YEAR_MS) * 2 * _HALF_YEAR_MS
    t = (ms - ms[:1].sum()) * 1_000_000
    return replace(stream, readings=Readings(t, t, r.err, r.data, r.ends))


def _own_ms(line: bytes) -> int | None:
    """Milliseconds since the beginning of a year; 2000, so that a 29th of February is a day."""
    match = _stamp.match(line)
    try:
        told = datetime.strptime(f"2000-{match[1].decode()}", "%Y-%m-%d %H:%M:%S.%f") if match else None
    except ValueError:
        return None
    return None if told is None else round((told - _YEAR).total_seconds() * 1000)


_YEAR = datetime(2000, 1, 1)  # the log's clock has no zone
_HALF_YEAR_MS = 183 * 86_400_000
_DUMP = Command(("dumpsys", "thermalservice"))
_HAL = Command(("dumpsys", "android.hardware.thermal.IThermal/default"))
THERMALSERVICE = Reader(
    "thermalservice",
    (),
    _polling("thermalservice", _DUMP, _read_service, "no dumpsys on this target"),
    commands=(_DUMP,),
    asked=("heat",),
)
THERMAL_HAL = Reader(
    "thermal_hal",
    (),
    _polling("thermal_hal", _HAL, _read_hal, "no dumpsys on this target"),
    commands=(_HAL,),
    asked=("heat",),
)
PIXEL_THERMAL = Reader(
    "pixel_thermal", (), parse_log, commands=(Command(("logcat", "-T", "1", "-s", "pixel-thermal"), poll=False),)
)
