"""The energy of each request, and the smallest window around one that is long enough for its source.

Evidence that is too short for one request may do for several: then the window from the first one's sending to the last
one's end has an energy, with the pauses between them, and the reason says which that is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meltbench.measure.energy import Window, window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meltbench.measure.energy import Rail
    from meltbench.records import Request

SHORT = ("low_coverage", "stale_sensor", "trailing_average", "aliased_gauge")  # what a longer window can mend
_OVERLAPPING = "overlapping_requests: requests ran at the same time and share their energy"


def overlapping(requests: Sequence[Request]) -> set[int]:
    """Indices of the requests during which another one ran, of whatever role."""
    found: set[int] = set()
    last: Request | None = None  # the one that ends last of all sent so far
    for request in sorted(requests, key=lambda r: r.t_send_ns):
        if last is not None and last.t_end_ns > request.t_send_ns:
            found |= {last.index, request.index}
        if last is None or request.t_end_ns > last.t_end_ns:
            last = request
    return found


def is_short(reason: str | None) -> bool:
    """Whether a longer window could have what this one lacks."""
    return (reason or "").partition(":")[0] in SHORT


def with_energy(requests: Sequence[Request], rail: Rail | None, why: str, run_has_it: bool) -> list[Request]:
    """The requests with the energy of each from sending to end, or the reason why it has none.

    ``rail`` None: there is no total, for the reason ``why``. ``run_has_it``: the run as a whole has an energy.
    """
    if rail is None:
        return [replace(one, energy_reason=why) for one in requests]
    shared = overlapping(requests)
    alone = sorted((one for one in requests if one.index not in shared), key=lambda one: one.t_send_ns)
    found = {one.index: window(rail, one.t_send_ns, one.t_end_ns) for one in alone}
    short = {index for index, one in found.items() if is_short(one.reason)}
    around: dict[int, str] = {}
    for group, of_group in _groups(rail, alone) if short and not shared else ():
        if of_group.energy_j is not None:
            u = rail.u_k2(of_group.energy_j, *of_group.parts_j)
            told = f"{of_group.energy_j:.4g} J" + ("" if u is None else f", u {u:.2g} J")
            for one in group:
                around.setdefault(
                    one.index, f"; requests {group[0].index} to {group[-1].index} have it together: {told}"
                )
        if short <= around.keys():
            break
    out = []
    for one in requests:
        mine = found.get(one.index)
        if mine is None:
            out.append(replace(one, energy_reason=_OVERLAPPING))
        elif mine.energy_j is None:
            more = around.get(one.index, "; the run has it" if run_has_it else "") if one.index in short else ""
            out.append(replace(one, energy_reason=f"{mine.reason}{more}"))
        else:
            u = rail.u_k2(mine.energy_j, *mine.parts_j)
            out.append(replace(one, energy_j=mine.energy_j, energy_u_k2_j=u, energy_reason=""))
    return out


def _groups(rail: Rail, alone: Sequence[Request]) -> Iterator[tuple[Sequence[Request], Window]]:
    """Two, four, eight ... requests in a row with the window around them."""
    n = 2
    while n <= len(alone):
        for first in range(0, len(alone), n):
            group = alone[min(first, len(alone) - n) :][:n]
            yield group, window(rail, group[0].t_send_ns, group[-1].t_end_ns)
        n *= 2


def enclosing(rail: Rail, requests: Sequence[Request]) -> str:
    """Which windows around parts of these requests are long enough, in words to follow a reason: each request, or so
    many in a row; empty where only the run could be."""
    timed = sorted((one for one in requests if one.role == "timed"), key=lambda one: one.t_send_ns)
    if not timed or overlapping(timed):
        return ""
    if all(window(rail, one.t_send_ns, one.t_end_ns).energy_j is not None for one in timed):
        return "; each request has it"
    good: dict[int, list[bool]] = {}
    for group, found in _groups(rail, timed):
        good.setdefault(len(group), []).append(found.energy_j is not None)
    n = next((n for n, each in good.items() if all(each)), None)
    return "" if n is None else f"; {n} requests in a row have it"
