"""What the supply of power speaks against a run: a battery that is charged, empty or lies, and under-voltage.

The numbers of a battery's gauge are of the device only while nothing else feeds it: what comes in over USB the gauge
does not see. Whether that is so is asked of everything that tells of it, for each of them is known to lie: phones that
hold at 80 % read "charging", a full one on USB flips its sign around zero, and what ``dumpsys battery`` tells after its
updates were stopped (by ``unplug``, which unplugs nothing) is as old as that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from meltbench.measure.energy import is_relative
from meltbench.measure.validity import LOW_SOC_PERCENT, reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.measure.digest import Digest
    from meltbench.measure.total import Designation, Total
    from meltbench.records import Phase, Reason, Series

# BatteryManager's codes; what else there is, unknown and "not charging", says nothing about a direction.
CHARGING, DISCHARGING, FULL = 2, 3, 5
# Twice what the gauge of a full phone on USB was seen to flip between (5 mA, PlusPlusBattery#71); a phone that idles
# draws 30 mA and more.
FLOW_A = 0.010
# A charge counter moves in steps of 1 to 2 mAh and a level in whole percent: less than these tells no direction.
STEP_C = 7.2
HALF_PERCENT = 0.5
GAUGES = frozenset({"battery", "dumpsys_battery", "cmd_battery"})  # what the signals of a battery's gauge begin with
Group = dict[str, "Digest"]


def battery_reasons(signals: Sequence[Digest], run: Phase | None, on_battery: bool) -> list[Reason]:
    """What batteries tell against the run. ``on_battery``: the energy of the run is taken from one's gauge."""
    if run is None:
        return []
    groups = _groups(signals)
    out = _low(groups)
    frozen = [name for name, one in groups.items() if _on(one.get("updates_stopped"))]
    if frozen:
        out.append(reason("stale_sensor", f"{', '.join(frozen)}: updates stopped, what it tells is as old as that"))
    if on_battery:
        # What a service froze shows nothing but that it was plugged in: "unplugged" it says because it was told to.
        live = {name: one for name, one in groups.items() if name not in frozen}
        held = {name: {"plugged": groups[name]["plugged"]} for name in frozen if "plugged" in groups[name]}
        out += _charging(live | held, run.duration_s) + _contradictory(live, run.duration_s)
    return out


def fed(series: Sequence[Series]) -> str:
    """What the last values of a look show that feeds the device from outside; empty where nothing does."""
    groups: dict[str, dict[str, Series]] = defaultdict(dict)
    for signal in series:
        prefix, what = _part_of(signal.name)
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


def on_battery(total: Total, named: Sequence[Designation], signals: Sequence[Digest]) -> bool:
    """Whether the energy of a run is a battery's; where there is none, whether it should have been."""
    if total.rail is not None:
        return total.rail.scope == "battery"
    first = {one.source for one in named[:1]}
    return any(one.head.source in first and one.head.scope == "battery" for one in signals)


def under_voltage_reasons(signals: Sequence[Digest], run: Phase | None) -> list[Reason]:
    """Flags of under-voltage that were set in the run, and those since boot that were newly set around it."""
    if run is None:
        return []
    now = [
        one.name.removesuffix(".under_voltage") for one in signals if one.name.endswith(".under_voltage") and _on(one)
    ]
    since = [one for one in signals if one.name.endswith(".under_voltage_since_boot")]
    new = [f"{one.name.split('.')[0]}: since the run began" for one in since if _newly(one)]
    found = [f"{name}: in the run" for name in now] or new
    return [reason("under_voltage", ", ".join(found[:4]))] if found else []


def _groups(signals: Sequence[Digest]) -> dict[str, Group]:
    """The signals of each battery by what they are of: battery.power is the power of battery."""
    out: dict[str, Group] = defaultdict(dict)
    for one in signals:
        prefix, what = _part_of(one.name)
        if prefix:
            out[prefix][what] = one
    return out


def _part_of(name: str) -> tuple[str, str]:
    """The battery that a signal is of, "" where of none, and what it tells of it."""
    prefix, _, what = name.rpartition(".")
    mine = GAUGES.intersection(prefix.split(".")) and not prefix.startswith("thermal")
    return (prefix, what) if mine else ("", name)


def _charging(groups: Mapping[str, Group], seconds: float) -> list[Reason]:
    said = []
    for name, one in groups.items():
        if _on(one.get("plugged")):
            said.append(f"{name}: plugged in, and its gauge does not see what comes in")
        if (amps := _mean(one.get("current_a"))) is not None and amps > FLOW_A:
            said.append(f"{name}: {amps * 1e3:.0f} mA into the battery")
        elif (watts := _mean(one.get("power"))) is not None and watts < 0:
            said.append(f"{name}: {-watts:.3g} W into the battery")
        elif _codes(one) & {CHARGING, FULL} and not _drained(one, seconds):
            said.append(f"{name}: status {'charging' if CHARGING in _codes(one) else 'full'}")
    return [reason("charging", "; ".join(said[:4]))] if said else []


def _contradictory(groups: Mapping[str, Group], seconds: float) -> list[Reason]:
    """What is told of the charge and cannot all be true."""
    said = []
    for name, one in groups.items():
        drained, filled = _drained(one, seconds), _filled(one, seconds)
        if drained and CHARGING in _codes(one):
            said.append(f"{name}: status charging, {drained}")
        elif drained and _on(one.get("plugged")):
            said.append(f"{name}: plugged in, {drained}")
        elif filled and DISCHARGING in _codes(one):
            said.append(f"{name}: status discharging, {filled}")
    told = {code: name for name, one in groups.items() for code in _codes(one)}
    if CHARGING in told and DISCHARGING in told and told[CHARGING] != told[DISCHARGING]:
        said.append(f"{told[CHARGING]} says charging, {told[DISCHARGING]} says discharging")
    return [reason("charge_state_contradictory", "; ".join(said[:4]))] if said else []


def _drained(one: Group, seconds: float) -> str:
    """What shows that the battery was discharged in the run; empty where nothing does."""
    amps, soc, charge = _flow(one, seconds)
    if amps < -FLOW_A:
        return f"{-amps * 1e3:.0f} mA out of the battery"
    if soc < -HALF_PERCENT:
        return f"the level fell by {-soc:.1f} %"
    return f"the charge fell by {-charge:.3g} C" if charge < -STEP_C else ""


def _filled(one: Group, seconds: float) -> str:
    """What shows that the battery was charged in the run; empty where nothing does."""
    amps, soc, charge = _flow(one, seconds)
    if amps > FLOW_A:
        return f"{amps * 1e3:.0f} mA into the battery"
    if soc > HALF_PERCENT:
        return f"the level rose by {soc:.1f} %"
    return f"the charge rose by {charge:.3g} C" if charge > STEP_C else ""


def _flow(one: Group, seconds: float) -> tuple[float, float, float]:
    """Mean current (A), and how far level (%) and charge (C) came in the run; 0, which shows nothing, where unknown."""
    amps = _mean(one.get("current_a"))
    return amps or 0.0, _change(one.get("soc_percent"), seconds), _change(one.get("charge_c"), seconds)


def _low(groups: Mapping[str, Group]) -> list[Reason]:
    found = [(_span(one.get("soc_percent")), name) for name, one in groups.items()]
    low = [f"{name}: {span[0]:g} %" for span, name in found if span is not None and span[0] < LOW_SOC_PERCENT]
    return [reason("low_battery", ", ".join(low))] if low else []


def _span(one: Digest | None) -> tuple[float, float] | None:
    """Lowest and highest value in force in the run. What was told before it is, where nothing was told since."""
    if one is None:
        return None
    if one.run.n:
        return one.run.low, one.run.high
    return None if one.before is None else (one.before, one.before)


def _on(one: Digest | None) -> bool:
    span = _span(one)
    return span is not None and span[1] > 0


def _codes(one: Group) -> set[float]:
    """The states that were told, of which the lowest and the highest are known."""
    return set(_span(one.get("status")) or ())


def _mean(one: Digest | None) -> float | None:
    """The mean of what was read in the run."""
    return None if one is None or not one.line.n else one.line.y / one.line.n


def _change(one: Digest | None, seconds: float) -> float:
    """How far the value came in the run by its slope, in which a step to and fro is none. A counter at 0 counts
    nothing."""
    if one is None or one.run.n < 2 or one.run.low <= 0 or one.line.slope is None:
        return 0.0
    return one.line.slope * seconds


def _newly(one: Digest) -> bool:
    """Whether a flag that is never cleared was set after the run began: what was set before tells nothing."""
    before = one.before if one.before is not None else one.whole.low
    return bool(one.whole.n) and before == 0 and one.whole.high > 0
