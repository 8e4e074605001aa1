"""Whole numbers out of many texts at once: what nearly every file of the kernel holds, often a million times a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from meltbench.records import Readings

_BLOCK = 1 << 16  # a block of columns stays in the processor's cache
_WIDTH = 24  # no integer that is read here is longer, with its sign and the white space behind it


def parse_ints(readings: Readings) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Integers of up to 18 digits, each alone in its text but for white space after it; False where there is none."""
    n = len(readings)
    values = np.zeros(n, dtype=np.int64)
    good = np.zeros(n, dtype=np.bool_)
    data = np.frombuffer(readings.data, np.uint8)
    starts = np.concatenate([[0], readings.ends[:-1]]).astype(np.int64)
    for begin in range(0, n, _BLOCK):
        part = slice(begin, begin + _BLOCK)
        values[part], good[part] = _parse_block(data, starts[part], readings.ends[part] - starts[part])
    return values, good


def _parse_block(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], length: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Reads all texts of a block at once, one character column after the other."""
    width = int(min(length.max(), _WIDTH))
    if width == 0:
        return np.zeros(len(length), np.int64), np.zeros(len(length), np.bool_)
    if length.min() == width == length.max():
        columns = data[starts[0] : starts[0] + width * len(length)].reshape(len(length), width).T
    else:
        # A shorter text's columns run into its neighbour's, and are left out below by its length.
        places = np.minimum(starts + np.arange(width)[:, None], len(data) - 1)
        columns = np.where(np.arange(width)[:, None] < length, data[places], np.uint8(0))
    return _from_columns(np.ascontiguousarray(columns), length, width)


def _from_columns(
    columns: npt.NDArray[np.uint8], length: npt.NDArray[np.int64], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    digit = columns - np.uint8(48)  # wraps below '0', so one comparison is enough
    is_digit = digit < 10
    value = np.zeros(len(length), dtype=np.int64)
    if width <= 19 and length.min() == width and is_digit[:-1].all() and (columns[-1] == 10).all():
        for row in digit[:-1]:  # what the kernel writes nearly always: digits of one length and an end of line
            value = value * 10 + row
        return value, np.full(len(length), width > 1)
    good = (length > 0) & (length <= width)
    negative = columns[0] == ord("-")
    digits = np.zeros(len(length), dtype=np.int8)
    inside = np.ones(len(length), dtype=np.bool_)
    for j in range(width):
        take = inside & is_digit[j] & (digits < 18)
        np.copyto(value, value * 10 + digit[j], where=take)
        digits += take
        rest = ~take if j else ~take & ~negative
        inside &= ~rest
        good &= ~rest | np.isin(columns[j], (9, 10, 13, 32)) | (length <= j)
    good &= digits > 0
    return np.where(negative, -value, value), good
