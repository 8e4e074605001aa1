"""Looking on at a run that owns itself: often where looking is cheap, and in silence where a link would be measured.

A target that is this very machine is looked at once a second. Of any other nothing is asked while it measures: one
program waits there without waking the processor, and answers once, when the run has ended. Where that answer may have
been lost the target is asked again, and how often that met a run that still measured is part of its conditions.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.deadline import Deadline
from meltbench.errors import DeadlineExceeded, DeviceError, HostKeyError, LinkLost, WrongDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meltbench.live.looking import Live
    from meltbench.probe.client import Probe
    from meltbench.targets import Place
    from meltbench.watch import Interrupts, Watch

_LOOK_S, _MEASURING_S, _PATIENCE = 0.25, 1.0, 5
_TICK_S = 0.25
_AGAIN_S = (1.0, 2.0, 5.0, 10.0, 15.0)  # between tries to reach a target whose link was lost
_FOR_GOOD = (HostKeyError, WrongDevice)  # what no further try will mend
_BACK_S = 30.0  # for a device that was plugged in again to be there, also when somebody wants to go
_LONGER = 2.0  # than what was expected, and than the pause before: until the target is asked once


class Pauses:
    """How long to wait before the next look: long while the run measures, for looking costs the target a fork.

    The last window is of known length, ``last_s``: near its end looks come closer, so that nobody waits for nothing.
    """

    def __init__(self, last_s: float) -> None:
        self._last_s, self._pause_s = last_s, _LOOK_S
        self._ends: float | None = None

    def after(self, status: Mapping[str, Any]) -> float:
        """The pause after a look that showed ``status``."""
        left = _MEASURING_S if status.get("op") in ("idle", "http", "exec") else _LOOK_S
        if status.get("name") == "idle_after":
            now = time.monotonic()
            if self._ends is None:  # at the earliest: it may have begun right after the look before this one
                self._ends = now - self._pause_s + self._last_s
            left = self._ends - now
        self._pause_s = min(max(left, _LOOK_S), _MEASURING_S)
        return self._pause_s


@dataclass(frozen=True)
class Lengths:
    """How long a job takes, s: the idle window that ends it, when it should have ended, and when it must have."""

    last_s: float
    expected_s: float
    longest_s: float


@dataclass(frozen=True)
class Ended:
    """What was seen of a job's end: the last ``status``, and how often a target was asked that still measured."""

    status: Mapping[str, Any]
    looks: int = 0

    @property
    def killed(self) -> bool:
        """Whether the job's own probe could not end it."""
        return self.status.get("state") != "ended"


def follow(
    probe: Probe,
    place: Place,
    folder: str,
    lengths: Lengths,
    watch: Watch,
    interrupts: Interrupts,
    plug_in: Callable[[], object] | None = None,
    live: Live | None = None,
) -> Ended:
    """Look on until the job has ended, however it ends; what a killed probe left is mended then.

    ``live`` looks at its journal meanwhile, over the link too.

    ``plug_in`` gives a device back the cable that was taken from it for the run, where that is the way to it.
    Raises DeviceError when the target stays out of reach; the job goes on without anybody who looks on.
    """
    if place.kind == "local":
        ended = Ended(_watched(probe, folder, watch, interrupts, lengths.last_s, live))
    else:
        silence = Silence(probe, folder, lengths, plug_in, live)
        ended = Ended(silence.wait(watch, interrupts), silence.looks)
    if ended.killed:
        probe.recover()
    return ended


def _watched(
    probe: Probe, folder: str, watch: Watch, interrupts: Interrupts, last_s: float, live: Live | None
) -> Mapping[str, Any]:
    """Look again and again. ``last_s``: length of the idle window that ends the job."""
    stopped, missed, pauses = False, 0, Pauses(last_s)
    while True:
        try:
            status = probe.status(folder)
            missed = 0
        except DeadlineExceeded:
            missed += 1
            if missed > _PATIENCE:
                raise
            continue
        if live is not None:
            live.look()
        watch.step(status)
        if status.get("state") == "ended" or not status.get("alive"):
            return status
        if interrupts.abort and not stopped:
            probe.stop(folder)
            stopped = True
        interrupts.rest(pauses.after(status))


class Silence:
    """Waits for the end of a job and sends nothing meanwhile, but for what ``live`` asks.

    ``looks``: how often the target was asked and was still measuring.
    """

    def __init__(
        self,
        probe: Probe,
        folder: str,
        lengths: Lengths,
        plug_in: Callable[[], object] | None = None,
        live: Live | None = None,
    ) -> None:
        self._plug_in, self._back_s, self._live = plug_in, 0.0, live
        self._probe, self._folder = probe, folder
        self._expected_s, self._longest_s = lengths.expected_s, lengths.longest_s
        self._answers: queue.Queue[dict[str, Any] | DeviceError] = queue.Queue()
        self._stopped = False
        self.looks = 0

    def wait(self, watch: Watch, interrupts: Interrupts) -> Mapping[str, Any]:
        """The status once the job has ended, however it did. Raises DeviceError when the target stays out of reach."""
        began = time.monotonic()
        self._listen()
        ask_at, pause_s, tries = began + _LONGER * self._expected_s, self._expected_s, 0
        while True:
            answer = self._next(watch, interrupts, ask_at)
            if isinstance(answer, DeviceError):
                if isinstance(answer, _FOR_GOOD):
                    raise answer
                self._plug(watch, interrupts, began)
                if tries == 0:
                    watch.say(f"the link is lost ({answer.message}); the run goes on there without it, trying again")
                self._pause(_AGAIN_S[min(tries, len(_AGAIN_S) - 1)], interrupts, answer)
                tries += 1
            try:
                status = answer if isinstance(answer, dict) else self._probe.status(self._folder)
            except DeviceError as error:
                if time.monotonic() > began + self._longest_s + 60:
                    raise
                self._answers.put(error)
                continue
            if status.get("state") == "ended" or not status.get("alive"):
                return status
            self.looks += 1
            if tries:
                watch.say("the link is back, the run goes on")
                self._listen()
            tries, pause_s = 0, pause_s * _LONGER
            ask_at = time.monotonic() + pause_s

    def _plug(self, watch: Watch, interrupts: Interrupts, began: float) -> None:
        """Where the cable was taken away, leave it so until the job should have ended, or a person has had enough."""
        if self._plug_in is None:
            return
        watch.say(f"unplugged: it goes on by itself, and is plugged in again in {self._expected_s:.0f} s at the latest")
        while (left := began + self._expected_s - time.monotonic()) > 0 and not interrupts.abort:
            watch.step({"state": "running", "op": "wait", "name": "wait"})
            interrupts.rest(min(left, _TICK_S))
        self._plug_in()
        self._plug_in, self._back_s = None, time.monotonic() + _BACK_S

    def _listen(self) -> None:
        """Have the target answer once, when the job has ended; the thread ends with the channel."""

        def ask() -> None:
            try:
                self._answers.put(self._probe.wait(self._folder, Deadline.after(self._longest_s + 60)))
            except DeviceError as error:
                self._answers.put(error)

        threading.Thread(target=ask, name=f"waits for {self._folder}", daemon=True).start()

    def _next(self, watch: Watch, interrupts: Interrupts, ask_at: float) -> dict[str, Any] | DeviceError | None:
        """What the target said; None when it is time to ask it."""
        while True:
            try:
                return self._answers.get(timeout=_TICK_S)
            except queue.Empty:
                pass
            seen = None if self._live is None else self._live.look()
            watch.step({"state": "running", "op": "wait", "name": "wait"} if seen is None else dict(seen.status))
            if interrupts.abort and not self._stopped:
                try:
                    self._probe.stop(self._folder)
                    self._stopped = True
                except LinkLost as error:
                    return error
            if time.monotonic() > ask_at:
                return None

    def _pause(self, seconds: float, interrupts: Interrupts, error: DeviceError) -> None:
        if time.monotonic() < self._back_s:
            time.sleep(min(seconds, 1.0))
            return
        if not interrupts.finish:
            interrupts.rest(seconds)
        if interrupts.finish:  # nobody waits for a device that cannot be reached
            raise error
