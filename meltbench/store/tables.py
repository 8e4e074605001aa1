"""A RunRecord as Parquet files in its run folder, and back.

Text goes in harmless, a number that is not finite goes in as null. Reading checks each file against the
manifest first, so a number is never taken from a file that changed.
"""

from __future__ import annotations

import hashlib
import math
import operator
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, SupportsIndex

from meltbench.errors import InternalError, StoreError
from meltbench.records import Measure, Phase, Reason, Request, RunRecord, Series, SourceStatus
from meltbench.store import fs, manifest, schema

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa

_INTEGERS = {"BIGINT": range(-(1 << 63), 1 << 63), "INTEGER": range(-(1 << 31), 1 << 31)}
_MAX_FLOAT = sys.float_info.max
_HINT = "meltbench verify lists what is damaged"


def write_record(folder: Path, record: RunRecord) -> None:
    """Write the Parquet files of a record into its folder; they are not yet flushed to the disk.

    Raises InternalError for a record that contradicts itself, OSError when the disk does not take it.
    """
    import pyarrow as pa

    try:
        columns = {
            schema.REQUESTS: _columns(schema.REQUESTS, record.requests),
            schema.PHASES: _columns(schema.PHASES, record.phases),
            schema.MEASURES: _columns(schema.MEASURES, [_finite(measure) for measure in record.measures]),
            schema.REASONS: _columns(schema.REASONS, record.reasons),
            schema.SOURCES: _columns(schema.SOURCES, record.sources),
            schema.SERIES: _columns(schema.SERIES, record.series),
            schema.SAMPLES: _samples(record.series),
            schema.TOKENS: _tokens(record.requests),
        }
        made = {table: pa.table(held, schema=arrow_schema(table.columns)) for table, held in columns.items()}
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise InternalError(f"run {record.run_id} contradicts itself: {error}", hint="please report it") from error
    for table, content in made.items():
        _write(folder, table, content)


def arrow_schema(columns: Iterable[schema.Column]) -> pa.Schema:
    """Return the Arrow schema of these columns."""
    import pyarrow as pa

    types = {
        "VARCHAR": pa.string(),
        "BIGINT": pa.int64(),
        "INTEGER": pa.int32(),
        "DOUBLE": pa.float64(),
        "TIMESTAMP": pa.timestamp("us"),
    }
    return pa.schema([(column.name, types[column.type]) for column in columns])


def _write(folder: Path, table: schema.Table, content: pa.Table) -> None:
    import pyarrow.parquet as pq

    # Delta encoding stores a regular clock in about a byte a sample; dictionaries store repeated names once.
    times = {column.name: "DELTA_BINARY_PACKED" for column in table.columns if column.name.endswith("_ns")}
    names = [column.name for column in table.columns if column.type == "VARCHAR"]
    pq.write_table(
        content,
        folder / str(table.parquet),
        compression="zstd",
        use_dictionary=names,
        column_encoding=times or None,
    )


def _finite(measure: Measure) -> Measure:
    """A value that is no number is a missing one, and a missing one has a reason."""
    if measure.value is None or math.isfinite(measure.value):
        return measure
    return replace(measure, value=None, reason=measure.reason or "not_finite")


def _columns(table: schema.Table, rows: Iterable[Any]) -> dict[str, list[Any]]:
    rows = list(rows)
    held = {}
    for column in table.columns:
        if isinstance(column.field, str) and column.field:
            held[column.name] = [cell(getattr(row, column.field), column.type) for row in rows]
        else:
            held[column.name] = list(range(len(rows)))
    return held


def cell(value: Any, sql_type: schema.SqlType) -> Any:
    """Return ``value`` as the column type has it; None for what the type cannot hold."""
    if value is None:
        return None
    if sql_type == "VARCHAR":
        return manifest.harmless(value) if isinstance(value, str) else manifest.dump_value(value)
    if isinstance(value, bool) or not isinstance(value, float | SupportsIndex):
        return None
    if sql_type == "DOUBLE":
        return float(value) if -_MAX_FLOAT <= value <= _MAX_FLOAT else None  # type: ignore[operator]
    if isinstance(value, float):
        return int(value) if value.is_integer() and int(value) in _INTEGERS[sql_type] else None
    return operator.index(value) if operator.index(value) in _INTEGERS[sql_type] else None


def _samples(all_series: list[Series]) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    def joined(parts: list[Any], dtype: Any) -> Any:
        return np.concatenate(parts) if parts else np.empty(0, dtype)

    values = joined([np.asarray(series.value, np.float64) for series in all_series], np.float64)
    lengths = [len(series.value) for series in all_series]
    return {
        "series": np.repeat(np.arange(len(all_series), dtype=np.int32), lengths),
        "t0_ns": joined([np.asarray(series.t0_ns, np.int64) for series in all_series], np.int64),
        "t1_ns": joined([np.asarray(series.t1_ns, np.int64) for series in all_series], np.int64),
        "value": pa.array(values, mask=np.isnan(values)),
        "status": [status for series in all_series for status in series.status],
    }


def _tokens(requests: list[Request]) -> dict[str, list[int]]:
    if len({request.index for request in requests}) != len(requests):
        raise ValueError("two requests have one index")
    rows = [
        (request.index, k, t_ns, n)
        for request in requests
        for k, (t_ns, n) in enumerate(zip(request.token_t_ns, request.token_n, strict=True))
    ]
    names = ("request", "k", "t_ns", "n")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the whole manifest of a stored run. Raises StoreError when it is absent, damaged or too new."""
    path = folder / manifest.MANIFEST
    return manifest.open_sealed(manifest.read_bounded(path), f"{folder.name}/{manifest.MANIFEST}")


def read_table(folder: Path, whole: dict[str, Any], table: schema.Table) -> pa.Table:
    """Read one Parquet file of a run after checking it against the manifest.

    Raises StoreError when the file is absent, changed, or not the table it should be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = str(table.parquet)
    path = folder / name
    with fs.explained(f"read {path}", hint=_HINT):
        raw = path.read_bytes()
    listed = whole["files"].get(name, {}).get("sha256")
    if hashlib.sha256(raw).hexdigest() != listed:
        raise StoreError(f"{folder.name}/{name} is not the file that was stored", hint=_HINT)
    try:
        # Arrow's threads may still let go of our bytes when the interpreter ends, which then aborts.
        read = pq.ParquetFile(pa.BufferReader(raw)).read(use_threads=False)
        for column in table.columns:
            if column.later and column.name not in read.column_names:
                read = read.append_column(column.name, pa.array([""] * read.num_rows, pa.string()))
        return read.select([c.name for c in table.columns])
    except (pa.ArrowException, KeyError) as error:
        why = str(error).splitlines()[0]
        raise StoreError(f"{folder.name}/{name} is not a table of ours: {why}", hint=_HINT) from error


def read_record(folder: Path) -> RunRecord:
    """Return the record of a stored run, as it was given to the store. Raises StoreError as read_table does."""
    whole = read_manifest(folder)

    def rows(table: schema.Table) -> list[dict[str, Any]]:
        fields = {column.name: column.field for column in table.columns}
        read: list[dict[str, Any]] = read_table(folder, whole, table).to_pylist()
        return [{str(fields[name]): value for name, value in row.items() if fields[name]} for row in read]

    return RunRecord(
        run_id=folder.name,
        manifest=manifest.of_record(whole),
        series=_read_series(rows(schema.SERIES), read_table(folder, whole, schema.SAMPLES)),
        sources=[SourceStatus(**row) for row in rows(schema.SOURCES)],
        phases=[Phase(**row) for row in rows(schema.PHASES)],
        requests=_read_requests(rows(schema.REQUESTS), read_table(folder, whole, schema.TOKENS)),
        measures=[Measure(**row) for row in rows(schema.MEASURES)],
        reasons=[Reason(**row) for row in rows(schema.REASONS)],
    )


def _read_series(rows: list[dict[str, Any]], samples: pa.Table) -> list[Series]:
    import numpy as np

    number = samples["series"].to_numpy()
    starts = np.searchsorted(number, np.arange(len(rows) + 1))
    made = []
    for place, row in enumerate(rows):
        part = samples.slice(starts[place], starts[place + 1] - starts[place])
        value = part["value"].to_numpy().astype(np.float64)
        t0_ns, t1_ns = part["t0_ns"].to_numpy(), part["t1_ns"].to_numpy()
        made.append(Series(**row, t0_ns=t0_ns, t1_ns=t1_ns, value=value, status=part["status"].to_pylist()))
    return made


def _read_requests(rows: list[dict[str, Any]], tokens: pa.Table) -> list[Request]:
    times: dict[int, list[int]] = {}
    counts: dict[int, list[int]] = {}
    for index, t_ns, n in zip(*(tokens[name].to_pylist() for name in ("request", "t_ns", "n")), strict=True):
        times.setdefault(index, []).append(t_ns)
        counts.setdefault(index, []).append(n)
    return [
        Request(**row, token_t_ns=tuple(times.get(row["index"], ())), token_n=tuple(counts.get(row["index"], ())))
        for row in rows
    ]
