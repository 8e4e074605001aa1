"""What can be taken away from a panel: its rows as CSV or as a plain table, its query as SQL."""

from __future__ import annotations

import csv
import io
from html import escape
from typing import TYPE_CHECKING

from meltbench.errors import MeltbenchError
from meltbench.pages.address import Address
from meltbench.pages.drawn import grid_of
from meltbench.pages.page import pages
from meltbench.pages.panel import contexts, rows_of, statement
from meltbench.store.export import harmless_cell

if TYPE_CHECKING:
    from collections.abc import Callable

    import flask

    from meltbench.pages.panel import Context
    from meltbench.pages.published import Published

_TABLE_ROWS = 2000


def register(server: flask.Flask, published: Published) -> None:
    """Add the routes to the server."""
    from flask import Response, request

    def answered(name: str, number: int, make: Callable[[Context, str], Response]) -> Response:
        file = pages().get(name)
        if file is None or file.page is None or number >= len(file.page.panel):
            return Response("there is no such panel\n", 404, mimetype="text/plain")
        address = Address.parse(request.query_string.decode("ascii", "replace"))
        try:
            with published.snapshot().asking(address.selection) as asking:
                return make(contexts(published.store, asking, address, file.page)[number], f"{name}-{number}")
        except MeltbenchError as error:
            return Response(f"{error}\n", 400, mimetype="text/plain")

    def attached(text: str, kind: str, name: str) -> Response:
        return Response(text, mimetype=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})

    @server.get("/export/<name>/<int:number>.csv")
    def as_csv(name: str, number: int) -> Response:
        return answered(name, number, lambda context, key: attached(csv_of(context), "text/csv", f"{key}.csv"))

    @server.get("/export/<name>/<int:number>.sql")
    def as_sql(name: str, number: int) -> Response:
        return answered(name, number, lambda context, key: attached(statement(context), "text/plain", f"{key}.sql"))

    @server.get("/rows/<name>/<int:number>")
    def as_table(name: str, number: int) -> Response:
        return answered(name, number, lambda context, _key: Response(_table(context), mimetype="text/html"))


def csv_of(context: Context) -> str:
    """The rows of a panel; an empty cell is a missing value, and no cell is a formula."""
    answer = rows_of(context)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(harmless_cell, answer.columns))
    writer.writerows(map(harmless_cell, row) for row in answer.rows)
    return out.getvalue()


def _table(context: Context) -> str:
    """A page without any script, for whoever reads tables."""
    answer = rows_of(context, _TABLE_ROWS)
    grid = grid_of(answer)
    title = escape(context.panel.title)
    head = "".join(f'<th scope="col">{escape(column.heading)}</th>' for column in grid.columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(texts[column.key])}</td>' for column in grid.columns)}</tr>\n"
        for texts in grid.texts
    )
    more = f"<p>The first {_TABLE_ROWS} rows.</p>" if answer.more else ""
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<link rel="stylesheet" href="/assets/style.css"></head><body class="rows">'
        f"<main><h1>{title}</h1>{more}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></main></body></html>"
    )
