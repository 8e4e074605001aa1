"""``meltbench pareto``: which arms nothing beats, and how sure that is."""

from __future__ import annotations

from typing import Annotated

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, console, plain, print_json


def pareto(
    x: Annotated[str, typer.Option("--x", metavar="AXIS", help="A column of results, such as ttft_s@quick/server.")],
    y: Annotated[str, typer.Option("--y", metavar="AXIS", help="Another, such as accuracy@hellaswag.")],
    selection: Annotated[
        str, typer.Argument(metavar="[WORD=VALUE,...]", help="Runs, such as device=pi5,night=2026-11-20.")
    ] = "",
    z: Annotated[list[str] | None, typer.Option("--z", metavar="AXIS", help="A third one; given twice, four.")] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="CONDITION", help='Such as "power_w<5 and ttft_s<1".')
    ] = None,
    inherit: Annotated[
        bool,
        typer.Option("--inherit", help="Take an accuracy over from another device, of the same model and engine."),
    ] = False,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """The arms that none beats on two to four axes: with which probability, and by whom the others are beaten."""
    from meltbench.analysis.constraints import parse
    from meltbench.fronts import pareto as fronted
    from meltbench.report.pareto import front_notes, front_sheet
    from meltbench.report.sheet import print_sheet
    from meltbench.selecting import Selection
    from meltbench.store import find_store
    from meltbench.store.index import opened

    check_format(as_json=as_json, as_markdown=as_markdown)
    condition = None if where is None else parse(where)
    chosen = Selection.parse(selection)
    with opened(find_store(data)) as connection:
        document = fronted(connection, chosen, [x, y, *(z or [])], where=condition, inherit=inherit)
    if as_json:
        print_json(document)
        return
    out = console()
    print_sheet(out, front_sheet(document), as_markdown=as_markdown)
    for line in front_notes(document):
        plain(out, line)
