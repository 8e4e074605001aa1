"""The runs of a store with their headline numbers: read from the index, drawn as one table a mode.

Numbers of a server, of an engine's own benchmark and of an engine inside our process never share a column.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from meltbench.controller import is_alive
from meltbench.errors import StoreError
from meltbench.records import MODE_PREFIX, SPANS, bare
from meltbench.report.console import command_line
from meltbench.report.headline import INFERRED, METERED, POINTED, RATES, SERVED, Headline, natural
from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity
from meltbench.store import index
from meltbench.store.views import TOTAL_SOURCE
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from meltbench.store import RunEntry, Store

Row = dict[str, Any]

_NAMES = ("device", "model", "runner", "engine", "engine_version", "accelerator", "mode", "workload")
_OF_TOTAL = ("energy_j", "mean_power_w", "j_per_output_token")


def read_rows(
    store: Store, *, model: str | None = None, workload: str | None = None, last: int | None = None
) -> tuple[list[Row], list[str]]:
    """The runs of a store, oldest first, and lines to tell the user. docs/json.md has the keys of a row.

    ``model`` and ``workload``: only runs in whose names these stand, in any case; ``last``: only the newest so many.
    Runs that are not stored, or that the index cannot have, come from their folders, without numbers.
    """
    import duckdb

    notes: list[str] = []
    try:
        notes += index.refresh(store).notes
    except StoreError as error:  # somebody else's index is locked, or the disk full: what is known is shown
        notes.append(str(error))
    try:
        with index.attached(store.index) as connection:
            known = _known(connection)
            rows = _chosen(store, known, model, workload, last)
            _add_numbers(connection, [row for row in rows if row["run_id"] in known])
    except (index.Unusable, StoreError, duckdb.Error):
        rows = _chosen(store, {}, model, workload, last)
    return rows, notes


def _chosen(
    store: Store, known: dict[str, Row], model: str | None, workload: str | None, last: int | None
) -> list[Row]:
    rows: list[Row] = []
    for run_id in reversed(store.run_ids()):
        if last is not None and len(rows) >= last:
            break
        row = known.get(run_id) or _from_entry(store.entry(run_id))
        wanted = (("model", model), ("workload", workload))
        if all(text is None or text.casefold() in str(row[key] or "").casefold() for key, text in wanted):
            rows.append(row)
    return rows[::-1]


def _known(connection: duckdb.DuckDBPyConnection) -> dict[str, Row]:
    names = (
        "run_id",
        "state",
        "started_at",
        *_NAMES,
        "validity",
        "failure",
        "plan_hash",
        "cell_key",
        "origin",
        "command",
    )
    found = connection.execute(
        f"""
        SELECT run_id, outcome, strftime(started_at, '%Y-%m-%dT%H:%M:%S.%g+00:00'), {", ".join(_NAMES)},
            validity, failure, plan_hash, cell_key,
            coalesce(json_extract_string(manifest, '$.imported.from'), 'meltbench'),
            json_extract(manifest, '$.spec.command')::VARCHAR
        FROM runs
        """
    ).fetchall()
    rows = {}
    for values in found:
        row = {name: _harmless(value) for name, value in zip(names, values, strict=True)}
        words = json.loads(values[-1]) if values[-1] else None
        row["command"] = command_line({"spec": {"command": words}})
        rows[row["run_id"]] = row | {"measures": {}, "points": []}
    return rows


def _harmless(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _from_entry(entry: RunEntry) -> Row:
    """A row from a ticket or a manifest alone."""
    info = entry.info

    def part(key: str, name: str = "name") -> str | None:
        found = info.get(key)
        value = found.get(name) if isinstance(found, dict) else None
        return printable(str(value)) if value is not None else None

    looked_on = "running" if is_alive(info.get("controller")) else "detached"
    return {
        "run_id": entry.run_id,
        "state": {"stored": info.get("outcome"), "open": looked_on}.get(entry.state, entry.state),
        "started_at": info.get("started_at"),
        "device": part("device"),
        "model": part("model"),
        "runner": part("runner"),
        "engine": part("runner", "engine"),
        "engine_version": part("runner", "version"),
        "accelerator": part("runner", "accelerator"),
        "mode": part("runner", "mode"),
        "workload": part("workload"),
        "validity": info.get("validity"),
        "failure": info.get("failure") or info.get("error"),
        "plan_hash": info.get("plan_hash"),
        "cell_key": info.get("cell_key"),
        "origin": part("imported", "from") or (None if "error" in info else "meltbench"),
        "command": command_line(info),
        "measures": {},
        "points": [],
    }


def _add_numbers(connection: duckdb.DuckDBPyConnection, rows: list[Row]) -> None:
    """Put in the headline measures that have a value, under their own names, of the run and of each point."""
    wanted = {
        (f"{prefix}{h.name}", h.stat)
        for h in (*POINTED, *SERVED, *INFERRED, *METERED)
        for prefix in MODE_PREFIX.values()
    }
    pairs = ", ".join(f"('{name}', '{stat}')" for name, stat in sorted(wanted))
    totals = ", ".join(f"'{name}'" for name in _OF_TOTAL)
    spans = ", ".join(f"'{span}'" for span in SPANS if span != "run")
    found = connection.execute(
        f"""
        SELECT run_id, phase, name, value FROM measures
        WHERE value IS NOT NULL AND (name, stat) IN ({pairs}) AND phase NOT IN ({spans})
            AND (name NOT IN ({totals}) OR source = '{TOTAL_SOURCE}') AND run_id IN (SELECT unnest(?))
        ORDER BY run_id, seq
        """,
        [[row["run_id"] for row in rows]],
    ).fetchall()
    by_id = {row["run_id"]: row for row in rows}
    points: dict[tuple[str, str], Row] = {}
    for run_id, phase, name, value in found:
        if phase == "run":
            by_id[run_id]["measures"].setdefault(name, value)
            continue
        point = points.get((run_id, phase))
        if point is None:
            point = points[run_id, phase] = {"point": printable(phase), "measures": {}}
            by_id[run_id]["points"].append(point)
        point["measures"].setdefault(name, value)


def listing_sheets(rows: list[Row]) -> list[Sheet]:
    """One table a mode for the runs and one for points, then one for what ran without an engine."""
    sheets = []
    several = len({row["device"] for row in rows}) > 1
    for mode in sorted({str(row["mode"]) for row in rows if row["mode"]}):
        inferred = [row for row in rows if row["mode"] == mode and INFERRED[1].name in row["measures"]]
        mine = [row for row in rows if row["mode"] == mode and row not in inferred]
        whole = [row for row in mine if _has_rates(row) or not row["points"]]
        pointed = [row for row in mine if row["points"]]
        if whole:
            sheets.append(_sheet(f"mode {mode}", whole, SERVED, several=several))
        if inferred:
            sheets.append(_sheet("plain models", inferred, INFERRED, several=several))
        if pointed:
            known = {bare(name) for row in pointed for point in row["points"] for name in point["measures"]}
            columns = [headline for headline in POINTED if headline.name in known]
            sheets.append(_sheet(f"mode {mode}, by point", pointed, columns, several=several, by_point=True))
    others = [row for row in rows if not row["mode"]]
    if others:
        sheets.append(_sheet("without an engine", others, METERED, several=several))
    return sheets


def _has_rates(row: Row) -> bool:
    return any(bare(name) in {h.name for h in RATES} for name in row["measures"])


def _sheet(title: str, rows: list[Row], wanted: Sequence[Headline], *, several: bool, by_point: bool = False) -> Sheet:
    served = wanted is not METERED
    labels = ["device"] * several + (["model", "engine", "workload"] if served else ["what ran"])
    columns = [
        Column("run", whole=True),
        *(Column(label) for label in labels),
        *([Column("point")] if by_point else []),
        *(Column(headline.heading, right=True, whole=True) for headline in wanted),
        Column("state"),
    ]
    sheet = Sheet(title, tuple(columns))
    for row in rows:
        texts = [row["device"] or ""] * several + _what(row, served=served)
        state = str(row["validity"] if row["state"] == "done" else row["state"] or "unknown")
        state += f", from {row['origin']}" if row["origin"] not in ("meltbench", None) else ""
        for point in sorted(row["points"], key=lambda one: natural(one["point"])) if by_point else (row,):
            found = {bare(name): value for name, value in point["measures"].items()}
            cells = [quantity(found[h.name], h.unit) if h.name in found else MISSING for h in wanted]
            sheet.rows.append((row["run_id"], *texts, *([point["point"]] if by_point else []), *cells, state))
    return sheet


def _what(row: Row, *, served: bool) -> list[str]:
    if served:
        engine = " ".join(str(row[key]) for key in ("engine", "engine_version", "accelerator") if row[key])
        return [row["model"] or "", engine, row["workload"] or ""]
    command = row["command"] or ""
    return [" ".join(part for part in (row["workload"], command if len(command) <= 40 else f"{command[:39]}…") if part)]
