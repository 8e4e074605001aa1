"""The transport `adb`: commands, files and long-lived programs of a device, each a stream of its own to its shell."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, TypeVar

from meltbench.errors import DeviceError, LinkLost, WrongDevice
from meltbench.targets import printable
from meltbench.targets.adb import words
from meltbench.targets.adb.server import Server, Unanswered
from meltbench.targets.adb.session import AdbSession
from meltbench.targets.facts import SERIAL_PROPERTY, identity_of
from meltbench.targets.shell import ShellTransport
from meltbench.targets.shell.channel import ShellChannel
from meltbench.targets.shell.streams import Head, nowhere

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

    from meltbench.deadline import Deadline

_APPEAR_S = 3.0  # a server that was just started takes a second to see what is plugged in
_PAUSE_S = 0.2
_ALIVE_S = 6.0
_ASK_S = 5.0
_T = TypeVar("_T")


class AdbTransport(ShellTransport):
    """A device that an adb server reaches. ``address``: its serial, or HOST:PORT of wireless debugging; nothing is sent
    before a call.

    ``port``: the server's, None where adb would look for it. ``identity``: of the board that is meant, as Facts have
    it; where its serial is not attached, it is looked for among what is (over Wi-Fi a phone has another serial). A call
    that runs past its deadline is ended: adbd sends SIGHUP to what it started.
    """

    def __init__(self, address: str, port: int | None = None, identity: str | None = None) -> None:
        words.check_serial(address)
        self.address = address
        self.server = Server(port)
        self._identity = identity
        self._serial = address
        self._able = False
        self._open: set[AdbSession] = set()

    def spawn(self, argv: Sequence[str], deadline: Deadline) -> ShellChannel:
        """Start a program that answers lines."""
        session = self._start(argv, deadline)
        return ShellChannel(session, lambda: self._open.discard(session))

    def close(self) -> None:
        """End what was spawned and not closed. What runs there detached goes on; the next call starts anew."""
        for session in tuple(self._open):
            session.end()

    @contextlib.contextmanager
    def _session(
        self, argv: Sequence[str], deadline: Deadline, *, kill: bool = True
    ) -> Iterator[tuple[AdbSession, Deadline]]:
        session = self._start(argv, deadline)
        try:
            yield session, deadline
        finally:
            self._open.discard(session)
            session.close(kill=kill)

    def _start(self, argv: Sequence[str], deadline: Deadline) -> AdbSession:
        deadline.check(f"starting {printable(' '.join(argv[:1]))}")
        self._check_able(deadline)

        session = AdbSession(self.address, argv, lambda name: self._service(name, deadline), self._answers)
        self._open.add(session)
        return session

    def _check_able(self, deadline: Deadline) -> None:
        """Raise DeviceError, once, for a device whose adbd gives no exit status."""
        if not self._able:
            found = self._patiently(lambda: self.server.features(self._serial, deadline), deadline)
            if "shell_v2" not in found:
                raise DeviceError(
                    f"{self.address} has an adbd that tells no exit status", hint="Android 7 (2016) and newer do"
                )
            self._able = True
            if self._identity is None:  # of whoever was met first, so that it is found again under another serial
                self._identity = self._hardware(self._serial, deadline)

    def _service(self, name: str, deadline: Deadline) -> socket.socket:
        return self._patiently(lambda: self.server.service(self._serial, name, deadline), deadline)

    def _patiently(self, call: Callable[[], _T], deadline: Deadline) -> _T:
        """What ``call`` gives once the device is there, for which a moment is waited. Raises LinkLost."""
        soon = deadline.within(_APPEAR_S)
        while True:
            try:
                return call()
            except Unanswered:
                with contextlib.suppress(LinkLost):
                    self._look_for(deadline)  # for the next call: this one may have been heard
                raise
            except LinkLost as error:
                lost = error
            try:
                self._look_for(deadline)
            except LinkLost as error:
                lost = error
            if soon.remaining() <= 0:
                raise lost
            time.sleep(_PAUSE_S)

    def _look_for(self, deadline: Deadline) -> None:
        """Find the serial that the device has now, else have the server connect to its address."""
        serial = self.address
        there = {one.serial: one.state for one in self.server.devices(deadline)}
        if self._identity is not None and self.address not in there:
            others = [serial for serial, state in there.items() if state == "device"]
            serial = next((one for one in others if self._hardware(one, deadline) == self._identity), self.address)
        if serial == self.address and words.is_network(self.address):
            self._connect(there.get(self.address), deadline)
        self._serial = serial

    def _connect(self, state: str | None, deadline: Deadline) -> None:
        """To HOST:PORT, anew where it is held for connected, and was not there."""
        if state is not None:
            self.server.disconnect(self.address, deadline)
        self.server.connect(self.address, deadline)
        found = self._hardware(self.address, deadline)
        if None not in (found, self._identity) and found != self._identity:
            raise WrongDevice(
                f"another phone answers at {self.address}", hint="give the one that is meant by its serial"
            )

    def _hardware(self, serial: str, deadline: Deadline) -> str | None:
        """The identity of the phone that answers to a serial; None where it tells none."""
        found = self._told(serial, ["getprop", SERIAL_PROPERTY], deadline.within(_ASK_S))
        return identity_of(found) if found else None

    def _answers(self, deadline: Deadline) -> bool:
        return self._told(self._serial, ["echo", "here"], deadline.within(_ALIVE_S)) == "here"

    def _told(self, serial: str, argv: Sequence[str], deadline: Deadline) -> str:
        """What a command of a device prints; nothing where it does not answer."""
        out = Head()
        try:
            session = AdbSession(serial, argv, lambda name: self.server.service(serial, name, deadline), lambda _: True)
            try:
                session.into(out, nowhere)
                session.converse(deadline)
            finally:
                session.close(kill=True)
        except DeviceError:
            return ""
        return printable(bytes(out).decode("utf-8", "replace").strip())
