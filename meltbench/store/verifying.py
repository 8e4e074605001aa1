"""Checks every byte that is kept against its hash, and the index against the folders."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from meltbench.deadline import Deadline
from meltbench.errors import StoreError
from meltbench.paths import sha256_of
from meltbench.store import fs, index, manifest, rows, schema, tables
from meltbench.store.folder import RUN_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import duckdb

    from meltbench.store.folder import RunFolder, Store

_LOOKS, _LOOK_AGAIN_S, _LOCK_S = 4, 0.25, 600.0

Problem = Literal["changed", "missing", "extra", "unreadable", "index"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was stored. ``file`` is relative to the data folder."""

    run_id: str | None
    file: str
    problem: Problem
    detail: str


def verify(
    store: Store, run_ids: Iterable[str] | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """Check the stored runs (all, or these) and their rows in the index; nothing is changed.

    ``progress`` is called with (done, total) runs. Open runs have nothing to check and are passed over.
    """
    chosen = store.run_ids() if run_ids is None else list(run_ids)
    findings = [*_strays(store), *_check_calibrations(store)] if run_ids is None else []
    whole = []
    for done, run_id in enumerate(chosen, 1):
        folder = store.folder(run_id)
        found = _check_run(folder)
        findings += found
        if folder.stored and not found:
            whole.append(folder)
        if progress:
            progress(done, len(chosen))
    return findings + _index_findings(store, whole, everything=run_ids is None)


def _index_findings(store: Store, whole: list[RunFolder], *, everything: bool) -> list[Finding]:
    """What is wrong with the index, also after whoever is writing it has had a moment to finish."""
    damaged = set(store.stored_ids()) - {folder.run_id for folder in whole}
    found: list[Finding] = []
    for _ in range(_LOOKS):
        if not (found := _check_index(store, whole, everything=everything)):
            break
        # A run is stored first and indexed then: what another meltbench is just storing is no damage.
        time.sleep(_LOOK_AGAIN_S)
        with fs.locked(store.lock_file, Deadline.after(_LOCK_S), what="writing the index"):
            pass
        if everything:
            whole = [store.folder(run_id) for run_id in store.stored_ids() if run_id not in damaged]
    return found


def _strays(store: Store) -> list[Finding]:
    with fs.explained(f"read {store.runs_dir}", hint="check its permissions"):
        known = set(store.run_ids())
        others = sorted(set(os.listdir(store.runs_dir)) - known)
    return [Finding(None, f"runs/{name}", "extra", "not a run folder") for name in others]


def _check_calibrations(store: Store) -> list[Finding]:
    """The seal of every calibration record, and the hashes of its evidence."""
    findings = []
    for path in sorted((store.root / "calibrations").glob("*/*.json")):
        if not RUN_ID.fullmatch(path.stem):
            continue
        here = f"calibrations/{path.parent.name}"
        try:
            listed = manifest.open_sealed(manifest.read_bounded(path), path.name)["files"]
        except StoreError as error:
            findings.append(Finding(None, f"{here}/{path.name}", "unreadable", error.message))
            continue
        present = {entry.name: entry for entry in os.scandir(path.parent)}
        for name in sorted(listed):
            if name not in present:
                findings.append(Finding(None, f"{here}/{name}", "missing", "stored, but not there"))
            elif why := _difference(present[name], listed[name]):
                findings.append(Finding(None, f"{here}/{name}", "changed", why))
    return findings


def _check_run(folder: RunFolder) -> list[Finding]:
    def finding(name: str, problem: Problem, detail: str) -> Finding:
        return Finding(folder.run_id, f"runs/{folder.run_id}/{name}", problem, detail)

    if not folder.stored:
        try:
            folder.ticket()
        except StoreError as error:
            return [finding(manifest.TICKET, "unreadable", error.message)]
        return []
    try:
        listed = tables.read_manifest(folder.path)["files"]
    except StoreError as error:
        return [finding(manifest.MANIFEST, "unreadable", error.message)]
    present = {}
    for entry in fs.walk(folder.path):
        if not entry.is_dir(follow_symlinks=False):
            present[str(Path(entry.path).relative_to(folder.path))] = entry
    present.pop(manifest.MANIFEST)
    findings = [finding(name, "missing", "stored, but not there") for name in sorted(listed.keys() - present.keys())]
    findings += [finding(name, "extra", "there, but not stored") for name in sorted(present.keys() - listed.keys())]
    for name in sorted(listed.keys() & present.keys()):
        why = _difference(present[name], listed[name])
        if why:
            findings.append(finding(name, "changed", why))
    return findings


def _difference(entry: os.DirEntry[str], listed: dict[str, Any]) -> str | None:
    if not entry.is_file(follow_symlinks=False):
        return "not a plain file any more"
    size = entry.stat(follow_symlinks=False).st_size
    if size != listed["bytes"]:
        return f"{size} bytes, stored were {listed['bytes']}"
    try:
        digest = sha256_of(Path(entry.path))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if digest == listed["sha256"] else f"sha256 {digest[:12]}, stored was {listed['sha256'][:12]}"


def _check_index(store: Store, whole: list[RunFolder], *, everything: bool) -> list[Finding]:
    """Compare the index with rows made from the undamaged folders, table by table, both ways."""
    import duckdb

    def finding(run_id: str | None, detail: str) -> Finding:
        return Finding(run_id, store.index.name, "index", detail)

    try:
        with index.attached(store.index) as connection:
            connection.execute("USE memory")
            rows.create(connection)
            rows.fill(connection, whole)
            checked = {folder.run_id for folder in whole}
            damaged = set(store.stored_ids()) - checked if everything else set()
            return [
                finding(run_id, f"table {table} is not what the run folder says; meltbench rebuild")
                for run_id, table in _differing(connection, checked, damaged, everything=everything)
            ]
    except index.Unusable as error:
        # A store without runs needs no index.
        return [finding(None, f"{error}; meltbench rebuild")] if whole else []
    except duckdb.Error as error:
        return [finding(None, f"it is damaged ({str(error).splitlines()[0]}); meltbench rebuild")]


def _differing(
    connection: duckdb.DuckDBPyConnection, checked: set[str], damaged: set[str], *, everything: bool
) -> list[tuple[str, str]]:
    differing = set()
    for table in rows.INDEXED:
        names = ", ".join(f'"{column.name}"' for column in schema.index_columns(table))
        ours, theirs = (f"SELECT {names} FROM {place}.main.{table.name}" for place in ("memory", "idx"))
        sql = f"({ours} EXCEPT ALL {theirs}) UNION ALL ({theirs} EXCEPT ALL {ours})"
        found = {row[0] for row in connection.execute(f"SELECT DISTINCT run_id FROM ({sql})").fetchall()}
        # A damaged run was named already; when only some runs were asked for, the others are not compared.
        differing |= {(run_id, table.name) for run_id in (found - damaged if everything else found & checked)}
    return sorted(differing)
