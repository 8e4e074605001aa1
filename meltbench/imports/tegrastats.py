"""A log of NVIDIA's tegrastats as a run: power and temperatures of a Jetson over the time of the log.

The lines are read by the reader that reads them in our own runs (readings/tegrastats.py). A line counts at its place,
one period after the one before: releases before R34 print no date, and a date is of whole seconds and names no zone.
What ran meanwhile the log does not tell, so the run is one of a command nobody knows.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from meltbench.errors import UserError
from meltbench.imports.foreign import Imported, measured, within
from meltbench.measure import Designation, RunInputs
from meltbench.measure.digest import Digester, Edges
from meltbench.measure.screening import Screen, most_w
from meltbench.readings import Source
from meltbench.readings.capture import captured
from meltbench.records import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.imports.foreign import File
    from meltbench.records import Series

TOOL = "tegrastats"
PERIOD_MS = (1.0, 3_600_000.0)
_DATE = re.compile(rb"(\d\d)-(\d\d)-(\d{4}) (\d\d):(\d\d):(\d\d) ")
_LINE = re.compile(rb"(?:\S{1,10} \S{1,10} )?(?:RAM|SWAP) \d{1,9}/\d{1,9}[kMG]?B")
_MIN_LINES, _MAX_LINES = 4, 5_000_000
_NOTE = "the log's dates are taken as UTC: tegrastats prints the clock on the wall and names no zone"


def read(files: Sequence[File], device: str | None = None, period_ms: float | None = None) -> list[Imported]:
    """A run of each log. ``period_ms``: between its lines, tegrastats' --interval; else what its dates come to.

    Raises UserError for a file without lines of tegrastats, and for one without dates where no period is given.
    """
    return [_run(file, device, period_ms) for file in files]


def _run(file: File, device: str | None, period_ms: float | None) -> Imported:
    lines = file.raw.splitlines(keepends=True)
    kept = [line for line in lines if _LINE.match(line)]
    if len(kept) < _MIN_LINES or len(kept) > _MAX_LINES:
        what = f"more than {_MAX_LINES} lines" if len(kept) > _MIN_LINES else f"no {_MIN_LINES} lines of tegrastats"
        raise UserError(f"{file.path} has {what}", hint="one begins with RAM, or with a date and RAM")
    first, last = _when(kept[0]), _when(kept[-1])
    of_dates = (last - first) / (len(kept) - 1) / 1e6 if first is not None and last is not None else 0.0
    period = period_ms or of_dates
    if not PERIOD_MS[0] <= period <= PERIOD_MS[1]:
        raise UserError(
            f"{file.path} does not tell the time between its lines",
            hint="give --period-ms; tegrastats itself prints each 1000 ms unless it was told otherwise",
        )
    notes = [_NOTE] if first is not None else ["the log has no dates: when it was is not known"]
    if len(kept) != len(lines):
        notes.append(f"{len(lines) - len(kept)} of {len(lines)} lines are none of tegrastats and were left out")
    if period_ms and of_dates and abs(of_dates - period_ms) > 2000 / (len(kept) - 1) + 0.05 * period_ms:
        notes.append(f"its dates say {of_dates:.4g} ms between two lines, --period-ms {period_ms:g}")
    source = Source.of(TOOL, TOOL, {})
    series, seen = source.read(captured(source.reader, b"".join(kept), period))
    power = [one for one in series if one.unit == "W"]
    total = _total(power)
    # From the second line to the last but one: an energy needs readings on both sides of both edges.
    span = Phase("run", round(period * 1e6), round((len(kept) - 2) * period * 1e6))
    screen = Screen(most_w(None, ()), span)
    edges = Edges.of([(span.t0_ns, span.t1_ns)], span)
    signals = []
    for one in series:
        digester = Digester(one, edges, screen.limit_w)
        digester.add(screen.take(one))
        signals.append(digester.done())
    inputs = RunInputs(
        kind="exec",
        signals=signals,
        sources=[seen.told()],
        phases=[span],
        totals=[] if total is None else [Designation(TOOL, (total.name,), total.scope)],
        conditions=[("imported", f"{file.name}, a log of tegrastats; what ran meanwhile it does not tell")],
        screened=screen.done(),
    )
    measures, reasons = measured(TOOL, inputs)
    return Imported(
        tool=TOOL,
        files=(file,),
        part=f"{period:.6g}",
        started_ns=None if first is None else within(first),
        ended_ns=None if last is None else within(last),
        device=device or "unknown",
        clock="the place of a line in the log, times the period; dates are of whole seconds",
        workload={"name": "tegrastats-log", "title": "what a log of tegrastats saw", "kind": "exec"},
        said={"period_ms": period, "lines": len(kept), "total": None if total is None else total.name},
        phases=[span],
        series=series,
        sources=[seen.told()],
        measures=measures,
        reasons=reasons,
        notes=tuple(notes),
    )


def _total(power: Sequence[Series]) -> Series | None:
    """The rail that feeds the module and so contains the others; None where the board has none (AGX)."""
    inputs = [one for one in power if one.scope == "module"]
    return inputs[0] if len(inputs) == 1 else None


def _when(line: bytes) -> int | None:
    """Its date, MM-DD-YYYY, as ns since 1970, as if it were UTC."""
    found = _DATE.match(line)
    if found is None:
        return None
    month, day, year, hour, minute, second = map(int, found.groups())
    try:
        return round(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * 10**9
    except ValueError:
        return None
