"""The regime of each sample, by its time: samples are written before the regimes of their run are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meltbench.store import arrow

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa


def regimes_at(times_ns: npt.NDArray[np.int64], regimes: pa.Table) -> pa.Array:
    """A column of the regimes' names at these times; null at a time that none of them covers."""
    import pyarrow as pa

    starts, ends = (regimes[name].to_numpy() for name in ("t0_ns", "t1_ns"))
    names = regimes["name"].to_pylist()
    words = sorted({str(name) for name in names})
    place = np.searchsorted(starts, times_ns, "right") - 1
    known = place >= 0
    known[known] &= times_ns[known] < ends[place[known]]
    codes = np.array([words.index(str(name)) for name in names], np.int8)[place[known]]
    column = np.zeros(len(times_ns), np.int8)
    column[known] = codes
    coded = pa.DictionaryArray.from_arrays(arrow.of_numpy(column, pa.int8(), known), arrow.of_list(words, "VARCHAR"))
    return coded.cast(pa.string())
