"""Intelligence per watt and per joule over a store: one row a cell, side by side where they may stand so.

A table is of one origin, mode, workload, point and method of scoring, for nothing else may share a column. Within it
the rows are those of one model, device, quantisation, engine or domain together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from meltbench.analysis.sameness import signature
from meltbench.efficiency import efficiency
from meltbench.errors import UnknownName, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from meltbench.records import RunRecord

    Progress = Callable[[int, int], None]

OURS = "meltbench"
By = Literal["model", "device", "domain", "quantisation", "engine"]
BY: tuple[By, ...] = get_args(By)
_TABLE = ("measured_by", "mode", "workload", "point", "method")


def cells_of(records: Iterable[RunRecord]) -> list[list[RunRecord]]:
    """Runs that may be taken together, cell by cell in the order of their first runs; never two origins."""
    cells: dict[object, list[RunRecord]] = {}
    for record in records:
        cells.setdefault((measured_by(record), signature(record.manifest)), []).append(record)
    return list(cells.values())


def measured_by(record: RunRecord) -> str:
    """The tool that measured a run."""
    return str((record.manifest.get("imported") or {}).get("from") or OURS)


def cell_about(cell: Sequence[RunRecord]) -> dict[str, Any]:
    """What a cell is, as rows of tables and arms of routers have it; ``runs``: the runs of it."""
    about = cell[0].manifest
    runner, model = about.get("runner") or {}, about.get("model") or {}
    return {
        "measured_by": measured_by(cell[0]),
        "device": (about.get("device") or {}).get("name"),
        "mode": runner.get("mode"),
        "workload": (about.get("workload") or {}).get("name"),
        "model": model.get("name"),
        "quantisation": model.get("quantisation"),
        "engine": runner.get("engine"),
        "engine_version": runner.get("version"),
        "accelerator": runner.get("accelerator"),
        "runs": [record.run_id for record in cell],
    }


def intelligence_tables(
    records: Sequence[RunRecord], by: str = "model", left_out: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Tables of cells that were scored, rows in order of ``by``; keys: docs/json.md.

    ``left_out``: runs that are meant and not among the records, to be told. ``progress`` is called with cells done and
    all. A cell whose runs cannot be taken together is told apart, with the reason. Raises UnknownName for another
    ``by``.
    """
    if by not in BY:
        raise UnknownName("--by", by, BY)
    tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    refused = []
    cells = cells_of(record for record in records if record.scores)
    for done, cell in enumerate(cells):
        try:
            rows = [row for domain in _domains(cell, by) for row in _rows(cell, by, domain)]
        except UserError as error:
            refused.append({"runs": [record.run_id for record in cell], "reason": error.message})
            rows = []
        for row in rows:
            tables.setdefault(tuple(str(row[key]) for key in _TABLE), []).append(row)
        if progress:
            progress(done + 1, len(cells))
    made = [
        dict(zip(_TABLE, key, strict=True)) | {"rows": sorted(rows, key=_order), "flags": scope_flags(rows)}
        for key, rows in sorted(tables.items())
    ]
    return {"by": by, "tables": made, "refused": refused, "left_out": left_out}


def _domains(cell: Sequence[RunRecord], by: str) -> list[str | None]:
    """The domains of a cell's items; None: all of them together."""
    if by != "domain":
        return [None]
    return [*sorted({score.group for record in cell for score in record.scores})]


def _rows(cell: Sequence[RunRecord], by: str, domain: str | None) -> list[dict[str, Any]]:
    mine = list(cell)
    if domain is not None:
        mine = [replace(r, scores=[score for score in r.scores if score.group == domain]) for r in cell]
        mine = [record for record in mine if record.scores]
    about = cell[0].manifest
    more = {
        "measured_by": measured_by(cell[0]),
        "quantisation": (about.get("model") or {}).get("quantisation"),
        "domain": domain,
    }
    rows = []
    for found in efficiency(mine):
        row = {**more, **found}
        if domain is not None:  # of some items of a piece nobody can say how many there should be
            row["flags"] = [flag for flag in row["flags"] if not flag.startswith("piece:")]
        rows.append({"group": _group(row, by), **row})
    return rows


def _group(row: dict[str, Any], by: str) -> str:
    """What a row is put together by."""
    if by == "engine":
        return " ".join(str(row[key]) for key in ("engine", "engine_version") if row[key])
    return str(row[by] or "")


def _order(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[key] or "") for key in ("group", "model", "device", "engine", "engine_version", "accelerator"))


def scope_flags(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What forbids ranking rows by their energies: several scopes or classes of error."""
    kinds = sorted({f"{row['scope']} (class {row['klass'] or 'unknown'})" for row in rows if _has_energy(row)})
    if len(kinds) < 2:
        return []
    return [f"mixed_scopes: energies of {' and '.join(kinds)} do not cover the same: do not rank rows across them"]


def _has_energy(row: dict[str, Any]) -> bool:
    return any(one["energy"] and one["value"] is not None for one in row["numbers"])
