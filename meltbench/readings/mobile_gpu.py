"""Load, clock and heat of the GPUs of phones: Adreno (kgsl) and Mali, each through whichever node the kernel has.

Adreno, drivers/gpu/msm/kgsl_pwrctrl.c: ``gpubusy`` holds "busy total" in microseconds of the last finished window of at
least one second, ``gpu_busy_percentage`` its quotient cut to whole percent. Both forget the window when they are read
while the GPU is off; "0 0" then says nothing of load. ``gpuclk`` and devfreq's ``cur_freq`` are hertz, ``temp`` is
millidegrees.

Mali has no node of its own: Arm's and vendors' kernels add some. ``gpu_busy`` (Samsung), ``gpu_loading`` and
``gpu_utilization`` (MediaTek's ged) and ``utilization`` are percent. MediaTek's ``current_freqency`` (sic) is an index
and kilohertz, the Pixels' ``cur_freq`` kilohertz. ``clock`` and Samsung's ``gpu_clock`` are Hz, kHz or MHz by kernel
(Rockchip, Exynos): without the option ``clock_unit`` they are not taken, unless the text names its unit.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from meltbench.errors import DefinitionError
from meltbench.readings.base import Column, PathSpec, Reader, make_series, matching, sighting
from meltbench.readings.polls import answers, table
from meltbench.readings.thermal import COLDEST_C, HOTTEST_C
from meltbench.records import GATED, OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meltbench.readings.base import Parse, Sighting
    from meltbench.records import Series, Stream

    Take = Callable[[str], float | int]

_KGSL = "/sys/class/kgsl/kgsl-3d0/"
_MALI = "/sys/class/misc/mali0/device/"
WINDOW_S = 1.0  # UPDATE_BUSY_VAL of kgsl: statistics are shown of windows of a second
MAX_HZ = 10e9
HERTZ = {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6}
_pair = re.compile(r"\s{0,16}(\d{1,12})\s{1,16}(\d{1,12})\s{0,16}")
_percent = re.compile(r"\s{0,16}(?:utilization=)?(\d{1,3})\s{0,4}%?\s{0,16}")
_ged_percent = re.compile(r"\s{0,16}(\d{1,3})\s{1,8}\d{1,3}\s{1,8}\d{1,3}\s{0,16}")  # loading, block, idle
_count = re.compile(r"\s{0,16}(\d{1,12})\s{0,16}")
_index_khz = re.compile(r"\s{0,16}-?\d{1,4}\s{1,8}(\d{1,9})\s{0,16}")
_prose = re.compile(r"=\s{0,4}(\d{1,6})\s{0,4}(Hz|kHz|KHz|Mhz|MHz)\b")


def _share(text: str) -> float | int:
    """Busy time over all time."""
    found = _pair.fullmatch(text)
    if found is None:
        return UNPARSED
    busy, total = int(found[1]), int(found[2])
    return GATED if total == 0 else busy / total if busy <= total else UNPARSED


def _percentage(text: str) -> float | int:
    found = _percent.fullmatch(text) or _ged_percent.fullmatch(text)
    return int(found[1]) / 100 if found and int(found[1]) <= 100 else UNPARSED


def _clock(scale: float | None) -> Take:
    """Hertz of a number that counts ``scale`` of them. Without it, only of a text that names its unit."""

    def take(text: str) -> float | int:
        named, plain = _prose.search(text), _count.fullmatch(text)
        if named:
            hertz = int(named[1]) * HERTZ[named[2].replace("K", "k").replace("Mh", "MH")]
        elif plain and scale is not None:
            hertz = int(plain[1]) * scale
        else:
            return UNPARSED
        return _running(hertz)

    return take


def _running(hertz: float) -> float | int:
    """0 is what a GPU says that is switched off: it has no clock then."""
    return GATED if hertz == 0 else hertz if hertz <= MAX_HZ else UNPARSED


def _ged_clock(text: str) -> float | int:
    found = _index_khz.fullmatch(text)
    return _running(int(found[1]) * 1e3) if found else UNPARSED


def _millidegrees(text: str) -> float | int:
    found = _count.fullmatch(text)
    celsius = int(found[1]) / 1000 if found else COLDEST_C - 1
    if celsius == 0:
        return GATED
    return celsius if COLDEST_C <= celsius <= HOTTEST_C else UNPARSED


class Node(NamedTuple):
    """A file that tells one thing of the GPU; ``take`` None: how it counts is the profile's to say."""

    what: str
    spec: PathSpec
    take: Take | None
    window_s: float | None = 0.0


_COLUMNS = {
    "busy": Column("gpu.busy", "1", "gauge"),
    "hz": Column("gpu.hz", "Hz", "gauge"),
    "temp": Column("thermal.kgsl", "degC", "gauge"),
}
# Of several nodes that tell the same the first that can be opened counts.
_ADRENO = (
    Node("busy", PathSpec(_KGSL + "gpubusy"), _share, WINDOW_S),
    Node("busy", PathSpec(_KGSL + "gpu_busy_percentage"), _percentage, WINDOW_S),
    Node("hz", PathSpec(_KGSL + "gpuclk"), _clock(1.0)),
    Node("hz", PathSpec(_KGSL + "devfreq/cur_freq"), _clock(1.0)),
    Node("temp", PathSpec(_KGSL + "temp"), _millidegrees),
)
_MALIS = (
    Node("busy", PathSpec(_MALI + "utilization"), _percentage, None),
    Node("busy", PathSpec("/sys/devices/platform/*.mali/utilization"), _percentage, None),
    Node("busy", PathSpec("/sys/kernel/gpu/gpu_busy"), _percentage, None),
    Node("busy", PathSpec("/sys/module/ged/parameters/gpu_loading"), _percentage, None),
    Node("busy", PathSpec("/sys/kernel/ged/hal/gpu_utilization"), _percentage, None),
    Node("hz", PathSpec(_MALI + "cur_freq"), _clock(1e3)),
    Node("hz", PathSpec("/sys/devices/platform/*.mali/cur_freq"), _clock(1e3)),
    Node("hz", PathSpec("/sys/kernel/ged/hal/current_freqency"), _ged_clock),
    Node("hz", PathSpec(_MALI + "clock"), None),
    Node("hz", PathSpec("/sys/kernel/gpu/gpu_clock"), None),
)


def _reading(nodes: Sequence[Node], what_for: str) -> Parse:
    def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
        unit = options.get("clock_unit")
        if unit is not None and unit not in HERTZ:
            raise DefinitionError(f"clock_unit is {unit!r}", hint=f"one of {', '.join(HERTZ)}")
        scale = HERTZ[unit] if isinstance(unit, str) else None
        found = [(node, stream) for node in nodes for _, stream in matching(node.spec, streams)]
        series, mine = [], []
        for what, column in _COLUMNS.items():
            of_it = [(node, stream) for node, stream in found if node.what == what]
            node, stream = next(((n, s) for n, s in of_it if s.status == "ok"), (None, None))
            mine += [stream] if stream is not None else [s for _, s in of_it]
            if node is not None and stream is not None and len(stream.readings):
                one = _series(source, stream, column, node.take or _clock(scale))
                series.append(replace(one, window_s=node.window_s))
        return series, sighting(source, mine, series, absent=f"no node of {what_for} on this target")

    return parse


def _series(source: str, stream: Stream, column: Column, take: Take) -> Series:
    found: list[dict[str, float] | int] = []
    for code, text in answers(stream):
        said = take(text.decode("ascii", "replace")) if code == OK else code
        found.append(said if isinstance(said, int) else {column.name: said})
    raw = table(stream, found).raw(column.name)
    return make_series(source, stream, column, raw.values, raw.codes)


KGSL = Reader("kgsl", tuple(node.spec for node in _ADRENO), _reading(_ADRENO, "an Adreno GPU"))
MALI = Reader("mali", tuple(node.spec for node in _MALIS), _reading(_MALIS, "a Mali GPU"), frozenset({"clock_unit"}))
