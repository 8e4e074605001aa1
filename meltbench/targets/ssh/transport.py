"""The transport `ssh`: commands, files and long-lived programs over one connection, made when it is first needed."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from meltbench.deadline import Deadline
from meltbench.errors import DeadlineExceeded, HostKeyError, LinkLost, UserError
from meltbench.targets import printable
from meltbench.targets.shell import ShellTransport
from meltbench.targets.ssh.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meltbench.targets.shell.channel import ShellChannel
    from meltbench.targets.ssh.config import Hop
    from meltbench.targets.ssh.link import Checks, Link
    from meltbench.targets.ssh.session import Session

SESSIONS = 4  # at once: sshd's own limit is 10 (MaxSessions), and small boards have little memory
_CALL_S = 30.0


class SshTransport(ShellTransport):
    """A device reached by SSH. ``address``: [USER@]HOST[:PORT], or a Host of ssh_config; nothing is sent before a call.

    At most 4 commands run at once, further calls wait. A call that runs past its deadline is ended: what it started is
    killed with its process group where sshd does that (OpenSSH from 7.9 on, dropbear); elsewhere, and what has left the
    group, lives on until it reads its stdin or writes.
    """

    def __init__(self, address: str) -> None:
        self.address = str(Address.parse(address))
        self._link: Link | None = None
        self._connecting = threading.Lock()
        self._slots = threading.BoundedSemaphore(SESSIONS)

    def spawn(self, argv: Sequence[str], deadline: Deadline) -> ShellChannel:
        """Start a program that answers lines. It counts among the 4 until it is closed."""
        from meltbench.targets.shell.channel import ShellChannel

        self._take_slot(deadline)
        try:
            session, _ = self._start(argv, deadline)
        except BaseException:
            self._slots.release()
            raise
        return ShellChannel(session, self._slots.release)

    def close(self) -> None:
        """End the connection: no thread and no socket stays. What runs there goes on; the next call connects anew."""
        with self._connecting:
            if self._link is not None:
                self._link.close()
                self._link = None

    @contextlib.contextmanager
    def _session(
        self, argv: Sequence[str], deadline: Deadline, *, kill: bool = True
    ) -> Iterator[tuple[Session, Deadline]]:
        """A command that has started, and the deadline, later by the time that a person took to answer."""
        self._take_slot(deadline)
        try:
            session, later = self._start(argv, deadline)
            try:
                yield session, later
            finally:
                session.close(kill=kill)
        finally:
            self._slots.release()

    def _take_slot(self, deadline: Deadline) -> None:
        if not self._slots.acquire(timeout=deadline.remaining()):
            raise DeadlineExceeded(
                f"{SESSIONS} commands on {self.address} were under way all the time", hint="try again"
            )

    def _start(self, argv: Sequence[str], deadline: Deadline) -> tuple[Session, Deadline]:
        """Start a command, over a new connection where the one at hand turns out to be dead before it was told."""
        from meltbench.targets.ssh.session import Session

        deadline.check(f"starting {printable(' '.join(argv[:1]))}")
        link, later, fresh = self._connected(deadline)
        try:
            return Session(link, argv, later), later
        except LinkLost:
            if fresh:
                raise
        link, later, _ = self._connected(later)
        return Session(link, argv, later), later

    def _connected(self, deadline: Deadline) -> tuple[Link, Deadline, bool]:
        """The connection, made where there is none that is alive; whether it was made now."""
        if not self._connecting.acquire(timeout=deadline.remaining()):
            raise DeadlineExceeded(f"{self.address} was not reached in time", hint="try again")
        try:
            if self._link is not None:
                if self._link.alive:
                    return self._link, deadline, False
                self._link.close()
                self._link = None
            from meltbench.targets.ssh import hostkeys

            self._link, later = _reached(self.address, deadline, hostkeys.check)
            return self._link, later, True
        finally:
            self._connecting.release()


def accept(address: str, fingerprint: str, deadline: Deadline | None = None) -> None:
    """Take the key with this fingerprint for the right one, of the device or of a jump host on the way to it.

    Every server on the way is asked anew. The key is written to meltbench's own known_hosts, no other file is changed.
    Raises HostKeyError where a server whose key is not known, or not the known one, has another fingerprint.
    """
    from meltbench.targets.ssh import hostkeys

    if not fingerprint.startswith("SHA256:"):
        raise UserError(f"{printable(fingerprint)[:80]!r} is no fingerprint", hint="it is SHA256: and 43 characters")

    def check(hop: Hop, kind: str, blob: bytes) -> None:
        try:
            hostkeys.check(hop, kind, blob)
        except HostKeyError as error:
            if error.fingerprint != fingerprint.rstrip("=") or error.state == "revoked":
                raise
            hostkeys.remember(hop, kind, blob)

    link, _ = _reached(address, deadline or Deadline.after(_CALL_S), check, log_in=False)
    link.close()


def _reached(address: str, deadline: Deadline, check: Checks, *, log_in: bool = True) -> tuple[Link, Deadline]:
    from meltbench.targets.ssh import config
    from meltbench.targets.ssh.link import Link
    from meltbench.targets.ssh.secrets import Asker

    asker = Asker()
    link = Link(config.route(address, deadline))
    try:
        link.connect(deadline, asker, check, log_in=log_in)
    except LinkLost as error:
        if asker.extended(deadline).remaining() > 0:
            raise
        raise DeadlineExceeded(error.message, hint=error.hint) from error
    return link, asker.extended(deadline)
