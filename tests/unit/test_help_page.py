"""The recorded first page of the help is what the commands say of themselves, and nothing heavy is loaded for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import meltbench.cli

PAGE = Path(meltbench.cli.__file__).parent / "help.txt"
MAKE = "from meltbench.cli.app import app; app(['--help'], prog_name='meltbench')"


def test_the_recorded_page_is_what_the_commands_say_of_themselves() -> None:
    plain = {**os.environ, "TYPER_USE_RICH": "0", "COLUMNS": "80"}
    made = subprocess.run([sys.executable, "-c", MAKE], env=plain, capture_output=True, text=True, check=True).stdout
    recorded = PAGE.read_text(encoding="utf-8")
    assert recorded == made, f'write it anew: TYPER_USE_RICH=0 COLUMNS=80 python -c "{MAKE}" > {PAGE}'


def test_the_first_page_loads_no_heavy_module() -> None:
    look = "import sys; sys.argv[1:] = ['-h']; from meltbench.cli import main; main(); print(*sys.modules)"
    said = subprocess.check_output([sys.executable, "-c", look], text=True)
    assert said.startswith(PAGE.read_text(encoding="utf-8"))
    assert not {"typer", "rich", "numpy", "pandas"} & set(said.splitlines()[-1].split())


def test_a_page_that_nobody_can_read_is_told_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "meltbench", "--help"], stdout=full, stderr=-1, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("meltbench: ")
    assert len(done.stderr.splitlines()) == 1
