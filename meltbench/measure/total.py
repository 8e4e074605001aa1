"""The one designated total: which counters make up the device's energy, aligned and added.

For RAPL: ``psys`` alone where there is one, for it contains the packages; else the sum of the packages and of dram,
which lies outside the package in energy although below it in the tree. ``core`` and ``uncore`` are inside the package.
Source: the kernel's powercap documentation and the domain descriptions of Intel's SDM, volume 3B, 16.10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.counters import Counter, unwrap, usable
from meltbench.readings.rapl import PACKAGE
from meltbench.records import Series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Scope

TOTAL = "total"
RAPL_UPDATE_S = 976e-6  # the register's tick (Intel SDM, volume 3B, 16.10)
MAX_POWER_W = 2000.0  # more than any single machine in scope draws from its processors


@dataclass(frozen=True)
class Total:
    """The designated total, or why there is none. ``partial`` names loads that the sum leaves out."""

    series: Series | None
    reason: str = ""
    members: tuple[str, ...] = ()
    partial: str = ""


def total(series: Sequence[Series], max_power_w: float = MAX_POWER_W) -> Total:
    """The total of the RAPL domains among ``series``."""
    domains = {_leaf(one.name): one for one in series if one.name.startswith("rapl.")}
    psys = [one for (leaf, _), one in domains.items() if leaf == "psys"]
    packages = [one for (leaf, _), one in domains.items() if PACKAGE.fullmatch(leaf)]
    dram = [one for (leaf, _), one in domains.items() if leaf == "dram"]
    if psys and _readable(psys[0]):
        return _sum(psys[:1], "module", max_power_w)
    if not packages and not psys:
        return Total(None, "no_energy_source: no package or psys counter was found")
    lost = [one for one in packages or psys if not _readable(one)]
    if lost:
        denied = all(set(one.status) <= {"denied"} for one in lost)
        code, names = "sensor_denied" if denied else "low_coverage", ", ".join(one.name for one in lost)
        return Total(None, f"{code}: {names} could not be read, and no sum without it is the total")
    dark = [one.name for one in dram if not _readable(one)]
    found = _sum([*packages, *(one for one in dram if _readable(one))], "soc", max_power_w)
    return Total(found.series, found.reason, found.members, f"without {', '.join(dark)}" if dark else "")


def _leaf(name: str) -> tuple[str, str]:
    """The domain's own name, and its full name as the key that keeps it apart from its like."""
    return name.removeprefix("rapl.").rpartition(".")[2].partition("#")[0], name


def _readable(one: Series) -> bool:
    return int(np.isfinite(one.value).sum()) >= 2


def _sum(parts: Sequence[Series], scope: Scope, max_power_w: float) -> Total:
    """Adds the parts on the readings of the one that changed least often, each reading with its own length.

    The sum moves where that part did and repeats where that part repeated: no freshness is made up, and a register as
    slow as the readings still shows, which ``prepare`` of meltbench.measure.energy needs for u.
    """
    counters = [unwrap(part, max_power_w) for part in parts]
    names = tuple(part.name for part in parts)
    slowest = min(range(len(parts)), key=lambda i: int(counters[i].fresh.sum()))
    t = counters[slowest].t_ns
    shared = (t >= max(c.t_ns[0] for c in counters)) & (t <= min(c.t_ns[-1] for c in counters))
    if int(shared.sum()) < 2:
        return Total(None, f"low_coverage: {', '.join(names)} were not read at the same time", names)
    updated = t[np.maximum.accumulate(np.where(counters[slowest].fresh, np.arange(len(t)), 0))][shared]
    value = sum(np.interp(updated, c.t_ns, c.value) for c in counters)
    value, unknown = _break_at_resets(updated, np.asarray(value, dtype=np.float64), counters)
    klass = max((part.klass or "E" for part in parts), default="E")
    status = np.where(unknown, "error", "ok").tolist()
    good = usable(parts[slowest])
    t0, t1 = parts[slowest].t0_ns[good][shared], parts[slowest].t1_ns[good][shared]
    made = Series(TOTAL, "J", "counter", TOTAL, scope, t0, t1, value, status, path="+".join(names), klass=klass)
    return Total(made, "", names)


def _break_at_resets(t: np.ndarray, value: np.ndarray, counters: Sequence[Counter]) -> tuple[np.ndarray, np.ndarray]:
    """Lets the sum fall where a part was reset, so that whoever unwraps it (it has no range) finds the reset too.

    ``t`` are the updates that the values are of.
    """
    unknown = np.zeros(len(t), dtype=np.bool_)
    fall = np.zeros(len(t))
    for counter in counters:
        for i in counter.resets.tolist():
            before, after = counter.t_ns[i - 1], counter.t_ns[i]
            unknown |= (t > before) & (t < after)
            fall[np.searchsorted(t, after) :] += 1.0 + float(value[-1] - value[0])
    value = value + (fall.max() - fall)
    value[unknown] = np.nan
    return value, unknown
