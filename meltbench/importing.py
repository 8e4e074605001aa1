"""Recordings of other tools taken into the store: their files are the evidence, kept as they are beside the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.collecting import index
from meltbench.errors import StoreError, UserError
from meltbench.imports.melt.record import record, run_id, ticket
from meltbench.store import fs
from meltbench.store.index import refresh

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from meltbench.imports.foreign import File, Imported
    from meltbench.imports.melt.account import Told
    from meltbench.imports.melt.study import Study
    from meltbench.records import RunRecord
    from meltbench.store import RunFolder, Store
    from meltbench.watch import Watch

MAX_KEPT_BYTES = (
    64 << 20
)  # of one file; a meter's recording of hours is named by its hash, and what was used of it kept
_MAX_ATTEMPTS = 10  # at a name: those with the same six digits within one second are different runs


def store_melt(store: Store, study: Study, told: Sequence[Told], files: Mapping[str, File], watch: Watch) -> list[Path]:
    """Store each conversation as a run; the folders. What is there already is left, with a word.

    Raises UserError where a conversation has no time, StoreError where the disk refuses.
    """
    made = []
    for one in told:
        evidence, left_out = _kept(_evidence_of(study, one, files))
        name = run_id(one, evidence)
        if name is None:
            what = f"iteration {one.conversation.iteration}, conversation {one.conversation.number}"
            raise UserError(f"{what} has no time in any of its files", hint="leave out --store")
        folder = store.folder(name)
        if folder.stored:
            _told_again(name, watch)
        else:
            about = ticket(study, one, evidence, left_out)
            _commit(store, folder, about, evidence, lambda: record(study, one, name, evidence, left_out))  # noqa: B023
            index(store, name, watch)
        made.append(folder.path)
    return made


def store_imported(
    store: Store,
    runs: Sequence[Imported],
    watch: Watch,
    counted: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Path]:
    """Store these runs of another tool; the folders. What is there already is left, with a word.

    ``counted`` is told what is done, how many of it and of how many. Raises StoreError where the disk refuses.
    """
    made = []
    for number, one in enumerate(runs):
        counted("storing runs", number, len(runs))
        folder, known = _place(store, one)
        if known:
            _told_again(folder.run_id, watch)
        else:
            evidence, left_out = _kept(one.files)
            _commit(
                store,
                folder,
                one.manifest(left_out),
                evidence,
                lambda: one.record(folder.run_id, left_out),  # noqa: B023
            )
        made.append(folder.path)
    _index(store, watch, lambda done, total: counted("indexing runs", done, total))
    return made


def _index(store: Store, watch: Watch, progress: Callable[[int, int], None]) -> None:
    """Bring all of them into the index at once: each alone would copy all of it."""
    try:
        refresh(store, progress)
    except StoreError as error:  # as in collecting.index: they are stored, and the index can be made at any time
        watch.warn(f"the runs are stored, their index is not: {error.message}; then: {store.command('rebuild')}")


def _place(store: Store, one: Imported) -> tuple[RunFolder, bool]:
    """The folder of a run, and whether it is stored there already."""
    for attempt in range(_MAX_ATTEMPTS):
        folder = store.folder(one.run_id(attempt))
        if not folder.stored:
            return folder, False
        held: Any = store.entry(folder.run_id).info.get("imported")
        if isinstance(held, dict) and held.get("digest") == one.digest:
            return folder, True
    raise StoreError(f"{folder.run_id} and {_MAX_ATTEMPTS - 1} names like it are other runs' in this store")


def _told_again(name: str, watch: Watch) -> None:
    watch.say(f"{name} is in this store already: these files were imported before")


def _commit(
    store: Store, folder: RunFolder, about: dict[str, Any], evidence: Sequence[File], made: Callable[[], RunRecord]
) -> None:
    """Make the folder with its ticket and its evidence, and store the record; nothing is left where that fails."""
    if folder.path.exists():
        store.discard(folder)  # what an earlier import left behind when it was killed
    folder = store.adopt(folder.run_id, about)
    try:
        for place, file in _names(evidence).items():
            with fs.explained(f"keep {file.path} in {folder.evidence}", hint="free space, then import it again"):
                fs.write_atomic(folder.evidence / place, file.raw)
        store.commit(folder, made())
    except StoreError:
        store.discard(folder)
        raise


def _evidence_of(study: Study, told: Told, files: Mapping[str, File]) -> list[File]:
    """The files that a conversation was made of."""
    conversation = told.conversation
    power = study.power_files.get(conversation.iteration, study.power_files.get(None, []))
    shared = [path for path, kind in study.kinds.items() if kind in ("configuration", "stages")]
    return [files[path] for path in dict.fromkeys([*told.files, *power, *shared])]


def _kept(mine: Sequence[File]) -> tuple[list[File], dict[str, str]]:
    """The files that are kept with a run, and those that are too large to be kept with every one."""
    why = f"larger than {MAX_KEPT_BYTES >> 20} MiB; its samples around the run are kept"
    large = {file.name: why for file in mine if len(file.raw) > MAX_KEPT_BYTES}
    return [file for file in mine if len(file.raw) <= MAX_KEPT_BYTES], large


def _names(evidence: Sequence[File]) -> dict[str, File]:
    """A name of its own for each file."""
    out: dict[str, File] = {}
    for file in evidence:
        name = file.name
        while name in out:
            name = f"2-{name}"
        out[name] = file
    return out
