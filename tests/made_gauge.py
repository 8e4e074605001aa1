"""What a made battery gives, and how a vendor's driver tells it: shared by made streams and by the made phone."""

from __future__ import annotations

import math
from dataclasses import dataclass

IDLE_W, LOAD_W, OPEN_V, OHM = 0.55, 3.4, 3.98, 0.11
UNITS = {"uA": 1e6, "mA": 1e3, "A": 1.0}


@dataclass(frozen=True)
class Dialect:
    """How a driver tells it. ``sign``: of the current while it flows out. ``filter_s``: time constant of its mean."""

    unit: str = "uA"
    sign: int = -1
    filter_s: float = 0.175
    update_s: float = 0.25
    volts: float = 1e6
    charge_counts_per_c: float = 1e6 / 3600
    charge_quantum: int = 500
    gain: float = 1.0
    noise_a: float = 0.002
    stuck: int | None = None


def amps(watts: float) -> tuple[float, float]:
    """Current and voltage of a battery that gives so many watts: P = I (U - R I)."""
    current = (OPEN_V - math.sqrt(OPEN_V**2 - 4 * OHM * watts)) / (2 * OHM)
    return current, OPEN_V - OHM * current
