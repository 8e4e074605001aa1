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
from meltbench.paths import sha256_of
from meltbench.records import STATUSES, Measure, Phase, Reason, Regime, Request, RunRecord, Score, Series, SourceStatus
from meltbench.store import arrow, fs, manifest, schema

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa

_INTEGERS = {"BIGINT": range(-(1 << 63), 1 << 63), "INTEGER": range(-(1 << 31), 1 << 31)}
_MAX_FLOAT = sys.float_info.max
_HINT = "meltbench verify lists what is damaged"


class SampleWriter:
    """Writes samples.parquet of a run folder a block at a time; not yet flushed to the disk when it is closed."""

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        plain = arrow.schema_of(schema.SAMPLES.columns)
        coded = pa.field("status", pa.dictionary(pa.int8(), pa.string()))  # the file has plain strings all the same
        self._schema = plain.set(plain.get_field_index("status"), coded)
        self._writer = pq.ParquetWriter(
            folder / str(schema.SAMPLES.parquet), self._schema, store_schema=False, **_encoding(schema.SAMPLES)
        )

    def __enter__(self) -> SampleWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def keep(self, parts: list[tuple[int, Series]]) -> None:
        """Write the next samples of these series, each with its number in the run."""
        import numpy as np
        import pyarrow as pa

        parts = [(number, part) for number, part in parts if len(part)]
        if not parts:
            return
        lengths = [len(part) for _, part in parts]
        columns = {
            "series": np.repeat(np.array([number for number, _ in parts], np.int32), lengths),
            **{
                name: np.concatenate([getattr(part, name) for _, part in parts]) for name in ("t0_ns", "t1_ns", "value")
            },
        }
        codes = np.concatenate([part.status for _, part in parts]).astype(np.int8)
        if len({len(codes), *map(len, columns.values())}) != 1:
            raise InternalError("a series with columns of different lengths", hint="please report it")
        made = [
            arrow.of_numpy(column, field.type, ~np.isnan(column) if field.name == "value" else None)
            for column, field in zip(columns.values(), self._schema, strict=False)
        ]
        words = arrow.of_list(STATUSES, "VARCHAR")
        made.append(pa.DictionaryArray.from_arrays(arrow.of_numpy(codes, pa.int8()), words))
        self._writer.write_table(pa.Table.from_arrays(made, schema=self._schema))


def write_record(folder: Path, record: RunRecord) -> None:
    """Write the Parquet files of a record into its folder, but for the samples; they are not yet flushed to the disk.

    Raises InternalError for a record that contradicts itself, OSError when the disk does not take it.
    """

    try:
        columns = {
            schema.REQUESTS: _columns(schema.REQUESTS, record.requests),
            schema.PHASES: _columns(schema.PHASES, record.phases),
            schema.REGIMES: _columns(schema.REGIMES, record.regimes),
            schema.MEASURES: _columns(schema.MEASURES, [_finite(measure) for measure in record.measures]),
            schema.SCORES: _columns(schema.SCORES, record.scores) | _parsed(record),
            schema.REASONS: _columns(schema.REASONS, record.reasons),
            schema.SOURCES: _columns(schema.SOURCES, record.sources),
            schema.SERIES: _columns(schema.SERIES, record.series),
            schema.TOKENS: _tokens(record.requests),
        }
        made = {table: arrow.table(table.columns, held) for table, held in columns.items()}
    except (ValueError, OverflowError) as error:
        raise InternalError(f"run {record.run_id} contradicts itself: {error}", hint="please report it") from error
    for table, content in made.items():
        _write(folder, table, content)


def _parsed(record: RunRecord) -> dict[str, list[int]]:
    """A column of yes and no, as numbers."""
    return {"parsed": [int(score.parsed) for score in record.scores]}


def _write(folder: Path, table: schema.Table, content: pa.Table) -> None:
    import pyarrow.parquet as pq

    pq.write_table(content, folder / str(table.parquet), **_encoding(table))


def _encoding(table: schema.Table) -> dict[str, Any]:
    # Delta encoding stores a regular clock in about a byte a sample; dictionaries store repeated names once.
    times = {column.name: "DELTA_BINARY_PACKED" for column in table.columns if column.name.endswith("_ns")}
    names = [column.name for column in table.columns if column.type == "VARCHAR"]
    return {"compression": "zstd", "use_dictionary": names, "column_encoding": times or None}


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


def checked_path(folder: Path, whole: dict[str, Any], table: schema.Table) -> Path:
    """The path of one Parquet file of a run, for who reads it in pieces.

    Raises StoreError when the file is absent or not the one that was stored.
    """
    name = str(table.parquet)
    path = folder / name
    with fs.explained(f"read {path}", hint=_HINT):
        found = sha256_of(path)
    if found != whole["files"].get(name, {}).get("sha256"):
        raise StoreError(f"{folder.name}/{name} is not the file that was stored", hint=_HINT)
    return path


def read_table(folder: Path, whole: dict[str, Any], table: schema.Table) -> pa.Table:
    """Read one Parquet file of a run after checking it against the manifest.

    Raises StoreError when the file is absent, changed, or not the table it should be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = str(table.parquet)
    path = folder / name
    if table.later and name not in whole["files"]:
        return arrow.table(table.columns, {column.name: [] for column in table.columns})
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
                lacking = "" if column.type == "VARCHAR" else None
                read = read.append_column(column.name, arrow.of_list([lacking] * read.num_rows, column.type))
        return read.select([c.name for c in table.columns])
    except (pa.ArrowException, KeyError) as error:
        why = str(error).splitlines()[0]
        raise StoreError(f"{folder.name}/{name} is not a table of ours: {why}", hint=_HINT) from error


def read_record(folder: Path, *, signals: bool = True) -> RunRecord:
    """Return the record of a stored run, as it was given to the store. Raises StoreError as read_table does.

    ``signals`` False leaves out what grows with the length of a run: the series, and the tokens of its requests.
    """
    whole = read_manifest(folder)

    def rows(table: schema.Table) -> list[dict[str, Any]]:
        fields = {column.name: column.field for column in table.columns}
        read: list[dict[str, Any]] = read_table(folder, whole, table).to_pylist()
        return [{str(fields[name]): value for name, value in row.items() if fields[name]} for row in read]

    samples = read_table(folder, whole, schema.SAMPLES) if signals else None
    tokens = read_table(folder, whole, schema.TOKENS) if signals else None
    return RunRecord(
        run_id=folder.name,
        manifest=manifest.of_record(whole),
        series=[] if samples is None else _read_series(rows(schema.SERIES), samples),
        sources=[SourceStatus(**row) for row in rows(schema.SOURCES)],
        phases=[Phase(**row) for row in rows(schema.PHASES)],
        regimes=[Regime(**row) for row in rows(schema.REGIMES)],
        requests=_read_requests(rows(schema.REQUESTS), tokens),
        measures=[Measure(**row) for row in rows(schema.MEASURES)],
        reasons=[Reason(**row) for row in rows(schema.REASONS)],
        scores=[Score(**row | {"parsed": bool(row["parsed"])}) for row in rows(schema.SCORES)],
    )


def _read_series(rows: list[dict[str, Any]], samples: pa.Table) -> list[Series]:
    import numpy as np

    number, t0_ns, t1_ns, value = (samples[name].to_numpy() for name in ("series", "t0_ns", "t1_ns", "value"))
    codes = {word: code for code, word in enumerate(STATUSES)}
    status = np.array([codes[word] for word in samples["status"].to_pylist()], dtype=np.uint8)
    made = []
    for place, row in enumerate(rows):
        mine = np.flatnonzero(number == place)
        made.append(
            Series(**row, t0_ns=t0_ns[mine], t1_ns=t1_ns[mine], value=value[mine].astype(float), status=status[mine])
        )
    return made


def _read_requests(rows: list[dict[str, Any]], tokens: pa.Table | None) -> list[Request]:
    times: dict[int, list[int]] = {}
    counts: dict[int, list[int]] = {}
    columns = [[], [], []] if tokens is None else [tokens[name].to_pylist() for name in ("request", "t_ns", "n")]
    for index, t_ns, n in zip(*columns, strict=True):
        times.setdefault(index, []).append(t_ns)
        counts.setdefault(index, []).append(n)
    return [
        Request(**row, token_t_ns=tuple(times.get(row["index"], ())), token_n=tuple(counts.get(row["index"], ())))
        for row in rows
    ]
