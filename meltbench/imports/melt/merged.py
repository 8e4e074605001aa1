"""Logs of operators added up twice: by operator as MELT's parser does (src/parsers/parser.py --merge), and by what the
engine was doing, as far as such a log tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from meltbench.imports.melt.operators import Graph, Operators


@dataclass(frozen=True)
class Operator:
    """A row of MELT's tables, of one operator over the whole log, ms.

    ``cpu_ms`` and ``wall_ms``: "Duration (ms)" and "Wall time (ms)" of its calls_merged_detailed_per_op.csv, by the
    nodes; ``total_ms``: "Duration (ms)" of its calls_merged_summary_per_op.csv, by the sums that ggml prints. Of TVM
    there is one duration, of a function's calls by name, or by ``module``; ``device`` is then named.
    """

    name: str
    device: str = ""
    n: int | None = None
    cpu_ms: float | None = None
    wall_ms: float | None = None
    total_ms: float | None = None


@dataclass(frozen=True)
class Work:
    """Ours: what the engine did, how many evaluations and tokens that were, and how long they took, s.

    ``per_s``: tokens by second of their operators, one after the other: the engine was no faster; what it did beside
    them (drawing tokens, printing these tables) is not in it. None where the tokens are not told.
    """

    what: str
    n: int
    tokens: int | None
    seconds: float
    median_s: float
    per_s: float | None


def by_operator(found: Operators) -> list[Operator]:
    """MELT's ``--merge per_op``."""
    if found.engine == "MLC":
        sums: dict[tuple[str, str], float] = {}
        for call in found.calls:
            for key, seconds in call.calls_s.items():
                sums[key] = sums.get(key, 0.0) + seconds
        return [Operator(name, device, total_ms=seconds * 1e3) for (name, device), seconds in sorted(sums.items())]
    names = sorted({op for graph in found.graphs for op in (*graph.cpu_s, *graph.totals_s)})

    def total(op: str, parts: Iterable[dict[str, float]]) -> float:
        return sum(part.get(op, 0.0) for part in parts) * 1e3

    return [
        Operator(
            op,
            cpu_ms=total(op, (graph.cpu_s for graph in found.graphs)),
            wall_ms=total(op, (graph.wall_s for graph in found.graphs)),
            total_ms=total(op, (graph.totals_s for graph in found.graphs)),
        )
        for op in names
    ]


def by_module(found: Operators) -> list[Operator]:
    """MELT's ``--merge per_module`` of MLC: all calls of a function, and how often it was reported."""
    sums: dict[str, tuple[int, float]] = {}
    for call in found.calls:
        n, seconds = sums.get(call.function, (0, 0.0))
        sums[call.function] = n + 1, seconds + sum(call.calls_s.values())
    return [Operator(name, n=n, total_ms=seconds * 1e3) for name, (n, seconds) in sorted(sums.items())]


def by_work(found: Operators) -> list[Work]:
    """What the engine did: ggml's graphs by how many tokens they evaluate, TVM's functions by name."""
    if found.engine == "MLC":
        names = dict.fromkeys(call.function for call in found.calls)
        of_name = {name: [call for call in found.calls if call.function == name] for name in names}
        return [_work(name, [c.seconds for c in mine], [c.n_tokens for c in mine]) for name, mine in of_name.items()]
    kinds: dict[str, list[Graph]] = {}
    asked = False
    for graph in found.graphs:
        asked |= not graph.loading and (graph.n_tokens or 0) > 1
        kinds.setdefault(_kind(graph, asked=asked), []).append(graph)
    return [_work(kind, [g.seconds for g in graphs], [g.n_tokens for g in graphs]) for kind, graphs in kinds.items()]


def _kind(graph: Graph, *, asked: bool) -> str:
    if graph.loading:
        return "warm-up of the loading"
    if graph.n_tokens is None:
        return "graphs without tokens"
    if graph.n_tokens > 1:
        return "prompts"
    return "tokens of answers" if asked else "single tokens before the first prompt"


def _work(what: str, seconds: Sequence[float], tokens: Sequence[int | None]) -> Work:
    whole = sum(seconds)
    counted = None if None in tokens else sum(n or 0 for n in tokens)
    rate = counted / whole if counted and whole > 0 else None
    return Work(what, len(seconds), counted, whole, float(np.median(seconds)), rate)
