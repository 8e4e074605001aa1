"""``meltbench intelligence``: how much right answer a watt and a joule buy."""

from __future__ import annotations

from typing import Annotated

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, console, plain, print_json


def intelligence(
    run: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Runs of one cell, scored: repetitions or parts together.")
    ],
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
    """Accuracy, intelligence per watt and per joule of runs, gross and net, with joint intervals and their scope."""
    from meltbench.efficiency import efficiency, joined_accuracy
    from meltbench.predicting import named
    from meltbench.report.intelligence import intelligence_sheet, notes
    from meltbench.report.sheet import print_sheet
    from meltbench.store import find_store

    check_format(as_json=as_json, as_markdown=as_markdown)
    store = find_store(data)
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
