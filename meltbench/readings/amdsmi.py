"""AMD GPUs through the helper runners/helpers/amdsmi.py: energy, power, heat, memory.

AMD SMI's documentation: amdsmi_get_energy_count gives an accumulator whose counts are ``counter_resolution``
microjoules (15.3 on Instinct). It is 64 bits wide, so a fall is a reset. Known of it: it stands still on some MI100
until they are rebooted (ROCm/amdsmi#38), it goes backwards now and then (#115), and of an MI250's two dies the second
one says 0 while the first counts both. A board that is on cannot have counted nothing, so a 0 is no value, of energy
and of power.

``current_socket_power`` is of now (Instinct since MI300), ``average_socket_power`` the firmware's own mean of nobody
says how long: it stands in a series of its own. The scope is "module": board or package at its supply, one load of the
machine. Of an APU it lies inside of the processor's package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meltbench.readings.base import Column, Helper, Reader
from meltbench.readings.helper import Line, Sink, Span, count, parse_lines, stamps
from meltbench.readings.meters.common import number
from meltbench.readings.thermal import HOTTEST_C
from meltbench.records import ABSENT, AGAIN, DENIED, ERROR, OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Scope, Series, Stream

MAX_GPUS = 64
MAX_RESOLUTION_UJ = 1e4
UPDATE_S = 0.001
_CODES = {
    "NOT_SUPPORTED": ABSENT,
    "NOT_YET_IMPLEMENTED": ABSENT,
    "NOT_FOUND": ABSENT,
    "NO_PERM": DENIED,
    "TIMEOUT": AGAIN,
    "RETRY": AGAIN,
    "BUSY": AGAIN,
}


class _Field(NamedTuple):
    key: str
    name: str
    unit: str
    scale: float = 1.0
    scope: Scope = "system"
    klass: str | None = None
    zero: bool = True  # whether 0 is a value
    window_s: float | None = 0.0
    highest: float = float("inf")


_GAUGES = (
    _Field("power_w", "amd.gpu{}.power", "W", scope="module", klass="C", zero=False),
    _Field("average_w", "amd.gpu{}.power_average", "W", scope="module", klass="C", zero=False, window_s=None),
    _Field("edge_c", "thermal.amd.gpu{}.edge", "degC", zero=False, highest=HOTTEST_C),
    _Field("hotspot_c", "thermal.amd.gpu{}.hotspot", "degC", zero=False, highest=HOTTEST_C),
    _Field("memory_c", "thermal.amd.gpu{}.memory", "degC", zero=False, highest=HOTTEST_C),
    _Field("vram_mib", "amd.gpu{}.memory_bytes", "B", 2.0**20),
)


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """One set of series a GPU, numbered as AMD SMI does: ``amd.gpu0.energy`` (J), ``.power`` (W, of now),
    ``.power_average``, ``.memory_bytes``, ``thermal.amd.gpu0.edge``, ``.hotspot``, ``.memory``."""
    del options  # this reader knows none
    absent = (
        "not started: no DRM card of vendor 0x1002, or the package amdsmi is missing (pip install 'meltbench[amd]', "
        "of the release of ROCm that is installed)"
    )
    return parse_lines(source, streams, _take, lost="amd.lost", absent=absent)


def _take(line: Line, sink: Sink) -> bool:
    gpu = count(line.data.get("gpu"))
    if gpu is None or gpu >= MAX_GPUS:
        return False
    energy_span, other_span = stamps(line, "t0_ns", "t1_ns", "end_ns")
    found = [_energy(line, sink, int(gpu), energy_span)]
    found += [_put(line, sink, int(gpu), one, other_span) for one in _GAUGES]
    return any(found)


def _energy(line: Line, sink: Sink, gpu: int, span: Span) -> bool:
    if "energy_counts" not in line.data:
        return False
    column = Column(f"amd.gpu{gpu}.energy", "J", "counter", "module")
    series = sink.at(column, f"amdsmi:{gpu}", "B", UPDATE_S)
    said, step = line.data["energy_counts"], number(line.data.get("resolution_uj"))
    counts = count(said)
    if said is None:
        series.add(span, None, _why(line, "energy_counts"))
    elif counts is None or step is None or not 0 < step <= MAX_RESOLUTION_UJ:
        series.add(span, None, UNPARSED)
    elif counts == 0:
        series.add(span, None, ABSENT)
    else:
        series.add(span, counts * step * 1e-6)
    return True


def _put(line: Line, sink: Sink, gpu: int, one: _Field, span: Span) -> bool:
    if one.key not in line.data:
        return False
    said = line.data[one.key]
    value = count(said)
    column = Column(one.name.format(gpu), one.unit, "gauge", one.scope)
    series = sink.at(column, f"amdsmi:{gpu}", one.klass, window_s=one.window_s)
    if said is None:
        series.add(span, None, _why(line, one.key))
    elif value is None or value > one.highest:
        series.add(span, None, UNPARSED)
    elif value == 0 and not one.zero:
        series.add(span, None, ABSENT)
    else:
        series.add(span, value * one.scale, OK)
    return True


def _why(line: Line, key: str) -> int:
    """The status of a value that is null: the helper names AMD SMI's error for it."""
    nulls = line.data.get("nulls")
    name = nulls.get(key) if isinstance(nulls, dict) else None
    return _CODES.get(name, ERROR) if isinstance(name, str) else ERROR


AMDSMI = Reader("amdsmi", (), parse, helper=Helper("amdsmi", fact="gpus", begins="AMD", package="amdsmi"))
