"""A front as a table: its arms with their numbers, how sure each is on it, what beats it, and what is left out."""

from __future__ import annotations

from typing import Any

from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity

Document = dict[str, Any]
_SHOWN = 8  # arms of a note
_RARE = 0.05


def front_sheet(document: Document) -> Sheet:
    """One row an arm, those most likely on the front first. Columns of what all arms have in common are left out."""
    arms, axes = document["arms"], document["axes"]
    settings = list(dict.fromkeys(name for arm in arms for name in arm["settings"]))
    about = _telling(arms, settings)
    bounded = document["where"] is not None
    columns = [
        Column("", right=True, whole=True),
        *(Column(name.replace("_", " ")) for name in (*about, *settings)),
        *(Column(f"{one['name']} {'↑' if one['better'] == 'more' else '↓'}", right=True, whole=True) for one in axes),
        *([Column("meets", right=True, whole=True)] if bounded else []),
        *(Column("front", whole=True), Column("P(front)", right=True, whole=True)),
        *(Column("dominated by", whole=True), Column("", faint=True)),
    ]
    sheet = Sheet(_title(document), tuple(columns))
    places = {arm["name"]: at for at, arm in enumerate(arms, 1)}
    for at, arm in enumerate(arms, 1):
        sheet.rows.append(
            (
                str(at),
                *(str(arm["about"][name]) for name in about),
                *(str(arm["settings"].get(name, "")) for name in settings),
                *(number_told(number, axis) for number, axis in zip(arm["numbers"], axes, strict=True)),
                *([_met(arm)] if bounded else []),
                "*" if arm["on_front"] else "",
                _share(arm["p_front"]),
                _beaten(arm, places),
                ", ".join(dict.fromkeys(flag.partition(":")[0] for flag in arm["flags"])),
            )
        )
    return sheet


def front_notes(document: Document) -> list[str]:
    """Hypervolume, flags and what is left out, a line each."""
    axes, arms = document["axes"], document["arms"]
    out = []
    volume = document["hypervolume"]
    if volume["value"] is None:
        out.append(f"no hypervolume: {volume['reason']}")
    else:
        ends = [
            ", ".join(f"{axis['name']} {_said(one, axis)}" for one, axis in zip(volume[end], axes, strict=False))
            for end in ("reference", "ideal")
        ]
        told = f"{volume['value']:.3g}"
        told += "" if volume["lo"] is None else f" ({volume['lo']:.3g} to {volume['hi']:.3g})"
        out.append(f"hypervolume {told} of the box from {ends[0]} to {ends[1]}")
    for axis in axes:
        if axis["alternatives"]:
            where = "/".join(part for part in (axis["workload"], axis["mode"], axis["point"]) if part)
            others = axis["alternatives"]
            shown = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
            out.append(f"{axis['name']} is of {where}, which {axis['arms']} arms have; it is also in {shown}")
    out += document["notes"]
    flagged = ((flag, str(at)) for at, arm in enumerate(arms, 1) for flag in arm["flags"])
    out += _grouped("", flagged, len(arms))
    lacking = ((f"has no {' and no '.join(arm['lacks'])}", arm["name"]) for arm in document["left_out"])
    out += _grouped("left out: ", lacking, 0)
    out += list(dict.fromkeys(flag for arm in document["left_out"] for flag in arm["flags"]))
    return out


def number_told(number: Document | None, axis: Document) -> str:
    """A number with its 95 % interval as one reads it."""
    if number is None:
        return MISSING
    told = _said(number["value"], axis)
    if number["lo"] is None or number["lo"] == number["hi"]:
        return told
    return f"{told} ({_said(number['lo'], axis)} to {_said(number['hi'], axis)})"


def _said(value: float, axis: Document) -> str:
    if axis["name"] == "accuracy":
        return f"{value * 100:.3g} %"
    return f"{value:.3g} {axis['unit']}" if axis["unit"] in ("1/W", "1/J") else quantity(value, axis["unit"])


def _title(document: Document) -> str:
    def of(axis: Document) -> str:
        where = "/".join(part for part in (axis["workload"], axis["mode"], axis["point"]) if part)
        return f"{axis['name']} of {where}" if where else str(axis["name"])

    title = " · ".join(of(axis) for axis in document["axes"])
    return title if document["where"] is None else f"{title} · where {document['where']}"


def _telling(arms: list[Document], settings: list[str]) -> list[str]:
    """What arms differ in; of what most names of models and devices tell already only what is needed."""
    names = [name for name in arms[0]["about"] if len({arm["about"][name] for arm in arms}) > 1] or ["model"]

    def told(by: list[str]) -> int:
        rows = ([arm["about"][n] for n in by] + [arm["settings"].get(n) for n in settings] for arm in arms)
        return len({tuple(row) for row in rows})

    for name in ("accelerator", "engine_version", "quantisation"):
        fewer = [one for one in names if one != name]
        if fewer and told(fewer) == told(names):
            names = fewer
    return names


def _met(arm: Document) -> str:
    told = {True: "yes", False: "no", None: MISSING}[arm["meets"]]
    return told if arm["p_meets"] is None else f"{told}, {_share(arm['p_meets'])}"


def _beaten(arm: Document, places: dict[str, int]) -> str:
    """By which row; nothing where it is hardly ever beaten."""
    by, p = arm["dominated_by"], arm["p_dominated"]
    if by is None or (p is not None and p < _RARE) or (p is None and arm["on_front"]):
        return ""
    return str(places[by]) if p is None else f"{places[by]} ({_share(p)})"


def _share(p: float | None) -> str:
    if p is None:
        return MISSING
    return f"{p * 100:.0f} %" if 0.005 <= p <= 0.995 or p in (0, 1) else "> 99 %" if p > 0.5 else "< 1 %"


def _grouped(head: str, told: Any, every: int) -> list[str]:
    """What is said of several arms, once, with their names; of all, without."""
    held: dict[str, list[str]] = {}
    for what, name in told:
        held.setdefault(what, []).append(name)
    return [f"{head}{what}" if len(who) == every else f"{head}{_names(who)}: {what}" for what, who in held.items()]


def _names(names: list[str]) -> str:
    return "; ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
