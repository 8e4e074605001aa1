"""What an engine told, by the evidence of a run: its requests, how good its answers were, its log, what it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench import loglik
from meltbench.compose import ENGINE, RELAY
from meltbench.engines import Process, ProgramEngine, ScoringEngine, ServerEngine, protocol
from meltbench.engines.checks import checked
from meltbench.engines.prompts import Ask, Sent
from meltbench.engines.reuse import without_reused
from meltbench.measure import answers, likelihood
from meltbench.records import Readings, Request
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meltbench.measure.likelihood import Normalise
    from meltbench.probe.journal import Journal
    from meltbench.records import Score

NO_CHUNKS = Readings.of(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32), [])


def events_of(journal: Journal, name: str) -> list[dict[str, Any]]:
    """Starts ("spawn") or ends ("exit") of the processes of the engine's name, in order."""
    return [event for event in journal.named(name) if event.get("proc") == ENGINE]


def process_of(ticket: dict[str, Any]) -> str:
    """The name of the process that a run starts: the engine, or the relay to one that runs already."""
    return RELAY if (ticket["runner"] or {}).get("url") else ENGINE


def engine_log(ticket: dict[str, Any], journal: Journal) -> str:
    """What the process under test wrote, both streams in order of arrival, harmless; the probe bounded it.

    Of a program whose output is its answers, one object or list a line, only the other lines.
    """
    answers = ticket["runner"] is not None and ticket["runner"]["mode"] == "in-process"
    lines = [
        (int(t), raw)
        for number in journal.numbers(process_of(ticket), ("out", "err"))
        for stream in (journal.streams[number],)
        for t, raw in zip(stream.readings.t1_ns.tolist(), stream.readings.raw, strict=True)
        if not (answers and stream.kind == "out" and raw[:1] in (b"{", b"["))
    ]
    return "\n".join(
        printable(raw.decode("utf-8", "replace").rstrip("\r\n")) for _, raw in sorted(lines, key=itemgetter(0))
    )


def identity(ticket: dict[str, Any], log: str) -> dict[str, str]:
    """What the engine says it is; empty where none was asked for."""
    return protocol(ticket["runner"]["protocol"]).identity(log) if ticket["runner"] is not None else {}


@dataclass(frozen=True)
class Told:
    """What the engine told: its requests in the order of their sending, how many tokens those had to give that were
    made to (``exact``, by index), when a program said that it had loaded its model (a server is asked), how good the
    answers were, and how many requests there were to be."""

    requests: list[Request] = field(default_factory=list)
    exact: dict[int, int] = field(default_factory=dict)
    loaded_ns: int | None = None
    scores: list[Score] = field(default_factory=list)
    by_way: dict[Normalise, list[float]] = field(default_factory=dict)
    n_asked: int = 0


def told_of(ticket: dict[str, Any], journal: Journal) -> Told:
    """All that the engine of a run told, read by its protocol; nothing where no engine was asked for."""
    if ticket["runner"] is None:
        return Told()
    speak = protocol(ticket["runner"]["protocol"])
    if "scored" in ticket and isinstance(speak, ServerEngine):
        return _by_token(ticket, speak, journal)
    # Before requests had points, those of a grid were grouped by item.
    grid = ticket["workload"]["kind"] == "grid"
    asks = {e["file"]: Ask(**({"point": e["item"] if grid else ""} | e)) for e in ticket["asks"]}
    loaded_ns = None
    if isinstance(speak, ProgramEngine):
        processes = _processes(journal)
        settings = ticket["knobs"] | {"model": (ticket["model"] or {}).get("file")}
        found = speak.requests(list(asks.values()), processes, settings)
        # Where a program answers just what it was asked, one after the other.
        in_order = ticket["runner"]["mode"] == "in-process"
        of_request = dict(zip((one.index for one in found), asks.values(), strict=False)) if in_order else {}
        loaded_ns = speak.loaded_ns(processes)
    else:
        pairs = list(_answers(speak, asks, journal, ran_before=bool(ticket["runner"].get("url"))))
        found, of_request = [one for _, one in pairs], {one.index: ask for ask, one in pairs}
    exact = {index: ask.n_out for index, ask in of_request.items() if ask.ignore_eos}
    n_asked = len(asks)
    if isinstance(speak, ScoringEngine):
        n_asked = 1  # all of it is one request
        scores = speak.scores(list(asks.values()), _processes(journal), ticket["workload"])
    else:
        method = ticket["workload"].get("score")
        scores = answers.scores(found, of_request, method) if method else []
    return Told(found, exact, loaded_ns, scores, n_asked=n_asked)


def _by_token(ticket: dict[str, Any], speak: ServerEngine, journal: Journal) -> Told:
    """A workload that is scored by the token: many requests are one of an item. Those of a warm-up stand alone."""
    items = [loglik.Scored.of(one) for one in ticket["scored"]["items"]]
    warm = {entry["file"]: Ask(**entry) for entry in ticket["asks"]}
    asks = {ask.file: ask for ask in loglik.expanded(items, ticket["scored"]["targets"])}
    pairs = list(_answers(speak, warm | asks, journal, ran_before=False))
    before = [replace(one, index=at) for at, one in enumerate(one for ask, one in pairs if ask.file in warm)]
    found = {int(ask.file): one for ask, one in pairs if ask.file in asks}
    of_items = likelihood.gathered(items, found, ticket["workload"].get("normalise", "none"), len(before))
    requests = [*before, *of_items.requests]
    return Told(requests, scores=of_items.scores, by_way=of_items.by_way, n_asked=len(warm) + len(items))


def _processes(journal: Journal) -> list[Process]:
    """Every process of the engine's name, in order, with what it printed."""
    starts, ends = events_of(journal, "spawn"), events_of(journal, "exit")
    return [
        Process(
            ends[at]["boot_ns"] if at < len(ends) else None,
            *(
                stream.readings if (stream := journal.streams.get(event.get(name, -1))) is not None else NO_CHUNKS
                for name in ("stdout", "stderr")
            ),
        )
        for at, event in enumerate(starts)
    ]


def _answers(
    speak: ServerEngine, asks: dict[str, Ask], journal: Journal, *, ran_before: bool
) -> Iterator[tuple[Ask, Request]]:
    """What a server answered, and to what. That is told by the request's file: several may be under way at a time, and
    one may be asked many times. ``ran_before``: whether it may have been asked the same before this run."""
    index = 0
    seen: set[str] = set()
    for event in sorted(journal.named("request"), key=lambda e: int(e.get("t_send0") or e["boot_ns"])):
        ask = asks.get(str(event.get("file", "")).rsplit("/", 1)[-1])
        if ask is None:
            continue
        stream = journal.streams.get(event.get("stream", -1))
        sent = Sent(
            index=index,
            t_send_ns=int(event.get("t_send0") or event["boot_ns"]),
            t_end_ns=int(event.get("t_end") or event["boot_ns"]),
            error=str(event.get("error") or ""),
        )
        chunks = stream.readings if stream is not None else NO_CHUNKS
        found = checked(ask, speak.answer(ask, sent, chunks))
        yield ask, without_reused(ask, found, again=ran_before or ask.file in seen)
        seen.add(ask.file)
        index += 1
