"""``meltbench cost`` and ``meltbench battery``: what measured energy comes to in money, carbon and charges."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, console, plain, print_json

if TYPE_CHECKING:
    from meltbench.report.sheet import Sheet

Chosen = Annotated[
    list[str] | None,
    typer.Argument(metavar="SELECTION", help="Which runs, such as model=NAME,workload=NAME; all when left out."),
]


def cost(
    selection: Chosen = None,
    price: Annotated[
        str | None, typer.Option("--price", metavar="N/kWh", help="What electricity costs: 0.30/kWh, 0.30EUR/kWh.")
    ] = None,
    grid: Annotated[
        str | None, typer.Option("--grid", metavar="Ng/kWh", help="Its carbon, grams of CO2 equivalents: 400g/kWh.")
    ] = None,
    grid_region: Annotated[
        str | None, typer.Option("--grid-region", metavar="NAME", help="Its carbon by a published mean: EU, USA ...")
    ] = None,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Energy, money and carbon of 1000 tokens, 1000 queries and a right answer. No factor is assumed."""
    from meltbench import energy_factors
    from meltbench.billing import cost_tables
    from meltbench.cli.watching import Terminal
    from meltbench.errors import UserError
    from meltbench.recalling import recalled
    from meltbench.report.billing import cost_notes, cost_sheets
    from meltbench.store import find_store

    check_format(as_json=as_json, as_markdown=as_markdown)
    if grid and grid_region:
        raise UserError("--grid and --grid-region are two carbons of one grid", hint="leave one out")
    if not (price or grid or grid_region):
        hint = "--price 0.30/kWh, --grid 400g/kWh or --grid-region EU: there is no default"
        raise UserError("nothing says what a kilowatt-hour costs or emits", hint=hint)
    carbon = energy_factors.grid(grid) if grid else energy_factors.grid_of_region(grid_region) if grid_region else None
    paid = energy_factors.price(price) if price else None
    found = recalled(find_store(data), selection or [], scores=True)
    with Terminal() as watch:
        count = partial(watch.counted, "cells")
        document = cost_tables(found.records, paid, carbon, found.left_out, count)
    if as_json:
        print_json(document)
        return
    print_tables(cost_sheets(document), cost_notes(document), as_markdown=as_markdown)


def battery(
    selection: Chosen = None,
    battery_wh: Annotated[
        float | None,
        typer.Option("--battery-wh", metavar="WH", min=0.1, max=1000.0, help="What the battery holds, for every row."),
    ] = None,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Queries, tokens and right answers by charge of a battery, and hours of generating."""
    from meltbench.billing import battery_tables, capacities_of
    from meltbench.cli.watching import Terminal
    from meltbench.recalling import recalled
    from meltbench.report.billing import battery_sheets
    from meltbench.report.cells import refused_notes
    from meltbench.store import find_store

    check_format(as_json=as_json, as_markdown=as_markdown)
    found = recalled(find_store(data), selection or [], scores=True)
    held = capacities_of(found.records)
    with Terminal() as watch:
        count = partial(watch.counted, "cells")
        document = battery_tables(found.records, held, battery_wh, found.left_out, count)
    if as_json:
        print_json(document)
        return
    print_tables(battery_sheets(document), refused_notes(document), as_markdown=as_markdown)


def print_tables(sheets: list[tuple[Sheet, list[str]]], notes: list[str], *, as_markdown: bool) -> None:
    """Sheets, each with its notes below it, then what is of all of them."""
    from meltbench.report.sheet import print_sheet

    out = console()
    for sheet, lines in sheets:
        print_sheet(out, sheet, as_markdown=as_markdown)
        for line in lines:
            plain(out, line)
    for line in notes:
        plain(out, line)
