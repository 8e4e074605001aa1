"""How a target is reached: one small protocol, one module a transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meltbench.errors import DeviceError, UnknownName, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
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


class Transport(Protocol):
    """The four things meltbench does with a target. Every call raises DeviceError, never hangs past its deadline."""

    def run(self, argv: Sequence[str], deadline: Deadline) -> Completed:
        """Run a command to its end; nothing in it is seen by a shell."""

    def push(self, source: Path | bytes, path: str, deadline: Deadline, *, executable: bool = False) -> None:
        """Put a file there, whole or not at all."""

    def pull(self, path: str, destination: Path, deadline: Deadline) -> None:
        """Fetch a file, whole or not at all."""

    def spawn(self, argv: Sequence[str], deadline: Deadline) -> Channel:
        """Start a program that answers lines on its stdin (the probe's clock)."""


def printable(text: str) -> str:
    """Text of a device made harmless for a terminal: control and format characters become U+FFFD."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in text)


def connect(kind: str) -> Transport:
    """The transport of a profile's ``target`` key."""
    if kind == "local":
        from meltbench.targets.local import LocalTransport

        return LocalTransport()
    if kind in ("ssh", "adb"):
        raise UserError(f"the {kind} transport is not built yet", hint="this version measures --device local")
    raise UnknownName("target", kind, ["local"])


__all__ = ["Channel", "Completed", "DeviceError", "Transport", "connect", "printable"]
