"""``meltbench compare``: models, engines or settings side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, console, plain, print_json


def compare(
    run: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="Runs of several models, engines or settings.")
    ] = None,
    last: Annotated[int | None, typer.Option("--last", metavar="N", help="The newest N runs instead.", min=2)] = None,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Compare runs of several models, engines or settings in one table, paired where it can be; says what is unlike."""
    from meltbench.comparing import compare as compared
    from meltbench.errors import UserError
    from meltbench.predicting import named
    from meltbench.report.comparison import comparison_notes, comparison_sheet
    from meltbench.report.sheet import print_sheet
    from meltbench.store import find_store

    check_format(as_json=as_json, as_markdown=as_markdown)
    store = find_store(data)
    if bool(run) == (last is not None):
        raise UserError("say which runs are to be compared", hint="RUN RUN ..., or --last 2")
    names = run or store.stored_ids()[-(last or 0) :]
    document = compared(named(store, names))
    if as_json:
        print_json(document)
        return
    out = console()
    print_sheet(out, comparison_sheet(document), as_markdown=as_markdown)
    for line in comparison_notes(document):
        plain(out, line)
