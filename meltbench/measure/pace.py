"""How fast like requests were answered over the run, and where that changed.

A request is held against those of the same item and point, so that long prompts, full contexts and levels of
concurrency are told from a device that slows down. Only requests that have two more like them count.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.breaks import levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.course import Floats
    from meltbench.records import Request

LIKE = 3  # requests of one item and point, from which on their median says something
FELL_BY = 0.05  # of the rate before: clocks and pages move it by a few percent without a cause


@dataclass(frozen=True)
class Part:
    """A stretch of one level: ``share`` of the highest level so far, 1 for that itself."""

    t0_ns: int
    t1_ns: int
    share: float

    @property
    def slow(self) -> bool:
        """Whether the device is slower here than it was before."""
        return self.share < 1 - FELL_BY


@dataclass(frozen=True)
class Pace:
    """``requests`` in the order of their middles, ``relative``: the logarithm of the rate of each over the usual one of
    its like, the ``parts`` of one level that these have, and the ``highest`` level so far at each."""

    requests: tuple[Request, ...]
    relative: Floats
    parts: tuple[Part, ...]
    highest: Floats

    def back_ns(self, t_ns: int) -> int | None:
        """When the first request was answered whose middle lies behind this time and that has the old rate again."""
        for request, value, high in zip(self.requests, self.relative.tolist(), self.highest.tolist(), strict=True):
            if middle_ns(request) >= t_ns and value >= high + math.log1p(-FELL_BY):
                return request.t_end_ns
        return None


def rate(request: Request) -> float | None:
    """Tokens a second of a request that ended well: of its decoding, or of the prefill where it generated nothing."""
    if request.role != "timed" or request.status != "ok":
        return None
    found = request.decode_tps if request.decode_tps is not None else request.prefill_tps
    return found if found is not None and found > 0 and math.isfinite(found) else None


def middle_ns(request: Request) -> int:
    """The middle of the time that a request took."""
    return (request.t_send_ns + request.t_end_ns) // 2


def pace(requests: Sequence[Request]) -> Pace | None:
    """None where no requests are alike."""
    like: dict[tuple[str, str], list[Request]] = defaultdict(list)
    for request in requests:
        if rate(request) is not None:
            like[request.item, request.point].append(request)
    usual = {key: float(np.median([rate(r) or 0 for r in mine])) for key, mine in like.items() if len(mine) >= LIKE}
    kept = sorted((r for key in usual for r in like[key]), key=lambda r: (middle_ns(r), r.index))
    if not kept:
        return None
    relative = np.array([math.log((rate(r) or 0) / usual[r.item, r.point]) for r in kept])
    parts: list[Part] = []
    highest, before = np.empty(len(kept)), -math.inf
    start = kept[0].t_send_ns
    for first, behind, level in levels(relative):
        before = max(before, level)
        highest[first:behind] = before
        end = _edge(kept[behind - 1], kept[behind]) if behind < len(kept) else max(r.t_end_ns for r in kept)
        parts.append(Part(start, max(end, start), math.exp(level - before)))
        start = parts[-1].t1_ns
    return Pace(tuple(kept), relative, tuple(parts), highest)


def _edge(one: Request, other: Request) -> int:
    """Where the level changes between two requests: when the later one was sent, or half way where they overlap."""
    return other.t_send_ns if other.t_send_ns >= one.t_end_ns else (middle_ns(one) + middle_ns(other)) // 2
