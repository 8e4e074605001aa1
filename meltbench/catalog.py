"""Finds definitions on a search path: devices, workloads, runners and pages of the dashboard, one TOML file each.

    ./<kind>/                              of the working directory    origin "cwd"
    $XDG_CONFIG_HOME/meltbench/<kind>/     of the user                 origin "user"
    <built-in root>/<kind>/                shipped with meltbench      origin "built-in"
    runners of installed packages          meltbench.plugins           origin "package"

The first found wins, by file stem; a runner is a folder with ``runner.toml`` in it. A device may say
``inherits = "other"``: its tables are laid over the other's. A name may inherit its own name from further down.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from meltbench import plugins
from meltbench.errors import DefinitionError, InternalError, UnknownName
from meltbench.paths import config_dir, sha256_of
from meltbench.tables import parse_toml, read_bounded, read_table, read_toml

__all__ = [
    "Definition",
    "Found",
    "builtin_root",
    "data_files",
    "definitions",
    "find",
    "load",
    "read_table",
    "read_toml",
    "search_path",
]

Kind = Literal["devices", "workloads", "runners", "dashboards"]
Origin = Literal["cwd", "user", "built-in", "package"]

_SINGULAR = {"devices": "device", "workloads": "workload", "runners": "runner", "dashboards": "page"}
_MERGED_BY_NAME = ("source", "setting")


@dataclass(frozen=True)
class Found:
    """Where a definition lies; not read yet."""

    kind: Kind
    name: str
    path: Path
    origin: Origin


@dataclass(frozen=True)
class Definition:
    """A definition as read: ``data`` with what it inherits laid under it (and without the key ``inherits``).

    ``sha256`` covers the TOML file and, where there are any, the files beside it that it names and what it inherits.
    ``files`` are those named files; ``lineage`` the paths inherited from, nearest first.
    """

    kind: Kind
    name: str
    path: Path
    data: dict[str, Any]
    sha256: str
    origin: Origin
    files: tuple[Path, ...] = ()
    lineage: tuple[Path, ...] = ()


def builtin_root() -> Path:
    """Return the folder of the definitions shipped with meltbench: the checkout's top, or inside the wheel."""
    package = Path(__file__).resolve().parent
    for root in (package / "definitions", package.parent):
        if (root / "devices").is_dir():
            return root
    raise InternalError(f"no definitions beside {package}", hint="reinstall meltbench")


def search_path() -> list[tuple[Path, Origin]]:
    """Return the roots in order of precedence; a root met twice counts once, as the last it is."""
    roots: list[tuple[Path, Origin]] = [(Path.cwd(), "cwd"), (config_dir(), "user"), (builtin_root(), "built-in")]
    resolved = [root.resolve() for root, _ in roots]
    return [pair for i, pair in enumerate(roots) if resolved[i] not in resolved[i + 1 :]]


def find(kind: Kind) -> dict[str, Found]:
    """Return every name of ``kind`` and where it lies, by name, without reading the files."""
    return {name: everywhere[0] for name, everywhere in sorted(_candidates(kind).items())}


def definitions(kind: Kind) -> dict[str, Definition]:
    """Return every definition of ``kind`` by name. DefinitionError at the first that is malformed."""
    candidates = _candidates(kind)
    return {name: _read(everywhere[0], candidates, ()) for name, everywhere in sorted(candidates.items())}


def load(kind: Kind, name: str, *, without: Path | None = None) -> Definition:
    """Return one definition, as if the file ``without`` were not there. UnknownName knows the nearest names;
    DefinitionError names file and line."""
    candidates = _candidates(kind)
    if without is not None:
        kept = {key: [one for one in found if one.path != without] for key, found in candidates.items()}
        candidates = {key: found for key, found in kept.items() if found}
    if name not in candidates:
        raise UnknownName(_SINGULAR[kind], name, candidates)
    return _read(candidates[name][0], candidates, ())


def data_files(relative: str) -> list[tuple[Path, Origin]]:
    """Return the existing files ``relative`` (such as "data/models.toml") on the search path, first wins."""
    return [(root / relative, origin) for root, origin in search_path() if (root / relative).is_file()]


def _candidates(kind: Kind) -> dict[str, list[Found]]:
    pattern = "*/runner.toml" if kind == "runners" else "*.toml"
    names: dict[str, list[Found]] = {}
    places = [(root / kind, origin) for root, origin in search_path()]
    if kind == "runners":
        places += [(folder, "package") for folder in plugins.runner_folders()]
    for folder, origin in places:
        for path in sorted(folder.glob(pattern)):
            name = path.parent.name if kind == "runners" else path.stem
            if path.is_file() and not name.startswith("."):
                names.setdefault(name, []).append(Found(kind, name, path, origin))
    return names


def _read(found: Found, candidates: dict[str, list[Found]], below: tuple[Path, ...]) -> Definition:
    """Read ``found`` and what it inherits; ``below`` are the files that led here."""
    if found.path in below:
        chain = " -> ".join(str(p) for p in (*below, found.path))
        raise DefinitionError(f"{found.path}: inherits from itself: {chain}", hint="break the circle")
    content = read_bounded(found.path)
    data = parse_toml(content, found.path)
    files = _named_files(data, found)
    parts = [(found.path.name, hashlib.sha256(content).hexdigest())]
    parts += [(str(path.relative_to(found.path.parent)), _file_sha256(path)) for path in files]
    lineage: tuple[Path, ...] = ()
    if found.kind == "devices" and "inherits" in data:
        parent = _read(_parent(found, data.pop("inherits"), candidates), candidates, (*below, found.path))
        parts.append((f"inherits {parent.name}", parent.sha256))
        data, lineage = _merged(parent.data, data), (parent.path, *parent.lineage)
    return Definition(found.kind, found.name, found.path, data, _combined(parts), found.origin, files, lineage)


def _parent(found: Found, name: object, candidates: dict[str, list[Found]]) -> Found:
    if not isinstance(name, str):
        raise DefinitionError(f"{found.path}: inherits: expected the name of a device, got {name!r}")
    if name not in candidates:
        raise DefinitionError(f"{found.path}: inherits: {UnknownName('device', name, candidates)}")
    everywhere = candidates[name]
    if name != found.name:
        return everywhere[0]
    further = everywhere[everywhere.index(found) + 1 :]
    if not further:
        raise DefinitionError(
            f"{found.path}: inherits from itself", hint=f"no other {name!r} is further down the search path"
        )
    return further[0]


def _merged(under: dict[str, Any], over: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = _merged(old, value, depth + 1)
        elif depth == 0 and key in _MERGED_BY_NAME and old and _all_named(old) and _all_named(value):
            by_name = {source["name"]: source for source in old}
            for source in value:
                by_name[source["name"]] = _merged(by_name.get(source["name"], {}), source, depth + 1)
            result[key] = list(by_name.values())
        else:
            result[key] = value
    return result


def _all_named(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) and isinstance(v.get("name"), str) for v in value)


def _named_files(data: object, found: Found) -> tuple[Path, ...]:
    """Return the files beside a definition that its strings name: every *.jsonl, and any other that exists."""
    folder = found.path.parent
    files: set[Path] = set()
    for text in _strings(data):
        if not text or len(text) > 255 or "\n" in text or "\0" in text:
            continue
        path = folder / text
        if text.endswith(".jsonl"):
            if not path.is_file():
                raise DefinitionError(f"{found.path}: names {text!r}, which is not there", hint=f"expected {path}")
            if not path.resolve().is_relative_to(folder.resolve()):
                raise DefinitionError(
                    f"{found.path}: names {text!r}, outside its folder", hint="put it beside the TOML"
                )
            files.add(path)
        elif found.kind == "runners" and ".." not in Path(text).parts and not text.startswith("/") and path.is_file():
            files.add(path)
    return tuple(sorted(files))


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for v in value.values() for s in _strings(v)]
    return [s for v in value for s in _strings(v)] if isinstance(value, list) else []


def _file_sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DefinitionError(f"cannot read {path}: {error.strerror or error}") from error


def _combined(parts: list[tuple[str, str]]) -> str:
    """Return the hash of one file as it is, of several as the hash of their sha256sum listing."""
    if len(parts) == 1:
        return parts[0][1]
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in parts).encode()).hexdigest()
