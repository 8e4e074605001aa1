"""The life of a run folder: made, filled, committed, never changed; and how users name it."""

from __future__ import annotations

import os

import pytest
from store_kit import TICKET, add_run, open_run, record_of, store_at

from meltbench.errors import InternalError, StoreError, UnknownName
from meltbench.store import find_store, manifest, open_store, tables
from meltbench.store.folder import RUN_ID


def test_the_data_folder_is_the_argument_then_the_environment_then_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MELTBENCH_DATA", raising=False)
    assert open_store().root == tmp_path / "data"
    monkeypatch.setenv("MELTBENCH_DATA", str(tmp_path / "env"))
    assert open_store().root == tmp_path / "env"
    assert open_store(tmp_path / "arg").root == tmp_path / "arg"


def test_a_data_folder_that_cannot_be_made_is_told_with_the_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--data DIR") as caught:
        open_store(tmp_path / "file")
    assert caught.value.exit_code == 1


def test_a_run_goes_from_open_to_stored(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    assert RUN_ID.fullmatch(folder.run_id)
    assert [(entry.run_id, entry.state) for entry in store.runs()] == [(folder.run_id, "open")]
    assert folder.ticket() == {**TICKET, "run_id": folder.run_id}
    store.commit(folder, record_of(folder.run_id))
    (entry,) = store.runs()
    assert entry.state == "stored"
    assert entry.info["schema_version"] == manifest.FOLDER_VERSION
    on_disk = {str(p.relative_to(folder.path)) for p in folder.path.rglob("*") if p.is_file()} - {"manifest.json"}
    assert set(entry.info["files"]) == on_disk
    assert store.open_ids() == []


def test_a_stored_run_never_changes(tmp_path):
    store = store_at(tmp_path)
    folder = add_run(store)
    with pytest.raises(StoreError, match="stored already"):
        store.commit(folder, record_of(folder.run_id))
    with pytest.raises(StoreError, match="stored already"):
        folder.write_ticket({})
    with pytest.raises(StoreError, match="stored already"):
        store.discard(folder)


def test_an_open_run_can_be_given_another_ticket_and_be_discarded(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    folder.write_ticket({"folder": "/tmp/x"})
    assert folder.ticket() == {"folder": "/tmp/x"}
    store.discard(folder)
    assert os.listdir(store.runs_dir) == []


def test_ids_of_one_second_sort_by_age(tmp_path):
    store = store_at(tmp_path)
    made = []
    for _ in range(20):
        made.append(store.new_run({}).run_id)
    assert [run_id[:-3] for run_id in made] == sorted(run_id[:-3] for run_id in made)


def test_users_name_runs_by_last_prefix_or_id(tmp_path):
    store = store_at(tmp_path)
    with pytest.raises(UnknownName, match="there is none"):
        store.resolve("last")
    for run_id in ("20261121T103105Z-3f9c2a", "20261121T103105Z-3f9d00", "20261122T000000Z-000000"):
        (store.runs_dir / run_id).mkdir()
    assert store.resolve("last").run_id == "20261122T000000Z-000000"
    assert store.resolve("20261122").run_id == "20261122T000000Z-000000"
    assert store.resolve("20261121T103105Z-3f9d00").run_id == "20261121T103105Z-3f9d00"
    assert store.resolve("last", among=["20261121T103105Z-3f9c2a"]).run_id == "20261121T103105Z-3f9c2a"
    with pytest.raises(UnknownName, match="it fits 2"):
        store.resolve("20261121")
    with pytest.raises(UnknownName, match="did you mean 20261121T103105Z-3f9d00"):
        store.resolve("20261121T103105Z-3f9d01")
    for hostile in ("", "../../etc", "/etc/passwd", "2026\x00"):
        with pytest.raises(UnknownName):
            store.resolve(hostile)


@pytest.mark.parametrize("name", ["", "..", "../x", "20261121T103105Z-3f9c2a/..", "20261121T103105Z-3f9c2a\n", "last"])
def test_a_path_is_only_made_from_a_run_id(tmp_path, name):
    with pytest.raises(InternalError):
        store_at(tmp_path).folder(name)


def test_a_record_of_another_run_is_refused(tmp_path):
    store = store_at(tmp_path)
    with pytest.raises(InternalError):
        store.commit(open_run(store), record_of("20261121T103105Z-3f9c2a"))


def test_a_link_in_the_evidence_is_refused_and_the_run_stays_open(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    (folder.evidence / "link").symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match="not a plain file"):
        store.commit(folder, record_of(folder.run_id))
    assert not list(folder.path.glob("*.parquet"))
    assert store.open_ids() == [folder.run_id]


def test_strange_file_names_are_kept(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    (folder.evidence / "a\udc80\n'\"").write_bytes(b"x")
    store.commit(folder, record_of(folder.run_id))
    assert "evidence/a\udc80\n'\"" in tables.read_manifest(folder.path)["files"]
    assert store.ingest(folder.run_id).notes == ()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"schema_version": 1}'])
def test_a_broken_manifest_makes_a_run_unreadable_and_no_more(tmp_path, content):
    store = store_at(tmp_path)
    good, bad = add_run(store), add_run(store)
    (bad.path / "manifest.json").write_bytes(content)
    assert {entry.run_id: entry.state for entry in store.runs()} == {good.run_id: "stored", bad.run_id: "unreadable"}


def test_a_broken_ticket_makes_a_run_unreadable(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    (folder.path / "ticket.json").write_bytes(b"[" * 100_000)
    assert store.runs()[0].state == "unreadable"


def test_a_newer_format_is_refused_in_one_line(tmp_path, monkeypatch):
    store = store_at(tmp_path)
    monkeypatch.setattr(manifest, "FOLDER_VERSION", 99)
    folder = add_run(store)
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"has format 99, this meltbench knows 1; update meltbench$"):
        tables.read_manifest(folder.path)


def test_a_folder_that_takes_no_write_is_told_before_anything_is_started(tmp_path):
    store = store_at(tmp_path)
    store.check_writable()
    assert sorted(os.listdir(tmp_path)) == ["runs"]


def test_only_a_store_that_is_there_can_be_found(tmp_path):
    with pytest.raises(StoreError, match="there is no store in"):
        find_store(tmp_path)
    assert find_store(open_store(tmp_path).root).root == tmp_path


def test_a_command_names_the_store_where_it_is_not_the_default_one(tmp_path, monkeypatch):
    store = open_store(tmp_path / "my data")
    assert store.command("show", "r1") == f"meltbench show r1 --data '{tmp_path}/my data'"
    monkeypatch.setenv("MELTBENCH_DATA", str(tmp_path / "my data"))
    assert store.command("rebuild") == "meltbench rebuild"
