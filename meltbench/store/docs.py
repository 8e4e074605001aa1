"""docs/store.md, rendered from the schema so that it cannot drift from it."""

from __future__ import annotations

from meltbench.store.schema import TABLES, Table
from meltbench.store.views import VIEWS, View

_HEAD = """# The store

Rendered from `meltbench/store/schema.py` and `views.py` by `meltbench.store.docs.render_docs()`;
a test holds them together.

    DATA/runs/RUN_ID/        one run; RUN_ID is the UTC start and six hex digits: 20261121T103105Z-3f9c2a
      ticket.json              written first, with the folder: spec, plan hash, target, where the job is
      evidence/                the journal and the job, as they were on the target; where sources are read on the
                               controller also host/, its own journal and job, and sync.json, the clock exchanges
      *.parquet                the tables below that name a file
      manifest.json            written last: that rename is the commit, and the folder never changes again
    DATA/calibrations/IDENTITY/   records of `meltbench devices calibrate`: ID.json, sealed, with its journals beside it
    DATA/meltbench.duckdb    the index, derived from the folders: delete it and `meltbench rebuild` makes it again

DATA is `--data`, else `$MELTBENCH_DATA`, else `./data`. The manifest holds the SHA-256 and the size of every other
file of the folder, and its first line is the SHA-256 of the rest of itself; `meltbench verify` checks them all and
compares the index with the folders row by row. A folder without a manifest is a run that has not been collected.

The index is replaced as a whole (`rename`), never written in place: a reader keeps the version it opened.
It is stored in DuckDB's v1.2.0 format, which DuckDB 1.2 and newer read. Open it read-only:

    duckdb -readonly data/meltbench.duckdb "FROM runs_wide"
    duckdb -c "FROM 'data/runs/RUN_ID/samples.parquet' JOIN 'data/runs/RUN_ID/series.parquet' USING (series)"
    duckdb -c "FROM 'RUN/samples.parquet' s ASOF JOIN 'RUN/regimes.parquet' r ON s.t0_ns >= r.t0_ns"

The last, with a run's folder for RUN, gives each sample the regime of its time (burst, throttled ...). An export's
`samples.parquet`, and `Run.samples()` in Python, have it as the column `regime`.

Columns that end in `_ns` are CLOCK_BOOTTIME nanoseconds of the target; of an imported run, whose evidence is the files
that it was made of, ns since 1970 of the clock that they have. A missing number is null, never 0. Text is free of
control characters (they stand as visible escapes such as `\\x1b`); the evidence has the bytes as they came.
"""


def render_docs() -> str:
    """Return the text of docs/store.md."""
    parts = [_HEAD]
    parts += [_table(table) for table in TABLES]
    parts += [_view(view) for view in VIEWS]
    return "\n".join(parts)


def _table(table: Table) -> str:
    where = [f"`{table.parquet}`"] if table.parquet else []
    where += [f"table `{table.name}` of the index"] if table.indexed else []
    lines = [
        f"## {table.name}",
        f"{table.comment} In {', '.join(where)}.",
        "",
        "| column | type | meaning |",
        "|---|---|---|",
    ]
    if table.indexed and table.parquet:
        lines.append("| `run_id` | VARCHAR | The run; in the index only. |")
    for column in table.columns:
        only = "" if column.indexed and table.indexed else " Parquet only." if table.indexed else ""
        lines.append(f"| `{column.name}` | {column.type} | {column.comment}{only} |")
    return "\n".join(lines) + "\n"


def _view(view: View) -> str:
    lines = [f"## {view.name} (view)", view.comment, "", "| column | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in view.columns]
    return "\n".join(lines) + "\n"
