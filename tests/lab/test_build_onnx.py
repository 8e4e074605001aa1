"""`meltbench models build-onnx`: with the real builder where torch is installed; its conduct with a stand-in for the
builder, which copies the tiny model."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from cli import heed_interrupts
from jsoncheck import NAMED, problems
from onnx_kit import HERE, TINY, Server, copied, need_runtime
from typer.testing import CliRunner

from meltbench.cli import building
from meltbench.errors import BuildFailed, MissingExtra, ModelDamaged, UserError
from meltbench.models.header import BUILT, read_header
from meltbench.models.onnx.build import Built, build
from meltbench.models.onnx.convert import PATTERNS, TEXTS, cutting

STAND_IN = {
    "torch/__init__.py": "",
    "transformers/__init__.py": "",
    "accelerate/__init__.py": "",
    "onnx_ir/__init__.py": "",
    "gguf/__init__.py": "",
    "safetensors/__init__.py": "",
    "tokenizers/__init__.py": """
class Tokenizer:
    from_file = classmethod(lambda cls, path: cls())
    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        self.ids = [1, len(text)]
        return self
""",
    "onnxruntime_genai/__init__.py": """
class Model:
    def __init__(self, path): pass
class Tokenizer:
    def __init__(self, model): pass
    def encode(self, text): return [2 if text == "Hello world" else 1, len(text)]
""",
    "onnxruntime_genai/models/__init__.py": "",
    "onnxruntime_genai/models/builder.py": """
import os, shutil, sys, time
said = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert os.environ["HF_HUB_OFFLINE"] == "1" and said["--extra_options"] == "hf_remote=false"
print("Reading decoder layer 0", flush=True)
how = open(os.path.join(said["-i"], "how")).read()
if how == "fail":
    print("a traceback")
    sys.exit("ValueError: this architecture is not supported")
if how == "wait":
    os.makedirs(said["-o"])
    open(os.path.join(said["-i"], "pid"), "w").write(str(os.getpid()))
    time.sleep(100)
shutil.copytree(os.environ["TINY"], said["-o"])
""",
}
SHAPES = {"a": [276, 160], "b": [16], "c": [2, 3, 4]}


class Told:
    """A watch that remembers."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say

    def fetched(self, done: int, total: int | None, what: str = "") -> None:
        """Nothing is fetched."""

    def step(self, status: dict[str, Any]) -> None:
        self.steps.append(status)


def source(folder: Path, how: str = "") -> Path:
    """A folder as Hugging Face has it, whose weights are all zero."""
    folder.mkdir()
    (folder / "config.json").write_text('{"num_hidden_layers": 2}')
    (folder / "tokenizer.json").write_text("{}")
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for key, shape in SHAPES.items():
        table[key] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at := at + 2 * math.prod(shape)]}
    head = json.dumps(table).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(at))
    (folder / "how").write_text(how)
    return folder


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "packages"
    for name, text in STAND_IN.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH"), str(HERE.parent)]))
    monkeypatch.setenv("PYTHONPATH", paths)
    monkeypatch.setenv("TINY", str(TINY))
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(folder)
    for name in {name.partition("/")[0] for name in STAND_IN}:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def test_the_folder_appears_whole_and_tells_what_it_descends_from(stand_in: Path, tmp_path: Path) -> None:
    watch, out = Told(), tmp_path / "made"
    built = build(str(source(tmp_path / "smol")), out, "int4", "cpu", watch)
    n_params = 276 * 160 + 16 + 24
    assert (built.n_params, built.precision, built.texts) == (n_params, "int4", len(TEXTS))
    assert built.differ == ("Hello world",)
    assert "the runtime splits 1 of 12 texts otherwise than its source does" in watch.lines
    assert {"state": "running", "op": "layers", "done": 1, "of": 2} in watch.steps
    assert json.loads((out / BUILT).read_text())["descends_from"].startswith("smol, sha256 ")
    header = read_header(out, "onnx-genai")
    assert (header.n_params, header.bits_per_weight) == (n_params, built.bits_per_weight)
    assert built.weights_bytes == sum(one.stat().st_size for one in TINY.glob("model.onnx*"))
    assert sorted(tmp_path.glob(".made*")) == []


def test_the_command_tells_it_in_json_and_in_lines(stand_in: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("other")(lambda: None)  # so that it is a group, as `meltbench models` is
    building.register(app)
    smol = str(source(tmp_path / "smol"))
    done = CliRunner().invoke(app, ["build-onnx", smol, str(tmp_path / "one"), "--precision", "fp32", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert problems(NAMED["model built"], told) == []
    assert (told["folder"], told["precision"]) == (str(tmp_path / "one"), "fp32")
    done = CliRunner().invoke(app, ["build-onnx", smol, str(tmp_path / "two")])
    lines = done.stdout.splitlines()
    assert lines[0] == str(tmp_path / "two")
    assert lines[1].startswith("  int4 for cpu, 0.1 MB, ")
    assert lines[2].startswith("  descends from smol, sha256 ")


def test_a_builder_that_fails_is_told_in_its_own_words_and_leaves_nothing(stand_in: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="layers: ValueError: this architecture is not supported") as failed:
        build(str(source(tmp_path / "smol", "fail")), tmp_path / "made", "int4", "cpu", Told())
    log = tmp_path / "cache/builds/logs/onnx.log"
    assert str(failed.value.hint) == f"the whole log is {log}"
    assert "a traceback" in log.read_text()
    assert not [one for one in tmp_path.iterdir() if "made" in one.name]


def test_ctrl_c_ends_the_builder_and_leaves_nothing(stand_in: Path, tmp_path: Path) -> None:
    smol = source(tmp_path / "smol", "wait")
    code = (
        "import sys; from pathlib import Path; from meltbench.models.onnx.build import build\n"
        "from meltbench.cli.watching import Terminal\n"
        "with Terminal() as watch: build(sys.argv[1], Path(sys.argv[2]), 'int4', 'cpu', watch)"
    )
    words = [sys.executable, "-c", code, str(smol), str(tmp_path / "made")]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_interrupts
    )
    until = time.monotonic() + 60
    while not (smol / "pid").is_file() or not (smol / "pid").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    builder = int((smol / "pid").read_text())
    assert [one for one in tmp_path.iterdir() if one.name.startswith(".made-")]
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "Interrupted: interrupted" in said
    assert not [one for one in tmp_path.iterdir() if "made" in one.name]
    with pytest.raises(ProcessLookupError):
        os.kill(builder, 0)


def test_what_cannot_be_built_is_refused_before_anything_is_made(stand_in: Path, tmp_path: Path) -> None:
    smol, out = source(tmp_path / "smol"), tmp_path / "made"

    def refused(text: str, at: Path = out, precision: str = "int4", provider: str = "cpu") -> str:
        with pytest.raises(UserError) as error:
            build(text, at, precision, provider, Told())
        return str(error.value)

    assert "int3 for cpu; precisions: int4" in refused(str(smol), precision="int3")
    assert refused(str(smol), precision="fp16") == "fp16 fails at run time on a CPU; --precision int4 or fp32"
    assert "is there already" in refused(str(smol), at=smol)
    assert "there is no folder" in refused(str(smol), at=tmp_path / "no" / "where")
    (smol / "tokenizer.json").unlink()
    assert "holds no tokenizer.json" in refused(str(smol))
    (smol / "model.safetensors").unlink()
    (smol / "pytorch_model.bin").write_bytes(b"a pickle is never loaded")
    assert "holds no safetensors" in refused(str(smol))
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"[" * 100_000, "config.json is not JSON"),
        ("config.json", b"[2]", "config.json is not a JSON object"),
        ("model.safetensors", b"{}", "is no safetensors file"),
        ("model.safetensors", b'\x09\0\0\0\0\0\0\0{"a": {}}', "does not say what 'a' is"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}", "hold no weights"),
    ],
)
def test_damage_is_told_before_the_builder_is_started(
    stand_in: Path, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    smol = source(tmp_path / "smol", "fail")
    (smol / name).write_bytes(content)
    with pytest.raises(ModelDamaged, match=words):
        build(str(smol), tmp_path / "made", "int4", "cpu", Told())
    assert not [one for one in tmp_path.iterdir() if "made" in one.name]


def test_without_the_packages_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match="the builder's package torch is not installed") as missing:
        build("smollm2-135m-q4", tmp_path / "made", "int4", "cpu", Told())
    assert str(missing.value.hint) == "pip install 'meltbench[build-onnx]'"


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_the_runtime_cuts_texts_in_each_of_the_known_ways(tmp_path: Path, name: str) -> None:
    need_runtime()
    import onnxruntime_genai as genai

    model = copied(tmp_path / name)
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    # Two joined digits, and a line's end with a letter: what the ways tell apart.
    vocab, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    for pair in (("1", "2"), ("12", "3"), ("123", "4"), ("!", "\u010a")):
        vocab["".join(pair)] = len(vocab)
        merges.append(list(pair))
    tokenizer["pre_tokenizer"] = cutting(name)
    path.write_text(json.dumps(tokenizer))
    runtime = genai.Tokenizer(genai.Model(str(model)))

    def parts(text: str) -> list[str]:
        return [str(runtime.decode([token])) for token in runtime.encode(text)]

    assert parts("1234") == {"smollm": [*"1234"], "qwen2": [*"1234"], "llama-bpe": ["123", "4"]}.get(name, ["1234"])
    assert parts("!\n") == (["!", "\n"] if name in ("gpt-2", "smollm") else ["!\n"])
    for text in TEXTS:
        assert runtime.decode(runtime.encode(text)) == text


def test_every_way_has_patterns() -> None:
    assert all(patterns and all(patterns) for patterns in PATTERNS.values())


@pytest.mark.slow
def test_the_real_builder_makes_the_committed_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing := [name for name in ("torch", "transformers", "onnx_ir", "gguf") if not importlib.util.find_spec(name)]:
        pytest.skip(f"no {missing[0]} here: pip install '.[build-onnx]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    sys.path.insert(0, str(HERE / "models"))
    import tiny_onnx

    smol = tmp_path / "smol"
    tiny_onnx.write_weights(smol, tiny_onnx.write_tokenizer(smol))
    (smol / "evil.py").write_text("raise SystemExit('code of a model was run')")
    config = json.loads((smol / "config.json").read_text()) | {"auto_map": {"AutoConfig": "evil.Config"}}
    (smol / "config.json").write_text(json.dumps(config))
    built: Built = build(str(smol), tmp_path / "made", "fp32", "cpu", Told())
    assert built.differ == ()
    for name in ("genai_config.json", "chat_template.jinja", "tokenizer.json"):
        assert json_or_text(tmp_path / "made" / name) == json_or_text(TINY / name)
    server, other = Server.start(tmp_path / "made"), Server.start()
    try:
        ids = [1, 75, 76, 0, 202, 2]
        one, two = (each.complete(ids, max_tokens=20, ignore_eos=True) for each in (server, other))
        assert one.text == two.text
    finally:
        server.stop()
        other.stop()
    shutil.rmtree(tmp_path / "made")


def json_or_text(path: Path) -> Any:
    return json.loads(path.read_text()) if path.suffix == ".json" else path.read_text()
