"""What the supply of power speaks against a run: a battery that is charged, empty or lies, and under-voltage.

The numbers of a battery's gauge are of the device only while nothing else feeds it: what comes in over USB the gauge
does not see. Whether that is so is asked of everything that tells of it, for each of them is known to lie: phones that
hold at 80 % read "charging", a full one on USB flips its sign around zero, and what ``dumpsys battery`` tells after its
updates were stopped (by ``unplug``, which unplugs nothing) is as old as that.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from meltbench.measure.energy import is_relative
from meltbench.measure.feeding import CHARGING, DISCHARGING, FLOW_A, FULL, STEP_C, part_of, within
from meltbench.measure.validity import LOW_SOC_PERCENT, reason
from meltbench.records import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.measure.digest import Digest
    from meltbench.measure.feeding import Group
    from meltbench.measure.total import Designation, Total
    from meltbench.records import Reason

HALF_PERCENT = 0.5


def battery_reasons(
    signals: Sequence[Digest], run: Phase | None, on_battery: bool, phases: Sequence[Phase] = ()
) -> list[Reason]:
    """What batteries tell against the run. ``on_battery``: the energy of the run is taken from one's gauge. ``phases``:
    all of the run, for the idle windows are of its energy too."""
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
        ends = [(one.t0_ns, one.t1_ns) for one in (run, *phases)]
        record = Phase("record", min(t0 for t0, _ in ends), max(t1 for _, t1 in ends))
        out += _charging(live | held, run.duration_s, record) + _contradictory(live, run.duration_s)
    return out


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
        prefix, what = part_of(one.name)
        if prefix:
            out[prefix][what] = one
    return out


def _charging(groups: Mapping[str, Group], seconds: float, record: Phase) -> list[Reason]:
    said = []
    for name, one in groups.items():
        if plugged := _on(one.get("plugged")):
            said.append(f"{name}: plugged in, and its gauge does not see what comes in")
        if (amps := _known(one.get("current_a"))) is not None and amps > FLOW_A:
            said.append(f"{name}: {amps * 1e3:.0f} mA into the battery")
        elif (watts := _known(one.get("power"))) is not None and watts < 0:
            said.append(f"{name}: {-watts:.3g} W into the battery")
        elif _codes(one) & {CHARGING, FULL} and not _drained(one, seconds):
            said.append(f"{name}: status {'charging' if CHARGING in _codes(one) else 'full'}")
        elif not plugged and (shown := within(one, record)):
            said.append(f"{name}: {shown}")
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
    amps = _known(one.get("current_a"))
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


def _known(one: Digest | None) -> float | None:
    """The mean of what was read in the run; None where nobody knows its unit and sign."""
    return None if one is None or not one.line.n or is_relative(one.head) else one.line.y / one.line.n


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
