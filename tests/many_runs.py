"""A store of very many runs for tests that only look: the runs of a small made one, over and over, in other nights.

The index is filled by SQL and the folders are links, so that it takes seconds. Numbers differ a little by copy.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from meltbench.store import Store, index, open_store, schema
from meltbench.store.fs import sync

_NIGHTS = 8  # of the small store


def multiply(store: Store, root: Path, times: int) -> Store:
    """A store below ``root`` with the runs of ``store`` so many times; its folders verify no more: their ids differ."""
    import duckdb

    made = open_store(root)
    made.runs_dir.mkdir(parents=True, exist_ok=True)
    source = str(store.index).replace("'", "''")
    target = str(made.index).replace("'", "''")
    connection = duckdb.connect(":memory:")
    connection.execute(f"ATTACH '{source}' AS old (READ_ONLY)")
    connection.execute(f"ATTACH '{target}' AS new (STORAGE_VERSION '{index.STORAGE_VERSION}')")
    connection.execute("USE new")
    from meltbench.store import rows

    rows.create(connection)
    connection.execute(
        f"""CREATE TEMP TABLE copies AS
        SELECT run_id AS was, k, started_at + to_days({_NIGHTS} * k::INTEGER) AS now,
            strftime(started_at + to_days({_NIGHTS} * k::INTEGER), '%Y%m%dT%H%M%SZ-') ||
            printf('%06x', row_number() OVER (ORDER BY k, run_id)) AS id
        FROM old.runs, range({times}) t(k)"""
    )
    for table in schema.TABLES:
        if not table.indexed:
            continue
        columns = [column.name for column in schema.index_columns(table)]
        more = {
            "run_id": "c.id",
            "started_at": "c.now",
            "value": "t.value * (1 + 0.02 * sin(c.k * 1.7 + hash(c.was) % 7))",
        }
        more = {
            name: sql for name, sql in more.items() if name in columns and (name != "value" or table is schema.MEASURES)
        }
        chosen = ", ".join(f'{more.get(name, f"t.{chr(34)}{name}{chr(34)}")} AS "{name}"' for name in columns)
        connection.execute(
            f"INSERT INTO {table.name} BY NAME SELECT {chosen} "
            f"FROM old.{table.name} t JOIN copies c ON t.run_id = c.was"
        )
    pairs = connection.execute("SELECT was, id FROM copies").fetchall()
    connection.execute("CHECKPOINT new")
    connection.close()
    for was, mine in pairs:
        folder = made.runs_dir / mine
        folder.mkdir()
        for file in store.folder(was).path.iterdir():
            if file.is_file() and not re.match(r"\.", file.name):
                os.link(file, folder / file.name)
    sync(made.runs_dir)
    return made
