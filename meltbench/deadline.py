"""How long to wait: a point in time that is handed down and clamped, never restarted; and when to try once more."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from meltbench.errors import DeadlineExceeded, LinkLost

if TYPE_CHECKING:
    from collections.abc import Callable

_TRIES, _PAUSE_S = 5, 1.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Deadline:
    """Ends at ``at_s`` on this machine's monotonic clock.

    >>> Deadline.after(5).within(60).remaining() <= 5
    True
    """

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """A deadline ``seconds`` from now."""
        return cls(time.monotonic() + seconds)

    def within(self, seconds: float) -> Deadline:
        """The earlier of this deadline and ``seconds`` from now."""
        return Deadline(min(self.at_s, time.monotonic() + seconds))

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - time.monotonic())

    def check(self, what: str) -> None:
        """Raise DeadlineExceeded naming ``what`` when nothing is left."""
        if self.remaining() <= 0:
            raise DeadlineExceeded(f"{what} took longer than it was given", hint="try again")


def patiently(call: Callable[[], _T], pause_s: float | None = None) -> _T:
    """What ``call`` returns, which may be made again over a link that may be cut: five times, pausing longer each time.

    Raises LinkLost when the link does not come back.
    """
    for attempt in range(1, _TRIES):
        try:
            return call()
        except LinkLost:
            time.sleep((_PAUSE_S if pause_s is None else pause_s) * attempt)
    return call()
