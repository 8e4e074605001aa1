"""The runs of a selection as rows of the index: their numbers, and all that makes runs unlike."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from meltbench.analysis.sameness import workload_settings
from meltbench.contrasts.strata import Member
from meltbench.errors import UserError
from meltbench.selecting import unknown_value
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    import duckdb

    from meltbench.selecting import Selection

_ABOUT = (
    *("origin", "device", "model", "runner", "accelerator", "engine", "engine_version"),
    *("device_identity", "model_sha256", "engine_sha256", "workload_sha256", "cell_key"),
)
_EACH = 6 + len(_ABOUT)  # columns before those that every run has its own of
_FREE = ("ctx", "ctx_all")  # settled by the workload
_TOLD = ("$.knobs", "$.conditions.settings", "$.workload", "$.conditions.os", "$.conditions.kernel")


class Row(NamedTuple):
    """A run as a whole, or a point of it, with its numbers; those that are missing are not there."""

    run_id: str
    workload: str
    mode: str
    point: str
    values: Mapping[str, float]
    covers: str  # its energies: scope and class
    energy_reason: str | None


@dataclass(frozen=True)
class Arm:
    """Runs that one selection means. ``left_out``: why, and how many, of those that no aggregate takes in unasked."""

    selection: Selection
    rows: list[Row]
    members: dict[str, Member]
    started_at: dict[str, datetime]
    left_out: dict[str, int] = field(default_factory=dict)


def arms(connection: duckdb.DuckDBPyConnection, selections: Sequence[Selection], measures: Sequence[str]) -> list[Arm]:
    """What selections mean. Raises UserError where one means no run of a model, UnknownName for a value nobody has."""
    found = [_asked(connection, one, measures) for one in selections]
    left_out = [_left_out(connection, one) for one in selections]
    for groups, selection, why in zip(found, selections, left_out, strict=True):
        if not groups:
            raise _nothing(connection, selection, why)
    runs = (run_id for groups in found for one in groups for run_id in one[_EACH])
    unlike = _unlike(connection, list(dict.fromkeys(runs)))
    parts = zip(selections, found, left_out, strict=True)
    return [_arm(selection, groups, measures, unlike, why) for selection, groups, why in parts]


def _asked(
    connection: duckdb.DuckDBPyConnection, selection: Selection, measures: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Rows of ``results`` by what they have in common, which is read once, for most runs are repetitions."""
    where, params = selection.sql()
    alike = ", ".join(("workload", "mode", "point", "energy_scope", "energy_class", "energy_reason", *_ABOUT))
    each = ", ".join(f"list({name})" for name in ("run_id", "number", "started_at", *measures))
    found: list[tuple[Any, ...]] = connection.execute(
        f"SELECT {alike}, {each} FROM (SELECT *, row_number() OVER (ORDER BY run_id, point) AS number "
        f"FROM results WHERE ({where}) AND mode IS NOT NULL) GROUP BY {alike}",
        params,
    ).fetchall()
    return found


def _arm(
    selection: Selection,
    groups: Sequence[tuple[Any, ...]],
    measures: Sequence[str],
    unlike: Mapping[str, dict[str, str]],
    left_out: dict[str, int],
) -> Arm:
    placed = []
    for one in groups:
        workload, mode, point, scope, klass, reason, *about = one[:_EACH]
        held = dict(zip(_ABOUT, about, strict=True))
        own, cell, covers = _factors(held), str(held["cell_key"]), f"{scope} (class {klass})"
        same: dict[int, dict[str, str]] = {}  # by what is told: one object for all runs that are alike
        for run_id, number, started_at, *numbers in zip(*one[_EACH:], strict=True):
            named = zip(measures, numbers, strict=True)
            values = {name: value for name, value in named if value is not None and math.isfinite(value)}
            told = unlike[run_id]
            if id(told) not in same:
                same[id(told)] = own | told
            member = Member(run_id, cell, same[id(told)])
            placed.append((number, Row(run_id, workload, mode, point, values, covers, reason), member, started_at))
    placed.sort(key=itemgetter(0))
    members = {row.run_id: member for _, row, member, _ in placed}
    started = {row.run_id: started_at for _, row, _, started_at in placed}
    return Arm(selection, [row for _, row, _, _ in placed], members, started, left_out)


def _factors(held: Mapping[str, Any]) -> dict[str, str]:
    """In the order in which arms are split by them: what one chooses by first, files last."""
    return {
        **{name: str(held[name] or "") for name in ("origin", "device", "model", "runner", "accelerator")},
        "engine": f"{held['engine']} {held['engine_version'] or ''}".strip(),
        "device identity": str(held["device_identity"] or ""),
        "model file": str(held["model_sha256"] or "")[:12],
        "engine file": str(held["engine_sha256"] or "")[:12],
        "workload file": str(held["workload_sha256"] or "")[:12],
    }


def _unlike(connection: duckdb.DuckDBPyConnection, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Knobs, settings of device and workload, OS and kernel of each run. Many runs have the same, read once."""
    found = connection.execute(
        "SELECT list(run_id), json_extract(manifest, ?) AS told FROM runs WHERE run_id IN (SELECT unnest(?)) "
        "GROUP BY told",
        [list(_TOLD), list(run_ids)],
    ).fetchall()
    out: dict[str, dict[str, str]] = {}
    for ids, told in found:
        knobs, made, workload, system, kernel = (None if one is None else json.loads(one) for one in told)
        held = {key: one.get("used") if isinstance(one, dict) else one for key, one in (made or {}).items()}
        parts = {
            **{key: value for key, value in (knobs or {}).items() if key not in _FREE},
            **held,
            **workload_settings({"workload": workload}),
        }
        factors = {key: str(value) for key, value in sorted(parts.items())}
        out |= dict.fromkeys(ids, factors | {"OS": str(system or ""), "kernel": str(kernel or "")})
    return out


def _left_out(connection: duckdb.DuckDBPyConnection, selection: Selection) -> dict[str, int]:
    where, params = selection.sql(pooled=False)
    pooled, more = selection.sql()
    found = connection.execute(
        "SELECT why, count(DISTINCT run_id) FROM (SELECT run_id, CASE WHEN outcome <> 'done' THEN 'failed' "
        "WHEN validity = 'invalid' THEN 'invalid' ELSE 'imported' END AS why FROM results "
        f"WHERE ({where}) AND mode IS NOT NULL AND NOT coalesce({pooled}, false)) GROUP BY why ORDER BY why",
        [*params, *more],
    ).fetchall()
    return dict(found)


def _nothing(connection: duckdb.DuckDBPyConnection, selection: Selection, left_out: Mapping[str, int]) -> UserError:
    """Why a selection means no run: a word of it that nobody has, or that they are not to be pooled."""
    if unknown := unknown_value(connection, selection):
        return unknown
    asked = printable(str(selection)) or "everything"
    if left_out:
        told = " and ".join(f"{n} {why}" for why, n in left_out.items())
        hint = "they are taken in where they are asked for: add validity=invalid, or origin=TOOL"
        return UserError(f"{asked} means no run that may be pooled: {told}", hint=hint)
    return UserError(f"{asked} means no run of a model", hint="meltbench runs lists them; leave out a word")


def marks(
    connection: duckdb.DuckDBPyConnection, groups: Iterable[tuple[int, Collection[str]]]
) -> dict[tuple[int, str], dict[tuple[str, str], float]]:
    """What each item came to in each group of runs, the mean over them, by (group, measure): right or not, or nats by
    token."""
    pairs = [(number, run_id) for number, ids in groups for run_id in ids]
    if not pairs:
        return {}
    found = connection.execute(
        "SELECT g, item, point, avg(correct), avg(-value / n) FILTER (WHERE method = 'nll' AND n > 0) "
        "FROM scores JOIN (SELECT unnest(?) AS g, unnest(?) AS run_id) USING (run_id) "
        "WHERE correct IS NOT NULL OR method = 'nll' GROUP BY ALL ORDER BY ALL",
        [[number for number, _ in pairs], [run_id for _, run_id in pairs]],
    ).fetchall()
    out: dict[tuple[int, str], dict[tuple[str, str], float]] = {}
    for group, item, point, right, nats in found:
        for name, value in (("accuracy", right), ("perplexity", nats)):
            if value is not None:
                out.setdefault((group, name), {})[item, point] = value
    return out


def causes(connection: duckdb.DuckDBPyConnection, run_ids: Collection[str]) -> dict[str, str]:
    """What speaks against the full validity of these runs, by run."""
    found = connection.execute(
        "SELECT run_id, string_agg(DISTINCT code, ', ' ORDER BY code) FROM reasons "
        "WHERE run_id IN (SELECT unnest(?)) GROUP BY run_id",
        [list(run_ids)],
    ).fetchall()
    return dict(found)
