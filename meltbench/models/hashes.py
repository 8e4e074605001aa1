"""SHA-256 of large files, remembered by path, size and modification time; and the pins of files first seen here."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from meltbench.errors import DefinitionError, UserError
from meltbench.paths import cache_dir, config_dir
from meltbench.tables import read_table, read_toml

if TYPE_CHECKING:
    from pathlib import Path

MAX_REMEMBERED = 1000
_ONE_AT_A_TIME = threading.Lock()  # threads that measure with one model hash it once, and forget no other's file
SHA256 = re.compile(r"[0-9a-f]{64}\Z")

_PINS_HEAD = """\
# What each file was when it was first pulled. A later pull that differs is refused;
# delete its line to accept the new file.
[pins]
"""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, from memory when its path, size and mtime_ns are as they were.

    UserError when the file cannot be read.
    """
    path = path.absolute()
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            mark = [stat.st_size, stat.st_mtime_ns]
            if (known := _known(path, mark)) is not None:
                return known
            with _ONE_AT_A_TIME:
                if (known := _known(path, mark)) is not None:
                    return known
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                _remember(str(path), [*mark, digest])
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return digest


def _known(path: Path, mark: list[int]) -> str | None:
    known = _remembered().get(str(path))
    return str(known[2]) if known and known[:2] == mark else None


def remembered_names() -> dict[str, set[str]]:
    """The names of the files that were hashed on this machine, by SHA-256; they may be gone by now."""
    names: dict[str, set[str]] = {}
    for path, mark in _remembered().items():
        names.setdefault(str(mark[2]), set()).add(path.rpartition("/")[2])
    return names


@dataclass(frozen=True)
class _Pins:
    pins: dict[str, str] = field(default_factory=dict)


def pins_path() -> Path:
    """Return the file of pins, in the user's configuration so that clearing the cache does not lose them."""
    return config_dir() / "pins.toml"


def pins() -> dict[str, str]:
    """Return what every pulled file was, by its source ("hub:owner/repo@revision:file", a folder ends in "/")."""
    path = pins_path()
    return read_table(_Pins, read_toml(path), path).pins if path.exists() else {}


def pinned(key: str) -> str | None:
    """Return the SHA-256 that ``key`` was pinned to at its first pull."""
    found = pins().get(key)
    if found is not None and not SHA256.match(found):
        raise DefinitionError(f"{pins_path()}: pins.{key}: expected 64 hexadecimal digits, got {found!r}")
    return found


def pin(key: str, sha256: str) -> None:
    """Add a pin. Lines are only ever appended, so what the user wrote there stays."""
    path = pins_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not os.fstat(file.fileno()).st_size:
            file.write(_PINS_HEAD)
        file.write(f'{json.dumps(key)} = "{sha256}"\n')


def _memory() -> Path:
    return cache_dir() / "hashes.json"


def _remembered() -> dict[str, list[object]]:
    """Return what is remembered; nothing when the file is absent or not as expected: it can be computed again."""
    path = _memory()
    try:
        stat = path.stat()
    except OSError:
        return {}
    return _parsed(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=1)  # asked for each file of an engine many times a run; it is written anew by a rename only
def _parsed(path: Path, _seen: tuple[int, int, int]) -> dict[str, list[object]]:
    try:
        memory = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(memory, dict):
        return {}
    return {k: v for k, v in memory.items() if isinstance(v, list) and len(v) == 3 and SHA256.match(str(v[2]))}


def _remember(path: str, mark: list[object]) -> None:
    memory = {k: v for k, v in _remembered().items() if k != path}
    memory = dict(list(memory.items())[-MAX_REMEMBERED + 1 :]) | {path: mark}
    target = _memory()
    scratch = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(memory), encoding="utf-8")
        scratch.replace(target)
    except OSError:
        return  # an unwritable cache costs time, not correctness
