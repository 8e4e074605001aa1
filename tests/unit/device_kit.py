"""Made outputs of devices, in the dialect of each, with the names of rails as their makers write them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from meltbench.readings import Source
from meltbench.readings.capture import captured
from meltbench.records import Readings, Stream
from meltbench.targets import profile

# What the devices print. Rails by the names of NVIDIA's guides for each board.
RAILS = {
    "jetson-nano": ("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"),
    "jetson-xavier-nx": ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),
    "jetson-orin-nano": ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),
    "jetson-agx-orin": ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "NC", "VDDQ_VDD2_1V8AO", "NC"),
    "jetson-thor": ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0", "VIN"),
    "orin-nx": ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),
    "agx-xavier": ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
    "tx2": ("VDD_IN", "VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_SYS_CPU", "VDD_SYS_DDR"),
}
OLD = ("jetson-nano", "tx2")  # L4T R32: iio, and rails without a unit
WATTS = {rail: 1.0 + n for n, rail in enumerate(dict.fromkeys(rail for rails in RAILS.values() for rail in rails))}


def ina3221(board: str) -> bytes:
    lines = []
    for n, rail in enumerate(RAILS[board]):
        chip, channel = 0x40 + n // 3, n % 3
        if board in OLD:
            place = f"/sys/bus/i2c/drivers/ina3221x/6-00{chip:x}/iio:device{n // 3}"
            lines += [f"{place}/rail_name_{channel}: {rail}"]
            lines += [f"{place}/in_power{channel}_input: {WATTS[rail] * 1000:.0f}"] * 3
        else:
            place = f"/sys/bus/i2c/drivers/ina3221/1-00{chip:x}/hwmon/hwmon{n // 3}"
            lines += [f"{place}/in{channel + 1}_label: {rail}"]
            lines += [f"{place}/in{channel + 1}_input: 5000"] * 3
            lines += [f"{place}/curr{channel + 1}_input: {WATTS[rail] * 200:.0f}"] * 3
    return "\n".join(lines).encode() + b"\n"


def tegrastats(board: str) -> bytes:
    unit = "" if board in OLD else "mW"
    told = (f"{rail} {WATTS[rail] * 1000:.0f}{unit}/999{unit}" for rail in RAILS[board] if rail != "NC")
    return f"RAM 1923/3964MB CPU [5%@1224] cpu@40.5C {' '.join(told)}\n".encode() * 3


def jtop(board: str) -> bytes:
    rails = ", ".join(f'"{rail}": {{"power": {WATTS[rail] * 1000:.0f}, "online": true}}' for rail in RAILS[board])
    lines = [f'{{"t0_ns": {n}000000000, "end_ns": {n}000000001, "power": {{"rail": {{{rails}}}}}}}' for n in (1, 2, 3)]
    return "\n".join(lines).encode() + b"\n"


def power_supply(microamps: int) -> bytes:
    place = "/sys/class/power_supply/battery"
    texts = {"type": "Battery", "current_now": str(microamps), "voltage_now": "4000000"}
    return "".join(f"{place}/{key}: {text}\n" for key, text in texts.items()).encode() * 3


ODPM_RAILS = (
    *("VSYS_PWR_WLAN_BT", "L2S_VDD_AOC_RET", "S9S_VDD_AOC", "S5S_VDDQ_MEM", "S10S_VDD2L", "S4S_VDD2H_MEM"),
    *("S2S_VDD_G3D", "L9S_GNSS_CORE", "PPVAR_VSYS_PWR_DISP", "VSYS_PWR_MODEM", "S2M_VDD_CPUCL2", "S3M_VDD_CPUCL1"),
    *("S4M_VDD_CPUCL0", "S5M_VDD_INT", "S1M_VDD_MIF"),
)


def odpm() -> bytes:
    """Two PMICs with clocks of their own, each file's text as its driver writes it."""
    lines = [f"t={7000}"]
    lines += [f"CH{n}(T=7000)[{rail}], {n}000000" for n, rail in enumerate(ODPM_RAILS, 1)]
    return "\n".join(lines).encode() + b"\n"


def perfetto() -> bytes:
    rows = [f"{t}000000000 | power.{rail}_uws | {n * t}000000" for t in (1, 2, 3) for n, rail in enumerate(ODPM_RAILS)]
    rows += [f"{t}000000000 | batt.current_ua | -500000" for t in (1, 2, 3)]
    rows += [f"{t}000000000 | batt.voltage_uv | 4000000" for t in (1, 2, 3)]
    return "\n".join(rows).encode() + b"\n"


PMIC = (
    b"".join(
        b"   %s_A current(%d)=0.50000000A\n   %s_V volt(%d)=2.00000000V\n" % (rail, n, rail, n + 8)
        for n, rail in enumerate(
            b"3V7_WL_SW 3V3_SYS 1V8_SYS DDR_VDD2 DDR_VDDQ 1V1_SYS 0V8_SW VDD_CORE 3V3_DAC 3V3_ADC 0V8_AON HDMI".split()
        )
    )
    + b"     EXT5V_V volt(24)=5.10000000V\n      BATT_V volt(25)=0.00720000V\n"
)


def ina238(label: str) -> bytes:
    place = "/sys/class/hwmon/hwmon2"
    said = f"{place}/power1_label: {label}\n" if label else ""
    return f"{place}/name: ina238\n{said}".encode() + f"{place}/power1_input: 26000000\n".encode() * 3


def rapl(*joules: int) -> bytes:
    """A package that has counted so far, a second apart."""
    place = "/sys/class/powercap/intel-rapl:0"
    start = f"{place}/name: package-0\n{place}/max_energy_range_uj: 262143328850\n"
    return start.encode() + b"".join(f"{place}/energy_uj: {n}000000\n".encode() for n in joules or (1, 2, 3))


POWERMETRICS = b"".join(
    b"*** Sampled system activity (Sat Mar 14 10:00:0%d 2026 +0100) (1003.1ms elapsed) ***\n"
    b"CPU Power: 2000 mW\nGPU Power: 500 mW\nANE Power: 0 mW\nCombined Power (CPU + GPU + ANE): 2500 mW\n\n" % n
    for n in range(1, 4)
)
INTEL_MAC = b"".join(
    b"*** Sampled system activity (Sat Mar 14 10:00:0%d 2026 +0100) (1003.1ms elapsed) ***\n"
    b"Intel energy model derived package power (CPUs+GT+SA): 4.25W\n\n" % n
    for n in range(1, 4)
)
MACMON = b"".join(
    b'{"timestamp":"2026-03-14T10:00:0%d.5+00:00","all_power":2.5,"cpu_power":2.0,"gpu_power":0.5,'
    b'"ane_power":0.0,"sys_power":9.5}\n' % n
    for n in range(1, 4)
)


def made(name: str, source: profile.Source) -> list[bytes]:
    """Outputs that a device of this profile may give through a source: one a variant of it."""
    boards = [name] if name in RAILS else ["jetson-nano", "jetson-orin-nano", "jetson-agx-orin", "agx-xavier", "tx2"]
    if source.reader in ("ina3221", "tegrastats", "jtop"):
        if name == "generic-jetson":
            boards.append("jetson-thor")
        return [{"ina3221": ina3221, "tegrastats": tegrastats, "jtop": jtop}[source.reader](board) for board in boards]
    current = -500_000 if source.options.get("discharge_sign") == -1 else 500_000
    current //= 1000 if source.options.get("current_unit") == "mA" else 1
    return {
        "power_supply": [power_supply(current)],
        "odpm": [odpm()],
        "perfetto": [perfetto()],
        "pmic": [PMIC],
        "hwmon": [ina238("VIN"), ina238("")],
        "rapl": [rapl()],
        "powermetrics": [POWERMETRICS, INTEL_MAC],
        "macmon": [MACMON],
    }.get(source.reader, [])


def streams(source: profile.Source, raw: bytes) -> list[Stream]:
    """A made output as a run's streams; a text that is one reading is taken three times, a second apart."""
    made = captured(Source.of(source.name, source.reader, source.options).reader, raw)
    if len(made) == 1 and len(made[0].readings) == 1:
        t = np.arange(3, dtype=np.int64) * 10**9
        texts = [raw.replace(b"t=7000\n", b"t=%d\n" % (7000 + 1000 * n)) for n in range(3)]
        made = [replace(made[0], readings=Readings.of(t, t, np.zeros(3, np.int32), texts))]
    return list(made)


def found(source: profile.Source, raw: bytes) -> Any:
    """Series and status of a made output."""
    return Source.of(source.name, source.reader, source.options).read(streams(source, raw))
