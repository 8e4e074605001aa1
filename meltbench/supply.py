"""The battery before a run: within the window of charge that its profile wants, and fed by nothing from outside.

``Window`` is the rule, fed with looks and nothing else. Below the window a run waits for the battery to be charged, for
a bounded time; above it there is no waiting: idle, a phone takes hours for what it is above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from meltbench.measure.feeding import GAUGES, at_a_look

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meltbench.records import Series
    from meltbench.targets.profile import Profile

State = Literal["waiting", "inside", "below", "above", "unknown"]


@dataclass(frozen=True)
class Level:
    """A look at a battery: its charge, None where nobody tells it, and what shows that something feeds the device."""

    soc_percent: float | None
    fed: str = ""


@dataclass(frozen=True)
class Charged:
    """What is known of the battery before a run: how its charge lies to the window, and for how long that was waited
    for. ``unknown``: nobody tells how full it is."""

    state: State
    waited_s: float
    soc_percent: float | None = None
    fed: str = ""


class Window:
    """Open from ``low`` percent of charge on; timed out ``timeout_s`` after the first look."""

    def __init__(self, low: float, high: float, timeout_s: float) -> None:
        self.low, self.high, self.timeout_s = low, high, timeout_s
        self._start: float | None = None
        self._last: float | None = None

    def feed(self, t_s: float, read: Level | None, /) -> Charged:
        """A look, at a time of a clock that never goes back, s."""
        self._start = t_s if self._start is None else self._start
        seen = Level(None) if read is None else read
        self._last = self._last if seen.soc_percent is None else seen.soc_percent
        waited_s = t_s - self._start
        return Charged(self._state(waited_s), waited_s, self._last, seen.fed)

    def _state(self, waited_s: float) -> State:
        if self._last is None:
            return "unknown"
        if self._last > self.high:
            return "above"
        if self._last >= self.low:
            return "inside"
        return "below" if waited_s >= self.timeout_s else "waiting"

    def words(self, seen: Charged) -> str:
        """What is waited for, for people."""
        at = "" if seen.soc_percent is None else f"battery at {seen.soc_percent:g} %, "
        return f"{at}waits for {self.low:g} %" + ("" if seen.fed else ", nothing charges it: connect a charger")


def on_battery(profile: Profile) -> bool:
    """Whether the energy of the device's runs is its battery's."""
    return bool(profile.total) and profile.total[0].scope == "battery"


def cut_off(profile: Profile) -> bool:
    """Whether a run itself cuts the supply: a port of a hub, or the phone's own switch where it must work."""
    return any(one.on == "controller" or (one.name == "charge_cut" and not one.optional) for one in profile.setting)


def level(found: Iterable[Series]) -> Level:
    """What the series of a look say of the battery. Of several that tell its charge the one that is read anew."""
    series = list(found)
    told = [
        one
        for one in series
        if one.name in {f"{prefix}.soc_percent" for prefix in GAUGES} and len(one) and math.isfinite(one.value[-1])
    ]
    best = min(told, key=lambda one: one.update_s, default=None)
    return Level(None if best is None else float(best.value[-1]), at_a_look(series))
