"""How a signal went over time, in bounded memory: its mean and its highest value in every stretch of a second.

A run of more than ``MAX_STRETCHES`` seconds has stretches of two seconds, then of four ...: they are aligned to the
clock, so that what is kept does not depend on the blocks in which the samples came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

STRETCH_NS = 1_000_000_000
MAX_STRETCHES = 4096


@dataclass(frozen=True)
class Course:
    """Stretches of ``width_ns`` in which a signal had values, in order: ``t_ns`` is their start."""

    width_ns: int
    t_ns: Ints
    mean: Floats
    high: Floats

    def __len__(self) -> int:
        return len(self.t_ns)

    def within(self, t0_ns: int, t1_ns: int) -> Course:
        """The stretches that lie inside of a window as a whole."""
        mine = (self.t_ns >= t0_ns) & (self.t_ns + self.width_ns <= t1_ns)
        return Course(self.width_ns, self.t_ns[mine], self.mean[mine], self.high[mine])

    def at(self, t_ns: int) -> float | None:
        """The mean of the stretch of that time, else of the last one before it; None before the first."""
        place = int(np.searchsorted(self.t_ns, t_ns, "right")) - 1
        return float(self.mean[place]) if place >= 0 else None

    def while_(self, is_so: npt.NDArray[np.bool_], end_ns: int) -> list[tuple[int, int]]:
        """The spans in which it is so: a stretch lasts until the next that was seen, the last one until ``end_ns``."""
        edges = np.append(self.t_ns, max(end_ns, int(self.t_ns[-1]))) if len(self) else self.t_ns
        spans: list[tuple[int, int]] = []
        for place in np.flatnonzero(is_so).tolist():
            t0, t1 = int(edges[place]), int(edges[place + 1])
            if spans and spans[-1][1] == t0:
                spans[-1] = (spans[-1][0], t1)
            elif t1 > t0:
                spans.append((t0, t1))
        return spans


def highest(courses: Sequence[Course]) -> Course:
    """Of several courses the highest mean in each stretch, and the highest value."""
    width = max((one.width_ns for one in courses), default=STRETCH_NS)
    keys = np.concatenate([np.empty(0, np.int64), *(one.t_ns // width for one in courses)])
    kept, place = np.unique(keys, return_inverse=True)
    mean, high = np.full(len(kept), -np.inf), np.full(len(kept), -np.inf)
    np.maximum.at(mean, place, np.concatenate([np.empty(0), *(one.mean for one in courses)]))
    np.maximum.at(high, place, np.concatenate([np.empty(0), *(one.high for one in courses)]))
    return Course(width, kept * width, mean, high)


class Courser:
    """Takes the samples of one signal, block by block."""

    def __init__(self) -> None:
        self._width = STRETCH_NS
        self._keys = np.empty(0, np.int64)
        self._sum: Floats = np.empty(0)
        self._n: Floats = np.empty(0)
        self._high: Floats = np.empty(0)

    def add(self, t_ns: Ints, v: Floats) -> None:
        """More samples, all of them finite."""
        self._group(
            np.concatenate([self._keys, t_ns // self._width]),
            np.concatenate([self._sum, v]),
            np.concatenate([self._n, np.ones(len(v))]),
            np.concatenate([self._high, v]),
        )
        while len(self._keys) > MAX_STRETCHES:
            self._width *= 2
            self._group(self._keys // 2, self._sum, self._n, self._high)

    def _group(self, keys: Ints, sums: Floats, n: Floats, high: Floats) -> None:
        self._keys, place = np.unique(keys, return_inverse=True)
        count = len(self._keys)
        self._sum = np.bincount(place, sums, count).astype(np.float64)
        self._n = np.bincount(place, n, count).astype(np.float64)
        self._high = np.full(count, -np.inf, np.float64)
        np.maximum.at(self._high, place, high)

    def done(self) -> Course:
        """What was kept."""
        return Course(self._width, self._keys * self._width, self._sum / self._n, self._high)
