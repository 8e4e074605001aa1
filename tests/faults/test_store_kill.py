"""SIGKILL at every point of a commit, an ingest and a rebuild: the old state or the new one, never another."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_kit import add_run, dump, open_run, record_of, store_at

from meltbench.store import index, open_store, read_record
from meltbench.store.verifying import verify

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}


@pytest.fixture(scope="module")
def killer():
    process = subprocess.Popen(
        [sys.executable, str(HERE / "store_killer.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )

    def ask(*words: object) -> str:
        process.stdin.write(f"{' '.join(map(str, words))}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    yield ask
    process.stdin.close()
    process.wait(timeout=20)
    process.stdout.close()


def every_point(killer, tmp_path, template, step, run_id):
    """Do the step on a fresh copy of the template, killed at its 1st, 2nd, 3rd ... point, until it lives."""
    for n in range(1, 1000):
        place = tmp_path / "copy"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        answer = killer(step, place, run_id, n)
        assert answer in ("killed", "done")
        yield open_store(place)
        if answer == "done":
            assert n > 5, "the step was never killed"
            return
    raise AssertionError("the step never came to its end")


def test_a_kill_while_a_run_is_made_leaves_no_half_run(killer, tmp_path):
    store_at(tmp_path / "template")
    for store in every_point(killer, tmp_path, tmp_path / "template", "new_run", "-"):
        assert {entry.state for entry in store.runs()} <= {"open"}
        store.new_run({})
        assert not list(store.runs_dir.glob(".part-*"))


@pytest.mark.slow
def test_a_kill_during_commit_leaves_an_open_run_or_a_stored_one(killer, tmp_path):
    run_id = open_run(store_at(tmp_path / "template")).run_id
    states = set()
    for store in every_point(killer, tmp_path, tmp_path / "template", "commit", run_id):
        (entry,) = store.runs()
        states.add(entry.state)
        folder = store.folder(run_id)
        if entry.state == "open":
            store.commit(folder, record_of(run_id))
        assert len(read_record(folder.path).requests) == 4
        assert not list(folder.path.glob(".*"))
        assert {finding.problem for finding in verify(store)} == {"index"}, "only the index, which is not there yet"
    assert states == {"open", "stored"}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["ingest", "rebuild"])
def test_a_kill_while_the_index_is_written_leaves_the_old_or_the_new(killer, tmp_path, step):
    template = store_at(tmp_path / "template", runs=1)
    old = dump(template.index)
    run_id = add_run(template, 5).run_id
    shutil.copytree(template.root, tmp_path / "done")
    index.rebuild(open_store(tmp_path / "done"))
    new = dump(tmp_path / "done" / "meltbench.duckdb")
    seen = []
    for store in every_point(killer, tmp_path, template.root, step, run_id):
        found = dump(store.index)
        assert found in (old, new)
        seen.append(found == new)
        store.ingest(run_id)
        assert dump(store.index) == new
        assert sorted(os.listdir(store.root)) == [".lock", "meltbench.duckdb", "runs"]
    assert seen[0] is False
    assert seen[-1] is True


@pytest.mark.slow
@pytest.mark.parametrize("step", ["ingest", "rebuild"])
def test_a_kill_at_any_moment_inside_duckdb_leaves_the_old_or_the_new(tmp_path, step):
    """Python's own points do not reach into DuckDB's writes; these kills come from outside at random moments."""
    store = store_at(tmp_path, runs=2)
    old = dump(store.index)
    run_id = add_run(store, 5).run_id
    dice = random.Random(3)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, str(HERE / "store_killer.py")], stdin=subprocess.PIPE, env=ENVIRONMENT, text=True,
            stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        process.stdin.write(f"{step} {tmp_path} {run_id} 0\n" * 50)
        process.stdin.flush()
        lock = tmp_path / ".lock"
        lock.unlink(missing_ok=True)
        while not lock.exists():
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.25))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        found = dump(store.index)
        assert found == old or len(found["runs"]) == 3
    store.ingest(run_id)
    assert verify(store) == []
    assert sorted(os.listdir(tmp_path)) == [".lock", "meltbench.duckdb", "runs"]
