"""A table of medians by colour: rows and columns such as models and devices, a cell all runs of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.analysis.cells import grouped, median_of
from meltbench.analysis.metrics import METRICS, unit_of
from meltbench.pages.drawn import SCALE, Drawn, Grid, GridColumn, nothing, safe, shown
from meltbench.report.headline import natural
from meltbench.targets import printable

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
    keys = list(zip(answer.names(y), answer.names(x), strict=True))
    found = {key: median_of(values) for key, values in grouped(keys, answer.numbers(value)).items() if values}
    if not found:
        return nothing(f"No run has a {_heading(value)} here.", answer)
    across = sorted({key[1] for key in found}, key=natural)
    down = sorted({key[0] for key in found}, key=natural)
    left_out = len(across) + len(down) - _MOST
    across, down = across[:_MOST], down[: max(_MOST - len(across), 1)]
    unit = context.panel.unit or unit_of(value)
    of = "run" if "run_id" in answer.columns else "value"
    figure = {
        "data": [
            {
                "type": "heatmap",
                "x": [safe(name) for name in across],
                "y": [safe(name) for name in down],
                "z": [[_of(found.get((row, column))) for column in across] for row in down],
                "text": [[_cell(found.get((row, column)), unit) for column in across] for row in down],
                "customdata": [[_told(found.get((row, column)), unit, of) for column in across] for row in down],
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
    notes = _pooled(answer, keys) + _meters(answer, value)
    if left_out > 0:
        notes.append(f"{left_out} rows and columns are not shown; a filter narrows.")
    n = sum(one.n for one in found.values())
    best = "" if _meters(answer, value) else _best(found, value, unit)
    says = f"Median {_heading(value)} of {len(down)} by {len(across)}, {_counted(n, of)}{best}."
    told = _table(found, across, down, y, unit)
    height_px = _ROW_PX * len(down) + _REST_PX
    return Drawn(says, figure, notes=tuple(notes), answer=answer, told=told, height_px=height_px)


def _table(found: dict[tuple[str, str], Estimate], across: list[str], down: list[str], y: str, unit: str) -> Grid:
    names = enumerate(map(printable, across))
    columns = [GridColumn("row", y), *(GridColumn(f"c{at}", name, right=True) for at, name in names)]
    rows, texts = [], []
    for name in down:
        cells = {f"c{at}": found.get((name, column)) for at, column in enumerate(across)}
        rows.append({"row": printable(name)} | {key: _of(one) for key, one in cells.items()})
        texts.append({"row": printable(name)} | {key: _cell(one, unit) for key, one in cells.items()})
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


def _counted(n: int, of: str) -> str:
    return f"{n} {of}{'s' if n != 1 else ''}"


def _told(one: Estimate | None, unit: str, of: str) -> str:
    if one is None:
        return ""
    runs = _counted(one.n, of)
    if one.lo is None and of != "run":
        return f"{shown(one.value, unit)}, {runs}"
    if one.lo is None:
        return f"{shown(one.value, unit)}, {runs}: nobody knows how runs differ"
    return f"{shown(one.value, unit)}, 95 % {shown(one.lo, unit)} to {shown(one.hi, unit)}, {runs}"


def _pooled(answer: Answer, keys: list[tuple[str, str]]) -> list[str]:
    """Of which workload, mode and point the cells are; a warning where one cell is of several."""
    said = []
    for name in ("workload", "mode", "point", "origin"):
        if name not in answer.columns:
            continue
        held: dict[tuple[str, str], set[str]] = {}
        for key, value in {*zip(keys, answer.column(name), strict=True)}:
            held.setdefault(key, set()).add(str(value or ""))
        several = sorted(set().union(*(values for values in held.values() if len(values) > 1)) - {""}, key=natural)
        if several:
            return [f"Cells pool several of {name}: {', '.join(several[:6])}. Choose one in the filter."]
        everywhere = set().union(*held.values())
        said += sorted(everywhere - {""}) if len(everywhere) == 1 else []
    return [f"Of {', '.join(said)}."] if said else []


def _meters(answer: Answer, value: str) -> list[str]:
    """A warning where energies of several scopes or classes stand side by side."""
    if unit_of(value) not in ("J", "W", "1/J", "1/W") or not {"energy_scope", "energy_class"} <= {*answer.columns}:
        return []
    kinds = {
        kind for kind in zip(answer.column("energy_scope"), answer.column("energy_class"), strict=True) if any(kind)
    }
    if len(kinds) < 2:
        return []
    said = ", ".join(sorted(f"{scope} (class {klass})" for scope, klass in kinds))
    return [f"Energy of several scopes or classes, {said}: cells are not to be ranked across them."]
