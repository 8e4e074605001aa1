"""What several benchmarks need: jobs of the real probe, processor time of processes, and honest middles."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.claims import Unmeasurable
from meltbench import paths
from meltbench.probe import build
from meltbench.probe.job import Job
from meltbench.probe.journal import Journal, read_journal
from meltbench.targets import facts

HERE = Path(__file__).parent
MODEL = "smollm2-135m-q4"
T = TypeVar("T")


@cache
def probe() -> str:
    """The probe for this machine, built when it is not there yet."""
    return str(build.binary(build.host_target()))


@contextlib.contextmanager
def environment(own: Mapping[str, str | None]) -> Iterator[None]:
    """Have these variables of the process meanwhile; None: the variable is not there."""

    def put(values: Mapping[str, str | None]) -> None:
        for key, value in values.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value

    before = {key: os.environ.get(key) for key in own}
    put(own)
    try:
        yield
    finally:
        put(before)


def write_job(root: Path, job: Job) -> Path:
    """A folder below ``root`` with the job and its requests, as the probe wants them."""
    folder = root / job.run_id
    (folder / "req").mkdir(parents=True)
    (folder / "job").write_text(job.text())
    for name, body in job.requests.items():
        (folder / "req" / name).write_bytes(body)
    return folder


def finish_job(root: Path, job: Job) -> Journal:
    """Run a job to its end. Raises RuntimeError when it did not end well: a benchmark of a failed job is none."""
    folder = write_job(root, job)
    done = subprocess.run([probe(), "run", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"meltprobe run: {done.stderr.strip()}")
    journal = read_journal(folder / "journal")
    if journal.end is None or journal.end["result"] != "done":
        raise RuntimeError(f"the job ended with {journal.end}")
    return journal


@contextlib.contextmanager
def running_job(root: Path, job: Job) -> Iterator[list[int]]:
    """A job that runs in the background: the pids of its guard and its worker. It is stopped at the end."""
    folder = write_job(root, job)
    process = subprocess.Popen([probe(), "run", str(folder)])
    try:
        yield _pids(folder, process)
    finally:
        subprocess.run([probe(), "stop", str(folder)], check=False)
        process.wait(30)


def _pids(folder: Path, process: subprocess.Popen[bytes]) -> list[int]:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            state = json.loads((folder / "state").read_bytes())
            if state["pid"] > 0 and state["op"] == "idle":
                return [state["pid"], state["guard_pid"]]
        time.sleep(0.005)
    raise RuntimeError("the probe did not start its job")


@contextlib.contextmanager
def running(argv: Sequence[str]) -> Iterator[list[int]]:
    """A program that runs until the end of the block: its pid."""
    process = subprocess.Popen(argv)
    try:
        yield [process.pid]
    finally:
        process.terminate()
        process.wait(10)


def meltbench(folder: Path, *args: str) -> Any:
    """What a command of the real command line answers in JSON, with a store and a target folder below ``folder``."""
    own = {"XDG_STATE_HOME": str(folder / "state"), "MELTBENCH_DATA": str(folder / "data")}
    argv = [sys.executable, "-m", "meltbench", args[0], "--json", *args[1:]]
    done = subprocess.run(argv, env={**os.environ, **own}, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"meltbench {args[0]}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def lab() -> Path:
    """Where `make lab` keeps what it builds."""
    return Path(os.environ.get("MELTBENCH_LAB") or HERE.parent / ".cache" / "lab")


@cache
def threads() -> int:
    """The threads that meltbench gives an engine on this machine."""
    told = subprocess.run([probe(), "facts", "/", *facts.globs("/sys", "/proc")], capture_output=True, check=True)
    return facts.parse(json.loads(told.stdout), "/sys", "/proc").threads


def cpu_s(pids: Sequence[int]) -> float:
    """Processor seconds that all threads of these processes have used, to the nanosecond.

    From schedstat (the kernel's Documentation/scheduler/sched-stats.rst): the ticks of /proc/PID/stat are 10 ms.
    """
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:
                raise Unmeasurable("this kernel shows no /proc/PID/task/*/schedstat") from None
    return total / 1e9


def machine_cpu_s() -> float:
    """Processor seconds that everything on this machine has used, stolen ones included."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def cores_used(pids: Sequence[int], seconds: float) -> tuple[float, float]:
    """Cores that these processes used over a window, and cores that everybody else used in it."""
    own, all_, start = cpu_s(pids), machine_cpu_s(), time.monotonic()
    time.sleep(seconds)
    own, all_, wall = cpu_s(pids) - own, machine_cpu_s() - all_, time.monotonic() - start
    return own / wall, max(0.0, all_ - own) / wall


def compiled(source: Path, out: Path) -> Path:
    """A small C program, by the compiler that builds the probe and with its flags."""
    if not build.zig_there():
        raise Unmeasurable(f"ziglang {build.ZIG_VERSION} is not installed, the floor cannot be compiled")
    words = ["-target", build.host_target(), *build.FLAGS, "-o", str(out), str(source)]
    try:
        build.zig_cc(words, paths.cache_dir() / "probe" / "zig")  # the probe's own: it holds the C library already
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{source.name} does not compile: {error.stderr[-500:]}") from error
    return out


def median_interval(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """A 95 % interval of the median by the bootstrap, with a fixed seed; the range itself below six values."""
    if len(values) < 6:
        return min(values), max(values)
    rng = random.Random(1)
    found = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return found[math.floor(0.025 * draws)], found[math.ceil(0.975 * draws) - 1]


def undecided(low: float, high: float, *limits: float) -> str:
    """A note where the interval holds a limit: the machine was too restless for this figure to decide."""
    held = any(low <= limit <= high for limit in limits)
    return "the interval holds the limit: repeat it on a quieter machine before it is believed" if held else ""


def interleaved(
    arms: dict[str, Callable[[], T]], rounds: int, say: Callable[[str], None] | None = None
) -> dict[str, list[T]]:
    """Every arm once a round, forwards and backwards in turn, so that what drifts falls on all alike."""
    found: dict[str, list[T]] = {name: [] for name in arms}
    for turn in range(rounds):
        if say is not None:
            say(f"round {turn + 1} of {rounds}")
        for name in list(arms) if turn % 2 == 0 else list(reversed(arms)):
            found[name].append(arms[name]())
    return found
