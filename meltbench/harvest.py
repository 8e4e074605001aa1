"""What the index has for a front: rows of ``results`` with what has to be alike of their runs, and items one by one."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis.sameness import workload_settings
from meltbench.measure.total import TOTAL
from meltbench.records import MODE_PREFIX
from meltbench.store.views import RESULTS_OF

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    import numpy.typing as npt

    from meltbench.analysis.axes import Axis
    from meltbench.selecting import Selection

ABOUT = ("device", "model", "quantisation", "engine", "engine_version", "accelerator", "origin")
BEHIND = ("device_identity", "model_sha256", "engine_sha256")  # what names alone do not tell apart
_FREE = ("ctx", "ctx_all", "load")  # follow from what was asked, or from the moment


@dataclass(frozen=True, order=True)
class Source:
    """What was asked and how. ``settings``: of the workload, in one way of writing."""

    workload: str
    mode: str
    point: str
    sha256: str = field(repr=False)
    settings: str = field(repr=False)

    def __str__(self) -> str:
        return "/".join(part for part in (self.workload, self.mode, self.point) if part)


@dataclass(frozen=True)
class Row:
    """One row of ``results``. ``base``: values of ``ABOUT`` and of what is behind them; ``settings``: what else of the
    run's cell has to be alike; ``own``: by name what a measure says of itself, its u at k = 2 and how many it is of."""

    run_id: str
    base: tuple[str, ...]
    source: Source
    settings: dict[str, str]
    cell: str
    values: dict[str, float]
    own: dict[str, tuple[float | None, int]]
    scope: str
    klass: str


def read_rows(connection: duckdb.DuckDBPyConnection, selection: Selection, axes: Sequence[Axis]) -> list[Row]:
    """All rows of the selection that have a number on one of the axes."""
    names = list(dict.fromkeys(axis.name for axis in axes))
    where, params = selection.sql()
    about = ", ".join((*ABOUT, *BEHIND, "runner", "mode", "workload", "workload_sha256", "point"))
    found = connection.execute(
        f"SELECT run_id, coalesce(cell_key, run_id), energy_scope, energy_class, {about}, {', '.join(names)} "
        f"FROM results WHERE ({where}) AND (NOT (point = '' AND {' AND '.join(f'{n} IS NULL' for n in names)})) "
        "ORDER BY started_at, run_id, point",
        params,
    ).fetchall()
    cells = _cells(connection, {str(row[1]) for row in found})
    own = _own(connection, names)
    out, at = [], 4 + len(ABOUT) + len(BEHIND)
    for row in found:
        settings, work = cells[row[1]]
        runner, mode, workload, sha256, point = (str(one or "") for one in row[at : at + 5])
        values = {n: float(v) for n, v in zip(names, row[at + 5 :], strict=True) if v is not None and math.isfinite(v)}
        out.append(
            Row(
                row[0],
                tuple(str(one or "") for one in row[4:at]),
                Source(workload, mode, point, sha256, work),
                {**settings, "runner": runner},
                str(row[1]),
                values,
                {name: own[row[0], point, name] for name in values if (row[0], point, name) in own},
                str(row[2] or ""),
                str(row[3] or ""),
            )
        )
    return out


def _cells(connection: duckdb.DuckDBPyConnection, wanted: set[str]) -> dict[str, tuple[dict[str, str], str]]:
    """By cell: knobs, settings of the device, OS and kernel; and settings of the workload as text."""
    found = connection.execute(
        "SELECT cell, m->'$.knobs', m->'$.conditions.settings', m->>'$.conditions.os', m->>'$.conditions.kernel', "
        "m->>'$.versions.protocol', m->'$.workload' "
        "FROM (SELECT coalesce(cell_key, run_id) AS cell, any_value(manifest)::JSON AS m FROM runs GROUP BY cell)"
    ).fetchall()
    out = {}
    for cell, knobs, made, system, kernel, protocol, work in found:
        if cell not in wanted:
            continue
        told = {name: str(value) for name, value in (json.loads(knobs or "null") or {}).items() if name not in _FREE}
        for name, one in (json.loads(made or "null") or {}).items():
            told[f"setting {name}"] = str(one.get("used") if isinstance(one, dict) else one)
        told |= {name: value for name, value in (("OS", system), ("kernel", kernel), ("protocol", protocol)) if value}
        asked = workload_settings({"workload": json.loads(work or "null")})
        out[cell] = told, json.dumps(asked, sort_keys=True)
    return out


def _own(
    connection: duckdb.DuckDBPyConnection, names: Sequence[str]
) -> dict[tuple[str, str, str], tuple[float | None, int]]:
    """What a measure says of itself, u at k = 2 and how many it is of; by run, point and name."""
    out = {}
    for name in names:
        if name not in RESULTS_OF:
            continue
        called = [f"{prefix}{name}" for prefix in MODE_PREFIX.values()]
        found = connection.execute(
            "SELECT run_id, CASE WHEN phase = 'run' THEN '' ELSE phase END, u_k2, n FROM measures "
            "WHERE name IN (?, ?, ?) AND stat = ? AND (source = '' OR source = ?) AND u_k2 IS NOT NULL",
            [*called, RESULTS_OF[name], TOTAL],
        ).fetchall()
        out.update({(run, point, name): (u, int(n or 0)) for run, point, u, n in found})
    return out


def items_of(
    connection: duckdb.DuckDBPyConnection, axis: Axis, rows: Sequence[Sequence[Row]]
) -> tuple[list[npt.NDArray[np.float64] | None], bool]:
    """By arm what each item came to, in one order: sums above and below the line; None where a run's are not known.

    And whether arms have other counts of tokens for the same text, which makes perplexities incomparable.
    """
    runs = sorted({row.run_id for mine in rows for row in mine})
    points = {row.source.point for mine in rows for row in mine}
    if not runs:
        return [None] * len(rows), False
    value = "avg(correct), 1" if not axis.log else "avg(-value), max(n)"
    kept = "correct IS NOT NULL" if not axis.log else "method = 'nll' AND value IS NOT NULL AND n > 0"
    found = connection.execute(
        f"SELECT run_id, concat(category, ' ', item), {value} FROM scores WHERE {kept} "
        "AND run_id IN (SELECT unnest(?)) AND (? = '' OR point = ? OR category = ?) GROUP BY ALL",
        [runs, *[max(points, default="")] * 3],  # a domain is a point too: all rows of an axis are of one
    ).fetchall()
    held: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for run, item, above, below in found:
        held[run][item] = (float(above), float(below))
    order = {item: at for at, item in enumerate(sorted({item for mine in held.values() for item in mine}))}
    out: list[npt.NDArray[np.float64] | None] = []
    counts: dict[str, set[float]] = defaultdict(set)
    for mine in rows:
        if not mine or any(row.run_id not in held for row in mine):
            out.append(None)
            continue
        table, times = np.zeros((2, len(order))), np.zeros(len(order))
        for row in mine:
            for item, (above, below) in held[row.run_id].items():
                table[:, order[item]] += above, below
                times[order[item]] += 1
                counts[item].add(below)
        out.append(table / np.maximum(times, 1))
    return out, any(len(one) > 1 for one in counts.values())
