"""Logs of engines that were built to print every operator: MELT's second kind of log, and its two examples.

ggml prints a graph's nodes with their CPU and wall time, then its operators' sums (ggml_graph_print; a node's CPU time
is ``clock()``, of all threads). TVM prints a report a call of a function, as JSON and as a table. Neither has a clock
of its own: nothing in them tells when a prompt was sent or a token was there. MELT's parser (src/parsers) adds all of a
log up by operator, the loading's warm-up included.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from meltbench.errors import UserError
from meltbench.readings.opprofile import REPORT, TOTAL, inner

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_GRAPHS = 1_000_000
_node = re.compile(
    rb" - {1,4}\d{1,7}: \[ {0,20}(\d{1,18}), {0,20}(\d{1,18}), {0,20}\d{1,18}\] {1,20}([A-Z0-9_]{1,40})"
    rb" [xg ]? ?\( {0,8}\d{1,9}\) cpu = {0,12}(\d{1,12}\.\d{1,6}) /[^,\n]{1,40}, wall = {0,12}(\d{1,12}\.\d{1,6}) /"
)
_tensor = re.compile(rb"llama_model_loader: - tensor +\d{1,7}: +\S{1,128} (\S{1,16}) +\[")
_chunk = re.compile(rb"Report from function ([A-Za-z0-9_.]{1,80}) ?\[(\d{1,6})/(\d{1,6})\]:")
_tokens = re.compile(r"int32\[1, (\d{1,9})\]")
_STARTED = b"generate: n_ctx"  # what main prints behind the loading, before its first prompt


@dataclass
class Graph:
    """One evaluation of a ggml graph. ``n_tokens``: rows of its first look-up of embeddings, None where it has none.

    ``loading``: before the program said that it generates: llama.cpp warms up on two tokens of no prompt. Times in s.
    """

    loading: bool
    n_tokens: int | None = None
    nodes: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)
    totals_s: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Wall time of its operators, one after the other."""
        return sum(self.totals_s.values())


@dataclass(frozen=True)
class Call:
    """One report of TVM: s by device, and by name and device of what was called. ``n_tokens``: by the shape of what the
    function was given, None where that is not told."""

    function: str
    devices_s: dict[str, float]
    calls_s: dict[tuple[str, str], float]
    n_tokens: int | None = None

    @property
    def seconds(self) -> float:
        """The longest of its devices: they work side by side."""
        return max(self.devices_s.values(), default=0.0)


@dataclass(frozen=True)
class Operators:
    """What such a log holds: of ggml ``graphs`` and the ``tensors`` by quantisation, of TVM ``calls``.

    ``chunked``: TVM's reports were printed in numbered pieces, the only form that MELT's parser still reads.
    """

    engine: Literal["llama.cpp", "MLC"]
    graphs: tuple[Graph, ...] = ()
    tensors: dict[str, int] = field(default_factory=dict)
    calls: tuple[Call, ...] = ()
    chunked: bool = False
    unread: int = 0


def parse(raw: bytes, name: str) -> Operators:
    """The operators of a log. Raises UserError where it has none."""
    if b"perf_total_per_op_us[" in raw:
        return _ggml(raw, name)
    if b"Report from function" in raw:
        return _tvm(raw, name)
    hint = "MELT's engines print them when they are built with BENCHMARK_PER_LAYER=1"
    raise UserError(f"{name} has neither ggml's perf_total_per_op_us nor a report of TVM", hint=hint)


def _ggml(raw: bytes, name: str) -> Operators:
    graphs: list[Graph] = []
    tensors: Counter[str] = Counter()
    graph: Graph | None = None
    started = _STARTED not in raw  # what does not say when it loads has nothing that we could set apart
    for line in raw.splitlines():
        if line.startswith(_STARTED):
            started = True
        elif found := _tensor.match(line):
            tensors[found[1].decode("utf-8", "replace")] += 1
        elif line.startswith(b"n_nodes = "):
            graph = Graph(not started)
        elif graph is not None and (found := _node.match(line)):
            _take(graph, found)
        elif graph is not None and (found := TOTAL.match(line)):
            graph.totals_s[found[1].decode()] = float(found[2]) / 1e3
        elif graph is not None and graph.totals_s and line.startswith(b"===="):
            graphs.append(graph)
            graph = None
        if len(graphs) > MAX_GRAPHS:
            raise UserError(f"{name} has more than {MAX_GRAPHS} graphs", hint="cut it into parts")
    if not graphs:
        raise UserError(f"{name} has no whole graph", hint="the log ends before its first line of ====")
    return Operators("llama.cpp", tuple(graphs), dict(tensors), unread=int(graph is not None))


def _take(graph: Graph, found: re.Match[bytes]) -> None:
    op = found[3].decode()
    graph.nodes += 1
    for sums, text in ((graph.cpu_s, found[4]), (graph.wall_s, found[5])):
        sums[op] = sums.get(op, 0.0) + float(text) / 1e3
    if op == "GET_ROWS" and graph.n_tokens is None:
        graph.n_tokens = int(found[2])


def _tvm(raw: bytes, name: str) -> Operators:
    calls: list[Call] = []
    unread = 0
    for function, text in _reports(raw):
        call = _call(function, text)
        if call is None:
            unread += 1
        else:
            calls.append(call)
        if len(calls) > MAX_GRAPHS:
            raise UserError(f"{name} has more than {MAX_GRAPHS} reports", hint="cut it into parts")
    if not calls:
        raise UserError(f"{name} has no whole report of TVM", hint="give the log as logcat or the program printed it")
    return Operators("MLC", calls=tuple(calls), chunked=bool(_chunk.search(raw)), unread=unread)


def _reports(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Function and JSON of each report: in one line, or in the pieces that Android's log needs."""
    lines = raw.splitlines()
    pieces: list[bytes] = []
    for at, line in enumerate(lines[:-1]):
        if (named := REPORT.search(line[:4096])) is not None:
            yield named[1].decode(), lines[at + 1]
        elif (chunk := _chunk.search(line[:4096])) is not None:
            pieces = [] if int(chunk[2]) == 0 else pieces
            pieces.append(lines[at + 1].strip())
            if chunk[2] == chunk[3]:
                yield chunk[1].decode(), b"".join(pieces)
                pieces = []


def _call(function: str, text: bytes) -> Call | None:
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    rows, devices = (data.get(key) if isinstance(data, dict) else None for key in ("calls", "device_metrics"))
    if not isinstance(rows, list) or not isinstance(devices, dict):
        return None
    calls: dict[tuple[str, str], float] = {}
    for row in rows:
        name, device, us = inner(row, "Name", "string"), inner(row, "Device", "string"), _us(row)
        if isinstance(name, str) and isinstance(device, str) and us is not None:
            key = name[:128], device[:64]
            calls[key] = calls.get(key, 0.0) + us / 1e6
    told = {str(device)[:64]: us / 1e6 for device, metrics in devices.items() if (us := _us(metrics)) is not None}
    return Call(function, told, calls, _given(rows)) if told else None


def _given(rows: list[Any]) -> int | None:
    """How many tokens a function was given: the second size of the first array of them, int32[1, N]."""
    for row in rows[:8]:
        shapes = inner(row, "Argument Shapes", "string")
        found = _tokens.match(shapes) if isinstance(shapes, str) else None
        if found is not None:
            return int(found[1])
    return None


def _us(metrics: object) -> float | None:
    for key in ("Duration (us)", "Duration(us)"):
        said = inner(metrics, key, "microseconds")
        if isinstance(said, (int, float)) and not isinstance(said, bool) and 0 <= said < 1e12:
            return float(said)
    return None
