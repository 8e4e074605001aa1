"""Makes a model for ONNX Runtime GenAI by its own builder: ``meltbench models build-onnx``.

From a GGUF file its weights are dequantised first. The folder appears under its name when all is done, with a record of
what it descends from.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench import models, paths
from meltbench.builds.running import run_tool
from meltbench.deadline import Deadline
from meltbench.errors import BuildFailed, MissingExtra, ModelDamaged, UserError
from meltbench.installed import version_of
from meltbench.models.hashes import file_sha256
from meltbench.models.header import BUILT, MAX_CONFIG_BYTES
from meltbench.models.jsonfile import read_object
from meltbench.models.safetensors import read_head
from meltbench.spec import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.watch import Watch

PRECISIONS = ("int4", "int8", "fp32", "fp16", "bf16")
PROVIDERS = ("cpu", "cuda", "dml", "webgpu", "NvTensorRtRtx")
_NEEDS = ("torch", "transformers", "accelerate", "onnxruntime_genai", "onnx_ir", "gguf", "tokenizers", "safetensors")
_DEADLINE_S = 6 * 3600.0
_LAYER = re.compile(r"Reading (?:decoder )?layer (\d{1,4})")


@dataclass(frozen=True)
class Built:
    """What was made, as its record has it. ``weights_bytes`` are of the graph and its data; ``differ``: texts that the
    runtime splits otherwise than the tokenizer it was built from, of ``texts``."""

    descends_from: str
    source_sha256: str
    precision: str
    provider: str
    builder: str
    n_params: int
    weights_bytes: int
    bits_per_weight: float
    texts: int
    differ: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """A model to build from: a GGUF file, or a folder with config.json, tokenizer.json and safetensors."""

    path: Path
    name: str
    sha256: str

    @property
    def is_gguf(self) -> bool:
        return self.path.is_file()


def build(text: str, out: Path, precision: str, provider: str, watch: Watch) -> Built:
    """Make the folder ``out`` of the model that ``text`` names. MissingExtra without the packages for it; UserError
    for a model or a precision that cannot be built; ModelDamaged for one whose files are not whole; BuildFailed with
    the builder's last words. Nothing half made stays, whatever happens."""
    _check(precision, provider)
    if out.exists():
        raise UserError(f"{out} is there already", hint="name a folder that is not")
    if not out.absolute().parent.is_dir():
        raise UserError(f"there is no folder {out.absolute().parent}", hint="make it first")
    if missing := next((name for name in _NEEDS if importlib.util.find_spec(name) is None), None):
        raise MissingExtra(f"the builder's package {missing}", "build-onnx")
    source = _source(text, watch)
    work = Path(tempfile.mkdtemp(dir=out.absolute().parent, prefix=f".{out.name}-"))
    try:
        built = _build(source, work, precision, provider, watch)
        (work / "made").rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return built


def _check(precision: str, provider: str) -> None:
    if precision not in PRECISIONS or provider not in PROVIDERS:
        raise UserError(
            f"a model cannot be built in {precision} for {provider}",
            hint=f"precisions: {', '.join(PRECISIONS)}; providers: {', '.join(PROVIDERS)}",
        )
    if provider == "cpu" and precision in ("fp16", "bf16"):
        raise UserError(f"{precision} fails at run time on a CPU", hint="--precision int4 or fp32")


def _source(text: str, watch: Watch) -> _Source:
    path = Path(text).expanduser()
    if path.is_dir() and (path / "config.json").is_file():
        weights = sorted(path.glob("*.safetensors"))
        if not weights or not (path / "tokenizer.json").is_file():
            raise UserError(
                f"{path} holds no {'tokenizer.json' if weights else 'safetensors'}",
                hint="a folder of Hugging Face's has config.json, tokenizer.json and *.safetensors",
            )
        files = [*sorted(path.glob("*.json")), *weights]
        name = path.resolve().name
        return _Source(path.resolve(), name, digest([[one.name, file_sha256(one)] for one in files]))
    model = models.resolve(text, taker="models build-onnx")
    found = models.ensure(model, watch.fetched, watch.say)
    return _Source(found, model.name, file_sha256(found))


def _build(source: _Source, work: Path, precision: str, provider: str, watch: Watch) -> Built:
    made, module = work / "made", "meltbench.models.onnx.convert"
    watch.say(f"building {source.name} in {precision} for {provider}")
    with (work / "log").open("w+", encoding="utf-8") as log:
        steps = _Steps(log, Deadline.after(_DEADLINE_S), watch)
        files = source.path
        if source.is_gguf:
            files = work / "source"
            steps.run("dequantise", ["-m", module, "weights", str(source.path), str(files)])
        layers = read_object(files / "config.json", MAX_CONFIG_BYTES).get("num_hidden_layers")
        n_params = _elements(files)
        words = ["-i", str(files), "-o", str(made), "-p", precision, "-e", provider, "-c", str(work / "cache")]
        argv = ["-m", "onnxruntime_genai.models.builder", *words, "--extra_options", "hf_remote=false"]
        steps.run("layers", argv, layers if isinstance(layers, int) else 0)
        _renamed(made / "tokenizer_config.json")
        said = steps.run("check", ["-m", module, "tokens", str(files), str(made)])
    told = json.loads(said)
    if told["differ"]:
        watch.warn(f"the runtime splits {len(told['differ'])} of {told['texts']} texts otherwise than its source does")
    n_bytes = sum(one.stat().st_size for one in made.iterdir() if ".onnx" in one.name)
    head = models.read_gguf(source.path) if source.is_gguf else None
    quantised = f" ({head.file_type})" if head and head.file_type else ""
    older = f"; which descends from {head.descends_from}" if head and head.descends_from else ""
    built = Built(
        descends_from=f"{source.name}{quantised}, sha256 {source.sha256[:12]}{older}",
        source_sha256=source.sha256,
        precision=precision,
        provider=provider,
        builder=f"onnxruntime-genai {version_of('onnxruntime-genai')}, transformers {version_of('transformers')}",
        n_params=n_params,
        weights_bytes=n_bytes,
        bits_per_weight=round(8 * n_bytes / n_params, 3),
        texts=told["texts"],
        differ=tuple(told["differ"]),
    )
    (made / BUILT).write_text(json.dumps(asdict(built), indent=2, ensure_ascii=False) + "\n", "utf-8")
    made.chmod(0o755)
    return built


@dataclass
class _Steps:
    """Runs the processes of a build, one after the other."""

    log: Any
    deadline: Deadline
    watch: Watch

    def run(self, name: str, words: Sequence[str], layers: int = 0) -> str:
        """Run one; returns its last line, or that which is JSON. BuildFailed where it fails."""
        last = ""

        def heed(line: str) -> None:
            nonlocal last
            last = line if line.strip() and not last.startswith("{") else last
            found = _LAYER.search(line)
            done = {"done": int(found[1]) + 1, "of": layers} if found and layers else {}
            self.watch.step({"state": "running", "op": name, **done})

        # Nothing is fetched, and no bar is drawn into the log.
        env = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "TQDM_DISABLE": "1",
            "LC_ALL": "C.UTF-8",
        }
        argv = [sys.executable, "-W", "ignore", *words]
        if code := run_tool(argv, env, self.log, self.deadline, heed, "building the model"):
            raise self._failed(name, last, code)
        return last

    def _failed(self, name: str, last: str, code: int) -> BuildFailed:
        self.log.flush()
        kept = paths.cache_dir() / "builds" / "logs" / "onnx.log"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.log.name, kept)
        hint = f"the whole log is {kept}"
        if code in (-9, 137):
            hint = f"there may be too little memory for it; {hint}"
        if "No space left" in last:
            hint = f"free some space where it is to be; {hint}"
        return BuildFailed(f"{name}: {last.strip()[:300] or f'exit status {code}'}", hint=hint)


def _renamed(path: Path) -> None:
    """Call the tokenizer by the name that transformers 4 had for it, which older runtimes know too."""
    if path.is_file():
        path.write_text(path.read_text("utf-8").replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'), "utf-8")


def _elements(folder: Path) -> int:
    """The elements of all tensors in a folder's safetensors, by their heads."""
    heads = [read_head(one) for one in sorted(folder.glob("*.safetensors"))]
    total = sum(one.elements for head in heads for one in head.values())
    if not total:
        raise ModelDamaged(f"the safetensors in {folder} hold no weights", hint="fetch the model again")
    return total
