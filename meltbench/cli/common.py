"""Options and rendering that several commands share."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

T = TypeVar("T")

Data = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="The store: else $MELTBENCH_DATA, else ./data.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout; messages stay on stderr.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print GitHub-flavoured tables, to be pasted.")]


def check_format(*, as_json: bool, as_markdown: bool) -> None:
    """Raise UserError when both are asked for."""
    if as_json and as_markdown:
        from meltbench.errors import UserError

        raise UserError("--json and --markdown are two formats", hint="leave one out")


def print_json(value: Any) -> None:
    """One JSON document on stdout; NaN never appears in it."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=True, allow_nan=False, default=str)
    sys.stdout.write("\n")


def choosing(call: Callable[[str], T], device: str) -> T:
    """What ``call`` gives for a device; where the name stands for several, a person at a terminal is asked which."""
    from meltbench.errors import ManyDevices

    try:
        return call(device)
    except ManyDevices as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        names = list(error.choices)
        typer.echo(f"{error.message}:", err=True)
        for number, name in enumerate(names, 1):
            typer.echo(f"  {number}  {name}  {error.choices[name]}", err=True)
        while not 1 <= (number := typer.prompt("Which", type=int, err=True)) <= len(names):
            typer.echo(f"give 1 to {len(names)}", err=True)
        return call(names[number - 1])


class _Unheeded:
    """Standard error for progress and messages: nobody may be reading, and that must not end a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def console(*, stderr: bool = False) -> Console:
    """A console that never wraps a table into nonsense when piped."""
    from rich.console import Console

    wide = None if (sys.stderr if stderr else sys.stdout).isatty() else 160
    file = cast("TextIO", _Unheeded(sys.stderr)) if stderr else None
    return Console(file=file, width=wide, soft_wrap=False)


def draws(out: Console) -> bool:
    """Whether what stands there can be drawn anew; a dumb terminal (TERM=dumb) cannot, as little as a pipe."""
    return out.is_terminal and not out.is_dumb_terminal


def plain(out: Console, text: str, style: str | None = None) -> None:
    """Print text as it is, unwrapped: what a device or a model says is data, and no markup."""
    out.print(text, markup=False, highlight=False, soft_wrap=True, style=style)
