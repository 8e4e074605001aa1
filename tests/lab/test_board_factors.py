"""Factors of an experiment on made boards over SSH: set, seen to hold, recorded, put back; also after a kill."""

from __future__ import annotations

import json
import re

from cli import Bench
from made_boards import Board
from made_runs import Run, codes, controller, detail, metered
from targets_kit import until

GOVERNORS = "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
LOOK = f"nvpmodel -q; cat {GOVERNORS}"
BEFORE, MEANWHILE = ["NV Power Mode: 15W", "0", "schedutil", "schedutil"], ["NV Power Mode: MAXN_SUPER", "2"]
SETS = ("--set", "nvpmodel=2", "--set", "governor=performance")
QUICK = ("exec", "--json", "--device", "board", "--set", "idle_s=0.3", *SETS)


def state_of(board: Board) -> list[str]:
    """The power mode and the governors that are in force."""
    return re.sub(r"(schedutil|performance)\s*", r"\1\n", board.ssh(LOOK, user="root")).split("\n")[:4]


def runs(board: Board) -> str:
    """The only run of the board."""
    return board.ssh("ls -d /root/.meltbench/runs/2*", user="root")


def test_what_is_set_holds_is_recorded_and_is_put_back(bench: Bench, jetson: Board) -> None:
    controller(bench, jetson, "root")
    process = ("--set", "cpus=0", "--set", "memory_mib=64")
    work = f"{LOOK}; grep Cpus_allowed_list /proc/self/status"
    run = metered(bench, *SETS, *process, work=f"({work}) >&2; exit 3", idle_s=0.3, code=1)
    said = run["failure_log"]
    assert "MAXN_SUPER" in said
    assert said.count("performance") == 2
    assert "Cpus_allowed_list: 0" in said
    rest = {"state": "set", "detail": ""}
    assert run["conditions"]["settings"] == {
        "nvpmodel": {"value": "2", "before": "0", "used": "2", **rest},
        "governor": {"value": "performance", "before": "schedutil", "used": "performance", **rest},
    }
    held = run["conditions"]["process"]
    assert (held["cpus"], held["memory_bytes"]) == ("0", 64 << 20)
    assert held["memory_by"] in ("cgroup", "rlimit")
    assert run["knobs"] == {"cpus": "0", "memory_mib": 64}
    assert {"nvpmodel", "governor", "cpus", "memory_mib"} <= {key for key, _ in run["spec"]["knobs"]}
    assert not {"settings_not_applied", "frequency_capped"} & codes(run), "mode 2 has no cap"
    assert state_of(jetson) == BEFORE


def test_a_mode_that_the_board_has_not_is_named_by_its_own_words(bench: Bench, jetson: Board) -> None:
    controller(bench, jetson, "root")
    run = metered(bench, "--set", "nvpmodel=9", work="true", idle_s=0.3)
    assert "nvpmodel = 9: 0 was in force" in detail(run, "settings_not_applied")
    assert "power model ID 9 is not in" in detail(run, "settings_not_applied")
    assert state_of(jetson) == BEFORE


def test_what_a_plain_user_may_not_set_makes_the_run_invalid(bench: Bench, jetson: Board) -> None:
    controller(bench, jetson)
    run = metered(bench, *SETS, work="true", idle_s=0.3)
    assert (run["outcome"], run["validity"]) == ("done", "invalid")
    why = detail(run, "settings_not_applied")
    assert "nvpmodel = 2: 0 was in force" in why
    assert "governor = performance: policy0/scaling_governor: denied" in why
    assert state_of(jetson) == BEFORE


def test_a_killed_probe_puts_back_what_it_set(bench: Bench, jetson: Board) -> None:
    controller(bench, jetson, "root")
    running = bench.start(*QUICK, "--", "sleep", "70")
    until(lambda: "sleep 70" in jetson.room.processes().values(), "the work to begin")
    assert state_of(jetson) == [*MEANWHILE, "performance", "performance"]
    state = json.loads(jetson.ssh(f"cat {runs(jetson)}/state", user="root"))
    jetson.ssh(f"kill -9 {state['pid']}", user="root")
    told, said = running.communicate(timeout=60)
    assert running.returncode == 1, said
    (run,) = json.loads(told)
    assert run["outcome"] == "failed"
    assert run["failure"] == "the probe was killed"
    assert state_of(jetson) == BEFORE
    assert not {"sleep 70"} & set(jetson.room.processes().values())


def test_a_killed_controller_leaves_a_run_that_puts_back_what_it_set(bench: Bench, jetson: Board) -> None:
    controller(bench, jetson, "root")
    running = bench.start(*QUICK, "--", "sleep", "8")
    until(lambda: "sleep 8" in jetson.room.processes().values(), "the work to begin")
    running.kill()
    running.communicate()
    assert state_of(jetson) == [*MEANWHILE, "performance", "performance"]
    until(lambda: state_of(jetson) == BEFORE, "the run to end by itself")
    (run,) = bench.json("collect")
    assert (run["outcome"], codes(run) & {"settings_not_applied"}) == ("done", set())
    assert {one["state"] for one in run["conditions"]["settings"].values()} == {"set"}


REFUSED = {
    "governer=performance": "did you mean governor?",
    "nvpmodel=2": "unknown key of workload exec 'nvpmodel'; known: charge_timeout_s, cpu_max_khz, cpus, ",
    "governor=a b": "governor = 'a b' is not a valid setting; a governor of cpufreq",
    "cpus=zero": "cpus = 'zero' is not a list of processors; give cpus=0-3,6",
}


def test_a_factor_that_a_pi_has_not_is_one_line(bench: Bench, pi5: Board) -> None:
    controller(bench, pi5)
    for given, said in REFUSED.items():
        done = bench.run("exec", "--device", "board", "--set", given, "--", "true")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr


def test_a_plain_user_sets_the_governor_once_its_files_are_his(bench: Bench, pi5: Board) -> None:
    """As the rule for systemd-tmpfiles does it that the doctor gives."""
    controller(bench, pi5)
    pi5.ssh(f"chgrp pi {GOVERNORS}; chmod 664 {GOVERNORS}", user="root")
    run: Run = metered(bench, "--set", "governor=performance", work="sleep 0.3", idle_s=0.3)
    assert run["conditions"]["settings"]["governor"]["state"] == "set"
    assert pi5.ssh(f"cat {GOVERNORS}") == "ondemand"
    assert "settings_not_applied" not in codes(run)
