"""Power and energy that drivers of the kernel publish below /sys/class/hwmon: microwatts and microjoules.

Documentation/hwmon/sysfs-interface.rst: ``powerN_input`` is the power of now, ``powerN_average`` the driver's own mean
over ``powerN_average_interval`` milliseconds, ``energyN_input`` a counter whose range is not published. A sensor that
is switched off answers ENODATA there; EAGAIN comes of rails that are gated (Jetson).

Intel's GPUs (chips i915, xe) count in a register of 32 bits and 2^-14 J, which their drivers extend to 64 each time
that it is read (i915_hwmon.c, hwm_energy). So what it went round unread is lost without a fall: 262144 J, 19 minutes
of 225 W.
"""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from typing import TYPE_CHECKING, cast, get_args

from meltbench.errors import DefinitionError
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
    sighting,
    unique_names,
)
from meltbench.records import GATED, OK, UNPARSED, Scope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Kind, Series, Stream

_CHIP = "/sys/class/hwmon/hwmon*/"
_VALUES = {
    "power": PathSpec(_CHIP + "power*_input"),
    "power_average": PathSpec(_CHIP + "power*_average"),
    "energy": PathSpec(_CHIP + "energy*_input"),
}
_NAME = PathSpec(_CHIP + "name", periodic=False)
_LABELS = {
    "power": PathSpec(_CHIP + "power*_label", periodic=False),
    "energy": PathSpec(_CHIP + "energy*_label", periodic=False),
}
_INTERVAL = PathSpec(_CHIP + "power*_average_interval", periodic=False)
_OPTIONS = frozenset({"chip", "scope", "power_class", "energy_class"})
# The range that is lost where nobody reads in time; it tells measure.counters after which pause a reading says nothing.
_RANGES_J = {"i915": 2.0**32 / 2**14, "xe": 2.0**32 / 2**14}
_LONGEST_MS = 600_000  # of an average; what a driver says beyond it is not believed
_odd = re.compile(r"[^A-Za-z0-9_.+-]")
Key = tuple[str, str, str]  # hwmon number, power or energy, number of the input


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``hwmon.CHIP.LABEL.power`` and ``.power_average`` in watts, ``.energy`` in joules; without a label ``power1`` ...

    A ``power_average`` is a trailing mean, of the length that its interval says: what a phase cost leaks into the next.
    Values keep their sign: a rail that is fed back reads below 0, and one without a load 0. A counter below 0 is none.
    """
    scope, classes, only = _read(options)
    chips = {groups[0]: _word(last_text(stream)) or "chip" for groups, stream in matching(_NAME, streams)}
    found = [
        (what, groups, stream)
        for what, spec in _VALUES.items()
        for groups, stream in matching(spec, streams)
        # A folder that may not be looked into has no inputs that are known.
        if stream.status == "denied" or (groups[1].isdigit() and only in (None, chips.get(groups[0])))
    ]
    names = _names(found, chips, streams)
    windows = {folder(s.path) + groups[1]: last_int(s) for groups, s in matching(_INTERVAL, streams)}
    series = []
    for what, groups, stream in found:
        if not len(stream.readings):
            continue
        kind: Kind = "counter" if what == "energy" else "gauge"
        column = Column(names[_key(what, groups), what], "J" if what == "energy" else "W", kind, scope)
        wrap = _RANGES_J.get(chips.get(groups[0], "")) if kind == "counter" else None
        one = _series(source, stream, column, classes[what], wrap)
        if what == "power_average":
            ms = windows.get(folder(stream.path) + groups[1])
            one = replace(one, window_s=ms / 1000 if ms is not None and 0 < ms <= _LONGEST_MS else None)
        series.append(one)
    mine = [stream for _, _, stream in found]
    absent = f"no power or energy input{'' if only is None else f' of a chip named {only}'} below /sys/class/hwmon"
    return series, sighting(source, mine, series, absent=absent)


def _series(source: str, stream: Stream, column: Column, klass: str, wrap: float | None) -> Series:
    counts, codes = int_values(stream.readings)
    codes[stream.readings.err == errno.ENODATA] = GATED
    if column.kind == "counter":
        below = (codes == OK) & (counts < 0)
        codes[below], counts[below] = UNPARSED, NAN
    return make_series(source, stream, column, counts * 1e-6, codes, klass=klass, wrap=wrap)


def _key(what: str, groups: Sequence[str]) -> Key:
    return groups[0], what.partition("_")[0], groups[1]


def _names(
    found: Sequence[tuple[str, tuple[str, ...], Stream]], chips: Mapping[str, str], streams: Sequence[Stream]
) -> dict[tuple[Key, str], str]:
    """A name for each value. Those that share chip and label are told apart; input and average of one stay together."""
    labels = {
        (groups[0], what, groups[1]): _word(last_text(stream))
        for what, spec in _LABELS.items()
        for groups, stream in matching(spec, streams)
    }
    keys = list(dict.fromkeys(_key(what, groups) for what, groups, _ in found))
    plain = unique_names(
        f"{what}|hwmon.{chips.get(chip, 'chip')}.{labels.get((chip, what, n)) or what + n}" for chip, what, n in keys
    )
    bases = {key: name.partition("|")[2] for key, name in zip(keys, plain, strict=True)}
    out = {}
    for what, groups, _ in found:
        key = _key(what, groups)
        # "power1" says already what it is.
        suffix = f".{what}" if labels.get(key) else what.removeprefix(key[1])
        out[key, what] = bases[key] + suffix
    return out


def _word(text: str | None) -> str:
    return _odd.sub("_", text or "")


def _read(options: Mapping[str, object]) -> tuple[Scope, dict[str, str], str | None]:
    """Scope, class by value, and the one chip to take.

    Defaults: what a chip measures is one supply among others, unless the profile knows its place. A power is an ADC
    behind a shunt (class C of docs/measuring.md), an energy is accumulated by hardware (class B); the interface
    publishes no accuracy, so a profile that knows the chip's states it.
    """
    scope = options.get("scope", "rail")
    if scope not in get_args(Scope):
        raise DefinitionError(f"scope is {scope!r}", hint=f"one of {', '.join(get_args(Scope))}")
    classes = {"power": options.get("power_class", "C"), "energy": options.get("energy_class", "B")}
    for what, klass in classes.items():
        if klass not in ("A", "B", "C", "D", "E"):
            raise DefinitionError(f"{what}_class is {klass!r}", hint="one of A, B, C, D, E (docs/measuring.md)")
    chip = options.get("chip")
    if chip is not None and (not isinstance(chip, str) or not chip):
        raise DefinitionError(f"chip is {chip!r}", hint='the text of the file "name" of a hwmon folder, like "ina238"')
    power, energy = str(classes["power"]), str(classes["energy"])
    return cast("Scope", scope), {"power": power, "power_average": power, "energy": energy}, chip


HWMON = Reader("hwmon", (*_VALUES.values(), _NAME, *_LABELS.values(), _INTERVAL), parse, _OPTIONS)
