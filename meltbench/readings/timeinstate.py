"""How long each group of cores ran at each of its clocks: what the mean clock of a run is made of.

Documentation/cpu-freq/cpufreq-stats.rst: a line a state, "kHz ticks", in ticks of 10 ms (USER_HZ). The kernel adds the
time of the present state up when the file is read, so a reading is never older than itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meltbench.readings.base import NAN, Column, PathSpec, Reader, matching, sighting, text_series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_FILE = PathSpec("/sys/devices/system/cpu/cpufreq/policy*/stats/time_in_state", lines=True)
TICK_S = 0.01
MAX_STATES = 256  # of one policy; tables of the kernel have tens
_line = re.compile(rb"^(\d{1,9}) (\d{1,15})\n", re.MULTILINE)


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """Counters in seconds, ``cpufreq.policyN.at_hz.HERTZ``."""
    del options  # this reader knows none
    mine = matching(_FILE, streams)
    series = []
    for groups, stream in mine:
        states = _states(stream)
        columns = [Column(f"cpufreq.policy{groups[0]}.at_hz.{khz}000", "s", "counter") for khz in states]

        def row(raw: bytes, states: list[int] = states) -> list[float]:
            found = _seconds(raw)
            return [found.get(khz, NAN) for khz in states]

        series += text_series(source, stream, columns, row)
    absent = f"no {_FILE.glob}: the kernel keeps no statistics of its clocks"
    return series, sighting(source, [stream for _, stream in mine], series, absent=absent)


def _seconds(raw: bytes) -> dict[int, float]:
    """Seconds by kHz; of a clock that stands twice the first line counts."""
    out: dict[int, float] = {}
    for khz, ticks in _line.findall(raw):
        out.setdefault(int(khz), int(ticks) * TICK_S)
    return out


def _states(stream: Stream) -> list[int]:
    """The clocks that any reading named."""
    return sorted({khz for raw in set(stream.readings.raw) for khz in _seconds(raw)})[:MAX_STATES]


TIME_IN_STATE = Reader("time_in_state", (_FILE,), parse)
