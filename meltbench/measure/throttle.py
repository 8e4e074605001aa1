"""Throttling that a device reports of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.measure.gauges import within
from meltbench.measure.validity import reason
from meltbench.readings.nvml import THERMAL_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Phase, Reason, Series


def throttle_reasons(series: Sequence[Series], run: Phase | None) -> list[Reason]:
    """GPUs whose driver named heat as the reason of a lower clock within the run (NVML's thermal slowdown bits)."""
    hot = []
    for one in series:
        if run is None or not (one.name.startswith("nvml.") and one.name.endswith(".throttle")):
            continue
        values = within(one, run)
        n = sum(bool(int(bits) & THERMAL_BITS) for bits in values.tolist())
        if n:
            hot.append(f"{one.name.split('.')[1]}: thermal slowdown in {n} of {len(values)} readings")
    return [reason("throttled", ", ".join(hot[:4]))] if hot else []
