"""Runners: the recipe of an engine, and the engine itself, named by version and sha256."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from meltbench import archives, catalog, installed, serving
from meltbench.builds import PROGRAMS
from meltbench.builds.source import LLAMA_CPP
from meltbench.deadline import Deadline
from meltbench.elf import machine_of
from meltbench.engines import WITHOUT_DIALECT, Dialect, protocol
from meltbench.errors import MissingExtra, UnknownName, UserError
from meltbench.knobs import Knob  # noqa: TC001  read_table looks at it
from meltbench.models.hashes import file_sha256
from meltbench.models.header import Format  # noqa: TC001  read_table looks at it
from meltbench.spec import Scalar, digest
from meltbench.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# How an engine is reached; figures of two modes are never put into one column.
Mode = Literal["server", "bench", "in-process"]
# The kinds of target, as targets.Place has them, and how a recipe was checked: a real engine ran, or what it does is
# known from its documentation alone.
Place = Literal["local", "ssh", "adb"]
Checked = Literal["run", "contract"]

_MAX_SAID_BYTES = 64 << 10
_WORD = re.compile(r"\{(\w+)\}")
# As llama.cpp says it; else a line that is a number, or ends in one behind the program's name.
_VERSION = re.compile(
    rb"version: *([^\r\n]{1,80})|^(?:[\w.-]+ )?(?:version )?(?:is )?v?(\d[\w.+-]{0,79})\s*$", re.MULTILINE
)
ON_DEVICE = "device:"  # what --engine begins with for a program of the target


@dataclass(frozen=True)
class Embedded:
    """The engine inside a Python package, started by a script that lies beside the recipe.

    ``distribution`` is the package's name for pip, where it is another one; ``extra`` the extra of ours that installs
    it, where it is optional; ``beside`` the packages whose libraries it computes with. ``modules``: what of the script
    lies in other files. ``pushed``: the script runs on other targets too, with the Python that is there. ``libraries``
    is the variable of the environment that may name a folder of libraries to be taken in place of the package's own.
    """

    script: str
    package: str
    distribution: str | None = None
    extra: str | None = None
    beside: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    pushed: bool = False
    libraries: str | None = None

    def scripts(self, folder: Path) -> tuple[Path, ...]:
        """The script and its modules, in the folder of the recipe."""
        return tuple(folder / name for name in (self.script, *self.modules))


@dataclass(frozen=True)
class Recipe:
    """runners/NAME/runner.toml. ``mode`` (server, bench, in-process) is never mixed in one column.

    ``arguments`` are groups; a group whose knob is "none" is left out. ``program`` is what ``--engine`` must hold, None
    where the engine is only ever the embedded one. ``kinds`` are the kinds of workload it can do, None for all of a
    language model; ``workload`` the one it does when none is named; ``models`` the formats of model that it takes;
    ``asks`` what a server of the protocol openai knows beside OpenAI's own fields.

    ``url``: a server that runs already is asked, at this address where ``--engine`` gives none; empty: it must give
    one. ``relay`` is the script beside the recipe by which others than those of the loopback are reached, and the
    ``arguments`` are its. ``env``: settings of the engine's environment; words are filled in as in arguments.
    ``at_once``: it answers several requests at a time without being told. ``unseen`` says why memory and CPU of the
    process that is started are not the engine's, ``unloaded`` why its start does not load the model. ``checked``: run,
    or against its documented contract only. ``cannot``: a line for each kind of target that it cannot run on.
    ``built_by``: the command of ``meltbench models`` by which its models are compiled on this machine; those that are
    fetched are none for it, unless a knob ``library`` names what was compiled.
    """

    title: str
    protocol: str
    mode: Mode
    arguments: tuple[tuple[str, ...], ...]
    program: str | None = None
    embedded: Embedded | None = None
    kinds: tuple[str, ...] | None = None
    workload: str = "quick"
    models: tuple[Format, ...] = ("gguf",)
    knobs: dict[str, Knob] = field(default_factory=dict)
    asks: Dialect | None = None
    url: str | None = None
    relay: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    at_once: bool = False
    unseen: str = ""
    unloaded: str = ""
    checked: Checked = "run"
    cannot: dict[str, str] = field(default_factory=dict)
    built_by: str = ""

    def __post_init__(self) -> None:
        if odd := sorted(set(self.cannot) - set(get_args(Place))):
            raise ValueError(f"cannot: {odd[0]!r} is no kind of target: {', '.join(get_args(Place))}")
        if self.relay is not None and self.url is None:
            raise ValueError("relay is of a server that runs already: set url")
        if self.asks is not None and self.protocol in WITHOUT_DIALECT:
            raise ValueError(f"asks is of the protocol openai, this one is {self.protocol}")
        if (self.url is not None) == (self.program is not None or self.embedded is not None):
            raise ValueError("either program or embedded names what is run, or url a server that runs already")

    @property
    def parts(self) -> list[str]:
        """Every text in which words are filled in."""
        return [part for group in self.arguments for part in group] + list(self.env.values())

    def takes(self, word: str) -> bool:
        """Whether the engine is told this word."""
        return any("{" + word + "}" in part for part in self.parts)

    def refusal(self, place: str) -> str:
        """Why the engine cannot run on a kind of target, in a line; empty where it can."""
        kept = self.embedded is not None and not self.embedded.pushed and self.program is None
        return self.cannot.get(place, "it is a package of this machine's Python" if kept and place != "local" else "")

    def comes(self, place: str) -> str:
        """How the engine comes to be on a kind of target, in a few words; empty where it cannot run there."""
        if self.refusal(place):
            return ""
        if self.url is not None:
            return "runs already"
        if place != "local" and self.embedded is not None and self.embedded.pushed:
            return "its Python, or wheels"
        if place != "local":
            return "built and pushed" if self.program in PROGRAMS else "installed there"
        return "package" + (", or --engine" if self.program else "") if self.embedded else "in PATH, or --engine"

    def argv(self, start: tuple[str, ...], values: Mapping[str, Scalar], fixed: Mapping[str, str]) -> list[str]:
        """The command line: knob values and fixed words put in, groups of absent knobs left out."""
        argv = list(start)
        words = {**fixed, **{name: str(value) for name, value in values.items()}}
        for group in self.arguments:
            filled = [_WORD.sub(lambda m: words[m[1]], part) for part in group]
            if not any(_WORD.fullmatch(part) and words[part[1:-1]] == "none" for part in group):
                argv += filled
        return argv

    def environment(self, values: Mapping[str, Scalar], fixed: Mapping[str, str]) -> dict[str, str]:
        """The settings of its environment, words put in; without those whose knob is "none"."""
        words = {**fixed, **{name: str(value) for name, value in values.items()}}
        absent = [key for key, text in self.env.items() if any(words[m] == "none" for m in _WORD.findall(text))]
        filled = {key: _WORD.sub(lambda m: words[m[1]], text) for key, text in self.env.items()}
        return {key: text for key, text in filled.items() if key not in absent}


@dataclass(frozen=True)
class Engine:
    """What will run: ``start`` is the beginning of its command line, ``sha256`` covers its program and libraries.

    ``machine`` is what a given program was built for, as ``uname -m`` says it; None for a script. ``origin``: it runs
    from ``here``; or it is for another target, and a ``stock`` one still to be built for that, ``files`` of this
    machine to be pushed (the program first), on that ``device`` already, or a Python ``package`` that is looked for
    there (packages.py; the script first, then its modules). ``needs``: what of a processor it uses, in the words of
    Facts.cpu_features, where that is known. ``url``: where it runs already; ``start`` and ``files`` are then of the
    relay.
    """

    name: str
    version: str
    sha256: str
    start: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    machine: str | None = None
    origin: Literal["here", "stock", "files", "device", "package", "running"] = "here"
    files: tuple[Path, ...] = ()
    needs: tuple[str, ...] = ()
    url: str = ""


def load(name: str) -> tuple[Recipe, catalog.Definition]:
    """A recipe by name; every word in its arguments must be a knob or one that its protocol fills in."""
    found = catalog.load("runners", name)
    recipe = read_table(Recipe, found.data, found.path)
    known = [*recipe.knobs, *protocol(recipe.protocol).words]
    for word in _WORD.findall(" ".join(recipe.parts)):
        if word not in known:
            raise UnknownName(f"word in {found.path}:", word, known)
    return recipe, found


def recipes() -> dict[str, Recipe]:
    """Every recipe by name. DefinitionError at the first that is malformed."""
    found = sorted(catalog.definitions("runners").items())
    return {name: read_table(Recipe, one.data, one.path) for name, one in found}


def engine(name: str, recipe: Recipe, folder: Path, given: str | None, *, here: bool = True) -> Engine:
    """The engine a run will use: the one given, else the recipe's own. ``name`` is the runner's.

    ``here``: on this machine, whose own is the embedded one. On another target it is a stock build, made when the
    target is known, and ``given`` may be ``device:NAME``, a program that is there already.
    """
    if recipe.url is not None:
        return _running(name, recipe, folder, given or recipe.url, here=here)
    if serving.is_address(given):
        raise UserError(f"runner {name} starts its engine", hint=f"--runner openai --engine {given} asks one that runs")
    if given and recipe.program:
        if not given.startswith(ON_DEVICE):
            return _given(recipe.program, Path(given), here=here)
        if here:
            raise UserError(f"--engine {given} is for another target", hint="give its path")
        return Engine(recipe.program, "unknown", digest(given), (given.removeprefix(ON_DEVICE),), origin="device")
    if given:
        variable = recipe.embedded.libraries if recipe.embedded else None
        hint = f"set {variable} to a folder of its libraries" if variable else "leave it out"
        raise UserError(f"runner {name} takes no --engine", hint=hint)
    if not here:
        return _elsewhere(recipe, folder)
    if recipe.embedded is not None:
        return _embedded(recipe.embedded, folder)
    assert recipe.program is not None
    found = shutil.which(recipe.program)
    if found is None:
        hint = f"--engine PATH, a folder or release archive that holds {recipe.program}"
        raise UserError(f"runner {name} has no engine of its own, and no {recipe.program} is in PATH", hint=hint)
    return _given(recipe.program, Path(found), here=True)


def _elsewhere(recipe: Recipe, folder: Path) -> Engine:
    """A recipe's own engine for another target than this machine."""
    if recipe.embedded is not None and recipe.embedded.pushed:
        scripts, pip_name = recipe.embedded.scripts(folder), recipe.embedded.distribution or recipe.embedded.package
        sha = digest([pip_name, *map(file_sha256, scripts)])
        return Engine(pip_name, "unknown", sha, (), origin="package", files=scripts)
    assert recipe.program is not None  # Recipe.refusal
    if recipe.program not in PROGRAMS:  # what the device has in its search path
        return Engine(recipe.program, "unknown", digest(recipe.program), (recipe.program,), origin="device")
    return Engine(recipe.program, LLAMA_CPP.label, digest(LLAMA_CPP.sha256), (), origin="stock")


def _running(name: str, recipe: Recipe, folder: Path, url: str, *, here: bool) -> Engine:
    """A server that runs already, and the relay to it where the recipe has one."""
    if not url:
        raise UserError(f"runner {name} asks a server that runs already", hint="--engine http://127.0.0.1:8000/v1")
    address = serving.read_address(url)
    called = f"{address.host}:{address.port}"
    whole = f"{address.origin}{address.path}"
    if recipe.relay is None:
        if not address.straight:
            raise UserError(
                f"runner {name} asks a server of the same machine, {called} is another", hint="--runner openai"
            )
        return Engine(called, "unknown", digest(whole), (), origin="running", url=whole)
    relay = folder / recipe.relay
    start, files = ((sys.executable, "-B", str(relay)), ()) if here else ((), (relay,))
    return Engine(called, "unknown", digest(whole), start, origin="running", files=files, url=whole)


def _embedded(embedded: Embedded, folder: Path) -> Engine:
    """The engine inside a package that is installed here. MissingExtra or UserError where it is not."""
    wanted = {embedded.package: embedded.distribution or embedded.package, **{one: one for one in embedded.beside}}
    found = {one: installed.look(one, pip_name) for one, pip_name in wanted.items()}
    for package, pip_name in wanted.items():
        if found[package] is None:
            if embedded.extra:
                raise MissingExtra(f"the engine package {pip_name}", embedded.extra)
            hint = f"pip install {pip_name}, or give --engine PATH"
            raise UserError(f"the engine package {pip_name} is not installed", hint=hint)
    there = [one for one in found.values() if one is not None]
    scripts = embedded.scripts(folder)
    files = [*scripts, *(library for one in there for library in one.libraries)]
    version = ", ".join([there[0].version, *(f"{one.name} {one.version}" for one in there[1:])])
    env = {}
    if embedded.libraries and (other := os.environ.get(embedded.libraries)):
        files += _named_libraries(Path(other), embedded.libraries)
        env = {embedded.libraries: str(Path(other).absolute())}
    sha = digest([file_sha256(file) for file in files])
    return Engine(there[0].name, version, sha, (sys.executable, "-B", str(scripts[0])), env)


def _libraries(folder: Path) -> list[Path]:
    """The shared libraries that lie in a folder itself."""
    return [p for p in sorted(folder.iterdir()) if p.is_file() and ".so" in p.name]


def _named_libraries(folder: Path, variable: str) -> list[Path]:
    found = _libraries(folder) if folder.is_dir() else []
    if not found:
        raise UserError(f"{variable} names {folder}, which holds no library", hint="name a folder with libllama.so")
    return found


def _given(wanted: str, path: Path, *, here: bool) -> Engine:
    if not path.exists():
        raise UserError(f"no such engine: {path}", hint=f"give a folder or archive that holds {wanted}")
    if path.is_file() and path.name == wanted:
        found = [path.absolute()]
    elif path.is_file() and not archives.is_archive(path):
        hint = _other(lambda program: path.name == program) or "give an engine's folder or release archive"
        raise UserError(f"{path} is neither {wanted} nor a zip or tar archive", hint=hint)
    else:
        folder = path.absolute() if path.is_dir() else archives.unpacked(path)
        found = _below(folder, wanted)
        if not found:
            hint = _other(lambda program: bool(_below(folder, program))) or f"give one that holds {wanted}"
            raise UserError(f"{path} holds no {wanted}", hint=hint)
    program = found[0]
    machine = machine_of(program)
    if not os.access(program, os.X_OK):
        raise UserError(f"{program} is not executable", hint=f"chmod +x {program}")
    libraries = _libraries(program.parent)
    sha = digest([[p.name, file_sha256(p)] for p in [program, *libraries]])
    env = {"LD_LIBRARY_PATH": str(program.parent)} if libraries else {}
    if not here:  # what it is for may not run here: its version is asked there
        said = _recorded(program) or "unknown"
        return Engine(wanted, said, sha, (), machine=machine, origin="files", files=(program, *libraries))
    return Engine(wanted, _recorded(program) or _version(program, env), sha, (str(program),), env, machine)


def _below(folder: Path, program: str) -> list[Path]:
    """Every file of that name in a folder, the one that lies highest first."""
    return sorted((p for p in folder.rglob(program) if p.is_file()), key=lambda p: (len(p.parts), str(p)))


def _other(holds: Callable[[str], bool]) -> str | None:
    """Which runner can use what was given, when it is not the one that was named."""
    for name, found in sorted(catalog.definitions("runners").items()):
        program = found.data.get("program")
        if isinstance(program, str) and holds(program):
            return f"there is {program}: --runner {name}"
    return None


def _recorded(program: Path) -> str | None:
    """The version of a program that was built here: one for another machine cannot be asked on this one."""
    from meltbench.builds import record_of

    record = record_of(program.parent)
    return record.version if record and program.name in record.programs else None


def _version(program: Path, env: Mapping[str, str]) -> str:
    """What ``--version`` says, or "unknown": an engine that cannot say so fails in the run, with its last lines."""
    try:
        said = _said([str(program), "--version"], {**os.environ, **env}, Deadline.after(20))
    except OSError:
        return "unknown"
    match = _VERSION.search(said)
    return (match[1] or match[2]).decode("ascii", "replace").strip() if match else "unknown"


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
