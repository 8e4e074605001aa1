"""Panels over a made index, without a store on the disk: rows whose numbers are known, and what is drawn of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contrast_kit import MadeIndex

from meltbench.dashboard import cards
from meltbench.pages.address import Address
from meltbench.pages.drawn import Drawn
from meltbench.pages.offline import _packed
from meltbench.pages.page import Choice, Page, PageFile, Panel, pages
from meltbench.pages.panel import contexts, draw
from meltbench.pages.published import Asking
from meltbench.selecting import Selection
from meltbench.store import Store

HOSTILE = (
    "<script>hostile()</script>",
    "<img src=x onerror=hostile()>",
    "%{x} $x^2$ &amp; &lt;b&gt;",
    "=cmd|' /C calc'!A0",
    "[a](javascript:hostile) ![b](http://elsewhere.example/c.png) `d` | e",
    "a\x1b[31m\u202eb\r\nc",
    "n" * 400,
    "'; DROP VIEW results; --",
)


@contextmanager
def asking(made: MadeIndex, words: str = "") -> Iterator[Asking]:
    """Questions to a made index."""
    cursor = made.connection.cursor()
    try:
        yield Asking(cursor, Selection.parse(words))
    finally:
        cursor.close()


def draw_panel(
    made: MadeIndex, panel: Panel, words: str = "", query: str = "", choice: tuple[Choice, ...] = ()
) -> Drawn:
    """One panel as a page draws it, from an address."""
    page = Page("t", choice=choice, panel=(panel,))
    file = PageFile("t", Path("t.toml"), page, lines=(1,))
    with asking(made, words) as one:
        (context,) = contexts(Store(Path("nowhere")), one, Address.parse(query), page)
        return checked(draw(context, file, 0))


def page_of(made: MadeIndex, name: str, words: str = "", query: str = "") -> dict[str, Drawn]:
    """A shipped page's panels by title."""
    file = pages()[name]
    assert file.page is not None
    with asking(made, words) as one:
        held = contexts(Store(Path("nowhere")), one, Address.parse(query), file.page)
        return {context.panel.title: checked(draw(context, file, at)) for at, context in enumerate(held)}


def checked(drawn: Drawn) -> Drawn:
    """What is drawn can be sent: in the dashboard and in a report, without a number that is none."""
    json.dumps(_packed(drawn), allow_nan=False)
    card = cards.card("k", Panel("t", "compare"), drawn, "dark", [("CSV", "/x.csv")])
    json.dumps(card.to_plotly_json(), allow_nan=False, default=lambda part: part.to_plotly_json())
    return drawn


def texts(value: Any) -> Iterator[str]:
    """Every text in a figure."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts(one)
