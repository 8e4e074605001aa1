"""Engines are built by real compilers, static and always the same; a small project stands in for llama.cpp's source."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from cli import heed_interrupts
from jsoncheck import NAMED, problems
from standin_kit import Told, cached, standin

from benchmarks.kit import lab
from meltbench import builds, paths
from meltbench.builds import tools
from meltbench.builds.make import whole
from meltbench.builds.source import LLAMA_CPP, Source
from meltbench.errors import BuildFailed, FetchError, MissingExtra
from meltbench.runners import engine, load

ROW = builds.variant("x86_64-linux")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and the distribution's compiler: Zig would first make its libraries, for two minutes."""
    if shutil.which("x86_64-linux-gnu-g++") is None:
        pytest.skip("no x86_64-linux-gnu-g++ on this machine")
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "a cache"))
    monkeypatch.setattr(tools, "zig_there", lambda: False)
    return tmp_path / "a cache"


# By level what llama.cpp's source asks for by the compiler's own macros: those that it has, and some that it must not.
MACROS = {
    "x86_64-linux-generic": ("__SSE2__", "__SSE3__ __AVX__"),
    "x86_64-linux-v2": ("__SSE4_2__ __POPCNT__", "__AVX__"),
    "x86_64-linux-v3": ("__AVX2__ __FMA__ __F16C__ __BMI2__", "__AVX512F__ __AVXVNNI__"),
    "x86_64-linux-v4": ("__AVX512F__ __AVX512BW__ __AVX512DQ__ __AVX512VL__", "__AVX512VNNI__"),
    "aarch64-linux-generic": ("__ARM_NEON", "__ARM_FEATURE_DOTPROD __ARM_FEATURE_ATOMICS"),
    "aarch64-linux-dotprod": (
        "__ARM_FEATURE_DOTPROD __ARM_FEATURE_FP16_VECTOR_ARITHMETIC",
        "__ARM_FEATURE_MATMUL_INT8 __ARM_FEATURE_SVE",
    ),
    "aarch64-linux-i8mm": (
        "__ARM_FEATURE_DOTPROD __ARM_FEATURE_FP16_VECTOR_ARITHMETIC __ARM_FEATURE_MATMUL_INT8",
        "__ARM_FEATURE_SVE __ARM_FEATURE_BF16",
    ),
    "armv7-linux-generic": ("__ARM_NEON __ARM_FEATURE_FMA", "__ARM_FEATURE_CRC32"),
    "riscv64-linux-generic": ("__riscv_compressed", "__riscv_v __riscv_v_intrinsic __riscv_zfhmin"),
}


@pytest.mark.parametrize("kind", ["zig", "gnu"])
@pytest.mark.parametrize("row", builds.VARIANTS, ids=lambda row: row.name)
def test_a_level_has_the_instructions_of_its_name_and_no_more(row: builds.Variant, kind: str, tmp_path: Path) -> None:
    found = tools._zig(row) if kind == "zig" else tools._gnu(row)
    if found is None:
        pytest.skip(f"no compiler of {kind} for {row.target.name} on this machine")
    has, has_not = (words.split() for words in MACROS[row.name])
    lines = [f"#ifndef {word}\n#error lacks {word}\n#endif\n" for word in has]
    lines += [f"#ifdef {word}\n#error has {word}\n#endif\n" for word in has_not]
    (tmp_path / "level.c").write_text("".join(lines) + "int level;\n")
    env = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(paths.cache_dir() / "probe" / "zig")}
    env |= {"ZIG_LOCAL_CACHE_DIR": str(tmp_path / "zig")}
    argv = [*found[1], "-c", str(tmp_path / "level.c"), "-o", str(tmp_path / "level.o")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def remains(cache: Path) -> list[str]:
    """What lies in the cache beside finished builds and what is kept on purpose."""
    return sorted(
        p.name for p in (cache / "builds").iterdir() if p.name.startswith(".") and not p.name.endswith(".lock")
    )


def test_the_programs_are_static_stripped_and_the_same_wherever_they_are_built(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, archive = standin(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    monkeypatch.setenv("CFLAGS", "-DSPOILT")
    monkeypatch.setenv("CMAKE_BUILD_TYPE", "Debug")
    told = Told()
    first = builds.ensure(ROW, told, source=source)
    assert told.said[0] == "fetching the source of llama-standin-1.0"
    assert {(step["op"], step.get("of")) for step in told.steps} >= {("configure", None), ("build", 8)}
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "elsewhere" / "and deeper"))
    second = builds.ensure(ROW, Told(), jobs=1, source=source)
    assert second != first
    for name in ("build.json", *builds.PROGRAMS):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    record = builds.record_of(first)
    assert record is not None
    assert record.programs == {name: paths.sha256_of(first / name) for name in builds.PROGRAMS}
    assert (record.target, record.cpu, record.source["sha256"]) == ("x86_64-linux", "generic", source.sha256)
    said = subprocess.check_output([first / "llama-server", "--version"], text=True).splitlines()
    assert said == [f"version: {record.version}", "built from llama.cpp/src/main.cpp"]
    assert record.version == "9.9.9 (build 0, commit llama-standin-1.0)"
    for name in builds.PROGRAMS:
        headers = subprocess.check_output(["readelf", "-lS", first / name], text=True)
        assert "INTERP" not in headers
        assert ".symtab" not in headers
    assert remains(cache) == []


def test_what_is_in_the_cache_is_taken_and_what_is_damaged_is_built_anew(cache: Path, tmp_path: Path) -> None:
    source, archive = standin(tmp_path / "index")
    cached(source, archive)
    folder = builds.ensure(ROW, Told(), source=source)
    again = Told()
    assert builds.ensure(ROW, again, source=source) == folder
    assert (again.said, again.steps) == ([], [])
    program = folder / "llama-bench"
    program.write_bytes(program.read_bytes()[:-1] + b"?")
    assert not whole(folder)
    assert builds.ensure(ROW, again, source=source) == folder
    assert whole(folder)
    assert again.steps


def test_a_build_outlives_its_compiler(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, archive = standin(tmp_path / "index")
    cached(source, archive)
    folder = builds.ensure(ROW, Told(), source=source)
    monkeypatch.setattr(tools, "_gnu", lambda _: None)
    assert builds.ensure(ROW, Told(), source=source) == folder
    with pytest.raises(MissingExtra, match=r"ziglang .*meltbench\[build\]"):
        builds.ensure(builds.variant("x86_64-linux", "v3"), Told(), source=source)


def test_an_engine_from_the_cache_knows_its_version_without_being_run(cache: Path, tmp_path: Path) -> None:
    source, archive = standin(tmp_path / "index")
    cached(source, archive)
    folder = builds.ensure(ROW, Told(), source=source)
    (folder / "llama-server").chmod(0o755)
    recipe, definition = load("llamacpp")
    made = engine("llamacpp", recipe, definition.path.parent, str(folder))
    assert made.version == "9.9.9 (build 0, commit llama-standin-1.0)"
    assert made.machine == "x86_64"


def test_what_the_compiler_refuses_is_told_in_its_own_words(cache: Path, tmp_path: Path) -> None:
    source, archive = standin(tmp_path / "index", lines="int lines(void) { return nothing; }\n")
    cached(source, archive)
    with pytest.raises(
        BuildFailed, match=r"x86_64-linux-generic cannot be built: .*lines.c:1:.*error: .nothing. undec"
    ) as caught:
        builds.ensure(ROW, Told(), source=source)
    kept = Path(str(caught.value.hint).removeprefix("the whole log is "))
    assert "FAILED: " in kept.read_text()
    assert remains(cache) == []


def test_a_package_that_is_not_the_one_that_was_pinned_is_refused_before_it_runs(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, archive = standin(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    pinned = Source(source.package, source.version, "0" * 64, source.inside)
    with pytest.raises(FetchError, match=r"llama-standin-1.0 on the index is not the one that was pinned"):
        builds.ensure(ROW, Told(), source=pinned)
    absent = Source("llama-absent", "1.0", "0" * 64, source.inside)
    with pytest.raises(FetchError, match=r"pip cannot find llama-absent-1.0: .*No matching distribution"):
        builds.ensure(ROW, Told(), source=absent)
    assert remains(cache) == []


SCRIPT = """
import sys
import time
from pathlib import Path
from meltbench.builds import source, make, tools
from meltbench.cli import main
tools.zig_there = lambda: False
pin = source.Source("llama-standin", "1.0", sys.argv.pop(1), "llama_standin-1.0/vendor/llama.cpp")
make.ensure.__kwdefaults__["source"] = pin
main()
"""


def command(source: Source, *words: str) -> subprocess.Popen[str]:
    """The command line, told of the stand-in."""
    build = ["runners", "build", "llamacpp", "--target", "x86_64-linux", *words]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, source.sha256, *build],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts, start_new_session=True,
    )  # fmt: skip


def slow(folder: Path, seconds: int) -> tuple[Source, Path]:
    """A stand-in, one of whose steps takes a while as long as there is no file of that name in ``folder``."""
    script = folder / "wait.sh"
    script.write_text(f"[ -e '{folder}/hurry' ] || sleep {seconds}\n")
    cmake = f"add_custom_target(wait COMMAND sh {script})\nadd_dependencies(lines wait)\n"
    return standin(folder / "index", cmake=cmake)


def test_two_processes_build_once_and_the_second_waits(cache: Path, tmp_path: Path) -> None:
    source, archive = slow(tmp_path, 3)
    cached(source, archive)
    both = [command(source, "--json") for _ in range(2)]
    done = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], done
    assert done[0][0] == done[1][0]
    assert problems(NAMED["build"], json.loads(done[0][0])) == []
    said = "".join(err for _, err in done)
    assert said.count("building llama-server, llama-bench, llama-perplexity for x86_64-linux-generic") == 1
    assert said.count("another process is building x86_64-linux-generic") == 1


def interrupted(source: Source, seconds: int, number: int) -> tuple[int, str]:
    """Start a build, send a signal while its step sleeps that long; the exit status and what was said."""
    process = command(source)
    while not sleeping(seconds):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


def test_an_interrupt_in_the_middle_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    source, archive = slow(tmp_path, 47)
    cached(source, archive)
    code, err = interrupted(source, 47, signal.SIGINT)
    assert code == 130
    assert "interrupted; nothing is running" in err
    assert remains(cache) == []
    assert sleeping(47) == []


def test_what_a_killed_build_left_is_cleared_by_the_next(cache: Path, tmp_path: Path) -> None:
    source, archive = slow(tmp_path, 53)
    cached(source, archive)
    assert interrupted(source, 53, signal.SIGKILL)[0] == -signal.SIGKILL
    assert len(remains(cache)) == 1
    for pid in sleeping(53):
        os.kill(pid, signal.SIGKILL)
    (tmp_path / "hurry").touch()
    folder = builds.ensure(ROW, Told(), source=source)
    assert whole(folder)
    assert remains(cache) == []


def sleeping(seconds: int) -> list[int]:
    """Processes that sleep that long."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", str(seconds).encode()]:
            found.append(int(folder.name))
    return found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("llamacpp",), "say what to build for: a target, or on a device; --target x86_64-linux or aarch64-linux or"),
        (("llamacpp", "--target", "aarch64"), "unknown target 'aarch64'; did you mean aarch64-linux"),
        (("llamacpp", "--target", "x86_64-linux", "--cpu", "i8mm"), "unknown level of x86_64-linux processors 'i8mm'"),
        (("llamacpp", "--target", "x86_64-linux", "--cuda"), "--cuda goes with --on-device; CUDA's compiler runs on"),
        (("llamacpp", "--on-device", "pi", "--cpu", "v3"), "--cpu goes with --target; on a device the build is made"),
        (("llama-bench", "--target", "x86_64-linux"), "unknown runner whose engine can be built 'llama-bench'"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(words: tuple[str, ...], said: str) -> None:
    build = [sys.executable, "-m", "meltbench", "runners", "build", *words]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"meltbench: {said}")
    assert done.stderr.count("\n") == 1


def test_the_group_still_lists_and_its_help_has_an_example() -> None:
    meltbench = [sys.executable, "-m", "meltbench", "runners"]
    assert "llama-bench" in subprocess.check_output(meltbench, text=True)
    listed = json.loads(subprocess.check_output([*meltbench, "--json"], text=True))
    assert problems(NAMED["runners"], listed) == []
    shown = " ".join(subprocess.check_output([*meltbench, "build", "--help"], text=True).split())
    assert "Example: meltbench runners build llamacpp --target aarch64-linux --cpu dotprod" in shown


@pytest.fixture(scope="module")
def arm() -> tuple[list[str], Path]:
    """What starts a program as a Cortex-A72 would, and the programs that make lab built of the pinned source."""
    emulator = shutil.which("qemu-aarch64-static")
    found = [f for f in sorted((lab() / "engines").glob("aarch64-linux-generic-*")) if whole(f)]
    if not found or emulator is None:
        pytest.skip("no llama-server for aarch64, or no emulator: make lab has both")
    return [emulator, "-cpu", "cortex-a72"], found[-1]


def test_the_real_programs_for_arm_say_what_was_recorded(arm: tuple[list[str], Path]) -> None:
    start, folder = arm
    record = builds.record_of(folder)
    assert record is not None
    assert record.source["sha256"] == LLAMA_CPP.sha256
    for name in builds.PROGRAMS:
        done = subprocess.run([*start, folder / name, "--version"], capture_output=True, text=True, check=True)
        assert f"version: {record.version}\n" in done.stdout + done.stderr


def test_the_real_server_for_arm_answers(arm: tuple[list[str], Path], tmp_path: Path) -> None:
    start, folder = arm
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        address = "127.0.0.1", any_port.getsockname()[1]
    words = ["--model", tiny_llama.write(tmp_path / "tiny.gguf"), "--ctx-size", "128", "--threads", "1"]
    with (tmp_path / "log").open("w") as log:
        argv = [*start, folder / "llama-server", *words, "--host", address[0], "--port", str(address[1])]
        server = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 60
        while ask(address, "GET", "/health") != {"status": "ok"}:
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.1)
        wanted = {"prompt": "hello", "n_predict": 5, "temperature": 0, "ignore_eos": True}
        answer = ask(address, "POST", "/completion", wanted)
        assert answer["tokens_predicted"] == 5
        assert answer["timings"]["predicted_ms"] > 0
    finally:
        server.terminate()
        assert server.wait(20) == 0


def ask(address: tuple[str, int], method: str, path: str, body: object = None) -> Any:
    connection = http.client.HTTPConnection(*address, timeout=60)
    try:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())
    except OSError:
        return None
    finally:
        connection.close()
