"""A long-lived program on the device that answers lines."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from meltbench.deadline import Deadline
from meltbench.errors import DeviceError
from meltbench.targets.shell.streams import nowhere

if TYPE_CHECKING:
    from collections.abc import Callable

    from meltbench.targets.shell import Session

_MAX_LINE_BYTES = 65536
_END_S = 2.0


class ShellChannel:
    """Its stdin and stdout, line by line. While it waits for an answer nothing crosses the link.

    So a device that falls silent in such a wait is noticed by the deadline only; by ssh, as far as no question is on
    its way: one that nobody takes is noticed after some seconds.
    """

    def __init__(self, session: Session, left: Callable[[], None]) -> None:
        self._session = session
        self._left: Callable[[], None] | None = left
        self._lock = threading.Lock()
        self._held = bytearray()
        session.into(self._held.extend, nowhere)

    def ask(self, line: bytes, deadline: Deadline) -> bytes:
        """Send one line, wait for one."""
        with self._lock:
            self._session.ask(line.rstrip(b"\n") + b"\n", self._answered, deadline)
            answer, newline, rest = bytes(self._held).partition(b"\n")
            if not newline or len(answer) > _MAX_LINE_BYTES:
                hint = "run the command again"
                raise DeviceError("the program on the target ended or answered nonsense", hint=hint)
            self._held[:] = rest
            return answer + newline

    def _answered(self) -> bool:
        return b"\n" in self._held or len(self._held) > _MAX_LINE_BYTES

    def close(self) -> None:
        """Close its stdin, wait a moment, then kill it."""
        if self._left is None:
            return
        try:
            self._session.into(nowhere, nowhere)  # what it still says is no answer
            # One that does not end is killed; where the link is gone there is nothing to end.
            with contextlib.suppress(DeviceError):
                self._session.converse(Deadline.after(_END_S))
            self._session.close(kill=True)
        finally:
            self._left()
            self._left = None
