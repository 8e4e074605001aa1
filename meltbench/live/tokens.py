"""Tokens as they arrive: one for each piece of text that an engine sends, by the stamps of the probe.

What an engine counts at its end nobody knows before, so an event of a server with text or a token's id is taken for one
token, unless it says how many it has made by then (llama.cpp's ``predicted_n``); of a program that prints tokens
each line is one. The bytes are an engine's, which may be broken or hostile: nothing here raises for what they say.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meltbench.records import Readings

SPAN_S = 5.0  # over which a rate is taken
_SILENT_S = 2.5  # the probe writes once a second: a request of which nothing came for longer gives no tokens now
_MOST_REQUESTS, _MOST_ARRIVALS = 256, 1 << 14
_MOST_BYTES = 1 << 16  # of an event that has not ended
_MOST_TOKENS = 1024  # of one event: more were never made at a time
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_IS_EVENT = re.compile(rb"(?:^|\n)data: *\{")
_TEXT = re.compile(rb'"(?:content|text|reasoning_content|reasoning)" *: *"[^"]')
_IDS = re.compile(rb'"(?:tokens|token_ids)" *: *\[ *[0-9]')
_BEGINS, _ENDS = (re.compile(rb'\{ *"event" *: *"%s"' % word) for word in (b"start", b"end"))
_COUNTED = re.compile(rb'"predicted_n" *: *([0-9]{1,9})\b')


@dataclass
class _Request:
    """A request under way: ``held`` is what came of an event that has not ended, ``counted`` the engine's own count."""

    held: bytes = b""
    counted: int = 0
    ended: bool = False
    arrivals: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_MOST_ARRIVALS))

    def take(self, t_ns: int, data: bytes) -> None:
        *events, held = _EVENT_END.split(self.held + data)
        self.held = held[-_MOST_BYTES:]
        for event in events:
            if n := self._tokens(event):
                self.arrivals.append((t_ns, n))

    def _tokens(self, event: bytes) -> int:
        if not _IS_EVENT.search(event):
            return 0
        if told := _COUNTED.search(event):
            before, self.counted = self.counted, int(told[1])
            return min(max(self.counted - before, 0), _MOST_TOKENS)
        return int(bool(_TEXT.search(event) or _IDS.search(event)))


class Tokens:
    """Takes chunks of answers and lines of programs, and tells how many tokens came per second."""

    def __init__(self) -> None:
        self._requests: dict[tuple[int, int], _Request] = {}
        self._asked: dict[int, int] = {}  # requests that a program has begun, by the stream of its lines

    def answer(self, stream: int, chunks: Readings) -> None:
        """Chunks of a server's answer."""
        request = self._request(stream, 0)
        for t_ns, data in zip(chunks.t1_ns.tolist(), chunks.raw, strict=True):
            request.take(t_ns, data)

    def answered(self, stream: int) -> None:
        """A server's answer has ended."""
        self._request(stream, 0).ended = True

    def printed(self, stream: int, lines: Readings) -> None:
        """Lines of a program that prints a list for each token, and where each request begins."""
        at = self._asked.setdefault(stream, 0)
        for t_ns, line in zip(lines.t1_ns.tolist(), lines.raw, strict=True):
            if line.startswith(b"["):
                self._request(stream, at).arrivals.append((t_ns, 1))
            elif _BEGINS.match(line):
                self._request(stream, at).ended = True
                at += 1
            elif _ENDS.match(line):
                self._request(stream, at).ended = True
        self._asked[stream] = at

    def _request(self, stream: int, at: int) -> _Request:
        if (stream, at) not in self._requests and len(self._requests) >= _MOST_REQUESTS:
            del self._requests[next(iter(self._requests))]
        return self._requests.setdefault((stream, at), _Request())

    def rate(self, now_ns: int) -> float | None:
        """Tokens per second of all requests together over the last SPAN_S, of the time in which any came.

        As in ``decode_tps`` the first token of a request is none of its decode. None where none came.
        """
        since = now_ns - round(SPAN_S * 1e9)
        count, spans, goes_on = 0, [], False
        for request in self._requests.values():
            within = [(t, n) for t, n in request.arrivals if since <= t <= now_ns]
            if len(within) < 2:
                continue
            last = within[-1][0]
            silent = now_ns - last > _SILENT_S * 1e9
            goes_on |= not (silent and request.ended)
            count += sum(n for _, n in within[1:])
            spans.append((within[0][0], now_ns if silent and not request.ended else last))
        seconds = _covered(spans) / 1e9
        return count / seconds if goes_on and seconds > 0 else None


def _covered(spans: list[tuple[int, int]]) -> int:
    """Length of the union of spans, ns."""
    total, end = 0, None
    for start, stop in sorted(spans):
        if end is None or start > end:
            total, end = total + stop - start, stop
        elif stop > end:
            total, end = total + stop - end, stop
    return total
