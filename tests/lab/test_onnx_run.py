"""`meltbench run --runner onnx` on this machine: the whole road, the real runtime, a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli import QUICK, Bench
from onnx_kit import TINY, copied, need_runtime

from meltbench import runners
from meltbench.errors import MissingExtra
from meltbench.models.hashes import file_sha256
from meltbench.spec import digest

FAST = ("--set", "idle_s=0.3")
ONNX = ("--runner", "onnx", "--model", str(TINY))


@pytest.fixture(autouse=True)
def _runtime() -> None:
    need_runtime()


def timed(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in run["requests"] if one["role"] == "timed"]


def test_a_run_has_the_measures_that_a_run_of_llama_cpp_has(bench: Bench) -> None:
    (run,) = bench.json("run", *QUICK, *ONNX)
    assert (run["outcome"], run["validity"]) == ("done", "degraded")  # quick is not gated
    runner = run["runner"]
    assert (runner["engine"], runner["mode"], runner["accelerator"]) == ("onnxruntime-genai", "server", "CPU")
    assert ", onnxruntime " in runner["version"]
    values = {(m["name"], m["stat"]): m["value"] for m in run["measures"]}
    assert values["load_s", "value"] > 0
    assert values["peak_rss_bytes", "max"] > 10 << 20
    for name in ("ttft_s", "prefill_tps", "decode_tps", "engine_decode_tps", "tpot_s"):
        assert values[name, "median"] > 0, name
    assert {(one["status"], one["n_out"], one["count_source"]) for one in timed(run)} == {("ok", 16, "server")}
    assert run["model"]["file"] == "tiny-onnx"


def test_a_grid_is_asked_in_tokens_and_its_depths_are_true(bench: Bench) -> None:
    points = ("--set", "points=pp64,tg16,tg16@d64,pp32+tg8", "--set", "repeat=2")
    (run,) = bench.json("run", *FAST, *ONNX, "--workload", "grid", *points)
    assert {(one["item"], one["n_in"], one["n_cached"], one["n_out"], one["status"]) for one in timed(run)} == {
        ("pp64", 64, 0, 0, "ok"),
        ("tg16", 1, 0, 16, "ok"),
        ("tg16@d64", 65, 64, 16, "ok"),
        ("pp32+tg8", 32, 0, 8, "ok"),
    }
    assert all(one["ttft_s"] > 0 for one in timed(run))  # also where the first token has no text


def test_a_conversation_finds_what_was_said_before_in_the_cache(bench: Bench) -> None:
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, "abcd", strict=True)]
    folder = bench.home / "workloads"
    folder.mkdir()
    (folder / "items.jsonl").write_text(
        json.dumps({"id": "talk", "messages": [*turns, {"role": "user", "content": "e"}]}) + "\n"
    )
    (folder / "talk.toml").write_text(
        'title = "one talk"\nkind = "chat"\nversion = 1\nitems = "items.jsonl"\nidle_s = 0.3\nmax_tokens = 4\n'
        "warmup = 0\nrepeat = 1\n"
    )
    (run,) = bench.json("run", *ONNX, "--workload", "talk")
    n_cached = [(one["point"], one["n_in"], one["n_cached"], one["status"]) for one in timed(run)]
    # A turn is <|user|>a<|end|>\n, and <|assistant|> after the last one; each begins with all of the one before.
    assert n_cached == [("first_turn", 5, 0, "ok"), ("later_turns", 13, 5, "ok"), ("later_turns", 21, 13, "ok")]


def test_questions_whose_answers_end_at_certain_words_are_asked(bench: Bench) -> None:
    (bench.home / "sums.jsonl").write_text('{"question": "3 and 4?", "answer": "It is 7.\\n#### 7"}\n' * 2)
    sets = ("--set", "data=sums.jsonl", "--set", "shots=0", "--set", "max_tokens=8")
    (run,) = bench.json("run", *ONNX, "--workload", "gsm8k", *sets)
    assert run["outcome"] == "done"
    assert [(one["status"], one["detail"]) for one in timed(run)] == [("ok", "")] * 2


def test_a_sustained_run_asks_until_its_time_is_over(bench: Bench) -> None:
    (run,) = bench.json("run", *FAST, *ONNX, "--workload", "sustained", "--set", "limit_s=2", "--set", "max_tokens=64")
    assert run["outcome"] == "done"
    assert len(timed(run)) > 20


def test_the_provider_is_a_knob_and_one_that_is_not_there_is_said_in_a_line(bench: Bench) -> None:
    done = bench.run("run", *QUICK, *ONNX, "--set", "provider=cuda")
    assert done.returncode == 1
    assert "onnxruntime-genai: " in done.stderr + done.stdout
    refused = bench.run("run", *QUICK, *ONNX, "--set", "provider=cudda")
    assert (refused.returncode, "did you mean cuda" in refused.stderr) == (2, True)


def test_two_requests_at_a_time_and_a_gguf_are_refused_before_anything_is_started(bench: Bench, tmp_path: Path) -> None:
    several = bench.run("run", *ONNX, "--workload", "concurrency", "--set", "concurrency=1,2")
    assert (several.returncode, "answers one request at a time" in several.stderr) == (2, True)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    other = bench.run("run", "--runner", "onnx", "--model", str(tmp_path / "m.gguf"))
    assert other.returncode == 2
    assert "this engine takes a folder with genai_config.json" in other.stderr
    assert not list(bench.data.glob("runs/*"))


def test_a_damaged_model_is_a_failed_run_with_the_engines_words(bench: Bench, tmp_path: Path) -> None:
    model = copied(tmp_path / "cut")
    (model / "model.onnx").write_bytes(b"\xff" * 100)
    (run,) = bench.json("run", *QUICK, "--runner", "onnx", "--model", str(model), code=1)
    assert run["outcome"] == "failed"
    assert "onnxruntime-genai: " in run["failure_log"]


def test_the_hash_of_the_engine_covers_script_and_both_packages() -> None:
    recipe, found = runners.load("onnx")
    engine = runners.engine("onnx", recipe, found.path.parent, None)
    assert recipe.embedded is not None
    import onnxruntime
    import onnxruntime_genai

    libraries = [
        path
        for package in (onnxruntime_genai, onnxruntime)
        for path in sorted(Path(package.__file__).parent.rglob("*.so*"))
    ]
    names = {path.name.partition(".so")[0] for path in libraries}
    assert {"libonnxruntime", "libonnxruntime-genai"} <= names
    scripts = recipe.embedded.scripts(found.path.parent)
    assert engine.sha256 == digest([file_sha256(path) for path in (*scripts, *libraries)])


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, found = runners.load("onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"the engine package onnxruntime-genai is not installed") as missing:
        runners.engine("onnx", recipe, found.path.parent, None)
    assert str(missing.value.hint) == "pip install 'meltbench[onnx]'"
