"""What engines built for profiling print of a graph's operators: ggml's graph dumps and TVM's profiler reports.

They are logs of an engine and no sensor: nothing of it is power. MELT's example logs are such texts. ggml's table is
headed ``perf_total_per_op_us`` and its figures are milliseconds (ggml_graph_print of 2023, ggml.c divides by 1000).
TVM prints each report twice, as JSON and as a table (src/runtime/profiling.cc): the JSON is read.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from meltbench.readings.base import Column, Reader, sighting
from meltbench.readings.helper import Sink, Span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

MAX_S = 86_400.0  # an operator that took longer than a day is a line that was misread
TOTAL = re.compile(rb"perf_total_per_op_us\[ {0,40}([A-Z0-9_]{1,40})\] = {1,12}(\d{1,9}\.\d{1,6}) ms")
REPORT = re.compile(rb"Report from function ([A-Za-z0-9_.]{1,80}):")
_odd = re.compile(r"[^A-Za-z0-9_.+-]")


def parse_ggml(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """Seconds an operator took in a graph, ``ggml.OP_s``, and all of them together, ``ggml.graph_s``: a sample a graph.

    A graph's time is that of its last line. One that was cut has the operators that were printed, and no sum.
    """
    del options  # this reader knows none
    sink = Sink()
    for span, ops, whole in _graphs(streams):
        for op, seconds in ops.items():
            sink.at(_column(f"ggml.{op}_s")).add(span, seconds)
        if whole:
            sink.at(_column("ggml.graph_s")).add(span, sum(ops.values()))
    return _told(source, streams, sink, "no line of ggml's perf_total_per_op_us")


def _graphs(streams: Sequence[Stream]) -> Iterator[tuple[Span, dict[str, float], bool]]:
    for stream in streams:
        ops: dict[str, float] = {}
        span = Span(0, 0)
        for span, line in _lines(stream):
            if found := TOTAL.match(line):
                ops[found[1].decode()] = float(found[2]) / 1e3
            elif ops:
                yield span, ops, line.startswith(b"====")
                ops = {}
        if ops:
            yield span, ops, False


def parse_tvm(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """Seconds a function of TVM's virtual machine took: a sample a report.

    ``tvm.FUNCTION.DEVICE_s`` is the whole on that device, ``tvm.FUNCTION.op.NAME_s`` the sum over calls of one name.
    """
    del options  # this reader knows none
    sink = Sink()
    for stream in streams:
        function = "unnamed"
        for span, line in _lines(stream):
            if named := REPORT.search(line[:4096]):
                function = named[1].decode()
            elif line.startswith(b'{"calls"'):
                for name, seconds in _durations(line).items():
                    sink.at(_column(f"tvm.{function}.{name}_s")).add(span, seconds)
    return _told(source, streams, sink, "no report of TVM's profiler")


def _durations(line: bytes) -> dict[str, float]:
    """Seconds by device and by name of what was called; empty for what is no report."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    found: dict[str, float] = {}
    devices, calls = data.get("device_metrics"), data.get("calls")
    for name, metrics in devices.items() if isinstance(devices, dict) else ():
        if (seconds := _seconds(metrics)) is not None:
            found[_word(name)] = seconds
    for call in calls if isinstance(calls, list) else ():
        seconds, name = _seconds(call), inner(call, "Name", "string")
        if seconds is not None and isinstance(name, str) and name:
            key = f"op.{_word(name)}"
            found[key] = found.get(key, 0.0) + seconds
    return found


def _seconds(metrics: object) -> float | None:
    said = inner(metrics, "Duration (us)", "microseconds")
    good = isinstance(said, (int, float)) and not isinstance(said, bool) and 0 <= said <= MAX_S * 1e6
    return float(said) / 1e6 if good else None


def inner(metrics: object, key: str, kind: str) -> Any:
    """What TVM's JSON has two levels down, None where it has no such thing."""
    value = metrics.get(key) if isinstance(metrics, dict) else None
    return value.get(kind) if isinstance(value, dict) else None


def _word(text: str) -> str:
    return _odd.sub("_", text)[:80]


def _lines(stream: Stream) -> Iterator[tuple[Span, bytes]]:
    r = stream.readings
    for t0, t1, raw in zip(r.t0_ns.tolist(), r.t1_ns.tolist(), r.raw, strict=True):
        yield Span(t0, t1), raw.strip()


def _column(name: str) -> Column:
    return Column(name, "s", "gauge", "process")


def _told(source: str, streams: Sequence[Stream], sink: Sink, absent: str) -> tuple[list[Series], Sighting]:
    series = sink.series(source)
    return series, sighting(source, streams, series, absent=absent)


GGML_PROFILE = Reader("ggml_profile", (), parse_ggml)
TVM_PROFILE = Reader("tvm_profile", (), parse_tvm)
