"""Looks through the evidence of a run for reasons against full validity. Each finder is pure and knows one subject."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from meltbench.measure.slowed import STICKY, flag_spans
from meltbench.measure.validity import FOREIGN_CORES, LATE_SHARE, MISSED_SHARE, STEP_S, SUSPEND_S, SWAPPED_SHARE, reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.measure.digest import Digest
    from meltbench.records import Measure, Phase, Reason, Request, SourceStatus

    ClockPair = tuple[int, int, int]

MIN_EXPECTED = 20  # readings; of fewer, a share says nothing
_ENERGY_CODES = (
    *("low_coverage", "stale_sensor", "counter_reset", "sensor_unreadable", "uncalibrated_sensor", "trailing_average"),
    *("aliased_gauge", "implausible_power", "sensor_denied", "sensor_gated"),
)


@dataclass(frozen=True)
class StreamStats:
    """How well one stream kept its deadlines: readings ``expected`` by its period and ``seen``, ``late``, skipped."""

    name: str
    expected: int
    seen: int
    late: int = 0
    overruns: int = 0


def clock_reasons(pairs: Sequence[ClockPair], boot_ids: Sequence[str] = ()) -> list[Reason]:
    """Suspend, wall clock steps and reboots from (boot, monotonic, wall) nanoseconds in order of recording.

    ``boot_ids``: those seen of the machine, before the run and in it; empty ones are unknown and say nothing.
    """
    out: list[Reason] = []
    if len(boots := dict.fromkeys(one for one in boot_ids if one)) > 1:
        return [reason("device_rebooted", f"the boot id changed: {', '.join(boots)}")]
    if not pairs:
        return out
    if any(now[0] < before[0] for before, now in pairwise(pairs)):
        return [reason("device_rebooted", "CLOCK_BOOTTIME ran backwards within the run")]
    asleep = [boot - mono for boot, mono, _ in pairs]
    slept_s = (max(asleep) - min(asleep)) / 1e9
    if slept_s > SUSPEND_S:
        out.append(reason("suspended", f"the target slept for {slept_s:.3g} s within the run"))
    offset = [wall - boot for boot, _, wall in pairs]
    moved_s = (max(offset) - min(offset)) / 1e9
    if moved_s > STEP_S:
        out.append(reason("clock_stepped", f"the wall clock moved by {moved_s:.3g} s"))
    return out


def gate_conditions(gate: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What the thermal gate's outcome speaks against, as the ticket has it; None: of a version that had no gate.

    A gate that ran out of time is told with what it saw, so that a reader can judge how warm the start was.
    """
    state = (gate or {}).get("state", "off")
    if state == "off":
        return [("not_gated", "the run started without waiting for a steady temperature")]
    if state == "no_sensor":
        return [("no_thermal_sensor", "no zone gave a temperature at the gate")]
    if state != "timed_out":
        return []
    temp_c, slope, target_c = (_number(gate, key) for key in ("temp_c", "slope_c_per_min", "target_c"))
    said = ["no temperature" if temp_c is None else f"{temp_c:.1f} degC"]
    said += [] if target_c is None else [f"target {target_c:.1f} degC"]
    said += [] if slope is None else [f"{slope:+.2f} degC/min"]
    return [("warm_start", f"{', '.join(said)} after {_number(gate, 'waited_s') or 0:.0f} s of waiting")]


def charge_conditions(charge: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What the charge of the battery at the beginning speaks against, as the ticket has it; None: nobody looked."""
    bounds, state = (charge or {}).get("window_percent"), (charge or {}).get("state")
    if not isinstance(bounds, list) or len(bounds) != 2 or state == "inside":
        return []
    level = _number(charge, "soc_percent")
    at = "nobody told how full the battery was" if level is None else f"{level:g} %"
    waited_s = _number(charge, "waited_s") or 0.0
    after = f" after {waited_s:.0f} s of waiting" if waited_s else ""
    return [("charge_out_of_window", f"{at}{after}, the window is {bounds[0]:g} to {bounds[1]:g} %")]


def _number(told: Mapping[str, Any] | None, key: str) -> float | None:
    value = (told or {}).get(key)
    return float(value) if isinstance(value, int | float) else None


def sampler_reasons(streams: Sequence[StreamStats]) -> list[Reason]:
    """Deadlines missed or met late by more than the table allows; the worst stream is named first."""
    bad = []
    for one in streams:
        if one.expected < MIN_EXPECTED:
            continue
        missed = max(one.overruns, one.expected - one.seen) / one.expected
        late = one.late / one.expected
        if missed > MISSED_SHARE or late > LATE_SHARE:
            bad.append((missed + late, f"{one.name}: {max(missed, 0.0):.0%} missed, {late:.0%} late"))
    return joined("sampler_starved", [words for _, words in sorted(bad, reverse=True)])


def source_reasons(sources: Sequence[SourceStatus]) -> list[Reason]:
    """Sources that may not be read, or that said only that they are off. Absence is no reason."""
    denied = [one.source for one in sources if one.status == "denied"]
    gated = [one.source for one in sources if one.status in ("gated", "again")]
    return joined("sensor_denied", denied) + joined("sensor_gated", gated)


def _flagged(signals: Sequence[Digest], run: Phase | None, ending: str) -> list[str]:
    """The flags of that name that were up in the run."""
    return [
        one.name
        for one in signals
        if run is not None and one.name.removesuffix(STICKY).endswith(ending)
        if any(t0 < run.t1_ns and t1 > run.t0_ns for t0, t1 in flag_spans(one, run.t1_ns))
    ]


def frequency_reasons(signals: Sequence[Digest], run: Phase | None) -> list[Reason]:
    """Policies whose cap lay below the hardware's maximum in the run, and flags that say so."""
    if run is None:
        return []
    highest = {
        one.name.removesuffix(".hw_max_hz"): one.whole.high
        for one in signals
        if one.name.endswith(".hw_max_hz") and one.whole.n
    }
    capped = []
    for one in signals:
        policy = one.name.removesuffix(".max_hz")
        if one.name.endswith(".max_hz") and policy in highest and one.run.n and one.run.low < highest[policy]:
            what = policy.removeprefix("cpufreq.")
            capped.append(f"{what}: {one.run.low / 1e9:.2f} GHz of {highest[policy] / 1e9:.2f} GHz")
    return joined("frequency_capped", capped + _flagged(signals, run, ".frequency_capped"))


def request_reasons(requests: Sequence[Request], asked: Mapping[int, int]) -> list[Reason]:
    """Failed requests, and answers of another length than asked. ``asked``: tokens to be produced, by request index,
    of the requests that were made to produce exactly so many."""
    timed = [request for request in requests if request.role == "timed"]
    good = [request for request in timed if request.status == "ok"]
    bad = [request for request in timed if request.status != "ok"]
    if timed and not good:
        return [reason("no_timed_request", f"all {len(timed)} failed; the first: {_said(bad[0])}")]
    short = [
        f"{request.item}: {_told(request.n_out)} of {asked[request.index]} tokens"
        for request in good
        if request.index in asked and request.n_out != asked[request.index]
    ]
    failed = [reason("request_failed", f"{len(bad)} of {len(timed)}; the first: {_said(bad[0])}")] if bad else []
    return failed + joined("truncated_output", short)


def _told(count: int | None) -> str:
    return "an unknown number" if count is None else str(count)


def measure_reasons(measures: Sequence[Measure]) -> list[Reason]:
    """What the numbers themselves speak against: background load, heat unseen, short or implausible energy."""
    found = {(one.name, one.phase, one.source): one for one in reversed(measures)}
    out: list[Reason] = []
    foreign = found.get(("foreign_cores", "run", ""))
    if foreign is not None and foreign.value is not None and foreign.value > FOREIGN_CORES:
        out.append(reason("background_load", f"others used {foreign.value:.2f} cores"))
    held = found.get(("peak_held_bytes", "run", "process.rss_swap_bytes"))
    out += _swapped(found.get(("swap_bytes", "run", "process.swap_bytes")), held)
    heat = found.get(("max_temp_c", "run", ""))
    if heat is not None and heat.value is None:
        out.append(reason("no_thermal_sensor", "no zone gave a temperature in the run"))
    energy = found.get(("energy_j", "run", "total"))
    if energy is not None and energy.reason is not None:
        code, _, words = energy.reason.partition(": ")
        if code in _ENERGY_CODES:
            out.append(reason(code, words))
    return out


def _swapped(swap: Measure | None, held: Measure | None) -> list[Reason]:
    """Memory of the process under test that its RSS does not show."""
    if swap is None or held is None or swap.value is None or not held.value or swap.value <= SWAPPED_SHARE * held.value:
        return []
    mib = 2**20
    return [reason("swapped", f"up to {swap.value / mib:.0f} of {held.value / mib:.0f} MiB lay in a swap or zram")]


def _said(request: Request) -> str:
    return f"{request.item}: {request.status}" + (f": {request.detail}" if request.detail else "")


def joined(code: str, details: Sequence[str]) -> list[Reason]:
    """One reason for all that share a code, at most four of them told."""
    if not details:
        return []
    more = f" and {len(details) - 4} more" if len(details) > 4 else ""
    return [reason(code, ", ".join(details[:4]) + more)]
