"""A table of medians by colour: rows and columns such as models and devices, a cell all runs of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.analysis.cells import grouped, median_of
from meltbench.pages.drawn import SCALE, Drawn, Grid, GridColumn, nothing, safe, shown
from meltbench.pages.metrics import METRICS, unit_of
from meltbench.report.headline import natural

if TYPE_CHECKING:
    from meltbench.analysis.stats import Estimate
    from meltbench.pages.panel import Context
    from meltbench.pages.published import Answer

_ROW_PX, _REST_PX = 30, 130
_MOST = 400  # rows and columns together: beyond, nobody reads a cell


def heat(context: Context) -> Drawn:
    """``value`` by ``x`` and ``y``: median over runs, with its 95 % interval where there are two runs or more."""
    answer = context.answer()
    x, y, value = (context.field(key) for key in ("x", "y", "value"))
    keys = zip(answer.column(y), answer.column(x), strict=True)
    cells = {key: median_of(values) for key, values in grouped(keys, answer.column(value)).items() if values}
    if not cells:
        return nothing(f"No run has a {_heading(value)} here.", answer)
    across = sorted({str(key[1]) for key in cells}, key=natural)
    down = sorted({str(key[0]) for key in cells}, key=natural)
    left_out = len(across) + len(down) - _MOST
    across, down = across[:_MOST], down[: max(_MOST - len(across), 1)]
    unit = context.panel.unit or unit_of(value)
    found = {(str(key[0]), str(key[1])): one for key, one in cells.items()}
    figure = {
        "data": [
            {
                "type": "heatmap",
                "x": [safe(name) for name in across],
                "y": [safe(name) for name in down],
                "z": [[_of(found.get((row, column))) for column in across] for row in down],
                "text": [[_cell(found.get((row, column)), unit) for column in across] for row in down],
                "customdata": [[_told(found.get((row, column)), unit) for column in across] for row in down],
                "texttemplate": "%{text}",
                "hovertemplate": "%{y} on %{x}<br>%{customdata}<extra></extra>",
                "hoverongaps": False,
                "colorscale": SCALE,
                "reversescale": value in METRICS and METRICS[value].better == "lower",
                "showscale": False,
                "xgap": 2,
                "ygap": 2,
            }
        ],
        "layout": {
            "xaxis": {"side": "top", "type": "category", "showgrid": False},
            "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
            "margin": {"l": 10, "r": 10, "t": 40, "b": 10},
        },
    }
    notes = list(_pooled(answer))
    if left_out > 0:
        notes.append(f"{left_out} rows and columns are not shown; a filter narrows.")
    n = sum(one.n for one in cells.values())
    says = f"Median {_heading(value)} of {len(down)} by {len(across)}, {n} runs{_best(found, value, unit)}."
    told = _table(found, across, down, y, unit)
    height_px = _ROW_PX * len(down) + _REST_PX
    return Drawn(says, figure, notes=tuple(notes), answer=answer, told=told, height_px=height_px)


def _table(found: dict[tuple[str, str], Estimate], across: list[str], down: list[str], y: str, unit: str) -> Grid:
    columns = [GridColumn("row", y), *(GridColumn(f"c{at}", name, right=True) for at, name in enumerate(across))]
    rows, texts = [], []
    for name in down:
        cells = {f"c{at}": found.get((name, column)) for at, column in enumerate(across)}
        rows.append({"row": name} | {key: _of(one) for key, one in cells.items()})
        texts.append({"row": name} | {key: _cell(one, unit) for key, one in cells.items()})
    return Grid(tuple(columns), rows, texts)


def _best(found: dict[tuple[str, str], Estimate], value: str, unit: str) -> str:
    way = METRICS[value].better if value in METRICS else "neither"
    if way == "neither":
        return ""
    choose = max if way == "higher" else min
    (row, column), one = choose(found.items(), key=lambda item: item[1].value or 0.0)
    return f"; best {shown(one.value, unit)}, {row} on {column}"


def _heading(name: str) -> str:
    return METRICS[name].heading if name in METRICS else name.replace("_", " ")


def _of(one: Estimate | None) -> float | None:
    return None if one is None else one.value


def _cell(one: Estimate | None, unit: str) -> str:
    return "" if one is None else shown(one.value, unit)


def _told(one: Estimate | None, unit: str) -> str:
    if one is None:
        return ""
    runs = f"{one.n} run{'s' if one.n != 1 else ''}"
    if one.lo is None:
        return f"{shown(one.value, unit)}, {runs}: nobody knows how runs differ"
    return f"{shown(one.value, unit)}, 95 % {shown(one.lo, unit)} to {shown(one.hi, unit)}, {runs}"


def _pooled(answer: Answer) -> list[str]:
    """Of which workload, mode and point the cells are; a warning where they are of several."""
    said = []
    for name in ("workload", "mode", "point", "origin"):
        if name in answer.columns:
            values = sorted({str(v) for v in answer.column(name) if v})
            if len(values) > 1:
                return [f"Cells pool several of {name}: {', '.join(values[:6])}. Choose one in the filter."]
            said += values
    return [f"Of {', '.join(said)}."] if said else []
