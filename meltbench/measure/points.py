"""Which requests of a run may be condensed with one another.

A number over requests that are not alike means nothing: points of a grid differ in work, levels of concurrency in
company, items in the point that they name, such as a length. Turns of a conversation differ only in what they find in
the cache, so a run of them has numbers of its own.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.engines.prompts import Kind
    from meltbench.records import Request

MIXED = "mixed_points: the requests of a grid are not alike; see its points"
MIXED_POINTS = "mixed_points: these requests are not alike; see each of their points"


def points(requests: Sequence[Request]) -> list[str]:
    """The names of the run's points in the order of their first timed requests; none where all requests are alike."""
    return list(dict.fromkeys(request.point for request in requests if request.role == "timed" and request.point))


def in_a_row(requests: Sequence[Request]) -> bool:
    """Whether each point has a time of its own: between its timed requests none of another was sent."""
    timed = sorted((one for one in requests if one.role == "timed"), key=lambda one: one.t_send_ns)
    return len(list(groupby(one.point for one in timed))) == len({one.point for one in timed})


def together(requests: Sequence[Request]) -> list[list[Request]]:
    """The requests in groups that lie apart in time, in order: in one are those that were under way at once."""
    out: list[list[Request]] = []
    end_ns = 0
    for one in sorted(requests, key=lambda one: one.t_send_ns):
        if out and one.t_send_ns < end_ns:
            out[-1].append(one)
        else:
            out.append([one])
        end_ns = max(end_ns, one.t_end_ns)
    return out


def groups_of(point: str, groups: Sequence[Sequence[Request]]) -> tuple[list[Sequence[Request]], bool]:
    """Those of the groups (``together``) that hold timed requests of a point, and whether they hold others as well."""
    mine = [group for group in groups if any(r.point == point and r.role == "timed" for r in group)]
    return mine, any(r.point != point or r.role != "timed" for group in mine for r in group)


def span_ns(requests: Sequence[Request]) -> tuple[int, int]:
    """From the first sending of these requests to the last one's end."""
    return min(one.t_send_ns for one in requests), max(one.t_end_ns for one in requests)


def incomplete(timed: Sequence[Request]) -> str:
    """Why nothing can be said of these timed requests together; empty where each has its whole answer.

    A failed one took its part of the time and of the energy, and nobody knows its tokens.
    """
    bad = sum(request.status != "ok" for request in timed)
    return f"request_failed: {bad} of {len(timed)} timed requests have no whole answer" if bad else ""


def unlike(kind: Kind, requests: Sequence[Request]) -> str:
    """Why a run has no median and no ratio over all its requests; empty where it has."""
    if kind == "grid":
        return MIXED
    return MIXED_POINTS if kind == "generate" and points(requests) else ""
