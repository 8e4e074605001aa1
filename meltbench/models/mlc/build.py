"""Builds a model's folder in MLC's form from a GGUF file or a folder of safetensors."""

from __future__ import annotations

import contextlib
import io
import json
import platform
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench import paths
from meltbench.errors import BuildFailed, MissingExtra, UserError
from meltbench.models.mlc.quantise import GROUP, packed
from meltbench.models.mlc.shape import parts_of
from meltbench.models.mlc.weights import source_of
from meltbench.models.mlc.words import TOKENIZER, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from meltbench.models.mlc.shape import LlamaShape
    from meltbench.models.mlc.weights import FolderSource, GgufSource
    from meltbench.models.mlc.words import Words
    from meltbench.watch import Watch

QUANTISATIONS = ("q0f32", "q4f32_1")
LIBRARY, CONFIG = "lib.so", "mlc-chat-config.json"
_CHUNK = 512  # tokens that one call of prefill takes at most
_MLC_VERSION = "0.1.0"  # of the form of mlc-chat-config.json


@dataclass(frozen=True)
class Built:
    """What was built: where, of what, and what its parts are. ``descends_from``: the quantisation of the weights it
    was made of, None where they were not quantised. ``messages``: whether conversations can be asked."""

    folder: str
    source: str
    quantisation: str
    descends_from: str | None
    n_params: int
    bits_per_weight: float
    bytes: int
    target: str
    tvm: str
    messages: bool


def build(path: Path, out: Path, quantisation: str, watch: Watch, tokenizer: Path | None = None) -> Built:
    """Make the folder ``out`` of the model at ``path``; it is there when it is whole, and not before.

    ``tokenizer``: a tokenizer.json to be taken in place of what the model says of its own. Raises UserError,
    ModelDamaged, MissingExtra or BuildFailed; KeyboardInterrupt after what was begun is removed.
    """
    if quantisation not in QUANTISATIONS:
        raise UserError(f"{quantisation[:40]!r} cannot be built", hint=f"known: {', '.join(QUANTISATIONS)}")
    if out.exists():
        raise UserError(f"{out} is there already", hint="name a folder that is not, or remove it first")
    source = source_of(path)
    quantised = quantisation == "q4f32_1"
    if quantised and any(shape[-1] % GROUP for shape in source.shape.weights.values()):
        raise UserError(f"{path} has rows that are no multiple of {GROUP}", hint="build q0f32")
    _check_room(source.shape, out, quantised)
    words = words_of(source, tokenizer)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        target = _library(source.shape, quantisation, scratch, watch)
        stored = _store(source, target.params, scratch, watch)
        (scratch / TOKENIZER).write_text(words.tokenizer, encoding="utf-8")
        config = _config(source.shape, quantisation, words)
        (scratch / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        scratch.chmod(0o755)
        scratch.rename(out)
    except OSError as error:
        raise BuildFailed(f"{error.filename or out}: {error.strerror or error}", hint="look at the disk") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Built(
        folder=str(out),
        source=str(path),
        quantisation=quantisation,
        descends_from=source.quantised,
        n_params=source.shape.n_params,
        bits_per_weight=stored * 8 / source.shape.n_params,
        bytes=sum(one.stat().st_size for one in out.iterdir()),
        target=target.words,
        tvm=target.version,
        messages=words.conv is not None,
    )


def _check_room(shape: LlamaShape, out: Path, quantised: bool) -> None:
    folder = next(one for one in (out.absolute(), *out.absolute().parents) if one.exists())
    needed, free = shape.n_params * (5 if quantised else 32) // 8 + (64 << 20), shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder} has {free >> 20} MiB free, {needed >> 20} are needed", hint="build elsewhere")


@dataclass(frozen=True)
class _Compiled:
    params: list[tuple[str, tuple[int, ...], str]]
    words: str
    version: str


def _library(shape: LlamaShape, quantisation: str, folder: Path, watch: Watch) -> _Compiled:
    """Compile and link the library."""
    try:
        import tvm
    except ImportError:
        raise MissingExtra("the compiler apache-tvm", "mlc") from None
    from meltbench.models.mlc import library
    from meltbench.probe import build as zig

    machine = platform.machine()
    if not zig.zig_there():
        raise MissingExtra(f"ziglang {zig.ZIG_VERSION}, which links the library", "mlc")
    cpu = _cpu(machine)
    watch.say(f"compiling for {cpu or machine} with Apache TVM {tvm.__version__}")
    metadata: dict[str, Any] = {
        **dict.fromkeys(("sliding_window_size", "attention_sink_size"), -1),
        **dict.fromkeys(("tensor_parallel_shards", "pipeline_parallel_stages", "max_batch_size"), 1),
        "model_type": "llama",
        "quantization": quantisation,
        "context_window_size": shape.context_length,
        "kv_state_kind": "kv_cache",
        "model_task": "chat",
        "disaggregation": False,
        "kv_cache": {
            "num_hidden_layers": shape.num_hidden_layers,
            "num_attention_heads": shape.num_attention_heads,
            "num_key_value_heads": shape.num_key_value_heads,
            "head_dim": shape.head_dim,
        },
        "memory_usage": {},
    }
    chunk = min(_CHUNK, shape.context_length)

    def link(output: str, objects: list[str]) -> None:
        words = ["-target", f"{machine}-linux-gnu", "-shared", "-fPIC", "-o", output, *objects]
        zig.zig_cc(words, paths.cache_dir() / "probe" / "zig")

    try:
        built, params = library.compile_library(shape, cpu, metadata, quantised=quantisation == "q4f32_1", chunk=chunk)
        library.export(built, folder / LIBRARY, link)
    except subprocess.SubprocessError as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise BuildFailed(f"the library cannot be linked: {said[-1][:200]}", hint="please report this") from error
    except (RuntimeError, ValueError, TypeError) as error:  # what TVM's errors descend from
        said = str(error).strip().splitlines() or ["no message"]
        raise BuildFailed(f"Apache TVM cannot compile it: {said[-1][:200]}", hint="please report this") from error
    return _Compiled(params, f"{machine}-linux-gnu {cpu or 'generic'}", tvm.__version__)


def _cpu(machine: str) -> str | None:
    """The level of instructions of this machine, so that its library also runs on others of that level."""
    if machine != "x86_64":
        return None
    with contextlib.suppress(OSError):
        said = Path("/proc/cpuinfo").read_text("utf-8", "replace")
        flags = next((line.split() for line in said.splitlines() if line.startswith("flags")), [])
        if {"avx2", "bmi2", "f16c", "fma", "movbe"} <= set(flags):
            return "x86-64-v3"
    return "x86-64"


def _store(
    source: GgufSource | FolderSource, params: list[tuple[str, tuple[int, ...], str]], folder: Path, watch: Watch
) -> int:
    """Write the weights in MLC's form, one after the other; returns their bytes."""
    from tvm.contrib import tvmjs

    total = sum(_bytes(dims) for _, dims, _ in params)
    done = 0

    def arrays() -> Iterator[tuple[str, npt.NDArray[Any]]]:
        nonlocal done
        kept: dict[str, npt.NDArray[Any]] = {}
        for name, dims, _ in params:
            if name not in kept:
                kept |= _arrays(source, name)
            value = kept.pop(name)
            if value.shape != dims:
                raise BuildFailed(f"{name} is {value.shape}, the library wants {dims}", hint="please report this")
            yield name, value
            done += _bytes(dims)
            watch.fetched(done, total, "writing the weights")

    def metadata() -> dict[str, Any]:
        bits = done * 8 / source.shape.n_params
        return {"ParamSize": len(params), "ParamBytes": float(done), "BitsPerParam": bits}

    with contextlib.redirect_stdout(io.StringIO()):  # TVM tells of each file there
        tvmjs.dump_tensor_cache(arrays(), str(folder), "raw", metadata, show_progress=False)
    return done


def _arrays(source: GgufSource | FolderSource, name: str) -> dict[str, npt.NDArray[Any]]:
    """A parameter of the library, or the two that stand for a quantised one."""
    import numpy as np

    def whole(name: str) -> npt.NDArray[np.float32]:
        return np.concatenate([source.weight(part) for part in parts_of(name)], axis=0)

    if name.endswith(".q_weight"):
        bare = name.removesuffix(".q_weight")
        return dict(zip((name, f"{bare}.q_scale"), packed(whole(f"{bare}.weight")), strict=True))
    return {name: whole(name)}


def _bytes(dims: tuple[int, ...]) -> int:
    return 4 * int(dims[0]) * int(dims[1] if len(dims) > 1 else 1)


def _config(shape: LlamaShape, quantisation: str, words: Words) -> dict[str, Any]:
    """mlc-chat-config.json; greedy, since that is how it is asked here."""
    chunk = min(_CHUNK, shape.context_length)
    numbers = asdict(shape)
    inner = {
        **{key: numbers[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads", "head_dim")},
        **{key: numbers[key] for key in ("num_hidden_layers", "num_key_value_heads", "rms_norm_eps", "vocab_size")},
        "tie_word_embeddings": shape.tied,
        "position_embedding_base": shape.rope_theta,
        "rope_scaling": numbers["rope_scaling"],
        "context_window_size": shape.context_length,
        "prefill_chunk_size": chunk,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "max_batch_size": 1,
    }
    found: dict[str, Any] = {
        "version": _MLC_VERSION,
        "model_type": "llama",
        "quantization": quantisation,
        "model_config": inner,
        "vocab_size": shape.vocab_size,
        "context_window_size": shape.context_length,
        "sliding_window_size": -1,
        "prefill_chunk_size": chunk,
        "attention_sink_size": -1,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "temperature": 0.0,
        "tokenizer_files": [TOKENIZER],
        "bos_token_id": words.bos,
        "eos_token_id": words.eos,
    }
    return found if words.conv is None else found | {"conv_template": words.conv}
