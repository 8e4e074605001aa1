"""Two selections of runs against each other, in the manner of benchstat: every figure that both have, stratum by
stratum, with the ratio, its interval, a test, and what to do where nothing can be said.

Figures of two modes, workloads or points never share a row. All figures that are tested in one comparison are one
family, within which p is adjusted (Benjamini and Hochberg).
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.analysis.contrast import (
    ALPHA,
    Contrast,
    Test,
    contrast,
    family_of,
    outliers,
    paired_t,
    ratio_over_strata,
    scatter,
    sign_test,
)
from meltbench.analysis.metrics import METRICS
from meltbench.analysis.stats import Estimate, missing
from meltbench.comparing import PAIRED, by_item, exp_of
from meltbench.contrasts import chosen
from meltbench.contrasts.advice import advice
from meltbench.contrasts.notes import OF_ENERGY, notes, nothing
from meltbench.contrasts.strata import Pairing, Stratum, differing, labels, paired
from meltbench.errors import UnknownName, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from meltbench.contrasts.chosen import Arm, Row
    from meltbench.selecting import Selection

    Place = tuple[str, str, str]  # workload, mode, point

# What is compared unasked, in order; and what else may be asked for. A ratio of temperatures in °C means nothing.
MEASURES = (
    *("perplexity", "accuracy", "ttft_s", "prefill_tps", "decode_tps", "inference_s", "question_latency_s"),
    *("j_per_output_token", "j_per_question", "mean_power_w", "ipj_per_j", "load_s", "peak_rss_bytes"),
)
KNOWN = (
    *MEASURES,
    *("tpot_s", "e2e_s", "output_tps", "energy_j", "j_per_request", "peak_pss_bytes", "throttle_retention"),
    "ipw_per_w",
)
EFFECT = 0.03


@dataclass(frozen=True)
class _Case:
    """One row of the comparison, before its p is adjusted."""

    place: Place
    name: str
    stratum: int
    arms: tuple[dict[str, float], dict[str, float]]  # by run
    kind: str
    values: tuple[float | None, float | None]
    found: Contrast
    scopes: tuple[str, str] = ("", "")  # what an energy covers


def compare_selections(
    connection: duckdb.DuckDBPyConnection,
    first: Selection,
    second: Selection,
    *,
    measures: Sequence[str] = (),
    effect: float = EFFECT,
) -> dict[str, Any]:
    """How the runs of ``second`` stand against those of ``first``; keys: docs/json.md, "contrast".

    ``connection``: its view ``results`` and tables are asked. ``measures``: those of KNOWN that are wanted, else
    MEASURES. ``effect``: the least difference that matters, as a share (of accuracy: a difference).

    Raises UserError where a selection means no run, both mean the same run, or no run of one may be held against one of
    the other; UnknownName for a measure or a value that nobody has.
    """
    for name in measures:
        if name not in KNOWN:
            raise UnknownName("measure", name, KNOWN)
    if not (math.isfinite(effect) and effect > 0):
        raise UserError(f"a difference that matters is above zero, not {effect * 100:g} %", hint="--effect 3")
    wanted = tuple(dict.fromkeys(measures)) or MEASURES
    arms = chosen.arms(connection, (first, second), wanted)
    if shared := arms[0].members.keys() & arms[1].members.keys():
        told = f"{len(shared)} run{'s are' if len(shared) > 1 else ' is'} in both, such as {min(shared)}"
        raise UserError(told, hint="add a word that tells the two apart, such as night= or engine=")
    pairings = _pairings(arms[0], arms[1])
    strata = [(place, one) for place, found in pairings.items() for one in found.strata]
    cases = _cases(connection, arms, strata, wanted)
    if not cases:
        raise nothing(arms, pairings, wanted)
    tested = [(at, one.found.test) for at, one in enumerate(cases) if one.found.test is not None]
    adjusted = family_of([test for _, test in tested])
    qs = {at: q for (at, _), q in zip(tested, adjusted, strict=True) if q is not None}
    names = labels([found.strata for found in pairings.values()])
    rows = [_row(one, strata[one.stratum][1], names, qs.get(at), effect) for at, one in enumerate(cases)]
    scatters = [None if one.name in PAIRED else scatter(*(tuple(arm.values()) for arm in one.arms)) for one in cases]
    return {
        "first": _arm(arms[0]),
        "second": _arm(arms[1]),
        "alpha": ALPHA,
        "effect": effect,
        "family": len(qs),
        "differs": [
            {"name": name, "first": values[0], "second": values[1]}
            for name, values in differing([one for _, one in strata]).items()
        ],
        "labels": names,
        "rows": rows,
        "means": _means(cases),
        "outliers": _outliers(connection, cases),
        "notes": notes(arms, pairings, rows, wanted),
        "advice": advice(rows, scatters, family=len(qs), effect=effect),
    }


def _arm(arm: Arm) -> dict[str, Any]:
    return {"selection": str(arm.selection), "runs": sorted(arm.members), "left_out": arm.left_out}


def _pairings(first: Arm, second: Arm) -> dict[tuple[str, str], Pairing]:
    """Strata by workload and mode, of those that both arms have."""
    held: tuple[dict[tuple[str, str], dict[str, None]], ...] = ({}, {})
    for arm, found in zip((first, second), held, strict=True):
        for row in arm.rows:
            found.setdefault((row.workload, row.mode), {})[row.run_id] = None
    return {
        place: paired([first.members[i] for i in held[0][place]], [second.members[i] for i in held[1][place]])
        for place in held[0]
        if place in held[1]
    }


def _cases(
    connection: duckdb.DuckDBPyConnection,
    arms: Sequence[Arm],
    strata: Sequence[tuple[tuple[str, str], Stratum]],
    wanted: Sequence[str],
) -> list[_Case]:
    rows: list[dict[str, list[Row]]] = [{}, {}]
    for arm, of_run in zip(arms, rows, strict=True):
        for row in arm.rows:
            of_run.setdefault(row.run_id, []).append(row)
    of_items = [(at, name) for at in range(len(strata)) for name in PAIRED if name in wanted]
    groups = [
        (2 * at + side, [m.run_id for m in members])
        for at, (_, one) in enumerate(strata)
        for side, members in enumerate((one.first, one.second))
    ]
    marks = chosen.marks(connection, groups if of_items else [])
    cases = []
    for at, ((workload, mode), one) in enumerate(strata):
        mine = [
            [row for member in members for row in of_run[member.run_id]]
            for members, of_run in zip((one.first, one.second), rows, strict=True)
        ]
        points = [dict.fromkeys(row.point for row in part) for part in mine]
        for point in (point for point in points[0] if point in points[1]):
            of_point = [[row for row in part if row.point == point] for part in mine]
            for name in wanted:
                values = tuple({r.run_id: r.values[name] for r in part if name in r.values} for part in of_point)
                if not all(values):
                    continue
                place = (workload, mode, point)
                if name in PAIRED:
                    items = [
                        {key: mark for key, mark in marks.get((2 * at + side, name), {}).items()
                         if point in ("", key[1])}
                        for side in (0, 1)
                    ]  # fmt: skip
                    cases.append(_by_item(place, name, at, (values[0], values[1]), items))
                else:
                    cases.append(_by_run(place, name, at, (values[0], values[1]), of_point))
    order = {name: number for number, name in enumerate(wanted)}
    return sorted(cases, key=lambda case: (order[case.name], case.place))


def _by_run(
    place: Place,
    name: str,
    stratum: int,
    arms: tuple[dict[str, float], dict[str, float]],
    rows: Sequence[Sequence[Row]],
) -> _Case:
    found = contrast(*(list(arm.values()) for arm in arms))
    values = (statistics.median(arms[0].values()), statistics.median(arms[1].values()))
    if name not in OF_ENERGY:
        return _Case(place, name, stratum, arms, "ratio", values, found)
    scopes = [" and ".join(sorted({row.covers for row in part if name in row.values})) for part in rows]
    for told, who in zip(scopes, "AB", strict=True):
        if " and " in told:
            why = missing(f"mixed_scopes: energies of {who} are of {told}")
            return _Case(place, name, stratum, arms, "ratio", (None, None), Contrast(why, why, None))
    return _Case(place, name, stratum, arms, "ratio", values, found, (scopes[0], scopes[1]))


def _by_item(
    place: Place,
    name: str,
    stratum: int,
    arms: tuple[dict[str, float], dict[str, float]],
    items: Sequence[dict[tuple[str, str], float]],
) -> _Case:
    kind = "difference" if name == "accuracy" else "ratio"
    found = by_item(items[0], items[1], name)
    test: Test | None = None
    values: list[float | None] = [statistics.median(arm.values()) for arm in arms]
    if found.value is not None:
        shared = sorted(items[0].keys() & items[1].keys())
        compared = sign_test if name == "accuracy" else paired_t
        test = compared([items[0][key] for key in shared], [items[1][key] for key in shared])
        means = [math.fsum(part.values()) / len(part) for part in items]
        values = [mean if name == "accuracy" else exp_of(mean) for mean in means]
    shift = missing("paired: the ratio is of the same items")
    return _Case(place, name, stratum, arms, kind, (values[0], values[1]), Contrast(found, shift, test))


def _row(case: _Case, stratum: Stratum, names: Sequence[str], q: float | None, effect: float) -> dict[str, Any]:
    workload, mode, point = case.place
    test, ratio = case.found.test, case.found.ratio
    return {
        "measure": case.name,
        "unit": METRICS[case.name].unit,
        "better": METRICS[case.name].better,
        "workload": workload,
        "mode": mode,
        "point": point,
        "stratum": {name: stratum.alike.get(name, "") for name in names},
        "kind": case.kind,
        "first": _side(case, 0),
        "second": _side(case, 1),
        "against": _estimate(ratio),
        "shift": _estimate(case.found.shift),
        "p": None if test is None else test.p,
        "q": q,
        "delta": None if test is None else test.delta,
        "test": None if test is None else test.method,
        "verdict": _verdict(case.kind, ratio, q, effect),
    }


def _side(case: _Case, at: int) -> dict[str, Any]:
    held = list(case.arms[at].values())
    spread = None if case.name in PAIRED else scatter(held)
    about = {"value": case.values[at], "least": min(held), "most": max(held), "n_runs": len(held), "log_sd": spread}
    return about | {"scope": case.scopes[at]}


def _estimate(found: Estimate) -> dict[str, Any]:
    return {
        "value": found.value, "lo": found.lo, "hi": found.hi, "n": found.n, "method": found.method,
        "reason": found.reason,
    }  # fmt: skip


def _verdict(kind: str, found: Estimate, q: float | None, effect: float) -> str:
    """differs: shown. alike: its interval leaves no difference that matters. Else nobody can say."""
    if q is not None and q <= ALPHA:
        return "differs"
    if found.lo is None or found.hi is None:
        return "unknown"
    least, most = (-effect, effect) if kind == "difference" else (1 / (1 + effect), 1 + effect)
    return "alike" if least <= found.lo and found.hi <= most else "unknown"


def _means(cases: Sequence[_Case]) -> list[dict[str, Any]]:
    """Of each measure that several strata have, the geometric mean over them."""
    groups: dict[tuple[str, Place], list[_Case]] = {}
    for case in cases:
        if case.name not in PAIRED and case.found.ratio.value is not None:
            groups.setdefault((case.name, case.place), []).append(case)
    out = []
    for (name, (workload, mode, point)), mine in groups.items():
        if len(mine) < 2:
            continue
        found = ratio_over_strata([(list(one.arms[0].values()), list(one.arms[1].values())) for one in mine])
        sides = [math.exp(math.fsum(math.log(one.values[at] or 1.0) for one in mine) / len(mine)) for at in (0, 1)]
        about = {"measure": name, "unit": METRICS[name].unit, "workload": workload, "mode": mode, "point": point}
        out.append(about | {"n_strata": len(mine), "first": sides[0], "second": sides[1], "against": _estimate(found)})
    return out


def _outliers(connection: duckdb.DuckDBPyConnection, cases: Sequence[_Case]) -> list[dict[str, Any]]:
    out: list[tuple[str, dict[str, Any]]] = []
    for case in cases:
        if case.name in PAIRED:
            continue
        for arm, who in zip(case.arms, ("first", "second"), strict=True):
            held = list(arm.values())
            for run_id, value, far in zip(arm, held, outliers(held), strict=True):
                if far:
                    of = {"arm": who, "run": run_id, "measure": case.name, "point": case.place[2]}
                    out.append((run_id, of | {"value": value, "median": statistics.median(held)}))
    why = chosen.causes(connection, {run_id for run_id, _ in out}) if out else {}
    return [one | {"reasons": why.get(run_id, "")} for run_id, one in out]
