"""Runs in a row leave nothing behind, and a long one takes no more memory than a short one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli import QUICK, Bench

from benchmarks import ingest, made_run
from meltbench.store import open_store

_TEN_RUNS = """
import gc, json, sys, tracemalloc
from pathlib import Path
from meltbench import plan, road
from meltbench.spec import Spec, parse_sets
from meltbench.store import open_store

class Silent:
    def say(self, text): pass
    def fetched(self, done, total): pass
    def step(self, status): pass

def held_kib():
    gc.collect()
    (line,) = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmRSS")]
    return int(line.split()[1]), tracemalloc.get_traced_memory()[0] // 1024

tracemalloc.start()
seen = []
planned = plan.make(Spec(reps=10, knobs=parse_sets(sys.argv[1:])))
for record in road.run(planned, open_store(), Silent()):
    assert record.manifest["outcome"] == "done", record.manifest["failure"]
    del record
    seen.append(held_kib())
json.dump(seen, sys.stdout)
"""


@pytest.mark.engine
@pytest.mark.slow
def test_ten_runs_in_a_row_leave_no_process_no_file_and_no_memory(bench: Bench, default_model: Path) -> None:
    temporary = bench.home / "tmp"
    temporary.mkdir()
    bench.env |= {"TMPDIR": str(temporary)}
    argv = [sys.executable, "-c", _TEN_RUNS, *(word for word in QUICK if word != "--set")]
    done = subprocess.run(argv, env=bench.environment(), cwd=bench.home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held = json.loads(done.stdout)
    assert len(held) == 10
    # The first runs import what they need; from the third on a run leaves nothing of itself: a record has a megabyte.
    resident_kib, objects_kib = (held[9][i] - held[2][i] for i in (0, 1))
    assert objects_kib < 350
    assert resident_kib < 12_000  # what allocators of the libraries below keep for later, which does not go on
    assert bench.no_leftovers()
    assert list(temporary.iterdir()) == []
    assert bench.jobs() == []
    assert {path.name for path in bench.home.iterdir()} <= {"data", "state", "tmp"}
    left = {path.name for path in bench.data.iterdir()}
    assert left == {"runs", "meltbench.duckdb", ".lock"}
    assert not [path for path in (bench.data / "runs").rglob("*") if path.name.startswith(".")]


def test_an_hour_of_samples_takes_the_memory_of_six_minutes(tmp_path: Path) -> None:
    store = open_store(tmp_path / "data")
    peaks = []
    for seconds in (354.0, 3594.0):  # with the idle windows six minutes and an hour, of twenty files ten times a second
        folder, _, n = made_run.put(store, seconds, 10)
        found = ingest.ingested(store.root, folder.run_id)
        assert n == made_run.LONG * 10 * (seconds + 6)
        for source, watts in zip(("rapl.package-0", "rapl.package-1"), made_run.WATTS, strict=True):
            assert found["j"][source] == pytest.approx(watts * seconds, rel=1e-6)
        peaks.append(found["peak_kib"])
    assert peaks[1] < 1.15 * peaks[0]
