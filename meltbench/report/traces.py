"""Power, temperature, token rate, frequency and memory over the time of a run, in at most so many buckets.

The samples are condensed by DuckDB inside their Parquet files, so a run of ten million of them costs no more memory
than a short one. Values of a bucket are its mean and the range of what was seen in it; a bucket of which nothing is
known holds None, never 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from meltbench.errors import StoreError
from meltbench.report.buckets import Samples, Span, Values, filled
from meltbench.report.power import power
from meltbench.store import schema, tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

    from meltbench.records import RunRecord

MAX_BUCKETS = 4096
_TOKENS_A_BUCKET = 8  # fewer, and a steady rate looks like a picket fence
_WORDS = {"power": "W", "temperature": "°C", "token rate": "tok/s"}
# Drawn where there is room for more: of each the first that is there. A frequency is the highest of all cores.
_BESIDE = (
    ("frequency", "GHz", 1e-9, "unit = 'Hz' AND kind = 'gauge'"),
    ("memory", "MiB", 2**-20, "name = 'process.rss_bytes'"),
    ("memory", "MiB", 2**-20, "name = 'process.pss_total_bytes'"),
    ("memory", "MiB", 2**-20, "name = 'memory.available_bytes'"),
)
_MARKS = 2000
_SPAN_NS = 1 << 62  # two's complement ends at 2^63: hostile times must not overflow a difference


@dataclass(frozen=True)
class Trace:
    """One signal over time; all tuples have one length. ``t_s``: middles of the buckets, from the start of the run.

    ``of`` names the series behind it. Without a value in any bucket ``reason`` says why.
    """

    name: str
    unit: str
    of: str = ""
    reason: str | None = None
    t_s: tuple[float, ...] = ()
    mean: tuple[float | None, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Traces:
    """The three signals of a run that took ``seconds``, and its phases as (name, from, to) in seconds of the run.

    ``beside``: frequency and memory, where there are any. ``throttled``: as (cause, from, to). ``requests``: the first
    so many as (index, role, sent, first token, end).
    """

    run_id: str
    seconds: float
    signals: tuple[Trace, ...]
    phases: tuple[tuple[str, float, float], ...] = field(default=())
    beside: tuple[Trace, ...] = ()
    throttled: tuple[tuple[str, float, float], ...] = ()
    requests: tuple[tuple[int, str, float, float | None, float], ...] = ()


def read_traces(folder: Path, record: RunRecord, buckets: int = 400) -> Traces:
    """The traces of a stored run. ``record`` is its record, with or without samples.

    Raises StoreError when a file of it is damaged or is not the one that was stored.
    """
    import duckdb

    whole = tables.read_manifest(folder)
    paths = {t: tables.checked_path(folder, whole, t) for t in (schema.SAMPLES, schema.SERIES, schema.TOKENS)}
    connection = _engine().cursor()
    try:
        for table, path in paths.items():
            made = "TABLE" if table is schema.SERIES else "VIEW"  # it is small, and asked for every signal
            quoted = str(path).replace("'", "''")
            connection.execute(f"CREATE TEMP {made} {table.name} AS FROM read_parquet('{quoted}'){_lacking(table)}")
        return _traces(connection, record, max(1, min(buckets, MAX_BUCKETS)))
    except duckdb.Error as error:
        why = str(error).splitlines()[0]
        raise StoreError(f"the samples of {record.run_id} cannot be read: {why}", hint="meltbench verify") from error
    finally:
        connection.close()


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    """A DuckDB without anything in it: to make one takes as long as a short run's traces."""
    from meltbench.store.index import open_memory

    return open_memory()


def _lacking(table: schema.Table) -> str:
    """SQL that gives a table the columns that runs of an earlier version lack, as null."""
    later = ", ".join(f"NULL::{column.type} AS {column.name}" for column in table.columns if column.later)
    return f" UNION ALL BY NAME SELECT {later} WHERE false" if later else ""


def _traces(connection: duckdb.DuckDBPyConnection, record: RunRecord, buckets: int) -> Traces:
    edges = _edges(connection, record)
    if edges is None:
        signals = [Trace(name, unit, reason=_absent(record, name)) for name, unit in _WORDS.items()]
        return Traces(record.run_id, 0.0, tuple(signals))
    span = Span(*edges, buckets)
    samples = Samples(connection, span)
    signals = [_power(samples, record), _temperature(samples, record), _rate(connection, span, record)]
    named = [(p.name, span.second(p.t0_ns), span.second(p.t1_ns)) for p in record.phases]
    slow = [(r.cause, span.second(r.t0_ns), span.second(r.t1_ns)) for r in record.regimes if r.name == "throttled"]
    asked = [
        (r.index, r.role, span.second(r.t_send_ns), _second(span, r.t_first_ns), span.second(r.t_end_ns))
        for r in record.requests[:_MARKS]
    ]
    beside = tuple(_beside(samples))
    return Traces(record.run_id, span.second(span.end), tuple(signals), tuple(named), beside, tuple(slow), tuple(asked))


def _second(span: Span, t_ns: int | None) -> float | None:
    return None if t_ns is None else span.second(t_ns)


def _beside(samples: Samples) -> Iterator[Trace]:
    told: set[str] = set()
    for name, unit, scale, where in _BESIDE:
        if name in told:
            continue
        wide, found = samples.gauges(where)
        if not found:
            continue
        told.add(name)
        highest: Values = {}
        for values in found.values():
            for k, one in values.items():
                mean, low, high = (part * scale for part in one)
                if k not in highest or mean > highest[k][0]:
                    highest[k] = (mean, low, high)
        of = _name(samples, min(found)) if len(found) == 1 else f"highest of {len(found)}"
        yield Trace(name, unit, of, **filled(wide, highest))


def _edges(connection: duckdb.DuckDBPyConnection, record: RunRecord) -> tuple[int, int] | None:
    """First and last moment of the run: of its phases and requests, else of its samples."""
    times = [t for p in record.phases for t in (p.t0_ns, p.t1_ns)]
    times += [t for r in record.requests for t in (r.t_send_ns, r.t_end_ns)]
    if not times:
        found = connection.execute("SELECT min(t0_ns), max(t1_ns) FROM samples").fetchall()
        times = [t for t in found[0] if t is not None]
    if not times:
        return None
    first = min(p.t0_ns for p in record.phases) if record.phases else min(times)
    last = min(max(times), first + _SPAN_NS)
    return (first, last) if last > first else None


def _absent(record: RunRecord, name: str) -> str:
    """Why there is nothing of a signal: the reason of the measure that is made from the same readings."""
    measure = {"power": "energy_j", "temperature": "max_temp_c"}.get(name)
    for one in record.measures:
        if one.name == measure and one.phase == "run" and one.reason:
            return one.reason
    if name == "token rate":
        return "no_timed_request: no token arrived"
    return "no_reading: nothing was read of it"


def _temperature(samples: Samples, record: RunRecord) -> Trace:
    """The zone that was hottest at any time, as it was."""
    unit = _WORDS["temperature"]
    wide, zones = samples.gauges("unit = 'degC'")
    if not zones:
        return Trace("temperature", unit, reason=_absent(record, "temperature"))
    hottest = max(zones, key=lambda number: max(high for _, _, high in zones[number].values()))
    return Trace("temperature", unit, _name(samples, hottest), **filled(wide, zones[hottest]))


def _power(samples: Samples, record: RunRecord) -> Trace:
    """Of the designated total, else of the counter or the gauge that covers most."""
    found = power(samples)
    if found is None:
        return Trace("power", _WORDS["power"], reason=_absent(record, "power"))
    wide, values, of = found
    return Trace("power", _WORDS["power"], of, **filled(wide, values))


def _name(samples: Samples, number: int) -> str:
    return str(samples.connection.execute("SELECT name FROM series WHERE series = ?", [number]).fetchall()[0][0])


def _rate(connection: duckdb.DuckDBPyConnection, span: Span, record: RunRecord) -> Trace:
    """Tokens that arrived in a bucket over the part of it in which a request was under way."""
    unit = _WORDS["token rate"]
    busy = _union([(r.t_send_ns, r.t_end_ns) for r in record.requests])
    inside = "t_ns BETWEEN $start AND $end"
    limits = {"start": span.start, "end": span.end}
    sums = f"SELECT coalesce(sum(n), 0), count(*) FILTER (n = 0) FROM tokens WHERE {inside}"
    total, uncounted = connection.execute(sums, limits).fetchall()[0]
    if uncounted:
        return Trace("token rate", unit, reason="no_reading: nobody says how many tokens each chunk carried")
    if not busy or not total:
        return Trace("token rate", unit, reason=_absent(record, "token rate"))
    share = sum(b - a for a, b in busy) / (span.end - span.start)
    coarse = span.cut(min(span.count, math.ceil(total / _TOKENS_A_BUCKET / max(share, 1e-9))))
    rows = connection.execute(
        f"SELECT least((t_ns - $start) // $width, $last), sum(n) FROM tokens WHERE {inside} GROUP BY 1",
        coarse.params,
    ).fetchall()
    arrived = {int(bucket): float(count) for bucket, count in rows}
    found: Values = {}
    for k, asked in enumerate(_overlaps(busy, coarse)):
        if asked >= coarse.width / 2:  # less of it, and one token looks like a burst
            rate = arrived.get(k, 0.0) / (asked / 1e9)
            found[k] = (rate, rate, rate)
    if not found:
        return Trace("token rate", unit, reason="low_coverage: the requests were too short to show a rate")
    return Trace("token rate", unit, "tokens that arrived, of all requests", **filled(coarse, found))


def _union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that do not overlap, in order, which cover the same time."""
    out: list[tuple[int, int]] = []
    for a, b in sorted(span for span in spans if span[1] > span[0]):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], b))
        else:
            out.append((a, b))
    return out


def _overlaps(busy: list[tuple[int, int]], span: Span) -> list[int]:
    """Nanoseconds of each bucket that the spans cover."""
    edges = [span.start + k * span.width for k in range(len(span.middles()) + 1)]
    out, first = [], 0
    for a, b in pairwise(edges):
        while first < len(busy) and busy[first][1] <= a:
            first += 1
        covered, at = 0, first
        while at < len(busy) and busy[at][0] < b:
            covered += min(b, busy[at][1]) - max(a, busy[at][0])
            at += 1
        out.append(covered)
    return out
