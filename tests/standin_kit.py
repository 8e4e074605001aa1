"""A source package of the shape that llama.cpp has inside llama-cpp-python, small enough to be compiled in a second.

It stands in for the real one at the edge: pip, CMake, ninja, the compiler and the programs that come out are real. The
real source is built by tests/lab/setup_lab.py, which takes ten minutes.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from meltbench import paths
from meltbench.builds.source import Source

NAME, VERSION = "llama-standin", "1.0"
_TOP = "llama_standin-1.0"
_CMAKE = """cmake_minimum_required(VERSION 3.14)
project(standin C CXX)
message(STATUS "llama.cpp version: 9.9.9")
add_library(lines STATIC src/lines.c)
foreach(program llama-server llama-bench llama-perplexity)
    add_executable(${program} src/main.cpp)
    target_link_libraries(${program} lines)
    target_compile_definitions(${program} PRIVATE NAME="${program}" COMMIT="${LLAMA_BUILD_COMMIT}"
        CUDA="${GGML_CUDA}" ARCHITECTURES="${CMAKE_CUDA_ARCHITECTURES}" BUILT_IN="${CMAKE_BINARY_DIR}")
    set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endforeach()
"""
# BUILT_IN is left unused: a path that reached a program would make two builds differ.
_MAIN = """#include <cstdio>
#include <cstring>
extern "C" int lines(void);
int main(int argc, char **argv) {
    if (argc > 1 && !std::strcmp(argv[1], "--version"))
        std::printf("version: 9.9.9 (build 0, commit %s)\\nbuilt from %s\\n", COMMIT, __FILE__);
    else
        std::printf("%s cuda=%s architectures=%s lines=%d\\n", NAME, CUDA, ARCHITECTURES, lines());
}
"""
_BACKEND = """def prepare_metadata_for_build_wheel(folder, config_settings=None):
    import os
    name = "llama_standin-1.0.dist-info"
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: llama-standin\\nVersion: 1.0\\n")
    return name
def build_wheel(*words):
    raise SystemExit("never asked for")
"""


def standin(
    folder: Path, lines: str = "int lines(void) { return __LINE__; }\n", cmake: str = ""
) -> tuple[Source, Path]:
    """A package in ``folder``, as an index would have it, and its pin.

    ``lines``: the text of one of its C files. ``cmake``: what else is told to CMake.
    """
    inside = "vendor/llama.cpp"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "llama-standin"\nversion = "1.0"\n',
        "PKG-INFO": "Metadata-Version: 2.1\nName: llama-standin\nVersion: 1.0\n",
        "backend.py": _BACKEND,
        f"{inside}/CMakeLists.txt": _CMAKE + cmake,
        f"{inside}/src/main.cpp": _MAIN,
        f"{inside}/src/lines.c": lines,
        f"{inside}/docs/long.md": "left out\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_TOP}.tar.gz"
    with tarfile.open(path, "w:gz") as bundle:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{_TOP}/{name}")
            member.size = len(text.encode())
            bundle.addfile(member, io.BytesIO(text.encode()))
    return Source(NAME, VERSION, paths.sha256_of(path), f"{_TOP}/{inside}"), path


def cached(source: Source, archive: Path) -> None:
    """Put a package where a fetch would have left it."""
    place = paths.cache_dir() / "builds" / "sources" / f"{source.sha256}.tar.gz"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(archive.read_bytes())


class Told:
    """A Watch that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[dict[str, object]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    warn = say

    def fetched(self, done: int, total: int | None) -> None:
        raise AssertionError("a package is not fetched by us")

    def step(self, status: dict[str, object]) -> None:
        self.steps.append(status)
