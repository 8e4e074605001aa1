"""Numbers night by night, with the nights at which they moved; and what of that needs a look now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.analysis.changes import Series, device_changes
from meltbench.analysis.metrics import METRICS, unit_of
from meltbench.pages.drawn import COLOURS, SYMBOLS, Drawn, grid_of, nothing, safe, share, shown
from meltbench.pages.published import Answer
from meltbench.report.headline import natural

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meltbench.analysis.changes import ChangePoint
    from meltbench.pages.panel import Context

    # By device, then by series, the nights and numbers of its runs.
    Held = dict[str, dict[str, list[tuple[str, float]]]]

_DEVICES, _SERIES = 4, 8
_PANEL_PX, _REST_PX = 230, 110
_GAP = 0.09
_LATELY = 7  # nights
_WATCHED = ("decode_tps", "ttft_s", "j_per_output_token", "accuracy")


def changes(context: Context) -> Drawn:
    """The median of each ``night`` of column ``value``, a line a ``group``, a chart a device ``x``.

    A change point is a diamond on its line: filled where the series moved alone, open where the device's others moved
    with it. Charts are of the devices, and lines of the series, that have most runs.
    """
    answer = context.answer()
    x, group, value = (context.field(key) for key in ("x", "group", "value"))
    held = _held(zip(answer.names(x), answer.names(group), answer.column("night"), answer.numbers(value), strict=True))
    if not held:
        return nothing(f"No run has a {_heading(value)} here.", answer)
    devices = sorted(held, key=lambda name: -sum(map(len, held[name].values())))
    drawn = devices[:_DEVICES]
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
    for row, device in enumerate(drawn, 1):
        names = sorted(held[device], key=lambda name: (-len(held[device][name]), natural(name)))
        left_out += max(len(names) - _SERIES, 0)
        found = _found(held[device], names, value)
        axis = f"y{row}" if row > 1 else "y"
        top = max(1 - (row - 1) * (height + _GAP), height)
        layout[f"yaxis{row}" if row > 1 else "yaxis"] = {"domain": [top - height, top], "title": {"text": _axis(unit)}}
        layout["annotations"].append(_named(device, top))
        for series, points in found[:_SERIES]:
            named = series.arm in looks  # a series looks the same on every device, and stands in the legend once
            data += _line(series, points, looks.setdefault(series.arm, len(looks)), axis, unit, named=named)
        told += [(device, series, point) for series, points in found for point in points]
    notes = [_sentence(device, series.arm, point, unit) for device, series, point in told[:12]]
    notes += [f"{left_out} more series are not drawn; a filter narrows."] if left_out else []
    more = len(devices) - _DEVICES
    notes += [f"{more} more devices are not drawn: choose one in the filter."] if more > 0 else []
    n = sum(len(series) for series in held.values())
    says = f"{_heading(value)} of {n} series on {len(held)} devices: {_counted(len(told))} on those drawn."
    rows = [(device, series.arm, *_row(point)) for device, series, point in told]
    grid = grid_of(Answer(("device", "series", "night", "before", "after", "ratio", "lo", "hi", "p", "kind"), rows))
    height_px = _PANEL_PX * len(drawn) + _REST_PX
    figure = {"data": data, "layout": layout}
    return Drawn(says, figure, notes=tuple(notes), answer=answer, told=grid if rows else None, height_px=height_px)


def alerts(context: Context) -> Drawn:
    """What happened in the newest nights: series that moved, runs that are invalid or failed, devices that are gone."""
    answer = context.answer()
    nights = sorted({str(night) for night in answer.column("night") if night})
    if not nights:
        return nothing("There is no run to look at.", answer)
    since = nights[max(len(nights) - _LATELY, 0)]
    rows: list[tuple[Any, ...]] = []
    device, series, night, run = (
        answer.names("device"),
        answer.names("series"),
        answer.column("night"),
        answer.column("run_id"),
    )
    states = zip(answer.column("validity"), answer.column("outcome"), strict=True)
    trusted = [validity != "invalid" and outcome == "done" for validity, outcome in states]
    for value in _WATCHED:
        numbers = [n if trust else None for trust, n in zip(trusted, answer.numbers(value), strict=True)]
        held = _held(zip(device, series, night, numbers, strict=True))
        for name, mine in held.items():
            recent = [one for one, runs in mine.items() if max(runs)[0] >= since]
            for each, points in _found(mine, recent, value):
                rows += [_alert(name, each.arm, value, point) for point in points if point.night >= since]
    newest = nights[-1]
    for name in sorted({*device}, key=natural):
        places = [k for k, one in enumerate(device) if one == name and night[k]]
        last = max((str(night[k]) for k in places), default="")
        if len([one for one in nights if one > last]) >= 3:
            rows.append((last, "not seen", name, "", f"no run since, and others had {newest}"))
        tonight = {run[k] for k in places if str(night[k]) == newest}
        bad = {run[k] for k in places if str(night[k]) == newest and not trusted[k]}
        if bad:
            rows.append(
                (newest, "invalid or failed runs", name, "", f"{len(bad)} of its {len(tonight)} runs of that night")
            )
    rows.sort(key=lambda row: (row[0], row[1]), reverse=True)
    made = Answer(("night", "what", "device", "series", "detail"), rows)
    if not rows:
        return nothing(f"Nothing moved since {since}, and no run of the newest night is invalid or failed.", made)
    return Drawn(f"{len(rows)} since {since}.", grid=grid_of(made), answer=made)


def _held(rows: Iterable[tuple[Any, ...]]) -> Held:
    out: Held = {}
    for device, series, night, value in rows:
        if value is not None and night:
            out.setdefault(device, {}).setdefault(series, []).append((str(night), value))
    return out


def _found(
    held: dict[str, list[tuple[str, float]]], names: list[str], value: str
) -> list[tuple[Series, list[ChangePoint]]]:
    series = [Series.of_runs(name, value, held[name]) for name in names]
    return list(zip(series, device_changes(series), strict=True))


def _line(
    series: Series, points: list[ChangePoint], number: int, axis: str, unit: str, *, named: bool
) -> list[dict[str, Any]]:
    colour = COLOURS[number % len(COLOURS)]
    name = safe(series.arm)
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


def _alert(device: str, arm: str, value: str, point: ChangePoint) -> tuple[Any, ...]:
    better = METRICS[value].better
    up = (point.ratio.value or 1.0) > 1
    what = "better" if up == (better == "higher") else "worse"
    cause = "all of the device" if point.kind == "environment" else "alone"
    return (point.night, f"{_heading(value)} {what}, {cause}", device, arm, _moved(point, unit_of(value)))


def _moved(point: ChangePoint, unit: str) -> str:
    ratio = point.ratio
    said = f"{shown(point.before, unit)} to {shown(point.after, unit)}"
    if ratio.value is not None:
        said += f", {share(ratio.value - 1)}" if ratio.value < 1 else f", +{share(ratio.value - 1)}"
    if ratio.value is not None and ratio.lo is not None and ratio.hi is not None:
        said += f" ({share(ratio.lo - 1)} to {share(ratio.hi - 1)})"
    return said


def _sentence(device: str, arm: str, point: ChangePoint, unit: str) -> str:
    cause = "the device's others moved with it" if point.kind == "environment" else "the others did not"
    return f"{point.night}, {arm} on {device}: {_moved(point, unit)}; {cause}"


def _counted(n: int) -> str:
    return f"{n or 'no'} change point{'s' if n != 1 else ''}"


def _heading(name: str) -> str:
    return METRICS[name].heading if name in METRICS else name.replace("_", " ")


def _axis(unit: str) -> str:
    return {"degC": "°C", "1": ""}.get(unit, unit)
