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
    """Rounds of server, llama-bench and embedded engine, each started anew; the ratio of medians over all repetitions.

    The fastest repetition of each stands beside: what disturbs one only ever slows it.
    """
    folder = programs()
    asked = points(quick=site.quick)
    rounds, repeat = (1, 1) if site.quick else (7, 3)
    names = ",".join(point.name for point in asked.values())
    grid = ["run", "--model", kit.MODEL, "--workload", "grid", "--threads", str(kit.threads())]
    grid += ["--set", f"points={names}", "--set", f"repeat={repeat}", "--set", "idle_s=0.2"]
    model = str(models.ensure(models.resolve(kit.MODEL)))
    arms: dict[str, Callable[[], dict[str, list[float]]]] = {
        "server": partial(_served, site.folder, [*grid, "--engine", str(folder)], asked),
        "bench": partial(_benched, folder, model, asked, repeat),
        "embedded": partial(_served, site.folder, grid, asked),
    }
    found = kit.interleaved(arms, rounds, site.say)
    for claim, point in asked.items():
        rates = {name: [rate for one in turns for rate in one[point.name]] for name, turns in found.items()}
        middle = {name: statistics.median(values) for name, values in rates.items()}
        beside: dict[str, float | str] = {f"{name} tok/s": value for name, value in middle.items()}
        beside |= {f"{name} fastest": max(values) for name, values in rates.items()}
        beside |= {"threads": kit.threads(), "repetitions of each": len(rates["server"])}
        yield claim.row(100 * abs(middle["server"] / middle["bench"] - 1), beside)


def _served(folder: Path, argv: list[str], asked: dict[Claim, Point]) -> dict[str, list[float]]:
    """What the engine said of its timed requests, as `meltbench run` recorded it."""
    (told,) = kit.meltbench(folder, *argv)
    timed = [request for request in told["requests"] if request["role"] == "timed" and request["status"] == "ok"]
    return {
        point.name: [request[point.field] for request in timed if request["item"] == point.name]
        for point in asked.values()
    }


def _benched(folder: Path, model: str, asked: dict[Claim, Point], repeat: int) -> dict[str, list[float]]:
    """llama-bench's rates: tokens over the times of its repetitions, never its own average or deviation."""
    rates = {}
    for point in asked.values():
        argv = [str(folder / "llama-bench"), "-m", model, "-t", str(kit.threads()), *point.bench]
        argv += ["-r", str(repeat), "-o", "jsonl"]
        found = {**os.environ, "LD_LIBRARY_PATH": str(folder)}  # a shared build: as meltbench starts its server
        done = subprocess.run(argv, env=found, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"llama-bench: {done.stderr.strip()[-500:]}")
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
        rates[point.name] = [point.tokens * 1e9 / ns for ns in json.loads(line)["samples_ns"]]
    return rates


PARTS = (Part(measure, (PREFILL, DECODE)),)
