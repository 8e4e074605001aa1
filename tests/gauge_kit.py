"""Streams of a made gauge of a phone's battery, as the probe would have read them, with their truth."""

from __future__ import annotations

import math

import numpy as np
from made_gauge import IDLE_W, LOAD_W, UNITS, Dialect, amps

from meltbench.calibration.steps import Step, Windows
from meltbench.records import Phase, Readings, Stream

SECOND = 1_000_000_000


def windows(idle_s: float, load_s: float, steps: int = 2, t0_s: float = 5.0) -> Windows:
    """Idle, load, ..., idle, as a journal would show them."""
    made, t = [], t0_s
    for n in range(steps):
        spans = []
        for kind, length in (("idle", idle_s), ("load", load_s), ("idle", idle_s)):
            spans.append(Phase(f"{kind}_{n}", round(t * SECOND), round((t + length) * SECOND)))
            t += length
        made.append(Step(*spans))
        t -= idle_s
    return Windows(tuple(made))


def streams(dialect: Dialect, found: Windows, period_s: float = 0.097, tail_s: float = 5.0, seed: int = 3, **more):
    """What the probe would have read of that gauge. ``more``: plugged, status: texts of those files."""
    rng = np.random.default_rng(seed)
    assert found.span is not None
    end_s = found.span.t1_ns / 1e9 + tail_s
    t = np.arange(0, end_s, period_s)
    files = {name: [] for name in ("current_now", "voltage_now", "charge_counter")}
    charge_c, flow, told, counter, next_s, last = 9000.0, None, (0, 0), 0, 0.0, 0.0
    for now in t:
        loaded = any(step.load.t0_ns / 1e9 <= now < step.load.t1_ns / 1e9 for step in found.steps)
        current, volts = amps(LOAD_W if loaded else IDLE_W)
        charge_c -= current * (now - last)
        flow = current if flow is None else flow + (current - flow) * (1 - math.exp(-(now - last) / dialect.filter_s))
        last = now
        if now >= next_s:
            next_s += dialect.update_s
            seen = dialect.sign * (flow * dialect.gain + rng.normal(0, dialect.noise_a)) * UNITS[dialect.unit]
            told = (round(seen), round(volts * dialect.volts))
            counts = charge_c * dialect.charge_counts_per_c
            counter = math.floor(counts / dialect.charge_quantum) * dialect.charge_quantum
        stuck = dialect.stuck
        files["current_now"].append(told[0] if stuck is None else stuck)
        files["voltage_now"].append(told[1])
        files["charge_counter"].append(counter)
    made = [_stream(n, f"battery/{name}", t, values) for n, (name, values) in enumerate(files.items())]
    made.append(_stream(7, "battery/type", t[:1], ["Battery"]))
    made.append(_stream(8, "battery/status", t, [more.get("status", "Discharging")] * len(t)))
    if (plugged := more.get("plugged")) is not None:
        made += [_stream(9, "usb/type", t[:1], ["USB"]), _stream(10, "usb/online", t, [plugged] * len(t))]
    return made


def _stream(number: int, name: str, t_s, values) -> Stream:
    t = np.round(np.asarray(t_s) * SECOND).astype(np.int64)
    raw = [f"{value}\n".encode() for value in values]
    readings = Readings.of(t, t + 20_000, np.zeros(len(t), np.int32), raw)
    return Stream(number, "battery", "file", f"/sys/class/power_supply/{name}", "ok", 0, readings)
