"""One command on a device, by adb's shell protocol, version 2 (AOSP, adb/shell_protocol.h).

Packets of one byte that says what they hold, four of their length, and so many bytes. What ends without the packet of
the exit status was cut off: adb's own client gives 0 then.
"""

from __future__ import annotations

import secrets
import select
import struct
import time
from collections import deque
from typing import TYPE_CHECKING

from meltbench.errors import DeadlineExceeded, DeviceError, LinkLost, UserError
from meltbench.targets import Completed, printable
from meltbench.targets.shell import quoting
from meltbench.targets.shell.streams import AfterMark, nowhere

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from meltbench.deadline import Deadline
    from meltbench.targets.shell.streams import Feeder, Sink

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_HEAD = struct.Struct("<BI")
_READ_BYTES = 256 << 10
_MAX_PACKET_BYTES = 16 << 20  # adbd sends no longer ones than 1 MiB
_MAX_SERVICE_BYTES = 0x7FFF  # a request's length is four digits; half of that, for what adbd of Android 7 takes
_SIGNALLED, _SIGNALS = 128, 64
_QUIET_S = 4.0
_LAST_BYTES = 1000


def service(argv: Sequence[str], mark: str) -> str:
    """The name of the service that runs a command. The device's shell becomes it, so its end is that of the service."""
    line = quoting.line(argv, mark)
    if len(line.encode()) > _MAX_SERVICE_BYTES:
        raise UserError(f"a command of {len(line)} bytes is more than adb takes", hint="push it as a file")
    return f"shell,v2,raw:{line}"


class AdbSession:
    """A command that has been started. Not for two threads at once.

    ``open_``: gives the stream of a service of the device; ``there``: whether the device still answers.
    """

    def __init__(
        self, where: str, argv: Sequence[str], open_: Callable[[str], socket.socket], there: Callable[[Deadline], bool]
    ) -> None:
        """Start it. Raises LinkLost before anything of it can have run, or DeviceError."""
        mark = f"meltbench-{secrets.token_hex(16)}"
        self.name, self._where, self._there = printable(argv[0])[:80], where, there
        self._socket = open_(service(argv, mark))
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._out = AfterMark(mark)
        self._err: Sink = nowhere
        self._last = b""
        self._code: int | None = None
        self._head, self._kind, self._left = b"", _STDOUT, 0
        self._queue: deque[memoryview] = deque()
        self._deaf = False
        self._heard_s = time.monotonic()

    def into(self, out: Sink, err: Sink) -> None:
        """Where the streams go from now on."""
        self._out.sink, self._err = out, err

    def converse(self, deadline: Deadline, feed: Feeder | None = None, until: Callable[[], bool] = bool) -> int | None:
        """Feed it, without ``feed`` nothing, and read it to its end: its exit status, negative for a signal; None when
        ``until`` was met before.

        A device that is silent for some seconds is asked, by another command, whether it is there at all.
        """
        if feed is None:
            self._give(_CLOSE_STDIN, b"")
        while self._code is None and not until():
            if deadline.remaining() <= 0:
                raise DeadlineExceeded(f"{self.name} did not end in time", hint="try again")
            if feed is not None and not feed.given and not self._queue and not self._deaf:
                view = feed.next()
                self._give(*((_STDIN, view) if view else (_CLOSE_STDIN, b"")))
                feed.took(len(view))
            self._turn(deadline.within(_QUIET_S))
            self._listen(deadline)
        return None if until() else self._status(feed is not None and bool(self._queue or not feed.given))

    def ask(self, line: bytes, answered: Callable[[], bool], deadline: Deadline) -> None:
        """Give it a line and read until ``answered``, or until it has ended; meanwhile nothing else is sent."""
        self._give(_STDIN, line)
        while self._code is None and not answered():
            if deadline.remaining() <= 0:
                raise DeadlineExceeded(f"{self.name} did not answer in time", hint="try again")
            self._turn(deadline)

    def close(self, *, kill: bool) -> None:
        """Leave it: adbd sends SIGHUP to what still runs, whether ``kill`` or not."""
        del kill
        self._socket.close()

    def end(self) -> None:
        """Have whoever waits for it find that it is over; for another thread."""
        try:
            self._socket.shutdown(2)
        except OSError:
            return  # it is closed already

    def _give(self, kind: int, data: bytes | memoryview) -> None:
        if self._deaf:
            return
        self._queue.append(memoryview(_HEAD.pack(kind, len(data))))
        if data:
            self._queue.append(memoryview(data))

    def _turn(self, deadline: Deadline) -> None:
        """Wait until something can be read or given, and do it."""
        try:
            self._poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._queue else 0))
            for _, event in self._poll.poll(deadline.remaining() * 1000):
                if event & select.POLLOUT:
                    self._send()
                if event & ~select.POLLOUT:
                    self._read()
        except (OSError, ValueError) as error:  # ValueError: the transport was closed
            raise self._lost(printable(str(error))) from error

    def _send(self) -> None:
        try:
            sent = self._socket.sendmsg(list(self._queue)[:64])
        except (BrokenPipeError, ConnectionResetError):
            self._deaf = True  # it ended before it took all; what it said before, and its status, are still to be read
            self._queue.clear()
            return
        self._heard_s = time.monotonic()  # what is taken is taken by somebody
        while sent:
            first = self._queue.popleft()
            if sent < len(first):
                self._queue.appendleft(first[sent:])
                return
            sent -= len(first)

    def _read(self) -> None:
        data = memoryview(self._socket.recv(_READ_BYTES))
        if not data:
            raise self._lost("it ended without an exit status")
        self._heard_s = time.monotonic()
        while data and self._code is None:
            if not self._left:
                missing = _HEAD.size - len(self._head)
                self._head, data = self._head + bytes(data[:missing]), data[missing:]
                if len(self._head) < _HEAD.size:
                    return
                (self._kind, self._left), self._head = _HEAD.unpack(self._head), b""
                if self._left > _MAX_PACKET_BYTES:
                    raise DeviceError(f"{self._where} sends packets of {self._left} bytes", hint="that is no adbd")
                continue
            self._take(data[: self._left])
            data, self._left = data[self._left :], max(0, self._left - len(data))

    def _take(self, data: memoryview) -> None:
        if self._kind == _STDOUT:
            self._out(data)
        elif self._kind == _STDERR:
            self._last = bytes(data[-_LAST_BYTES:])
            self._err(data)
        elif self._kind == _EXIT:
            self._code = data[0]

    def _listen(self, deadline: Deadline) -> None:
        if time.monotonic() - self._heard_s < _QUIET_S:
            return
        if not self._there(deadline):
            raise self._lost("it is silent")
        self._heard_s = time.monotonic()

    def _lost(self, why: str) -> LinkLost:
        said = f"the link to {self._where} was lost while {self.name} was under way: {why}"
        return LinkLost(said, hint="what runs there goes on; try again")

    def _status(self, short: bool) -> int:
        """The exit status. adbd tells a signal as 128 and its number, as shells do; Android's cmd ends with 255.

        ``short``: it ended before it took all of its input. What it wrote to stdout may be lost then, the mark too, for
        adbd has one descriptor for both.
        """
        assert self._code is not None
        if not self._out.found and not short:
            why = Completed(self._code, self._out.prose, self._last).complaint()
            raise DeviceError(f"the shell of {self._where} did not run {self.name}: {why}")
        return _SIGNALLED - self._code if _SIGNALLED < self._code <= _SIGNALLED + _SIGNALS else self._code
