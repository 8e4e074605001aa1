"""The runs of a selection as rows of the index: their numbers, and all that makes runs unlike."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
    *("device_identity", "model_sha256", "engine_sha256", "workload_sha256", "cell_key", "started_at"),
)
_FREE = ("ctx", "ctx_all")  # settled by the workload
_TOLD = ("$.knobs", "$.conditions.settings", "$.workload", "$.conditions.os", "$.conditions.kernel")


@dataclass(frozen=True)
class Row:
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


def arm(connection: duckdb.DuckDBPyConnection, selection: Selection, measures: Sequence[str]) -> Arm:
    """What a selection means. Raises UserError where that is no run of a model, UnknownName for a value nobody has."""
    where, params = selection.sql()
    names = (*_ABOUT, *measures)
    found = connection.execute(
        f"SELECT run_id, workload, mode, point, energy_scope, energy_class, energy_reason, {', '.join(names)} "
        f"FROM results WHERE ({where}) AND mode IS NOT NULL ORDER BY run_id, point",
        params,
    ).fetchall()
    left_out = _left_out(connection, selection)
    if not found:
        raise _nothing(connection, selection, left_out)
    rows, about, started_at = [], {}, {}
    for run_id, workload, mode, point, scope, klass, reason, *rest in found:
        held = dict(zip(names, rest, strict=True))
        values = {name: held[name] for name in measures if held[name] is not None and math.isfinite(held[name])}
        rows.append(Row(run_id, workload, mode, point, values, f"{scope} (class {klass})", reason))
        about[run_id], started_at[run_id] = held, held["started_at"]
    unlike = _unlike(connection, list(about))
    members = {
        run_id: Member(run_id, str(held["cell_key"]), _factors(held) | unlike[run_id]) for run_id, held in about.items()
    }
    return Arm(selection, rows, members, started_at, left_out)


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
