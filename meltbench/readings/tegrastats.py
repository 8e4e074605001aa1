"""What NVIDIA's tegrastats prints: power of the rails, temperatures, memory, load and clocks of a Jetson.

The words of a line differ by release of L4T (R28 to R39), by board, and by who runs it: without root there is no EMC
and no clock of the GPU. Each word is looked for by itself. Of "current/average" (R39: also "/peak") the first number
alone is a sample: the average reaches back to the start of the tool. The printed date has a resolution of a second and
follows the wall clock: a line counts when it arrives, one of a log by its place.

NVIDIA's developer guide, "tegrastats utility". "MB" there are MiB, percentages of a core are of the time since the
line before, and the clock of the GPU is that of the fastest of its clusters.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from meltbench.readings.base import NAN, Column, Command, Reader, sighting
from meltbench.readings.helper import last_complaint
from meltbench.readings.jetson import CONVERSION_S, rail_scope, temperature
from meltbench.readings.signals import named_series, printed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Scope, Series, Stream

_BYTES = {b"": 1.0, b"k": 2.0**10, b"M": 2.0**20, b"G": 2.0**30}
_memory = re.compile(rb"(?<!\S)(RAM|SWAP) (\d{1,9})/(\d{1,9})([kMG]?)B(?!\w)")
# 4824mW/4824mW, 4824/4824, 5139mW/5139mW/5139mW, 4824mW; a bare number alone is a clock, such as "APE 150".
_rail = re.compile(rb"(?<!\S)([A-Z][A-Z0-9_]{0,31}) (-?\d{1,7})(?:mW|(?=/))(?:/-?\d{1,7}(?:mW)?){0,2}(?!\S)")
_temp = re.compile(rb"(?<!\S)([A-Za-z][\w.-]{0,31})@(-?\d{1,4}(?:\.\d{1,6})?)C(?:/-?\d{1,4}(?:\.\d{1,6})?C)?(?!\S)")
# R28 and before: "cpu [17%,13%,29%,5%]@408".
_cpu = re.compile(rb"(?<!\S)(?:CPU|cpu) \[([^\]]{0,4096})\](?:@(\d{1,5}))?")
_core = re.compile(rb"(\d{1,3})%(?:@(\d{1,5}))?")
_engine = re.compile(rb"(?<!\S)(EMC|GR3D)(?:_FREQ)? (?:(\d{1,3})%)?(?:@(\d{1,6}|\[[^\]]{0,64}\]))?(?!\S)")
_clock = re.compile(rb"\d{1,6}")
Cell = tuple[Column, float]


@lru_cache(maxsize=4096)
def _column(name: str, unit: str, scope: Scope = "system") -> Column:
    return Column(name, unit, "gauge", scope)


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``tegrastats.RAIL.power`` (W), ``.ram_used_bytes``, ``.ram_total_bytes``, ``.swap_used_bytes``,
    ``.cpu_busy.cpuN``, ``.cpu_hz.cpuN``, ``.gr3d.busy``, ``.gr3d.hz``, ``.emc.busy``, ``.emc.hz``;
    ``thermal.tegrastats.NAME``.

    Two rails of one name, such as the NC of AGX Orin, are told apart by their place in the line: NC, NC#2.
    """
    del options  # this reader knows none
    mine = printed(streams)
    series = [
        one
        for stream in mine
        for one in named_series(source, stream, _row, power_class="C", power_update_s=CONVERSION_S)
    ]
    note = "" if series else last_complaint(streams)
    return series, sighting(source, mine, series, absent="no program tegrastats", note=note)


def _row(line: bytes) -> dict[Column, float]:
    cells: dict[Column, float] = {}
    for part in (_rails, _temperatures, _memories, _cores, _engines):
        for column, value in part(line):
            cells.setdefault(column, value)
    return cells


def _rails(line: bytes) -> Iterator[Cell]:
    seen: Counter[bytes] = Counter()
    for rail, milliwatts in _rail.findall(line):
        seen[rail] += 1
        name = rail.decode() + (f"#{seen[rail]}" if seen[rail] > 1 else "")
        yield _column(f"tegrastats.{name}.power", "W", rail_scope(name)), int(milliwatts) / 1e3


def _temperatures(line: bytes) -> Iterator[Cell]:
    for raw, celsius in _temp.findall(line):
        name = raw.decode()
        value = temperature(name, float(celsius))
        if value is not None:
            yield _column(f"thermal.tegrastats.{name}", "degC"), value


def _memories(line: bytes) -> Iterator[Cell]:
    for what, used, total, unit in _memory.findall(line):
        name = what.decode().lower()
        yield _column(f"tegrastats.{name}_used_bytes", "B"), int(used) * _BYTES[unit]
        if what == b"RAM":
            yield _column("tegrastats.ram_total_bytes", "B"), int(total) * _BYTES[unit]


def _cores(line: bytes) -> Iterator[Cell]:
    """A core that is "off" is there and has no value; one that the line leaves blank is not there."""
    found = _cpu.search(line)
    if found is None:
        return
    for number, text in enumerate(found[1].split(b",")):
        busy, clock = _column(f"tegrastats.cpu_busy.cpu{number}", "1"), _column(f"tegrastats.cpu_hz.cpu{number}", "Hz")
        core = _core.fullmatch(text.strip())
        if text.strip() == b"off":
            yield busy, NAN
            yield clock, NAN
        elif core is not None and int(core[1]) <= 100:
            yield busy, int(core[1]) / 100
            if mhz := core[2] or found[2]:
                yield clock, int(mhz) * 1e6


def _engines(line: bytes) -> Iterator[Cell]:
    for what, percent, clocks in _engine.findall(line):
        name = f"tegrastats.{what.decode().lower()}"
        if percent and int(percent) <= 100:
            yield _column(f"{name}.busy", "1"), int(percent) / 100
        if megahertz := _clock.findall(clocks):
            yield _column(f"{name}.hz", "Hz"), max(map(int, megahertz)) * 1e6


TEGRASTATS = Reader(
    "tegrastats", (), parse, commands=(Command(("tegrastats", "--interval", "{period_ms}"), poll=False),)
)
