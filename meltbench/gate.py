"""The thermal gate: a run begins once its device is at a steady temperature, or when waiting took too long.

``Gate`` is the rule, fed with times and temperatures and nothing else; ``wait`` feeds it from a device. The controller
gates, before the first idle window: the device itself is left alone meanwhile.
"""

from __future__ import annotations

import errno
import math
import time
from bisect import bisect_left
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from meltbench.errors import DeadlineExceeded
from meltbench.readings import READERS, read
from meltbench.records import Readings, Stream
from meltbench.targets.facts import rooted
from meltbench.workload import GATE_HOLD_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meltbench.targets.profile import Profile, Source

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


def wait(
    gate: Gate,
    look: Callable[[], float | None],
    show: Callable[[Seen], None],
    stopped: Callable[[], bool],
    period_s: float = _PERIOD_S,
) -> Seen:
    """Feed the gate with what ``look`` reads until it is no longer waiting, or ``stopped``; ``show`` is told each time.

    What was seen last is returned. Raises DeadlineExceeded for a device that does not answer, DeviceError for one that
    cannot be used.
    """
    missed = 0
    while True:
        next_s = time.monotonic() + period_s
        try:
            temp_c, missed = look(), 0
        except DeadlineExceeded:
            missed += 1
            if missed > _PATIENCE or stopped():
                raise
            continue
        seen = gate.feed(time.monotonic(), temp_c)
        show(seen)
        if seen.state != "waiting":
            return seen
        next_s = min(next_s, time.monotonic() + gate.timeout_s - seen.waited_s)
        while (left := next_s - time.monotonic()) > 0 and not stopped():
            time.sleep(min(left, _NAP_S))  # in naps: a signal ends none of them
        if stopped():
            return seen


def sensors(profile: Profile) -> list[Source]:
    """The sources of a profile that read a temperature from a file: thermal zones, the gauge of a battery."""
    return [
        source for source in profile.source if any(spec.glob.endswith("/temp") for spec in READERS[source.reader].paths)
    ]


def globs(profile: Profile) -> list[str]:
    """The files to ask the probe for."""
    roots = profile.roots
    specs = [spec for source in sensors(profile) for spec in READERS[source.reader].paths]
    return [rooted(spec.glob, roots.sys, roots.proc) for spec in specs if "{pid:" not in spec.glob]


def there(answer: Mapping[str, Any]) -> bool:
    """Whether the device has any of those files, readable or not."""
    return any(one.path.endswith("/temp") for one in _streams(answer))


def hottest_c(answer: Mapping[str, Any], profile: Profile) -> float | None:
    """The hottest of the zones that the profile gates, from the probe's answer; None where none has a temperature.

    The same readers as in a run take the texts: what is powered off or out of range there is no temperature here.
    """
    streams = _streams(answer)
    found = [
        float(one.value[-1])
        for source in sensors(profile)
        for one in read(source.name, source.reader, streams, source.options)[0]
        if one.unit == "degC" and len(one) and math.isfinite(one.value[-1]) and _gated(one.name, profile)
    ]
    return max(found, default=None)


def _gated(name: str, profile: Profile) -> bool:
    zones = profile.gate.zones
    return not zones or any(fnmatchcase(name, zone) for zone in zones)


def _streams(answer: Mapping[str, Any]) -> list[Stream]:
    files = answer.get("files")
    entries = files.items() if isinstance(files, dict) else ()
    return [one for n, (path, entry) in enumerate(entries) if (one := _stream(n, str(path), entry)) is not None]


def _stream(number: int, path: str, entry: object) -> Stream | None:
    """A file of the probe's answer as a stream of one reading."""
    if not isinstance(entry, dict) or entry.get("status") == "absent":
        return None
    code = entry.get("errno")
    failed = 0 if entry.get("status") == "ok" else code if isinstance(code, int) and code > 0 else errno.EIO
    raw = b"" if failed else str(entry.get("text", "")).encode("latin-1", "replace")
    at = np.zeros(1, np.int64)
    readings = Readings.of(at, at, np.array([failed & 0x7FFFFFFF], np.int32), [raw])
    return Stream(number, "gate", "file", path, "ok", 0, readings)
