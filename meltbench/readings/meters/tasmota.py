"""Plugs with Tasmota: the answer to ``Status 8``, or what they publish by themselves.

tasmota.github.io/docs/Energy-Monitoring: W (whole watts unless the command ``WattRes`` says otherwise), a total in kWh
(three decimals unless ``EnergyRes`` does: a step is 3600 J, so a short run needs the power). Of several channels
values are lists; the total may stay one for all. The time is the plug's wall clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.readings.base import Reader
from meltbench.readings.helper import json_object
from meltbench.readings.meters.common import (
    MAX_CHANNELS,
    OPTIONS,
    PLUG_UPDATE_S,
    Asked,
    Found,
    Reply,
    live,
    parse_replies,
    value_of,
)
from meltbench.readings.meters.text import iso_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_KEYS = (
    *(("Power", "power", 1.0), ("Total", "energy", 3.6e6)),
    *(("Voltage", "voltage_v", 1.0), ("Current", "current_a", 1.0)),
)


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``meter.power``, ``.energy``, ``.voltage_v``, ``.current_a``; of several channels each, and the total of all."""
    asked = Asked.of(options, window_s=PLUG_UPDATE_S)
    absent = "no reply of a Tasmota: its profile names no address, or nothing was recorded"
    return parse_replies(source, streams, asked, _take, absent=absent, update_s=PLUG_UPDATE_S)


def _take(reply: object) -> Reply | None:
    if isinstance(reply, str):  # its console and MQTT logs have a topic before the object
        reply = json_object(reply[max(reply.find("{"), 0) :].encode())
    if not isinstance(reply, dict):
        return None
    sensors = reply.get("StatusSNS", reply)
    energy = sensors.get("ENERGY") if isinstance(sensors, dict) else None
    if not isinstance(energy, dict):
        return None
    found = [one for key, quantity, scale in _KEYS if key in energy for one in _values(energy[key], quantity, scale)]
    several = sum(one.quantity == "power" for one in found) > 1
    if not several:  # a meter of one channel has lists of one, or none
        found = [one._replace(channel=0) for one in found]
    return Reply(found, iso_ns(sensors.get("Time")))


def _values(said: Any, quantity: str, scale: float) -> Iterator[Found]:
    """One value for all channels, or a list of one each."""
    if isinstance(said, list):
        yield from (value_of(at, quantity, one, scale) for at, one in enumerate(said[:MAX_CHANNELS]))
    else:
        yield value_of(None, quantity, said, scale)


TASMOTA = Reader("tasmota", (), parse, OPTIONS, live("tasmota"))
