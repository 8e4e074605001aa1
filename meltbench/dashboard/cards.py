"""Panels as Dash components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dash_ag_grid as dag
from dash import dcc, html

from meltbench.pages.drawn import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.pages.drawn import Drawn, Grid
    from meltbench.pages.page import Panel

_LONG, _LONG_NARROW = 40, 16  # characters, from which on a cell has lines, by the width of the panel
_FEW = 12  # rows, up to which a table is as high as they are
_GRID_ROW_PX, _GRID_HEAD_PX, _GRID_MOST_PX = 34, 52, 520


def card(key: str, panel: Panel, drawn: Drawn, theme: str, links: Sequence[tuple[str, str]]) -> Any:
    """A panel with its heading, what it shows in a sentence, and the ways to take it away.

    ``key`` tells it from every other panel; ``links`` are (text, address) of its rows and its query.
    """
    parts: list[Any] = [html.H2(panel.title, id=f"h-{key}")]
    if panel.about:
        parts.append(html.P(panel.about, className="about"))
    if drawn.figure is not None:
        parts.append(_graph(key, drawn, theme))
    if drawn.grid is not None:
        parts.append(_grid(key, panel, drawn.grid))
    if drawn.facts:
        parts.append(html.Dl([each for label, text in drawn.facts for each in (html.Dt(label), html.Dd(text))]))
    parts.append(html.P(drawn.says, className="trouble" if drawn.troubled else "says", id=f"s-{key}"))
    if drawn.notes:
        parts.append(html.Ul([html.Li(note) for note in drawn.notes], className="notes"))
    if drawn.figure is not None or drawn.answer is not None:
        parts.append(_footer(key, drawn, links))
    return html.Section(parts, className="card wide" if panel.wide else "card", **{"aria-labelledby": f"h-{key}"})


def _graph(key: str, drawn: Drawn, theme: str) -> Any:
    figure = dict(drawn.figure or {})
    figure["layout"] = figure["layout"] | {"template": TEMPLATES[theme], "uirevision": key, "autosize": True}
    config = {"displaylogo": False, "responsive": True, "toImageButtonOptions": {"filename": key, "scale": 2}}
    graph = dcc.Graph(
        id={"type": "graph", "at": key}, figure=figure, config=config, style={"height": f"{drawn.height_px}px"}
    )
    return html.Div(graph, role="img", **{"aria-label": drawn.says}, className="graph")


def _grid(key: str, panel: Panel, grid: Grid) -> Any:
    few = len(grid.rows) <= _FEW
    long = _LONG if panel.wide else _LONG_NARROW
    columns = []
    for column in grid.columns:
        one: dict[str, Any] = {"field": column.key, "headerName": column.heading, "tooltipField": f"{column.key} "}
        one["valueFormatter"] = {"function": "params.data[params.colDef.tooltipField]"}
        if column.right:
            one |= {"type": "rightAligned", "filter": "agNumberColumnFilter"}
        if any(len(texts[column.key]) > long for texts in grid.texts):
            one |= {"wrapText": True, "autoHeight": True, "minWidth": 260 if panel.wide else 130, "cellClass": "long"}
        if column.run:
            one["cellRenderer"] = "Run"
        columns.append(one)
    # What is shown stands beside the value that is sorted by, under its name and a blank, which no column has.
    rows = [
        row | {f"{name} ": text for name, text in texts.items()}
        for row, texts in zip(grid.rows, grid.texts, strict=True)
    ]
    drawn = dag.AgGrid(
        id={"type": "grid", "at": key},
        columnDefs=columns,
        rowData=rows,
        columnSize="responsiveSizeToFit" if len(columns) <= 8 else "autoSize",
        defaultColDef={"sortable": True, "filter": True, "resizable": True, "minWidth": 90},
        dashGridOptions={
            "domLayout": "autoHeight" if few else "normal",
            "animateRows": False,
            "enableCellTextSelection": True,
            "rowHeight": 32,
            "suppressFieldDotNotation": True,
        },
        style={"height": None if few else f"{min(_GRID_HEAD_PX + _GRID_ROW_PX * len(rows), _GRID_MOST_PX)}px"},
    )
    return html.Div(drawn, role="region", **{"aria-label": panel.title})


def _footer(key: str, drawn: Drawn, links: Sequence[tuple[str, str]]) -> Any:
    ways: list[Any] = []
    if drawn.figure is not None:
        ways.append(html.Button("PNG", id={"type": "png", "at": key}, **{"aria-label": f"save as PNG: {key}"}))
    if drawn.answer is not None:
        ways += [html.A(text, href=address, target="_blank") for text, address in links]
    return html.Footer(ways)


def trouble(text: str) -> Any:
    """Why there is no page."""
    return html.Section(html.P(text, className="trouble", role="alert"), className="card wide")
