"""TP-Link plugs, Kasa and Tapo, as they answer (python-kasa's fixtures and its EmeterStatus).

The unit is the key's: ``power`` W, ``current`` A, ``voltage`` V, ``total`` kWh of the first firmwares; ``power_mw``,
``current_ma``, ``voltage_mv``, ``total_wh`` of later ones. Tapo has ``current_power`` in whole watts in its answer to
get_current_power, and in milliwatts under the same key in its answer to get_energy_usage, which is told by the method
or by the keys beside it. Where neither tells, ``power_unit`` must, and without it the reply is refused: one plug gave
17 and 17654 for the same load.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from meltbench.readings.base import Reader
from meltbench.readings.meters.common import (
    OPTIONS,
    PLUG_UPDATE_S,
    Asked,
    Found,
    Reply,
    failed,
    live,
    one_of,
    parse_replies,
    refused,
    said,
    value_of,
)
from meltbench.readings.meters.text import iso_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_UNITS = {"W": 1.0, "mW": 1e-3}
# Later keys first: a reply may hold both forms, and whole watts are the coarser ones.
_KEYS = (
    *(("power_mw", "power", 1e-3), ("power", "power", 1.0)),
    *(("total_wh", "energy", 3600.0), ("total", "energy", 3.6e6), ("energy_wh", "energy", 3600.0)),
    *(("voltage_mv", "voltage_v", 1e-3), ("voltage", "voltage_v", 1.0)),
    *(("current_ma", "current_a", 1e-3), ("current", "current_a", 1.0)),
)
_USAGE = ("today_energy", "month_energy", "today_runtime", "electricity_charge")
_METERS = ("emeter", "smartlife.iot.common.emeter")


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``meter.power``, ``.energy``, ``.voltage_v``, ``.current_a``. A Tapo's energy is the month's, and starts anew."""
    asked, unit = Asked.of(options, window_s=PLUG_UPDATE_S), one_of(options, "power_unit", tuple(_UNITS))
    absent = "no reply of a Kasa or Tapo plug: its profile names no address, or nothing was recorded"
    return parse_replies(source, streams, asked, partial(_take, unit), absent=absent, update_s=PLUG_UPDATE_S)


def _take(unit: str | None, reply: object) -> Reply | None:
    if not isinstance(reply, dict):
        return None
    methods = _methods(reply)
    for name in _METERS:
        inner = methods.get(name)
        if isinstance(inner, dict) and isinstance(inner.get("get_realtime"), dict):
            return _realtime(inner["get_realtime"])
    if any(name in methods for name in ("get_emeter_data", "get_energy_usage", "get_current_power")):
        return _smart(methods)
    if reply.get("error_code", 0) != 0:
        return Reply((failed(0),))
    inner = reply.get("result")  # a Tapo's own answer to one method does not name it
    reply = inner if isinstance(inner, dict) else reply
    if "current_power" in reply:
        return _bare(reply, unit)
    return _realtime(reply)


def _methods(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The answers by method, whatever frame they came in."""
    inner = reply.get("result", reply)
    inner = inner if isinstance(inner, dict) else reply
    answers = inner.get("responses")
    if isinstance(answers, list):
        parts = [one for one in answers[:64] if isinstance(one, dict)]
        return {str(one.get("method")): one.get("result") for one in parts}
    if isinstance(method := reply.get("method"), str):
        return {method: inner}
    return dict(inner)


def _realtime(reply: Mapping[str, Any]) -> Reply | None:
    if reply.get("err_code", 0) != 0:
        return Reply((failed(0),))
    found = said(reply, 0, _KEYS)
    return Reply(found) if found else None


def _smart(methods: Mapping[str, Any]) -> Reply:
    """What a Tapo says by method; the finest power first."""
    data, usage, power = (
        _dict(methods.get(f"get_{name}")) for name in ("emeter_data", "energy_usage", "current_power")
    )
    found = said(data, 0, _KEYS)
    more = [*_usage(usage), *([value_of(0, "power", power["current_power"])] if "current_power" in power else [])]
    known = {one.quantity for one in found}
    for one in more:
        if one.quantity not in known:
            known.add(one.quantity)
            found.append(one)
    # An answer that holds no value is an error of the plug's.
    return Reply(found or (failed(0),), iso_ns(usage.get("local_time")))


def _usage(usage: Mapping[str, Any]) -> list[Found]:
    return said(usage, 0, (("current_power", "power", 1e-3), ("month_energy", "energy", 3600.0)))


def _bare(reply: Mapping[str, Any], unit: str | None) -> Reply:
    """``current_power`` without its method: the keys of get_energy_usage beside it tell milliwatts."""
    if any(key in reply for key in _USAGE):
        return Reply(_usage(reply), iso_ns(reply.get("local_time")))
    if unit is None:
        return refused('current_power may be W or mW: the profile must say power_unit = "W" or "mW"')
    return Reply((value_of(0, "power", reply["current_power"], _UNITS[unit]),))


def _dict(answer: object) -> Mapping[str, Any]:
    return answer if isinstance(answer, dict) else {}


KASA = Reader("kasa", (), parse, OPTIONS | {"power_unit"}, live("kasa"))
