"""Runs on made boards: what is asked of a controller, what its records say, and what of it must be the made truth."""

from __future__ import annotations

import json
from bisect import bisect
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cli import Bench
from made_boards import Board

# Some seconds of one busy processor, and as long of rest within the same command.
WORK = "i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done; sleep 1; while [ $i -lt 800000 ]; do i=$((i+1)); done"
Run = dict[str, Any]


def controller(bench: Bench, board: Board, user: str = "", *more: str) -> Run:
    """Make ``bench`` a controller with that board in its inventory, as ``board``; what `devices add` told."""
    bench.env |= board.environment | {"XDG_CONFIG_HOME": str(bench.home / "config")}
    bench.env |= {"MELTBENCH_INVENTORY": str(bench.home / "inventory.toml")}
    address = f"{user or board.user}@{board.address.rpartition('@')[2]}"
    done = bench.run("devices", "add", "board", "--ssh", address, *more, "--json")
    assert done.returncode == 0, done.stderr
    found: Run = json.loads(done.stdout)
    return found


def metered(bench: Bench, *more: str, work: str = WORK, idle_s: float = 1.5, code: int = 0) -> Run:
    """A run of a shell's work on the board."""
    words = ("exec", "--device", "board", "--set", f"idle_s={idle_s}", *more, "--", "sh", "-c", work)
    (run,) = bench.json(*words, code=code)
    assert isinstance(run, dict)
    return run


def profile(bench: Bench, name: str, text: str) -> str:
    """A profile of the user's own."""
    (bench.home / "devices").mkdir(exist_ok=True)
    (bench.home / "devices" / f"{name}.toml").write_text(text)
    return name


def span(run: Run, phase: str) -> tuple[int, int]:
    (found,) = [one for one in run["phases"] if one["name"] == phase]
    return found["t0_ns"], found["t1_ns"]


def measure(run: Run, name: str, phase: str = "run", stat: str = "value", source: str | None = "total") -> Run:
    found: list[Run] = [
        one for one in run["measures"] if (one["name"], one["phase"], one["stat"]) == (name, phase, stat)
    ]
    found = [one for one in found if source is None or one["source"] == source]
    assert found, (name, phase)
    return found[0]


def series(run: Run, name: str) -> list[tuple[int, float]]:
    """The samples of a signal that have a value: time in ns, value."""
    folder = Path(run["stored"])
    query = f"""SELECT t1_ns, value FROM '{folder}/samples.parquet' JOIN '{folder}/series.parquet' USING (series)
                WHERE name = ? AND value IS NOT NULL ORDER BY t1_ns"""
    return duckdb.execute(query, [name]).fetchall()


def windows(run: Run, phase: str) -> list[tuple[int, int]]:
    """Every window of a phase; of those that requests have, the timed ones."""
    query = f"SELECT t0_ns, t1_ns FROM '{run['stored']}/phases.parquet' WHERE name = ? AND (request > 0) IS NOT FALSE"
    return duckdb.execute(query, [phase]).fetchall()


def codes(run: Run) -> set[str]:
    return {reason["code"] for reason in run["reasons"]}


def detail(run: Run, code: str) -> str:
    return next((str(one["detail"]) for one in run["reasons"] if one["code"] == code), "")


def status(run: Run, source: str) -> tuple[str, str]:
    return next((one["status"], one["detail"]) for one in run["sources"] if one["source"] == source)


def is_the_truth(run: Run, board: Board, factor: float = 1.0) -> None:
    """Energy of the run, and power of both idle windows, are the made ones within what is stated, which is little."""
    found = measure(run, "energy_j")
    true = factor * board.truth.joules(*span(run, "run"))
    assert found["value"] == pytest.approx(true, abs=found["u_k2"]), (found, true)
    assert found["u_k2"] < 0.2 * true
    mean = measure(run, "mean_power_w")
    first, last = span(run, "run")
    assert mean["value"] == pytest.approx(true / (last - first) * 1e9, abs=mean["u_k2"])
    for phase in ("idle_before", "idle_after"):
        first, last = span(run, phase)
        found = measure(run, "idle_power_w", phase)
        if found["value"] is None:  # a second of idle is short where the machine is full of others' work
            assert "sampler_starved" in codes(run), found
            continue
        drawn = factor * board.truth.joules(first, last) / (last - first) * 1e9
        assert found["value"] == pytest.approx(drawn, abs=found["u_k2"]), (phase, found, drawn)


def is_the_heat(run: Run, board: Board) -> None:
    """The hottest the run says it was is the hottest the board was when it was read."""
    first, last = span(run, "run")
    found = measure(run, "max_temp_c", stat="max", source=None)
    read = [
        t1_ns for t1_ns, _ in series(run, "thermal." + found["method"].rpartition(": ")[2]) if first <= t1_ns <= last
    ]
    rows = board.truth.rows()
    began = [row[0] for row in rows]
    true = [rows[bisect(began, t1_ns) - 1][2] for t1_ns in read]
    assert found["value"] == pytest.approx(max(true), abs=0.5)


def now_c(board: Board) -> float:
    rows = board.truth.rows()
    return rows[-1][2] if rows else 0.0
