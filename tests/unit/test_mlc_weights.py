"""What a Llama is built of in MLC's form; both GGUF and safetensors are files of others."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import gguf
import ggufmaker
import numpy as np
import pytest
import tiny_llama
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from meltbench.errors import MeltbenchError, ModelDamaged, UserError
from meltbench.models.gguf import MAX_STRINGS, read_gguf
from meltbench.models.header import read_header
from meltbench.models.metadata import value_of
from meltbench.models.mlc.quantise import GROUP, packed, unpacked
from meltbench.models.mlc.shape import LlamaShape, parts_of
from meltbench.models.mlc.weights import FolderSource, GgufSource, source_of
from meltbench.models.mlc.words import words_of

CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
SHAPE = LlamaShape(32, 64, 1, 4, 2, 8, 40, 256, 1e-5, 10_000.0, tied=True)


def safetensors(path: Path, tensors: dict[str, np.ndarray[Any, Any]], kinds: dict[str, str] | None = None) -> None:
    table, body = {}, b""
    for name, values in tensors.items():
        raw = values.tobytes()
        kind = (kinds or {}).get(name, "F32")
        table[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    head = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + body)


def folder(path: Path, **changed: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(CONFIG | changed))
    rng = np.random.default_rng(0)
    safetensors(
        path / "model.safetensors", {n: rng.normal(size=s).astype(np.float32) for n, s in SHAPE.weights.items()}
    )
    return path


def test_the_rows_of_a_gguf_lie_as_hugging_face_has_them(tmp_path: Path) -> None:
    source = GgufSource(tiny_llama.write(tmp_path / "tiny.gguf"))
    assert source.shape.head_dim == tiny_llama.WIDTH // tiny_llama.HEADS
    assert source.quantised is None
    mine = source.weight("model.layers.0.self_attn.q_proj.weight")
    read = {tensor.name: np.asarray(tensor.data) for tensor in gguf.GGUFReader(source.path).tensors}
    theirs = read["blk.0.attn_q.weight"]
    half = source.shape.head_dim // 2
    # Row 0 and 1 of a head are a pair there; here the second of a pair stands half a head further.
    assert np.array_equal(mine[0], theirs[0])
    assert np.array_equal(mine[half], theirs[1])
    assert np.array_equal(mine[source.shape.head_dim], theirs[source.shape.head_dim])
    assert np.array_equal(source.weight("model.layers.0.self_attn.v_proj.weight"), read["blk.0.attn_v.weight"])


def test_a_folder_of_safetensors_says_the_same_in_every_type(tmp_path: Path) -> None:
    source = source_of(folder(tmp_path / "a"))
    assert isinstance(source, FolderSource)
    assert source.shape == SHAPE
    name = "model.norm.weight"
    whole = np.arange(32, dtype=np.float32)
    kept = {n: source.weight(n) for n in SHAPE.weights if n != name}
    for kind, raw in (("F16", whole.astype(np.float16)), ("BF16", (whole.view(np.uint32) >> 16).astype(np.uint16))):
        safetensors(tmp_path / "a" / "model.safetensors", kept | {name: raw}, {name: kind})
        assert np.array_equal(FolderSource(tmp_path / "a").weight(name), whole)
    assert sum(int(np.prod(shape)) for shape in SHAPE.weights.values()) == SHAPE.n_params


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model_type": "gpt2"}, "compiles model_type llama"),
        ({"attention_bias": True}, "biases"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "yarn is not known"),
        ({"hidden_size": None}, "hidden_size = None"),
        ({"hidden_size": 10**9}, "hidden_size = 1000000000"),
        ({"vocab_size": True}, "vocab_size = True"),
        ({"num_key_value_heads": 3}, "cannot be divided"),
        ({"rms_norm_eps": "x"}, "rms_norm_eps = x"),
    ],
)
def test_a_configuration_that_is_no_plain_llama_is_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        FolderSource(folder(tmp_path / "a", **changed))


def test_rotary_scaling_of_llama_3_is_kept(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 500_000.0}
    shape = FolderSource(folder(tmp_path / "a", rope_parameters=rope)).shape
    assert (shape.rope_theta, shape.rope_scaling) == (500_000.0, rope)


def test_weights_that_are_not_those_of_the_configuration_are_damage(tmp_path: Path) -> None:
    path = folder(tmp_path / "a")
    source = FolderSource(path)
    kept = {n: source.weight(n) for n in SHAPE.weights}
    safetensors(path / "model.safetensors", {n: v for n, v in kept.items() if n != "model.norm.weight"})
    with pytest.raises(ModelDamaged, match=r"lacks model\.norm\.weight"):
        FolderSource(path).weight("model.norm.weight")
    safetensors(path / "model.safetensors", kept | {"model.norm.weight": np.ones(31, np.float32)})
    with pytest.raises(ModelDamaged, match=r"is \(31,\), not \(32,\)"):
        FolderSource(path).weight("model.norm.weight")
    safetensors(path / "model.safetensors", kept, {"model.norm.weight": "F16"})
    with pytest.raises(ModelDamaged, match="has 128 bytes"):
        FolderSource(path).weight("model.norm.weight")
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(ModelDamaged, match="cut short"):
        FolderSource(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no"):
        FolderSource(path)


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_no_safetensors_file_does_worse_than_an_error(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, length: int
) -> None:
    path = tmp_path_factory.mktemp("st")
    (path / "config.json").write_text(json.dumps(CONFIG))
    for content in (body, struct.pack("<Q", length) + body, struct.pack("<Q", len(body)) + body):
        (path / "model.safetensors").write_bytes(content)
        with pytest.raises(MeltbenchError):
            FolderSource(path).weight("model.norm.weight")


def test_a_gguf_that_is_no_plain_llama_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(ggufmaker.gguf(ggufmaker.LLAMA | {"general.architecture": ("str", "qwen2")}))
    with pytest.raises(UserError, match="of the architecture qwen2"):
        GgufSource(path)
    path.write_bytes(ggufmaker.gguf())  # no feed_forward_length
    with pytest.raises(UserError, match="intermediate_size = None"):
        GgufSource(path)
    more = {"llama.feed_forward_length": ("u32", 32), "llama.attention.layer_norm_rms_epsilon": ("f32", 1e-5)}
    path.write_bytes(ggufmaker.gguf(ggufmaker.LLAMA | more, [*ggufmaker.TENSORS, ("rope_freqs.weight", (4,), "F32")]))
    with pytest.raises(UserError, match="scaled rotary embeddings"):
        GgufSource(path)
    path.write_bytes(ggufmaker.gguf(ggufmaker.LLAMA | more))
    with pytest.raises(ModelDamaged, match=r"lacks blk.0.attn_q.weight"):
        GgufSource(path).weight("model.layers.0.self_attn.q_proj.weight")


def test_a_header_says_what_upstreams_reader_reads(tmp_path: Path) -> None:
    more = {
        "a.flags": ("arr", "bool", [1, 0]),
        "a.flag": ("bool", 1),
        "a.numbers": ("arr", "i8", [-1, 2]),
        "a.none": ("arr", "u16", []),
    }
    path = tmp_path / "m.gguf"
    path.write_bytes(ggufmaker.gguf(ggufmaker.LLAMA | more))
    fields = gguf.GGUFReader(path).fields.items()
    theirs = {key: one.contents() for key, one in fields if not key.startswith("GGUF.")}
    head = read_gguf(path)
    assert {key: value_of(head, key) for key in theirs} == theirs
    assert list(theirs) == [*ggufmaker.LLAMA, *more]
    assert value_of(head, "a.flag") is True
    assert value_of(head, "a") is None


def test_a_tensor_that_nothing_can_read_is_told(tmp_path: Path) -> None:
    whole = tiny_llama.write(tmp_path / "tiny.gguf").read_bytes()
    name = b"output_norm.weight"
    at = whole.index(name) + len(name) + 4 + 8  # its type is after the dimensions, of which it has one
    for number, said in ((24, "is of I8"), (99, "is of type 99")):
        path = tmp_path / "odd.gguf"
        path.write_bytes(whole[:at] + struct.pack("<I", number) + whole[at + 4 :])
        with pytest.raises(UserError, match=said):
            GgufSource(path).weight("model.norm.weight")


def test_a_value_larger_than_any_models_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    head, count = (
        ggufmaker.header({"general.architecture": ("str", "llama"), "a": ("arr", "u8", [])}, []),
        MAX_STRINGS + 1,
    )
    path.write_bytes(head[:-8] + struct.pack("<Q", count) + bytes(count + 64))
    with pytest.raises(ModelDamaged, match=f"at most {MAX_STRINGS} values of a, got {count}"):
        value_of(read_gguf(path), "a")
    path.write_bytes(ggufmaker.gguf(ggufmaker.LLAMA).replace(b"<s>", b"<\xff>"))
    with pytest.raises(ModelDamaged, match=r"expected tokenizer\.ggml\.tokens in UTF-8"):
        value_of(read_gguf(path), "tokenizer.ggml.tokens")


@given(st.data())
def test_no_gguf_does_worse_than_an_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    whole = tiny_llama.write(path).read_bytes()
    head = read_gguf(path).data_offset
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, head - 1))
        whole = whole[:at] + data.draw(st.binary(min_size=1, max_size=8)) + whole[at + 1 :]
    path.write_bytes(whole)
    with contextlib.suppress(MeltbenchError):
        source = GgufSource(path)
        words_of(source, None)
        for name in source.shape.weights:
            source.weight(name)


@given(arrays(np.float32, (3, 2 * GROUP), elements=st.floats(-1e3, 1e3, width=32)))
def test_group_quantisation_errs_by_half_a_step_at_most(weights: np.ndarray[Any, Any]) -> None:
    words, scales = packed(weights)
    assert (words.shape, words.dtype, scales.shape) == ((3, 2 * GROUP // 8), np.uint32, (3, 2))
    step = np.repeat(scales, GROUP, axis=1)
    assert np.all(np.abs(unpacked(words, scales) - weights) <= step * 0.5 * (1 + 1e-5) + 1e-30)


def test_the_words_of_q4f32_1_are_mlcs() -> None:
    weights = np.zeros((1, GROUP), np.float32)
    weights[0, :9] = (7, -7, 1, 0, 0, 0, 0, -3, 2)
    words, scales = packed(weights)
    assert scales.tolist() == [[1.0]]
    assert hex(int(words[0, 0])) == "0x4777780e"  # the first weight in the lowest bits, each 7 more than it is
    assert hex(int(words[0, 1])) == "0x77777779"


def test_fused_weights_are_their_parts_in_order() -> None:
    assert [one.split(".")[-2] for one in parts_of("model.layers.3.self_attn.qkv_proj.weight")] == [
        "q_proj",
        "k_proj",
        "v_proj",
    ]
    assert parts_of("model.layers.3.mlp.gate_up_proj.weight")[1] == "model.layers.3.mlp.up_proj.weight"
    assert parts_of("lm_head.weight") == ["lm_head.weight"]


@pytest.mark.parametrize("name", ["tensor-cache.json", "ndarray-cache.json"])
def test_weights_of_another_size_than_their_table_says_are_damage(tmp_path: Path, name: str) -> None:
    (tmp_path / "mlc-chat-config.json").write_text("{}")
    meta = {"ParamBytes": 450.0, "BitsPerParam": 4.5}
    table: dict[str, Any] = {"metadata": meta, "records": [{"dataPath": "params_shard_0.bin", "nbytes": 100}]}
    (tmp_path / name).write_text(json.dumps(table))
    with pytest.raises(ModelDamaged, match=r"params_shard_0\.bin is not there"):
        read_header(tmp_path, "mlc")
    (tmp_path / "params_shard_0.bin").write_bytes(b"\0" * 99)
    with pytest.raises(ModelDamaged, match=r"has 99 bytes.*says 100"):
        read_header(tmp_path, "mlc")
    (tmp_path / "params_shard_0.bin").write_bytes(b"\0" * 100)
    assert read_header(tmp_path, "mlc").n_params == 800
    for odd in ("../params_shard_0.bin", "", 7, None):
        (tmp_path / name).write_text(json.dumps({"records": [{"dataPath": odd, "nbytes": 100}]}))
        with pytest.raises(ModelDamaged, match="not beside it"):
            read_header(tmp_path, "mlc")
