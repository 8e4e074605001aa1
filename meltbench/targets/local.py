"""The machine meltbench itself runs on, reached the way every other target is."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from meltbench.errors import DeadlineExceeded, DeviceError
from meltbench.targets import Completed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meltbench.deadline import Deadline
    from meltbench.targets import Feed

_MAX_OUTPUT_BYTES = 8 << 20


class LocalTransport:
    """Runs, copies and spawns on this machine; no shell is ever involved."""

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        """Run a command to its end, its output bounded to 8 MiB a stream."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, _stdin(feed) as given:
            with _explained(argv[0]):
                # A session of its own: Ctrl-C is for the controller, which knows what to do with it.
                process = subprocess.Popen(argv, stdin=given, stdout=out, stderr=err, start_new_session=True)
            try:
                code = process.wait(deadline.remaining())
            except subprocess.TimeoutExpired:
                raise DeadlineExceeded(f"{argv[0]} did not answer in time", hint="try again") from None
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            return Completed(code, _head(out.fileno()), _head(err.fileno()))

    def push(self, source: Path | bytes, path: str, deadline: Deadline, *, executable: bool = False) -> None:
        """Copy to a temporary name beside ``path``, then rename."""
        deadline.check(f"copying {path}")
        with _explained(path):
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            _replace(source, target, 0o755 if executable else 0o644)

    def pull(self, path: str, destination: Path, deadline: Deadline) -> None:
        """Copy a file of the target; it appears under its name only when it is whole."""
        deadline.check(f"fetching {path}")
        with _explained(str(destination)):
            destination.parent.mkdir(parents=True, exist_ok=True)
            _replace(Path(path), destination, 0o644)

    def spawn(self, argv: Sequence[str], deadline: Deadline) -> LocalChannel:
        """Start a program that answers lines."""
        deadline.check(f"starting {argv[0]}")
        with _explained(argv[0]):
            return LocalChannel(argv)

    def close(self) -> None:
        """There is nothing to leave."""


class LocalChannel:
    """A child process with a line-by-line conversation over its pipes."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )

    def ask(self, line: bytes, deadline: Deadline) -> bytes:
        """Send one line, wait for one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        fd, answer = self._process.stdout.fileno(), b""
        try:
            self._process.stdin.write(line.rstrip(b"\n") + b"\n")
        except BrokenPipeError:
            raise DeviceError("the program on the target ended", hint="run the command again") from None
        while not answer.endswith(b"\n"):
            if not select.select([fd], [], [], deadline.remaining())[0]:
                raise DeadlineExceeded("the program on the target did not answer in time", hint="try again")
            more = os.read(fd, 4096)
            if not more or len(answer) > 65536:
                raise DeviceError("the program on the target ended or answered nonsense", hint="run the command again")
            answer += more
        return answer

    def close(self) -> None:
        """Close its stdin, wait a moment, then kill it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def _stdin(feed: Feed | None) -> Iterator[int | IO[bytes]]:
    """A file to read from: the one that is given, from its offset on, or what holds the bytes; else nothing."""
    if feed is None:
        yield subprocess.DEVNULL
        return
    if isinstance(feed.source, bytes):
        with tempfile.TemporaryFile() as file:
            file.write(feed.source[feed.offset :])
            file.seek(0)
            yield file
    else:
        with _explained(str(feed.source)), feed.source.open("rb") as file:
            file.seek(feed.offset)
            yield file


def _head(fd: int) -> bytes:
    return os.pread(fd, _MAX_OUTPUT_BYTES, 0)


def _replace(source: Path | bytes, target: Path, mode: int) -> None:
    fd, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as out:
            if isinstance(source, bytes):
                out.write(source)
            else:
                with source.open("rb") as data:
                    shutil.copyfileobj(data, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        temporary.chmod(mode)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = {
            28: "free some space and try again",
            13: "check the permissions of that path",
            2: "check that it is there",
        }.get(error.errno or 0)
        raise DeviceError(f"{error.filename or what}: {error.strerror or error}", hint=hint) from error
