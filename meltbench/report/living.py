"""What looks at runs under way showed, in words: a line below a bar, and the table of ``meltbench top``."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from meltbench.report.progress import Steps, seconds
from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meltbench.live.jobs import Job
    from meltbench.live.picture import Now, Sight
    from meltbench.report.progress import Look

EVERY_S = 5.0  # between lines where there is no terminal to draw on
_KEYS = (
    *("run_id", "state", "device", "target", "model", "engine", "workload", "command", "elapsed_s", "left_s", "note"),
)
_RIGHT = ("elapsed", "left", "tok/s", "power", "temp")
_WIDE = ("run", "device", "what runs", "step", *_RIGHT, "")
_NARROW = tuple(name for name in _WIDE if name not in ("run", "left", ""))
_COLUMNS = {name: Column(name, right=name in _RIGHT, whole=name in (*_RIGHT, "run")) for name in _WIDE}
_SLIM = tuple(name for name in _NARROW if name not in ("what runs", "elapsed"))
WIDE, NARROW = 120, 80  # characters of a terminal from which on all of them fit, and those of _NARROW
_BARS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float | None], width: int = 12) -> str:
    """The last values as bars from zero to their largest, a space where there was none; empty without any.

    >>> spark([0.0, 50.0, None, 100.0])
    '▁▅ █'
    """
    last = values[-width:]
    top = max((value for value in last if value is not None), default=0.0)
    if top <= 0:
        return ""
    steps = len(_BARS) - 1
    return "".join(" " if one is None else _BARS[min(round(max(one, 0.0) / top * steps), steps)] for one in last)


def figure(now: Now, unit: str) -> str:
    """A figure with its unit."""
    return MISSING if now.value is None else quantity(now.value, unit)


def line(sight: Sight, *, bars: bool = True) -> str:
    """Token rate, power and temperature in a line; what is missing with the name of its reason. ``bars``: with how the
    first two went."""
    parts = []
    for name, now, unit, course in (
        ("token rate", sight.token_rate, "tok/s", sight.rates),
        ("power", sight.power, "W", sight.powers),
        ("temperature", sight.temperature, "degC", ()),
    ):
        if now.value is None:
            parts.append(f"no {name} ({printable(now.reason.partition(':')[0])})")
        else:
            drawn = f" {found}" if bars and (found := spark(course)) else ""
            parts.append(f"{figure(now, unit)}{drawn}")
    return ", ".join(parts)


class Ticker:
    """Gives lines to ``write`` where there is no terminal: one every EVERY_S, and when a figure comes or goes."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._steps = Steps()
        self._last: tuple[tuple[bool, ...], float] | None = None

    def show(self, sight: Sight) -> None:
        """One look; one before the job has begun shows nothing."""
        if sight.status.get("state") == "starting":
            return
        now = self._clock()
        known = tuple(one.value is not None for one in (sight.token_rate, sight.power, sight.temperature))
        if self._last is None or known != self._last[0] or now - self._last[1] >= EVERY_S:
            self._last = known, now
            self._write(f"{printable(self._steps.look(sight.status).words)}: {line(sight, bars=False)}")


def jobs_sheet(jobs: Sequence[Job], steps: Callable[[Job], Look], *, bars: bool = True, width: int = WIDE) -> Sheet:
    """One row a job; ``steps`` says what each is at, ``bars``: with how its token rate went, else its power.

    ``width``: characters of the terminal. Below WIDE there are no ids, bars and time that is left, below NARROW it says
    neither what runs nor since when, and of notes the first words.
    """
    columns = [_COLUMNS[name] for name in (_WIDE if width >= WIDE else _NARROW if width >= NARROW else _SLIM)]
    sheet = Sheet("", tuple(columns))
    for job in jobs:
        cells = _cells(job, steps, bars=bars)
        if width < WIDE and job.note:
            note = job.note if width >= NARROW else job.note.partition(":")[0]
            cells["step"] = f"{cells['step']}: {note}"
        sheet.rows.append(tuple(cells[column.heading] for column in columns))
    return sheet


def _cells(job: Job, steps: Callable[[Job], Look], *, bars: bool) -> dict[str, str]:
    """A job by the headings of its columns."""
    sight = job.sight
    cells = {"run": job.run_id, "device": job.device, "step": job.state, "": job.note}
    cells["what runs"] = " · ".join(part for part in (job.model, job.engine, job.workload, job.command) if part)
    cells["elapsed"] = MISSING if job.elapsed_s is None else seconds(job.elapsed_s)
    cells["left"] = MISSING if job.left_s is None else f"{'≤' if bars else '<='} {seconds(job.left_s)}"
    cells |= dict.fromkeys(("tok/s", "power", "temp"), MISSING)
    if sight is not None:
        cells["step"] = _step(sight, steps(job))
        cells["tok/s"] = figure(sight.token_rate, "tok/s")
        cells["power"] = figure(sight.power, "W")
        cells["temp"] = figure(sight.temperature, "degC")
        cells[""] = job.note or ((spark(sight.rates) or spark(sight.powers)) if bars else "")
    return cells


def _step(sight: Sight, look: Look) -> str:
    """What is under way and how many of its requests are answered. Since when, only who saw it begin could tell."""
    done, of = sight.status.get("done"), sight.status.get("of")
    return f"{look.words}, {done} of {of}" if isinstance(done, int) and of else look.words


def job_line(job: Job, steps: Callable[[Job], Look]) -> str:
    """One job in a line, for where there is no terminal."""
    if job.sight is None:
        return printable(f"{job.run_id} {job.device}: {job.state}{f', {job.note}' if job.note else ''}")
    return printable(f"{job.run_id} {job.device}: {steps(job).words}, {line(job.sight, bars=False)}")


def jobs_json(jobs: Sequence[Job], steps: Callable[[Job], Look]) -> list[dict[str, Any]]:
    """What ``meltbench top --json`` prints."""
    out = []
    for job in jobs:
        sight = job.sight
        row: dict[str, Any] = {key: getattr(job, key) for key in _KEYS}
        row["step"] = None if sight is None else printable(steps(job).words)
        for name, field in (("tokens_per_s", "token_rate"), ("power_w", "power"), ("temp_c", "temperature")):
            now: Now | None = getattr(sight, field, None)
            value = None if now is None or now.value is None or not math.isfinite(now.value) else now.value
            row[name] = value
            row[f"{name}_of"] = printable(now.of) if now is not None and value is not None else None
            row[f"{name}_reason"] = None if value is not None else printable(now.reason) if now else job.note
        out.append({key: printable(value) if isinstance(value, str) else value for key, value in row.items()})
    return out
