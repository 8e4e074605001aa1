"""``meltbench predict``: what a request of given lengths would take, from what was measured."""

from __future__ import annotations

from typing import Annotated

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, console, plain, print_json


def predict(
    n_in: Annotated[int, typer.Option("--in", metavar="N", min=1, max=10_000_000, help="Tokens of the prompt.")],
    n_out: Annotated[int, typer.Option("--out", metavar="N", min=1, max=10_000_000, help="Tokens of the answer.")],
    run: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN|SELECTION", help="Runs to fit to, by name or model=NAME,...; all that are valid."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="TEXT", help="Only runs of models with TEXT in their name.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="TEXT", help="Only runs on devices with TEXT in their name.")
    ] = None,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Predict time, power and energy of a request from what stored runs took. Exit 1 when no time can be told."""
    from meltbench.errors import UserError
    from meltbench.predicting import chosen
    from meltbench.predicting import predict as predicted
    from meltbench.report.prediction import fit_sheet, notes, prediction_sheet
    from meltbench.report.sheet import print_sheet
    from meltbench.store import find_store

    check_format(as_json=as_json, as_markdown=as_markdown)
    if run and (model or device):
        raise UserError("runs are named, and also looked for", hint="leave out --model and --device, or the runs")
    document = predicted(chosen(find_store(data), run or [], model, device), n_in, n_out)
    if as_json:
        print_json(document)
    else:
        out = console()
        for sheet in (prediction_sheet(document), fit_sheet(document)):
            print_sheet(out, sheet, as_markdown=as_markdown)
        for line in notes(document):
            plain(out, line)
    if all(one["value"] is None for one in document["predictions"] if one["name"] in ("prefill_s", "decode_s")):
        raise typer.Exit(1)
