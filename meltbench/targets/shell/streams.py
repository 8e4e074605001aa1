"""The streams of a command: what goes to its stdin, and where what it writes goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meltbench.errors import DeviceError

if TYPE_CHECKING:
    from typing import BinaryIO

Sink = Callable[[memoryview], None]

_CHUNK_BYTES = 1 << 20  # adbd takes no more in one packet, and is a third slower with a quarter of it
_MAX_PROSE_BYTES = 1 << 20
_MAX_OUTPUT_BYTES = 8 << 20


class Head:
    """Keeps the first 8 MiB of a stream and lets the rest go by."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def __call__(self, data: memoryview) -> None:
        """Take what has come."""
        self._kept += data[: _MAX_OUTPUT_BYTES - len(self._kept)]

    def __bytes__(self) -> bytes:
        return bytes(self._kept)


class AfterMark:
    """Gives on what follows the line of the mark. What stands before it is the login shell's own, kept for an error."""

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode() + b"\n"
        self.sink: Sink = nowhere
        self.prose = b""
        self.found = False

    def __call__(self, data: memoryview) -> None:
        """Take what has come."""
        if self.found:
            self.sink(data)
            return
        self.prose += bytes(data)
        before, mark, after = self.prose.partition(self._mark)
        if mark:
            self.found, self.prose = True, before
            if after:
                self.sink(memoryview(after))
        elif len(self.prose) > _MAX_PROSE_BYTES:
            raise DeviceError("the login shell of the device prints without end", hint="look at its start-up files")


class Feeder:
    """Hands out a file in pieces, never more than ``left`` bytes of it."""

    def __init__(self, file: BinaryIO, left: int, told: Callable[[int], None] | None) -> None:
        self._file = file
        self._left = left
        self._told = told
        self._buffer = bytearray(_CHUNK_BYTES)
        self._view = memoryview(b"")
        self._sent = 0
        self.given = False

    def next(self) -> memoryview:
        """What is to be given next; nothing at the end. Raises DeviceError where the file cannot be read."""
        if not self._view:
            try:
                count = self._file.readinto(memoryview(self._buffer)[: self._left])  # type: ignore[attr-defined]
            except OSError as error:
                raise DeviceError(f"{self._file.name}: {error.strerror}") from error
            self._left -= count
            self._view = memoryview(self._buffer)[:count]
            self.given = not count
            if self._told is not None and self._sent:
                self._told(self._sent)
        return self._view

    def took(self, count: int) -> None:
        """So much of it was given."""
        self._view = self._view[count:]
        self._sent += count


def nowhere(_: memoryview) -> None:
    """What nobody asked for."""
