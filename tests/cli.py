"""Runs the real command line in a process of its own, with a store and a target folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

QUICK = ("--set", "idle_s=0.3", "--set", "max_tokens=16")


def heed_interrupts() -> None:
    """A background job of a shell ignores Ctrl-C, and its children inherit that; a person's terminal does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Bench:
    """A place to run meltbench in: model and probe come from the user's cache, everything else is in ``home``."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()  # what starts the command line, such as a program that takes rights away
    gated: bool = False  # else no run waits for a steady temperature: that takes a minute where there are zones

    @property
    def data(self) -> Path:
        return self.home / "data"

    def environment(self) -> dict[str, str]:
        own = {"XDG_STATE_HOME": str(self.home / "state"), "MELTBENCH_DATA": str(self.data), "PYTHONWARNINGS": "error"}
        return {**os.environ, **own, **self.env}

    def words(self, *args: str) -> tuple[str, ...]:
        """What the command line is given for these."""
        if args[0] in ("run", "exec") and not self.gated and not any("gate_timeout_s" in word for word in args):
            return (args[0], "--set", "gate_timeout_s=0", *args[1:])
        return args

    def start(self, *args: str) -> subprocess.Popen[str]:
        argv = [*self.prefix, sys.executable, "-m", "meltbench", *self.words(*args)]
        return subprocess.Popen(
            argv,
            env=self.environment(),
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
            start_new_session=True,  # so that a test can do to its whole group what a terminal does
        )

    def start_detached(self, sleep_s: int) -> None:
        """Meter a sleep, and kill the controller once it sleeps."""
        controller = self.start("exec", "--set", "idle_s=0.2", "--", "sleep", str(sleep_s))
        self.wait_for(lambda s: s.get("op") == "exec")
        controller.kill()
        controller.communicate()

    def run(self, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        process = self.start(*args)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            # Ended as a person would, so that nothing of it runs on beside the tests after this one.
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=60)
            finally:
                process.kill()
            raise
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def json(self, *args: str, code: int = 0, timeout: float = 120) -> Any:
        done = self.run(args[0], "--json", *args[1:], timeout=timeout)
        assert done.returncode == code, done.stderr + done.stdout
        return json.loads(done.stdout)

    def jobs(self) -> list[Path]:
        return sorted((self.home / "state" / "meltbench" / "target" / "runs").glob("*/state"))

    def state(self) -> dict[str, Any]:
        for path in self.jobs():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        return {}

    def wait_for(self, what: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            state = self.state()
            if state and what(state):
                return state
            time.sleep(0.02)
        raise AssertionError(f"never came: last state {self.state()}")

    def answering(self, done: int = 1) -> dict[str, Any]:
        """Wait until the engine has answered ``done`` requests and works on the next."""
        return self.wait_for(lambda s: s.get("op") == "http" and int(s.get("done", 0)) >= done)

    def processes(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Pid, command line and environment of every process that can be looked at and has not ended."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                environ = (folder / "environ").read_bytes()
                stat = (folder / "stat").read_text()
            except OSError:
                continue
            if stat.rpartition(")")[2].split()[0] != "Z":
                yield int(folder.name), command, environ

    def leftovers(self) -> list[str]:
        """Command lines of processes that belong to a job of this bench."""
        found = []
        for _, command, environ in self.processes():
            job = b"meltprobe" in command and str(self.home).encode() in command
            if job or (b"MELTBENCH_RUN=" in environ and str(self.home).encode() in environ):
                found.append(command.replace(b"\0", b" ").decode("utf-8", "replace"))
        return found

    def no_leftovers(self, seconds: float = 10) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.leftovers():
                return True
            time.sleep(0.05)
        raise AssertionError(f"left running: {self.leftovers()}")

    def engine_pid(self, words: Sequence[bytes] = (b"--ctx-size",), seconds: float = 0) -> int:
        """The pid of the engine, whose command line has these words, once it is started."""
        end = time.monotonic() + seconds
        while True:
            for pid, command, environ in self.processes():
                if all(word in command for word in words) and str(self.home).encode() in environ:
                    return pid
            if time.monotonic() >= end:
                raise AssertionError("no engine")
            time.sleep(0.02)
