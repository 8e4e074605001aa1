"""Evidence to numbers: a ticket and a journal become a run record. Pure, so a run can be measured again years later.

Samples pass by in blocks: what the measures need of them is digested, and they are handed on to be stored.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench import settings
from meltbench.account import conditions, gpus, load_label, manifest, remote
from meltbench.compose import ENGINE
from meltbench.host import Hosted
from meltbench.measure import (
    Designation,
    RunInputs,
    Stated,
    StreamStats,
    energies,
    measure_run,
    question_costs,
    question_measures,
)
from meltbench.measure.beats import beats
from meltbench.measure.digest import Digester, Edges
from meltbench.measure.latency import in_mode
from meltbench.measure.outcome import Outcome, outcome
from meltbench.measure.own_cpu import Life
from meltbench.measure.phases import phases
from meltbench.measure.screening import Screen, most_w
from meltbench.measure.sustained import power_windows
from meltbench.measure.total import TOTAL
from meltbench.measure.validity import reason, state
from meltbench.plan import ENERGY_SOURCE
from meltbench.probe.journal import Journal
from meltbench.readings import Source
from meltbench.records import IMPLAUSIBLE, Readings, Request, RunRecord
from meltbench.told import NO_CHUNKS, engine_log, events_of, identity, process_of, told_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meltbench.measure.digest import Digest
    from meltbench.readings import Sighting
    from meltbench.records import Keep, Measure, Phase, Score, Series, SourceStatus, Stream
    from meltbench.told import Told

_BLOCK_ROWS = 1 << 17  # of readings that are in memory at once


def assemble(
    ticket: dict[str, Any], journal: Journal, keep: Keep, hosted: Hosted | None = None, kills: bytes = b""
) -> RunRecord:
    """Everything the store keeps of a run, from its evidence; its samples go to ``keep``, a block at a time.

    ``hosted``: what the controller recorded beside it; without it such sources were not read. ``kills``: what the
    target's log says of a process that was killed.
    """
    hosted = hosted or Hosted.of(ticket, journal, None)
    log = engine_log(ticket, journal)
    engine = identity(ticket, log)
    told = told_of(ticket, journal)
    requests, loaded_ns = told.requests, told.loaded_ns
    spans = phases(journal.events, requests, ENGINE, loaded_ns)
    lives = _lives(journal)
    screen = Screen(most_w(ticket.get("max_power_w"), _outside(ticket, engine)), _run(spans))
    edges = _edges(spans, requests, told.scores, lives, sustained=ticket["workload"]["kind"] == "sustained")
    signals, sources = _signals(ticket, journal, hosted, edges, screen, keep)
    # What a program does of its own accord, to warm up or to fill a context, was not asked for.
    roles = {entry["role"] for entry in ticket["asks"]} | ({"timed"} if "scored" in ticket else set())
    wanted = [request for request in requests if request.role in roles]
    n_asked = told.n_asked
    if ticket["workload"]["kind"] == "sustained":  # asked in a circle, as often as there was time
        n_asked = max(len(requests), sum(entry["role"] == "warmup" for entry in ticket["asks"]) + 1)
    verdict = outcome(journal.events, wanted, n_asked, process_of(ticket), ticket["workload"]["kind"], log, kills)
    made = settings.judge(settings.from_ticket(ticket), journal)
    inputs = _inputs(ticket, journal, told, signals, sources, spans, lives, verdict, engine, made)
    inputs = replace(inputs, screened=screen.done(), conditions=[*inputs.conditions, *hosted.conditions])
    measures, reasons, state = measure_run(inputs)
    requests, scores = energies(inputs, measures)
    about = manifest(ticket, journal, events_of(journal, "spawn"), log, verdict, engine, made)
    record = RunRecord(
        run_id=ticket["run_id"],
        manifest=about | {"validity": state},
        series=[signal.head for signal in signals],
        sources=sources,
        phases=spans,
        requests=requests,
        measures=measures,
        reasons=reasons,
        regimes=list(inputs.regimes.regimes),
        scores=scores,
    )
    return replace(record, measures=[*measures, *in_mode(_of_questions(record), inputs.mode)])


def _of_questions(record: RunRecord) -> list[Measure]:
    """What the questions of a scored run cost, and its intelligence per watt and joule."""
    if not record.scores:
        return []
    from meltbench.efficiency import run_measures  # it loads what runs without questions have no use for

    total = next((m for m in record.measures if (m.name, m.phase, m.source) == ("energy_j", "run", TOTAL)), None)
    return [*question_measures(record.scores, total), *run_measures(record)]


def assemble_refused(ticket: dict[str, Any], code: str, why: str) -> RunRecord:
    """The record of a run that was never started: why, and nothing of what was not looked at."""
    found = reason(code, why)
    told = manifest(ticket, Journal(), [], "", Outcome("failed", code, why), identity(ticket, ""), [])
    return RunRecord(run_id=ticket["run_id"], manifest=told | {"validity": state([found])}, reasons=[found])


def _inputs(
    ticket: dict[str, Any],
    journal: Journal,
    told: Told,
    signals: list[Digest],
    sources: list[SourceStatus],
    spans: list[Phase],
    lives: list[Life],
    verdict: Outcome,
    engine: dict[str, str],
    made: list[settings.Verdict],
) -> RunInputs:
    load = next((span.duration_s for span in spans if span.name == "load"), None)
    ended = events_of(journal, "exit")
    gone = ended[0] if ended else {}
    clocks = [(e["boot_ns"], e["mono_ns"], e["wall_ns"]) for e in journal.events if "mono_ns" in e and "wall_ns" in e]
    return RunInputs(
        kind=ticket["workload"]["kind"],
        mode=(ticket["runner"] or {}).get("mode", "server"),
        signals=signals,
        sources=sources,
        phases=spans,
        requests=told.requests,
        load_s=load,
        load_label=load_label(journal.first("pages") or {}),
        maxrss_bytes=max((peak for one in ended if (peak := _max_rss(one)) is not None), default=None),
        life_cpu_s=(gone["utime_ns"] + gone["stime_ns"]) / 1e9 if "utime_ns" in gone and "stime_ns" in gone else None,
        lives=lives,
        failure=(verdict.code, verdict.detail or "", verdict.cause) if verdict.code else None,
        conditions=conditions(ticket, journal, events_of(journal, "spawn"), engine, made),
        boot_ids=[
            str(found["boot_id"])
            for found in (ticket["conditions"], journal.first("begin") or {}, journal.first("reboot") or {})
            if found.get("boot_id")
        ],
        clocks=clocks,
        streams=[
            StreamStats(head.path, rows + head.overruns, rows, head.late, head.overruns)
            for number, head in journal.streams.heads.items()
            if head.kind == "file"
            for rows in (journal.streams.rows(number),)
        ],
        asked=told.exact,
        scores=told.scores,
        by_way=told.by_way,
        gpus=_outside(ticket, engine),
        totals=totals(ticket),
        max_power_w=ticket.get("max_power_w"),
        battery=Stated(**battery) if (battery := ticket.get("battery")) else None,
        unseen=(ticket["runner"] or {}).get("unseen", ""),
        unloaded=(ticket["runner"] or {}).get("unloaded", ""),
        remote=remote(ticket) if ticket["knobs"].get(ENERGY_SOURCE, "none") == "none" else "",
    )


def totals(ticket: dict[str, Any]) -> list[Designation]:
    """What the profile named as the total. Before it could name rails, one of its sources was marked."""
    marked = [{"source": source["name"]} for source in ticket["sources"] if source.get("total")]
    return [Designation(**(one | {"rails": tuple(one.get("rails", ()))})) for one in ticket.get("totals", marked)]


def _outside(ticket: dict[str, Any], engine: dict[str, str]) -> list[str]:
    """GPUs that draw from outside of the processor's package: NVIDIA's always; of others, which may be a part of the
    processor, what the engine computed on."""
    found = [gpu for gpu in gpus(ticket) if gpu.startswith("NVIDIA")]
    used = engine.get("accelerator", "CPU")
    return found or ([] if used in ("CPU", "unknown") else [used])


def _lives(journal: Journal) -> list[Life]:
    """Processes of the engine's name whose end was seen."""
    starts, ends = events_of(journal, "spawn"), events_of(journal, "exit")
    return [
        Life(start["boot_ns"], end["boot_ns"], (end["utime_ns"] + end["stime_ns"]) / 1e9)
        for start, end in zip(starts, ends, strict=False)
        if "utime_ns" in end and "stime_ns" in end
    ]


def _max_rss(gone: dict[str, Any]) -> int | None:
    """rusage's largest resident set; None where it is not the process's own.

    The kernel counts the memory that a child shares with its parent until it runs its program (setmax_mm_hiwater_rss in
    exec_mmap), so a program smaller than the probe has the probe's peak.
    """
    peak, floor = gone.get("maxrss_bytes"), gone.get("maxrss_floor_bytes")
    own = isinstance(peak, int) and peak > (floor if isinstance(floor, int) else 0)
    return peak if own else None


def _run(spans: list[Phase]) -> Phase | None:
    return next((span for span in spans if span.name == "run"), None)


def _edges(
    spans: list[Phase], requests: list[Request], scores: list[Score], lives: list[Life], *, sustained: bool
) -> Edges:
    """Every window whose energy will be asked about: the phases, each request from sending to end, each scored
    question; of a sustained run also those that tell how its power drifts."""
    run = _run(spans)
    windows = [(span.t0_ns, span.t1_ns) for span in spans] + [(r.t_send_ns, r.t_end_ns) for r in requests]
    windows += power_windows(run) if sustained and run is not None else []
    windows += question_costs.windows(scores, requests)
    return Edges.of(windows, run, [(life.t0_ns, life.t1_ns) for life in lives], beats(requests))


def _signals(
    ticket: dict[str, Any], journal: Journal, hosted: Hosted, edges: Edges, screen: Screen, keep: Keep
) -> tuple[list[Digest], list[SourceStatus]]:
    """The run's signals and what was seen of their sources, with no more than a block of samples in memory."""
    digesters: dict[tuple[str, str, str], Digester] = {}
    places: dict[tuple[str, str, str], int] = {}
    seen: dict[str, Sighting] = {}
    every = [
        Source.of(one["name"], one["reader"], one.get("options", {}), gain_limit=one.get("gain_limit"))
        for one in ticket["sources"]
    ]
    target = _slices(journal, [source for source in every if source.name not in hosted.names])
    host = _slices(hosted.journal, [source for source in every if source.name in hosted.names])
    for slices in chain(target, host):
        parts: list[tuple[int, Series]] = []
        for source, streams in slices:
            series, sighting = source.read(streams, again=source.name in seen)
            if source.name in hosted.names:
                series, sighting = hosted.placed(series, sighting)
            seen[source.name] = seen[source.name] + sighting if source.name in seen else sighting
            passed = [screen.take(one) for one in series]
            implausible = sum(int(np.count_nonzero(one.status == IMPLAUSIBLE)) for one in passed)
            seen[source.name] = seen[source.name].marked(implausible)
            for one in passed:
                key = (one.source, one.name, one.path)
                if key not in digesters:
                    places[key], digesters[key] = len(places), Digester(one, edges, screen.limit_w)
                digesters[key].add(one)
                parts.append((places[key], one))
        keep(parts)
    return [one.done() for one in digesters.values()], [one.told() for one in seen.values()]


def _slices(journal: Journal, sources: list[Source]) -> Iterator[list[tuple[Source, list[Stream]]]]:
    """The streams of every source, a slice of the run at a time; those it wants whole are whole in each slice."""
    heads = journal.streams.heads
    numbers = {source.name: journal.numbers(source.name) for source in sources}
    whole = {
        number: journal.streams[number]
        for source in sources
        for number in numbers[source.name]
        if source.whole(heads[number])
    }
    long = [number for mine in numbers.values() for number in mine if number not in whole]
    for block in journal.streams.blocks(long, _BLOCK_ROWS):

        def part(n: int, block: dict[int, Readings] = block) -> Stream:
            return whole.get(n) or replace(heads[n], readings=block.get(n, NO_CHUNKS))

        yield [(source, [part(n) for n in numbers[source.name]]) for source in sources]
