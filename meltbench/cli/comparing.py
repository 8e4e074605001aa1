"""``meltbench compare``: models, engines or settings side by side, or one selection of runs against another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, console, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.report.sheet import Sheet
    from meltbench.store import Store


def compare(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...|A B]", help="Runs; or two selections, such as engine=llama.cpp b6543 or night=2026-11-20."
        ),
    ] = None,
    last: Annotated[int | None, typer.Option("--last", metavar="N", help="The newest N runs instead.", min=2)] = None,
    measure: Annotated[
        list[str] | None, typer.Option("--measure", metavar="NAME", help="Of selections: this figure, and no other.")
    ] = None,
    effect: Annotated[
        float | None,
        typer.Option("--effect", metavar="PERCENT", help="Of selections: the least difference that matters; else 3."),
    ] = None,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Compare runs of several models, engines or settings in one table, paired where it can be; says what is unlike."""
    from meltbench.errors import UserError
    from meltbench.report.sheet import print_sheet
    from meltbench.store import find_store

    check_format(as_json=as_json, as_markdown=as_markdown)
    store = find_store(data)
    if bool(run) == (last is not None):
        raise UserError("say which runs are to be compared", hint="RUN RUN ..., --last 2, or two selections")
    if any("=" in word for word in run or ()):
        document, sheet, notes = _selections(store, run or (), measure or (), effect)
    elif measure or effect is not None:
        option = "--measure" if measure else "--effect"
        raise UserError(f"{option} is of two selections", hint="such as: compare model=ONE model=OTHER")
    else:
        document, sheet, notes = _runs(store, run or store.stored_ids()[-(last or 0) :])
    if as_json:
        print_json(document)
        return
    out = console()
    print_sheet(out, sheet, as_markdown=as_markdown)
    for line in notes:
        plain(out, line)


def _runs(store: Store, names: Sequence[str]) -> tuple[dict[str, Any], Sheet, list[str]]:
    from meltbench.comparing import compare as compared
    from meltbench.predicting import named
    from meltbench.report.comparison import comparison_notes, comparison_sheet

    document = compared(named(store, names))
    return document, comparison_sheet(document), comparison_notes(document)


def _selections(
    store: Store, words: Sequence[str], measures: Sequence[str], effect: float | None
) -> tuple[dict[str, Any], Sheet, list[str]]:
    from meltbench.contrasts import EFFECT, compare_selections
    from meltbench.errors import UserError
    from meltbench.report.contrast import contrast_notes, contrast_sheet
    from meltbench.selecting import Selection
    from meltbench.store import index

    if len(words) != 2:
        raise UserError(f"selections are compared two at a time, not {len(words)}", hint="compare A B")
    first, second = (
        Selection.parse(word) if "=" in word else Selection.of([("run", store.resolve(word).run_id)]) for word in words
    )
    least = EFFECT if effect is None else effect / 100
    with index.opened(store) as connection:
        document = compare_selections(connection, first, second, measures=measures, effect=least)
    return document, contrast_sheet(document), contrast_notes(document)
