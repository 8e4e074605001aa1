"""One command on a device: its three streams, its end, and what is done about it when it takes too long."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from typing import TYPE_CHECKING

import paramiko

from meltbench.errors import DeadlineExceeded, DeviceError, LinkLost
from meltbench.targets import Completed, printable
from meltbench.targets.shell import quoting
from meltbench.targets.shell.streams import AfterMark, nowhere

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meltbench.deadline import Deadline
    from meltbench.targets.shell.streams import Feeder, Sink
    from meltbench.targets.ssh.link import Link

_READ_BYTES = 256 << 10
_OPEN_S = 10.0
_REFUSED_S = 3.0
_LOOK_S = 2.0  # how often a call looks whether the other end is silent
_BLOCKED_S = 0.2  # how long it feeds without looking at what comes back
_LEFT_OPEN_S = 1.0
_NO_STATUS = -1000
_LAST_BYTES = 1000


class Session:
    """A command that has been started. Not for two threads at once."""

    def __init__(self, link: Link, argv: Sequence[str], deadline: Deadline) -> None:
        """Start it. Raises LinkLost before anything of it can have run, or DeviceError."""
        mark = f"meltbench-{secrets.token_hex(16)}"
        command = quoting.line(argv, mark)
        self.link = link
        self.name = printable(argv[0])[:80]
        self._started_s = time.monotonic()
        self._bell = threading.Event()
        self._channel = _open(link, self.name, deadline)
        self._channel.exit_status = _NO_STATUS  # paramiko's own -1 is also the end by SIGHUP
        link.transport.bells[self._channel.chanid] = self._bell
        self._out = AfterMark(mark)
        self._err: Sink = nowhere
        self._last = b""
        self._answer: threading.Event | None = None
        # The bell is rung for data, the end of the streams, the exit status and the loss of the link.
        bell = _OnlyRings(self._bell)
        self._channel.in_buffer.set_event(bell)  # type: ignore[arg-type]
        self._channel.in_stderr_buffer.set_event(bell)  # type: ignore[arg-type]
        with link.explained(f"starting {self.name}", deadline):
            link.request(self._channel, "exec", command, reply=True)

    def into(self, out: Sink, err: Sink) -> None:
        """Where the streams go from now on."""
        self._out.sink, self._err = out, err

    def converse(self, deadline: Deadline, feed: Feeder | None = None, until: Callable[[], bool] = bool) -> int | None:
        """Feed it, without ``feed`` nothing, and read it to its end: its exit status, negative for a signal; None when
        ``until`` was met before.

        A link whose other end is silent is noticed here, by asking it after some seconds of silence.
        """
        with self.link.call(deadline), self.link.explained(f"{self.name} was under way", deadline):
            if feed is None:
                with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
                    self._channel.shutdown_write()
            while not self._step() and not until():
                if deadline.remaining() <= 0:
                    raise DeadlineExceeded(f"{self.name} did not end in time", hint="try again")
                if feed is not None and not feed.given:
                    self._give(feed, deadline)
                else:
                    self._bell.wait(min(_LOOK_S, deadline.remaining()))
                self.link.listen(self._started_s)
            return None if until() else self._status()

    def _give(self, feed: Feeder, deadline: Deadline) -> None:
        self._channel.settimeout(max(0.001, min(_BLOCKED_S, deadline.remaining())))
        try:
            while not self._bell.is_set() and deadline.remaining() > 0:
                view = feed.next()
                if not view:
                    self._channel.shutdown_write()
                    return
                sent = self._channel.send(view)  # type: ignore[arg-type]
                if not sent:
                    raise OSError("closed")
                feed.took(sent)
        except TimeoutError:
            return  # its window is closed: it takes its time over what it has
        except OSError:
            if not self._channel.closed:
                raise
            feed.given = True  # the command ended before it took all; its status says why

    def ask(self, line: bytes, answered: Callable[[], bool], deadline: Deadline) -> None:
        """Give it a line and read until ``answered``, or until it has ended; meanwhile not even a question is sent."""
        with self.link.call(deadline), self.link.explained(f"{self.name} was asked", deadline):
            self._write(line, deadline)
            while not self._step() and not answered():
                if deadline.remaining() <= 0:
                    raise DeadlineExceeded(f"{self.name} did not answer in time", hint="try again")
                self._bell.wait(deadline.remaining())
            if not answered() and not self.link.still_there():
                raise EOFError

    def _write(self, data: bytes, deadline: Deadline) -> None:
        view = memoryview(data)
        while view:
            self._channel.settimeout(max(0.001, deadline.remaining()))
            try:
                sent = self._channel.send(view)  # type: ignore[arg-type]
            except TimeoutError:
                raise DeadlineExceeded(f"{self.name} took no input in time", hint="try again") from None
            if not sent:
                raise EOFError
            view = view[sent:]

    def _step(self) -> bool:
        """Pass on what has come. True when all is over: the streams have ended and the status is known."""
        channel = self._channel
        self._bell.clear()
        ended = channel.closed or (bool(channel.eof_received) and channel.status_event.is_set())
        read = False
        while channel.recv_ready():
            self._out(memoryview(channel.recv(_READ_BYTES)))
            read = True
        while channel.recv_stderr_ready():
            data = channel.recv_stderr(_READ_BYTES)
            self._last = data[-_LAST_BYTES:]
            self._err(memoryview(data))
            read = True
        if ended or not channel.status_event.is_set():
            return ended
        # It has ended, and its streams have not: something that it left behind holds them open, or what it wrote last
        # is under way still, over a link that loses much. What comes before an answer on this channel is all.
        if read:
            self._answer = None
        elif self._answer is not None and self._answer.is_set():
            return True
        elif not self._bell.wait(_LEFT_OPEN_S) and self._answer is None:
            self._answer = self.link.ask(channel)
        self._bell.set()
        return False

    def _status(self) -> int:
        status = self._channel.exit_status
        if status == _NO_STATUS:
            if not self.link.still_there():
                raise EOFError
            raise DeviceError(f"{self.link} ended {self.name} without telling its status", hint="try again")
        if not self._out.found:
            why = Completed(status, self._out.prose, self._last).complaint()
            raise DeviceError(
                f"the login shell of {self.link} did not run {self.name}: {why}",
                hint="it takes a user whose shell may run commands",
            )
        return status

    def close(self, *, kill: bool) -> None:
        """Leave it. ``kill``: if it still runs, SIGKILL to its process group, which sshd does from OpenSSH 7.9 on."""
        channel = self._channel
        # Where the link is gone already there is nothing to tell.
        with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
            if kill and not channel.status_event.is_set():
                self.link.request(channel, "signal", "KILL", reply=False)
            channel.close()
        self.link.transport.bells.pop(channel.chanid, None)
        self.link.transport.answers.pop(channel.chanid, None)


class _OnlyRings:
    """A bell for two buffers: either rings it, neither takes the ring of the other away."""

    def __init__(self, bell: threading.Event) -> None:
        self.set = bell.set

    def clear(self) -> None:
        """Left to who listens."""


def _open(link: Link, name: str, deadline: Deadline) -> paramiko.Channel:
    """A channel for one command. A server that has too many is asked again for a moment: one may just be ending."""
    refused_until = deadline.within(_REFUSED_S)
    with link.call(deadline):
        while True:
            try:
                return link.transport.open_session(timeout=max(0.001, deadline.within(_OPEN_S).remaining()))
            except paramiko.ChannelException as error:
                if refused_until.remaining() <= 0:
                    raise DeviceError(
                        f"{link} refuses another command: {printable(error.text)}",
                        hint="raise MaxSessions in its sshd_config to 4 or more",
                    ) from error
                time.sleep(0.05)
            except (paramiko.SSHException, EOFError, OSError) as error:
                link.close()
                if deadline.remaining() <= 0:
                    raise DeadlineExceeded(f"{name} was not started in time", hint="try again") from error
                raise LinkLost(f"the link to {link} was lost before {name}", hint="try again") from error
