"""What a folder of another engine's says of its model; it is written by other tools, so anything may stand in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ggufmaker import gguf
from hypothesis import given
from hypothesis import strategies as st

from meltbench import models
from meltbench.errors import ModelDamaged, UserError
from meltbench.models.header import fits, format_of, read_header, sha256_of_model
from meltbench.ticket import LocalModel

GENAI = {
    "model": {
        "type": "llama",
        "context_length": 2048,
        "vocab_size": 49152,
        "decoder": {"filename": "model.onnx", "num_hidden_layers": 30, "num_key_value_heads": 3, "head_size": 64},
    }
}
MLC = {
    "model_type": "llama",
    "vocab_size": 49152,
    "context_window_size": 4096,
    "model_config": {"num_hidden_layers": 30, "num_key_value_heads": 3, "hidden_size": 576, "num_attention_heads": 9},
}


def genai(folder: Path, config: Any = GENAI) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "genai_config.json").write_text(json.dumps(config))
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "model.onnx.data").write_bytes(b"weights" * 100)
    return folder


def test_a_folder_is_a_model_by_the_configuration_in_it(tmp_path: Path) -> None:
    folder = genai(tmp_path / "smol")
    found = models.resolve(str(folder), ("onnx-genai",))
    assert (found.name, found.format, found.size_bytes) == ("smol", "onnx-genai", len(json.dumps(GENAI)) + 705)
    header = read_header(folder, "onnx-genai")
    assert (header.architecture, header.context_length, header.vocab_size) == ("llama", 2048, 49152)
    assert header.kv_cache_bytes(100) == 2 * 2 * 30 * 3 * 64 * 100  # keys and values, two bytes each
    mlc = tmp_path / "mlc"
    mlc.mkdir()
    (mlc / "mlc-chat-config.json").write_text(json.dumps(MLC))
    (mlc / "tensor-cache.json").write_text(json.dumps({"metadata": {"BitsPerParam": 4.5}}))
    of_mlc = read_header(mlc, "mlc")
    (mlc / "tensor-cache.json").rename(mlc / "ndarray-cache.json")  # as older builds of MLC call it
    assert read_header(mlc, "mlc") == of_mlc
    assert (of_mlc.bits_per_weight, of_mlc.context_length) == (4.5, 4096)
    assert of_mlc.kv_cache_bytes(1) == header.kv_cache_bytes(1)


def test_every_file_of_a_folder_is_part_of_its_hash(tmp_path: Path) -> None:
    folder = genai(tmp_path / "a")
    before = sha256_of_model(folder)
    (folder / "model.onnx.data").write_bytes(b"others!" * 100)
    assert sha256_of_model(folder) != before
    model = LocalModel.of(models.resolve(str(folder), ("onnx-genai",)), folder)
    assert model.weights == str(folder / "model.onnx.data")
    assert [one.name for one in model.files] == ["genai_config.json", "model.onnx", "model.onnx.data"]


def test_a_model_in_a_format_that_the_engine_does_not_take_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    folder = genai(tmp_path / "a")
    with pytest.raises(UserError, match=r"is a folder with genai_config.json.*this engine takes a GGUF file"):
        models.resolve(str(folder))
    file = tmp_path / "m.gguf"
    file.write_bytes(gguf())
    with pytest.raises(UserError, match=r"is a GGUF file.*takes a folder with genai_config.json"):
        models.resolve(str(file), ("onnx-genai",))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"a folder is a model with genai_config.json"):
        models.resolve(str(empty), ("onnx-genai",))


def test_what_a_server_has_is_a_name_alone() -> None:
    found = models.resolve("gpt-x:latest", ("served",))
    assert (found.name, found.format, found.sha256) == ("gpt-x:latest", "served", None)
    local = LocalModel.of(found, None)
    assert (local.at, local.sha256, local.bytes, local.header.vocab_size) == ("gpt-x:latest", None, 0, None)
    assert models.cached(found) is None
    with pytest.raises(UserError, match="a printable text"):
        models.resolve("a\x1b[2J", ("served",))


@pytest.mark.parametrize("graph", ["absent.onnx", "../model.onnx", 7, None])
def test_a_graph_that_is_not_beside_its_configuration_is_damage(tmp_path: Path, graph: object) -> None:
    config = {"model": GENAI["model"] | {"decoder": {"filename": graph}}}
    with pytest.raises(ModelDamaged, match="not beside it"):
        read_header(genai(tmp_path / "a", config), "onnx-genai")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_configuration_that_is_none_is_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mlc-chat-config.json").write_bytes(content)
    with pytest.raises(ModelDamaged, match=r"mlc-chat-config\.json"):
        read_header(tmp_path, "mlc")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*MLC, "metadata"]), VALUES), VALUES)
def test_whatever_stands_in_it_is_a_count_or_is_not_said(
    tmp_path_factory: pytest.TempPathFactory, config: Any, bits: Any
) -> None:
    folder = tmp_path_factory.mktemp("mlc")
    (folder / "mlc-chat-config.json").write_text(json.dumps(config))
    (folder / "tensor-cache.json").write_text(json.dumps({"metadata": {"BitsPerParam": bits}}))
    found = read_header(folder, "mlc")
    for value in (found.vocab_size, found.context_length, found.kv_cache_bytes(10)):
        assert value is None or (isinstance(value, int) and value > 0)
    assert found.bits_per_weight is None or 0 < found.bits_per_weight <= 64
    assert fits(found, 10, 10, 1 << 40).ok


def test_what_holds_folders_is_no_model(tmp_path: Path) -> None:
    folder = genai(tmp_path / "a")
    (folder / "more").mkdir()
    with pytest.raises(UserError, match="holds files alone"):
        sha256_of_model(folder)
    assert format_of(tmp_path) is None


def test_the_record_of_a_built_folder_tells_its_parameters_and_bits(tmp_path: Path) -> None:
    folder = genai(tmp_path / "a")
    assert (read_header(folder, "onnx-genai").n_params, read_header(folder, "onnx-genai").bits_per_weight) == (
        None,
        None,
    )
    (folder / "meltbench.json").write_text('{"n_params": 134515008, "bits_per_weight": 5.145}')
    header = read_header(folder, "onnx-genai")
    assert (header.n_params, header.bits_per_weight) == (134515008, 5.145)
    (folder / "meltbench.json").write_text('{"descends_from": "smol (Q4_1)", "precision": "int4"}')
    model = models.resolve(str(folder), ("onnx-genai",))
    assert (model.descends_from, model.quantisation) == ("smol (Q4_1)", "int4")
    (folder / "meltbench.json").write_text('{"n_params": -1, "bits_per_weight": "5", "descends_from": "\\u001b[2J"}')
    assert models.resolve(str(folder), ("onnx-genai",)).descends_from is None
    header = read_header(folder, "onnx-genai")
    assert (header.n_params, header.bits_per_weight) == (None, None)
    (folder / "meltbench.json").write_text("no")
    with pytest.raises(ModelDamaged, match=r"meltbench\.json is not JSON"):
        read_header(folder, "onnx-genai")
