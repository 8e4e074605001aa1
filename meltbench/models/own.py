"""The user's own catalogue, ~/.config/meltbench/data/models.toml: tables are only ever added at its end."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

from meltbench.errors import DefinitionError, UserError
from meltbench.models.catalogue import CATALOGUE, NAME, Artifact, Entry, artifacts, catalogue
from meltbench.models.names import FileSource, FolderSource, HubSource
from meltbench.paths import alone, config_dir
from meltbench.tables import MAX_TOML_BYTES, parse_toml, read_bounded, read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meltbench.models.names import Model

_HEAD = "# Models of your own, and artifacts of those that meltbench knows: its docs/models.md.\n"


def path() -> Path:
    """The file; it need not be there."""
    return config_dir() / CATALOGUE


def check_name(name: str) -> None:
    """UserError unless ``name`` can be given to a model: it is well-formed, and the catalogue does not have it."""
    if not NAME.match(name):
        raise UserError(f"{name[:80]!r} cannot be a model's name", hint="expected letters, digits, '.', '_' and '-'")
    entries = catalogue()
    if name in entries or name in artifacts(entries):
        raise UserError(f"{name} is in the catalogue already", hint=f"take another name, or edit {path()}")


def entry_of(name: str, model: Model) -> Entry:
    """A model that was resolved as an entry of the catalogue. UserError for one of the package index."""
    source = model.source
    if isinstance(source, FileSource):
        where: dict[str, Any] = {"path": str(source.path)}
    elif isinstance(source, HubSource):
        where = {"repo": source.repo, "file": source.file, "revision": source.revision}
    elif isinstance(source, FolderSource):
        where = {"repo": source.repo, "folder": source.folder, "revision": source.revision}
    else:
        raise UserError(f"{model.name} has a name", hint="give a path, or owner/repo:file.gguf")
    artifact = Artifact(model.format, name, model.quantisation, **where)
    return Entry(name, title=model.title or None, license=model.license, artifact=(artifact,))


def add(entry: Entry) -> Path:
    """Write a model, or artifacts of one that is known, into the user's catalogue; comments and all else stay.

    The file is replaced in one step, by one process at a time. The caller has checked the name. UserError: it cannot
    be written, or would not be read back as it was meant.
    """
    where = path()
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        with alone(where.with_name(f".{where.name}.lock"), lambda: None):
            before = read_bounded(where).decode("utf-8") if where.exists() else _HEAD
            text = before.rstrip("\n") + "\n\n" + "\n".join(_lines(entry)) + "\n"
            _check(text, entry, where)
            _replace(where, text)
    except OSError as error:
        raise UserError(f"cannot write {where}: {error.strerror or error}", hint="set XDG_CONFIG_HOME") from error
    return where


def _lines(entry: Entry) -> Iterator[str]:
    yield "[[model]]"
    yield from _keys(entry, ("artifact",))
    for artifact in entry.artifact:
        yield "[[model.artifact]]"
        yield from _keys(artifact, ())


def _keys(table: Entry | Artifact, without: tuple[str, ...]) -> Iterator[str]:
    """Every key that is not at its default."""
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        if field.name not in without and value != field.default:
            yield f"{field.name} = {json.dumps(value, ensure_ascii=False)}"


@dataclasses.dataclass(frozen=True)
class _File:
    model: tuple[Entry, ...] = ()


def _check(text: str, entry: Entry, where: Path) -> None:
    content = text.encode("utf-8", "surrogateescape")
    try:
        last = read_table(_File, parse_toml(content, where), where).model[-1]
    except DefinitionError as error:
        raise UserError(f"{entry.name} cannot be added: {error.message}", hint=error.hint) from error
    if last != entry or len(content) > MAX_TOML_BYTES:
        raise UserError(f"{entry.name} cannot be added to {where}", hint="edit it there by hand")


def _replace(where: Path, text: str) -> None:
    where = where.resolve()  # what a link points at is what is replaced
    scratch = where.with_name(f".{where.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(where)
    finally:
        scratch.unlink(missing_ok=True)
