"""Models that are built on this machine: what is said where one is not, and that it can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer

from meltbench.cli.app import app
from meltbench.errors import UserError
from meltbench.models import resolve
from meltbench.plan import Plan, make
from meltbench.spec import Spec, parse_sets


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def planned(runner: str, model: str, *sets: str) -> Plan:
    pytest.importorskip({"onnx": "onnxruntime_genai", "mlc-tvm": "tvm"}[runner])
    return make(Spec(runner=runner, model=model, workload="quick", knobs=parse_sets(sets)))


@pytest.mark.parametrize("runner", ["onnx", "mlc-tvm"])
@pytest.mark.parametrize("asked", ["smollm2-135m-q4", "smollm2-135m"])
def test_what_is_said_of_building_can_be_pasted(runner: str, asked: str) -> None:
    with pytest.raises(UserError) as none:
        planned(runner, asked)
    command, given = str(none.value.hint).removeprefix("build one: ").split(", then --model ")
    program, *words = shlex.split(command)
    assert program == "meltbench"
    below = typer.main.get_command(app)
    while hasattr(below, "commands"):
        below = below.commands[words.pop(0)]
    read = below.make_context(below.name, words).params
    assert (read["model"], Path(read["out"])) == (asked, Path(given))
    assert resolve(read["model"]).format == "gguf"


@pytest.mark.parametrize(
    ("model", "said", "hint"),
    [
        (Spec.model, "smollm2-135m-q0f16 would be fetched", "smollm2-135m-q4 ./smollm2-135m-q4-mlc, then --model ./"),
        ("smollm2-135m-q0f16", "smollm2-135m-q0f16 would be", "smollm2-135m ./smollm2-135m-mlc, then --model ./"),
        ("mlc-ai/Other-MLC", "mlc-ai/Other-MLC would be fetched", "MODEL FOLDER, then --model FOLDER"),
        ("./bare", "bare holds no library (*.so)", "MODEL FOLDER, then --model FOLDER"),
    ],
)
def test_what_was_not_compiled_here_is_refused_before_anything_is_fetched(
    cwd: Path, model: str, said: str, hint: str
) -> None:
    (cwd / "bare").mkdir()
    (cwd / "bare" / "mlc-chat-config.json").write_text("{}")
    with pytest.raises(UserError) as refused:
        planned("mlc-tvm", model)
    assert said in refused.value.message
    assert "runner mlc-tvm takes what was compiled on this machine" in refused.value.message
    assert str(refused.value.hint).startswith(f"meltbench models build-mlc {hint}")
    with pytest.raises(UserError, match="compiled on this machine"):
        planned("mlc-tvm", model, "library=none")
    # A library of one's own is one wherever it lies.
    (cwd / "lib.so").touch()
    assert planned("mlc-tvm", model, "library=lib.so").model is not None
    (cwd / "bare" / "lib.so").touch()
    assert planned("mlc-tvm", "./bare").model is not None
