"""Waiting in silence, with a probe that stands for a target at the end of a link."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from meltbench import follow
from meltbench.errors import HostKeyError, LinkLost
from meltbench.follow import Lengths, Silence
from meltbench.report.progress import Quiet

ENDED = {"state": "ended", "result": "done"}
RUNNING = {"state": "running", "alive": True}


class Target:
    """Answers of a target: what ``wait`` gives once ``over`` is set, and what each look gives in turn."""

    def __init__(self, waits: list[Any], looks: list[Any]) -> None:
        self.waits, self.looks = waits, looks
        self.over = threading.Event()
        self.asked: list[str] = []

    def wait(self, folder: str, deadline: Any) -> dict[str, Any]:
        self.asked.append("wait")
        what = self.waits.pop(0)
        if isinstance(what, Exception):
            raise what
        self.over.wait(20)
        return what

    def status(self, folder: str) -> dict[str, Any]:
        self.asked.append("status")
        what = self.looks.pop(0)
        if isinstance(what, Exception):
            raise what
        return what

    def stop(self, folder: str) -> None:
        self.asked.append("stop")
        self.over.set()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_AGAIN_S", (0.05, 0.05))
    monkeypatch.setattr(follow, "_TICK_S", 0.02)


def calm(count: int = 0) -> Any:
    return SimpleNamespace(finish=count >= 1, abort=count >= 2, rest=time.sleep)


def waited(target: Target, expected_s: float = 30.0, interrupts: Any = None) -> tuple[dict[str, Any], int]:
    silence = Silence(target, "/runs/one", Lengths(0.0, expected_s, 60.0))  # type: ignore[arg-type]
    return dict(silence.wait(Quiet(), interrupts or calm())), silence.looks


def test_rule_nothing_is_asked_until_the_target_says_that_it_has_ended() -> None:
    target = Target([ENDED], [])
    threading.Timer(0.3, target.over.set).start()
    assert waited(target) == (ENDED, 0)
    assert target.asked == ["wait"]


def test_a_target_that_should_have_ended_long_ago_is_asked_and_that_is_counted() -> None:
    target = Target([ENDED], [RUNNING, RUNNING, ENDED])
    assert waited(target, expected_s=0.05) == (ENDED, 2)


def test_a_lost_link_is_made_again_and_a_new_silence_begins() -> None:
    target = Target([LinkLost("reset"), ENDED], [LinkLost("no route"), RUNNING])
    threading.Timer(0.6, target.over.set).start()
    assert waited(target) == (ENDED, 1)
    assert target.asked == ["wait", "status", "status", "wait"]


def test_a_target_that_rebooted_is_found_dead_when_it_is_back() -> None:
    dead = {"state": "running", "alive": False}
    assert waited(Target([LinkLost("closed")], [LinkLost("refused"), dead])) == (dead, 0)


def test_an_answer_that_comes_too_early_ends_nothing() -> None:
    target = Target([RUNNING], [RUNNING, ENDED])
    target.over.set()
    assert waited(target, expected_s=0.05) == (ENDED, 2)
    assert target.asked == ["wait", "status", "status"]


def test_another_host_key_is_no_link_that_comes_back() -> None:
    with pytest.raises(HostKeyError):
        waited(Target([LinkLost("reset")], [HostKeyError("another key", fingerprint="SHA256:x", state="changed")]))


def test_ctrl_c_leaves_a_target_that_cannot_be_reached() -> None:
    began = time.monotonic()
    with pytest.raises(LinkLost):
        waited(Target([LinkLost("reset")], []), interrupts=calm(1))
    assert time.monotonic() - began < 20


def test_aborting_stops_the_job_once() -> None:
    target = Target([ENDED], [])
    assert waited(target, interrupts=calm(2)) == (ENDED, 0)
    assert target.asked == ["wait", "stop"]
