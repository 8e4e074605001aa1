"""Takes runs out of the store: Parquet for analysis, CSV for a spreadsheet, other tools' forms for those tools."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from meltbench.errors import StoreError, UnknownName, UserError
from meltbench.store import arrow, codecarbon, fs, index, llama_bench, melt, mlperf, otel, rows, schema, tables, views
from meltbench.store.labels import regimes_at
from meltbench.store.llama_bench_sql import sql_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import duckdb
    import pyarrow as pa

    from meltbench.store.folder import Store

Format = Literal[
    "parquet", "csv", "llama-bench", "llama-bench-jsonl", "llama-bench-sql", "melt", "codecarbon", "otel", "mlperf"
]
FORMATS: tuple[Format, ...] = get_args(Format)
EXPORTABLE = (*(view.name for view in views.VIEWS), *(table.name for table in rows.INDEXED))
_UNTOLD = ("llama-bench-sql", "codecarbon")
_ROWS = 1 << 18  # that get the name of their run at once
_HINT = "free space or choose another place"
_REGIME = schema.Column("regime", "VARCHAR", "Name of the regime at its time; null where none covers it.")
# A program reading CSV takes a cell that starts like this for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def unnamed(store: Store, run_ids: Sequence[str], fmt: str, say: Callable[[str], None] = index.to_stderr) -> list[str]:
    """Of these runs, none of which was asked for by name, those that may go into one file of a format.

    Who reads SQL of llama-bench averages its rows, and no column of it or of emissions.csv tells a run's validity or
    origin: of such a format invalid, failed and imported runs are left out, with a line to ``say``.
    """
    if fmt not in _UNTOLD:
        return list(run_ids)
    kept = [one for one in run_ids if _is_ours_and_good(tables.read_manifest(store.folder(one).path))]
    if left := len(run_ids) - len(kept):
        why = f"are invalid, failed or imported, for which {fmt} has no column"
        say(f"{left} of {len(run_ids)} runs {why}: left out unless they are named")
    return kept


def _is_ours_and_good(about: dict[str, Any]) -> bool:
    return about.get("validity") != "invalid" and about.get("outcome") == "done" and not about.get("imported")


def export(
    store: Store,
    run_ids: Sequence[str],
    fmt: str,
    out: str | os.PathLike[str] | None = None,
    *,
    table: str | None = None,
    say: Callable[[str], None] = index.to_stderr,
) -> list[Path]:
    """Write these stored runs to ``out`` and return the files made; ``out`` is there in full or not at all.

    ``parquet`` makes a new folder with a file per table, view, and the samples and tokens; ``csv`` one file with the
    rows of ``table`` (runs_wide when None); ``llama-bench``, ``llama-bench-jsonl`` and ``llama-bench-sql`` one file of
    grid results; ``melt`` the CSV of prompts that MELT's notebooks read; ``codecarbon`` an emissions.csv; ``otel``
    OTLP metrics, a line of JSON a run; ``mlperf`` summaries in the manner of MLPerf's, which they are not. Text goes
    to stdout when ``out`` is None. ``say`` is called with a line for each stored run that the index cannot have.

    Raises UnknownName for a format or table, UserError when there is nothing to write, ``out`` is missing for Parquet
    or is not an empty folder, StoreError for the disk, and when one of these runs cannot be read.
    """
    if fmt not in FORMATS:
        raise UnknownName("format", fmt, FORMATS)
    if table is not None and fmt != "csv":
        raise UserError(f"format {fmt} has no one table", hint="leave out --table, or export --format csv")
    if fmt == "parquet":
        if out is None:
            raise UserError("parquet is a folder of files and cannot go to stdout", hint="name it with --out")
        return _parquet(store, run_ids, Path(out).absolute(), say)
    text = csv_text(store, run_ids, table or "runs_wide", say) if fmt == "csv" else _text(store, run_ids, fmt)
    if out is None:
        sys.stdout.write(text)
        return []
    path = Path(out).absolute()
    with fs.explained(f"write {path}", hint=_HINT):
        path.parent.mkdir(parents=True, exist_ok=True)
        fs.write_atomic(path, text.encode("utf-8"))
    return [path]


def _text(store: Store, run_ids: Sequence[str], fmt: str) -> str:
    """The text of another tool's form."""
    match fmt:
        case "melt":
            return melt_text(store, run_ids)
        case "codecarbon":
            return codecarbon_text(store, run_ids)
        case "otel":
            return otel.text([tables.read_record(store.folder(run_id).path, signals=False) for run_id in run_ids])
        case "mlperf":
            return mlperf_text(store, run_ids)
    return llama_bench_text(store, run_ids, fmt)


def csv_text(
    store: Store, run_ids: Sequence[str], table: str = "runs_wide", say: Callable[[str], None] = index.to_stderr
) -> str:
    """Return the rows of these runs in a table or view as CSV; an empty cell is a missing value.

    Raises UnknownName for the table, StoreError when one of the runs cannot be read.
    """
    if table not in EXPORTABLE:
        raise UnknownName("table", table, EXPORTABLE)
    with _indexed(store, run_ids, say) as connection:
        content = _rows(connection, run_ids, table)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(content.column_names)
    for row in content.to_pylist():
        writer.writerow([harmless_cell(value) for value in row.values()])
    return text.getvalue()


def harmless_cell(value: Any) -> Any:
    """A value for a CSV file, in which no text is a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def llama_bench_text(store: Store, run_ids: Sequence[str], fmt: str = "llama-bench") -> str:
    """Return grid results as ``llama-bench -o json``, ``-o jsonl`` or ``-o sql`` prints them.

    Raises UserError when none of the runs has a grid item.
    """
    made: list[dict[str, Any]] = []
    for run_id in run_ids:
        made += llama_bench.entries(tables.read_record(store.folder(run_id).path, signals=False))
    if not made:
        raise UserError("none of these runs has the rate of a grid's point, such as pp512", hint="export --format csv")
    if fmt == "llama-bench-sql":
        return sql_text(made)
    if fmt == "llama-bench-jsonl":
        return "".join(f"{json.dumps(entry)}\n" for entry in made)
    return f"{json.dumps(made, indent=2)}\n"


def melt_text(store: Store, run_ids: Sequence[str]) -> str:
    """Return prompts as MELT's results_model_inference_measurements.csv has them.

    Raises UserError when none of the runs has a timed prompt that was answered.
    """
    records = [tables.read_record(store.folder(run_id).path) for run_id in run_ids]
    if not melt.results(records):
        raise UserError("none of these runs has a prompt that was answered", hint="export --format csv")
    return melt.csv_text(records)


def codecarbon_text(store: Store, run_ids: Sequence[str]) -> str:
    """Return runs as rows of codecarbon's emissions.csv; an empty cell is a missing value.

    Raises UserError when none of the runs has a duration.
    """
    found = [codecarbon.row(tables.read_record(store.folder(run_id).path, signals=False)) for run_id in run_ids]
    if all(one["duration"] is None for one in found):
        raise UserError("none of these runs has a duration", hint="export --format csv")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, codecarbon.COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: harmless_cell(value) for name, value in one.items()} for one in found)
    return text.getvalue()


def mlperf_text(store: Store, run_ids: Sequence[str]) -> str:
    """Return summaries in the manner of MLPerf's, which they are not.

    Raises UserError when none of the runs has a timed request that ended ok.
    """
    text = mlperf.text([tables.read_record(store.folder(run_id).path, signals=False) for run_id in run_ids])
    if not text:
        raise UserError("none of these runs has a request that was answered", hint="export --format csv")
    return text


@contextmanager
def _indexed(store: Store, run_ids: Sequence[str], say: Callable[[str], None]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give the index when it has all these runs: a run is never left out in silence."""
    with index.opened(store, say) as connection:
        found = connection.execute("SELECT run_id FROM runs WHERE run_id IN (SELECT unnest(?))", [list(run_ids)])
        missing = sorted(set(run_ids) - {row[0] for row in found.fetchall()})
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise StoreError(
                f"run {missing[0]}{more} cannot be exported: not in the index",
                hint="meltbench verify lists what is damaged; the others can be exported by name",
            )
        yield connection


def _rows(connection: duckdb.DuckDBPyConnection, run_ids: Sequence[str], table: str) -> pa.Table:
    # Every table and view of the index has run_id; the name is one of EXPORTABLE.
    sql = f"SELECT * FROM {table} WHERE run_id IN (SELECT unnest(?)) ORDER BY ALL"
    return connection.sql(sql, params=[list(run_ids)]).to_arrow_table()


def _parquet(store: Store, run_ids: Sequence[str], out: Path, say: Callable[[str], None]) -> list[Path]:
    import pyarrow.parquet as pq

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder", hint="name a new one")
    temporary = out.with_name(f".{out.name}.tmp")
    with fs.explained(f"write {out}", hint=_HINT):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            with _indexed(store, run_ids, say) as connection:
                for name in EXPORTABLE:
                    rows_of = _rows(connection, run_ids, name)
                    pq.write_table(rows_of, temporary / f"{name}.parquet", compression="zstd")
            for table in (schema.SAMPLES, schema.TOKENS):
                _join(store, run_ids, table, temporary)
            os.replace(temporary, out)
            fs.sync(out.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return sorted(out.iterdir())


def _join(store: Store, run_ids: Sequence[str], table: schema.Table, folder: Path) -> None:
    """Write one file with the rows of all runs, a run at a time."""
    import pyarrow.parquet as pq

    more = (_REGIME,) if table is schema.SAMPLES else ()
    wanted = arrow.schema_of((schema.RUN_ID, *table.columns, *more))
    with pq.ParquetWriter(folder / f"{table.name}.parquet", wanted, compression="zstd") as writer:
        for run_id in run_ids:
            path = store.folder(run_id).path
            whole = tables.read_manifest(path)
            content, regimes = (tables.read_table(path, whole, one) for one in (table, schema.REGIMES))
            for start in range(0, content.num_rows, _ROWS):
                part = content.slice(start, _ROWS)
                named = part.append_column("run_id", arrow.of_list([run_id] * part.num_rows, "VARCHAR"))
                if more:
                    t0, t1 = (part[name].to_numpy() for name in ("t0_ns", "t1_ns"))
                    named = named.append_column(_REGIME.name, regimes_at(t0 + (t1 - t0) // 2, regimes))
                writer.write_table(named.select(wanted.names))
