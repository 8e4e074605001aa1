"""A device whose shell is reached: commands, and files that go through commands of it (ssh and adb do both so)."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol, cast

from meltbench.errors import DeviceError, UserError
from meltbench.paths import sha256_of
from meltbench.targets import Completed, Feed, printable
from meltbench.targets.shell import files
from meltbench.targets.shell.streams import Head

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from meltbench.deadline import Deadline
    from meltbench.targets.shell.streams import Feeder, Sink


_HASHED_BYTES = 64 << 20


class Session(Protocol):
    """A command that has been started. Not for two threads at once."""

    name: str

    def into(self, out: Sink, err: Sink) -> None:
        """Where the streams go from now on."""

    def converse(self, deadline: Deadline, feed: Feeder | None = None, until: Callable[[], bool] = bool) -> int | None:
        """Feed it, without ``feed`` nothing, and read it to its end: its exit status, negative for a signal; None when
        ``until`` was met before."""

    def ask(self, line: bytes, answered: Callable[[], bool], deadline: Deadline) -> None:
        """Give it a line and read until ``answered``, or until it has ended. While it waits nothing crosses the link.

        Raises LinkLost where it has not ended, and can say no more.
        """

    def close(self, *, kill: bool) -> None:
        """Leave it. ``kill``: end it if it still runs."""


class ShellTransport(ABC):
    """What ssh and adb have in common; each starts commands in its own way."""

    address: str

    @abstractmethod
    def _session(
        self, argv: Sequence[str], deadline: Deadline, *, kill: bool = True
    ) -> AbstractContextManager[tuple[Session, Deadline]]:
        """A command that has started, and the deadline, later by the time that a person took to answer."""

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        """Run a command to its end, its output bounded to 8 MiB a stream.

        stderr may begin with what the start-up files of the login shell print there; stdout does not. A program that is
        not there ends with 127, or as the login shell has it.
        """
        out, err = Head(), Head()
        with files.opened(feed) as feeder, self._session(argv, deadline) as (session, later):
            session.into(out, err)
            code = cast("int", session.converse(later, feeder))
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
        with files.opened(feed) as feeder:
            words = [folder, temporary, there, str(feed.size), "755" if executable else "644", _sha256(source)]
            out, err = Head(), Head()
            # Not killed when it is late: it finds its input cut short, and takes the temporary file away.
            with self._session(["sh", "-c", files.PUSH, "sh", *words], deadline, kill=False) as (session, later):
                session.into(out, err)
                code = cast("int", session.converse(later, feeder))
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
        sink, err = files.Sized(file, destination, printable(path)), Head()
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


def _sha256(source: Path | bytes) -> str:
    """Of bytes or a file of this machine; nothing for a large one, which goes by the push cache and is hashed there.

    Raises DeviceError for one that cannot be read.
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    try:
        return sha256_of(source) if source.stat().st_size <= _HASHED_BYTES else ""
    except OSError as error:
        raise files.local(source, error) from error
