"""Recordings of other tools taken into the store: their files are the evidence, kept as they are beside the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.collecting import index
from meltbench.errors import StoreError, UserError
from meltbench.imports.melt.record import record, run_id, ticket
from meltbench.store import fs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from meltbench.imports.melt.account import Told
    from meltbench.imports.melt.study import File, Study
    from meltbench.store import Store
    from meltbench.watch import Watch

MAX_KEPT_BYTES = (
    64 << 20
)  # of one file: a meter's recording of hours is named by its hash, and what was used of it kept


def store_melt(store: Store, study: Study, told: Sequence[Told], files: Mapping[str, File], watch: Watch) -> list[Path]:
    """Store each conversation as a run; the folders. What is there already is left, with a word.

    Raises UserError where a conversation has no time, StoreError where the disk refuses.
    """
    made = []
    for one in told:
        evidence, left_out = _evidence(study, one, files)
        name = run_id(one, evidence)
        if name is None:
            what = f"iteration {one.conversation.iteration}, conversation {one.conversation.number}"
            raise UserError(f"{what} has no time in any of its files", hint="leave out --store")
        folder = store.folder(name)
        if folder.stored:
            watch.say(f"{name} is in this store already: these files were imported before")
            made.append(folder.path)
            continue
        if folder.path.exists():
            store.discard(folder)  # what an earlier import left behind when it was killed
        folder = store.adopt(name, ticket(study, one, evidence, left_out))
        try:
            for place, file in _names(evidence).items():
                with fs.explained(f"keep {file.path} in {folder.evidence}", hint="free space, then import it again"):
                    fs.write_atomic(folder.evidence / place, file.raw)
            store.commit(folder, record(study, one, name))
        except StoreError:
            store.discard(folder)
            raise
        index(store, name, watch)
        made.append(folder.path)
    return made


def _evidence(study: Study, told: Told, files: Mapping[str, File]) -> tuple[list[File], dict[str, str]]:
    """The files that a conversation was made of, and those that are too large to be kept with every run."""
    conversation = told.conversation
    power = study.power_files.get(conversation.iteration, study.power_files.get(None, []))
    shared = [path for path, kind in study.kinds.items() if kind in ("configuration", "stages")]
    mine = [files[path] for path in dict.fromkeys([*told.files, *power, *shared])]
    large = {file.path for file in mine if len(file.raw) > MAX_KEPT_BYTES}
    why = f"larger than {MAX_KEPT_BYTES >> 20} MiB; its samples around the run are kept"
    return [file for file in mine if file.path not in large], {files[path].name: why for path in large}


def _names(evidence: Sequence[File]) -> dict[str, File]:
    """A name of its own for each file."""
    out: dict[str, File] = {}
    for file in evidence:
        name = file.name
        while name in out:
            name = f"2-{name}"
        out[name] = file
    return out
