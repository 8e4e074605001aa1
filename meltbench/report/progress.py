"""How far a run is, in words: from the probe's state, which a device writes and which may lack anything."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.report.units import quantity
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_WORDS = {
    "idle_before": "idle window before",
    "idle_after": "idle window after",
    "spawn": "starting the engine",
    "ready": "loading the model",
    "requests": "answering requests",
    "http": "answering requests",
    "stop": "stopping the engine",
    "exec": "running the command",
    "window": "measuring idle",
    "gate": "waiting for a steady temperature",
    "battery": "waiting for the battery to charge",
    "lease": "waiting for the target",
    "idle": "idle window",
    "load": "load on all processors",
    "same": "equal loads, one after the other",
    "charge": "drawing the battery down",
    "set": "setting the device",
    "undo": "setting the device",
    "try": "setting the device",
    "wait": "measuring, with nothing asked of the device",
    "configure": "getting the compiler ready",
    "build": "building the engine",
    "dequantise": "dequantising the weights",
    "layers": "building the model",
    "check": "checking the model",
}
# Ops that count what they are made of.
_PARTS = {"build": "files", "layers": "layers"}


@dataclass(frozen=True)
class Look:
    """What one look at a run showed. ``share`` of the step that is done, 0 to 1, None where nobody knows."""

    words: str
    detail: str
    share: float | None


class Steps:
    """Turns states of the probe into words, and remembers since when each step is under way.

    ``lengths``: seconds of steps whose length the plan fixes, by their names.
    """

    def __init__(self, lengths: Mapping[str, float] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._lengths, self._clock = dict(lengths or {}), clock
        self._step: object = None
        self._since = 0.0

    def look(self, status: Mapping[str, Any]) -> Look:
        """What is under way, how far it is, and how long it may still take where that is known."""
        op, name = str(status.get("op", "")), str(status.get("name", ""))
        words = _WORDS.get(name) or _WORDS.get(name.rpartition("_")[0]) or _WORDS.get(op) or "starting"
        now, step = self._clock(), (status.get("step"), op, name)
        if step != self._step:
            self._step, self._since = step, now
        elapsed, limit = now - self._since, self._lengths.get(name)
        told, told_limit = _number(status.get("elapsed_ms")), _number(status.get("limit_ms"))
        if told is not None and told_limit:  # requests in a circle: the device knows better
            elapsed, limit = told / 1e3, told_limit / 1e3
        if op in ("gate", "lease") and limit:
            said = f"{status['said']}; " if status.get("said") else ""
            return Look(words, f"{said}{seconds(elapsed)} of at most {seconds(limit)}", min(elapsed / limit, 1.0))
        done, of = _number(status.get("done")) or 0, _number(status.get("of")) or 0
        if of and op == "http":
            at = min(int(done) + 1, int(of))
            return Look(words, f"request {at} of {int(of)}, {seconds(elapsed)}", min(done / of, 1.0))
        if of and op in _PARTS:
            return Look(words, f"{int(done)} of {int(of)} {_PARTS[op]}, {seconds(elapsed)}", min(done / of, 1.0))
        if limit:
            asked = f"{int(done)} requests, " if done and op == "http" else ""
            left = max(limit - elapsed, 0)
            text = f"{asked}{seconds(min(elapsed, limit))} of {seconds(limit)}, {seconds(left)} left"
            return Look(words, text, min(elapsed / limit, 1.0))
        return Look(words, seconds(elapsed), None)


def _number(value: object) -> float | None:
    """A count the device gave, None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if 0 <= value < 1e15 else None


def seconds(lasted: float) -> str:
    """A time in whole seconds, minutes or hours."""
    if lasted < 60:
        return f"{lasted:.0f} s"
    minutes, rest = divmod(round(lasted), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Quiet:
    """A Watch that tells only what must not be missed."""

    def say(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """One line on stderr."""
        to_stderr(printable(text))

    def fetched(self, done: int, total: int | None, what: str = "") -> None:
        """Nothing."""

    def step(self, status: dict[str, Any]) -> None:
        """Nothing."""


class Lines:
    """A Watch that gives a line to ``write`` whenever something else is under way."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._steps = Steps()
        self._last = ""

    def say(self, text: str) -> None:
        """One line."""
        self._write(printable(text))

    warn = say

    def fetched(self, done: int, total: int | None, what: str = "fetching the model") -> None:
        """One line when a download begins."""
        del done
        size = f", {quantity(total, 'B')}" if total else ""
        self._once(f"{what}{size}")

    def step(self, status: dict[str, Any]) -> None:
        """One line when the step of a run changes."""
        if status.get("state") == "running":
            self._once(self._steps.look(status).words)

    def _once(self, text: str) -> None:
        if text != self._last:
            self._last = text
            self.say(text)


def to_stderr(text: str) -> None:
    """Write one line to stderr, if anybody reads it."""
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
