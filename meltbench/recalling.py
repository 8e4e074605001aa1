"""Runs as records from the index alone: what the analyses over many runs need, without opening a folder.

One query a table, however many runs are meant. What is left out is what no analysis here asks for: series, tokens,
phases and the texts of answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.errors import UserError
from meltbench.measure.total import TOTAL
from meltbench.records import MODE_PREFIX, SPANS, Measure, Request, RunRecord, Score
from meltbench.selecting import Selection, unknown_value
from meltbench.store import index, schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from meltbench.store import Store

# Beside those of the designated total: what a run says of its battery.
_COSTS = ("energy_j", "mean_power_w", "idle_power_w", "battery_life_h", "discharge_mah_per_token")


@dataclass(frozen=True)
class Recalled:
    """Runs that are meant, oldest first. ``left_out``: how many more are meant, and are invalid or failed."""

    records: tuple[RunRecord, ...]
    left_out: int


def recall(
    connection: duckdb.DuckDBPyConnection,
    selection: Selection,
    *,
    scores: bool = False,
    scored: bool = False,
    requests: bool = False,
) -> Recalled:
    """The runs of an engine that a selection means, with their measures of energy, from an open index.

    ``scores``: with their scores; ``scored``: only runs that have any; ``requests``: with their requests. Runs
    that other tools measured are among them where the selection does not speak of origins: whoever takes them keeps
    them apart.
    """
    if not selection.of_word("origin"):
        found = connection.execute("SELECT DISTINCT origin FROM results ORDER BY 1").fetchall()
        selection = Selection.of([*selection.values, *(("origin", row[0]) for row in found)])
    of_kind = "mode IS NOT NULL" + (" AND run_id IN (SELECT run_id FROM scores)" * scored)
    ids, every = (_ids(connection, selection, of_kind, pooled=pooled) for pooled in (True, False))
    manifests = _rows(connection, "SELECT run_id, manifest FROM runs WHERE {} ORDER BY run_id", ids)
    points = selection.of_word("point")
    held = {
        Measure: _measures(connection, ids, points),
        Score: _table(connection, schema.SCORES, ids, points) if scores else {},
        Request: _table(connection, schema.REQUESTS, ids, points) if requests else {},
    }
    made = [
        RunRecord(
            run_id,
            json.loads(manifest),
            measures=[Measure(**row) for row in held[Measure].get(run_id, ())],
            scores=[Score(**row | {"parsed": bool(row["parsed"])}) for row in held[Score].get(run_id, ())],
            requests=[Request(**row) for row in held[Request].get(run_id, ())],
        )
        for run_id, manifest in manifests
    ]
    return Recalled(tuple(made), len(set(every) - set(ids)))


def recalled(
    store: Store, words: Sequence[str], *, scores: bool = False, scored: bool = False, requests: bool = False
) -> Recalled:
    """The runs that words of the command line mean. Raises UserError where they mean none, or none that counts;
    UnknownName for a value that no run has."""
    selection = Selection.parse(",".join(words))
    with index.opened(store) as connection:
        found = recall(connection, selection, scores=scores, scored=scored, requests=requests)
        unknown = None if found.records else unknown_value(connection, selection)
    if unknown:
        raise unknown
    if found.records:
        return found
    meant = ("no scored run" if scored else "no run of an engine") + (f" of {selection}" if selection.values else "")
    if found.left_out:
        said = f"{meant} counts: {found.left_out} that are meant are invalid or failed"
        raise UserError(said, hint="add validity=invalid to see the invalid ones")
    raise UserError(f"{meant} in {store.root}", hint=store.command("runs"))


def _ids(connection: duckdb.DuckDBPyConnection, selection: Selection, more: str, *, pooled: bool) -> list[str]:
    where, params = selection.sql(pooled=pooled)
    sql = f"SELECT DISTINCT run_id FROM results WHERE {where} AND {more} ORDER BY run_id"
    return [str(row[0]) for row in connection.execute(sql, params).fetchall()]


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, ids: list[str]) -> list[tuple[Any, ...]]:
    return connection.execute(sql.format("run_id IN (SELECT unnest(?))"), [ids]).fetchall()


def _measures(
    connection: duckdb.DuckDBPyConnection, ids: list[str], points: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """What the designated total tells, of the run, of its idle windows and of each of its points."""
    names = ", ".join(f"'{prefix}{name}'" for name in _COSTS for prefix in MODE_PREFIX.values())
    more = f"AND source = '{TOTAL}' AND (name IN ({names}) OR contains(name, 'j_per_') OR starts_with(name, 'net_'))"
    found = _table(connection, schema.MEASURES, ids, (), more)
    if not points:
        return found
    return {
        run_id: [row for row in rows if row["phase"] in SPANS or row["phase"] in points]
        for run_id, rows in found.items()
    }


def _table(
    connection: duckdb.DuckDBPyConnection, table: schema.Table, ids: list[str], points: Sequence[str], more: str = ""
) -> dict[str, list[dict[str, Any]]]:
    """Rows of a table by run, each as the fields of its record."""
    columns = [one for one in schema.index_columns(table) if isinstance(one.field, str) and one.field]
    names = ", ".join(f'"{one.name}"' for one in columns)
    order = "seq" if any(one.name == "seq" for one in schema.index_columns(table)) else "request"
    sql = f"SELECT run_id, {names} FROM {table.name} WHERE {{}} {more} ORDER BY run_id, {order}"
    out: dict[str, list[dict[str, Any]]] = {}
    for run_id, *values in _rows(connection, sql, ids):
        row = dict(zip((str(one.field) for one in columns), values, strict=True))
        if not points or row["point"] in points:
            out.setdefault(str(run_id), []).append(row)
    return out
