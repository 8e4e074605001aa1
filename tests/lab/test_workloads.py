"""Chat, levels of concurrency, long answers and sustained runs with the real probe, engine and model."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cli import Bench
from engines_kit import in_process_env, stock_folder

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("default_model")]
SHORT = ("--set", "idle_s=0.3", "--set", "max_tokens=8")


def found(run: dict[str, Any]) -> dict[tuple[str, str, str], Any]:
    return {(m["phase"], m["name"], m["stat"]): m for m in run["measures"]}


def timed(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [r for r in run["requests"] if r["role"] == "timed"]


def start_of(talk: str) -> list[dict[str, str]]:
    """The first and the second of three turns of one conversation, about a thing of its own."""
    said = [f"I have a question about my {talk}. Where do I begin?", f"Look at the {talk} from all sides first."]
    said += ["I did that.", "Then clean it.", "And what comes after that?"]
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]


@pytest.mark.parametrize("stock", [False, True])
def test_a_conversation_is_carried_in_the_cache_and_another_one_is_not(bench: Bench, stock: bool) -> None:
    folder = bench.home / "workloads"
    folder.mkdir()
    (folder / "talks.toml").write_text('title = "t"\nversion = 1\nkind = "chat"\nitems = "talks.jsonl"\nrepeat = 2\n')
    lines = [json.dumps({"id": talk, "messages": start_of(talk)}) + "\n" for talk in ("kettle", "violin")]
    (folder / "talks.jsonl").write_text("".join(lines))
    engine = ("--engine", str(stock_folder())) if stock else ()
    (run,) = bench.json("run", *SHORT, "--workload", "talks", *engine)
    assert run["outcome"] == "done"
    assert [r["role"] for r in run["requests"]] == ["warmup"] + ["timed"] * 12
    before = 0
    for request in timed(run):
        talk, _, turn = request["item"].partition("/")
        assert talk in ("kettle", "violin")
        if turn == "1":  # asked again in the second pass, and still not from the cache
            assert (request["n_cached"], request["point"]) == (0, "first_turn")
        else:
            # All of the turn before but the template's last tokens, at most the whole of it and what was answered.
            assert before - 8 <= request["n_cached"] <= before + 8
            assert request["n_cached"] < request["n_in"]
            assert request["point"] == "later_turns"
        before = request["n_in"]
    by_turn = Counter((r["item"], r["n_in"]) for r in timed(run))
    assert set(by_turn.values()) == {2}  # what the engine answered is in no history
    got = found(run)
    assert got["first_turn", "ttft_s", "median"]["n"] == 4
    assert got["later_turns", "ttft_s", "median"]["n"] == 8
    assert got["run", "decode_tps", "median"]["n"] == 12
    assert ("run", "ttft_s", "median") not in got
    said = bench.run("show", "last").stdout
    assert "first_turn" in said
    assert "@" in said


def test_the_chat_preset_gives_tokens(bench: Bench) -> None:
    (run,) = bench.json("run", *SHORT, "--workload", "chat", "--runner", "llamacpp")
    assert run["outcome"] == "done"
    assert {r["n_out"] for r in timed(run)} == {8}
    assert len(timed(run)) == 19


@pytest.mark.parametrize("stock", [False, True])
def test_levels_share_one_engine_whose_slots_hold_every_prompt_whole(bench: Bench, stock: bool) -> None:
    engine = ("--engine", str(stock_folder())) if stock else ()
    levels = ("--set", "concurrency=1,3", "--set", "repeat=1")
    (run,) = bench.json("run", *SHORT, "--workload", "concurrency", *levels, *engine)
    assert run["outcome"] == "done"
    asked = timed(run)
    assert Counter(r["point"] for r in asked) == {"c1": 5, "c3": 5}
    assert [r["role"] for r in run["requests"]].count("warmup") == 3
    assert {r["status"] for r in run["requests"]} == {"ok"}
    lengths = {r["item"]: {q["n_in"] for q in asked if q["item"] == r["item"]} for r in asked}
    assert all(len(seen) == 1 for seen in lengths.values())  # no level's slots cut a prompt
    assert most_at_a_time([r for r in asked if r["point"] == "c1"]) == 1
    assert most_at_a_time([r for r in asked if r["point"] == "c3"]) == 3
    log = (Path(run["stored"]) / "evidence" / "job").read_text()
    assert "--parallel 3 " in log
    assert f"--ctx-size {run['knobs']['ctx'] * 3} " in log
    got = found(run)
    for level in ("c1", "c3"):
        assert got[level, "output_tps", "value"]["value"] > 0
        assert got[level, "ttft_s", "median"]["n"] == 5
    assert ("run", "decode_tps", "median") not in got
    with duckdb.connect(str(bench.data / "meltbench.duckdb"), read_only=True) as db:
        rows = db.sql("SELECT point, count(*) FROM requests WHERE role = 'timed' GROUP BY 1 ORDER BY 1").fetchall()
    assert rows == [("c1", 5), ("c3", 5)]
    assert "c3" in bench.run("show", "last").stdout


def most_at_a_time(requests: list[dict[str, Any]]) -> int:
    edges = sorted([(r["t_send_ns"], 1) for r in requests] + [(r["t_end_ns"], -1) for r in requests])
    depth = deepest = 0
    for _, step in edges:
        depth += step
        deepest = max(deepest, depth)
    return deepest


def test_a_prompt_longer_than_a_slots_context_is_a_failed_request(bench: Bench) -> None:
    path = bench.home / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "one two three " * 400}) + '\n{"prompt": "Hello"}\n')
    few = ("--set", "ctx=512", "--set", "concurrency=2", "--set", "warmup=0")
    (run,) = bench.json("run", *SHORT, "--workload", str(path), *few, code=1)
    statuses = {r["item"]: r["status"] for r in run["requests"]}
    assert statuses == {"line1": "http_400", "line2": "ok"}
    assert "request_failed" in {reason["code"] for reason in run["reasons"]}


def test_a_long_answer_tells_its_first_and_its_last_quarter(bench: Bench) -> None:
    one = ("--set", "max_tokens=300", "--set", "warmup=0", "--set", "idle_s=0.2")
    (run,) = bench.json("run", "--workload", "long", *one)
    got = found(run)
    first, last = (got["run", f"decode_tps_{end}", "median"] for end in ("first", "last"))
    assert (first["n"], last["n"]) == (3, 3)
    assert first["value"] > 0
    assert last["value"] > 0


def test_melts_conversations_rest_before_each_prompt_and_draw_their_tokens(bench: Bench) -> None:
    (run,) = bench.json("run", *SHORT, "--workload", "melt-conversation", "--set", "pause_s=0.3")
    assert run["outcome"] == "done"
    assert [r["role"] for r in run["requests"]] == ["timed"] * 34
    sent = sorted((r["t_send_ns"], r["t_end_ns"]) for r in run["requests"])
    assert min(after[0] - before[1] for before, after in pairwise(sent)) >= 300_000_000
    assert Counter(r["point"] for r in timed(run)) == {"first_turn": 5, "later_turns": 29}
    assert max(r["n_out"] for r in timed(run)) == 8  # or fewer: what ends is not made to go on
    assert found(run)["run", "wall_s", "value"]["value"] > 33 * 0.3
    # The best token is the same for every seed.
    (again,) = bench.json("run", *SHORT, "--workload", "melt-conversation", "--set", "pause_s=0", "--seed", "5")
    said, other = ({r["item"]: r["answer"] for r in timed(one)} for one in (run, again))
    assert said.keys() == other.keys()
    assert said != other
    assert "truncated_output" not in {reason["code"] for reason in run["reasons"]}


def test_an_engine_that_cannot_rest_or_draw_is_refused_before_anything_is_started(bench: Bench) -> None:
    bench.env |= in_process_env()
    done = bench.run("run", "--runner", "llama-cpp-python", "--workload", "melt-conversation", "--dry-run")
    assert done.returncode == 2
    assert "asks without a pause and takes the best token, melt-conversation has pause_s, temperature," in done.stderr


def test_melts_sustained_run_rests_in_its_circle(bench: Bench) -> None:
    asked = ("--workload", "melt-sustained", "--set", "pause_s=0.5", "--set", "limit_s=4")
    (run,) = bench.json("run", *SHORT, *asked)
    assert run["conditions"]["ended_by"] == "time: 4 s were over"
    sent = sorted((r["t_send_ns"], r["t_end_ns"]) for r in timed(run))
    assert len(sent) >= 2
    assert min(after[0] - before[1] for before, after in pairwise(sent)) >= 500_000_000


@pytest.mark.alone
def test_a_sustained_run_asks_in_a_circle_until_its_time_is_over(bench: Bench) -> None:
    (run,) = bench.json("run", *SHORT, "--workload", "sustained", "--set", "limit_s=12")
    assert run["outcome"] == "done"
    assert run["conditions"]["ended_by"] == "time: 12 s were over"
    items = [r["item"] for r in timed(run)]
    assert len(items) > 5
    assert items == (items[:5] * len(items))[: len(items)]
    assert {r["n_out"] for r in timed(run)} == {8}
    assert not {"request_failed", "truncated_output"} & {reason["code"] for reason in run["reasons"]}
    got = found(run)
    assert got["run", "wall_s", "value"]["value"] > 11.5
    assert got["run", "requests_timed", "count"]["value"] == len(items)
    assert got["run", "throttle_retention", "value"]["reason"].startswith("short_run: ")
    assert "ended by   time: 12 s were over" in bench.run("show", "last").stdout


def machine(bench: Bench, soc: str = "80") -> tuple[Path, Path]:
    """A made /sys with two thermal zones and a battery; the names of a zone's and of the battery's file."""
    root = bench.home / "sys"
    texts = {
        "class/thermal/thermal_zone0/type": "board",
        "class/thermal/thermal_zone0/temp": "30000",
        "class/thermal/thermal_zone1/type": "cpu",
        "class/thermal/thermal_zone1/temp": "40000",
        "class/power_supply/BAT0/type": "Battery",
        "class/power_supply/BAT0/capacity": soc,
        "class/power_supply/mouse/type": "Battery",
        "class/power_supply/mouse/scope": "Device",
        "class/power_supply/mouse/capacity": "3",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    (bench.home / "devices").mkdir(exist_ok=True)
    (bench.home / "devices" / "made.toml").write_text(f'inherits = "local"\n[roots]\nsys = "{root}"\n')
    return root / "class/thermal/thermal_zone1/temp", root / "class/power_supply/BAT0/capacity"


@pytest.mark.parametrize(
    ("setting", "victim", "text", "said"),
    [
        ("limit_temp_c=85", 0, "85000", "temperature: thermal_zone1 had 85 degC"),
        ("limit_soc_percent=20", 1, "20", "battery: BAT0 was down to 20 %"),
    ],
)
def test_heat_or_an_empty_battery_ends_a_sustained_run(
    bench: Bench, setting: str, victim: int, text: str, said: str
) -> None:
    path = machine(bench)[victim]
    asked = ("--workload", "sustained", "--device", "made", "--set", setting, "--set", "limit_s=60", "--json")
    controller = bench.start("run", *SHORT, *asked)
    state = bench.wait_for(lambda s: s.get("limit_ms") == 60_000 and int(s.get("done", 0)) >= 2)
    assert 0 < state["elapsed_ms"] < 60_000
    path.write_text(text + "\n")
    out, err = controller.communicate(timeout=60)
    assert controller.returncode == 0, err
    (run,) = json.loads(out)
    assert run["conditions"]["ended_by"] == said
    assert run["outcome"] == "done"
    assert found(run)["run", "wall_s", "value"]["value"] < 55


def test_a_limit_that_holds_already_is_told_and_no_tokens_are_claimed(bench: Bench) -> None:
    machine(bench, soc="12")
    asked = ("--workload", "sustained", "--device", "made", "--set", "limit_soc_percent=20")
    (run,) = bench.json("run", *SHORT, *asked, code=1)
    assert "a limit was reached before the first request" in run["failure"]
    assert run["conditions"]["ended_by"] == "battery: BAT0 was down to 12 %"


@pytest.mark.parametrize(
    ("setting", "said"), [("limit_temp_c=85", "thermal zone"), ("limit_soc_percent=20", "battery")]
)
def test_a_limit_that_the_device_cannot_reach_is_refused(bench: Bench, setting: str, said: str) -> None:
    (bench.home / "sys").mkdir()
    (bench.home / "devices").mkdir()
    (bench.home / "devices" / "bare.toml").write_text(f'inherits = "local"\n[roots]\nsys = "{bench.home / "sys"}"\n')
    done = bench.run("run", *SHORT, "--workload", "sustained", "--device", "bare", "--set", setting)
    assert done.returncode == 2
    assert f"bare has no {said}" in done.stderr
    assert not bench.jobs()
    assert bench.json("runs") == []


def test_a_stop_in_a_circle_keeps_what_was_answered(bench: Bench) -> None:
    controller = bench.start("run", *SHORT, "--workload", "sustained", "--set", "limit_s=600")
    bench.answering(3)
    controller.terminate()
    controller.communicate(timeout=60)
    shown = bench.json("show", "last")
    assert shown["outcome"] == "stopped"
    assert shown["conditions"]["ended_by"] is None
    assert sum(r["status"] == "ok" for r in timed(shown)) >= 2
    assert bench.no_leftovers()
