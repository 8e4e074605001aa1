"""Samples of power held against what the device can draw, and sensors that stand still, while the samples pass by.

A value that cannot be true is marked and becomes a missing one; its text stays in the journal. A few are bridged like
any gap. Where they are many, or where a sensor that brought new values all the time stops doing so, the signal gives no
energy at all, and says why.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from statistics import median_high
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.counters import MAX_GPU_POWER_W, MAX_POWER_W, middle_ns
from meltbench.measure.energy import MIN_COVERAGE, is_relative
from meltbench.measure.total import Total
from meltbench.measure.validity import reason
from meltbench.records import IMPLAUSIBLE, STATUSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from meltbench.measure.total import Designation
    from meltbench.records import Measure, Phase, Reason, Series

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

MANY_SHARE = 1 - MIN_COVERAGE  # of a run's samples; fewer are bridged, as is any gap up to that length
STILL_FACTOR = 20  # a register that brings a value every k readings does not pause for 20 k of them by chance
REGULAR_FACTOR = 3  # what nine of ten pauses stay below, of a sensor that brings new values all the time
MIN_CHANGES = 10
# A gauge at nothing reads a little below it; what is more, for more than this share of the energy, no load drew.
OFFSET_W, BELOW_SHARE = 0.1, 0.01
OFF_SHARE = 0.01  # of the samples at 0 W, of a total: a machine that is read draws something
_KEPT = 1024  # values whose median tells how far off they are
_UNITS = {1e3: "1,000", 1e6: "1,000,000"}
# What a status of many samples speaks against.
_CODES = {
    "denied": "sensor_denied",
    "again": "sensor_gated",
    "gated": "sensor_gated",
    "absent": "sensor_unreadable",
    "error": "sensor_unreadable",
    "unparsed": "sensor_unreadable",
}


def most_w(max_power_w: float | None, gpus: Sequence[str]) -> float:
    """More than the machine can draw: what its profile says, else more than any machine in scope with its GPUs."""
    return max_power_w or MAX_POWER_W + MAX_GPU_POWER_W * len(gpus)


@dataclass(frozen=True)
class Signs:
    """How many samples lie below 0 W and at it; the sums (W) of those below and above; and the least of those above."""

    below: int = 0
    at: int = 0
    below_w: float = 0.0
    above_w: float = 0.0
    least_w: float = math.inf

    def joined(self, v: Floats) -> Signs:
        """With more values, all of them finite."""
        below, above = v[v < 0], v[v > 0]
        return Signs(
            self.below + len(below),
            self.at + len(v) - len(below) - len(above),
            self.below_w - float(below.sum()),
            self.above_w + float(above.sum()),
            min(self.least_w, float(above.min(initial=math.inf))),
        )


@dataclass(frozen=True)
class Screened:
    """What the samples of a signal of power or energy were like, in the run (in all where there was none).

    ``counts``: samples by status. ``limit_w``: what those marked implausible lie beyond, ``typical_w`` their median.
    ``pauses``: how many readings in a row had one value, as often as that was; ``still``: the most of them, which
    lasted ``still_s``. ``signs``: of a power.
    """

    name: str
    source: str
    counts: Counter[str]
    limit_w: float
    typical_w: float | None = None
    pauses: Counter[int] = field(default_factory=Counter)
    still: int = 0
    still_s: float = 0.0
    signs: Signs = field(default_factory=Signs)

    @property
    def n(self) -> int:
        """All samples."""
        return self.counts.total()

    @property
    def refuted(self) -> str:
        """Why no energy is made of the signal; empty where one may be."""
        if self.counts["implausible"] > MANY_SHARE * self.n:
            return f"implausible_power: {self.beyond}{self._unit()}"
        return self._frozen()

    @property
    def beyond(self) -> str:
        """How many samples no machine of this kind can have drawn."""
        return f"{self.counts['implausible']} of {self.n} samples of {self.name} are beyond {self.limit_w:.4g} W"

    @property
    def below(self) -> str:
        """That a part of the power went the other way; empty where that is no more than an offset."""
        one = self.signs
        if one.below_w <= BELOW_SHARE * (one.below_w + one.above_w) or one.below_w <= OFFSET_W * one.below:
            return ""
        return f"{one.below} of {self.n} samples of {self.name} are below 0 W, by {one.below_w / one.below:.3g} W"

    def off(self, quantum_w: float) -> str:
        """That it read nothing for a part of the run; empty where 0 W is what its quantum makes of a little."""
        one = self.signs
        if one.at <= OFF_SHARE * self.n or one.least_w <= 2 * quantum_w:
            return ""
        return f"{one.at} of {self.n} samples of {self.name} are 0 W, and no other is below {one.least_w:.3g} W"

    def _unit(self) -> str:
        """That the unit of the profile looks wrong, where one of the usual mistakes would explain the values."""
        for factor, words in _UNITS.items():
            if self.typical_w is not None and self.typical_w / factor <= self.limit_w:
                return f", about {words} times too much: the unit of its profile looks wrong"
        return ""

    def _frozen(self) -> str:
        rest = self.pauses.copy()
        rest.subtract([self.still])
        lengths = np.array(sorted(rest.elements()))
        if len(lengths) < MIN_CHANGES or self.still <= MANY_SHARE * self.n:
            return ""
        usual = float(np.median(lengths))
        if np.quantile(lengths, 0.9) > REGULAR_FACTOR * usual or self.still < STILL_FACTOR * usual:
            return ""
        return f"stale_sensor: {self.name} stood still for {self.still_s:.3g} s, it changed every {usual:.0f} readings"


@dataclass
class _Signal:
    """What is counted of one signal while its blocks pass."""

    head: Series
    limit_w: float
    run: Phase | None
    counts: Counter[str] = field(default_factory=Counter)
    beyond: list[float] = field(default_factory=list)
    pauses: Counter[int] = field(default_factory=Counter)
    still: tuple[int, float] = (0, 0.0)
    signs: Signs = field(default_factory=Signs)
    standing: tuple[float, int, int, int] | None = None  # a value, how many readings in a row, times of first and last

    def take(self, part: Series) -> Series:
        power = part.kind == "gauge" and part.unit == "W"
        if power:
            with np.errstate(invalid="ignore"):
                bad = np.abs(part.value) > self.limit_w
            if bad.any():
                self.beyond += np.abs(part.value[bad])[: _KEPT - len(self.beyond)].tolist()
                value, status = part.value.copy(), part.status.copy()
                value[bad], status[bad] = np.nan, IMPLAUSIBLE
                part = replace(part, value=value, status=status)
        t = middle_ns(part)
        inside = slice(None) if self.run is None else (t >= self.run.t0_ns) & (t <= self.run.t1_ns)
        found = np.bincount(part.status[inside], minlength=len(STATUSES)).tolist()
        self.counts += Counter({word: n for word, n in zip(STATUSES, found, strict=True) if n})
        if power:
            good = np.isfinite(part.value[inside])
            self.signs = self.signs.joined(part.value[inside][good])
            self._watch(t[inside][good], part.value[inside][good])
        return part

    def _watch(self, t: Ints, v: Floats) -> None:
        """Counts how many readings in a row had one value. A rail at 0 W is off, and may be for long."""
        if not len(v):
            return
        starts = np.flatnonzero(np.diff(v, prepend=np.nan) != 0)
        rows = np.diff(np.append(starts, len(v)))
        begun = t[starts]
        if self.standing is not None and self.standing[0] == v[0]:
            rows[0] += self.standing[1]
            begun[0] = self.standing[2]
        elif self.standing is not None:
            self._note(*(np.array([one]) for one in self.standing))
        last = t[np.append(starts[1:], len(v)) - 1]
        self._note(v[starts][:-1], rows[:-1], begun[:-1], last[:-1])
        self.standing = (float(v[-1]), int(rows[-1]), int(begun[-1]), int(last[-1]))

    def _note(self, value: Floats, rows: Ints, begun: Ints, last: Ints) -> None:
        rows, begun, last = (column[value != 0] for column in (rows, begun, last))
        if len(rows):
            lengths, often = np.unique(rows, return_counts=True)
            self.pauses += Counter(dict(zip(lengths.tolist(), often.tolist(), strict=True)))
            most = int(rows.argmax())
            self.still = max(self.still, (int(rows[most]), float(last[most] - begun[most]) / 1e9))

    def done(self) -> Screened:
        if self.standing is not None:
            self._note(*(np.array([one]) for one in self.standing))
        typical = median_high(self.beyond) if self.beyond else None
        name, source = self.head.name, self.head.source
        return Screened(name, source, self.counts, self.limit_w, typical, self.pauses, *self.still, self.signs)


class Screen:
    """Takes the signals of a run block by block. ``limit_w``: more than the device can draw."""

    def __init__(self, limit_w: float, run: Phase | None) -> None:
        self.limit_w, self._run = limit_w, run
        self._signals: dict[tuple[str, str, str], _Signal] = {}

    def take(self, part: Series) -> Series:
        """The next samples of a signal, those marked that cannot be true."""
        if part.unit not in ("W", "J"):
            return part
        key = (part.source, part.name, part.path)
        if key not in self._signals:
            self._signals[key] = _Signal(part.head(), self.limit_w, self._run)
        return self._signals[key].take(part)

    def done(self) -> list[Screened]:
        """What the samples were like."""
        return [one.done() for one in self._signals.values()]


def screened_total(total: Total, named: Sequence[Designation], screened: Sequence[Screened]) -> Total:
    """The total, or none where a signal of it is refuted, or one of a total that the profile prefers: what stands in
    for a sensor that says nonsense would be taken for it."""
    parts = _parts(total)
    wanted = [one for one in screened if (one.source, one.name) in parts]
    for one in named:
        if any(source == one.source for source, _ in parts):
            break
        wanted += _named(one, screened)
    why = next((said for one in wanted if (said := one.refuted or _untrue(one, total))), "")
    return Total(None, why, total.partial) if why else total


def _untrue(one: Screened, total: Total) -> str:
    """Why no total is made of a signal whose samples could be those of a part; empty where one may be. A battery may be
    charged: then it gives an energy, of an invalid run."""
    parts = total.rail.parts if total.rail is not None else ()
    mine = next((part for part in parts if (part.head.source, part.name) == (one.source, one.name)), None)
    if mine is None:
        return ""
    if one.below and mine.head.scope != "battery":
        return f"implausible_power: {one.below}: its sign in the profile looks wrong, or the sensor was"
    off = one.off(mine.quantum_w) if len(parts) == 1 else ""
    return f"implausible_power: {off}: the sensor was off, or shows no less" if off else ""


def without_refuted(measures: Sequence[Measure], screened: Sequence[Screened]) -> list[Measure]:
    """The measures, those of refuted signals without their values."""
    why = {one.name: one.refuted for one in screened if one.refuted}
    return [replace(m, value=None, u_k2=None, reason=why[m.source]) if m.source in why else m for m in measures]


def screen_reasons(total: Total, named: Sequence[Designation], screened: Sequence[Screened]) -> list[Reason]:
    """What the samples of the total's signals speak against the run; of the first the profile names where none is."""
    parts = _parts(total)
    mine = [one for one in screened if (one.source, one.name) in parts]
    for one in () if parts else named[:1]:
        mine += _named(one, screened)
    out = []
    for signal in mine:
        for status, code in _CODES.items():
            if signal.counts[status] > MANY_SHARE * signal.n:
                words = f"{signal.counts[status]} of {signal.n} samples of {signal.name}: {status}"
                out.append(reason(code, words))
        if why := signal.refuted or _untrue(signal, total):
            code, _, words = why.partition(": ")
            out.append(reason(code, words))
        elif signal.below and _of_battery(signal, total):
            out.append(reason("charging", f"{signal.below}: what came in"))
        elif signal.counts["implausible"]:
            out.append(reason("bridged_readings", signal.beyond))
    return out


def _of_battery(one: Screened, total: Total) -> bool:
    """Whether a signal is the power of a battery whose sign is known: else it may be upside down."""
    parts = total.rail.parts if total.rail is not None else ()
    mine = [p.head for p in parts if (p.head.source, p.name, p.head.scope) == (one.source, one.name, "battery")]
    return any(not is_relative(head) for head in mine)


def _parts(total: Total) -> set[tuple[str, str]]:
    return {(part.head.source, part.name) for part in total.rail.parts} if total.rail is not None else set()


def _named(one: Designation, screened: Sequence[Screened]) -> list[Screened]:
    """The signals that a total the profile names would be made of."""
    mine = [signal for signal in screened if signal.source == one.source]
    return [signal for signal in mine if not one.rails or any(fnmatchcase(signal.name, glob) for glob in one.rails)]
