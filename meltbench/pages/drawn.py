"""What a panel comes to: a figure, a table or a few facts, each with a sentence for whoever cannot see it.

Figures are plain dictionaries in Plotly's own form and carry no theme: whoever shows them adds one of ``TEMPLATES``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from meltbench.analysis.metrics import METRICS, unit_of
from meltbench.report.sheet import MISSING
from meltbench.report.units import quantity
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.pages.published import Answer

# Paul Tol's vibrant scheme, and two more: told apart by all eyes, on white and on black.
COLOURS = ("#0077bb", "#ee7733", "#009988", "#cc3311", "#33bbee", "#ee3377", "#999933", "#aa4499")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
SCALE = [[0, "#e6f2f1"], [0.5, "#79bdb5"], [1, "#0f766e"]]  # from pale to full, as good on black
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


def _template(text: str, grid: str) -> dict[str, Any]:
    axis = {"gridcolor": grid, "linecolor": grid, "zerolinecolor": grid, "automargin": True, "title": {"standoff": 8}}
    return {
        "layout": {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": text, "family": FONT, "size": 12},
            "xaxis": axis,
            "yaxis": axis,
            "colorway": list(COLOURS),
            "hoverlabel": {"font": {"family": FONT}},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": grid, "activecolor": text},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        }
    }


TEMPLATES = {"light": _template("#1f2937", "#e2e8f0"), "dark": _template("#e5e7eb", "#334155")}


@dataclass(frozen=True)
class GridColumn:
    """A column of a table: ``key`` of its rows. ``run``: its cells are names of runs, and lead to them."""

    key: str
    heading: str
    right: bool = False
    run: bool = False


@dataclass(frozen=True)
class Grid:
    """A table. ``rows`` hold raw values, to be sorted by; ``texts`` what is shown of them, row by row."""

    columns: tuple[GridColumn, ...]
    rows: list[dict[str, Any]]
    texts: list[dict[str, str]]


@dataclass(frozen=True)
class Drawn:
    """``says``: in a sentence what is to be seen. ``figure`` is Plotly's; ``facts`` are (label, text).

    ``answer`` holds the rows behind it, which can be taken away as CSV; ``sql`` asks for them, where that is not the
    panel's own query. ``told``: a figure as a table. ``troubled``: ``says`` is why nothing is drawn.
    """

    says: str
    figure: dict[str, Any] | None = None
    grid: Grid | None = None
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    answer: Answer | None = None
    sql: str = ""
    told: Grid | None = None
    troubled: bool = False
    height_px: int = 360

    def __post_init__(self) -> None:
        """What is said may have names of models and devices in it, and is text for whoever shows it."""
        object.__setattr__(self, "says", printable(self.says))
        object.__setattr__(self, "notes", tuple(map(printable, self.notes)))


def nothing(why: str, answer: Answer | None = None) -> Drawn:
    """A panel without anything to draw, and why."""
    return Drawn(why, answer=answer)


def safe(text: object) -> str:
    """A text of a device, a model or a file for Plotly, which reads some HTML in it, and entities."""
    return printable(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shown(value: object, unit: str = "") -> str:
    """A value as one reads it; of nothing a dash."""
    if value is None or value != value:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) or (isinstance(value, int) and unit):
        return quantity(float(value), unit)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return printable(str(value))


def share(value: float) -> str:
    """A part of one in percent."""
    return f"{value * 100:.3g} %"


def grid_of(answer: Answer, units: Sequence[tuple[str, str]] = ()) -> Grid:
    """The rows of an answer as a table. ``units``: of columns, where their names do not say them."""
    known = dict(units)
    of_column = [known.get(name, unit_of(name)) for name in answer.columns]
    columns, texts, rows = [], [], []
    for at, name in enumerate(answer.columns):
        number = any(isinstance(row[at], int | float) and not isinstance(row[at], bool) for row in answer.rows)
        heading = METRICS[name].heading if name in METRICS else name.replace("_", " ")
        columns.append(GridColumn(name, heading, right=number, run=name == "run_id"))
    for row in answer.rows:
        rows.append({name: _plain(value) for name, value in zip(answer.columns, row, strict=True)})
        texts.append(
            {
                name: share(value) if name == "accuracy" and isinstance(value, float) else shown(value, unit)
                for name, value, unit in zip(answer.columns, row, of_column, strict=True)
            }
        )
    return Grid(tuple(columns), rows, texts)


def _plain(value: object) -> Any:
    """A value that JSON has; text without control characters."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return printable(str(value))
