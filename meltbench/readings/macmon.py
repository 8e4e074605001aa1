"""macmon's JSON lines (macmon pipe): powers of Apple silicon without root, github.com/vladkens/macmon.

``cpu_power``, ``gpu_power``, ``ane_power``, ``ram_power`` and their sum ``all_power`` are Apple's energy model (class
E). ``sys_power`` is read from the SMC's sensor PSTR: what the whole machine draws, more than ten times ``all_power``
when it is idle. How exact it is nobody says (class E too). All are means over the time since the line before. A zero
of the processors is a counter that was not published, as in powermetrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.readings.base import Column, Command, Reader
from meltbench.readings.helper import Line, Sink, Span, parse_lines
from meltbench.readings.meters.common import number, spaced
from meltbench.readings.meters.text import iso_ns
from meltbench.readings.thermal import COLDEST_C, HOTTEST_C
from meltbench.records import AGAIN, OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Scope, Series, Stream

_POWERS: tuple[tuple[str, str, Scope, str], ...] = (
    ("sys_power", "sys", "module", "E"),
    ("all_power", "all", "soc", "E"),
    ("cpu_power", "cpu", "rail", "E"),
    ("gpu_power", "gpu", "rail", "E"),
    ("ane_power", "ane", "rail", "E"),
    ("ram_power", "ram", "rail", "E"),
    ("gpu_ram_power", "gpu_ram", "rail", "E"),
)
_PROCESSORS = ("cpu_power", "all_power")  # all holds cpu, and without it is the sum of the rest
_TEMPS = (("cpu_temp_avg", "thermal.macmon.cpu"), ("gpu_temp_avg", "thermal.macmon.gpu"))


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``macmon.sys.power``, ``.all.power``, ``.cpu.power``, ``.gpu.power``, ``.ane.power``, ``.ram.power`` (W), and
    ``thermal.macmon.cpu``, ``thermal.macmon.gpu``."""
    del options  # this reader knows none
    absent = "no macmon: it is a program for macOS, and nothing of it was recorded"
    series, seen = parse_lines(source, streams, _take, lost="macmon.lost", absent=absent)
    return [spaced(one) for one in series], seen


def _take(line: Line, sink: Sink) -> bool:
    data = line.data
    t_ns = iso_ns(data.get("timestamp")) if line.log else None
    span = line.arrival if t_ns is None else Span(t_ns, t_ns)
    still = number(data.get("cpu_power")) == 0
    found = [one for one in _POWERS if one[0] in data]
    for key, name, scope, klass in found:
        watts = number(data[key])
        held = still and key in _PROCESSORS
        series = sink.at(Column(f"macmon.{name}.power", "W", "gauge", scope), klass=klass, window_s=None)
        series.add(span, None if held else watts, AGAIN if held else OK if watts is not None else UNPARSED)
    temps = data.get("temp")
    temps = temps if isinstance(temps, dict) else {}
    for key, name in _TEMPS:
        degrees = number(temps.get(key))
        # A sensor that did not answer is averaged as 0.
        good = degrees is not None and degrees != 0 and COLDEST_C <= degrees <= HOTTEST_C
        if key in temps:
            sink.at(Column(name, "degC", "gauge")).add(span, degrees if good else None, OK if good else UNPARSED)
    return bool(found)


MACMON = Reader("macmon", (), parse, commands=(Command(("macmon", "pipe", "-i", "{period_ms}"), poll=False),))
