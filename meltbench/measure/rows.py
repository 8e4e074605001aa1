"""Rows of counters and of power gauges, kept beside the edges of windows with the sums up to them.

A gauge that is read oftener than it is renewed repeats its values. Such copies are no samples: they would hide how
far apart the real ones are. So of a slow gauge a reading stands when its value is new, or when it would have been
renewed by then: constant power keeps its energy, and what is between two rows is what nobody measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench.measure.counters import Unwrapper, usable

if TYPE_CHECKING:
    import numpy.typing as npt

    from meltbench.measure.beats import Beat
    from meltbench.records import Series

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]
    Columns = dict[str, npt.NDArray[Any]]

BESIDE = 4  # rows kept on each side of an edge: an edge's u looks at two intervals either way
GAP_FACTOR = 3.0  # a pause longer than this many usual periods is lost evidence
_USUAL_OF = 256  # gaps between a gauge's first readings, whose median is the usual one
_RENEWALS = 32  # new values that tell how often a gauge is renewed
_ENOUGH = 1 << 14  # readings that are waited for them: a gauge that stood still so long is taken as it is
_SLOW = 1.5  # usual periods between new values, from which on a gauge is slower than its readings


class Near:
    """Keeps of the rows that pass those beside an edge, the first and the last ones, and everything without edges."""

    def __init__(self, edges: Ints | None) -> None:
        self._edges, self._seen = edges, 0
        self._parts: list[Columns] = []
        self._tail: Columns = {}
        self._marked = np.empty(0, np.bool_)
        self._dropped_ns = -(1 << 62)

    def add(self, rows: Columns) -> None:
        """The next rows; ``t`` (ns) is among their columns, and ``place``, their position among all, is added."""
        n = len(rows["t"])
        rows["place"] = np.arange(self._seen, self._seen + n)
        self._seen += n
        if self._edges is None:
            self._parts.append(rows)
            return
        if self._tail:
            rows = {name: np.concatenate([self._tail[name], column]) for name, column in rows.items()}
        marked = self._beside(rows["t"], self._edges)
        marked[: len(self._marked)] |= self._marked
        marked[:BESIDE] |= rows["place"][:BESIDE] < BESIDE
        cut = max(len(marked) - BESIDE, 0)  # an edge that is still to come may want the last ones
        self._parts.append({name: column[:cut][marked[:cut]] for name, column in rows.items()})
        self._tail, self._marked = {name: column[cut:].copy() for name, column in rows.items()}, marked[cut:]
        if cut:
            self._dropped_ns = int(rows["t"][cut - 1])

    def _beside(self, t: Ints, edges: Ints) -> Bools:
        low, high = np.searchsorted(edges, self._dropped_ns, "right"), np.searchsorted(edges, t[-1:], "right")
        at = np.searchsorted(t, edges[low : int(high[0]) if len(high) else 0])
        change = np.zeros(len(t) + 1, dtype=np.int64)
        np.add.at(change, np.maximum(at - BESIDE, 0), 1)
        np.add.at(change, np.minimum(at + BESIDE, len(t)), -1)
        near: Bools = np.cumsum(change)[:-1] > 0
        return near

    def done(self) -> Columns:
        """The columns of what was kept; none where nothing came."""
        parts = [*self._parts, self._tail] if self._tail else self._parts
        names = parts[0] if parts else ()
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


class CounterRows:
    """Rows of a counter: of one in joules its updates, else its readings.

    ``v``: as it was first read, and risen since. ``stamp_s``: length of the read; ``since_s``: to the one before it.
    ``most_w``: more than what it counts can draw.
    """

    def __init__(self, head: Series, edges: Ints | None, most_w: float) -> None:
        self._energy = head.unit == "J"
        self.unwrapper = Unwrapper(head.wrap, most_w if self._energy else None)
        self.near = Near(edges)

    def add(self, part: Series) -> None:
        """The next samples."""
        t, v, fresh, since_s, stamp_s = self.unwrapper.add(part)
        rows = {"t": t, "v": v, "stamp_s": stamp_s, "since_s": since_s}
        if self._energy:
            rows = {name: column[fresh] for name, column in rows.items()}
        if len(rows["t"]):
            self.near.add(rows)


@dataclass
class GaugeRows:
    """Rows of a power gauge with the sums up to them: ``area`` (J) of the polyline, ``rough`` (J^2, see ``_rough``),
    ``changes`` of value, seconds of long ``gaps``, and those of each beat.

    A trailing mean stands for the middle of what it is of: its rows lie half its window before their readings.
    ``period_s``: how far apart fresh values usually are; None until enough of them were seen to tell. ``quantum_w``:
    the least that two values in a row differed by, if they did. ``within``: from the first window to the last, if they
    are known; what is usual is told there: around them a reading is also made at every step (docs/probe.md), and a
    phone's settings alone are thirty.
    """

    head: Series
    edges: Ints | None
    within: tuple[int, int] | None = None
    beats: tuple[Beat, ...] = ()
    readings: int = field(default=0, init=False)
    changes: int = field(default=0, init=False)
    period_s: float | None = field(default=None, init=False)
    quantum_w: float = field(default=math.inf, init=False)

    _usual_s: float = field(default=math.inf, init=False)
    _renew_ns: float = field(default=0.0, init=False)  # 0: every reading is a row
    _first: list[tuple[Ints, Floats, Floats]] = field(default_factory=list, init=False)
    _last: tuple[int, float] | None = field(default=None, init=False)  # the last reading
    _new_ns: int | None = field(default=None, init=False)  # when the value last changed
    _rows: tuple[Ints, Floats] = field(default=(np.empty(0, np.int64), np.empty(0)), init=False)  # t, v of the last two
    _sums: dict[str, Any] = field(default_factory=dict, init=False)
    _spare: Columns = field(default_factory=dict, init=False)  # the last reading, where it was a copy

    def __post_init__(self) -> None:
        self.near = Near(self.edges)

    def add(self, part: Series) -> None:
        """The next samples."""
        t, v, stamp = usable(part, self._last[0] if self._last else None)
        if not len(t):
            return
        if self.period_s is None:
            self._first.append((t, v, stamp))
            self._last = int(t[-1]), float(v[-1])
            t, v, stamp = (np.concatenate([one[i] for one in self._first]) for i in range(3))
            told = v[self._telling(t)]
            if len(t) < _ENOUGH and (len(told) <= _USUAL_OF or np.count_nonzero(np.diff(told)) < _RENEWALS):
                return
            self._settle(t, v)
        self._take(t, v, stamp)

    def done(self) -> Columns:
        """The columns of what was kept."""
        if self.period_s is None and self._first:
            t, v, stamp = (np.concatenate([one[i] for one in self._first]) for i in range(3))
            self._settle(t, v)
            self._take(t, v, stamp)
        if self._spare:
            self._put(self._spare)
        return self.near.done()

    def _telling(self, t: Ints) -> slice:
        """The readings that tell what is usual."""
        return slice(*np.searchsorted(t, self.within).tolist()) if self.within else slice(None)

    def _settle(self, t: Ints, v: Floats) -> None:
        """How far apart readings and fresh values usually are, by the first ones, however many came at once."""
        t, v = t[:_ENOUGH], v[:_ENOUGH]
        telling = self._telling(t)
        if len(t[telling]) > 1:
            t, v = t[telling], v[telling]
        self._usual_s = float(np.median(np.diff(t[: _USUAL_OF + 1]))) / 1e9 if len(t) > 1 else math.inf
        new = t[1:][np.diff(v) != 0][:_RENEWALS]
        # Not the median: a gauge that often finds the same value again is not therefore slow.
        apart_s = float(np.quantile(np.diff(new), 0.1)) / 1e9 if len(new) > 4 else 0.0
        slow = apart_s >= _SLOW * self._usual_s
        self.period_s = apart_s if slow else self._usual_s
        self._renew_ns = _SLOW * apart_s * 1e9 if slow else 0.0
        window_s = self.head.window_s or 0.0
        self.beats = tuple(beat for beat in self.beats if beat.matters(self.period_s, window_s))
        self._last, self._first = None, []

    def _take(self, t: Ints, v: Floats, stamp: Floats) -> None:
        t_before, v_before = self._last or (int(t[0]), float(v[0]))
        since = np.diff(t, prepend=t_before) / 1e9
        change = np.abs(np.diff(v, prepend=v_before))
        fresh = change > 0
        self.quantum_w = min(self.quantum_w, float(change[fresh].min(initial=math.inf)))
        renewed = self._renewed(t, fresh, t_before) & (v != 0)
        long = since > GAP_FACTOR * self._usual_s
        rows = {
            "t": t - round((self.head.window_s or 0.0) / 2 * 1e9),
            "v": v,
            "stamp_s": stamp,
            "since_s": since,
            "changes": self.changes + np.cumsum(fresh | renewed),
            "gaps": self._risen("gaps", np.where(long, since, 0.0)),
        }
        self.readings += len(t)
        self.changes = int(rows["changes"][-1])
        self._last = int(t[-1]), float(v[-1])
        stand = self._standing(rows["t"], fresh)
        if stand.any():
            self._put({name: column[stand] for name, column in rows.items()})
        self._spare = {} if stand[-1] else {name: column[-1:] for name, column in rows.items()}

    def _renewed(self, t: Ints, changed: Bools, t_before: int) -> Bools:
        """Whether the gauge was renewed since its last new value, where it says how often: then an equal value is a new
        one too, for power may be constant. A gauge that says nothing of it may as well stand still, and one of a
        battery (class D) does."""
        every_ns = 0 if self.head.klass == "D" else round((self.head.update_s or self.head.window_s or 0.0) * 1e9)
        if not every_ns:
            return np.zeros(len(t), np.bool_)
        since = np.maximum.accumulate(np.where(changed, t, self._new_ns or int(t[0])))
        self._new_ns = int(since[-1])
        slots = (t - since) // every_ns
        before = (np.concatenate([[t_before], t[:-1]]) - since) // every_ns
        renewed: Bools = ~changed & (slots > before)
        return renewed

    def _standing(self, t: Ints, fresh: Bools) -> Bools:
        """The readings that are rows."""
        if not self._renew_ns:
            return np.ones(len(t), np.bool_)
        stand = fresh.copy()
        last = int(self._rows[0][-1]) if len(self._rows[0]) else -(1 << 62)
        for i, at in enumerate(t.tolist()):
            if stand[i] or at - last >= self._renew_ns:
                stand[i], last = True, at
        return stand

    def _put(self, rows: Columns) -> None:
        t, v = (np.concatenate([before, rows[name]]) for before, name in zip(self._rows, ("t", "v"), strict=True))
        n = len(rows["t"])
        steps = np.zeros(n)
        area = np.diff(t) / 1e9 * (v[:-1] + v[1:]) / 2
        steps[n - len(area[-n:]) :] = area[-n:]
        rows["area"] = self._risen("area", steps)
        rows["rough"] = self._risen("rough", _rough(t, v, n))
        for beat in self.beats:
            for name, column in beat.sums(rows["t"], rows["v"]).items():
                rows[name] = self._risen(name, column)
        self._rows = t[-2:], v[-2:]
        self.near.add(rows)

    def _risen(self, name: str, steps: npt.NDArray[Any]) -> npt.NDArray[Any]:
        sums: npt.NDArray[Any] = self._sums.get(name, 0.0) + np.cumsum(steps)
        self._sums[name] = sums[-1]
        return sums


def _rough(t: Ints, v: Floats, n: int) -> Floats:
    """The square of what leaving out one sample does to the area (J^2), at the sample after it; for the last ``n``."""
    out = np.zeros(n)
    if len(t) >= 3:
        dt, dv = np.diff(t) / 1e9, np.diff(v)
        lost = (dt[1:] * dv[:-1] - dt[:-1] * dv[1:])[-n:] / 2
        out[n - len(lost) :] = lost**2
    return out
