"""A quantisation of the default model that was made here, run by the real engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli import QUICK, Bench

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def test_a_requantised_model_is_run_and_its_record_says_what_it_was(
    bench: Bench, default_model: Path, tmp_path: Path
) -> None:
    bench.env["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    command = ("models", "quantize", "smollm2-135m-q4", "--type", "Q4_0", "--out", str(tmp_path), "--json")
    done = bench.run(*command)
    assert done.returncode == 0, done.stderr
    (made,) = json.loads(done.stdout)
    assert (made["name"], made["requantised"], made["kept"], made["fell_back"]) == (
        "smollm2-135m-q4_1-q4_0",
        211,
        61,
        0,
    )
    assert made["bits_per_weight"] == pytest.approx(4.507, abs=1e-3)
    (run,) = bench.json("run", "--model", made["name"], *QUICK)
    assert run["outcome"] == "done"
    model = run["model"]
    assert (model["name"], model["sha256"], model["quantisation"]) == (made["name"], made["sha256"], "Q4_0")
    assert model["descends_from"] == made["descends_from"]
    assert model["descends_from"].startswith("smollm2-135m-q4_1 (Q4_1, sha256 b179c9523d0e")
    assert model["bits_per_weight"] == made["bits_per_weight"]
    assert all(one["n_out"] == 16 for one in run["requests"])
