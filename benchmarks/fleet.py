"""Measuring over SSH as a whole: a model that is there already, a run and what it takes besides, and many devices."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import kit, overhead
from benchmarks.claims import Beside, Claim, Part, Row, Site, Unmeasurable
from benchmarks.controller import Told, Turn, Wish, cpu_s_of, enrolled
from benchmarks.rooms import rooms
from meltbench import models, site
from meltbench.probe.journal import Journal, read_journal
from meltbench.report.progress import Quiet
from meltbench.store import Store, index, open_store
from meltbench.targets import Place, Transport
from meltbench.targets.cache import PushCache

WARM = Claim("warm push of a model of 1 GB over SSH", "<=", 0.3, "s")
TRIPS = Claim("warm push of a model of 1 GB: commands on the device", "<=", 1)
RUN = Claim("meltbench run over SSH, less engine, idle and gate time", "<=", 3, "s")
START = Claim("50 devices at once: latest start after its turn", "<=", 1, "s")
END = Claim("50 devices at once: latest end after its schedule", "<=", 1, "s")
KEPT = Claim("50 devices at once: runs stored and in the index", ">=", 100, "%")
CPU = Claim("50 devices at once: controller's processor time a run", "<=", 0.5, "s")
MEMORY = Claim("50 devices at once: controller's memory a device", "<=", 10, "MB")

_GB, _DISK_BYTES = 1_000_000_000, 3 << 30
_DEVICES, _APART_S, _IDLE_S = 50, 0.3, 0.3
_OWN = ("before the job s", "within s", "after s")
_OVERLAP_S = 10.0  # in which all devices are measured at the same time


class _Counted:
    """A transport that counts the commands that go through it."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self.count = transport, 0

    def __getattr__(self, name: str) -> Any:
        self.count += name in ("run", "push", "pull", "spawn")
        return getattr(self._transport, name)


def _push(here: Site) -> Iterator[Row]:
    model = here.folder / "model.gguf"
    with model.open("wb") as file:
        file.truncate(_GB // 100 if here.quick else _GB)
    times: list[float] = []
    with rooms(here.folder / "push", 1, _DISK_BYTES) as devices:
        here.say("pushing it once")
        (address,) = devices.values()
        probe = site.reach(Place("ssh", address), None, Quiet())
        try:
            PushCache.beside(probe).ensure([model], Quiet())
            counted = _Counted(probe.transport)
            cache = PushCache.beside(type(probe)(counted, probe.path, probe.root))
            rounds = 3 if here.quick else 25
            for _ in range(rounds):
                began = time.perf_counter()
                cache.ensure([model], Quiet())
                times.append(time.perf_counter() - began)
            began = time.perf_counter()
            cache.ensure([model], Quiet(), policy="full")
            full_s = time.perf_counter() - began
        finally:
            probe.transport.close()
        began = time.perf_counter()
        site.reach(Place("ssh", address), None, Quiet()).transport.close()
        reached_s = time.perf_counter() - began
    beside = {"least s": min(times), "most s": max(times), "every byte hashed there again s": full_s}
    yield WARM.row(statistics.median(times), {**beside, "reaching the device s": reached_s})
    yield TRIPS.row((counted.count - 1) / rounds)


def _parts(journal: Journal, began_ns: int, ended_ns: int) -> dict[str, float]:
    """Seconds of meltbench's own: until the job begins, within it, and after its end; by the wall clock, which a room
    shares with this machine."""
    begin, end = journal.first("begin"), journal.end
    assert begin is not None
    assert end is not None
    within = (end["wall_ns"] - begin["wall_ns"]) / 1e9 - sum(overhead.spans(journal).values())
    before, after = (begin["wall_ns"] - began_ns) / 1e9, (ended_ns - end["wall_ns"]) / 1e9
    return dict(zip(_OWN, (before, within, after), strict=True))


def _run(here: Site) -> Iterator[Row]:
    engines = sorted(kit.lab().glob("llama.cpp-shared-of-*/llama-server"))
    if not engines:
        raise Unmeasurable(f"no stock llama.cpp in {kit.lab()}: make lab builds one")
    models.ensure(models.resolve(kit.MODEL))
    found: list[dict[str, float]] = []
    rounds = 1 if here.quick else 7
    with rooms(here.folder / "run", 1, _DISK_BYTES) as devices:
        enrolled(devices)
        (name,) = devices
        words = ["--device", name, "--engine", str(engines[-1].parent), "--set", "idle_s=1", "--set", "max_tokens=16"]
        # The first run pushes engine and model, and tries the engine.
        for turn in range(rounds + 1):
            here.say(f"run {turn} of {rounds}")
            began_ns, cpu_s = time.time_ns(), cpu_s_of(resource.RUSAGE_CHILDREN)
            (told,) = kit.meltbench(here.folder, "run", *words)
            ended_ns, cpu_s = time.time_ns(), cpu_s_of(resource.RUSAGE_CHILDREN) - cpu_s
            if turn:
                journal = read_journal(Path(told["stored"]) / "evidence" / "journal")
                found.append(_parts(journal, began_ns, ended_ns) | {"processor time of the command s": cpu_s})
    own = [sum(one[part] for part in _OWN) for one in found]
    beside: dict[str, float | str] = {part: statistics.median(one[part] for one in found) for part in found[0]}
    yield RUN.row(statistics.median(own), {**beside, "least s": min(own), "most s": max(own), "runs": len(own)})


@dataclass(frozen=True)
class _Seen:
    """A device's run against its schedule, s: how late it began and ended, and how long after its end it was stored."""

    start_s: float
    end_s: float
    stored_s: float
    began_ns: int
    ended_ns: int


def _controller(wish: Wish) -> Told:
    argv = [sys.executable, "-m", "benchmarks.controller"]
    done = subprocess.run(argv, input=json.dumps(asdict(wish)), cwd=kit.HERE.parent, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the controller: {done.stderr.strip()[-1000:]}")
    told = json.loads(done.stdout)
    told["turns"] = [Turn(**turn) for turn in told["turns"]]
    for turn in told["turns"]:
        if turn.error:
            raise RuntimeError(f"{turn.device}: {turn.error[-1000:]}")
    return Told(**told)


def _seen(wish: Wish, told: Told) -> list[_Seen]:
    store, found = open_store(wish.store), []
    for turn in told.turns:
        journal = read_journal(store.folder(turn.run_id).evidence / "journal")
        begin, end = journal.first("begin"), journal.end
        assert begin is not None
        assert end is not None
        due_ns, length_ns = turn.due_ns, (wish.sleep_s + 2 * wish.idle_s) * 1e9
        found.append(
            _Seen(
                (begin["wall_ns"] - due_ns) / 1e9,
                (end["wall_ns"] - due_ns - length_ns) / 1e9,
                (turn.stored_ns - end["wall_ns"]) / 1e9,
                begin["wall_ns"],
                end["wall_ns"],
            )
        )
    return found


def _kept(store: Store, told: Told) -> float:
    """Per cent of the runs that are whole in the store, and in the index as it was left."""
    with index.attached(store.index) as connection:
        known = {row[0] for row in connection.execute("SELECT run_id FROM runs").fetchall()}
    kept = [turn.run_id in known and store.folder(turn.run_id).stored for turn in told.turns]
    return 100 * sum(kept) / len(kept)


def _fleet(here: Site) -> Iterator[Row]:
    count = 3 if here.quick else _DEVICES
    overlap_s = 1.0 if here.quick else _OVERLAP_S
    here.say(f"making {count} rooms")
    with rooms(here.folder / "fleet", count, 256 << 20) as devices:
        # From the first start to the last, and so long more, all are measured.
        wish = Wish(devices, str(here.folder / "turns"), _APART_S, count * _APART_S + overlap_s, _IDLE_S)
        here.say(f"{count} devices, a turn every {_APART_S:g} s")
        told = _controller(wish)
        here.say(f"{count} devices, all due in the same moment")
        burst = Wish(devices, str(here.folder / "burst"), 0.0, overlap_s, _IDLE_S)
        burst_told = _controller(burst)
    seen, crowd = _seen(wish, told), _seen(burst, burst_told)
    store = open_store(wish.store)
    at_once = (min(one.ended_ns for one in seen) - max(one.began_ns for one in seen)) / 1e9
    yield START.row(
        max(one.start_s for one in seen),
        {
            "middle s": _middle([one.start_s for one in seen]),
            "all measured at the same time s": at_once,
            "all due in the same moment, latest s": max(one.start_s for one in crowd),
        },
    )
    yield END.row(max(one.end_s for one in seen), {"middle s": _middle([one.end_s for one in seen])})
    yield KEPT.row(
        min(_kept(store, told), _kept(open_store(burst.store), burst_told)),
        {
            "latest stored after its end s": max(one.stored_s for one in seen),
            "of those due in the same moment s": max(one.stored_s for one in crowd),
        },
    )
    children: Beside = {"of programs it starts s": told.cpu_of_children_s / count}
    yield CPU.row(told.cpu_s / count, children)
    beside = {"before MB": told.idle_bytes / 1e6, "most MB": told.most_bytes / 1e6, "cores": os.cpu_count() or 1}
    yield MEMORY.row((told.most_bytes - told.idle_bytes) / 1e6 / count, beside)


def _middle(values: Sequence[float]) -> float:
    return statistics.median(values)


PARTS = (Part(_push, (WARM, TRIPS)), Part(_run, (RUN,)), Part(_fleet, (START, END, KEPT, CPU, MEMORY)))
