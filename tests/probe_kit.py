"""Runs the real probe in a folder of the test's own. MELTBENCH_TEST_PROBE names another binary to try."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench.probe import build
from meltbench.probe.job import word
from meltbench.probe.journal import read_journal

if TYPE_CHECKING:
    from meltbench.probe.journal import Journal
    from meltbench.records import Stream

PYTHON = sys.executable


@cache
def probe_path() -> str:
    return os.environ.get("MELTBENCH_TEST_PROBE") or str(build.binary(build.host_target()))


def call(*args: str | Path, timeout: float = 60, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([probe_path(), *map(str, args)], capture_output=True, timeout=timeout, **more)


def sh(script: str) -> str:
    """The words that run a shell script."""
    return f"sh -c {word(script)}"


def py(script: str) -> str:
    """The words that run a Python script."""
    return f"{word(PYTHON)} -c {word(script)}"


class Lab:
    """One root with one job. ``run_id`` is the test's own, so leftovers of another cannot be taken for ours."""

    def __init__(self, root: Path) -> None:
        self.root = root / "runs"
        self.run_id = f"t{uuid.uuid4().hex[:12]}"
        self.dir = self.root / self.run_id
        (self.dir / "req").mkdir(parents=True)

    def job(self, *lines: str) -> None:
        (self.dir / "job").write_text("\n".join(["meltjob 1", f"run {self.run_id}", *lines]) + "\n")

    def request(self, name: str, path: str, more: str = "") -> None:
        text = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n"
        (self.dir / "req" / name).write_bytes(text.encode())

    def run(self, *lines: str) -> Journal:
        self.job(*lines)
        done = call("run", self.dir)
        assert done.returncode == 0, done.stderr
        return self.journal()

    def start(self, *lines: str) -> subprocess.Popen[bytes]:
        """The job in the background; returns when its processes are in the state."""
        self.job(*lines)
        running = subprocess.Popen([probe_path(), "run", str(self.dir)], stderr=subprocess.DEVNULL)
        self.until(lambda: self.state().get("pid", 0) > 0)
        return running

    def journal(self) -> Journal:
        return read_journal(self.dir / "journal")

    def state(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.dir / "state").read_bytes()))
        except FileNotFoundError:
            return {}

    def until(self, true: Any, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.005)

    def left(self) -> list[int]:
        """Processes that still carry the run's mark."""
        mark, found = f"MELTBENCH_RUN={self.run_id}".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                text = path.read_bytes()
            except OSError:
                continue
            if mark in text.split(b"\0"):
                found.append(int(path.parts[2]))
        return found


def only(journal: Journal, channel: str, kind: str | None = None) -> Stream:
    """The one stream of a channel (and kind)."""
    (stream,) = [s for s in journal.channel(channel) if kind in (None, s.kind)]
    return stream


def result(journal: Journal) -> tuple[str, str]:
    assert journal.end is not None
    assert journal.dropped_bytes == 0
    return journal.end["result"], journal.end["reason"]
