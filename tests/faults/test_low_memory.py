"""An engine that Android's low-memory killer ends: a real engine, a real SIGKILL, and a made `logcat` that tells of it.

The log stands at the edge of the world; the probe, the journal and what is made of both are real.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
from cli import QUICK, Bench

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("default_model")]

KILL = (
    "11-02 09:14:07.461   512   512 I lowmemorykiller: Kill './llama-server' ({pid}), uid 2000, oom_score_adj 0 "
    "to free 2740708kB rss, 90208kB swap; reason: low watermark is breached and swap is low (144184kB < 267412kB)"
)
WORDS = "lowmemorykiller: Kill './llama-server' ("


def logcat(bench: Bench, script: str) -> None:
    """A `logcat` on the PATH of meltbench and of its target, which notes what it was asked."""
    folder = bench.home / "bin"
    folder.mkdir()
    program = folder / "logcat"
    program.write_text(f'#!/bin/sh\necho "$*" >> {bench.home}/asked\n{script}\n')
    program.chmod(0o755)
    bench.env["PATH"] = f"{folder}:{os.environ['PATH']}"


def shot(bench: Bench, log: str = "") -> dict[str, Any]:
    """A run whose engine is killed once it has answered; ``log``: what stands in the log then, of its pid."""
    controller = bench.start("run", "--json", *QUICK, "--set", "repeat=50")
    bench.answering()
    pid = bench.engine_pid()
    (bench.home / "log").write_text(log.format(pid=pid) + "\n")
    os.kill(pid, signal.SIGKILL)
    out, err = controller.communicate(timeout=120)
    assert controller.returncode == 1, err
    (run,) = json.loads(out)
    assert run["outcome"] == "failed"
    return dict(run)


def codes(run: dict[str, Any]) -> set[str]:
    return {reason["code"] for reason in run["reasons"]}


def test_a_low_memory_kill_is_told_in_the_killers_words_and_can_be_measured_again(bench: Bench) -> None:
    logcat(bench, f"echo '--------- beginning of main'; cat {bench.home}/log")
    run = shot(bench, KILL)
    assert "oom_killed" in codes(run)
    assert "engine_failed" not in codes(run)
    assert WORDS in run["failure"]
    assert "low watermark is breached" in run["failure"]
    asked = (bench.home / "asked").read_text().splitlines()
    assert len(asked) == 1
    assert " -s lmkd:V lowmemorykiller:V killinfo:V" in asked[0]
    # What was read is evidence, sealed with the rest.
    kept = bench.data / "runs" / run["run_id"] / "evidence" / "kills.log"
    assert kept.read_text().startswith("11-02 09:14:07.461")
    assert bench.json("verify") == []


def test_the_same_is_found_by_whoever_collects_the_run(bench: Bench) -> None:
    logcat(bench, f"cat {bench.home}/log")
    controller = bench.start("run", *QUICK, "--set", "repeat=50")
    bench.answering()
    pid = bench.engine_pid()
    (bench.home / "log").write_text(KILL.format(pid=pid) + "\n")
    controller.kill()
    controller.communicate()
    os.kill(pid, signal.SIGKILL)
    (run,) = bench.json("collect", code=1)
    assert "oom_killed" in codes(run)
    assert WORDS in run["failure"]


@pytest.mark.parametrize(
    ("script", "log"),
    [
        ("cat {home}/log", KILL.replace("{pid}", "1")),  # another process was killed
        ("echo 'logcat: Unable to open log device' >&2; exit 1", ""),
        ("yes 'welcome to this phone' | head -c 20000000; cat {home}/log", ""),
    ],
    ids=["another", "denied", "flood"],
)
def test_a_log_that_tells_nothing_of_it_leaves_a_kill_from_outside(bench: Bench, script: str, log: str) -> None:
    logcat(bench, script.format(home=bench.home))
    run = shot(bench, log)
    assert {"engine_failed"} <= codes(run)
    assert "oom_killed" not in codes(run)
    assert "signal 9: it was killed from outside" in run["failure"]


def test_nobody_asks_a_log_of_a_run_that_ended_well_or_was_stopped(bench: Bench) -> None:
    logcat(bench, f"cat {bench.home}/log")
    bench.json("run", *QUICK)
    controller = bench.start("run", *QUICK, "--set", "repeat=50")
    bench.answering()
    for _ in range(2):
        controller.send_signal(signal.SIGINT)
        time.sleep(0.3)  # two that are on their way at once are one
    controller.communicate(timeout=120)
    assert not (bench.home / "asked").exists()
