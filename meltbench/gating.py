"""Before each run: what its device is waited for, how charged it is and how warm, and what the user is told of it.

The charge comes first, for a battery that was charged is warm.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from meltbench import gate as thermal
from meltbench import glance, supply
from meltbench.definition import GATE_HOLD_S
from meltbench.errors import TargetBusy

if TYPE_CHECKING:
    from meltbench.plan import Plan
    from meltbench.site import Site
    from meltbench.targets.profile import Profile, Source
    from meltbench.watch import Interrupts, Watch

# A program is started for each look: less often than files, and still a dozen looks in a hold.
ASKED_S = 5.0
CHARGE_S = 10.0  # between looks at a battery that is charged: it takes a minute for a percent
# Of what may be minutes old nobody sees a change for as long: three of the times that a health HAL lets pass between
# looks while it is plugged in (60 s, BatteryService). Unplugged it may let ten minutes pass, which nobody waits for.
CACHED_HOLD_S = 180.0


class Gates:
    """What is waited for before each run of a plan. That a charger is connected is told before the first alone."""

    def __init__(self, plan: Plan, site: Site) -> None:
        self._plan, self._site = plan, site
        self._told = False

    def wait(self, watch: Watch, interrupts: Interrupts) -> dict[str, Any]:
        """Wait as the plan wants it; returns what a ticket keeps of it: ``charge`` and ``gate``.

        Raises TargetBusy where another run is under way, DeviceError for a device that cannot be used.
        """
        profile, work = self._plan.profile, self._plan.work.workload
        batteries = glance.sources(profile, "charge")
        if profile.gate.soc_percent is None and not supply.on_battery(profile):
            batteries = []
        if (batteries or work.gate_timeout_s) and not self._site.probe.recover():
            raise TargetBusy("the target is busy", hint="wait for that run, or `meltbench collect`")
        interrupts.waiting = True
        charge = self._charge(batteries, work.charge_timeout_s, watch, interrupts) if batteries else None
        heat = None if interrupts.finish else self._heat(work.gate_timeout_s, watch, interrupts)
        interrupts.waiting = False
        return {"charge": charge, "gate": heat}

    def _charge(self, sources: list[Source], limit_s: float, watch: Watch, interrupts: Interrupts) -> dict[str, Any]:
        """Wait for the battery to be charged to its window, and say what feeds the device."""
        profile = self._plan.profile
        low, high = profile.gate.soc_percent or (-math.inf, math.inf)
        window = supply.Window(low, high, limit_s)

        def look() -> supply.Level:
            return supply.level(glance.look(self._site, profile, sources))

        def show(seen: supply.Charged) -> None:
            if seen.state != "waiting":
                return
            if not seen.waited_s:
                watch.say(f"{window.words(seen)}; at most {limit_s / 60:.0f} min")
            _step(watch, "battery", seen.waited_s, limit_s, window.words(seen))

        seen = thermal.wait(window, look, show, lambda: interrupts.finish, CHARGE_S)
        bounds = None if profile.gate.soc_percent is None else list(profile.gate.soc_percent)
        if not interrupts.finish:
            if bounds is not None and seen.state != "inside":
                watch.warn(f"{_lies(seen)} of {low:g} to {high:g} %: the run is marked charge_out_of_window")
            if seen.fed and supply.on_battery(profile) and not supply.cut_off(profile) and not self._told:
                watch.warn(f"a charger is connected ({seen.fed}): {self._unplug()}")
                self._told = True
        return asdict(seen) | {"window_percent": bounds, "timeout_s": limit_s}

    def _heat(self, limit_s: float, watch: Watch, interrupts: Interrupts) -> dict[str, Any]:
        """Wait for a steady temperature."""
        profile = self._plan.profile
        asked = {"target_c": profile.gate.target_c, "hold_s": GATE_HOLD_S, "timeout_s": limit_s, "zone": None}
        if not limit_s:
            return asdict(thermal.Seen("off", 0.0)) | asked
        meter = _Thermometer(self._site, profile)
        if not meter.there:
            return asdict(thermal.Seen("no_sensor", 0.0)) | asked
        if meter.cached:
            gate = thermal.Gate(limit_s, profile.gate.target_c, min(CACHED_HOLD_S, limit_s))
        else:
            gate = thermal.Gate(limit_s, profile.gate.target_c)

        def show(seen: thermal.Seen) -> None:
            _step(watch, "gate", seen.waited_s, limit_s, f"{meter.zone} at {seen.words}" if meter.zone else seen.words)

        pause = {"period_s": ASKED_S} if meter.asks else {}
        seen = thermal.wait(gate, meter.look, show, lambda: interrupts.finish, **pause)
        if seen.state == "timed_out":
            watch.warn(f"not at a steady temperature after {seen.waited_s:.0f} s ({seen.words}): the run starts warm")
        return asdict(seen) | asked | {"hold_s": gate.hold_s, "zone": meter.zone or None}

    def _unplug(self) -> str:
        """What to do about a charger."""
        if self._plan.known.place.kind == "adb":
            how = "pull the cable and reach it by wireless debugging, or have a hub cut its power: --unplug hub"
        else:
            how = "pull the plug"
        return f"{how}. The battery's gauge does not see what comes in, and the runs would be `charging`, invalid"


class _Thermometer:
    """Looks at the zones that a profile gates, by the sources that tell any: what is denied is asked once.

    ``there``: whether the device has such zones at all; ``asks``: whether a program has to be run for them; ``cached``:
    whether they are told from a cache alone; ``zone``: the hottest at the last look.
    """

    def __init__(self, site: Site, profile: Profile) -> None:
        self._site, self._profile = site, profile
        self.zone = ""
        sources = glance.sources(profile, "heat")
        found = glance.look(site, profile, sources) if sources else []
        mine = thermal.gated(found, profile)
        heat = thermal.hottest(found, profile)
        telling = {one.source for one in mine if heat is None or math.isfinite(one.value[-1])}
        self.there, self.cached = any(one.unit == "degC" for one in found), heat is not None and heat.cached
        self._sources = [one for one in sources if one.name in telling] or sources
        self.asks = bool(glance.commands(self._sources, site.facts.programs))

    def look(self) -> float | None:
        """The temperature of the hottest zone, None where none has one."""
        heat = thermal.hottest(glance.look(self._site, self._profile, self._sources), self._profile)
        self.zone = self.zone if heat is None else heat.zone
        return None if heat is None else heat.temp_c


def _step(watch: Watch, name: str, waited_s: float, limit_s: float, said: str) -> None:
    told = {"elapsed_ms": waited_s * 1e3, "limit_ms": limit_s * 1e3, "said": said}
    watch.step({"state": "running", "op": "gate", "name": name, **told})


def _lies(seen: supply.Charged) -> str:
    """How the charge lies to its window, for people."""
    if seen.state == "unknown" or seen.soc_percent is None:
        return "nobody tells how full the battery is, and its profile wants a window"
    after = f" after {seen.waited_s / 60:.0f} min" if seen.waited_s >= 60 else ""
    return f"battery at {seen.soc_percent:g} %{after}, {seen.state} the window"
