"""A made battery: files below a made /sys that a thread writes, so that what it truly gave is known.

It stands at the edge of the world: the probe and all that follows are real and read it as a phone's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

AMPS, VOLTS = 0.5, 3.8
CALIBRATED = 'calibration = "made"'
PROFILE = """
title = "a made phone"
target = "local"
max_power_w = 20
roots.sys = "{sys}"

[[source]]
name = "battery"
reader = "power_supply"
period_ms = {period_ms}
options = {{ {options} }}

[[total]]
source = "battery"
scope = "battery"
"""


class Phone:
    """Discharges ``AMPS``, a little more with each update; ``values`` are the texts of its files."""

    def __init__(self, root: Path, more: Mapping[str, str] | None = None) -> None:
        self._stop, self.frozen = threading.Event(), False
        self.values = {
            "battery/type": "Battery", "battery/status": "Discharging", "battery/capacity": "64",
            "battery/voltage_now": f"{VOLTS * 1e6:.0f}", "battery/current_now": "0", "battery/temp": "311",
            "usb/type": "USB", "usb/online": "0",
            **(more or {}),
        }  # fmt: skip
        self.current: Callable[[int], str] = str
        self._files: dict[str, int] = {}
        for name in self.values:
            path = root / "class" / "power_supply" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[name] = os.open(path, os.O_CREAT | os.O_WRONLY)
        self._write()
        self._thread = threading.Thread(target=self._run)

    def _write(self) -> None:
        for name, text in self.values.items():
            raw = f"{text}\n".encode()
            os.pwrite(self._files[name], raw, 0)
            os.ftruncate(self._files[name], len(raw))

    def _run(self) -> None:
        at = 0
        while not self._stop.wait(0.005):
            at = (at + 7919) % 10_000
            self.values["battery/current_now"] = self.current(-int(AMPS * 1e6) + at - 5000)
            if not self.frozen:
                self._write()

    @contextmanager
    def living(self) -> Iterator[Phone]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()
            for handle in self._files.values():
                os.close(handle)
