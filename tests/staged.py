"""The real command line, which stands still at a stage of a run until it is told to go on.

    python staged.py STAGE WORDS...     the words are meltbench's

At the stage it says so in a line on the descriptor $STAGED_SAY, and goes on for a line on $STAGED_HEAR. Waits of the
product that are of seconds are cut short, so that tests are, unless $STAGED_PATIENT is set. A stage is one of

    connect             before the first connection
    before:WORD         before the first command that has WORD among its words is sent; after:WORD: it was answered
    lost:WORD           after it was done there, and its answer never comes: a cut between the two
    late:WORD           never: the link is cut as it is sent, and it arrives right before something is removed there
    probe               in the push of the probe: what receives it runs, and has nothing of it yet
    start               before the job is sent
    waiting             when it waits for a target that another controller holds
    push                in the middle of a large file that is pushed into the cache
    pull                in the middle of the fetch of a run
    fetched             before anything of the fetched run is stored
"""

from __future__ import annotations

import os
import sys
from typing import Any


class Stage:
    def __init__(self) -> None:
        self.name, _, self.word = sys.argv[1].partition(":")
        self.passed = False

    def here(self) -> None:
        """Stand still, the first time."""
        if self.passed:
            return
        self.passed = True
        os.write(int(os.environ["STAGED_SAY"]), b"here\n")
        os.read(int(os.environ["STAGED_HEAR"]), 1)

    def meant(self, argv: Any) -> bool:
        return not self.passed and self.word in argv


def impatient() -> None:
    from meltbench import deadline, follow
    from meltbench.probe import client
    from meltbench.targets import cache, lease
    from meltbench.targets.adb import server, session, transport
    from meltbench.targets.ssh import config, link, wire

    session._QUIET_S, transport._ALIVE_S, transport._APPEAR_S = 0.5, 1.0, 1.0
    server._OPEN_S, server._CONNECT_S = 1.5, 2.0
    config._CONNECT_S = 2.0
    wire.UNANSWERED_S = 1.5
    link._QUIET_S, link._ANSWER_S = 0.5, 1.0
    client._CALL_S = 8.0
    deadline._PAUSE_S = cache._PAUSE_S = float(os.environ.get("STAGED_PAUSE_S", "0.1"))
    follow._AGAIN_S = (0.2, 0.5)
    lease.TTL_S = float(os.environ.get("STAGED_TTL_S", "60"))
    lease._RETRY_S = lease._LOOK_S = 0.3


def before(owner: Any, name: str, stage: Stage, when: Any = lambda *_: True) -> None:
    """Have a function of the product stand at the stage before it does its work, when its arguments are such."""
    done = getattr(owner, name)

    def standing(*words: Any, **more: Any) -> Any:
        if when(*words):
            stage.here()
        return done(*words, **more)

    setattr(owner, name, standing)


def at_command(stage: Stage) -> None:
    """Stand before a command is sent, or after it was answered."""
    from meltbench.errors import LinkLost
    from meltbench.targets.shell import ShellTransport

    run, under_way = ShellTransport.run, []

    def running(self: Any, argv: Any, deadline: Any, **more: Any) -> Any:
        if under_way and argv[0] == "rm":
            run(self, under_way.pop(), deadline)
        meant = stage.meant(argv)
        if meant and stage.name == "late":
            stage.passed = True
            under_way.append(argv)
            raise LinkLost("the link was cut while it was sent")
        if meant and stage.name == "before":
            stage.here()
        done = run(self, argv, deadline, **more)
        if meant and stage.name != "before":
            stage.here()
            if stage.name == "lost":
                raise LinkLost("the link was cut before the answer came")
        return done

    ShellTransport.run = running  # type: ignore[method-assign]


def in_a_push(stage: Stage) -> None:
    """Stand in the middle of a large file."""
    from meltbench.targets.cache import _Meter

    of = _Meter.of

    def metering(self: Any, sha: str, rest: int) -> Any:
        told = of(self, sha, rest)

        def tell(given: int) -> None:
            told(given)
            if given > rest // 2:
                stage.here()

        return tell if rest > 32 << 20 else told

    _Meter.of = metering  # type: ignore[method-assign]


def stand_at(stage: Stage) -> None:
    from meltbench import collecting
    from meltbench.cli.watching import Terminal
    from meltbench.probe.client import Probe
    from meltbench.targets.adb.server import Server
    from meltbench.targets.adb.session import AdbSession
    from meltbench.targets.shell.files import Sized
    from meltbench.targets.ssh.link import Link
    from meltbench.targets.ssh.session import Session

    def fed(_: Any, __: Any, feeder: Any = None, *___: Any) -> bool:
        return feeder is not None

    if stage.name in ("connect", "probe"):
        before(Link, "connect", stage, lambda *_: stage.name == "connect")
        before(Server, "service", stage, lambda *_: stage.name == "connect")
        before(Session, "converse", stage, lambda *words: stage.name == "probe" and fed(*words))
        before(AdbSession, "converse", stage, lambda *words: stage.name == "probe" and fed(*words))
    places: dict[str, tuple[Any, ...]] = {
        "start": (Probe, "start", stage),
        "waiting": (Terminal, "step", stage, lambda _, status: status.get("op") == "lease"),
        "pull": (Sized, "__call__", stage),
        "fetched": (collecting, "assemble", stage),
    }
    if stage.name in places:
        before(*places[stage.name])
    elif stage.name == "push":
        in_a_push(stage)
    elif stage.word:
        at_command(stage)


if __name__ == "__main__":
    if "STAGED_PATIENT" not in os.environ:
        impatient()
    stand_at(Stage())
    sys.argv[1:2] = []
    from meltbench.cli import main

    main()
