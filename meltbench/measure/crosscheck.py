"""A second opinion on RAPL: the energy of the run as pyRAPL read it, against the same domain by powercap.

Both read one register, so they must agree, but for the moments at which they read it. A difference beyond LIMIT and
what the moments can explain says that one of the two is not to be trusted, and so neither is the energy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from meltbench.measure.energy import rail_of, window
from meltbench.measure.findings import joined
from meltbench.measure.validity import CROSS_CHECK_SHARE
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.digest import Digest
    from meltbench.records import Phase, Reason

NAME = "cross_check_ratio"
_OTHER = "pyrapl."


def cross_check(signals: Sequence[Digest], run: Phase | None) -> tuple[list[Measure], list[Reason]]:
    """pyRAPL's joules over powercap's, one measure a domain that both have; a reason where they disagree.

    Nothing where pyRAPL was not read. None with a reason where it cannot be told: pyRAPL knows no wrap, so a counter
    that wrapped in the run is compared no more.
    """
    by_name = {one.name: one for one in signals if one.name.startswith("rapl.")}
    measures, apart = [], []
    for other in signals:
        own = by_name.get("rapl." + other.name.removeprefix(_OTHER)) if other.name.startswith(_OTHER) else None
        if own is None or run is None:
            continue
        one = _compared(own, other, run)
        measures.append(one)
        beyond = 0.0 if one.value is None or one.u_k2 is None else abs(one.value - 1) - one.u_k2
        if beyond > CROSS_CHECK_SHARE:
            apart.append(f"{other.name}: {one.value:.4f} of what powercap counts")
    return measures, joined("cross_check_failed", apart)


def _compared(own: Digest, other: Digest, run: Phase) -> Measure:
    ours = window(rail_of(own), run.t0_ns, run.t1_ns)
    theirs = window(rail_of(other), run.t0_ns, run.t1_ns)
    method = f"{other.name} / {own.name}, joules of the run"

    def made(value: float | None, why: str | None = None, u_k2: float | None = None) -> Measure:
        return Measure(
            NAME,
            value,
            "1",
            scope=other.head.scope,
            source=other.name,
            n=theirs.n,
            u_k2=u_k2,
            method=method,
            reason=why,
        )

    if ours.energy_j is None:
        return made(None, ours.reason)
    if theirs.energy_j is None:
        return made(None, f"{theirs.reason} (pyRAPL knows no wrap)")
    if ours.energy_j <= 0:
        return made(None, f"stale_sensor: {own.name} did not move")
    ratio = theirs.energy_j / ours.energy_j
    # What the moments of reading explain; the gain is the register's and the same for both.
    u_k2 = 2 * math.hypot(ours.u_edge_j * ratio, theirs.u_edge_j) / ours.energy_j
    return made(ratio, None, u_k2)
