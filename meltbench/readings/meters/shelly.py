"""Shelly plugs and meters, both families of their HTTP interface.

First generation (/status, /meter/0, /emeter/0; shelly-api-docs.shelly.cloud/gen1): ``meters`` give W and a ``total``
in watt-minutes, ``emeters`` W and a ``total`` in watt-hours. Since the second (Shelly.GetStatus, Switch.GetStatus): W
as ``apower`` or ``act_power``, ``aenergy.total`` in Wh beside ``by_minute`` in mWh, which is not read. A Shelly 1 has
no meter and says 0 W or what its owner entered: it has no ``total`` either, and nothing of it is taken.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from meltbench.readings.base import Reader
from meltbench.readings.meters.common import (
    MAX_CHANNELS,
    OPTIONS,
    PLUG_UPDATE_S,
    Asked,
    Found,
    Reply,
    failed,
    live,
    number,
    parse_replies,
    said,
    value_of,
)
from meltbench.readings.meters.text import time_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

WATT_MINUTE_J, WATT_HOUR_J = 60.0, 3600.0
_part = re.compile(r"(switch|pm1|cover|light|em|em1|emdata|em1data):(\d{1,2})", re.ASCII)
_LIVE = (
    *(("apower", "power", 1.0), ("act_power", "power", 1.0)),
    *(("voltage", "voltage_v", 1.0), ("current", "current_a", 1.0)),
)
_PHASES = ("a", "b", "c")


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``meter.power``, ``.energy``, ``.voltage_v``, ``.current_a`` of each channel; of three phases channels 0 to 2."""
    asked = Asked.of(options, window_s=PLUG_UPDATE_S)
    absent = "no reply of a Shelly: its profile names no address, or nothing was recorded"
    return parse_replies(source, streams, asked, _take, absent=absent, update_s=PLUG_UPDATE_S)


def _take(reply: object) -> Reply | None:
    if not isinstance(reply, dict):
        return None
    if isinstance(inner := reply.get("result", reply.get("params")), dict):  # the frame of an RPC
        reply = inner
    found = [*_first(reply)] or [*_second(reply)]
    return Reply(found, _time_ns(reply)) if found else None


def _time_ns(reply: Mapping[str, Any]) -> int | None:
    """Unix time of the plug's clock: of a status in whole seconds, of a notification (``ts``) with a fraction."""
    clock = reply.get("sys")
    told = [number(one) for one in (reply.get("ts"), clock.get("unixtime") if isinstance(clock, dict) else None)]
    told.append(number(reply.get("unixtime")))
    # 0 is a clock that has not been set yet.
    unix = next((one for one in told if one is not None and one >= 1), None)
    return None if unix is None else time_ns(0, round(unix * 1e3) * 1_000_000)


def _first(reply: Mapping[str, Any]) -> Iterator[Found]:
    """Of the first generation: lists in a status, or one meter by itself, told by the keys beside its total."""
    for key, scale in (("meters", WATT_MINUTE_J), ("emeters", WATT_HOUR_J)):
        meters = reply.get(key)
        for channel, meter in enumerate(meters[:MAX_CHANNELS] if isinstance(meters, list) else ()):
            if isinstance(meter, dict):
                yield from _meter(meter, channel, scale)
    if "total_returned" in reply:
        yield from _meter(reply, 0, WATT_HOUR_J)
    elif "counters" in reply:
        yield from _meter(reply, 0, WATT_MINUTE_J)


def _meter(meter: Mapping[str, Any], channel: int, scale: float) -> Iterator[Found]:
    if "total" not in meter:
        return
    if meter.get("is_valid") is False:
        yield from (failed(channel), failed(channel, "energy"))
        return
    keys = (("power", "power", 1.0), ("total", "energy", scale), _LIVE[2], _LIVE[3])
    yield from said(meter, channel, keys)


def _second(reply: Mapping[str, Any]) -> Iterator[Found]:
    """Of the second generation and later: components of a status, or one by itself."""
    parts = [(found, reply[key]) for key in [*reply][:256] if (found := _part.fullmatch(key)) is not None]
    if not parts:
        yield from _component(reply, _id(reply))
        yield from _phases(reply)
    for found, part in parts:
        if isinstance(part, dict) and found[1] in ("em", "emdata"):
            yield from _phases(part)
        elif isinstance(part, dict) and int(found[2]) < MAX_CHANNELS:
            yield from _component(part, int(found[2]))


def _id(reply: Mapping[str, Any]) -> int:
    own = number(reply.get("id"))
    return int(own) if own is not None and 0 <= own < MAX_CHANNELS else 0


def _component(part: Mapping[str, Any], channel: int) -> Iterator[Found]:
    errors = part.get("errors")
    broken = isinstance(errors, list) and any(isinstance(one, str) and "power_meter" in one for one in errors)
    if broken:
        yield failed(channel)
    elif "apower" in part or "act_power" in part:
        yield from said(part, channel, _LIVE)
    energy = part.get("aenergy")
    total = energy.get("total") if isinstance(energy, dict) else part.get("total_act_energy")
    if isinstance(energy, dict) or "total_act_energy" in part:
        yield value_of(channel, "energy", total, WATT_HOUR_J)


def _phases(part: Mapping[str, Any]) -> Iterator[Found]:
    for channel, phase in enumerate(_PHASES):
        keys = (
            (f"{phase}_act_power", "power", 1.0),
            (f"{phase}_total_act_energy", "energy", WATT_HOUR_J),
            (f"{phase}_voltage", "voltage_v", 1.0),
            (f"{phase}_current", "current_a", 1.0),
        )
        yield from said(part, channel, keys)


SHELLY = Reader("shelly", (), parse, OPTIONS, live("shelly"))
