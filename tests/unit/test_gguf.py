import struct
import tracemalloc

import pytest
from ggufmaker import LLAMA, TENSORS, gguf, header, string
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meltbench.errors import ModelDamaged, UserError
from meltbench.models import Gguf, fits, kv_cache_bytes, read_gguf

WHOLE = gguf()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("gguf") / "m.gguf"


def read(place, content):
    place.write_bytes(content)
    return read_gguf(place)


def refused(place, content, *words):
    with pytest.raises((UserError, ModelDamaged)) as caught:
        read(place, content)
    text = str(caught.value)
    assert isinstance(caught.value, ModelDamaged) == ("corrupt GGUF" in text)
    assert "\n" not in text
    for word in (str(place), *words):
        assert word in text


@pytest.mark.parametrize("version", [2, 3])
def test_reads_what_the_file_says(place, version):
    meta = read(place, gguf(version=version))
    assert (meta.version, meta.architecture, meta.name, meta.file_type) == (version, "llama", "Tiny", "Q4_1")
    assert (meta.block_count, meta.context_length, meta.embedding_length) == (2, 64, 32)
    assert (meta.head_count, meta.head_count_kv, meta.key_length, meta.value_length) == (4, 2, None, None)
    assert (meta.vocab_size, meta.bos_token_id, meta.has_chat_template) == (3, 0, True)
    assert [(t.name, t.dims, t.type, t.offset, t.size_bytes) for t in meta.tensors] == [
        ("token_embd.weight", (32, 3), "Q4_1", 0, 60),
        ("output_norm.weight", (32,), "F32", 64, 128),
    ]
    assert meta.n_params == 128
    assert meta.bits_per_weight == (60 + 128) * 8 / 128


def test_what_is_not_said_is_none(place):
    meta = read(place, gguf({"general.architecture": ("str", "llama")}, []))
    assert (meta.block_count, meta.vocab_size, meta.file_type, meta.bits_per_weight) == (None, None, None, None)
    assert meta.has_chat_template is False
    with pytest.raises(UserError, match=r"does not give llama\.block_count"):
        kv_cache_bytes(meta, 8)


def test_a_chat_template_is_looked_into_whatever_its_bytes_are(place):
    def of(*raw, key="tokenizer.chat_template"):
        meta = {name: value for name, value in LLAMA.items() if name != "tokenizer.chat_template"}
        made = gguf(meta | {key: ("str", "@" * len(raw[0]))}) if raw else gguf(meta)
        found = read(place, made.replace(b"@" * len(raw[0]), raw[0]) if raw and raw[0] else made)
        return found.has_chat_template, found.template_thinks

    assert of() == of(b"") == (False, False)
    assert of(b"\xff{{ messages }}") == (True, False)
    assert of(b"\xffenable_Thinking") == (True, True)
    assert of(b"x" * (2**20 + 1)) == (True, None)
    assert of(b"think", key="tokenizer.chat_template.rag") == (False, False)


def test_kv_cache_counts_heads_of_every_layer(place):
    # 2 layers x 2 KV heads x (8 + 8) elements x 2 bytes a token
    assert kv_cache_bytes(read(place, WHOLE), 10) == 10 * 2 * 2 * 16 * 2
    assert kv_cache_bytes(read(place, WHOLE), 32, 34 / 32) == 32 * 2 * 2 * 16 * 34 // 32
    uneven = LLAMA | {"llama.attention.head_count_kv": ("arr", "i32", [1, 0])}
    assert kv_cache_bytes(read(place, gguf(uneven)), 10) == 10 * 1 * 16 * 2
    named = LLAMA | {"llama.attention.key_length": ("u32", 20), "llama.attention.value_length": ("u32", 10)}
    assert kv_cache_bytes(read(place, gguf(named)), 10) == 10 * 2 * 2 * 30 * 2
    without = {k: v for k, v in LLAMA.items() if not k.endswith("head_count_kv")}
    assert kv_cache_bytes(read(place, gguf(without)), 10) == 10 * 2 * 4 * 16 * 2


def test_no_heads_is_an_error_not_a_division_by_zero(place):
    with pytest.raises(UserError, match="head_count above 0"):
        kv_cache_bytes(read(place, gguf(LLAMA | {"llama.attention.head_count": ("u32", 0)})), 10)


def test_fit_names_its_parts(place):
    meta = read(place, WHOLE)
    fit = fits(meta, meta.file_bytes, 10, available_bytes=meta.file_bytes + 1280 + 100, reserve_bytes=100)
    assert (fit.weights_bytes, fit.kv_bytes, fit.reserve_bytes) == (meta.file_bytes, 1280, 100)
    assert fit.ok
    assert not fits(meta, meta.file_bytes, 11, fit.available_bytes, 100).ok
    assert not fits(meta, meta.file_bytes, 10, available_bytes=2**20).ok


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
        (b'{"error": "not found"}', "JSON"),
        (b"PK\x03\x04....", "ZIP"),
        (b"\x00\x01\x02", "starts with 00 01 02"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "version 4"),
        (b"GG", "starts with 47 47"),
    ],
)
def test_says_what_it_is_instead(place, content, words):
    refused(place, content, words)


def test_a_cut_file_is_truncated(place):
    refused(place, WHOLE[: -1 - 32], "corrupt GGUF", "truncated", "output_norm.weight")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header({"general.name": ("str", "x")}, []), ["general.architecture"]),
        (gguf(LLAMA | {"llama.block_count": ("str", "2")}), ["whole number", "'a string'"]),
        (gguf(LLAMA | {"llama.block_count": ("arr", "str", ["2"])}), ["whole number", "a list"]),
        (gguf(LLAMA | {"llama.block_count": ("u32", 2**31)}), ["at most 65536 blocks"]),
        (gguf(LLAMA | {"general.architecture": ("u32", 1)}), ["a string for general.architecture"]),
        (gguf(LLAMA | {"general.alignment": ("u32", 0)}), ["power of 2"]),
        (gguf(LLAMA | {"general.alignment": ("u32", 48)}), ["power of 2"]),
        (gguf(LLAMA | {"x": ("bool", 7)}), ["0 or 1 for x"]),
        (gguf(LLAMA | {"llama.attention.head_count_kv": ("arr", "u32", [1])}), ["2 whole numbers", "a list"]),
        (gguf(LLAMA | {"": ("u32", 1)}), ["empty one"]),
        (gguf(LLAMA, [("t", (31,), "Q4_1", 0)]), ["blocks of 32"]),
        (gguf(LLAMA, [("t", (0,), "F32")]), ["elements in t"]),
        (gguf(LLAMA, [("t", (2**40, 2**40), 99)]), ["elements in t"]),
        (gguf(LLAMA, [("t", (8,), "F32"), ("t", (8,), "F32")]), ["distinct"]),
        (gguf(LLAMA, [("t", (8,), "F32", 8), *TENSORS]), ["aligned"]),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + (string("k") + struct.pack("<II", 4, 0)) * 2, ["a new metadata key"]),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<I", 13), ["value type for k, got 13"]),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<IIQ", 9, 9, 1), ["scalar or string"]),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2) + b"\xff\xfe", ["UTF-8"]),
    ],
)
def test_corrupt_headers_name_byte_and_expectation(place, content, words):
    refused(place, content, "corrupt GGUF", "byte ", "expected", *words)


def test_an_unknown_tensor_type_is_skipped_and_sizes_become_unknown(place):
    meta = read(place, gguf(LLAMA, [("t", (8,), 99)]))
    assert (meta.tensors[0].type, meta.n_params, meta.bits_per_weight) == ("type 99", 8, None)


HUGE = 2**62
HOSTILE = [
    b"GGUF" + struct.pack("<IQQ", 3, HUGE, 0),
    b"GGUF" + struct.pack("<IQQ", 3, 0, HUGE),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", HUGE),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("general.name") + struct.pack("<IQ", 8, HUGE),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<IQ", 8, HUGE),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<IIQ", 9, 8, HUGE),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<IIQ", 9, 8, 4_000_000),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<IIQQ", 9, 8, 2, HUGE),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<IIQ", 9, 12, HUGE),
]


@pytest.mark.parametrize("content", HOSTILE)
def test_a_claimed_count_costs_no_memory(place, content):
    tracemalloc.start()
    try:
        refused(place, content, "corrupt GGUF")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_large_vocabulary_is_stepped_over_across_windows(place):
    tokens = ["t" * (n % 40) for n in range(100_000)]
    meta = read(place, gguf(LLAMA | {"tokenizer.ggml.tokens": ("arr", "str", tokens)}))
    assert (meta.vocab_size, meta.bos_token_id, len(meta.tensors)) == (100_000, 0, 2)


def survives(place, content):
    """Whatever the bytes, the answer is a description or one line."""
    try:
        meta = read(place, content)
        assert isinstance(meta, Gguf)
        assert kv_cache_bytes(meta, 2**20) >= 0
    except (UserError, ModelDamaged) as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.binary(max_size=400))
def test_arbitrary_bytes(place, content):
    survives(place, content)
    survives(place, b"GGUF" + struct.pack("<I", 3) + content)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_bytes(place, changes):
    content = bytearray(WHOLE)
    for at, byte in changes:
        content[at] = byte
    survives(place, bytes(content))


@FUZZ
@given(st.integers(8, len(header())), st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]))
def test_extreme_numbers_anywhere(place, at, number):
    survives(place, WHOLE[:at] + struct.pack("<Q", number) + WHOLE[at + 8 :])


def test_every_truncation(place):
    for end in range(len(WHOLE)):
        survives(place, WHOLE[:end])


def test_a_folder_or_absent_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        read_gguf(tmp_path / "absent.gguf")
    with pytest.raises(UserError, match="cannot read"):
        read_gguf(tmp_path)
