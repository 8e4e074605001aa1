"""The Dash application: one callback draws a page from its address; everything else keeps address and page together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dash
from dash import ALL, ClientsideFunction, Input, Output, State, no_update

from meltbench.dashboard import cards, frame, guard, routes
from meltbench.errors import MeltbenchError
from meltbench.pages.address import Address
from meltbench.pages.offline import BROWSER
from meltbench.pages.page import pages
from meltbench.pages.panel import contexts, draw
from meltbench.pages.published import FILTERS

if TYPE_CHECKING:
    from meltbench.pages.page import PageFile
    from meltbench.pages.published import Published

THEMES = ("light", "dark")

_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}<meta name="viewport" content="width=device-width, initial-scale=1"><title>{%title%}</title>{%favicon%}{%css%}
<script>
document.documentElement.dataset.theme = localStorage.getItem("meltbench-theme")
    || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
</script>
</head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""


def make_app(published: Published, token: str | None = None) -> dash.Dash:
    """The application over a store. With a ``token`` nobody without it sees anything."""
    app = dash.Dash(
        "meltbench",
        title="meltbench",
        update_title="",
        assets_folder=str(BROWSER),
        assets_ignore="report.js",
        serve_locally=True,
        suppress_callback_exceptions=True,
        index_string=_INDEX,
    )
    app.layout = frame.layout()
    guard.protect(app.server, token)
    routes.register(app.server, published)
    _connect(app, published)
    return app


def _connect(app: dash.Dash, published: Published) -> None:
    def render(pathname: str | None, search: str | None, version: str | None, theme: str | None) -> Any:
        """The page of an address. Until version and theme are known there is nothing to draw."""
        if version is None or theme not in THEMES:
            return no_update
        page, links, known = page_of(published, pathname or "/", search or "", str(theme))
        selection = Address.parse(search or "").selection
        values = [list(selection.of_word(word)) for word in FILTERS]
        options = [[*has, *(one for one in mine if one not in has)] for has, mine in zip(known, values, strict=True)]
        return page, links, options, values

    def look(_ticks: int | None, known: str | None) -> Any:
        """Whether the index was replaced."""
        now = published.version()
        return no_update if now == known else now

    app.callback(
        Output("page", "children"),
        Output("nav", "children"),
        Output({"type": "filter", "word": ALL}, "options"),
        Output({"type": "filter", "word": ALL}, "value"),
        Input("at", "pathname"),
        Input("at", "search"),
        Input("version", "data"),
        Input("theme", "data"),
    )(render)
    app.callback(Output("version", "data"), Input("tick", "n_intervals"), State("version", "data"))(look)

    def of_browser(name: str) -> ClientsideFunction:
        return ClientsideFunction("meltbench", name)

    app.clientside_callback(of_browser("theme"), Output("theme", "data"), Input("toggle", "n_clicks"))
    app.clientside_callback(
        of_browser("address"),
        Output("at", "search"),
        Input({"type": "filter", "word": ALL}, "value"),
        Input({"type": "choice", "name": ALL, "was": ALL}, "value"),
        State({"type": "filter", "word": ALL}, "id"),
        State({"type": "choice", "name": ALL, "was": ALL}, "id"),
        State("at", "search"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        of_browser("open"),
        Output("at", "href"),
        Input({"type": "graph", "at": ALL}, "clickData"),
        State("at", "search"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        of_browser("png"),
        Output("saved", "data"),
        Input({"type": "png", "at": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )


def page_of(published: Published, pathname: str, search: str, theme: str) -> tuple[Any, Any, list[Any]]:
    """A page, the list of pages, and the values of every filter."""
    files = pages()
    name = pathname.strip("/") or next(iter(files), "")
    address = Address.parse(search)
    links = frame.nav(files, name, address)
    try:
        snapshot = published.snapshot()
        values = [snapshot.values[word] for word in FILTERS]
        with snapshot.asking(address.selection) as asking:
            if not asking.ask("SELECT 1 FROM runs LIMIT 1").rows:
                return cards.trouble("There is no run in this store yet. The first one: meltbench run"), links, values
            if name not in files:
                known = ", ".join(files)
                return cards.trouble(f"There is no page {name!r}; there are {known}."), links, values
            file = files[name]
            if file.page is None:
                return cards.trouble(file.why), links, values
            return _page(published, file, asking, address, theme), links, values
    except MeltbenchError as error:
        return cards.trouble(str(error)), links, [[] for _ in FILTERS]


def _page(published: Published, file: PageFile, asking: Any, address: Address, theme: str) -> list[Any]:
    from dash import html

    page = file.page
    assert page is not None
    made = []
    for number, context in enumerate(contexts(published.store, asking, address, page)):
        drawn = draw(context, file, number)
        place = f"{quote(file.name)}/{number}{{}}{address.query()}"
        links = [("CSV", f"/export/{place.format('.csv')}"), ("SQL", f"/export/{place.format('.sql')}")]
        links.insert(0, ("Table", f"/rows/{place.format('')}"))
        made.append(cards.card(f"{file.name}-{number}", context.panel, drawn, theme, links))
    head = [html.H1(page.title), html.P(page.about, className="about")]
    if page.choice:
        head.append(frame.choices(page, address.choices(page)))
    return [*head, html.Div(made, className="panels")]
