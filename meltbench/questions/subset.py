"""A fixed subset of a set of questions: the same for everybody, as if drawn at random, the smaller in the larger."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    Items = tuple[dict[str, Any], ...]


def subset(items: Items, n: int | None, name: str) -> Items:
    """So many of the items of a workload, in their order; all of them where nobody said how many.

    Raises UserError where there are fewer.
    """
    if n is None:
        return items
    if n > len(items):
        raise UserError(f"--set: subset = {n} is more than the {len(items)} items of {name}", hint="give fewer")
    wanted = drawn((item["id"] for item in items), n)
    return tuple(item for item in items if item["id"] in wanted)


def drawn(ids: Iterable[str], n: int) -> frozenset[str]:
    """The ``n`` of these item ids whose SHA-256 is least; all of them where there are fewer.

    No order of the file, no seed of a run and no other item changes the place of one. So 40 items of a set are among
    80 of it, and a device and a host that were never told of each other have the same.
    """
    return frozenset(sorted(ids, key=_place)[:n])


def _place(item: str) -> bytes:
    return hashlib.sha256(item.encode("utf-8", "surrogatepass")).digest()
