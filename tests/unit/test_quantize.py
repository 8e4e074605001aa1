"""Requantisation: the values against gguf's own arithmetic, and what the file says of itself."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from ggufmaker import LLAMA, header
from ggufmaker import gguf as made_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.errors import MissingExtra, ModelDamaged, UserError
from meltbench.models import quantize, read_gguf
from meltbench.models.quantize import TYPES, Made, requantise

Q = gguf.GGMLQuantizationType
RNG = np.random.default_rng(7)
# Steps of a block by its largest weight: the error of rounding is at most half a step, of the coarsest one step.
STEPS = {"Q8_0": 127, "Q5_1": 31 / 2, "Q5_0": 16, "Q4_1": 15 / 2, "Q4_0": 8}


def file_of(path: Path, tensors: dict[str, tuple[np.ndarray[Any, Any], str]], meta: Any = LLAMA) -> Path:
    """A GGUF file that holds these values, each quantised as said."""
    align = meta.get("general.alignment", ("u32", 32))[1]
    listed: list[Any] = []
    data = b""
    for name, (values, kind) in tensors.items():
        data += b"\0" * (-len(data) % align)
        listed.append((name, tuple(reversed(values.shape)), kind, len(data)))
        data += gguf.quants.quantize(values, Q[kind]).tobytes()
    head = header(meta, listed)
    path.write_bytes(head + b"\0" * (-len(head) % align) + data)
    return path


def weights(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.normal(0, 0.05, shape).astype(np.float32)


def made(source: Path, kind: str, name: str = "tiny-f32") -> Made:
    return requantise(source, name, kind, source.with_name(f"{kind}.gguf"), lambda done, of: None)


def values_of(path: Path) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
    """Type and values of every tensor, by upstream's reader."""
    tensors = gguf.GGUFReader(path).tensors
    return {one.name: (one.tensor_type.name, gguf.quants.dequantize(one.data, one.tensor_type)) for one in tensors}


TINY = {
    "token_embd.weight": (weights(3, 64), "F32"),
    "blk.0.attn_norm.weight": (weights(64), "F32"),
    "blk.0.ffn_up.weight": (weights(40, 64), "F16"),
    "blk.0.ffn_gate_inp.weight": (weights(4, 64), "F32"),
    "blk.0.ffn_down_exps.weight": (weights(2, 3, 32), "Q8_0"),
    "blk.0.odd.weight": (weights(3, 33), "F32"),
}


@pytest.mark.parametrize("kind", TYPES)
def test_every_weight_becomes_the_type_within_its_rounding(tmp_path: Path, kind: str) -> None:
    source = file_of(tmp_path / "tiny.gguf", TINY)
    rung = made(source, kind)
    assert (rung.requantised, rung.kept, rung.fell_back) == (3, 2, 1)
    before, after = values_of(source), values_of(rung.path)
    assert {name: found[0] for name, found in after.items()} == {
        "token_embd.weight": kind,
        "blk.0.attn_norm.weight": "F32",
        "blk.0.ffn_up.weight": kind,
        "blk.0.ffn_gate_inp.weight": "F32",
        "blk.0.ffn_down_exps.weight": kind,
        "blk.0.odd.weight": "F16",
    }
    for name, (found, values) in after.items():
        was = before[name][1]
        assert values.shape == was.shape
        if found == kind and before[name][0] != kind:
            assert np.array_equal(values, gguf.quants.dequantize(gguf.quants.quantize(was, Q[kind]), Q[kind]))
            blocks = np.abs(was).reshape(-1, 32).max(axis=1)
            error = np.abs(values - was).reshape(-1, 32).max(axis=1)
            assert (error <= blocks / STEPS[kind] * 1.01).all()
        elif found != "F16":
            assert np.array_equal(values, was)


def test_what_has_the_type_already_is_copied_bit_by_bit(tmp_path: Path) -> None:
    source = file_of(tmp_path / "a.gguf", {"a.weight": (weights(8, 64), "Q8_0"), "b.weight": (weights(8, 64), "F32")})
    again = made(source, "Q8_0")
    old, new = (gguf.GGUFReader(path).tensors[0].data for path in (source, again.path))
    assert np.array_equal(old, new)


def test_bits_per_weight_are_counted(tmp_path: Path) -> None:
    source = file_of(tmp_path / "tiny.gguf", TINY)
    count = sum(values.size for values, _ in TINY.values())
    kept = 4 * (64 + 4 * 64) + 2 * 3 * 33
    rung = made(source, "Q4_0")
    assert rung.bits_per_weight == 8 * (kept + (3 * 64 + 40 * 64 + 2 * 3 * 32) // 32 * 18) / count
    head = read_gguf(rung.path)
    assert (head.bits_per_weight, head.n_params, head.file_type) == (rung.bits_per_weight, count, "Q4_0")
    assert rung.size_bytes == rung.path.stat().st_size


def test_the_file_says_what_it_descends_from_and_all_else_as_before(tmp_path: Path) -> None:
    odd: Any = {"x.empty": ("arr", "str", []), "general.quantized_by": ("str", "somebody"), "x.f": ("f32", 0.5)}
    source = file_of(tmp_path / "tiny.gguf", TINY, LLAMA | odd | {"general.alignment": ("u32", 64)})
    rung = made(source, "Q5_0", "tiny-q4_1")
    sha256 = quantize.file_sha256(source)
    assert rung.descends_from == f"tiny-q4_1 (Q4_1, sha256 {sha256})"
    head, was = read_gguf(rung.path), read_gguf(source)
    assert head.descends_from == rung.descends_from
    assert (head.alignment, head.vocab_size, head.name) == (64, 3, "Tiny")
    old, new = source.read_bytes(), rung.path.read_bytes()
    before = {key: old[start:end] for key, start, end in was.spans}
    after = {key: new[start:end] for key, start, end in head.spans}
    changed = {"general.file_type", "general.quantized_by"}
    assert {key: value for key, value in after.items() if key in before and key not in changed} == {
        key: value for key, value in before.items() if key not in changed
    }
    assert set(after) - set(before) == {"general.quantization_version", "meltbench.descends_from"}
    assert after["general.quantized_by"].endswith(f"meltbench, requantised from {rung.descends_from}".encode())
    assert after["general.quantization_version"].endswith(struct.pack("<II", 4, 2))
    second = made(rung.path, "Q4_0", "tiny-q4_1-q5_0")
    assert second.descends_from.endswith(f"(Q5_0, sha256 {rung.sha256}); which descends from {rung.descends_from}")


def test_equal_inputs_give_equal_bytes_however_they_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = file_of(tmp_path / "tiny.gguf", TINY)
    whole = made(source, "Q5_1").path.read_bytes()
    monkeypatch.setattr(quantize, "_CHUNK_ELEMENTS", 100)
    assert made(source, "Q5_1").path.read_bytes() == whole


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    source = file_of(tmp_path / "tiny.gguf", TINY)

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        requantise(source, "tiny", "Q8_0", tmp_path / "out.gguf", stop)
    assert [one.name for one in tmp_path.iterdir()] == ["tiny.gguf"]
    with pytest.raises(UserError, match=r"cannot write .*; give another --out"):
        requantise(source, "tiny", "Q8_0", tmp_path / "no" / "out.gguf", lambda done, of: None)


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (made_gguf()[:-40], ModelDamaged, "truncated"),
        (b"<html>", UserError, "web page"),
        (made_gguf(LLAMA, [("a.weight", (32, 2), 88)]), UserError, "a.weight is of type 88"),
    ],
)
def test_a_source_that_is_none_is_one_line(tmp_path: Path, content: bytes, kind: type[Exception], words: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(kind, match=words):
        made(tmp_path / "m.gguf", "Q8_0")
    assert [one.name for one in tmp_path.iterdir()] == ["m.gguf"]


def test_a_type_that_gguf_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(header(LLAMA, [("a.weight", (32, 2), 15)]) + bytes(4096))
    with pytest.raises((UserError, ModelDamaged)):  # Q8_K wants rows of 256
        made(tmp_path / "m.gguf", "Q8_0")
    (tmp_path / "m.gguf").write_bytes(header(LLAMA, [("a.weight", (256, 1), 15)]) + bytes(4096))
    with pytest.raises(UserError, match=r"a.weight is of Q8_K, which gguf cannot read; take a file of other"):
        made(tmp_path / "m.gguf", "Q8_0")


def test_without_gguf_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    source = tmp_path / "m.gguf"
    source.write_bytes(made_gguf(LLAMA, [("a.weight", (32, 2), "F32")]))
    with pytest.raises(MissingExtra, match=r"gguf is not installed; pip install 'meltbench\[quantize\]'"):
        made(source, "Q8_0")


@settings(max_examples=30)
@given(values=st.lists(st.floats(width=32), min_size=32, max_size=32), kind=st.sampled_from(TYPES))
def test_any_weights_give_a_whole_file(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], kind: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    source = folder / "m.gguf"
    head = header(LLAMA, [("a.weight", (32, 1), "F32")])
    source.write_bytes(head + b"\0" * (-len(head) % 32) + np.array(values, np.float32).tobytes())
    rung = made(source, kind)
    assert (rung.requantised, read_gguf(rung.path).tensors[0].type) == (1, kind)
