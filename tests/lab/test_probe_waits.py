"""`meltprobe wait`: told of a job's end by the kernel, without looking."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from probe_kit import Lab, call, probe_path, result

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


class Waiter:
    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [probe_path(), "wait", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def in_flock(self) -> bool:
        """By the locks that the kernel lists: one that waits is marked with an arrow."""
        lines = Path("/proc/locks").read_text().splitlines()
        return any("->" in line and f" {self.process.pid} " in line for line in lines)

    def switches(self) -> int:
        """How often it went to sleep of its own accord: a process that looks again and again does."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def waiter(lab: Lab) -> Iterator[Waiter]:
    lab.job("step idle long 60000")
    one = Waiter(lab.dir)
    yield one
    one.close()


def test_it_sleeps_until_the_job_has_ended(lab: Lab, waiter: Waiter) -> None:
    assert call("run", lab.dir, "--detach").returncode == 0
    waiter.ask()
    lab.until(waiter.in_flock)
    before = waiter.switches()
    time.sleep(2)
    assert waiter.switches() == before
    assert call("stop", lab.dir).returncode == 0
    told = waiter.answer()
    assert (told["state"], told["result"], told["reason"], told["alive"]) == ("ended", "stopped", "stop", False)
    waiter.ask()
    assert waiter.answer() == told
    assert waiter.process.stdin is not None
    waiter.process.stdin.close()
    assert waiter.process.wait(10) == 0


def test_before_a_job_was_started_it_says_so(waiter: Waiter) -> None:
    waiter.ask()
    assert waiter.answer() == {"state": "none", "alive": False}


def test_without_a_job_there_is_nothing_to_wait_for(lab: Lab) -> None:
    assert call("wait", lab.dir, input=b"\n").returncode == 73


@pytest.mark.parametrize("victims", [("pid",), ("guard_pid",), ("pid", "guard_pid"), ("guard_pid", "pid")])
def test_it_is_told_also_when_the_probe_is_killed(lab: Lab, waiter: Waiter, victims: tuple[str, ...]) -> None:
    assert call("run", lab.dir, "--detach").returncode == 0
    waiter.ask()
    lab.until(waiter.in_flock)
    lab.until(lambda: lab.state()["state"] == "running")
    state = lab.state()
    if len(victims) == 2:  # so that neither does its duty for the other
        os.kill(state[victims[1]], signal.SIGSTOP)
    for victim in victims:
        os.kill(state[victim], signal.SIGKILL)
    told = waiter.answer()
    assert told["alive"] is False
    if len(victims) == 2:
        assert told["state"] == "running"
        assert call("recover", lab.root).returncode == 0
        assert result(lab.journal()) == ("failed", "probe_killed")
    else:  # the one that was left has done it
        assert told["state"] == "ended"
        assert lab.left() == []


def test_a_waiter_disturbs_nobody_and_does_not_outstay_the_job(lab: Lab, waiter: Waiter, tmp_path: Path) -> None:
    others = [Waiter(lab.dir) for _ in range(5)]
    try:
        for one in others:
            one.ask()
            one.answer()  # not begun yet
        assert call("run", lab.dir, "--detach").returncode == 0
        for one in [waiter, *others]:
            one.ask()
        for one in others:
            lab.until(one.in_flock)
            assert one.process.stdin is not None
            assert one.process.stdout is not None
            one.process.stdin.close()  # its controller goes away
            one.process.stdout.close()
        assert call("recover", lab.root).returncode == 75
        assert call("stop", lab.dir).returncode == 0
        assert waiter.answer()["state"] == "ended"
        for one in others:
            one.process.wait(10)
        waiter.process.send_signal(signal.SIGSTOP)
        assert call("recover", lab.root).returncode == 0
        following = Lab(tmp_path)
        assert result(following.run("step mark m")) == ("done", "")
    finally:
        for one in others:
            one.close()
