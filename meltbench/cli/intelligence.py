"""``meltbench intelligence``: how much right answer a watt and a joule buy."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, console, plain, print_json

if TYPE_CHECKING:
    from meltbench.store import Store


def intelligence(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|SELECTION",
            help="Runs of one cell, scored: repetitions or parts; or which to tabulate, such as model=NAME; all.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="WHAT", help="Rows of one: model, device, domain, quantisation, engine."),
    ] = None,
    accuracy: Annotated[
        list[str] | None,
        typer.Option(
            "--accuracy",
            metavar="RUN",
            help="Take this run's accuracy instead, flagged; of the same items asked here it is bounded. Repeatable.",
        ),
    ] = None,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Accuracy, intelligence per watt and per joule, gross and net, with joint intervals: of one cell, or of many."""
    from meltbench.efficiency import efficiency, joined_accuracy
    from meltbench.errors import UserError
    from meltbench.predicting import named
    from meltbench.report.intelligence import intelligence_sheet, notes
    from meltbench.report.sheet import print_sheet
    from meltbench.store import find_store

    check_format(as_json=as_json, as_markdown=as_markdown)
    store = find_store(data)
    if not run or any("=" in word for word in run):
        if accuracy:
            raise UserError("--accuracy is of one cell", hint="name its runs")
        _tables(store, run or [], by or "model", as_json=as_json, as_markdown=as_markdown)
        return
    if by:
        raise UserError("--by is of many cells, and runs of one are named", hint="leave one of them out")
    joined = joined_accuracy(*named(store, accuracy)) if accuracy else None
    documents = efficiency(named(store, run), joined)
    if as_json:
        print_json(documents)
        return
    out = console()
    for document in documents:
        print_sheet(out, intelligence_sheet(document), as_markdown=as_markdown)
        for line in notes(document):
            plain(out, line)


def _tables(store: Store, words: list[str], by: str, *, as_json: bool, as_markdown: bool) -> None:
    from meltbench.cli.watching import Terminal
    from meltbench.efficiency_tables import intelligence_tables
    from meltbench.recalling import recalled
    from meltbench.report.cells import refused_notes
    from meltbench.report.intelligence_tables import intelligence_sheets
    from meltbench.report.sheet import print_sheet

    found = recalled(store, words, scores=True, scored=True)
    with Terminal() as watch:
        count = partial(watch.counted, "cells")
        document = intelligence_tables(found.records, by, found.left_out, count)
    if as_json:
        print_json(document)
        return
    out = console()
    for sheet, lines in intelligence_sheets(document):
        print_sheet(out, sheet, as_markdown=as_markdown)
        for line in lines:
            plain(out, line)
    for line in refused_notes(document):
        plain(out, line)
