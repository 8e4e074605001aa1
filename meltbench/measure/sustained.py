"""What a device holds over minutes: the rate it begins with, the rate it ends with, and whether that has settled.

Rates are the requests' own (``decode_tps``), so pauses and prefills between them count for nothing here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.latency import t95
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Request

WINDOW_S = 30.0
SETTLED_PER_MIN = 0.01
MIN_DRIFT_REQUESTS = 5


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
    width_s = max(WINDOW_S, run_s / 10)
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
    if not why:
        middle = (min(r.t_send_ns for r in timed) + max(r.t_end_ns for r in timed)) / 2
        half = [r for r in timed if (r.t_send_ns + r.t_end_ns) / 2 >= middle]
        if len(half) < MIN_DRIFT_REQUESTS:
            why = f"short_run: {len(half)} requests in the second half, {MIN_DRIFT_REQUESTS} are needed"
        elif len({r.t_send_ns + r.t_end_ns for r in half}) == 1:
            why = "no_reading: the requests of the second half were all made at one time"
    if why:
        return Measure(name, None, unit, reason=why)
    t_min = np.array([(r.t_send_ns + r.t_end_ns) / 2 - middle for r in half]) / 60e9
    rate = np.array([r.decode_tps for r in half], dtype=np.float64)
    slope, u_k2 = _slope(t_min, rate / rate.mean())
    label = "settled" if abs(slope) + u_k2 < SETTLED_PER_MIN else "undecided"
    label = "drifting" if abs(slope) - u_k2 > SETTLED_PER_MIN else label
    method = f"{label}; least squares over the requests of the second half, relative to their mean; 95 % t interval"
    return Measure(name, slope, unit, n=len(half), u_k2=u_k2, method=method)


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least squares slope and the half-width of its 95 % interval; ``x`` are not all the same."""
    dx = x - x.mean()
    ss = float(dx @ dx)
    slope = float(dx @ y) / ss
    rest = y - y.mean() - slope * dx
    return slope, t95(len(x) - 2) * math.sqrt(float(rest @ rest) / (len(x) - 2) / ss)
