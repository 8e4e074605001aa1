"""``meltbench import llama-bench|ipw|tegrastats|codecarbon|localscore``: runs of other tools."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, console, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meltbench.imports.foreign import File, Imported

_MAX_FILES, _MAX_ALL_BYTES = 4096, 256 << 20
Paths = Annotated[list[str], typer.Argument(metavar="PATH...", help="Its files; - reads standard input.")]
Device = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="What to call the machine; else what the files say.")
]
Keep = Annotated[bool, typer.Option("--store", help="Store each run; the same files are never stored twice.")]


def llama_bench(
    path: Paths,
    device: Device = None,
    store: Keep = False,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Read what llama-bench printed: JSON, JSONL, SQL, or a SQLite file of it."""
    from meltbench.imports import llama_bench as tool

    _import(tool.TOOL, path, lambda files: tool.read(files, device), store, data, as_markdown, as_json)


def ipw(
    path: Paths,
    device: Device = None,
    store: Keep = False,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Read results of intelligence-per-watt: the folder that ipw profile wrote, or JSONL of queries."""
    from meltbench.imports import ipw as tool

    _import(tool.TOOL, path, lambda files: tool.read(files, device), store, data, as_markdown, as_json)


def tegrastats(
    path: Paths,
    period_ms: Annotated[
        float | None,
        typer.Option("--period-ms", metavar="N", help="Between its lines: tegrastats' --interval; else by its dates."),
    ] = None,
    device: Device = None,
    store: Keep = False,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Read logs of tegrastats: power and temperatures of a Jetson over their time."""
    from meltbench.errors import UserError
    from meltbench.imports import tegrastats as tool

    low, high = tool.PERIOD_MS
    if period_ms is not None and not low <= period_ms <= high:
        raise UserError(f"--period-ms {period_ms:g} is out of range", hint=f"give {low:g} to {high:g}")
    _import(tool.TOOL, path, lambda files: tool.read(files, device, period_ms), store, data, as_markdown, as_json)


def codecarbon(
    path: Paths,
    device: Device = None,
    store: Keep = False,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Read emissions.csv of codecarbon: a run a row, its energies as the models that they are (class E)."""
    from meltbench.imports import codecarbon as tool

    _import(tool.TOOL, path, lambda files: tool.read(files, device), store, data, as_markdown, as_json)


def localscore(
    path: Paths,
    device: Device = None,
    store: Keep = False,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Read JSON of LocalScore's client, as it prints it or sends it to its site."""
    from meltbench.imports import localscore as tool

    _import(tool.TOOL, path, lambda files: tool.read(files, device), store, data, as_markdown, as_json)


commands: dict[str, tuple[Callable[..., None], str]] = {
    "llama-bench": (llama_bench, "meltbench import llama-bench results.jsonl --device desk --store"),
    "ipw": (ipw, "meltbench import ipw runs/profile_M4_qwen --store"),
    "tegrastats": (tegrastats, "meltbench import tegrastats tegra.log --period-ms 100"),
    "codecarbon": (codecarbon, "meltbench import codecarbon emissions.csv"),
    "localscore": (localscore, "meltbench import localscore result.json"),
}


def register(app: typer.Typer) -> None:
    """Add the commands to ``meltbench import``."""
    for name, (command, example) in commands.items():
        app.command(name, epilog=f"Example: {example}")(command)


def _import(
    tool: str,
    paths: Sequence[str],
    read: Callable[[list[File]], list[Imported]],
    store: bool,
    data: str | None,
    as_markdown: bool,
    as_json: bool,
) -> None:
    from meltbench.errors import UserError
    from meltbench.report import imported as report
    from meltbench.report.sheet import print_sheet

    check_format(as_json=as_json, as_markdown=as_markdown)
    if data is not None and not store:
        raise UserError("--data names a store, and nothing is stored", hint="give --store, or leave it out")
    files = _files(paths)
    runs = read(files)
    stored = _store(runs, data) if store else []
    if as_json:
        print_json(report.as_json(tool, files, runs, stored))
        return
    out = console()
    print_sheet(out, report.sheet(tool, runs), as_markdown=as_markdown)
    for line in (*report.lines(runs), *(f"stored in {path}" for path in stored)):
        plain(out, f"- {line}")


def _files(paths: Sequence[str]) -> list[File]:
    """What the user named; of a folder every plain file that stands in it, but none of a folder below."""
    from meltbench.cli.reading import bytes_of
    from meltbench.errors import UserError
    from meltbench.imports.foreign import MAX_BYTES, File

    named: list[str] = []
    for text in paths:
        if not Path(text).is_dir():
            named.append(text)
            continue
        inside = [os.path.join(text, name) for name in sorted(os.listdir(text)) if not name.startswith(".")]
        here = [path for path in inside if Path(path).is_file()]
        if not here:
            raise UserError(f"{text} holds no file", hint="name the files themselves")
        named += here
    if len(named) > _MAX_FILES:
        raise UserError(f"more than {_MAX_FILES} files", hint="import them in parts")
    files: list[File] = []
    for path in dict.fromkeys(named):
        files.append(File(path, bytes_of(path, MAX_BYTES)))
        if not files[-1].raw.strip():
            raise UserError(f"{path} is empty")
        if sum(len(file.raw) for file in files) > _MAX_ALL_BYTES:
            raise UserError(f"more than {_MAX_ALL_BYTES >> 20} MiB of files", hint="import them in parts")
    return files


def _store(runs: Sequence[Imported], data: str | None) -> list[str]:
    from meltbench.cli.watching import Terminal
    from meltbench.importing import store_imported
    from meltbench.store import open_store

    with Terminal() as watch:
        return [str(path) for path in store_imported(open_store(data), runs, watch, watch.counted)]
