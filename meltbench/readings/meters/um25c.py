"""RDTech USB meters (UM25C, UM24C, UM34C, also TC66C): the logs of the programs that read them over Bluetooth.

rd-usb exports CSV with the unit in the header, its "Accumulated power" being an energy in mWh, and unix time beside
the wall clock; rdserialtool prints an object a line. Both pass on what the meter says: it brings its values up to date
twice a second and counts mWh in a register of its own. A column without a unit is taken only under the names of
rd-usb's own fields, whose units its documentation gives.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from meltbench.readings.base import Reader
from meltbench.readings.meters.common import OPTIONS, Asked, Found, Reply, number, parse_replies, said, value_of
from meltbench.readings.meters.text import Table, iso_ns, seconds_ns, time_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

UPDATE_S = 0.5
_NAMES = {
    "unix time": ("unix", ""),
    "timestamp": ("unix", ""),
    "time": ("wall", ""),
    "voltage": ("voltage_v", "v"),
    "current": ("current_a", "a"),
    "power": ("power", "w"),
    "accumulated power": ("energy", ""),
    "accumulated_power": ("energy", "mwh"),
    "accumulated energy": ("energy", ""),
    "energy": ("energy", ""),
}
_QUANTITIES = ("power", "energy", "voltage_v", "current_a")
_KEYS = (("watts", "power", 1.0), ("volts", "voltage_v", 1.0), ("amps", "current_a", 1.0))


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``meter.power``, ``.energy`` (of the meter's own counter), ``.voltage_v``, ``.current_a``."""
    asked = Asked.of(options, scope="module", window_s=UPDATE_S)
    take = partial(_take, Table(_NAMES))
    return parse_replies(source, streams, asked, take, absent="no log of a UM meter was recorded", update_s=UPDATE_S)


def _take(table: Table, reply: object) -> Reply | None:
    if isinstance(reply, dict):
        return _object(reply)
    row = table.row(reply) if isinstance(reply, str) else {}
    if row is None:
        return Reply((), header=True)
    found = [
        Found(0, quantity, value)
        for quantity in _QUANTITIES
        if quantity in row and (value := table.value(row, quantity)) is not None
    ]
    t_ns = seconds_ns(row.get("unix", "")) or iso_ns(row.get("wall"))
    return Reply(found, t_ns) if found else None


def _object(reply: Mapping[str, Any]) -> Reply | None:
    """What rdserialtool prints: the data group that is selected has the energy in Wh."""
    found = said(reply, 0, _KEYS)
    groups, selected = reply.get("data_groups"), reply.get("data_group_selected")
    if isinstance(groups, list) and isinstance(selected, int) and 0 <= selected < len(groups):
        group = groups[selected]
        if isinstance(group, dict) and "watt_hours" in group:
            found.append(value_of(0, "energy", group["watt_hours"], 3600.0))
    t = number(reply.get("collection_time"))
    return Reply(found, None if t is None else time_ns(0, round(t * 1e6) * 1000)) if found else None


UM25C = Reader("um25c", (), parse, OPTIONS - {"address", "channel"})
