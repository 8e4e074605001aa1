"""The wire format of protocol buffers (protobuf.dev/programming-guides/encoding), as much as reading a trace needs.

A walk ends at the first byte that is no field: what stood before it is kept, and nothing is raised.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """A field of a message: its number, wire type, and a number (fixed ones as unsigned bits) or bytes."""

    number: int
    wire: int
    value: int
    data: memoryview


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message, in order."""
    at, end, nothing = 0, len(message), message[:0]
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if at < 0 or number == 0:
            return
        if wire == VARINT:
            value, at = _varint(message, at)
            if at < 0:
                return
            yield Field(number, wire, value, nothing)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
            if at + size > end:
                return
            yield Field(number, wire, int.from_bytes(message[at : at + size], "little"), nothing)
            at += size
        elif wire == BYTES:
            size, at = _varint(message, at)
            if at < 0 or size > end - at:
                return
            yield Field(number, wire, 0, message[at : at + size])
            at += size
        else:
            return


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number of at most ten bytes, and where it ends; -1 where it does not."""
    value = 0
    for step, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            return value & (2**64 - 1), at + step + 1
    return 0, -1


def signed(value: int) -> int:
    """An int64 of the bits of a varint."""
    return value - 2**64 if value >= 2**63 else value


def float32(value: int) -> float:
    """A float of the bits of a fixed32."""
    return float(struct.unpack("<f", struct.pack("<I", value))[0])
