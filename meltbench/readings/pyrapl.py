"""RAPL once more, as pyRAPL reads it: an optional cross-check, never the total (meltbench.measure.crosscheck).

pyRAPL (the extra ``rapl``) reads the same powercap files by another program's code. It knows packages and their dram,
no psys, no dies, and no wrap: a counter that fell is a reset here. The helper runners/helpers/pyrapl.py runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.readings.base import Column, Helper, Reader
from meltbench.readings.helper import Line, Sink, count, parse_lines, stamps
from meltbench.readings.rapl import UPDATE_S
from meltbench.records import OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Scope, Series, Stream

MAX_SOCKETS = 64
_DOMAINS: tuple[tuple[str, str, Scope], ...] = (("pkg_uj", "", "soc"), ("dram_uj", ".dram", "rail"))


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """Counters in joules without a range: ``pyrapl.package-0``, ``pyrapl.package-0.dram`` ... by socket."""
    del options  # this reader knows none
    absent = (
        "not started: it needs the package pyRAPL (pip install 'meltbench[rapl]'), /sys/class/powercap/intel-rapl:* "
        "of the machine itself, and Python there"
    )
    return parse_lines(source, streams, _take, lost="pyrapl.lost", absent=absent)


def _take(line: Line, sink: Sink) -> bool:
    (span,) = stamps(line, "t0_ns", "t1_ns")
    any_found = False
    for key, suffix, scope in _DOMAINS:
        sockets = line.data.get(key)
        if not isinstance(sockets, list) or len(sockets) > MAX_SOCKETS:
            continue
        for socket, said in enumerate(sockets):
            if said is None:  # pyRAPL's -1: not a socket or a domain of this machine
                continue
            value = count(said)
            any_found = True
            series = sink.at(
                Column(f"pyrapl.package-{socket}{suffix}", "J", "counter", scope), klass="B", update_s=UPDATE_S
            )
            series.add(span, None if value is None else value * 1e-6, UNPARSED if value is None else OK)
    return any_found


PYRAPL = Reader(
    "pyrapl", (), parse, helper=Helper("pyrapl", package="pyRAPL", fact="powercap", begins="package", own_sys=True)
)
