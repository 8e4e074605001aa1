"""RAPL energy counters through powercap: microjoules that wrap at ``max_energy_range_uj``.

Documentation/power/powercap/powercap.rst. Zones nest by their number: ``intel-rapl:0:1`` lies below
``intel-rapl:0``. AMD (kernel 5.8 and later) shows the same tree. ``intel-rapl-mmio:0`` counts the package a second
time through another register and is left out. ``energy_uj`` is readable by root alone since CVE-2020-8694.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meltbench.readings.base import (
    Column,
    PathSpec,
    Reader,
    folder,
    int_series,
    last_int,
    last_text,
    matching,
    sighting,
    unique_names,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Scope, Series, Stream

_ENERGY = PathSpec("/sys/class/powercap/intel-rapl:*/energy_uj")
_NAME = PathSpec("/sys/class/powercap/intel-rapl:*/name", periodic=False)
_RANGE = PathSpec("/sys/class/powercap/intel-rapl:*/max_energy_range_uj", periodic=False)
UPDATE_S = 976e-6  # the register's tick (Intel SDM, volume 3B, 16.10)
_ZONE = re.compile(r"[0-9]{1,4}(?::[0-9]{1,4})?")
PACKAGE = re.compile(r"package-[0-9]{1,4}(?:-die-[0-9]{1,4})?")
_SCOPES: dict[str, Scope] = {"psys": "module", "core": "rail", "uncore": "rail", "dram": "rail"}


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """Counters in joules: ``rapl.psys``, ``rapl.package-0``, ``rapl.package-0.dram`` ... with their wrap.

    A domain that is there but not readable gives a series without a sample, so that no total forgets it.
    """
    del options  # this reader knows none
    found = [(groups[0], stream) for groups, stream in matching(_ENERGY, streams)]
    zones = [(zone, stream) for zone, stream in found if _ZONE.fullmatch(zone)]
    names = {groups[0]: last_text(stream) for groups, stream in matching(_NAME, streams)}
    ranges = {folder(stream.path): stream for _, stream in matching(_RANGE, streams)}
    series = []
    full_names = unique_names(_full_name(zone, names) for zone, _ in zones)
    for name, (_, stream) in zip(full_names, zones, strict=True):
        leaf = name.rpartition(".")[2].partition("#")[0]
        scope = "soc" if PACKAGE.fullmatch(leaf) else _SCOPES.get(leaf, "rail")
        limit = last_int(ranges.get(folder(stream.path)))
        wrap = limit * 1e-6 if limit is not None and limit > 0 else None
        column = Column(f"rapl.{name}", "J", "counter", scope)
        series.append(int_series(source, stream, column, scale=1e-6, wrap=wrap, klass="B", update_s=UPDATE_S))
    # A folder that may not be looked into has no zones that are known.
    mine = [stream for zone, stream in found if _ZONE.fullmatch(zone) or stream.status == "denied"]
    absent = "no /sys/class/powercap/intel-rapl:* on this machine"
    return series, sighting(source, mine, series, absent=absent)


def _full_name(zone: str, names: Mapping[str, str | None]) -> str:
    """The zone's own name below that of the zone it lies in; its number where the name is not readable."""
    parent, nested, _ = zone.rpartition(":")
    own = names.get(zone) or f"zone-{zone.replace(':', '-')}"
    return f"{names.get(parent) or f'zone-{parent}'}.{own}" if nested else own


RAPL = Reader("rapl", (_ENERGY, _NAME, _RANGE), parse)
