"""Ctrl-C and SIGTERM while a run is under way: noted wherever they come, told and obeyed where the road looks."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from meltbench.report.progress import Lines
from meltbench.watch import Interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator

FINISHING = "finishing this run, then stopping (Ctrl-C again to abort it)"
ABORTING = "aborting: stopping the engine and storing what there is"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def interrupts(said: list[str]) -> Iterator[Interrupts]:
    with Interrupts(Lines(said.append)) as one:
        yield one


def test_a_signal_is_only_noted_where_it_comes(interrupts: Interrupts, said: list[str]) -> None:
    # It may come in the middle of an import or of a write to stderr, where to write again is an error.
    os.kill(os.getpid(), signal.SIGINT)
    assert said == []
    assert (interrupts.finish, interrupts.abort, said) == (True, False, [FINISHING])
    os.kill(os.getpid(), signal.SIGINT)
    assert (interrupts.abort, said) == (True, [FINISHING, ABORTING])


def test_sigterm_aborts_and_a_flood_is_told_a_few_times(interrupts: Interrupts, said: list[str]) -> None:
    for _ in range(20):
        os.kill(os.getpid(), signal.SIGTERM)
    assert interrupts.abort
    assert said == [ABORTING]


def test_before_a_run_there_is_none_to_finish(interrupts: Interrupts, said: list[str]) -> None:
    interrupts.waiting = True
    os.kill(os.getpid(), signal.SIGINT)
    assert (interrupts.finish, said) == (True, ["stopping: no run is under way"])


def test_a_rest_ends_with_the_signal_and_is_whole_without(interrupts: Interrupts, said: list[str]) -> None:
    began = time.monotonic()
    interrupts.rest(0.2)
    interrupts.rest(-1.0)
    assert 0.2 <= time.monotonic() - began < 30
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    interrupts.rest(60.0)
    assert time.monotonic() - began < 30
    assert said == [FINISHING]
    assert interrupts.finish


def test_the_handlers_of_before_are_put_back(said: list[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts(Lines(said.append)):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
