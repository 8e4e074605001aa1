"""What a server gets done in a time, however many requests share it: tokens and requests by second of the wall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.measure.points import incomplete, span_ns, together
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Request

_METHOD = "over the time from the first sending to the last end"
_AMONG_METHOD = "over the time in which they were under way"
_NAMES = (("output_tps", "tok/s"), ("requests_per_s", "1/s"))


def throughput(phase: str, requests: Sequence[Request], *, among: bool = False, shared: bool = False) -> list[Measure]:
    """Output tokens and requests per second over these requests' whole time, pauses included; without what lies between
    them where they are ``among`` others. ``shared``: others were under way at once, so that none of it is theirs alone.

    ``output_tps`` is what AIPerf calls output token throughput. It is not a decode rate: prefills lie in its time.
    """
    timed = [request for request in requests if request.role == "timed"]
    why = incomplete(timed) if timed else "no_timed_request: no timed request was sent"
    spans = [span_ns(group) for group in (together(timed) if among else [timed])] if timed else []
    seconds = sum(t1 - t0 for t0, t1 in spans) / 1e9
    method = _AMONG_METHOD if among else _METHOD
    if not why and shared:
        why = "overlapping_requests: others were under way at the same time and had their part of the engine"
    if not why and seconds <= 0:
        why = "no_reading: the requests took no time"
    if why:
        return [Measure(name, None, unit, phase=phase, n=len(timed), reason=why) for name, unit in _NAMES]
    made: list[Measure] = []
    tokens = [request.n_out for request in timed if request.n_out is not None]
    if len(tokens) < len(timed):
        why = "no_token_count: nobody counted the tokens of an answer"
        made.append(Measure("output_tps", None, "tok/s", phase=phase, n=len(timed), reason=why))
    else:
        made.append(Measure("output_tps", sum(tokens) / seconds, "tok/s", phase=phase, n=len(timed), method=method))
    per_s = Measure("requests_per_s", len(timed) / seconds, "1/s", phase=phase, n=len(timed), method=method)
    return [*made, per_s]
