"""How good a real model's answers are, through a real llama.cpp: over its server, and by its own llama-perplexity."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli import Bench
from engines_kit import stock_folder
from shared import shared
from test_run import WATTS, made_machine  # noqa: F401  (the fixture of a machine with a known power)

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("default_model")]
FAST = ("--set", "idle_s=0.3", "--set", "threads=1")
TEXT = Path(__file__).parents[2] / "LICENSE"  # of our texts the one that never changes
# Endings of which one is far likelier than the others, whatever rounds a logit.
CHOICES = [
    ("The capital of France is the city of", ["Paris.", "concrete.", "seventeen."], 0),
    ("One, two, three, four, five,", ["elephant, chair,", "six, seven,", "because of,"], 1),
    ("The sun rises in the", ["east and sets in the west.", "refrigerator door handle.", "of of of of the the."], 0),
    ("She was thirsty, so she drank a glass of", ["granite.", "parliament.", "water."], 2),
]


def measured(run: dict[str, Any], phase: str = "run") -> dict[str, Any]:
    return {m["name"]: m for m in run["measures"] if m["phase"] == phase}


def asked(bench: Bench, items: list[dict[str, Any]], name: str = "q.jsonl") -> str:
    (bench.home / name).write_text("".join(json.dumps(item) + "\n" for item in items))
    return name


def test_the_likeliest_choice_is_the_same_over_the_server_and_by_llama_perplexity(bench: Bench) -> None:
    items = [{"id": f"q{n}", "prompt": p, "choices": c, "answer": a} for n, (p, c, a) in enumerate(CHOICES)]
    items.append(items[0] | {"id": "wrong", "answer": 1})
    file = asked(bench, items)
    stock = ("--engine", str(stock_folder()))
    (served,) = bench.json("run", "--workload", file, *stock, *FAST)
    (native,) = bench.json("run", "--workload", file, "--runner", "llama-perplexity", *stock, *FAST)
    for run in (served, native):
        assert [(s["item"], s["correct"]) for s in run["scores"]] == [
            ("q0", 1.0), ("q1", 1.0), ("q2", 1.0), ("q3", 1.0), ("wrong", 0.0),
        ]  # fmt: skip
        accuracy = measured(run)["accuracy"]
        assert (accuracy["value"], accuracy["n"]) == (0.8, 5)
        assert accuracy["u_k2"] == pytest.approx(2 * (0.8 * 0.2 / 4) ** 0.5)
    names = measured(served)
    assert names["accuracy_per_token"]["value"] == names["accuracy_sum"]["value"] == 0.8
    # An item is one request, and its many tokens have no rate of their own.
    warm, *timed = served["requests"]
    assert (warm["role"], warm["n_cached"], [r["item"] for r in timed]) == ("warmup", 0, [one["id"] for one in items])
    assert {score["requests"] for score in served["scores"]} == {str(r["index"]) for r in timed}
    assert all(r["status"] == "ok" and r["e2e_s"] > 0 for r in served["requests"])
    assert not {"ttft_s", "decode_tps"} & set(names)
    assert {"load_s", "wall_s", "peak_rss_bytes"} <= set(names)
    (row,) = json.loads(bench.run("runs", "--json", "--last", "1").stdout)
    assert row["runner"] == "llama-perplexity"


def test_a_perplexity_is_that_of_llama_perplexity(bench: Bench) -> None:
    common = ("--workload", "wikitext-2", "--set", f"data={TEXT}", "--set", "chunk=256", "--set", "chunks=3")
    stock = ("--engine", str(stock_folder()))
    (served,) = bench.json("run", *common, *stock, *FAST)
    (native,) = bench.json("run", *common, "--runner", "llama-perplexity", *stock, *FAST)
    ours, theirs = (measured(run)["perplexity"] for run in (served, native))
    assert (ours["n"], theirs["n"]) == (3 * 127, 3 * 127)
    assert ours["value"] == pytest.approx(theirs["value"], rel=0.01)
    assert ours["u_k2"] == pytest.approx(theirs["u_k2"], rel=0.3)  # of three chunks
    for one, other in zip(served["scores"], native["scores"], strict=True):
        assert one["item"] == other["item"]
        assert one["value"] == pytest.approx(other["value"], rel=0.05)


def test_a_model_diverges_from_itself_by_nothing(bench: Bench) -> None:
    text = ("--workload", "wikitext-2", "--set", f"data={TEXT}", "--set", "chunk=128", "--set", "chunks=2")
    native = (*text, "--runner", "llama-perplexity", "--engine", str(stock_folder()), *FAST)
    (same,) = bench.json("run", *native, "--set", "reference=smollm2-135m-q4")
    names = measured(same)
    assert names["kl_divergence"]["value"] == pytest.approx(0, abs=1e-3)
    assert names["perplexity"]["n"] == names["kl_divergence"]["n"] == 2 * 63
    refused = bench.run("run", *text, "--set", "reference=smollm2-135m-q4")
    assert refused.returncode == 2
    assert "runner llamacpp holds no text against a model of reference; --runner llama-perplexity" in refused.stderr


def test_generated_answers_are_scored_in_the_run_that_times_them(bench: Bench) -> None:
    (run,) = bench.json("run", "--workload", "smoke", "--set", "n_items=4", *FAST)
    assert [s["gold"] for s in run["scores"]] == [
        {"capital": "Paris", "days": "7", "sum": "42", "opposite": "cold"}[s["item"]] for s in run["scores"]
    ]
    timed = {r["index"]: r for r in run["requests"] if r["role"] == "timed"}
    assert {int(s["requests"]) for s in run["scores"]} == set(timed)
    names = measured(run)
    assert names["accuracy"]["value"] >= 0.25  # it knows that Paris is the capital of France
    assert names["decode_tps"]["value"] > 0
    shown = bench.run("show", run["run_id"], "--no-plot").stdout
    assert re.search(r"^ *quality +accuracy +[\d.]+ ± [\d.]+ +mean, n = 4, match *$", shown, re.MULTILINE)


def test_a_letter_can_be_nothing_else(bench: Bench) -> None:
    rows = [
        {"question": "Which one is a fruit?", "choices": ["stone", "apple", "rope", "car"], "answer": 1, "subject": "x"}
    ]
    rows.append(rows[0] | {"subject": "y", "answer": 2})
    file = asked(bench, rows, "mmlu.jsonl")
    (run,) = bench.json("run", "--workload", "mmlu", "--set", f"data={file}", "--set", "shots=0", *FAST)
    assert all(r["answer"] in (" A", " B", " C", " D") and r["n_out"] <= 3 for r in run["requests"])
    assert [s["parsed"] for s in run["scores"]] == [True, True]
    assert measured(run)["unparsed"]["value"] == 0
    assert {m["phase"] for m in run["measures"] if m["name"] == "accuracy"} == {"run", "x", "y"}


def test_a_set_that_lacks_its_gold_is_refused_before_anything_starts(bench: Bench) -> None:
    file = asked(bench, [{"question": "3 + 4?"}], "gsm8k.jsonl")
    done = bench.run("run", "--workload", "gsm8k", "--set", f"data={file}", "--set", "shots=0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().endswith("gsm8k.jsonl, row 1: no field 'answer' (recipe gsm8k); it has question")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_hellaswag_is_within_one_item_of_llama_perplexity(bench: Bench) -> None:
    data = shared("datasets/hellaswag_val_0000-1999.txt")
    stock = stock_folder()
    (bench.home / "first.txt").write_text("\n".join(data.read_text().split("\n")[: 6 * 200]) + "\n")
    (model,) = Path.home().glob(".cache/meltbench/models/b179c952*/*.gguf")
    argv = [str(stock / "llama-perplexity"), "-m", str(model), "-f", str(bench.home / "first.txt")]
    native = subprocess.run(
        [*argv, "--hellaswag", "--hellaswag-tasks", "200", "-t", "1"],
        env={"LD_LIBRARY_PATH": str(stock)}, capture_output=True, text=True, timeout=700, check=True,
    )  # fmt: skip
    last = re.findall(r"^200\t([\d.]+)%", native.stdout, re.MULTILINE)
    common = ("--workload", "hellaswag", "--set", f"data={data}", "--set", "n_items=200", *FAST)
    (run,) = bench.json("run", *common, "--engine", str(stock), timeout=700)
    assert abs(measured(run)["accuracy_per_token"]["value"] * 200 - float(last[0]) * 2) <= 1.001


def test_intelligence_per_watt_and_joule_of_a_known_power_hold_the_right_value(
    bench: Bench,
    made_machine: str,  # noqa: F811
) -> None:
    (run,) = bench.json("run", "--device", made_machine, "--workload", "smoke", "--set", "n_items=8", *FAST)
    names = measured(run)
    right = names["accuracy"]["value"]
    assert right > 0  # of a model that knows nothing there is nothing to see here
    questions = [s for s in run["scores"] if s["correct"] is not None]
    mean_s = sum(s["latency_s"] for s in questions) / len(questions)
    truth = {"ipw_per_w": right / WATTS, "ipj_per_j": right / (WATTS * mean_s)}
    for name, true in truth.items():
        found = names[name]
        assert found["value"] == pytest.approx(true, rel=0.05)
        assert abs(found["value"] - true) <= found["u_k2"]
        assert (found["scope"], found["klass"], found["n"]) == ("soc", "B", 8)
        assert "95 % interval" in found["method"]
    assert names["j_per_question"]["value"] == pytest.approx(WATTS * mean_s, rel=0.05)
    assert names["net_ipj_per_j"]["value"] is None or names["net_ipj_per_j"]["value"] > names["ipj_per_j"]["value"]
    (told,) = json.loads(bench.run("intelligence", "last", "--json").stdout)
    by_name = {(row["name"], row["energy"]): row for row in told["numbers"]}
    for name, true in truth.items():
        row = by_name[name, "gross"]
        assert row["lo"] <= true <= row["hi"]
    assert told["origin"] == "generated"
