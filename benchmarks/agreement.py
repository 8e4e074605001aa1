"""The rates that meltbench reports of a stock server against llama-bench of the same build, model and threads."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import kit
from benchmarks.claims import Claim, Part, Row, Site, Unmeasurable
from meltbench import models

MODEL = "smollm2-135m-q4"


@dataclass(frozen=True)
class Point:
    """One rate: llama-bench's name and arguments of it, and the field of a request that holds it."""

    name: str
    tokens: int
    bench: tuple[str, ...]
    field: str


PREFILL = Claim("prefill (pp512), server off llama-bench", "<=", 3.0, "%")
DECODE = Claim("decode (tg128), server off llama-bench", "<=", 3.0, "%")


def points(*, quick: bool) -> dict[Claim, Point]:
    """What is asked of both."""
    pp, tg = (32, 8) if quick else (512, 128)
    return {
        PREFILL: Point(f"pp{pp}", pp, ("-p", str(pp), "-n", "0"), "engine_prefill_tps"),
        DECODE: Point(f"tg{tg}", tg, ("-p", "0", "-n", str(tg)), "engine_decode_tps"),
    }


def programs() -> Path:
    """The folder of the lab that holds both programs of one build."""
    lab = kit.lab()
    for bench in sorted(lab.glob("*/llama-bench")):
        if (bench.parent / "llama-server").is_file():
            return bench.parent
    raise Unmeasurable(f"no folder of {lab.name} holds llama-server and llama-bench of one build: make lab builds them")


def measure(site: Site) -> Iterator[Row]:
    """Rounds of server, llama-bench and embedded engine, each started anew; a ratio a round, and their median."""
    folder = programs()
    asked = points(quick=site.quick)
    rounds, repeat = (1, 1) if site.quick else (7, 3)
    names = ",".join(point.name for point in asked.values())
    grid = ["run", "--model", MODEL, "--workload", "grid", "--threads", str(kit.threads())]
    grid += ["--set", f"points={names}", "--set", f"repeat={repeat}", "--set", "idle_s=0.2"]
    model = str(models.ensure(models.resolve(MODEL)))
    arms: dict[str, Callable[[], dict[str, float]]] = {
        "server": partial(_served, site.folder, [*grid, "--engine", str(folder)], asked),
        "bench": partial(_benched, folder, model, asked, repeat),
        "embedded": partial(_served, site.folder, grid, asked),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for turn in range(rounds):
        site.say(f"round {turn + 1} of {rounds}")
        for name in list(arms) if turn % 2 == 0 else list(reversed(arms)):
            found[name].append(arms[name]())
    for claim, point in asked.items():
        rates = {name: [one[point.name] for one in turns] for name, turns in found.items()}
        ratios = [ours / theirs for ours, theirs in zip(rates["server"], rates["bench"], strict=True)]
        low, high = kit.median_interval(ratios)
        beside: dict[str, float | str] = {f"{name} tok/s": statistics.median(values) for name, values in rates.items()}
        beside |= {"threads": kit.threads(), "server / llama-bench": statistics.median(ratios)}
        beside["of rounds:"] = f"95 % interval {low:.3f} to {high:.3f}"
        note = kit.undecided(low, high, 1 - claim.limit / 100, 1 + claim.limit / 100)
        yield claim.row(100 * abs(statistics.median(ratios) - 1), beside, note)


def _served(folder: Path, argv: list[str], asked: dict[Claim, Point]) -> dict[str, float]:
    """The medians of what the engine said of its timed requests, as `meltbench run` recorded it."""
    (told,) = kit.meltbench(folder, *argv)
    timed = [request for request in told["requests"] if request["role"] == "timed" and request["status"] == "ok"]
    return {
        point.name: statistics.median(request[point.field] for request in timed if request["item"] == point.name)
        for point in asked.values()
    }


def _benched(folder: Path, model: str, asked: dict[Claim, Point], repeat: int) -> dict[str, float]:
    """llama-bench's medians: tokens over the times of its repetitions, never its own standard deviation."""
    rates = {}
    for point in asked.values():
        argv = [str(folder / "llama-bench"), "-m", model, "-t", str(kit.threads()), *point.bench]
        argv += ["-r", str(repeat), "-o", "jsonl"]
        found = {**os.environ, "LD_LIBRARY_PATH": str(folder)}  # a shared build: as meltbench starts its server
        done = subprocess.run(argv, env=found, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"llama-bench: {done.stderr.strip()[-500:]}")
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
        rates[point.name] = statistics.median(point.tokens * 1e9 / ns for ns in json.loads(line)["samples_ns"])
    return rates


PARTS = (Part(measure, (PREFILL, DECODE)),)
