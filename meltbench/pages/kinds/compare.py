"""Two selections against each other: how every figure of the second stands to the first, and what shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.analysis.metrics import METRICS
from meltbench.pages.drawn import COLOURS, Drawn, Grid, GridColumn, nothing, safe
from meltbench.pages.published import Answer, rows_sql
from meltbench.selecting import Selection
from meltbench.targets import printable

if TYPE_CHECKING:
    from meltbench.pages.panel import Context
    from meltbench.report.sheet import Sheet

_NIGHTS = "SELECT DISTINCT night FROM selected WHERE night IS NOT NULL ORDER BY night DESC LIMIT 2"
_ROW_PX, _REST_PX = 26, 110
_MOST = 60
_LOOK = {"differs": COLOURS[3], "alike": COLOURS[2]}


def compare(context: Context) -> Drawn:
    """The choices ``a`` and ``b`` are selections, under the page's filter; without them the newest two nights."""
    from meltbench.contrasts import compare_selections
    from meltbench.report.contrast import contrast_notes, contrast_sheet

    said = [context.choices.get(name, "").strip() for name in ("a", "b")]
    if not any(said):
        nights = context.asking.ask(_NIGHTS).column("night")
        if len(nights) < 2:
            return nothing("Say what is to be compared: A and B are words such as model=NAME or night=DATE.")
        said = [f"night={nights[1]}", f"night={nights[0]}"]
    first, second = (_under(context.asking.selection, text) for text in said)
    document = compare_selections(context.asking.connection, first, second)
    rows = document["rows"]
    differ = sum(row["verdict"] == "differs" for row in rows)
    says = f"{said[1]} against {said[0]}: {differ} of {len(rows)} figures differ."
    grid = grid_of_sheet(contrast_sheet(document))
    drawn = [row for row in rows if row["kind"] == "ratio" and row["against"]["lo"] is not None][:_MOST]
    figure = _forest(drawn) if drawn else None
    arms = (f"SELECT '{arm}' AS arm, * FROM ({rows_sql(one)})" for arm, one in (("A", first), ("B", second)))
    return Drawn(
        says,
        figure,
        grid,
        notes=tuple(contrast_notes(document)),
        answer=_answer(rows),
        sql="-- What is compared; meltbench compare compares it.\n" + "\nUNION ALL ".join(arms),
        height_px=_ROW_PX * len(drawn) + _REST_PX,
    )


def _under(filtered: Selection, text: str) -> Selection:
    """The words of a text, and those of the page's filter that the text does not say otherwise."""
    said = Selection.parse(text).values
    words = {word for word, _ in said}
    return Selection.of([*((word, value) for word, value in filtered.values if word not in words), *said])


def _forest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios with their intervals about one, a line a figure."""
    names = [safe(_name(row)) for row in rows]
    against = [row["against"] for row in rows]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [one["value"] for one in against],
                "y": names,
                "text": [safe(f"{row['verdict']}, {METRICS[row['measure']].better} is better") for row in rows],
                "error_x": {
                    "type": "data",
                    "array": [one["hi"] - one["value"] for one in against],
                    "arrayminus": [one["value"] - one["lo"] for one in against],
                    "color": "#7c8aa0",
                    "thickness": 1.5,
                    "width": 4,
                },
                "marker": {"size": 9, "color": [_LOOK.get(row["verdict"], "#64748b") for row in rows]},
                "hovertemplate": "%{y}: x %{x:.3f}<br>%{text}<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"type": "log", "title": {"text": "B over A"}},
            "yaxis": {"type": "category", "autorange": "reversed"},
            "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
            "shapes": [
                {
                    "type": "line",
                    "x0": 1,
                    "x1": 1,
                    "y0": 0,
                    "y1": 1,
                    "yref": "paper",
                    "line": {"color": "#64748b", "dash": "dot", "width": 1},
                }
            ],
        },
    }


def _name(row: dict[str, Any]) -> str:
    of = [str(text) for text in (*row["stratum"].values(), row["workload"], row["mode"], row["point"]) if text]
    return f"{METRICS[row['measure']].heading} · {' · '.join(of)}"


def _answer(rows: list[dict[str, Any]]) -> Answer:
    names = ("measure", "unit", "workload", "mode", "point", "kind", "p", "q", "delta", "verdict")
    columns = (*names, "stratum", "a", "b", "n_a", "n_b", "value", "lo", "hi")
    made = []
    for row in rows:
        stratum = ", ".join(f"{key}={value}" for key, value in row["stratum"].items())
        sides = (row["first"]["value"], row["second"]["value"], row["first"]["n_runs"], row["second"]["n_runs"])
        against = tuple(row["against"][key] for key in ("value", "lo", "hi"))
        made.append((*(row[name] for name in names), stratum, *sides, *against))
    return Answer(columns, made)


def grid_of_sheet(sheet: Sheet) -> Grid:
    """A table of the console for a page."""
    columns = tuple(
        GridColumn(f"c{at}", printable(one.heading), right=one.right) for at, one in enumerate(sheet.columns)
    )
    rows = [{f"c{at}": printable(text) for at, text in enumerate(row)} for row in sheet.rows]
    return Grid(columns, list(rows), rows)
