"""The one designated total: which signals make up the device's energy.

Of RAPL: ``psys`` alone where there is one, for it contains the packages; else the packages and dram,
which lies outside the package in energy although below it in the tree. ``core`` and ``uncore`` are inside the package.
Source: the kernel's powercap documentation and the domain descriptions of Intel's SDM, volume 3B, 16.10.
A GPU's board lies outside the packages and is added to them. Whether psys, the platform's supply, contains it depends
on the board's design, so nothing is added to psys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meltbench.measure.energy import TRAILING, Rail, rail_of
from meltbench.readings.rapl import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.digest import Digest
    from meltbench.records import Scope

TOTAL = "total"
_GPU = re.compile(r"nvml\.gpu\d+\.energy")


@dataclass(frozen=True)
class Total:
    """The designated total, or why there is none. ``partial`` names loads that the sum leaves out."""

    rail: Rail | None
    reason: str = ""
    partial: str = ""


def total(signals: Sequence[Digest], source: str, gpus: Sequence[str] = ()) -> Total:
    """The total by the signals of ``source``, which the profile designates; GPUs of any source are added to RAPL.

    ``gpus`` names those that draw from outside of the packages, whether anything measures them or not.
    """
    own = [one for one in signals if one.head.source == source]
    if any(one.name.startswith("rapl.") for one in own):
        boards = {one.name: one for one in signals if _GPU.fullmatch(one.name)}  # by name: two sources may read one
        return _rapl(own, list(boards.values()), gpus)
    steady = [one for one in rails(own) if not one.name.endswith(TRAILING)]
    counters = [one for one in steady if one.parts[0].head.kind == "counter"]
    found = counters or steady  # counter first, gauge second
    if len(found) == 1:
        return Total(replace(found[0], name=TOTAL))
    names = ", ".join(one.name for one in found[:8])
    why = f"{source} has {len(found)} rails ({names}), its profile must single one out" if found else "none was read"
    return Total(None, f"no_energy_source: {why}")


def _rapl(signals: Sequence[Digest], boards: list[Digest], gpus: Sequence[str]) -> Total:
    domains = [(_leaf(one.name), one) for one in signals if one.name.startswith("rapl.")]
    psys = [one for leaf, one in domains if leaf == "psys"]
    packages = [one for leaf, one in domains if PACKAGE.fullmatch(leaf)]
    outside = [one for leaf, one in domains if leaf == "dram"] + boards
    if psys and _readable(psys[0]):
        left = [one.name for one in boards] or list(gpus)
        return _sum(psys[:1], "module", f"psys may leave out {', '.join(left)}" if left else "")
    if not packages and not psys:
        return Total(None, "no_energy_source: no package or psys counter was found")
    lost = [one for one in packages or psys if not _readable(one)]
    if lost:
        denied = all(one.denied for one in lost)
        code, names = "sensor_denied" if denied else "low_coverage", ", ".join(one.name for one in lost)
        return Total(None, f"{code}: {names} could not be read, and no sum without it is the total")
    dark = [one.name for one in outside if not _readable(one)]
    if len(boards) < len(gpus):
        dark += gpus[len(boards) :]
    lit = [one for one in outside if _readable(one)]
    scope: Scope = "module" if any(one in boards for one in lit) else "soc"
    return _sum([*packages, *lit], scope, f"without {', '.join(dark)}" if dark else "")


def rails(signals: Sequence[Digest]) -> list[Rail]:
    """Every signal that measures energy or power, each by itself: parts of the total, and what lies outside of it."""
    return [
        rail_of(one)
        for one in signals
        if one.whole.n and (one.head.kind, one.head.unit) in (("counter", "J"), ("gauge", "W"))
    ]


def _leaf(name: str) -> str:
    """The domain's own name."""
    return name.rpartition(".")[2].partition("#")[0]


def _readable(one: Digest) -> bool:
    return one.whole.n >= 2


def _sum(parts: Sequence[Digest], scope: Scope, partial: str) -> Total:
    klass = max((part.head.klass or "E" for part in parts), default="E")
    return Total(Rail(TOTAL, scope, klass, tuple(parts)), "", partial)
