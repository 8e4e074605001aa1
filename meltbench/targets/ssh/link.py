"""A connection to a device through all its jump hosts: made, listened to, and taken down without a trace."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar

import paramiko
from paramiko.common import (
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_REQUEST,
    cMSG_CHANNEL_REQUEST,
    cMSG_GLOBAL_REQUEST,
)
from paramiko.ssh_exception import IncompatiblePeer

from meltbench.errors import DeadlineExceeded, DeviceError, LinkLost
from meltbench.targets import printable
from meltbench.targets.ssh import hostkeys
from meltbench.targets.ssh.auth import Login
from meltbench.targets.ssh.wire import ChannelWire, SocketWire, Wire, reach

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.deadline import Deadline
    from meltbench.targets.ssh.config import Hop
    from meltbench.targets.ssh.secrets import Asker

# GCM first: it is made in one pass in C, where the others take a second one for the MAC, by way of Python.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr", "aes192-ctr")
_WINDOW_BYTES = 8 << 20  # what the device may send before it is asked for more
_QUIET_S = 4.0  # a silence after which a call that is under way asks whether the other end is there
_ANSWER_S = 6.0  # and how long it may take to answer: sshd of a board that swaps is slow, one that is stopped is mute
_UNKNOWN_SIGNAL = 255  # sshd has names for the common signals only
_QUESTION = "keepalive@openssh.com"
_LOG = "meltbench.ssh.paramiko"

Checks = Callable[["Hop", str, bytes], None]


class _Transport(paramiko.Transport):
    """paramiko's, with the one message that it passes over, exit-signal (RFC 4254, 6.10), and a refusal that ends no
    channel: that of a question.

    By channel ``bells`` are rung for whatever comes, and ``answers`` set once a question on it was answered.
    """

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire, default_window_size=_WINDOW_BYTES)  # type: ignore[arg-type]
        self.set_log_channel(_LOG)
        self.bells: dict[int, threading.Event] = {}
        self.answers: dict[int, threading.Event] = {}

    _channel_handler_table: ClassVar = {
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_REQUEST: lambda channel, message: _on_request(channel, message),  # noqa: PLW0108  it is defined below
        MSG_CHANNEL_FAILURE: lambda channel, message: _on_failure(channel, message),  # noqa: PLW0108  it is defined below
    }


def _on_request(channel: paramiko.Channel, message: paramiko.Message) -> None:
    if message.get_text() == "exit-signal":
        message.get_boolean()
        channel.exit_status = -_signal_number(message.get_text())
        channel.status_event.set()
    else:
        message.rewind()
        message.get_int()  # the number of the channel, which has been read
        channel._handle_request(message)  # type: ignore[attr-defined]
    _ring(channel)


def _on_failure(channel: paramiko.Channel, message: paramiko.Message) -> None:
    assert isinstance(channel.transport, _Transport)
    if (answer := channel.transport.answers.get(channel.chanid)) is not None:
        answer.set()
        _ring(channel)
    else:
        channel._request_failed(message)  # type: ignore[attr-defined]


def _ring(channel: paramiko.Channel) -> None:
    assert isinstance(channel.transport, _Transport)
    if (bell := channel.transport.bells.get(channel.chanid)) is not None:
        bell.set()


def _signal_number(name: str) -> int:
    return getattr(signal, f"SIG{name}", _UNKNOWN_SIGNAL)


def quiet_log() -> None:
    """Keep what paramiko logs to itself: what matters of it is in our errors."""
    logger = logging.getLogger(_LOG)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


class Link:
    """The way to the last hop of a route. Built by `connect`."""

    def __init__(self, route: Sequence[Hop]) -> None:
        quiet_log()
        self.route = route
        self._calls: list[Deadline] = []
        self._transports: list[tuple[_Transport, Wire]] = []
        self._asked_s = 0.0
        self._closing = threading.Lock()

    def __str__(self) -> str:
        return str(self.route[-1])

    @property
    def transport(self) -> _Transport:
        """The session with the device itself."""
        return self._transports[-1][0]

    @property
    def alive(self) -> bool:
        """Whether nothing is known that ended it."""
        return bool(self._transports) and all(t.is_active() and not wire.lost for t, wire in self._transports)

    @contextlib.contextmanager
    def call(self, deadline: Deadline) -> Iterator[None]:
        """While a call is under way no write stands still past its deadline."""
        self._calls.append(deadline)
        try:
            yield
        finally:
            self._calls.remove(deadline)

    def connect(self, given: Deadline, asker: Asker, check: Checks, *, log_in: bool = True) -> None:
        """Go from hop to hop; each key is checked before anything is told to its server. If it fails, nothing stays.

        ``log_in``: also to the last hop.
        """
        try:
            for number, hop in enumerate(self.route):
                deadline = asker.extended(given)
                soon = deadline.within(hop.connect_s)
                with self.call(soon), self.explained(f"reaching {hop}", deadline):
                    transport = self._greet(hop, self._wire(number, hop, soon), soon)
                    key = transport.get_remote_server_key()
                check(hop, key.get_name(), key.asbytes())
                if log_in or number + 1 < len(self.route):
                    with self.explained(f"logging in to {hop}", deadline):
                        Login(transport, hop, asker, given).run()
        except BaseException:
            self.close()
            raise

    def _wire(self, number: int, hop: Hop, deadline: Deadline) -> Wire:
        if number == 0:
            return SocketWire(reach(hop.host, hop.port, hop.family, deadline, str(hop)), self._ends_s)
        before, origin = self._transports[-1][0], ("127.0.0.1", 0)
        try:
            channel = before.open_channel("direct-tcpip", (hop.host, hop.port), origin, timeout=deadline.remaining())
        except paramiko.ChannelException as error:
            raise LinkLost(
                f"{hop} cannot be reached from the jump host {self.route[number - 1]}: {printable(error.text)}",
                hint="check that it is on, and that the jump host allows forwarding",
            ) from error
        return ChannelWire(channel, self._ends_s)

    def _greet(self, hop: Hop, wire: Wire, deadline: Deadline) -> _Transport:
        """Versions, algorithms and keys. The server is not trusted yet."""
        transport = _Transport(wire)
        self._transports.append((transport, wire))
        options = transport.get_security_options()
        options.ciphers = _CIPHERS
        options.key_types = hostkeys.preferred(hop, options.key_types)
        done = threading.Event()
        transport.banner_timeout = transport.handshake_timeout = max(1.0, deadline.remaining())
        transport.start_client(event=done)
        done.wait(deadline.remaining())
        if transport.is_active() and done.is_set():
            transport.clear_to_send_timeout = _ANSWER_S + _QUIET_S
            return transport
        error = transport.get_exception()
        if isinstance(error, IncompatiblePeer):
            raise DeviceError(
                f"{hop} and meltbench share no algorithm: {printable(str(error))}", hint="update its sshd"
            )
        if transport.is_active():
            problem = "it does not greet as an SSH server does"
        else:
            problem = wire.lost or printable(str(error or "it ended the connection"))[:200]
        raise LinkLost(f"{hop} cannot be reached: {problem}", hint="check its sshd and the port, and try again")

    def _ends_s(self) -> float:
        return min((one.at_s for one in tuple(self._calls)), default=float("inf"))

    @contextlib.contextmanager
    def explained(self, doing: str, deadline: Deadline) -> Iterator[None]:
        """What paramiko raises becomes DeadlineExceeded or LinkLost."""
        try:
            yield
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(doing, error, deadline) from error

    def _lost(self, doing: str, error: BaseException, deadline: Deadline) -> DeviceError:
        wires = [wire.lost for _, wire in self._transports if wire.lost]
        self.close()
        if deadline.remaining() <= 0:
            return DeadlineExceeded(f"{doing} took longer than it was given", hint="try again")
        why = wires[0] if wires else printable(str(error))[:200] or "it ended the connection"
        return LinkLost(f"the link to {self} was lost while {doing}: {why}", hint="what runs there goes on; try again")

    def listen(self, since_s: float) -> None:
        """Notice a silent other end: after a silence it is asked for a sign of life; without one the link is lost.

        Called by calls that are under way only. ``since_s``: when the call began. The question is that of
        OpenSSH's ServerAliveInterval, to which every server answers, if only by a refusal.
        """
        now, heard_s = time.monotonic(), self._transports[-1][1].heard_s
        if now - max(heard_s, since_s) < _QUIET_S:
            return
        if self._asked_s <= heard_s or self._asked_s < since_s:
            self._asked_s = now
            message = paramiko.Message()
            message.add_byte(cMSG_GLOBAL_REQUEST)
            message.add_string(_QUESTION)
            message.add_boolean(True)
            self.send(message)
        elif now - self._asked_s > _ANSWER_S:
            raise paramiko.SSHException("it is silent")

    def still_there(self) -> bool:
        """Whether it is alive, also a moment after a channel of it ended: a lost link ends its channels first."""
        self.transport.join(0.3)
        return self.alive

    def send(self, message: paramiko.Message) -> None:
        """Send a message without waiting for its answer, which paramiko's own methods do, and without a deadline."""
        self.transport._send_user_message(message)  # type: ignore[attr-defined]

    def request(self, channel: paramiko.Channel, kind: str, text: str | None = None, *, reply: bool) -> None:
        """A request on a channel (RFC 4254, 6.5 and 6.9)."""
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string(kind)
        message.add_boolean(reply)
        if text is not None:
            message.add_string(text.encode("utf-8", "surrogateescape"))
        self.send(message)

    def ask(self, channel: paramiko.Channel) -> threading.Event:
        """Ask on a channel what every server refuses. When it has, all is here that it had sent on it before."""
        answer = self.transport.answers[channel.chanid] = threading.Event()
        self.request(channel, _QUESTION, reply=True)
        return answer

    def close(self) -> None:
        """End every hop, the device's first; wait for their threads. May be called again."""
        with self._closing:
            for transport, wire in reversed(self._transports):
                transport.packetizer.complete_handshake()  # ends the thread that times the handshake
                transport.close()
                wire.close()
                transport.join(5)
                transport.packetizer.complete_handshake()  # which its thread may have begun meanwhile
