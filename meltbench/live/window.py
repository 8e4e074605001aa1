"""The last seconds of one journal: its streams with what was read of them lately, and its events as they come.

Bounded whatever a journal says: so many streams, of each so many bytes, and of all together so many; what is older
than the window goes first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from meltbench.probe.journal import EVENT, READINGS, head_of, parse_event, parse_readings
from meltbench.records import Readings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from meltbench.probe.journal import Event
    from meltbench.records import Stream

WINDOW_S = 8.0  # of readings that are held
_LEAST = 2  # blocks of a stream that are held however old they are: a slow source is read once in a minute
_MOST_STREAMS = 4096
_STREAM_BYTES, _ALL_BYTES = 1 << 20, 16 << 20


@dataclass
class _Held:
    head: Stream
    blocks: deque[Readings] = field(default_factory=deque)
    bytes: int = 0

    def drop(self) -> int:
        """Let the oldest block go, and say how many bytes it had."""
        size = _size(self.blocks.popleft())
        self.bytes -= size
        return size


class Window:
    """``wanted`` says of a stream whether its readings are held; ``passed`` is given all readings, also of others.

    ``now_ns``: the latest time that the journal tells of, 0 before there is one.
    """

    def __init__(self, wanted: Callable[[Stream], bool], passed: Callable[[Stream, Readings], None]) -> None:
        self._wanted, self._passed = wanted, passed
        self._streams: dict[int, _Held] = {}
        self._bytes = 0
        self.now_ns = 0

    def take(self, frames: Iterable[tuple[int, bytes]]) -> Iterator[Event]:
        """Take frames in and yield their events. A frame that is none is passed over."""
        for kind, payload in frames:
            if kind == EVENT and (event := parse_event(payload)) is not None:
                self._heed(event)
                yield event
            elif kind == READINGS and (found := parse_readings(payload)) is not None:
                self._hold(*found)

    def _heed(self, event: Event) -> None:
        self.now_ns = max(self.now_ns, event["boot_ns"])
        number = event.get("stream")
        if event["event"] == "stream" and isinstance(number, int) and len(self._streams) < _MOST_STREAMS:
            self._bytes -= self._streams[number].bytes if number in self._streams else 0
            self._streams[number] = _Held(head_of(number, event, {}))

    def _hold(self, number: int, readings: Readings) -> None:
        held = self._streams.get(number)
        if held is None or not len(readings):
            return
        self.now_ns = max(self.now_ns, int(readings.t1_ns[-1]))
        self._passed(held.head, readings)
        if not self._wanted(held.head):
            return
        held.blocks.append(readings)
        size = _size(readings)
        held.bytes += size
        self._bytes += size
        since = self.now_ns - round(WINDOW_S * 1e9)
        while len(held.blocks) > 1 and (
            held.bytes > _STREAM_BYTES or (len(held.blocks) > _LEAST and int(held.blocks[0].t1_ns[-1]) < since)
        ):
            self._bytes -= held.drop()
        if self._bytes > _ALL_BYTES:  # no device has so much to say in some seconds
            for one in self._streams.values():
                one.blocks.clear()
                one.bytes = 0
            self._bytes = 0

    def streams(self, channel: str) -> list[Stream]:
        """The streams of one channel with what is held of them."""
        return [
            replace(one.head, readings=_joined(one.blocks))
            for one in self._streams.values()
            if one.head.channel == channel and one.head.kind in ("file", "poll", "lines", "err")
        ]


def _size(readings: Readings) -> int:
    return len(readings.data) + 64 * (1 + len(readings))


def _joined(blocks: Iterable[Readings]) -> Readings:
    parts = list(blocks)
    if not parts:
        return Readings.of(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32), [])
    starts = np.cumsum([0, *(len(one.data) for one in parts[:-1])])
    return Readings(
        np.concatenate([one.t0_ns for one in parts]),
        np.concatenate([one.t1_ns for one in parts]),
        np.concatenate([one.err for one in parts]),
        b"".join(one.data for one in parts),
        np.concatenate([one.ends + start for one, start in zip(parts, starts.tolist(), strict=True)]),
    )
