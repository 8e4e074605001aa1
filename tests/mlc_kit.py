"""A tiny model in MLC's form, built once a session, and what its weights come to without TVM."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import tiny_llama

from meltbench.models.gguf import read_gguf

ROOT = Path(__file__).parents[1]


def asker() -> ModuleType:
    """The runner's script, loaded as a module."""
    path = ROOT / "runners" / "mlc-tvm" / "ask.py"
    spec = importlib.util.spec_from_file_location("mlc_tvm_ask", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Reference:
    """The tiny Llama in numpy by llama.cpp's conventions: neighbours are rotated, and rows lie as the GGUF has them."""

    def __init__(self, gguf: Path) -> None:
        head, raw = read_gguf(gguf), gguf.read_bytes()
        self.weights: dict[str, npt.NDArray[np.float64]] = {}
        for tensor in head.tensors:
            start = head.data_offset + tensor.offset
            values = np.frombuffer(raw, "<f4", tensor.elements, start).reshape(tensor.dims[::-1])
            self.weights[tensor.name.removesuffix(".weight")] = values.astype(np.float64)

    def logits(self, tokens: list[int]) -> npt.NDArray[np.float64]:
        """What follows the last token."""
        w, heads, size = self.weights, tiny_llama.HEADS, tiny_llama.WIDTH // tiny_llama.HEADS
        x = w["token_embd"][tokens]
        n = len(tokens)
        h = _normed(x) * w["blk.0.attn_norm"]
        q, k, v = ((h @ w[f"blk.0.attn_{p}"].T).reshape(n, heads, size) for p in "qkv")
        q, k = _rotated(q), _rotated(k)
        scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(size)
        scores[:, ~np.tri(n, dtype=bool)] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        x = x + np.einsum("hij,jhd->ihd", shares, v).reshape(n, -1) @ w["blk.0.attn_output"].T
        h = _normed(x) * w["blk.0.ffn_norm"]
        gate = h @ w["blk.0.ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["blk.0.ffn_up"].T)) @ w["blk.0.ffn_down"].T
        found: npt.NDArray[np.float64] = (_normed(x[-1:]) * w["output_norm"] @ w["output"].T)[0]
        return found

    def greedy(self, tokens: list[int], count: int, never: set[int]) -> list[int]:
        """The best tokens one after the other, but for some."""
        made: list[int] = []
        for _ in range(count):
            logits = self.logits(tokens + made)
            logits[list(never)] = -np.inf
            made.append(int(logits.argmax()))
        return made


def _normed(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return found


def _rotated(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    n, _, size = x.shape
    angle = np.arange(n)[:, None] / 10_000.0 ** (np.arange(0, size, 2) / size)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    out = np.empty_like(x)
    out[..., ::2] = x[..., ::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., ::2] * sin + x[..., 1::2] * cos
    return out


class Quiet:
    """A Watch that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    warn = say

    def fetched(self, done: int, total: int | None, what: str = "") -> None:
        self.said.append(f"{what} {done} {total}")

    def step(self, status: dict[str, Any]) -> None:
        raise AssertionError(status)
