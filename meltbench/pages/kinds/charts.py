"""Lines, bars and points straight from the rows of a query."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from meltbench.analysis.metrics import METRICS, unit_of
from meltbench.pages.drawn import COLOURS, SYMBOLS, Drawn, nothing, safe, shown
from meltbench.report.headline import natural

if TYPE_CHECKING:
    from meltbench.pages.panel import Context
    from meltbench.pages.published import Answer

_MOST_GROUPS = 16
_DASHES = ("solid", "dash", "dot", "dashdot")


def lines(context: Context) -> Drawn:
    """``y`` over ``x``, a line a ``group``; columns lo and hi, where the query gives them, are its interval."""
    return _chart(context, "lines")


def scatter(context: Context) -> Drawn:
    """Points at ``x`` and ``y``, coloured by ``group``; a click on one opens the run of its column run_id."""
    return _chart(context, "scatter")


def bars(context: Context) -> Drawn:
    """A bar a row, of height ``y`` at ``x``, coloured by ``group``."""
    return _chart(context, "bars")


def _chart(context: Context, kind: str) -> Drawn:
    answer = context.answer()
    x, y = context.field("x"), context.field("y")
    group = context.field("group")
    groups = _groups(answer, group)
    if not any(value is not None for value in answer.numbers(y)):
        return nothing(f"No {_titled(y)} to draw.", answer)
    traces = []
    unit = context.panel.unit or unit_of(y)
    for number, (name, rows) in enumerate(sorted(groups.items(), key=lambda item: natural(item[0]))[:_MOST_GROUPS]):
        traces.append(
            _trace(answer, rows, (x, y), kind, number, unit) | {"name": safe(name) or "all", "showlegend": bool(group)}
        )
    figure = {
        "data": traces,
        "layout": {
            "xaxis": _axis(x, answer.column(x), context.panel.kind),
            "yaxis": {
                "title": {"text": _titled(y, context.panel.unit)},
                "rangemode": "tozero" if kind == "bars" else "normal",
            },
            "margin": {"l": 10, "r": 10, "t": 30, "b": 10},
            "hovermode": "closest",
        },
    }
    left = len(groups) - _MOST_GROUPS
    notes = (f"{left} more of {group} are not drawn; a filter narrows.",) if left > 0 else ()
    of = f"{len(groups)} group{'s' if len(groups) != 1 else ''}"
    says = f"{_titled(y, context.panel.unit)} by {_titled(x)}: {len(answer.rows)} points in {of}."
    return Drawn(says, figure, notes=notes, answer=answer)


def _groups(answer: Answer, group: str) -> dict[str, list[int]]:
    if not group:
        return {"": list(range(len(answer.rows)))}
    out: dict[str, list[int]] = {}
    for at, name in enumerate(answer.names(group)):
        out.setdefault(name, []).append(at)
    return out


def _trace(answer: Answer, rows: list[int], axes: tuple[str, str], kind: str, number: int, unit: str) -> dict[str, Any]:
    def of(name: str) -> list[Any]:
        column = answer.column(name)
        return [_plain(column[at]) for at in rows]

    def number_of(name: str) -> list[float | None]:
        column = answer.numbers(name)
        return [column[at] for at in rows]

    x, y = axes
    colour = COLOURS[number % len(COLOURS)]
    made: dict[str, Any] = {"x": of(x), "y": number_of(y)}
    made["text"] = [shown(value, unit) for value in made["y"]]
    made["hovertemplate"] = "%{x}<br>%{text}<extra>%{fullData.name}</extra>"
    if "run_id" in answer.columns:
        made["customdata"] = of("run_id")
    if "lo" in answer.columns and "hi" in answer.columns:
        up = [None if v is None or hi is None else hi - v for v, hi in zip(made["y"], number_of("hi"), strict=True)]
        down = [None if v is None or lo is None else v - lo for v, lo in zip(made["y"], number_of("lo"), strict=True)]
        made["error_y"] = {"type": "data", "array": up, "arrayminus": down, "thickness": 1, "width": 3}
    if kind == "bars":
        return made | {"type": "bar", "marker": {"color": colour}}
    marker = {"color": colour, "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 8}
    if kind == "scatter":
        return made | {"type": "scatter", "mode": "markers", "marker": marker}
    line = {"color": colour, "width": 2, "dash": _DASHES[number // len(COLOURS) % len(_DASHES)]}
    return made | {"type": "scatter", "mode": "lines+markers", "marker": marker | {"size": 6}, "line": line}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return safe(value)


def _axis(name: str, values: list[Any], kind: str) -> dict[str, Any]:
    words = any(isinstance(value, str) for value in values)
    axis: dict[str, Any] = {"title": {"text": _titled(name)}}
    return axis | {"type": "category"} if words and kind == "bars" else axis


def _titled(name: str, unit: str = "") -> str:
    heading = METRICS[name].heading if name in METRICS else name.replace("_", " ")
    unit = unit or unit_of(name)
    shown_unit = {"degC": "°C", "1": ""}.get(unit, unit)
    return f"{heading}, {shown_unit}" if shown_unit else heading
