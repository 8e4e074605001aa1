"""An older DuckDB client reads the index that the current one published, and finds the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_kit import add_run, store_at

from meltbench.store import index

OLD = "1.4.*"
SQL = "SELECT * EXCLUDE (started_at), started_at::VARCHAR AS started_at FROM runs_wide ORDER BY run_id"
TABLES = ("runs", "requests", "phases", "measures", "reasons", "sources", "series", "files", "energy", "latency")
READ = """
import duckdb, json, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
rows = connection.execute(sys.argv[2]).fetchall()
counts = {name: connection.execute("SELECT count(*) FROM " + name).fetchone()[0] for name in sys.argv[3:]}
comments = connection.execute("SELECT count(comment) FROM duckdb_columns() WHERE NOT internal").fetchone()[0]
print(json.dumps([duckdb.__version__, rows, counts, comments]))
"""


@pytest.fixture(scope="session")
def old_python() -> Path:
    """The Python of an environment with the older DuckDB, made once and kept."""
    lab = os.environ.get("MELTBENCH_LAB")
    place = (Path(lab) if lab else Path(__file__).parents[2] / ".cache" / "lab") / "duckdb-1.4"
    python = place / "bin" / "python"
    if (place / "complete").exists():
        return python
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(place)],
        [str(python), "-m", "pip", "install", "-q", "--only-binary", ":all:", f"duckdb=={OLD}"],
    ):
        made = subprocess.run(command, capture_output=True, text=True, timeout=240)
        if made.returncode:
            pytest.skip(f"duckdb {OLD} cannot be installed: {made.stderr.strip().splitlines()[-1:]}")
    (place / "complete").touch()
    return python


def test_an_older_client_finds_the_same_numbers(tmp_path, old_python):
    store = store_at(tmp_path)
    index.rebuild(store)
    for seed in range(4):
        store.ingest(add_run(store, seed).run_id)
    read = subprocess.run(
        [str(old_python), "-c", READ, str(store.index), SQL, *TABLES], capture_output=True, text=True, timeout=120
    )
    assert read.returncode == 0, read.stderr
    version, rows, counts, comments = json.loads(read.stdout)
    assert version.startswith("1.4.")
    with index.opened(store) as connection:
        ours = connection.execute(SQL).fetchall()
        assert counts == {name: connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in TABLES}
    assert rows == [list(row) for row in ours]
    assert len(rows) == 4
    assert comments > 100
