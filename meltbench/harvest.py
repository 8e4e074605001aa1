"""What the index has for a front: rows of ``results`` with what has to be alike of their runs, and items one by one."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from meltbench.analysis.sameness import workload_settings
from meltbench.measure.total import TOTAL
from meltbench.records import MODE_PREFIX
from meltbench.store.views import RESULTS_OF

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import duckdb
    import numpy.typing as npt

    from meltbench.analysis.axes import Axis
    from meltbench.selecting import Selection

ABOUT = ("device", "model", "quantisation", "engine", "engine_version", "accelerator", "origin")
BEHIND = ("device_identity", "model_sha256", "engine_sha256")  # what names alone do not tell apart
_METER = ("energy_scope", "energy_class")
# Of a manifest: knobs, settings, OS, kernel, version of the protocol, workload.
_TOLD = (
    *("$.knobs", "$.conditions.settings", "$.conditions.os", "$.conditions.kernel"),
    *("$.versions.protocol", "$.workload"),
)
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


@dataclass(frozen=True, eq=False)
class Kind:
    """What rows have in common, one object for all of them. ``base``: values of ``ABOUT`` and of what is behind them;
    ``settings``: what else of the runs' cell has to be alike; ``scope``, ``klass``: of their energies."""

    base: tuple[str, ...]
    source: Source
    settings: dict[str, str]
    scope: str
    klass: str


class Row(NamedTuple):
    """One row of ``results``, with its numbers by the names of their axes."""

    run_id: str
    kind: Kind
    values: dict[str, float]


def read_rows(connection: duckdb.DuckDBPyConnection, selection: Selection, axes: Sequence[Axis]) -> list[Row]:
    """All rows of the selection that have a number on one of the axes."""
    names = list(dict.fromkeys(axis.name for axis in axes))
    where, params = selection.sql()
    about = ", ".join(("cell", "runner", "mode", "workload", "workload_sha256", "point", *_METER, *ABOUT, *BEHIND))
    # What rows have in common is read once: most runs are repetitions.
    found = connection.execute(
        f"SELECT {about}, list(run_id), list(number), {', '.join(f'list({name})' for name in names)} "
        "FROM (SELECT *, coalesce(cell_key, run_id) AS cell, "
        "row_number() OVER (ORDER BY started_at, run_id, point) AS number "
        f"FROM results WHERE ({where}) AND ({' OR '.join(f'{name} IS NOT NULL' for name in names)})) GROUP BY {about}",
        params,
    ).fetchall()
    cells = _cells(connection, [row[0] for row in found])
    placed, at = [], 6 + len(_METER) + len(ABOUT) + len(BEHIND)
    for row in found:
        (cell, runner, mode, workload, sha256, point, scope, klass), base = (
            [str(one or "") for one in row[:8]],
            tuple(str(one or "") for one in row[8:at]),
        )
        settings, work = cells[cell]
        kind = Kind(base, Source(workload, mode, point, sha256, work), {**settings, "runner": runner}, scope, klass)
        for run_id, number, *values in zip(*row[at:], strict=True):
            known = {n: float(v) for n, v in zip(names, values, strict=True) if v is not None and math.isfinite(v)}
            placed.append((number, Row(run_id, kind, known)))
    placed.sort(key=itemgetter(0))
    return [row for _, row in placed]


def _cells(connection: duckdb.DuckDBPyConnection, wanted: Iterable[str]) -> dict[str, tuple[dict[str, str], str]]:
    """By cell: knobs, settings of the device, OS and kernel; and settings of the workload as text."""
    of_cell = "coalesce(cell_key, run_id)"
    newest = connection.execute(
        f"SELECT max(run_id) FROM runs WHERE {of_cell} IN (SELECT unnest(?)) GROUP BY {of_cell}", [[*wanted]]
    ).fetchall()
    runs = [run_id for (run_id,) in newest]
    found = connection.execute(  # manifests are long: of the runs before the first wanted none is unpacked
        f"SELECT {of_cell}, json_extract(manifest, ?) FROM runs WHERE run_id >= ? AND run_id IN (SELECT unnest(?))",
        [list(_TOLD), min(runs, default=""), runs],
    ).fetchall()
    out: dict[str, tuple[dict[str, str], str]] = {}
    same: dict[tuple[str | None, ...], tuple[dict[str, str], str]] = {}
    for cell, told in found:
        key = tuple(told)
        if key not in same:
            same[key] = _told(*(None if one is None else json.loads(one) for one in told))
        out[cell] = same[key]
    return out


def _told(knobs: Any, made: Any, system: Any, kernel: Any, protocol: Any, work: Any) -> tuple[dict[str, str], str]:
    told = {name: str(value) for name, value in (knobs or {}).items() if name not in _FREE}
    for name, one in (made or {}).items():
        told[f"setting {name}"] = str(one.get("used") if isinstance(one, dict) else one)
    told |= {
        name: str(v) for name, v in (("OS", system), ("kernel", kernel), ("protocol", protocol)) if v not in (None, "")
    }
    return told, json.dumps(workload_settings({"workload": work}), sort_keys=True)


def own_of(
    connection: duckdb.DuckDBPyConnection, names: Sequence[str], runs: Sequence[str]
) -> dict[tuple[str, str, str], tuple[float, int]]:
    """What measures of these runs say of themselves, u at k = 2 and how many they are of; by run, point and name."""
    called = [(f"{mode}{name}", RESULTS_OF[name], name)
              for name in names if name in RESULTS_OF for mode in MODE_PREFIX.values()]  # fmt: skip
    found = connection.execute(
        "SELECT run_id, CASE WHEN phase = 'run' THEN '' ELSE phase END, column_of, u_k2, n FROM measures "
        "JOIN (SELECT unnest(?) AS name, unnest(?) AS stat, unnest(?) AS column_of) USING (name, stat) "
        "WHERE run_id IN (SELECT unnest(?)) AND (source = '' OR source = ?) AND u_k2 IS NOT NULL",
        [*([one[at] for one in called] for at in range(3)), [*runs], TOTAL],
    ).fetchall()
    return {(run, point, name): (u, int(n or 0)) for run, point, name, u, n in found}


def items_of(
    connection: duckdb.DuckDBPyConnection, axis: Axis, rows: Sequence[Sequence[Row]]
) -> tuple[list[npt.NDArray[np.float64] | None], bool]:
    """By arm what each item came to, in one order: sums above and below the line; None where a run's are not known.

    And whether arms have other counts of tokens for the same text, which makes perplexities incomparable.
    """
    runs = sorted({row.run_id for mine in rows for row in mine})
    points = {row.kind.source.point for mine in rows for row in mine}
    if not runs:
        return [None] * len(rows), False
    value = "avg(correct) AS above, 1 AS below" if not axis.log else "avg(-value) AS above, max(n) AS below"
    kept = "correct IS NOT NULL" if not axis.log else "method = 'nll' AND value IS NOT NULL AND n > 0"
    point = max(points, default="")  # a domain is a point too: all rows of an axis are of one
    found = connection.execute(
        "WITH wanted AS (SELECT unnest(?) AS run_id, unnest(?) AS run), "
        "asked AS (SELECT run, category, item, correct, value, n FROM scores JOIN wanted USING (run_id) "
        f"WHERE {kept} AND (? = '' OR point = ? OR category = ?)), "
        "named AS (SELECT category AS of, item AS called, dense_rank() OVER (ORDER BY concat(category, ' ', item)) - 1 "
        "AS number FROM (SELECT DISTINCT category, item FROM asked)) "
        f"SELECT run, number, {value} FROM asked JOIN named "
        "ON item IS NOT DISTINCT FROM called AND category IS NOT DISTINCT FROM of "
        "GROUP BY run, number",
        [runs, list(range(len(runs))), *[point] * 3],
    ).fetchnumpy()
    n = int(np.max(found["number"], initial=-1)) + 1
    count = np.bincount(found["run"], minlength=len(runs))
    order = np.argsort(found["run"].astype(np.min_scalar_type(len(runs))), kind="stable")
    numbered = {run_id: number for number, run_id in enumerate(runs)}
    run = np.array([numbered[row.run_id] for mine in rows for row in mine])
    arm = np.repeat(np.arange(len(rows)), [len(mine) for mine in rows])
    # One place after another of what was found, for every run of every arm.
    ends = np.cumsum(count[run])
    first = np.cumsum(count)[run] - ends
    held = order[np.arange(ends[-1]) + np.repeat(first, count[run])]
    item, below = found["number"][held], found["below"][held]
    place = np.repeat(arm, count[run]) * n + item
    shape = (len(rows), n)
    times = np.maximum(np.bincount(place, minlength=math.prod(shape)), 1)
    sums = (np.bincount(place, part, math.prod(shape)) for part in (found["above"][held], below))
    tables = np.stack([(part / times).reshape(shape) for part in sums], axis=1)
    known = np.bincount(arm, minlength=len(rows)) > 0
    known[arm[count[run] == 0]] = False
    used = known[place // n] if n else place
    told = np.zeros(n)
    told[item[used]] = below[used]
    other = bool((told[item[used]] != below[used]).any())
    return [table if is_known else None for table, is_known in zip(tables, known, strict=True)], other
