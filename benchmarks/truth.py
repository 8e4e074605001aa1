"""Energy against closed forms: made powers, shown as a device shows them, through reader and integral to joules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import waves
from benchmarks.claims import Claim, Part, Row, Site
from benchmarks.waves import BOOT_NS, Reads, Wave
from meltbench.measure.energy import energy
from meltbench.probe.journal import read_journal
from meltbench.readings import read
from meltbench.records import Measure, Phase, Series

RUN_COUNTER = Claim("whole run of 240 s, counter: worst error", "<=", 0.1, "%")
RUN_GAUGE = Claim("whole run of 240 s, gauge: worst error", "<=", 0.1, "%")
PREFILL_COUNTER = Claim("prefill of 0.4 s, counter at 9.7 ms: worst error", "<=", 2.0, "%")
PREFILL_GAUGE = Claim("prefill of 0.4 s, gauge at 9.7 ms: worst error", "<=", 2.0, "%")
REFUSED = Claim("prefill of 0.4 s at 1 Hz: refused, with a reason", ">=", 100.0, "%")

RUN_S, SHORT_S, IDLE_S = 240.0, 60.0, 3.0
PREFILL_S, DECODE_S = 0.4, 3.0
FAST_S, SLOW_S = 9.7e-3, 1.0
KINDS = ("counter", "gauge")
_ENERGY = "/sys/class/powercap/intel-rapl:0/"
_POWER = "/sys/class/hwmon/hwmon0/power1_input"


def made_waves(run_s: float, rng: np.random.Generator) -> list[Wave]:
    """Every waveform, over the idle windows and the run between them."""
    whole = run_s + 2 * IDLE_S
    return [
        waves.constant(5.1237),
        waves.ramp(2.0, 20.0, whole),
        waves.steps((2.0, 11.0, 6.5, 19.0), 1.37, whole),
        waves.requests(request_starts(run_s, rng), PREFILL_S, DECODE_S),
    ]


def request_starts(run_s: float, rng: np.random.Generator) -> list[float]:
    """Requests at uneven intervals, so that their edges fall anywhere between two readings."""
    return [IDLE_S + 0.2 + 4.1 * i + float(rng.uniform(0, 0.3)) for i in range(int(run_s / 4.2))]


def seen(folder: Path, kind: str, wave: Wave, run_s: float, period_s: float, rng: np.random.Generator) -> Series:
    """The wave as the readers see it: written as a journal's bytes and read as one.

    The one place that knows how a journal becomes a series.
    """
    whole = run_s + 2 * IDLE_S
    once = np.array([BOOT_NS])
    if kind == "counter":
        files = {
            _ENERGY + "energy_uj": waves.counter(wave, period_s, whole, rng),
            _ENERGY + "name": Reads(once, once, [b"package-0\n"]),
            _ENERGY + "max_energy_range_uj": Reads(once, once, [b"%d\n" % waves.RANGE_UJ]),
        }
    else:
        files = {_POWER: waves.gauge(wave, period_s, whole, rng)}
    path = folder / "journal"
    path.write_bytes(waves.journal(files))
    streams = read_journal(path).channel("power")
    reader, options = ("rapl", {}) if kind == "counter" else ("hwmon", {"scope": "module"})
    (series,), _ = read("power", reader, streams, options)
    return series


def measured(series: Series, t0_s: float, t1_s: float) -> Measure:
    """What meltbench says a phase cost."""
    return energy(series, Phase("made", BOOT_NS + round(t0_s * 1e9), BOOT_NS + round(t1_s * 1e9)))


def true_j(wave: Wave, t0_s: float, t1_s: float) -> float:
    """What it did cost."""
    low, high = wave.energy(np.array([t0_s, t1_s])).tolist()
    return float(high - low)


def measure(site: Site) -> Iterator[Row]:
    rounds = 1 if site.quick else 20
    site.say(f"{rounds} rounds of every wave, as a counter and as a gauge")
    for claim, kind in ((RUN_COUNTER, "counter"), (RUN_GAUGE, "gauge")):
        yield _runs(claim, kind, site.folder, rounds)
    for claim, kind in ((PREFILL_COUNTER, "counter"), (PREFILL_GAUGE, "gauge")):
        errors = [100 * (share or 0.0) for _, share in _prefills(site.folder, kind, FAST_S, rounds)]
        worst = float(np.abs(errors).max())
        yield claim.row(worst, {"mean error %": float(np.mean(errors)), "prefills": len(errors)})
    yield _refusals(site.folder, rounds)


def _runs(claim: Claim, kind: str, folder: Path, rounds: int) -> Row:
    worst: dict[str, float] = {}
    short = within = total = 0.0
    for turn in range(rounds):
        for run_s in (SHORT_S, RUN_S):
            rng = np.random.default_rng([turn, KINDS.index(kind), int(run_s)])
            for wave in made_waves(run_s, rng):
                series = seen(folder, kind, wave, run_s, FAST_S, rng)
                found = measured(series, IDLE_S, IDLE_S + run_s)
                share = 100 * abs(_error(found, wave, IDLE_S, IDLE_S + run_s))
                within += share * true_j(wave, IDLE_S, IDLE_S + run_s) / 100 <= (found.u_k2 or 0.0)
                total += 1
                if run_s == SHORT_S:
                    short = max(short, share)
                else:
                    worst[wave.name] = max(worst.get(wave.name, 0.0), share)
    beside: dict[str, float | str] = {f"{name} %": value for name, value in worst.items()}
    beside |= {"worst of runs of 60 s %": short, "within their stated u (k = 2)": f"{within:.0f} of {total:.0f}"}
    return claim.row(max(worst.values()), beside)


def _prefills(folder: Path, kind: str, period_s: float, rounds: int) -> Iterator[tuple[str, float | None]]:
    """Of each prefill the code of the reason why it has no energy and None, or "" and the relative error."""
    for turn in range(rounds):
        rng = np.random.default_rng([turn, KINDS.index(kind), round(period_s * 1e6)])
        starts = request_starts(SHORT_S, rng)
        wave = waves.requests(starts, PREFILL_S, DECODE_S)
        series = seen(folder, kind, wave, SHORT_S, period_s, rng)
        for t0 in starts:
            found = measured(series, t0, t0 + PREFILL_S)
            if found.value is None and period_s == SLOW_S:
                yield str(found.reason).partition(":")[0], None
            else:
                yield "", _error(found, wave, t0, t0 + PREFILL_S)


def _refusals(folder: Path, rounds: int) -> Row:
    beside: dict[str, float | str] = {}
    refused = given = 0
    worst = 0.0
    for kind in KINDS:
        for code, share in _prefills(folder, kind, SLOW_S, rounds):
            refused += share is None
            given += share is not None
            worst = max(worst, abs(share or 0.0))
            if code:
                key = f"{kind} {code}"
                beside[key] = float(beside.get(key, 0.0)) + 1
    note = f"{given} were given an energy, off by {100 * worst:.0f} % at most" if given else ""
    return REFUSED.row(100 * refused / (refused + given), beside, note)


def _error(found: Measure, wave: Wave, t0_s: float, t1_s: float) -> float:
    """The relative error. A refusal where a figure is due is a failure of the benchmark itself."""
    if found.value is None:
        raise RuntimeError(f"{wave.name}, {t0_s:.2f} to {t1_s:.2f} s: {found.reason}")
    true = true_j(wave, t0_s, t1_s)
    return (found.value - true) / true


PARTS = (Part(measure, (RUN_COUNTER, RUN_GAUGE, PREFILL_COUNTER, PREFILL_GAUGE, REFUSED)),)
