"""Counters: unwrapped, with resets told from wraps, and differences over a window.

Wrap or reset. A counter that fell (e1 < e0) wrapped when its range is known, the way across the range end
(e1 + range - e0) is at most a quarter of the range, and that way is possible at ``max_rate``. Any other fall is
a reset (suspend, module reload, driver restart): nothing is known across it. Equal values are no wrap. A pause
between readings in which the counter could have gone half around (range / (2 max_rate)) counts as a reset too, because
a wrap in it would not show. So does a rise by more than ``JUMP_FACTOR`` times what ``max_rate`` gives in the time since
the value last began to rise: a register that was overwritten, not energy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from meltbench.measure.digest import Digest
    from meltbench.records import Series

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

WRAP_SHARE = 0.25  # of the range: a fall whose way across the end is longer is not "near the range end"
JUMP_FACTOR = 2.0  # values are published in steps and read at uneven times, so a true rise may look steeper than it was
MAX_POWER_W = 2000.0  # more than any single machine in scope draws, its GPUs aside
MAX_GPU_POWER_W = 1500.0  # more than a board draws


def middle_ns(series: Series) -> Ints:
    """The middle of each read: half its length is the bound of the stamp's error."""
    return series.t0_ns + (series.t1_ns - series.t0_ns) // 2


def usable(part: Series, after_ns: int | None) -> tuple[Ints, Floats, Floats]:
    """The readings of a block that have a value and a time later than all before: middle of each read (ns), value,
    seconds the read took. ``after_ns``: time of the last one of the blocks before."""
    good = np.isfinite(part.value)
    t, v, stamp = middle_ns(part)[good], part.value[good], (part.t1_ns - part.t0_ns)[good] / 1e9
    rising = np.diff(np.maximum.accumulate(t), prepend=t[:1] - 1) > 0
    if after_ns is not None:
        rising &= t > after_ns
    return t[rising], v[rising], stamp[rising]


class Unwrapper:
    """One rising line out of a counter's blocks. ``max_rate``: the fastest it can rise, units a second (for J: W).

    ``readings`` counts those that had a value and a time later than all before, ``updates`` those that changed the
    value, ``wraps`` those undone. ``resets``: times (ns) of the readings on both sides of each reset.
    """

    def __init__(self, wrap: float | None, max_rate: float | None = None) -> None:
        self._wrap, self._max_rate = wrap, max_rate
        self._last: tuple[int, float, float] | None = None  # time, what was read, value of the line
        self._rising_ns = -math.inf  # when the value last began to rise to what it is: at the reading before its change
        self.readings = self.updates = self.wraps = 0
        self.resets: list[tuple[int, int]] = []

    def add(self, part: Series) -> tuple[Ints, Floats, Bools, Floats, Floats]:
        """The usable readings of a block: middle of each read (ns), value (flat across a reset), whether it changed,
        seconds since the reading before, seconds the read took."""
        t, raw, stamp = usable(part, self._last[0] if self._last else None)
        if not len(t):
            return t, raw, np.empty(0, np.bool_), stamp, stamp
        before = self._last or (int(t[0]), float(raw[0]), float(raw[0]))
        times = np.concatenate([[before[0]], t])
        dt: Floats = np.diff(times) / 1e9
        change = np.diff(raw, prepend=before[1])
        step, wrapped, reset = self._steps(change, dt, self._room_s(change, times, stamp))
        value: Floats = before[2] + np.cumsum(step)
        fresh = (step != 0) | reset
        self.resets += [(int(times[i]), int(times[i + 1])) for i in np.flatnonzero(reset).tolist()]
        self.wraps += int(wrapped.sum())
        self.readings += len(t)
        self.updates += int(fresh.sum())
        self._last = int(t[-1]), float(raw[-1]), float(value[-1])
        return t, value, fresh, dt, stamp

    def _room_s(self, change: Floats, times: Ints, stamp: Floats) -> Floats:
        """How long a value can have taken to rise to what was read: since the reading before the last change, for
        nobody knows when between the two it was. Infinite at the first change: how old the first value was is unknown.
        """
        begun = np.maximum.accumulate(np.concatenate([[self._rising_ns], np.where(change != 0, times[:-1], -math.inf)]))
        self._rising_ns = float(begun[-1])
        room: Floats = (times[1:] - begun[:-1]) / 1e9 + stamp
        return room

    def _steps(self, step: Floats, dt: Floats, room_s: Floats) -> tuple[Floats, Bools, Bools]:
        fell = step < 0
        wrapped = np.zeros(len(step), dtype=np.bool_)
        blind = np.zeros(len(step), dtype=np.bool_)
        if self._wrap:
            across = step + self._wrap
            wrapped = fell & (across >= 0) & (across <= WRAP_SHARE * self._wrap)
            if self._max_rate is not None:
                wrapped &= across <= self._max_rate * np.where(np.isfinite(room_s), room_s, dt)
                blind = dt > self._wrap / (2 * self._max_rate)
            step = np.where(wrapped, across, step)
        reset = (fell & ~wrapped) | blind
        if self._max_rate is not None:
            reset |= step > JUMP_FACTOR * self._max_rate * room_s
        return np.where(reset, 0.0, step), wrapped, reset


def difference(counter: Digest, t0_ns: int, t1_ns: int) -> float | str:
    """How far the counter rose from t0 to t1, interpolated at both edges; else a reason in words.

    For counters that may stand still, like processor seconds: every reading counts, changed or not.
    """
    t, v = counter.kept["t"], counter.kept["v"]
    if not len(t):
        return "no readable sample"
    if t0_ns < t[0] or t1_ns > t[-1]:
        return "low_coverage: the readings do not enclose the window"
    if counter.reset_within(t0_ns, t1_ns):
        return "counter_reset: the counter was reset inside the window"
    for edge in (t0_ns, t1_ns):
        if (k := int(np.searchsorted(t, edge))) > 0 and t[k] != edge:
            counter.check_neighbours(k)
    low, high = np.interp([t0_ns, t1_ns], t, v).tolist()
    return float(high - low)
