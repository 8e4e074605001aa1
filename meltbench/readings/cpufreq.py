"""Clock of each group of cores that share one, its present cap, and the cap of the hardware.

Documentation/admin-guide/pm/cpufreq.rst: kilohertz. ``scaling_cur_freq`` is what the governor asked for, or on
some drivers what the hardware did; ``scaling_max_freq`` falls when a thermal or power limit caps the policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.readings.base import (
    Column,
    PathSpec,
    Reader,
    folder,
    int_series,
    matching,
    sighting,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_POLICY = "/sys/devices/system/cpu/cpufreq/policy*/"
_FREQUENCIES = {
    "cur_hz": PathSpec(_POLICY + "scaling_cur_freq"),
    "max_hz": PathSpec(_POLICY + "scaling_max_freq"),
    "hw_max_hz": PathSpec(_POLICY + "cpuinfo_max_freq", periodic=False),
}
_GOVERNOR = PathSpec(_POLICY + "scaling_governor", periodic=False)
_CPUS = PathSpec(_POLICY + "related_cpus", periodic=False)


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """Frequencies in Hz, ``cpufreq.policyN.{cur_hz,max_hz,hw_max_hz}``; governors and cores stand in the detail."""
    del options  # this reader knows none
    series, mine = [], []
    for field, spec in _FREQUENCIES.items():
        for groups, stream in matching(spec, streams):
            mine.append(stream)
            if len(stream.readings):
                column = Column(f"cpufreq.policy{groups[0]}.{field}", "Hz", "gauge")
                series.append(int_series(source, stream, column, scale=1e3))
    absent = f"no {_POLICY}scaling_cur_freq on this target"
    return series, sighting(source, mine, series, absent=absent, note=_policies(streams))


def _policies(streams: Sequence[Stream]) -> str:
    """ "policy0: schedutil, cpus 0 1 2 3"; a governor that changed within the run reads "a > b"."""
    cpus = {folder(stream.path): stream for _, stream in matching(_CPUS, streams)}
    out = []
    for groups, stream in matching(_GOVERNOR, streams)[:64]:
        governor = " > ".join(texts(stream)) or "governor unknown"
        cores = texts(cpus.get(folder(stream.path)), 1024)
        out.append(f"policy{groups[0]}: {governor}" + (f", cpus {cores[-1]}" if cores else ""))
    return "; ".join(out)


CPUFREQ = Reader("cpufreq", (*_FREQUENCIES.values(), _GOVERNOR, _CPUS), parse)
