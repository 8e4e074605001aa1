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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench.errors import InternalError
from meltbench.measure.counters import MAX_POWER_W, middle_ns
from meltbench.measure.course import Course, Courser
from meltbench.measure.rows import CounterRows, GaugeRows
from meltbench.records import DENIED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from meltbench.measure.beats import Beat
    from meltbench.records import Phase, Series

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Edges:
    """The windows that will be asked about: ``run``, None where there is none, and the edges of all, sorted.

    ``times`` None keeps every sample, for signals that are short or windows that are not known. ``few`` are those of
    the run and of processes: of a signal that is no energy, and of a current, nothing else will be asked. ``beats``:
    what recurs in the run, with which a gauge may be in step. ``within``: from the first window to the last, ns.
    """

    run: Phase | None = None
    times: Ints | None = None
    few: Ints | None = None
    beats: tuple[Beat, ...] = ()
    within: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        spans: Iterable[tuple[int, int]],
        run: Phase | None,
        lives: Iterable[tuple[int, int]] = (),
        beats: tuple[Beat, ...] = (),
    ) -> Edges:
        """The edges of these spans (ns), of the run, and of the lives of processes."""
        own = [run.t0_ns, run.t1_ns] if run else []
        few = [edge for life in lives for edge in life] + own
        windows = [edge for span in spans for edge in span] + own
        times, few_times = (np.unique(np.array(edges, dtype=np.int64)) for edges in (windows + few, few))
        return cls(run, times, few_times, beats, (min(windows), max(windows)) if windows else None)

    def near(self, head: Series) -> Ints | None:
        """Around what the samples of a signal are kept: where its clock may be off or its values are smeared, also
        where an edge may lie in truth and as far as the smear reaches."""
        if head.unit not in ("J", "W", "A"):
            return self.few
        times = self.few if head.unit == "A" else self.times
        bound, half = round(displaced_s(head) * 1e9), round((head.window_s or 0.0) / 2 * 1e9)
        apart = np.unique(np.array([0, bound, half, bound + half], dtype=np.int64))
        if times is None or len(apart) == 1:
            return times
        return np.unique(np.concatenate([times + side * by for by in apart.tolist() for side in (-1, 1)]))


def displaced_s(head: Series) -> float:
    """How far from where its samples say a window of an energy may lie: by its clock, and by the age of a gauge's
    values, which shows in nothing else (a counter that is old by chance is an edge's matter)."""
    return head.clock_bound_s + (head.update_s if head.kind == "gauge" else 0.0)


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
    times (ns) between which nothing is known. ``denied``: every reading was. ``period_s``: how far apart the
    fresh values of a gauge of power or current usually are, and ``quantum_w`` what it can tell apart, in its unit.
    ``beats``: what recurs in the run and could be in step with it.
    ``course``: of a temperature, a clock, a state, and what a battery holds and gives, how it went over time.
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
    period_s: float = math.inf
    quantum_w: float = 0.0
    beats: tuple[Beat, ...] = ()
    course: Course | None = None

    @property
    def name(self) -> str:
        """The signal's name."""
        return self.head.name

    def reset_within(self, t0_ns: int, t1_ns: int) -> bool:
        """Whether a reset lies between the readings that enclose the window."""
        first = bisect_right(self.resets, t0_ns, key=lambda pair: pair[1])
        return first < len(self.resets) and self.resets[first][0] < t1_ns

    def check_neighbours(self, k: int) -> None:
        """Raise InternalError when rows k-1 and k were not neighbours: then the window was not told beforehand."""
        if self.kept["place"][k] != self.kept["place"][k - 1] + 1:
            raise InternalError(f"a window of {self.name} was not known when its samples passed", hint="report it")


class Digester:
    """Takes one signal block by block. ``most_w``: more than the device can draw."""

    def __init__(self, head: Series, edges: Edges, most_w: float = MAX_POWER_W) -> None:
        self._head, self._edges = head.head(), edges
        self._whole, self._run, self._line = Extent(), Extent(), Line()
        self._before: float | None = None
        self._denied: bool | None = None
        self._counter = self._gauge = None
        if head.kind == "counter":
            self._counter = CounterRows(head, edges.near(head), most_w)
        elif head.unit in ("W", "A"):
            self._gauge = GaugeRows(self._head, edges.near(head), edges.within, edges.beats)
        followed = head.kind == "state" or (head.kind == "gauge" and head.unit in ("degC", "Hz", "A", "C", "%"))
        self._courser = Courser() if followed else None

    def add(self, part: Series) -> None:
        """The next samples of the signal, later than all before."""
        if len(part):
            self._denied = self._denied is not False and bool((part.status == DENIED).all())
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
        told: dict[str, Any] = {"readings": 0, "updates": 0, "resets": ()}
        if (counter := self._counter) is not None:
            kept, seen = counter.near.done(), counter.unwrapper
            told = {"readings": seen.readings, "updates": seen.updates, "resets": tuple(seen.resets)}
        elif (gauge := self._gauge) is not None:
            kept = gauge.done()
            told |= {"readings": gauge.readings, "updates": gauge.changes, "beats": gauge.beats}
            told |= {} if gauge.period_s is None else {"period_s": gauge.period_s, "quantum_w": gauge.quantum_w}
        return Digest(
            self._head,
            self._whole,
            self._run,
            self._line,
            self._before,
            kept or _empty(),
            denied=bool(self._denied),
            course=None if self._courser is None else self._courser.done(),
            **told,
        )


def _empty() -> Columns:
    return {"t": np.empty(0, np.int64), "v": np.empty(0), "place": np.empty(0, np.int64)}


def digest(series: Series, edges: Edges | None = None, most_w: float = MAX_POWER_W) -> Digest:
    """A signal that is held whole, digested."""
    digester = Digester(series, edges or Edges(), most_w)
    digester.add(series)
    return digester.done()


def named(signals: Sequence[Digest], name: str) -> list[Digest]:
    """Every signal of one name: a process that was started twice has two."""
    return [one for one in signals if one.name == name]
