"""What being watched costs: the engine's rate with the probe beside it, and the probe's own processor time."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import kit
from benchmarks.claims import Beside, Claim, Part, Row, Site, Unmeasurable
from meltbench import models, runners
from meltbench.engines import ServerEngine, protocol
from meltbench.engines.prompts import Ask, Sent, random_tokens
from meltbench.probe.job import Job
from meltbench.probe.journal import Journal

DECODE = Claim("decode rate, watched over unwatched (median of pairs)", ">=", 0.99)
CORE = Claim("probe, 100 Hz x 20 files, share of one core", "<=", 1.0, "%")
FLOOR = Claim("probe over the bare preads at the same deadlines", "<=", 1.3)
LOOP = Claim("probe over a psutil-style Python loop", "<=", 1 / 3)
DEADLINES = Claim("1 kHz x 4 files, deadlines kept within 1 ms", ">=", 99.0, "%")

# Counters that every Linux with a network stack has had for twenty years: one decimal number each, made without a lock.
_STATISTICS = "/sys/class/net/lo/statistics"
_NAMES = (
    *("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "rx_fifo_errors", "rx_frame_errors", "rx_compressed"),
    *("rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_missed_errors", "multicast", "collisions"),
    *("tx_bytes", "tx_packets", "tx_errors", "tx_dropped", "tx_fifo_errors", "tx_carrier_errors", "tx_compressed"),
)
FILES = tuple(f"{_STATISTICS}/{name}" for name in _NAMES)
_PERIOD_NS = 10_000_000


def check_files() -> None:
    """Refuse a machine on which the files are not what the claim is about: twenty plain numbers."""
    for path in FILES:
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise Unmeasurable(f"{path}: {error.strerror}") from None
        if not text.strip().isdigit():
            raise Unmeasurable(f"{path} holds no plain number")


def _sampling(run_id: str, files: tuple[str, ...], period_ns: int, seconds: float) -> Job:
    job = Job(run_id)
    for i, path in enumerate(files):
        job.file(f"c{i}", path, period_ns)
    job.idle("window", seconds)
    return job


def _processor(site: Site) -> Iterator[Row]:
    """The probe, the floor and the loop in turn, each alone, in windows of equal length."""
    check_files()
    rounds, window_s, settle_s = (2, 0.5, 0.2) if site.quick else (9, 3.0, 0.5)
    floor = str(kit.compiled(kit.HERE / "floor.c", site.folder / "floor"))
    others: list[float] = []
    turns = iter(range(rounds))

    def used(pids: list[int]) -> float:
        kit.cores_used(pids, settle_s)
        own, foreign = kit.cores_used(pids, window_s)
        others.append(foreign)
        return own

    def probe() -> float:
        job = _sampling(f"cpu{next(turns)}", FILES, _PERIOD_NS, 3600)
        with kit.running_job(site.folder, job) as pids:
            return used(pids)

    def paced() -> float:
        with kit.running([floor, str(_PERIOD_NS), "0", *FILES]) as pids:
            return used(pids)

    def loop() -> float:
        with kit.running([sys.executable, str(kit.HERE / "loop.py"), "0.01", *FILES]) as pids:
            return used(pids)

    def tight() -> float:
        done = subprocess.run([floor, "0", "1000", *FILES], capture_output=True, text=True, check=True)
        reads, cpu_ns = map(int, done.stdout.split())
        return cpu_ns / reads * len(FILES) * 1e9 / _PERIOD_NS / 1e9  # cores, at as many reads a second

    site.say(f"processor time of the probe and its peers, {rounds} rounds")
    arms: dict[str, Callable[[], float]] = {"probe": probe, "paced": paced, "loop": loop, "tight": tight}
    found = kit.interleaved(arms, rounds)
    middle = {name: 100 * statistics.median(values) for name, values in found.items()}
    beside = {
        "floor %": middle["paced"],
        "tight loop of preads %": middle["tight"],
        "Python loop %": middle["loop"],
        "cores others used": statistics.median(others),
    }
    note = f"the kernel's own part of it, the same reads made by nothing but preads, is {middle['paced']:.2f} %"
    yield CORE.row(middle["probe"], beside, note)
    yield _over(FLOOR, found, "paced", {"over the tight loop, which never sleeps,": middle["probe"] / middle["tight"]})
    yield _over(LOOP, found, "loop", {})


def _over(claim: Claim, found: dict[str, list[float]], peer: str, beside: Beside) -> Row:
    ratios = [own / other for own, other in zip(found["probe"], found[peer], strict=True)]
    low, high = kit.median_interval(ratios)
    told = f"95 % interval {low:.3g} to {high:.3g}, {len(ratios)} rounds"
    note = kit.undecided(low, high, claim.limit)
    return claim.row(statistics.median(ratios), {**beside, "of rounds:": told}, note)


def _deadlines(site: Site) -> Iterator[Row]:
    """Deadlines are the probe's own: it counts readings more than 1 ms late and deadlines that had none.

    The times of the readings check it: a gap of two periods or more is a deadline without a reading.
    """
    check_files()
    seconds = 1.0 if site.quick else 20.0
    site.say(f"1 kHz for {seconds:.0f} s")
    busy = kit.machine_cpu_s()
    journal = kit.finish_job(site.folder, _sampling("khz", FILES[:4], 1_000_000, seconds))
    busy = kit.machine_cpu_s() - busy
    due = missed = gaps = 0
    lates: list[float] = []
    for stream in journal.streams.values():
        # The first reading is that of the opening, and readings at transitions have no deadline.
        t_ms = np.diff(stream.readings.t0_ns[2:-2]) / 1e6
        due += round(float(t_ms.sum()))
        missed += stream.late + stream.overruns
        gaps += int((np.round(t_ms[t_ms > 1.5]) - 1).sum())
        lates.append(max(e["max_late_ns"] for e in journal.named("stream_end") if e["stream"] == stream.number) / 1e6)
    beside = {
        "deadlines": due,
        "late or missed": missed,
        "missed by the times alone": gaps,
        "latest ms": max(lates),
        "cores everything used": busy / seconds,
    }
    note = "the claim is of an idle machine" if busy / seconds > 0.3 else ""
    yield DEADLINES.row(100 * (1 - missed / due), beside, note)


def _decode(site: Site) -> Iterator[Row]:
    """Watched and unwatched requests in turn (ABBA) to one engine, over several starts of it.

    Each request has a process of its own beside it, `on` or `off`; the channels name `on` in their path, so the same
    probe in the same job samples during the one and not during the other.
    """
    check_files()
    starts, pairs, n_out = (1, 2, 8) if site.quick else (4, 16, 64)
    model = models.ensure(models.resolve(kit.MODEL))
    watched: list[float] = []
    unwatched: list[float] = []
    hertz: list[float] = []
    for start in range(starts):
        site.say(f"decode rate, engine start {start + 1} of {starts}")
        journal = kit.finish_job(site.folder, _pairs_job(f"decode{start}", str(model), pairs, n_out))
        rates = _rates(journal, n_out)
        watching_s = sum(_seconds(journal)[1:][i] for i in range(2 * pairs) if _is_watched(i))
        hertz.append(sum(len(one.readings) for one in journal.streams.values() if one.kind == "file") / watching_s)
        for i, rate in enumerate(rates):
            (watched if _is_watched(i) else unwatched).append(rate)
    ratios = [on / off for on, off in zip(watched, unwatched, strict=True)]
    low, high = kit.median_interval(ratios)
    beside: Beside = {
        "watched tok/s": statistics.median(watched),
        "unwatched tok/s": statistics.median(unwatched),
        "readings a second while watched": statistics.median(hertz),
        "pairs": len(ratios),
        "of pairs:": f"95 % interval {low:.4f} to {high:.4f}",
    }
    yield DECODE.row(statistics.median(ratios), beside, kit.undecided(low, high, DECODE.limit))


def _is_watched(i: int) -> bool:
    """On, off, off, on: of every pair one, and what drifts within two pairs falls on both arms alike."""
    return i % 4 in (0, 3)


def _asks(count: int, n_out: int) -> list[Ask]:
    return [
        Ask(file=f"{i:05d}", item="decode", role="timed", n_out=n_out, seed=1, tokens=random_tokens(16, 10_000, 1))
        for i in range(count)
    ]


def _pairs_job(run_id: str, model: str, pairs: int, n_out: int) -> Job:
    recipe, found = runners.load("llamacpp")
    engine = runners.engine("llamacpp", recipe, found.path.parent, None)
    knobs = {name: knob.default for name, knob in recipe.knobs.items()} | {"threads": kit.threads(), "ctx": 512}
    speak = protocol(recipe.protocol)
    assert isinstance(speak, ServerEngine)
    job = Job(run_id)
    for i, path in enumerate(FILES):
        # /proc/PID/../.. is /: the file is a plain one, and open only while `on` runs.
        job.file(f"c{i}", "/proc/{pid:on}/../.." + path, _PERIOD_NS)
    job.port("engine")
    words = {"model": model, "port": "{port:engine}", "parallel": "1", "ctx_all": "512"}
    job.spawn("engine", recipe.argv(engine.start, knobs, words), engine.env)
    job.ready("engine", "engine", speak.health_path, 60)
    for i, ask in enumerate(_asks(2 * pairs + 1, n_out)):
        job.requests[ask.file] = speak.request(ask)
        beside = "on" if i and _is_watched(i - 1) else "off"  # the first request warms the engine up
        job.spawn(beside, ["sleep", "600"])
        job.http("ask", "engine", 1, 120, 1 << 24, [f"req/{ask.file}"])
        job.stop(beside, 1)
    job.stop("engine", 5)
    return job


def _seconds(journal: Journal) -> list[float]:
    """How long each request took."""
    return [(event["t_end"] - event["t_send0"]) / 1e9 for event in journal.named("request")]


def _rates(journal: Journal, n_out: int) -> list[float]:
    """The engine's own decode rate of every request after the first."""
    speak = protocol("llama-server")
    assert isinstance(speak, ServerEngine)
    rates = []
    events = journal.named("request")
    for event, ask in zip(events, _asks(len(events), n_out), strict=True):
        sent = Sent(event["index"], event["t_send0"], event["t_end"], event["error"])
        answer = speak.answer(ask, sent, journal.streams[event["stream"]].readings)
        if answer.engine_decode_tps is None:
            raise RuntimeError(f"the engine reported no decode rate: {answer.status} {answer.detail}")
        rates.append(answer.engine_decode_tps)
    return rates[1:]


PARTS = (Part(_processor, (CORE, FLOOR, LOOP)), Part(_deadlines, (DEADLINES,)), Part(_decode, (DECODE,)))
