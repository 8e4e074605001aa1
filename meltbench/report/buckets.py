"""Samples of a run condensed by DuckDB into buckets of time, inside their Parquet files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

# What lies outside is left out first, so that no later sum of two times can overflow.
_HERE = "FROM samples WHERE t0_ns >= $start AND t1_ns <= $end AND t1_ns >= t0_ns AND abs(value) < 1e300"
# (mean, low, high) by number of the bucket.
Values = dict[int, tuple[float, float, float]]


@dataclass(frozen=True)
class Span:
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

    def cut(self, count: int) -> Span:
        """The same stretch in at most ``count`` buckets."""
        return Span(self.start, self.end, max(1, count))


def filled(span: Span, found: Values) -> dict[str, Any]:
    """(mean, low, high) by bucket as the columns of a Trace."""
    times = span.middles()
    columns: dict[str, Any] = {"t_s": times}
    for place, name in enumerate(("mean", "low", "high")):
        columns[name] = tuple(found[k][place] if k in found else None for k in range(len(times)))
    return columns


@dataclass(frozen=True)
class Samples:
    """What was read within a span of time: of ``connection`` its tables samples and series are asked."""

    connection: duckdb.DuckDBPyConnection
    span: Span

    @cached_property
    def counts(self) -> dict[int, int]:
        """How many numbers each series has here."""
        return dict(
            self.connection.execute(f"SELECT series, count(*) {_HERE} GROUP BY series", self._within).fetchall()
        )

    @property
    def _within(self) -> dict[str, int]:
        return {"start": self.span.start, "end": self.span.end}

    def those(self, where: str) -> list[int]:
        """The series with numbers here of which a condition holds."""
        found = self.connection.execute(f"SELECT series FROM series WHERE {where} ORDER BY series").fetchall()
        return [number for (number,) in found if number in self.counts]

    def bucketed(self, span: Span, columns: str, series: list[int]) -> list[tuple[Any, ...]]:
        """One row a series and bucket of ``span``. ``columns``: aggregates over mid (ns), t0_ns, t1_ns and value."""
        if not series:
            return []
        # Numbers written out tell DuckDB which parts of the file it need not read.
        only = f"AND series IN ({', '.join(map(str, series))})"
        return self.connection.execute(
            f"SELECT series, least((mid - $start) // $width, $last) AS bucket, {columns} "
            f"FROM (SELECT series, t0_ns, t1_ns, value, t0_ns + (t1_ns - t0_ns) // 2 AS mid {_HERE} {only}) "
            "GROUP BY ALL ORDER BY 1, 2",
            span.params,
        ).fetchall()

    def gauges(self, where: str) -> tuple[Span, dict[int, Values]]:
        """(mean, low, high) by bucket of each gauge, in buckets that the most read one fills: a gap is a real one."""
        series = self.those(where)
        wide = self.span.cut(min(self.span.count, max((self.counts[one] for one in series), default=0) // 2))
        found: dict[int, Values] = {}
        for number, bucket, *values in self.bucketed(wide, "avg(value), min(value), max(value)", series):
            found.setdefault(number, {})[bucket] = (values[0], values[1], values[2])
        return wide, found
