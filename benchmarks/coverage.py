"""Whether stated uncertainties are true: how often u covers the error, for random runs seen by all kinds of source."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import peers, powers
from benchmarks.claims import Claim, Part, Row, Site
from benchmarks.powers import BOOT_NS, INSTRUMENTS, Instrument
from meltbench.measure.beats import beats
from meltbench.measure.digest import Edges, digest
from meltbench.measure.edges import SQRT3
from meltbench.measure.energy import Rail, Window, rail_of, window
from meltbench.records import Phase

SCENES = 1000
MIDDLE, WITHIN = 96.0, 3.0  # a k = 2 interval is to hold the true energy in 93 to 99 % of cases
CLAIMS = {
    one.name: Claim(f"{one.name} ({one.klass}): cases within u at k = 2, off {MIDDLE:.0f} %", "<=", WITHIN, "points")
    for one in INSTRUMENTS
}


@dataclass(frozen=True)
class Case:
    """One window of one run: what meltbench found, what was true, what others found."""

    phase: str
    rail: Rail
    found: Window
    true_j: float
    others_j: dict[str, float]
    gains: dict[str, float]

    @property
    def error(self) -> float:
        """Of what was found, relative, with a gain that is right."""
        assert self.found.energy_j is not None
        return self.found.energy_j / self.true_j - 1

    def holds(self, gain: str) -> bool:
        """Whether the stated interval holds the true energy when the instrument's gain is off by this draw."""
        assert self.found.energy_j is not None
        scale = 1 + self.gains[gain]
        measured = self.found.energy_j * scale
        u_k2 = self.rail.u_k2(measured, *(part * scale for part in self.found.parts_j))
        return u_k2 is not None and abs(measured - self.true_j) <= u_k2

    def holds_without_gain(self) -> bool:
        """The same for the rest of u alone, with a gain that is right."""
        assert self.found.energy_j is not None
        return abs(self.found.energy_j - self.true_j) <= 2 * math.hypot(*self.found.parts_j)


def cases(instrument: Instrument, scenes: int) -> Iterator[Case]:
    """The run, a prefill and a decode of so many scenes, always the same ones."""
    number = INSTRUMENTS.index(instrument)
    others = peers.COUNTERS if instrument.counter else peers.GAUGES
    for turn in range(scenes):
        rng = np.random.default_rng([turn, number])
        scene = powers.scene(rng)
        series = instrument.series(scene.power, rng)
        spans = [(one.t0_ns, one.t1_ns) for one in scene.phases]
        rail = rail_of(digest(series, Edges.of(spans, scene.run, (), beats(scene.requests))))
        for phase in (scene.run, *(_one_of(scene.phases, name, rng) for name in ("prefill", "decode"))):
            edges = (np.array([phase.t0_ns, phase.t1_ns]) - BOOT_NS) / 1e9
            low, high = scene.power.energy(edges).tolist()
            sd = instrument.limit / SQRT3
            gains = {"normal": rng.normal(0, sd), "rectangular": rng.uniform(-1, 1) * instrument.limit, "right": 0.0}
            yield Case(
                phase.name,
                rail,
                window(rail, phase.t0_ns, phase.t1_ns),
                high - low,
                {name: add(series, phase) for name, add in others.items()},
                gains,
            )


def _one_of(phases: Sequence[Phase], name: str, rng: np.random.Generator) -> Phase:
    mine = [one for one in phases if one.name == name]
    return mine[int(rng.integers(len(mine)))]


def share(found: Sequence[Case], test: Callable[[Case], bool]) -> float:
    """Percent of the cases for which the test holds."""
    return 100 * sum(map(test, found)) / len(found)


def measure(site: Site) -> Iterator[Row]:
    scenes = 40 if site.quick else SCENES
    for instrument in INSTRUMENTS:
        site.say(f"{scenes} runs seen by one {instrument.name}")
        yield row(instrument, list(cases(instrument, scenes)))


def row(instrument: Instrument, every: Sequence[Case]) -> Row:
    """The line of one kind of source."""
    found = [one for one in every if one.found.energy_j is not None]
    refused = [one for one in every if one.found.energy_j is None]
    held = share(found, lambda one: one.holds("normal"))
    beside: dict[str, float | str] = {"held %": held, "of cases": float(len(found))}
    for name in ("run", "prefill", "decode"):
        if mine := [one for one in found if one.phase == name]:
            beside[f"{name} held %"] = f"{share(mine, lambda one: one.holds('normal')):.3g} of {len(mine)}"
    beside["rectangular gain %"] = share(found, lambda one: one.holds("rectangular"))
    beside["right gain %"] = share(found, lambda one: one.holds("right"))
    beside["right gain, u without gain %"] = share(found, Case.holds_without_gain)
    for code, n in Counter((one.found.reason or "").partition(":")[0] for one in refused).items():
        beside[f"refused {code}"] = float(n)
    beside["error %, median and 95 % below"] = _errors([one.error for one in found])
    for name in every[0].others_j:
        beside[name] = _errors([one.others_j[name] / one.true_j - 1 for one in found])
        if refused:
            beside[f"{name} where refused"] = _errors([one.others_j[name] / one.true_j - 1 for one in refused])
    return CLAIMS[instrument.name].row(abs(held - MIDDLE), beside)


def _errors(relative: Sequence[float]) -> str:
    middle, most = 100 * np.quantile(np.abs(relative), [0.5, 0.95])
    return f"{middle:.2g} and {most:.2g}"


PARTS = (Part(measure, tuple(CLAIMS.values())),)
