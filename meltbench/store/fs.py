"""Writes that are either there in full after a crash or not there at all, and the locks around them."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meltbench.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meltbench.deadline import Deadline

_POLL_S = 0.02


@contextmanager
def explained(doing: str, *, hint: str) -> Iterator[None]:
    """Turn an error of the operating system into a StoreError that says what is safe and what to do next."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise StoreError(f"cannot {doing}: {why}", hint=hint) from error


@contextmanager
def locked(path: Path, deadline: Deadline, *, what: str) -> Iterator[None]:
    """Hold the exclusive lock of a file (made if absent) or a folder; a killed holder's lock ends with it.

    Raises StoreError when another process still holds it at the deadline.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        while not _try_lock(descriptor):
            if deadline.remaining() <= 0:
                raise StoreError(f"another process has been {what} for too long", hint="try again when it is done")
            time.sleep(min(_POLL_S, deadline.remaining()))
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_atomic(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` durably: a reader or a crash sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or the entries of a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield everything below ``folder``, sorted, folders before what they hold; no link is followed."""
    with os.scandir(folder) as entries:
        here = sorted(entries, key=lambda entry: entry.name)
    for entry in here:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from walk(folder / entry.name)
