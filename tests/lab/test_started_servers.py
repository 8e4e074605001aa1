"""Recipes of servers that the user has installed, on the whole road, against a stand-in (tests/standin_server.py).

What is proved is our side of their documented interfaces: how they are started and asked, and how their answers are
read. No such engine can be had here, which their recipes say: checked = "contract".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cli import QUICK, Bench
from targets_kit import HERE

NAMES = ("mlc_llm", "vllm", "sglang", "ollama", "llamafile")


@pytest.fixture
def installed(bench: Bench) -> Bench:
    """A machine whose PATH has the stand-in under each of its names."""
    programs = bench.home / "bin"
    programs.mkdir()
    for name in NAMES:
        (programs / name).write_text(f"#!{sys.executable}\n{(HERE / 'standin_server.py').read_text()}")
        (programs / name).chmod(0o755)
    bench.env |= {"PATH": f"{programs}:/usr/bin:/bin", "STANDIN_SAW": str(bench.home / "saw")}
    return bench


def saw(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bench.home / "saw").read_text().splitlines()]


def value(run: dict[str, Any], name: str) -> dict[str, Any]:
    return next(
        m
        for m in run["measures"]
        if m["name"] == name and m["phase"] == "run" and m["stat"] in ("median", "value", "max")
    )


def mlc_model(folder: Path) -> Path:
    """A folder as MLC's gen_config and convert_weight leave it, without weights that mean anything."""
    model = folder / "smol-q4f16_1-MLC"
    model.mkdir()
    inner = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}
    config = {"model_type": "llama", "quantization": "q4f16_1", "vocab_size": 512, "context_window_size": 2048}
    (model / "mlc-chat-config.json").write_text(json.dumps(config | {"model_config": inner}))
    (model / "tensor-cache.json").write_text(json.dumps({"metadata": {"BitsPerParam": 4.5}, "records": []}))
    (model / "params_shard_0.bin").write_bytes(bytes(4096))
    return model


def test_mlc_is_started_and_asked_as_it_documents_and_its_own_rates_stand_beside_ours(installed: Bench) -> None:
    model = mlc_model(installed.home)
    sets = ("model_lib=/libs/smol.so", "device=vulkan", "mode=server", "overrides=context_window_size=1024;opt=O2")
    words = [word for one in sets for word in ("--set", one)]
    (run,) = installed.json("run", "--runner", "mlc", "--model", str(model), *QUICK, *words)
    assert run["outcome"] == "done", run["failure"]
    started, *asked = saw(installed)
    argv = started["argv"]
    port = argv[-1]
    assert argv == [
        *("serve", str(model), "--model-lib", "/libs/smol.so", "--device", "vulkan", "--mode", "server"),
        *("--overrides", "context_window_size=1024;opt=O2", "--enable-debug", "--host", "127.0.0.1", "--port", port),
    ]
    assert {one["asked"]["model"] for one in asked} == {str(model)}
    assert all(one["asked"]["debug_config"] == {"ignore_eos": True} for one in asked)
    assert (run["model"]["name"], run["model"]["bits_per_weight"]) == ("smol-q4f16_1-MLC", 4.5)
    timed = [r for r in run["requests"] if r["role"] == "timed"]
    assert {(r["n_in"], r["n_cached"], r["n_out"], r["count_source"]) for r in timed} == {(11, 0, 16, "server")}
    for request in timed:
        assert (request["engine_ttft_s"], request["engine_decode_tps"]) == (0.02, 200)
        assert (request["prefill_tps"], request["prefill_source"]) == (550, "engine")
        assert request["ttft_s"] > request["engine_ttft_s"]
        assert 0 < request["decode_tps"] < request["engine_decode_tps"]
    assert value(run, "load_s")["value"] > 0
    assert value(run, "peak_rss_bytes")["value"] > 0


def test_mlc_measures_a_grid_by_token_ids(installed: Bench) -> None:
    model = mlc_model(installed.home)
    words = ("--workload", "grid", "--set", "points=pp32,tg8", "--set", "repeat=1", "--set", "idle_s=0.3")
    (run,) = installed.json("run", "--runner", "mlc", "--model", str(model), *words)
    assert run["outcome"] == "done", run["failure"]
    assert all(isinstance(one["asked"]["prompt"], list) for one in saw(installed)[1:])
    timed = {r["item"]: r for r in run["requests"] if r["role"] == "timed"}
    assert (timed["pp32"]["n_in"], timed["tg8"]["n_out"]) == (32, 8)


@pytest.mark.parametrize(
    ("runner", "model", "argv", "field"),
    [
        ("vllm", "org/smol", ["serve", "org/smol", "--host", "127.0.0.1", "--port", "PORT"], "ignore_eos"),
        ("sglang", "org/smol", ["serve", "--model-path", "org/smol", "--host", "127.0.0.1", "--port"], "min_tokens"),
        ("ollama", "pulled:1b", ["serve"], None),
    ],
)
def test_other_servers_are_started_as_they_document(
    installed: Bench, runner: str, model: str, argv: list[str], field: str | None
) -> None:
    words = ("--set", "ctx=512", "--set", "concurrency=2", "--set", "repeat=1")
    (run,) = installed.json("run", "--runner", runner, "--model", model, *QUICK, *words)
    assert run["outcome"] == "done", run["failure"]
    started, *asked = saw(installed)
    assert started["argv"][: len(argv)] == [started["argv"][5] if word == "PORT" else word for word in argv]
    assert all((field in one["asked"]) == (field is not None) for one in asked) or field is None
    timed = [r for r in run["requests"] if r["role"] == "timed"]
    # What an engine was not made to do is not held against the run as if it were cut off, but it is told.
    assert {r["n_out"] for r in timed} == ({16} if field else {3})
    assert ("truncated_output" in {r["code"] for r in run["reasons"]}) == (field is None)
    rss = value(run, "peak_rss_bytes")
    assert (rss["value"], rss["reason"].split(":")[0]) == (None, "other_process")
    if runner == "ollama":
        assert started["env"]["OLLAMA_HOST"].startswith("127.0.0.1:")
        assert (started["env"]["OLLAMA_NUM_PARALLEL"], started["env"]["OLLAMA_CONTEXT_LENGTH"]) == ("2", "512")
        assert value(run, "load_s")["reason"].startswith("loaded_later: ollama serve loads a model")
        assert run["runner"]["version"] == "0.20.3"
    else:
        assert value(run, "load_s")["value"] > 0


@pytest.mark.usefixtures("default_model")
def test_llamafile_gets_a_gguf_file(installed: Bench) -> None:
    (run,) = installed.json("run", "--runner", "llamafile", *QUICK, "--threads", "1")
    assert run["outcome"] == "done", run["failure"]
    started, *asked = saw(installed)
    assert started["argv"][:3] == ["--server", "--nobrowser", "-m"]
    assert started["argv"][3].endswith(".gguf")
    assert asked[0]["asked"]["ignore_eos"] is True
    assert value(run, "peak_rss_bytes")["value"] > 0


def test_what_is_not_installed_and_a_model_that_is_not_served_are_told_in_a_line(installed: Bench) -> None:
    (installed.home / "bin/vllm").unlink()
    done = installed.run("run", "--runner", "vllm", "--model", "m", *QUICK)
    assert done.returncode == 2
    assert "runner vllm has no engine of its own, and no vllm is in PATH" in done.stderr
    done = installed.run("run", "--runner", "ollama", *QUICK)
    assert "runner ollama takes what its server has; --model NAME" in done.stderr
    (run,) = installed.json("run", "--runner", "ollama", "--model", "other", *QUICK, code=1)
    assert 'http_400: The requested model "other" is not served.' in run["failure"]
