"""HTTP on a connection of its own: the bytes of a request, and an answer as it arrived: recorded chunks to status,
headers, body, and the arrival time of every body byte.

The answer comes from an engine that may be broken or hostile, so nothing here raises for what the bytes say;
``Answer.problem`` names the first thing that was wrong (RFC 9112 framing, WHATWG server-sent events).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from meltbench.records import Readings

DONE = b"[DONE]"  # the event that ends a stream of OpenAI's API
_MAX_HEADER_BYTES = 65536
_EVENT_END = re.compile(rb"\r?\n\r?\n")


def post(path: str, body: Mapping[str, Any]) -> bytes:
    """One HTTP/1.1 request of JSON, after whose answer the connection ends."""
    raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + raw


@dataclass(frozen=True)
class Answer:
    """A decoded answer. ``status`` is None when no status line was understood."""

    status: int | None
    headers: dict[str, str]
    body: bytes
    problem: str
    _body_starts: tuple[int, ...]
    _raw_starts: tuple[int, ...]
    _ends: tuple[int, ...]
    _t_ns: tuple[int, ...]

    def arrival_ns(self, offset: int) -> int:
        """When body byte ``offset`` had arrived."""
        from bisect import bisect_left, bisect_right

        at = max(bisect_right(self._body_starts, offset) - 1, 0)
        chunk = bisect_left(self._ends, self._raw_starts[at] + offset - self._body_starts[at] + 1)
        return self._t_ns[min(chunk, len(self._t_ns) - 1)]


def decode(chunks: Readings) -> Answer:
    """Decode the chunks of one answer, in the order they were received."""
    ends: list[int] = []
    total = 0
    for part in chunks.raw:
        total += len(part)
        ends.append(total)
    raw = b"".join(chunks.raw)
    times = tuple(int(t) for t in chunks.t1_ns)
    head_end = raw.find(b"\r\n\r\n", 0, _MAX_HEADER_BYTES)
    if head_end < 0:
        return Answer(None, {}, b"", "no HTTP header" if raw else "empty answer", (), (), tuple(ends), times)
    status, headers = _head(raw[:head_end])
    start = head_end + 4
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body, spans, problem = _dechunk(raw, start)
    else:
        body, spans, problem = raw[start:], [(0, start)], ""
        length = headers.get("content-length", "")
        if length.isdecimal() and len(length) < 16 and len(body) < int(length):
            problem = f"answer cut at {len(body)} of {length} bytes"
    if status is None:
        problem = "not an HTTP status line"
    starts, raw_starts = (tuple(span[side] for span in spans) for side in (0, 1))
    return Answer(status, headers, body, problem, starts, raw_starts, tuple(ends), times)


def _head(raw: bytes) -> tuple[int | None, dict[str, str]]:
    lines = raw.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    known = len(words) >= 2 and words[0].startswith("HTTP/1.") and len(words[1]) == 3 and words[1].isdecimal()
    pairs = (line.partition(":") for line in lines[1:])
    return (int(words[1]) if known else None), {key.strip().lower(): value.strip() for key, _, value in pairs}


def _dechunk(raw: bytes, at: int) -> tuple[bytes, list[tuple[int, int]], str]:
    parts: list[bytes] = []
    spans: list[tuple[int, int]] = []
    length = 0
    while True:
        line_end = raw.find(b"\r\n", at, at + 64)
        if line_end < 0:
            return b"".join(parts), spans, "answer cut inside its chunks"
        try:
            size = int(raw[at:line_end].split(b";")[0].strip() or b"x", 16)
        except ValueError:
            return b"".join(parts), spans, "malformed chunk size"
        if size == 0:
            return b"".join(parts), spans, ""
        if size < 0:
            return b"".join(parts), spans, "malformed chunk size"
        at = line_end + 2
        piece = raw[at : at + size]
        spans.append((length, at))
        parts.append(piece)
        length += len(piece)
        if len(piece) < size:
            return b"".join(parts), spans, "answer cut inside its chunks"
        at += size + 2


def server_sent_events(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (offset of the last byte, data) of every complete ``data:`` event; lines end in LF or CRLF."""
    at = 0
    while at < len(body):
        end = _EVENT_END.search(body, at)
        if end is None:
            return
        lines = body[at : end.start()].split(b"\n")
        data = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        if data:
            yield end.end() - 1, b"\n".join(data)
        at = end.end()


def event_object(data: bytes) -> dict[str, Any] | str:
    """The JSON object that an event is, or what is wrong with it."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return "an event that is not JSON"
    return found if isinstance(found, dict) else "an event that is not an object"
