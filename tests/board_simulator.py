"""A made board at the edge of the world: a process that writes the sensors of a board while programs run there.

    python board_simulator.py KIND FOLDER        KIND: jetson, pi5 or desktop

What a room's processes have had of the processor, by the kernel's own account, is what the made board pays for: power
is that of idling and so many watts a busy core, heat follows power, and a hot board slows down. That is the test's
truth. FOLDER/truth has a line a tick: ns of the room's CLOCK_BOOTTIME, watts drawn, degrees, whether it is throttled,
busy cores. What a line says holds until the next.

Reads: FOLDER/pid (the room's first process), FOLDER/ambient_c, FOLDER/under_voltage.
Writes: FOLDER/made/sys, FOLDER/made/firmware.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from room import dies_with_parent

TICK_S = 0.02
STEPS = 8  # of a made clock, from its lowest to its highest
WIDTH = 24  # a file is written in one call and never gets shorter: a reader sees the old value or the new
FULL_RANGE_UJ = 262_143_328_850  # of the made RAPL: its counter starts a little before, so that it wraps in a test
BEFORE_WRAP_J = 30.0
# The fit of one Pi 5 to a meter: what its input draws beside what its PMIC puts out (github.com/jfikar/RPi5-power).
PI_GAIN, PI_OFFSET_W = 1.1451, 0.5879


@dataclass(frozen=True)
class Physics:
    """``idle_w`` and ``core_w``: watts at rest, and of each busy core; throttled, a core draws ``slowed`` of that."""

    idle_w: float
    core_w: float
    ambient_c: float
    k_per_w: float
    tau_s: float
    hot_c: float
    cool_c: float
    slowed: float = 0.6


PHYSICS = {
    "jetson": Physics(4.8, 3.0, 30, 1.6, 8, 97, 92),
    "pi5": Physics(2.7, 2.2, 35, 4.0, 6, 80, 77),
    "desktop": Physics(18.0, 14.0, 32, 0.6, 5, 100, 95),
}


@dataclass(frozen=True)
class State:
    watts: float
    celsius: float
    throttled: bool
    busy: float
    been_hot: bool = False
    low: bool = False  # the 5 V of a Pi, now and some time since it was started
    been_low: bool = False
    joules: float = 0.0
    dt_s: float = 0.0


class Tree:
    """Files of a made machine, each written in place as a driver's would change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: dict[str, int] = {}
        self.in_state_s: dict[tuple[str, int], float] = {}

    def write(self, name: str, value: float) -> None:
        self.write_text(name, f"{round(value)}".ljust(WIDTH - 1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """A text that never gets shorter."""
        if name not in self._open:
            self._open[name] = os.open(self.root / name, os.O_WRONLY)
        os.pwrite(self._open[name], text.encode(), 0)

    def replace(self, name: str, text: str) -> None:
        """A text of several lines, whole at any time."""
        new = self.root / f"{name}.new"
        new.write_text(text)
        new.rename(self.root / name)

    def number(self, name: str, otherwise: float) -> float:
        try:
            return float((self.root / name).read_text())
        except (OSError, ValueError):  # not there, or being written
            return otherwise


class Load:
    """What the processes of a room have had of the processor."""

    def __init__(self, folder: Path) -> None:
        self._pid, self._seen = folder / "pid", dict[str, int]()
        self.boot_ns = 0  # what the room's clock since boot is ahead

    def _tasks(self) -> Iterator[tuple[str, int]]:
        proc = f"/proc/{self._pid.read_text().strip()}/root/.kernel/proc"
        for pid in os.listdir(proc):
            if pid.isdigit():
                try:
                    for task in os.listdir(f"{proc}/{pid}/task"):
                        with open(f"{proc}/{pid}/task/{task}/schedstat") as told:
                            yield task, int(told.read().split()[0])
                except OSError:
                    continue  # it has ended meanwhile

    def ran_ns(self) -> int:
        """Since the last call. A room that is off runs nothing."""
        try:
            now = dict(self._tasks())
        except OSError:
            now = {}
        ran = sum(max(0, ns - self._seen.get(task, 0)) for task, ns in now.items()) if self._seen else 0
        if now:
            self._seen = now
        return ran

    def burning(self, cores: int) -> float:
        """How many cores burns are told to keep busy, the probe's own or a script of that name."""
        proc, busy = f"/proc/{self._pid.read_text().strip()}/root/.kernel/proc", 0
        with suppress(OSError):  # between two boots
            for pid in filter(str.isdigit, os.listdir(proc)):
                with suppress(OSError), open(f"{proc}/{pid}/cmdline", "rb") as told:
                    words = told.read().split(b"\0")
                    if words[1:2] and words[1].rpartition(b"/")[2] == b"burn":
                        busy = max(busy, int(words[2]) or cores)
        return float(busy)

    def clock_ns(self) -> int:
        """CLOCK_BOOTTIME as the room has it, which has a time namespace of its own."""
        try:
            offsets = Path(f"/proc/{self._pid.read_text().strip()}/timens_offsets").read_text()
            (line,) = (words for words in map(str.split, offsets.splitlines()) if words[0] in ("boottime", "7"))
            self.boot_ns = int(line[1]) * 1_000_000_000 + int(line[2])
        except (OSError, ValueError):
            pass  # between two boots
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self.boot_ns


def step(state: State, physics: Physics, busy: float, ambient_c: float, dt_s: float) -> State:
    smooth = state.busy + (busy - state.busy) * (1 - math.exp(-dt_s / 0.04))
    celsius = state.celsius
    settled = ambient_c + physics.k_per_w * state.watts
    celsius += (settled - celsius) * (1 - math.exp(-dt_s / physics.tau_s))
    throttled = celsius >= (physics.cool_c if state.throttled else physics.hot_c)
    watts = physics.idle_w + physics.core_w * smooth * (physics.slowed if throttled else 1)
    joules = state.joules + state.watts * dt_s
    hot = state.been_hot or throttled
    now = replace(state, watts=watts, celsius=celsius, throttled=throttled, busy=smooth)
    return replace(now, been_hot=hot, joules=joules, dt_s=dt_s)


def clocks(tree: Tree, state: State, policies: dict[int, tuple[int, int]], mode_khz: int = 10**9) -> None:
    """Clocks follow the load between the lowest and the highest that governor, mode and heat leave."""
    for policy, (low, high) in policies.items():
        name = f"sys/devices/system/cpu/cpufreq/policy{policy}"
        cap = max(low, min(high, mode_khz, round(high * 0.6) if state.throttled else high))
        governor = (tree.root / name / "scaling_governor").read_text().strip()
        # Of intel_pstate's two, powersave is the one that follows the load.
        lowest = governor == "powersave" and policies is not DESKTOP_POLICIES
        floor = cap if governor == "performance" else tree.number(f"{name}/scaling_min_freq", low)
        top = low if lowest else cap
        wanted = min(top, max(floor, low + (cap - low) * min(1.0, state.busy)))
        steps = [low + (high - low) * n // STEPS for n in range(STEPS + 1)]
        now = max((step for step in steps if step <= cap), key=lambda step: -abs(step - wanted))
        tree.write(f"{name}/scaling_cur_freq", now)
        tree.write(f"{name}/scaling_max_freq", cap)
        tree.in_state_s[name, now] = tree.in_state_s.get((name, now), 0.0) + state.dt_s
        # As many digits always: it is written in place. In ticks of 10 ms.
        lines = [f"{step} {round(tree.in_state_s.get((name, step), 0) * 100):012}\n" for step in steps]
        tree.write_text(f"{name}/stats/time_in_state", "".join(lines))


JETSON_POLICIES = {0: (115_200, 1_728_000), 4: (115_200, 1_728_000)}
JETSON_MODES_KHZ = {0: 1_510_400, 1: 1_728_000, 2: 1_728_000, 3: 960_000}
_RIPPLE = random.Random(5)  # no beat, or what reads it could meet it at the same place each time
INA = "sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1"


def jetson(tree: Tree, state: State) -> None:
    """The sensor has steps of 8 mV and 8 mA, as INA3221 with 5 mOhm, and its last digit is never still; the two rails
    inside share what is beside idle."""
    ripple = _RIPPLE.choice((-1, 0, 1))
    inside = (0.25 + 0.8 * (state.watts - PHYSICS["jetson"].idle_w), 1.4 + 0.1 * (state.watts - 4.8))
    for n, watts in enumerate((state.watts, *inside), 1):
        millivolts = 8 * round((5040 - 4 * watts) / 8)
        milliamperes = 8 * (round(watts / millivolts * 1e6 / 8) + ripple)
        tree.write(f"{INA}/in{n}_input", millivolts)
        tree.write(f"{INA}/curr{n}_input", milliamperes)
        tree.write(f"{INA}/in{n + 3}_input", milliamperes * 4.89)
    for zone, above in enumerate((0.0, -1.0, -1.5, -2.0, -1.8)):
        tree.write(f"sys/class/thermal/thermal_zone{zone}/temp", 1000 * (state.celsius + above))
    tree.write("sys/class/thermal/thermal_zone6/temp", 1000 * state.celsius)
    tree.write("sys/class/thermal/cooling_device0/cur_state", state.throttled)
    mode = (tree.root / "nvpmodel/status").read_text().strip().rpartition(":")[2]
    clocks(tree, state, JETSON_POLICIES, JETSON_MODES_KHZ.get(int(mode or 0), 1_728_000))


PI_POLICIES = {0: (1_500_000, 2_400_000)}
# Rail, its volts, its share of what the PMIC puts out, and the channels of its current and voltage.
PI_RAILS = (
    ("3V7_WL_SW", 3.7155, 0.06, 0, 8),
    ("3V3_SYS", 3.3107, 0.06, 1, 9),
    ("1V8_SYS", 1.7968, 0.08, 2, 10),
    ("DDR_VDD2", 1.1051, 0.05, 3, 11),
    ("DDR_VDDQ", 0.6050, 0.02, 4, 12),
    ("1V1_SYS", 1.1073, 0.08, 5, 13),
    ("0V8_SW", 0.8033, 0.10, 6, 14),
    ("VDD_CORE", 0.7210, None, 7, 15),
    ("3V3_DAC", 3.3107, 0.003, 17, 20),
    ("3V3_ADC", 3.3089, 0.003, 18, 21),
    ("0V8_AON", 0.7977, 0.004, 16, 19),
    ("HDMI", 5.1096, 0.03, 22, 23),
)


def pi5(tree: Tree, state: State) -> None:
    """The PMIC shows what its twelve converters put out; ``state.watts`` is drawn at the input."""
    out_w = (state.watts - PI_OFFSET_W) / PI_GAIN
    at_rest = (PHYSICS["pi5"].idle_w - PI_OFFSET_W) / PI_GAIN
    rest = sum(share * at_rest for _, _, share, _, _ in PI_RAILS if share is not None)
    amperes, volts = [], []
    for rail, volt, share, current, voltage in PI_RAILS:
        watts = out_w - rest if share is None else share * at_rest
        amperes.append(f"{rail + '_A':>14} current({current})={watts / volt:.8f}A\n")
        volts.append(f"{rail + '_V':>14} volt({voltage})={volt:.8f}V\n")
    last = f"{'EXT5V_V':>14} volt(24)=5.10964000V\n{'BATT_V':>14} volt(25)=0.00854700V\n"
    tree.replace("firmware/pmic_read_adc", "".join([*amperes, *volts, last]))
    bits = 0b0110 * state.throttled | state.low | (0b0110 * state.been_hot | state.been_low) << 16
    tree.replace("firmware/get_throttled", f"throttled={bits:#x}\n")
    tree.replace("firmware/measure_temp", f"temp={state.celsius:.1f}'C\n")
    tree.write("sys/class/thermal/thermal_zone0/temp", 1000 * state.celsius)
    tree.write("sys/class/hwmon/hwmon0/temp1_input", 1000 * state.celsius)
    clocks(tree, state, PI_POLICIES)
    khz = tree.number("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", 1_500_000)
    tree.replace("firmware/clock_arm", f"{round(khz) * 1000}\n")


DESKTOP_POLICIES = {0: (800_000, 4_600_000), 1: (800_000, 4_600_000)}
RAPL = "sys/devices/virtual/powercap/intel-rapl"


def desktop(tree: Tree, state: State) -> None:
    """``state.watts`` is the package's. Its cores lie inside, and memory (a ninth more) beside it."""
    for zone, share in (("0", 1.0), ("0:0", 0.7), ("0:1", 1 / 9)):
        counted = (FULL_RANGE_UJ - BEFORE_WRAP_J * 1e6 + state.joules * share * 1e6) % FULL_RANGE_UJ
        place = "intel-rapl:0" + (f"/intel-rapl:{zone}" if ":" in zone else "")
        tree.write(f"{RAPL}/{place}/energy_uj", counted)
    tree.write("sys/class/thermal/thermal_zone0/temp", 1000 * state.celsius)
    tree.write("sys/class/hwmon/hwmon0/temp1_input", 1000 * state.celsius)
    clocks(tree, state, DESKTOP_POLICIES)


WRITERS = {"jetson": jetson, "pi5": pi5, "desktop": desktop}


def main(kind: str, place: str) -> None:
    dies_with_parent()  # with its test, whatever ends that
    folder = Path(place)
    physics, tree, load = PHYSICS[kind], Tree(folder / "made"), Load(folder)
    state = State(physics.idle_w, physics.ambient_c + physics.k_per_w * physics.idle_w, False, 0.0)
    pid, last = "", time.monotonic_ns()
    with open(folder / "truth", "a") as truth:
        while True:
            if (folder / "pid").read_text() != pid:  # it booted: what sticks since boot is gone
                state = replace(state, been_hot=state.throttled, been_low=state.low)
                pid = (folder / "pid").read_text()
                print("ready", flush=True)
            ran_ns, now = load.ran_ns(), time.monotonic_ns()
            dt_s, last = (now - last) / 1e9, now
            ambient_c = Tree(folder).number("ambient_c", physics.ambient_c)
            low = bool(Tree(folder).number("under_voltage", 0))
            state = replace(state, low=low, been_low=state.been_low or low)
            state = step(state, physics, min(8.0, ran_ns / max(1.0, dt_s * 1e9)), ambient_c, dt_s)
            at_ns = load.clock_ns()  # before anybody can read it
            WRITERS[kind](tree, state)
            truth.write(f"{at_ns} {state.watts:.4f} {state.celsius:.3f} {state.throttled:d} {state.busy:.3f}\n")
            truth.flush()
            time.sleep(TICK_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
