"""A folder of the hub as one model: every file of it at one commit, each resumed where it stopped."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from meltbench.errors import FetchError, ModelDamaged
from meltbench.models import hub
from meltbench.models.download import checked, drop
from meltbench.models.header import CONFIGS
from meltbench.paths import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from meltbench.models.download import Patience, Progress
    from meltbench.models.names import FolderSource, Model


def pull(
    model: Model, source: FolderSource, scratch: Path, progress: Progress, patience: Patience
) -> tuple[Path, hub.Listing]:
    """Bring the files of ``source`` together below ``scratch``; return the folder and the listing that it follows.

    What has come stays, also on Ctrl-C, and the next call goes on from there if the repository is at the same commit.
    """
    listing = hub.listing(source.repo, source.revision)
    files = hub.members(listing, source.folder)
    config = next(name for name, kind in CONFIGS.items() if kind == model.format)
    if config not in {one.name for one in files}:
        raise FetchError(f"{model.name} holds no {config}", hint="name the folder of the repository that does")
    target = _scratch(scratch, listing.revision)
    done, whole = 0, sum(one.size_bytes or 0 for one in files)
    for one in files:
        path = target / one.name
        if not path.is_file():
            inside = f"{source.folder}/{one.name}" if source.folder else one.name
            remote = hub.remote(source.repo, listing.revision, inside, one.size_bytes)
            part = target / f".{one.name}.part"
            rest = max(whole - done - (one.size_bytes or 0), 0)
            told = _from(progress, done, whole)
            got = checked(remote, part, one.sha256, f"{one.name} of {model.name}", told, patience, rest)
            if one.sha256 is None and got.stated_sha256 is not None:
                _as_stated(part, got.stated_sha256, one.name)
            _settle(part, path)
        done += path.stat().st_size
    progress(done, max(whole, done))
    return target, listing


def _scratch(scratch: Path, revision: str) -> Path:
    """The folder in which this commit is put together; what another commit left is removed."""
    target = scratch.with_name(f"{scratch.name}.{revision[:40].replace('/', '-')}.d")
    for old in scratch.parent.glob(f"{scratch.name}.*.d"):
        if old != target:
            shutil.rmtree(old)
    target.mkdir(exist_ok=True)
    return target


def _from(progress: Progress, before: int, whole: int) -> Progress:
    """Progress of one file as that of all."""
    return lambda done, _: progress(before + done, max(whole, before + done))


def _as_stated(part: Path, sha256: str, name: str) -> None:
    if (found := sha256_of(part)) != sha256:
        drop(part)
        raise ModelDamaged(f"{name}: the hub says sha256 {sha256}, but the file has {found}", hint="try again")


def _settle(part: Path, path: Path) -> None:
    """A file has its name once it is whole."""
    part.with_name(part.name + ".json").unlink(missing_ok=True)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
