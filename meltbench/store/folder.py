"""The run folders: made with their ticket, filled with evidence, committed by their manifest.

A run is ``open`` (ticket, no manifest: running, detached or lost), ``stored`` (committed, immutable) or
``unreadable``. Paths are only ever built from run ids that match one pattern.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from meltbench.deadline import Deadline
from meltbench.errors import InternalError, StoreError, UnknownName
from meltbench.store import fs, manifest, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from meltbench.records import Keep, RunRecord
    from meltbench.store.index import Indexed

RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}", re.ASCII)
INDEX = "meltbench.duckdb"
_HIDDEN = ".part-"
_CHOOSE = "choose another with --data DIR or $MELTBENCH_DATA"
_ROOM_BYTES = 64 << 10
_LOCK_S = 30.0

RunState = Literal["stored", "open", "unreadable"]


class RunEntry(NamedTuple):
    """One run of a store. ``info`` is its manifest, its ticket, or for an unreadable run {"error": why}."""

    run_id: str
    state: RunState
    info: dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    run_id: str
    path: Path

    @property
    def evidence(self) -> Path:
        """Where the journal and the job go before the commit."""
        return self.path / "evidence"

    @property
    def stored(self) -> bool:
        """Whether the run is committed."""
        return (self.path / manifest.MANIFEST).exists()

    def ticket(self) -> dict[str, Any]:
        """Return the ticket. Raises StoreError when it is absent or damaged."""
        path = self.path / manifest.TICKET
        return manifest.parse(manifest.read_bounded(path), f"{self.run_id}/{manifest.TICKET}")

    def write_ticket(self, ticket: dict[str, Any]) -> None:
        """Replace the ticket of an open run. Raises StoreError when the run is stored or the disk refuses."""
        self.check_open()
        with fs.explained(f"write the ticket of run {self.run_id}", hint="the old ticket is still there; try again"):
            fs.write_atomic(self.path / manifest.TICKET, manifest.dump(ticket))

    def check_open(self) -> None:
        """Raise StoreError when the run is committed already."""
        if self.stored:
            raise StoreError(f"run {self.run_id} is stored already", hint="a stored run never changes")


@dataclass(frozen=True)
class Store:
    """A data folder. Made by open_store."""

    root: Path

    @property
    def runs_dir(self) -> Path:
        """The folder of the run folders."""
        return self.root / "runs"

    @property
    def index(self) -> Path:
        """The derived DuckDB file; it may be absent."""
        return self.root / INDEX

    @property
    def lock_file(self) -> Path:
        """Whoever replaces the index holds the lock of this file."""
        return self.root / ".lock"

    def command(self, *words: str) -> str:
        """A command line about this store for a user to type: it names the store where it is not the default one."""
        given = [] if self.root == _root(None) else ["--data", str(self.root)]
        return shlex.join(["meltbench", *words, *given])

    def folder(self, run_id: str) -> RunFolder:
        """Return the folder of a full run id, whether it exists or not. Raises InternalError for anything else."""
        if not RUN_ID.fullmatch(run_id):
            raise InternalError(f"{run_id!r} is not a run id", hint="please report it")
        return RunFolder(run_id, self.runs_dir / run_id)

    def new_run(self, ticket: dict[str, Any]) -> RunFolder:
        """Make the folder of a new run together with its ticket, to which ``run_id`` is added.

        Raises StoreError, and leaves nothing, when the disk refuses.
        """
        hint = f"nothing was started; free space in {self.root} or choose another folder with --data"
        return self._make(ticket, None, hint)

    def adopt(self, run_id: str, ticket: dict[str, Any]) -> RunFolder:
        """Make the folder of a run that another controller started. Raises StoreError where it is there already."""
        return self._make(ticket, run_id, f"free space in {self.root}; the run stays on its device")

    def _make(self, ticket: dict[str, Any], run_id: str | None, hint: str) -> RunFolder:
        with (
            fs.explained(f"make a run folder in {self.runs_dir}", hint=hint),
            fs.locked(self.runs_dir, Deadline.after(_LOCK_S), what="making a run folder"),
        ):
            self._sweep()
            folder = self.folder(run_id or _new_id())
            while run_id is None and folder.path.exists():
                folder = self.folder(_new_id())
            if folder.path.exists():
                raise StoreError(f"run {run_id} is in this store already", hint=self.command("show", str(run_id)))
            temporary = self.runs_dir / f"{_HIDDEN}{folder.run_id}"
            try:
                temporary.mkdir()
                (temporary / "evidence").mkdir()
                content = manifest.dump({**ticket, "run_id": folder.run_id})
                fs.write_atomic(temporary / manifest.TICKET, content)
                os.rename(temporary, folder.path)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            fs.sync(self.runs_dir)
        return folder

    def discard(self, folder: RunFolder) -> None:
        """Remove the folder of an open run in which nothing was started. Raises StoreError for a stored run."""
        with (
            fs.explained(f"remove {folder.path}", hint="remove the folder by hand"),
            fs.locked(self.runs_dir, Deadline.after(_LOCK_S), what="making a run folder"),
        ):
            folder.check_open()
            hidden = self.runs_dir / f"{_HIDDEN}{folder.run_id}"
            os.rename(folder.path, hidden)
            shutil.rmtree(hidden)

    def check_writable(self) -> None:
        """Raise StoreError when the folder does not take another 64 KiB, before anything is started."""
        hint = f"free space in {self.root} or choose another folder with --data; nothing was started"
        trial = self.root / f".trial-{os.getpid()}"
        with fs.explained(f"write to {self.root}", hint=hint):
            try:
                trial.write_bytes(bytes(_ROOM_BYTES))
            finally:
                trial.unlink(missing_ok=True)

    def _sweep(self) -> None:
        # Only called under the lock, so whoever made these is dead.
        for left in self.runs_dir.glob(f"{_HIDDEN}*"):
            shutil.rmtree(left)

    def commit(self, folder: RunFolder, made: RunRecord | Callable[[Keep], RunRecord]) -> RunRecord:
        """Store a record: its samples and tables, then the manifest, whose rename is the commit.

        ``made`` is the record, or makes it and hands its samples over meanwhile, for they may not fit in memory.
        Raises StoreError when the run is stored already, another process is storing it, or the disk refuses;
        then the evidence is untouched and the run is open as before.
        """
        hint = f"its evidence is safe in {folder.evidence}; free space, then: {self.command('collect', folder.run_id)}"
        with (
            fs.explained(f"store run {folder.run_id}", hint=hint),
            fs.locked(folder.path, Deadline.after(_LOCK_S), what=f"storing run {folder.run_id}"),
        ):
            folder.check_open()
            _drop_partial(folder.path)
            try:
                with tables.SampleWriter(folder.path) as samples:
                    record = made(samples.keep) if callable(made) else made
                    samples.keep(list(enumerate(record.series)))
                if record.run_id != folder.run_id:
                    raise InternalError(f"the record of {record.run_id} does not belong in {folder.run_id}")
                tables.write_record(folder.path, record)
                content = manifest.seal({**record.manifest, "run_id": folder.run_id}, manifest.inventory(folder.path))
                fs.write_atomic(folder.path / manifest.MANIFEST, content)
            except BaseException:
                # After the rename the run is stored, whatever a later flush said.
                if not folder.stored:
                    _drop_partial(folder.path)
                raise
        return record

    def ingest(self, run_id: str) -> Indexed:
        """Bring a stored run into the index; see meltbench.store.index.ingest."""
        from meltbench.store import index

        return index.ingest(self, run_id)

    def run_ids(self) -> list[str]:
        """Return the ids of all runs in any state, oldest first."""
        with fs.explained(f"read {self.runs_dir}", hint="check its permissions"):
            return sorted(name for name in os.listdir(self.runs_dir) if RUN_ID.fullmatch(name))

    def stored_ids(self) -> list[str]:
        """Return the ids of the runs that have a manifest, oldest first."""
        return [run_id for run_id in self.run_ids() if self.folder(run_id).stored]

    def open_ids(self) -> list[str]:
        """Return the ids of the runs that have no manifest, oldest first."""
        return [run_id for run_id in self.run_ids() if not self.folder(run_id).stored]

    def runs(self) -> list[RunEntry]:
        """Return every run with its state and its manifest or ticket, oldest first."""
        return [self.entry(run_id) for run_id in self.run_ids()]

    def entry(self, run_id: str) -> RunEntry:
        """Return one run with its state and its manifest or ticket."""
        folder = self.folder(run_id)
        try:
            if folder.stored:
                return RunEntry(folder.run_id, "stored", tables.read_manifest(folder.path))
            return RunEntry(folder.run_id, "open", folder.ticket())
        except StoreError as error:
            return RunEntry(folder.run_id, "unreadable", {"error": error.message})

    def resolve(self, name: str, *, among: Collection[str] | None = None) -> RunFolder:
        """Return the run a user means: ``last``, a full id, or a prefix that fits only one run.

        ``among`` limits it to these ids. Raises UnknownName with the nearest or the fitting ids.
        """
        known = sorted(among) if among is not None else self.run_ids()
        if not known:
            raise UnknownName("run", name, known, hint=f"there is none in {self.root}")
        if name == "last":
            return self.folder(known[-1])
        fitting = [run_id for run_id in known if name and run_id.startswith(name)]
        if len(fitting) == 1:
            return self.folder(fitting[0])
        if fitting:
            raise UnknownName("run", name, known, hint=f"it fits {len(fitting)}: {', '.join(fitting[-5:])}")
        raise UnknownName("run", name, known)


def _new_id() -> str:
    """UTC now; of the six hex digits three are the fraction of the second, so that ids sort by age."""
    now_ns = time.time_ns()
    second = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ns // 10**9))
    return f"{second}-{now_ns % 10**9 * 4096 // 10**9:03x}{secrets.token_hex(2)[:3]}"


def _drop_partial(folder: Path) -> None:
    for left in (*folder.glob("*.parquet"), *folder.glob(".*.tmp")):
        left.unlink()


def _root(path: str | os.PathLike[str] | None) -> Path:
    root = Path(path or os.environ.get("MELTBENCH_DATA") or "data").expanduser().absolute()
    if not str(root).isprintable():
        raise StoreError(f"the name of the data folder {str(root)!r} is not printable text", hint=_CHOOSE)
    return root


def find_store(path: str | os.PathLike[str] | None = None) -> Store:
    """Open a data folder that is there, to read it. Raises StoreError when there is none."""
    root = _root(path)
    if not (root / "runs").is_dir():
        raise StoreError(f"there is no store in {root}", hint="meltbench run makes one; --data DIR names another")
    return Store(root)


def open_store(path: str | os.PathLike[str] | None = None) -> Store:
    """Open the data folder ``path``, else ``$MELTBENCH_DATA``, else ``./data``; make it if it is absent.

    Raises StoreError when it cannot be made or written.
    """
    root = _root(path)
    with fs.explained(f"use {root} as data folder", hint=_CHOOSE):
        (root / "runs").mkdir(parents=True, exist_ok=True)
        for folder in (root, root / "runs"):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, os.strerror(13))
    return Store(root)
