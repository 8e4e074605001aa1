"""What ``import meltbench`` promises: few names, each documented and typed, at no cost."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import meltbench

HEAVY = ("numpy", "pandas", "duckdb", "pyarrow", "plotly", "rich", "typer", "uniplot", "scipy")
SNIPPET = """
import duckdb
import pandas as pd
import plotly.graph_objects as go
import meltbench

runs: meltbench.Runs = meltbench.run("m", reps=2, settings={"idle_s": 1, "points": ["pp64"]}, progress=print)
frame: pd.DataFrame = runs.frame
first: meltbench.Run = runs[0]
rest: meltbench.Runs = runs[1:]
rate: float | None = first.value("decode_tps")
samples: pd.DataFrame = first.samples("rapl.*", max_points=100)
figure: go.Figure = first.plot()
store = meltbench.Store()
relation: duckdb.DuckDBPyRelation = store.sql("FROM runs_wide WHERE model = $m", params={"m": "x"})
ids: list[str] = [run.run_id for run in store]
try:
    store.run("x")
except meltbench.MeltbenchError as error:
    print(error.hint)
reveal_type(meltbench.run)
"""


def test_all_names_every_public_name_sorted_and_nothing_else() -> None:
    assert meltbench.__all__ == sorted(meltbench.__all__)
    for name in meltbench.__all__:
        getattr(meltbench, name)
    public = {
        name
        for name, value in vars(meltbench).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public | {"__version__"} == set(meltbench.__all__) == set(dir(meltbench))


def test_every_public_name_and_each_of_its_members_has_a_docstring() -> None:
    for name in set(meltbench.__all__) - {"__version__"}:
        thing = getattr(meltbench, name)
        assert inspect.getdoc(thing), name
        if isinstance(thing, type) and thing.__module__ == "meltbench.api":
            for member, value in vars(thing).items():
                if not member.startswith("_"):
                    assert inspect.getdoc(value), f"{name}.{member}"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'rum'"):
        meltbench.rum  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import meltbench; meltbench.__version__", ()),
        ("import meltbench; meltbench.run, meltbench.Store, meltbench.MeltbenchError", ("numpy",)),
    ],
)
def test_an_import_loads_nothing_heavy(code: str, allowed: tuple[str, ...]) -> None:
    names = [name for name in HEAVY if name not in allowed]
    script = f"{code}\nimport sys; print([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_options_of_run_are_those_of_the_command_line_with_its_defaults() -> None:
    from meltbench.cli.measure import run as command
    from meltbench.spec import Spec

    ours, theirs = inspect.signature(meltbench.run).parameters, inspect.signature(command).parameters
    only_there = {"set_", "dry_run", "live", "as_json", "as_markdown"}
    assert set(ours) - {"settings", "progress"} == set(theirs) - only_there
    for name in set(ours) & set(Spec.__dataclass_fields__):
        assert ours[name].default == theirs[name].default == getattr(Spec, name), name


def test_a_type_checker_sees_the_names(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(root / "pyproject.toml")]
    done = subprocess.run(
        [*command, "--cache-dir", str(tmp_path / "cache"), str(snippet)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "def (model: str =, *, device: str =" in done.stdout
    assert "Any" not in done.stdout.partition("Revealed type")[2]
