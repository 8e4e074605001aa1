"""The head of a safetensors file: what tensors it holds, and where.

Eight bytes of length, so many bytes of JSON, then the data. The file is untrusted: every entry is checked and every
range lies inside the file. Source: the format's description and its own reader's checks (safetensors/src/tensor.rs).
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from meltbench.errors import ModelDamaged, UserError

if TYPE_CHECKING:
    from pathlib import Path

_MAX_HEAD_BYTES = 64 << 20
_MAX_DIMS, _MAX_SIZE = 32, 2**63 - 1
_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


@dataclass(frozen=True)
class Stored:
    """A tensor of a safetensors file; ``start`` and ``end`` are bytes of the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_head(path: Path) -> dict[str, Stored]:
    """The tensors of a file by their names. UserError where it cannot be read, ModelDamaged where it is not whole."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
            if not 2 <= length <= min(_MAX_HEAD_BYTES, size - 8):
                raise ModelDamaged(f"{path} is no safetensors file, or is cut short", hint="fetch it again")
            head = file.read(length)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        table = json.loads(head)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise ModelDamaged(f"{path} has a table that cannot be read", hint="fetch it again")
    return {name: _stored(path, name, one, 8 + length, size) for name, one in table.items() if name != "__metadata__"}


def _stored(path: Path, name: str, entry: Any, data: int, size: int) -> Stored:
    """One entry of the table; ``data``: the byte where the data start, ``size``: the bytes of the file."""
    dtype, shape, offsets = (
        entry.get(key) if isinstance(entry, dict) else None for key in ("dtype", "shape", "data_offsets")
    )
    if not (isinstance(dtype, str) and _counts(shape) and _counts(offsets) and len(offsets) == 2):
        raise ModelDamaged(f"{path}: the table does not say what {name[:80]!r} is", hint="fetch it again")
    found = Stored(path, dtype, tuple(shape), data + offsets[0], data + offsets[1])
    if not found.start <= found.end <= size:
        said = f"{name[:80]!r} is bytes {found.start} to {found.end} of {size}"
        raise ModelDamaged(f"{path} is cut short: {said}", hint="fetch it again")
    if dtype in _ITEM_BYTES and found.end - found.start != found.elements * _ITEM_BYTES[dtype]:
        said = f"{name[:80]!r} of {dtype} and {list(shape)} has {found.end - found.start} bytes"
        raise ModelDamaged(f"{path}: {said}", hint="fetch it again")
    return found


def _counts(said: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers that a file can have."""
    return (
        isinstance(said, list)
        and len(said) <= _MAX_DIMS
        and all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= _MAX_SIZE for one in said)
    )
