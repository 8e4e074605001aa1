"""The fleet of a made store: devices, models and engines with known truth, and which runs were made in which night.

Every number is of a formula with a seed, none of a device: 1.2 ms of a made Jetson says nothing about a Jetson.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench.measure.total import Designation
from meltbench.records import Scope
from meltbench.spec import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

SEED = 20261101
FIRST_NIGHT = datetime(2026, 9, 1, 21, tzinfo=UTC)
# What tests of pages are made of: names as somebody hostile would give them.
HOSTILE = (
    "<script>window.hostile=1</script>",
    '"><img src=x onerror="window.hostile=2">',
    "=cmd|' /C calc'!A0 '--;DROP",
)


@dataclass(frozen=True)
class Meter:
    """Where a device's energy comes from: series that add up to the total, each with its share of it.

    ``kind`` counter (J) or gauge (W); ``denied``: it is there and may not be read.
    """

    source: str
    kind: str
    rails: tuple[tuple[str, float], ...]
    scope: Scope
    klass: str
    partial: str = ""
    denied: bool = False

    @property
    def designation(self) -> Designation:
        """The first rail is the total, the others are parts of it or lie beside it."""
        own = self.source == "rapl"  # whose rails the measures know by themselves
        return Designation(self.source, () if own else (self.rails[0][0],), None if own else self.scope, self.partial)


@dataclass(frozen=True)
class Device:
    """One made device. ``bytes_s`` and ``ops_s``: what decode and prefill are bound by; ``noise``: relative standard
    deviation from run to run, ``drift``: of its AR(1) over nights (0.7 from one to the next)."""

    name: str
    profile: str
    title: str
    bytes_s: float
    ops_s: float
    idle_w: float
    busy_w: float
    cores: int
    memory_bytes: int
    zones: tuple[str, ...]
    meter: Meter | None
    noise: float = 0.01
    drift: float = 0.005
    throttles: float = 0.0


@dataclass(frozen=True)
class Model:
    """One made model. ``ability``: logit of the share of questions it answers before quantisation takes its part."""

    name: str
    n_params: int
    ability: float


@dataclass(frozen=True)
class Engine:
    """A runner with its engine; ``speed`` and ``prefill`` are factors on what the device could do."""

    runner: str
    engine: str
    version: str
    mode: str
    speed: float
    prefill: float


@dataclass(frozen=True)
class Cell:
    """What a run is of."""

    device: Device
    model: Model
    quantisation: str
    engine: Engine
    workload: str


@dataclass(frozen=True)
class Planned:
    """One run to be made: its cell, when it began, and what is to happen to it. ``fate``: empty, or a reason's code."""

    number: int
    cell: Cell
    night: int
    started: datetime
    rep: int
    version: str
    fate: str
    seed: int

    @property
    def run_id(self) -> str:
        """Its start, and six digits that no other run has."""
        return f"{self.started:%Y%m%dT%H%M%SZ}-{self.number:06x}"


@dataclass(frozen=True)
class Truth:
    """What the store was made with, for who tests what is found in it. Factors are on the times of decoding.

    ``regression``: device, engine, first night and factor of a slower engine version; ``environment``: device, first
    night and factor on the power of every engine there. ``drift``: by device, a factor a night on all times.
    """

    regression: tuple[str, str, int, float]
    environment: tuple[str, int, float]
    drift: dict[str, tuple[float, ...]]

    def slower(self, device: str, engine: str, night: int) -> float:
        """Factor on the times of decoding."""
        at, which, first, factor = self.regression
        return factor if (device, engine) == (at, which) and night >= first else 1.0

    def hotter(self, device: str, night: int) -> float:
        """Factor on the power."""
        at, first, factor = self.environment
        return factor if device == at and night >= first else 1.0


_GIB = 1 << 30
_INA = (("ina3221.VDD_IN.power", 1.0), ("ina3221.VDD_CPU_GPU_CV.power", 0.55), ("ina3221.VDD_SOC.power", 0.2))
_JETSON = Meter("ina3221", "gauge", _INA, "module", "C")
_RAPL = Meter("rapl", "counter", (("rapl.package-0", 1.0), ("rapl.package-0.core", 0.7)), "soc", "B")
_WALL = Meter("meter", "gauge", (("meter.power", 1.0),), "wall", "A")
_PMIC = Meter("pmic", "gauge", (("pmic.sum.power", 1.0), ("pmic.VDD_CORE.power", 0.6)), "rail", "C", "USB and fan")
_ODPM = Meter("odpm", "counter", (("odpm.S2M_VDD_CPUCL2.energy", 1.0),), "rail", "B", "all but the big cores")
_DENIED = Meter("rapl", "counter", _RAPL.rails, "soc", "B", denied=True)

DEVICES = (
    Device("orin-nano", "jetson-orin-nano", "NVIDIA Jetson Orin Nano", 60e9, 8e12, 4.8, 9.5, 6, 8 * _GIB,
           ("CPU-therm", "GPU-therm", "tj-therm"), _JETSON, 0.008),
    Device("desk", "linux-desktop", "Intel Core i5-12500", 48e9, 1.6e12, 9.0, 55.0, 12, 32 * _GIB,
           ("x86_pkg_temp", "acpitz"), _RAPL, 0.02, 0.008),
    Device("cloud-vm", "linux-desktop", "a virtual machine", 40e9, 1.2e12, 10.0, 40.0, 8, 16 * _GIB,
           (), None, 0.03, 0.01),
    Device("rpi5-shelf", "rpi5", "Raspberry Pi 5", 12e9, 0.15e12, 3.1, 5.6, 4, 8 * _GIB,
           ("cpu-thermal",), _WALL, 0.012, 0.006, 0.2),
    Device("orin-agx", "jetson-agx-orin", "NVIDIA Jetson AGX Orin", 170e9, 40e12, 9.5, 31.0, 12, 64 * _GIB,
           ("CPU-therm", "GPU-therm", "tj-therm"), _JETSON, 0.006),
    Device("pixel8pro", "pixel8pro", "Google Pixel 8 Pro", 22e9, 0.6e12, 0.9, 6.1, 9, 12 * _GIB,
           ("BIG", "MID", "LITTLE", "skin"), _ODPM, 0.04, 0.015, 0.35),
    Device("rpi5-rails", "rpi5", "Raspberry Pi 5", 12e9, 0.15e12, 2.4, 5.1, 4, 8 * _GIB,
           ("cpu-thermal",), _PMIC, 0.012, 0.006),
    Device("locked-laptop", "linux-desktop", "AMD Ryzen 7 7840U", 70e9, 2.4e12, 5.0, 28.0, 16, 32 * _GIB,
           ("k10temp", "acpitz"), _DENIED, 0.02),
)  # fmt: skip
MODELS = (
    Model("smollm2-360m", 361_821_120, -2.2),
    Model("qwen2.5-1.5b", 1_543_714_304, 0.25),
    Model("llama-3.2-3b", 3_212_749_888, 0.75),
    Model("qwen2.5-0.5b", 494_032_768, -1.1),
    Model("gemma-2-2b", 2_614_341_888, 0.35),
    Model("phi-3.5-mini", 3_821_079_552, 1.35),
)
BITS = {"Q4_K_M": 4.85, "Q8_0": 8.5, "q4f16": 4.5}
COST = {"Q4_K_M": 0.18, "Q8_0": 0.02, "q4f16": 0.3}  # of ability
LLAMACPP = Engine("llamacpp", "llama.cpp", "b6543", "server", 0.72, 0.12)
NEXT_LLAMACPP = "b6610"
ONNX = Engine("onnx", "onnxruntime-genai", "0.9.2", "server", 0.60, 0.15)
LLAMA_BENCH = Engine("llama-bench", "llama.cpp", "b6543", "bench", 0.74, 0.125)
ENGINES = (LLAMACPP, ONNX, LLAMA_BENCH)
QUANTISATIONS = {"llamacpp": ("Q4_K_M", "Q8_0"), "onnx": ("q4f16",), "llama-bench": ("Q4_K_M",)}
FATES = (("", 0.86), ("background_load", 0.05), ("warm_start", 0.05), ("engine_failed", 0.02), ("suspended", 0.02))


def truth(nights: int, seed: int = SEED) -> Truth:
    """What a store of so many nights is made with."""
    dice = np.random.default_rng([seed, 1])
    drift: dict[str, tuple[float, ...]] = {}
    for device in DEVICES:
        steps, at = dice.normal(0, device.drift * (1 - 0.7**2) ** 0.5, nights), 0.0
        course = []
        for step in steps.tolist():
            at = 0.7 * at + step
            course.append(1 + at)
        drift[device.name] = tuple(course)
    return Truth(("orin-nano", "llama.cpp", nights * 5 // 8, 1.08), ("desk", nights // 2, 1.06), drift)


def cells(devices: Sequence[Device], models: Sequence[Model]) -> list[Cell]:
    """Every cell; a device's are in a row, and those of the first model and engine first."""
    made = []
    for device, model, engine in itertools.product(devices, models, ENGINES):
        for quantisation in QUANTISATIONS[engine.runner]:
            for workload in ("grid",) if engine is LLAMA_BENCH else ("quick", "gsm8k"):
                if model.n_params * BITS[quantisation] / 8 < 0.7 * device.memory_bytes:
                    made.append(Cell(device, model, quantisation, engine, workload))
    return made


def few(made: list[Cell]) -> list[Cell]:
    """The cells of a small store: one quantisation an engine, two models of the second and one of the third."""
    most = {LLAMACPP: MODELS[:3], ONNX: MODELS[:2], LLAMA_BENCH: MODELS[:1]}
    return [cell for cell in made if cell.quantisation != "Q8_0" and cell.model in most[cell.engine]]


def planned(runs: int, *, small: bool = False, seed: int = SEED) -> list[Planned]:
    """The runs of a store, in order of time. A night takes a device's cells in turn and, always, its first one a few
    times: the one a trend is drawn of."""
    devices, nights = (DEVICES[:3], 8) if small else (DEVICES, 60)
    often = min(max(runs // (nights * len(devices) * 3), 1), 3)
    every = few(cells(devices, MODELS)) if small else cells(devices, MODELS)
    by_device = [[cell for cell in every if cell.device is device] for device in devices]
    turns = [itertools.cycle(mine) for mine in by_device]
    dice = np.random.default_rng([seed, 2])
    made: list[Planned] = []
    known, what = truth(nights, seed), [fate for fate, _ in FATES]
    for night in range(nights):
        tonight: list[tuple[Cell, int]] = []
        wanted = runs * (night + 1) // nights - len(made)
        for place in range(wanted):
            rep, which = divmod(place, len(devices))
            tonight.append((by_device[which][0], rep) if rep < often else (next(turns[which]), 0))
        for place, (cell, rep) in enumerate(tonight):
            number = len(made)
            started = FIRST_NIGHT + timedelta(days=night, seconds=120 * place)
            slower = known.slower(cell.device.name, cell.engine.engine, night) > 1
            version = NEXT_LLAMACPP if slower else cell.engine.version
            fate = str(dice.choice(what, p=[share for _, share in FATES]))
            made.append(Planned(number, cell, night, started, rep, version, fate, seed))
    return made


def named(cell: Cell, hostile: bool) -> tuple[str, str]:
    """The names of a cell's device and model; ``hostile``: those of some are markup and formulas."""
    device, model = cell.device.name, f"{cell.model.name}-{cell.quantisation.lower()}"
    if hostile and cell.device is DEVICES[0]:
        device += HOSTILE[0]
    if hostile and cell.model in MODELS[:2]:
        model = f"{HOSTILE[1 + MODELS.index(cell.model)]} {cell.quantisation}"
    return device, model


def identity(device: Device) -> str:
    """What identifies the very device."""
    return digest(["made", device.name])[:16]


def conditions(device: Device) -> dict[str, Any]:
    """What a manifest says of the device."""
    return {
        "arch": "aarch64" if device.profile not in ("linux-desktop",) else "x86_64",
        "board": device.title,
        "cpu": device.title,
        "cores_physical": device.cores,
        "cpus_online": device.cores,
        "memory_total_bytes": device.memory_bytes,
        "gpus": [],
        "kernel": "6.12.0-made",
        "os": "made",
        "identity": identity(device),
        "load": "warm",
    }
