"""Bad input gives one line or a stored failure, never a traceback, and nothing is left running.

The engines of this module are programs made to misbehave: faults put in at the edge, on the real road.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import QUICK, Bench
from engines_kit import in_process_env, stock_folder

from meltbench.probe import build

pytestmark = pytest.mark.usefixtures("default_model")
FAST = (*QUICK, "--set", "timeout_s=5")


def refused(bench: Bench, *args: str, code: int = 2) -> str:
    done = bench.run(*args)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("meltbench: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--model", "smolm2-135m-q4"), "smollm2-135m-q4"),
        (("--device", "locl"), "local"),
        (("--runner", "llama-cpp"), "llamacpp"),
        (("--workload", "quik"), "quick"),
        (("--set", "idel_s=3"), "idle_s"),
        (("--set", "idle_s"), "key=value"),
        (("--set", "idle_s=soon"), "not a number"),
        (("--set", "load=hot"), "warm or cold"),
        (("--threads", "0"), "1 to 4096"),
        (("--threads", "1,two"), "1,2,4 to measure with each"),
        (("--threads", "2,2"), "has a number twice"),
        (("--workload", "idle", "--threads", "1,2"), "starts no engine"),
        (("--set", "batch=auto"), "1 to 1000000"),
        (("--set", "points=pp1"), "points is no setting of kind generate, only of grid"),
        (("--set", "concurrency=8"), "more than the 5 requests of a level"),
        (("--workload", "chat", "--set", "concurrency=2"), "only of generate; chat is one"),
        (("--workload", "sustained", "--set", "limit_s=0"), "out of range"),
        (("--workload", "grid", "--set", "points="), "such as pp512,tg128"),
        (("--workload", "grid", "--set", "points=pp4tg4"), "not a point"),
        (("--workload", "idle", "--seed", "3"), "starts no engine"),
        (("--model", "x" * 300), "unknown model"),
        (("--workload", "idle", "--model", "nosuch"), "starts no engine"),
        (("--workload", "idle", "--set", "max_tokens=3"), "idle_s"),
        (("--engine", "/nowhere"), "no such engine"),
        (("--model", "/nowhere/x.gguf"), "/nowhere/x.gguf"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(bench: Bench, args: tuple[str, ...], said: str) -> None:
    assert said in refused(bench, "run", *args)
    assert not bench.jobs()


def test_a_truncated_and_a_corrupt_model(bench: Bench, default_model: Path) -> None:
    cut, broken, page = bench.home / "cut.gguf", bench.home / "broken.gguf", bench.home / "page.gguf"
    with default_model.open("rb") as whole:
        head = whole.read(3 << 20)
    cut.write_bytes(head)
    broken.write_bytes(head[:100] + b"\xff" * 400 + head[500:])
    page.write_bytes(b"<!DOCTYPE html><html>no</html>")
    assert "page.gguf is not a GGUF file" in refused(bench, "run", "--model", str(page))
    assert not (bench.data / "runs").exists()
    for path, said in ((cut, "truncated"), (broken, "expected")):
        done = bench.run("run", "--model", str(path), "--reps", "2")
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        shown = bench.json("show", "last")
        assert (shown["outcome"], shown["validity"], shown["model"]["name"]) == ("failed", "invalid", path.stem)
        assert [reason["code"] for reason in shown["reasons"]] == ["model_damaged"]
        assert path.name in shown["failure"]
        assert said in shown["failure"]
        # Nothing was looked at, so nothing is said of the target, not even that it lacks a sensor.
        assert (shown["measures"], shown["sources"], shown["phases"]) == ([], [], [])
        assert "measure" not in bench.run("show", "last").stdout
    assert [run["state"] for run in bench.json("runs")] == ["failed"] * 4
    assert bench.json("verify") == []
    assert not bench.jobs()


def test_a_model_too_large_for_memory_is_told_before_anything_starts(bench: Bench) -> None:
    tree = bench.home / "proc"
    tree.mkdir()
    (tree / "meminfo").write_text("MemTotal:        200000 kB\nMemAvailable:    100000 kB\n")
    (bench.home / "devices").mkdir()
    (bench.home / "devices" / "small.toml").write_text(f'inherits = "local"\n[roots]\nproc = "{tree}"\n')
    for more in ((), ("--set", "ctx=none")):
        line = refused(bench, "run", "--device", "small", *more)
        assert "GiB" in line
        assert "small has 0.1 GiB available" in line
    assert not bench.jobs()


def test_more_than_a_run_can_hold_is_told_beforehand(bench: Bench) -> None:
    many = bench.home / "many.jsonl"
    many.write_text('{"prompt": "q"}\n' * 5000)
    assert "at most 4000" in refused(bench, "run", "--workload", str(many), "--dry-run")
    assert "at most 4000" in refused(bench, "run", "--set", "repeat=1000")
    assert "at most 4000" in refused(bench, "exec", "--", "true", *map(str, range(5000)))
    line = refused(bench, "run", "--workload", "grid", "--set", "points=pp9000")
    assert "pp9000 needs a context of 9008 tokens, smollm2-135m-q4_1 has 8192; ask for a shorter point" in line
    assert "--set ctx=1008" in refused(bench, "run", "--workload", "grid", "--set", "points=pp1000", "--set", "ctx=512")
    assert not bench.jobs()


def engine(bench: Bench, script: str) -> str:
    folder = bench.home / "engine"
    folder.mkdir(exist_ok=True)
    program = folder / "llama-server"
    program.write_text(script)
    program.chmod(0o755)
    return str(folder)


SERVER = """#!/usr/bin/env python3
import http.server, sys
if "--version" in sys.argv: sys.exit(0)
port = int(sys.argv[sys.argv.index("--port") + 1])
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def do_POST(self):
        {post}
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


SSE = "self.wfile.write(b'HTTP/1.1 200 OK\\r\\n\\r\\ndata: ' + %s + b'\\n\\n')"
BOAST = SSE % """b'{"content":"x","timings":{"predicted_n":100000000000000}}'"""
DEEP = SSE % "b'[' * 100000"


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("#!/bin/sh\necho 'no such tensor: blk.0' >&2\nexit 3\n", "engine_failed", "status 3"),
        ("#!/bin/sh\nkill -SEGV $$\n", "engine_failed", "signal 11"),
        ("#!/no/such/interpreter\n", "engine_failed", "spawn engine: cannot start: No such file or directory (it, or"),
        ("#!/bin/sh\nkill -ILL $$\n", "engine_failed", "an instruction this processor does not have"),
        ("#!/bin/sh\nexit 127\n", "engine_failed", "status 127: it, or something that it starts, was not found"),
        (SERVER.format(post="self.wfile.write(b'\\x00\\x1b[2J\\xff garbage')"), "engine_failed", "no HTTP header"),
        (SERVER.format(post="self.send_response(500); self.end_headers()"), "engine_failed", "http_500"),
        (
            SERVER.format(post="self.wfile.write(b'HTTP/1.1 200 OK\\r\\n\\r\\n' + b'x' * (100 << 20))"),
            "engine_failed",
            "of 6 requests",
        ),
        (SERVER.format(post="import time; time.sleep(60)"), "engine_failed", "of 6 requests"),
        (SERVER.format(post="import os; os._exit(9)"), "engine_failed", "status 9"),
        (SERVER.format(post=BOAST), "engine_failed", "the engine counts 100000000000000 tokens, 16 were asked for"),
        (SERVER.format(post=DEEP), "engine_failed", "not JSON"),
        (
            SERVER.format(post="pass").replace("send_response(200)", "send_response(503)"),
            "engine_failed",
            "ready engine",
        ),
    ],
)
def test_a_broken_engine_is_stored_with_its_reason(bench: Bench, script: str, code: str, said: str) -> None:
    done = bench.run("run", *FAST, "--engine", engine(bench, script), timeout=200)
    assert done.returncode == 1, done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    assert "\x1b[2J" not in done.stdout
    shown = bench.json("show", "last")
    assert (shown["outcome"], shown["validity"]) == ("failed", "invalid")
    assert code in {reason["code"] for reason in shown["reasons"]}
    assert said in shown["failure"]
    measured = {m["name"]: m["value"] for m in shown["measures"] if m["stat"] == "median"}
    assert measured["decode_tps"] is None
    (load,) = [m for m in shown["measures"] if m["name"] == "load_s"]
    if said in ("status 3", "signal 11", "ready engine") or said.startswith("spawn engine"):
        assert load["value"] is None
        assert "no engine became ready" in load["reason"]
    assert bench.json("verify") == []
    assert bench.no_leftovers()


def test_a_program_that_cannot_run_is_explained_before_anything_is_started(bench: Bench) -> None:
    program = Path(engine(bench, "not a program at all")) / "llama-server"
    given = ("run", *FAST, "--engine", str(program.parent))
    assert "is no program: it is neither an ELF file nor a script" in refused(bench, *given)
    whole = Path(sys.executable).resolve().read_bytes()
    program.write_bytes(whole[: len(whole) // 2])
    assert "is cut off" in refused(bench, *given)
    program.write_bytes(build.binary("aarch64-linux-musl").read_bytes())
    program.chmod(0o755)
    if os.uname().machine == "x86_64":
        assert "is for aarch64, the target local is x86_64; give a build for x86_64" in refused(bench, *given)
    assert not bench.jobs()


def test_an_engine_for_another_runner_is_said_to_be(bench: Bench) -> None:
    folder = bench.home / "engine"
    folder.mkdir()
    for name, runner, other in (
        ("llama-bench", "llamacpp", "llama-server"),
        ("llama-server", "llama-bench", "llama-bench"),
    ):
        (folder / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / name).chmod(0o755)
        right = "llama-bench" if runner == "llamacpp" else "llamacpp"
        for path in (folder, folder / name):
            line = refused(bench, "run", "--runner", runner, "--engine", str(path))
            assert other in line
            assert f"there is {name}: --runner {right}" in line
        (folder / name).unlink()
    assert "holds no llama-server; give one that holds llama-server" in refused(bench, "run", "--engine", str(folder))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ("llama-bench",),
            "no llama-bench is in PATH; --engine PATH, a folder or release archive that holds llama-bench",
        ),
        (
            ("llama-bench", "--workload", "quick"),
            "does workloads of kind grid, quick is of kind generate; --workload grid",
        ),
        (("llama-bench", "--set", "ctx=512"), "key of workload grid 'ctx'"),
        (("llama-cpp-python", "--engine", "."), "takes no --engine; set LLAMA_CPP_LIB_PATH"),
    ],
)
def test_what_a_runner_cannot_do_is_one_line(bench: Bench, args: tuple[str, ...], said: str) -> None:
    if "ctx=512" in args:
        args = (*args, "--engine", str(stock_folder()))
    assert said in refused(bench, "run", "--runner", *args)


def test_an_engine_in_a_process_that_is_not_installed_names_the_extra(bench: Bench) -> None:
    if importlib.util.find_spec("llama_cpp") is not None:
        pytest.skip("llama-cpp-python is installed here")
    line = refused(bench, "run", "--runner", "llama-cpp-python")
    assert "llama-cpp-python is not installed; pip install 'meltbench[llama-cpp-python]'" in line


def test_libraries_that_are_not_there_are_named(bench: Bench) -> None:
    bench.env |= in_process_env() | {"LLAMA_CPP_LIB_PATH": str(bench.home)}
    assert "which holds no library" in refused(bench, "run", "--runner", "llama-cpp-python")


def test_a_stock_engine_without_one_of_its_libraries_says_which(bench: Bench) -> None:
    folder = bench.home / "stock"
    shutil.copytree(stock_folder(), folder, symlinks=True)
    (folder / "libggml.so.0").unlink()
    for runner in ("llamacpp", "llama-bench"):
        done = bench.run("run", "--runner", runner, "--engine", str(folder), "--set", "idle_s=0.2")
        assert done.returncode == 1, done.stderr
        assert "it needs the library libggml.so.0, which is not there" in " ".join(done.stdout.split())


def test_the_engines_last_words_are_kept_harmless_and_bounded(bench: Bench) -> None:
    words = (
        "#!/bin/sh\nhead -c 104857600 /dev/zero | tr '\\0' 'x'\nprintf '\\n\\033[31mlast \\377words\\000\\n'\nexit 1\n"
    )
    done = bench.run("run", *FAST, "--engine", engine(bench, words))
    assert done.returncode == 1, done.stderr
    shown = bench.json("show", "last")
    assert shown["failure_log"].endswith("[31mlast \ufffdwords\ufffd")
    assert "\x1b" not in shown["failure_log"]
    folder = Path(shown["stored"])
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 4 << 20
    assert bench.no_leftovers()


def test_a_command_that_floods_its_output_is_bounded(bench: Bench) -> None:
    shown = bench.json("exec", "--set", "idle_s=0", "--", "sh", "-c", "head -c 200000000 /dev/zero")[0]
    assert shown["outcome"] == "done"
    folder = Path(shown["stored"])
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 4 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a small tmpfs takes root to mount")
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leave_bytes: int) -> None:
    stat = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(stat.f_bavail * stat.f_frsize - leave_bytes))


def test_a_full_data_folder_is_refused_before_anything_starts(bench: Bench, small_disk: Path) -> None:
    fill(small_disk, 0)
    line = refused(bench, "exec", "--data", str(small_disk), "--", "true", code=1)
    assert "free space" in line
    assert not bench.jobs()


def test_a_data_folder_that_fills_up_loses_nothing(bench: Bench, small_disk: Path) -> None:
    fill(small_disk, 300 << 10)
    noisy = ("--set", "idle_s=0", "--", "sh", "-c", "seq 1 200000")
    done = bench.run("exec", "--data", str(small_disk), *noisy)
    assert done.returncode == 1, done.stdout
    assert "No space left" in done.stderr
    assert "meltbench collect" in done.stderr
    assert "Traceback" not in done.stderr
    (small_disk / "filler").unlink()
    again = bench.run("collect", "--data", str(small_disk), "--json")
    assert again.returncode == 0, again.stderr
    collected = json.loads(again.stdout)
    assert [run["outcome"] for run in collected] == ["done"]
    assert bench.no_leftovers()


def test_a_target_that_fills_up_ends_the_run_cleanly(bench: Bench, small_disk: Path) -> None:
    (bench.home / "devices").mkdir()
    (bench.home / "devices" / "tiny.toml").write_text(f'inherits = "local"\nworkdir = "{small_disk}"\n')
    fill(small_disk, 400 << 10)
    filler = "import sys\nwhile True: sys.stdout.write('x' * 60 + chr(10))"
    done = bench.run("exec", "--device", "tiny", "--set", "idle_s=0.5", "--", "python3", "-c", filler)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert bench.no_leftovers()


def test_an_unwritable_data_folder_is_one_line(bench: Bench) -> None:
    blocked = bench.home / "file"
    blocked.write_text("")
    line = refused(bench, "exec", "--data", str(blocked / "data"), "--", "true", code=1)
    assert "--data" in line


def test_a_lost_run_is_said_and_not_invented(bench: Bench) -> None:
    bench.start_detached(30)
    state = bench.jobs()[0]
    subprocess.run([*next_probe(bench), "stop", str(state.parent)], check=True, timeout=30)
    shutil.rmtree(state.parent)
    bench.start_detached(2)
    done = bench.run("collect")
    assert done.returncode == 1
    assert "the target has nothing of it" in done.stderr
    assert sorted(row["state"] for row in bench.json("runs")) == ["detached", "done"]
    assert bench.no_leftovers()


def next_probe(bench: Bench) -> list[str]:
    (path,) = (bench.home / "state" / "meltbench" / "target" / "bin").glob("meltprobe-*")
    return [str(path)]


def test_an_index_that_does_not_fit_costs_no_run(bench: Bench, small_disk: Path) -> None:
    fill(small_disk, 700 << 10)
    done = bench.run("exec", "--data", str(small_disk), "--reps", "3", "--set", "idle_s=0.2", "--", "true", timeout=60)
    assert "Traceback" not in done.stderr
    assert "meltbench rebuild" in done.stderr
    runs = json.loads(bench.run("runs", "--data", str(small_disk), "--json").stdout)
    finished = [run for run in runs if run["state"] == "done"]
    assert finished
    assert done.stdout.count("stored in") == len(finished)
    assert not bench.jobs()
    (small_disk / "filler").unlink()
    assert json.loads(bench.run("rebuild", "--data", str(small_disk), "--json").stdout)["runs"] == len(finished)


def test_an_engine_that_floods_its_version_leaves_nothing_behind(bench: Bench) -> None:
    flood = engine(bench, f"#!/bin/sh\nexec 2>&1\nsleep 600 # {bench.home}\n")
    Path(flood, "llama-server").write_text("#!/bin/sh\nsleep 623 &\nexec yes\n")
    planned = bench.json("run", "--engine", flood, "--dry-run")
    assert planned["runner"]["version"] == "unknown"
    asleep = subprocess.run(["pgrep", "-fx", "sleep 623"], capture_output=True, text=True)
    assert asleep.stdout == ""


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2", "zip", "crc", "text"])
def test_an_archive_that_cannot_be_unpacked_is_one_line(bench: Bench, kind: str) -> None:
    folder = Path(engine(bench, "#!/bin/sh\n" + "# " + os.urandom(40_000).hex()))
    archive = bench.home / f"release.{kind}"
    if kind == "text":
        archive.write_text("not an archive")
    elif kind in ("zip", "crc"):
        with zipfile.ZipFile(archive, "w") as bundle:
            bundle.write(folder / "llama-server", "llama-server")
        raw = bytearray(archive.read_bytes())
        if kind == "crc":
            raw[2000] ^= 1
        else:
            raw[1000:3000] = b""  # its directory is whole and points past what is there
        archive.write_bytes(bytes(raw))
    else:
        with tarfile.open(archive, f"w:{kind}") as bundle:
            bundle.add(folder / "llama-server", "llama-server")
        archive.write_bytes(archive.read_bytes()[:-20_000])
    line = refused(bench, "run", "--engine", str(archive), "--dry-run")
    assert "archive" in line or "cannot be unpacked" in line


def test_a_store_that_is_not_there_is_said_and_not_made(bench: Bench) -> None:
    for command in ("runs", "show", "collect", "export", "verify", "rebuild"):
        assert "there is no store in" in refused(bench, command, "--data", str(bench.home / "typo"), code=1)
    assert not (bench.home / "typo").exists()


def test_closed_and_narrow_streams_do_not_end_a_run(bench: Bench) -> None:
    exe = f"{sys.executable} -m meltbench exec --set idle_s=0.2 -- true"
    env = os.environ | {"XDG_STATE_HOME": str(bench.home / "state"), "MELTBENCH_DATA": str(bench.data)}
    for shell in (
        f"{exe} >&-",
        f"{exe} 2>&-",
        f"{exe} 2>/dev/full",
        f"PYTHONIOENCODING=ascii {exe} && PYTHONIOENCODING=latin-1 {sys.executable} -m meltbench show",
        f"{{ {exe}; }} 2>&1 >/dev/null | true",
    ):
        done = subprocess.run(["sh", "-c", shell], cwd=bench.home, env=env, capture_output=True, timeout=60)
        assert done.returncode == 0, (shell, done.stderr)
        assert b"internal error" not in done.stderr
    assert [run["state"] for run in bench.json("runs")] == ["done"] * 5
