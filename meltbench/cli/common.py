"""Options and rendering that several commands share."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Data = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="The store: else $MELTBENCH_DATA, else ./data.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout; messages stay on stderr.")]


def print_json(value: Any) -> None:
    """One JSON document on stdout; NaN never appears in it."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=True, allow_nan=False, default=str)
    sys.stdout.write("\n")


def console(*, stderr: bool = False) -> Console:
    """A console that never wraps a table into nonsense when piped."""
    from rich.console import Console

    wide = None if (sys.stderr if stderr else sys.stdout).isatty() else 160
    return Console(stderr=stderr, width=wide, soft_wrap=False)
