"""The index says what the folders say, however it came about."""

from __future__ import annotations

import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from store_kit import add_run, dump, open_run, record_of, store_at

from meltbench.deadline import Deadline
from meltbench.errors import StoreError
from meltbench.measure.validity import TABLE
from meltbench.paths import sha256_of
from meltbench.store import fs, index, rows, schema, views
from meltbench.store.docs import render_docs
from meltbench.store.export import EXPORTABLE, csv_text
from meltbench.store.index import rebuild

TMP = ".meltbench.duckdb.tmp"


def test_rebuilt_and_grown_indexes_are_row_for_row_equal(tmp_path):
    store = store_at(tmp_path)
    folders = [add_run(store, seed) for seed in range(5)]
    random.Random(1).shuffle(folders)
    for folder in folders:
        store.ingest(folder.run_id)
    store.ingest(folders[0].run_id)
    grown = dump(store.index)
    assert len(grown["runs"]) == 5
    store.index.unlink()
    seen = []
    assert index.rebuild(store, lambda done, total: seen.append((done, total))).added == tuple(store.stored_ids())
    assert seen[-1] == (5, 5)
    assert dump(store.index) == grown


def together(store, run_ids):
    """What came of bringing these runs in from a thread each, all of them waiting for the store's lock at once."""
    with ThreadPoolExecutor(len(run_ids)) as pool:
        with fs.locked(store.lock_file, Deadline.after(20), what="a test"):
            told = [pool.submit(store.ingest, run_id) for run_id in run_ids]
            until = time.monotonic() + 20
            while not (batch := index._open_batches.get(store.index)) or len(batch.run_ids) < len(run_ids):
                assert time.monotonic() < until
                time.sleep(0.005)
        wait(told)
    return told


def test_threads_that_store_at_once_share_one_update(tmp_path):
    store = store_at(tmp_path, runs=1)
    index.rebuild(store)
    run_ids = [add_run(store, seed).run_id for seed in range(2, 14)]
    told = together(store, run_ids)
    assert len({id(one.result()) for one in told}) == 1
    assert set(told[0].result().added) == set(run_ids)
    grown = dump(store.index)
    index.rebuild(store)
    assert dump(store.index) == grown
    assert store.ingest(run_ids[0]).added == (run_ids[0],)  # the next one makes an update of its own


def test_every_thread_of_a_failed_update_is_told_and_the_next_one_tries_anew(tmp_path):
    store = store_at(tmp_path)
    run_ids = [add_run(store, seed).run_id for seed in range(6)]
    (store.root / TMP).mkdir()
    for one in together(store, run_ids):
        with pytest.raises(StoreError, match="cannot write the index"):
            one.result()
    (store.root / TMP).rmdir()
    assert store.ingest(run_ids[0]).rebuilt
    assert len(dump(store.index)["runs"]) == len(run_ids)


def test_the_views_say_what_the_record_says(tmp_path):
    store = store_at(tmp_path, runs=1)
    with index.opened(store) as connection:
        wide = connection.execute("SELECT * FROM runs_wide").fetchdf().to_dict("records")[0]
        energy = connection.execute("SELECT source, energy_j, reason FROM energy ORDER BY source").fetchall()
        latency = connection.execute("SELECT item, n, ttft_s_p50 FROM latency ORDER BY item").fetchall()
        started = connection.execute("SELECT started_at::VARCHAR, device_identity FROM runs").fetchall()
    assert list(wide) == list(views.WIDE_COLUMNS)
    assert (wide["device"], wide["model"], wide["runner"], wide["mode"]) == ("desk", "tiny", "llamacpp", "server")
    assert wide["reasons"] == "not_gated,sensor_denied"
    assert (wide["energy_j"] != wide["energy_j"], wide["energy_reason"]) == (True, "sensor_denied")
    assert (wide["max_temp_c"], wide["peak_rss_bytes"], wide["n_requests"]) == (61.5, 123456789.0, 4)
    assert 0 < wide["ttft_s"] < 1
    assert [(row[0], row[2]) for row in energy] == [("core", None), ("total", "sensor_denied")]
    assert energy[1][1] is None
    assert [row[:2] for row in latency] == [("pp512", 1), ("pp8+tg16", 1), ("tg16", 1), ("tg16@d4096", 1)]
    assert started == [("2026-11-21 10:31:05", '{"machine":"m1"}')]


def test_a_manifest_of_odd_types_gives_nulls(tmp_path):
    whole = {"device": "x", "started_at": 7, "rep": "no", "ended_at": "2026-11-21T10:00:00", "model": None, "files": {}}
    row = rows._run_row("r", whole)
    assert {row[name] for name in ("device", "started_at", "ended_at", "rep", "model", "model_bytes")} == {None}


def test_opening_brings_in_what_is_missing_and_takes_out_what_is_gone(tmp_path):
    store = store_at(tmp_path, runs=2)
    late = add_run(store, 7)
    gone = store.run_ids()[0]
    shutil.rmtree(store.runs_dir / gone)
    with index.opened(store) as connection:
        found = [row[0] for row in connection.execute("SELECT run_id FROM runs ORDER BY 1").fetchall()]
    assert found == store.stored_ids()
    assert late.run_id in found
    before = store.index.stat().st_ino
    assert index.refresh(store) == index.Indexed()
    assert store.index.stat().st_ino == before


def test_a_damaged_run_is_left_out_and_named(tmp_path):
    store = store_at(tmp_path, runs=2)
    first = store.run_ids()[0]
    (store.runs_dir / first / "phases.parquet").write_bytes(b"PAR1")
    done = index.rebuild(store)
    assert done.added == (store.run_ids()[1],)
    assert done.notes == (f"run {first} is not in the index: {first}/phases.parquet is not the file that was stored",)


def _with_version(store, version):
    with duckdb.connect(str(store.index)) as connection:
        connection.execute("UPDATE schema_version SET version = ?", [version])


def test_a_newer_index_is_refused_in_one_line_and_left_alone(tmp_path):
    store = store_at(tmp_path, runs=1)
    _with_version(store, 99)
    before = sha256_of(store.index)
    for step in (lambda: store.ingest(store.run_ids()[0]), lambda: index.rebuild(store), lambda: index.refresh(store)):
        with pytest.raises(
            StoreError, match=rf"has schema 99, this meltbench knows {schema.INDEX_VERSION}; update meltbench"
        ) as caught:
            step()
        assert "\n" not in str(caught.value)
    assert sha256_of(store.index) == before
    assert not (store.root / TMP).exists()


def test_an_older_index_is_made_anew_with_a_note(tmp_path):
    store = store_at(tmp_path, runs=2)
    good = dump(store.index)
    _with_version(store, 0)
    done = store.ingest(store.run_ids()[0])
    assert done.rebuilt
    assert done.notes == ("the index was made anew: it had the older schema 0",)
    assert dump(store.index) == good


@pytest.mark.parametrize("content", [b"", b"not a database", b"\0" * 300_000, None])
def test_a_damaged_index_is_made_anew_with_a_note(tmp_path, content):
    store = store_at(tmp_path, runs=2)
    good = dump(store.index)
    store.index.write_bytes(store.index.read_bytes()[:200_000] if content is None else content)
    done = store.ingest(store.run_ids()[0])
    assert done.notes == ("the index was made anew: it was damaged",)
    assert dump(store.index) == good


def test_an_index_without_a_table_is_made_anew(tmp_path):
    store = store_at(tmp_path, runs=1)
    good = dump(store.index)
    with duckdb.connect(str(store.index)) as connection:
        connection.execute("DROP TABLE phases")
    assert store.ingest(store.run_ids()[0]).rebuilt
    assert dump(store.index) == good


def test_left_overs_of_a_killed_writer_are_cleared(tmp_path):
    store = store_at(tmp_path, runs=1)
    for name in (TMP, f"{TMP}.wal", "meltbench.duckdb.wal"):
        (tmp_path / name).write_bytes(b"left")
    (store.runs_dir / ".part-20261121T103105Z-3f9c2a").mkdir()
    store.ingest(add_run(store, 3).run_id)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "meltbench.duckdb", "runs"]
    assert all(not name.name.startswith(".") for name in store.runs_dir.iterdir())
    assert len(dump(store.index)["runs"]) == 2


def test_a_path_with_quotes_and_stars_is_no_trouble(tmp_path):
    store = store_at(tmp_path / "it's [a] *", runs=2)
    with index.opened(store) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)


def test_runs_are_chosen_by_the_reasons_against_them(tmp_path):
    store = store_at(tmp_path, runs=1)
    clean = open_run(store)
    store.commit(clean, replace(record_of(clean.run_id), reasons=[]))
    store.ingest(clean.run_id)
    with index.opened(store) as connection:
        columns = [row[0] for row in connection.execute("DESCRIBE idx.run_reasons").fetchall()]
        against = connection.execute("SELECT run_id FROM run_reasons WHERE sensor_denied AND NOT charging").fetchall()
        none = connection.execute("SELECT run_id, not_gated FROM run_reasons WHERE NOT sensor_denied").fetchall()
    assert set(TABLE) <= set(columns)
    assert (against, none) == ([(store.run_ids()[0],)], [(clean.run_id, False)])


def test_every_column_of_the_index_is_commented(tmp_path):
    store = store_at(tmp_path, runs=1)
    with index.opened(store) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE database_name = 'idx'"
        ).fetchall()
        tables = connection.execute(
            "SELECT table_name, comment FROM duckdb_tables() WHERE database_name = 'idx' "
            "UNION ALL SELECT view_name, comment FROM duckdb_views() WHERE database_name = 'idx'"
        ).fetchall()
    assert {name for name, comment in tables if comment} == {name for name, _ in tables} - {"schema_version"}
    assert [row for row in columns if row[0] != "schema_version" and not row[2]] == []
    documented = {(table.name, column.name) for table in rows.INDEXED for column in schema.index_columns(table)}
    documented |= {(view.name, name) for view in views.VIEWS for name, _ in view.columns}
    assert {row[:2] for row in columns} == documented | {("schema_version", "version")}


def test_docs_store_md_is_what_the_schema_says():
    path = Path(__file__).parents[2] / "docs" / "store.md"
    assert path.read_text(encoding="utf-8") == render_docs(), "write render_docs() of meltbench.store.docs to it"


def test_no_wall_time_of_ingest_is_stored(tmp_path):
    store = store_at(tmp_path, runs=1)
    first = dump(store.index)
    index.rebuild(store)
    assert dump(store.index) == first


def test_a_damaged_block_is_mended_or_told_and_never_a_traceback(tmp_path):
    store = store_at(tmp_path, runs=2)
    whole = store.index.read_bytes()
    ids, good = store.run_ids(), dump(store.index)
    told = []
    # Three headers of 4 KiB, then blocks of 256 KiB with a checksum each.
    for start in range(12_288, len(whole), 3 * (256 << 10)):
        spoilt = bytearray(whole)
        spoilt[start + 1000] ^= 0xFF
        store.index.write_bytes(spoilt)
        for table in EXPORTABLE:
            try:
                csv_text(store, ids, table)
            except StoreError as error:
                told.append(str(error))
        rebuild(store)
        assert dump(store.index) == good
    assert told
    assert all("meltbench rebuild" in text for text in told)
