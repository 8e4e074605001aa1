"""Every command the README shows does what it says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli import QUICK, Bench

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted({m[1] for m in re.finditer(r"`(meltbench [^`]+)`", README)})

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("default_model")]


def test_the_readme_has_exactly_two_commands_of_its_own() -> None:
    blocks = re.findall(r"^    (pip install|make)\b(.*)$", README, re.MULTILINE)
    assert blocks == [("pip install", " . && meltbench run"), ("make", " test")]


def test_every_command_of_the_readme_runs(bench: Bench) -> None:
    assert len(COMMANDS) > 12
    bench.json("run", *QUICK)
    (bench.home / "prompts.jsonl").write_text('{"prompt": "Hello"}\n')
    header = "*** Sampled system activity (Sat Mar 14 10:00:{:02d} 2026 +0100) (1000.0ms elapsed) ***"
    sample = header + "\nCombined Power: {} mW\n\n"
    (bench.home / "power.log").write_text("".join(sample.format(at, 3000 + at) for at in range(30)))
    shutil.copytree(Path(__file__).parents[1] / "contract" / "melt" / "phone", bench.home / "run")
    shutil.copy(Path(__file__).parents[1] / "contract" / "imports" / "llama_bench.jsonl", bench.home / "results.jsonl")
    shutil.copytree(Path(__file__).parents[1] / "models" / "tiny-onnx", bench.home / "FOLDER")
    engine = bench.home / "PATH"
    engine.mkdir()
    for program in ("llama-server", "llama-bench"):
        (engine / program).write_text("#!/bin/sh\nexit 1\n")
        (engine / program).chmod(0o755)
    for command in COMMANDS:
        _, *args = shlex.split(command)
        if args[0] == "run":
            args.append("--dry-run")
        if "pi5" in args:  # a board that is not here; what these do: tests/lab/test_inventory.py
            args = [args[0], "--help"] if args[0] == "run" else [*args[:2], "--help"]
        if "pixel6" in args:  # a phone that is not here; what this does: tests/lab/test_adb_run.py
            args = [args[0], "--help"]
        if args[0] in ("predict", "intelligence", "compare"):
            # A quick run is too alike and not scored: tests/unit/test_predicting.py, test_comparing.py.
            args = [args[0], "--help"]
        if args[0] == "dashboard":
            args = ["dashboard", "--help"]  # it goes on until Ctrl-C: tests/lab/test_dashboard.py
        if args[0] == "top":
            args.append("--once")  # it goes on until Ctrl-C too: tests/lab/test_live.py
        if args[:2] == ["runners", "build"]:
            args.append("--help")  # it takes ten minutes: tests/lab/test_builds.py
        if args[:2] == ["models", "quantize"]:
            args.append("--help")  # it writes into the user's catalogue: tests/lab/test_ladder.py
        done = bench.run(*args)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_the_python_example_of_the_readme_runs(bench: Bench) -> None:
    found = re.search(r"## From Python\n\n((?:    .*\n)+)", README)
    assert found
    lines = [line.strip() for line in found[1].splitlines()]
    assert len(lines) == 3
    script = bench.home / "example.py"
    script.write_text("\n".join([*lines[:2], f"print({lines[2]})"]))
    environment = os.environ | {"XDG_STATE_HOME": str(bench.home / "state"), "MELTBENCH_DATA": str(bench.data)}
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, cwd=bench.home, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "decode_tps" in done.stdout
    assert done.stderr == ""


def test_every_path_the_docs_link_to_is_there() -> None:
    root = Path(__file__).parents[2]
    for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
