"""The one designated total: which signals make up the device's energy.

For RAPL: ``psys`` alone where there is one, for it contains the packages; else the packages and dram,
which lies outside the package in energy although below it in the tree. ``core`` and ``uncore`` are inside the package.
Source: the kernel's powercap documentation and the domain descriptions of Intel's SDM, volume 3B, 16.10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench.measure.energy import Rail, rail_of
from meltbench.readings.rapl import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.digest import Digest
    from meltbench.records import Scope

TOTAL = "total"
RAPL_UPDATE_S = 976e-6  # the register's tick (Intel SDM, volume 3B, 16.10)


@dataclass(frozen=True)
class Total:
    """The designated total, or why there is none. ``partial`` names loads that the sum leaves out."""

    rail: Rail | None
    reason: str = ""
    partial: str = ""


def total(signals: Sequence[Digest]) -> Total:
    """The total of the RAPL domains among ``signals``."""
    domains = [(_leaf(one.name), one) for one in signals if one.name.startswith("rapl.")]
    psys = [one for leaf, one in domains if leaf == "psys"]
    packages = [one for leaf, one in domains if PACKAGE.fullmatch(leaf)]
    dram = [one for leaf, one in domains if leaf == "dram"]
    if psys and _readable(psys[0]):
        return _sum(psys[:1], "module")
    if not packages and not psys:
        return Total(None, "no_energy_source: no package or psys counter was found")
    lost = [one for one in packages or psys if not _readable(one)]
    if lost:
        denied = all(one.denied for one in lost)
        code, names = "sensor_denied" if denied else "low_coverage", ", ".join(one.name for one in lost)
        return Total(None, f"{code}: {names} could not be read, and no sum without it is the total")
    dark = [one.name for one in dram if not _readable(one)]
    return _sum(
        [*packages, *(one for one in dram if _readable(one))], "soc", f"without {', '.join(dark)}" if dark else ""
    )


def rails(signals: Sequence[Digest]) -> list[Rail]:
    """Every signal that measures energy or power, each by itself: parts of the total, and what lies outside of it."""
    return [
        rail_of(one, RAPL_UPDATE_S if one.name.startswith("rapl.") else 0.0)
        for one in signals
        if one.whole.n and (one.head.kind, one.head.unit) in (("counter", "J"), ("gauge", "W"))
    ]


def _leaf(name: str) -> str:
    """The domain's own name."""
    return name.rpartition(".")[2].partition("#")[0]


def _readable(one: Digest) -> bool:
    return one.whole.n >= 2


def _sum(parts: Sequence[Digest], scope: Scope, partial: str = "") -> Total:
    klass = max((part.head.klass or "E" for part in parts), default="E")
    return Total(Rail(TOTAL, scope, klass, tuple(parts), RAPL_UPDATE_S), "", partial)
