"""Throttling that a device reports of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.measure.validity import reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.digest import Digest
    from meltbench.records import Phase, Reason


def throttle_reasons(signals: Sequence[Digest], run: Phase | None) -> list[Reason]:
    """GPUs whose driver named heat as the reason of a lower clock within the run (NVML's thermal slowdown bits)."""
    hot = [
        f"{one.name.split('.')[1]}: thermal slowdown"
        for one in signals
        if run is not None and one.name.endswith(".thermal_slowdown") and one.run.n and one.run.high > 0
    ]
    return [reason("throttled", ", ".join(hot[:4]))] if hot else []
