"""What stands around every page: its list, the filter that all share, and the choices of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dash import dcc, html

from meltbench.analysis.metrics import METRICS
from meltbench.pages.published import FILTERS

if TYPE_CHECKING:
    from meltbench.pages.address import Address
    from meltbench.pages.page import Choice, Page, PageFile

_TICK_MS = 2000


def layout() -> Any:
    """The frame, empty: everything in it is filled by callbacks."""
    filters = [
        html.Div(
            [
                html.Label(word, htmlFor=f"filter-{word}"),
                dcc.Dropdown(id={"type": "filter", "word": word}, multi=True, placeholder="all", persistence=False),
            ],
            className="filter",
            id=f"filter-{word}",
        )
        for word in FILTERS
    ]
    return html.Div(
        [
            dcc.Location(id="at", refresh="callback-nav"),
            dcc.Store(id="version"),
            dcc.Store(id="theme"),
            dcc.Store(id="saved"),
            dcc.Interval(id="tick", interval=_TICK_MS),
            html.A("To the page", href="#page", className="skip"),
            html.Header(
                [
                    html.A("meltbench", href="/", className="brand"),
                    html.Nav(id="nav", **{"aria-label": "pages"}),
                    html.Button("Light / dark", id="toggle", **{"aria-label": "switch between light and dark"}),
                ]
            ),
            html.Section(filters, className="filters", **{"aria-label": "filter of all pages"}),
            html.Main(html.P("Loading ...", className="about"), id="page", tabIndex="-1"),
        ]
    )


def nav(files: dict[str, PageFile], here: str, address: Address) -> list[Any]:
    """Links to every page, which keep the filter."""
    kept = type(address)(address.selection).query()
    out = []
    for name, file in files.items():
        current: dict[str, Any] = {"aria-current": "page"} if name == here else {}
        out.append(
            dcc.Link(file.title, href=f"/{quote(name)}{kept}", className="broken" if not file.page else "", **current)
            if not current
            else html.Span(file.title, className="here", **current)
        )
    return out


def choices(page: Page, chosen: dict[str, str]) -> Any:
    """What a reader may choose of this page."""
    return html.Div(
        [
            html.Div(
                [html.Label(choice.label, htmlFor=f"choice-{choice.name}"), _control(choice, chosen[choice.name])],
                className="choice",
            )
            for choice in page.choice
        ],
        className="choices",
    )


def _control(choice: Choice, value: str) -> Any:
    key = {"type": "choice", "name": choice.name, "was": value}
    if choice.kind == "text":
        entry = dcc.Input(id=key, value=value, type="text", debounce=True, placeholder=choice.hint)
        return html.Div(entry, id=f"choice-{choice.name}")
    names = choice.options or tuple(METRICS)
    shown = [
        {"label": METRICS[name].heading if choice.kind == "metric" and name in METRICS else name, "value": name}
        for name in names
    ]
    control = dcc.Dropdown(id=key, options=shown, value=value, clearable=False, persistence=False)
    return html.Div(control, id=f"choice-{choice.name}")
