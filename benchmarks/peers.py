"""How other tools make energy of the same readings: the method of each in a few lines, from its public source.

Of a gauge, for most of them read counters at the edges themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from meltbench.records import Phase, Series

Floats = npt.NDArray[np.float64]


def _inside(series: Series, phase: Phase) -> tuple[Floats, Floats]:
    """Time in the phase (s) and value of what was read in it."""
    t = series.t0_ns + (series.t1_ns - series.t0_ns) // 2
    mine = (t >= phase.t0_ns) & (t <= phase.t1_ns)
    return (t[mine] - phase.t0_ns) / 1e9, series.value[mine]


def zeus(series: Series, phase: Phase) -> float:
    """zeus, monitor/power.py: a value that equals the one before is dropped; trapezoids over what is inside the window;
    fewer than two are 0 J."""
    t, v = _inside(series, phase)
    new = np.diff(v, prepend=np.nan) != 0
    t, v = t[new], v[new]
    return float((np.diff(t) * (v[1:] + v[:-1]) / 2).sum())


def devlib(series: Series, phase: Phase) -> float:
    """devlib, derived/energy.py, and MELT for Jetson, libs/powerlib.py: of what is inside each value times the time
    since the one before it. Of a counter (devlib) the last less the first."""
    t, v = _inside(series, phase)
    if series.kind == "counter":
        return float(v[-1] - v[0]) if len(v) else 0.0
    return float((v[1:] * np.diff(t)).sum())


def codecarbon(series: Series, phase: Phase) -> float:
    """codecarbon, external/hardware.py: the mean of what was read about once a second, times the time since the last
    measurement; the reading at the end where there was no time for one."""
    t, v = _inside(series, phase)
    if not len(v):
        return 0.0
    seen = v[np.searchsorted(t, np.arange(1.0, t[-1], 1.0))]
    return float((seen if len(seen) else v[-1:]).mean()) * phase.duration_s


GAUGES: dict[str, Callable[[Series, Phase], float]] = {"zeus": zeus, "codecarbon": codecarbon, "devlib, MELT": devlib}
COUNTERS: dict[str, Callable[[Series, Phase], float]] = {"devlib": devlib}
