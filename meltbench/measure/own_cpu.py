"""Processor seconds of an engine that is several processes, one after the other, over the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.digest import named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.digest import Digest
    from meltbench.records import Phase

SOURCE = "process.cpu_s"


@dataclass(frozen=True)
class Life:
    """One process from its start to its end, and the processor seconds it used by rusage."""

    t0_ns: int
    t1_ns: int
    cpu_s: float


def cpu_within(lives: Sequence[Life], signals: Sequence[Digest], run: Phase) -> float | None:
    """Seconds used inside the run: whole lives by rusage, those across an edge by the samples on both sides of it.

    None where such a life was not sampled, for nobody knows how much of it lies inside.
    """
    total = 0.0
    for life in lives:
        start, end = max(life.t0_ns, run.t0_ns), min(life.t1_ns, run.t1_ns)
        if end <= start:
            continue
        if (start, end) == (life.t0_ns, life.t1_ns):
            total += life.cpu_s
            continue
        curve = _curve(life, signals)
        if curve is None:
            return None
        before, after = np.interp([start, end], *curve)
        total += float(after - before)
    return total


def _curve(life: Life, signals: Sequence[Digest]) -> tuple[list[float], list[float]] | None:
    """How the seconds of a life grew: nothing at its start, its samples beside the run's edges, rusage at its end."""
    points: list[tuple[float, float]] = []
    for one in named(signals, SOURCE):
        t, value = one.kept["t"], one.kept["v"]
        inside = (t > life.t0_ns) & (t < life.t1_ns)
        points += zip(t[inside].tolist(), value[inside].tolist(), strict=True)
    if not points:
        return None
    whole = [(float(life.t0_ns), 0.0), *sorted(points), (float(life.t1_ns), life.cpu_s)]
    # Samples are ticks of 10 ms and rusage is not: the last of them may lie a little above it.
    return [t for t, _ in whole], [min(value, life.cpu_s) for _, value in whole]
