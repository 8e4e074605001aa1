"""Routers between local models and the cloud as tables: arms, then what becomes of the queries."""

from __future__ import annotations

from typing import Any

from meltbench.efficiency_tables import OURS
from meltbench.report.cells import refused_notes, with_interval
from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity

Document = dict[str, Any]


def route_sheets(document: Document) -> list[tuple[Sheet, list[str]]]:
    """Of each table its arms, its routers and, where the cloud's energy was stated, how they hang on it."""
    out: list[tuple[Sheet, list[str]]] = []
    for table in document["tables"]:
        out.append((_arms(table, document), []))
        sheets = [_routers(table), *([_sensitivity(table)] if table["routers"][0]["sensitivity"] else [])]
        out += [(sheet, []) for sheet in sheets]
        out[-1][1].extend(_notes(table))
    return out


def route_notes(document: Document) -> list[str]:
    """What the cloud is, and what is in no table."""
    cloud = document["cloud"]
    if cloud["runs"]:
        on = f" on {cloud['device']}" if cloud["device"] else ""
        told = f"cloud: {cloud['model']}{on}, run {', '.join(cloud['runs'])}, scope {cloud['scope']}"
    else:
        said = [
            *([] if cloud["j_per_query"] is None else [f"{cloud['j_per_query']:g} J a query"]),
            *([] if cloud["accuracy"] is None else [f"accuracy {cloud['accuracy'] * 100:g} %"]),
        ]
        told = f"cloud: {' and '.join(said)}, stated" if said else "cloud: nothing was stated of it"
    return [told, *refused_notes(document)]


def _arms(table: Document, document: Document) -> Sheet:
    imported = "" if table["measured_by"] == OURS else f"imported from {table['measured_by']}"
    named = (imported, *(table[key] for key in ("workload", "point", "method", "mode", "device")))
    limits = [
        f"{name} {quantity(document['limits'][key], unit)}"
        for name, key, unit in (("latency", "latency_s", "s"), ("energy", "energy_j", "J"), ("power", "power_w", "W"))
        if document["limits"][key] is not None
    ]
    within = f"right, {' and '.join(limits)} at most" if limits else "right, no limits"
    title = " · ".join(str(part) for part in (*named, f"{table['n_items']} items") if part)
    heads = [Column("model"), Column("right", right=True, whole=True), Column(within, right=True, whole=True)]
    heads += [Column("latency", right=True), Column("energy", right=True), Column("scope, class")]
    sheet = Sheet(title, (*heads, Column("runs", right=True)))
    for arm in table["arms"]:
        cost = [
            MISSING if arm[key] is None else quantity(arm[key], unit)
            for key, unit in (("mean_latency_s", "s"), ("mean_energy_j", "J"))
        ]
        scope = MISSING if arm["klass"] is None else f"{arm['scope']}, {arm['klass']}"
        right = [_share(arm[key]) for key in ("right", "right_within")]
        sheet.rows.append((arm["name"], *right, *cost, scope, str(len(arm["runs"]))))
    if len(table["arms"]) > 1:
        sheet.rows.append(("any of them", "", _share(table["covered"]), "", "", "", ""))
    return sheet


def _routers(table: Document) -> Sheet:
    heads = [Column("router")]
    named = ("stays local", "accuracy", "energy/query", "saved", "saves above")
    sheet = Sheet("", (*heads, *(Column(name, right=True, whole=True) for name in named), Column("", faint=True)))
    for one in table["routers"]:
        above = one["break_even_cloud_j"]
        cells = [
            _share(one["local"]),
            _share(one["accuracy"]),
            with_interval(one["j_per_query"] | {"unit": "J"}),
            _share(one["saved"]),
            MISSING if above is None else f"{quantity(above, 'J')}/query",
        ]
        sheet.rows.append((one["name"], *cells, "hypothetical" if one["hypothetical"] else ""))
    return sheet


def _sensitivity(table: Document) -> Sheet:
    costs = [one["cloud_j_per_query"] for one in table["routers"][0]["sensitivity"]]
    heads = [Column(quantity(cost, "J"), right=True, whole=True) for cost in costs]
    sheet = Sheet("saved, were a query in the cloud to take", (Column("router"), *heads))
    for one in table["routers"]:
        if one["sensitivity"]:
            found = [_share({"value": s["saved"], "lo": s["lo"], "hi": s["hi"]}) for s in one["sensitivity"]]
            sheet.rows.append((one["name"], *found))
    return sheet


def _notes(table: Document) -> list[str]:
    lines = list(table["flags"])
    lines.append("hypothetical: it knows which answers are right before, or (cascade) after they are given")
    reasons = (one[key]["reason"] for one in table["routers"] for key in ("accuracy", "j_per_query", "saved"))
    return [*lines, *dict.fromkeys(reason for reason in reasons if reason)]


def _share(one: Document) -> str:
    return with_interval(one | {"unit": "share"})
