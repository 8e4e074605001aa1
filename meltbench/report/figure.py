"""Traces as a Plotly figure: power, temperature and token rate above one another, phases shaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.targets import printable

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from meltbench.report.traces import Trace, Traces

_COLOURS = {"power": "#c2410c", "temperature": "#b91c1c", "token rate": "#1d4ed8"}
_SHADES = {"idle_before": "#94a3b8", "load": "#fbbf24", "run": "#86efac", "idle_after": "#94a3b8"}
_PANEL_PX, _REST_PX = 190, 130


def figure(traces: Traces, title: str) -> go.Figure:
    """The figure of a run. A signal without data has no panel; a note below says why."""
    from plotly.subplots import make_subplots

    shown = [trace for trace in traces.signals if any(v is not None for v in trace.mean)]
    missing = [trace for trace in traces.signals if trace not in shown]
    made = make_subplots(rows=max(len(shown), 1), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for row, trace in enumerate(shown, 1):
        _draw(made, trace, row)
        made.update_yaxes(title_text=f"{trace.name}, {trace.unit}", row=row, col=1)
        if trace.unit != "°C":
            made.update_yaxes(rangemode="tozero", row=row, col=1)
    for name, start, end in traces.phases if shown else ():
        if name in _SHADES:
            made.add_vrect(x0=start, x1=end, fillcolor=_SHADES[name], opacity=0.18, line_width=0, layer="below")
            made.add_annotation(
                x=start, y=1, yref="paper", text=name, showarrow=False, xanchor="left", yanchor="bottom"
            )
    made.update_xaxes(title_text="time from the start of the run, s", row=max(len(shown), 1), col=1)
    note = "<br>".join(_plain(f"no {trace.name}: {trace.reason}") for trace in missing)
    if note:
        made.add_annotation(
            text=note, showarrow=False, xref="paper", yref="paper", x=0, y=0, yshift=-48,
            xanchor="left", yanchor="top", align="left", font_size=11,
        )  # fmt: skip
    height = _PANEL_PX * max(len(shown), 1) + _REST_PX + 16 * len(missing)
    made.update_layout(
        title_text=_plain(title), height=height, showlegend=False, template="plotly_white",
        margin_b=80 + 16 * len(missing), hovermode="x unified",
    )  # fmt: skip
    return made


def _plain(text: str) -> str:
    """Text of a device for a figure, which takes some HTML."""
    return printable(text).replace("&", "&amp;").replace("<", "&lt;")


def _draw(made: go.Figure, trace: Trace, row: int) -> None:
    import plotly.graph_objects as go

    colour = _COLOURS.get(trace.name, "#334155")
    name = _plain(f"{trace.name} ({trace.of})" if trace.of else trace.name)
    if trace.low != trace.high:
        # The range is a shape of its own a stretch: a filled area would bridge the gaps in which nothing is known.
        for start, end in _stretches(trace):
            x = list(trace.t_s[start:end])
            band = [*trace.high[start:end], *reversed(trace.low[start:end])]
            look: dict[str, Any] = {"fill": "toself", "fillcolor": colour, "opacity": 0.2, "line_width": 0}
            made.add_trace(
                go.Scatter(x=x + x[::-1], y=band, hoverinfo="skip", mode="lines", name=f"range of {name}", **look),
                row=row,
                col=1,
            )
    line = go.Scatter(x=list(trace.t_s), y=list(trace.mean), mode="lines", line_color=colour, line_width=1.5, name=name)
    made.add_trace(line, row=row, col=1)


def _stretches(trace: Trace) -> list[tuple[int, int]]:
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
