"""Power, temperature and token rate over the time of a run, in at most so many buckets.

The samples are condensed by DuckDB inside their Parquet files, so a run of ten million of them costs no more memory
than a short one. Values of a bucket are its mean and the range of what was seen in it; a bucket of which nothing is
known holds None, never 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from meltbench.errors import StoreError
from meltbench.store import schema, tables

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import duckdb

    from meltbench.records import Phase, RunRecord, Series

MAX_BUCKETS = 4096
_PARTS = 4  # of a bucket, whose differences are its least and its most
_SHORTEST_NS = 80_000_000  # of a bucket of a counter: a register that ticks in 1 ms tells its quarters within 5 %
_FINE = 8192  # readings of a counter that are kept: differences need its edges alone
_TOKENS_A_BUCKET = 8  # fewer, and a steady rate looks like a picket fence
_WORDS = {"power": "W", "temperature": "°C", "token rate": "tok/s"}
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
    """The three signals of a run that took ``seconds``, and its phases as (name, from, to) in seconds of the run."""

    run_id: str
    seconds: float
    signals: tuple[Trace, ...]
    phases: tuple[tuple[str, float, float], ...] = field(default=())


def start_ns(phases: Sequence[Phase]) -> int:
    """Where the seconds of a run are counted from: the start of its first phase; 0 for a run that has none."""
    return min((phase.t0_ns for phase in phases), default=0)


def read_traces(folder: Path, record: RunRecord, buckets: int = 400) -> Traces:
    """The traces of a stored run. ``record`` is its record, with or without samples.

    Raises StoreError when a file of it is damaged or is not the one that was stored.
    """
    import duckdb

    from meltbench.store.index import open_memory

    whole = tables.read_manifest(folder)
    paths = {t: tables.checked_path(folder, whole, t) for t in (schema.SAMPLES, schema.SERIES, schema.TOKENS)}
    connection = open_memory()
    try:
        for table, path in paths.items():
            quoted = str(path).replace("'", "''")
            connection.execute(f"CREATE VIEW {table.name} AS FROM read_parquet('{quoted}')")
        return _traces(connection, record, max(1, min(buckets, MAX_BUCKETS)))
    except duckdb.Error as error:
        why = str(error).splitlines()[0]
        raise StoreError(f"the samples of {record.run_id} cannot be read: {why}", hint="meltbench verify") from error
    finally:
        connection.close()


def _traces(connection: duckdb.DuckDBPyConnection, record: RunRecord, buckets: int) -> Traces:
    edges = _edges(connection, record)
    if edges is None:
        signals = [Trace(name, unit, reason=_absent(record, name)) for name, unit in _WORDS.items()]
        return Traces(record.run_id, 0.0, tuple(signals))
    span = _Span(*edges, buckets)
    signals = [make(connection, span, record) for make in (_power, _temperature, _rate)]
    named = [(p.name, span.second(p.t0_ns), span.second(p.t1_ns)) for p in record.phases]
    return Traces(record.run_id, span.second(span.end), tuple(signals), tuple(named))


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


@dataclass(frozen=True)
class _Span:
    """A stretch of time cut into buckets of equal width."""

    start: int
    end: int
    count: int

    @property
    def width(self) -> int:
        """Of a bucket, in ns."""
        return max(1, -(-(self.end - self.start) // self.count))

    @property
    def params(self) -> dict[str, int]:
        """For SQL. What lies on the very end is of the ``last`` bucket."""
        last = -(-(self.end - self.start) // self.width) - 1
        return {"start": self.start, "end": self.end, "width": self.width, "last": last}

    def second(self, t_ns: int) -> float:
        """Seconds from the start."""
        return (t_ns - self.start) / 1e9

    def middles(self) -> tuple[float, ...]:
        """The middle of each bucket, in seconds."""
        return tuple((k + 0.5) * self.width / 1e9 for k in range(self.params["last"] + 1))

    def cut(self, count: int) -> _Span:
        """The same stretch in at most ``count`` buckets."""
        return _Span(self.start, self.end, max(1, count))


def _absent(record: RunRecord, name: str) -> str:
    """Why there is nothing of a signal: the reason of the measure that is made from the same readings."""
    measure = {"power": "energy_j", "temperature": "max_temp_c"}.get(name)
    for one in record.measures:
        if one.name == measure and one.phase == "run" and one.reason:
            return one.reason
    if name == "token rate":
        return "no_timed_request: no token arrived"
    return "no_reading: nothing was read of it"


def _bucketed(connection: duckdb.DuckDBPyConnection, span: _Span, columns: str, where: str) -> list[tuple[Any, ...]]:
    """One row a series and bucket. ``columns`` are aggregates over mid (ns), t0_ns, t1_ns and value."""
    # What lies outside is left out first, so that no later sum of two times can overflow.
    return connection.execute(
        f"""
        SELECT series, least((mid - $start) // $width, $last) AS bucket, {columns}
        FROM (SELECT series, t0_ns, t1_ns, value, t0_ns + (t1_ns - t0_ns) // 2 AS mid FROM samples
              WHERE t0_ns >= $start AND t1_ns <= $end AND t1_ns >= t0_ns AND abs(value) < 1e300
              AND series IN (SELECT series FROM series WHERE {where}))
        GROUP BY ALL ORDER BY 1, 2
        """,
        span.params,
    ).fetchall()


def _filled(span: _Span, found: dict[int, tuple[float, float, float]]) -> dict[str, Any]:
    """(mean, low, high) by bucket as the columns of a Trace."""
    times = span.middles()
    columns: dict[str, Any] = {"t_s": times}
    for place, name in enumerate(("mean", "low", "high")):
        columns[name] = tuple(found[k][place] if k in found else None for k in range(len(times)))
    return columns


def _gauges(
    connection: duckdb.DuckDBPyConnection, span: _Span, where: str
) -> tuple[_Span, dict[int, dict[int, tuple[float, float, float]]]]:
    """(mean, low, high) by bucket of each gauge, in buckets that the most read one fills: a gap is then a real one."""
    counts = connection.execute(
        f"SELECT count(*) FROM samples WHERE abs(value) < 1e300 AND series IN (SELECT series FROM series WHERE {where}) "
        "AND t0_ns >= ? AND t1_ns <= ? GROUP BY series",
        [span.start, span.end],
    ).fetchall()
    wide = span.cut(min(span.count, max((row[0] for row in counts), default=0) // 2))
    found: dict[int, dict[int, tuple[float, float, float]]] = {}
    for number, bucket, *values in _bucketed(connection, wide, "avg(value), min(value), max(value)", where):
        found.setdefault(number, {})[bucket] = (values[0], values[1], values[2])
    return wide, found


def _temperature(connection: duckdb.DuckDBPyConnection, span: _Span, record: RunRecord) -> Trace:
    """The zone that was hottest at any time, as it was."""
    unit = _WORDS["temperature"]
    wide, zones = _gauges(connection, span, "unit = 'degC'")
    if not zones:
        return Trace("temperature", unit, reason=_absent(record, "temperature"))
    hottest = max(zones, key=lambda number: max(high for _, _, high in zones[number].values()))
    return Trace("temperature", unit, _name(connection, hottest), **_filled(wide, zones[hottest]))


def _name(connection: duckdb.DuckDBPyConnection, number: int) -> str:
    return str(connection.execute("SELECT name FROM series WHERE series = ?", [number]).fetchall()[0][0])


def _power(connection: duckdb.DuckDBPyConnection, span: _Span, record: RunRecord) -> Trace:
    """Of the designated total: from counters by differences, with the code that makes its energy, else from a gauge."""
    from meltbench.measure.total import MAX_POWER_W, total

    unit, reason = _WORDS["power"], _absent(record, "power")
    wide = span.cut(min(span.count, (span.end - span.start) // _SHORTEST_NS))
    counters = _thinned(connection, span, "kind = 'counter' AND unit = 'J'")
    found = total(counters) if counters else None
    if found is not None and found.series is not None:
        if by_bucket := _counter_power(found.series, wide, MAX_POWER_W):
            of = f"{' + '.join(found.members)}, {found.series.scope}"
            return Trace("power", unit, of, **_filled(wide, by_bucket))
        reason = "low_coverage: the counter gave too few readings to show a power"
    number, of = _gauge(connection)
    span, gauges = _gauges(connection, span, f"series = {number}")
    sane = {k: one for k, one in gauges.get(number, {}).items() if one[1] >= 0 and one[2] <= MAX_POWER_W}
    if sane:
        return Trace("power", unit, of, **_filled(span, sane))
    return Trace("power", unit, reason=reason)


def _gauge(connection: duckdb.DuckDBPyConnection) -> tuple[int, str]:
    """The gauge of power with the widest scope, and its name with it; parts are never added up. -1: there is none."""
    gauges = connection.execute("SELECT series, name, scope FROM series WHERE kind = 'gauge' AND unit = 'W'").fetchall()
    order = ("wall", "battery", "module", "soc", "rail")
    found = sorted(
        (order.index(scope) if scope in order else len(order), number, name) for number, name, scope in gauges
    )
    if not found:
        return -1, ""
    rank, number, name = found[0]
    return number, f"{name}, {order[rank]}" if rank < len(order) else name


def _thinned(connection: duckdb.DuckDBPyConnection, span: _Span, where: str) -> list[Series]:
    """Each counter by its last reading in every fine bucket, and the first of all, so that nothing rises unseen."""
    import numpy as np

    from meltbench.records import Series

    fine = span.cut(_FINE)
    last = "arg_max(t0_ns, mid), max_by(t1_ns, mid), arg_max(value, mid)"
    first = "arg_min(t0_ns, mid), min_by(t1_ns, mid), arg_min(value, mid)"
    points: dict[int, list[tuple[int, int, float]]] = {}
    for number, _, *edges in _bucketed(connection, fine, f"{first}, {last}", where):
        mine = points.setdefault(number, [])
        if not mine:
            mine.append((edges[0], edges[1], edges[2]))
        if not mine or (edges[3], edges[4]) != mine[-1][:2]:
            mine.append((edges[3], edges[4], edges[5]))
    series = []
    known = connection.execute(f"SELECT series, name, source, scope, klass, wrap FROM series WHERE {where}").fetchall()
    for number, name, source, scope, klass, wrap in known:
        mine = points.get(number, [])
        t0, t1 = (np.array([point[place] for point in mine], np.int64) for place in (0, 1))
        value = np.array([point[2] for point in mine], np.float64)
        status: Any = ["ok"] * len(mine)
        made = Series(name, "J", "counter", source, scope, t0, t1, value, status, klass=klass, wrap=wrap)
        series.append(made)
    return series


def _counter_power(one: Series, span: _Span, max_power_w: float) -> dict[int, tuple[float, float, float]]:
    """Mean, least and most power by bucket, from differences over its quarters.

    A bucket in which the counter was reset, or ran as nothing can, is out, and so is one that it spans less than half
    of. Only readings that moved count: a slow register would else draw nothing, and then too much.
    """
    import numpy as np

    from meltbench.measure.energy import prepare

    trace = prepare(one, max_power_w)
    if trace.counter is None or len(trace.t) < 2:
        return {}
    t, n = trace.t, len(span.middles())
    edges = span.start + np.arange(n * _PARTS + 1, dtype=np.int64) * (span.width // _PARTS)
    power = np.diff(np.interp(edges, t, trace.v)) / (span.width // _PARTS / 1e9)
    spanned = (edges[:-1] >= t[0]) & (edges[1:] <= t[-1])
    bad = (power < 0) | (power > max_power_w)
    for i in trace.counter.resets.tolist():
        before, after = trace.counter.t_ns[i - 1], trace.counter.t_ns[i]
        low, high = t[max(np.searchsorted(t, before, "right") - 1, 0)], t[np.searchsorted(t, after, "left")]
        bad |= (edges[1:] > low) & (edges[:-1] < high)
    found = {}
    for k in range(n):
        mine = slice(k * _PARTS, (k + 1) * _PARTS)
        parts = power[mine][spanned[mine]]
        if len(parts) >= _PARTS / 2 and not (bad[mine] & spanned[mine]).any():
            found[k] = (float(parts.mean()), float(parts.min()), float(parts.max()))
    return found


def _rate(connection: duckdb.DuckDBPyConnection, span: _Span, record: RunRecord) -> Trace:
    """Tokens that arrived in a bucket over the part of it in which a request was under way."""
    unit = _WORDS["token rate"]
    busy = _union([(r.t_send_ns, r.t_end_ns) for r in record.requests])
    inside = "t_ns BETWEEN $start AND $end AND n > 0"
    limits = {"start": span.start, "end": span.end}
    total = connection.execute(f"SELECT coalesce(sum(n), 0) FROM tokens WHERE {inside}", limits).fetchall()[0][0]
    if not busy or not total:
        return Trace("token rate", unit, reason=_absent(record, "token rate"))
    share = sum(b - a for a, b in busy) / (span.end - span.start)
    coarse = span.cut(min(span.count, math.ceil(total / _TOKENS_A_BUCKET / max(share, 1e-9))))
    rows = connection.execute(
        f"SELECT least((t_ns - $start) // $width, $last), sum(n) FROM tokens WHERE {inside} GROUP BY 1",
        coarse.params,
    ).fetchall()
    arrived = {int(bucket): float(count) for bucket, count in rows}
    found = {}
    for k, asked in enumerate(_overlaps(busy, coarse)):
        if asked >= coarse.width / 2:  # less of it, and one token looks like a burst
            rate = arrived.get(k, 0.0) / (asked / 1e9)
            found[k] = (rate, rate, rate)
    if not found:
        return Trace("token rate", unit, reason="low_coverage: the requests were too short to show a rate")
    return Trace("token rate", unit, "tokens that arrived, of all requests", **_filled(coarse, found))


def _union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that do not overlap, in order, which cover the same time."""
    out: list[tuple[int, int]] = []
    for a, b in sorted(span for span in spans if span[1] > span[0]):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], b))
        else:
            out.append((a, b))
    return out


def _overlaps(busy: list[tuple[int, int]], span: _Span) -> list[int]:
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
