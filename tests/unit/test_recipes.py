from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meltbench.errors import DefinitionError, UnknownName, UserError
from meltbench.runners import Knob, Recipe
from meltbench.tables import read_table

LEAST = {"title": "t", "protocol": "openai", "mode": "server", "arguments": [], "program": "p"}


def recipe(**more: Any) -> Recipe:
    return read_table(Recipe, LEAST | more, "runner.toml")


def test_a_knob_is_a_number_a_choice_a_file_or_a_text(tmp_path: Path) -> None:
    assert Knob(1, "h", 0, 9).read("k", "9") == 9
    device = Knob("auto", "h", choices=("auto", "cpu", "cuda"))
    assert (device.read("device", "cuda"), device.read("device", "none")) == ("cuda", "none")
    with pytest.raises(UnknownName, match="unknown value of device: 'cude'") as refused:
        device.read("device", "cude")
    assert str(refused.value.hint).startswith("did you mean cuda")
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    assert Knob("none", "h", file=True).read("tokenizer", str(file)) == str(file)
    assert Knob("none", "h").read("overrides", "a=1;b=2") == "a=1;b=2"


@pytest.mark.parametrize("text", ["", "a\nb", "\x1b[2J", "x" * 5000])
def test_a_text_is_short_and_printable(text: str) -> None:
    with pytest.raises(UserError, match="no printable text of 1 to 4096 characters"):
        Knob("none", "h").read("overrides", text)


@pytest.mark.parametrize("text", ["/nowhere/tokenizer.json", "/", "a\0b", "x" * 5000])
def test_a_file_that_is_not_there_is_named(text: str) -> None:
    with pytest.raises(UserError, match="tokenizer: no file at "):
        Knob("none", "h", file=True).read("tokenizer", text)


@pytest.mark.parametrize("knob", [{"low": 1}, {"low": 1, "high": 2, "file": True}, {"choices": ["a"], "file": True}])
def test_a_knob_of_two_kinds_is_refused(knob: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="a knob has low and high, or choices, or file = true"):
        recipe(knobs={"k": {"default": "none", "help": "h"} | knob})


def test_what_a_server_knows_is_said_by_recipes_of_the_protocol_openai_alone() -> None:
    found = recipe(asks={"path": "", "token_ids": True, "fields": ["ignore_eos"]})
    assert found.asks is not None
    assert (found.asks.path, found.asks.token_ids, found.asks.fields) == ("", True, ("ignore_eos",))
    with pytest.raises(DefinitionError, match="asks is of the protocol openai"):
        recipe(protocol="llama-server", asks={})
    with pytest.raises(DefinitionError, match=r"expected one of .*ignore_eos"):
        recipe(asks={"fields": ["ignore_eso"]})
    with pytest.raises(DefinitionError, match="is no path"):
        recipe(asks={"health": "http://x"})
