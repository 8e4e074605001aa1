"""A mixture of experts, really run: with its experts kept off the GPU and under a limit of memory, by both servers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiny_llama
from cli import Bench
from engines_kit import stock_folder

pytestmark = pytest.mark.engine
ONE = ("--workload", "quick", "--set", "n_items=1", "--set", "max_tokens=16", "--set", "idle_s=0.2")
KNOBS = ("--set", "threads=1", "--set", "n_cpu_moe=1", "--set", "load_mode=mlock", "--set", "memory_mib=1500")


def value(run: dict[str, Any], name: str) -> float:
    return next(float(m["value"]) for m in run["measures"] if m["name"] == name and m["value"] is not None)


@pytest.mark.parametrize("stock", [False, True])
def test_a_mixture_of_experts_runs_with_its_knobs_and_its_record_names_them(bench: Bench, stock: bool) -> None:
    model = tiny_llama.write(bench.home / "experts.gguf", experts=4)
    engine = ("--engine", str(stock_folder())) if stock else ()
    (run,) = bench.json("run", "--model", str(model), *ONE, *KNOBS, *engine)
    assert run["outcome"] == "done"
    assert value(run, "decode_tps") > 0
    knobs = {name: run["knobs"][name] for name in ("n_cpu_moe", "load_mode", "override_tensor", "memory_mib")}
    assert knobs == {"n_cpu_moe": 1, "load_mode": "mlock", "override_tensor": "none", "memory_mib": 1500}


def test_a_buffer_that_the_engine_does_not_have_ends_the_run_in_its_own_words(bench: Bench) -> None:
    model = tiny_llama.write(bench.home / "experts.gguf", experts=4)
    wrong = ("--set", "override_tensor=blk.*=Nowhere", "--engine", str(stock_folder()))
    done = bench.run("run", "--json", "--model", str(model), *ONE, "--set", "threads=1", *wrong)
    assert done.returncode != 0
    (run,) = json.loads(done.stdout)
    assert run["outcome"] == "failed"
    assert "unknown buffer type" in run["failure_log"]
    assert "Traceback" not in done.stderr
