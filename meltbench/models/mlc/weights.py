"""The weights and numbers of a Llama, from a GGUF file or from a folder with config.json and safetensors.

Both are untrusted: shapes are those that the configuration promises, or it is an error; nothing is unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from meltbench.errors import MissingExtra, ModelDamaged, UserError
from meltbench.models.gguf import read_gguf
from meltbench.models.jsonfile import read_object
from meltbench.models.metadata import value_of
from meltbench.models.mlc.shape import LlamaShape
from meltbench.models.safetensors import read_head

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from meltbench.models.gguf import Tensor
    from meltbench.models.safetensors import Stored

    Floats = npt.NDArray[np.float32]

MAX_CONFIG_BYTES = 64 << 20  # of a tokenizer's too, which may list its words
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
        try:
            import gguf
        except ImportError:
            raise MissingExtra("the package gguf, which reads weights", "mlc") from None
        self._gguf: Any = gguf
        self._head = head = read_gguf(path)
        self.path, self.quantised = path, head.file_type
        if head.architecture != "llama":
            raise UserError(f"{path} is of the architecture {head.architecture}", hint="build-mlc compiles llama alone")
        self._tensors = {tensor.name: tensor for tensor in head.tensors}
        self.shape = self._shape(head.vocab_size)
        known = {self._name(name) for name in self.shape.weights}
        if odd := sorted(set(self._tensors) - known):
            why = "scaled rotary embeddings" if odd[0] == "rope_freqs.weight" else "weights that no plain Llama has"
            raise UserError(f"{path} has {why}: {odd[0][:80]}", hint="build from the original safetensors folder")

    def says(self, key: str, otherwise: Any = None) -> Any:
        """A value of the file's header."""
        found = value_of(self._head, key)
        return otherwise if found is None else found

    def weight(self, name: str) -> Floats:
        """A weight in float32; the rows of queries and keys in the order of Hugging Face."""
        found = self._tensors.get(self._name(name))
        if found is None:
            raise ModelDamaged(f"{self.path} lacks {self._name(name)}", hint="fetch or convert it again")
        shape, want = tuple(reversed(found.dims)), self.shape.weights[name]
        if shape != want:
            raise ModelDamaged(f"{self.path}: {found.name} is {shape}, not {want}", hint="convert it again")
        values = self._dequantised(found)
        if ".q_proj." in name or ".k_proj." in name:
            # llama.cpp rotates neighbours, Hugging Face and MLC halves: a GGUF has the rows of each head interleaved.
            rows, columns = values.shape
            paired = values.reshape(rows // self.shape.head_dim, self.shape.head_dim // 2, 2, columns)
            values = paired.swapaxes(1, 2).reshape(rows, columns)
        return values

    def _dequantised(self, tensor: Tensor) -> Floats:
        import numpy as np

        kind = getattr(self._gguf.GGMLQuantizationType, tensor.type, None)
        try:
            if tensor.size_bytes is None or kind is None:
                raise NotImplementedError
            rows, at = tensor.elements // tensor.dims[0], self._head.data_offset + tensor.offset
            raw = np.memmap(self.path, np.uint8, "r", at, (rows, tensor.size_bytes // rows))
            with np.errstate(all="ignore"):  # a weight that is not finite stays so
                values = np.asarray(self._gguf.quants.dequantize(raw, kind), dtype=np.float32)
        except NotImplementedError:
            said = f"{self.path}: {tensor.name} is of {tensor.type}, which gguf cannot read"
            raise UserError(said, hint="take a file of other tensors, such as Q8_0 or F16") from None
        return values.reshape(tuple(reversed(tensor.dims)))

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


@dataclass
class FolderSource:
    """A folder with config.json of a LlamaForCausalLM and its weights in safetensors."""

    path: Path
    quantised: str | None = None
    shape: LlamaShape = field(init=False)
    config: dict[str, Any] = field(init=False)
    _stored: dict[str, Stored] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.config = read_object(self.path / "config.json", MAX_CONFIG_BYTES)
        kind = self.config.get("model_type")
        if kind != "llama":
            raise UserError(f"{self.path} is a {str(kind)[:40]}", hint="build-mlc compiles model_type llama alone")
        self.shape = _of_config(self.config, f"{self.path / 'config.json'}")
        files = sorted(self.path.glob("*.safetensors"))
        if not files:
            raise UserError(f"{self.path} holds no *.safetensors", hint="put the weights beside config.json")
        for one in files:
            self._stored |= read_head(one)

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
        raw = np.memmap(found.path, kinds[found.dtype], "r", found.start, want)
        if found.dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32)


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
