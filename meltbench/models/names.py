"""From what the user typed to one model: a catalogue name, a path to a file or folder, a name on the hub, or one that
only a server knows."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from meltbench.errors import DefinitionError, FetchError, ModelDamaged, UnknownName, UserError
from meltbench.models import hub
from meltbench.models.catalogue import CATALOGUE, Artifact, Entry, artifacts, catalogue
from meltbench.models.gguf import read_gguf
from meltbench.models.hashes import pinned, pins
from meltbench.models.header import (
    CONFIGS,
    FOLDERS,
    SHORT,
    Format,
    built_from,
    files_of,
    format_of,
    in_words,
    sha256_of_model,
)

_SUFFIXES, _STARTS = (".gguf", ".onnx"), ("/", "./", "../", "~")
_MAX_NAME, _MAX_LISTED = 200, 1000
_BUILT_BY: dict[Format, str] = {"onnx-genai": "build-onnx", "mlc": "build-mlc"}


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
class FolderSource:
    """The files of one folder of a hub repository; "" is its top."""

    repo: str
    folder: str = ""
    revision: str = "main"

    def __str__(self) -> str:
        return f"hub:{self.repo}@{self.revision}:{self.folder}/"


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

    ``name`` is canonical, ``asked`` what was typed; ``entry`` the catalogue's name of the model that it is a form of.
    ``sha256`` is None until the first pull of an unpinned file; ``sha256_from`` says whose word it is. Sizes and bits
    per weight are None where nobody has said. ``descends_from``: what it was requantised from.
    """

    name: str
    asked: str
    source: IndexSource | HubSource | FolderSource | FileSource | ServedSource
    filename: str
    format: Format = "gguf"
    title: str = ""
    size_bytes: int | None = None
    sha256: str | None = None
    sha256_from: Literal["catalogue", "pin", "file"] | None = None
    bits_per_weight: float | None = None
    quantisation: str | None = None
    license: str | None = None
    entry: str | None = None
    descends_from: str | None = None

    @property
    def stands_for(self) -> str | None:
        """The sentence to say when another name of it was typed, else None."""
        is_other = self.asked != self.name and (self.entry is not None or isinstance(self.source, HubSource))
        weight = f", {self.bits_per_weight:g} bits per weight" if self.bits_per_weight else ""
        return f"{self.asked} stands for {self.name}{weight}" if is_other else None


def resolve(text: str, formats: tuple[Format, ...] = ("gguf",), taker: str = "this engine") -> Model:
    """Return the model that ``text`` names: in the catalogue, a path to a file or a folder, "owner/repo:file.gguf",
    "owner/repo:folder" or "owner/repo" (may ask the hub). Of an engine that takes only what is served any name is one;
    of one that also takes what lies here, what is neither in the catalogue nor a path.

    A model of the catalogue has artifacts: its name stands for the first in one of the ``formats``. A catalogue name
    wins over a file of that name. UnknownName knows the nearest names; UserError: a path that is not there, not a
    model, or one that is in none of the ``formats``, which ``taker`` takes; FetchError: the hub cannot be reached.
    """
    if formats == ("served",):
        return _served(text)
    entries = catalogue()
    if found := _in_catalogue(text, entries, formats, taker):
        return of_artifact(text, *found)
    if "served" in formats:
        path = Path(os.path.expanduser(text))
        if not _is_path(text, path):
            return _served(text)
        if not _is_model(path):
            raise _no_model(text, path)
    model = _elsewhere(text, formats, entries, taker)
    if model.format not in formats:
        raise UserError(f"{text} is {in_words((model.format,))}", hint=f"{taker} takes {in_words(formats)}")
    return model


def of_artifact(asked: str, entry: Entry, artifact: Artifact) -> Model:
    """Return an artifact of the catalogue as a model; of one that lies here its file is read."""
    name = entry.name_of(artifact)
    source = source_of(artifact)
    said = Model(
        name=name,
        asked=asked,
        source=source,
        filename=_filename(source),
        format=artifact.format,
        title=entry.title or "",
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256 or (pin := pinned(str(source))),
        sha256_from="catalogue" if artifact.sha256 else "pin" if pin else None,
        bits_per_weight=artifact.bits_per_weight,
        quantisation=artifact.quantisation,
        license=entry.license,
        entry=entry.name,
        descends_from=artifact.descends_from,
    )
    return _own(said, source.path) if isinstance(source, FileSource) else said


def source_of(artifact: Artifact) -> IndexSource | HubSource | FolderSource | FileSource:
    """Where an artifact comes from."""
    if artifact.path is not None:
        return FileSource(Path(artifact.path).expanduser())
    if artifact.repo is None:
        return IndexSource(artifact.package or "", artifact.member or "")
    if artifact.format in FOLDERS:
        return FolderSource(artifact.repo, artifact.folder, artifact.revision)
    return HubSource(artifact.repo, artifact.file or "", artifact.revision)


def target(text: str, entries: dict[str, Entry]) -> str:
    """Return the name that ``text`` stands for where it is an alias; else ``text``."""
    known, name, passed = artifacts(entries), text, [text]
    while name in entries and (meant := entries[name].alias_of) is not None:
        if (meant not in entries and meant not in known) or meant in passed:
            raise DefinitionError(
                f"{CATALOGUE}: {name} is an alias of {meant!r}, which is no model",
                hint="an alias names a model or one of its artifacts",
            )
        name = meant
        passed.append(name)
    return name


def _in_catalogue(
    text: str, entries: dict[str, Entry], formats: tuple[Format, ...], taker: str
) -> tuple[Entry, Artifact] | None:
    """The artifact that ``text`` stands for; None: the catalogue does not know it."""
    if (meant := _meant(text, entries)) is None:
        return None
    entry, asked = meant
    taken = next((one for one in asked if one.format in formats), None)
    if taken is None:
        raise _in_no_format(text, entry, asked, formats, taker)
    return entry, taken


def _meant(text: str, entries: dict[str, Entry]) -> tuple[Entry, tuple[Artifact, ...]] | None:
    """The model and those of its artifacts that ``text`` may stand for; None: the catalogue does not know it."""
    name, known = target(text, entries), artifacts(entries)
    if name in entries:
        return entries[name], entries[name].artifact
    return (known[name][0], (known[name][1],)) if name in known else None


def how_to_build(text: str, command: str) -> str:
    """How a model is built here by a command of ``meltbench models``, and what to run then: of the GGUF that ``text``
    has in the catalogue, or the model that it is a form of; "MODEL" stands for what is in none."""
    meant = _meant(text, catalogue())
    made = None if meant is None else _gguf_of(text, *meant)
    folder = f"./{made}-{command.removeprefix('build-')}" if made else "FOLDER"
    return f"meltbench models {command} {made or 'MODEL'} {folder}, then --model {folder}"


def _gguf_of(text: str, entry: Entry, asked: tuple[Artifact, ...]) -> str | None:
    """By which name a GGUF of this model is found, the one that is meant where it is one."""
    return next((name for name, them in ((text, asked), (entry.name, entry.artifact)) if _has_gguf(them)), None)


def _has_gguf(them: tuple[Artifact, ...]) -> bool:
    return any(one.format == "gguf" for one in them)


def _in_no_format(
    text: str, entry: Entry, asked: tuple[Artifact, ...], formats: tuple[Format, ...], taker: str
) -> UserError:
    """None of the artifacts that were meant is in a format that is taken: what there is instead."""
    others = [entry.name_of(one) for one in entry.artifact if one.format in formats]
    if others:
        said = f"{text} is {in_words((asked[0].format,))}, {taker} takes {in_words(formats)}"
        return UserError(said, hint=f"of the same model: {', '.join(others)}")
    has = ", ".join(dict.fromkeys(SHORT[one.format] for one in entry.artifact))
    wanted = " or ".join(SHORT[one] for one in formats if one != "served")
    # What serves models itself wants more of a library than what is built here has.
    builds = [_BUILT_BY[one] for one in formats if one in _BUILT_BY and "served" not in formats]
    can_be = builds and _has_gguf(entry.artifact)
    hint = f"build one: {how_to_build(text, builds[0])}" if can_be else f"{taker} takes {in_words(formats)}"
    return UserError(f"{entry.name} has no {wanted} artifact (it has {has})", hint=hint)


def _elsewhere(text: str, formats: tuple[Format, ...], entries: dict[str, Entry], taker: str) -> Model:
    """A path, or a name on the hub."""
    path = Path(os.path.expanduser(text))  # Path.expanduser raises where there is no such user
    if _is_model(path) and (path.suffix in _SUFFIXES or os.path.isdir(path) or os.sep in text):
        if "gguf" not in formats and path.suffix not in _SUFFIXES and os.path.isfile(path):
            raise UserError(f"{text} is not {in_words(formats)}", hint=f"{taker} takes nothing else")
        return _from_file(text, path)
    repo, _, inside = text.partition(":")
    if inside and hub.NAME.match(repo):
        return _from_hub(text, repo, inside, formats)
    if path.suffix in _SUFFIXES or text.startswith(_STARTS) or "://" in text:
        raise _no_model(text, path)
    if hub.NAME.match(text):
        return _from_hub(text, text, _only_gguf(text, formats), formats)
    raise UnknownName("model", text, [*entries, *artifacts(entries)])


def _is_model(path: Path) -> bool:
    # Not Path.is_file, which raises for a name too long to be one.
    return os.path.isfile(path) or (os.path.isdir(path) and format_of(path) is not None)


def _is_path(text: str, path: Path) -> bool:
    """Whether a text that could be a server's name is a path: by its look, or by what is there."""
    looks = path.suffix in _SUFFIXES or text.startswith(_STARTS)
    if os.sep in text:
        return looks or os.path.isdir(path.parent)
    return looks or (os.path.isdir(path) and format_of(path) is not None)  # a file may have the name of anything


def _no_model(text: str, path: Path) -> UserError:
    """The error for a path that is no model, with the nearest that is one."""
    scheme, is_address, _ = text.partition("://")
    if is_address:
        hint = "name what is on the hub as owner/repo:file.gguf or owner/repo:folder; or download it, and give its path"
        return UserError(f"models are not fetched from an address ({scheme[:_MAX_NAME]}://)", hint=hint)
    hint = "check the path"
    if os.path.isdir(path):
        hint = "name the .gguf in it; a folder is a model with genai_config.json or mlc-chat-config.json in it"
    elif not os.path.isdir(path.parent):
        hint = f"there is no folder {path.parent}"
    elif near := difflib.get_close_matches(path.name[:_MAX_NAME], _models_in(path.parent), n=3, cutoff=0.5):
        hint = f"did you mean {', '.join(str(path.parent / one) for one in near)}?"
    return UserError(f"no model file at {path}", hint=hint)


def _models_in(folder: Path) -> list[str]:
    """The names of models that lie in a folder; none where it cannot be read."""
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        paths = [Path(one.path) for one in itertools.islice(found, _MAX_LISTED)]
        return [one.name for one in paths if one.suffix in _SUFFIXES or (one.is_dir() and format_of(one))]
    return []


def _served(text: str) -> Model:
    if not text or len(text) > _MAX_NAME or not text.isprintable():
        raise UserError("a model's name is a printable text", hint=f"of at most {_MAX_NAME} characters")
    return Model(name=text, asked=text, source=ServedSource(text), filename="", format="served")


def _only_gguf(repo: str, formats: tuple[Format, ...]) -> str:
    """The one GGUF file of a repository; where the hub cannot be asked, the one that was pulled from it. "": a folder
    is meant, for none is taken, or the repository has not the one."""
    if "gguf" not in formats:
        return ""
    try:
        return hub.only_gguf(repo)
    except UserError:
        if not FOLDERS.intersection(formats):
            raise
        return ""
    except FetchError:
        start = str(HubSource(repo, ""))
        pulled = [key.removeprefix(start) for key in pins() if key.startswith(start) and key.endswith(".gguf")]
        if len(pulled) != 1:
            raise
        return pulled[0]


def _from_hub(asked: str, repo: str, inside: str, formats: tuple[Format, ...]) -> Model:
    """A file of a repository, or a folder: of which format the engine says, or what lies in it."""
    kinds = [one for one in formats if one in FOLDERS]
    kind: Format
    if inside.endswith(".gguf") or not kinds:
        hub.check_file(inside)
        source: HubSource | FolderSource = HubSource(repo, inside)
        name, kind = f"{repo}:{inside}", "gguf"
    else:
        folder = inside.rstrip("/")
        if folder and not hub.FOLDER.match(folder):
            raise UserError(f"{inside!r} is no folder of a repository", hint="expected owner/repo:folder")
        source, name = FolderSource(repo, folder), f"{repo}:{folder}" if folder else repo
        kind = kinds[0] if len(kinds) == 1 else _kind_of(source)
    pin = pinned(str(source))
    found = Model(name=name, asked=asked, source=source, filename=_filename(source), format=kind)
    return replace(found, sha256=pin, sha256_from="pin" if pin else None)


def _kind_of(source: FolderSource) -> Format:
    """What a folder of the hub holds, by the names in it."""
    inside = {one.name for one in hub.members(hub.listing(source.repo, source.revision), source.folder)}
    if (kind := next((CONFIGS[name] for name in CONFIGS if name in inside), None)) is None:
        where = f"{source.repo}:{source.folder}" if source.folder else source.repo
        raise UserError(f"{where} holds neither {' nor '.join(CONFIGS)}", hint="name the folder that does")
    return kind


def _filename(source: IndexSource | HubSource | FolderSource | FileSource) -> str:
    if isinstance(source, FileSource):
        return source.path.name
    if isinstance(source, FolderSource):
        return PurePosixPath(source.folder or source.repo).name
    return PurePosixPath(source.member if isinstance(source, IndexSource) else source.file).name


def _from_file(asked: str, path: Path) -> Model:
    name = path.stem if path.is_file() else path.resolve().name
    source = FileSource(path.absolute())
    return _own(Model(name, asked, source, path.name, format_of(path) or "gguf"), path)


def _own(said: Model, path: Path) -> Model:
    """With what the file or folder itself says."""
    there = os.path.exists(path)
    if not there or format_of(path) != said.format:
        gone = f"{path} is not {in_words((said.format,))}" if there else f"{said.name}: no model file at {path}"
        raise UserError(gone, hint=f"make or fetch it again, or change {CATALOGUE}")
    head, descends_from, quantisation = None, None, None
    try:
        if said.format == "gguf":
            head = read_gguf(path)
            descends_from, quantisation = head.descends_from, head.file_type
        elif said.format == "onnx-genai":
            descends_from, quantisation = built_from(path)
    except ModelDamaged:  # a run of it is stored as failed: road.prepare meets the same error
        pass
    return replace(
        said,
        title=said.title or (head.name if head else None) or "",
        size_bytes=sum(one.stat().st_size for one in files_of(path)),
        sha256=sha256_of_model(path),
        sha256_from="file",
        bits_per_weight=head.bits_per_weight if head else said.bits_per_weight,
        quantisation=quantisation or said.quantisation,
        descends_from=descends_from or said.descends_from,
    )
