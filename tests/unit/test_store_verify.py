"""verify names every file that is not as it was stored, and every row that is not as the folders say."""

from __future__ import annotations

import threading

import duckdb
import pytest
from store_kit import open_run, record_of, store_at

from meltbench.store.verifying import verify


def found(store, ids=None):
    return [(finding.file, finding.problem) for finding in verify(store, ids)]


def test_a_whole_store_has_no_findings(tmp_path):
    store = store_at(tmp_path, runs=2)
    open_run(store)
    seen = []
    assert verify(store, None, lambda done, total: seen.append((done, total))) == []
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert found(store_at(tmp_path / "empty")) == []


def test_missing_extra_and_resized_files_are_named(tmp_path):
    store = store_at(tmp_path, runs=2)
    first, second = store.run_ids()
    (store.runs_dir / first / "evidence" / "journal").unlink()
    (store.runs_dir / first / "evidence" / "more").write_bytes(b"")
    (store.runs_dir / first / "tokens.parquet").write_bytes(b"")
    expected = [
        (f"runs/{first}/evidence/journal", "missing"),
        (f"runs/{first}/evidence/more", "extra"),
        (f"runs/{first}/tokens.parquet", "changed"),
    ]
    assert found(store) == expected
    assert found(store, [first]) == expected
    assert found(store, [second]) == []


def test_a_file_that_became_a_link_is_named(tmp_path):
    store = store_at(tmp_path, runs=1)
    journal = store.runs_dir / store.run_ids()[0] / "evidence" / "journal"
    journal.rename(tmp_path / "elsewhere")
    journal.symlink_to(tmp_path / "elsewhere")
    assert [problem for _, problem in found(store)] == ["changed"]


def test_unreadable_manifests_tickets_and_strays_are_named(tmp_path):
    store = store_at(tmp_path, runs=1)
    first = store.run_ids()[0]
    (store.runs_dir / first / "manifest.json").write_bytes(b"{}")
    other = open_run(store).run_id
    (store.runs_dir / other / "ticket.json").write_bytes(b"[]")
    (store.runs_dir / "notes.txt").write_text("")
    assert found(store) == [
        ("runs/notes.txt", "extra"),
        (f"runs/{first}/manifest.json", "unreadable"),
        (f"runs/{other}/ticket.json", "unreadable"),
    ]


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("UPDATE measures SET value = value + 1e-9 WHERE name = 'ttft_s'", "measures"),
        ("DELETE FROM reasons", "reasons"),
        ("INSERT INTO phases SELECT * FROM phases", "phases"),
        ("UPDATE files SET sha256 = 'x' WHERE path LIKE '%ticket.json'", "files"),
    ],
)
def test_a_changed_row_of_the_index_is_found(tmp_path, sql, table):
    store = store_at(tmp_path, runs=1)
    (first,) = store.run_ids()
    with duckdb.connect(str(store.index)) as connection:
        connection.execute(sql)
    (finding,) = verify(store)
    assert (finding.run_id, finding.file, finding.problem) == (first, "meltbench.duckdb", "index")
    assert f"table {table} " in finding.detail
    assert verify(store, [first]) == [finding]


def test_an_index_that_is_absent_damaged_or_has_too_much_is_found(tmp_path):
    store = store_at(tmp_path, runs=2)
    first = store.run_ids()[0]
    (store.runs_dir / first / "manifest.json").unlink()
    assert {finding.run_id for finding in verify(store)} == {first}
    store.index.write_bytes(b"x" * 100_000)
    assert found(store) == [("meltbench.duckdb", "index")]
    store.index.unlink()
    assert found(store) == [("meltbench.duckdb", "index")]


def test_a_run_that_is_just_being_stored_is_no_finding(tmp_path):
    store = store_at(tmp_path, runs=1)
    folder = open_run(store)
    store.commit(folder, record_of(folder.run_id))
    writer = threading.Timer(0.3, store.ingest, [folder.run_id])
    writer.start()
    assert verify(store) == []
    writer.join()
