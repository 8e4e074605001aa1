"""Texts that name their signals themselves: a line of a tool, what a command printed.

Which signals there are differs by device, release and permission, so the text decides. One that is in some texts of a
stream and missing in others is there a sample without a value, never a zero.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from meltbench.readings.base import MAX_SERIES, NAN, make_series, read_codes
from meltbench.records import GATED, OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from meltbench.readings.base import Column, Command
    from meltbench.records import Series, Stream

    Row = Callable[[bytes], Mapping[Column, float]]

_odd = re.compile(r"[^A-Za-z0-9_.+-]")
_LONGEST_NAME = 64


def plain(name: str) -> str:
    """A device's own name as a part of a series' name."""
    return _odd.sub("_", name[:_LONGEST_NAME])


def polled(command: Command, streams: Sequence[Stream]) -> list[Stream]:
    """The streams that hold what ``command`` printed."""
    line = " ".join(command.argv)
    return [stream for stream in streams if stream.kind == "poll" and stream.path == line]


def printed(streams: Sequence[Stream]) -> list[Stream]:
    """The streams whose readings are lines: of a tool that runs, or of a log of it."""
    return [stream for stream in streams if stream.kind in ("lines", "log")]


def nearest(times: npt.NDArray[np.int64], t: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each of ``t`` the place of the nearest of ``times``, which need no order; there is at least one."""
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    right = np.minimum(np.searchsorted(ordered, t), len(ordered) - 1)
    left = np.maximum(right - 1, 0)
    near: npt.NDArray[np.int64] = order[np.where(np.abs(ordered[left] - t) <= np.abs(ordered[right] - t), left, right)]
    return near


def named_series(
    source: str, stream: Stream, row: Row, *, power_class: str | None = None, power_update_s: float = 0.0
) -> list[Series]:
    """A series for each signal that any text of the stream names.

    ``row`` gives the values of one text by column; NaN where the text says itself that the part is switched off. What
    is in watts gets ``power_class``, and ``power_update_s`` as its age at most.
    """
    readings = stream.readings
    codes = read_codes(readings)
    missing = np.where(codes == OK, UNPARSED, codes).astype(np.uint8)
    found: dict[Column, dict[int, float]] = {}
    raw = readings.raw
    for at in np.flatnonzero(codes == OK).tolist():
        for column, value in row(raw[at]).items():
            if column in found or len(found) < MAX_SERIES:
                found.setdefault(column, {})[at] = value
    out = []
    for column, cells in found.items():
        values, status = np.full(len(readings), NAN), missing.copy()
        at_all = list(cells)
        values[at_all] = list(cells.values())
        status[at_all] = np.where(np.isfinite(values[at_all]), OK, GATED)
        one = make_series(source, stream, column, values, status)
        out.append(replace(one, klass=power_class, update_s=power_update_s) if column.unit == "W" else one)
    return out
