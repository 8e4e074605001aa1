"""NVIDIA GPUs through the helper runners/helpers/nvml.py: energy, power, heat, memory, clock, throttling.

NVML's own documentation: nvmlDeviceGetTotalEnergyConsumption counts millijoules since the driver was loaded (Volta and
later), so a fall is a reset and never a wrap. The field POWER_INSTANT is the power of now, POWER_AVERAGE a mean over a
second, and nvmlDeviceGetPowerUsage is such a mean since Ampere, and of now before it and on the GA100 (A100): it stands
in a series of its own where the instant one is missing, and its window is what the GPU's compute capability says. A100
and H100 sample their sensor a quarter of the time (arXiv 2312.02741), so instant power can alias, and the counter is
what energy is made of. It moves every 20 to 100 ms.

Scope is "module": what is measured is the whole board with its memory and regulators, at its supply. It is one load of
the machine, never its total. Class B and C: the counter and the sensor were found within 5 % (same paper) on most GPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meltbench.readings.base import Column, Helper, Reader
from meltbench.readings.helper import Line, Sink, Span, count, parse_lines, stamps
from meltbench.readings.thermal import HOTTEST_C
from meltbench.records import ABSENT, AGAIN, DENIED, ERROR, OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Kind, Scope, Series, Stream

MAX_GPUS = 64
MEAN_S = 1.0  # of what NVML calls an average
_GA100 = 80  # ten times the compute capability of it; older GPUs have less, the rest of Ampere and all later ones more
# Bits of nvmlDeviceGetCurrentClocksThrottleReasons that mean heat: SwThermalSlowdown, HwThermalSlowdown (nvml.h).
THERMAL_BITS = 0x20 | 0x40
_CODES = {
    "NOT_SUPPORTED": ABSENT,
    "FUNCTION_NOT_FOUND": ABSENT,
    "NOT_FOUND": ABSENT,
    "NO_PERMISSION": DENIED,
    "TIMEOUT": AGAIN,
    "IN_USE": AGAIN,
}


class _Field(NamedTuple):
    key: str
    name: str
    unit: str
    scale: float
    kind: Kind = "gauge"
    scope: Scope = "module"
    klass: str | None = None
    highest: float = float("inf")
    update_s: float = 0.0
    window_s: float = 0.0


_ENERGY = _Field("energy_mj", "nvml.gpu{}.energy", "J", 1e-3, "counter", klass="B", update_s=0.1)
_GAUGES = (
    _Field("power_mw", "nvml.gpu{}.power", "W", 1e-3, klass="C"),
    _Field("power_average_mw", "nvml.gpu{}.power_average", "W", 1e-3, klass="C", window_s=MEAN_S),
    _Field("usage_mw", "nvml.gpu{}.usage_average", "W", 1e-3, klass="C"),
    _Field("temp_c", "thermal.gpu{}", "degC", 1.0, scope="system", highest=HOTTEST_C),
    _Field("memory_bytes", "nvml.gpu{}.memory_bytes", "B", 1.0, scope="system"),
    _Field("sm_mhz", "nvml.gpu{}.sm_hz", "Hz", 1e6, scope="system"),
    _Field("throttle", "nvml.gpu{}.throttle", "1", 1.0, "state", scope="system"),
    _Field("processes", "nvml.gpu{}.processes", "1", 1.0, scope="system"),
)


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """One set of series a GPU, numbered as NVML does.

    ``nvml.gpu0.energy`` (J since the driver was loaded), ``.power`` (W, of now), ``.power_average`` and
    ``.usage_average`` (trailing means of a second), ``.memory_bytes``, ``.sm_hz``, ``.throttle`` (bits),
    ``.thermal_slowdown`` (1 when one of them means heat), ``.processes``, ``thermal.gpu0``. ``nvml.lost`` holds lines
    that gave no reading.
    """
    del options  # this reader knows none
    absent = "no NVIDIA GPU: neither below /proc/driver/nvidia nor a DRM card of vendor 0x10de"
    return parse_lines(source, streams, _take, lost="nvml.lost", absent=absent)


def _take(line: Line, sink: Sink) -> bool:
    gpu = line.data.get("gpu")
    if not isinstance(gpu, int) or isinstance(gpu, bool) or not 0 <= gpu < MAX_GPUS:
        return False
    # Energy is read between the first two stamps, everything else between the second and the third.
    energy_span, other_span = stamps(line, "t0_ns", "t1_ns", "end_ns")
    found = [_put(line, sink, gpu, _ENERGY, energy_span)]
    found += [_put(line, sink, gpu, one, other_span) for one in _GAUGES]
    if (bits := count(line.data.get("throttle"))) is not None:
        hot = Column(f"nvml.gpu{gpu}.thermal_slowdown", "1", "state", "system")
        sink.at(hot).add(other_span, float(bool(int(bits) & THERMAL_BITS)))
    return any(found)


def _put(line: Line, sink: Sink, gpu: int, one: _Field, span: Span) -> bool:
    if one.key not in line.data:
        return False
    said = line.data[one.key]
    column = Column(one.name.format(gpu), one.unit, one.kind, one.scope)
    window_s = _usage_window_s(line) if one.key == "usage_mw" else one.window_s
    series = sink.at(column, f"nvml:{gpu}", one.klass, one.update_s, window_s)
    value = count(said)
    value = None if value is None or value * one.scale > one.highest else value * one.scale
    series.add(span, value, OK if value is not None else UNPARSED if said is not None else _why(line, one.key))
    return True


def _usage_window_s(line: Line) -> float | None:
    """How long nvmlDeviceGetPowerUsage averages; None where the helper could not tell what GPU it is."""
    capability = count(line.data.get("compute"))
    return None if capability is None else MEAN_S if capability > _GA100 else 0.0


def _why(line: Line, key: str) -> int:
    """The status of a value that is null: the helper names NVML's error for it."""
    nulls = line.data.get("nulls")
    name = nulls.get(key) if isinstance(nulls, dict) else None
    return _CODES.get(name, ERROR) if isinstance(name, str) else ERROR


NVML = Reader("nvml", (), parse, helper=Helper("nvml", fact="gpus", begins="NVIDIA"))
