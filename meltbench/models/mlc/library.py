"""A small Llama on tvm.relax.frontend.nn, compiled for this machine's CPU into a library with MLC's function names.

``embed``, ``prefill`` and ``decode`` take one sequence; ``create_tir_paged_kv_cache`` makes TVM's paged KV cache, and
``_metadata`` tells in JSON what the library is. The functions of batches, which ``mlc_llm serve`` also looks for, are
not in it. Imported by whoever compiles: TVM takes two seconds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax, te, tirx
from tvm.relax.backend.cpu_generic import pipeline as passes
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache, RopeMode, TIRPagedKVCache
from tvm.s_tir import Schedule

from meltbench.models.mlc.quantise import BITS, GROUP, PER_WORD, ZERO

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from meltbench.models.mlc.shape import LlamaShape

_FLOAT = "float32"
_MATMUL = "NT_matmul"
_ROWS = 16  # outputs that one piece of parallel work computes for every token, while their weights are in the cache


def compile_library(
    shape: LlamaShape, cpu: str | None, metadata: dict[str, Any], *, quantised: bool, chunk: int
) -> tuple[Any, list[tuple[str, tuple[int, ...], str]]]:
    """The compiled model, to be exported, and its parameters by MLC's names with shape and type, in their order.

    ``cpu``: whose instructions may be used, in the names of LLVM; None: those that every processor of the kind has.
    """
    # Sums in another order than they are written in: without it no reduction is vectorised.
    words: dict[str, Any] = {"kind": "llvm", "fast-math-reassoc": True, "fast-math-contract": True}
    target = tvm.target.Target(words if cpu is None else words | {"mcpu": cpu})
    with target:
        model = _Llama(shape, quantised)
        module, named = model.export_tvm(spec=model.spec())
        params = [(name, tuple(int(n) for n in one.shape), str(one.dtype)) for name, one in named]
        told = metadata | {
            "prefill_chunk_size": chunk,
            "params": [
                {"name": name, "shape": list(dims), "dtype": dtype, "preprocs": [], "pipeline_stages": [0]}
                for name, dims, dtype in params
            ],
        }
        module["_metadata"] = _saying(json.dumps(told))
        bounds = {"seq_len": chunk}
        for name in ("embed", "prefill"):
            module[name] = module[name].with_attr("tir_var_upper_bound", bounds)
        lowered = tvm.transform.Sequential(
            [
                *passes.library_dispatch_passes(target),
                *passes.legalize_passes(target),
                _scheduled(),
                *passes.dataflow_lower_passes(target),
                *passes.finalize_passes(target),
            ]
        )
        # MLC switches the same pass off: it can leave variables behind that nothing defines.
        with tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
            return tvm.compile(module, target=target, relax_pipeline=lowered), params


def export(built: Any, path: Path, link: Callable[[str, list[str]], None]) -> None:
    """Write the library; ``link`` makes a shared library of object files."""

    def linked(output: str, objects: list[str] | str, **_: Any) -> None:
        link(output, [objects] if isinstance(objects, str) else [str(one) for one in objects])

    linked.object_format = "o"  # type: ignore[attr-defined]
    built.export_library(str(path), fcompile=linked)


def _saying(text: str) -> Any:
    builder = relax.BlockBuilder()
    with builder.function("_metadata", params=[]):
        builder.emit_func_output(tvm.ir.StringImm(text))
    return builder.finalize()["_metadata"]


def _scheduled() -> Any:
    """A pass: matrix products are split by outputs over the threads, with the tokens inside."""

    def schedule(function: Any) -> Any:
        plan = Schedule(function)
        try:
            block = plan.get_sblock(_MATMUL)
        except tvm.error.TVMError:
            return function
        _, tokens, outputs, terms = plan.get_loops(block)
        outer, inner = plan.split(outputs, [None, _ROWS])
        plan.reorder(outer, tokens, inner, terms)
        plan.parallel(outer)
        return plan.mod["main"]

    @tvm.transform.module_pass(opt_level=0, name="ScheduleMatmul")  # type: ignore[untyped-decorator]
    def of_module(module: Any, _: Any) -> Any:
        for name, function in list(module.functions_items()):
            if not isinstance(function, tirx.PrimFunc):
                continue
            if _MATMUL in name.name_hint:
                function = schedule(function)  # noqa: PLW2901
            # No kernel is given one buffer twice. One that does not say so keeps LLVM from vectorising all others.
            module[name] = function.with_attr("tirx.noalias", True)
        return module

    return of_module


def _unpacked(words: Any, scales: Any, row: Any, at: Any) -> Any:
    """A weight of a group-quantised matrix, in float32."""
    shift = tirx.Cast("uint32", (at % PER_WORD) * BITS)
    value = tirx.bitwise_and(tirx.shift_right(words[row, at // PER_WORD], shift), tirx.const(2**BITS - 1, "uint32"))
    return (value.astype(_FLOAT) - tirx.const(ZERO, _FLOAT)) * scales[row, at // GROUP]


class _Matrix(nn.Module):  # type: ignore[misc]
    """Weights of ``rows`` outputs over ``columns`` inputs: a linear layer, or a table of embeddings, or both."""

    def __init__(self, rows: int, columns: int, quantised: bool) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        if quantised:
            self.q_weight = nn.Parameter((rows, columns // PER_WORD), "uint32")
            self.q_scale = nn.Parameter((rows, columns // GROUP), _FLOAT)
            self.stored = [self.q_weight, self.q_scale]
        else:
            self.weight = nn.Parameter((rows, columns), _FLOAT)
            self.stored = [self.weight]

    def forward(self, x: Any) -> Any:
        """Products of every token with every row."""

        def product(x: Any, *stored: Any) -> Any:
            batch, tokens, _ = x.shape
            k = te.reduce_axis((0, self.columns), name="k")
            return te.compute(
                (batch, tokens, self.rows),
                lambda b, i, j: te.sum(x[b, i, k] * self._at(stored, j, k), axis=k),
                name=_MATMUL,
            )

        return op.tensor_expr_op(product, name_hint=_MATMUL, args=[x, *self.stored])

    def rows_of(self, ids: Any) -> Any:
        """The rows of some tokens."""

        def taken(ids: Any, *stored: Any) -> Any:
            return te.compute((ids.shape[0], self.columns), lambda i, k: self._at(stored, ids[i], k), name="take")

        return op.tensor_expr_op(taken, name_hint="take", args=[ids, *self.stored])

    @staticmethod
    def _at(stored: tuple[Any, ...], row: Any, column: Any) -> Any:
        return _unpacked(stored[0], stored[1], row, column) if len(stored) > 1 else stored[0][row, column]


class _Attention(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: LlamaShape, quantised: bool) -> None:
        super().__init__()
        self.shape = shape
        self.heads = shape.num_attention_heads + 2 * shape.num_key_value_heads
        self.qkv_proj = _Matrix(self.heads * shape.head_dim, shape.hidden_size, quantised)
        self.o_proj = _Matrix(shape.hidden_size, shape.num_attention_heads * shape.head_dim, quantised)

    def forward(self, x: Any, cache: Any, layer: int) -> Any:
        """Attention of one layer over what is in the cache; the cache rotates queries and keys."""
        batch, tokens, _ = x.shape
        mine, size = self.shape.num_attention_heads, self.shape.head_dim
        qkv = op.reshape(self.qkv_proj(x), (batch, tokens, self.heads, size))
        seen = cache.attention_with_fused_qkv(layer, qkv, mine, sm_scale=size**-0.5)
        return self.o_proj(op.reshape(seen, (batch, tokens, mine * size)))


class _FeedForward(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: LlamaShape, quantised: bool) -> None:
        super().__init__()
        self.gate_up_proj = _Matrix(2 * shape.intermediate_size, shape.hidden_size, quantised)
        self.down_proj = _Matrix(shape.hidden_size, shape.intermediate_size, quantised)

    def forward(self, x: Any) -> Any:
        """SwiGLU."""
        gate, up = op.split(self.gate_up_proj(x), 2, axis=-1)
        return self.down_proj(op.silu(gate) * up)


class _Layer(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: LlamaShape, quantised: bool) -> None:
        super().__init__()
        self.self_attn, self.mlp = _Attention(shape, quantised), _FeedForward(shape, quantised)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, -1, shape.rms_norm_eps, bias=False)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, -1, shape.rms_norm_eps, bias=False)

    def forward(self, x: Any, cache: Any, layer: int) -> Any:
        """One layer with both its residuals."""
        x = x + self.self_attn(self.input_layernorm(x), cache, layer)
        return x + self.mlp(self.post_attention_layernorm(x))


class _Body(nn.Module):  # type: ignore[misc]
    def __init__(self, shape: LlamaShape, quantised: bool) -> None:
        super().__init__()
        self.embed_tokens = _Matrix(shape.vocab_size, shape.hidden_size, quantised)
        self.layers = nn.ModuleList([_Layer(shape, quantised) for _ in range(shape.num_hidden_layers)])
        self.norm = nn.RMSNorm(shape.hidden_size, -1, shape.rms_norm_eps, bias=False)

    def forward(self, x: Any, cache: Any) -> Any:
        """All layers."""
        for number, layer in enumerate(self.layers):
            x = layer(x, cache, number)
        return self.norm(x)


class _Llama(nn.Module):  # type: ignore[misc]
    """The whole; parameters have MLC's names by those of the attributes."""

    def __init__(self, shape: LlamaShape, quantised: bool) -> None:
        super().__init__()
        self.shape, self.model = shape, _Body(shape, quantised)
        if not shape.tied:
            self.lm_head = _Matrix(shape.vocab_size, shape.hidden_size, quantised)

    def embed(self, input_ids: Any) -> Any:
        """Tokens to vectors."""
        return self.model.embed_tokens.rows_of(input_ids)

    def prefill(self, input_embed: Any, paged_kv_cache: Any) -> Any:
        """The logits after the last of several tokens."""

        def last(x: Any) -> Any:
            batch, tokens, width = x.shape
            return te.compute((batch, 1, width), lambda i, _, k: x[i, tokens - 1, k], name="index")

        x = self.model(input_embed, paged_kv_cache)
        return self._logits(op.tensor_expr_op(last, name_hint="index", args=[x])), paged_kv_cache

    def decode(self, input_embed: Any, paged_kv_cache: Any) -> Any:
        """The logits after one token."""
        return self._logits(self.model(input_embed, paged_kv_cache)), paged_kv_cache

    def _logits(self, x: Any) -> Any:
        return (self.model.embed_tokens if self.shape.tied else self.lm_head)(x)

    def create_tir_paged_kv_cache(
        self,
        max_batch_size: Any,
        max_total_seq_len: Any,
        prefill_chunk_size: Any,
        page_size: Any,
        support_sliding_window: Any,
    ) -> Any:
        """TVM's paged KV cache, with its kernels for this target."""
        shape = self.shape
        return TIRPagedKVCache(
            attn_kind="mha",
            max_batch_size=max_batch_size,
            max_total_seq_len=max_total_seq_len,
            prefill_chunk_size=prefill_chunk_size,
            page_size=page_size,
            support_sliding_window=support_sliding_window,
            layer_partition=relax.ShapeExpr([0, shape.num_hidden_layers]),
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            num_key_value_heads=shape.num_key_value_heads,
            qk_head_dim=shape.head_dim,
            v_head_dim=shape.head_dim,
            mla_original_qk_head_dim=0,
            mla_original_v_head_dim=0,
            rope_mode=RopeMode.NORMAL,
            rope_scale=1,
            rope_theta=shape.rope_theta,
            rope_scaling=dict(shape.rope_scaling or {}),
            rope_ext_factors=relax.prim_value(0),
            rotary_dim=shape.head_dim,
            enable_disaggregation=False,
            dtype=_FLOAT,
            target=tvm.target.Target.current(),
        )

    def spec(self) -> Any:
        """What each function takes, as MLC's libraries have it: all parameters in one packed argument, the last."""
        packed = {"param_mode": "packed", "effect_mode": "none"}
        alone = {"param_mode": "none", "effect_mode": "none"}
        cache, width = nn.spec.Object(object_type=PagedKVCache), self.shape.hidden_size
        sizes = ("max_batch_size", "max_total_seq_len", "prefill_chunk_size", "page_size", "support_sliding_window")
        several, one = nn.spec.Tensor([1, "seq_len", width], _FLOAT), nn.spec.Tensor([1, 1, width], _FLOAT)
        functions: dict[str, dict[str, Any]] = {
            "embed": {"input_ids": nn.spec.Tensor(["seq_len"], "int32"), "$": packed},
            "prefill": {"input_embed": several, "paged_kv_cache": cache, "$": packed},
            "decode": {"input_embed": one, "paged_kv_cache": cache, "$": packed},
            "create_tir_paged_kv_cache": dict.fromkeys(sizes, int) | {"$": alone},
        }
        return nn.spec.ModuleSpec.from_raw(functions, self)
