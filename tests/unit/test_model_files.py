"""Readers of what lies beside a model: JSON, and the heads of safetensors; all of it is of others."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.errors import MeltbenchError, ModelDamaged, UserError
from meltbench.models.jsonfile import read_object
from meltbench.models.safetensors import read_head

GOOD = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def written(path: Path, table: Any, data: bytes = bytes(12)) -> Path:
    head = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)
    return path


def test_an_object_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": 1}')
    assert read_object(path, 8) == {"a": 1}
    with pytest.raises(ModelDamaged, match="is larger than"):
        read_object(path, 7)
    with pytest.raises(UserError, match=r"cannot read .*no\.json: No such file"):
        read_object(tmp_path / "no.json", 8)
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        read_object(tmp_path, 8)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 5000])
def test_what_is_no_object_is_damage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ModelDamaged, match=r"config\.json is not") as caught:
        read_object(path, 1 << 20)
    assert "\n" not in str(caught.value)


def test_a_head_says_where_each_tensor_lies(tmp_path: Path) -> None:
    table = {"__metadata__": {"format": "pt"}, "a": GOOD, "none": GOOD | {"shape": [0, 3], "data_offsets": [12, 12]}}
    path = written(tmp_path / "m.safetensors", table)
    found = read_head(path)
    assert list(found) == ["a", "none"]
    assert (found["a"].shape, found["a"].elements, found["none"].elements) == ((2, 3), 6, 0)
    assert (found["a"].end, found["a"].end - found["a"].start) == (path.stat().st_size, 12)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"dtype": None}, "does not say what 'a' is"),
        ({"shape": None}, "does not say what 'a' is"),
        ({"shape": [2, -3]}, "does not say what 'a' is"),
        ({"shape": [2, True]}, "does not say what 'a' is"),
        ({"shape": [2, 3.0]}, "does not say what 'a' is"),
        ({"shape": [10**4000] * 1000}, "does not say what 'a' is"),
        ({"data_offsets": [0]}, "does not say what 'a' is"),
        ({"data_offsets": [0, 12.0]}, "does not say what 'a' is"),
        ({"data_offsets": [0, 13]}, "is cut short"),
        ({"data_offsets": [12, 0]}, "is cut short"),
        ({"shape": [2, 2]}, r"'a' of F16 and \[2, 2\] has 12 bytes"),
    ],
)
def test_an_entry_that_cannot_be_is_damage(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelDamaged, match=words):
        read_head(written(tmp_path / "m.safetensors", {"a": GOOD | changed}))


def test_a_file_that_is_not_there_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_head(tmp_path / "m.safetensors")


@given(VALUES | st.dictionaries(st.text(max_size=3), st.fixed_dictionaries(dict.fromkeys(GOOD, VALUES))))
def test_no_table_does_worse_than_an_error(tmp_path_factory: pytest.TempPathFactory, table: Any) -> None:
    path = written(tmp_path_factory.mktemp("st") / "m.safetensors", table)
    try:
        found = read_head(path)
    except MeltbenchError:
        return
    assert all(0 <= one.start <= one.end <= path.stat().st_size for one in found.values())
