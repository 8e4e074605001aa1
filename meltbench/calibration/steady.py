"""How much equal windows differ: the noise floor of a source, and the smallest difference it can show.

The windows are loads of one length in one job, one right after the other; the first is left out, for the device was
idle before it. Runs of different hours differ by more, so the figure is a floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.energy import prepare, window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Phase, Series

MIN_WINDOWS = 3
RUNS = 8  # an arm, as a gate between two engines has them
# Two arms of 8, two-sided 5 %, found in 4 of 5 tries: Student's t of 14 degrees of freedom at 97.5 % and at 80 %.
_T = 2.145 + 0.868


@dataclass(frozen=True)
class Steady:
    """Equal windows of one source of energy or power.

    ``mean_w`` and ``cv``, the coefficient of variation of their mean powers; ``mde``: the relative difference that two
    arms of 8 runs as steady as these windows show in 4 of 5 tries. None with a ``reason``.
    """

    source: str
    series: str
    n: int
    mean_w: float | None = None
    cv: float | None = None
    mde: float | None = None
    reason: str = ""


def steady(series: Series, same: Sequence[Phase]) -> Steady:
    """How much the mean power of equal windows differs, by a counter in J or a gauge in W."""
    rail = prepare(replace(series, calibration="none needed"))  # a share does not depend on the gain
    powers, why = [], ""
    for one in same[1:]:
        found = window(rail, one.t0_ns, one.t1_ns)
        if found.energy_j is None:
            why = found.reason or ""
        else:
            powers.append(found.energy_j / one.duration_s)
    empty = Steady(series.source, series.name, len(powers))
    if len(powers) < MIN_WINDOWS:
        few = f"{len(powers)} of {max(len(same) - 1, 0)} windows gave an energy, {MIN_WINDOWS} are needed"
        return _with(empty, reason=f"{few} ({why})" if why else few)
    mean = float(np.mean(powers))
    if mean == 0:
        return _with(empty, reason="no power in any of them")
    cv = float(np.std(powers, ddof=1)) / abs(mean)
    return _with(empty, mean_w=mean, cv=cv, mde=_T * math.sqrt(2 / RUNS) * cv)


def _with(one: Steady, **found: object) -> Steady:
    return replace(one, **found)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Observer:
    """What watching costs: the share of a burn's work that is lost while all sources are read, with u (k = 2)."""

    share: float
    u_k2: float
    n: int


def observer(watched: Sequence[float], alone: Sequence[float]) -> Observer | None:
    """From loops a second of equal burns with and without the sources; None where there are too few."""
    if min(len(watched), len(alone)) < MIN_WINDOWS:
        return None
    a, b = np.asarray(watched), np.asarray(alone)
    ratio = float(np.median(a) / np.median(b))
    spread = [float(x.std(ddof=1) / x.mean()) / math.sqrt(len(x)) for x in (a, b)]
    return Observer(1 - ratio, 2 * math.hypot(*spread) * ratio, len(a) + len(b))
