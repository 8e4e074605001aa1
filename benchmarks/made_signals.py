"""What the sensors of a made device say over a made run: a level a span, and each signal sampled from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from meltbench.records import Series, SourceStatus, Status

if TYPE_CHECKING:
    from benchmarks.made_fleet import Device, Meter
    from meltbench.records import Kind, Scope

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
AMBIENT_C = 24.0
HEATING_S = 45.0
SOURCE_OF = {"status": "engine_memory", "stat": "engine_cpu", "smaps_rollup": "engine_pss"}  # by file of /proc/PID
OFTEN = 4  # as often as all else the designated total is read
PRESSURE = tuple(f"pressure.{what}.some_s" for what in ("cpu", "memory", "io"))


@dataclass(frozen=True)
class Course:
    """How a run went. ``edges_ns``: where its power changes, ``load``: 0 idle to 1 busy, of the span after each edge.

    ``power``: factor on what the device draws above idle; ``slowed``: from when on (ns) its clock is at ``clock`` of
    the highest, None where it is not; ``others``: cores that other programs keep busy.
    """

    edges_ns: Ints
    load: Floats
    engine_ns: tuple[int, int]
    weights_bytes: int
    power: float = 1.0
    slowed: int | None = None
    clock: float = 1.0
    others: float = 0.0

    def at(self, t_ns: Ints) -> Floats:
        """Load at these times."""
        found: Floats = self.load[np.clip(np.searchsorted(self.edges_ns, t_ns, "right") - 1, 0, len(self.load) - 1)]
        return found

    def integral(self, t_ns: Ints) -> Floats:
        """Of the load from the first edge on, s."""
        spans = np.diff(self.edges_ns) / 1e9
        sums = np.concatenate([[0.0], np.cumsum(spans * self.load[: len(spans)])])
        return np.asarray(np.interp(t_ns, self.edges_ns, sums), np.float64)


class _Sampler:
    """Makes signals over one run, each read ``n`` times at its own phase of one period."""

    def __init__(self, course: Course, n: int, dice: np.random.Generator) -> None:
        self.course, self.dice = course, dice
        self.n, self.made = n, list[Series]()
        self.own_ns = self.times(n)

    def times(self, n: int) -> Ints:
        """``n`` readings over the run, none of them quite in time."""
        first, last = int(self.course.edges_ns[0]), int(self.course.edges_ns[-1])
        late = self.dice.integers(0, 40_000, n)
        return np.asarray(np.arange(n, dtype=np.int64) * ((last - first) // n) + first + late, np.int64)

    @property
    def t_ns(self) -> Ints:
        """When the next signal is read: a file is, a few microseconds after the one before it."""
        return self.own_ns + 23_000 * len(self.made)

    def add(
        self,
        name: str,
        unit: str,
        kind: Kind,
        source: str,
        scope: Scope,
        value: Floats,
        quantum: float,
        *,
        path: str = "",
        **more: Any,
    ) -> None:
        """A signal, its values at ``t_ns``, as coarse as its sensor tells it."""
        t_ns, told = self.t_ns, np.round(value / quantum) * quantum
        codes = np.zeros(len(t_ns), np.uint8)
        self.made.append(Series(name, unit, kind, source, scope, t_ns, t_ns + 9_000, told, codes, path, **more))


def watts(device: Device, course: Course, t_ns: Ints) -> Floats:
    """True power of the whole device."""
    return device.idle_w + course.power * device.busy_w * course.at(t_ns)


def joules(device: Device, course: Course, t_ns: Ints) -> Floats:
    """True energy of the whole device since the first edge."""
    return device.idle_w * (t_ns - int(course.edges_ns[0])) / 1e9 + course.power * device.busy_w * course.integral(t_ns)


def signals(device: Device, course: Course, samples: int, dice: np.random.Generator) -> list[Series]:
    """All signals of a run, about ``samples`` samples together."""
    meter = None if device.meter is None or device.meter.denied else device.meter
    first, last = course.edges_ns[[0, -1]].tolist()
    alive = (course.engine_ns[1] - course.engine_ns[0]) / (last - first)
    rails = OFTEN + len(meter.rails) - 1 if meter else 0
    count = 6 + 8 * alive + len(device.zones) + rails + 2 * min(device.cores // 4, 2)
    make = _Sampler(course, max(round(samples / count), 40), dice)
    if meter is not None:
        _energy(make, device, meter)
    _heat(make, device)
    _clocks(make, device)
    _system(make, device)
    _process(make, device)
    return make.made


def _energy(make: _Sampler, device: Device, meter: Meter) -> None:
    course, dice, usual = make.course, make.dice, make.own_ns
    for name, share in meter.rails:
        make.own_ns = make.times(OFTEN * make.n) if share == 1.0 else usual
        scope = meter.scope if share == 1.0 else "rail"
        if meter.kind == "counter":
            path = f"/sys/class/powercap/intel-rapl:{len(make.made)}/energy_uj"
            told = float(dice.integers(1000, 100_000)) + share * joules(device, course, make.t_ns)
            make.add(
                name, "J", "counter", meter.source, scope, told, 61e-6, path=path, klass=meter.klass,
                wrap=262143.328850, update_s=0.001,
            )  # fmt: skip
            continue
        told = share * dice.normal(1, 0.015, len(make.own_ns)) * watts(device, course, make.t_ns)
        path = f"/sys/class/hwmon/hwmon1/in{len(make.made) + 1}_input"
        make.add(name, "W", "gauge", meter.source, scope, told, 0.004, path=path, klass=meter.klass)
    make.own_ns = usual


def _heat(make: _Sampler, device: Device) -> None:
    """A first-order answer to the power; a zone each a little cooler than the one before."""
    t_ns, course = make.own_ns, make.course
    rise = 42.0 * (watts(device, course, t_ns) - device.idle_w) / device.busy_w
    step = float(np.median(np.diff(t_ns))) / 1e9
    decay = np.exp(-step / HEATING_S)
    at, curve = 6.0, np.empty(len(t_ns))
    for k, goal in enumerate(rise.tolist()):
        at = decay * at + (1 - decay) * goal
        curve[k] = at
    for place, zone in enumerate(device.zones):
        degrees = AMBIENT_C + 9.0 - 2.0 * place + curve + make.dice.normal(0, 0.12, len(t_ns))
        path = f"/sys/class/thermal/thermal_zone{place}/temp"
        make.add(f"thermal.{zone}", "degC", "gauge", "thermal", "none", degrees, 0.1, path=path)


def _clocks(make: _Sampler, device: Device) -> None:
    course = make.course
    for policy in range(min(device.cores // 4, 2)):
        most = 1.5e9 + 4e7 * device.cores - 3e8 * policy
        path = f"/sys/devices/system/cpu/cpufreq/policy{policy}/scaling_"
        busy = course.at(make.t_ns) > 0.2
        slow = busy & (make.t_ns >= course.slowed) if course.slowed is not None else np.zeros(len(busy), np.bool_)
        clock = most * np.where(slow, course.clock, np.where(busy, 1.0, 0.45))
        name = f"cpufreq.policy{policy}"
        make.add(f"{name}.cur_hz", "Hz", "gauge", "cpufreq", "none", clock, 1e5, path=f"{path}cur_freq")
        capped = np.full(len(busy), most)
        make.add(f"{name}.max_hz", "Hz", "gauge", "cpufreq", "none", capped, 1e5, path=f"{path}max_freq")


def _system(make: _Sampler, device: Device) -> None:
    course, cores = make.course, 0.9 * device.cores / 2

    def lasted() -> Floats:
        return (make.t_ns - int(course.edges_ns[0])) / 1e9

    start = float(make.dice.integers(100, 10_000))
    busy = start + cores * course.integral(make.t_ns) + (0.012 + course.others) * lasted()
    make.add("cpu.busy_s", "s", "counter", "cpu", "system", busy, 0.01, path="/proc/stat")
    make.add("cpu.steal_s", "s", "counter", "cpu", "system", np.zeros(make.n), 0.01, path="/proc/stat")
    for name in PRESSURE:
        waited = (course.others / device.cores if ".cpu." in name else 0.0) * lasted()
        path = f"/proc/pressure/{name.split('.')[1]}"
        make.add(name, "s", "counter", "pressure", "system", waited, 1e-6, path=path)
    left = 0.85 * device.memory_bytes - _held(course, make.t_ns)
    make.add("memory.available_bytes", "B", "gauge", "memory", "system", left, 4096, path="/proc/meminfo")


def _process(make: _Sampler, device: Device) -> None:
    """The engine's own; it is there from its start to its end alone."""
    course, cores = make.course, 0.9 * device.cores / 2
    whole, (start, end) = make.own_ns, course.engine_ns
    make.own_ns = whole[(whole > start) & (whole < end - 1_000_000)]
    held, none = _held(course, make.own_ns), np.zeros(len(make.own_ns))
    told: list[tuple[str, str, Kind, Floats, float, str]] = [
        ("hwm_bytes", "B", "gauge", np.maximum.accumulate(held), 4096, "status"),
        ("rss_bytes", "B", "gauge", held, 4096, "status"),
        ("rss_swap_bytes", "B", "gauge", held, 4096, "status"),
        ("swap_bytes", "B", "gauge", none, 4096, "status"),
        ("cpu_s", "s", "counter", cores * course.integral(make.own_ns), 0.01, "stat"),
        ("major_faults", "1", "counter", none, 1.0, "stat"),
        ("pss_total_bytes", "B", "gauge", 0.99 * held, 4096, "smaps_rollup"),
        ("held_bytes", "B", "gauge", held, 4096, "smaps_rollup"),
    ]
    for name, unit, kind, value, quantum, file in told:
        path = f"/proc/4711/{file}"
        make.add(f"process.{name}", unit, kind, SOURCE_OF[file], "process", value, quantum, path=path)
    make.own_ns = whole


def _held(course: Course, t_ns: Ints) -> Floats:
    """What the engine holds: its weights come in within half a second, a context beside them."""
    start, end = course.engine_ns
    grown = np.clip((t_ns - start) / 5e8, 0.0, 1.0)
    most = 1.08 * course.weights_bytes + 2.1e8
    return np.asarray(np.where((t_ns >= start) & (t_ns <= end), grown * most, 0.0), np.float64)


def sources(device: Device, made: list[Series]) -> list[SourceStatus]:
    """What is said of each source, those without readings too."""
    found: dict[str, list[Series]] = {}
    for one in made:
        found.setdefault(one.source, []).append(one)
    out = [SourceStatus(name, "ok", len({one.path for one in of}), sum(map(len, of))) for name, of in found.items()]
    status: tuple[Status, str] = ("absent", "no /sys/class/powercap/intel-rapl:* on this machine")
    if device.meter is not None and device.meter.denied:
        status = ("denied", "/sys/class/powercap/intel-rapl:0/energy_uj: permission denied")
    if "rapl" not in found:
        out.append(SourceStatus("rapl", status[0], int(status[0] == "denied"), 0, status[1]))
    if not device.zones:
        out.append(SourceStatus("thermal", "absent", 0, 0, "no /sys/class/thermal/thermal_zone*/temp on this target"))
    return out
