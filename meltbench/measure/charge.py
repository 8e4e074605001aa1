"""What a run takes of a battery: prompts by charge and charge by token, as MELT tells them, and hours of use.

Only of a total that is the battery's: what a rail takes says nothing of how long the battery lasts. What a full battery
holds is what its profile states, else the charge that the device says a full one holds, times the voltage that the
profile states. The counter of what is left enters nothing: on some phones it counts nothing, or more than there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meltbench.measure.costs import SERVED
from meltbench.measure.edges import SQRT3
from meltbench.measure.energy import Rail, added, window
from meltbench.measure.feeding import GAUGES
from meltbench.measure.points import incomplete, unlike
from meltbench.measure.total import TOTAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.engines.prompts import Kind
    from meltbench.measure.digest import Digest
    from meltbench.measure.energy import Window
    from meltbench.measure.total import Total
    from meltbench.records import Measure, Phase, Request

# Figures that belong to the mode they were taken in, as those by token and request in joules do.
BY_REQUEST = (("prompts_per_charge", "1"), ("discharge_mah_per_token", "mAh/token"))
_LIFE = ("battery_life_h", "h")
# Of what a battery holds, where its profile says none. A phone's has to hold 80 % after 800 cycles (EU 2023/1670), so
# that one of unknown age lacks up to a fifth; what a gauge learned itself is off by its gain and its last full cycle.
NEW_LIMIT, LEARNED_LIMIT = 0.2, 0.1
WORN = (0.5, 1.1)  # of the charge it was made for: what a gauge that learned well says of a battery in use
VOLTS = (2.5, 100.0)  # of a phone's empty cell, and of the largest pack whose gauge is read
_C_PER_MAH = 3.6


@dataclass(frozen=True)
class Stated:
    """What a profile states of the battery (meltbench.targets.profile.Battery): the energy of a full one, when new; the
    nominal voltage; the relative limit of the error, None for that of the way it is found; and who says so."""

    energy_wh: float | None = None
    nominal_v: float | None = None
    limit: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Full:
    """What a full battery holds, the relative limit of its error, and how it is known."""

    energy_j: float
    limit: float
    words: str


def charge_measures(
    total: Total,
    stated: Stated | None,
    signals: Sequence[Digest],
    run: Phase | None,
    requests: Sequence[Request],
    costs: Sequence[Measure],
    kind: Kind,
) -> list[Measure]:
    """``prompts_per_charge`` and ``discharge_mah_per_token`` of a run of requests, and ``battery_life_h`` of any run.

    ``costs``: the run's measures of energy. What they lack, these lack for the same reason.
    """
    of_run = {one.name: one for one in costs if (one.phase, one.source) == ("run", TOTAL)}
    full = _full(total, stated, signals)
    out = []
    if kind in SERVED:
        by_request = replace(of_run["j_per_request"], stat="ratio_of_sums")
        out = [_lasts(*BY_REQUEST[0], full, by_request, 1.0, "energy by request"),
               _by_token(total, signals, run, requests, of_run["energy_j"], kind)]  # fmt: skip
    return [*out, _lasts(*_LIFE, full, of_run["mean_power_w"], 3600.0, "mean power of the run")]


def _full(total: Total, stated: Stated | None, signals: Sequence[Digest]) -> Full | str:
    """What the battery of the total holds when it is full, or why nobody knows."""
    rail = total.rail
    if rail is not None and rail.scope != "battery":
        return f"no_battery_total: the total is of scope {rail.scope}, which says nothing of the charge"
    if stated is None:
        return "no_battery_capacity: the profile states nothing of the battery"
    if stated.energy_wh is not None:
        words = f"{stated.energy_wh:g} Wh when full ({stated.source})"
        return Full(stated.energy_wh * 3600, stated.limit or NEW_LIMIT, words)
    volts = stated.nominal_v
    charge = _charge(_prefixes(rail), signals)
    if volts is None or charge is None:
        what = "the profile states no energy" + (" and no nominal voltage" if volts is None else "")
        return f"no_battery_capacity: {what}" + ("" if charge else ", and the device tells no charge of a full one")
    coulombs, limit, words = charge
    words = f"{coulombs / _C_PER_MAH:.4g} mAh when full ({words}) x {volts:g} V ({stated.source})"
    return Full(coulombs * volts, stated.limit or limit, words)


def _prefixes(rail: Rail | None) -> list[str]:
    """What stands before the names of the signals that tell of the total's battery: its own, else those of one that
    another way of asking for the same battery has."""
    own = [] if rail is None else [part.name.rpartition(".")[0] for part in rail.parts]
    return own if len(own) > 1 else [*own, *sorted(GAUGES)]


def _charge(prefixes: Sequence[str], signals: Sequence[Digest]) -> tuple[float, float, str] | None:
    """Coulombs of a full battery as the device tells them, the limit of their error, and whose they are."""
    told = {one.name: one.whole.high for one in signals if one.whole.n}
    for prefix in prefixes:
        learned, made = told.get(f"{prefix}.full_c"), told.get(f"{prefix}.full_design_c")
        if learned and (not made or WORN[0] <= learned / made <= WORN[1]):
            return learned, LEARNED_LIMIT, f"as the gauge of {prefix} learned it"
        if made:
            return made, NEW_LIMIT, f"by its design, as {prefix} tells"
    return None


def _lasts(name: str, unit: str, full: Full | str, cost: Measure, seconds: float, of: str) -> Measure:
    """How often, or how many ``seconds`` at a time, a full battery pays a cost."""
    blank = replace(cost, name=name, unit=unit, value=None, u_k2=None, method="")
    if cost.value is None:
        return blank
    if isinstance(full, str):
        return replace(blank, reason=full)
    if cost.value <= 0:
        return replace(blank, reason="implausible_power: the energy is not above zero")
    value = full.energy_j / cost.value / seconds
    u = None if cost.u_k2 is None else value * math.hypot(cost.u_k2 / cost.value, 2 * full.limit / SQRT3)
    return replace(blank, value=value, u_k2=u, method=f"{full.words} over {of}")


def _by_token(
    total: Total,
    signals: Sequence[Digest],
    run: Phase | None,
    requests: Sequence[Request],
    gross: Measure,
    kind: Kind,
) -> Measure:
    """The charge that the battery gave in the run over its output tokens."""
    name, unit = BY_REQUEST[1]
    timed = [request for request in requests if request.role == "timed"]
    blank = replace(gross, name=name, unit=unit, stat="ratio_of_sums", value=None, u_k2=None, n=len(timed), method="")
    if gross.value is None or run is None or total.rail is None:
        return blank
    if total.rail.scope != "battery":
        return replace(blank, reason=str(_full(total, None, signals)))
    why = unlike(kind, requests) or incomplete(timed)
    made = [request.n_out for request in timed]
    tokens = sum(n for n in made if n is not None)
    if not why and (None in made or not tokens):
        why = "no_token_count: of the answers" if None in made else "no_output_tokens: the requests generate none"
    if why:
        return replace(blank, reason=why)
    rail = _current(total.rail, signals)
    if isinstance(rail, str):
        return replace(blank, reason=rail)
    found = _drawn(rail, run)
    coulombs = found.energy_j
    if coulombs is None:
        return replace(blank, reason=found.reason)
    if coulombs <= 0 or not VOLTS[0] <= gross.value / coulombs <= VOLTS[1]:
        words = f"{gross.value:.3g} J and {coulombs:.3g} C of the run are not of one battery"
        return replace(blank, reason=f"implausible_power: {words}")
    u = rail.u_k2(coulombs, *found.parts_j)
    scale = 1 / _C_PER_MAH / tokens
    method = f"integral of {', '.join(part.name for part in rail.parts)} over sums of the timed requests"
    return replace(blank, value=coulombs * scale, u_k2=None if u is None else u * scale, method=method)


def _current(rail: Rail, signals: Sequence[Digest]) -> Rail | str:
    """The currents of the batteries whose powers the total is made of, or why there are none."""
    parts = []
    for power in rail.parts:
        name = f"{power.name.rpartition('.')[0]}.current_a"
        mine = [one for one in signals if (one.name, one.head.source, one.head.unit) == (name, power.head.source, "A")]
        if not mine or not mine[0].whole.n:
            return f"no_reading: {name} of {power.head.source}, beside the power, was not read"
        parts.append(mine[0])
    return Rail("current", rail.scope, rail.klass, tuple(parts))


def _drawn(rail: Rail, run: Phase) -> Window:
    """The charge (C) that flowed out of the batteries in the run: where a power has joules, a current has coulombs."""
    found = []
    for part in rail.parts:
        one = window(Rail(part.name, rail.scope, part.head.klass, (part,)), run.t0_ns, run.t1_ns)
        if one.energy_j is None:
            return one
        # A battery's gauge counts what flows in; a meter in its place what the device draws.
        into = bool(GAUGES.intersection(part.name.split(".")))
        found.append(replace(one, energy_j=-one.energy_j) if into else one)
    return added(found, found[0].method)
