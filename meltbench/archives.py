"""Unpacks an engine's release archive into the cache, once, by the archive's own hash; nothing may land outside."""

from __future__ import annotations

import errno
import tarfile
import zipfile
from pathlib import Path

from meltbench.errors import UserError
from meltbench.models.hashes import file_sha256
from meltbench.paths import cache_dir

_MAX_ARCHIVE_BYTES = 8 << 30
_MAX_MEMBERS = 20_000


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar archive, compressed or not; also a damaged one, which ``unpacked`` explains."""
    import lzma
    import zlib

    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except (EOFError, zlib.error, lzma.LZMAError):
        return True


def unpacked(archive: Path) -> Path:
    """The folder an archive is unpacked in. Raises UserError for one that cannot or must not be."""
    target = cache_dir() / "engines" / file_sha256(archive)
    if target.is_dir():
        return target
    import lzma
    import shutil
    import tempfile
    import zlib

    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unpack-"))
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, work)
        else:
            _untar(archive, work)
        work.rename(target)
    except (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}", hint="fetch it again; do not trust it") from None
    except OSError as error:
        if target.is_dir():  # another process unpacked the same archive meanwhile
            return target
        if error.errno not in (None, errno.EINVAL):  # the disk's, told as it is; EINVAL is a seek to nowhere
            raise
        raise UserError(f"{archive} cannot be unpacked: {error}", hint="fetch it again") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _unzip(archive: Path, work: Path) -> None:
    with zipfile.ZipFile(archive) as bundle:
        members = bundle.infolist()
        _bounded(archive, len(members), sum(m.file_size for m in members))
        for member in members:
            if ".." in Path(member.filename).parts or Path(member.filename).is_absolute():
                raise UserError(
                    f"{archive} has a member outside its folder: {member.filename!r}", hint="do not trust it"
                )
            out = Path(bundle.extract(member, work))
            if (mode := member.external_attr >> 16 & 0o777) and out.is_file():
                out.chmod(mode | 0o600)


def _untar(archive: Path, work: Path) -> None:
    with tarfile.open(archive) as bundle:
        members = bundle.getmembers()
        _bounded(archive, len(members), sum(m.size for m in members))
        bundle.extractall(work, filter="data")


def _bounded(archive: Path, count: int, size: int) -> None:
    if count > _MAX_MEMBERS or size > _MAX_ARCHIVE_BYTES:
        raise UserError(f"{archive} unpacks to {count} files of {size} bytes", hint="that is not an engine's archive")
