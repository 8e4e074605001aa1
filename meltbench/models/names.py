"""From what the user typed to one model: a catalogue name, a path to a file or folder, a name on the hub, or one that
only a server knows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from meltbench.catalog import data_files
from meltbench.errors import DefinitionError, ModelDamaged, UnknownName, UserError
from meltbench.models import hub
from meltbench.models.gguf import read_gguf
from meltbench.models.hashes import SHA256, pinned
from meltbench.models.header import Format, files_of, format_of, in_words, sha256_of_model
from meltbench.models.index import PACKAGE
from meltbench.tables import read_table, read_toml

CATALOGUE = "data/models.toml"


@dataclass(frozen=True)
class Entry:
    """One entry of the catalogue, as written in models.toml: an alias, or a file in an index package or on the hub."""

    name: str
    alias_of: str | None = None
    title: str = ""
    source: Literal["index", "hub"] | None = None
    package: str | None = None
    member: str | None = None
    repo: str | None = None
    revision: str = "main"
    file: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    bits_per_weight: float | None = None
    quantisation: str | None = None
    license: str | None = None

    def __post_init__(self) -> None:
        kinds = [self.alias_of is not None, self.source == "index", self.source == "hub"]
        if sum(kinds) != 1:
            raise ValueError(f"{self.name}: expected either alias_of or source")
        if self.source == "index" and not (PACKAGE.match(self.package or "") and _member_ok(self.member)):
            raise ValueError(
                f"{self.name}: source 'index' needs package = 'name==version' and member = 'path/in/wheel'"
            )
        if self.source == "hub" and not (hub.NAME.match(self.repo or "") and hub.FILE.match(self.file or "")):
            raise ValueError(f"{self.name}: source 'hub' needs repo = 'owner/repo' and file = 'name.gguf'")
        if self.sha256 is not None and not SHA256.match(self.sha256):
            raise ValueError(f"{self.name}: sha256: expected 64 hexadecimal digits")


@dataclass(frozen=True)
class _Catalogue:
    model: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class IndexSource:
    """A member of a wheel; ``package`` is "name==version"."""

    package: str
    member: str

    def __str__(self) -> str:
        return f"index:{self.package}:{self.member}"


@dataclass(frozen=True)
class HubSource:
    """A file of a hub repository."""

    repo: str
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hub:{self.repo}@{self.revision}:{self.file}"


@dataclass(frozen=True)
class FileSource:
    """A file or folder of the user's."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class ServedSource:
    """Nothing on this machine: a server has it."""

    name: str

    def __str__(self) -> str:
        return f"served:{self.name}"


@dataclass(frozen=True)
class Model:
    """One model as resolved.

    ``name`` is canonical, ``asked`` what was typed. ``sha256`` is None until the first pull of an unpinned file;
    ``sha256_from`` says whose word it is. Sizes and bits per weight are None where nobody has said.
    """

    name: str
    asked: str
    source: IndexSource | HubSource | FileSource | ServedSource
    filename: str
    format: Format = "gguf"
    title: str = ""
    size_bytes: int | None = None
    sha256: str | None = None
    sha256_from: Literal["catalogue", "pin", "file"] | None = None
    bits_per_weight: float | None = None
    quantisation: str | None = None
    license: str | None = None

    @property
    def stands_for(self) -> str | None:
        """The sentence to say when an alias was typed, else None."""
        is_alias = self.asked != self.name and not isinstance(self.source, FileSource | ServedSource)
        weight = f", {self.bits_per_weight:g} bits per weight" if self.bits_per_weight else ""
        return f"{self.asked} stands for {self.name}{weight}" if is_alias else None


def catalogue() -> dict[str, Entry]:
    """Return the entries of every models.toml on the search path, by name; the first found of a name wins."""
    entries: dict[str, Entry] = {}
    for path, _ in data_files(CATALOGUE):
        own: dict[str, Entry] = {}
        for entry in read_table(_Catalogue, read_toml(path), path).model:
            if entry.name in own:
                raise DefinitionError(f"{path}: two models are called {entry.name!r}")
            own[entry.name] = entry
        entries = own | entries
    return dict(sorted(entries.items()))


def resolve(text: str, formats: tuple[Format, ...] = ("gguf",)) -> Model:
    """Return the model that ``text`` names: in the catalogue, a path to a file or a folder, "owner/repo:file.gguf" or
    "owner/repo" (asks the hub). Of an engine that takes what is served any name is one.

    A catalogue name wins over a file of that name. UnknownName knows the nearest names; UserError: a path that is
    not there, not a model, or one that is in none of the ``formats``; FetchError: the hub cannot be reached.
    """
    if "served" in formats:
        return _served(text)
    model = _resolve(text)
    if model.format not in formats:
        raise UserError(f"{text} is {in_words((model.format,))}", hint=f"this engine takes {in_words(formats)}")
    return model


def _resolve(text: str) -> Model:
    entries = catalogue()
    if text in entries:
        return _from_entry(text, entries)
    path = Path(text).expanduser()
    # Not Path.is_file, which raises for a name too long to be one.
    is_model = os.path.isfile(path) or (os.path.isdir(path) and format_of(path) is not None)
    if is_model and (path.suffix in (".gguf", ".onnx") or os.path.isdir(path) or os.sep in text):
        return _from_file(text, path)
    repo, _, file = text.partition(":")
    if file and hub.NAME.match(repo):
        hub.check_file(file)
        return _from_hub(text, HubSource(repo, file))
    if path.suffix in (".gguf", ".onnx") or text.startswith(("/", "./", "../", "~")):
        hint = "check the path"
        if os.path.isdir(path):
            hint = "name the .gguf in it; a folder is a model with genai_config.json or mlc-chat-config.json in it"
        raise UserError(f"no model file at {path}", hint=hint)
    if hub.NAME.match(text):
        file = hub.only_gguf(text)
        hub.check_file(file)
        return _from_hub(text, HubSource(text, file))
    raise UnknownName("model", text, entries)


_MAX_NAME = 200


def _served(text: str) -> Model:
    if not text or len(text) > _MAX_NAME or not text.isprintable():
        raise UserError("a model's name is a printable text", hint=f"of at most {_MAX_NAME} characters")
    return Model(name=text, asked=text, source=ServedSource(text), filename="", format="served")


def _from_entry(asked: str, entries: dict[str, Entry]) -> Model:
    entry, passed = entries[asked], [asked]
    while entry.alias_of is not None:
        if entry.alias_of not in entries or entry.alias_of in passed:
            raise DefinitionError(
                f"{CATALOGUE}: {entry.name} is an alias of {entry.alias_of!r}, which is no model",
                hint="an alias names an entry with a source",
            )
        entry = entries[entry.alias_of]
        passed.append(entry.name)
    source: IndexSource | HubSource
    if entry.source == "index":
        source = IndexSource(entry.package or "", entry.member or "")
        filename = PurePosixPath(source.member).name
    else:
        source = HubSource(entry.repo or "", entry.file or "", entry.revision)
        filename = PurePosixPath(source.file).name
    pin = None if entry.sha256 else pinned(str(source))
    return Model(
        name=entry.name,
        asked=asked,
        source=source,
        filename=filename,
        title=entry.title,
        size_bytes=entry.size_bytes,
        sha256=entry.sha256 or pin,
        sha256_from="catalogue" if entry.sha256 else "pin" if pin else None,
        bits_per_weight=entry.bits_per_weight,
        quantisation=entry.quantisation,
        license=entry.license,
    )


def _from_hub(asked: str, source: HubSource) -> Model:
    pin = pinned(str(source))
    return Model(
        name=f"{source.repo}:{source.file}",
        asked=asked,
        source=source,
        filename=PurePosixPath(source.file).name,
        sha256=pin,
        sha256_from="pin" if pin else None,
    )


def _from_file(asked: str, path: Path) -> Model:
    kind = format_of(path) or "gguf"
    head = None
    if kind == "gguf":
        try:
            head = read_gguf(path)
        except ModelDamaged:  # a run of it is stored as failed: road.prepare meets the same error
            head = None
    return Model(
        name=path.stem if path.is_file() else path.resolve().name,
        asked=asked,
        source=FileSource(path.absolute()),
        filename=path.name,
        format=kind,
        title=(head.name if head else None) or "",
        size_bytes=sum(one.stat().st_size for one in files_of(path)),
        sha256=sha256_of_model(path),
        sha256_from="file",
        bits_per_weight=head.bits_per_weight if head else None,
        quantisation=head.file_type if head else None,
    )


def _member_ok(member: str | None) -> bool:
    return bool(member) and member is not None and not {"", ".", ".."} & set(member.split("/")) and "\\" not in member
