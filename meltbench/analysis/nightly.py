"""Runs as series of nights: the median of each night, by device and arm, for the search for change points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis.changes import Series

if TYPE_CHECKING:
    from collections.abc import Sequence


class Nightly:
    """Device, series and night of every run, put in order once for all that was measured of them."""

    def __init__(
        self, devices: Sequence[str], names: Sequence[str], nights: Sequence[str], arms: Sequence[str] | None = None
    ) -> None:
        """``nights``: names that sort by time; empty where nobody knows, which leaves the run out. ``arms``: of each
        run the arm that its series is of, where several are; else a series is an arm."""
        numbers: dict[tuple[str, str], int] = {}
        pairs = list(zip(devices, names, strict=True))
        series = np.array([numbers.setdefault(pair, len(numbers)) for pair in pairs], dtype=np.int64)
        self._arm = dict(zip(pairs, names if arms is None else arms, strict=True))
        self._called = list(numbers)
        self._nights = sorted({*nights})
        places = {night: at for at, night in enumerate(self._nights)}
        self._group = series * max(len(places), 1) + np.array([places[night] for night in nights], dtype=np.int64)
        self._dated = np.array([bool(night) for night in nights], dtype=bool)

    def of(self, metric: str, values: Sequence[float | None]) -> dict[str, list[Series]]:
        """By device its series of one metric, those with runs whose number is finite, in the order of their runs."""
        number = np.array(values, dtype=float)  # None becomes NaN
        kept = np.flatnonzero(np.isfinite(number) & self._dated)
        order = kept[np.lexsort((number[kept], self._group[kept]))]
        number, group = number[order], self._group[order]
        begins = np.flatnonzero(_is_new(group))  # of a night of a series
        count = np.diff(np.append(begins, len(order)))
        low, high = number[begins + (count - 1) // 2], number[begins + count // 2]
        medians, runs = np.where(count % 2, low, (low + high) / 2).tolist(), count.tolist()
        series, night = np.divmod(group[begins], max(len(self._nights), 1))
        names = [self._nights[at] for at in night.tolist()]
        firsts = np.flatnonzero(_is_new(series))
        seen = np.minimum.reduceat(order, begins[firsts]).tolist() if len(order) else []
        out: dict[str, list[Series]] = {}
        edges = [*firsts.tolist(), len(begins)]
        for _, at in sorted(zip(seen, range(len(seen)), strict=True)):
            mine = slice(edges[at], edges[at + 1])
            device, name = self._called[series[edges[at]]]
            arm = self._arm[device, name]
            made = Series(arm, metric, tuple(names[mine]), tuple(medians[mine]), tuple(runs[mine]), name)
            out.setdefault(device, []).append(made)
        return out


def _is_new(values: np.ndarray) -> np.ndarray:
    """Where a value is another than the one before."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]
