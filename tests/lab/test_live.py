"""What is shown of a run under way: on this machine, over SSH, on a terminal, and what the record says of that."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import QUICK, Bench, heed_interrupts
from jsoncheck import NAMED, problems
from made_boards import Board
from made_runs import controller, measure
from phone_road_kit import PhoneRoad
from phones_kit import Phone
from road_kit import EXEC, Road, reasons
from rooms_kit import RoomTarget

from meltbench.live.jobs import DETACHED, UNWATCHED

RATE = re.compile(r"([\d.]+) tok/s")
POWER = re.compile(r"([\d.]+) (m?)W\b")
HEAT = re.compile(r"([\d.]+) °C")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, plain: RoomTarget, probe_binary: Path) -> Road:
    """The controller that found out what the room is."""
    return Road(tmp_path_factory.mktemp("first"), target=plain).added()


@pytest.fixture
def road(tmp_path: Path, plain: RoomTarget, first: Road) -> Iterator[Road]:
    """A new controller that knows the room."""
    yield Road(tmp_path, target=plain).knows(first)
    plain.wire.restore()


def watched(run: dict[str, Any], code: str = "watched") -> str:
    (detail,) = (one["detail"] for one in run["reasons"] if one["code"] == code)
    return str(detail)


@pytest.mark.engine
@pytest.mark.usefixtures("default_model")
def test_the_rate_that_is_shown_is_the_one_that_is_measured_and_the_record_says_who_looked(bench: Bench) -> None:
    words = ("run", *QUICK[:2], "--set", "max_tokens=96")
    done = bench.run(*words, "--live", "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    assert problems(NAMED["run"], run) == []
    shown = [float(rate) for rate in RATE.findall(done.stderr)]
    truth = [one["decode_tps"] for one in run["requests"] if one["decode_tps"]]
    assert min(truth) / 3 <= statistics.median(shown) <= max(truth) * 3, (shown, truth)
    figures = [line for line in done.stderr.splitlines() if RATE.search(line)]
    assert all("no power (" in line or POWER.search(line) for line in figures)
    assert all("no temperature (" in line or HEAT.search(line) for line in figures)
    live = run["conditions"]["live"]
    assert (live["link"], live["period_s"]) == ("local", 1.0)
    assert live["looks"] >= 1
    assert live["bytes"] > 1000
    assert watched(run).startswith(f"{live['looks']} looks of --live at {live['bytes']} bytes")
    assert {one["code"]: one["state"] for one in run["reasons"]}["watched"] == "valid"
    assert "link_traffic" not in reasons(run)
    # It is no other measurement for that.
    (alone,) = bench.json(*words)
    assert (alone["plan_hash"], alone["cell_key"]) == (run["plan_hash"], run["cell_key"])
    assert (alone["conditions"]["live"], alone["conditions"]["top"]) == (None, None)
    assert "watched" not in reasons(alone)


def test_top_shows_a_detached_run_asks_nothing_and_stands_in_its_record(bench: Bench) -> None:
    bench.start_detached(20)
    (job,) = bench.json("top")
    assert problems(NAMED["top"], [job]) == []
    assert (job["state"], job["device"], job["workload"], job["command"]) == ("detached", "local", "exec", "sleep 20")
    assert (job["step"], job["note"]) == ("running the command", DETACHED)
    assert 0 < job["elapsed_s"] < 60
    assert job["tokens_per_s_reason"] == "no engine was asked for"
    assert (job["power_w"] is None) == bool(job["power_w_reason"])
    table = bench.run("top", "--once").stdout
    assert job["run_id"] in table
    assert "running the command" in table
    assert f"| {job['run_id']} |" in bench.run("top", "--markdown").stdout
    lines = bench.start("top")
    assert lines.stdout is not None
    assert lines.stdout.readline().startswith(f"{job['run_id']} local: running the command, no token rate")
    assert os.getpriority(os.PRIO_PROCESS, lines.pid) == 19, "what measures goes first"
    lines.send_signal(signal.SIGINT)
    out, err = lines.communicate(timeout=60)
    assert (lines.returncode, err) == (0, ""), out
    assert bench.run("collect").returncode == 0
    (run,) = [bench.json("show", job["run_id"])]
    assert run["conditions"]["top"]["looks"] >= 4
    assert "looks of meltbench top at" in watched(run)
    assert bench.json("top") == []
    assert f"no job of {bench.data} is under way" in bench.run("top", "--once").stderr


def test_a_controller_that_is_killed_while_it_looks_leaves_word_of_it(bench: Bench) -> None:
    looking = bench.start("exec", "--live", "--set", "idle_s=0.3", "--", "sleep", "3")
    bench.wait_for(lambda state: state.get("op") == "exec")
    looking.kill()
    looking.communicate()
    assert bench.run("collect").returncode == 0
    run = bench.json("show")
    assert problems(NAMED["run"], run) == []
    assert run["conditions"]["live"] == {"link": "local", "period_s": 1.0, "looks": None, "bytes": None, "cpu_s": None}
    assert watched(run) == "looks of --live"


def test_over_a_link_it_is_link_traffic_and_top_shows_what_the_controller_saw(road: Road) -> None:
    road.close_gate()
    looking = road.start(*EXEC, "--live", "--", "sh", "-c", "while [ ! -e $HOME/gate ]; do sleep 0.1; done")
    assert looking.stderr is not None
    said = ""
    while "running the command: " not in said:
        line = looking.stderr.readline()
        assert line, said
        said += line
    (job,) = road.json("top")
    assert (job["state"], job["target"], job["step"]) == ("running", "ssh", "running the command")
    assert (job["note"], job["tokens_per_s_reason"]) == ("", "no engine was asked for")
    road.open_gate()
    out, err = looking.communicate(timeout=60)
    assert looking.returncode == 0, err
    (run,) = road.honest(0.0)
    live = run["conditions"]["live"]
    assert (live["link"], live["period_s"]) == ("ssh", 2.0)
    assert live["looks"] >= 1
    assert live["bytes"] > 1000
    assert f"{live['looks']} looks of --live at {live['bytes']} bytes" in watched(run, "link_traffic")
    assert "over the link" in watched(run, "link_traffic")
    assert "watched" not in reasons(run)
    assert run["validity"] == "degraded"
    assert list((road.home / "state/meltbench/live").iterdir()) == []
    assert out
    road.nothing_left()


def test_a_run_of_another_device_without_live_shows_its_state_alone(road: Road) -> None:
    road.close_gate()
    silent = road.start(*EXEC, "--", "sh", "-c", "while [ ! -e $HOME/gate ]; do sleep 0.1; done")
    road.until_run(lambda state: state.get("op") == "exec")
    (job,) = road.json("top")
    assert (job["state"], job["step"], job["note"]) == ("running", None, UNWATCHED)
    assert job["power_w_reason"] == UNWATCHED
    road.open_gate()
    assert silent.wait(60) == 0
    silent.communicate()
    (run,) = road.honest(0.0)
    assert "link_traffic" not in reasons(run)
    assert (run["conditions"]["live"], run["conditions"]["top"]) == (None, None)
    road.nothing_left()


def test_a_link_that_is_cut_while_it_is_looked_over_costs_no_run(road: Road) -> None:
    looking = road.start(*EXEC, "--live", "--", "sleep", "8")
    road.until_run(lambda state: state.get("op") == "exec")
    road.target.wire.cut()
    road.until_ended()
    road.target.wire.restore()
    _, err = looking.communicate(timeout=90)
    assert looking.returncode == 0, err
    assert "the live view has ended" not in err
    (run,) = road.honest(7.9)
    assert run["conditions"]["live"]["looks"] >= 1
    road.nothing_left()


def test_a_made_board_shows_the_watts_and_degrees_that_are_stored(bench: Bench, jetson: Board) -> None:
    controller(bench, jetson)
    busy = ("--", "sh", "-c", "i=0; while [ $i -lt 900000 ]; do i=$((i+1)); done")
    done = bench.run("exec", "--device", "board", "--set", "idle_s=1", "--live", "--json", *busy)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    shown = [float(watts) / (1000 if milli else 1) for watts, milli in POWER.findall(done.stderr)]
    heat = [float(celsius) for celsius in HEAT.findall(done.stderr)]
    assert shown, done.stderr
    truth = [watts for _, watts, *_ in jetson.truth.rows()]
    assert min(truth) * 0.9 <= min(shown) <= max(shown) <= max(truth) * 1.1
    hottest = measure(run, "max_temp_c", source=None, stat="max")["value"]
    assert max(heat) == pytest.approx(hottest, abs=5)


@pytest.fixture
def phone_road(tmp_path: Path, phone: Phone, first_phone: PhoneRoad) -> Iterator[PhoneRoad]:
    made = PhoneRoad(tmp_path, target=phone)
    made.knows(first_phone)
    yield made
    phone.connect()


def test_a_phone_is_looked_at_over_adb(phone_road: PhoneRoad) -> None:
    done = phone_road.run(*EXEC, "--live", "--json", "--", "sleep", "7")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    assert "running the command: no token rate" in done.stderr
    assert POWER.search(done.stderr) or "no power (" in done.stderr
    live = run["conditions"]["live"]
    assert (live["link"], live["looks"] >= 2, live["bytes"] > 1000) == ("adb", True, True)
    assert "of --live at" in watched(run, "link_traffic")
    phone_road.nothing_left()


# --- on a terminal ---


def on_a_terminal(bench: Bench, *words: str, until: Callable[[str], bool], press: bytes = b"") -> tuple[int, str]:
    """Run a command on a terminal of its own; press a key once what it drew is as wanted."""
    ours, its = pty.openpty()
    env = bench.environment() | {"TERM": "xterm-256color", "COLUMNS": "150", "LINES": "40"}
    argv = [sys.executable, "-m", "meltbench", *bench.words(*words)]
    process = subprocess.Popen(
        argv, env=env, cwd=bench.home, stdin=its, stdout=its, stderr=its, preexec_fn=heed_interrupts,
        start_new_session=True,
    )  # fmt: skip
    os.close(its)
    drawn, pressed, end = b"", False, time.monotonic() + 120
    try:
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    more = os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
                drawn += more
            if press and not pressed and until(drawn.decode("utf-8", "replace")):
                os.write(ours, press)
                pressed = True
            if process.poll() is not None and not select.select([ours], [], [], 0)[0]:
                break
        return process.wait(30), drawn.decode("utf-8", "replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.engine
@pytest.mark.usefixtures("default_model")
def test_on_a_terminal_the_figures_stand_below_the_bar_in_place(bench: Bench) -> None:
    words = ("run", "--live", *QUICK[:2], "--set", "max_tokens=128")
    code, drawn = on_a_terminal(bench, *words, until=lambda _: False)
    assert code == 0, drawn
    assert RATE.search(drawn.partition("validity")[0])
    assert "answering requests: " not in drawn, "that is how it is said without a terminal"
    assert re.search(r"tok/s [▁▂▃▄▅▆▇█ ]+, ", drawn)
    assert "\x1b[1A" in drawn, "it is drawn again where it stood"


def test_top_redraws_in_place_until_q(bench: Bench) -> None:
    bench.start_detached(20)
    code, drawn = on_a_terminal(bench, "top", until=lambda text: text.count("running the command") >= 2, press=b"q")
    assert code == 0, drawn
    assert "q: leave" in drawn
    assert "\x1b[1A" in drawn
    assert bench.run("collect").returncode == 0
