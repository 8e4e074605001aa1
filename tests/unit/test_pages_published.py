"""The published index as pages ask it: one SELECT, nothing else; the newest version, while an older one answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest
from store_kit import add_run, store_at

from meltbench.errors import StoreError, UserError
from meltbench.pages import published
from meltbench.pages.published import Asking, Published, QueryRefused, shown_as
from meltbench.selecting import Selection
from meltbench.store import Store, index, schema


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_at(tmp_path_factory.mktemp("store"), runs=3)


@pytest.fixture
def asking(store: Store) -> Iterator[Asking]:
    with Published(store).snapshot().asking(Selection()) as one:
        yield one


def count(held: Published) -> int:
    with held.snapshot().asking(Selection()) as one:
        return int(one.ask("SELECT count(DISTINCT run_id) FROM listed").rows[0][0])


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "COPY (SELECT 1) TO 'out.csv'",
        "EXPORT DATABASE 'out'",
        "ATTACH 'other.duckdb'",
        "DETACH idx",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA database_list",
        "SET threads = 1",
        "RESET threads",
        "CALL pragma_version()",
        "CREATE TABLE t (a INT)",
        "INSERT INTO results SELECT * FROM results",
        "DELETE FROM results",
        "UPDATE results SET device = 'x'",
        "MERGE INTO results r USING results s ON r.run_id = s.run_id WHEN MATCHED THEN DELETE",
        "DROP VIEW selected",
        "PREPARE x AS SELECT 1",
        "BEGIN",
        "COMMIT",
        "VACUUM",
    ],
)
def test_a_page_asks_with_one_select(asking: Asking, sql: str) -> None:
    with pytest.raises(UserError, match="a page asks with one SELECT; begin with SELECT, FROM or WITH"):
        asking.ask(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{}')",
        "SELECT * FROM read_text('{}')",
        "SELECT * FROM read_blob('{}')",
        "SELECT * FROM read_parquet('{}')",
        "SELECT * FROM read_json('{}')",
        "SELECT * FROM glob('{}')",
        "SELECT * FROM sniff_csv('{}')",
        "FROM '{}'",
        "SELECT * FROM query('COPY (SELECT 1) TO ''{}''')",
    ],
)
def test_no_file_is_read_or_written(asking: Asking, tmp_path: Path, sql: str) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(QueryRefused):
        asking.ask(sql.format(file))
    assert file.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    "sql",
    [
        "WITH gone AS (DELETE FROM memory.results RETURNING 1) SELECT * FROM gone",
        "WITH made AS (INSERT INTO memory.results SELECT * FROM memory.results RETURNING 1) SELECT * FROM made",
        "WITH made AS (UPDATE memory.results SET device = 'x' RETURNING 1) SELECT * FROM made",
    ],
)
def test_a_select_that_writes_is_refused(asking: Asking, sql: str) -> None:
    # DuckDB 2 takes a statement that writes into a WITH, and calls the whole a SELECT.
    before = asking.ask("SELECT * FROM results ORDER BY ALL").rows
    with pytest.raises(QueryRefused):
        asking.ask(sql)
    assert asking.ask("SELECT * FROM results ORDER BY ALL").rows == before


def test_after_an_error_the_next_query_is_answered(asking: Asking) -> None:
    with pytest.raises(QueryRefused):
        asking.ask("SELECT error('no')")
    assert asking.ask("SELECT count(*) FROM runs").rows == [(3,)]


def test_parameters_are_those_that_the_query_names(asking: Asking) -> None:
    known = {"run": "r'1", "other": 3}
    assert asking.ask("SELECT $run AS a", known).rows == [("r'1",)]
    assert asking.ask("SELECT 1 AS a", known).rows == [(1,)]
    with pytest.raises(UserError, match=r"the query wants \$device, which is no choice.*known are \$other, \$run"):
        asking.ask("SELECT $device, $run", known)
    with pytest.raises(UserError, match=r"the query wants \$1, which .*; known are none: the page has no choice"):
        asking.ask("SELECT ?")


def test_rows_are_bounded_and_it_is_told(asking: Asking) -> None:
    assert asking.ask("SELECT range AS a FROM range(3)", limit=3).more is False
    bounded = asking.ask("SELECT range AS a FROM range(4)", limit=3)
    assert (bounded.rows, bounded.more) == ([(0,), (1,), (2,)], True)
    assert bounded.column("a") == [0, 1, 2]
    with pytest.raises(UserError, match="the query gives no column 'b'; it gives a"):
        bounded.column("b")


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("SELECT nope FROM runs", 1),
        ("SELECT\n\n1 +\nnope FROM runs", 4),
        ("\n\nSELECT nope FROM runs", 3),
        ("-- what for\n\nSELECT 1,\nnope FROM runs", 4),
        ("SELECT 1\nFROM nowhere", 2),
        ("\n-- x\nSELECT (\n", 3),
        ("\n\nSELECT error('no')", 3),
    ],
)
def test_a_refused_query_says_its_line(asking: Asking, sql: str, line: int) -> None:
    with pytest.raises(QueryRefused) as told:
        asking.ask(sql)
    assert told.value.line == line
    assert "\n" not in str(told.value)


def test_a_query_that_takes_too_long_is_ended(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "PATIENCE_S", 0.05)
    endless = "WITH RECURSIVE r(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM r) SELECT max(a) FROM r"
    with pytest.raises(UserError, match=r"the query took longer than 0\.05 s; ask for less"):
        asking.ask(endless)
    monkeypatch.undo()
    assert asking.ask("SELECT 1").rows == [(1,)]


def test_the_filter_makes_two_views(store: Store) -> None:
    hostile = "de'sk? ? $run -- \n"
    with Published(store).snapshot().asking(Selection((("device", hostile), ("device", "desk")))) as one:
        assert one.ask("SELECT count(DISTINCT run_id) FROM selected").rows == [(3,)]
    with Published(store).snapshot().asking(Selection((("device", hostile),))) as one:
        assert one.ask("SELECT count(*) FROM listed").rows == [(0,)]
        assert one.ask("SELECT count(*) > 0 FROM results").rows == [(True,)]


def test_the_filter_written_out_makes_the_same_views(store: Store) -> None:
    selection = Selection((("device", "it's?"), ("device", "desk"), ("engine", "llama.cpp b6543")))
    with Published(store).snapshot().asking(selection) as one, index.attached(store.index) as plain:
        plain.execute("USE idx")
        for statement in shown_as(selection):
            plain.execute(statement)
        for name in ("selected", "listed"):
            rows = plain.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
            assert rows
            assert one.ask(f"SELECT * FROM {name} ORDER BY ALL").rows == rows


def test_an_old_version_answers_until_it_is_let_go(tmp_path: Path) -> None:
    store = store_at(tmp_path, runs=1)
    held = Published(store)
    assert held.version() == ""
    first = held.snapshot()
    assert held.version() == first.version
    with first.asking(Selection()) as old:
        store.ingest(add_run(store, 1).run_id)
        assert old.ask("SELECT count(*) FROM runs").rows == [(1,)]
        held.renew()
        assert held.version() != first.version
        assert count(held) == 2
        assert old.ask("SELECT count(*) FROM runs").rows == [(1,)]


def renewed(held: Published) -> None:
    """Let it look at the file, and wait until what it found is opened."""
    held._not_before = 0.0
    held.version()
    if held._opening is not None:
        held._opening.join()


def test_a_new_version_is_picked_up_by_looking(tmp_path: Path) -> None:
    store = store_at(tmp_path, runs=1)
    held = Published(store)
    assert count(held) == 1
    store.ingest(add_run(store, 1).run_id)
    renewed(held)
    assert count(held) == 2
    opened = held._opening
    renewed(held)
    assert held._opening is opened  # nothing is opened anew that has not changed


def test_an_index_of_a_newer_meltbench_is_one_line(tmp_path: Path) -> None:
    store = store_at(tmp_path, runs=1)
    connection = duckdb.connect(str(store.index))
    connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    said = rf"has schema 99, this meltbench knows {schema.INDEX_VERSION}; update meltbench"
    with pytest.raises(StoreError, match=said) as told:
        Published(store).snapshot()
    assert "\n" not in str(told.value)


def test_an_index_that_is_absent_or_damaged_is_one_line(tmp_path: Path) -> None:
    store = store_at(tmp_path, runs=1)
    whole = store.index.read_bytes()
    store.index.unlink()
    with pytest.raises(StoreError, match=r"meltbench\.duckdb cannot be read: there is no index; .*rebuild"):
        Published(store).snapshot()
    for damaged in (b"", b"nothing", bytes(len(whole)), whole[: len(whole) // 2], whole[:4096] + bytes(len(whole))):
        store.index.write_bytes(damaged)
        with pytest.raises(StoreError, match="cannot be read") as told:
            Published(store).snapshot()
        assert "\n" not in str(told.value)


def test_who_looks_on_is_told_of_a_damaged_index_and_sees_it_mended(tmp_path: Path) -> None:
    store = store_at(tmp_path, runs=1)
    held = Published(store)
    assert count(held) == 1
    store.index.unlink()
    store.index.write_bytes(b"nothing")
    renewed(held)
    assert held.version() == ""
    with pytest.raises(StoreError, match="cannot be read"):
        held.snapshot()
    index.rebuild(store)
    renewed(held)
    assert held.version() != ""
    assert count(held) == 1


def test_threads_ask_while_runs_come_in(tmp_path: Path) -> None:
    store = store_at(tmp_path, runs=1)
    held = Published(store)
    done = threading.Event()

    def ask() -> set[int]:
        counts = set()
        while not done.is_set():
            counts.add(count(held))
            renewed(held)
        return counts

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask) for _ in range(3)]
        for seed in range(1, 4):
            store.ingest(add_run(store, seed).run_id)
        done.set()
        counts = set().union(*(one.result() for one in asked))
    assert counts <= {1, 2, 3, 4}
    renewed(held)
    assert count(held) == 4


def test_a_manifest_is_json_to_a_query(asking: Asking) -> None:
    (row,) = asking.ask("SELECT manifest FROM runs LIMIT 1").rows
    assert json.loads(row[0])["outcome"] == "done"
