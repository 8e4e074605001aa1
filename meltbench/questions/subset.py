"""A fixed subset of a set of questions: the same for everybody, as if drawn at random, the smaller in the larger."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def drawn(ids: Iterable[str], n: int) -> frozenset[str]:
    """The ``n`` of these item ids whose SHA-256 is least; all of them where there are fewer.

    No order of the file, no seed of a run and no other item changes the place of one. So 40 items of a set are among
    80 of it, and a device and a host that were never told of each other have the same.
    """
    return frozenset(sorted(ids, key=_place)[:n])


def _place(item: str) -> bytes:
    return hashlib.sha256(item.encode("utf-8", "surrogatepass")).digest()
