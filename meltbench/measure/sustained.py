"""What a device holds over minutes: the rate it begins with, the rate it ends with, and whether that has settled.

Rates are the requests' own (``decode_tps``), so pauses and prefills between them count for nothing here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from meltbench.measure.energy import window
from meltbench.measure.latency import t95
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.energy import Rail
    from meltbench.records import Phase, Request

WINDOW_S = 30.0
SETTLED_PER_MIN = 0.01
MIN_DRIFT_REQUESTS = 5
POWER_WINDOWS = 10  # of the second half of a run
_LEAST_SQUARES, _BAND = "least squares", "95 % t interval"


@dataclass(frozen=True)
class Drift:
    """Slope by minute relative to the mean, the half-width of its 95 % interval, and what they come to: ``settled`` or
    ``drifting`` where the interval lies on one side of 1 % a minute, else ``undecided``."""

    per_min: float
    u_k2: float
    label: Literal["settled", "drifting", "undecided"]


def drift(t_s: Sequence[float], values: Sequence[float]) -> Drift | None:
    """Least squares over values at these times; None for fewer than three, all of one time, or of mean 0."""
    t_min, v = np.array(t_s, dtype=np.float64) / 60, np.array(values, dtype=np.float64)
    if len(v) < 3 or t_min.min() == t_min.max() or v.mean() == 0:
        return None
    slope, u_k2 = _slope(t_min, v / v.mean())
    label: Literal["settled", "drifting", "undecided"] = "undecided"
    if abs(slope) + u_k2 < SETTLED_PER_MIN:
        label = "settled"
    elif abs(slope) - u_k2 > SETTLED_PER_MIN:
        label = "drifting"
    return Drift(slope, u_k2, label)


def settling_s(run_s: float) -> float:
    """How long the beginning and the end of a run are: 30 s, or a tenth of it where that is longer."""
    return max(WINDOW_S, run_s / 10)


def sustained_measures(requests: Sequence[Request]) -> list[Measure]:
    """Burst and sustained decode rate, what is retained of it, and its drift; None with a reason for a short run.

    Both ends are as wide: 30 s or a tenth of the run, whichever is longer. A request that began in the first is of the
    burst; one that ended in the last and is not of the burst is sustained.
    """
    timed = [r for r in requests if r.role == "timed" and r.status == "ok" and r.decode_tps is not None]
    if not timed:
        why = "no_timed_request: none has a decode rate"
        return [*_rates(None, None, why), _drift([], why)]
    start, end = min(r.t_send_ns for r in timed), max(r.t_end_ns for r in timed)
    run_s = (end - start) / 1e9
    width_s = settling_s(run_s)
    burst = [r for r in timed if r.t_send_ns <= start + width_s * 1e9]
    early = {r.index for r in burst}
    late = [r for r in timed if r.t_end_ns >= end - width_s * 1e9 and r.index not in early]
    if run_s < 2 * width_s or not late:
        why = f"short_run: two windows of {width_s:.3g} s do not fit apart into {run_s:.3g} s"
        return [*_rates(None, None, why), _drift(timed, "")]
    first, last = (float(np.median([r.decode_tps for r in side])) for side in (burst, late))
    said = [f"requests of the {side} {width_s:.3g} s; linear interpolation" for side in ("first", "last")]
    return [*_rates((first, len(burst), said[0]), (last, len(late), said[1]), ""), _drift(timed, "")]


def _rates(burst: tuple[float, int, str] | None, late: tuple[float, int, str] | None, why: str) -> list[Measure]:
    """The two rates as (median, requests, method) and their ratio, or all of them None."""
    if burst is None or late is None:
        names = (("burst_decode_tps", "tok/s"), ("sustained_decode_tps", "tok/s"), ("throttle_retention", "1"))
        return [Measure(name, None, unit, "median" if unit != "1" else "value", reason=why) for name, unit in names]
    return [
        Measure("burst_decode_tps", burst[0], "tok/s", "median", n=burst[1], method=burst[2]),
        Measure("sustained_decode_tps", late[0], "tok/s", "median", n=late[1], method=late[2]),
        Measure("throttle_retention", late[0] / burst[0], "1", n=burst[1] + late[1], method="sustained over burst"),
    ]


def _drift(timed: Sequence[Request], why: str) -> Measure:
    """Slope of the decode rate over the second half of the run, by minute and relative to its mean there.

    The first half is where a device heats up; whether it has settled shows after that. Told only where the slope and
    its 95 % interval lie on one side of 1 % a minute.
    """
    name, unit = "decode_tps_drift_per_min", "1/min"
    found: Drift | None = None
    if not why:
        middle = (min(r.t_send_ns for r in timed) + max(r.t_end_ns for r in timed)) / 2
        half = [r for r in timed if (r.t_send_ns + r.t_end_ns) / 2 >= middle]
        t_s = [((r.t_send_ns + r.t_end_ns) / 2 - middle) / 1e9 for r in half]
        if len(half) < MIN_DRIFT_REQUESTS:
            why = f"short_run: {len(half)} requests in the second half, {MIN_DRIFT_REQUESTS} are needed"
        elif (found := drift(t_s, [r.decode_tps or 0.0 for r in half])) is None:
            why = "no_reading: the requests of the second half were all made at one time"
    if found is None:
        return Measure(name, None, unit, reason=why)
    method = f"{found.label}; {_LEAST_SQUARES} over the requests of the second half, relative to their mean; {_BAND}"
    return Measure(name, found.per_min, unit, n=len(half), u_k2=found.u_k2, method=method)


def power_windows(run: Phase) -> list[tuple[int, int]]:
    """The windows of a sustained run, ns, whose energies tell how its power drifts."""
    middle = (run.t0_ns + run.t1_ns) // 2
    edges = [middle + (run.t1_ns - middle) * k // POWER_WINDOWS for k in range(POWER_WINDOWS + 1)]
    return [(a, b) for a, b in pairwise(edges) if b > a]


def power_drift(total: Rail | None, why: str, run: Phase | None) -> Measure:
    """Slope of the total's power over the second half of the run, as that of the decode rate: one point a window.

    A window without an energy is left out, and half of them must have one. ``why``: why there is no total.
    """
    name, unit = "power_drift_per_min", "1/min"
    if total is None or run is None:
        return Measure(name, None, unit, reason=why if total is None else "no_timed_request: no timed request was sent")
    spans = power_windows(run)
    found = [(span, window(total, *span)) for span in spans]
    known = [(span, one.energy_j) for span, one in found if one.energy_j is not None]
    slope = None
    if len(known) >= POWER_WINDOWS // 2:
        power_w = [joules / ((b - a) / 1e9) for (a, b), joules in known]
        slope = drift([((a + b) / 2 - run.t0_ns) / 1e9 for (a, b), _ in known], power_w)
    if slope is None:
        first = next((one.reason for _, one in found if one.reason), "no_reading: the power is 0")
        return Measure(name, None, unit, n=len(known), source=total.name, reason=first)
    method = f"{slope.label}; {_LEAST_SQUARES} over {len(known)} windows of the second half, relative to their mean"
    return Measure(
        name, slope.per_min, unit, scope=total.scope, source=total.name, n=len(known), u_k2=slope.u_k2,
        method=f"{method}; {_BAND}",
    )  # fmt: skip


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least squares slope and the half-width of its 95 % interval; ``x`` are not all the same."""
    dx = x - x.mean()
    ss = float(dx @ dx)
    slope = float(dx @ y) / ss
    rest = y - y.mean() - slope * dx
    return slope, t95(len(x) - 2) * math.sqrt(float(rest @ rest) / (len(x) - 2) / ss)
