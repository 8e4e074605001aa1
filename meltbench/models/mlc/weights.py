"""The weights and numbers of a Llama, from a GGUF file or from a folder with config.json and safetensors.

Both are untrusted: shapes are those that the configuration promises, or it is an error; nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from meltbench.errors import MissingExtra, ModelDamaged, UserError
from meltbench.models.gguf import read_gguf
from meltbench.models.mlc.shape import LlamaShape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

_MAX_JSON_BYTES = 64 << 20
_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class Source(Protocol):
    """Where a Llama is taken from."""

    @property
    def shape(self) -> LlamaShape:
        """Its numbers."""

    @property
    def quantised(self) -> str | None:
        """What its weights were quantised to before, None where they were not."""

    def weight(self, name: str) -> Floats:
        """A weight by Hugging Face's name, in float32. ModelDamaged where it is not there, or of another shape."""


def source_of(path: Path) -> GgufSource | FolderSource:
    """The source that lies at a path: a GGUF file, or a folder of Hugging Face's form."""
    return FolderSource(path) if path.is_dir() else GgufSource(path)


class GgufSource:
    """A GGUF file of the architecture llama; quantised weights are taken apart again."""

    def __init__(self, path: Path) -> None:
        head = read_gguf(path)  # bounds every count, which the reader below trusts
        try:
            import gguf
        except ImportError:
            raise MissingExtra("the package gguf, which reads weights", "mlc") from None
        self._gguf, self.path, self.quantised = gguf, path, head.file_type
        if head.architecture != "llama":
            raise UserError(f"{path} is of the architecture {head.architecture}", hint="build-mlc compiles llama alone")
        self._reader = gguf.GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.shape = self._shape(head.vocab_size)
        known = {self._name(name) for name in self.shape.weights}
        if odd := sorted(set(self._tensors) - known):
            why = "scaled rotary embeddings" if odd[0] == "rope_freqs.weight" else "weights that no plain Llama has"
            raise UserError(f"{path} has {why}: {odd[0][:80]}", hint="build from the original safetensors folder")

    def says(self, key: str, otherwise: Any = None) -> Any:
        """A value of the file's header."""
        found = self._reader.fields.get(key)
        return otherwise if found is None else found.contents()

    def weight(self, name: str) -> Floats:
        """A weight in float32; the rows of queries and keys in the order of Hugging Face."""
        import numpy as np

        found = self._tensors.get(self._name(name))
        if found is None:
            raise ModelDamaged(f"{self.path} lacks {self._name(name)}", hint="fetch or convert it again")
        values = np.asarray(self._gguf.quants.dequantize(found.data, found.tensor_type), dtype=np.float32)
        want = self.shape.weights[name]
        if values.shape != want:
            raise ModelDamaged(f"{self.path}: {found.name} is {values.shape}, not {want}", hint="convert it again")
        if ".q_proj." in name or ".k_proj." in name:
            # llama.cpp rotates neighbours, Hugging Face and MLC halves: a GGUF has the rows of each head interleaved.
            rows, columns = values.shape
            paired = values.reshape(rows // self.shape.head_dim, self.shape.head_dim // 2, 2, columns)
            values = paired.swapaxes(1, 2).reshape(rows, columns)
        return values

    @staticmethod
    def _name(name: str) -> str:
        bare = name.removesuffix(".weight")
        if not bare.startswith("model.layers."):
            return f"{_GGUF_NAMES[bare]}.weight"
        layer, _, part = bare.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{_GGUF_NAMES[part]}.weight"

    def _shape(self, vocab_size: int | None) -> LlamaShape:
        def of(key: str, otherwise: Any = None) -> Any:
            return self.says(f"llama.{key}", otherwise)

        heads, width = of("attention.head_count"), of("embedding_length")
        if isinstance(heads, int) and isinstance(width, int) and heads > 0:
            head_dim = of("attention.key_length", width // heads)
        else:
            head_dim = None
        return LlamaShape(
            hidden_size=width,
            intermediate_size=of("feed_forward_length"),
            num_hidden_layers=of("block_count"),
            num_attention_heads=heads,
            num_key_value_heads=of("attention.head_count_kv", heads),
            head_dim=head_dim,
            vocab_size=of("vocab_size", vocab_size),
            context_length=of("context_length"),
            rms_norm_eps=of("attention.layer_norm_rms_epsilon"),
            rope_theta=of("rope.freq_base", 10_000.0),
            tied="output.weight" not in self._tensors,
        ).check(str(self.path))


@dataclass(frozen=True)
class _Stored:
    """A tensor of a safetensors file; ``start`` and ``end`` are bytes of the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass
class FolderSource:
    """A folder with config.json of a LlamaForCausalLM and its weights in safetensors."""

    path: Path
    quantised: str | None = None
    shape: LlamaShape = field(init=False)
    config: dict[str, Any] = field(init=False)
    _stored: dict[str, _Stored] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.config = read_object(self.path / "config.json")
        kind = self.config.get("model_type")
        if kind != "llama":
            raise UserError(f"{self.path} is a {str(kind)[:40]}", hint="build-mlc compiles model_type llama alone")
        self.shape = _of_config(self.config, f"{self.path / 'config.json'}")
        files = sorted(self.path.glob("*.safetensors"))
        if not files:
            raise UserError(f"{self.path} holds no *.safetensors", hint="put the weights beside config.json")
        for one in files:
            self._stored |= _stored(one)

    def weight(self, name: str) -> Floats:
        """A weight in float32."""
        import numpy as np

        found = self._stored.get(name)
        if found is None:
            raise ModelDamaged(f"{self.path} lacks {name}", hint="fetch the model again")
        if found.shape != (want := self.shape.weights[name]):
            raise ModelDamaged(f"{found.path}: {name} is {found.shape}, not {want}", hint="fetch the model again")
        kinds: dict[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
        if found.dtype not in kinds:
            raise UserError(f"{found.path}: {name} is {found.dtype[:20]}", hint=f"known: {', '.join(kinds)}")
        if found.end - found.start != math.prod(want) * np.dtype(kinds[found.dtype]).itemsize:
            raise ModelDamaged(
                f"{found.path}: {name} has {found.end - found.start} bytes", hint="fetch the model again"
            )
        raw = np.memmap(found.path, kinds[found.dtype], "r", found.start, want)
        if found.dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a file; UserError where there is none."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise UserError(f"{path} is larger than {_MAX_JSON_BYTES >> 20} MiB", hint="it is no configuration")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}", hint="give a GGUF or a model's folder"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}", hint="fetch the model again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object", hint="fetch the model again")
    return found


def _of_config(config: Mapping[str, Any], where: str) -> LlamaShape:
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise UserError(f"{where}: the model has biases", hint="build-mlc compiles the Llama without them")
    # Newer files put what decides the rotation into one table.
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    rope = rope if isinstance(rope, dict) else {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise UserError(f"{where}: rotary scaling {str(kind)[:40]} is not known", hint="known: llama3, or none")
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    of_heads = width // heads if isinstance(heads, int) and isinstance(width, int) and heads > 0 else None
    return LlamaShape(
        hidden_size=config.get("hidden_size"),  # type: ignore[arg-type]  # check() looks at every one
        intermediate_size=config.get("intermediate_size"),  # type: ignore[arg-type]
        num_hidden_layers=config.get("num_hidden_layers"),  # type: ignore[arg-type]
        num_attention_heads=heads,  # type: ignore[arg-type]
        num_key_value_heads=config.get("num_key_value_heads") or heads,  # type: ignore[arg-type]
        head_dim=config.get("head_dim") or of_heads,  # type: ignore[arg-type]
        vocab_size=config.get("vocab_size"),  # type: ignore[arg-type]
        context_length=config.get("max_position_embeddings"),  # type: ignore[arg-type]
        rms_norm_eps=config.get("rms_norm_eps", 1e-6),
        rope_theta=rope.get("rope_theta") or config.get("rope_theta", 10_000.0),
        tied=bool(config.get("tie_word_embeddings", False)),
        rope_scaling=rope if kind == "llama3" else None,
    ).check(where)


def _stored(path: Path) -> dict[str, _Stored]:
    """The table of a safetensors file: eight bytes of length, JSON, then the data; every range inside the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if not 2 <= length <= min(_MAX_JSON_BYTES, size - 8):
            raise ModelDamaged(f"{path} is no safetensors file, or is cut short", hint="fetch it again")
        try:
            table = json.loads(file.read(length))
            entries = {name: one for name, one in table.items() if name != "__metadata__"}
            found = {
                name: _Stored(path, one["dtype"], tuple(one["shape"]), *(8 + length + at for at in one["data_offsets"]))
                for name, one in entries.items()
            }
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            raise ModelDamaged(f"{path} has a table that cannot be read", hint="fetch it again") from None
    for name, one in found.items():
        if not 8 + length <= one.start <= one.end <= size:
            raise ModelDamaged(
                f"{path} is cut short: {name[:80]} ends at byte {one.end} of {size}", hint="fetch it again"
            )
    return found
