"""Powers whose energy is known in closed form, and what a device shows of them: raw bytes, read at uneven times."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TICK_S = 976e-6  # a RAPL register moves this often
COUNTER_UJ = 61  # a RAPL unit of 2^-14 J
RANGE_UJ = 262_143_328_850
GAUGE_UW = 1000  # what the text of a gauge resolves
NOISE_W = 0.005  # an amplifier's: a gauge without any would stand still at constant power, and be taken for stuck


@dataclass(frozen=True)
class Wave:
    """Power in pieces: from ``at_s[i]`` on it is ``watt[i] + slope[i] dt + ripple[i] sin(2 pi hertz dt)``."""

    name: str
    at_s: tuple[float, ...]
    watt: tuple[float, ...]
    slope: tuple[float, ...]
    ripple: tuple[float, ...]
    hertz: float = 0.0

    def power(self, t_s: Floats) -> Floats:
        """Watts at each time."""
        i = np.searchsorted(self.at_s, t_s, "right") - 1
        dt = t_s - np.array(self.at_s)[i]
        wave = np.sin(2 * np.pi * self.hertz * dt)
        out: Floats = np.array(self.watt)[i] + np.array(self.slope)[i] * dt + np.array(self.ripple)[i] * wave
        return out

    def energy(self, t_s: Floats) -> Floats:
        """Joules from 0 to each time: the integral of each piece, added."""
        ends = np.array([*self.at_s[1:], np.inf])
        out = np.zeros_like(t_s)
        for i, start in enumerate(self.at_s):
            dt = np.clip(np.minimum(t_s, ends[i]) - start, 0, None)
            out += self.watt[i] * dt + self.slope[i] * dt**2 / 2
            if self.ripple[i]:
                turn = 2 * np.pi * self.hertz
                out += self.ripple[i] / turn * (1 - np.cos(turn * dt))
        return out


def constant(watt: float) -> Wave:
    """The same power throughout."""
    return Wave("constant", (0.0,), (watt,), (0.0,), (0.0,))


def ramp(low: float, high: float, seconds: float) -> Wave:
    """From low to high, as a device that warms up."""
    return Wave("ramp", (0.0,), (low,), ((high - low) / seconds,), (0.0,))


def steps(levels: tuple[float, ...], every_s: float, seconds: float) -> Wave:
    """Levels in turn."""
    n = int(seconds / every_s) + 1
    flat = (0.0,) * n
    return Wave(
        "steps", tuple(i * every_s for i in range(n)), tuple(levels[i % len(levels)] for i in range(n)), flat, flat
    )


def requests(prefills: list[float], prefill_s: float, decode_s: float) -> Wave:
    """Idle at 2 W; from each start a prefill at 18 W, then a decode at 7 W that ripples by 1.5 W 14 times a second."""
    pieces = [(0.0, 2.0, 0.0)]
    for start in prefills:
        pieces += [(start, 18.0, 0.0), (start + prefill_s, 7.0, 1.5), (start + prefill_s + decode_s, 2.0, 0.0)]
    at, watt, ripple = zip(*pieces, strict=True)
    return Wave("requests", at, watt, (0.0,) * len(at), ripple, 14.0)


@dataclass(frozen=True)
class Reads:
    """When a sampler read, in ns on a clock that started long ago, and the texts it found."""

    t0_ns: npt.NDArray[np.int64]
    t1_ns: npt.NDArray[np.int64]
    texts: list[bytes]


BOOT_NS = 86_400_000_000_000


def _times(period_s: float, seconds: float, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], ...]:
    """Absolute deadlines, each met a little late (in one of a hundred by milliseconds), and reads that take a while."""
    deadline = np.arange(rng.uniform(0, period_s), seconds, period_s)
    late = rng.exponential(60e-6, len(deadline)) + (rng.random(len(deadline)) < 0.01) * rng.exponential(
        2e-3, len(deadline)
    )
    t0 = BOOT_NS + np.round((deadline + late) * 1e9).astype(np.int64)
    return t0, t0 + rng.integers(2_000, 40_000, len(t0))


def _instants(t0: npt.NDArray[np.int64], t1: npt.NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """When within the read the device made its value."""
    seconds: Floats = (t0 + (t1 - t0) * rng.random(len(t0)) - BOOT_NS) / 1e9
    return seconds


def counter(wave: Wave, period_s: float, seconds: float, rng: np.random.Generator) -> Reads:
    """Microjoules since some time, as of the register's last tick, in whole units of the register; it wraps once."""
    t0, t1 = _times(period_s, seconds, rng)
    tick = np.floor(_instants(t0, t1, rng) / TICK_S) * TICK_S
    start = RANGE_UJ - int(wave.energy(np.array([seconds]))[0] * 1e6 / 3)
    units = np.floor(wave.energy(np.maximum(tick, 0)) * 1e6 / COUNTER_UJ).astype(np.int64)
    return Reads(t0, t1, [b"%d\n" % ((start + int(n) * COUNTER_UJ) % RANGE_UJ) for n in units])


def gauge(wave: Wave, period_s: float, seconds: float, rng: np.random.Generator) -> Reads:
    """Microwatts, with a little noise, in whole milliwatts."""
    t0, t1 = _times(period_s, seconds, rng)
    watt = wave.power(_instants(t0, t1, rng)) + rng.normal(0, NOISE_W, len(t0))
    return Reads(t0, t1, [b"%d\n" % n for n in (np.round(watt * 1e6 / GAUGE_UW) * GAUGE_UW).astype(np.int64)])


def _frame(kind: int, payload: bytes) -> bytes:
    head = struct.pack("<HHI", kind, 0, len(payload))
    return struct.pack("<I", 0x4A544C4D) + head + struct.pack("<I", zlib.crc32(head + payload)) + payload


def journal(files: dict[str, Reads]) -> bytes:
    """A journal of these files in the probe's own format (docs/probe.md): only its public form is relied on."""
    parts = [b"MELTJNL1"]
    for number, path in enumerate(files):
        event = {"event": "stream", "seq": number, "boot_ns": BOOT_NS, "stream": number, "channel": "power"}
        event |= {"kind": "file", "path": path, "status": "ok", "errno": 0}
        parts.append(_frame(1, json.dumps(event).encode()))
    for number, reads in enumerate(files.values()):
        for a in range(0, len(reads.texts), 4096):
            texts = reads.texts[a : a + 4096]
            columns = [reads.t0_ns[a : a + 4096].astype("<i8"), reads.t1_ns[a : a + 4096].astype("<i8")]
            columns += [np.zeros(len(texts), "<i4"), np.array([len(text) for text in texts], "<u4")]
            body = b"".join(column.tobytes() for column in columns) + b"".join(texts)
            parts.append(_frame(2, struct.pack("<II", number, len(texts)) + body))
    parts.append(_frame(1, json.dumps({"event": "end", "seq": len(files), "boot_ns": BOOT_NS}).encode()))
    return b"".join(parts)
