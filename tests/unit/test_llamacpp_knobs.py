"""Where llama.cpp keeps experts and how it loads weights: words for the stock server, parameters for xllamacpp."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from meltbench import runners
from meltbench.errors import DefinitionError, UnknownName, UserError
from meltbench.knobs import Knob
from meltbench.tables import read_table

FIXED = {"model": "m.gguf", "port": "8080", "parallel": "1", "ctx_all": "512"}


def words(**knobs: str) -> list[str]:
    """The command line of the stock server, with these knobs as ``--set`` would give them."""
    recipe, _ = runners.load("llamacpp")
    given = {name: knob.default for name, knob in recipe.knobs.items()}
    given |= {name: recipe.knobs[name].read(name, text) for name, text in knobs.items()}
    return recipe.argv(("llama-server",), given, FIXED)


@pytest.fixture(scope="module")
def serve() -> ModuleType:
    """The script that stands in for the stock server."""
    pytest.importorskip("xllamacpp")
    spec = importlib.util.spec_from_file_location("serve", runners.load("llamacpp")[1].path.parent / "serve.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_each_knob_reaches_the_command_line_and_none_leaves_its_words_out() -> None:
    said = words(n_cpu_moe="12", override_tensor=r"blk\.\d\.ffn_.*=CPU", load_mode="mmap+mlock")
    for pair in (("--n-cpu-moe", "12"), ("--override-tensor", r"blk\.\d\.ffn_.*=CPU"), ("--load-mode", "mmap+mlock")):
        at = said.index(pair[0])
        assert tuple(said[at : at + 2]) == pair
    assert not {"--n-cpu-moe", "--override-tensor", "--load-mode"} & set(words())


def test_the_embedded_server_takes_every_word_of_the_stock_one(serve: ModuleType) -> None:
    import xllamacpp

    said = words(threads="1", ctx="512", n_cpu_moe="2", override_tensor="output=CPU", load_mode="dio", gpu_layers="9")
    params = serve.parameters(said[1:])
    assert params.load_mode == xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_DIRECT_IO
    assert params.n_gpu_layers == 9
    first, second, own = params.tensor_buft_overrides.split(",")
    assert own == "output=CPU"
    for layer, override in enumerate((first, second)):
        pattern, _, buffer = override.rpartition("=")
        assert buffer == "CPU"
        for part in ("up", "gate", "down", "gate_up"):
            assert re.search(pattern, f"blk.{layer}.ffn_{part}_exps.weight")
        assert not re.search(pattern, f"blk.{layer + 10}.ffn_up_exps.weight")
        assert not re.search(pattern, f"blk.{layer}.ffn_up.weight")


def test_left_alone_the_embedded_server_decides_itself(serve: ModuleType) -> None:
    import xllamacpp

    params, blank = serve.parameters(words(threads="1", ctx="512")[1:]), xllamacpp.CommonParams()
    assert (params.tensor_buft_overrides, params.load_mode) == (blank.tensor_buft_overrides, blank.load_mode)
    assert set(serve.LOAD_MODES) == set(runners.load("llamacpp")[0].knobs["load_mode"].choices)


@pytest.mark.parametrize(
    ("knob", "text", "error", "said"),
    [
        ("n_cpu_moe", "-1", UserError, "n_cpu_moe = '-1' is not a valid setting"),
        ("n_cpu_moe", "all", UserError, "give 0 to 1000, or none"),
        ("load_mode", "mmaps", UnknownName, "mmap"),
        ("override_tensor", "", UserError, "no printable text"),
        ("override_tensor", "a\nb", UserError, "no printable text"),
        ("override_tensor", "x" * 5000, UserError, "1 to 4096 characters"),
    ],
)
def test_what_is_no_setting_is_refused_before_anything_starts(
    knob: str, text: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as found:
        words(**{knob: text})
    assert said in f"{found.value}; {getattr(found.value, 'hint', '')}"


def test_a_knob_is_of_one_kind() -> None:
    with pytest.raises(DefinitionError):
        read_table(Knob, {"default": "none", "help": "h", "low": 1}, Path("runner.toml"))
