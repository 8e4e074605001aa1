"""What one sensor shows of load steps: its levels, its noise, and how fast and how fine it is.

Levels are taken in the second half of a window, when a sensor that is any good has settled. A step is the level under
load less the mean of the idle levels before and after it, so that what drifts evenly drops out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from meltbench.measure.counters import MAX_POWER_W, Unwrapper, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from meltbench.calibration.steps import Step, Windows
    from meltbench.records import Phase, Series

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

Seen = Literal["yes", "no", "too slow", "not read"]
UNITS = ("W", "J", "A", "V", "C", "degC", "Hz")  # of what a load of the processors can move
SURE = 5.0  # standard uncertainties that a step must stand out by: one in a million by chance
MIN_FRESH = 3  # values a window, on average; a sensor with fewer does not follow
MOVING = 0.15  # share of the step that a level may still move from the third to the last quarter of a load
LOW, HIGH = 0.1, 0.9  # of a step, between which its rise is timed


@dataclass(frozen=True)
class Look:
    """What a sensor shows. Levels in ``unit`` (W for a counter in J); what is not known is None.

    ``difference``: load less idle, ``u``: its standard uncertainty. ``noise``: standard deviation of idle values.
    ``dead_s``: from the start of the load to a tenth of the step, ``response_s``: from there to nine tenths; neither is
    known better than ``update_s``, the time between fresh values, of which there are ``fresh_per_s``. ``sampled``: it
    was read no faster than it updates, so ``update_s`` is what the readings allow. ``quantum``: smallest step seen.
    """

    source: str
    series: str
    unit: str
    seen: Seen
    why: str = ""
    idle: float | None = None
    load: float | None = None
    difference: float | None = None
    u: float | None = None
    noise: float | None = None
    dead_s: float | None = None
    response_s: float | None = None
    fresh_per_s: float | None = None
    update_s: float | None = None
    sampled: bool = False
    quantum: float | None = None
    readings: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Track:
    """A signal made ready: times (s since ``begin_ns``) and values of its readings, and which of them were new.

    Of a counter in J the values are powers between its updates, at the middle of each interval, and ``rises`` holds the
    updates themselves.
    """

    begin_ns: int
    t: Floats
    v: Floats
    fresh: npt.NDArray[np.bool_]
    every_s: float
    rises: tuple[Floats, Floats] | None = None

    def at(self, ns: int) -> float:
        """A stamp in seconds of the track."""
        return (ns - self.begin_ns) / 1e9

    def level(self, a: float, b: float) -> float | None:
        """The mean from a to b; None without a value there."""
        if self.rises is not None:
            t, v = self.rises
            if len(t) < 2 or a < t[0] or b > t[-1] or not ((t >= a) & (t <= b)).any():
                return None
            low, high = np.interp([a, b], t, v).tolist()
            return float(high - low) / (b - a)
        inside = (self.t >= a) & (self.t <= b)
        return float(self.v[inside].mean()) if inside.any() else None

    def part(self, window: Phase, low: float, high: float) -> tuple[float, float]:
        """Shares of a window as times of the track."""
        a, b = self.at(window.t0_ns), self.at(window.t1_ns)
        return a + low * (b - a), a + high * (b - a)


def is_sensor(series: Series) -> bool:
    """Whether a load of the processors could move it: limits of a clock, counts of memory and states are none."""
    return series.kind != "state" and series.unit in UNITS and not series.name.endswith("max_hz")


def track(series: Series) -> Track | None:
    """A signal made ready, or None where it has no values."""
    if series.unit == "J":
        t_ns, v, fresh, _, _ = Unwrapper(series.wrap, MAX_POWER_W).add(series)
    else:
        t_ns, v, _ = usable(series, None)
        fresh = np.diff(v, prepend=v[:1] - 1) != 0
    if len(t_ns) < 2:
        return None
    t = (t_ns - t_ns[0]) / 1e9
    every = float(np.median(np.diff(t)))
    if series.unit != "J":
        return Track(int(t_ns[0]), t, v, fresh, every)
    t, v = t[fresh], v[fresh]
    if len(t) < 2:
        return None
    power, middle = np.diff(v) / np.diff(t), (t[1:] + t[:-1]) / 2
    return Track(int(t_ns[0]), middle, power, np.ones(len(power), np.bool_), every, (t, v))


def looks(series: Sequence[Series], windows: Windows) -> list[Look]:
    """What every sensor among the series shows, by source and name."""
    found = [look(one, windows) for one in series if is_sensor(one)]
    return sorted(found, key=lambda one: (one.source, one.series))


def look(series: Series, windows: Windows) -> Look:
    """What a signal shows of the steps."""
    unit = "W" if series.unit == "J" else series.unit
    empty = Look(series.source, series.name, unit, "not read", steps=len(windows.steps))
    made = track(series)
    if made is None:
        readable = int(np.isfinite(series.value).sum())
        if readable > 1:
            return _told(empty, "no", "the counter never changed", readings=readable)
        return _told(empty, "not read", "no value was read", readings=readable)
    facts = _freshness(made, series)
    if not windows.steps:
        return _told(empty, "not read", "no load step was recorded whole", **facts)
    if facts["quantum"] is None:
        level = float(made.v[0])
        return _told(empty, "no", f"it read {level:g} {unit} all the time", idle=level, load=level, **facts)
    return _steps(empty, made, windows.steps, facts)


def _told(empty: Look, seen: Seen, why: str, **found: object) -> Look:
    return replace(empty, seen=seen, why=why, **found)  # type: ignore[arg-type]


def _freshness(made: Track, series: Series) -> dict[str, object]:
    """How often and how finely a signal moves."""
    t = made.rises[0] if made.rises is not None else made.t[made.fresh]
    span = float(made.t[-1] - made.t[0])
    gaps = np.diff(t)
    # Values that stay the same hide updates; gaps of one update are the shortest that come often.
    update = float(gaps[gaps <= 1.5 * np.median(gaps)].mean()) if len(gaps) else None
    values = np.unique(np.diff(made.rises[1]) if made.rises is not None else made.v)
    steps = values if made.rises is not None else np.diff(values)
    steps = steps[steps > 1e-9 * float(np.abs(values).max(initial=0))]
    return {
        "fresh_per_s": len(gaps) / span if span > 0 else None,
        "update_s": update,
        "sampled": update is not None and update < 1.2 * made.every_s,
        "quantum": float(steps.min()) if len(steps) else None,
        "readings": int(np.isfinite(series.value).sum()),
    }


def _steps(empty: Look, made: Track, steps: Sequence[Step], facts: dict[str, object]) -> Look:
    good = [row for row in (_levels(made, step) for step in steps) if row is not None]
    fresh = [_fresh_in(made, window) for step in steps for window in step]
    per_window = sum(fresh) / len(fresh)
    slow = f"{per_window:.2g} fresh values a window"
    if not good:
        return _told(empty, "too slow", slow, **facts)
    idle, load = (float(np.mean([row[i] for row in good])) for i in (0, 1))
    difference = load - idle
    noise = _noise(made, steps)
    chance = _scatter([row[1] - row[0] for row in good], noise, min(fresh))
    u = max(chance, _grain(facts["quantum"]) / len(good) ** 0.5)
    found = facts | {"idle": idle, "load": load, "difference": difference, "u": u, "noise": noise, "steps": len(good)}
    moving = _moving(made, steps)
    # A level that still moves is a step that was seen and not measured; one that ends where it began was not seen.
    if moving is not None and abs(moving) > max(MOVING * abs(difference), SURE * u):
        return _told(empty, "too slow", "it was still moving when the load ended", **found)
    if abs(difference) <= SURE * chance or len({row[1] > row[0] for row in good}) > 1:
        # Few new values are what a slow sensor has, and one that had no reason to move: the windows cannot tell.
        if per_window < MIN_FRESH:
            return _told(empty, "too slow", slow, **found)
        return _told(empty, "no", f"the step of {difference:.3g} {empty.unit} does not stand out of its noise", **found)
    dead, response = _response(made, steps)
    if dead is None or response is None or dead + response > min(step.load.duration_s for step in steps) / 2:
        return _told(empty, "too slow", "it followed the load by more than half of its length", **found)
    return _told(empty, "yes", "", dead_s=dead, response_s=response, **found)


def _levels(made: Track, step: Step) -> tuple[float, float] | None:
    """Idle and load level of one step, settled."""
    before, load, after = (made.level(*made.part(window, 0.5, 1.0)) for window in step)
    if before is None or load is None or after is None:
        return None
    return (before + after) / 2, load


def _fresh_in(made: Track, window: Phase) -> int:
    t = made.rises[0] if made.rises is not None else made.t[made.fresh]
    a, b = made.part(window, 0.0, 1.0)
    return int(((t >= a) & (t <= b)).sum())


def _noise(made: Track, steps: Sequence[Step]) -> float:
    """Standard deviation of settled idle values about their own line; the median over windows."""
    found = []
    for window in dict.fromkeys(one for step in steps for one in (step.before, step.after)):
        a, b = made.part(window, 0.5, 1.0)
        inside = (made.t >= a) & (made.t <= b)
        t, v = made.t[inside], made.v[inside]
        if len(t) > 2:
            slope = float(np.polyfit(t - t.mean(), v, 1)[0])
            found.append(float((v - slope * (t - t.mean())).std(ddof=2)))
    return float(np.median(found)) if found else 0.0


def _scatter(differences: Sequence[float], noise: float, fresh: int) -> float:
    """Standard uncertainty of the mean step by chance: its scatter, or what the noise of so many values makes."""
    n = len(differences)
    spread = float(np.std(differences, ddof=1)) / n**0.5 if n > 1 else 0.0
    within = noise * (1.5 / max(fresh / 2, 1) / n) ** 0.5  # of one load window and two idle ones, half of each
    return float(max(spread, within))


def _grain(quantum: object) -> float:
    """Standard uncertainty of a value that is cut to a quantum."""
    return quantum / math.sqrt(12) if isinstance(quantum, float) else 0.0


def _moving(made: Track, steps: Sequence[Step]) -> float | None:
    """How far the level under load moves from the third to the last quarter of the window beyond what it does in idle
    ones (a battery's voltage falls all the time), on average."""
    found = []
    for step in steps:
        moves = [_move(made, window) for window in step]
        if (before := moves[0]) is not None and (load := moves[1]) is not None and (after := moves[2]) is not None:
            found.append(load - (before + after) / 2)
    return float(np.mean(found)) if found else None


def _move(made: Track, window: Phase) -> float | None:
    third, last = (made.level(*made.part(window, low, low + 0.25)) for low in (0.5, 0.75))
    return None if third is None or last is None else last - third


def _response(made: Track, steps: Sequence[Step]) -> tuple[float | None, float | None]:
    """Dead time and 10-90 % rise, medians over the edges into and out of the loads; None where it missed most."""
    edges: list[tuple[float, float] | None] = []
    for step in steps:
        for idle, window, way in ((step.before, step.load, 1), (step.after, step.after, -1)):
            low, high = (made.level(*made.part(one, 0.5, 1.0)) for one in (idle, step.load))
            if low is None or high is None or low == high:
                edges.append(None)
            else:
                edges.append(_crossings(made, window, _share(*(low, high)[::way])))
    seen = [edge for edge in edges if edge is not None]
    if 2 * len(seen) <= len(edges):
        return None, None
    return float(np.median([a for a, _ in seen])), float(np.median([b - a for a, b in seen]))


def _share(start: float, end: float) -> Callable[[Floats], Floats]:
    return lambda v: (v - start) / (end - start)


def _crossings(made: Track, window: Phase, share: Callable[[Floats], Floats]) -> tuple[float, float] | None:
    """When the signal first was past a tenth and nine tenths of its way for good, s after the window began."""
    a, b = made.part(window, 0.0, 1.0)
    mine = made.fresh & (made.t > a) & (made.t <= b)
    t, y = made.t[mine] - a, share(made.v[mine])
    before = made.v[made.t <= a]
    t, y = np.concatenate([[0.0], t]), np.concatenate([share(before[-1:]) if len(before) else [0.0], y])
    times = []
    for level in (LOW, HIGH):
        past = y >= level
        past[:-1] &= past[1:]  # a single value may be noise
        if not past.any():
            return None
        k = int(past.argmax())
        rise = y[k] - y[k - 1] if k else 0.0
        times.append(float(t[k] - (y[k] - level) / rise * (t[k] - t[k - 1])) if k and rise > 0 else float(t[k]))
    return times[0], max(times)
