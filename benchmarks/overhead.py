"""What meltbench itself takes: the time of a run that is not the engine's, and how soon the command line answers."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import kit
from benchmarks.claims import Claim, Part, Row, Site
from meltbench import models
from meltbench.probe.journal import Journal, read_journal

RUN = Claim("meltbench run, less engine, idle and gate time", "<=", 1.5, "s")
HELP = Claim("meltbench --help over the start of a bare Python", "<=", 6.0)


def spans(journal: Journal) -> dict[str, float]:
    """Seconds of the run that are not meltbench's: the engine's life, the idle windows, the thermal gate.

    The engine's life reaches from its spawn to its exit; the others are steps of their own beside it.
    """
    found = {"engine": 0.0, "idle": 0.0, "gate": 0.0}
    started: dict[str, int] = {}
    for event in journal.events:
        if event["event"] == "spawn" and event["proc"] == "engine":
            started["engine"] = event["boot_ns"]
        elif event["event"] == "exit" and event["proc"] == "engine":
            found["engine"] += (event["boot_ns"] - started["engine"]) / 1e9
        elif event["event"] == "step" and event["op"] in ("idle", "gate"):
            if event["state"] == "start":
                started[event["op"]] = event["boot_ns"]
            else:
                found[event["op"]] += (event["boot_ns"] - started[event["op"]]) / 1e9
    return found


def parts(journal: Journal, t0_ns: int, t1_ns: int) -> dict[str, float]:
    """Seconds of meltbench's own: until the job begins, within it, and after its end; t0 and t1 in CLOCK_BOOTTIME."""
    begin, end = journal.first("begin"), journal.end
    assert begin is not None
    assert end is not None
    within = (end["boot_ns"] - begin["boot_ns"]) / 1e9 - sum(spans(journal).values())
    before, after = (begin["boot_ns"] - t0_ns) / 1e9, (t1_ns - end["boot_ns"]) / 1e9
    return {"before the job s": before, "within s": within, "after s": after}


def _run(site: Site) -> Iterator[Row]:
    models.ensure(models.resolve(kit.MODEL))
    kit.probe()
    found: list[dict[str, float]] = []
    rounds = 1 if site.quick else 7
    # The first run fills the caches of the file system, of hashes and of compiled modules.
    for turn in range(rounds + 1):
        site.say(f"run {turn} of {rounds}")
        start = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        (told,) = kit.meltbench(site.folder, "run", "--set", "idle_s=1", "--set", "max_tokens=16")
        end = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if turn:
            found.append(parts(read_journal(Path(told["stored"]) / "evidence" / "journal"), start, end))
    own = [sum(one.values()) for one in found]
    beside: dict[str, float | str] = {name: statistics.median(one[name] for one in found) for name in found[0]}
    yield RUN.row(statistics.median(own), {**beside, "least s": min(own), "most s": max(own), "runs": len(own)})


def _help(site: Site) -> Iterator[Row]:
    rounds = 3 if site.quick else 25
    site.say(f"{rounds} starts of meltbench --help and of a bare Python")
    arms = {
        "help": _starts([sys.executable, "-m", "meltbench", "--help"]),
        "bare": _starts([sys.executable, "-c", "pass"]),
        "run --help": _starts([sys.executable, "-m", "meltbench", "run", "--help"]),
    }
    for arm in arms.values():
        arm()
    found = kit.interleaved(arms, rounds)
    ratios = [full / bare for full, bare in zip(found["help"], found["bare"], strict=True)]
    low, high = kit.median_interval(ratios)
    beside: dict[str, float | str] = {f"{name} ms": 1000 * statistics.median(times) for name, times in found.items()}
    yield HELP.row(statistics.median(ratios), {**beside, "of rounds:": f"95 % interval {low:.2f} to {high:.2f}"})


def _starts(argv: Sequence[str]) -> Callable[[], float]:
    def once() -> float:
        start = time.perf_counter()
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start

    return once


PARTS = (Part(_run, (RUN,)), Part(_help, (HELP,)))
