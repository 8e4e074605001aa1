"""Counters: unwrapped, with resets told from wraps, and differences over a window.

Wrap or reset. A counter that fell (e1 < e0) wrapped when its range is known, the way across the range end
(e1 + range - e0) is at most a quarter of the range, and that way is possible at ``max_rate``. Any other fall is
a reset (suspend, module reload, driver restart): nothing is known across it. Equal values are no wrap. A pause
between readings in which the counter could have gone half around (range / (2 max_rate)) counts as a reset too, because
a wrap in it would not show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from meltbench.records import Series

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

WRAP_SHARE = 0.25  # of the range: a fall whose way across the end is longer is not "near the range end"


@dataclass(frozen=True)
class Counter:
    """A counter's readable samples as one rising line.

    ``t_ns``: middle of each read. ``value``: accumulated, flat across a reset. ``resets``: indices of the samples
    before which nothing is known. ``wraps``: how many wraps were undone. ``fresh``: True where the value changed.
    """

    t_ns: Ints
    value: Floats
    resets: Ints
    wraps: int
    fresh: Bools

    def reset_within(self, t0_ns: int, t1_ns: int) -> bool:
        """Whether a reset lies between the readings that enclose the window."""
        if not len(self.resets):
            return False
        before, after = self.t_ns[self.resets - 1], self.t_ns[self.resets]
        return bool(((after > t0_ns) & (before < t1_ns)).any())


def middle_ns(series: Series) -> Ints:
    """The middle of each read: half its length is the bound of the stamp's error."""
    return series.t0_ns + (series.t1_ns - series.t0_ns) // 2


def usable(series: Series) -> Bools:
    """The samples that have a value and are later than all before them."""
    good = np.isfinite(series.value)
    t = middle_ns(series)[good]
    good[good] = np.diff(np.maximum.accumulate(t), prepend=t[:1] - 1) > 0
    return good


def unwrap(series: Series, max_rate: float | None = None) -> Counter:
    """The counter without its gaps and wraps. ``max_rate``: the fastest it can rise, units a second (for J: W)."""
    good = usable(series)
    t, v = middle_ns(series)[good], series.value[good]
    step = np.diff(v)
    dt = np.diff(t) / 1e9
    fell = step < 0
    wrapped = np.zeros(len(step), dtype=np.bool_)
    blind = np.zeros(len(step), dtype=np.bool_)
    if series.wrap:
        across = step + series.wrap
        wrapped = fell & (across >= 0) & (across <= WRAP_SHARE * series.wrap)
        if max_rate is not None:
            wrapped &= across <= max_rate * dt
            blind = dt > series.wrap / (2 * max_rate)
        step = np.where(wrapped, across, step)
    reset = (fell & ~wrapped) | blind
    step[reset] = 0.0
    first = v[0] if len(v) else 0.0
    value = np.concatenate([v[:1], first + np.cumsum(step)])
    fresh = np.concatenate([np.zeros(min(len(v), 1), dtype=np.bool_), (step != 0) | reset])
    return Counter(t, value, np.flatnonzero(reset) + 1, int(wrapped.sum()), fresh)


def difference(counter: Counter, t0_ns: int, t1_ns: int) -> float | str:
    """How far the counter rose from t0 to t1, interpolated at both edges; else a reason in words.

    For counters that may stand still, like processor seconds: every reading counts, changed or not.
    """
    if not len(counter.t_ns):
        return "no readable sample"
    if t0_ns < counter.t_ns[0] or t1_ns > counter.t_ns[-1]:
        return "low_coverage: the readings do not enclose the window"
    if counter.reset_within(t0_ns, t1_ns):
        return "counter_reset: the counter was reset inside the window"
    low, high = np.interp([t0_ns, t1_ns], counter.t_ns, counter.value).tolist()
    return float(high - low)
