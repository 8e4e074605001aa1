"""What gauges and counters say beside energy: memory, heat, clocks, processor load, pressure.

Every function takes the run's signals, digested, and gives measures; one that cannot be told is None with a reason.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meltbench.measure.clocks import mean_clocks
from meltbench.measure.counters import difference
from meltbench.measure.digest import Extent, named
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.digest import Digest
    from meltbench.records import Phase, Scope

MIN_SLOPE_SAMPLES = 10
# Two counters of 10 ms ticks, the machine's and the engine's, are each off by up to one tick: 0.02 s / wall cores. That
# is kept below half of the 0.1 core that counts as background load, so that ticks alone never make a reason.
MIN_FOREIGN_S = 0.4
# utime and stime of a process are each cut to whole ticks: what rose less than both together may not have risen.
MIN_SAMPLED_S = 0.02
NEAR_PEAK = 0.8  # of the peak RSS: Pss moves with RSS, so a reading there is within a fifth of the peak Pss
_LOAD = (
    *("process.cpu_s", "process.major_faults", "cpu.busy_s", "cpu.steal_s"),
    *(f"pressure.{what}.some_s" for what in ("cpu", "memory", "io")),
)
_GPU_MEMORY = re.compile(r"[a-z]{1,16}\.gpu\d{1,4}\.memory_bytes")
# Measure and the series behind it.
_PROCESS_MEMORY = (("pss_file_bytes", "process.pss_file_bytes"), ("swap_bytes", "process.swap_bytes"))
_BY_RUSAGE = "largest resident set by rusage at exit"


def extent(one: Digest, phase: Phase | None) -> Extent:
    """What a signal showed in the run, or in all where there is no phase."""
    return one.whole if phase is None else one.run


def _extreme(signals: Sequence[Digest], name: str, phase: Phase | None, how: str) -> tuple[float | None, int]:
    found = [found for one in named(signals, name) if (found := extent(one, phase)).n]
    if not found:
        return None, 0
    n = sum(one.n for one in found)
    return (max(one.high for one in found) if how == "max" else min(one.low for one in found)), n


def process_memory_measures(signals: Sequence[Digest], maxrss_bytes: int | None) -> list[Measure]:
    """Peaks of the process under test over its whole life.

    ``peak_held_bytes`` is the largest VmRSS + VmSwap of one reading: with a swap or zram the resident part alone falls
    while the process holds as much as before.
    ``peak_pss_bytes`` is the largest Pss + SwapPss of one reading: Pss alone hides what was swapped out. smaps_rollup
    is read seldom, so it is None unless a reading fell where VmRSS + VmSwap were near the most that was held.
    ``pss_file_bytes`` stands apart: mapped weights that the kernel could drop and read again.
    """
    peak, n = _extreme(signals, "process.hwm_bytes", None, "max")
    if peak is not None and (maxrss_bytes is None or peak >= maxrss_bytes):
        rss = Measure("peak_rss_bytes", peak, "B", "max", scope="process", n=n, method="VmHWM")
    elif maxrss_bytes:
        rss = Measure("peak_rss_bytes", float(maxrss_bytes), "B", "max", scope="process", n=1, method=_BY_RUSAGE)
    else:
        rss = Measure(
            "peak_rss_bytes",
            None,
            "B",
            "max",
            scope="process",
            reason="no_reading: no VmHWM, and by rusage no more than the probe",
        )
    held = _extreme_bytes(signals, "peak_held_bytes", "process.rss_swap_bytes", "max", "process")
    out = [rss, held, _peak_pss(signals, max((m.value for m in (rss, held) if m.value is not None), default=None))]
    return out + [_extreme_bytes(signals, name, source, "max", "process") for name, source in _PROCESS_MEMORY]


def memory_measures(signals: Sequence[Digest], run: Phase | None) -> list[Measure]:
    """The least memory the machine had left in the run, and how much less that was than the most it had around it.

    ``memory_taken_bytes`` holds what a GPU took that shares the machine's memory, which no process's RSS does; mapped
    weights are no part of it, because the kernel counts the page cache as available.
    """
    name = "memory.available_bytes"
    least = _extreme_bytes(signals, "memory_available_bytes", name, "min", "system", run)
    most, n = _extreme(signals, name, None, "max")
    taken = None if least.value is None or most is None else most - least.value
    of_all = Measure(
        "memory_taken_bytes", taken, "B", "max", scope="system", source=name, n=n, reason=least.reason,
        method="most available at any time less the least in the run",
    )  # fmt: skip
    return [least, of_all]


def gpu_memory_measures(signals: Sequence[Digest], run: Phase | None, gpus: Sequence[str]) -> list[Measure]:
    """Most memory of each GPU that was taken in the run, by whomever; none where the machine has no GPU."""
    name, boards = "peak_gpu_memory_bytes", [one for one in signals if _GPU_MEMORY.fullmatch(one.name)]
    out = [
        Measure(name, seen.high, "B", "max", scope="system", source=one.name, n=seen.n)
        for one in boards
        if (seen := extent(one, run)).n
    ]
    if out or not (boards or gpus or any(one.name.startswith("gpu.") for one in signals)):
        return out
    why = "no_reading: no memory of a GPU was read; what shares the machine's own is in memory_taken_bytes"
    return [Measure(name, None, "B", "max", scope="system", reason=why)]


def _extreme_bytes(
    signals: Sequence[Digest], name: str, source: str, how: str, scope: Scope, phase: Phase | None = None
) -> Measure:
    value, count = _extreme(signals, source, phase, how)
    reason = None if value is not None else f"no_reading: {source} was not read"
    return Measure(name, value, "B", how, scope=scope, source=source, n=count, reason=reason)


def _peak_pss(signals: Sequence[Digest], peak_rss: float | None) -> Measure:
    """What smaps_rollup itself says of Rss + Swap tells whether any reading fell near the peak."""
    found = [one.whole for one in named(signals, "process.pss_total_bytes") if one.whole.n]
    held = [one.whole.high for one in named(signals, "process.held_bytes") if one.whole.n]
    n = sum(one.n for one in found)
    if not found:
        why = "no_reading: smaps_rollup of the process was not read"
    elif peak_rss is None or not held or max(held) < NEAR_PEAK * peak_rss:
        why = f"low_coverage: none of {n} readings fell near the peak of VmRSS"
    else:
        peak = max(one.high for one in found)
        return Measure("peak_pss_bytes", peak, "B", "max", scope="process", n=n, method="Pss + SwapPss")
    return Measure("peak_pss_bytes", None, "B", "max", scope="process", n=n, reason=why)


def thermal_measures(signals: Sequence[Digest], run: Phase | None) -> list[Measure]:
    """Hottest first: the temperature at the start of the run, its maximum, its slope; then one maximum a zone."""
    zones = [one for one in signals if one.name.startswith("thermal.") and one.head.unit == "degC"]
    hot = {one.name: one for one in zones if run is not None and one.run.n}
    if run is None or not hot:
        why = "no_thermal_sensor: no zone gave a temperature in the run"
        return [
            Measure("start_temp_c", None, "degC", reason=why),
            Measure("max_temp_c", None, "degC", "max", reason=why),
            Measure("temp_slope_c_per_s", None, "degC/s", "slope", reason=why),
        ]
    one = max(hot.values(), key=lambda zone: zone.run.high)
    method = f"hottest of {len(hot)} zones: {one.name.removeprefix('thermal.')}"
    out = [
        _start_temp(one, method),
        Measure("max_temp_c", one.run.high, "degC", "max", n=one.run.n, method=method),
        _slope(one, method),
    ]
    return out + [Measure("max_temp_c", z.run.high, "degC", "max", source=z.name, n=z.run.n) for z in hot.values()]


def _start_temp(one: Digest, method: str) -> Measure:
    """The last reading before the run."""
    if one.before is None:
        return Measure("start_temp_c", None, "degC", reason="low_coverage: no reading before the run", method=method)
    return Measure("start_temp_c", one.before, "degC", n=1, method=method)


def _slope(one: Digest, method: str) -> Measure:
    """Least squares over the run."""
    n, slope = one.line.n, one.line.slope
    if n < MIN_SLOPE_SAMPLES or slope is None:
        why = f"low_coverage: {n} readings, {MIN_SLOPE_SAMPLES} are needed"
        return Measure("temp_slope_c_per_s", None, "degC/s", "slope", n=n, reason=why, method=method)
    return Measure("temp_slope_c_per_s", slope, "degC/s", "slope", n=n, method=f"least squares, {method}")


def frequency_measures(signals: Sequence[Digest], run: Phase | None) -> list[Measure]:
    """The mean clock of the run, the lowest and highest that were seen and the lowest cap, one of each a policy."""
    out = mean_clocks(signals, run)
    for one in signals:
        if run is None or not one.name.startswith("cpufreq.") or not one.run.n:
            continue
        seen = one.run
        if one.name.endswith(".cur_hz"):
            out.append(Measure("cpu_freq_hz", seen.low, "Hz", "min", source=one.name, n=seen.n))
            out.append(Measure("cpu_freq_hz", seen.high, "Hz", "max", source=one.name, n=seen.n))
        elif one.name.endswith(".max_hz"):
            out.append(Measure("cpu_freq_cap_hz", seen.low, "Hz", "min", source=one.name, n=seen.n))
    return out or [Measure("cpu_freq_hz", None, "Hz", "max", reason="no_reading: no clock was read in the run")]


def _rise(signals: Sequence[Digest], name: str, run: Phase) -> float | str:
    """How far a counter rose in the run; of several streams the one that encloses it."""
    answer: float | str = f"no_reading: {name} was not read"
    for one in named(signals, name):
        answer = difference(one, run.t0_ns, run.t1_ns)
        if not isinstance(answer, str):
            return answer
    return answer


def load_measures(
    signals: Sequence[Digest],
    run: Phase | None,
    known_s: float | None = None,
    known_by: str = "",
    *,
    no_run: str = "no_timed_request: no timed request was sent",
) -> list[Measure]:
    """Processor seconds of the process under test, cores that others used, and pressure, over the run.

    ``foreign_cores`` = (busy + stolen - own) / wall: steal counts, for a core the host gave to somebody else is
    lost to the engine like any other. Ticks of 10 ms make it slightly negative on an idle machine; it is not clipped.
    It is None for a run that is too short for such ticks. ``wall_s`` and ``cpu_s`` of a grid are of the whole window,
    the prefills that set points up included. A sampled ``cpu_s`` of less than two ticks is None: 0 would say that the
    process did nothing, and it may have worked all of that time. ``known_s``: processor seconds under test where
    something better than sampling knows them, ``known_by`` it. ``no_run``: why there is no run window, where there is
    none.
    """
    found: dict[str, float | str] = {name: no_run if run is None else _rise(signals, name, run) for name in _LOAD}
    own: float | str = found["process.cpu_s"] if known_s is None else known_s
    wall = run.duration_s if run is not None else no_run
    sampled = _of("cpu_s", _seen(own), "s", "process", "sampled")
    out = [
        sampled if known_s is None else _of("cpu_s", known_s, "s", "process", known_by),
        _of("wall_s", wall, "s"),
        _of(
            "major_faults", found["process.major_faults"], "1", "process", "pages read from a disk or a swap in the run"
        ),
        _of("foreign_cores", _foreign(found["cpu.busy_s"], found["cpu.steal_s"], own, wall), "1", "system"),
    ]
    for what in ("cpu", "memory", "io"):
        stalled = found[f"pressure.{what}.some_s"]
        share = stalled if isinstance(stalled, str) or isinstance(wall, str) else stalled / wall
        out.append(_of(f"pressure_{what}_some", share, "1", "system", method="stalled time / wall time"))
    return out


def _seen(sampled: float | str) -> float | str:
    """Processor seconds by samples, where they are enough for ticks to tell them."""
    if isinstance(sampled, str) or sampled >= MIN_SAMPLED_S:
        return sampled
    return f"low_coverage: less than {MIN_SAMPLED_S:g} s, ticks of 10 ms tell no less"


def _foreign(busy: float | str, steal: float | str, own: float | str, wall: float | str) -> float | str:
    """Cores that others used, or why they cannot be told."""
    if isinstance(wall, str):
        return wall
    if isinstance(busy, str):
        return busy
    if isinstance(own, str):
        return own
    if wall < MIN_FOREIGN_S:
        return f"low_coverage: {wall:.2g} s, ticks of 10 ms tell it from {MIN_FOREIGN_S:.1f} s on"
    return (busy + (0.0 if isinstance(steal, str) else steal) - own) / wall


def _of(name: str, found: float | str, unit: str, scope: Scope = "none", method: str = "") -> Measure:
    value, reason = (None, found) if isinstance(found, str) else (found, None)
    return Measure(name, value, unit, scope=scope, reason=reason, method=method)
