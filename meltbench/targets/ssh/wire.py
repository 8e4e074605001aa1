"""What paramiko is given in place of a socket.

Its own use of one has traps: no TCP_NODELAY (44 ms a command), a wait of 0.1 s over and over, a write that is tried
again for ever when the peer takes nothing, ETIMEDOUT taken for such a wait (in Python both are TimeoutError). Here a
read blocks until there is something, a write ends when it must, and what was lost is kept for the error.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from meltbench.errors import DeadlineExceeded, LinkLost

if TYPE_CHECKING:
    from collections.abc import Callable

    import paramiko

    from meltbench.deadline import Deadline

# Data that are not acknowledged, or not taken, for so long end a connection (tcp(7), TCP_USER_TIMEOUT).
UNANSWERED_S = 4.0
_READ_BYTES = 256 << 10
_LOOK_S = 0.25
_T = TypeVar("_T")


class Wire:
    """Bytes to and from a server: over TCP, or over a channel of the hop before it.

    ``heard_s``: when the other end last sent something, on the monotonic clock. ``lost``: why the wire ended, or "".
    ``ends_s``: a function that gives the earliest deadline of the calls under way.
    """

    def __init__(self, ends_s: Callable[[], float]) -> None:
        self.heard_s = time.monotonic()
        self.lost = ""
        self._closed = False  # paramiko looks at this name
        self._ends_s = ends_s
        self._held = b""
        self._at = 0

    # What paramiko calls.

    def recv(self, count: int) -> bytes:
        """Up to ``count`` bytes; none when the wire has ended."""
        if self._at >= len(self._held):
            self._held, self._at = self._noted(self._read), 0
            self.heard_s = time.monotonic()
        out = self._held[self._at : self._at + count]
        self._at += len(out)
        if not out and not self.lost:
            self.lost = "it closed the connection"
        return out

    def send(self, data: bytes) -> int:
        """At least one byte of ``data``. What stood still too long ends the wire: half a packet may be out."""
        stops_s = time.monotonic() + UNANSWERED_S
        while not (sent := self._noted(lambda: self._write(data))):
            now = time.monotonic()
            if self._closed or now > stops_s or now > self._ends_s():
                self.lost = self.lost or "it takes no data any more"
                self.close()
                raise ConnectionAbortedError(errno.ECONNABORTED, self.lost)
        return sent

    def settimeout(self, _: float | None) -> None:
        """Waits are the wire's own."""

    def close(self) -> None:
        """End it, also for the thread that reads."""
        self._closed = True
        self._end()

    # Which a kind of wire gives.

    def _read(self) -> bytes:
        """Wait for bytes; none at the end."""
        raise NotImplementedError

    def _write(self, data: bytes) -> int:
        """Give some bytes, or wait a moment until some can be given and return 0."""
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError

    def _noted(self, act: Callable[[], _T]) -> _T:
        try:
            return act()
        except OSError as error:
            if not self.lost:
                self.lost = error.strerror or str(error)
            raise ConnectionAbortedError(errno.ECONNABORTED, self.lost) from error  # never a TimeoutError


class SocketWire(Wire):
    """Over TCP."""

    def __init__(self, connected: socket.socket, ends_s: Callable[[], float]) -> None:
        super().__init__(ends_s)
        connected.settimeout(None)
        self._socket = connected
        self._poll = select.poll()
        self._poll.register(connected, select.POLLOUT)

    def _read(self) -> bytes:
        return self._socket.recv(_READ_BYTES)

    def _write(self, data: bytes) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._poll.poll(_LOOK_S * 1000)
            return 0

    def _end(self) -> None:
        with contextlib.suppress(OSError):  # it may never have been connected, or be closed already
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reader, which close alone does not
        self._socket.close()


class ChannelWire(Wire):
    """Over a direct-tcpip channel of the hop before. Its TCP options are the hop's: a target that dies behind a living
    jump host is noticed by its silence (`Link.listen`)."""

    def __init__(self, channel: paramiko.Channel, ends_s: Callable[[], float]) -> None:
        super().__init__(ends_s)
        channel.settimeout(_LOOK_S)
        self._channel = channel

    def _read(self) -> bytes:
        while not self._closed:
            with contextlib.suppress(TimeoutError):
                return self._channel.recv(_READ_BYTES)
        return b""

    def _write(self, data: bytes) -> int:
        try:
            sent = self._channel.send(data)
        except TimeoutError:
            return 0
        if not sent:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the way through the jump host ended")
        return sent

    def _end(self) -> None:
        with contextlib.suppress(EOFError, OSError):  # the hop before may be gone already
            self._channel.close()


def reach(host: str, port: int, family: int, deadline: Deadline, where: str) -> socket.socket:
    """A TCP connection, with the options above. Raises LinkLost or DeadlineExceeded, naming ``where``."""
    problem = "no address"
    for kind, flavour, protocol, _, place in _addresses(host, port, family, deadline, where):
        one = socket.socket(kind, flavour, protocol)
        try:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere `Link.listen` alone notices
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNANSWERED_S * 1000))
            one.settimeout(max(0.05, deadline.remaining()))
            one.connect(place)
        except TimeoutError:
            one.close()
            problem = "it does not answer"
        except OSError as error:
            one.close()
            problem = error.strerror or str(error)
        else:
            return one
    raise LinkLost(f"{where} cannot be reached: {problem}", hint="check its power, its network and the address")


def _addresses(
    host: str, port: int, family: int, deadline: Deadline, where: str
) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    """Look a name up, in a thread: the resolver knows no deadline. One that is left ends with its question."""
    found: list[object] = []

    def look() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
        except OSError as error:
            found.append(error)

    asking = threading.Thread(target=look, daemon=True, name="meltbench-resolver")
    asking.start()
    asking.join(deadline.remaining())
    if not found:
        raise DeadlineExceeded(f"the name of {where} was not found in time", hint="check the network's DNS")
    if isinstance(found[0], OSError):
        raise LinkLost(f"{where} cannot be reached: {found[0].strerror}", hint="check the name, or use its address")
    return found[0]  # type: ignore[return-value]
