"""Tables of a run as pandas frames, with seconds from its start beside the nanoseconds of the target's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.errors import StoreError, UnknownName, UserError
from meltbench.store import schema, tables
from meltbench.store.labels import regimes_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import duckdb
    import pandas as pd

    Origin = Callable[[], int]

_TABLES = {table.name: table for table in schema.TABLES if table.parquet}


def start_ns(folder: Path, whole: dict[str, Any]) -> int:
    """Where the seconds of a run are counted from: the start of its first phase, else of its first sample, else 0."""
    phases = tables.read_table(folder, whole, schema.PHASES)["t0_ns"].to_pylist()
    if phases:
        return int(min(phases))
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    samples = pq.ParquetFile(tables.checked_path(folder, whole, schema.SAMPLES))
    firsts = [pc.min(batch["t0_ns"]).as_py() for batch in samples.iter_batches(columns=["t0_ns"])]
    return int(min((first for first in firsts if first is not None), default=0))


def frame(folder: Path, whole: dict[str, Any], name: str, origin_ns: Origin) -> pd.DataFrame:
    """One table of a stored run. Counts stay whole numbers where some are missing. Raises StoreError."""
    return with_seconds(_pandas(tables.read_table(folder, whole, _TABLES[name])), origin_ns)


def _pandas(content: Any) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    kinds = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}
    made: pd.DataFrame = content.to_pandas(types_mapper=kinds.get)
    return made


def with_seconds(made: pd.DataFrame, origin_ns: Origin) -> pd.DataFrame:
    """Put ``X_s`` behind every column ``X_ns``; spans also get their length. No such column, no look for the origin."""
    for name in [name for name in made.columns if name.endswith("_ns")]:
        seconds = (made[name] - origin_ns()).to_numpy("float64", na_value=float("nan")) / 1e9
        made.insert(list(made.columns).index(name) + 1, f"{name.removesuffix('_ns')}_s", seconds)
    if {"t0_s", "t1_s", "name"} <= set(made.columns):
        made["duration_s"] = made["t1_s"] - made["t0_s"]
    return made


def samples(
    folder: Path, whole: dict[str, Any], origin_ns: Origin, pattern: str, max_points: int | None
) -> pd.DataFrame:
    """Samples of the series that match, whole or condensed. Raises UnknownName, UserError, StoreError."""
    import duckdb

    from meltbench.store.index import open_memory

    if max_points is not None and max_points < 1:
        raise UserError(f"max_points is {max_points}", hint="give at least 1, or leave it out for every sample")
    chosen = _series(folder, whole, pattern)
    path = tables.checked_path(folder, whole, schema.SAMPLES)
    connection = open_memory()
    try:
        # Only the row groups and columns that are wanted are read.
        connection.execute("CREATE VIEW samples AS FROM read_parquet('{}')".format(str(path).replace("'", "''")))
        connection.register("chosen", chosen)
        found = _condensed(connection, max_points) if max_points else _every(connection)
        regimes = tables.read_table(folder, whole, schema.REGIMES)
        found = found.append_column("regime", regimes_at(found["t_ns"].to_numpy(), regimes))
        return with_seconds(_pandas(found), origin_ns)
    except duckdb.Error as error:
        why = str(error).splitlines()[0]
        raise StoreError(f"the samples of {folder.name} cannot be read: {why}", hint="meltbench verify") from error
    finally:
        connection.close()


def _series(folder: Path, whole: dict[str, Any], pattern: str) -> Any:
    """Number, name and unit of each series meant: that of exactly this name, else those that the pattern matches."""
    import fnmatch

    import pyarrow as pa

    known = tables.read_table(folder, whole, schema.SERIES).select(["series", "name", "unit"]).to_pylist()
    meant = [one for one in known if one["name"] == pattern]
    meant = meant or [one for one in known if fnmatch.fnmatchcase(str(one["name"]), pattern)]
    if not meant and not (pattern == "*" and not known):
        raise UnknownName("series", pattern, [str(one["name"]) for one in known])
    return pa.Table.from_pylist(
        meant, schema=pa.schema([("series", pa.int32()), ("name", pa.string()), ("unit", pa.string())])
    )


_MID = "t0_ns + (t1_ns - t0_ns) // 2"


def _every(connection: duckdb.DuckDBPyConnection) -> Any:
    return connection.sql(
        f"SELECT series, name, unit, {_MID} AS t_ns, value, status FROM samples JOIN chosen USING (series) "
        "ORDER BY series, t_ns"
    ).to_arrow_table()


def _condensed(connection: duckdb.DuckDBPyConnection, max_points: int) -> Any:
    """Stretches of equal length between the first and the last sample of all; those without a value are left out."""
    first, last = connection.execute(
        f"SELECT min({_MID}), max({_MID}) FROM samples JOIN chosen USING (series) WHERE abs(value) < 1e300"
    ).fetchall()[0]
    width = 1 if first is None else -(-(last - first + 1) // max_points)
    return connection.sql(
        f"""
        SELECT series, name, unit, $first + stretch * $width + $width // 2 AS t_ns, avg(value) AS value,
            min(value) AS low, max(value) AS high, count(*) AS n
        FROM (SELECT series, value, ({_MID} - $first) // $width AS stretch FROM samples WHERE abs(value) < 1e300)
            JOIN chosen USING (series)
        GROUP BY series, name, unit, stretch ORDER BY series, t_ns
        """,
        params={"first": first or 0, "width": width},
    ).to_arrow_table()
