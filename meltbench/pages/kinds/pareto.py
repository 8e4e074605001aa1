"""What nothing beats: arms over two axes or three, with how sure each is to be on the front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.analysis.metrics import METRICS
from meltbench.pages.drawn import COLOURS, SYMBOLS, Drawn, nothing, safe, share, shown
from meltbench.pages.kinds.compare import grid_of_sheet
from meltbench.pages.published import Answer, rows_sql

if TYPE_CHECKING:
    from meltbench.pages.panel import Context
    from meltbench.pages.published import Asking

    Document = dict[str, Any]

_DRAWS = 1000
_PAIRS = (
    ("j_per_question", "accuracy"),
    ("decode_tps", "j_per_output_token"),
    ("decode_tps", "peak_rss_bytes"),
    ("ttft_s", "peak_rss_bytes"),
)
_LOG_FROM = 20  # the most over the least
_HEIGHT_PX = 560
_NAMED = 12  # arms on the front that have their names beside them


def pareto(context: Context) -> Drawn:
    """The choices ``x``, ``y`` and ``z`` are axes, such as ``accuracy@hellaswag``; ``where`` a condition.

    Without any axis the first usual pair is taken that runs have.

    A click on a point opens the newest run behind it.
    """
    from meltbench.analysis.constraints import parse
    from meltbench.fronts import pareto as front
    from meltbench.report.pareto import front_notes, front_sheet

    asking = context.asking
    axes = [text for name in ("x", "y", "z") if (text := context.choices.get(name, "").strip())]
    if not axes:
        axes = list(_usual(asking))
    if not axes:
        return nothing("No run that an aggregate may take in has two of the usual axes: choose others.")
    said = context.choices.get("where", "").strip()
    document = front(asking.connection, asking.selection, axes, where=parse(said) if said else None, draws=_DRAWS)
    arms = document["arms"]
    surely = sum(arm["on_front"] for arm in arms)
    titles = [_titled(axis) for axis in document["axes"][: len(axes)]]
    says = f"{len(arms)} arms by {' and '.join(titles)}: {surely} on the front."
    figure = {"data": [*_points(document), *_stairs(document)], "layout": _layout(document)}
    return Drawn(
        says,
        figure,
        grid_of_sheet(front_sheet(document)),
        notes=tuple(front_notes(document)),
        answer=_answer(document),
        sql=f"-- What the front is of; meltbench pareto draws it.\n{rows_sql(asking.selection)}",
        height_px=_HEIGHT_PX,
    )


def _usual(asking: Asking) -> tuple[str, str] | tuple[()]:
    """The first pair of axes that most people look at, and that some run has both of."""
    counts = ", ".join(f"count(*) FILTER ({x} IS NOT NULL AND {y} IS NOT NULL)" for x, y in _PAIRS)
    found = asking.ask(f"SELECT {counts} FROM selected").rows[0]
    return next((pair for pair, n in zip(_PAIRS, found, strict=True) if n), ())


def _points(document: Document) -> list[dict[str, Any]]:
    """A trace a device: its arms with their intervals, the surer on the front the larger and darker."""
    x, y = document["axes"][:2]
    groups: dict[str, list[Document]] = {}
    for arm in document["arms"]:
        groups.setdefault(str(arm["about"]["device"]), []).append(arm)
    named = {arm["name"] for arm in [arm for arm in document["arms"] if arm["on_front"]][:_NAMED]}
    traces = []
    for number, (device, arms) in enumerate(sorted(groups.items())):
        colour = COLOURS[number % len(COLOURS)]
        sure = [_sure(arm) for arm in arms]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": safe(device),
                "x": [arm["numbers"][0]["value"] for arm in arms],
                "y": [arm["numbers"][1]["value"] for arm in arms],
                "error_x": _errors(arms, 0, colour),
                "error_y": _errors(arms, 1, colour),
                "text": [safe(arm["about"]["model"]) if arm["name"] in named else "" for arm in arms],
                "textposition": "top center",
                "textfont": {"size": 10},
                "hovertext": [_told(arm, (x, y)) for arm in arms],
                "hovertemplate": "%{hovertext}<extra></extra>",
                "customdata": [max(arm["numbers"][0]["runs"] + arm["numbers"][1]["runs"]) for arm in arms],
                "marker": {
                    "color": colour,
                    "symbol": SYMBOLS[number % len(SYMBOLS)],
                    "size": [8 + 8 * one for one in sure],
                    "opacity": [0.35 + 0.65 * one for one in sure],
                    "line": {"width": [2 if arm["on_front"] else 0 for arm in arms], "color": "#7c8aa0"},
                },
            }
        )
    return traces


def _sure(arm: Document) -> float:
    return float(arm["on_front"] if arm["p_front"] is None else arm["p_front"])


def _errors(arms: list[Document], at: int, colour: str) -> dict[str, Any]:
    numbers = [arm["numbers"][at] for arm in arms]
    return {
        "type": "data",
        "array": [None if one["hi"] is None else max(one["hi"] - one["value"], 0.0) for one in numbers],
        "arrayminus": [None if one["lo"] is None else max(one["value"] - one["lo"], 0.0) for one in numbers],
        "thickness": 1,
        "width": 0,
        "color": colour,
    }


def _told(arm: Document, axes: tuple[Document, Document]) -> str:
    lines = [safe(arm["name"])]
    for axis, one in zip(axes, arm["numbers"], strict=False):
        said = _said(one["value"], axis)
        if one["lo"] is not None and one["hi"] is not None:
            said += f" (95 % {_said(one['lo'], axis)} to {_said(one['hi'], axis)})"
        lines.append(f"{safe(axis['name'])}: {said}")
    p = arm["p_front"]
    lines.append("on the front: nobody knows how sure" if p is None else f"P(front) {share(p)}")
    if arm["dominated_by"] and not arm["on_front"]:
        lines.append(f"most likely beaten by {safe(arm['dominated_by'])}")
    return "<br>".join(lines)


def _said(value: float, axis: Document) -> str:
    return share(value) if axis["name"] == "accuracy" else shown(value, axis["unit"])


def _stairs(document: Document) -> list[dict[str, Any]]:
    """The front of the point estimates over the first two axes, as the corner points of its steps."""
    if len(document["arms"][0]["numbers"]) < 2 or sum(arm["on_front"] for arm in document["arms"]) < 2:
        return []
    better = [1 if axis["better"] == "more" else -1 for axis in document["axes"][:2]]
    points = [tuple(one["value"] for one in arm["numbers"][:2]) for arm in document["arms"] if arm["on_front"]]
    points.sort(key=lambda point: (-better[0] * point[0], -better[1] * point[1]))
    x: list[float] = []
    y: list[float] = []
    for at, point in enumerate(points):
        if at:  # down to where the next one is as good on the second axis as this one
            x.append(point[0])
            y.append(y[-1])
        x.append(point[0])
        y.append(point[1])
    line = {"color": "#7c8aa0", "width": 1.5, "dash": "dot"}
    return [
        {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip", "name": "front"},
    ]


def _layout(document: Document) -> dict[str, Any]:
    out: dict[str, Any] = {"margin": {"l": 10, "r": 10, "t": 40, "b": 10}, "hovermode": "closest"}
    for key, at in (("xaxis", 0), ("yaxis", 1)):
        axis = document["axes"][at]
        values = [arm["numbers"][at]["value"] for arm in document["arms"]]
        wide = min(values) > 0 and max(values) > _LOG_FROM * min(values)
        out[key] = {"title": {"text": safe(_titled(axis))}, "type": "log" if wide else "linear"}
    return out


def _titled(axis: Document) -> str:
    name = METRICS[axis["name"]].heading if axis["name"] in METRICS else axis["name"].replace("_", " ")
    unit = {"degC": "°C", "1": ""}.get(axis["unit"], axis["unit"])
    of = " ".join(filter(None, (axis["workload"], axis["mode"], axis["point"])))
    return f"{name}{f', {unit}' if unit else ''}{f' ({of})' if of else ''}, {axis['better']} is better"


def _answer(document: Document) -> Answer:
    """Every arm with its numbers, as rows."""
    about = tuple(document["arms"][0]["about"])
    numbers = [f"{axis['name']}{end}" for axis in document["axes"] for end in ("", "_lo", "_hi")]
    rows = []
    for arm in document["arms"]:
        values: list[Any] = []
        for one in arm["numbers"]:
            values += [None, None, None] if one is None else [one["value"], one["lo"], one["hi"]]
        rows.append(
            (*(arm["about"][key] for key in about), *values, arm["on_front"], arm["p_front"], arm["dominated_by"])
        )
    return Answer((*about, *numbers, "on_front", "p_front", "dominated_by"), rows)
