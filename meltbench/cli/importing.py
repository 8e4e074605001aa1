"""``meltbench import``: recordings of other tools, by their own definitions and by ours."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltbench.cli import imported
from meltbench.cli.common import Data, Json, Markdown, check_format, console, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.imports.foreign import File
    from meltbench.imports.melt.account import Told
    from meltbench.imports.melt.study import Study

import_app = typer.Typer(
    help="Read what other tools recorded: their numbers, and ours beside them.", no_args_is_help=True
)
MAX_BYTES = 1 << 30
# What MELT's scripts call their files; a folder may hold anything else beside them.
_NAMES = re.compile(
    r"measurements_.*\.(?:csv|tsv|json)|llm_output_.*\.txt|energy_iter\d+\.log|\.t_monsoon|configuration\.json",
    re.ASCII,
)


@import_app.callback(epilog="Example: meltbench import melt experiment_outputs/run --json")
def imports() -> None:
    """Read what other tools recorded: their numbers, and ours beside them."""


@import_app.command(epilog="Example: meltbench import melt run --power run/measurements_monsoon.csv")
def melt(
    path: Annotated[list[str], typer.Argument(metavar="PATH...", help="A folder of a run of MELT's, or files of one.")],
    power: Annotated[
        str | None,
        typer.Option("--power", metavar="FILE", help="Its power: a Monsoon's CSV, a Jetson's log, adb's CSV."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Of the power file, see docs/melt.md; repeatable."),
    ] = None,
    store: Annotated[bool, typer.Option("--store", help="Store each conversation as a run of its own.")] = False,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Read logs of MELT: its numbers by its definitions, ours beside them, and why they differ."""
    from meltbench.cli.reading import bytes_of, options_of
    from meltbench.errors import UnknownName, UserError
    from meltbench.imports.foreign import File
    from meltbench.imports.melt import study as melts
    from meltbench.imports.melt.account import tell

    check_format(as_json=as_json, as_markdown=as_markdown)
    options = options_of(option or [])
    for name in options:
        if name not in melts.OPTIONS:
            raise UnknownName("option of a power file", name, melts.OPTIONS)
    if data is not None and not store:
        raise UserError("--data names a store, and nothing is stored", hint="give --store, or leave it out")
    files = _files(path)
    meter = None if power is None else File(power, bytes_of(power, MAX_BYTES))
    found = melts.read(files, meter, options)
    bound = options.get("clock_bound_s")
    told = tell(found, float(bound) if isinstance(bound, int | float) else None)
    stored = _store(found, told, [*files, *([meter] if meter is not None else [])], data) if store else []
    if as_json:
        from meltbench.report.melt import as_json as document

        print_json(document(found, told) | {"stored": stored})
    else:
        _print(found, told, stored, as_markdown=as_markdown)


def _files(paths: Sequence[str]) -> list[File]:
    """What the user named: of a folder the files that bear MELT's names, of any other file that it is one of MELT's."""
    from meltbench.cli.reading import bytes_of
    from meltbench.errors import UserError
    from meltbench.imports.foreign import File
    from meltbench.imports.melt.study import MAX_FILES, kind_of

    named: dict[str, bool] = {}  # and whether the user named it himself
    for text in paths:
        if not Path(text).is_dir():
            named[text] = True
            continue
        for folder, _, names in os.walk(text):
            named |= {os.path.join(folder, name): False for name in sorted(names) if _NAMES.fullmatch(name)}
            if len(named) > MAX_FILES:
                raise UserError(
                    f"{text} holds more than {MAX_FILES} files of MELT's", hint="give the folder of one run"
                )
        if not named:
            hint = "it is the one with configuration.json and melt_measurements in it"
            raise UserError(f"{text} holds no file of MELT's", hint=hint)
    files = [File(file, bytes_of(file, MAX_BYTES)) for file in named]
    for file in files:
        if named[file.path] and kind_of(file) is None:
            hint = "known are its event logs, tables, JSON, outputs, power files and logs of operators: docs/melt.md"
            raise UserError(f"{file.path} is no file of MELT's that is known here", hint=hint)
    return files


def _store(study: Study, told: Sequence[Told], files: Sequence[File], data: str | None) -> list[str]:
    from meltbench.cli.watching import Terminal
    from meltbench.errors import UserError
    from meltbench.importing import store_melt
    from meltbench.store import open_store

    if not told:
        raise UserError("a log of operators is no run: nothing of it can be stored", hint="leave out --store")
    with Terminal() as watch:
        return [str(path) for path in store_melt(open_store(data), study, told, {f.path: f for f in files}, watch)]


def _print(study: Study, told: Sequence[Told], stored: Sequence[str], *, as_markdown: bool) -> None:
    from meltbench.imports.melt.differences import differences
    from meltbench.report.melt import sheets
    from meltbench.report.sheet import print_sheet

    out = console()
    for sheet in sheets(study, told):
        print_sheet(out, sheet, as_markdown=as_markdown)
    notes = [*study.notes, *(note for power in study.power.values() for note in power.notes)]
    notes += [note for one in told for note in one.conversation.notes]
    logs = [found for _, found in study.operators]
    for line in (*dict.fromkeys(notes), *differences(told, logs), *(f"stored in {path}" for path in stored)):
        plain(out, f"- {line}")


imported.register(import_app)
