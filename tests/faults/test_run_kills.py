"""Whatever is killed, the run is stored with the reason, and nothing is left running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time

import pytest
from cli import QUICK, Bench

from meltbench.probe import build

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("default_model")]


def only(rows: list[dict[str, object]]) -> dict[str, object]:
    assert len(rows) == 1
    return rows[0]


def codes(run: dict[str, object]) -> set[str]:
    reasons = run["reasons"]
    assert isinstance(reasons, list)
    return {reason["code"] for reason in reasons}


def test_the_controller_killed_while_decoding_and_the_run_collected(bench: Bench) -> None:
    controller = bench.start("run", *QUICK)
    bench.answering()
    assert only(bench.json("runs"))["state"] == "running"
    controller.kill()
    controller.communicate()
    assert only(bench.json("runs"))["state"] == "detached"
    collected = only(bench.json("collect"))
    assert collected["outcome"] == "done"
    requests = collected["requests"]
    assert isinstance(requests, list)
    assert [r["role"] for r in requests] == ["warmup"] + ["timed"] * 5
    assert all(r["status"] == "ok" and r["n_out"] == 16 for r in requests)
    assert only(bench.json("runs"))["state"] == "done"
    assert bench.json("verify") == []
    assert bench.no_leftovers()
    assert bench.jobs() == []
    assert bench.json("collect") == []


def test_the_controller_killed_at_every_stage(bench: Bench) -> None:
    ops = ("idle", "ready", "http", "stop")
    for op in ops:
        controller = bench.start("run", *QUICK)
        bench.wait_for(lambda s, op=op: s.get("op") == op or (op == "stop" and s.get("name") == "idle_after"))
        controller.kill()
        controller.communicate()
        collected = only(bench.json("collect"))
        assert collected["outcome"] == "done", op
    assert len(bench.json("runs")) == len(ops)
    assert bench.no_leftovers()


@pytest.mark.parametrize("victim", ["pid", "guard_pid"])
def test_the_probe_killed(bench: Bench, victim: str) -> None:
    controller = bench.start("run", *QUICK, "--json")
    state = bench.answering()
    os.kill(int(state[victim]), signal.SIGKILL)
    _, err = controller.communicate(timeout=60)
    assert controller.returncode == 1 if victim == "pid" else controller.returncode in (1, 130), err
    assert bench.no_leftovers()
    run = only(bench.json("runs"))
    assert run["state"] in ("failed", "stopped")
    assert run["validity"] == "invalid"
    assert run["failure"]


def test_probe_and_guard_killed_at_once(bench: Bench) -> None:
    controller = bench.start("run", *QUICK)
    state = bench.answering()
    for victim in ("guard_pid", "pid"):
        os.kill(int(state[victim]), signal.SIGKILL)
    controller.communicate(timeout=60)
    assert controller.returncode == 1
    assert bench.no_leftovers()
    shown = bench.json("show", "last")
    assert "probe_killed" in codes(shown)
    assert shown["outcome"] == "failed"
    assert bench.json("verify") == []


def test_the_engine_killed(bench: Bench) -> None:
    controller = bench.start("run", *QUICK)
    bench.answering()
    os.kill(bench.engine_pid(), signal.SIGKILL)
    _, err = controller.communicate(timeout=60)
    assert controller.returncode == 1, err
    shown = bench.json("show", "last")
    assert shown["outcome"] == "failed"
    assert "engine_failed" in codes(shown)
    assert "signal 9" in shown["failure"]
    assert shown["failure_log"]
    assert bench.no_leftovers()


def test_ctrl_c_once_finishes_the_run_and_stops(bench: Bench) -> None:
    controller = bench.start("run", *QUICK, "--reps", "3")
    bench.answering()
    controller.send_signal(signal.SIGINT)
    _, err = controller.communicate(timeout=60)
    assert controller.returncode == 130, err
    assert "finishing this run" in err
    run = only(bench.json("runs"))
    assert run["state"] == "done"
    assert bench.no_leftovers()


def test_ctrl_c_twice_aborts_and_stores_what_there_is(bench: Bench) -> None:
    controller = bench.start("run", *QUICK, "--set", "max_tokens=200", "--reps", "3")
    bench.answering()
    controller.send_signal(signal.SIGINT)
    assert controller.stderr is not None
    for line in controller.stderr:  # two signals sent at once would be one
        if "finishing this run" in line:
            break
    controller.send_signal(signal.SIGINT)
    _, err = controller.communicate(timeout=60)
    assert controller.returncode == 130, err
    shown = bench.json("show", "last")
    assert shown["outcome"] == "stopped"
    assert "aborted" in codes(shown)
    assert len(bench.json("runs")) == 1
    assert bench.no_leftovers()
    assert bench.jobs() == []


def test_a_second_run_on_a_busy_target_is_refused(bench: Bench) -> None:
    first = bench.start("run", *QUICK)
    bench.answering()
    second = bench.run("exec", "--", "true")
    assert second.returncode == 1
    assert "busy" in second.stderr
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert len(bench.json("runs")) == 1


def test_ctrl_c_before_anything_runs_is_one_line(bench: Bench) -> None:
    own = bench.home / "cache" / "probe" / build.source_hash() / build.host_target()
    own.mkdir(parents=True)
    shutil.copy2(build.binary(build.host_target()), own)
    bench.env["MELTBENCH_CACHE"] = str(bench.home / "cache")  # the probe is there, the model must be fetched
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes the connection, never answers
        bench.env["HF_ENDPOINT"] = f"http://127.0.0.1:{mute.getsockname()[1]}"
        controller = bench.start("run", "--model", "owner/repo:x.gguf")
        mute.settimeout(60)
        connection, _ = mute.accept()
        controller.send_signal(signal.SIGINT)
        _, err = controller.communicate(timeout=60)
        connection.close()
    assert controller.returncode == 130
    assert "Traceback" not in err
    assert "interrupted" in err
    assert bench.json("runs") == []


def test_many_ctrl_c_reach_only_the_controller(bench: Bench) -> None:
    stubborn = "trap '' TERM INT; sleep 30 & wait; sleep 30"
    controller = bench.start("exec", "--set", "idle_s=0.2", "--", "sh", "-c", stubborn)
    bench.wait_for(lambda s: s.get("op") == "exec")
    for _ in range(8):
        # As a terminal does it: to every process of the foreground group.
        os.killpg(os.getpgid(controller.pid), signal.SIGINT)
        time.sleep(0.25)
    _, err = controller.communicate(timeout=60)
    assert controller.returncode == 130, err
    assert "Traceback" not in err
    assert only(bench.json("runs"))["state"] == "stopped"
    assert bench.no_leftovers()
    assert bench.jobs() == []


def test_a_run_that_was_never_started_keeps_no_other_from_being_collected(bench: Bench) -> None:
    bench.start_detached(1)
    bench.wait_for(lambda s: s.get("state") == "ended")
    for name in ("journal", "state"):  # as if the controller had died between the push and the start
        (bench.jobs()[0].parent / name).unlink()
    bench.start_detached(1)
    done = bench.run("collect", "--json")
    assert done.returncode == 0, done.stderr
    assert "never started" in done.stderr
    assert only(bench.json("runs"))["state"] == "done"


def test_two_collects_at_once_store_one_run(bench: Bench) -> None:
    bench.start_detached(3)
    both = [bench.start("collect") for _ in range(2)]
    for one in both:
        _, err = one.communicate(timeout=60)
        assert "Traceback" not in err
    assert only(bench.json("runs"))["state"] == "done"
    assert bench.json("verify") == []


def test_the_probe_killed_after_the_command_has_ended(bench: Bench) -> None:
    controller = bench.start("exec", "--set", "idle_s=4", "--", "true")
    state = bench.wait_for(lambda s: s.get("name") == "idle_after")
    os.kill(int(state["pid"]), signal.SIGKILL)
    _, err = controller.communicate(timeout=60)
    assert controller.returncode == 1, err
    shown = bench.json("show", "last")
    assert shown["outcome"] == "failed"
    assert "probe_killed" in codes(shown)
    assert shown["failure"].startswith("the probe was killed")
    assert bench.no_leftovers()


def test_a_run_is_collected_from_another_home(bench: Bench) -> None:
    bench.start_detached(1)
    there = bench.jobs()
    elsewhere = Bench(bench.home, {"XDG_STATE_HOME": str(bench.home / "elsewhere")})
    assert only(elsewhere.json("collect"))["outcome"] == "done"
    assert not any(path.exists() for path in there)
    assert (bench.data / "meltbench.duckdb").exists()
    assert bench.no_leftovers()


def test_a_ticket_that_points_elsewhere_is_not_followed(bench: Bench) -> None:
    bench.start_detached(1)
    precious = bench.home / "precious"
    precious.mkdir()
    (ticket,) = bench.data.glob("runs/*/ticket.json")
    whole = json.loads(ticket.read_text())
    true = whole["folder"]
    for folder in (str(precious), "/", "runs", f"{precious}/../x"):
        ticket.write_text(json.dumps(whole | {"folder": folder}))
        done = bench.run("collect")
        assert done.returncode == 1
        assert "as its folder" in done.stderr
    assert precious.is_dir()
    ticket.write_text(json.dumps(whole | {"folder": true}))
    assert only(bench.json("collect"))["outcome"] == "done"
    assert bench.no_leftovers()


def test_the_engine_killed_in_a_sustained_run(bench: Bench) -> None:
    controller = bench.start("run", *QUICK, "--workload", "sustained", "--set", "limit_s=120")
    bench.wait_for(lambda s: s.get("limit_ms") == 120_000 and int(s.get("done", 0)) >= 2)
    os.kill(bench.engine_pid(), signal.SIGKILL)
    _, err = controller.communicate(timeout=60)
    assert controller.returncode == 1, err
    shown = bench.json("show", "last")
    assert shown["outcome"] == "failed"
    assert "engine_failed" in codes(shown)
    assert "signal 9" in shown["failure"]
    assert [r["status"] for r in shown["requests"]][:3] == ["ok"] * 3
    assert shown["conditions"]["ended_by"] is None
    assert bench.no_leftovers()
