"""One clock's time on another: where exchanges before and after a run put the stamps of the controller. Pure.

An exchange is a question at ``t0`` and its answer at ``t3`` on the controller's clock, and the target's clock ``t1``
between them: offset = ((t1 - t0) + (t1 - t3)) / 2, and whatever the two ways took, |error| <= (t3 - t0) / 2 (Cristian
1989; NTP in RFC 5905 with t1 = t2). Of many exchanges the one of the shortest round trip is kept. Both clocks are
CLOCK_BOOTTIME, which runs on in suspend and is not moved by steps of the wall clock; it is slewed with it, hence the
drift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

MIN_EXCHANGES = 20
# How far a clock's rate may stray from its mean between two exchanges: quartz moves by some ppm with temperature, and
# the kernel's time discipline by as much. An assumption; by it the middle of a long run is known less well.
WANDER = 10e-6
# With one exchange the rate is unknown: the kernel slews a clock by at most 500 ppm (MAXFREQ, linux/timex.h).
MAX_DRIFT = 500e-6


class Exchange(NamedTuple):
    """One question to the target's clock: asked and answered in ns of the controller's, ``told_ns`` of the target's."""

    asked_ns: int
    told_ns: int
    answered_ns: int

    @property
    def trip_ns(self) -> int:
        """How long question and answer took together."""
        return self.answered_ns - self.asked_ns

    @property
    def middle_ns(self) -> int:
        """The controller's time half way."""
        return self.asked_ns + self.trip_ns // 2

    @property
    def offset_ns(self) -> int:
        """Target's clock less controller's; off by at most half the trip."""
        return self.told_ns - self.middle_ns


class Clock(NamedTuple):
    """What names a clock: a boot of a kernel, and a time namespace in it. None or empty where it is not known."""

    boot_id: str
    time_namespace: int | None

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Clock:
        """As the probe's facts and its journal's begin tell it."""
        number = told.get("time_namespace")
        return cls(str(told.get("boot_id") or ""), number if isinstance(number, int) else None)

    def is_surely(self, other: Clock) -> bool:
        """Whether both are provably one clock."""
        return bool(self.boot_id) and self.time_namespace is not None and self == other


@dataclass(frozen=True)
class Batch:
    """Exchanges over one open channel, with the two clocks that they were between."""

    exchanges: tuple[Exchange, ...]
    controller: Clock
    target: Clock

    @property
    def best(self) -> Exchange | None:
        """The exchange of the shortest round trip; None where there are too few to have met a short one."""
        good = [one for one in self.exchanges if one.trip_ns >= 0]
        return min(good, key=lambda one: one.trip_ns) if len(good) >= MIN_EXCHANGES else None

    def told(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {
            "controller": self.controller._asdict(),
            "target": self.target._asdict(),
            "exchanges": [list(one) for one in self.exchanges],
        }

    @classmethod
    def read(cls, data: object) -> Batch | None:
        """From such data; None where it is none."""
        if not isinstance(data, dict) or not all(isinstance(data.get(key), dict) for key in ("controller", "target")):
            return None
        rows = data.get("exchanges")
        good = [row for row in rows if _three(row)] if isinstance(rows, list) else []
        exchanges = tuple(Exchange(*row) for row in good[:10_000])
        return cls(exchanges, Clock.of(data["controller"]), Clock.of(data["target"]))


def _three(row: object) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 3
        and all(isinstance(n, int) and not isinstance(n, bool) and abs(n) < 1 << 60 for n in row)
    )


@dataclass(frozen=True)
class ClockMap:
    """target = controller + offset, and the offset moves by ``drift`` (1) of the time since ``at_ns``.

    ``knots``: the controller's time (ns) and the bound (ns) of each exchange that the line goes through.
    ``residual_ns``: by how much the line misses what any exchange allows. ``why``: what is missing for a map that one
    can trust, else empty.
    """

    at_ns: int = 0
    offset_ns: int = 0
    drift: float = 0.0
    knots: tuple[tuple[int, float], ...] = ()
    residual_ns: float = 0.0
    why: str = ""

    def target_ns(self, controller_ns: Ints) -> Ints:
        """Stamps of the controller on the target's clock, ns."""
        moved = np.rint((controller_ns - self.at_ns) * self.drift).astype(np.int64)
        found: Ints = controller_ns + self.offset_ns + moved
        return found

    def controller_ns(self, target_ns: int) -> int:
        """A stamp of the target on the controller's clock, ns."""
        return self.at_ns + round((target_ns - self.offset_ns - self.at_ns) / (1 + self.drift))

    def bound_s(self, t0_ns: int, t1_ns: int) -> float:
        """The most by which a stamp from t0 to t1 (target's clock) may be off, s; infinite where nothing ties them."""
        if not self.knots:
            return math.inf if self.why else 0.0
        a, b = self.controller_ns(t0_ns), self.controller_ns(t1_ns)
        inner = [(self.knots[0][0] + self.knots[-1][0]) // 2]  # where two exchanges leave the most room
        return max(self._bound_ns(t) for t in (a, b, *(t for t in inner if a < t < b))) / 1e9

    def _bound_ns(self, t: int) -> float:
        (first, low), (last, high) = self.knots[0], self.knots[-1]
        if first < t < last:
            before, after = t - first, last - t
            return max(low, high) + self.residual_ns + 2 * WANDER * before * after / (before + after)
        at, bound = (first, low) if t <= first else (last, high)
        return bound + self.residual_ns + MAX_DRIFT * abs(t - at)


SAME = ClockMap()


def clock_map(
    batches: Sequence[Batch], controller: Clock, target: Clock, begin_ns: int, end_ns: int | None
) -> ClockMap:
    """The map from ``controller``'s clock to ``target``'s, for a run from ``begin_ns`` to ``end_ns`` (target's clock).

    An exchange counts when it was between these two clocks and outside of the run: inside it would have disturbed what
    was measured. With none before or none after, ``why`` says so, and the bound is that of an unknown rate.
    """
    if controller.is_surely(target):
        return SAME
    mine = [one for one in batches if (one.controller, one.target) == (controller, target)]
    found = [(one, best) for one in mine if (best := one.best) is not None]
    before = [pair for pair in found if pair[1].told_ns <= begin_ns]
    after = [pair for pair in found if end_ns is not None and pair[1].told_ns >= end_ns]
    ends = [*before[-1:], *after[:1]]  # the nearest on either side
    if not ends:
        return ClockMap(why="no clock exchange with the target, before the run or after it")
    (_, first), (_, last) = ends[0], ends[-1]
    apart = last.middle_ns - first.middle_ns
    drift = (last.offset_ns - first.offset_ns) / apart if apart > 0 else 0.0
    if apart > 0 and abs(drift) > 2 * MAX_DRIFT + (first.trip_ns + last.trip_ns) / 2 / apart:
        return ClockMap(why=f"the clocks ran apart by {drift * 1e6:.0f} ppm, which no two clocks that run do")
    why = "" if len(ends) == 2 else f"no clock exchange {'after' if before else 'before'} the run"
    knots = tuple(dict.fromkeys((one.middle_ns, one.trip_ns / 2) for one in (first, last)))
    line = ClockMap(first.middle_ns, first.offset_ns, drift, knots, why=why)
    return ClockMap(line.at_ns, line.offset_ns, drift, knots, _residual(line, [one for one, _ in ends]), why)


def _residual(line: ClockMap, batches: Sequence[Batch]) -> float:
    """The most (ns) by which a line lies outside of what an exchange allows: 0 where it fits all of them."""
    rows = np.array([one for batch in batches for one in batch.exchanges if one.trip_ns >= 0], dtype=np.int64)
    asked, told, answered = rows.T
    low, high = line.target_ns(asked) - told, told - line.target_ns(answered)  # above 0: told before asked, or after
    return float(max(0, low.max(), high.max()))
