"""The thermal gate: a run begins once its device is at a steady temperature, or when waiting took too long.

``Gate`` is the rule, fed with times and temperatures and nothing else; ``wait`` feeds it from a device. The controller
gates, before the first idle window: the device itself is left alone meanwhile.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import numpy as np

from meltbench.definition import GATE_HOLD_S
from meltbench.errors import DeadlineExceeded, LinkLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meltbench.records import Series
    from meltbench.targets.profile import Profile

NEAR_C = 1.0
STEADY_C_PER_MIN = 0.1
MAX_QUANTUM_C = 1.0  # no sensor in use counts in larger steps; two readings further apart show no quantum
MIN_READINGS = 10  # of one hold; of fewer a slope says nothing
BLIND_READINGS = 3  # without any temperature: then there is no sensor. A domain that wakes up answers EAGAIN at first
_LONGEST_GAP = 0.25  # of a hold without a reading; after a longer one the hold begins anew
_PERIOD_S, _NAP_S, _PATIENCE = 2.0, 0.1, 5

State = Literal["off", "waiting", "passed", "timed_out", "no_sensor"]


@dataclass(frozen=True)
class Seen:
    """What the gate knows after a reading: its state, since when it waits, and the last temperature.

    ``slope_c_per_min``: the median of the slopes between all pairs of the hold's readings (Theil and Sen): one odd
    reading moves it little; None before there are enough. ``quantum_c``: the smallest step the sensor was seen to make.
    """

    state: State
    waited_s: float
    temp_c: float | None = None
    slope_c_per_min: float | None = None
    quantum_c: float | None = None

    @property
    def words(self) -> str:
        """Temperature and slope, for people."""
        if self.temp_c is None:
            return "no temperature"
        slope = self.slope_c_per_min
        return f"{self.temp_c:.1f} °C" + ("" if slope is None else f", {slope:+.1f} °C/min")


class Gate:
    """Open once all readings of ``hold_s`` are within 1 degC of ``target_c``, where there is one, and their slope is at
    most the larger of 0.1 degC and one quantum of the sensor a minute; timed out ``timeout_s`` after the first reading.

    The quantum is the smallest difference between readings so far. Of a device that cools by r degC/s that is at most r
    times the period of the readings, which lets nothing pass: at a period of 2 s it is a thirtieth of r a minute.
    """

    def __init__(self, timeout_s: float, target_c: float | None = None, hold_s: float = GATE_HOLD_S) -> None:
        self.timeout_s, self.target_c, self.hold_s = timeout_s, target_c, hold_s
        self._start: float | None = None
        self._now = 0.0
        self._blind = 0
        self._held: list[tuple[float, float]] = []  # those of the hold, the first of them at its start or before
        self._values: list[float] = []  # different ones, in order
        self._quantum: float | None = None

    def feed(self, t_s: float, temp_c: float | None) -> Seen:
        """A reading of a clock that never goes back, s, and of the hottest zone; None where none had a temperature."""
        self._now = max(t_s, self._now) if self._start is not None else t_s
        self._start = self._now if self._start is None else self._start
        if temp_c is None or not math.isfinite(temp_c):
            self._blind += 1
        else:
            self._take(self._now, temp_c)
        slope = self._slope()
        if self._open(slope):
            state: State = "passed"
        elif not self._values and self._blind >= BLIND_READINGS:
            state = "no_sensor"
        else:
            state = "timed_out" if self._now - self._start >= self.timeout_s else "waiting"
        last = self._held[-1][1] if self._held else None
        return Seen(state, self._now - self._start, last, slope, self._quantum)

    def _take(self, t_s: float, temp_c: float) -> None:
        if self._held and t_s - self._held[-1][0] > _LONGEST_GAP * self.hold_s:
            self._held.clear()
        self._held.append((t_s, temp_c))
        while len(self._held) > 1 and self._held[1][0] <= t_s - self.hold_s:
            del self._held[0]
        at = bisect_left(self._values, temp_c)
        if at < len(self._values) and self._values[at] == temp_c:
            return
        steps = [abs(temp_c - near) for near in self._values[max(at - 1, 0) : at + 1]]
        self._values.insert(at, temp_c)
        # In micro-degrees: differences of decimal fractions are not exact.
        known = [step for one in steps if 0 < (step := round(one, 6)) <= MAX_QUANTUM_C]
        self._quantum = min([*known, *([] if self._quantum is None else [self._quantum])], default=None)

    def _slope(self) -> float | None:
        if len(self._held) < MIN_READINGS:
            return None
        t, v = np.array(self._held).T
        a, b = np.triu_indices(len(t), 1)
        apart = t[b] - t[a]
        if not (apart > 0).any():
            return None
        return float(np.median((v[b] - v[a])[apart > 0] / apart[apart > 0])) * 60

    def _open(self, slope: float | None) -> bool:
        if slope is None or self._now - self._held[0][0] < self.hold_s or self._held[-1][0] < self._now:
            return False
        far = self.target_c is not None and any(abs(v - self.target_c) > NEAR_C for _, v in self._held)
        return not far and abs(slope) <= max(STEADY_C_PER_MIN, self._quantum or 0.0)


class _Told(Protocol):
    """What a rule says after a look."""

    @property
    def state(self) -> str:
        """``waiting``, or what came of it."""

    @property
    def waited_s(self) -> float:
        """Since the first look."""


Read = TypeVar("Read", contravariant=True)
Told = TypeVar("Told", bound=_Told, covariant=True)


class Rule(Protocol[Read, Told]):
    """What waits, at most ``timeout_s``, for something that looks at a device show."""

    timeout_s: float

    def feed(self, t_s: float, read: Read | None, /) -> Told:
        """A look at a time; None: it showed nothing."""


def wait(
    gate: Rule[Read, Told],
    look: Callable[[], Read | None],
    show: Callable[[Told], None],
    stopped: Callable[[], bool],
    period_s: float = _PERIOD_S,
) -> Told:
    """Feed a rule with what ``look`` reads until it is no longer waiting, or ``stopped``; ``show`` is told each time.

    What was seen last is returned. Raises DeadlineExceeded for a device that does not answer, DeviceError for one that
    cannot be used.
    """
    missed = 0
    while True:
        next_s = time.monotonic() + period_s
        try:
            read, missed = look(), 0
        except (DeadlineExceeded, LinkLost):
            missed += 1
            if missed > _PATIENCE or stopped():
                raise
            time.sleep(_NAP_S)
            continue
        seen = gate.feed(time.monotonic(), read)
        show(seen)
        if seen.state != "waiting":
            return seen
        next_s = min(next_s, time.monotonic() + gate.timeout_s - seen.waited_s)
        while (left := next_s - time.monotonic()) > 0 and not stopped():
            time.sleep(min(left, _NAP_S))  # in naps: a signal ends none of them
        if stopped():
            return seen


@dataclass(frozen=True)
class Heat:
    """The hottest of the zones that a profile gates. ``cached``: what tells it was asked of a sensor up to minutes
    before, and nobody knows when."""

    temp_c: float
    zone: str
    cached: bool


def gated(found: Iterable[Series], profile: Profile) -> list[Series]:
    """The temperatures that the profile gates by, with or without a value: of sensors that are read anew, and of
    others where there is none of those."""
    mine = [one for one in found if one.unit == "degC" and len(one) and _counts(one.name, profile)]
    live = [one for one in mine if one.update_s <= GATE_HOLD_S and math.isfinite(one.value[-1])]
    return live or mine


def hottest(found: Iterable[Series], profile: Profile) -> Heat | None:
    """The hottest zone at a look, None where none has a temperature. What is powered off or out of range has none."""
    told = [one for one in gated(found, profile) if math.isfinite(one.value[-1])]
    if not told:
        return None
    one = max(told, key=lambda series: float(series.value[-1]))
    return Heat(float(one.value[-1]), one.name.removeprefix("thermal."), one.update_s > GATE_HOLD_S)


def _counts(name: str, profile: Profile) -> bool:
    zones = profile.gate.zones
    return not zones or any(fnmatchcase(name, zone) for zone in zones)
