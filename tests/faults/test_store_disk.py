"""A full disk, a flipped byte, a folder without permission, and readers that hold the index open."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest
from store_kit import TICKET, add_run, dump, open_run, record_of, store_at

from meltbench.errors import StoreError
from meltbench.store import index, open_store, read_record
from meltbench.store.export import export
from meltbench.store.verifying import verify

KIB = 1024


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 8 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def leave(place: Path, free_bytes: int) -> None:
    """Fill the disk until ``free_bytes`` are free; give room back when it is fuller already."""
    filler = place / "filler"
    filler.unlink(missing_ok=True)
    room = os.statvfs(place)
    # Allocated at once: a disk that is this full must not depend on how much was written by then.
    size = room.f_bavail * room.f_frsize - free_bytes
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def test_a_commit_on_a_full_disk_leaves_the_run_open_and_its_evidence_whole(small_disk):
    store = store_at(small_disk)
    folder = open_run(store)
    journal = (folder.evidence / "journal").read_bytes()
    refused, told = 0, set()
    for free in range(0, 120 * KIB, 4 * KIB):
        leave(small_disk, free)
        try:
            store.commit(folder, record_of(folder.run_id))
            break
        except StoreError as error:
            told.add(str(error))
            refused += 1
        assert [entry.state for entry in store.runs()] == ["open"]
        assert sorted(os.listdir(folder.path)) == ["evidence", "ticket.json"]
        assert (folder.evidence / "journal").read_bytes() == journal
    (line,) = told
    assert line == (
        f"cannot store run {folder.run_id}: No space left on device; its evidence is safe in {folder.evidence}; "
        f"free space, then: meltbench collect {folder.run_id} --data {small_disk}"
    )
    assert refused > 5
    assert len(read_record(folder.path).requests) == 4


def test_an_index_that_does_not_fit_leaves_the_old_one_and_the_run_stored(small_disk):
    store = store_at(small_disk, runs=1)
    old = dump(store.index)
    run_id = add_run(store, 5).run_id
    for step in (lambda: store.ingest(run_id), lambda: index.rebuild(store)):
        for free in (0, 4 * KIB, 64 * KIB, 300 * KIB):
            leave(small_disk, free)
            with pytest.raises(StoreError, match=r"every stored run is safe in .*: meltbench rebuild") as caught:
                step()
            assert "\n" not in str(caught.value)
            assert dump(store.index) == old
            assert not (small_disk / ".meltbench.duckdb.tmp").exists()
    leave(small_disk, 3 << 20)
    store.ingest(run_id)
    assert [finding for finding in verify(store) if finding.problem != "extra"] == []


def test_a_full_disk_is_told_before_anything_is_started(small_disk):
    store = store_at(small_disk)
    leave(small_disk, 0)
    for step in (store.check_writable, lambda: store.new_run(TICKET)):
        with pytest.raises(StoreError, match=r"No space left on device; .*nothing was started"):
            step()
    assert sorted(os.listdir(small_disk)) == ["filler", "runs"]
    assert os.listdir(store.runs_dir) == []


def test_an_export_that_does_not_fit_leaves_nothing(small_disk, tmp_path):
    store = store_at(tmp_path / "data", runs=1)
    leave(small_disk, 8 * KIB)
    for fmt, name in (("parquet", "folder"), ("llama-bench", "deep/out.json"), ("csv", "out.csv")):
        if fmt != "parquet":
            leave(small_disk, 0)
        with pytest.raises(StoreError, match="No space left on device; free space or choose another place"):
            export(store, store.run_ids(), fmt, small_disk / name)
        assert [entry for entry in os.listdir(small_disk) if entry not in ("filler", "deep")] == []


def test_a_folder_without_permission_is_told():
    """In a process of its own that gives up root, for which no permission is denied."""
    code = (
        "import os, sys; from meltbench.store import open_store\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: open_store(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o555)
        command = [sys.executable, "-c", code, place]
        made = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert made.stdout == (
        f"StoreError cannot use {place} as data folder: {os.strerror(errno.EACCES)}; "
        "choose another with --data DIR or $MELTBENCH_DATA\n"
    ), made.stderr


def test_a_flipped_byte_in_any_file_is_found_and_named(tmp_path):
    store = store_at(tmp_path, runs=2)
    run_id = store.run_ids()[1]
    files = [path for path in sorted((store.runs_dir / run_id).rglob("*")) if path.is_file()]
    assert len(files) == 14
    for path in files:
        raw = path.read_bytes()
        for place in {0, len(raw) // 3, len(raw) // 2, len(raw) - 1}:
            changed = bytearray(raw)
            changed[place] ^= 0x10
            path.write_bytes(changed)
            found = verify(store)
            assert [(finding.run_id, finding.file) for finding in found] == [(run_id, str(path.relative_to(tmp_path)))]
        path.write_bytes(raw)
    assert verify(store) == []


def test_flipped_bytes_in_the_index_never_stop_an_ingest(tmp_path):
    store = store_at(tmp_path, runs=2)
    run_id = store.run_ids()[0]
    good, rows = store.index.read_bytes(), dump(store.index)
    for place in range(0, len(good), len(good) // 25):
        changed = bytearray(good)
        changed[place] ^= 0xFF
        store.index.write_bytes(changed)
        store.ingest(run_id)
        assert dump(store.index) == rows, f"byte {place}"


READER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "ro")
print("open", flush=True)
sys.stdin.readline()
print(connection.execute("SELECT count(*) FROM runs_wide").fetchall()[0][0], flush=True)
"""


@pytest.fixture
def reader():
    """Start other programs that have a DuckDB file open."""
    started = []

    def start(path: Path, mode: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", READER, str(path), mode], stdin=pipe, stdout=pipe, text=True)
        started.append(process)
        assert process.stdout.readline() == "open\n"
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.communicate("\n", timeout=20)


def test_a_reader_neither_blocks_an_ingest_nor_loses_its_version(tmp_path, reader):
    store = store_at(tmp_path, runs=1)
    process = reader(store.index, "ro")
    store.ingest(add_run(store, 5).run_id)
    with index.opened(store) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchall() == [(2,)]
    assert process.communicate("\n", timeout=20)[0] == "1\n"


def test_a_program_that_opened_the_index_for_writing_does_not_block_an_ingest(tmp_path, reader):
    store = store_at(tmp_path, runs=1)
    reader(store.index, "rw")
    with pytest.raises(StoreError, match=r"is open for writing in another program; close it there") as caught:
        index.refresh(store)
    assert "\n" not in str(caught.value)
    store.ingest(add_run(store, 5).run_id)
    assert len(dump(store.index)["runs"]) == 2


def test_a_connection_of_this_process_to_the_old_file_does_not_hide_the_new_one(tmp_path):
    store = store_at(tmp_path, runs=1)
    with duckdb.connect(str(store.index), read_only=True) as old:
        store.ingest(add_run(store, 5).run_id)
        with index.opened(store) as connection:
            assert connection.execute("SELECT count(*) FROM runs").fetchall() == [(2,)]
        assert old.execute("SELECT count(*) FROM runs").fetchall() == [(1,)]


def test_many_writers_at_once_lose_nothing(tmp_path):
    store = store_at(tmp_path)
    code = (
        "import sys; from store_kit import add_run, store_at\n"
        "store = store_at(sys.argv[1])\n"
        "for seed in range(3): store.ingest(add_run(store, seed).run_id)\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root / "tests")))}
    made = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment) for _ in range(3)]
    assert [process.wait(timeout=60) for process in made] == [0, 0, 0]
    assert len(dump(store.index)["runs"]) == 9
    assert verify(open_store(tmp_path)) == []
