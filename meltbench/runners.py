"""Runners: the recipe of an engine, and the engine itself, named by version and sha256."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from meltbench import catalog
from meltbench.deadline import Deadline
from meltbench.errors import UnknownName, UserError
from meltbench.models.hashes import file_sha256
from meltbench.paths import cache_dir
from meltbench.spec import Scalar, digest
from meltbench.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_ARCHIVE_BYTES = 8 << 30
_MAX_MEMBERS = 20_000
_MAX_SAID_BYTES = 64 << 10
# Words of a command line that no one sets: the context of all slots together is the knob ctx times parallel.
_WORDS = ("model", "port", "parallel", "ctx_all")


@dataclass(frozen=True)
class Knob:
    """A setting of an engine. ``default`` "auto" is worked out from device and workload, "none" leaves it out."""

    default: int | str
    help: str
    low: int
    high: int

    def read(self, name: str, text: str) -> int | str:
        """A value given by the user, checked."""
        if text == "none" or (text == "auto" and self.default == "auto"):
            return text
        if not re.fullmatch(r"-?\d{1,12}", text) or not self.low <= int(text) <= self.high:
            raise UserError(
                f"{name} = {text!r} is not a valid setting", hint=f"give {self.low} to {self.high}, or none"
            )
        return int(text)


@dataclass(frozen=True)
class Embedded:
    """The engine inside a Python package, started by a script that lies beside the recipe."""

    script: str
    package: str


@dataclass(frozen=True)
class Recipe:
    """runners/NAME/runner.toml. ``mode`` (server, bench, in-process) is never mixed in one column.

    ``arguments`` are groups; a group whose knob is "none" is left out.
    """

    title: str
    protocol: str
    mode: str
    program: str
    embedded: Embedded
    arguments: tuple[tuple[str, ...], ...]
    knobs: dict[str, Knob] = field(default_factory=dict)

    def takes(self, word: str) -> bool:
        """Whether the engine is told this word on its command line."""
        return any("{" + word + "}" in part for group in self.arguments for part in group)

    def argv(self, start: tuple[str, ...], values: Mapping[str, Scalar], fixed: Mapping[str, str]) -> list[str]:
        """The command line: knob values and fixed words put in, groups of absent knobs left out."""
        argv = list(start)
        words = {**fixed, **{name: str(value) for name, value in values.items()}}
        for group in self.arguments:
            filled = [re.sub(r"\{(\w+)\}", lambda m: words[m[1]], part) for part in group]
            if not any(re.fullmatch(r"\{(\w+)\}", part) and words[part[1:-1]] == "none" for part in group):
                argv += filled
        return argv


@dataclass(frozen=True)
class Engine:
    """What will run: ``start`` is the beginning of its command line, ``sha256`` covers its program and libraries."""

    name: str
    version: str
    sha256: str
    start: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


def load(name: str) -> tuple[Recipe, catalog.Definition]:
    """A recipe by name; every word in its arguments must be a knob or one of those that every run has."""
    found = catalog.load("runners", name)
    recipe = read_table(Recipe, found.data, found.path)
    for group in recipe.arguments:
        for word in re.findall(r"\{(\w+)\}", " ".join(group)):
            if word not in recipe.knobs and word not in _WORDS:
                raise UnknownName(f"word in {found.path}:", word, [*recipe.knobs, *_WORDS])
    return recipe, found


def engine(recipe: Recipe, folder: Path, given: str | None) -> Engine:
    """The engine a run will use: the one given by path, else the recipe's embedded one."""
    return _given(recipe, Path(given)) if given else _embedded(recipe, folder)


def _embedded(recipe: Recipe, folder: Path) -> Engine:
    import importlib.metadata
    import importlib.util

    package, script = recipe.embedded.package, folder / recipe.embedded.script
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        hint = f"pip install {package}, or give --engine PATH"
        raise UserError(f"the engine package {package} is not installed", hint=hint)
    files = [script, *sorted(Path(spec.origin).parent.rglob("*.so"))]
    sha = digest([file_sha256(file) for file in files])
    return Engine(package, importlib.metadata.version(package), sha, (sys.executable, "-B", str(script)))


def _given(recipe: Recipe, path: Path) -> Engine:
    if not path.exists():
        raise UserError(f"no such engine: {path}", hint=f"give a folder or archive that holds {recipe.program}")
    if path.is_file() and path.name == recipe.program:
        path = path.parent
    folder = path.absolute() if path.is_dir() else _unpacked(path)
    found = sorted((p for p in folder.rglob(recipe.program) if p.is_file()), key=lambda p: (len(p.parts), str(p)))
    if not found:
        raise UserError(f"{path} holds no {recipe.program}", hint="give a folder or archive of llama.cpp's programs")
    program = found[0]
    if not os.access(program, os.X_OK):
        raise UserError(f"{program} is not executable", hint=f"chmod +x {program}")
    libraries = [p for p in sorted(program.parent.iterdir()) if p.is_file() and ".so" in p.name]
    sha = digest([[p.name, file_sha256(p)] for p in [program, *libraries]])
    env = {"LD_LIBRARY_PATH": str(program.parent)} if libraries else {}
    return Engine(recipe.program, _version(program, env), sha, (str(program),), env)


def _version(program: Path, env: Mapping[str, str]) -> str:
    """What ``--version`` says, or "unknown": an engine that cannot say so fails in the run, with its last lines."""
    try:
        said = _said([str(program), "--version"], {**os.environ, **env}, Deadline.after(20))
    except OSError:
        return "unknown"
    match = re.search(rb"version: *([^\r\n]{1,80})", said)
    return match[1].decode("ascii", "replace").strip() if match else "unknown"


def _said(argv: list[str], env: Mapping[str, str], deadline: Deadline) -> bytes:
    """The first words of a program, which may say too much, never end, or leave others behind: all are killed."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, process_group=0
    )
    said = b""
    with process:
        assert process.stdout is not None
        out = process.stdout.fileno()
        try:
            while len(said) < _MAX_SAID_BYTES and select.select([out], [], [], deadline.remaining())[0]:
                more = os.read(out, 4096)
                if not more:
                    break
                said += more
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # not yet waited for, so the number is still its own
    return said


def _unpacked(archive: Path) -> Path:
    """Unpack into the cache once, by the archive's own hash; nothing may land outside."""
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
        elif tarfile.is_tarfile(archive):
            _untar(archive, work)
        else:
            raise UserError(f"{archive} is neither a zip nor a tar archive", hint="give an engine's release archive")
        work.rename(target)
    except (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}", hint="fetch it again; do not trust it") from None
    except OSError as error:
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
            if mode := member.external_attr >> 16 & 0o777:
                out.chmod(mode)


def _untar(archive: Path, work: Path) -> None:
    with tarfile.open(archive) as bundle:
        members = bundle.getmembers()
        _bounded(archive, len(members), sum(m.size for m in members))
        bundle.extractall(work, filter="data")


def _bounded(archive: Path, count: int, size: int) -> None:
    if count > _MAX_MEMBERS or size > _MAX_ARCHIVE_BYTES:
        raise UserError(f"{archive} unpacks to {count} files of {size} bytes", hint="that is not an engine's archive")
