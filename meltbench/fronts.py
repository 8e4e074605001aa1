"""Fronts of stored runs: which arms nothing beats on the axes asked for, how sure that is, and what is missing.

The document is that of ``meltbench pareto --json``. An arm without a number on an axis is listed, never given one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.analysis.axes import Ref
from meltbench.analysis.pareto import DRAWS, MOST_AXES, front
from meltbench.analysis.resample import Point
from meltbench.errors import UserError
from meltbench.harvest import items_of, own_of, read_rows
from meltbench.joining import alternatives, arms_of, choose, known_of, lone, one_meter, unlike_settings, whole_runs
from meltbench.measure.energy import GAIN_LIMIT
from meltbench.selecting import unknown_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    import numpy as np
    import numpy.typing as npt

    from meltbench.analysis.axes import Axis
    from meltbench.analysis.constraints import Condition
    from meltbench.analysis.pareto import Front
    from meltbench.analysis.resample import Known
    from meltbench.harvest import Row, Source
    from meltbench.joining import Arm
    from meltbench.selecting import Selection

    Document = dict[str, Any]
    Items = npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class _Placed:
    """An arm as a point: its rows by axis as they are used, and what is to be said of it."""

    arm: Arm
    rows: list[list[Row]]
    point: Point
    flags: list[str]


def pareto(
    connection: duckdb.DuckDBPyConnection,
    selection: Selection,
    axes: Sequence[str],
    *,
    where: Condition | None = None,
    inherit: bool = False,
    draws: int = DRAWS,
) -> Document:
    """The front of the selected runs over two to four axes, such as ``accuracy@hellaswag``.

    ``inherit``: an arm without an accuracy or perplexity takes that of the same model and engine on another device.
    Raises UserError where an axis is not known, not there, or no arm has all of them.
    """
    refs = [Ref.parse(one) for one in axes]
    if not 2 <= len(refs) <= MOST_AXES:
        raise UserError(f"a front over {len(refs)} axes", hint=f"give 2 to {MOST_AXES}")
    if len({str(ref) for ref in refs}) < len(refs):
        raise UserError("an axis is given twice", hint="give each once")
    k, asked = len(refs), []
    for one in () if where is None else where.refs:
        like = [at for at, ref in enumerate(refs) if ref == one or (one.workload is None and ref.axis == one.axis)]
        refs += [] if like else [one]
        asked.append(like[0] if like else len(refs) - 1)
    columns = [ref.axis for ref in refs]
    rows = read_rows(connection, selection, columns)
    if not rows:
        if (unknown := unknown_value(connection, selection)) is not None:
            raise unknown
        chosen = str(selection) or "every run"
        raise UserError(f"{chosen}: no run has one of these numbers", hint="meltbench runs lists what is there")
    sources = choose(rows, refs)
    placed = _placed(connection, arms_of(rows, columns, sources, inherit=inherit), columns)
    kept = [one for one in placed if all(one.point.known[:k])]
    if not kept:
        counts = [sum(one.point.known[at] is not None for one in placed) for at in range(k)]
        each = ", ".join(f"{n} have {ref}" for n, ref in zip(counts, _told(refs[:k], sources), strict=True))
        hint = "ask another axis or workload"
        if any(axis.by_item for axis in columns) and not inherit:
            hint += ", or take an accuracy over from another device with --inherit"
        raise UserError(f"no arm has a number on all axes: of {len(placed)} arms {each}", hint=hint)
    found = front([one.point for one in kept], columns, objectives=k, where=where, asked=asked, draws=draws)
    names = _told(refs, sources)
    return {
        "axes": [
            _axis(ref, source, placed, at, alternatives(rows, ref, source))
            for at, (ref, source) in enumerate(zip(refs, sources, strict=True))
        ],
        "where": None if where is None else where.told,
        "draws": draws,
        "arms": _arms(kept, found, names, k, bounded=where is not None),
        "left_out": _left_out(placed, k, names),
        "hypervolume": _hypervolume(found),
        "notes": _notes(kept, columns, k, found),
    }


def _told(refs: Sequence[Ref], sources: Sequence[Source | None]) -> list[str]:
    return [
        ref.axis.name if source is None else f"{ref.axis.name}@{source}"
        for ref, source in zip(refs, sources, strict=True)
    ]


def _placed(connection: duckdb.DuckDBPyConnection, arms: Sequence[Arm], axes: Sequence[Axis]) -> list[_Placed]:
    used, flags, shares = [], [], []
    for arm in arms:
        told = [] if not arm.inherited else [f"accuracy_inherited: scored on {arm.inherited}, same model and engine"]
        of_axis = []
        for mine, axis in zip(arm.rows, axes, strict=True):
            kept, why = one_meter(mine, axis)
            of_axis.append(tuple(kept))
            told += [why] if why else []
        rows, shared = whole_runs(of_axis, axes)
        left = {r.run_id for one in of_axis for r in one} - {r.run_id for one in rows for r in one}
        told += [f"part_runs: {len(left)} runs lack one of the axes of their workload"] if left else []
        unlike = unlike_settings(rows, axes)
        told += [f"unlike_settings: {unlike}"] if unlike else []
        unsure = [
            a.name for a, one in zip(axes, rows, strict=True) if a.gain and one and one[0].kind.klass not in GAIN_LIMIT
        ]
        told += [f"gain_unknown: of the meter of {', '.join(unsure)}; its error is not in the draws"] if unsure else []
        used.append(rows)
        flags.append(told)
        shares.append(shared)
    known = _known(connection, arms, axes, used, flags)
    out = []
    for arm, used_rows, points, told, shared in zip(arms, used, known, flags, shares, strict=True):
        one_run = [
            a.name for a, one in zip(axes, used_rows, strict=True) if len(one) == 1 and not (a.exact or a.by_item)
        ]
        if one_run:
            told.append(f"one_run: how runs differ is not known of {', '.join(dict.fromkeys(one_run))}")
        name = " ".join(filter(None, [*arm.about.values(), *(f"{name}={value}" for name, value in arm.settings)]))
        out.append(_Placed(arm, used_rows, Point(name, tuple(points), tuple(shared)), list(dict.fromkeys(told))))
    return out


def _known(
    connection: duckdb.DuckDBPyConnection,
    arms: Sequence[Arm],
    axes: Sequence[Axis],
    used: Sequence[Sequence[list[Row]]],
    flags: Sequence[list[str]],
) -> list[list[Known | None]]:
    """What is known of each arm, of the rows of it that are used."""
    items: list[list[Items]] = [[None] * len(axes) for _ in arms]
    for at, axis in enumerate(axes):
        if not axis.by_item:
            continue
        tables, other_tokens = items_of(connection, axis, [rows[at] for rows in used])
        for mine, table, rows, told in zip(items, tables, used, flags, strict=True):
            mine[at] = table
            if rows[at] and axis.log and other_tokens:
                told.append("other_tokens: arms count other tokens for the same text, so perplexities do not compare")
    runs = {
        row.run_id
        for rows, tables in zip(used, items, strict=True)
        for axis, mine, table in zip(axes, rows, tables, strict=True)
        if lone(axis, mine, table)
        for row in mine
    }
    own = own_of(connection, [axis.name for axis in axes], sorted(runs)) if runs else {}
    known = [known_of(arm, axes, rows, tables, own) for arm, rows, tables in zip(arms, used, items, strict=True)]
    for at, axis in enumerate(axes):
        # Arms that have it of the same runs have the same object, so that they are drawn as one.
        same: dict[tuple[str, ...], Known | None] = {}
        for rows, points in zip(used, known, strict=True):
            if axis.by_item:
                points[at] = same.setdefault(tuple(row.run_id for row in rows[at]), points[at])
    return known


def _axis(ref: Ref, source: Source | None, placed: Sequence[_Placed], at: int, others: list[str]) -> Document:
    return {
        "name": ref.axis.name,
        "asked": str(ref),
        "better": "more" if ref.axis.better > 0 else "less",
        "unit": ref.axis.unit,
        "workload": None if source is None else source.workload,
        "mode": None if source is None else source.mode,
        "point": None if source is None else source.point,
        "arms": sum(one.point.known[at] is not None for one in placed),
        "alternatives": others,
    }


def _arms(kept: Sequence[_Placed], found: Front, names: Sequence[str], k: int, *, bounded: bool) -> list[Document]:
    """Those most likely on the front first, then by name."""
    dominators = found.dominators()
    out = []
    for at, one in enumerate(kept):
        flags = list(one.flags)
        spread = found.draws.spread[:, at]
        unknown = [name for name, is_known, known in zip(names, spread, one.point.known, strict=True)
                   if known is not None and not is_known]  # fmt: skip
        if unknown:
            flags.append(f"no_spread: nobody knows how far {', '.join(unknown)} is off, it is taken as it is")
        by = dominators[at]
        surely = spread[:k].all() and by is not None and found.draws.spread[:k, by[0]].all()
        out.append(
            {
                "name": one.point.name,
                "about": one.arm.about,
                "settings": dict(one.arm.settings),
                "numbers": [_number(found, axis, at, rows) if rows else None for axis, rows in enumerate(one.rows)],
                "on_front": bool(found.on_front[at]),
                "p_front": _or_none(found.p_front[at]),
                "meets": None if not bounded or math.isnan(found.meets[at]) else bool(found.meets[at]),
                "p_meets": _or_none(found.p_meets[at]) if bounded else None,
                "dominated_by": None if by is None else found.names[by[0]],
                "p_dominated": by[1] if by is not None and surely else None,
                "flags": flags,
            }
        )

    def rank(arm: Document) -> tuple[float, bool, str]:
        likely = arm["on_front"] if arm["p_front"] is None else arm["p_front"]
        return -float(likely), arm["meets"] is False, str(arm["name"])

    return sorted(out, key=rank)


def _number(found: Front, axis: int, at: int, rows: Sequence[Row]) -> Document:
    is_known = bool(found.draws.spread[axis, at])
    return {
        "value": float(found.draws.value[axis, at]),
        "lo": _or_none(found.lo[axis, at]) if is_known else None,
        "hi": _or_none(found.hi[axis, at]) if is_known else None,
        "runs": list(dict.fromkeys(row.run_id for row in rows)),
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _left_out(placed: Sequence[_Placed], k: int, names: Sequence[str]) -> list[Document]:
    out = []
    for one in placed:
        lacking = [name for name, known in zip(names[:k], one.point.known, strict=False) if known is None]
        if lacking:
            flags = [flag for flag in one.flags if flag.startswith("class_e")]
            out.append({"name": one.point.name, "lacks": lacking, "flags": flags})
    return sorted(out, key=lambda arm: str(arm["name"]))


def _hypervolume(found: Front) -> Document:
    one = found.hypervolume
    return {
        "value": one.value,
        "lo": one.lo,
        "hi": one.hi,
        "reference": list(one.reference),
        "ideal": list(one.ideal),
        "reason": one.reason,
    }


def _notes(kept: Sequence[_Placed], axes: Sequence[Axis], k: int, found: Front) -> list[str]:
    out = []
    kinds: dict[tuple[str, str], int] = defaultdict(int)
    for one in kept:
        energies = (rows[0] for axis, rows in zip(axes, one.rows, strict=True) if axis.gain and rows)
        for kind in {(row.kind.scope, row.kind.klass) for row in energies}:
            kinds[kind] += 1
    if len(kinds) > 1:
        told = ", ".join(f"{scope} (class {klass}) of {n}" for (scope, klass), n in sorted(kinds.items()))
        out.append(f"unlike_meters: energies do not cover the same, or not as surely: {told} arms")
    unknown = int((~found.draws.spread[:k].all(axis=0)).sum())
    if unknown:
        out.append(f"no_spread: {unknown} of {len(kept)} arms are taken as they are, which makes all others look surer")
    return out
