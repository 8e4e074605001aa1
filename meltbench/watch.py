"""Who is told how a run is getting on, and how the user interrupts it."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from types import FrameType, TracebackType


class Watch(Protocol):
    """Told of everything that takes longer than a moment. Never asked anything."""

    def say(self, text: str) -> None:
        """One line worth reading."""

    def warn(self, text: str) -> None:
        """One line that nobody may miss, also who wants no progress."""

    def fetched(self, done: int, total: int | None, what: str = "fetching the model") -> None:
        """Bytes of a download, or of ``what`` else is on its way."""

    def step(self, status: dict[str, Any]) -> None:
        """The probe's state, a few times a second."""


class Interrupts:
    """Counts Ctrl-C while a run is under way: once finishes the run and stops after it, twice aborts it.

    SIGTERM aborts at once. Outside the main thread (a notebook's worker) nothing is caught.

    A signal may come anywhere, also in the middle of an import or of a write to the terminal. So it is only noted when
    it comes, and counted and told when the road looks here next, which ``rest`` makes at once.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._came: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put may interrupt any other call
        self._count = 0
        self.waiting = False  # before a run: there is none to finish
        self._old: dict[int, Any] = {}

    @property
    def finish(self) -> bool:
        """No further run is to be started."""
        return self._heard() >= 1

    @property
    def abort(self) -> bool:
        """The run under way is to be ended now."""
        return self._heard() >= 2

    def rest(self, seconds: float) -> None:
        """Sleep, at most until the next interrupt."""
        with contextlib.suppress(queue.Empty):
            self._tell(self._came.get(timeout=max(seconds, 0.0)))

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        self._came.put(number)

    def _heard(self) -> int:
        while not self._came.empty():
            self._tell(self._came.get())
        return self._count

    def _tell(self, number: int) -> None:
        self._count += 2 if number == signal.SIGTERM else 1
        if self.waiting:
            self._watch.warn("stopping: no run is under way")
        elif self._count < 2:
            self._watch.warn("finishing this run, then stopping (Ctrl-C again to abort it)")
        elif self._count <= 3:
            self._watch.warn("aborting: stopping the engine and storing what there is")
