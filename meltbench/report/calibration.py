"""What a calibration found, as tables and lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.report.sheet import MISSING, Column, Sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

_SENSORS = (
    Column("source", whole=True),
    Column("series", whole=True),
    Column("unit"),
    Column("idle", right=True),
    Column("load", right=True),
    Column("difference", right=True),
    Column("± (k = 2)", right=True),
    Column("seen", whole=True),
    Column("response s", right=True),
    Column("fresh /s", right=True),
    Column("quantum", right=True),
    Column("", faint=True),
)
_STEADY = (
    Column("source", whole=True),
    Column("series", whole=True),
    Column("windows", right=True),
    Column("mean W", right=True),
    Column("CV %", right=True),
    Column("smallest difference %", right=True),
    Column("", faint=True),
)


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """The tables of a self-test or a calibration that have rows."""
    steady = found.get("steady", []) if found["windows"]["same"] else []
    return [sheet for sheet in (sensor_sheet(found["sensors"]), steady_sheet(steady)) if sheet.rows]


def sensor_sheet(sensors: Sequence[dict[str, Any]]) -> Sheet:
    """A row a sensor: what it shows of the load steps."""
    sheet = Sheet("load steps", _SENSORS)
    for one in sensors:
        levels = [_number(one[key]) for key in ("idle", "load", "difference")]
        u = None if one["u"] is None else 2 * one["u"]
        fresh, grain = _number(one["fresh_per_s"], 3), _number(one["quantum"], 3)
        row = (one["source"], one["series"], one["unit"], *levels, _number(u, 2), one["seen"], _response(one))
        sheet.rows.append((*row, fresh, grain, one["why"]))
    return sheet


def _response(one: dict[str, Any]) -> str:
    """The 10-90 % rise; where it lies within one update, that it is shorter than that."""
    response, update = one["response_s"], one["update_s"]
    if response is None:
        return MISSING
    if update is not None and response < update:
        return f"< {update:.2g}"
    return f"{response:.2g}"


def steady_sheet(rows: Sequence[dict[str, Any]]) -> Sheet:
    """A row a source of energy: how much equal windows differ."""
    sheet = Sheet("equal windows", _STEADY)
    for one in rows:
        shares = [_number(None if one[key] is None else 100 * one[key], 3) for key in ("cv", "mde")]
        row = (one["source"], one["series"], str(one["n"]), _number(one["mean_w"]), *shares, one["reason"])
        sheet.rows.append(row)
    return sheet


def lines(found: dict[str, Any]) -> list[str]:
    """What the tables do not say: a job that failed, sources that gave nothing, gauges, what watching costs."""
    said = [f"the job was not done: {found['failure']}"] if found["outcome"] != "done" else []
    if not found["sensors"]:
        said.append("no sensor that a load moves was read: neither power, energy, current, voltage, clock nor heat")
    silent = [one for one in found["sources_seen"] if one["status"] != "ok"]
    said += [f"{one['source']}: {one['status']}" + (f", {one['detail']}" if one["detail"] else "") for one in silent]
    said += [_gauge_line(one) for one in found.get("gauges", [])]
    if (observer := found.get("observer")) is not None:
        share, u = (100 * observer[key] for key in ("share", "u_k2"))
        said.append(f"watching costs {share:.2g} % ± {u:.2g} % of a burn of all processors (k = 2)")
    return said


def _gauge_line(one: dict[str, Any]) -> str:
    name = f"{one['source']} ({one['series'] or one['reader']})"
    if one["refused"]:
        return f"{name}: not trusted, {one['refused']}"
    options = ", ".join(f"{key} {value}" for key, value in one["options"].items())
    levels = f"idle {one['idle_w']:.3g} W, load {one['load_w']:.3g} W"
    ratio, u_k2 = one["charge_ratio"], one["charge_u_k2"]
    against = one["charge_note"] if ratio is None else f"charge counter / current {ratio:.3f} ± {u_k2:.2g} (k = 2)"
    return f"{name}: {options}; {levels}; {against}"


def _number(value: float | None, digits: int = 4) -> str:
    return MISSING if value is None else f"{value:.{digits}g}"
