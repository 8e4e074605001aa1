"""What the measures need of a signal, kept while its samples pass by: a run may have more than fit in memory.

Every window that will be asked about is known beforehand, for phases and requests are read before any sample. So a
signal is taken block by block, and kept are: how many values it had and their extremes, in the run and in all; and the
few samples around each edge of a window, with the sums up to them. A window's energy is then exact, a difference of
two such sums, and memory grows with the number of windows alone. Of temperatures, clocks and states a bounded course
over time is kept beside.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench.errors import InternalError
from meltbench.measure.counters import MAX_POWER_W, Unwrapper, middle_ns, usable
from meltbench.measure.course import Course, Courser
from meltbench.records import DENIED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from meltbench.records import Phase, Series

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Columns = dict[str, npt.NDArray[Any]]

BESIDE = 4  # samples kept on each side of an edge: an edge's u looks at two intervals either way
_USUAL_OF = 256  # gaps between a gauge's first samples, whose median is the usual one
GAP_FACTOR = 3.0  # a pause longer than this many usual periods is lost evidence


@dataclass(frozen=True)
class Edges:
    """The windows that will be asked about: ``run``, None where there is none, and the edges of all, sorted.

    ``times`` None keeps every sample, for signals that are short or windows that are not known. ``few`` are those of
    the run and of processes: of a signal that is no energy nothing else will be asked.
    """

    run: Phase | None = None
    times: Ints | None = None
    few: Ints | None = None

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]], run: Phase | None, lives: Iterable[tuple[int, int]] = ()) -> Edges:
        """The edges of these spans (ns), of the run, and of the lives of processes."""
        few = [edge for life in lives for edge in life] + ([run.t0_ns, run.t1_ns] if run else [])
        every = [edge for span in spans for edge in span] + few
        return cls(run, np.unique(np.array(every, dtype=np.int64)), np.unique(np.array(few, dtype=np.int64)))


@dataclass(frozen=True)
class Extent:
    """Number of readable values of a span and their extremes; ``low`` and ``high`` mean nothing where n is 0."""

    n: int = 0
    low: float = math.inf
    high: float = -math.inf

    def joined(self, values: Floats) -> Extent:
        """With more values, all of them finite."""
        if not len(values):
            return self
        return Extent(self.n + len(values), min(self.low, float(values.min())), max(self.high, float(values.max())))


@dataclass(frozen=True)
class Line:
    """Sums of a least squares line over the run: x in s from its start, y in the unit of the signal."""

    n: int = 0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def joined(self, x: Floats, y: Floats) -> Line:
        """With more points."""
        sums = (float(part.sum()) for part in (x, y, x * x, x * y))
        return Line(self.n + len(x), *(a + b for a, b in zip((self.x, self.y, self.xx, self.xy), sums, strict=True)))

    @property
    def slope(self) -> float | None:
        """Rise per second; None where all points are at one time."""
        spread = self.xx - self.x * self.x / self.n if self.n else 0.0
        return (self.xy - self.x * self.y / self.n) / spread if spread > 0 else None


@dataclass(frozen=True)
class Digest:
    """A signal without its samples: ``head`` says what it is.

    ``before``: the last value before the run. ``kept``: columns of the samples near edges, ``t`` (ns) and ``v`` first;
    ``place`` is a sample's position among all. Of an energy counter the samples are its updates, else its readings.
    ``readings`` counts all that had a value and rising time, ``updates`` those that changed it. ``resets``: pairs of
    times (ns) between which nothing is known. ``course``: of a temperature, a clock or a state, how it went over time.
    """

    head: Series
    whole: Extent
    run: Extent
    line: Line
    before: float | None
    kept: Columns
    readings: int
    updates: int
    resets: tuple[tuple[int, int], ...]
    denied: bool
    course: Course | None = None

    @property
    def name(self) -> str:
        """The signal's name."""
        return self.head.name

    def reset_within(self, t0_ns: int, t1_ns: int) -> bool:
        """Whether a reset lies between the readings that enclose the window."""
        first = bisect_right(self.resets, t0_ns, key=lambda pair: pair[1])
        return first < len(self.resets) and self.resets[first][0] < t1_ns

    @cached_property
    def halves(self) -> tuple[Columns, Columns]:
        """Of a gauge: every other kept sample, and the rest."""
        odd = self.kept["place"] % 2 == 1
        even, rest = ({name: column[mine] for name, column in self.kept.items()} for mine in (~odd, odd))
        return even, rest

    def check_neighbours(self, rows: Columns, k: int, apart: int = 1) -> None:
        """Raise InternalError when rows k-1 and k were not neighbours: then the window was not told beforehand."""
        if rows["place"][k] != rows["place"][k - 1] + apart:
            raise InternalError(f"a window of {self.name} was not known when its samples passed", hint="report it")


class _Near:
    """Keeps of the rows that pass those beside an edge, the first and the last ones, and everything without edges."""

    def __init__(self, edges: Ints | None) -> None:
        self._edges, self._seen = edges, 0
        self._parts: list[Columns] = []
        self._tail: Columns = {}
        self._marked = np.empty(0, np.bool_)
        self._dropped_ns = -(1 << 62)

    def add(self, rows: Columns) -> None:
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

    def _beside(self, t: Ints, edges: Ints) -> npt.NDArray[np.bool_]:
        low, high = np.searchsorted(edges, self._dropped_ns, "right"), np.searchsorted(edges, t[-1:], "right")
        at = np.searchsorted(t, edges[low : int(high[0]) if len(high) else 0])
        change = np.zeros(len(t) + 1, dtype=np.int64)
        np.add.at(change, np.maximum(at - BESIDE, 0), 1)
        np.add.at(change, np.minimum(at + BESIDE, len(t)), -1)
        near: npt.NDArray[np.bool_] = np.cumsum(change)[:-1] > 0
        return near

    def done(self) -> Columns:
        parts = [*self._parts, self._tail] if self._tail else self._parts
        names = parts[0] if parts else ()
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


class Digester:
    """Takes one signal block by block."""

    def __init__(self, head: Series, edges: Edges) -> None:
        self._head, self._edges = head.head(), edges
        self._whole, self._run, self._line = Extent(), Extent(), Line()
        self._before: float | None = None
        self._denied = True
        self._counter = self._gauge = None
        times = edges.times if head.unit in ("J", "W") else edges.few
        if head.kind == "counter":
            self._counter = _Counter(head, times)
        elif head.unit == "W":
            self._gauge = _Gauge(times)
        followed = head.kind == "state" or (head.kind == "gauge" and head.unit in ("degC", "Hz"))
        self._courser = Courser() if followed else None

    def add(self, part: Series) -> None:
        """The next samples of the signal, later than all before."""
        self._denied = self._denied and bool((part.status == DENIED).all())
        good = np.isfinite(part.value)
        t, v = middle_ns(part)[good], part.value[good]
        self._whole = self._whole.joined(v)
        if self._courser is not None and len(v):
            self._courser.add(t, v)
        if (run := self._edges.run) is not None:
            inside = (t >= run.t0_ns) & (t <= run.t1_ns)
            self._run = self._run.joined(v[inside])
            self._line = self._line.joined((t[inside] - run.t0_ns) / 1e9, v[inside])
            early = v[t <= run.t0_ns]
            self._before = float(early[-1]) if len(early) else self._before
        keeper = self._counter or self._gauge
        if keeper is not None:
            keeper.add(part)

    def done(self) -> Digest:
        """What was kept."""
        kept: Columns = {}
        readings = updates = 0
        resets: tuple[tuple[int, int], ...] = ()
        if self._counter is not None:
            kept, resets = self._counter.near.done(), tuple(self._counter.unwrapper.resets)
            readings, updates = self._counter.unwrapper.readings, self._counter.unwrapper.updates
        elif self._gauge is not None:
            kept, readings, updates = self._gauge.done(), self._gauge.readings, self._gauge.changes
        return Digest(
            self._head, self._whole, self._run, self._line, self._before, kept or _empty(), readings, updates, resets,
            self._denied, None if self._courser is None else self._courser.done(),
        )  # fmt: skip


def _empty() -> Columns:
    return {"t": np.empty(0, np.int64), "v": np.empty(0), "place": np.empty(0, np.int64)}


def digest(series: Series, edges: Edges | None = None) -> Digest:
    """A signal that is held whole, digested."""
    digester = Digester(series, edges or Edges())
    digester.add(series)
    return digester.done()


class _Counter:
    """Rows of a counter: of one in joules its updates, else its readings.

    ``v``: as it was first read, and risen since. ``stamp_s``: length of the read; ``since_s``: to the one before it.
    """

    def __init__(self, head: Series, edges: Ints | None) -> None:
        self._energy = head.unit == "J"
        self.unwrapper = Unwrapper(head.wrap, MAX_POWER_W if self._energy else None)
        self.near = _Near(edges)

    def add(self, part: Series) -> None:
        t, v, fresh, since_s, stamp_s = self.unwrapper.add(part)
        rows = {"t": t, "v": v, "stamp_s": stamp_s, "since_s": since_s}
        if self._energy:
            rows = {name: column[fresh] for name, column in rows.items()}
        if len(rows["t"]):
            self.near.add(rows)


@dataclass
class _Gauge:
    """Rows of a power gauge with the sums up to them: ``area`` (J) of the polyline, ``own`` (J) of the polyline through
    every other sample that this one belongs to, ``changes`` of value, and seconds of long ``gaps``."""

    edges: Ints | None
    readings: int = 0
    changes: int = 0
    last: tuple[int, float] | None = None
    area: float = 0.0
    gaps: float = 0.0
    usual_s: float | None = None
    first: list[tuple[Ints, Floats, Floats]] = field(default_factory=list)
    halves: list[tuple[int, float, float] | None] = field(default_factory=lambda: [None, None])

    def __post_init__(self) -> None:
        self.near = _Near(self.edges)

    def add(self, part: Series) -> None:
        t, v, stamp = usable(part, self.last[0] if self.last else None)
        if self.usual_s is None:
            t, v, stamp = self._begun(t, v, stamp)
        if len(t) and self.usual_s is not None:
            self._take(t, v, stamp)

    def _begun(self, t: Ints, v: Floats, stamp: Floats) -> tuple[Ints, Floats, Floats]:
        """The samples from the first on, once there are enough of them to tell how far apart they usually are."""
        self.first.append((t, v, stamp))
        self.last = (int(t[-1]), float(v[-1])) if len(t) else self.last
        whole = tuple(np.concatenate([part[i] for part in self.first]) for i in range(3))
        if len(whole[0]) > _USUAL_OF:
            self._settle(whole[0])
            return whole[0], whole[1], whole[2]
        return t[:0], v[:0], stamp[:0]

    def _settle(self, t: Ints) -> None:
        self.usual_s = float(np.median(np.diff(t[: _USUAL_OF + 1]))) / 1e9 if len(t) > 1 else math.inf
        self.last, self.first = None, []

    def done(self) -> Columns:
        if self.usual_s is None and self.first:
            t, v, stamp = (np.concatenate([part[i] for part in self.first]) for i in range(3))
            self._settle(t)
            if len(t):
                self._take(t, v, stamp)
        return self.near.done()

    def _take(self, t: Ints, v: Floats, stamp: Floats) -> None:
        t_before, v_before = self.last or (int(t[0]), float(v[0]))
        dt = np.diff(t, prepend=t_before) / 1e9
        area = _risen(self.area, dt, v, v_before)
        changes = self.changes + np.cumsum(np.diff(v, prepend=v_before) != 0)
        long = dt > GAP_FACTOR * (self.usual_s or math.inf)
        gaps = self.gaps + np.cumsum(np.where(long, dt, 0.0))
        own = np.empty(len(t))
        for half in (0, 1):
            mine = slice((half - self.readings) % 2, None, 2)
            own[mine] = self._half(half, t[mine], v[mine])
        self.near.add(
            {"t": t, "v": v, "stamp_s": stamp, "area": area, "own": own, "changes": changes, "gaps": gaps, "long": long}
        )
        self.readings += len(t)
        self.last, self.area, self.gaps = (int(t[-1]), float(v[-1])), float(area[-1]), float(gaps[-1])
        self.changes = int(changes[-1])

    def _half(self, half: int, t: Ints, v: Floats) -> Floats:
        if not len(t):
            return np.empty(0)
        t_before, v_before, own = self.halves[half] or (int(t[0]), float(v[0]), 0.0)
        sums = _risen(own, np.diff(t, prepend=t_before) / 1e9, v, v_before)
        self.halves[half] = (int(t[-1]), float(v[-1]), float(sums[-1]))
        return sums


def _risen(so_far: float, dt: Floats, v: Floats, v_before: float) -> Floats:
    """The area under a polyline up to each of its points; ``dt``: seconds since the point before."""
    sums: Floats = so_far + np.cumsum((np.concatenate([[v_before], v[:-1]]) + v) / 2 * dt)
    return sums


def named(signals: Sequence[Digest], name: str) -> list[Digest]:
    """Every signal of one name: a process that was started twice has two."""
    return [one for one in signals if one.name == name]
