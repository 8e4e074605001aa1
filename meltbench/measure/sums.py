"""Measures of a rail, and sums of its energy over several spans."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meltbench.measure.energy import added, of_window, window
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


def summed(rail: Rail, phase: str, spans: Sequence[tuple[int, int]], what: str) -> Measure:
    """The energy of all these spans (ns, at least one) together, or None where any of them has none.

    ``what`` names the spans in the reason. ``n`` counts the updates inside them.
    """
    found = [window(rail, t0, t1) for t0, t1 in spans]
    short = [one for one in found if one.energy_j is None]
    n = sum(one.n for one in found)
    if short:
        why = f"{short[0].reason} ({len(short)} of {len(found)} {what})"
        return like(rail, "energy_j", "J", reason=why, phase=phase, n=n)
    whole = added(found, f"sum over {len(found)} timed requests: {found[0].method}")
    return of_window(rail, replace(whole, n=n), phase)
