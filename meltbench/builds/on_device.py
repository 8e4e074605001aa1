"""Compiles llama.cpp on a device that has the toolkit for it, for its GPU or its very processor.

The device does it by itself: a shell that outlives the link, a log that is looked at, and in the end the programs with
their record in the device's cache, from where later runs take them. ``Transport`` is all that it needs.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from meltbench import paths
from meltbench.builds.log import edge_of, why
from meltbench.builds.make import COMMON, PROGRAMS, RECIPE
from meltbench.builds.source import LLAMA_CPP, Source
from meltbench.deadline import Deadline
from meltbench.errors import BuildFailed, DeviceError, Interrupted
from meltbench.spec import digest
from meltbench.targets import printable

if TYPE_CHECKING:
    from meltbench.targets import Transport
    from meltbench.watch import Watch

_CALL_S, _PUSH_S, _DEADLINE_S = 30.0, 1800.0, 6 * 3600.0
_POLL_S = 2.0
_NEEDED_BYTES = 3_000_000_000  # with CUDA's kernels; by the documentation of their sizes, not measured
_BYTES_A_JOB = 2 << 30
_LOG_BYTES = 16 << 20  # of a log that are looked through

# The compute capability of each Jetson's GPU, by what its device tree says (NVIDIA's table of CUDA GPUs).
_JETSONS = {"nvidia,tegra210": "53", "nvidia,tegra186": "62", "nvidia,tegra194": "72", "nvidia,tegra234": "87"}

_TOOLS = ("cmake", "c++", "ninja", "make", "tar", "gzip", "sha256sum", "setsid", "flock")
_LOOK = """
root=$1; shift
[ -d "$root" ] || root=$HOME
say() { printf '%s=%s\\n' "$1" "$2"; }
for tool do say "$tool" "$(command -v "$tool")"; done
nvcc=$(command -v nvcc) || for one in /usr/local/cuda/bin/nvcc /usr/local/cuda-*/bin/nvcc; do
    [ -x "$one" ] && nvcc=$one && break
done
say nvcc "$nvcc"
[ -n "$nvcc" ] && say cuda "$("$nvcc" --version | sed -n 's/.*release \\([0-9.]*\\).*/\\1/p')"
say cmake_version "$(cmake --version 2>/dev/null | sed -n 1p)"
say cxx_version "$(c++ --version 2>/dev/null | sed -n 1p)"
say compute "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sed -n 1p)"
say compatible "$(tr '\\0' ' ' 2>/dev/null </proc/device-tree/compatible)"
say machine "$(uname -m)"; say cpus "$(nproc)"
say memory_kib "$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)"
say free_kib "$(df -Pk "$root" | sed -n '2s/^[^ ]* *[0-9]* *[0-9]* *\\([0-9]*\\).*/\\1/p')"
"""
# Whether the builder lives (a pid may be another's by now), how it ended, and the end of its log.
_POLL = """cd "$1" 2>/dev/null || exit 3
pid=$(cat pid 2>/dev/null); alive=no
[ -n "$pid" ] && tr '\\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$1/build.sh" && alive=yes
printf '%s %s\\n' "$alive" "$(cat status 2>/dev/null)"
tail -n 20 log 2>/dev/null
exit 0"""
_BEGIN = """cd "$1" && rm -f status log && { s=; command -v setsid >/dev/null && s=setsid
$s nohup sh "$1/build.sh" </dev/null >/dev/null 2>&1 & }"""
_LIST = """for record in "$1"/cache/builds/*/build.json; do
    at=${record%/build.json}
    printf '%s\\n' "$at"; cat "$record"; echo; sed 's/^/sum /' "$at/sha256sums"; sed 's/^/say /' "$at/version"
done 2>/dev/null
exit 0"""


@dataclass(frozen=True)
class Installed:
    """A build that lies on a device. ``programs``: sha256 by name. ``cuda``: the toolkit's version, None without."""

    folder: str
    version: str
    source_sha256: str
    compiler: str
    cuda: str | None
    programs: dict[str, str]


@dataclass(frozen=True)
class _Kit:
    """What a device has to compile with; ``told`` as it says it."""

    name: str
    told: dict[str, str]

    def has(self, tool: str) -> bool:
        return self.told.get(tool, "").startswith("/")

    def number(self, key: str) -> int:
        text = self.told.get(key, "")
        return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else 0

    @property
    def compute(self) -> str | None:
        """The GPU's compute capability, such as "87"; None where nobody says it and CMake is left to find it."""
        for name in self.told.get("compatible", "").split():
            if name in _JETSONS:
                return _JETSONS[name]
        said = re.fullmatch(r"([0-9]{1,2})\.([0-9])", self.told.get("compute", ""))
        return said[1] + said[2] if said else None


def build(
    transport: Transport,
    name: str,
    watch: Watch,
    *,
    root: str,
    cuda: bool,
    jobs: int | None = None,
    source: Source = LLAMA_CPP,
) -> Installed:
    """Compile on the device ``name``; what it has already compiled of the same source and tools is taken as it is.

    ``root``: the folder of ours there. Raises DeviceError for what the device lacks,
    BuildFailed with the compiler's own error; Interrupted on Ctrl-C, which leaves the build under way.
    """
    kit = _look(transport, name, root)
    _check(kit, cuda=cuda)
    options = _options(kit, source, cuda=cuda)
    tools = [kit.told.get(key, "") for key in ("machine", "cmake_version", "cxx_version", "cuda")]
    key = digest([RECIPE, asdict(source), options, tools])[:16]
    folder = f"{root}/cache/builds/{kit.told['machine']}-linux-{'cuda' if cuda else 'native'}-{key}"
    if (there := _installed_at(transport, root, folder)) is not None:
        return there
    work = f"{folder.rpartition('/')[0]}/.{folder.rpartition('/')[2]}"
    try:
        if not _poll(transport, work)[0]:
            archive = _send(transport, source, root, watch)
            record = {
                "source_sha256": source.sha256,
                "cuda": kit.told.get("cuda") if cuda else None,
                "compiler": kit.told.get("cxx_version", ""),
                "options": options,
            }
            job = _script(kit, source, options, archive, work, folder, jobs)
            for path, body in (("build.json", json.dumps(record, indent=2)), ("build.sh", job)):
                transport.push(body.encode(), f"{work}/{path}", Deadline.after(_CALL_S))
            watch.say(f"building {', '.join(PROGRAMS)} on {name}: once, 10 minutes to an hour")
            _must(transport, ["sh", "-c", _BEGIN, "sh", work])
        _follow(transport, name, work, folder, watch)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {name} goes on building", hint="the same command looks on again") from None
    there = _installed_at(transport, root, folder)
    if there is None:
        raise DeviceError(f"{name} built an engine, and it is not in {folder}", hint="try again")
    return there


def installed(transport: Transport, root: str) -> tuple[Installed, ...]:
    """Every build in the cache of a device whose folder of ours is ``root``."""
    done = _must(transport, ["sh", "-c", _LIST, "sh", root])
    return tuple(filter(None, map(_read, re.split(r"^(?=/)", done, flags=re.MULTILINE))))


def _installed_at(transport: Transport, root: str, folder: str) -> Installed | None:
    return next((one for one in installed(transport, root) if one.folder == folder), None)


def _read(text: str) -> Installed | None:
    """A build from what the device lists of it; None for what is damaged."""
    folder, _, rest = text.partition("\n")
    lines = rest.splitlines()
    found = [re.fullmatch(r"sum ([0-9a-f]{64})  ([a-z-]{1,40})", line) for line in lines]
    sums = {one[2]: one[1] for one in found if one}
    said = next((one[1] for line in lines if (one := re.match(r"say version: *(.{1,80})", line))), "unknown")
    try:
        record = json.loads("\n".join(line for line in lines if not line.startswith(("sum ", "say "))))
        sha256, compiler, cuda = str(record["source_sha256"]), str(record["compiler"]), record["cuda"]
    except (ValueError, KeyError, TypeError):
        return None
    if not set(PROGRAMS) <= set(sums):
        return None
    toolkit = None if cuda is None else printable(str(cuda))[:20]
    return Installed(printable(folder), printable(said), sha256[:64], printable(compiler)[:200], toolkit, sums)


def _look(transport: Transport, name: str, root: str) -> _Kit:
    lines = _must(transport, ["sh", "-c", _LOOK, "sh", root, *_TOOLS]).splitlines()[:64]
    told = {key: printable(value)[:1000] for key, _, value in (line.partition("=") for line in lines)}
    if not re.fullmatch(r"[a-z0-9_]{1,20}", told.get("machine", "")):
        raise DeviceError(f"{name} does not say what it is", hint="its login shell must run a POSIX sh")
    return _Kit(name, told)


def _check(kit: _Kit, *, cuda: bool) -> None:
    """Raise DeviceError naming all that is missing, and where it was looked for."""
    if cuda and not kit.has("nvcc"):
        raise DeviceError(
            f"nvcc is not on {kit.name}: it is neither in the search path nor below /usr/local/cuda*/bin",
            hint="install CUDA's toolkit there (on a Jetson: sudo apt install nvidia-jetpack), or leave --cuda out",
        )
    packages = {"cmake": "cmake", "c++": "g++", "tar": "tar", "gzip": "gzip", "sha256sum": "coreutils"}
    lacks = [tool for tool in packages if not kit.has(tool)]
    lacks += [] if kit.has("ninja") or kit.has("make") else ["make"]
    if lacks:
        wanted = " ".join(packages.get(tool, tool) for tool in lacks)
        raise DeviceError(f"{kit.name} lacks {', '.join(lacks)}", hint=f"on it: sudo apt install {wanted}")
    free = kit.number("free_kib") * 1024
    if 0 < free < _NEEDED_BYTES:
        raise DeviceError(
            f"an engine may need {_NEEDED_BYTES / 1e9:.0f} GB to be built, {kit.name} has {free / 1e9:.1f} GB free",
            hint=f"free some, or take another disk: meltbench devices add {kit.name} --ssh ADDRESS --workdir DIR",
        )


def _options(kit: _Kit, source: Source, *, cuda: bool) -> dict[str, str]:
    """Made for the very processor and GPU that it is compiled on; linked to the libraries that are there."""
    options = COMMON | {"GGML_NATIVE": "ON", "LLAMA_BUILD_COMMIT": source.label}
    if cuda:
        options |= {"GGML_CUDA": "ON", "CMAKE_CUDA_COMPILER": kit.told["nvcc"]}
        options |= {"CMAKE_CUDA_ARCHITECTURES": kit.compute} if kit.compute else {}
    return options


def _send(transport: Transport, source: Source, root: str, watch: Watch) -> str:
    """Put the source's package on the device unless it lies there whole."""
    path = f"{root}/cache/builds/sources/{source.sha256}.tar.gz"
    done = transport.run(["sha256sum", "--", path], Deadline.after(_CALL_S * 4))
    if done.code or not done.stdout.startswith(source.sha256.encode()):
        archive = source.archive(watch.say)
        watch.say(f"sending the source, {archive.stat().st_size / 1e6:.0f} MB")
        transport.push(archive, path, Deadline.after(_PUSH_S))
        if paths.sha256_of(archive) not in _must(transport, ["sha256sum", "--", path]):
            raise DeviceError("the source was damaged on its way to the device", hint="try again")
    return path


def _script(
    kit: _Kit, source: Source, options: dict[str, str], archive: str, work: str, folder: str, jobs: int | None
) -> str:
    """What the device does by itself; the programs appear under their folder's name when all is done."""
    count = jobs or max(1, min(kit.number("cpus"), kit.number("memory_kib") * 1024 // _BYTES_A_JOB))
    generator = "Ninja" if kit.has("ninja") else "Unix Makefiles"
    defines = shlex.join(f"-D{key}={value}" for key, value in options.items())
    q = {key: shlex.quote(value) for key, value in {"work": work, "archive": archive, "folder": folder}.items()}
    inside, programs = shlex.quote(f"source/{source.inside}"), shlex.join(PROGRAMS)
    return f"""# Written by meltbench. It goes on when the link to the controller is cut.
cd {q["work"]} || exit 1
if command -v flock >/dev/null; then exec 9>lock; flock -n 9 || exit 0; fi
echo $$ >pid
export GIT_DIR=/dev/null LC_ALL=C NINJA_STATUS='[%f/%t] '
make_it() (
    set -e
    rm -rf source build made {q["folder"]}
    mkdir source made
    gzip -dc -- {q["archive"]} | tar -xf - -C source
    cmake -S {inside} -B build -G {shlex.quote(generator)} {defines}
    cmake --build build -j {count} --target {programs}
    for program in {programs}; do cp "build/bin/$program" made/; done
    cd made
    sha256sum {programs} >sha256sums
    ./llama-server --version >version 2>&1
    cp ../build.json .
    cd ..
    mv made {q["folder"]}
    rm -rf source build
)
make_it >log 2>&1 9>&-
echo $? >status.part && mv status.part status
"""


def _follow(transport: Transport, name: str, work: str, folder: str, watch: Watch) -> None:
    """Look on until the build has ended; a link that is cut is waited for."""
    deadline, lost, started = Deadline.after(_DEADLINE_S), False, time.monotonic()
    while True:
        deadline.check(f"building on {name}")
        time.sleep(_POLL_S)
        try:
            alive, code, lines = _poll(transport, work)
        except DeviceError as error:
            if not error.transient:
                raise
            if not lost:
                watch.say(f"{name} cannot be reached; it goes on building, and is waited for")
            lost = True
            continue
        lost = False
        at = next(filter(None, map(edge_of, reversed(lines))), None)
        progress: dict[str, Any] = {"done": at[0], "of": at[1]} if at else {}
        watch.step({"state": "running", "op": "build" if at else "configure", **progress})
        if code is None and not alive and time.monotonic() - started > 3 * _POLL_S:
            raise BuildFailed(f"the build on {name} ended without a word", hint="it was killed, or rebooted: try again")
        if code == 0:
            return
        if code is not None:
            raise _failed(transport, name, work, folder, code)


def _poll(transport: Transport, work: str) -> tuple[bool, int | None, list[str]]:
    """Whether a build is under way there, its exit status once it has ended, and the last lines of its log."""
    done = transport.run(["sh", "-c", _POLL, "sh", work], Deadline.after(_CALL_S))
    if done.code:
        return False, None, []
    first, _, rest = done.stdout.decode("utf-8", "replace").partition("\n")
    alive, _, status = first.partition(" ")
    code = int(status) if re.fullmatch(r"[0-9]{1,3}", status) else None
    return alive == "yes", code, [printable(line) for line in rest.splitlines()[-20:]]


def _failed(transport: Transport, name: str, work: str, folder: str, code: int) -> BuildFailed:
    kept = paths.cache_dir() / "builds" / "logs" / f"{name}-{folder.rpartition('/')[2]}.log"
    transport.pull(f"{work}/log", kept, Deadline.after(_PUSH_S))
    with kept.open("rb") as log:
        lines = [printable(line) for line in log.read(_LOG_BYTES).decode("utf-8", "replace").splitlines()]
    return BuildFailed(f"{name} cannot build it: {why(lines, code)}", hint=f"the whole log is {kept}")


def _must(transport: Transport, argv: list[str]) -> str:
    """What a command says that has to succeed."""
    done = transport.run(argv, Deadline.after(_CALL_S * 4))
    if done.code:
        raise DeviceError(f"{argv[0]} on the device: {done.complaint()}", hint="check its shell and its disk")
    return done.stdout.decode("utf-8", "replace")
