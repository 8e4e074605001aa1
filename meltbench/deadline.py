"""A point in time that a wait may not pass, handed down and clamped, never restarted."""

from __future__ import annotations

import time
from dataclasses import dataclass

from meltbench.errors import DeadlineExceeded


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
