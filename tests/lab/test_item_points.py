"""Workloads whose items name points, or are asked again and again, on the whole road with the real model."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny_llama
from cli import Bench
from test_run import WATTS, made_machine  # noqa: F401  (the fixture of a machine with a known power)

pytestmark = pytest.mark.engine
FAST = ("--set", "idle_s=0.3", "--set", "gate_timeout_s=0", "--set", "threads=1")


def measured(run: dict[str, Any]) -> dict[tuple[str, str, str], Any]:
    return {(m["phase"], m["name"], m["stat"]): m for m in run["measures"] if m["source"] in ("", "total")}


@pytest.mark.usefixtures("default_model")
def test_points_that_items_name_have_rates_accuracy_and_energy_of_their_own(
    bench: Bench,
    made_machine: str,  # noqa: F811
) -> None:
    short, long = (
        "The capital of France is the city of",
        "One, two, three. " * 20 + "The capital of France is the city of",
    )
    items = [
        {"id": f"{point}{n}", "prompt": prompt, "answer": "Paris", "point": point, "max_tokens": 8}
        for n in range(2)
        for point, prompt in (("short", short), ("long", long))
    ]
    (bench.home / "depths.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (run,) = bench.json("run", "--device", made_machine, "--workload", "depths.jsonl", *FAST)
    found = measured(run)
    requests = [r for r in run["requests"] if r["role"] == "timed"]
    for point in ("short", "long"):
        mine = [r for r in requests if r["point"] == point]
        assert len(mine) == 2
        took = sum(r["e2e_s"] for r in mine)
        assert found[point, "energy_j", "value"]["value"] == pytest.approx(WATTS * took, rel=0.2)
        assert found[point, "accuracy", "mean"]["n"] == 2
        assert found[point, "prefill_tps", "median"]["value"] > 0
    assert found["long", "ttft_s", "median"]["value"] > found["short", "ttft_s", "median"]["value"]
    assert ("run", "ttft_s", "median") not in found


def test_questions_asked_again_tell_how_often_the_answer_was_another(bench: Bench) -> None:
    model = str(tiny_llama.write(bench.home / "tiny.gguf"))
    (run,) = bench.json("run", "--model", model, "--workload", "bias", "--set", "n_items=3", "--set", "repeat=4", *FAST)
    found = measured(run)
    assert {s["extracted"] for s in run["scores"]} <= {"A", "B", "C"}
    assert found["run", "unparsed", "mean"]["value"] == 0
    assert found["run", "accuracy", "mean"]["method"] == "letter; 3 questions"
    by_item: dict[str, list[str]] = {}
    for score in run["scores"]:
        by_item.setdefault(score["item"], []).append(score["extracted"])
    assert {len(letters) for letters in by_item.values()} == {4}
    shares = [sum(one != letters[0] for one in letters) / 3 for letters in by_item.values()]
    assert found["run", "answer_flip_rate", "mean"]["value"] == pytest.approx(sum(shares) / 3)
    assert found["run", "accuracy_drift_per_pass", "slope"]["n"] == 3
