"""The power of a run by bucket: from its counters by differences, with the code that makes its energy, or a gauge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from meltbench.measure.energy import Rail
    from meltbench.records import Series
    from meltbench.report.buckets import Samples, Span, Values

_PARTS = 4  # of a bucket, whose differences are its least and its most
_SHORTEST_NS = 80_000_000  # of a bucket of a counter: a register that ticks in 1 ms tells its quarters within 5 %
_FINE = 8192  # readings of a counter that are kept: differences need its edges alone


def power(samples: Samples) -> tuple[Span, Values, str] | None:
    """Power (W) by bucket, with the buckets it is in and what it is of; None where nothing gives a power."""
    from meltbench.measure.counters import MAX_POWER_W

    span = samples.span
    wide = span.cut(min(span.count, (span.end - span.start) // _SHORTEST_NS))
    rail = _rail(_thinned(samples, "kind = 'counter' AND unit = 'J'"))
    if rail is not None and (values := _counter_power(rail, wide, MAX_POWER_W)):
        return wide, values, f"{' + '.join(part.name for part in rail.parts)}, {rail.scope}"
    number, of = _gauge(samples.connection)
    wide, found = samples.gauges(f"series = {number}")
    sane = {k: one for k, one in found.get(number, {}).items() if one[1] >= 0 and one[2] <= MAX_POWER_W}
    return (wide, sane, of) if sane else None


_WIDEST_FIRST = ("wall", "battery", "module", "soc", "rail")


def _rank(scope: str) -> int:
    return _WIDEST_FIRST.index(scope) if scope in _WIDEST_FIRST else len(_WIDEST_FIRST)


def _rail(found: list[Series]) -> Rail | None:
    """The designated total; without one, one counter that stands for more than a part."""
    from meltbench.measure.digest import digest
    from meltbench.measure.energy import rail_of
    from meltbench.measure.total import Designation, total

    signals = [digest(one) for one in found]
    rapl = next((one.source for one in found if one.name.startswith("rapl.")), "")
    if whole := total(signals, Designation(rapl)).rail:
        return whole
    # pyRAPL reads RAPL's registers once more, and RAPL has no total here.
    others = [one for one in signals if not one.name.startswith(("rapl.", "pyrapl.")) and one.head.scope != "rail"]
    others.sort(key=lambda one: _rank(one.head.scope))
    return rail_of(others[0]) if others else None


def _gauge(connection: duckdb.DuckDBPyConnection) -> tuple[int, str]:
    """The gauge of power with the widest scope, and its name with it; parts are never added up. -1: there is none.

    A trailing mean stands behind a gauge that shows what is.
    """
    gauges = connection.execute(
        "SELECT coalesce(window_s <> 0, true), series, name, scope FROM series WHERE kind = 'gauge' AND unit = 'W'"
    ).fetchall()
    found = sorted((trails, _rank(scope), number, name, scope) for trails, number, name, scope in gauges)
    return (found[0][2], f"{found[0][3]}, {found[0][4]}") if found else (-1, "")


def _thinned(samples: Samples, where: str) -> list[Series]:
    """Each counter by its last reading in every fine bucket, and the first of all, so that nothing rises unseen."""
    import numpy as np

    from meltbench.records import Series

    fine = samples.span.cut(_FINE)
    last = "arg_max(t0_ns, mid), max_by(t1_ns, mid), arg_max(value, mid)"
    first = "arg_min(t0_ns, mid), min_by(t1_ns, mid), arg_min(value, mid)"
    points: dict[int, list[tuple[int, int, float]]] = {}
    for number, _, *edges in samples.bucketed(fine, f"{first}, {last}", samples.those(where)):
        mine = points.setdefault(number, [])
        if not mine:
            mine.append((edges[0], edges[1], edges[2]))
        if (edges[3], edges[4]) != mine[-1][:2]:
            mine.append((edges[3], edges[4], edges[5]))
    series = []
    asked = f"SELECT series, name, source, scope, klass, wrap FROM series WHERE {where}"
    known = samples.connection.execute(asked).fetchall()
    for number, name, source, scope, klass, wrap in known:
        mine = points.get(number, [])
        t0, t1 = (np.array([point[place] for point in mine], np.int64) for place in (0, 1))
        value = np.array([point[2] for point in mine], np.float64)
        status = np.zeros(len(mine), np.uint8)
        made = Series(name, "J", "counter", source, scope, t0, t1, value, status, klass=klass, wrap=wrap)
        series.append(made)
    return series


def _counter_power(rail: Rail, span: Span, max_power_w: float) -> Values:
    """Mean, least and most power by bucket, from differences over its quarters, all parts of the rail added.

    A bucket in which a counter was reset, or ran as nothing can, is out, and so is one that it spans less than half
    of. Only readings that moved count: a slow register would else draw nothing, and then too much.
    """
    import numpy as np

    n = len(span.middles())
    edges = span.start + np.arange(n * _PARTS + 1, dtype=np.int64) * (span.width // _PARTS)
    power, spanned = np.zeros(n * _PARTS), np.ones(n * _PARTS, np.bool_)
    bad = np.zeros(n * _PARTS, np.bool_)
    for part in rail.parts:
        t, v = part.kept["t"], part.kept["v"]
        if len(t) < 2:
            return {}
        one = np.diff(np.interp(edges, t, v)) / (span.width // _PARTS / 1e9)
        power += one
        spanned &= (edges[:-1] >= t[0]) & (edges[1:] <= t[-1])
        bad |= (one < 0) | (one > max_power_w)
        for before, after in part.resets:
            low, high = t[max(int(np.searchsorted(t, before, "right")) - 1, 0)], t[np.searchsorted(t, after, "left")]
            bad |= (edges[1:] > low) & (edges[:-1] < high)
    found: Values = {}
    for k in range(n):
        mine = slice(k * _PARTS, (k + 1) * _PARTS)
        parts = power[mine][spanned[mine]]
        if len(parts) >= _PARTS / 2 and not (bad[mine] & spanned[mine]).any():
            found[k] = (float(parts.mean()), float(parts.min()), float(parts.max()))
    return found
