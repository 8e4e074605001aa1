"""Samples and requests become numbers with uncertainty, and named reasons against their validity. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from meltbench.measure.accuracy import accuracy_measures
from meltbench.measure.battery import battery_reasons, on_battery, under_voltage_reasons
from meltbench.measure.charge import BY_REQUEST, Stated, charge_measures
from meltbench.measure.costs import INFERRED, NO_RUN, SCORED, SERVED, energy_measures, rail_measures, too_much, without
from meltbench.measure.crosscheck import cross_check
from meltbench.measure.findings import (
    StreamStats,
    clock_reasons,
    frequency_reasons,
    measure_reasons,
    request_reasons,
    sampler_reasons,
    source_reasons,
)
from meltbench.measure.gauges import (
    frequency_measures,
    gpu_memory_measures,
    load_measures,
    memory_measures,
    process_memory_measures,
    thermal_measures,
)
from meltbench.measure.inference import inference_measures
from meltbench.measure.latency import OF_CACHE, count_measures, in_mode, latency_measures, load_measure, point_measures
from meltbench.measure.own_cpu import Life, cpu_within
from meltbench.measure.per_request import with_energy
from meltbench.measure.points import groups_of, in_a_row, points, together, unlike
from meltbench.measure.question_costs import question_measures, with_costs
from meltbench.measure.ratios import NET_RATIOS, RATIOS
from meltbench.measure.regimes import Found, regimes
from meltbench.measure.screening import Screened, most_w, screen_reasons, screened_total, without_refuted
from meltbench.measure.sustained import power_drift, sustained_measures
from meltbench.measure.throttle import throttle_reasons
from meltbench.measure.throughput import throughput
from meltbench.measure.total import TOTAL, Designation, Total, designated, rails
from meltbench.measure.validity import reason, state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.engines.prompts import Kind
    from meltbench.measure.digest import Digest
    from meltbench.measure.likelihood import Normalise
    from meltbench.records import Measure, Phase, Reason, Request, Score, SourceStatus, State

__all__ = ["Designation", "RunInputs", "Stated", "StreamStats", "energies", "measure_run", "question_measures"]


@dataclass(frozen=True)
class RunInputs:
    """All evidence of a run, already parsed.

    ``kind`` says what was under test: an engine that was asked (``generate``, ``chat``, ``grid``, ``sustained``), a
    command (``exec``), or nothing (``idle``); measures that make no sense for it are not made. ``mode``: server, bench
    or in-process, of whose figures none stands under the name of another's. ``load_label``: cold,
    warm or mixed page cache. ``maxrss_bytes`` and ``life_cpu_s``: of the process under test, by rusage at its exit.
    ``lives``: the processes of an engine that is several, one after the other.
    ``failure``: code, detail and cause of a run that is not done (outcome.py). ``conditions``: codes and details that
    the conductor of the run already knows (not_gated, warm_start, settings_not_applied ...). ``clocks``: (boot, mono,
    wall) in ns in order.
    ``boot_ids``: boot ids seen, of the facts before the run and of the probe's begin event.
    ``asked``: exact number of tokens by request index, where the engine was made to produce so many.
    ``totals``: what the profile names as the total, in order of preference. ``gpus``: those outside of the processor's
    package. ``max_power_w``: more than the device can draw, None where its profile does not say. ``battery``: what its
    profile states of its battery. ``screened``: what the samples of power and energy were like. ``scores``: how good
    the answers were, and ``by_way`` what each way of normalising makes of choices. ``unseen``: why no process
    that was seen is the engine, ``unloaded``: why nobody saw it load its model; code and words. ``remote``: why the
    energy of this machine is not the engine's; each is empty where it is.
    """

    kind: Kind
    signals: Sequence[Digest]
    sources: Sequence[SourceStatus]
    phases: Sequence[Phase]
    mode: str = "server"
    requests: Sequence[Request] = ()
    load_s: float | None = None
    load_label: str | None = None
    maxrss_bytes: int | None = None
    life_cpu_s: float | None = None
    lives: Sequence[Life] = ()
    failure: tuple[str, str] | tuple[str, str, str] | None = None
    conditions: Sequence[tuple[str, str]] = ()
    clocks: Sequence[tuple[int, int, int]] = ()
    boot_ids: Sequence[str] = ()
    streams: Sequence[StreamStats] = ()
    asked: Mapping[int, int] = field(default_factory=dict)
    totals: Sequence[Designation] = (Designation("rapl"),)
    gpus: Sequence[str] = ()
    max_power_w: float | None = None
    battery: Stated | None = None
    screened: Sequence[Screened] = ()
    scores: Sequence[Score] = ()
    by_way: Mapping[Normalise, Sequence[float]] = field(default_factory=dict)
    unseen: str = ""
    unloaded: str = ""
    remote: str = ""

    @property
    def run(self) -> Phase | None:
        """The run's window; None where it was never seen."""
        return next((phase for phase in self.phases if phase.name == "run"), None)

    @cached_property
    def given_total(self) -> Total:
        """What the device's energy is made up of, by the profile and what was read."""
        if self.remote:
            return Total(None, f"remote_engine: {self.remote}")
        return designated(self.totals, self.sources, self.signals, self.gpus)

    @cached_property
    def total(self) -> Total:
        """The same, unless its samples refute it."""
        return screened_total(self.given_total, self.totals, self.screened)

    @cached_property
    def power_drift(self) -> Measure | None:
        """Whether the power has settled; of sustained runs alone."""
        return power_drift(self.total.rail, self.total.reason, self.run) if self.kind == "sustained" else None

    @cached_property
    def regimes(self) -> Found:
        """Burst, throttled, sustained ...: the states the device went through."""
        return regimes(self.kind, self.signals, self.phases, self.requests, self.power_drift)

    @property
    def most_w(self) -> float:
        """Power beyond the device; where its profile does not say, beyond any machine in scope with so many GPUs."""
        return most_w(self.max_power_w, self.gpus)


def measure_run(inputs: RunInputs) -> tuple[list[Measure], list[Reason], State]:
    """Every measure of a run, the reasons against its validity, and the state they come to."""
    run, found_total = inputs.run, inputs.total
    of_battery = on_battery(inputs.given_total, inputs.totals, inputs.signals)
    costs = energy_measures(
        found_total.rail,
        found_total.reason,
        inputs.phases,
        inputs.requests,
        kind=inputs.kind,
        max_power_w=inputs.most_w,
    )
    measures = [
        *accuracy_measures(inputs.scores, inputs.by_way),
        *_served(inputs),
        *load_measures(inputs.signals, run, *_own_cpu(inputs, run), no_run=NO_RUN[inputs.kind]),
        *(process_memory_measures(inputs.signals, inputs.maxrss_bytes) if inputs.kind != "idle" else ()),
        *memory_measures(inputs.signals, run),
        *gpu_memory_measures(inputs.signals, run, inputs.gpus),
        *costs,
        *(_of_charge(inputs, costs) if not inputs.remote and (of_battery or inputs.battery is not None) else ()),
        *(() if inputs.remote else _of_rails(inputs)),
        *thermal_measures(inputs.signals, run),
        *frequency_measures(inputs.signals, run),
        *(one for one in (inputs.power_drift, inputs.regimes.recovery) if one is not None),
    ]
    of_mode = {name for name, _ in (*RATIOS, *NET_RATIOS, *BY_REQUEST)}
    measures = [_unseen(one, inputs.unseen) for one in measures]
    measures = [in_mode([one], inputs.mode)[0] if one.name in of_mode else one for one in measures]
    checked, disagreements = cross_check(inputs.signals, run)
    measures = without_refuted([*measures, *checked], inputs.screened)
    found = [
        *([reason(*inputs.failure)] if inputs.failure else []),
        *(reason(code, detail) for code, detail in inputs.conditions if code),
        *clock_reasons(inputs.clocks, inputs.boot_ids),
        *request_reasons(inputs.requests, inputs.asked),
        *sampler_reasons(inputs.streams),
        *source_reasons(inputs.sources),
        *frequency_reasons(inputs.signals, run),
        *throttle_reasons(inputs.regimes.throttled, run),
        *battery_reasons(inputs.signals, run, of_battery, inputs.phases),
        *under_voltage_reasons(inputs.signals, run),
        *disagreements,
        *screen_reasons(inputs.given_total, inputs.totals, inputs.screened),
        *measure_reasons(measures),
        *([reason("partial_total", found_total.partial)] if found_total.partial else []),
    ]
    first: dict[str, Reason] = {}
    for one in found:
        first.setdefault(one.code, one)  # whoever names a code first saw it closest
    reasons = list(first.values())
    return measures, reasons, state(reasons)


def _served(inputs: RunInputs) -> list[Measure]:
    """What is known of a server's answers; points are told apart where a median over them means nothing."""
    if inputs.kind in SCORED:
        return in_mode([load_measure(inputs.load_s, inputs.load_label, inputs.unloaded)], inputs.mode)
    if inputs.kind in INFERRED:
        load = in_mode([load_measure(inputs.load_s, inputs.load_label, inputs.unloaded)], inputs.mode)
        return [*load, *inference_measures(inputs.requests)]
    if inputs.kind not in SERVED:
        return []
    out = [load_measure(inputs.load_s, inputs.load_label, inputs.unloaded)]
    whole = not unlike(inputs.kind, inputs.requests)
    if whole:
        out += latency_measures(inputs.requests, OF_CACHE if points(inputs.requests) else ())
    out += point_measures(inputs.requests, inputs.mode)
    if inputs.kind == "sustained":
        out += sustained_measures(inputs.requests)
    if whole:
        out += throughput("run", inputs.requests)
    # Levels have a time of their own; points among others' have none, but a rate where answers share the engine.
    row, groups = in_a_row(inputs.requests), together(inputs.requests)
    at_once = any(len(group) > 1 for group in groups)
    for point in points(inputs.requests) if inputs.kind == "generate" and (row or at_once) else ():
        mine = [request for request in inputs.requests if request.point == point]
        out += throughput(point, mine, among=not row, shared=not row and groups_of(point, groups)[1])
    return [*count_measures(inputs.requests), *in_mode(out, inputs.mode)]


def _unseen(measure: Measure, why: str) -> Measure:
    """A measure of the engine's process without its value, where that is another process than the one that was seen."""
    return replace(measure, value=None, u_k2=None, reason=why) if why and measure.scope == "process" else measure


def _own_cpu(inputs: RunInputs, run: Phase | None) -> tuple[float | None, str]:
    """Processor seconds under test known without sampling: none when idle, the whole life's for a command, those of
    several processes within the run."""
    if inputs.kind == "idle":
        return 0.0, "nothing is under test"
    # A program may end before its last sample could enclose the run; a server is stopped after it.
    if inputs.lives and inputs.mode != "server" and run is not None:
        return cpu_within(inputs.lives, inputs.signals, run), f"{len(inputs.lives)} processes, by rusage and sampled"
    return (inputs.life_cpu_s if inputs.kind == "exec" else None), "user + system time by rusage at exit"


def _of_charge(inputs: RunInputs, costs: Sequence[Measure]) -> list[Measure]:
    """What the run took of the battery; of a device that runs on one."""
    return charge_measures(
        inputs.total, inputs.battery, inputs.signals, inputs.run, inputs.requests, costs, inputs.kind
    )


def _of_rails(inputs: RunInputs) -> list[Measure]:
    """The energy of every signal by itself: parts of the total and what lies outside of it, never to be added up."""
    seconds = next((phase.duration_s for phase in inputs.phases if phase.name == "run"), 0.0)
    out: list[Measure] = []
    for rail in rails(inputs.signals):
        found = rail_measures(rail, inputs.phases, inputs.requests, kind=inputs.kind)
        out += without(found, too_much(found[0], seconds, inputs.most_w))
    return out


def energies(inputs: RunInputs, measures: Sequence[Measure]) -> tuple[list[Request], list[Score]]:
    """The requests of a run and its scored questions with the energy of each, from the designated total. ``measures``:
    those of the run, for where its total cannot be true that of a request is none either."""
    gross = next((m for m in measures if (m.name, m.phase, m.source) == ("energy_j", "run", TOTAL)), None)
    said = (gross.reason or "") if gross is not None else ""
    bad = said if said.startswith("implausible_power") else ""
    rail = None if bad else inputs.total.rail
    why, run_has_it = bad or inputs.total.reason, gross is not None and gross.value is not None
    return (
        with_energy(inputs.requests, rail, why, run_has_it),
        with_costs(inputs.scores, inputs.requests, rail, why),
    )
