"""Numbers night by night, with the nights at which they moved; and what of that needs a look now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.analysis.changes import changes_of
from meltbench.analysis.metrics import METRICS, unit_of
from meltbench.analysis.nightly import Nightly
from meltbench.pages.drawn import COLOURS, SYMBOLS, Drawn, grid_of, nothing, safe, share, shown
from meltbench.pages.published import Answer
from meltbench.report.headline import natural

if TYPE_CHECKING:
    from meltbench.analysis.changes import ChangePoint, Series
    from meltbench.pages.panel import Context

_DEVICES, _SERIES = 4, 8
_PANEL_PX, _REST_PX, _LEGEND_PX = 230, 110, 19
_GAP = 0.09
_LATELY = 7  # nights
_WATCHED = ("decode_tps", "ttft_s", "j_per_output_token", "accuracy")


def changes(context: Context) -> Drawn:
    """The median of each ``night`` of column ``value``, a line a ``group``, a chart a device ``x``.

    A change point is a diamond on its line: filled where the series moved alone, open where the device's others moved
    with it: those of other arms, where the query has a column ``arm``. Charts are of the devices, and lines of the
    series, that have most runs.
    """
    answer = context.answer()
    x, group, value = (context.field(key) for key in ("x", "group", "value"))
    nightly = Nightly(answer.names(x), answer.names(group), _nights(answer), _arms(answer))
    held = nightly.of(value, answer.numbers(value))
    if not held:
        return nothing(f"No run has a {_heading(value)} here.", answer)
    devices = sorted(held, key=lambda name: -sum(map(_runs, held[name])))
    drawn = devices[:_DEVICES]
    ordered = [sorted(held[device], key=lambda one: (-_runs(one), natural(one.name))) for device in drawn]
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "margin": {"l": 10, "r": 10, "t": 40, "b": 10},
        "hovermode": "closest",
        "annotations": [],
        "xaxis": {"type": "date", "anchor": f"y{len(drawn)}" if len(drawn) > 1 else "y", "title": {"text": "night"}},
    }
    unit = context.panel.unit or unit_of(value)
    height = (1 - _GAP * (len(drawn) - 1)) / len(drawn)
    told, left_out, looks = [], 0, dict[str, int]()
    for row, (device, mine, moved) in enumerate(zip(drawn, ordered, changes_of(ordered), strict=True), 1):
        left_out += max(len(mine) - _SERIES, 0)
        found = list(zip(mine, moved, strict=True))
        axis = f"y{row}" if row > 1 else "y"
        top = max(1 - (row - 1) * (height + _GAP), height)
        layout[f"yaxis{row}" if row > 1 else "yaxis"] = {"domain": [top - height, top], "title": {"text": _axis(unit)}}
        layout["annotations"].append(_named(device, top))
        for series, points in found[:_SERIES]:
            named = series.name in looks  # a series looks the same on every device, and stands in the legend once
            data += _line(series, points, looks.setdefault(series.name, len(looks)), axis, unit, named=named)
        told += [(device, series, point) for series, points in found for point in points]
    notes = [_sentence(device, series.name, point, unit) for device, series, point in told[:12]]
    notes += [f"{left_out} more series are not drawn; a filter narrows."] if left_out else []
    more = len(devices) - _DEVICES
    notes += [f"{more} more devices are not drawn: choose one in the filter."] if more > 0 else []
    n = sum(map(len, held.values()))
    of = f"{len(held)} device{'s' if len(held) != 1 else ''}"
    says = f"{_heading(value)} of {n} series on {of}: {_counted(len(told))} on those drawn."
    rows = [(device, series.name, *_row(point)) for device, series, point in told]
    grid = grid_of(Answer(("device", "series", "night", "before", "after", "ratio", "lo", "hi", "p", "kind"), rows))
    height_px = _PANEL_PX * len(drawn) + _REST_PX + _LEGEND_PX * (len(looks) // 2 + 1)
    below = (_REST_PX - 40) / (_PANEL_PX * len(drawn))  # of the plot, where the axis and its title end
    layout["legend"] = {"orientation": "h", "x": 0, "y": -below, "yanchor": "top"}
    figure = {"data": data, "layout": layout}
    return Drawn(says, figure, notes=tuple(notes), answer=answer, told=grid if rows else None, height_px=height_px)


def alerts(context: Context) -> Drawn:
    """What happened in the newest nights: series that moved, runs that are invalid or failed, devices that are gone."""
    answer = context.answer()
    device, night, run = answer.names("device"), _nights(answer), answer.column("run_id")
    nights = sorted({*night} - {""})
    if not nights:
        return nothing("There is no run to look at.", answer)
    since = nights[max(len(nights) - _LATELY, 0)]
    rows: list[tuple[Any, ...]] = []
    states = zip(answer.column("validity"), answer.column("outcome"), strict=True)
    trusted = [validity != "invalid" and outcome == "done" for validity, outcome in states]
    nightly = Nightly(device, answer.names("series"), night, _arms(answer))
    watched = []
    for value in _WATCHED:
        numbers = [n if trust else None for trust, n in zip(trusted, answer.numbers(value), strict=True)]
        for name, mine in nightly.of(value, numbers).items():
            watched.append((name, value, [one for one in mine if one.nights[-1] >= since]))
    moved = changes_of([mine for _, _, mine in watched], since)
    for (name, value, mine), found in zip(watched, moved, strict=True):
        for each, points in zip(mine, found, strict=True):
            rows += [_alert(name, each.name, value, point) for point in points]
    newest = nights[-1]
    of_device: dict[str, list[int]] = {}
    for k, name in enumerate(device):
        of_device.setdefault(name, []).append(k)
    for name in sorted(of_device, key=natural):
        places = [k for k in of_device[name] if night[k]]
        last = max((night[k] for k in places), default="")
        if len([one for one in nights if one > last]) >= 3:
            rows.append((last, "not seen", name, "", f"no run since, and others had {newest}"))
        tonight = {run[k] for k in places if night[k] == newest}
        bad = {run[k] for k in places if night[k] == newest and not trusted[k]}
        if bad:
            rows.append(
                (newest, "invalid or failed runs", name, "", f"{len(bad)} of its {len(tonight)} runs of that night")
            )
    rows.sort(key=lambda row: (row[0], row[1]), reverse=True)
    made = Answer(("night", "what", "device", "series", "detail"), rows)
    if not rows:
        return nothing(f"Nothing moved since {since}, and no run of the newest night is invalid or failed.", made)
    return Drawn(f"{len(rows)} since {since}.", grid=grid_of(made), answer=made)


def _nights(answer: Answer) -> list[str]:
    """The night of each row; empty where there is none."""
    return [str(night) if night else "" for night in answer.column("night")]


def _arms(answer: Answer) -> list[str] | None:
    """Of each row the arm, of which a model on a device may have several series; None where the query gives none."""
    return answer.names("arm") if "arm" in answer.columns else None


def _runs(series: Series) -> int:
    return sum(series.runs)


def _line(
    series: Series, points: list[ChangePoint], number: int, axis: str, unit: str, *, named: bool
) -> list[dict[str, Any]]:
    colour = COLOURS[number % len(COLOURS)]
    name = safe(series.name)
    common = {"type": "scatter", "xaxis": "x", "yaxis": axis, "legendgroup": name, "name": name}
    runs = [f"{shown(value, unit)}, {n} runs" for value, n in zip(series.values, series.runs, strict=True)]
    line = common | {
        "x": list(series.nights),
        "y": list(series.values),
        "text": runs,
        "mode": "lines+markers",
        "line": {"color": colour, "width": 1.8},
        "marker": {"size": 5, "symbol": SYMBOLS[number % len(SYMBOLS)], "color": colour},
        "hovertemplate": "%{x|%Y-%m-%d}: %{text}<extra>%{fullData.name}</extra>",
        "showlegend": not named,
    }
    if not points:
        return [line]
    marks = common | {
        "x": [point.night for point in points],
        "y": [series.values[point.index] for point in points],
        "text": [safe(_moved(point, unit)) for point in points],
        "mode": "markers",
        "marker": {
            "size": 15,
            "color": colour,
            "symbol": ["diamond-open" if point.kind == "environment" else "diamond" for point in points],
            "line": {"width": 2, "color": colour},
        },
        "hovertemplate": "%{x|%Y-%m-%d}: %{text}<extra>%{fullData.name}</extra>",
        "showlegend": False,
    }
    return [line, marks]


def _named(device: str, top: float) -> dict[str, Any]:
    place = {"x": 0, "y": top, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    return {"text": f"<b>{safe(device)}</b>", "showarrow": False, **place}


def _row(point: ChangePoint) -> tuple[Any, ...]:
    ratio = point.ratio
    return (point.night, point.before, point.after, ratio.value, ratio.lo, ratio.hi, point.p, point.kind)


def _alert(device: str, series: str, value: str, point: ChangePoint) -> tuple[Any, ...]:
    better = METRICS[value].better
    what = "better" if (point.after > point.before) == (better == "higher") else "worse"
    cause = "all of the device" if point.kind == "environment" else "not all of the device" if point.moved else "alone"
    return (point.night, f"{_heading(value)} {what}, {cause}", device, series, _moved(point, unit_of(value)))


def _moved(point: ChangePoint, unit: str) -> str:
    ratio = point.ratio
    said = f"{shown(point.before, unit)} to {shown(point.after, unit)}"
    if ratio.value is not None:
        said += f", {share(ratio.value - 1)}" if ratio.value < 1 else f", +{share(ratio.value - 1)}"
    if ratio.value is not None and ratio.lo is not None and ratio.hi is not None:
        said += f" ({share(ratio.lo - 1)} to {share(ratio.hi - 1)})"
    return said


def _sentence(device: str, series: str, point: ChangePoint, unit: str) -> str:
    others = f"{point.moved} of {point.peers} others of the device moved with it"
    cause = others if point.moved else "no other was seen to move with it"
    return f"{point.night}, {series} on {device}: {_moved(point, unit)}; {cause}"


def _counted(n: int) -> str:
    return f"{n or 'no'} change point{'s' if n != 1 else ''}"


def _heading(name: str) -> str:
    return METRICS[name].heading if name in METRICS else name.replace("_", " ")


def _axis(unit: str) -> str:
    return {"degC": "°C", "1": ""}.get(unit, unit)
