"""Files of question sets on the hub: fetched once into the user's cache, pinned at the first pull."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from meltbench.errors import FetchError, ModelDamaged, UserError
from meltbench.models import hub
from meltbench.models.download import Patience, TooLarge, download, drop
from meltbench.models.hashes import file_sha256, pin, pinned, pins_path
from meltbench.paths import alone, cache_dir, sha256_of
from meltbench.questions.rows import MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from meltbench.watch import Watch

_FILE = re.compile(r"(?!.*\.\.)[\w.+-]+(/[\w.+-]+)*\Z", re.ASCII)


@dataclass(frozen=True)
class HubFile:
    """A file of a repository of data on the hub."""

    repo: str
    revision: str
    file: str

    def __post_init__(self) -> None:
        if not hub.NAME.match(self.repo) or not _FILE.match(self.file):
            raise UserError(f"{self.repo}:{self.file} is no file of the hub", hint="expected owner/repo and a file")

    def __str__(self) -> str:
        return f"hub:datasets/{self.repo}@{self.revision}:{self.file}"


def fetched(wanted: HubFile, option: str, watch: Watch | None = None) -> Path:
    """Where the file lies on this machine; ``option`` says how it could be given instead. ``watch`` is told of a
    download.

    What was fetched once is used without asking the hub. Raises FetchError with the address to download from and what
    to do with it, ModelDamaged where the file changed since it was pinned.
    """
    source, name = str(wanted), PurePosixPath(wanted.file).name
    folder = cache_dir() / "questions"
    if (path := _kept(folder, source, name)) is not None:
        return path
    partial = folder / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    part = partial / f"{hashlib.sha256(source.encode()).hexdigest()[:24]}-{name}"

    def waits() -> None:
        if watch is not None:
            watch.say(f"another process is fetching {name}; waiting for it")

    def progress(done: int, total: int | None) -> None:
        if watch is not None:
            watch.fetched(done, total, f"fetching {wanted.repo}: {wanted.file}")

    with alone(part.with_name(part.name + ".lock"), waits):
        if (path := _kept(folder, source, name)) is not None:
            return path
        # What is larger is not read either, and nothing has said how large a file of data may be.
        remote = hub.remote(f"datasets/{wanted.repo}", wanted.revision, wanted.file, None)
        remote = replace(remote, most_bytes=MAX_BYTES)
        try:
            download(remote, part, progress, Patience())
        except FetchError as error:
            if large := isinstance(error, TooLarge):
                drop(part)  # no more of it will ever be wanted
            cut = ", cut it to the rows that are asked," if large else ""
            raise FetchError(
                f"{wanted.repo} cannot be fetched: {error.message}",
                hint=f"download {_page(wanted)} by other means{cut} and give it: {option}",
            ) from error
        sha256 = sha256_of(part)
        if (known := pinned(source)) is not None and known != sha256:
            drop(part)
            raise ModelDamaged(
                f"{wanted.repo}: {wanted.file} is not the file it was: sha256 {known} before, {sha256} now",
                hint=f"take its line out of {pins_path()} to accept the new one",
            )
        if known is None:
            pin(source, sha256)
        target = folder / sha256 / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        return target


def _page(wanted: HubFile) -> str:
    """Its address, for a person: without what a password may be in."""
    return hub.page(f"datasets/{wanted.repo}", wanted.revision, wanted.file)


def _kept(folder: Path, source: str, name: str) -> Path | None:
    known = pinned(source)
    path = folder / known / name if known else None
    return path if path is not None and path.is_file() and file_sha256(path) == known else None
