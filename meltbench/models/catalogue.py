"""The catalogue of models: data/models.toml of the search path, read as one.

A model has artifacts, the forms that engines take it in. Tables of one name are one model, in whichever file they
stand: of a key the nearest file's counts (the working folder, then the user's, then what is shipped); its artifacts
come after those that are shipped, or replace the one of their name.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench.catalog import data_files
from meltbench.errors import DefinitionError
from meltbench.models import hub
from meltbench.models.hashes import SHA256
from meltbench.models.header import FOLDERS, Format
from meltbench.models.index import PACKAGE
from meltbench.tables import read_table, read_toml

if TYPE_CHECKING:
    from pathlib import Path

CATALOGUE = "data/models.toml"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")


@dataclass(frozen=True)
class Artifact:
    """One form of a model: a member of a wheel on the package index, a file or folder of the hub, or a path here.

    ``name`` is by default its model's with the quantisation. ``folder`` is one of the repository's, "" its top.
    ``sha256`` is None where nobody has verified it. ``descends_from``: what it was requantised from.
    """

    format: Format = "gguf"
    name: str | None = None
    quantisation: str | None = None
    package: str | None = None
    member: str | None = None
    repo: str | None = None
    file: str | None = None
    folder: str = ""
    revision: str = "main"
    path: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    bits_per_weight: float | None = None
    descends_from: str | None = None

    def __post_init__(self) -> None:
        if [self.package, self.repo, self.path].count(None) != 2:
            raise ValueError("expected one of package (with member), repo (with file or folder) and path")
        if self.format == "served":
            raise ValueError("a model that a server knows needs no entry")
        if self.package is not None and not (PACKAGE.match(self.package) and _member_ok(self.member)):
            raise ValueError("package: expected package = 'name==version' and member = 'path/in/wheel'")
        if self.repo is not None:
            self._check_hub(self.repo)
        if self.path is not None and not self.path.startswith(("/", "~/")):
            raise ValueError(f"path: expected one that starts with / or ~/, got {self.path!r}")
        if self.name is not None and not NAME.match(self.name):
            raise ValueError(f"name: expected letters, digits, '.', '_' and '-', got {self.name!r}")
        if self.sha256 is not None and (not SHA256.match(self.sha256) or self.path is not None):
            raise ValueError("sha256: expected 64 hexadecimal digits, of what is fetched")

    def _check_hub(self, repo: str) -> None:
        file_ok = self.file is None if self.format in FOLDERS else bool(hub.FILE.match(self.file or ""))
        if not (hub.NAME.match(repo) and file_ok and (not self.folder or hub.FOLDER.match(self.folder))):
            raise ValueError("repo: expected repo = 'owner/repo' with file = 'name.gguf', or of a folder without file")


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue, or an alias: another name of a model or of one artifact.

    ``parameters_billion`` are all of them, ``active_billion`` those of one token where not all are used.
    ``context_tokens`` and ``license`` are as its publisher states them; ``chat_template`` names the form of its
    conversations.
    """

    name: str
    alias_of: str | None = None
    title: str | None = None
    license: str | None = None
    parameters_billion: float | None = None
    active_billion: float | None = None
    context_tokens: int | None = None
    chat_template: str | None = None
    artifact: tuple[Artifact, ...] = ()

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise ValueError(f"name: expected letters, digits, '.', '_' and '-', got {self.name!r}")
        if (self.alias_of is not None) == bool(self.artifact):
            raise ValueError(f"{self.name}: expected either alias_of or artifacts")
        names = [self.name_of(one) for one in self.artifact]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{self.name}: two artifacts are called {twice!r}: give one a name of its own")

    def name_of(self, artifact: Artifact) -> str:
        """What the artifact is called: ``name``, else its model's name with its quantisation, which may end it."""
        ending = f"-{(artifact.quantisation or '').lower()}"
        if artifact.name is not None:
            return artifact.name
        return self.name if ending == "-" or self.name.lower().endswith(ending) else self.name + ending


@dataclass(frozen=True)
class _Catalogue:
    model: tuple[Entry, ...] = ()


def catalogue() -> dict[str, Entry]:
    """Return the models and aliases of every models.toml on the search path, by name.

    DefinitionError names the file that is malformed.
    """
    entries: dict[str, Entry] = {}
    for path, _ in data_files(CATALOGUE):
        for name, entry in _of_file(path).items():
            entries[name] = _merged(entries[name], entry, path) if name in entries else entry
    return dict(sorted(entries.items()))


def artifacts(entries: dict[str, Entry]) -> dict[str, tuple[Entry, Artifact]]:
    """Return every artifact by its name; where two have one, the first model's."""
    found: dict[str, tuple[Entry, Artifact]] = {}
    for entry in entries.values():
        for artifact in entry.artifact:
            found.setdefault(entry.name_of(artifact), (entry, artifact))
    return found


def _of_file(path: Path) -> dict[str, Entry]:
    own: dict[str, Entry] = {}
    for entry in read_table(_Catalogue, read_toml(path), path).model:
        if (other := own.get(entry.name)) is None:
            own[entry.name] = entry
        elif entry.alias_of is not None or other.alias_of is not None:
            raise DefinitionError(f"{path}: two entries are called {entry.name!r}", hint="one is an alias: rename it")
        else:
            own[entry.name] = _merged(entry, other, path)
    return own


def _merged(first: Entry, other: Entry, path: Path) -> Entry:
    """What both say: keys of ``first``, artifacts of ``other`` and then of ``first``, which replaces by name."""
    if first.alias_of is not None or other.alias_of is not None:
        return first
    own = {first.name_of(one): one for one in first.artifact}
    shared = [own.pop(other.name_of(one), one) for one in other.artifact]
    keys = [field.name for field in dataclasses.fields(Entry) if field.name != "artifact"]
    said = {key: getattr(other, key) if getattr(first, key) is None else getattr(first, key) for key in keys}
    try:
        return Entry(**said, artifact=(*shared, *own.values()))
    except ValueError as error:
        raise DefinitionError(f"{path}: {error}") from error


def _member_ok(member: str | None) -> bool:
    return bool(member) and member is not None and not {"", ".", ".."} & set(member.split("/")) and "\\" not in member
