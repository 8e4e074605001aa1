"""manifest.json: what a run is, the hash and size of every other file, and its own seal.

The first line after the brace is the SHA-256 of everything that follows it, so a flipped byte anywhere in
the file, white space included, is found.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

from meltbench.errors import InternalError, StoreError
from meltbench.paths import sha256_of
from meltbench.store import fs

FOLDER_VERSION = 1
MANIFEST = "manifest.json"
TICKET = "ticket.json"
MAX_JSON_BYTES = 64 << 20
MAX_TEXT = 1 << 20

_OWN_KEYS = ("schema_version", "files")
_SEAL = '{{\n "manifest_sha256": "{}",\n'
# Tab and line ends are text. The rest of C0, DEL and C1 drive terminals, and a lone surrogate has no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def harmless(text: str) -> str:
    r"""Return ``text`` with control characters and lone surrogates as visible escapes, cut at 1 MiB.

    >>> harmless("a\x1b[31m")
    'a\\x1b[31m'
    """
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}... [{len(text) - MAX_TEXT} more characters]"
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def clean(value: Any) -> Any:
    """Return a JSON-ready copy: harmless text, None where a number is not finite.

    Raises InternalError for a type that JSON does not have.
    """
    match value:
        case None | bool() | int():
            return value
        case float():
            return float(value) if math.isfinite(value) else None
        case str():
            return harmless(value)
        case list() | tuple():
            return [clean(item) for item in value]
        case dict():
            return {harmless(str(key)): clean(item) for key, item in value.items()}
    raise InternalError(f"a {type(value).__name__} cannot be written into a manifest", hint="please report it")


def dump(value: dict[str, Any]) -> bytes:
    """Return the one JSON text of a dict: sorted keys, ASCII."""
    try:
        text = json.dumps(clean(value), sort_keys=True, indent=1, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise InternalError(f"this manifest cannot be written as JSON: {error}", hint="please report it") from error
    return text.encode("ascii") + b"\n"


def dump_value(value: Any) -> str:
    """Return the compact JSON text of any value."""
    return json.dumps(clean(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse(raw: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object of ours. Raises StoreError naming the file when it is not one."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{name} is not JSON", hint="meltbench verify lists what is damaged") from error
    if not isinstance(value, dict):
        raise StoreError(f"{name} is not a JSON object", hint="meltbench verify lists what is damaged")
    return value


def read_bounded(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """Read a whole file of at most ``limit`` bytes. Raises StoreError when it is longer or cannot be read."""
    hint = "meltbench verify lists what is damaged"
    with fs.explained(f"read {path}", hint=hint), open(path, "rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise StoreError(f"{path} is longer than {limit} bytes", hint=hint)
    return raw


def seal(record: dict[str, Any], files: dict[str, dict[str, Any]]) -> bytes:
    """Return the bytes of manifest.json for a record's manifest and its file list."""
    rest = dump(of_record(record))
    # File names are keys that must be found again on disk, so they are escaped by JSON, not made harmless.
    own = json.dumps({"files": files, "schema_version": FOLDER_VERSION}, sort_keys=True, indent=1).encode("ascii")
    body = own[2:-2] + (b",\n" + rest[2:] if rest != b"{}\n" else b"\n}\n")
    return _SEAL.format(hashlib.sha256(body).hexdigest()).encode("ascii") + body


def open_sealed(raw: bytes, name: str) -> dict[str, Any]:
    """Return the whole manifest. Raises StoreError when the seal is broken or the format is newer than ours."""
    length = len(_SEAL.format("0" * 64))
    expected = _SEAL.format(hashlib.sha256(raw[length:]).hexdigest()).encode("ascii")
    if raw[:length] != expected:
        raise StoreError(f"{name} is damaged: its seal does not match", hint="meltbench verify lists what is damaged")
    value = parse(raw, name)
    version = value.get("schema_version")
    if not isinstance(version, int) or version > FOLDER_VERSION:
        raise StoreError(f"{name} has format {version}, this meltbench knows {FOLDER_VERSION}", hint="update meltbench")
    return value


def of_record(value: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest as the record had it, without the store's own keys."""
    return {key: item for key, item in value.items() if key not in (*_OWN_KEYS, "manifest_sha256")}


def inventory(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash and flush every file of a run folder but the manifest: {relative path: {sha256, bytes}}.

    Raises StoreError at anything that is not a plain file or folder.
    """
    files = {}
    for entry in fs.walk(folder):
        path = Path(entry.path)
        name = str(path.relative_to(folder))
        if entry.is_dir(follow_symlinks=False):
            fs.sync(path)
        elif not entry.is_file(follow_symlinks=False):
            raise StoreError(f"{path} is not a plain file", hint="move it out of the run folder and collect again")
        elif name != MANIFEST:
            fs.sync(path)
            files[name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    fs.sync(folder)
    return files
