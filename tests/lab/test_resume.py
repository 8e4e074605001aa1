"""A set of questions asked in parts by a real engine: stopped, killed, taken up again, and together one whole."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from cli import Bench

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("default_model")]
FAST = ("--set", "idle_s=0.3", "--set", "threads=1")
SMOKE = ("--workload", "smoke", "--set", "n_items=6", "--set", "pause_s=0.2", *FAST)


def scores(*runs: dict[str, Any]) -> dict[str, tuple[float, str]]:
    """What each item came to; of none there are two scores."""
    found = [s for run in runs for s in run["scores"] if s["correct"] is not None]
    assert len({s["item"] for s in found}) == len(found)
    return {s["item"]: (s["correct"], s["extracted"]) for s in found}


def stored(bench: Bench) -> list[dict[str, Any]]:
    folders = sorted(path.parent.name for path in bench.data.glob("runs/*/manifest.json"))
    return [json.loads(bench.run("show", run_id, "--json").stdout) for run_id in folders]


def test_what_a_stopped_run_answered_is_kept_and_the_rest_asked_later(bench: Bench) -> None:
    begun = bench.start("run", *SMOKE, "--resume")
    bench.answering(2)
    begun.send_signal(signal.SIGTERM)  # as Ctrl-C twice does
    _, err = begun.communicate(timeout=60)
    assert begun.returncode == 130, err
    (stopped,) = stored(bench)
    assert (stopped["outcome"], stopped["validity"]) == ("stopped", "invalid")
    kept = scores(stopped)
    n, left = len(kept), 6 - len(kept)
    assert 1 <= n < 6
    assert f"{n} of 6 items are scored, --resume asks the rest" in err

    done = bench.run("run", *SMOKE, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert f"{n} of 6 items were scored before in 1 run; asking {left}" in done.stderr
    (rest,) = json.loads(done.stdout)
    assert rest["cell_key"] == stopped["cell_key"]
    assert rest["conditions"]["piece"] == {"items": left, "of": 6, "before": n, "runs": [stopped["run_id"]]}
    assert [r["state"] for r in rest["reasons"] if r["code"] == "piece"] == ["valid"]
    both = scores(stopped, rest)
    ids = (stopped["run_id"], rest["run_id"])
    assert f"all 6 items are scored; together: meltbench intelligence {' '.join(ids)}" in done.stderr

    again = bench.run("run", *SMOKE, "--resume", "--json")
    assert (again.returncode, json.loads(again.stdout)) == (0, [])
    assert "all 6 items are scored" in again.stderr
    (whole,) = bench.json("run", *SMOKE)
    assert whole["cell_key"] == rest["cell_key"]
    assert both == scores(whole)
    parts, part = (json.loads(bench.run("intelligence", *of, "--json").stdout)[0] for of in (ids, ids[1:]))
    (accuracy,) = [m["value"] for m in whole["measures"] if m["name"] == "accuracy"]
    assert (parts["n_items"], parts["numbers"][0]["value"]) == (6, pytest.approx(accuracy))
    assert f"piece: {left} of 6 items were asked; meltbench run --resume asks the rest" in part["flags"]
    assert not any(flag.startswith("piece:") for flag in parts["flags"])

    # A device, here this machine again, is asked a few of them and takes the accuracy over from both runs.
    (device,) = bench.json("run", *SMOKE, "--set", "subset=3")
    joined = [word for run_id in ids for word in ("--accuracy", run_id)]
    (found,) = json.loads(bench.run("intelligence", device["run_id"], *joined, "--json").stdout)
    told = found["inherited"]
    assert (found["origin"], found["accuracy_runs"], told["n_shared"], told["drawn"]) == ("inherited", [*ids], 3, True)
    assert (told["changed"], told["gained"], told["lost"]) == (0, 0, 0)
    assert told["bound"] == pytest.approx(1 - 0.05 ** (1 / 3))
    assert found["numbers"][0]["value"] == pytest.approx(accuracy)


def test_pieces_of_choices_are_one_whole_though_the_controller_is_killed(bench: Bench) -> None:
    prompt, choices = "One, two, three, four, five,", ["elephant, chair,", "six, seven,"]
    items = [{"id": f"q{n}", "prompt": prompt, "choices": choices, "answer": n % 2} for n in range(4)]
    (bench.home / "q.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    words = ("--workload", "q.jsonl", "--resume", "--piece", "3", *FAST)
    begun = bench.start("run", *words)
    bench.answering(1)
    begun.kill()
    begun.communicate()
    assert bench.run("collect").returncode == 0
    (first,) = stored(bench)
    assert len(scores(first)) == 3
    (second,) = bench.json("run", *words)
    assert second["conditions"]["piece"] == {"items": 1, "of": 4, "before": 3, "runs": [first["run_id"]]}
    assert second["cell_key"] == first["cell_key"]
    both = scores(first, second)
    assert {item: correct for item, (correct, _) in both.items()} == {f"q{n}": float(n % 2) for n in range(4)}
    assert bench.json("run", *words) == []
