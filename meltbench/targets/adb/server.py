"""A real adb server: found where it listens, started where nothing does, asked in its own words.

The words are those of AOSP's packages/modules/adb, SERVICES.TXT: a request is four hexadecimal digits of its length and
itself, an answer OKAY, or FAIL with such a text.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adbutils import AdbError, AdbTimeout, adb_path
from adbutils._adb import AdbConnection

from meltbench.errors import DeadlineExceeded, DeviceError, LinkLost, UserError
from meltbench.targets import printable
from meltbench.targets.adb import words
from meltbench.targets.local import LocalTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meltbench.deadline import Deadline

PORT = 5037
_HERE = ("127.0.0.1", "localhost", "::1")
_START_S = 20.0
_LISTENS_S = 3.0
_CONNECT_S = 12.0  # the server itself gives up after 10 s
_OPEN_S = 6.0  # adbd starts a shell in milliseconds; a phone that swaps is slow
_MAX_DEVICES = 1000
_starting = threading.Lock()
# A serial of mDNS may have a blank in it; the states are those of adb.cpp.
_LISTED = re.compile(
    r"(\S.*?)\s+(device|offline|unauthorized|authorizing|connecting|bootloader|recovery|sideload|rescue|host|detached|"
    r"no permissions|unknown)\b(.*)"
)


@dataclass(frozen=True)
class Attached:
    """A device as the server lists it. ``state``: "device" where it can be used, else adb's word for why not.

    ``product``: ro.product.device, of one that can be used.
    """

    serial: str
    state: str
    product: str | None = None


class _Connection(AdbConnection):  # type: ignore[misc]
    """adbutils', which by itself starts a server on the default port, whichever was asked for, and leaves sockets."""

    def __init__(self, host: str, port: int) -> None:
        self._at = (host, port)
        super().__init__(host, port)

    def _safe_connect(self) -> socket.socket:
        return socket.create_connection(self._at, _LISTENS_S)


class Server:
    """The adb server at ``port`` of this machine, None: where adb itself would look for one."""

    def __init__(self, port: int | None = None) -> None:
        self.host, self.port = (_HERE[0], words.checked_port(port)) if port is not None else _default()

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def devices(self, deadline: Deadline) -> list[Attached]:
        """Every device that is attached or connected, in the server's order."""
        return listed(self._told("host:devices-l", deadline))

    def features(self, serial: str, deadline: Deadline) -> frozenset[str]:
        """What its adbd can do, by adb's names."""
        with self._refused_is(serial):
            return frozenset(self._told(f"host-serial:{serial}:features", deadline).split(","))

    def connect(self, serial: str, deadline: Deadline) -> None:
        """Have the server connect to HOST:PORT, where it is not. Raises LinkLost with what it says."""
        said = self._told(f"host:connect:{serial}", deadline.within(_CONNECT_S))
        if not said.startswith(("connected to", "already connected to")):
            raise words.unconnected(serial, said)

    def disconnect(self, serial: str, deadline: Deadline) -> None:
        """Have the server forget HOST:PORT: one that it takes for connected, and is not, keeps it from trying again."""
        try:
            self._told(f"host:disconnect:{serial}", deadline)
        except _RefusedError:
            return  # it does not know it

    def service(self, serial: str, name: str, deadline: Deadline) -> socket.socket:
        """A stream to a service of the device. Raises LinkLost or DeviceError in words for its user; Unanswered where
        the service was asked for and may have begun: a device that the server holds for connected, and is not, is mute.
        """
        soon = deadline.within(_OPEN_S)
        with self._refused_is(serial):
            link = self._asked(f"host:transport:{serial}", soon)
            try:
                self._ask(link, name, soon)
            except (DeadlineExceeded, LinkLost):
                link.conn.close()
                if deadline.remaining() <= 0:
                    raise
                raise Unanswered(f"{serial} does not answer", hint="check its cable or its Wi-Fi") from None
            except BaseException:
                link.conn.close()
                raise
            made: socket.socket = link.conn
            return made

    @contextmanager
    def _refused_is(self, serial: str) -> Iterator[None]:
        try:
            yield
        except _RefusedError as error:
            raise words.refused(serial, error.said) from None

    def _told(self, request: str, deadline: Deadline) -> str:
        link = self._asked(request, deadline)
        with self._explained(deadline):
            try:
                return str(link.read_string_block())
            finally:
                link.conn.close()

    def _asked(self, request: str, deadline: Deadline) -> AdbConnection:
        link = self._reached(deadline)
        try:
            self._ask(link, request, deadline)
        except BaseException:
            link.conn.close()
            raise
        return link

    def _ask(self, link: AdbConnection, request: str, deadline: Deadline) -> None:
        deadline.check("asking the adb server")
        with self._explained(deadline):
            link.conn.settimeout(max(0.001, deadline.remaining()))
            data = request.encode()
            link.conn.sendall(b"%04x" % len(data) + data)
            answer = link.read(4)
            if answer == b"FAIL":
                raise _RefusedError(link.read_string_block())
            if answer != b"OKAY":
                raise ConnectionError("it ended the connection" if not answer else "it speaks another protocol")

    @contextmanager
    def _explained(self, deadline: Deadline) -> Iterator[None]:
        """What adbutils and sockets raise becomes DeadlineExceeded or LinkLost."""
        try:
            yield
        except (AdbTimeout, TimeoutError) as error:
            raise DeadlineExceeded(f"the adb server at {self} did not answer in time", hint="try again") from error
        except (AdbError, OSError, ValueError) as error:
            if deadline.remaining() <= 0:
                raise DeadlineExceeded(f"the adb server at {self} did not answer in time", hint="try again") from error
            why = printable(str(error))[:200]
            raise LinkLost(f"the link to the adb server at {self} was lost: {why}", hint="try again") from error

    def _reached(self, deadline: Deadline) -> AdbConnection:
        """A connection to the server, which is started where nothing listens."""
        deadline.check("reaching the adb server")
        try:
            return _Connection(self.host, self.port)
        except OSError:
            self._start(deadline)
        try:
            return _Connection(self.host, self.port)
        except OSError as error:
            raise LinkLost(f"no adb server answers at {self}: {printable(str(error))}", hint=_LOOK) from error

    def _start(self, deadline: Deadline) -> None:
        if self.host not in _HERE:
            raise LinkLost(f"no adb server answers at {self}", hint="start it there: adb -a nodaemon server")
        try:
            adb = adb_path()
        except AdbError:
            raise DeviceError(
                f"no adb server answers at {self}, and no adb is on this machine",
                hint="install Android's platform-tools (Debian: apt install adb), or name it: ADBUTILS_ADB_PATH",
            ) from None
        if not _starting.acquire(timeout=deadline.remaining()):
            raise DeadlineExceeded(f"the adb server at {self} was not started in time", hint="try again")
        try:
            done = LocalTransport().run([adb, "-P", str(self.port), "start-server"], deadline.within(_START_S))
        finally:
            _starting.release()
        # Where it could not, another process may just have: the next try tells.
        if done.code != 0 and b"Address already in use" not in done.stderr:
            raise LinkLost(f"{adb} could not start a server at {self}: {done.complaint()}", hint=_LOOK)


def listed(text: str) -> list[Attached]:
    """The devices of a server's own list (``adb devices -l``); a line that is none is left out."""
    found = []
    for line in text.splitlines()[:_MAX_DEVICES]:
        if (row := _LISTED.match(line)) is not None:
            told = dict(part.split(":", 1) for part in row[3].split() if ":" in part)
            found.append(Attached(printable(row[1]), row[2], told.get("device")))
    return found


_LOOK = "see what it says: adb start-server"


class Unanswered(LinkLost):
    """A command that was sent, and may run: whoever sent it knows whether it may be sent again."""


class _RefusedError(Exception):
    """FAIL, and what was said."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


def _default() -> tuple[str, int]:
    """Where adb itself looks, by its environment (adb's commandline.cpp). Raises UserError for what is no place."""
    given = os.environ.get("ADB_SERVER_SOCKET")
    if given:
        kind, _, place = given.partition(":")
        host, _, port = place.rpartition(":")
        if kind != "tcp":
            raise UserError(f"ADB_SERVER_SOCKET={given!r} is not tcp:HOST:PORT", hint="adb over TCP is what is spoken")
        name = "ADB_SERVER_SOCKET"
    else:
        name, host = "ANDROID_ADB_SERVER_PORT", os.environ.get("ANDROID_ADB_SERVER_ADDRESS", "")
        port = os.environ.get(name) or str(PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"{name} names no port: {port[:40]!r}", hint="give 1 to 65535, or leave it unset")
    return host or _HERE[0], int(port)
