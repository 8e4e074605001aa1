"""An engine that is a Python package, on another target: with the Python that is there.

Where that Python has the package, the engine's script is all that is pushed. Else its wheels are fetched here, by pip
from the user's own index, pushed, and a virtual environment is made of them there: once, for it is kept beside the
cache, by the hash of the wheels.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench import paths
from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, UserError
from meltbench.installed import version_of
from meltbench.models.hashes import file_sha256
from meltbench.models.index import pip_failed
from meltbench.probe.client import room_hint
from meltbench.site import PYTHON
from meltbench.spec import digest
from meltbench.targets import printable, venvs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.runners import Embedded, Engine
    from meltbench.site import Site
    from meltbench.watch import Watch

_ASK_S, _HASH_S = 60.0, 300.0
_FETCH_S, _MAKE_S = 900.0, 1800.0
_OLDEST_GLIBC = 17  # of what pip calls manylinux_2_17 or manylinux2014
_MAX_LIBRARIES = 200
_ABOUT = """
import importlib.util, json, platform, sys
found = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
print(json.dumps({"python": list(sys.version_info[:2]), "libc": platform.libc_ver(), "found": found}))
"""
# Imported, for a library that is missing there is told by that alone.
_INSIDE = """
import importlib, importlib.metadata as metadata, json, pathlib, sys
told = []
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    libraries = sorted(pathlib.Path(package.__file__).parent.rglob("*.so*"))
    names = metadata.packages_distributions().get(name, [name])
    told.append({"name": names[0], "version": metadata.version(names[0]),
                 "libraries": [str(one) for one in libraries if one.is_file()]})
print(json.dumps(told))
"""
_MAKE = """set -e
dir=$1 python=$2 pip=$3; shift 3
[ -x "$dir/bin/python" ] && [ -e "$dir/whole" ] && exit 0
rm -rf "$dir" "$dir.part"
mkdir -p "${dir%/*}"
"$python" -m venv --without-pip "$dir.part"
PYTHONPATH=$pip "$dir.part/bin/python" -m pip install --quiet --no-index --no-deps --no-input --no-cache-dir \\
    --disable-pip-version-check --no-warn-script-location "$@"
: >"$dir.part/whole"
mv "$dir.part" "$dir"
"""


@dataclass(frozen=True)
class Python:
    """A target's Python: its version, the C library and its version, and which of the packages it has."""

    version: tuple[int, int]
    libc: tuple[str, str]
    found: frozenset[str]

    def platforms(self, arch: str) -> list[str]:
        """The platforms whose wheels it takes, in pip's words, the newest first."""
        minor = re.fullmatch(r"2\.(\d{1,3})", self.libc[1]) if self.libc[0] == "glibc" else None
        if minor is None:
            return [f"musllinux_1_{number}_{arch}" for number in (2, 1)]
        return [f"manylinux_2_{number}_{arch}" for number in range(int(minor[1]), _OLDEST_GLIBC - 1, -1)]

    def words(self, arch: str) -> str:
        """For an error message."""
        return (
            f"Python {self.version[0]}.{self.version[1]} on {arch} with {self.libc[0] or 'musl'} {self.libc[1]}".strip()
        )


def files_for(engine: Engine, embedded: Embedded, site: Site, watch: Watch) -> Engine:
    """The engine with the files that are to be pushed: its scripts, and the wheels where the target's Python lacks the
    package. Raises UserError for a target without Python, FetchError where there are no such wheels."""
    wanted, name = (embedded.package, *embedded.beside), site.probe.name
    if PYTHON not in site.facts.programs:
        raise UserError(f"{engine.name} needs Python, and {name} has no {PYTHON}", hint="install it there")
    python = _about(site, wanted)
    if python.found.issuperset(wanted):
        return engine
    if python.found:
        raise UserError(
            f"the Python of {name} has {' and '.join(sorted(python.found))} and not all of {' and '.join(wanted)}",
            hint=f"on {name}: {PYTHON} -m pip install {engine.name}",
        )
    return replace(engine, files=(*engine.files, *_wheels(engine.name, embedded, python, site, watch)))


def _is_told(one: object) -> bool:
    """Whether it is what our script prints of a package: a device's own words may be anything."""
    libraries = one.get("libraries") if isinstance(one, dict) else None
    return isinstance(libraries, list) and all(isinstance(path, str) for path in libraries)


def put(engine: Engine, embedded: Embedded, site: Site, folder: str, watch: Watch) -> Engine:
    """The engine as it is started on a target where its files lie in ``folder``; its version and hash are those of the
    packages there. Raises DeviceError where a virtual environment cannot be made, UserError where it does not run."""
    scripts = engine.files[: 1 + len(embedded.modules)]
    wheels = engine.files[len(scripts) :]
    python = PYTHON if not wheels else _venv(engine, wheels, site, folder, watch)
    packages = [embedded.package, *embedded.beside]
    done = site.probe.transport.run([python, "-c", _INSIDE, *packages], Deadline.after(_ASK_S))
    told = _json(done.stdout)
    if done.code or not isinstance(told, list) or len(told) != len(packages) or not all(map(_is_told, told)):
        hint = "check the packages of its Python" if not wheels else "it may be too old for these wheels"
        raise UserError(f"{engine.name} does not run on {site.probe.name}: {done.complaint()}", hint=hint)
    names, libraries = [], []
    for one in told:
        names.append(tuple(printable(str(one.get(key)))[:80] for key in ("name", "version")))
        libraries += [str(path) for path in one.get("libraries") or ()][:_MAX_LIBRARIES]
    hashes = site.probe.hashes(libraries, Deadline.after(_HASH_S)) if libraries else {}
    if unread := next((path for path in libraries if hashes[path] is None), None):
        raise UserError(f"{printable(unread)} cannot be read on {site.probe.name}", hint="check its permissions")
    return replace(
        engine,
        name=names[0][0],
        version=", ".join([names[0][1], *(" ".join(one) for one in names[1:])]),
        sha256=digest([*map(file_sha256, scripts), *(hashes[path] for path in libraries)]),
        start=(python, "-B", f"{folder}/{scripts[0].name}"),
    )


def _about(site: Site, wanted: Sequence[str]) -> Python:
    done = site.probe.transport.run([PYTHON, "-c", _ABOUT, *wanted], Deadline.after(_ASK_S))
    told = _json(done.stdout)
    try:
        major, minor = (int(number) for number in told["python"])
        libc = (printable(str(told["libc"][0]))[:40], printable(str(told["libc"][1]))[:40])
        found = frozenset(wanted).intersection(map(str, told["found"]))
    except (KeyError, TypeError, ValueError, IndexError):
        raise DeviceError(
            f"the Python of {site.probe.name} cannot be asked: {done.complaint()}", hint=f"try {PYTHON} -V there"
        ) from None
    return Python((major, minor), libc, found)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _wheels(name: str, embedded: Embedded, python: Python, site: Site, watch: Watch) -> tuple[Path, ...]:
    """The wheels for that Python, fetched once: of the versions that are installed here, else of the newest."""
    arch = site.facts.arch
    here = [f"{one}=={version}" for one in (name, *embedded.beside) if (version := version_of(one)) is not None]
    pinned = tuple(here) if version_of(name) is not None else (name,)
    words = [f"--python-version={python.version[0]}.{python.version[1]}", "--implementation=cp"]
    words += [f"--platform={one}" for one in python.platforms(arch)]
    choices = dict.fromkeys((pinned, (name,)))
    folders = {one: paths.cache_dir() / "wheels" / digest([one, words])[:16] for one in choices}
    for folder in folders.values():
        if found := tuple(sorted(folder.glob("*.whl"))):
            return found
    said: str | None = ""
    for requirements, folder in folders.items():
        watch.say(f"fetching wheels of {' and '.join(requirements)} for {python.words(arch)}")
        said = _download(folder, [*words, "--", *requirements, "pip"])
        if said is None:
            return tuple(sorted(folder.glob("*.whl")))
    raise pip_failed(f"{name} for {python.words(arch)}", said or "", f"install it on {site.probe.name}")


def _download(folder: Path, words: list[str]) -> str | None:
    """Fetch wheels into a folder that is there when all of them are. Returns what pip said where it failed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Its own warnings are none of the user's, who may have made errors of them.
    command = [sys.executable, "-W", "ignore", "-m", "pip", "download", "--quiet", "--no-input", "--only-binary=:all:"]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as part:
        try:
            done = subprocess.run(
                [*command, f"--dest={part}", *words],
                capture_output=True, text=True, errors="replace", timeout=_FETCH_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"ERROR: {error}"
        if done.returncode:
            return done.stderr
        made = Path(part) / "made"
        made.mkdir()
        for wheel in Path(part).glob("*.whl"):
            wheel.rename(made / wheel.name)
        if not folder.exists():  # another may have fetched them meanwhile
            made.rename(folder)
    return None


def _venv(engine: Engine, wheels: Sequence[Path], site: Site, folder: str, watch: Watch) -> str:
    """The Python of the environment made of these wheels on a target, which lie in ``folder`` there."""
    key = digest([[wheel.name, file_sha256(wheel)] for wheel in wheels])[:16]
    at = f"{venvs.folder(site.probe)}/{key}"
    pip = next(wheel.name for wheel in wheels if wheel.name.startswith("pip-"))
    rest = [f"{folder}/{wheel.name}" for wheel in wheels if wheel.name != pip]
    there = site.probe.transport.run(["sh", "-c", '[ -e "$1/whole" ]', "sh", at], Deadline.after(_ASK_S))
    if there.code:
        watch.say(f"making a virtual environment with {engine.name} on {site.probe.name}: once")
    words = ["sh", "-c", _MAKE, "sh", at, PYTHON, f"{folder}/{pip}", *rest]
    done = site.probe.transport.run(words, Deadline.after(_MAKE_S))
    if done.code:
        said = done.complaint()
        raise DeviceError(
            f"no virtual environment can be made on {site.probe.name}: {said}",
            hint=room_hint((done.stderr or done.stdout).decode("utf-8", "replace"), site.probe.name)
            or f"install {engine.name} there by hand",
        )
    return f"{at}/bin/python"
