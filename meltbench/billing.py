"""What the energy of stored runs comes to outside of the device: money, carbon, charges of a battery.

A row is a cell, a table of one origin, mode, workload and point. Prices, carbon and what a battery holds are stated by
somebody and taken as exact: no interval here says how sure they are, and the document says whose they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from meltbench.analysis.observations import TEXT, meter_of, total_energy
from meltbench.analysis.stats import Estimate, inverted, mean, missing, scaled, widened
from meltbench.analysis.unit_costs import Spent, per_unit
from meltbench.efficiency import efficiency
from meltbench.efficiency_tables import cell_about, cells_of, scope_flags
from meltbench.errors import UnknownName, UserError
from meltbench.measure.charge import NEW_LIMIT
from meltbench.measure.edges import SQRT3
from meltbench.measure.total import TOTAL
from meltbench.records import SPANS, Measure, bare
from meltbench.targets import profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from meltbench.efficiency_tables import Progress
    from meltbench.energy_factors import Factor
    from meltbench.records import RunRecord

    Number = dict[str, Any]

J_PER_KWH, J_PER_WH = 3.6e6, 3600.0
_TABLE = ("measured_by", "mode", "workload", "point")
# Whose energy says how often a battery pays for it, and how: what is told beside it.
_BATTERY_SCOPES = {
    "battery": "",
    "wall": "at_least: the energy is of the wall, and what the supply loses is in it",
    "module": "at_most: the energy is of the module, and what lies outside of it draws on the battery too",
    "soc": "at_most: the energy is of the chip, and screen, memory and radios draw on the battery too",
}
_NOT_THE_WALL = "not_wall: the energy is of scope {}: what the wall gives, and is paid, is more"
_IN_USE = "in_use: electricity while it answers, not the making of the device, nor idling between queries"


@dataclass(frozen=True)
class Capacity:
    """What a full battery holds; ``limit``: relative limit of its error, None where it is stated as exact."""

    energy_wh: float
    source: str
    limit: float | None = None


def cost_tables(
    records: Sequence[RunRecord],
    price: Factor | None,
    carbon: Factor | None,
    left_out: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Energy, money and carbon of 1000 output tokens, 1000 queries and a right answer; keys: docs/json.md.

    ``price``: money by kWh; ``carbon``: gCO2e by kWh; without one its numbers are not there.
    """
    factors = [one for one in (price, carbon) if one is not None]

    def numbers(cell: Sequence[RunRecord], point: str) -> list[Number]:
        out = []
        for name, which, found in _energies(cell, point):
            times = 1.0 if name == "right_answer" else 1000.0
            label = name if name == "right_answer" else f"1000_{name}"
            out.append(_number(f"j_per_{label}", which, "J", scaled(found, times)))
            for factor in factors:
                prefix, unit = factor.of_number
                by_j = scaled(found, times * factor.value / J_PER_KWH)
                out.append(_number(f"{prefix}_per_{label}", which, unit, by_j))
        return out

    def flags(row: dict[str, Any]) -> list[str]:
        return [_IN_USE] if row["scope"] == "wall" else [_NOT_THE_WALL.format(row["scope"]), _IN_USE]

    made = _tables(records, numbers, flags, progress=progress)
    return {"factors": [one.as_json() for one in factors], **made, "left_out": left_out}


def battery_tables(
    records: Sequence[RunRecord],
    capacities: Mapping[str, Capacity],
    stated_wh: float | None = None,
    left_out: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """How long a battery lasts: queries, output tokens and right answers by charge, and hours of generating.

    ``capacities``: by the profile of a device what its battery holds; ``stated_wh``: what the caller says that every
    one holds, instead. What goes in mAh is as the runs measured it, by a current.
    """
    stated = None if stated_wh is None else Capacity(stated_wh, "stated by --battery-wh")

    def capacity_of(cell: Sequence[RunRecord]) -> Capacity | None:
        return stated or _measured_capacity(cell) or capacities.get(_profile(cell[0]))

    def numbers(cell: Sequence[RunRecord], point: str) -> list[Number]:
        scope, held = _meter(cell)[0], capacity_of(cell)
        why = "" if scope in _BATTERY_SCOPES else f"no_battery_scope: energies of scope {scope} leave too much out"
        if held is None:
            why = why or "no_battery_capacity: the profile states none; --battery-wh N does"
        energies = [(name, which, found) for name, which, found in _energies(cell, point) if which == "gross"]
        energies.append(("second", "gross", _power(cell, point)))
        names = {
            "second": ("battery_life_h", "h"),
            "queries": ("prompts_per_charge", "1"),
            "right_answer": ("right_answers_per_charge", "1"),
        }
        out = []
        for name, which, found in energies:
            label, unit = names.get(name, (f"{name}_per_charge", "1"))
            if found.value is None or held is None or why:
                one = found if found.value is None else missing(why, found.n)
            else:
                one = _charges(found, held)
            out.append(_number(label, which, unit, scaled(one, 1 / 3600) if name == "second" else one))
        return [*out, _number("discharge_mah_per_token", "gross", "mAh/token", _discharge(cell, point))]

    def flags(row: dict[str, Any]) -> list[str]:
        told = _BATTERY_SCOPES.get(row["scope"] or "", "")
        return [told] if told else []

    def battery(cell: Sequence[RunRecord]) -> dict[str, Any]:
        found = capacity_of(cell)
        known = (None, "") if found is None else (found.energy_wh, found.source)
        return dict(zip(("battery_wh", "battery_source"), known, strict=True))

    return {**_tables(records, numbers, flags, battery, progress), "left_out": left_out}


def capacities_of(records: Iterable[RunRecord]) -> dict[str, Capacity]:
    """What the batteries of these runs' devices hold, by profile, as the profiles state it now.

    A profile that is not on this machine states nothing. Raises DefinitionError for a broken one.
    """
    found = {}
    for name in dict.fromkeys(_profile(record) for record in records):
        try:
            battery = profile.load(name)[0].battery
        except UnknownName:
            continue
        if battery is not None and battery.energy_wh is not None:
            told = f"{battery.energy_wh:g} Wh when full ({battery.source})"
            found[name] = Capacity(battery.energy_wh, told, battery.limit or NEW_LIMIT)
    return found


def _tables(
    records: Sequence[RunRecord],
    numbers: Callable[[Sequence[RunRecord], str], list[Number]],
    flags: Callable[[dict[str, Any]], list[str]],
    more: Callable[[Sequence[RunRecord]], dict[str, Any]] = lambda _: {},
    progress: Progress | None = None,
) -> dict[str, Any]:
    tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    refused = []
    cells = cells_of(records)
    for done, cell in enumerate(cells):
        for point in _points(cell):
            row = {**cell_about(cell), "point": point, **more(cell)}
            try:
                row["scope"], row["klass"] = _meter(cell)
                row["numbers"] = numbers(cell, point)
            except UserError as error:
                refused.append({"runs": row["runs"], "reason": error.message})
                break
            known = any(one["value"] is not None for one in row["numbers"])
            row["flags"] = [*_of_runs(cell, row), *(flags(row) if known else [])]
            tables.setdefault(tuple(str(row.pop(key)) for key in _TABLE), []).append(row)
        if progress:
            progress(done + 1, len(cells))
    made = [
        dict(zip(_TABLE, key, strict=True)) | {"rows": rows, "flags": scope_flags(rows)}
        for key, rows in sorted(tables.items())
    ]
    return {"tables": made, "refused": refused}


def _points(cell: Iterable[RunRecord]) -> list[str]:
    """What a cell's requests are put together by; "" the whole run, where they are alike."""
    found: dict[str, None] = {}
    for record in cell:
        asked = [m for m in record.measures if bare(m.name) in ("j_per_request", "j_per_question")]
        whole = [m for m in asked if m.phase == "run" and not (m.reason or "").startswith("mixed_points")]
        found |= dict.fromkeys([*([""] if whole else []), *(m.phase for m in asked if m.phase not in SPANS)])
        found |= dict.fromkeys(score.point for score in record.scores)
    return list(found) or [""]


def _meter(cell: Sequence[RunRecord]) -> tuple[str, str | None]:
    """What the energies of a cell cover, and their class. Raises UserError where its runs have several."""
    meter = meter_of(cell)
    known = any((m := total_energy(record)) is not None and m.value is not None for record in cell)
    return (meter.scope, meter.klass) if known else ("none", None)


def _energies(cell: Sequence[RunRecord], point: str) -> list[tuple[str, str, Estimate]]:
    """Joules an output token, a query and a right answer, gross and net."""
    scored = _scored(cell, point)
    by_item = _by_item(cell, point) if scored else {}
    out = []
    for which, prefix in (("gross", ""), ("net", "net_")):
        by_token, by_request = (f"{prefix}{name}" for name in ("j_per_output_token", "j_per_request"))
        if any(_measure(record, point, by_token) for record in cell):
            out.append(("output_tokens", which, per_unit(*_spent(cell, point, by_token, by_request))))
        if not scored:
            out.append(("queries", which, per_unit(*_spent(cell, point, by_request))))
        elif by_item:
            out.append(("queries", which, by_item["mean_energy_j", which]))
            out.append(("right_answer", which, inverted(by_item["ipj_per_j", which])))
    return out


def _by_item(cell: Sequence[RunRecord], point: str) -> dict[tuple[str, str], Estimate]:
    """The numbers of what was scored; of answers that were scored in several ways the first one's."""
    mine = [replace(r, scores=[s for s in r.scores if s.point == point and s.method != TEXT]) for r in cell]
    found = efficiency([record for record in mine if record.scores])
    return {(one["name"], one["energy"]): _estimate(one) for one in found[0]["numbers"]} if found else {}


def _scored(cell: Iterable[RunRecord], point: str) -> bool:
    return any(score.point == point and score.correct is not None for record in cell for score in record.scores)


def _estimate(one: Number) -> Estimate:
    return Estimate(**{key: one[key] for key in ("value", "lo", "hi", "se", "n", "clusters", "method", "reason")})


def _spent(cell: Iterable[RunRecord], point: str, name: str, of: str = "") -> tuple[list[Spent], str]:
    """What each run took for its requests, or for what their energy (``of``) over ``name`` says that they made."""
    out, why = [], ""
    for record in cell:
        one, energy = _measure(record, point, name), _measure(record, point, of or name)
        if one is None or energy is None or not one.value or not energy.value or not energy.n:
            why = why or next((m.reason for m in (one, energy) if m is not None and m.reason), "")
            continue
        joules = energy.value * energy.n
        u = None if energy.u_k2 is None else abs(energy.u_k2 / energy.value) / 2
        out.append(Spent(joules, joules / one.value, u))
    return out, why or "not_measured: no run has it"


def _power(cell: Sequence[RunRecord], point: str) -> Estimate:
    """Watts while it answers, pauses between requests included."""
    if point and len(_points(cell)) > 1:
        return missing("mixed_points: the power is of the whole run")
    spent, why = [], "not_measured: no run has it"
    for record in cell:
        watts, energy = (_measure(record, "", name) for name in ("mean_power_w", "energy_j"))
        if watts is None or energy is None or not watts.value or not energy.value:
            why = next((m.reason for m in (watts, energy) if m is not None and m.reason), why)
            continue
        u = None if watts.u_k2 is None else abs(watts.u_k2 / watts.value) / 2
        spent.append(Spent(energy.value, energy.value / watts.value, u))
    return per_unit(spent, why)


def _measure(record: RunRecord, point: str, name: str) -> Measure | None:
    phase = point or "run"
    return next((m for m in record.measures if bare(m.name) == name and m.phase == phase and m.source == TOTAL), None)


def _charges(found: Estimate, held: Capacity) -> Estimate:
    """How often a full battery pays a cost; the limit of what it holds is of all alike, and widens the interval."""
    made = inverted(found, held.energy_wh * J_PER_WH)
    return made if held.limit is None else widened(made, 2 * held.limit / SQRT3)


def _measured_capacity(cell: Sequence[RunRecord]) -> Capacity | None:
    """What the runs were told that their battery holds: a life in hours at a power is an energy."""
    for record in cell:
        life, watts = (_measure(record, "", name) for name in ("battery_life_h", "mean_power_w"))
        if life is not None and watts is not None and life.value and watts.value:
            limit = None
            if life.u_k2 is not None and watts.u_k2 is not None:
                of_life, of_power = life.u_k2 / life.value, watts.u_k2 / watts.value
                limit = math.sqrt(max(of_life**2 - of_power**2, 0.0)) * SQRT3 / 2
            return Capacity(life.value * watts.value, life.method.partition(" over ")[0], limit)
    return None


def _profile(record: RunRecord) -> str:
    device = record.manifest.get("device") or {}
    return str(device.get("profile") or device.get("name"))


def _discharge(cell: Iterable[RunRecord], point: str) -> Estimate:
    found = [_measure(record, point, "discharge_mah_per_token") for record in cell]
    values = [m.value for m in found if m is not None and m.value is not None]
    if not values:
        return missing(next((m.reason for m in found if m is not None and m.reason), "no_current: it was not measured"))
    known = [m.u_k2 / m.value for m in found if m is not None and m.value and m.u_k2 is not None]
    middle = mean(values)
    if len(known) < len(values):
        return middle
    if middle.lo is None:
        middle = replace(middle, lo=middle.value, hi=middle.value, method="one run: the meter alone")
    return widened(middle, max(known))


def _of_runs(cell: Sequence[RunRecord], row: dict[str, Any]) -> list[str]:
    """What of the runs has to be known before a row is put beside another."""
    out = []
    lacking = sum((m := _measure(record, "", "energy_j")) is None or m.value is None for record in cell)
    if 0 < lacking < len(cell):
        out.append(f"no_energy: {lacking} of {len(cell)} runs have none and are left out")
    invalid = [record.run_id for record in cell if record.manifest.get("validity") == "invalid"]
    if invalid:
        out.append(f"invalid: {', '.join(invalid)} was used because it was asked for")
    if len(cell) - lacking == 1:
        out.append("one_run: how runs differ is not in the interval")
    if row["klass"] == "E":
        out.append("estimate: class E is a model of the energy, not a measurement of it")
    return out


def _number(name: str, which: str, unit: str, found: Estimate) -> Number:
    named = {"name": name, "energy": which, "unit": unit}
    return named | {key: getattr(found, key) for key in ("value", "lo", "hi", "n", "method", "reason")}
