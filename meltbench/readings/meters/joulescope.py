"""Joulescope JS110 and JS220: statistics that the instrument works out of all its samples, and the UI's CSV of them.

pyjoulescope_driver's statistics object: means over ``time.range``, accumulators of charge and energy since the start,
as floats and as whole numbers of a scale beside them (``int_value`` x ``int_scale``), each with its units. The UI
writes "#time,current,voltage,power,charge,energy" in s, A, V, W, C, J. The times are the instrument's own, from the
start of its stream, so a log of them stands beside no other clock.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from meltbench.readings.base import Reader
from meltbench.readings.meters.common import (
    OPTIONS,
    Asked,
    Found,
    Reply,
    live,
    number,
    parse_replies,
    spaced,
    value_of,
)
from meltbench.readings.meters.text import AMPS, JOULES, VOLTS, WATTS, Table, seconds_ns
from meltbench.records import UNPARSED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

# A statistic is there a USB transfer and a callback after its end; nothing in it says how long after.
UPDATE_S = 0.01
_SIGNALS = {"power": ("power", WATTS), "voltage": ("voltage_v", VOLTS), "current": ("current_a", AMPS)}
_MEANS = ("avg", "µ", "mean")  # of the driver, of the older package, of exports
_NAMES = {
    "time": ("time_s", "s"),
    "current": ("current_a", "a"),
    "voltage": ("voltage_v", "v"),
    "power": ("power", "w"),
    "energy": ("energy", "j"),
}
_QUANTITIES = ("power", "energy", "voltage_v", "current_a")


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``meter.power`` (mean over each statistic), ``.energy`` (the accumulator), ``.voltage_v``, ``.current_a``."""
    asked = Asked.of(options, scope="module", power_class="A", energy_class="A")
    absent = "no Joulescope: none at the machine, or nothing was recorded"
    take = partial(_take, Table(_NAMES))
    series, seen = parse_replies(source, streams, asked, take, absent=absent, update_s=UPDATE_S)
    return [spaced(one) for one in series], seen


def _take(table: Table, reply: object) -> Reply | None:
    if isinstance(reply, dict):
        return _statistics(reply)
    row = table.row(reply) if isinstance(reply, str) else {}
    if row is None:
        return Reply((), header=True)
    found = [
        Found(0, quantity, value)
        for quantity in _QUANTITIES
        if quantity in row and (value := table.value(row, quantity)) is not None
    ]
    return Reply(found, seconds_ns(row.get("time_s", ""))) if found else None


def _statistics(reply: Mapping[str, Any]) -> Reply | None:
    signals = _dict(reply.get("signals"))
    found = []
    for name, (quantity, units) in _SIGNALS.items():
        signal = _dict(signals.get(name))
        mean = next((_dict(signal[key]) for key in _MEANS if key in signal), None)
        if mean is not None:
            found.append(_with_unit(quantity, mean, units))
    energy = _dict(_dict(reply.get("accumulators")).get("energy"))
    if energy:
        found.append(_with_unit("energy", energy, JOULES))
    if not found:
        return None
    time = _dict(_dict(reply.get("time")).get("range")).get("value")
    ends = [number(one) for one in time] if isinstance(time, list) and len(time) == 2 else []
    if len(ends) != 2 or ends[0] is None or ends[1] is None or not 0 <= ends[0] < ends[1] < 1e9:
        return Reply(found)
    return Reply(found, round(ends[1] * 1e9), window_s=ends[1] - ends[0])


def _with_unit(quantity: str, said: Mapping[str, Any], units: Mapping[str, float]) -> Found:
    """A value with its own units. Of an accumulator the whole number: a float of it loses its last digits."""
    unit = said.get("units")
    scale = units.get(unit.lower().replace("µ", "u")) if isinstance(unit, str) else None
    if scale is None:
        return Found(0, quantity, None, UNPARSED)
    step = number(said.get("int_scale"))
    whole = said.get("int_value")
    if step is not None and isinstance(whole, int) and abs(whole) < 1 << 120 and 0 < step < 1:
        return value_of(0, quantity, whole * step, scale)
    return value_of(0, quantity, said.get("value"), scale)


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


JOULESCOPE = Reader("joulescope", (), parse, OPTIONS - {"channel"}, live("joulescope", "instrument"))
