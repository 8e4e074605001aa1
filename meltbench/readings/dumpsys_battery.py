"""Android's own view of its battery: `dumpsys battery`, and `cmd battery get` where a vendor leaves no other way.

frameworks/base, BatteryService.java: the dump prints what the health HAL last said, mV, tenths of a degree and uAh. It
is asked anew every 60 s (600 s when idle) and at events, so most readings repeat one another. The series keep them all:
how often a value changes is what tells how stale it is. `dumpsys battery set` and `unplug` stop the updates: from
then on the values are old or made up, nothing is discharged by it, and none of them is taken.

Vendors print lines of their own between and after these: Samsung's `current now` in mA (others print uA under the same
words: that is `current_unit`, and no line tells) and a second `charge counter`, Motorola's capacities, prose of Android
16 that quotes a key. So a key counts at the start of its line only, and the first of its name.

`cmd battery get -f current_now` has the HAL asked anew, but prints before the answer is there: a OnePlus 13R showed a
new value every 2 s, after 7 s at most. Builds without the flag batteryServiceSupportCurrentAdbCommand print nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meltbench.readings.base import Command, Reader, sighting
from meltbench.readings.battery import (
    OPTIONS,
    RAW,
    Gauge,
    battery_series,
    beside,
    gauge,
    known,
    power_w,
    voltage_v,
)
from meltbench.readings.polls import answers, polled, table
from meltbench.records import ABSENT, GATED, OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.readings.polls import Raw
    from meltbench.records import Series, Stream

_DUMP = Command(("dumpsys", "battery"))
_CURRENT = Command(("cmd", "battery", "get", "-f", "current_now"))
CACHED_S = 600.0  # how old what the dump prints can be: the slower of the HAL's two periods
LAG_S = 7.0  # how long what `get -f` prints was seen to lag behind
APART_NS = 2_000_000_000  # a voltage that was read farther from its current is no pair with it
_key = re.compile(rb"^[ \t]{0,8}([A-Za-z][A-Za-z ]{0,39}):[ \t]{0,8}(-?\d{1,12}|true|false)[ \t]*$", re.MULTILINE)
_stopped = re.compile(rb"^[ \t]{0,8}\(UPDATES STOPPED\b", re.MULTILINE)
_integer = re.compile(rb"\s{0,64}(-?\d{1,12})\s{0,64}")
_SUPPLIES = (b"AC powered", b"USB powered", b"Wireless powered", b"Dock powered")
_KEYS = {
    b"current now": "current",
    b"voltage": "voltage",
    b"temperature": "temp",
    b"status": "status",
    b"Full capacity": "full",
    b"Full design capacity": "design",
}


def parse_dump(text: bytes) -> dict[str, float] | int:
    """What a dump says, in its counts, by the names of meltbench.readings.battery.RAW; a status code for no dump."""
    found: dict[bytes, bytes] = {}
    for key, value in _key.findall(text):
        found.setdefault(key, value)
    numbers = {key: float(value) for key, value in found.items() if value not in (b"true", b"false")}
    out = {name: numbers[key] for key, name in _KEYS.items() if key in numbers}
    if "level" not in out and b"level" in numbers:
        out["level"] = numbers[b"level"] * 100 / (numbers.get(b"scale") or 100.0)
    counters = [numbers[key] for key in (b"Charge counter", b"charge counter") if key in numbers]
    if counters:
        out["charge"] = next((one for one in counters if one > 0), counters[0])
    plugs = [found[key] == b"true" for key in _SUPPLIES if found.get(key) in (b"true", b"false")]
    if plugs:
        out["plugged"] = float(any(plugs))
    if not out:
        return UNPARSED
    return out | {"updates_stopped": float(_stopped.search(text) is not None)}


def _dumped(stream: Stream) -> dict[str, Raw]:
    """Counts by name, one a reading. A dump that failed shows as a level that is not known."""
    found = table(stream, [parse_dump(text) if code == OK else code for code, text in answers(stream)])
    names = [name for name in RAW if name in found.names or (found.failed and name == "level")]
    return {name: found.raw(name) for name in names}


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``dumpsys_battery.voltage_v``, ``.charge_c``, ``.soc_percent``, ``.status``, ``.plugged``, ``.updates_stopped``.

    Also ``thermal.dumpsys_battery``; of Samsung's ``.current_a`` and ``.power``. Every reading is a sample, also where
    it repeats what the one before said: the framework's copy is that old.
    """
    found = gauge(options, current="mA", voltage="mV")  # AOSP prints no current; Samsung's mA
    mine = polled(_DUMP, streams)
    series = [
        battery_series(source, stream, "dumpsys_battery", name, raw, found, update_s=CACHED_S, window_s=None)
        for stream in mine
        for name, raw in known(_dumped(stream), found).items()
    ]
    return series, sighting(source, mine, series, absent="no dumpsys on this target", note=_note(series))


def parse_get(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``cmd_battery.current_a`` of `cmd battery get -f current_now`, the rest of the dump that is asked beside it.

    ``cmd_battery.power`` is the current times the dump's voltage, no more than 2 s apart; what the gauge measures of
    now is up to 7 s old.
    """
    found = gauge(options, voltage="mV")
    currents, dumps = polled(_CURRENT, streams), polled(_DUMP, streams)
    series = []
    raws: list[tuple[Stream, dict[str, Raw]]] = [(stream, _dumped(stream)) for stream in dumps]
    for stream, dumped in raws:
        told = {name: raw for name, raw in dumped.items() if name != "current"}
        series += [
            battery_series(source, stream, "cmd_battery", name, raw, found, update_s=CACHED_S)
            for name, raw in known(told, found).items()
        ]
    for stream in currents:
        series += _with_voltage(source, stream, raws[0] if raws else None, found)
    mine = [*currents, *dumps]
    absent = "no cmd and no dumpsys on this target"
    return series, sighting(source, mine, series, absent=absent, note=_note(series))


def _with_voltage(
    source: str, stream: Stream, dump: tuple[Stream, dict[str, Raw]] | None, found: Gauge
) -> list[Series]:
    """Current and power of one stream of numbers. Power spans both reads, for its parts were not read together."""
    parsed = table(stream, [_integer_of(text) if code == OK else code for code, text in answers(stream)])
    raws = {"current": parsed.raw("current")}
    if dump is None or not len(dump[0].readings):
        values = known(raws, found)
        return [_of_get(source, stream, name, raw, found) for name, raw in values.items()]
    if "updates_stopped" in dump[1]:
        _, stopped = beside(stream, dump[0], dump[1]["updates_stopped"], APART_NS)
        raws["current"] = raws["current"].where(stopped.values == 1, GATED)
    current = known(raws, found)["current_a"]
    out = [_of_get(source, stream, "current_a", current, found)]
    if "voltage" in dump[1]:
        wide, volts = beside(stream, dump[0], voltage_v(dump[1]["voltage"], found), APART_NS)
        out.append(_of_get(source, wide, "power", power_w(current, volts), found))
    return out


def _of_get(source: str, stream: Stream, name: str, raw: Raw, found: Gauge) -> Series:
    return battery_series(source, stream, "cmd_battery", name, raw, found, window_s=LAG_S)


def _integer_of(text: bytes) -> dict[str, float] | int:
    """The number a `get` printed. Nothing at all is what a build prints that does not know the word."""
    match = _integer.fullmatch(text)
    if match:
        return {"current": float(match[1])}
    return UNPARSED if text.strip() else ABSENT


def _note(series: Sequence[Series]) -> str:
    """What has to be said beside the values."""
    held = any(one.name.endswith(".updates_stopped") and (one.value == 1).any() for one in series)
    stopped = "updates are stopped: `dumpsys battery reset` lets the real values through again"
    odd = any(one.name.endswith(".charge_c") and (one.status == UNPARSED).any() for one in series)
    absurd = "the charge counter is beyond what the battery can hold: see charge_unit"
    return "; ".join([stopped] * held + [absurd] * odd)


DUMPSYS_BATTERY = Reader("dumpsys_battery", (), parse, OPTIONS, commands=(_DUMP,), asked=("heat", "charge"))
# One fork more for the current; status, level, counter and temperature stand in the dump that follows.
CMD_BATTERY = Reader("cmd_battery", (), parse_get, OPTIONS, commands=(_CURRENT, _DUMP), asked=("heat", "charge"))
