"""What external meters share: the options of a profile, replies that were asked for or recorded, and their series.

A meter is read by its helper (runners/helpers/meter.py), which prints what the meter answered, or from a log that its
own program wrote. Both come to a *reply*, an object or a line of text, and a pure function per kind of meter finds the
values in it. A live reply is stamped around the asking. Of a log the time that the source wrote is taken: unix time, or
its wall clock as if it were UTC, or seconds from its start, as the reader says; where it writes none, the capture's.

Series: ``meter.power`` (W), ``meter.energy`` (J counter), ``meter.voltage_v``, ``meter.current_a``; of several channels
``meter.ch1.power`` and so on, unless the profile names one. ``meter.lost`` holds replies that gave no reading.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

import numpy as np

from meltbench.errors import DefinitionError
from meltbench.readings.base import Column, Helper, read_codes
from meltbench.readings.helper import Line, Sink, Span, count, json_object, parse_lines, stamps
from meltbench.records import ERROR, OK, UNPARSED, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Kind, Series, Stream

OPTIONS = frozenset({"address", "channel", "scope", "power_class", "energy_class", "window_s"})
PLUG_UPDATE_S = 1.0  # smart plugs bring their values up to date about once a second, from what came in since
MAX_CHANNELS = 64
MAX_NUMBER = 1e15
MAX_REPLY = 64 << 10  # characters of a reply that goes over several lines of a log
_UNITS: dict[str, tuple[str, Kind]] = {
    "power": ("W", "gauge"),
    "energy": ("J", "counter"),
    "voltage_v": ("V", "gauge"),
    "current_a": ("A", "gauge"),
}
CLASSES = ("A", "B", "C", "D", "E")


@dataclass(frozen=True)
class Asked:
    """What a profile says of a meter: the one ``channel`` to take (None: all), the ``scope`` of what is behind it, the
    error classes of its power and its energy, and the length of the mean that its power is (``window_s``; None: nobody
    knows)."""

    channel: int | None
    scope: Scope
    power_class: str
    energy_class: str
    window_s: float | None

    @classmethod
    def of(
        cls,
        options: Mapping[str, object],
        *,
        scope: Scope = "wall",
        power_class: str = "C",
        energy_class: str = "B",
        window_s: float | None = None,
    ) -> Asked:
        """The options, checked; the rest says what holds where a profile says nothing. Raises DefinitionError."""
        where = options.get("scope", scope)
        if where not in get_args(Scope):
            raise DefinitionError(f"scope is {where!r}", hint=f"one of {', '.join(get_args(Scope))}")
        classes = {"power_class": power_class, "energy_class": energy_class}
        for name, otherwise in classes.items():
            classes[name] = str(options.get(name, otherwise))
            if classes[name] not in CLASSES:
                raise DefinitionError(f"{name} is {options[name]!r}", hint="one of A, B, C, D, E (docs/measuring.md)")
        channel = options.get("channel")
        if channel is not None and not (isinstance(channel, int) and 0 <= channel < MAX_CHANNELS):
            raise DefinitionError(f"channel is {channel!r}", hint=f"a number from 0 to {MAX_CHANNELS - 1}")
        _check_address(options.get("address"))
        window = window_s if "window_s" not in options else between(options, "window_s", 0, 3600)
        return cls(channel, cast("Scope", where), classes["power_class"], classes["energy_class"], window)


def _check_address(address: object) -> None:
    good = isinstance(address, str) and 0 < len(address) <= 255 and address.isprintable() and address[0] != "-"
    if address is not None and not good:
        raise DefinitionError(f"address is {address!r}", hint='a name or an address, like "192.0.2.7"')


def between(options: Mapping[str, object], name: str, low: float, high: float) -> float:
    """A number among the options. Raises DefinitionError for anything else."""
    value = number(options[name])
    if value is None or not low <= value <= high:
        raise DefinitionError(f"{name} is {options[name]!r}", hint=f"a number from {low:g} to {high:g}")
    return value


def one_of(options: Mapping[str, object], name: str, words: Sequence[str]) -> str | None:
    """A word among the options, None where it is not given. Raises DefinitionError for any other."""
    value = options.get(name)
    if value is not None and value not in words:
        raise DefinitionError(f"{name} is {value!r}", hint=f"one of {', '.join(words)}")
    return cast("str | None", value)


def live(command: str, script: str = "meter") -> Helper:
    """The helper that asks a meter of this kind."""
    return Helper(script, command=command, told=("address",))


def number(value: object) -> float | None:
    """A finite number of a size that a meter can say, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MAX_NUMBER:
        return None
    return float(value) if math.isfinite(value) else None


class Found(NamedTuple):
    """One value of a reply: ``channel`` None is of the meter as a whole; without a value a code that says why."""

    channel: int | None
    quantity: str
    value: float | None
    code: int = OK


class Reply(NamedTuple):
    """The values of one reply, the time that the source wrote, and how long its power is the mean of where it says so.

    ``note``: what there is to say of it; ``header``: it names what comes after it and has no values to miss.
    """

    found: Sequence[Found]
    t_ns: int | None = None
    note: str = ""
    header: bool = False
    window_s: float | None = None


def value_of(channel: int | None, quantity: str, said: object, scale: float = 1.0) -> Found:
    """The value that a reply holds under a key, in ``scale`` units of the series; a wrong one has the code for it."""
    found = number(said)
    return Found(channel, quantity, *((found * scale, OK) if found is not None else (None, UNPARSED)))


def said(reply: Mapping[str, Any], channel: int | None, keys: Iterable[tuple[str, str, float]]) -> list[Found]:
    """Of (key, quantity, scale) those that a reply holds, a quantity once."""
    out: dict[str, Found] = {}
    for key, quantity, scale in keys:
        if key in reply:
            out.setdefault(quantity, value_of(channel, quantity, reply[key], scale))
    return [*out.values()]


def parse_replies(
    source: str,
    streams: Sequence[Stream],
    asked: Asked,
    take: Callable[[object], Reply | None],
    *,
    absent: str,
    update_s: float = 0.0,
) -> tuple[list[Series], Sighting]:
    """The series of a meter. ``take`` finds the values of a reply, None where it is no reply of this meter."""
    notes: dict[str, None] = {}
    windows: list[float] = []

    def put(line: Line, sink: Sink) -> bool:
        reply = take(line.data["reply"])
        if reply is None or reply.header:
            return reply is not None
        notes.setdefault(reply.note)
        if reply.window_s is not None:
            windows.append(reply.window_s)
        outlet = count(line.data.get("channel"))  # of a strip, whose outlets are asked one by one
        found = [one if outlet is None else one._replace(channel=int(outlet)) for one in reply.found]
        found = [one for one in found if asked.channel in (None, one.channel)]
        (span,) = stamps(line, "t0_ns", "t1_ns")
        if line.log and reply.t_ns is not None and "t0_ns" not in line.data:  # a helper's stamps are nearer
            span = Span(reply.t_ns, reply.t_ns)
        several = outlet is not None or len({one.channel for one in found} - {None}) > 1
        for one in found:
            name = series_name(one, alone=asked.channel is not None or not several)
            unit, kind = _UNITS[one.quantity]
            klass = asked.energy_class if kind == "counter" else asked.power_class if unit in ("W", "A") else None
            series = sink.at(
                Column(name, unit, kind, asked.scope),
                klass=klass,
                update_s=update_s if kind == "counter" else 0.0,
                window_s=0.0 if kind == "counter" else asked.window_s,
            )
            series.add(span, one.value, one.code if one.value is None else OK)
        return bool(found)

    lines = partial(meter_lines, joined=True)
    series, seen = parse_lines(source, streams, put, lost="meter.lost", absent=absent, lines=lines)
    notes |= dict.fromkeys(filter(None, map(_steps, series)))
    if windows and asked.window_s is None:
        length = round(float(np.median(windows)), 6)
        series = [replace(one, window_s=length) if one.unit in ("W", "A") else one for one in series]
    return series, replace(seen, note="; ".join(filter(None, (seen.note, *notes))))


def spaced(one: Series) -> Series:
    """A value of an instrument that follows its last one without a gap: what it is a mean of is the time since then."""
    apart = np.diff(one.t0_ns)
    apart = apart[apart > 0]
    if one.unit not in ("W", "A") or one.window_s is not None or not len(apart):
        return one
    return replace(one, window_s=round(float(np.median(apart)) / 1e9, 6))


def series_name(one: Found, *, alone: bool) -> str:
    """What the series of a value is called; ``alone``: there is one channel, or one was asked for."""
    return f"meter.{one.quantity}" if alone or one.channel is None else f"meter.ch{one.channel}.{one.quantity}"


def _steps(one: Series) -> str:
    """What the values say of their own coarseness: whole watts are told by none of them having a fraction."""
    good = one.value[np.isfinite(one.value)]
    whole = one.unit == "W" and good.any() and bool((good == np.round(good)).all())
    return f"{one.name} comes in steps of 1 W" if whole else ""


def meter_lines(streams: Sequence[Stream], joined: bool = False) -> Iterator[Line]:
    """Every reply of a meter, an object or a line of text: ``data`` holds it under "reply" beside what its helper said
    with it. ``joined``: in a log an object may go over several lines, as JSON that was printed for people does."""
    for stream in streams:
        if stream.kind not in ("lines", "log"):
            continue
        log = stream.kind == "log"
        r = stream.readings
        codes = read_codes(r).tolist()
        rows = zip(r.t0_ns.tolist(), r.t1_ns.tolist(), codes, r.raw, strict=True)
        found = _joined(rows) if joined and log else rows
        for t0, t1, code, raw in found:
            arrival = Span(t0, t1)
            if code != OK:
                yield Line(arrival, code, {}, log)
                continue
            text = raw.decode("utf-8", "replace").strip("\r\n")
            data = json_object(raw) if text.lstrip()[:1] == "{" else None
            if data is None and not text.strip():
                continue  # an empty line between others says nothing
            if data is not None and ("cannot" in data or "reply" in data):
                yield Line(arrival, OK, data, log)
            else:
                yield Line(arrival, OK, {"reply": data if data is not None else text}, log)


Row = tuple[int, int, int, bytes]


def _joined(rows: Iterable[Row]) -> Iterator[Row]:
    """Lines of a log, those of an object that was printed over several lines as one.

    Such an object begins with a line that is a brace and ends with one that begins with its like. What comes to no
    object is given line by line, so that no line is looked at more than twice.
    """
    held: list[Row] = []
    size = 0
    for row in rows:
        text = row[3].strip()
        begins = text in (b"{", b"[{") or (text[:1] == b"{" and not _whole(text))
        if held and (row[3][:1] == b"}" or size > MAX_REPLY):
            whole = b"".join(one[3] if one[3].endswith(b"\n") else one[3] + b"\n" for one in [*held, row])
            t0, t1 = held[0][0], row[1]
            if _whole(whole):
                yield t0, t1, OK, whole
            else:
                yield from [*held, row]
            held, size = [], 0
        elif held or (begins and row[2] == OK):
            held.append(row)
            size += len(row[3])
        else:
            yield row
    yield from held


def _whole(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def refused(reason: str) -> Reply:
    """A reply that was understood and may not be taken, with the reason for it."""
    return Reply((Found(None, "power", None, UNPARSED),), note=reason)


def failed(channel: int | None, quantity: str = "power") -> Found:
    """A value that the meter itself says is none."""
    return Found(channel, quantity, None, ERROR)
