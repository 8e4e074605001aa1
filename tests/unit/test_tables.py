from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meltbench.errors import DefinitionError
from meltbench.tables import parse_toml, read_table, read_toml

WHERE = Path("devices/x.toml")


@dataclass(frozen=True)
class Part:
    name: str
    scale: float = 1.0
    klass: Literal["A", "B"] | None = field(default=None, metadata={"key": "class"})

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError("scale must be above 0")


@dataclass(frozen=True)
class Thing:
    title: str
    count: int = 0
    part: tuple[Part, ...] = ()
    main: Part | None = None
    words: tuple[str, ...] = ()
    flags: dict[str, bool] = field(default_factory=dict)
    either: int | float | str = 0
    parts: dict[str, Part] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)


def thing(text: str) -> Thing:
    return read_table(Thing, parse_toml(text.encode(), WHERE), WHERE)


def test_reads_nested_tables():
    found = thing(
        'title = "t"\nwords = ["a", "b"]\neither = 2\n[main]\nname = "m"\nscale = 3\nclass = "B"\n'
        '[[part]]\nname = "p"\n[flags]\non = true\n[parts.x]\nname = "y"\n[free]\na = [1, "b"]'
    )
    assert found == Thing(
        "t", 0, (Part("p"),), Part("m", 3.0, "B"), ("a", "b"), {"on": True}, 2, {"x": Part("y")}, {"a": [1, "b"]}
    )
    assert isinstance(found.main.scale, float)
    assert isinstance(found.either, int)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('title = "t"\ncuont = 1', r"^devices/x.toml: unknown key 'cuont'; did you mean 'count'\?$"),
        ('title = "t"\nzzz = 1', "unknown key 'zzz'; valid keys: count, either"),
        ("count = 1", "missing key 'title'; expected a string"),
        (
            'title = "t"\n[[part]]\nname = "p"\n[[part]]\nnmae = "p"',
            r"part\[1\]: unknown key 'nmae'; did you mean 'name'",
        ),
        ("title = 3", "title: expected a string, got the integer 3"),
        ('title = "t"\ncount = true', "count: expected an integer, got true"),
        ('title = "t"\ncount = 1.5', "count: expected an integer, got the number 1.5"),
        ('title = "t"\ncount = "1"', "count: expected an integer, got the string '1'"),
        ('title = "t"\nmain = 1', "main: expected a table, got the integer 1"),
        ('title = "t"\nwords = "a"', "words: expected a list of strings, got the string 'a'"),
        ('title = "t"\nwords = ["a", 1]', r"words\[1\]: expected a string"),
        ('title = "t"\npart = {}', "part: expected a list of tables, got a table"),
        ('title = "t"\nflags = {a = 1}', "flags.a: expected true or false"),
        ('title = "t"\neither = []', "either: expected an integer or a number or a string, got a list"),
        ('title = "t"\n[main]\nname = "m"\nscale = inf', "main.scale: expected a finite number"),
        ('title = "t"\n[main]\nname = "m"\nscale = -1', "main: scale must be above 0"),
        ('title = "t"\n[main]\nname = "m"\nclass = "C"', "main.class: expected one of 'A', 'B', got the string 'C'"),
        ("title = 2026-11-21", "title: expected a string, got the date"),
    ],
)
def test_errors_name_file_key_and_remedy(text, message):
    with pytest.raises(DefinitionError, match=message):
        thing(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nb = = 2\n", r"^devices/x.toml, line 2, column 5: Invalid value$"),
        (b'a = "x', "devices/x.toml, line 1: Unterminated string"),
        (b"a = 1\n\xff\n", "line 2: not UTF-8"),
        (b"a = 1\na = 2", r"devices/x.toml, line 2\b.*: Cannot overwrite a value"),
        (b"a = " + b"[" * 100_000, "nested deeper than 32"),
        (b".".join([b"a"] * 500) + b" = 1", "nested deeper than 32"),
        (b"a = " + b"9" * 5000, "line 1"),
    ],
)
def test_malformed_toml_is_one_line_with_its_number(content, message):
    with pytest.raises(DefinitionError, match=message) as caught:
        parse_toml(content, WHERE)
    assert "\n" not in str(caught.value)


def test_unreadable_and_oversized_files(tmp_path):
    with pytest.raises(DefinitionError, match="No such file"):
        read_toml(tmp_path / "absent.toml")
    (tmp_path / "big.toml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(DefinitionError, match="larger than 1048576"):
        read_toml(tmp_path / "big.toml")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(content):
    try:
        table = parse_toml(content, WHERE)
    except DefinitionError as error:
        table, message = {}, str(error)
    else:
        message = ""
    assert isinstance(table, dict)
    assert "\n" not in message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["title", "count", "part", "main", "words", "flags", "either", "parts", "free", "other"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEYS, VALUES))
def test_any_table_reads_or_is_refused(table):
    try:
        assert read_table(Thing, table, WHERE).title == table["title"]
        message = str(WHERE)
    except DefinitionError as error:
        message = str(error)
    assert message.startswith("devices/x.toml")
