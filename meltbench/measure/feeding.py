"""What shows that something else than its battery feeds a device: at one look before a run, and within one.

The status field alone proves nothing: phones that hold at 80 % read "charging", and some that charge read
"discharging". What is plugged in tells, and so does the current, where a calibration knows its unit and sign: a phone
that is awake draws 30 mA and more, so that one whose battery gives next to nothing lives on something else.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.energy import is_relative

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.measure.course import Course
    from meltbench.measure.digest import Digest
    from meltbench.records import Phase, Series

# BatteryManager's codes; what else there is, unknown and "not charging", says nothing about a direction.
CHARGING, DISCHARGING, FULL = 2, 3, 5
# Twice what the gauge of a full phone on USB was seen to flip between (5 mA, PlusPlusBattery#71); a phone that idles
# draws 30 mA and more.
FLOW_A = 0.010
# A charge counter moves in steps of 1 to 2 mAh and a level in whole percent: less than these tells no direction.
STEP_C = 7.2
GAUGES = frozenset({"battery", "dumpsys_battery", "cmd_battery"})  # what the signals of a battery's gauge begin with
Group = dict[str, "Digest"]

_LEAST_S = 3.0  # in all, for a current to show something: filters take a second to pass through zero
_PART = 0.05  # of the largest current that was seen, whatever its unit: less than this has no direction
# How far a counter has to rise above its least: gauges mend it by a step or two once a load is gone.
_ROSE = {"charge_c": 3 * STEP_C, "soc_percent": 1.5}
_ANEW_S = 60.0  # what tells values that are older than this tells of another time


def part_of(name: str) -> tuple[str, str]:
    """The battery that a signal is of, "" where of none, and what it tells of it."""
    prefix, _, what = name.rpartition(".")
    mine = GAUGES.intersection(prefix.split(".")) and not prefix.startswith("thermal")
    return (prefix, what) if mine else ("", name)


def at_a_look(series: Sequence[Series]) -> str:
    """What the last values of a look show that feeds the device; empty where nothing does."""
    groups: dict[str, dict[str, Series]] = defaultdict(dict)
    for signal in series:
        prefix, what = part_of(signal.name)
        if prefix and len(signal) and math.isfinite(signal.value[-1]):
            groups[prefix][what] = signal
    said = []
    for name, one in groups.items():
        flow = one.get("current_a")
        amps = None if flow is None or is_relative(flow) else float(flow.value[-1])
        status = float(one["status"].value[-1]) if "status" in one else None
        if "plugged" in one and one["plugged"].value[-1] > 0:
            said.append(f"{name}: plugged in")
        elif amps is not None and amps > FLOW_A:
            said.append(f"{name}: {amps * 1e3:.0f} mA into the battery")
        elif amps is not None and amps > -FLOW_A:
            said.append(f"{name}: next to no current ({amps * 1e3:+.1f} mA)")
        elif amps is None and status in (CHARGING, FULL):
            said.append(f"{name}: status {'charging' if status == CHARGING else 'full'}")
    return "; ".join(said[:4])


def within(one: Group, record: Phase) -> str:
    """What of a battery's signals shows that something fed the device for a part of a record; empty where nothing
    does. A current that is known decides; without it the counters of what is left may tell."""
    flow = one.get("current_a")
    if flow is not None and flow.course is not None and flow.whole.n and flow.head.update_s <= _ANEW_S:
        smear_ns = round((flow.head.window_s or 0.0) * 1e9)  # of what was before the record
        course = flow.course.within(record.t0_ns + smear_ns, record.t1_ns)
        if is_relative(flow.head):
            return _both_ways(course, record)
        return _by_current(course, record)
    return _risen(one, record)


def _by_current(course: Course, record: Phase) -> str:
    into = _seconds(course, course.mean > FLOW_A, record)
    none = _seconds(course, np.abs(course.mean) <= FLOW_A, record)
    if into >= _LEAST_S:
        most = float(course.mean.max())
        return f"up to {most * 1e3:.0f} mA into the battery for {into:.0f} of {record.duration_s:.0f} s"
    if none >= _LEAST_S:
        return f"next to no current for {none:.0f} of {record.duration_s:.0f} s"
    return ""


def _both_ways(course: Course, record: Phase) -> str:
    """Of a current of unknown unit and sign nothing shows but that it turned."""
    least = _PART * float(np.abs(course.mean).max(initial=0.0))
    ways = [_seconds(course, course.mean > least, record), _seconds(course, course.mean < -least, record)]
    if min(ways) < _LEAST_S:
        return ""
    return f"the current turned: {ways[0]:.0f} s one way, {ways[1]:.0f} s the other"


def _risen(one: Mapping[str, Digest], record: Phase) -> str:
    for what, least in _ROSE.items():
        signal = one.get(what)
        if signal is None or signal.course is None or not signal.whole.n or signal.whole.low <= 0:
            continue
        mean = signal.course.within(record.t0_ns, record.t1_ns).mean
        rose = float((mean - np.minimum.accumulate(mean)).max(initial=0.0)) if len(mean) else 0.0
        if rose >= least:
            return f"the charge rose by {rose:.3g} C" if what == "charge_c" else f"the level rose by {rose:.3g} %"
    return ""


def _seconds(course: Course, is_so: np.ndarray[tuple[int], np.dtype[np.bool_]], record: Phase) -> float:
    """For how long it was so, in all."""
    return sum(t1 - t0 for t0, t1 in course.while_(is_so, record.t1_ns)) / 1e9
