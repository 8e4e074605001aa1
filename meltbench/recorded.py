"""A recorded output of a source, without a run around it: its series, and the energy that they hold.

So a Mac is measured from a log of powermetrics, and a capture of somebody else's device tells whether a reader knows
its dialect. Nothing here opens a file: who reads the capture hands in its bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench.errors import UserError
from meltbench.measure.digest import digest, displaced_s
from meltbench.measure.energy import of_window, rail_of, window
from meltbench.measure.total import Designation, designated
from meltbench.readings import Source
from meltbench.readings.capture import MAX_BYTES, captured
from meltbench.records import OK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.energy import Rail
    from meltbench.records import Series, SourceStatus
    from meltbench.targets.profile import Profile

__all__ = ["MAX_BYTES", "Recording", "measured", "recording", "sources_of", "summary"]
_NO_ENERGY: dict[str, Any] = {"energy_j": None, "u_k2": None, "reason": None}


@dataclass(frozen=True)
class Recording:
    """What readers made of a capture."""

    sources: list[SourceStatus]
    series: list[Series]


def sources_of(profile: Profile, reader: str | None = None) -> list[tuple[Source, float]]:
    """The sources of a profile, or those of one reader, with their periods in ms. Raises UserError for none."""
    chosen = [one for one in profile.source if reader in (None, one.reader)]
    if not chosen:
        names = ", ".join(sorted({one.reader for one in profile.source})) or "none"
        raise UserError(f"{profile.title} has no source of reader {reader!r}", hint=f"its readers: {names}")
    return [(Source.of(one.name, one.reader, one.options), one.period_ms) for one in chosen]


def recording(raw: bytes, sources: Sequence[tuple[Source, float]], period_ms: float | None = None) -> Recording:
    """The capture as each source's reader takes it, readings ``period_ms`` (else the source's period) apart.

    Where one source alone is asked, its series are returned whatever they hold; of several only those that could make
    something of it. A source's own time stamps go before any period.
    """
    statuses, series = [], []
    for source, own_ms in sources:
        found, seen = source.read(captured(source.reader, raw, period_ms or own_ms))
        statuses.append(seen.told())
        if len(sources) == 1 or statuses[-1].status == "ok":
            series += found
    return Recording(statuses, series)


def measured(found: Recording, profile: Profile) -> dict[str, Any]:
    """The energy of the total that the profile designates over the whole capture, or why there is none, JSON-ready."""
    # A log is one source's: that the others say nothing in it is no reason.
    here = {status.source for status in found.sources if status.status == "ok" or len(found.sources) == 1}
    named = [Designation(one.source, one.rails, one.scope, one.partial) for one in profile.total if one.source in here]
    row: dict[str, Any] = {"scope": None, "klass": None, "partial": ""}
    if not named:
        makes = ", ".join(dict.fromkeys(one.source for one in profile.total)) or "nothing"
        return row | _NO_ENERGY | {"reason": f"no_energy_source: the total is made of {makes}, and this is none of it"}
    total = designated(named, found.sources, [digest(one) for one in found.series])
    row["partial"] = total.partial
    if total.rail is None:
        return row | _NO_ENERGY | {"reason": total.reason}
    return row | {"scope": total.rail.scope, "klass": total.rail.klass} | _energy(total.rail)


def summary(series: Series) -> dict[str, Any]:
    """What one series holds, JSON-ready: count, first, last, mean, extremes, statuses; for power and energy its joules.

    ``seconds``: from its first value to its last. ``mean`` is of the values, not weighted by time.
    """
    good = (series.status == OK) & np.isfinite(series.value)
    values, times = series.value[good], series.t1_ns[good]
    some = len(values) > 0
    row: dict[str, Any] = {
        "name": series.name,
        "source": series.source,
        "unit": series.unit,
        "kind": series.kind,
        "scope": series.scope,
        "klass": series.klass,
        "n": len(values),
        "seconds": float(times[-1] - times[0]) / 1e9 if some else None,
        "first": float(values[0]) if some else None,
        "last": float(values[-1]) if some else None,
        "mean": float(values.mean()) if some else None,
        "least": float(values.min()) if some else None,
        "most": float(values.max()) if some else None,
        "statuses": dict(sorted(Counter(series.words).items())),
    }
    measures_energy = (series.kind, series.unit) in (("counter", "J"), ("gauge", "W"))
    return row | (_energy(rail_of(digest(series))) if measures_energy else _NO_ENERGY)


def _energy(rail: Rail) -> dict[str, Any]:
    """The energy of the span that all parts of a rail cover."""
    times = [part.kept["t"] for part in rail.parts]
    if not all(map(len, times)):
        return _NO_ENERGY | {"reason": "low_coverage: no value, or a counter that never moved"}
    start, end = max(int(t[0]) for t in times), min(int(t[-1]) for t in times)
    # From the first sample to the last no clock and no age of a value matters, unless one part goes beyond another.
    sharp = any((t[0], t[-1]) != (start, end) for t in times)
    bound = round(max(displaced_s(part.head) for part in rail.parts) * 1e9) if sharp else 0
    found = of_window(rail, window(rail, start + bound, end - bound, sharp=sharp), "capture")
    return {"energy_j": found.value, "u_k2": found.u_k2, "reason": found.reason}
