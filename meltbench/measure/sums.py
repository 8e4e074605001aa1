"""Measures of a rail, and sums of its energy over several spans."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from meltbench.measure.energy import combine_k2, window
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.energy import Rail


def like(
    rail: Rail,
    name: str,
    unit: str,
    value: float | None = None,
    *,
    reason: str | None = None,
    phase: str = "run",
    stat: str = "value",
    u_k2: float | None = None,
    n: int | None = None,
    method: str = "",
    coverage: float | None = None,
) -> Measure:
    """A measure that carries the rail's scope, class and name."""
    return Measure(name, value, unit, stat, phase, rail.scope, rail.name, n, u_k2, method, reason, rail.klass, coverage)


def summed(rail: Rail, phase: str, spans: Sequence[tuple[int, int]], what: str, clock_bound_s: float) -> Measure:
    """The energy of all these spans (ns, at least one) together, or None where any of them has none.

    ``what`` names the spans in the reason. ``n`` counts the updates inside them.
    """
    found = [window(rail, t0, t1, clock_bound_s) for t0, t1 in spans]
    short = [one for one in found if one.energy_j is None]
    n = sum(one.n for one in found)
    if short:
        why = f"{short[0].reason} ({len(short)} of {len(found)} {what})"
        return like(rail, "energy_j", "J", reason=why, phase=phase, n=n)
    value = sum(one.energy_j or 0.0 for one in found)
    # Interpolation smears every prefill into its neighbours with the same sign: edges add up, they do not average out.
    edges = sum(one.u_edge_j for one in found)
    alias = math.hypot(*(one.u_alias_j for one in found))
    return like(
        rail, "energy_j", "J", value, phase=phase, n=n, u_k2=combine_k2(rail.klass, value, edges, alias),
        method=f"sum over {len(found)} timed requests: {found[0].method}",
        coverage=min(one.coverage or 0.0 for one in found),
    )  # fmt: skip
