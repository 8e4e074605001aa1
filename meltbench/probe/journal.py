"""Reads the probe's journal (docs/probe.md, "The journal").

The journal comes from a device and may end anywhere: reading never raises for what is inside, it stops at the first
frame that does not check and tells how many bytes it left. Events are taken in at once; of readings only the places
of their frames, for there may be millions: they are read again from the file, a stream or a block of frames at a time.
"""

from __future__ import annotations

import json
import os
import struct
import weakref
import zlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from meltbench.records import Readings, Status, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MAGIC = b"MELTJNL1"
SYNC = 0x4A544C4D
HEADER = struct.Struct("<IHHII")
EVENT, READINGS = 1, 2
_MAX_FRAME = 64 << 20
_PIECE_BYTES = 1 << 20
_STATUSES = ("ok", "denied", "absent", "error")

Event = dict[str, Any]


@dataclass
class _Frames:
    """Where the readings of one stream lie: of each frame the offset of its columns, its rows, and its bytes."""

    at: array[int] = field(default_factory=lambda: array("q"))
    rows: array[int] = field(default_factory=lambda: array("q"))
    size: array[int] = field(default_factory=lambda: array("q"))


class Evidence:
    """The bytes of a journal: read a piece at a time from its file, so that no run is too long for the memory."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self.size = os.fstat(self._file).st_size

    def at(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset``; fewer where the file ends."""
        parts: list[bytes] = []
        while count and (part := os.pread(self._file, count, offset)):
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Held:
    """The bytes of a journal that are in memory already."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def at(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset``; fewer where they end."""
        return self._data[offset : offset + count]


class Streams(Mapping[int, Stream]):
    """The streams of a journal by number; the readings of one are read from the file when it is asked for."""

    def __init__(self, data: Evidence | Held, heads: dict[int, Stream], frames: dict[int, _Frames]) -> None:
        self._data, self.heads, self._frames = data, heads, frames

    def __getitem__(self, number: int) -> Stream:
        found = self._frames.get(number)
        places = zip(found.at, found.rows, found.size, strict=True) if found else ()
        return replace(self.heads[number], readings=_joined([_columns(self._data, *place) for place in places]))

    def __iter__(self) -> Iterator[int]:
        return iter(self.heads)

    def __len__(self) -> int:
        return len(self.heads)

    def rows(self, number: int) -> int:
        """How many readings a stream has."""
        found = self._frames.get(number)
        return sum(found.rows) if found else 0

    def blocks(self, numbers: Iterable[int], max_rows: int) -> Iterator[dict[int, Readings]]:
        """The readings of these streams in the order they were written, about ``max_rows`` at a time.

        A stream that wrote nothing within a block is not in it; at least one block is given, if an empty one.
        """
        wanted = [(number, self._frames[number]) for number in numbers if number in self._frames]
        places = sorted(
            (at, n, size, number)
            for number, found in wanted
            for at, n, size in zip(found.at, found.rows, found.size, strict=True)
        )
        start = held = 0
        for end, (_, n, _, _) in enumerate(places, 1):
            held += n
            if held >= max_rows or end == len(places):
                yield self._block(places[start:end])
                start, held = end, 0
        if not places:
            yield {}

    def _block(self, places: list[tuple[int, int, int, int]]) -> dict[int, Readings]:
        low, high = places[0][0], places[-1][0] + places[-1][2]
        # One read for all, unless most of what lies between is something else, such as answers of an engine.
        close = high - low <= 2 * sum(size for _, _, size, _ in places)
        data, shift = (Held(self._data.at(low, high - low)), low) if close else (self._data, 0)
        block: dict[int, list[_Parts]] = {}
        for at, n, size, number in places:
            block.setdefault(number, []).append(_columns(data, at - shift, n, size))
        return {number: _joined(parts) for number, parts in block.items()}


@dataclass
class Journal:
    """A journal, whole or torn.

    ``dropped_bytes`` counts what stood behind the last frame that checked; ``ended`` tells whether the job's
    ``end`` event was reached.
    """

    events: list[Event] = field(default_factory=list)
    streams: Streams = field(default_factory=lambda: Streams(Held(b""), {}, {}))
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

    def numbers(self, channel: str, kinds: tuple[str, ...] = ("file", "poll", "lines", "err")) -> list[int]:
        """The numbers of the streams that one channel of the job, or a process, opened."""
        heads = self.streams.heads
        return [number for number, one in heads.items() if one.channel == channel and one.kind in kinds]

    def channel(self, name: str) -> list[Stream]:
        """All streams that one channel of the job opened."""
        return [self.streams[number] for number, head in self.streams.heads.items() if head.channel == name]


def frames(data: Evidence | Held) -> Iterator[tuple[int, bytes, int]]:
    """Yield (kind, payload, end offset) of every frame up to the first that does not check."""
    if data.at(0, len(MAGIC)) != MAGIC:
        return
    base, held, at = len(MAGIC), b"", 0  # ``held`` is a piece of the journal that begins at ``base``
    while True:
        if at + HEADER.size > len(held):
            base, held, at = base + at, data.at(base + at, _PIECE_BYTES), 0
            if len(held) < HEADER.size:
                return
        sync, kind, _, length, crc = HEADER.unpack_from(held, at)
        end = at + HEADER.size + length
        if sync != SYNC or length > _MAX_FRAME or base + end > data.size:
            return
        if end > len(held):
            base, held, at = base + at, data.at(base + at, max(_PIECE_BYTES, end - at)), 0
            end = HEADER.size + length
            if end > len(held):  # the file was cut while it was read
                return
        payload = held[at + HEADER.size : end]
        if not checks(held[at + 4 : at + 12], payload, crc):
            return
        yield kind, payload, base + end
        at = end


def checks(head: bytes, payload: bytes, crc: int) -> bool:
    """Whether a frame is what was written: ``head`` is its kind, its zero and its length."""
    return zlib.crc32(payload, zlib.crc32(head)) == crc


def parse_event(payload: bytes) -> Event | None:
    """One event, or None when it is not one. Code points 0 to 255 are bytes of the device (see ``unbyte``)."""
    try:
        event = json.loads(payload)
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


# t0, t1, err, lengths, texts
_Parts = tuple[bytes, bytes, bytes, bytes, bytes]
_TYPES = ("<i8", "<i8", "<i4", "<u4")


def _columns(data: Evidence | Held, at: int, n: int, size: int) -> _Parts:
    """The columns of a frame of ``n`` readings that take ``size`` bytes from ``at``; none where the file was cut."""
    raw = data.at(at, size)
    if len(raw) < size:
        n, raw = 0, b""
    return raw[: n * 8], raw[n * 8 : n * 16], raw[n * 16 : n * 20], raw[n * 20 : n * 24], raw[n * 24 :]


def _joined(parts: list[_Parts]) -> Readings:
    import numpy as np

    t0, t1, err, lengths = (np.frombuffer(b"".join([part[i] for part in parts]), of) for i, of in enumerate(_TYPES))
    return Readings(t0, t1, err, b"".join([part[4] for part in parts]), np.cumsum(lengths, dtype=np.int64))


def read_journal(path: Path) -> Journal:
    """Read a journal file, as much of it as checks. Its readings are read from the file as they are asked for."""
    return _read(Evidence(path))


def parse_journal(data: bytes) -> Journal:
    """Read a journal from memory. Never raises for its content."""
    return _read(Held(data))


def _read(data: Evidence | Held) -> Journal:
    events: list[Event] = []
    found: dict[int, _Frames] = {}
    good = 0
    for kind, payload, end in frames(data):
        if kind == EVENT:
            event = parse_event(payload)
            if event is None:
                break
            events.append(event)
        elif kind != READINGS or not _note(found, payload, end - len(payload)):
            break
        good = end
    _settle_reboot(events)
    heads = {}
    ends = {
        n: event for event in events if event["event"] == "stream_end" and isinstance(n := event.get("stream"), int)
    }
    for event in events:
        number = event.get("stream")
        if event["event"] == "stream" and isinstance(number, int):
            heads[number] = head_of(number, event, ends.get(number, {}))
    return Journal(events, Streams(data, heads, found), data.size - good)


def _settle_reboot(events: list[Event]) -> None:
    """Take the times away from what was written after the device rebooted: they are of a clock that began anew.

    Such events stand at the last time that the run's own boot knew, and carry no other clock.
    """
    at = next((i for i, event in enumerate(events) if event["event"] == "reboot"), None)
    if at is None:
        return
    last_ns = events[at - 1]["boot_ns"] if at else 0
    clocks = ("mono_ns", "wall_ns")
    for i in range(at, len(events)):
        events[i] = {key: value for key, value in events[i].items() if key not in clocks} | {"boot_ns": last_ns}


def _note(found: dict[int, _Frames], payload: bytes, at: int) -> bool:
    """Note where a frame of readings lies; False when its counts contradict its length."""
    shape = _shape(payload)
    if shape is None:
        return False
    number, n = shape
    place = found.setdefault(number, _Frames())
    place.at.append(at + 8)
    place.rows.append(n)
    place.size.append(len(payload) - 8)
    return True


def _shape(payload: bytes) -> tuple[int, int] | None:
    """Stream and rows of a frame of readings; None where its counts contradict its length."""
    import numpy as np

    if len(payload) < 8:
        return None
    number, n = struct.unpack_from("<II", payload)
    size = len(payload) - 8
    if n * 24 > size or int(np.frombuffer(payload, "<u4", n, 8 + n * 20).sum(dtype=np.int64)) != size - n * 24:
        return None
    return number, n


def parse_readings(payload: bytes) -> tuple[int, Readings] | None:
    """The stream and the readings of one frame of them, or None when its counts contradict its length."""
    shape = _shape(payload)
    if shape is None:
        return None
    return shape[0], _joined([_columns(Held(payload), 8, shape[1], len(payload) - 8)])


def head_of(number: int, event: Event, end: Event) -> Stream:
    """What the events of a stream's beginning and end say of it; it has no readings."""
    status = event.get("status")
    return Stream(
        number=number,
        channel=str(event.get("channel", "")),
        kind=str(event.get("kind", "")),
        path=str(event.get("path", "")),
        status=cast("Status", status if status in _STATUSES else "error"),
        errno=_count(event, "errno"),
        readings=_joined([]),
        late=_count(end, "late"),
        overruns=_count(end, "overruns"),
        dropped_bytes=_count(end, "dropped_bytes"),
    )


def _count(event: Event, key: str) -> int:
    value = event.get(key)
    return value if isinstance(value, int) else 0
