"""What gauges and counters say beside energy: memory, heat, clocks, processor load, pressure.

Every function takes the run's series and gives measures; one that cannot be told is None with a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meltbench.measure.clocks import mean_clocks
from meltbench.measure.counters import difference, middle_ns, unwrap
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from meltbench.records import Phase, Scope, Series

    Floats = npt.NDArray[np.float64]

MIN_SLOPE_SAMPLES = 10
# Two counters of 10 ms ticks, the machine's and the engine's, are each off by up to one tick: 0.02 s / wall cores. That
# is kept below half of the 0.1 core that counts as background load, so that ticks alone never make a reason.
MIN_FOREIGN_S = 0.4
NEAR_PEAK = 0.8  # of the peak RSS: Pss moves with RSS, so a reading there is within a fifth of the peak Pss
_LOAD = (
    *("process.cpu_s", "cpu.busy_s", "cpu.steal_s"),
    *(f"pressure.{what}.some_s" for what in ("cpu", "memory", "io")),
)
# Measure and the series behind it.
_PROCESS_MEMORY = (("pss_file_bytes", "process.pss_file_bytes"), ("swap_bytes", "process.swap_bytes"))
_BY_RUSAGE = "largest resident set by rusage at exit"


def named(series: Iterable[Series], name: str) -> list[Series]:
    """Every series of one name: a process that was started twice has two."""
    return [one for one in series if one.name == name]


def within(one: Series, phase: Phase | None) -> Floats:
    """The readable values of a series, inside a phase where one is given."""
    good = np.isfinite(one.value)
    if phase is not None:
        t = middle_ns(one)
        good &= (t >= phase.t0_ns) & (t <= phase.t1_ns)
    return one.value[good]


def _extreme(series: Sequence[Series], name: str, phase: Phase | None, how: str) -> tuple[float | None, int]:
    found = [within(one, phase) for one in named(series, name)]
    values = np.concatenate(found) if found else np.empty(0)
    if not len(values):
        return None, 0
    return float(values.max() if how == "max" else values.min()), len(values)


def process_memory_measures(series: Sequence[Series], maxrss_bytes: int | None) -> list[Measure]:
    """Peaks of the process under test over its whole life.

    ``peak_pss_bytes`` is the largest Pss + SwapPss of one reading: Pss alone hides what was swapped out. smaps_rollup
    is read seldom, so it is None unless a reading fell where VmRSS + VmSwap were near the peak RSS.
    ``pss_file_bytes`` stands apart: mapped weights that the kernel could drop and read again.
    """
    peak, n = _extreme(series, "process.hwm_bytes", None, "max")
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
    out = [rss, _peak_pss(series, rss.value)]
    return out + [_extreme_bytes(series, name, source, "max", "process") for name, source in _PROCESS_MEMORY]


def memory_measures(series: Sequence[Series], run: Phase | None) -> list[Measure]:
    """The least memory the machine had left in the run."""
    return [_extreme_bytes(series, "memory_available_bytes", "memory.available_bytes", "min", "system", run)]


def _extreme_bytes(
    series: Sequence[Series], name: str, source: str, how: str, scope: Scope, phase: Phase | None = None
) -> Measure:
    value, count = _extreme(series, source, phase, how)
    reason = None if value is not None else f"no_reading: {source} was not read"
    return Measure(name, value, "B", how, scope=scope, source=source, n=count, reason=reason)


def _peak_pss(series: Sequence[Series], peak_rss: float | None) -> Measure:
    """Pss and SwapPss of one text belong together; a reading that lacks either is no reading."""
    swaps = {one.path: one for one in named(series, "process.swap_pss_bytes")}
    values: list[float] = []
    nearest = 0.0
    for one in named(series, "process.pss_bytes"):
        swap = swaps.get(one.path)
        if swap is None or len(swap.value) != len(one.value):
            continue
        whole = one.value + swap.value
        good = np.isfinite(whole)
        values += whole[good].tolist()
        nearest = max([nearest, *_held(series, one)[good].tolist()])
    if not values:
        why = "no_reading: smaps_rollup of the process was not read"
    elif peak_rss is None or nearest < NEAR_PEAK * peak_rss:
        why = f"low_coverage: none of {len(values)} readings fell near the peak of VmRSS"
    else:
        return Measure(
            "peak_pss_bytes", max(values), "B", "max", scope="process", n=len(values), method="Pss + SwapPss"
        )
    return Measure("peak_pss_bytes", None, "B", "max", scope="process", n=len(values), reason=why)


def _held(series: Sequence[Series], smaps: Series) -> Floats:
    """What the process held at least when ``smaps`` was read: the lesser VmRSS + VmSwap of the readings around."""
    swaps = {one.path: one.value for one in named(series, "process.swap_bytes")}
    out = np.zeros(len(smaps.value))
    for one in named(series, "process.rss_bytes"):
        good = np.isfinite(one.value)
        if one.path.rpartition("/")[0] != smaps.path.rpartition("/")[0] or not good.any():
            continue
        held = one.value + np.nan_to_num(swaps[one.path] if one.path in swaps else np.zeros(len(one.value)))
        t, held = middle_ns(one)[good], held[good]
        at = middle_ns(smaps)
        # Before the first reading and after the last there is one neighbour; both are read at each transition.
        before = np.clip(np.searchsorted(t, at, "right") - 1, 0, None)
        after = np.clip(np.searchsorted(t, at, "left"), None, len(t) - 1)
        out = np.maximum(out, np.minimum(held[before], held[after]))
    return out


def thermal_measures(series: Sequence[Series], run: Phase | None) -> list[Measure]:
    """Hottest first: the temperature at the start of the run, its maximum, its slope; then one maximum a zone."""
    zones = [one for one in series if one.name.startswith("thermal.") and one.unit == "degC"]
    hot = {one.name: values for one in zones if run is not None and len(values := within(one, run))}
    if run is None or not hot:
        why = "no_thermal_sensor: no zone gave a temperature in the run"
        return [
            Measure("start_temp_c", None, "degC", reason=why),
            Measure("max_temp_c", None, "degC", "max", reason=why),
            Measure("temp_slope_c_per_s", None, "degC/s", "slope", reason=why),
        ]
    hottest = max(hot, key=lambda name: float(hot[name].max()))
    one = next(zone for zone in zones if zone.name == hottest)
    method = f"hottest of {len(hot)} zones: {hottest.removeprefix('thermal.')}"
    out = [
        _start_temp(one, run, method),
        Measure("max_temp_c", float(hot[hottest].max()), "degC", "max", n=len(hot[hottest]), method=method),
        _slope(one, run, method),
    ]
    for name, values in hot.items():
        out.append(Measure("max_temp_c", float(values.max()), "degC", "max", source=name, n=len(values)))
    return out


def _start_temp(one: Series, run: Phase, method: str) -> Measure:
    """The last reading before the run."""
    before = np.flatnonzero(np.isfinite(one.value) & (middle_ns(one) <= run.t0_ns))
    if not len(before):
        return Measure("start_temp_c", None, "degC", reason="low_coverage: no reading before the run", method=method)
    return Measure("start_temp_c", float(one.value[before[-1]]), "degC", n=1, method=method)


def _slope(one: Series, run: Phase, method: str) -> Measure:
    """Least squares over the run."""
    t = middle_ns(one)
    good = np.isfinite(one.value) & (t >= run.t0_ns) & (t <= run.t1_ns)
    n, x = int(good.sum()), (t[good] - run.t0_ns) / 1e9
    x = x - x.mean()
    spread = float((x * x).sum())
    if n < MIN_SLOPE_SAMPLES or spread <= 0:
        why = f"low_coverage: {n} readings, {MIN_SLOPE_SAMPLES} are needed"
        return Measure("temp_slope_c_per_s", None, "degC/s", "slope", n=n, reason=why, method=method)
    value = float((x * one.value[good]).sum()) / spread
    return Measure("temp_slope_c_per_s", value, "degC/s", "slope", n=n, method=f"least squares, {method}")


def frequency_measures(series: Sequence[Series], run: Phase | None) -> list[Measure]:
    """The mean clock of the run, the lowest and highest that were seen and the lowest cap, one of each a policy."""
    out = mean_clocks(series, run)
    for one in series:
        if run is None or not one.name.startswith("cpufreq."):
            continue
        values = within(one, run)
        if not len(values):
            continue
        if one.name.endswith(".cur_hz"):
            out.append(Measure("cpu_freq_hz", float(values.min()), "Hz", "min", source=one.name, n=len(values)))
            out.append(Measure("cpu_freq_hz", float(values.max()), "Hz", "max", source=one.name, n=len(values)))
        elif one.name.endswith(".max_hz"):
            out.append(Measure("cpu_freq_cap_hz", float(values.min()), "Hz", "min", source=one.name, n=len(values)))
    return out or [Measure("cpu_freq_hz", None, "Hz", "max", reason="no_reading: no clock was read in the run")]


def _rise(series: Sequence[Series], name: str, run: Phase) -> float | str:
    """How far a counter rose in the run; of several streams the one that encloses it."""
    answer: float | str = f"no_reading: {name} was not read"
    for one in named(series, name):
        answer = difference(unwrap(one), run.t0_ns, run.t1_ns)
        if not isinstance(answer, str):
            return answer
    return answer


def load_measures(
    series: Sequence[Series],
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
    the prefills that set points up included. ``known_s``: processor seconds under test where something better than
    sampling knows them, ``known_by`` it. ``no_run``: why there is no run window, where there is none.
    """
    found: dict[str, float | str] = {name: no_run if run is None else _rise(series, name, run) for name in _LOAD}
    own: float | str = found["process.cpu_s"] if known_s is None else known_s
    wall = run.duration_s if run is not None else no_run
    out = [
        _of("cpu_s", own, "s", "process", known_by if known_s is not None else "sampled"),
        _of("wall_s", wall, "s"),
        _of("foreign_cores", _foreign(found["cpu.busy_s"], found["cpu.steal_s"], own, wall), "1", "system"),
    ]
    for what in ("cpu", "memory", "io"):
        stalled = found[f"pressure.{what}.some_s"]
        share = stalled if isinstance(stalled, str) or isinstance(wall, str) else stalled / wall
        out.append(_of(f"pressure_{what}_some", share, "1", "system", method="stalled time / wall time"))
    return out


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
