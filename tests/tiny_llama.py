"""A language model of 300 kB that llama.cpp really runs, of random weights: for emulated and slow targets."""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path

from ggufmaker import header

WIDTH, INNER, HEADS, CONTEXT = 64, 128, 4, 2048
# Every byte is a token, as in the tokenizers of Llama 2; kinds: 1 a word, 2 unknown, 3 control, 6 a byte.
_TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
_KINDS = [2, 3, 3, *[6] * 256, *[1] * 27]


def write(path: Path, experts: int = 0) -> Path:
    """Write the model; the same bytes each time. With ``experts`` it is a mixture of so many, two of them used."""
    meta = {
        "general.architecture": ("str", "llama"),
        "general.name": ("str", "Tiny"),
        "llama.block_count": ("u32", 1),
        "llama.context_length": ("u32", CONTEXT),
        "llama.embedding_length": ("u32", WIDTH),
        "llama.feed_forward_length": ("u32", INNER),
        "llama.attention.head_count": ("u32", HEADS),
        "llama.attention.head_count_kv": ("u32", HEADS),
        "llama.attention.layer_norm_rms_epsilon": ("f32", 1e-5),
        "llama.rope.dimension_count": ("u32", WIDTH // HEADS),
        **({"llama.expert_count": ("u32", experts), "llama.expert_used_count": ("u32", 2)} if experts else {}),
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.tokens": ("arr", "str", _TOKENS),
        "tokenizer.ggml.scores": ("arr", "f32", [0.0] * len(_TOKENS)),
        "tokenizer.ggml.token_type": ("arr", "i32", _KINDS),
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
    }
    shapes = {
        "token_embd": (WIDTH, len(_TOKENS)),
        "output_norm": (WIDTH,),
        "output": (WIDTH, len(_TOKENS)),
        "blk.0.attn_norm": (WIDTH,),
        "blk.0.ffn_norm": (WIDTH,),
        **{f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
        **({"blk.0.ffn_gate_inp": (WIDTH, experts)} if experts else {}),
        **{f"blk.0.ffn_{part}": (WIDTH, INNER) for part in ("gate", "up") if not experts},
        **{f"blk.0.ffn_{part}_exps": (WIDTH, INNER, experts) for part in ("gate", "up") if experts},
        f"blk.0.ffn_down{'_exps' if experts else ''}": (INNER, WIDTH, experts)[: 3 if experts else 2],
    }
    head = header(meta, [(f"{name}.weight", shape, "F32") for name, shape in shapes.items()])
    chance = random.Random(0)
    body = b""
    for name, shape in shapes.items():
        count = math.prod(shape)
        values = [1.0] * count if name.endswith("norm") else [chance.gauss(0, 0.1) for _ in range(count)]
        body += struct.pack(f"<{count}f", *values)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + body)
    return path
