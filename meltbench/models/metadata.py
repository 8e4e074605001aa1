"""A value of a GGUF file's header, read where ``read_gguf`` found it: untrusted as all of the file, so bounded."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from meltbench.errors import UserError
from meltbench.models.cursor import Cursor
from meltbench.models.gguf import ARRAY, BOOL, MAX_STRINGS, SCALARS, STRING

if TYPE_CHECKING:
    from meltbench.models.gguf import Gguf

    Scalar = bool | int | float | str

_MAX_TEXT_BYTES = 16 << 20
_MAX_ITEMS = MAX_STRINGS


def value_of(head: Gguf, key: str) -> Scalar | list[Scalar] | None:
    """What a file says under ``key``: a number, a text, whether it is so, or a list of these; None where it says
    nothing.

    UserError where the file cannot be read, ModelDamaged where the value is larger than any model has.
    """
    span = next((one for one in head.spans if one[0] == key), None)
    if span is None:
        return None
    _, start, end = span
    try:
        with head.path.open("rb") as file:
            cur = Cursor(file, head.path, end)
            cur.skip(start, "the header")
            cur.string(_MAX_TEXT_BYTES, "a metadata key")
            kind = cur.u32(f"the type of {key}")
            return _items(cur, key) if kind == ARRAY else _plain(cur, kind, key)
    except OSError as error:
        raise UserError(f"cannot read {head.path}: {error.strerror or error}") from error


def _items(cur: Cursor, key: str) -> list[Scalar]:
    kind, count = cur.u32(f"the element type of {key}"), cur.u64(f"the length of {key}")
    if count > _MAX_ITEMS:
        cur.fail(f"at most {_MAX_ITEMS} values of {key}, got {count}", cur.pos - 8)
    if kind == STRING:
        return [_plain(cur, kind, key) for _ in range(count)]
    form = SCALARS[kind]
    found = struct.unpack(f"<{count}{form[1]}", cur.take(count * struct.calcsize(form), key))
    return [bool(one) for one in found] if kind == BOOL else list(found)


def _plain(cur: Cursor, kind: int, key: str) -> Scalar:
    if kind == STRING:
        return cur.string(_MAX_TEXT_BYTES, key)
    value = cur.scalar(SCALARS[kind], key)
    return bool(value) if kind == BOOL else value
