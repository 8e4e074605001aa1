"""``meltbench route``: which queries could stay on the device, and what that saves."""

from __future__ import annotations

from typing import Annotated

import typer

from meltbench.cli.billing import Chosen, print_tables
from meltbench.cli.common import Data, Json, Markdown, check_format, print_json

_MOST = 1e9


def route(
    selection: Chosen = None,
    cloud: Annotated[
        str | None, typer.Option("--cloud", metavar="RUN", help="A run of the same items that stands for the cloud.")
    ] = None,
    cloud_j_per_query: Annotated[
        float | None,
        typer.Option("--cloud-j-per-query", metavar="J", min=1e-6, max=_MOST, help="Or what a query takes there."),
    ] = None,
    cloud_accuracy: Annotated[
        float | None,
        typer.Option("--cloud-accuracy", metavar="P", min=0.0, max=1.0, help="How often it is right there: 0.9."),
    ] = None,
    max_latency_s: Annotated[
        float | None, typer.Option("--max-latency-s", metavar="S", min=0.0, max=_MOST, help="Longest useful answer.")
    ] = None,
    max_energy_j: Annotated[
        float | None, typer.Option("--max-energy-j", metavar="J", min=0.0, max=_MOST, help="Most energy of a query.")
    ] = None,
    max_power_w: Annotated[
        float | None, typer.Option("--max-power-w", metavar="W", min=0.0, max=_MOST, help="Most mean power of one.")
    ] = None,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Share of queries that local models answer right within limits, and what routers save against a cloud."""
    from meltbench.errors import UserError
    from meltbench.predicting import named
    from meltbench.recalling import recalled
    from meltbench.report.routing import route_notes, route_sheets
    from meltbench.routing import Limits, StatedCloud
    from meltbench.routing import route as routes
    from meltbench.store import find_store

    check_format(as_json=as_json, as_markdown=as_markdown)
    if cloud is not None and (cloud_j_per_query is not None or cloud_accuracy is not None):
        hint = "leave out --cloud-j-per-query and --cloud-accuracy, or --cloud"
        raise UserError("the cloud is a run, and also stated", hint=hint)
    store = find_store(data)
    found = recalled(store, selection or [], scores=True, scored=True)
    far = named(store, [cloud]) if cloud is not None else StatedCloud(cloud_j_per_query, cloud_accuracy)
    document = routes(found.records, far, Limits(max_latency_s, max_energy_j, max_power_w), found.left_out)
    if as_json:
        print_json(document)
        return
    print_tables(route_sheets(document), route_notes(document), as_markdown=as_markdown)
