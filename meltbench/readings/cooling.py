"""What the kernel does against heat: the state of each cooling device, and the over-current events of a Jetson.

Documentation/driver-api/thermal/sysfs-api.rst: ``cur_state`` is 0 where the device does not cool. On Jetson those of a
type that ends in "-throttle-alert" say that the firmware throttles for heat. NVIDIA's developer guide: the
``ocN_event_cnt`` of the hwmon folder soctherm_oc count under-voltage and over-current, for which clocks are cut for
a moment that no sampler sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meltbench.readings.base import (
    NAN,
    Column,
    PathSpec,
    Reader,
    folder,
    int_values,
    last_text,
    make_series,
    matching,
    sighting,
    unique_names,
)
from meltbench.readings.signals import plain
from meltbench.records import OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_STATE = PathSpec("/sys/class/thermal/cooling_device*/cur_state")
_TYPE = PathSpec("/sys/class/thermal/cooling_device*/type", periodic=False)
_EVENTS = PathSpec("/sys/class/hwmon/hwmon*/oc*_event_cnt")
_ALERT, _SLOWDOWN = "-throttle-alert", "thermal_slowdown"


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``cooling.NAME.thermal_slowdown`` (1 while NAME-throttle-alert is not 0), ``cooling.TYPE.state`` of all others,
    ``soctherm.ocN.events`` (events since boot). Devices of one type are counted in the order of their numbers."""
    del options  # this reader knows none
    states = matching(_STATE, streams)
    types = {folder(stream.path): last_text(stream) for _, stream in matching(_TYPE, streams)}
    kinds = [types.get(folder(stream.path)) or "untyped" for _, stream in states]
    columns = [Column(f"cooling.{_name(kind)}", "1", "state") for kind in unique_names(kinds)]
    events = matching(_EVENTS, streams)
    counters = unique_names(f"oc{plain(groups[1])}" for groups, _ in events)
    columns += [Column(f"soctherm.{name}.events", "1", "counter") for name in counters]
    mine = [stream for _, stream in (*states, *events)]
    pairs = zip(columns, mine, strict=True)
    series = [_series(source, stream, column) for column, stream in pairs if len(stream.readings)]
    return series, sighting(source, mine, series, absent=f"no {_STATE.glob} on this target")


def _name(kind: str) -> str:
    """Of "cpu-throttle-alert#2" cpu#2.thermal_slowdown: what a name ends in says what the series is."""
    kind, mark, count = kind.partition("#")
    alert = kind.endswith(_ALERT)
    name = plain(kind.removesuffix(_ALERT) if alert else kind)
    return f"{name}{mark}{count}.{_SLOWDOWN if alert else 'state'}"


def _series(source: str, stream: Stream, column: Column) -> Series:
    values, codes = int_values(stream.readings)
    odd = (codes == OK) & (values < 0)
    codes[odd], values[odd] = UNPARSED, NAN
    if column.name.endswith(_SLOWDOWN):  # the alert has levels, the flag is one
        values = np.where(codes == OK, values > 0, NAN)
    return make_series(source, stream, column, values, codes)


THROTTLE_ALERT = Reader("throttle_alert", (_STATE, _TYPE, _EVENTS), parse)
