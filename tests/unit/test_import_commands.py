"""``meltbench import TOOL`` as a person uses it, and every command of its page."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from cli import Bench
from jsoncheck import NAMED, problems
from test_store_export_foreign import bench as grid
from test_store_export_foreign import stored

from meltbench.cli import imported
from meltbench.errors import UserError
from meltbench.store import open_store

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "contract" / "imports"
PAGE = (ROOT / "docs" / "import-export.md").read_text(encoding="utf-8")


@pytest.fixture
def files(bench: Bench) -> Bench:
    """A home with the files that the page names."""
    profile = bench.home / "runs" / "profile_M4_qwen"
    profile.mkdir(parents=True)
    for name, place in {
        "llama_bench.jsonl": "results.jsonl",
        "profile.jsonl": "runs/profile_M4_qwen/profile.jsonl",
        "summary.json": "runs/profile_M4_qwen/summary.json",
        "tegrastats_bare.log": "tegra.log",
        "emissions.csv": "emissions.csv",
        "localscore.json": "result.json",
    }.items():
        shutil.copy(FIXTURES / name, bench.home / place)
    return bench


def test_every_command_of_the_page_runs_and_what_it_stores_is_a_run_like_any_other(files: Bench) -> None:
    own = open_store(files.data)
    ours = stored(own, grid())
    own.ingest(ours)
    commands = re.findall(r"^    (meltbench .+)$", PAGE, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        done = files.run(*shlex.split(command)[1:])
        assert done.returncode == 0, f"{command}: {done.stderr}"
    rows = files.json("runs")
    assert problems(NAMED["runs"], rows) == []
    others = [row for row in rows if row["run_id"] != ours]
    assert {row["workload"] for row in others} == {"llama-bench", "ipw-IPW"}
    assert {(row["origin"], row["run_id"] == ours) for row in rows} == {
        ("meltbench", True),
        ("llama-bench", False),
        ("intelligence-per-watt", False),
    }
    listed = files.run("runs", "--markdown").stdout
    assert listed.count(", from ") == 3 + 1  # points of the one, the other
    for row in others:
        shown = files.json("show", row["run_id"])
        assert problems(NAMED["run"], shown) == []
        assert shown["imported"]["from"] in ("llama-bench", "intelligence-per-watt")
    text = (files.home / "ours.sql").read_text()
    assert text.count("INSERT INTO llama_bench") == 2  # ours alone
    done = files.run("export", *(row["run_id"] for row in others), "--format", "llama-bench-sql")
    assert done.stdout.count("INSERT INTO llama_bench") == 3  # by name


def test_files_are_bounded_together(files: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported, "_MAX_ALL_BYTES", 2 * (files.home / "result.json").stat().st_size - 1)
    here = str(files.home / "result.json")
    assert len(imported._files([here])) == 1
    shutil.copy(here, f"{here}.2")
    with pytest.raises(UserError, match="MiB of files"):
        imported._files([here, f"{here}.2"])


def test_json_is_as_described_and_a_second_import_stores_nothing(files: Bench) -> None:
    given = {
        "llama-bench": ["results.jsonl"],
        "ipw": ["runs/profile_M4_qwen"],
        "tegrastats": ["tegra.log", "--period-ms", "1000"],
        "codecarbon": ["emissions.csv"],
        "localscore": ["result.json"],
    }
    for tool, words in given.items():
        first = json.loads(files.run("import", tool, *words, "--store", "--json").stdout)
        assert problems(NAMED["imported"], first) == []
        assert len(first["stored"]) == len(first["runs"]) > 0
        again = files.run("import", tool, *words, "--store")
        assert "is in this store already" in again.stderr
    assert len(files.json("runs")) == 8


def test_what_is_wrong_is_one_line(files: Bench) -> None:
    (files.home / "bad.jsonl").write_text('{"model_filename": "m", "n_prompt": 1, "samples_ns": [5]}\n{\n')
    (files.home / "empty").write_text("")
    for words, said in (
        (("llama-bench", "bad.jsonl"), "bad.jsonl, line 2: not JSON"),
        (("llama-bench", "missing"), "cannot read missing"),
        (("llama-bench", "empty"), "empty is empty"),
        (("tegrastats", "tegra.log"), "--period-ms"),
        (("tegrastats", "tegra.log", "--period-ms", "0"), "out of range"),
        (("codecarbon", "result.json"), "line 1: the head lacks timestamp"),
        (("localscore", "result.json", "--data", "x"), "nothing is stored"),
        (("ipw", "emissions.csv"), "line 1: not JSON"),
    ):
        done = files.run("import", *words)
        assert done.returncode == 2, words
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not files.data.exists()
