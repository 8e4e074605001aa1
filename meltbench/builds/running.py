"""A compiler, or another tool that takes minutes, run to its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from typing import TYPE_CHECKING, TextIO

from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meltbench.deadline import Deadline

_ENDING_S = 5.0


def run_tool(
    argv: Sequence[str],
    env: dict[str, str],
    log: TextIO,
    deadline: Deadline,
    heed: Callable[[str], None],
    what: str,
) -> int:
    """Run a tool, its lines kept in ``log`` and heeded; returns its exit status. It and all it started are ended when
    this is left early. ``what``: for the error when the deadline has passed."""
    process = subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    out, rest = process.stdout.fileno(), b""
    try:
        while True:
            deadline.check(what)
            if not select.select([out], [], [], min(deadline.remaining(), 1.0))[0]:
                continue
            more = os.read(out, 1 << 16)
            *lines, rest = (rest + more).split(b"\n")
            for line in [*lines, rest] if not more else lines:
                text = printable(line[:4000].decode("utf-8", "replace"))
                log.write(text + "\n")
                heed(text)
            if not more:
                log.flush()
                return process.wait(_ENDING_S)
    finally:
        _end(process)
        process.stdout.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and the group that it leads: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING_S)
