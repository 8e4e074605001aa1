"""Compiles llama.cpp's stock programs for a target, once, into the cache: static, stripped, always the same bytes."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meltbench import paths
from meltbench.builds import tools as toolbox
from meltbench.builds.log import edge_of, why
from meltbench.builds.running import run_tool
from meltbench.builds.source import LLAMA_CPP, Source
from meltbench.deadline import Deadline
from meltbench.errors import BuildFailed, MissingExtra
from meltbench.spec import digest

if TYPE_CHECKING:
    from meltbench.builds.variants import Variant
    from meltbench.watch import Watch

# All of them always: beside the server, which is nine CPU-minutes, the others cost a quarter of one.
PROGRAMS = ("llama-server", "llama-bench", "llama-perplexity")
RECORD = "build.json"
RECIPE = 1  # another recipe, another build

# What a program is made of, wherever it is compiled. Nothing is fetched, and nothing asks git for a commit.
COMMON = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_CCACHE": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_BUILD_NUMBER": "0",
}
# Threads are llama.cpp's own: musl has no OpenMP.
_CROSS = COMMON | {"CMAKE_SYSTEM_NAME": "Linux", "GGML_STATIC": "ON", "GGML_NATIVE": "OFF", "GGML_OPENMP": "OFF"}

_DEADLINE_S = 4 * 3600.0
_NEEDED_BYTES = 600_000_000  # measured: 330 MB, source package included
_said_version = re.compile(r"-- llama\.cpp version: ([0-9A-Za-z.+-]{1,40})$")


@dataclass(frozen=True)
class Record:
    """What a build is, beside its programs in build.json. ``programs``: sha256 by name. ``version``: what they say."""

    version: str
    source: dict[str, str]
    target: str
    cpu: str
    needs: tuple[str, ...]
    compiler: str
    driven_by: tuple[str, ...]
    flags: tuple[str, ...]
    options: dict[str, str]
    programs: dict[str, str]
    recipe: int = RECIPE


def ensure(variant: Variant, watch: Watch, *, jobs: int | None = None, source: Source = LLAMA_CPP) -> Path:
    """The folder of the stock programs for a variant; built when it is not in the cache, which takes some minutes.

    ``jobs``: compilers at a time, by default the processors there are. Raises MissingExtra without a compiler,
    FetchError without the source, BuildFailed with the compiler's own error, KeyboardInterrupt after cleaning up.
    """
    try:
        tools = toolbox.find(variant)
    except MissingExtra:
        if found := _of_any_compiler(variant, source):
            return found
        raise
    key = digest([RECIPE, asdict(source), tools.label, tools.cc[1:], tools.link, _CROSS])[:16]
    folder = paths.cache_dir() / "builds" / f"{variant.name}-{key}"
    if whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    waiting = f"another process is building {folder.name}; waiting for it"
    with paths.alone(folder.with_name(f".{folder.name}.lock"), lambda: watch.say(waiting)):
        if not whole(folder):
            _build(_Job(variant, source, tools, folder, jobs or os.cpu_count() or 1), watch)
    return folder


def record_of(folder: Path) -> Record | None:
    """What was recorded of a build; None for a folder that is none of ours."""
    try:
        told = json.loads((folder / RECORD).read_text("utf-8"))
        return Record(**told | {key: tuple(told[key]) for key in ("needs", "flags", "driven_by")})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def whole(folder: Path) -> bool:
    """Whether a build is there with every byte that was recorded."""
    record = record_of(folder)
    if record is None:
        return False
    return all(
        (folder / name).is_file() and paths.sha256_of(folder / name) == sha for name, sha in record.programs.items()
    )


def _of_any_compiler(variant: Variant, source: Source) -> Path | None:
    """A build of the same source and recipe, such as one whose compiler was removed since."""
    for folder in sorted((paths.cache_dir() / "builds").glob(f"{variant.name}-*")):
        record = record_of(folder)
        if record and (record.source["sha256"], record.recipe) == (source.sha256, RECIPE) and whole(folder):
            return folder
    return None


@dataclass(frozen=True)
class _Job:
    variant: Variant
    source: Source
    tools: toolbox.Tools
    folder: Path
    jobs: int


def _build(job: _Job, watch: Watch) -> None:
    """Unpack, configure, compile, take the programs out, and rename; nothing else stays, whatever happens."""
    free = shutil.disk_usage(job.folder.parent).free
    if free < _NEEDED_BYTES:
        hint = f"free some, or set MELTBENCH_CACHE to another disk than that of {job.folder.parent}"
        raise BuildFailed(
            f"an engine needs {_NEEDED_BYTES / 1e6:.0f} MB to be built, {free / 1e6:.0f} MB are free", hint=hint
        )
    archive = job.source.archive(watch.say)
    watch.say(
        f"building {', '.join(PROGRAMS)} for {job.variant.name} with {job.tools.label}: once, some 11 CPU-minutes"
    )
    shutil.rmtree(job.folder, ignore_errors=True)  # a damaged one
    for left in job.folder.parent.glob(f".{job.folder.name}-*"):  # by a controller that was killed
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(dir=job.folder.parent, prefix=f".{job.folder.name}-"))
    try:
        made = _compiled(job, archive, work, watch)
        made.chmod(0o755)
        made.rename(job.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    watch.say(f"built {job.folder}")


def _compiled(job: _Job, archive: Path, work: Path, watch: Watch) -> Path:
    source, build, made = job.source.unpack(archive, work), work / "build", work / "made"
    options = _CROSS | {
        "CMAKE_SYSTEM_PROCESSOR": job.variant.target.processor,
        "CMAKE_EXE_LINKER_FLAGS": " ".join(job.tools.link),
        "LLAMA_BUILD_COMMIT": job.source.label,
    }
    put = {key: str(path) for key, path in job.tools.put(work / "tools", source, build).items()}
    defines = [f"-D{key}={value}" for key, value in {**options, **put, "CMAKE_MAKE_PROGRAM": job.tools.ninja}.items()]
    deadline, env = Deadline.after(_DEADLINE_S), _environment(work)
    said = ""

    def heed(line: str) -> None:
        nonlocal said
        if found := _said_version.match(line):
            said = found[1]
        at = edge_of(line)
        done = {"done": at[0], "of": at[1]} if at else {}
        watch.step({"state": "running", "op": "build" if at else "configure", **done})

    watch.step({"state": "running", "op": "configure"})
    with (work / "log").open("w+", encoding="utf-8") as log:
        configure = [job.tools.cmake, "-S", str(source), "-B", str(build), "-G", "Ninja", *defines]
        for argv in (configure, [job.tools.ninja, "-C", str(build), "-j", str(job.jobs), *PROGRAMS]):
            if code := run_tool(argv, env, log, deadline, heed, "building the engine"):
                raise _failed(job, work / "log", code)
    made.mkdir()
    for name in PROGRAMS:
        shutil.copy2(build / "bin" / name, made / name)
    record = Record(
        version=f"{said or 'unknown'} (build 0, commit {job.source.label})",
        source={"package": job.source.package, "version": job.source.version, "sha256": job.source.sha256},
        target=job.variant.target.name,
        cpu=job.variant.cpu,
        needs=job.variant.needs,
        compiler=job.tools.label,
        driven_by=(toolbox.version(job.tools.cmake), f"ninja {toolbox.version(job.tools.ninja)}"),
        flags=job.tools.cc[1:],
        options=options,
        programs={name: paths.sha256_of(made / name) for name in PROGRAMS},
    )
    (made / RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n", "utf-8")
    return made


def _environment(work: Path) -> dict[str, str]:
    """The user's, without what would steer a compiler or CMake; and nowhere is a commit to be found."""
    steering = ("CC", "CXX", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_RUN_PATH")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not (name in steering or name.endswith("FLAGS") or name.startswith(("CMAKE_", "HF_", "GIT_", "NINJA_")))
    }
    # Zig's C and C++ libraries for a level are kept beside those of the probe: they take two minutes to make.
    zig = {"ZIG_GLOBAL_CACHE_DIR": str(paths.cache_dir() / "probe" / "zig"), "ZIG_LOCAL_CACHE_DIR": str(work / "zig")}
    return kept | zig | {"SOURCE_DATE_EPOCH": "0", "LC_ALL": "C", "GIT_DIR": os.devnull, "NINJA_STATUS": "[%f/%t] "}


def _failed(job: _Job, log: Path, code: int) -> BuildFailed:
    """What went wrong in the compiler's own words: the first error, for those after it follow from it."""
    kept = job.folder.parent / "logs" / f"{job.folder.name}.log"
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(log, kept)
    said = why(log.read_text("utf-8").splitlines(), code)
    hint = f"the whole log is {kept}"
    if "No space left" in said:
        hint = f"free some space below {job.folder.parent}; {hint}"
    elif re.search(r"Killed|terminated|out of memory", said):
        hint = f"there may be too little memory for {job.jobs} compilers at a time: --jobs 1; {hint}"
    return BuildFailed(f"{job.variant.name} cannot be built: {said}", hint=hint)
