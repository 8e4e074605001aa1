"""A made phone at the edge of the world: a process that drains its battery and writes what its chips and services say.

    python phone_simulator.py MAKER FOLDER

Power is that of idling, so many watts a busy core of the room (board_simulator.Load), and those of a screen that is on.
It comes from the battery, or from a charger, and then the gauge shows what the charger does and nothing of the load.
That is the test's truth: FOLDER/truth has a line a tick, as a board's has.

Reads: FOLDER/pid (the room's first process), FOLDER/ambient_c, FOLDER/charger (a word of CHARGERS), FOLDER/level (a
charge in percent to have from now on), and of FOLDER/state what the phone's programs set.
Writes: FOLDER/made/sys, and in FOLDER/state the texts that the phone's programs print.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import phone_dumps as dumps
from board_simulator import TICK_S, WIDTH, Load, Physics, State, Tree, clocks, step
from made_gauge import amps
from phone_makers import MAKERS, Maker
from room import dies_with_parent

PHYSICS = Physics(idle_w=0.55, core_w=2.4, ambient_c=24, k_per_w=7, tau_s=6, hot_c=85, cool_c=80)
FULL_C, START_PERCENT = 16_000.0, 71
SCREEN_W, BACKLIGHT_W = 0.25, 0.9  # of a screen that is on, and of its light at its brightest
HEALTH_S = 60.0  # how often Android asks its health HAL; events and `cmd battery get -f` come between
REFRESH_S = 1.0  # how long a HAL that was asked takes
POLICIES = ((300_000, 1_803_000), (500_000, 2_802_000))  # kHz, of the first half of the cores and of the second


@dataclass(frozen=True)
class Charger:
    """``amps``: into the battery; ``supplies_w``: where it cannot even carry the phone. ``status``: what Android says
    of it, true or not; ``percent``: the charge at which it is met."""

    status: int
    amps: float = 0.0
    supplies_w: float = math.inf
    percent: int | None = None
    flips_a: float = 0.0  # a current that changes its sign every second


CHARGERS = {
    "": Charger(3, supplies_w=0),
    "charging": Charger(2, amps=0.6),
    "held": Charger(2, percent=80),  # charging stops at 80 %, and goes on being called charging
    "full": Charger(5, percent=100, flips_a=0.005),
    "weak": Charger(2, supplies_w=0.4),  # the battery is drained with a charger at it
}


@dataclass(frozen=True)
class Battery:
    """``out_a``: what flows out of it now; ``flow_a``: that as the gauge's filter has it."""

    charge_c: float
    out_a: float
    volts: float
    flow_a: float
    celsius: float

    @property
    def level(self) -> int:
        return max(0, min(100, round(100 * self.charge_c / FULL_C)))


def drain(battery: Battery, charger: Charger, watts: float, dt_s: float, now_s: float, filter_s: float) -> Battery:
    out_a, volts = amps(max(0.0, watts - charger.supplies_w))
    if charger.supplies_w > watts:
        out_a = -charger.amps + charger.flips_a * (1 if now_s % 2 < 1 else -1)
        volts += 0.11 * -out_a
    charge_c = max(0.0, min(FULL_C, battery.charge_c - out_a * dt_s))
    flow_a = battery.flow_a + (out_a - battery.flow_a) * (1 - math.exp(-dt_s / filter_s))
    celsius = battery.celsius + (25 + 2 * watts - battery.celsius) * (1 - math.exp(-dt_s / 30))
    return Battery(charge_c, out_a, volts, flow_a, celsius)


class Phone:
    def __init__(self, maker: Maker, folder: Path) -> None:
        self.maker, self.folder, self.state = maker, folder, folder / "state"
        self.sys, self.texts = Tree(folder / "made"), Tree(self.state)
        self.battery = Battery(FULL_C * START_PERCENT / 100, *amps(PHYSICS.idle_w), amps(PHYSICS.idle_w)[0], 26.0)
        self.now_s = self.told_s = self.seen_s = self.asked_s = -math.inf
        self.noise_a, self.random = 0.0, random.Random(1)
        self.traces: dict[str, float] = {}
        self.energies = [[0.0] * len(monitor) for monitor in dumps.RAILS]
        self.event: tuple[object, ...] = ()

    def charger(self) -> tuple[str, Charger]:
        word = (self.folder / "charger").read_text().strip()
        return word, CHARGERS[word]

    def screen_w(self) -> float:
        """What the phone's own settings and the screen's switch make it draw."""
        if not (self.state / "run/screen_on").exists():
            return 0.0
        automatic = self.texts.number("settings/system/screen_brightness_mode", 0) == 1
        level = 127.0 if automatic else self.texts.number("settings/system/screen_brightness", 102)
        return SCREEN_W + BACKLIGHT_W * level / 255

    def live(self, state: State, now_s: float) -> None:
        """One tick: the battery, and what is told of it."""
        if now_s < self.now_s:  # it was booted, and its clock began anew
            self.told_s = self.seen_s = self.asked_s = -math.inf
            self.traces.clear()
        self.now_s = now_s
        word, charger = self.charger()
        wanted = Tree(self.folder).number("level", -1)
        if wanted >= 0:
            (self.folder / "level").unlink()
        elif (word, charger.percent) != self.event[:2] and charger.percent is not None:
            wanted = charger.percent
        if wanted >= 0:
            self.battery = replace(self.battery, charge_c=FULL_C * wanted / 100)
        self.battery = drain(self.battery, charger, state.watts, state.dt_s, now_s, self.maker.gauge.filter_s)
        if now_s - self.told_s >= self.maker.gauge.update_s:
            self.told_s, self.noise_a = now_s, self.random.gauss(0, self.maker.gauge.noise_a)
            self.gauge(charger, bool(word))
        self.services(state, charger, (word, charger.percent, self.battery.level), now_s)
        self.rails(state, now_s)
        self.trace(self.seen(charger, bool(word)), now_s)

    def seen(self, charger: Charger, plugged: bool) -> dumps.Seen:
        b, amperes = self.battery, self.battery.flow_a * self.maker.gauge.gain + self.noise_a
        return dumps.Seen(amperes, b.volts, b.charge_c, FULL_C, b.level, b.celsius, charger.status, plugged)

    def gauge(self, charger: Charger, plugged: bool) -> None:
        """The files of the battery's gauge and of the USB supply."""
        seen, gauge = self.seen(charger, plugged), self.maker.gauge
        values = {"current_now": dumps.counts(self.maker, seen, gauge.unit), "voltage_now": seen.volts * gauge.volts}
        values |= {"charge_counter": dumps.counter(self.maker, seen), "capacity": seen.level, "temp": seen.celsius * 10}
        for name, value in values.items():
            self.sys.write(f"sys/class/power_supply/battery/{name}", value)
        self.sys.write("sys/class/power_supply/usb/online", plugged)
        text = dumps.STATUS[charger.status].ljust(WIDTH - 1)
        self.sys.write_text("sys/class/power_supply/battery/status", f"{text}\n")

    def services(self, state: State, charger: Charger, event: tuple[object, ...], now_s: float) -> None:
        """What Android's services tell: of the battery now and then, of the heat every second."""
        request = self.state / "run/refresh"
        if event != self.event:
            self.event, self.asked_s = event, now_s - HEALTH_S
        elif request.exists():
            request.unlink(missing_ok=True)
            self.asked_s = min(self.asked_s, now_s - HEALTH_S + REFRESH_S)
        if now_s - self.asked_s >= HEALTH_S:
            self.asked_s = now_s
            seen = self.seen(charger, bool(event[0]))
            self.texts.replace("battery", dumps.battery(self.maker, seen))
            self.texts.replace("get", dumps.gets(self.maker, seen))
        if now_s - self.seen_s >= 1:
            self.seen_s = now_s
            skin = 0.5 * (state.celsius + self.battery.celsius)
            celsius = {"cpu": state.celsius, "skin": min(skin, 60.0), "battery": self.battery.celsius, "off": 0.0}
            severity = 3 if state.throttled else 0
            self.texts.replace("thermal", dumps.thermal(self.maker, celsius, severity))
            if self.maker.power_monitors:
                lines = dumps.hal(self.maker, celsius, severity)
                block = "\n".join(
                    ["getCachedTemperatures:", "getCurrentTemperatures:", *(f" {line}" for line in lines)]
                )
                self.texts.replace("thermal_hal", f"{block}\ngetTemperatureThresholds:\n")
                self.texts.replace("log", "".join(f"Sending notification:  {line}\n" for line in lines))
            for zone, where in enumerate(self.maker.zones.values()):
                if where != "off":
                    self.sys.write(f"sys/class/thermal/thermal_zone{zone}/temp", 1000 * celsius[where])

    def rails(self, state: State, now_s: float) -> None:
        """Power monitors count the energy of a few rails, each of the two by a clock of its own."""
        if not self.maker.power_monitors:
            return
        more = state.watts - PHYSICS.idle_w
        for monitor, energies in enumerate(self.energies):
            for n, (rest, share) in enumerate(dumps.RAILS[monitor].values()):
                energies[n] += (rest * PHYSICS.idle_w + share * more) * state.dt_s * 1e6
            ms = max(0, round(now_s * 1000) - 4321 * monitor)
            text = dumps.rails(monitor, ms, [round(value) for value in energies])
            self.sys.write_text(f"sys/bus/iio/devices/iio:device{monitor}/energy_value", text)

    def trace(self, seen: dumps.Seen, now_s: float) -> None:
        """What perfetto records for those who asked it, each at a period of its own."""
        try:
            asked = os.listdir(self.state / "run")
        except FileNotFoundError:  # it boots, and makes the folder anew
            return
        for request in (name for name in asked if name.startswith("trace.")):
            at_s = self.traces.get(request)
            poll_s = max(100.0, self.texts.number(f"run/{request}", 1000)) / 1000
            if at_s is None or now_s - at_s >= poll_s:
                self.traces[request] = now_s
                with (self.state / request).open("ab") as out:
                    now_ms = [round(now_s * 1000)] * 2  # perfetto tells a rail's time since boot, not its monitor's
                    out.write(dumps.packets(self.maker, seen, self.energies, now_ms, now_s, first=at_s is None))


def policies(cores: int) -> dict[int, tuple[int, int]]:
    """Clusters of a machine with so many cores."""
    return {0: POLICIES[0], cores // 2: POLICIES[1]} if cores > 1 else {0: POLICIES[1]}


def main(name: str, place: str, cores: str) -> None:
    dies_with_parent()  # with its test, whatever ends that
    folder = Path(place)
    phone, load = Phone(MAKERS[name], folder), Load(folder)
    state = State(PHYSICS.idle_w, PHYSICS.ambient_c + PHYSICS.k_per_w * PHYSICS.idle_w, False, 0.0)
    last, pid = time.monotonic_ns(), ""
    with open(folder / "truth", "a") as truth:
        while True:
            ran_ns, now = load.ran_ns(), time.monotonic_ns()
            dt_s, last = (now - last) / 1e9, now
            ambient_c = Tree(folder).number("ambient_c", PHYSICS.ambient_c)
            physics = replace(PHYSICS, idle_w=PHYSICS.idle_w + phone.screen_w())
            busy = min(8.0, ran_ns / max(1.0, dt_s * 1e9))
            if (folder / "steady").exists():
                busy = load.burning(int(cores))
            state = step(state, physics, busy, ambient_c, dt_s)
            at_ns = load.clock_ns()  # before anybody can read it
            phone.live(state, at_ns / 1e9)
            clocks(phone.sys, state, policies(int(cores)))
            truth.write(f"{at_ns} {state.watts:.4f} {state.celsius:.3f} {state.throttled:d} {state.busy:.3f}\n")
            truth.flush()
            if (folder / "pid").read_text() != pid:
                pid = (folder / "pid").read_text()
                print("ready", flush=True)
            time.sleep(TICK_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
