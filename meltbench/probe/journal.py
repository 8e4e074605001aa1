"""Reads the probe's journal (docs/probe.md, "The journal").

The journal comes from a device and may end anywhere: reading never raises for what is inside, it stops at the first
frame that does not check and tells how many bytes it left.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from meltbench.records import Readings, Status, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC = b"MELTJNL1"
_SYNC = 0x4A544C4D
_HEADER = struct.Struct("<IHHII")
_EVENT, _READINGS = 1, 2
_MAX_FRAME = 64 << 20
_STATUSES = ("ok", "denied", "absent", "error")

Event = dict[str, Any]


@dataclass
class Journal:
    """A journal, whole or torn.

    ``dropped_bytes`` counts what stood behind the last frame that checked; ``ended`` tells whether the job's
    ``end`` event was reached.
    """

    events: list[Event] = field(default_factory=list)
    streams: dict[int, Stream] = field(default_factory=dict)
    dropped_bytes: int = 0

    def named(self, name: str) -> list[Event]:
        """All events of one name, in order."""
        return [event for event in self.events if event["event"] == name]

    def first(self, name: str) -> Event | None:
        """The first event of one name."""
        return next((event for event in self.events if event["event"] == name), None)

    @property
    def end(self) -> Event | None:
        """The ``end`` event: result, reason, step. None when the job never ended."""
        return self.first("end")

    def channel(self, name: str) -> list[Stream]:
        """All streams that one channel of the job opened."""
        return [stream for stream in self.streams.values() if stream.channel == name]


def frames(data: bytes | memoryview) -> Iterator[tuple[int, memoryview, int]]:
    """Yield (kind, payload, end offset) of every frame up to the first that does not check."""
    view = memoryview(data)
    if bytes(view[: len(MAGIC)]) != MAGIC:
        return
    at = len(MAGIC)
    while at + _HEADER.size <= len(view):
        sync, kind, _, length, crc = _HEADER.unpack_from(view, at)
        end = at + _HEADER.size + length
        if sync != _SYNC or length > _MAX_FRAME or end > len(view):
            return
        payload = view[at + _HEADER.size : end]
        if zlib.crc32(payload, zlib.crc32(view[at + 4 : at + 12])) != crc:
            return
        yield kind, payload, end
        at = end


def parse_event(payload: bytes | memoryview) -> Event | None:
    """One event, or None when it is not one. Code points 0 to 255 are bytes of the device (see ``unbyte``)."""
    try:
        event = json.loads(bytes(payload))
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(event, dict)
        or not isinstance(event.get("event"), str)
        or not isinstance(event.get("boot_ns"), int)
    ):
        return None
    return {key: unbyte(value) if isinstance(value, str) else value for key, value in event.items()}


def unbyte(text: str) -> str:
    """Text whose code points are device bytes, decoded as UTF-8; bytes that are not become U+FFFD."""
    try:
        return text.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return text


class _Columns:
    """Collects the readings frames of one stream."""

    def __init__(self) -> None:
        self.t0: list[Any] = []
        self.t1: list[Any] = []
        self.err: list[Any] = []
        self.raw: list[bytes] = []

    def add(self, n: int, body: memoryview) -> bool:
        import numpy as np

        fixed = n * 24
        lengths = np.frombuffer(body[n * 20 : fixed], "<u4")
        ends = np.cumsum(lengths, dtype=np.int64)
        if len(body) != fixed + (int(ends[-1]) if n else 0):
            return False
        self.t0.append(np.frombuffer(body[: n * 8], "<i8"))
        self.t1.append(np.frombuffer(body[n * 8 : n * 16], "<i8"))
        self.err.append(np.frombuffer(body[n * 16 : n * 20], "<i4"))
        data, start = bytes(body[fixed:]), 0
        for end in ends.tolist():
            self.raw.append(data[start:end])
            start = end
        return True

    def readings(self) -> Readings:
        import numpy as np

        if not self.t0:
            none = np.empty(0, np.int64)
            return Readings(none, none, np.empty(0, np.int32), [])
        return Readings(np.concatenate(self.t0), np.concatenate(self.t1), np.concatenate(self.err), self.raw)


def read_journal(path: Path) -> Journal:
    """Read a journal file, as much of it as checks."""
    return parse_journal(path.read_bytes())


def parse_journal(data: bytes) -> Journal:
    """Read a journal from memory. Never raises for its content."""
    journal = Journal()
    columns: dict[int, _Columns] = {}
    good = 0
    for kind, payload, end in frames(data):
        if not _take(journal, columns, kind, payload):
            break
        good = end
    journal.dropped_bytes = len(data) - good
    ends = {number: event for event in journal.named("stream_end") if isinstance(number := event.get("stream"), int)}
    for event in journal.named("stream"):
        number = event.get("stream")
        if isinstance(number, int):
            read = columns.pop(number, _Columns()).readings()
            journal.streams[number] = _stream(number, event, ends.get(number, {}), read)
    return journal


def _take(journal: Journal, columns: dict[int, _Columns], kind: int, payload: memoryview) -> bool:
    if kind == _EVENT:
        event = parse_event(payload)
        if event is not None:
            journal.events.append(event)
        return event is not None
    if kind == _READINGS and len(payload) >= 8:
        number, n = struct.unpack_from("<II", payload)
        body = payload[8:]
        return n * 24 <= len(body) and columns.setdefault(number, _Columns()).add(n, body)
    return False


def _stream(number: int, event: Event, end: Event, readings: Readings) -> Stream:
    status = event.get("status")
    return Stream(
        number=number,
        channel=str(event.get("channel", "")),
        kind=str(event.get("kind", "")),
        path=str(event.get("path", "")),
        status=cast("Status", status if status in _STATUSES else "error"),
        errno=_count(event, "errno"),
        readings=readings,
        late=_count(end, "late"),
        overruns=_count(end, "overruns"),
        dropped_bytes=_count(end, "dropped_bytes"),
    )


def _count(event: Event, key: str) -> int:
    value = event.get(key)
    return value if isinstance(value, int) else 0
