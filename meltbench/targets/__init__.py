"""How a target is reached: one small protocol, one module a transport."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meltbench.errors import DeviceError, UnknownName, UserError
from meltbench.paths import state_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from meltbench.deadline import Deadline


@dataclass(frozen=True)
class Completed:
    """A finished command: exit status (negative: the signal that ended it), and both streams, bounded."""

    code: int
    stdout: bytes
    stderr: bytes

    def complaint(self) -> str:
        """The last line the command wrote, for an error message."""
        text = (self.stderr or self.stdout).decode("utf-8", "replace").strip()
        return printable(text.splitlines()[-1])[:300] if text else f"exit status {self.code}"


class Channel(Protocol):
    """A long-lived program on the target that answers lines."""

    def ask(self, line: bytes, deadline: Deadline) -> bytes:
        """Send one line and return the one it answers."""

    def close(self) -> None:
        """End the program."""


@dataclass(frozen=True)
class Feed:
    """What a command is given on its stdin: a file, or bytes, from ``offset`` on. ``told``: bytes given so far."""

    source: Path | bytes
    offset: int = 0
    told: Callable[[int], None] | None = None

    @property
    def size(self) -> int:
        """Bytes that will be given."""
        whole = len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size
        return max(0, whole - self.offset)


class Transport(Protocol):
    """The four things meltbench does with a target. Every call raises DeviceError, never hangs past its deadline.

    A link that is lost is a LinkLost; the next call makes it again by itself, and says in ``run`` whether it is there.
    Calls may come from several threads.
    """

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        """Run a command to its end; nothing in it is seen by a shell. Without ``feed`` its stdin is empty."""

    def push(self, source: Path | bytes, path: str, deadline: Deadline, *, executable: bool = False) -> None:
        """Put a file there, whole or not at all."""

    def pull(self, path: str, destination: Path, deadline: Deadline) -> None:
        """Fetch a file, whole or not at all."""

    def spawn(self, argv: Sequence[str], deadline: Deadline) -> Channel:
        """Start a program that answers lines on its stdin (the probe's clock)."""

    def close(self) -> None:
        """Leave the target: no thread and no socket stays. A later call reaches it anew."""


@dataclass(frozen=True)
class Place:
    """Where a target is. ``kind``: local, ssh, adb, or log: nowhere. ``address``: [USER@]HOST[:PORT] or a Host of
    ssh_config; the serial of an adb device. ``port``: of the adb server, None where adb itself would look for it."""

    kind: str = "local"
    address: str = ""
    port: int | None = None

    def __str__(self) -> str:
        return self.address or self.kind

    @property
    def words(self) -> str:
        """What ``meltbench devices add`` is given of it."""
        port = "" if self.port is None else f" --adb-port {self.port}"
        return f"--{self.kind} {shlex.quote(self.address)}{port}"


def printable(text: str) -> str:
    """Text of a device made harmless for a terminal: control and format characters become U+FFFD."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in text)


def default_root(place: Place) -> str | None:
    """Our folder on a target whose workdir nobody gave; None: below the home of its user there.

    /data/local/tmp is what Android gives its shell to write to and to start programs from.
    """
    if place.kind == "local":
        return str(state_dir() / "target")
    return "/data/local/tmp/.meltbench" if place.kind == "adb" else None


def connect(place: Place, identity: str | None = None) -> Transport:
    """The transport of a place; nothing is sent yet. ``identity``: of the board that is meant, where it is known."""
    if place.kind == "local":
        from meltbench.targets.local import LocalTransport

        return LocalTransport()
    if place.kind == "ssh":
        from meltbench.targets.ssh import SshTransport

        return SshTransport(place.address)
    if place.kind == "log":
        raise UserError("this device is not reached, its readings come from a recorded log", hint="meltbench read")
    if place.kind == "adb":
        from meltbench.targets.adb.transport import AdbTransport

        return AdbTransport(place.address, place.port, identity)
    raise UnknownName("target", place.kind, ["local", "ssh", "adb"])


__all__ = ["Channel", "Completed", "DeviceError", "Feed", "Place", "Transport", "connect", "default_root", "printable"]
