"""Sampling in step with what is measured: tokens, or requests, that come as often as a gauge is read.

A gauge that is read at every token sees the same part of each, and how many are read does not help: 100 ms beside 10
tokens a second is off by 11 to 16 %, over a minute too. Its readings cannot show it, but the moments of the tokens can,
for they tell the place of each reading in its cycle. With R_h the length of the mean of exp(2 pi i h place) over the
readings of a window, R_1 = 1 says that all fell on one place, R_2 = 1 on two that are opposite, and so on; readings
that are spread evenly have R = 0, and n random ones 1 / sqrt(n). R_h of the h-th harmonic ends up in the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from meltbench.records import Request

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Columns = dict[str, npt.NDArray[Any]]

HARMONICS = (1, 2, 3, 4)
LOCKED = 0.6  # R of readings that see little more than half of each cycle, one part of it after the other
_BLIND = 0.9  # R from which on the rest is unseen however few they are
_CHANCE = 1e-3
MIN_CYCLES = 3  # of fewer, a window is a part of a cycle rather than a sample of many
_FINE = 8  # readings in a cycle that leave nothing to alias in the harmonics above
_PAUSE = 3  # times the usual cycle: what is longer is a pause between cycles


@dataclass(frozen=True)
class Beat:
    """What recurs in a run: its cycles from ``starts`` to ``ends`` (ns), in order and apart. ``what`` in the plural."""

    what: str
    starts: Ints
    ends: Ints

    @cached_property
    def period_s(self) -> float:
        """The usual length of a cycle."""
        return float(np.median(self.ends - self.starts)) / 1e9

    def places(self, t: Ints) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Of each time whether it lies in a cycle, and how far through it, 0 to 1."""
        k = np.searchsorted(self.starts, t, "right") - 1
        inside = (k >= 0) & (t < self.ends[k])
        place: Floats = (t - self.starts[k]) / (self.ends[k] - self.starts[k])
        return inside, np.where(inside, place, 0.0)

    def sums(self, t: Ints, v: Floats) -> Columns:
        """What each reading adds: whether it is in a cycle, its power, the square of it, and its place by harmonic."""
        inside, place = self.places(t)
        turns = {f"{self.what}.{h}": np.where(inside, np.exp(2j * math.pi * h * place), 0) for h in HARMONICS}
        known = np.where(inside, v, 0.0)
        return {
            f"{self.what}.n": inside.astype(np.float64),
            f"{self.what}.v": known,
            f"{self.what}.vv": known**2,
        } | turns

    def matters(self, period_s: float, window_s: float) -> bool:
        """Whether a gauge with fresh values so often can be in step with it; a mean over a whole cycle cannot."""
        return period_s > self.period_s / _FINE and window_s < self.period_s

    def missed(self, sums: Columns, first: int, last: int, period_s: float) -> float | str:
        """What being in step can have kept from a window, in joules (k = 1); a reason where that is anything.

        ``sums`` run up to each row, the window's readings are those after ``first`` up to ``last``.
        """
        n = self._within("n", sums, first, last).real
        if n * period_s < MIN_CYCLES * self.period_s or n < HARMONICS[-1]:
            return 0.0
        r = {h: min(abs(self._within(str(h), sums, first, last)) / n, 1.0) for h in HARMONICS}
        by_chance = math.sqrt(-math.log(_CHANCE) / n)  # the R that n readings at random have once in so many windows
        if locked := [h for h in HARMONICS if r[h] > min(max(LOCKED, by_chance), _BLIND)]:
            seen = "one place" if locked[0] == 1 else f"the same {locked[0]} places"
            often = f"values every {period_s:.3g} s, {self.what} every {self.period_s:.3g} s"
            return f"aliased_gauge: {often}: it sees {seen} of each, and not the rest"
        # The amplitude is what the readings spread by, here or anywhere in the run; harmonics of bursts fall as 1/h.
        spread = max(self._spread(sums, first, last), self._spread(sums, -1, len(sums["t"]) - 1))
        return spread * max(r[h] / (h * math.sqrt(1 - r[h] ** 2)) for h in HARMONICS) * n * period_s

    def _within(self, name: str, sums: Columns, first: int, last: int) -> complex:
        column = sums[f"{self.what}.{name}"]
        return complex(column[last]) - (complex(column[first]) if first >= 0 else 0.0)

    def _spread(self, sums: Columns, first: int, last: int) -> float:
        """The standard deviation of the power in cycles."""
        n, v, vv = (self._within(name, sums, first, last).real for name in ("n", "v", "vv"))
        return math.sqrt(max(vv / n - (v / n) ** 2, 0.0))


def beats(requests: Sequence[Request]) -> tuple[Beat, ...]:
    """What recurs in a run of these requests. Where several are under way a batch gives each a token at a time, so the
    tokens of one at a time tell the cycle."""
    tokens: list[tuple[int, int]] = []
    last = -(1 << 62)
    for request in sorted(requests, key=lambda r: r.t_send_ns):
        mine = sorted(t for t in set(request.token_t_ns) if t > last)
        tokens += pairwise(mine)
        last = mine[-1] if mine else last
    sent = sorted({request.t_send_ns for request in requests})
    found = {"tokens": tokens, "requests": list(pairwise(sent))}
    return tuple(beat for what, cycles in found.items() if (beat := _beat(what, cycles)) is not None)


def _beat(what: str, cycles: list[tuple[int, int]]) -> Beat | None:
    if not cycles:
        return None
    both = np.array(cycles, dtype=np.int64)
    length = both[:, 1] - both[:, 0]
    steady = both[length <= _PAUSE * np.median(length)]
    return Beat(what, steady[:, 0].copy(), steady[:, 1].copy())
