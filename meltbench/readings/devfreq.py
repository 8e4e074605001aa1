"""Clocks below /sys/class/devfreq (GPU, memory) and the load of a Jetson's GPU.

Documentation/ABI/testing/sysfs-class-devfreq: hertz; ``max_freq`` falls when a power mode or a thermal limit caps the
device. ``load`` of nvgpu is in thousandths. Where the GPU is gated its files may answer EAGAIN, each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.readings.base import (
    NAN,
    Column,
    PathSpec,
    Reader,
    int_series,
    int_values,
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

_DEVICE = "/sys/class/devfreq/*/"
_CLOCKS = {
    "hz": PathSpec(_DEVICE + "cur_freq"),
    "max_hz": PathSpec(_DEVICE + "max_freq"),
    "min_hz": PathSpec(_DEVICE + "min_freq", periodic=False),
}
# The folder's name in R32 and, as a link, in later ones.
_LOADS = (PathSpec("/sys/devices/platform/gpu.0/load"), PathSpec("/sys/devices/gpu.0/load"))


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``devfreq.NAME.hz``, ``.max_hz``, ``.min_hz``, and ``gpu.busy``, a share from 0 to 1."""
    del options  # this reader knows none
    series, mine = [], []
    for field, spec in _CLOCKS.items():
        found = matching(spec, streams)
        names = unique_names(plain(groups[0]) for groups, _ in found)
        for name, (_, stream) in zip(names, found, strict=True):
            mine.append(stream)
            if len(stream.readings):
                series.append(int_series(source, stream, Column(f"devfreq.{name}.{field}", "Hz", "gauge"), scale=1))
    for stream in _load(streams):
        mine.append(stream)
        if len(stream.readings):
            values, codes = int_values(stream.readings)
            odd = (codes == OK) & ((values < 0) | (values > 1000))
            codes[odd], values[odd] = UNPARSED, NAN
            series.append(make_series(source, stream, Column("gpu.busy", "1", "gauge"), values / 1000, codes))
    absent = f"no {_DEVICE}cur_freq on this target"
    return series, sighting(source, mine, series, absent=absent)


def _load(streams: Sequence[Stream]) -> list[Stream]:
    """The load of the one GPU: both paths lead to it where both are there."""
    found = [stream for spec in _LOADS for _, stream in matching(spec, streams) if stream.status != "absent"]
    return found[:1]


DEVFREQ = Reader("devfreq", (*_CLOCKS.values(), *_LOADS), parse)
