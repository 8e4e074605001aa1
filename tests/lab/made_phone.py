"""A made phone at the edge of the world: a process that writes the /sys tree of a phone while its battery is drained.

The probe reads real files; what drains the battery is whether the probe's own burn is running on this machine, by the
process list. The power drawn is LOAD_W then and IDLE_W else. That is the test's truth, and ROOT/truth has a line every
100 ms: CLOCK_BOOTTIME in ns, watts drawn.

    python made_phone.py ROOT PROBE_BELOW DIALECT        DIALECT: JSON of made_gauge.Dialect's fields, and plugged
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from made_gauge import IDLE_W, LOAD_W, UNITS, Dialect, amps

TICK_S = 0.04
WIDTH = 24  # a file is written in one call and never gets shorter: a reader sees the old value or the new
SUPPLY = "class/power_supply"


class Tree:
    """Files of a made /sys, each written in place as a driver's would change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: dict[str, int] = {}

    def write(self, name: str, text: object) -> None:
        if name not in self._open:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open[name] = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(self._open[name], f"{text}".ljust(WIDTH - 1).encode() + b"\n", 0)


def burning(below: str) -> bool:
    """Whether a burn of a probe that lies below this folder is running."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            state = (folder / "stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            continue
        if len(words) > 3 and words[1] == b"burn" and words[0].startswith(below.encode()) and state not in (b"Z", b"X"):
            return True
    return False


def phone(root: Path, below: str, dialect: Dialect, plugged: int | None) -> Iterator[None]:
    """Goes on for as long as it is asked to; a step is one tick."""
    tree = Tree(root)
    fixed = {"battery/type": "Battery", "battery/capacity": 71, "battery/status": "Discharging", "battery/temp": 281}
    fixed |= {"battery/charge_full_design": round(16000 * dialect.charge_counts_per_c)}
    if plugged is not None:
        fixed |= {"usb/type": "USB", "usb/online": plugged}
    for name, text in fixed.items():
        tree.write(f"{SUPPLY}/{name}", text)
    tree.write("class/thermal/thermal_zone0/type", "battery")
    charge_c, flow, celsius, told_s, seen_s, noise = 9000.0, amps(IDLE_W)[0], 30.0, -1.0, -1.0, 0.0
    last = time.clock_gettime(time.CLOCK_BOOTTIME)
    with open(root / "truth", "w") as truth:
        while True:
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            watts = LOAD_W if burning(below) else IDLE_W
            current, volts = amps(watts)
            step, last = now - last, now
            charge_c -= current * step
            flow += (current - flow) * (1 - math.exp(-step / dialect.filter_s))
            celsius += (30 + 4 * watts - celsius) * (1 - math.exp(-step / 8))
            if now - told_s >= dialect.update_s:
                told_s, noise = now, -noise or dialect.noise_a
                raw = round(dialect.sign * (flow * dialect.gain + noise) * UNITS[dialect.unit])
                tree.write(f"{SUPPLY}/battery/current_now", raw if dialect.stuck is None else dialect.stuck)
                tree.write(f"{SUPPLY}/battery/voltage_now", round(volts * dialect.volts))
                counts = charge_c * dialect.charge_counts_per_c / dialect.charge_quantum
                tree.write(f"{SUPPLY}/battery/charge_counter", math.floor(counts) * dialect.charge_quantum)
                tree.write("class/thermal/thermal_zone0/temp", round(celsius * 1000))
            if now - seen_s >= 0.1:
                seen_s = now
                truth.write(f"{round(now * 1e9)} {watts}\n")
                truth.flush()
            yield


def start(root: Path, below: Path, dialect: Dialect, plugged: int | None = 0) -> Popen[bytes]:
    """Start the phone and wait until its files are there. The caller ends it."""
    root.mkdir(parents=True)
    told = json.dumps(asdict(dialect) | {"plugged": plugged})
    made = Popen([sys.executable, __file__, str(root), str(below), told], stdout=PIPE)
    assert made.stdout is not None
    assert made.stdout.readline() == b"ready\n"
    return made


def main(root: str, below: str, told: str) -> None:
    given: dict[str, Any] = json.loads(told)
    plugged = given.pop("plugged")
    for n, _ in enumerate(phone(Path(root), below, Dialect(**given), plugged)):
        if n == 0:
            print("ready", flush=True)
        time.sleep(TICK_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
