"""A model and an engine on their way to a device and in its cache: cut, damaged, without room, without memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from engines_kit import stock_folder
from road_kit import Road, reasons

pytestmark = pytest.mark.engine


@pytest.fixture
def words() -> list[str]:
    """A short run of a model."""
    sets = [f"--set={word}" for word in ("idle_s=0.3", "max_tokens=4", "ctx=512")]
    return ["run", "--device", "box", "--engine", str(stock_folder()), *sets]


def blobs(road: Road) -> dict[str, Path]:
    """The files of the cache by their hash."""
    return {path.name: path for path in road.there.glob("cache/blobs/*") if "." not in path.name}


def answered(road: Road) -> dict[str, Any]:
    """The only run: done, with all that was asked for."""
    (run,) = road.honest(0.0)
    assert run["outcome"] == "done", run["failure"]
    asked = [one for one in run["requests"] if one["role"] == "timed"]
    assert asked != []
    assert all(one["status"] == "ok" and one["n_out"] == 4 for one in asked)
    return run


def test_a_push_that_was_cut_is_gone_on_with(road: Road, words: list[str], default_model: Path) -> None:
    sent = Path(f"/sys/class/net/{road.target.wire.card}/statistics/tx_bytes")
    before = int(sent.read_text())
    road.env["STAGED_PAUSE_S"] = "1"
    controller = road.staged("push", *words).reached()
    road.target.wire.cut()
    threading.Timer(2.5, road.target.wire.restore).start()
    controller.go()
    code, _, err = controller.end()
    assert code == 0, err
    whole = sum(path.stat().st_size for path in blobs(road).values())
    assert whole > default_model.stat().st_size
    assert int(sent.read_text()) - before < 1.3 * whole, "what had come was not sent again"
    answered(road)
    road.nothing_left()


def test_what_is_damaged_in_the_cache_is_never_run(road: Road, words: list[str], default_model: Path) -> None:
    assert road.run(*words).returncode == 0
    files = sorted(blobs(road).values(), key=lambda path: path.stat().st_size)
    model, library = files[-1], files[-2]
    assert model.stat().st_size == default_model.stat().st_size
    os.truncate(model, 1000)
    flip(library)
    done = road.run(*words)
    assert done.returncode == 0, done.stderr
    assert "damaged in the cache of box" in done.stderr
    flip(next(path for path in blobs(road).values() if path.stat().st_size == default_model.stat().st_size))
    done = road.run(*words, "--rehash")
    assert done.returncode == 0, done.stderr
    assert "damaged in the cache of box" in done.stderr
    assert [run["outcome"] for run in road.honest(0.0)] == ["done"] * 3
    road.nothing_left()


def test_what_is_damaged_between_two_runs_is_not_run_either(road: Road, words: list[str], default_model: Path) -> None:
    controller = road.staged("fetched", *words, "--reps", "2").reached()
    files = sorted(blobs(road).values(), key=lambda path: path.stat().st_size)
    os.truncate(files[-1], 1000)
    flip(files[-2])
    controller.go()
    code, _, err = controller.end()
    assert code == 0, err
    assert err.count("damaged in the cache of box") == 2
    assert [run["outcome"] for run in road.honest(0.0)] == ["done"] * 2
    road.nothing_left()


def flip(path: Path) -> None:
    """Change one byte, and nothing that `ls` shows."""
    old = path.stat()
    with path.open("r+b") as file:
        file.seek(old.st_size // 2)
        byte = file.read(1)[0]
        file.seek(old.st_size // 2)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


def test_a_disk_that_fills_while_a_model_is_pushed(road: Road, words: list[str]) -> None:
    road.target.ssh("rm -rf .meltbench/cache")
    controller = road.staged("push", *words).reached()
    road.fill_disk()
    try:
        controller.go()
        code, _, err = controller.end()
    finally:
        road.drain_disk()
    assert code == 1
    line = err.splitlines()[-1]
    assert "No space left on device" in line or "no room" in line, err
    assert "meltbench devices cache box" in line
    assert road.honest() == []
    assert road.run(*words).returncode == 0
    answered(road)
    road.nothing_left()


def test_an_engine_that_is_killed_for_memory(road: Road, words: list[str]) -> None:
    done = road.run(*words, "--set", "memory_mib=90")
    assert done.returncode == 1, done.stderr
    (run,) = road.honest(0.0)
    assert run["outcome"] == "failed"
    # Without a cgroup of its own it is refused memory, and ends by itself.
    assert ("oom_killed" in reasons(run)) == (run["conditions"]["process"]["memory_by"] == "cgroup")
    road.nothing_left()


def test_a_link_that_is_cut_while_the_engine_answers(road: Road, words: list[str]) -> None:
    controller = road.staged("never", *words, "--set", "max_tokens=48")
    road.until_run(lambda state: state.get("op") == "http")
    road.target.wire.cut()
    road.until_ended()
    road.target.wire.restore()
    code, _, err = controller.end()
    assert code == 0, err
    (run,) = road.honest(0.0)
    assert run["outcome"] == "done"
    assert all(one["status"] == "ok" and one["n_out"] == 48 for one in run["requests"] if one["role"] == "timed")
    road.nothing_left()
