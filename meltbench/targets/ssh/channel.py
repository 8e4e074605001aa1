"""A long-lived program on the device that answers lines."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from meltbench.deadline import Deadline
from meltbench.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from meltbench.targets.ssh.session import Session

_MAX_LINE_BYTES = 65536
_END_S = 2.0
_HINT = "run the command again"


class SshChannel:
    """Its stdin and stdout, line by line. While it waits for an answer nothing crosses the link.

    So a device that falls silent in such a wait is noticed by the deadline only, as far as no question is on its way: a
    question that nobody takes is noticed after some seconds.
    """

    def __init__(self, session: Session, left: Callable[[], None]) -> None:
        self._session = session
        self._left: Callable[[], None] | None = left
        self._lock = threading.Lock()
        self._held = bytearray()
        session.into(self._held.extend, lambda _: None)

    def ask(self, line: bytes, deadline: Deadline) -> bytes:
        """Send one line, wait for one."""
        session = self._session
        doing = f"{session.name} was asked"
        with self._lock, session.link.call(deadline), session.link.explained(doing, deadline):
            session.write(line.rstrip(b"\n") + b"\n", deadline)
            session.wait(deadline, lambda: b"\n" in self._held or len(self._held) > _MAX_LINE_BYTES)
            answer, newline, rest = bytes(self._held).partition(b"\n")
            if not newline or len(answer) > _MAX_LINE_BYTES:
                if not session.link.still_there():
                    raise EOFError
                raise DeviceError("the program on the target ended or answered nonsense", hint=_HINT)
            self._held[:] = rest
            return answer + newline

    def close(self) -> None:
        """Close its stdin, wait a moment, then kill it."""
        if self._left is None:
            return
        session, deadline = self._session, Deadline.after(_END_S)
        doing = f"{session.name} was ended"
        try:
            # One that does not end is killed; where the link is gone there is nothing to end.
            with contextlib.suppress(DeviceError), session.link.call(deadline), session.link.explained(doing, deadline):
                session.into(lambda _: None, lambda _: None)  # what it still says is no answer
                session.close_input()
                session.wait(deadline, lambda: False)
            session.close(kill=True)
        finally:
            self._left()
            self._left = None
