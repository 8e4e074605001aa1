"""The battery's gauge below /sys/class/power_supply: current, voltage, charge, temperature, and what is plugged in.

Documentation/ABI/testing/sysfs-class-power: microamperes, microvolts, microampere-hours, tenths of a degree. Vendors
differ (Samsung and Huawei: mA), and two supplies of one phone may count current with opposite signs (`battery` and
`bms` of a Pixel 5, devlib#522): unit and sign are options, and a profile that reads both names the supply of each.

The gauge sees only what flows through the battery. A phone on USB reads near 0 however much it draws, so `plugged`
stands beside the power.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from meltbench.errors import DefinitionError
from meltbench.readings.base import (
    NAN,
    PathSpec,
    Reader,
    int_values,
    last_int,
    last_text,
    matching,
    read_codes,
    sighting,
)
from meltbench.readings.battery import (
    OPTIONS,
    Gauge,
    battery_series,
    beside,
    charge_c,
    gauge,
    known,
    power_w,
)
from meltbench.readings.polls import Raw, answers, table
from meltbench.records import OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_SUPPLY = "/sys/class/power_supply/*/"
_FILES = {
    "current": PathSpec(_SUPPLY + "current_now"),
    "voltage": PathSpec(_SUPPLY + "voltage_now"),
    "charge": PathSpec(_SUPPLY + "charge_counter"),
    "level": PathSpec(_SUPPLY + "capacity"),
    "temp": PathSpec(_SUPPLY + "temp"),
    "status": PathSpec(_SUPPLY + "status"),
    "online": PathSpec(_SUPPLY + "online"),
}
_ONCE = {
    "type": PathSpec(_SUPPLY + "type", periodic=False),
    "scope": PathSpec(_SUPPLY + "scope", periodic=False),
    "full": PathSpec(_SUPPLY + "charge_full", periodic=False),
    "design": PathSpec(_SUPPLY + "charge_full_design", periodic=False),
}
# All properties of a supply in one text; the driver asks the gauge for each of them, so it is a dear read.
_UEVENT = PathSpec(_SUPPLY + "uevent", periodic=False, lines=True)
_UEVENT_OFTEN = PathSpec(_SUPPLY + "uevent", lines=True)
SIZES = ("full", "design")  # how much a full battery holds, by its gauge and by its maker
APART_NS = 500_000_000  # readings of current and voltage farther apart are no pair: a gauge's filter is as long
# The kernel's words (power_supply_sysfs.c) as Android's health HAL numbers them.
STATUS = {b"unknown": 1, b"charging": 2, b"discharging": 3, b"not charging": 4, b"full": 5}
_property = re.compile(rb"^(?:POWER_SUPPLY_)?([A-Z][A-Z0-9_]{0,39})=([^\n]{0,64})$", re.MULTILINE)
_number = re.compile(rb"[ \t]{0,8}(-?\d{1,15})[ \t]{0,8}")
_UEVENT_KEYS = {
    b"CURRENT_NOW": "current",
    b"VOLTAGE_NOW": "voltage",
    b"CHARGE_COUNTER": "charge",
    b"CHARGE_FULL": "full",
    b"CHARGE_FULL_DESIGN": "design",
    b"CAPACITY": "level",
    b"TEMP": "temp",
    b"ONLINE": "online",
}
_odd = re.compile(r"[^A-Za-z0-9_.+-]")


@dataclass
class Supply:
    """What was found of one supply: a stream a file, and the streams of its uevent."""

    name: str
    files: dict[str, Stream] = field(default_factory=dict)
    uevent: Stream | None = None

    @property
    def opened(self) -> bool:
        """Whether any file with a value of it could be opened."""
        return any(name in _FILES and stream.status == "ok" for name, stream in self.files.items())

    def read(self) -> list[Stream]:
        """The streams that its values come of."""
        files = [stream for name, stream in self.files.items() if name in _FILES]
        return files if self.opened or self.uevent is None else [*files, self.uevent]

    def text(self, name: str) -> str | None:
        """The last text of a file that holds a word, else of the uevent."""
        told = last_text(self.files.get(name))
        if told is None and self.uevent is not None:
            for _, text in reversed(answers(self.uevent)):
                found = properties(text).get(name.upper().encode())
                if found:
                    return found.decode("ascii", "replace").strip()
        return told

    @property
    def battery(self) -> bool:
        """Whether the machine runs on it. Older kernels do not tell a supply's type in its uevent."""
        kind = self.text("type")
        return (kind == "Battery" or (kind is None and self.name == "battery")) and self.text("scope") != "Device"


def properties(text: bytes) -> dict[bytes, bytes]:
    """The properties of a uevent, or of a dump of one without its prefix; the first of a name counts."""
    out: dict[bytes, bytes] = {}
    for key, value in _property.findall(text):
        out.setdefault(key, value)
    return out


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``battery.power`` in watts drawn (class D), ``.current_a`` into the battery, ``.voltage_v``, ``.charge_c``,
    ``.full_c`` and ``.full_design_c`` (of a full one), ``.soc_percent``, ``.status``, ``.plugged`` (any other supply is
    online), and ``thermal.battery``.

    Of the supply that the profile names, else of every battery the machine runs on; a second one is told as
    ``battery.NAME``. Values of its files where any can be opened, else of its uevent.
    """
    found = gauge(options, voltage="uV")
    only = options.get("supply")
    if only is not None and (not isinstance(only, str) or not only or "/" in only):
        raise DefinitionError(f"supply is {only!r}", hint="the name of a folder below /sys/class/power_supply")
    supplies, closed = _supplies(streams)
    chosen = [one for one in supplies if (one.battery if only is None else one.name == only)]
    chosen.sort(key=lambda one: one.name != "battery")  # Android's name for the one that counts
    series, notes = [], []
    for at, one in enumerate(chosen):
        prefix = "battery" if at == 0 else f"battery.{_odd.sub('_', one.name)[:64]}"
        others = [other for other in supplies if other is not one and not other.battery]
        made = _of_files(source, prefix, one, found) if one.opened else _of_uevent(source, prefix, one, found)
        series += made + (_plugged(source, prefix, others, found) if at == 0 else [])
        notes += [f"{one.name}: the charge counter is beyond what the battery can hold" for s in made if _absurd(s)]
    mine = closed + [stream for one in chosen for stream in one.read()]
    # One whose type may not be read may be a battery.
    dark = [one for one in supplies if only is None and one not in chosen and one.text("type") is None]
    mine += [stream for one in dark for stream in one.files.values() if stream.status == "denied"]
    told = f"no supply named {only}" if only is not None else "no battery"
    return series, sighting(source, mine, series, absent=f"{told} below /sys/class/power_supply", note="; ".join(notes))


def _absurd(one: Series) -> bool:
    return one.name.endswith(".charge_c") and bool((one.status == UNPARSED).any())


def _supplies(streams: Sequence[Stream]) -> tuple[list[Supply], list[Stream]]:
    """The supplies in the order of a person's counting, and patterns that may not be looked into."""
    by_folder: dict[str, Supply] = {}
    closed = []
    for name, spec in (_FILES | _ONCE | {"uevent": _UEVENT}).items():
        for groups, stream in matching(spec, streams):
            if "*" in groups:
                closed.append(stream)
                continue
            one = by_folder.setdefault(groups[0], Supply(groups[0]))
            if name == "uevent":
                one.uevent = stream
                one.name = one.text("name") or one.name
            else:
                one.files[name] = stream
    return list(by_folder.values()), closed


def _of_files(source: str, prefix: str, one: Supply, found: Gauge) -> list[Series]:
    made: dict[str, tuple[Stream, Raw]] = {}
    for name, stream in one.files.items():
        if name not in (*_FILES, *SIZES) or name == "online" or not len(stream.readings):
            continue
        raw = _words(stream) if name == "status" else Raw(*int_values(stream.readings))
        if name == "charge":  # held against what is read at transitions alone
            full = [n for size in SIZES if (n := last_int(one.files.get(size))) is not None and n > 0]
            most = np.full(len(stream.readings), max(full)) if full else None
            made["charge_c"] = (stream, charge_c(raw, found, None, most))
        else:
            made |= {told: (stream, counted) for told, counted in known({name: raw}, found).items()}
    series = [battery_series(source, stream, prefix, name, raw, found) for name, (stream, raw) in made.items()]
    if "current_a" in made and "voltage_v" in made:
        series.insert(0, _power(source, prefix, made["current_a"], made["voltage_v"], found))
    return series


def _power(source: str, prefix: str, amps: tuple[Stream, Raw], volts: tuple[Stream, Raw], found: Gauge) -> Series:
    """Current times the voltage read nearest to it. The stamp spans both reads: they are not of one moment."""
    stream, paired = beside(amps[0], volts[0], volts[1], APART_NS)
    return battery_series(source, stream, prefix, "power", power_w(amps[1], paired), found)


def _words(stream: Stream) -> Raw:
    """Codes of the words a status file holds."""
    codes = read_codes(stream.readings)
    values = np.array([float(STATUS.get(raw.strip().lower(), NAN)) for raw in stream.readings.raw], dtype=np.float64)
    values = values.reshape(len(codes))
    codes[(codes == OK) & np.isnan(values)] = UNPARSED
    return Raw(values, codes)


def _of_uevent(source: str, prefix: str, one: Supply, found: Gauge) -> list[Series]:
    """All that one text tells at a time, of one moment as far as a driver can."""
    if one.uevent is None or not len(one.uevent.readings):
        return []
    stream = one.uevent
    counted = table(stream, [_counts(text) if code == OK else code for code, text in answers(stream)])
    names = [name for name in counted.names if name != "online"] or (["level"] if counted.failed else [])
    told = known({name: counted.raw(name) for name in names}, found)
    return [battery_series(source, stream, prefix, name, raw, found) for name, raw in told.items()]


def _counts(text: bytes) -> dict[str, float] | int:
    """The numbers of a uevent by the names of meltbench.readings.battery.RAW, and ``online``."""
    found = properties(text)
    numbers = {key: float(match[1]) for key, value in found.items() if (match := _number.fullmatch(value))}
    out = {name: numbers[key] for key, name in _UEVENT_KEYS.items() if key in numbers}
    status = STATUS.get(found.get(b"STATUS", b"").strip().lower())
    if status is not None:
        out["status"] = float(status)
    return out or UNPARSED


def _plugged(source: str, prefix: str, others: Sequence[Supply], found: Gauge) -> list[Series]:
    """1 where any of the other supplies is online, 0 where all say that they are not."""
    lines: list[tuple[Stream, Raw]] = []
    for one in others:
        if (online := one.files.get("online")) is not None and len(online.readings):
            lines.append((online, Raw(*int_values(online.readings))))
        elif one.uevent is not None and len(one.uevent.readings):
            counted = table(one.uevent, [_counts(text) if c == OK else c for c, text in answers(one.uevent)])
            if "online" in counted.names:
                lines.append((one.uevent, counted.raw("online")))
    if not lines:
        return []
    stream, first = lines[0]
    values, codes = [first.values], [first.codes]
    for other, raw in lines[1:]:
        _, paired = beside(stream, other, raw, APART_NS)
        values.append(paired.values)
        codes.append(paired.codes)
    on = np.any([v > 0 for v in values], axis=0)
    lost = np.max(codes, axis=0)  # one that could not be read may be the one that is online
    code = np.where(on, OK, lost).astype(np.uint8)
    state = Raw(np.where(code == OK, on.astype(np.float64), NAN), code)
    return [battery_series(source, stream, prefix, "plugged", state, found)]


_ALL = OPTIONS | {"supply"}
POWER_SUPPLY = Reader(
    "power_supply", (_UEVENT, *_FILES.values(), *_ONCE.values()), parse, _ALL, asked=("heat", "charge")
)
# For devices where the files are denied and the uevent is not, or where all values should come of one read.
POWER_SUPPLY_UEVENT = Reader(
    "power_supply_uevent",
    (_UEVENT_OFTEN, _ONCE["type"], _ONCE["scope"]),
    parse,
    _ALL,
    asked=("heat", "charge"),
)
