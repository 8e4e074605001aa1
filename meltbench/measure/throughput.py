"""What a server gets done in a time, however many requests share it: tokens and requests by second of the wall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.measure.points import incomplete
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Request

_METHOD = "over the time from the first sending to the last end"
_NAMES = (("output_tps", "tok/s"), ("requests_per_s", "1/s"))


def throughput(phase: str, requests: Sequence[Request]) -> list[Measure]:
    """Output tokens and requests per second over these requests' whole time, pauses included.

    ``output_tps`` is what AIPerf calls output token throughput. It is not a decode rate: prefills lie in its time.
    """
    timed = [request for request in requests if request.role == "timed"]
    why = incomplete(timed) if timed else "no_timed_request: no timed request was sent"
    seconds = (max(r.t_end_ns for r in timed) - min(r.t_send_ns for r in timed)) / 1e9 if timed else 0.0
    if not why and seconds <= 0:
        why = "no_reading: the requests took no time"
    if why:
        return [Measure(name, None, unit, phase=phase, n=len(timed), reason=why) for name, unit in _NAMES]
    made: list[Measure] = []
    tokens = [request.n_out for request in timed if request.n_out is not None]
    if len(tokens) < len(timed):
        why = "no_reading: an answer has no count of tokens"
        made.append(Measure("output_tps", None, "tok/s", phase=phase, n=len(timed), reason=why))
    else:
        made.append(Measure("output_tps", sum(tokens) / seconds, "tok/s", phase=phase, n=len(timed), method=_METHOD))
    per_s = Measure("requests_per_s", len(timed) / seconds, "1/s", phase=phase, n=len(timed), method=_METHOD)
    return [*made, per_s]
