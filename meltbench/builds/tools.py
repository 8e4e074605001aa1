"""What engines are compiled with: ziglang, else the distribution's cross compiler; cmake and ninja to drive it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meltbench.errors import MissingExtra, UserError
from meltbench.probe.build import ZIG_VERSION, zig_there

if TYPE_CHECKING:
    from meltbench.builds.variants import Variant

_ASK_S = 60
# -O3 -s -static also for what CMake tries out: of each other combination Zig would first build a C++ library.
_WORDS = ("-O3", "-s", "-static", "-ffunction-sections", "-fdata-sections")
# musl gives a thread 128 KiB of stack unless the program says otherwise; the server's need what they get elsewhere.
_LINK = ("-static", "-s", "-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-z,stack-size=8388608")


@dataclass(frozen=True)
class Tools:
    """A compiler for one variant, with its flags, and what drives it. ``label`` names the compiler and its version."""

    label: str
    cc: tuple[str, ...]
    cxx: tuple[str, ...]
    ar: tuple[str, ...]
    ranlib: tuple[str, ...]
    cmake: str
    ninja: str
    link: tuple[str, ...] = _LINK

    def put(self, folder: Path, source: Path, build: Path) -> dict[str, Path]:
        """Write each tool into ``folder`` as a program that takes no words before its own; by CMake's names of them."""
        folder.mkdir()
        # No path of this machine may reach a program: what asserts name is below the source's own folder.
        maps = (f"-ffile-prefix-map={source}=llama.cpp", f"-ffile-prefix-map={build}=build")
        tools = {
            "CMAKE_C_COMPILER": ("cc", (*self.cc, *maps)),
            "CMAKE_CXX_COMPILER": ("c++", (*self.cxx, *maps)),
            "CMAKE_ASM_COMPILER": ("as", (*self.cc, *maps)),
            "CMAKE_AR": ("ar", self.ar),
            "CMAKE_RANLIB": ("ranlib", self.ranlib),
        }
        for name, words in tools.values():
            (folder / name).write_text(_script(words))
            (folder / name).chmod(0o755)
        return {variable: folder / name for variable, (name, _) in tools.items()}


def find(variant: Variant) -> Tools:
    """What can build a variant on this machine. Raises MissingExtra naming what is not there."""
    cmake, ninja = _program("cmake"), _program("ninja")
    found = _zig(variant) or _gnu(variant)
    lacks = [name for name, there in (("cmake", cmake), ("ninja", ninja)) if there is None]
    lacks += [] if found else [f"ziglang {ZIG_VERSION} (or {variant.target.gnu}-g++ of the distribution)"]
    if found is None or cmake is None or ninja is None:
        raise MissingExtra(f"{' and '.join(lacks)}, which engines are built with,", "build")
    label, cc, cxx, ar, ranlib = found
    return Tools(label, cc, cxx, ar, ranlib, cmake, ninja)


def version(program: str) -> str:
    """The first line that a tool says of its version."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_ASK_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{program} cannot say its version: {error}", hint="install it again") from error
    return (done.stdout.strip().splitlines() or ["unknown"])[0][:120]


_Found = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def _zig(variant: Variant) -> _Found | None:
    spec = importlib.util.find_spec("ziglang") if zig_there() else None
    if spec is None or spec.origin is None:
        return None
    zig = str(Path(spec.origin).parent / "zig")
    words = ("-target", variant.target.zig, *variant.zig, *_WORDS)
    return f"zig {ZIG_VERSION}", (zig, "cc", *words), (zig, "c++", *words), (zig, "ar"), (zig, "ranlib")


def _gnu(variant: Variant) -> _Found | None:
    names = [f"{variant.target.gnu}-{tool}" for tool in ("gcc", "g++", "ar", "ranlib")]
    paths = [path for name in names if (path := shutil.which(name))]
    if len(paths) < len(names):
        return None
    gcc, gxx, ar, ranlib = paths
    words = (*variant.gcc, *_WORDS)
    return version(gxx), (gcc, *words), (gxx, *words), (ar,), (ranlib,)


def _program(name: str) -> str | None:
    """A program beside this Python's own, where the index's packages put theirs, else in the search path."""
    return shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))


def _script(words: tuple[str, ...]) -> str:
    """The level is chosen for the whole program: llama.cpp's own -march, which Zig does not understand, is left out."""
    return f"""#!/bin/sh
for word do
    shift
    case $word in -march=*) ;; *) set -- "$@" "$word" ;; esac
done
exec {shlex.join(words)} "$@"
"""
