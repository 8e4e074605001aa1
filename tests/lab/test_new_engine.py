"""docs/new-engine.md does what it says, and what another package brings is found."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from cli import QUICK, Bench

from meltbench.catalog import builtin_root

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("default_model")]
DOC = Path(__file__).parents[2] / "docs" / "new-engine.md"


def recipe() -> str:
    found = re.search(r"```toml\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def my_server(folder: Path) -> None:
    """llama.cpp's real server by the wheel, under the name that the document gives its program."""
    folder.mkdir()
    program = folder / "my-server"
    serve = builtin_root() / "runners" / "llamacpp" / "serve.py"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -B {serve} "$@"\n')
    program.chmod(0o755)


def test_the_recipe_of_the_document_measures_a_real_engine(bench: Bench) -> None:
    text = recipe()
    assert len([line for line in text.splitlines() if line.strip() and not line.startswith("#")]) <= 30
    my_server(bench.home / "bin")
    bench.env["PATH"] = f"{bench.home / 'bin'}:/usr/bin:/bin"
    folder = bench.home / "runners" / "mine"
    folder.mkdir(parents=True)
    (folder / "runner.toml").write_text(text)
    (row,) = (row for row in bench.json("runners") if row["name"] == "mine")
    assert (row["origin"], row["checked"]) == ("cwd", "run")
    (run,) = bench.json("run", "--runner", "mine", *QUICK, "--set", "threads=1")
    assert run["outcome"] == "done", run["failure"]
    timed = [r for r in run["requests"] if r["role"] == "timed"]
    assert {(r["status"], r["n_out"], r["count_source"]) for r in timed} == {("ok", 16, "server")}
    found = {m["name"]: m["value"] for m in run["measures"] if m["phase"] == "run"}
    assert found["load_s"] > 0
    assert found["peak_rss_bytes"] > 50e6
    assert found["decode_tps"] > 0


PROTOCOL = '''
from meltbench.engines.openai import OpenAI

class Toy(OpenAI):
    """Another server's dialect of the same routes."""

    @property
    def health_path(self):
        return "/health"
'''


def test_a_package_brings_a_runner_and_its_protocol(bench: Bench) -> None:
    site = bench.home / "site"
    (site / "toybench" / "runners" / "toy").mkdir(parents=True)
    (site / "toybench-1.0.dist-info").mkdir()
    for name in ("", "runners/"):
        (site / "toybench" / name / "__init__.py").write_text("")
    (site / "toybench" / "protocol.py").write_text(PROTOCOL)
    told = recipe().replace('protocol = "openai"', 'protocol = "toy"').replace('health = "/health" ', "")
    (site / "toybench/runners/toy/runner.toml").write_text(told)
    (site / "toybench-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: toybench\nVersion: 1.0\n")
    points = "[meltbench.runners]\ntoy = toybench.runners\n[meltbench.protocols]\ntoy = toybench.protocol:Toy\n"
    (site / "toybench-1.0.dist-info/entry_points.txt").write_text(points)
    my_server(bench.home / "bin")
    bench.env |= {"PATH": f"{bench.home / 'bin'}:/usr/bin:/bin", "PYTHONPATH": f"{site}:{DOC.parents[1]}"}
    (row,) = (row for row in bench.json("runners") if row["name"] == "toy")
    assert (row["origin"], row["protocol"]) == ("package", "toy")
    (run,) = bench.json("run", "--runner", "toy", *QUICK, "--set", "threads=1")
    assert run["outcome"] == "done", run["failure"]
    assert run["runner"]["protocol"] == "toy"
    # One that leads nowhere is named, with what to do.
    (site / "toybench/protocol.py").write_text("import nothing_of_that_name\n")
    done = bench.run("run", "--runner", "toy", *QUICK)
    assert done.returncode == 2
    assert "meltbench.protocols:toy of the package toybench leads nowhere: ModuleNotFoundError" in done.stderr
    assert "pip uninstall toybench" in done.stderr
