"""What a stored run has in each table of the index: a pure function of its folder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from meltbench.errors import StoreError
from meltbench.paths import sha256_of
from meltbench.store import arrow, manifest, schema, tables, views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import duckdb
    import pyarrow as pa

    from meltbench.store.folder import RunFolder

    Progress = Callable[[int, int], None]

INDEXED = [table for table in schema.TABLES if table.indexed]
_BATCH = 200


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the empty tables and the views in the connection's default database."""
    for statement in views.statements():
        connection.execute(statement)


def delete(connection: duckdb.DuckDBPyConnection, run_ids: list[str]) -> None:
    """Take these runs out of every table."""
    for table in INDEXED:
        connection.execute(f"DELETE FROM {table.name} WHERE run_id IN (SELECT unnest(?))", [run_ids])


def fill(
    connection: duckdb.DuckDBPyConnection, folders: list[RunFolder], progress: Progress | None = None
) -> tuple[list[str], list[str]]:
    """Insert the rows of these runs. Return the ids that went in, and a line for each that could not be read."""
    import pyarrow as pa

    added: list[str] = []
    notes: list[str] = []
    for start in range(0, len(folders), _BATCH):
        read: list[dict[schema.Table, pa.Table]] = []
        for folder in folders[start : start + _BATCH]:
            try:
                read.append(rows_of(folder))
                added.append(folder.run_id)
            except StoreError as error:
                notes.append(f"run {folder.run_id} is not in the index: {error.message}")
        for table in INDEXED if read else ():
            connection.register("incoming", pa.concat_tables(rows[table] for rows in read))
            connection.execute(f"INSERT INTO {table.name} BY NAME SELECT * FROM incoming")
            connection.unregister("incoming")
        if progress:
            progress(min(start + _BATCH, len(folders)), len(folders))
    return added, notes


def rows_of(folder: RunFolder) -> dict[schema.Table, pa.Table]:
    """Return the rows a stored run has in each table of the index. Raises StoreError when it is damaged."""
    whole = tables.read_manifest(folder.path)
    made = {
        schema.RUNS: _table(schema.RUNS, [_run_row(folder.run_id, whole)]),
        schema.FILES: _table(schema.FILES, _file_rows(folder, whole)),
    }
    for table in INDEXED:
        if table.parquet:
            made[table] = _with_run(folder.run_id, table, tables.read_table(folder.path, whole, table))
    return made


def _table(table: schema.Table, rows: list[dict[str, Any]]) -> pa.Table:
    columns = schema.index_columns(table)
    return arrow.table(columns, {column.name: [row.get(column.name) for row in rows] for column in columns})


def _with_run(run_id: str, table: schema.Table, content: pa.Table) -> pa.Table:
    wanted = arrow.schema_of(schema.index_columns(table))
    named = content.append_column("run_id", arrow.of_list([run_id] * content.num_rows, "VARCHAR"))
    chosen = named.select(wanted.names)
    # A cast of nothing imports pyarrow.compute all the same: a tenth of a second of every run.
    return chosen if chosen.schema.equals(wanted) else chosen.cast(wanted)


def _run_row(run_id: str, whole: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"run_id": run_id, "manifest": manifest.dump_value(manifest.of_record(whole))}
    for column in schema.RUNS.columns:
        if isinstance(column.field, tuple):
            value = _at(whole, column.field)
            row[column.name] = _utc(value) if column.type == "TIMESTAMP" else tables.cell(value, column.type)
    return row


def _at(value: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _utc(value: Any) -> datetime | None:
    """Return an ISO time as naive UTC; None when it is none, or does not name its zone."""
    try:
        when = datetime.fromisoformat(value)
        return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        return None


def _file_rows(folder: RunFolder, whole: dict[str, Any]) -> list[dict[str, Any]]:
    own = folder.path / manifest.MANIFEST
    listed = {**whole["files"], manifest.MANIFEST: {"sha256": sha256_of(own), "bytes": own.stat().st_size}}
    return [
        {
            "run_id": folder.run_id,
            "path": tables.cell(f"runs/{folder.run_id}/{name}", "VARCHAR"),
            "sha256": tables.cell(file.get("sha256"), "VARCHAR"),
            "bytes": tables.cell(file.get("bytes"), "BIGINT"),
        }
        for name, file in sorted(listed.items())
    ]
