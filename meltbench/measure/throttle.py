"""What slowed the device within the run, as reasons against its validity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.measure.validity import reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Phase, Reason, Regime

_MOST = 4


def throttle_reasons(throttled: Sequence[Regime], run: Phase | None) -> list[Reason]:
    """One reason for all times in which the device was slowed: when, in seconds of the run, and by what evidence."""
    if run is None or not throttled:
        return []
    told = []
    for one in throttled[:_MOST]:
        t0_s, t1_s = ((t - run.t0_ns) / 1e9 for t in (one.t0_ns, min(one.t1_ns, run.t1_ns)))
        told.append(f"{t0_s:.0f}-{t1_s:.0f} s of the run: {one.cause}")
    more = f", and {len(throttled) - _MOST} times more" if len(throttled) > _MOST else ""
    return [reason("throttled", "; ".join(told) + more)]
