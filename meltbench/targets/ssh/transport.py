"""The transport `ssh`: commands, files and long-lived programs over one connection, made when it is first needed."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import threading
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from meltbench.deadline import Deadline
from meltbench.errors import DeadlineExceeded, DeviceError, HostKeyError, LinkLost, UserError
from meltbench.targets import Completed, Feed, printable
from meltbench.targets.ssh import files
from meltbench.targets.ssh.address import Address

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Sequence

    from meltbench.targets.ssh.channel import SshChannel
    from meltbench.targets.ssh.config import Hop
    from meltbench.targets.ssh.link import Checks, Link
    from meltbench.targets.ssh.session import Session

SESSIONS = 4  # at once: sshd's own limit is 10 (MaxSessions), and small boards have little memory
_MAX_OUTPUT_BYTES = 8 << 20
_CALL_S = 30.0


class SshTransport:
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

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        """Run a command to its end, its output bounded to 8 MiB a stream.

        stderr may begin with what the start-up files of the login shell print there; stdout does not. A program that is
        not there ends with 127, or as the login shell has it.
        """
        out, err = _Head(), _Head()
        with files.opened(feed) as file, self._session(argv, deadline) as (session, later):
            session.into(out, err)
            code = _converse(session, later, file, feed)
            return Completed(code, bytes(out), bytes(err))

    def push(self, source: Path | bytes, path: str, deadline: Deadline, *, executable: bool = False) -> None:
        """Write to a temporary name beside ``path``, then rename: a cut leaves nothing under it. Parents are made.

        A loss of power on the device may: nothing is flushed to its disk.
        """
        feed = Feed(source)
        name = PurePosixPath(path).name
        if not name or name == "..":
            raise UserError(f"{printable(path)!r} names no file")
        there = files.there(path)
        folder = str(PurePosixPath(there).parent)
        temporary = f"{folder}/.{name[:100]}.{secrets.token_hex(6)}"
        with files.opened(feed) as file:
            size = feed.size
            words = [folder, temporary, there, str(size), "755" if executable else "644"]
            out, err = _Head(), _Head()
            # Not killed when it is late: it finds its input cut short, and takes the temporary file away.
            with self._session(["sh", "-c", files.PUSH, "sh", *words], deadline, kill=False) as (session, later):
                session.into(out, err)
                code = _converse(session, later, file, feed)
        if code == files.CUT:
            raise DeviceError(f"{printable(path)} did not arrive whole on {self.address}", hint="try again")
        if code != 0:
            raise files.failed(self.address, path, Completed(code, bytes(out), bytes(err)))

    def pull(self, path: str, destination: Path, deadline: Deadline) -> None:
        """Fetch a file as long as it is when the call begins; it appears under its name only when it is whole.

        Refused above 16 GiB, and where it would leave this machine without free space.
        """
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            fd, name = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.")
        except OSError as error:
            raise files.local(destination, error) from error
        temporary = Path(name)
        try:
            with os.fdopen(fd, "wb", buffering=0) as file:
                self._pull(path, file, destination, deadline)
            try:
                temporary.chmod(0o644)
                temporary.replace(destination)
            except OSError as error:
                raise files.local(destination, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _pull(self, path: str, file: io.FileIO, destination: Path, deadline: Deadline) -> None:
        sink, err = files.Sized(file, destination, printable(path)), _Head()
        with self._session(["sh", "-c", files.PULL, "sh", files.there(path)], deadline) as (session, later):
            session.into(sink, err)
            code = session.converse(later, until=sink.whole)
        if code is not None and code != 0:
            raise files.failed(self.address, path, Completed(code, b"", bytes(err)))
        if not sink.whole():
            raise DeviceError(f"{printable(path)} became shorter while it was fetched", hint="try again")
        try:
            os.fsync(file.fileno())
        except OSError as error:
            raise files.local(destination, error) from error

    def spawn(self, argv: Sequence[str], deadline: Deadline) -> SshChannel:
        """Start a program that answers lines. It counts among the 4 until it is closed."""
        from meltbench.targets.ssh.channel import SshChannel

        self._take_slot(deadline)
        try:
            session, _ = self._start(argv, deadline)
        except BaseException:
            self._slots.release()
            raise
        return SshChannel(session, self._slots.release)

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


def _converse(session: Session, deadline: Deadline, file: BinaryIO | None, feed: Feed | None) -> int:
    from meltbench.targets.ssh.session import Feeder

    if file is None or feed is None:
        session.close_input()
        return cast("int", session.converse(deadline))
    return cast("int", session.converse(deadline, Feeder(file, feed.size, feed.told)))


class _Head:
    """Keeps the first 8 MiB of a stream and lets the rest go by."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def __call__(self, data: memoryview) -> None:
        self._kept += data[: _MAX_OUTPUT_BYTES - len(self._kept)]

    def __bytes__(self) -> bytes:
        return bytes(self._kept)
