"""Traces as a Plotly figure: power, temperature, token rate and more above one another, phases shaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go

    from meltbench.report.traces import Trace, Traces

_COLOURS = {
    "power": "#ee7733",
    "temperature": "#cc3311",
    "token rate": "#0077bb",
    "frequency": "#009988",
    "memory": "#aa4499",
}
_SHADES = {"idle_before": "#94a3b8", "load": "#fbbf24", "run": "#86efac", "idle_after": "#94a3b8"}
_THROTTLED = "#cc3311"
_PANEL_PX, _REST_PX = 150, 130
_GAP = 0.06
_NEAR = 0.09  # of the run
_LANE_PX = 46  # of the requests, at the bottom


def figure(traces: Traces, title: str) -> go.Figure:
    """The figure of a run for a notebook. A signal without data has no panel; a note below says why."""
    import plotly.graph_objects as go

    made = trace_figure(traces)
    made["layout"] |= {"title": {"text": _plain(title)}, "template": "plotly_white"}
    made["layout"]["margin"]["t"] = 100
    made["layout"]["height"] = height_px(traces) + 60
    return go.Figure(made)


def height_px(traces: Traces) -> int:
    """How high the figure is to be."""
    missing = [trace for trace in traces.signals if not _seen(trace)]
    lane = _LANE_PX if traces.requests else 0
    return _PANEL_PX * max(len(_shown(traces)), 1) + _REST_PX + 16 * len(missing) + lane


def _seen(trace: Trace) -> bool:
    return any(value is not None for value in trace.mean)


def _shown(traces: Traces) -> list[Trace]:
    return [trace for trace in (*traces.signals, *traces.beside) if _seen(trace)]


def trace_figure(traces: Traces) -> dict[str, Any]:
    """The figure as Plotly's own JSON, without a theme."""
    shown = _shown(traces)
    missing = [trace for trace in traces.signals if not _seen(trace)]
    lane = 1 if traces.requests and shown else 0
    rows = max(len(shown), 1)
    height = (1 - _GAP * (rows - 1 + lane) - 0.08 * lane) / rows
    layout: dict[str, Any] = {
        "showlegend": False,
        "hovermode": "x unified",
        "margin": {"l": 10, "r": 10, "t": 36, "b": 60 + 16 * len(missing)},
        "xaxis": {
            "title": {"text": "time from the start of the run, s"},
            "anchor": f"y{rows + lane}" if shown else "y",
        },
        "shapes": [],
        "annotations": [],
    }
    data: list[dict[str, Any]] = []
    for row, trace in enumerate(shown, 1):
        axis = {"title": {"text": f"{trace.name}, {trace.unit}"}}
        top = 1 - (row - 1) * (height + _GAP)
        axis["domain"] = [max(top - height, 0.0), top]  # type: ignore[assignment]
        if trace.unit != "°C":
            axis["rangemode"] = "tozero"  # type: ignore[assignment]
        layout[f"yaxis{row}" if row > 1 else "yaxis"] = axis
        data += _drawn(trace, f"y{row}" if row > 1 else "y")
    if lane:
        layout[f"yaxis{rows + 1}"] = {"domain": [0, 0.08], "visible": False, "range": [0, 1], "fixedrange": True}
        data += _requests(traces, f"y{rows + 1}")
    last, raised = -traces.seconds, False
    for name, start, end in traces.phases if shown else ():
        if name in _SHADES:
            raised = not raised and start - last < _NEAR * traces.seconds  # its name would lie on the one before
            last = start
            layout["shapes"].append(_band(start, end, _SHADES[name], 0.18))
            layout["annotations"].append(_word(start, name) | {"yshift": 13 if raised else 0})
    for cause, start, end in traces.throttled if shown else ():
        layout["shapes"].append(_band(start, end, _THROTTLED, 0.25))
        layout["annotations"].append(_word(start, f"throttled: {cause}"[:60]) | {"y": 0.98, "yanchor": "top"})
    note = "<br>".join(_plain(f"no {trace.name}: {trace.reason}") for trace in missing)
    if note:
        layout["annotations"].append(
            {
                "text": note,
                "showarrow": False,
                "xref": "paper",
                "yref": "paper",
                "x": 0,
                "y": 0,
                "yshift": -44,
                "xanchor": "left",
                "yanchor": "top",
                "align": "left",
                "font": {"size": 11},
            }
        )
    return {"data": data, "layout": layout}


def _band(start: float, end: float, colour: str, opacity: float) -> dict[str, Any]:
    place = {"x0": start, "x1": end, "y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
    return {"type": "rect", "layer": "below", "line": {"width": 0}, "fillcolor": colour, "opacity": opacity, **place}


def _word(at: float, text: str) -> dict[str, Any]:
    place = {"x": at, "y": 1, "xref": "x", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    return {"text": _plain(text), "showarrow": False, "font": {"size": 11}, **place}


def _requests(traces: Traces, axis: str) -> list[dict[str, Any]]:
    """Each request as a bar in a lane of its own, its first token a tick."""
    x: list[float | None] = []
    first: list[float] = []
    told: list[str] = []
    words: list[str] = []
    for index, role, sent, token, end in traces.requests:
        x += [sent, end, None]
        words += [_plain(f"request {index}, {role}")] * 3
        if token is not None:
            first.append(token)
            told.append(f"first token of request {index}")
    common = {"yaxis": axis, "xaxis": "x", "type": "scatter"}
    bars = {
        "x": x,
        "y": [0.5 if v is not None else None for v in x],
        "mode": "lines",
        "text": words,
        "line": {"color": "#64748b", "width": 10},
        "hovertemplate": "%{text}<extra></extra>",
        "name": "requests",
    }
    ticks = {
        "x": first,
        "y": [0.5] * len(first),
        "mode": "markers",
        "text": told,
        "name": "first tokens",
        "marker": {"symbol": "line-ns", "size": 14, "line": {"width": 2, "color": "#0077bb"}},
        "hovertemplate": "%{text}<extra></extra>",
    }
    return [bars | common, ticks | common]


def _plain(text: str) -> str:
    """Text of a device for a figure, which takes some HTML."""
    return printable(text).replace("&", "&amp;").replace("<", "&lt;")


def _drawn(trace: Trace, axis: str) -> list[dict[str, Any]]:
    colour = _COLOURS.get(trace.name, "#334155")
    name = _plain(f"{trace.name} ({trace.of})" if trace.of else trace.name)
    common = {"type": "scatter", "mode": "lines", "xaxis": "x", "yaxis": axis}
    made: list[dict[str, Any]] = []
    if trace.low != trace.high:
        # One shape a stretch, all in one trace: a filled area would bridge the gaps in which nothing is known.
        x: list[float | None] = []
        y: list[float | None] = []
        for start, end in _stretches(trace):
            x += [*trace.t_s[start:end], *reversed(trace.t_s[start:end]), None]
            y += [*trace.high[start:end], *reversed(trace.low[start:end]), None]
        look = {"fill": "toself", "fillcolor": colour, "opacity": 0.2, "line": {"width": 0}, "hoverinfo": "skip"}
        made.append(common | {"x": x, "y": y, "name": f"range of {name}"} | look)
    line = {"x": list(trace.t_s), "y": list(trace.mean), "name": name, "line": {"color": colour, "width": 1.5}}
    return [*made, common | line]


def _stretches(trace: Trace) -> Sequence[tuple[int, int]]:
    """Runs of buckets that are known, as half-open ranges."""
    found: list[tuple[int, int]] = []
    for k, value in enumerate(trace.mean):
        if value is None:
            continue
        if found and found[-1][1] == k:
            found[-1] = (found[-1][0], k + 1)
        else:
            found.append((k, k + 1))
    return found
