"""The runner mlc-tvm: a library that Apache TVM compiled is executed for real, on the whole road."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
from cli import Bench, heed_interrupts
from jsoncheck import NAMED, problems
from mlc_kit import Quiet, Reference, asker
from test_engines import found
from tokenizers import Tokenizer

from meltbench import models
from meltbench.errors import BuildFailed, UserError
from meltbench.models.mlc.build import CONFIG, LIBRARY, Built, build
from meltbench.models.mlc.quantise import packed, unpacked
from meltbench.models.mlc.weights import GgufSource
from meltbench.models.mlc.words import TOKENIZER

pytestmark = pytest.mark.engine
CHATML = {
    "system_template": "{system_message}",
    "system_message": "",
    "roles": {"user": "u:", "assistant": "a:"},
    "seps": ["."],
    "system_prefix_token_ids": [1],
    "stop_token_ids": [2],
}


def building(*words: str) -> subprocess.Popen[str]:
    """The command, in a process of its own."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    argv = [sys.executable, "-m", "meltbench", "models", "build-mlc", *words]
    return subprocess.Popen(argv, **pipes, start_new_session=True, preexec_fn=heed_interrupts)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Built]:
    """The tiny model as a GGUF, and in MLC's form."""
    folder = tmp_path_factory.mktemp("mlc")
    gguf = tiny_llama.write(folder / "tiny.gguf")
    process = building(str(gguf), str(folder / "tiny-mlc"), "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.startswith("compiling for")
    assert problems(NAMED["model built in MLC's form"], json.loads(out)) == []
    return gguf, folder / "tiny-mlc", Built(**json.loads(out))


def given(folder: Path, **more: Any) -> Any:
    return asker().arguments(["--model", str(folder), "--asks", "-", *(f"--{k}={v}" for k, v in more.items())])


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_what_is_built_says_what_it_is(tiny: tuple[Path, Path, Built]) -> None:
    gguf, folder, built = tiny
    assert built.messages is False  # the tiny model has no chat template
    assert (built.descends_from, built.bits_per_weight) == (None, 32.0)
    assert (built.folder, built.source, built.quantisation) == (str(folder), str(gguf), "q0f32")
    assert built.n_params == GgufSource(gguf).shape.n_params
    found = models.resolve(str(folder), ("mlc",))
    assert (found.format, found.size_bytes) == ("mlc", built.bytes)
    assert {one.name for one in folder.iterdir()} >= {LIBRARY, CONFIG, TOKENIZER, "tensor-cache.json"}
    assert not [one for one in folder.parent.iterdir() if one.name.startswith(".")]


def test_the_compiled_library_computes_what_numpy_does(tiny: tuple[Path, Path, Built]) -> None:
    gguf, folder, _ = tiny
    reference, model = Reference(gguf), asker().Model(given(folder, **{"ctx-size": 100, "chunk": 7}))
    tokens = [1, *np.random.default_rng(1).integers(3, 286, 40).tolist()]
    assert model.chunk == 7
    assert np.abs(model.logits(tokens) - reference.logits(tokens)).max() < 2e-5
    assert model.held == tokens
    # A token at a time comes to the same, and so does what follows a beginning that was kept.
    assert np.abs(model.logits([7]) - reference.logits([*tokens, 7])).max() < 2e-5
    model.keep(30)
    again = [*tokens[:30], 9, 8]
    assert np.abs(model.logits([9, 8]) - reference.logits(again)).max() < 2e-5
    model.keep(0)
    assert np.abs(model.logits([5]) - reference.logits([5])).max() < 2e-5


def test_a_quantised_library_computes_with_the_weights_that_are_left(
    tiny: tuple[Path, Path, Built], tmp_path: Path
) -> None:
    gguf, _, _ = tiny
    watch = Quiet()
    built = build(gguf, tmp_path / "q4", "q4f32_1", watch)
    stored = round(built.bits_per_weight * built.n_params / 8)
    assert watch.said[-1] == f"writing the weights {stored} {stored}"
    assert built.bits_per_weight == pytest.approx(5, abs=0.1)  # 4 bits, and 32 of a scale for each 32 weights
    reference = Reference(gguf)
    for name, values in reference.weights.items():
        if values.ndim == 2:
            reference.weights[name] = unpacked(*packed(values.astype(np.float32))).astype(np.float64)
    model = asker().Model(given(tmp_path / "q4"))
    tokens = [1, 200, 30, 17, 99]
    assert np.abs(model.logits(tokens) - reference.logits(tokens)).max() < 2e-5


def test_a_run_counts_every_token_and_answers_what_numpy_does(tiny: tuple[Path, Path, Built], bench: Bench) -> None:
    gguf, folder, _ = tiny
    items = [{"id": "a", "prompt": "ab c"}, {"id": "b", "prompt": "cab" * 200}]
    (bench.home / "two.jsonl").write_text("".join(json.dumps(one | {"max_tokens": 12}) + "\n" for one in items))
    (run,) = bench.json(
        *("run", "--runner", "mlc-tvm", "--model", str(folder), "--workload", "two.jsonl", "--set", "idle_s=0.3")
    )
    assert run["outcome"] == "done"
    assert (run["runner"]["mode"], run["runner"]["accelerator"]) == ("in-process", "CPU")
    assert (run["model"]["bits_per_weight"], run["model"]["architecture"]) == (32.0, "llama")
    words = Tokenizer.from_file(str(folder / TOKENIZER))
    reference = Reference(gguf)
    for request in run["requests"]:
        prompt = words.encode(next(one["prompt"] for one in items if one["id"] == request["item"])).ids
        assert request["status"] == "ok", request
        assert (request["n_in"], request["n_cached"]) == (len(prompt), 0)
        made = reference.greedy(prompt, request["n_out"], set())
        assert request["stop_reason"] == "limit"
        told = asker().Text(asker().Words(folder, {}))
        assert request["answer"] == "".join(told.add(one) for one in made)
    assert {r["n_in"] for r in run["requests"]} == {6, 602}  # the second one in two chunks of 512
    medians = found(run)
    assert medians["run", "inprocess_decode_tps"]["value"] > 0
    assert medians["run", "inprocess_ttft_s"]["value"] > 0


def test_a_library_may_lie_elsewhere(tiny: tuple[Path, Path, Built], tmp_path: Path) -> None:
    folder = copied(tiny[1], tmp_path / "m")
    (folder / LIBRARY).rename(tmp_path / "elsewhere.so")
    model = asker().Model(given(folder, library=tmp_path / "elsewhere.so"))
    assert model.logits([1, 5]).shape == (286,)


def test_a_grid_has_its_tokens_and_depths(tiny: tuple[Path, Path, Built], bench: Bench) -> None:
    (run,) = bench.json(
        *("run", "--runner", "mlc-tvm", "--model", str(tiny[1]), "--workload", "grid"),
        *("--set", "points=pp40,tg4,tg4@d20", "--set", "repeat=2", "--set", "idle_s=0.3", "--set", "chunk=16"),
    )
    timed = [r for r in run["requests"] if r["role"] == "timed"]
    assert {(r["item"], r["n_in"], r["n_cached"], r["n_out"]) for r in timed} == {
        ("pp40", 40, 0, 0),
        ("tg4", 1, 0, 4),
        ("tg4@d20", 21, 20, 4),
    }
    assert len(timed) == 6


def refused(bench: Bench, folder: Path, *more: str, workload: str = "two.jsonl") -> str:
    """The one line that a run of a model's folder fails with."""
    (bench.home / "two.jsonl").write_text('{"prompt": "ab", "max_tokens": 2}\n')
    words = ("run", "--runner", "mlc-tvm", "--model", str(folder), "--workload", workload, "--set", "idle_s=0.2")
    done = bench.run(*words, *more)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def damaged(name: str, folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    match name:
        case "no library":
            (folder / LIBRARY).unlink()
        case "two libraries":
            shutil.copy(folder / LIBRARY, folder / "other.so")
        case "of another machine":
            head = bytearray((folder / LIBRARY).read_bytes())
            head[18:20] = struct.pack("<H", 243)
            (folder / LIBRARY).write_bytes(head)
        case "no library of Linux":
            (folder / LIBRARY).write_bytes(b"MZ" + b"\0" * 100)
        case "half a library":
            (folder / LIBRARY).write_bytes((folder / LIBRARY).read_bytes()[:5000])
        case "weights of another model":
            table = json.loads((folder / "tensor-cache.json").read_text())
            table["records"][0]["records"][0]["name"] = "model.other.weight"
            (folder / "tensor-cache.json").write_text(json.dumps(table))
        case "no weights":
            (folder / "tensor-cache.json").unlink()
        case "a small vocabulary":
            (folder / CONFIG).write_text(json.dumps(config | {"vocab_size": 100}))
        case "no tokenizer":
            (folder / TOKENIZER).unlink()
        case "an odd tokenizer":
            (folder / TOKENIZER).write_text("{}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no library", "holds no library (*.so)"),
        ("two libraries", "leave one there"),
        ("of another machine", "lib.so is compiled for riscv64, this machine is"),
        ("no library of Linux", "lib.so is no library of Linux"),
        ("half a library", "lib.so is cut short"),
        ("weights of another model", "the weights have no model."),
        ("no weights", "holds no tensor-cache.json"),
        ("a small vocabulary", "the vocabulary has 100"),
        ("no tokenizer", "holds no tokenizer.json"),
        ("an odd tokenizer", "mlc-tvm: "),
    ],
)
def test_a_folder_that_is_not_whole_is_one_line(
    tiny: tuple[Path, Path, Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    folder = copied(tiny[1], tmp_path / "m")
    damaged(name, folder)
    asks = tmp_path / "asks.json"
    ask = {"file": "0", "n_out": 2, "ignore_eos": True, "keep_cache": False, "tokens": None, "messages": None}
    asks.write_text(json.dumps([ask | {"prompt": "ab"}]))
    script = asker()
    monkeypatch.setattr(script.sys, "argv", ["ask.py", "--model", str(folder), "--asks", str(asks)])
    with pytest.raises(SystemExit) as ended:
        script.main()
    said = str(ended.value)
    assert said.startswith("mlc-tvm: ")
    assert words in said
    assert "\n" not in said


def test_what_fails_in_the_engine_is_stored_with_its_words(
    tiny: tuple[Path, Path, Built], tmp_path: Path, bench: Bench
) -> None:
    folder = copied(tiny[1], tmp_path / "m")
    said = refused(bench, folder, workload="chat")
    assert "no conv_template in mlc-chat-config.json" in said
    (folder / "params_shard_0.bin").write_bytes(b"short")
    said = refused(bench, folder)
    assert "params_shard_0.bin has 5 bytes" in said
    assert "model_damaged" in said
    again = copied(tiny[1], tmp_path / "again")
    (again / LIBRARY).write_bytes((again / LIBRARY).read_bytes()[:5000])  # to load it would be a bus error
    assert "model_damaged" in refused(bench, again)


def test_messages_are_asked_by_the_folders_own_template(tiny: tuple[Path, Path, Built], tmp_path: Path) -> None:
    folder = copied(tiny[1], tmp_path / "m")
    config = json.loads((folder / CONFIG).read_text())
    words = asker().Words(folder, config | {"conv_template": CHATML})
    ask = {"tokens": None, "prompt": None, "messages": [{"role": "user", "content": "ab"}]}
    tokens = words.tokens(ask)
    assert tokens[0] == 1
    assert tokens.count(1) == 1
    assert words.tokenizer.decode(tokens) == "u:ab.a:"
    assert words.ends == {2}


def test_an_answer_grows_by_whole_characters(tiny: tuple[Path, Path, Built]) -> None:
    words = asker().Words(tiny[1], {})
    tokens = words.tokenizer.encode("a \u20ac b", add_special_tokens=False).ids
    told = asker().Text(words)
    pieces = [told.add(one) for one in tokens]
    assert "".join(pieces) == "a \u20ac b"
    assert pieces.count("\u20ac") == 1
    odd = asker().Text(words)  # bytes that make no character are told as what they are not
    assert "".join(odd.add(3 + 0x80) for _ in range(9)).count("\ufffd") == 8


def test_a_build_that_cannot_be_leaves_nothing(tiny: tuple[Path, Path, Built], tmp_path: Path) -> None:
    gguf, folder, _ = tiny
    with pytest.raises(UserError, match="is there already"):
        build(gguf, folder, "q0f32", Quiet())
    with pytest.raises(UserError, match="known: q0f32, q4f32_1"):
        build(gguf, tmp_path / "x", "q8f16_0", Quiet())
    (tmp_path / "text.json").write_text("no tokenizer")
    with pytest.raises(UserError, match=r"text\.json is no tokenizer"):
        build(gguf, tmp_path / "x", "q0f32", Quiet(), tmp_path / "text.json")
    locked = tmp_path / "file"
    locked.write_text("")
    with pytest.raises((BuildFailed, UserError, OSError)):
        build(gguf, locked / "x", "q0f32", Quiet())
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "text.json"]


def test_ctrl_c_leaves_nothing_of_a_build(tiny: tuple[Path, Path, Built], tmp_path: Path) -> None:
    process = building(str(tiny[0]), str(tmp_path / "cut"))
    assert process.stderr is not None
    assert "compiling" in process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_the_default_model_is_cut_into_the_tokens_that_llama_cpp_cuts(default_model: Path, tmp_path: Path) -> None:
    """The prompts of both engines come to equal counts, by their own tokenizers."""
    from meltbench.models.mlc.tokenizer import tokenizer_json

    words = Tokenizer.from_str(tokenizer_json(GgufSource(default_model).says, str(default_model)))
    text = "Hello  world's 12345 caf\u00e9 \u4f60\u597d\n\n\tdef f(x): return x**2 <|im_end|>"
    assert words.decode(words.encode(text).ids, skip_special_tokens=False) == text
    assert words.encode("Hello  world's 123").tokens == [
        "Hello",
        "\u0120",
        "\u0120world",
        "'s",
        "\u0120",
        "1",
        "2",
        "3",
    ]
