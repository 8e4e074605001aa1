"""The windows of a calibration, from the probe's events: idle, load, idle, load, ..., idle; equal loads; a long one.

A window whose edges were not both seen, or whose step failed, is left out with all that needs it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from meltbench.records import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = re.compile(r"(idle|load|same|charge)_(\d{1,4})", re.ASCII)
_SAID = re.compile(rb"(\d{1,18}) loops (\d{1,5}) threads (\d{1,18}) ns")


class Step(NamedTuple):
    """One load with the idle windows on both sides of it."""

    before: Phase
    load: Phase
    after: Phase


@dataclass(frozen=True)
class Windows:
    """All windows of a calibration. ``same``: loads of one length, one after the other. ``charge``: the long load."""

    steps: tuple[Step, ...] = ()
    same: tuple[Phase, ...] = ()
    charge: Phase | None = None

    @property
    def span(self) -> Phase | None:
        """From the first idle window to the end of the last; None where there is no step."""
        return Phase("steps", self.steps[0].before.t0_ns, self.steps[-1].after.t1_ns) if self.steps else None


def name(kind: str, number: int) -> str:
    """What the step of a job is called."""
    return f"{kind}_{number}"


def windows(events: Sequence[dict[str, Any]]) -> Windows:
    """The windows that a journal's events show whole."""
    begun: dict[str, int] = {}
    found: dict[str, dict[int, Phase]] = {"idle": {}, "load": {}, "same": {}, "charge": {}}
    for event in events:
        match = _NAME.fullmatch(str(event.get("name"))) if event.get("event") == "step" else None
        if match is None:
            continue
        if event.get("state") == "start":
            begun[match[0]] = event["boot_ns"]
        elif event.get("result") == "ok" and match[0] in begun and event["boot_ns"] > begun[match[0]]:
            found[match[1]][int(match[2])] = Phase(match[0], begun[match[0]], event["boot_ns"])
    idle, load = found["idle"], found["load"]
    steps = [Step(idle[n], load[n], idle[n + 1]) for n in sorted(load) if n in idle and n + 1 in idle]
    same = tuple(found["same"][n] for n in sorted(found["same"]))
    return Windows(tuple(steps), same, found["charge"].get(0))


def loops_per_s(raw: Sequence[bytes]) -> float | None:
    """The work a second that the probe's burn said it did, by all threads together; None where it said nothing."""
    for line in raw:
        if (said := _SAID.fullmatch(line.strip())) and int(said[3]) > 0:
            return int(said[1]) / (int(said[3]) / 1e9)
    return None
