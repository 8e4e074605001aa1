"""The pages of a selection as one HTML file: no server, no network, nothing beside it.

Plotly's own script is in it, compressed, as are the figures: a browser unpacks both (DecompressionStream). Tables are
drawn as they are scrolled to. Headings and the sentence of every panel stand in the file as plain HTML, for whoever
reads without scripts.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench.errors import UserError
from meltbench.pages.address import Address
from meltbench.pages.drawn import TEMPLATES
from meltbench.pages.page import MAX_ROWS, pages
from meltbench.pages.panel import contexts, draw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meltbench.pages.drawn import Drawn, Grid
    from meltbench.pages.page import Page, PageFile
    from meltbench.pages.published import Asking
    from meltbench.selecting import Selection
    from meltbench.store import Store

BROWSER = Path(__file__).parent / "browser"  # what is executed and drawn with there
_CSP = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
_THEME = 'if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";'
MOST_RUNS = 24  # whose traces are drawn
_DIGITS = 5


@dataclass(frozen=True)
class Part:
    """One panel of a report."""

    title: str
    about: str
    wide: bool
    drawn: Drawn


@dataclass(frozen=True)
class Chapter:
    """One page of a report."""

    key: str
    title: str
    about: str
    parts: tuple[Part, ...]


def chapters(
    store: Store, asking: Asking, runs: Sequence[str], tell: Callable[[int, int], None] | None = None
) -> list[Chapter]:
    """Every page under the filter of ``asking``, then one a run of ``runs``; what has nothing to show is left out.

    ``tell`` is called with (done, total) panels.
    """
    files = [file for file in pages().values() if file.page is not None]
    plain = [(file, Address(asking.selection)) for file in files if not _of_a_run(file)]
    of_runs = [(file, Address(asking.selection, run=run)) for run in runs for file in files if _of_a_run(file)]
    total, done = sum(len(file.page.panel) for file, _ in (*plain, *of_runs) if file.page), 0
    made = []
    for file, address in (*plain, *of_runs):
        page = file.page
        assert page is not None
        parts = []
        for number, context in enumerate(contexts(store, asking, address, page, MAX_ROWS)):
            drawn = draw(context, file, number)
            done += 1
            if tell:
                tell(done, total)
            if drawn.figure or drawn.grid or drawn.facts or drawn.troubled:
                parts.append(Part(context.panel.title, context.panel.about, context.panel.wide, drawn))
        if parts:
            title, about = (f"Run {address.run}", "") if address.run else (page.title, _about(page, address))
            made.append(Chapter(f"{file.name}-{address.run}" if address.run else file.name, title, about, tuple(parts)))
    return made


def _of_a_run(file: PageFile) -> bool:
    """Whether a page is of one run: all of its panels ask for it."""
    assert file.page is not None
    return all(panel.kind in ("head", "trace") or "$run" in panel.sql for panel in file.page.panel)


def _about(page: Page, address: Address) -> str:
    """What a page says of itself, and what was chosen of it."""
    chosen = [f"{choice.label}: {address.choices(page)[choice.name]}" for choice in page.choice]
    return " ".join([page.about, *(f"{one}." for one in chosen if not one.endswith(": "))])


def html(title: str, made: Sequence[Chapter], facts: Sequence[str]) -> str:
    """The file. Raises UserError where Plotly's script is not installed with it."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UserError("plotly is not installed", hint="pip install plotly") from error
    held = [[_packed(part.drawn) for part in chapter.parts] for chapter in made]
    data = {"templates": TEMPLATES, "panels": [one for parts in held for one in parts]}
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    nav = "".join(f'<a href="#{escape(one.key)}">{escape(one.title)}</a>' for one in made)
    said = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_CSP}">
<title>{escape(title)}</title>
<style>{(BROWSER / "style.css").read_text(encoding="utf-8")}</style>
<script>{_THEME}</script>
</head>
<body class="offline">
<a href="#page" class="skip">To the page</a>
<header><span class="brand">meltbench</span><nav aria-label="pages">{nav}</nav>
<button id="toggle" aria-label="switch between light and dark">Light / dark</button></header>
<main id="page" tabindex="-1"><h1>{escape(title)}</h1><ul class="notes">{said}</ul>
<p class="trouble" id="failed" role="alert" hidden></p>
{_chapters(made)}</main>
<script type="application/octet-stream" id="data">{_pack(text)}</script>
<script type="application/octet-stream" id="plotly">{_pack(get_plotlyjs())}</script>
<script>{(BROWSER / "report.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _chapters(made: Sequence[Chapter]) -> str:
    out, number = [], 0
    for chapter in made:
        cards = []
        for part in chapter.parts:
            cards.append(_card(part, number))
            number += 1
        about = f'<p class="about">{escape(chapter.about)}</p>' if chapter.about else ""
        out.append(
            f'<section class="chapter" id="{escape(chapter.key)}"><h2 class="title">{escape(chapter.title)}</h2>{about}'
            f'<div class="panels">{"".join(cards)}</div></section>\n'
        )
    return "".join(out)


def _card(part: Part, number: int) -> str:
    drawn = part.drawn
    body = f'<p class="about">{escape(part.about)}</p>' if part.about else ""
    if drawn.figure is not None:
        says = escape(drawn.says, quote=True)
        body += (
            f'<div class="graph" role="img" aria-label="{says}" data-panel="{number}" '
            f'style="height:{drawn.height_px}px"></div>'
        )
    if drawn.grid is not None:
        body += f'<div class="grid" data-panel="{number}"></div>'
    if drawn.facts:
        body += f"<dl>{''.join(f'<dt>{escape(a)}</dt><dd>{escape(b)}</dd>' for a, b in drawn.facts)}</dl>"
    body += f'<p class="{"trouble" if drawn.troubled else "says"}">{escape(drawn.says)}</p>'
    if drawn.notes:
        body += f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in drawn.notes)}</ul>'
    return f'<section class="card{" wide" if part.wide else ""}"><h3>{escape(part.title)}</h3>{body}</section>'


def _packed(drawn: Drawn) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if drawn.figure is not None:
        made["figure"] = _rounded(drawn.figure)
    if drawn.grid is not None:
        made["grid"] = _columns(drawn.grid)
    return made


def _columns(grid: Grid) -> dict[str, Any]:
    """By column, which packs best."""
    return {
        "heads": [[column.heading, int(column.right)] for column in grid.columns],
        "cells": [[row[column.key] for row in grid.texts] for column in grid.columns],
    }


def _rounded(value: Any) -> Any:
    """Figures with as many digits as can be seen: a third of the size."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value


def _pack(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii")


def chosen_runs(asking: Asking, selection: Selection) -> list[str]:
    """The runs whose traces are drawn: those that the selection names, at most ``MOST_RUNS`` of the newest."""
    if not selection.of_word("run"):
        return []
    sql = f"SELECT DISTINCT run_id FROM listed ORDER BY run_id DESC LIMIT {MOST_RUNS}"
    return sorted(asking.ask(sql).column("run_id"))
