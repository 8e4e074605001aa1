"""The probe's binaries: taken from the wheel, else from the user's cache, else compiled by the ziglang package.

``hatch_build.py`` uses it where meltbench's dependencies are absent, so it needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TARGETS = ("x86_64-linux-musl", "aarch64-linux-musl", "arm-linux-musleabihf", "riscv64-linux-musl")
ZIG_VERSION = "0.17.0"
MAX_BYTES = 150_000
NAME = "meltprobe"

# The same bytes come out wherever, whenever and on whatever processor this runs. Zig knows no -Oz: it hands on -Os.
FLAGS = (
    "-std=c11", "-D_GNU_SOURCE", "-Os", "-Xclang", "-Oz", "-g0", "-s", "-static", "-mcpu=baseline", "-pthread",
    "-flto", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-Wl,--build-id=none", "-fno-ident",
    "-fno-asynchronous-unwind-tables", "-fno-unwind-tables",
    "-Wall", "-Wextra", "-Werror", "-ffile-prefix-map=.=probe",
)  # fmt: skip

# Thumb-2, which every ARMv7-A executes, is a quarter smaller; the C library follows the target's name only.
_ZIG_TARGETS = {"arm-linux-musleabihf": "thumb-linux-musleabihf"}
_MACHINES = {
    "x86_64": TARGETS[0], "amd64": TARGETS[0], "aarch64": TARGETS[1], "arm64": TARGETS[1],
    "armv7l": TARGETS[2], "armv8l": TARGETS[2], "riscv64": TARGETS[3],
}  # fmt: skip
_PACKAGE = Path(__file__).resolve().parent.parent


def source_dir() -> Path:
    """Where the C sources are: in the wheel's definitions, else in the checkout."""
    packaged = _PACKAGE / "definitions" / "runners" / "probe" / "src"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "runners" / "probe" / "src"


@cache
def source_hash() -> str:
    """SHA-256 over the C sources, the flags and the compiler's version: equal hashes are equal binaries."""
    digest = hashlib.sha256(repr((ZIG_VERSION, FLAGS, _ZIG_TARGETS)).encode())
    for path in sorted(source_dir().glob("*.[ch]")):
        body = path.read_bytes()
        digest.update(f"{path.name} {len(body)}\n".encode() + body)
    return digest.hexdigest()


def target_of(system: str, machine: str) -> str | None:
    """The target of a machine by what ``uname -s`` and ``uname -m`` say; None where the probe does not run."""
    return _MACHINES.get(machine.lower()) if system == "Linux" else None


def native_target() -> str | None:
    """The target of this machine; None where the probe does not run."""
    return target_of(platform.system(), platform.machine())


def host_target() -> str:
    """The target of this machine. Raises UserError where the probe does not run."""
    target = native_target()
    if target is None:
        from meltbench.errors import UserError

        raise UserError(
            f"the probe does not run on {platform.system()} {platform.machine()}",
            hint="measure a device over ssh or adb",
        )
    return target


def compile_probe(target: str, out_path: Path, zig_cache: Path) -> None:
    """Run the compiler. Raises OSError or CalledProcessError; ``zig_cache`` holds its own caches."""
    sources = sorted(path.name for path in source_dir().glob("*.c"))
    defines = (f'-DPROBE_TARGET="{target}"', f'-DPROBE_SOURCE="{source_hash()[:16]}"')
    # Relative names and a fixed working folder: no path of this machine can reach the binary.
    words = ["-target", _ZIG_TARGETS.get(target, target), *FLAGS, *defines, "-o", str(out_path.resolve()), *sources]
    zig_cc(words, zig_cache, source_dir())


def zig_cc(words: Sequence[str], zig_cache: Path, folder: Path | None = None) -> None:
    """Run the C compiler in ``folder``, whatever compiler settings the user has. Raises like ``compile_probe``."""
    zig_cache.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(zig_cache.resolve()),
        "ZIG_LOCAL_CACHE_DIR": str(zig_cache.resolve()),
        "SOURCE_DATE_EPOCH": "0",
        "LC_ALL": "C",
    }
    for name in ("CFLAGS", "CPPFLAGS", "LDFLAGS", "CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "ziglang", "cc", *words]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=600)


def build(target: str, out_path: Path, zig_cache: Path | None = None) -> None:
    """Compile the probe for ``target`` (one of TARGETS) to ``out_path``, replacing it atomically.

    Raises MissingExtra without the pinned ziglang, UnknownName for another target, InternalError when the
    compiler refuses our own sources.
    """
    from meltbench import paths
    from meltbench.errors import InternalError, MissingExtra, UnknownName

    if target not in TARGETS:
        raise UnknownName("probe target", target, TARGETS)
    if not zig_there():
        raise MissingExtra(f"ziglang {ZIG_VERSION} (the C compiler that builds the probe)", "build")
    out_path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".meltprobe-", dir=out_path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        compile_probe(target, partial, zig_cache or paths.cache_dir() / "probe" / "zig")
        partial.chmod(0o755)
        partial.replace(out_path)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "no message").strip().splitlines()[-1]
        raise InternalError(f"the probe for {target} does not compile: {last}", hint="please report this") from error
    except subprocess.TimeoutExpired as error:
        raise InternalError(f"compiling the probe for {target} took over 10 minutes") from error
    finally:
        partial.unlink(missing_ok=True)


def zig_there() -> bool:
    """Whether the pinned compiler is installed."""
    try:
        return importlib.metadata.version("ziglang") == ZIG_VERSION
    except importlib.metadata.PackageNotFoundError:
        return False


def binary(target: str, say: Callable[[str], None] | None = None) -> Path:
    """The probe for ``target``; built on first use, which ``say`` is told in one line.

    Raises like ``build``.
    """
    packaged = _PACKAGE / "definitions" / "probe-bin" / source_hash() / target / NAME
    if packaged.is_file():
        return packaged
    from meltbench import paths

    folder = paths.cache_dir() / "probe" / source_hash() / target
    path = folder / NAME
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with paths.alone(folder / "lock", lambda: None):
        if not path.is_file():
            if say is not None:
                say(f"building the probe for {target} (once, about half a minute)")
            build(target, path)
    return path
