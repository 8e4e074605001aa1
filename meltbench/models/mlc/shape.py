"""What a Llama is made of: its numbers, and the names of its weights in Hugging Face's and in MLC's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = {
    "hidden_size": 65_536,
    "intermediate_size": 262_144,
    "num_hidden_layers": 512,
    "num_attention_heads": 1024,
    "num_key_value_heads": 1024,
    "head_dim": 1024,
    "vocab_size": 1_048_576,
    "context_length": 16_777_216,
}


@dataclass(frozen=True)
class LlamaShape:
    """The hyperparameters of a Llama, under the names of Hugging Face's config.json; ``context_length`` in tokens.

    ``tied``: the table of embeddings is the last layer too. ``rope_scaling``: that of Llama 3, None for none.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    rms_norm_eps: float
    rope_theta: float
    tied: bool
    rope_scaling: Mapping[str, Any] | None = None

    def check(self, where: str) -> LlamaShape:
        """The same, or UserError for numbers that no such model has: they come from a file of others."""
        for name, most in _MOST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
                raise UserError(f"{where}: {name} = {str(value)[:40]} cannot be", hint=f"a Llama has 1 to {most}")
        if self.num_attention_heads % self.num_key_value_heads or self.head_dim % 2:
            said = f"{self.num_attention_heads} heads of {self.head_dim} over {self.num_key_value_heads}"
            raise UserError(
                f"{where}: {said} key-value heads cannot be divided", hint="give a Llama of upstream's form"
            )
        for name in ("rms_norm_eps", "rope_theta"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
                raise UserError(f"{where}: {name} = {str(value)[:40]} cannot be", hint="give a number above zero")
        return self

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """Every weight by Hugging Face's name, with its shape (rows are outputs)."""
        width, inner = self.hidden_size, self.intermediate_size
        heads, shared = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, width)}
        for layer in range(self.num_hidden_layers):
            of = f"model.layers.{layer}."
            found |= {
                f"{of}input_layernorm.weight": (width,),
                f"{of}self_attn.q_proj.weight": (heads, width),
                f"{of}self_attn.k_proj.weight": (shared, width),
                f"{of}self_attn.v_proj.weight": (shared, width),
                f"{of}self_attn.o_proj.weight": (width, heads),
                f"{of}post_attention_layernorm.weight": (width,),
                f"{of}mlp.gate_proj.weight": (inner, width),
                f"{of}mlp.up_proj.weight": (inner, width),
                f"{of}mlp.down_proj.weight": (width, inner),
            }
        found["model.norm.weight"] = (width,)
        return found if self.tied else found | {"lm_head.weight": (self.vocab_size, width)}

    @property
    def n_params(self) -> int:
        """Elements of all weights."""
        total = 0
        for shape in self.weights.values():
            total += shape[0] * (shape[1] if len(shape) > 1 else 1)
        return total


# Those of MLC that are several of Hugging Face's, one below the other.
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def parts_of(name: str) -> list[str]:
    """The weights of Hugging Face that make up one of MLC's, in their order."""
    for fused, parts in _FUSED.items():
        if f".{fused}." in name:
            return [name.replace(fused, part) for part in parts]
    return [name]
