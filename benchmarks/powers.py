"""Random powers of a device that answers requests, in closed form, and what instruments of every kind show of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from meltbench.records import Kind, Phase, Request, Series

Floats = npt.NDArray[np.float64]
BOOT_NS = 86_400_000_000_000


@dataclass(frozen=True)
class Power:
    """Watts in steps: ``watt[i]`` from ``at_s[i]`` on, and ``drift`` more each second, as a device that warms up."""

    at_s: Floats
    watt: Floats
    drift: float
    end_s: float

    def energy(self, t_s: Floats) -> Floats:
        """Joules from 0 to each time, in closed form."""
        until = np.concatenate([[0.0], np.cumsum(np.diff(self.at_s) * self.watt[:-1])])
        i = np.clip(np.searchsorted(self.at_s, t_s, "right") - 1, 0, None)
        out: Floats = until[i] + (t_s - self.at_s[i]) * self.watt[i] + self.drift * t_s**2 / 2
        return out

    def mean(self, t_s: Floats, window_s: float) -> Floats:
        """The mean of the time before each moment; of no length: what is."""
        if window_s == 0:
            i = np.clip(np.searchsorted(self.at_s, t_s, "right") - 1, 0, None)
            now: Floats = self.watt[i] + self.drift * t_s
            return now
        before = np.maximum(t_s - window_s, -1e-6)
        out: Floats = (self.energy(t_s) - self.energy(before)) / (t_s - before)
        return out


@dataclass(frozen=True)
class Scene:
    """A made run: its power, its requests with the arrival of their tokens, its spans."""

    power: Power
    requests: list[Request]
    phases: list[Phase]

    @property
    def run(self) -> Phase:
        """First sending to last end."""
        return next(one for one in self.phases if one.name == "run")


def scene(rng: np.random.Generator) -> Scene:
    """Idle, requests one after the other, idle. A step follows its mark by up to 10 ms, as an engine follows what it
    is asked; each token is a burst of power and a pause."""
    idle = rng.uniform(1, 6)
    prefill, decode = idle * rng.uniform(1.5, 8), idle * rng.uniform(1.3, 5)
    gap, jitter = float(np.exp(rng.uniform(np.log(0.008), np.log(0.25)))), rng.uniform(0.005, 0.1)
    duty, depth = rng.uniform(0.3, 0.8), rng.uniform(0, 0.5)
    t = rng.uniform(4, 8)
    at, watt = [0.0], [idle]
    requests, phases = [], []
    for index in range(int(rng.integers(2, 8))):
        sent = t
        first = sent + float(np.exp(rng.uniform(np.log(0.1), np.log(4))))
        n = int(np.clip(np.exp(rng.uniform(np.log(0.5), np.log(12))) / gap, 8, 600))
        tokens = first + np.concatenate([[0.0], np.cumsum(gap * np.maximum(rng.normal(1, jitter, n), 0.2))])
        lag = rng.uniform(0, 0.01)
        at.append(sent + lag)
        watt.append(prefill)
        for start, end in pairwise(tokens.tolist()):
            high = decode * (1 + depth * (1 - duty))
            at += [start + lag, start + lag + duty * (end - start)]
            watt += [high, high - decode * depth]
        t = float(tokens[-1])
        at.append(t + lag)
        watt.append(idle)
        ns = [BOOT_NS + round(x * 1e9) for x in tokens.tolist()]
        send_ns = BOOT_NS + round(sent * 1e9)
        phases += [Phase("prefill", send_ns, ns[0], index), Phase("decode", ns[0], ns[-1], index)]
        requests.append(
            Request(index, f"item{index}", "timed", "ok", send_ns, ns[-1], token_t_ns=tuple(ns), token_n=(1,) * len(ns))
        )
        t += rng.uniform(0.02, 1.5)
    phases.append(Phase("run", requests[0].t_send_ns, requests[-1].t_end_ns))
    power = Power(np.array(at), np.array(watt), idle * rng.uniform(-0.002, 0.004), t + rng.uniform(4, 8))
    return Scene(power, requests, phases)


@dataclass(frozen=True)
class Instrument:
    """A kind of source, and how good its documents say it is.

    ``limit``: of its gain, by its class. ``period_s``: of the readings. ``renewed_s``: how often its register is, from
    and to, drawn anew for each run. What that holds is the mean of ``window_s``, which the series tells, or of a filter
    that it does not (``hidden_s``, from and to). ``update_s``: the greatest age of a value, as the reader would state
    it. ``quantum``: what it resolves, W or J. ``bound_s``: of what is left of its clock's offset.
    """

    name: str
    klass: str
    limit: float
    period_s: float
    renewed_s: tuple[float, float]
    quantum: float
    counter: bool = False
    window_s: float = 0.0
    hidden_s: tuple[float, float] = (0.0, 0.0)
    update_s: float = 0.0
    bound_s: float = 0.0

    def series(self, power: Power, rng: np.random.Generator) -> Series:
        """The readings, with a gain that is right."""
        due = np.arange(rng.uniform(0, self.period_s), power.end_s, self.period_s)
        late = rng.exponential(100e-6, len(due)) + (rng.random(len(due)) < 0.01) * rng.exponential(3e-3, len(due))
        t0, took = due + late, rng.uniform(5e-6, 60e-6, len(due))
        renewed = rng.uniform(*self.renewed_s)
        since = rng.uniform(0, renewed)
        # The moment of which the register tells when it is read.
        held = np.maximum(np.floor((t0 + took / 2 - since) / renewed) * renewed + since, 0.0)
        if self.counter:
            value = power.energy(held)
        else:
            value = power.mean(held, self.window_s or rng.uniform(*self.hidden_s))
            once = np.unique(held, return_inverse=True)[1]
            value += rng.normal(0, _NOISE_W, int(once.max()) + 1)[once]
        value = np.floor(value / self.quantum) * self.quantum
        start = BOOT_NS + np.round(self._mapped(t0, power.end_s, rng) * 1e9).astype(np.int64)
        kind: Kind = "counter" if self.counter else "gauge"
        return Series(
            "made", "J" if self.counter else "W", kind, "made", "module", start,
            start + np.round(took * 1e9).astype(np.int64), value, np.zeros(len(start), np.uint8), klass=self.klass,
            update_s=self.update_s, window_s=self.window_s, clock_bound_s=self.bound_s,
            calibration="made" if self.klass == "D" else "",
        )  # fmt: skip

    def _mapped(self, t: Floats, end_s: float, rng: np.random.Generator) -> Floats:
        """Stamps of its own clock, which is off and drifts, put on the target's by two exchanges with an error each."""
        skew, drift = rng.uniform(-0.7, 0.7), rng.uniform(-50e-6, 50e-6)
        before, after = skew + rng.uniform(-self.bound_s, self.bound_s, 2) + (0, drift * end_s)
        own = t + skew + drift * t
        out: Floats = own - before - (after - before) * (own - skew) / end_s
        return out if self.bound_s else t


_NOISE_W = 0.01  # an amplifier's
# RAPL's tick and unit; INA3221 at 6.6 ms a cycle and 40 mW; fuel gauges at 1 to 4 Hz behind a filter of 0.175 to 1 s;
# NVML's mean of a second, renewed every 20 to 100 ms; a laboratory meter at 10 Hz, each value the mean of 100 ms.
INSTRUMENTS = (
    Instrument("counter", "B", 0.05, 0.019, (976e-6, 976e-6), 61e-6, counter=True, update_s=976e-6),
    Instrument("shunt gauge", "C", 0.10, 0.047, (0.0066, 0.0066), 0.040, update_s=0.0066),
    Instrument("battery gauge", "D", 0.20, 0.197, (0.25, 1.0), 0.004, hidden_s=(0.175, 1.0), update_s=1.0),
    Instrument("trailing mean", "C", 0.10, 0.097, (0.02, 0.1), 0.001, window_s=1.0, update_s=0.1),
    Instrument("external meter", "A", 0.01, 0.1, (1e-4, 1e-4), 0.001, window_s=0.1, bound_s=0.005),
)
