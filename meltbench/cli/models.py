"""``meltbench models``: what can be named, what it is, and how one of your own comes into the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from meltbench.cli.common import Json, console, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meltbench.models import Entry, Format, Model

_HELP = "List the models that can be named; show, fetch, add or requantise one."
models_app = typer.Typer(help=_HELP)

Name = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name of the list, a path, or owner/repo:file.gguf of the hub.")
]


@models_app.callback(invoke_without_command=True, epilog="Example: meltbench models --json")
def models(context: typer.Context, as_json: Json = False) -> None:
    """List the models that can be named; show, fetch, add or requantise one."""
    if context.invoked_subcommand is None:
        list_(as_json)
    elif as_json:
        from meltbench.errors import UserError

        hint = f"meltbench models {context.invoked_subcommand} --json"
        raise UserError("--json stands before the sub-command", hint=hint)


@models_app.command("list", epilog="Example: meltbench models list --json")
def list_(as_json: Json = False) -> None:
    """List the models that can be named, with their artifacts: the forms that engines take them in."""
    from meltbench import models
    from meltbench.report import models as report
    from meltbench.report.sheet import print_sheet

    rows = [report.entry_json(entry) for entry in models.catalogue().values()]
    if as_json:
        print_json(rows)
        return
    table, aliases = report.sheet(rows)
    print_sheet(console(), table, as_markdown=False)
    _say(aliases)


@models_app.command(epilog="Example: meltbench models show qwen3-4b")
def show(name: Name, as_json: Json = False) -> None:
    """Show what is known of a model: its artifacts, where they lie, and what their files say of themselves."""
    from meltbench.report import models as report

    facts, forms = _meant(name)
    row = report.model_json(facts, forms, name)
    if as_json:
        print_json(row)
    else:
        _say(report.model_lines(row))


@models_app.command(epilog="Example: meltbench models pull qwen3-4b --format mlc")
def pull(
    name: Name,
    form: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="Which artifact: gguf, onnx-genai, mlc or onnx.")
    ] = None,
    by_hand: Annotated[
        str | None,
        typer.Option("--from", metavar="PATH", help="Take this file or folder, which was brought here by hand."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch a model into the cache, and check it; what has come is kept, and the next pull goes on from there."""
    from pathlib import Path

    from meltbench import models
    from meltbench.cli.watching import Terminal
    from meltbench.report import models as report

    model = models.resolve(name, _formats(form), f"--format {form}")
    with Terminal() as watch:
        if model.stands_for:
            watch.say(model.stands_for)
        if by_hand is None:
            path = models.ensure(model, watch.fetched, watch.say)
        else:
            path = models.adopt(model, Path(by_hand).expanduser(), watch.say)
    row = report.artifact_json(models.resolve(name, (model.format,)), path)  # its hash is known by now
    if as_json:
        print_json(row)
    else:
        _say(report.artifact_lines(row))


@models_app.command(epilog="Example: meltbench models add mine ./mine.gguf")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called.")],
    what: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A file or a folder, owner/repo:file.gguf, or owner/repo:folder."),
    ],
    form: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="What it is: gguf, onnx-genai, mlc or onnx.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a model of your own a name. It is written into data/models.toml of your configuration."""
    from meltbench import models
    from meltbench.models import own

    own.check_name(name)
    model = models.resolve(what, _formats(form), f"--format {form}")
    where = own.add(own.entry_of(name, model))
    if as_json:
        told = {"name": name, "format": model.format, "source": str(model.source), "catalogue": str(where)}
        print_json(told)
        return
    _say([f"{name} is {model.source}, in {where}"])


@models_app.command(epilog="Example: meltbench models quantize smollm2-135m-q4 --type Q8_0,Q5_0,Q4_0")
def quantize(
    name: Name,
    types: Annotated[
        str, typer.Option("--type", metavar="TYPES", help="Q8_0, Q5_1, Q5_0, Q4_1 or Q4_0; several with commas.")
    ],
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Where the files go: else into the cache.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Requantise a GGUF model, and name what comes of it in your catalogue: a ladder without a compiler."""
    from pathlib import Path

    from meltbench import models
    from meltbench.cli.watching import Terminal
    from meltbench.models import ladder
    from meltbench.report import models as report
    from meltbench.report.sheet import print_sheet

    wanted = [one.strip() for one in types.split(",")]
    with Terminal() as watch:
        rungs = ladder.climb(models.resolve(name, taker="models quantize"), wanted, Path(out) if out else None, watch)
    if as_json:
        print_json([report.rung_json(rung) for rung in rungs])
        return
    print_sheet(console(), report.ladder(rungs), as_markdown=False)
    _say([f"requantised from {rungs[0].made.descends_from}"])


def _meant(name: str) -> tuple[Entry | None, list[Model]]:
    """What the catalogue says, and the artifacts that a name stands for: all of a model, or the one that is named."""
    from meltbench import models

    entries = models.catalogue()
    known = models.artifacts(entries)
    meant = models.target(name, entries)
    if meant in entries:
        entry = entries[meant]
        return entry, [models.of_artifact(entry.name_of(one), entry, one) for one in entry.artifact]
    if meant in known:
        return known[meant][0], [models.of_artifact(meant, *known[meant])]
    return None, [models.resolve(name, _formats(None))]


def _formats(form: str | None) -> tuple[Format, ...]:
    from meltbench.errors import UnknownName
    from meltbench.models.header import LOCAL

    if form is not None and form not in LOCAL:
        raise UnknownName("format", form, LOCAL)
    return tuple(one for one in LOCAL if form in (None, one))


def _say(lines: Iterable[str]) -> None:
    from meltbench.targets import printable

    out = console()
    for line in lines:
        plain(out, printable(line))
