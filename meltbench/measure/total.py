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
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from meltbench.measure.energy import Rail, rail_of
from meltbench.readings.rapl import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.digest import Digest
    from meltbench.records import Scope, SourceStatus

TOTAL = "total"
_GPU = re.compile(r"nvml\.gpu\d+\.energy")


@dataclass(frozen=True)
class Designation:
    """What a profile names as the total of its device (meltbench.targets.profile.Total): the ``rails`` (globs) of a
    source that add up, all that it has where there are none; their ``scope``; and ``partial``, what they leave out."""

    source: str
    rails: tuple[str, ...] = ()
    scope: Scope | None = None
    partial: str = ""


@dataclass(frozen=True)
class Total:
    """The designated total, or why there is none. ``partial`` names loads that the sum leaves out."""

    rail: Rail | None
    reason: str = ""
    partial: str = ""


def designated(
    named: Sequence[Designation], sources: Sequence[SourceStatus], signals: Sequence[Digest], gpus: Sequence[str] = ()
) -> Total:
    """The first total that the profile names and the run can give; else why the first of them is none."""
    none = Total(None, "no_energy_source: the profile of this device names none")
    for at, one in enumerate(named):
        found = _designated(one, sources, signals, gpus)
        if found.rail is not None:
            return found
        none = found if at == 0 else none
    return none


def _designated(
    one: Designation, sources: Sequence[SourceStatus], signals: Sequence[Digest], gpus: Sequence[str]
) -> Total:
    source = next((status for status in sources if status.source == one.source), None)
    if source is None or source.status == "absent":
        return Total(None, f"no_energy_source: {source.detail if source else f'{one.source} was not read'}")
    if source.status == "denied":
        return Total(
            None, f"sensor_denied: {source.source} exists and may not be read: run as root or add the udev rule"
        )
    if source.status in ("gated", "again"):
        return Total(None, f"sensor_gated: {source.source}: {source.detail}")
    if source.status != "ok":
        code = "clock_unsynced" if "clock_unsynced" in source.detail else "sensor_unreadable"
        return Total(None, f"{code}: {source.source}: {source.detail}")
    return total(signals, one, gpus, source.detail)


def total(signals: Sequence[Digest], one: Designation, gpus: Sequence[str] = (), detail: str = "") -> Total:
    """The total by the signals of the designated source; GPUs of any source are added to RAPL.

    ``gpus`` names those that draw from outside of the packages, whether anything measures them or not. ``detail``: what
    was seen of the source, for signals that were never read.
    """
    own = [signal for signal in signals if signal.head.source == one.source]
    if one.rails:
        return _rails(own, one, detail)
    if any(signal.name.startswith("rapl.") for signal in own):
        boards = {one.name: one for one in signals if _GPU.fullmatch(one.name)}  # by name: two sources may read one
        return _rapl(own, list(boards.values()), gpus, detail)
    every = rails(own)
    counters = [rail for rail in every if rail.parts[0].head.kind == "counter"]
    of_now = [rail for rail in every if rail.parts[0].head.window_s == 0]
    found = counters or of_now or every  # counter first, gauge second, and of those a trailing mean last
    if len(found) == 1:
        return Total(replace(found[0], name=TOTAL, scope=one.scope or found[0].scope), "", one.partial)
    names = ", ".join(rail.name for rail in found[:8])
    many = f"{one.source} has {len(found)} rails ({names}), its profile must single one out"
    why = many if found else "none was read"
    return Total(None, f"no_energy_source: {why}")


def _rails(signals: Sequence[Digest], one: Designation, detail: str) -> Total:
    """The sum of the rails that the profile names. None of them may be missing: no sum without it is the total."""
    measuring = [s for s in signals if (s.head.kind, s.head.unit) in (("counter", "J"), ("gauge", "W"))]
    parts: dict[str, Digest] = {}
    for glob in one.rails:
        mine = [signal for signal in measuring if fnmatchcase(signal.name, glob)]
        lost = [signal for signal in mine if not _readable(signal)]
        if not mine or lost:
            what = "has one value alone" if any(signal.whole.n for signal in lost) else "was not read"
            return _lost(f"{glob} of {one.source} {what}", lost, detail)
        parts |= {signal.name: signal for signal in mine}
    return _sum(list(parts.values()), one.scope or next(iter(parts.values())).head.scope, one.partial)


def _rapl(signals: Sequence[Digest], boards: list[Digest], gpus: Sequence[str], detail: str) -> Total:
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
        return _lost(f"{', '.join(one.name for one in lost)} could not be read", lost, detail)
    dark = [one.name for one in outside if not _readable(one)]
    if len(boards) < len(gpus):
        dark += gpus[len(boards) :]
    lit = [one for one in outside if _readable(one)]
    scope: Scope = "module" if any(one in boards for one in lit) else "soc"
    return _sum([*packages, *lit], scope, f"without {', '.join(dark)}" if dark else "")


def _lost(words: str, lost: Sequence[Digest], detail: str) -> Total:
    """No total, for a part of it is lost. A file that may not be opened has no readings, but the source tells of it."""
    unopened = all(not len(one.kept["t"]) and not one.denied for one in lost) and "denied" in detail
    denied = bool(lost) and (all(one.denied for one in lost) or unopened)
    told = f" ({detail})" if detail else ""
    code = "sensor_denied" if denied else "low_coverage"
    return Total(None, f"{code}: {words}{told}, and no sum without it is the total")


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
