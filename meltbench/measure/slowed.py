"""Evidence that a device was slowed down, each with its time and its words, from four places: flags of the platform,
caps of its clocks, clocks that fall under load, and the rate of the requests. Temperature goes with it: it gives no
evidence by itself, but takes it away where it stayed as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.course import Course, highest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from meltbench.measure.digest import Digest
    from meltbench.measure.pace import Pace
    from meltbench.records import Phase

    Span = tuple[int, int]

# Such series are above 0 while it is so. Android's thermal status is 0 none, 1 light ... 6 shutdown.
FLAGS = (".thermal_slowdown", ".soft_temp_limit", ".frequency_capped", ".thermal_status")
STICKY = "_since_boot"  # behind the name of a flag that was up at some time: it tells of what falls between two polls
CAP_SHARE = 0.99  # of the highest cap of the record: caps are set in steps of a percent or more
CLOCK_SHARE = 0.9  # of the clock that the run began with
BUSY_SHARE = 0.7  # of its highest: a clock that begins lower belongs to nothing that works
FALL_S = 5.0  # shorter dips are the governor's
BEGIN_S = 30.0
WARMER_C = 2.0  # above the start of the run; a device that got no warmer than this was not slowed by heat
_SMOOTH = 5
_LEAST = 5  # stretches with a clock, in the run


@dataclass(frozen=True)
class Slowed:
    """The device was slowed for this time. ``platform``: by what it says itself, not by its rate alone."""

    t0_ns: int
    t1_ns: int
    cause: str
    platform: bool = True


def platform_slowed(signals: Sequence[Digest], whole: Span, run: Phase | None, *, loaded: bool) -> list[Slowed]:
    """What flags, caps and clocks say. ``whole``: the windows of the record; settings are made and undone outside of
    them. ``loaded``: requests kept the device busy throughout the run, so that its clocks mean something."""
    found = [*_flags(signals, whole), *_caps(signals, whole)]
    if loaded and run is not None:
        cpu = [one.course for one in signals if one.name.endswith(".cur_hz") and one.course is not None]
        found += _fallen("the clock", highest(cpu), run)
        for one in signals:
            if one.course is not None and (one.name == "gpu.hz" or one.name.endswith(".sm_hz")):
                found += _fallen(one.name, one.course, run)
    return found


def _flags(signals: Sequence[Digest], whole: Span) -> Iterable[Slowed]:
    for one in signals:
        if one.course is None or not one.name.removesuffix(STICKY).endswith(FLAGS):
            continue
        for t0, t1 in flag_spans(one, whole[1]):
            seen = one.course.within(t0, t1).high if one.name.endswith(".thermal_status") else ()
            level = f" {max(seen):.0f}" if len(seen) else ""
            yield Slowed(t0, t1, one.name + level)


def flag_spans(flag: Digest, end_ns: int) -> list[Span]:
    """When a flag was up, the last time until ``end_ns``; one that stays up since boot only where it was seen to rise:
    from the stretch before on."""
    course = flag.course
    if course is None or flag.head.kind != "state":
        return []
    up = course.high > 0
    if not flag.name.endswith(STICKY):
        return course.while_(up, end_ns)
    rises = np.flatnonzero(up[1:] & ~up[:-1]).tolist()
    return [(int(course.t_ns[at]), int(course.t_ns[at + 1]) + course.width_ns) for at in rises]


def _caps(signals: Sequence[Digest], whole: Span) -> Iterable[Slowed]:
    """Caps below the highest of the record. One that stands throughout is a setting: ``frequency_capped`` alone."""
    for one in signals:
        if not one.name.endswith(".max_hz") or one.course is None:
            continue
        course = one.course.within(*whole)
        most = float(course.high.max()) if len(course) else 0.0
        policy = one.name.removesuffix(".max_hz").removeprefix("cpufreq.")
        for t0, t1 in course.while_(course.mean < CAP_SHARE * most, whole[1]):
            low = float(course.within(t0, t1 + course.width_ns).mean.min(initial=most))
            yield Slowed(t0, t1, f"{policy} capped at {low / 1e9:.2f} of {most / 1e9:.2f} GHz")


def _fallen(name: str, course: Course, run: Phase) -> Iterable[Slowed]:
    course = course.within(run.t0_ns, run.t1_ns)
    if len(course) < _LEAST:
        return
    early = course.t_ns < run.t0_ns + min(BEGIN_S * 1e9, (run.t1_ns - run.t0_ns) / 3)
    first = float(np.median(course.mean[early])) if early.any() else 0.0
    if first < BUSY_SHARE * float(course.mean.max()):
        return
    padded = np.pad(course.mean, _SMOOTH // 2, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, _SMOOTH), axis=1)
    for t0, t1 in course.while_(smooth < CLOCK_SHARE * first, run.t1_ns):
        if t1 - t0 >= FALL_S * 1e9:
            share = float(smooth[(course.t_ns >= t0) & (course.t_ns < t1)].min()) / first
            yield Slowed(t0, t1, f"{name} fell to {share:.0%} of {first / 1e9:.2f} GHz")


def rate_slowed(pace: Pace | None, heat: Heat | None) -> list[Slowed]:
    """Parts of the run that are slower than what was before, but for those in which a thermometer saw no heat."""
    out: list[Slowed] = []
    for part in pace.parts if pace is not None else ():
        if not part.slow or (heat is not None and heat.rise_c(part.t0_ns, part.t1_ns) < WARMER_C):
            continue
        out.append(Slowed(part.t0_ns, part.t1_ns, f"the token rate fell to {part.share:.0%}", platform=False))
    return out


@dataclass(frozen=True)
class Heat:
    """The zone that was hottest in the run, and its temperature at the start of it."""

    name: str
    start_c: float
    course: Course

    def rise_c(self, t0_ns: int, t1_ns: int) -> float:
        """How much warmer than at the start it was at most in a span."""
        seen = self.course.within(t0_ns, t1_ns).high
        at = self.course.at(t0_ns)
        return max([*seen.tolist(), *([] if at is None else [at])], default=self.start_c) - self.start_c


def hottest(signals: Sequence[Digest], run: Phase | None) -> Heat | None:
    """None where no zone gave a temperature in the run."""
    zones = [one for one in signals if one.head.unit == "degC" and one.name.startswith("thermal.") and one.run.n]
    if not zones or run is None:
        return None
    one = max(zones, key=lambda zone: zone.run.high)
    if one.course is None:
        return None
    inside = one.course.within(run.t0_ns, run.t1_ns)
    start = one.before if one.before is not None else float(inside.mean[0]) if len(inside) else one.run.low
    return Heat(one.name.removeprefix("thermal."), start, one.course)
