"""Every benchmark goes through all it does. What it finds on a busy machine in so short a time is not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as runner
from benchmarks import adb, agreement, fleet, kit, observer
from benchmarks.claims import Unmeasurable
from meltbench import models

ROOT = Path(__file__).parents[2]
NEEDS_ENGINE = {"fleet", "overhead", "observer", "agreement"}
NO_TIMES = {fleet.TRIPS.name: 1, fleet.KEPT.name: 100, adb.SILENT.name: 0}  # claims that hold however busy a machine is


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.engine] * (name in NEEDS_ENGINE)) for name in runner.SUBJECTS],
)
def test_a_quick_benchmark_gives_every_row_a_figure_or_a_reason(
    name: str, probe_binary: Path, default_model: Path
) -> None:
    argv = [sys.executable, "-m", "benchmarks", name, "--quick", "--json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    found = json.loads(done.stdout)
    assert found["quick"] is True
    claims = {claim.name for part in runner.load(name).PARTS for claim in part.claims}
    assert {row["name"] for row in found["rows"]} == claims
    for row in found["rows"]:
        assert row["figure"] is not None or row["note"], row
        assert row["figure"] in (None, NO_TIMES.get(row["name"], row["figure"])), row


def test_the_floor_makes_the_reads_it_is_told_to(tmp_path: Path) -> None:
    floor = kit.compiled(kit.HERE / "floor.c", tmp_path / "floor")
    for period_ns in ("0", "1000000"):
        done = subprocess.run(
            [str(floor), period_ns, "10", *observer.FILES], capture_output=True, text=True, check=True
        )
        reads, cpu_ns = map(int, done.stdout.split())
        assert reads == 10 * len(observer.FILES)
        assert cpu_ns > 0
    assert subprocess.run([str(floor), "0", "1", str(tmp_path / "none")]).returncode == 66
    assert subprocess.run([str(floor), "0", "1"]).returncode == 64


@pytest.mark.engine
def test_watched_requests_are_sampled_and_unwatched_ones_are_not(tmp_path: Path, default_model: Path) -> None:
    journal = kit.finish_job(tmp_path, observer._pairs_job("pairs", str(default_model), 2, 8))
    spawned = {event["pid"]: event["boot_ns"] for event in journal.named("spawn") if event["proc"] == "on"}
    gone = {event["pid"]: event["boot_ns"] for event in journal.named("exit") if event["proc"] == "on"}
    spans = sorted((start, gone[pid]) for pid, start in spawned.items())
    watched = [observer._is_watched(i - 1) and i > 0 for i in range(5)]
    for event, expected in zip(journal.named("request"), watched, strict=True):
        assert any(a <= event["t_send0"] and event["t_end"] <= b for a, b in spans) is expected
    files = [stream for stream in journal.streams.values() if stream.kind == "file"]
    assert len(files) == len(observer.FILES) * len(spans)
    for stream in files:
        assert stream.status == "ok"
        assert any(a <= stream.readings.t0_ns[0] and stream.readings.t1_ns[-1] <= b for a, b in spans)
    assert len(observer._rates(journal, 8)) == 4


def test_a_lab_without_both_programs_is_no_miss_but_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELTBENCH_LAB", str(tmp_path))
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "llama-bench").touch()
    with pytest.raises(Unmeasurable, match="make lab builds them"):
        agreement.programs()
    (tmp_path / "engine" / "llama-server").touch()
    assert agreement.programs() == tmp_path / "engine"


def test_threads_are_those_that_a_run_gets(probe_binary: Path) -> None:
    assert 1 <= kit.threads() <= max(1, (os.cpu_count() or 1) - 1)
    assert models.resolve(kit.MODEL).name
