"""What a made phone's services print of its state, as its maker has them print it. Texts alone: nothing is read."""

from __future__ import annotations

from dataclasses import dataclass

from made_gauge import UNITS
from perfetto_wire import battery as battery_counters
from perfetto_wire import energy_of, named, packet
from perfetto_wire import rails as power_rails
from phone_makers import Maker

STATUS = {1: "Unknown", 2: "Charging", 3: "Discharging", 4: "Not charging", 5: "Full"}
_SEVERITY = ("NONE", "LIGHT", "MODERATE", "SEVERE", "CRITICAL", "EMERGENCY", "SHUTDOWN")
_TYPES = {0: "CPU", 1: "GPU", 2: "BATTERY", 3: "SKIN", 4: "USB_PORT", 9: "NPU"}
# Of a power monitor: rail, what it has of the watts at rest and of those beside them.
_MAIN = {"VSYS_PWR_WLAN_BT": (0.08, 0), "L2S_VDD_AOC_RET": (0.02, 0), "S9S_VDD_AOC": (0.03, 0)}
_MAIN |= {"S5S_VDDQ_MEM": (0.05, 0.03), "S10S_VDD2L": (0.05, 0.03), "S4S_VDD2H_MEM": (0.05, 0.05)}
_MAIN |= {"S2S_VDD_G3D": (0.01, 0), "L9S_GNSS_CORE": (0, 0)}
_SUB = {"PPVAR_VSYS_PWR_DISP": (0.2, 0), "VSYS_PWR_MODEM": (0.1, 0), "VSYS_PWR_RFFE": (0, 0)}
_SUB |= {"S2M_VDD_CPUCL2": (0.01, 0.45), "S3M_VDD_CPUCL1": (0.01, 0.1), "S4M_VDD_CPUCL0": (0.04, 0.08)}
_SUB |= {"S5M_VDD_INT": (0.06, 0.05), "S1M_VDD_MIF": (0.06, 0.08)}
RAILS: tuple[dict[str, tuple[float, float]], ...] = (_MAIN, _SUB)


@dataclass(frozen=True)
class Seen:
    """What the phone's own chips make of its battery. ``amps``: out of it, as the gauge filtered them."""

    amps: float
    volts: float
    coulombs: float
    full_c: float
    level: int
    celsius: float
    status: int
    plugged: bool


def counts(maker: Maker, seen: Seen, unit: str) -> int:
    """The current as this maker counts it."""
    return round(maker.gauge.sign * seen.amps * UNITS[unit])


def counter(maker: Maker, seen: Seen) -> int:
    """The charge counter: it moves in steps."""
    gauge = maker.gauge
    return int(seen.coulombs * gauge.charge_counts_per_c // gauge.charge_quantum * gauge.charge_quantum)


def battery(maker: Maker, seen: Seen) -> str:
    """`dumpsys battery`."""
    return maker.dump.format(
        usb="true" if seen.plugged else "false",
        max_ua=500_000 * seen.plugged,
        max_uv=5_000_000 * seen.plugged,
        counter=counter(maker, seen),
        full=round(seen.full_c * maker.gauge.charge_counts_per_c),
        status=seen.status,
        level=seen.level,
        mv=round(seen.volts * 1000),
        temp=round(seen.celsius * 10),
        now=counts(maker, seen, maker.gauge.unit),
    )


def gets(maker: Maker, seen: Seen) -> str:
    """Every word of `cmd battery get`, and its answer."""
    on = "true" if seen.plugged else "false"
    known: dict[str, object] = {"present": "true", "ac": "false", "usb": on, "wireless": "false", "dock": "false"}
    known |= {"status": seen.status, "level": seen.level, "counter": counter(maker, seen), "invalid": 0}
    known |= {"temp": round(seen.celsius * 10)}
    if maker.current is not None:
        now = counts(maker, seen, maker.current) if maker.current else ""
        known |= {"current_now": now, "current_average": now}
    return "".join(f"{name}={value}\n" for name, value in known.items())


def thermal(maker: Maker, celsius: dict[str, float], severity: int) -> str:
    """`dumpsys thermalservice`. Its cached block is of some other time, and hotter."""
    rows = [
        (kind, name, 0.0 if where == "off" else celsius[where], 0 if where == "off" else severity)
        for name, kind, where in maker.sensors
    ]

    def listed(more: float) -> list[str]:
        return [
            f"\tTemperature{{mValue={round(value + more, 3) if value else value}, mType={kind}, mName={name}, "
            f"mStatus={level}}}"
            for kind, name, value, level in rows
        ]

    listeners = ["\tcallbacks: 4", "\tkilled: false", "\tbroadcasts count: -1"]
    lines = ["IsStatusOverride: false", "ThermalEventListeners:", *listeners, "ThermalStatusListeners:", *listeners]
    lines += [f"Thermal Status: {severity}", "Cached temperatures:", *listed(26.0), "HAL Ready: true"]
    lines += ["Current temperatures from HAL:", *listed(0.0), "Temperature static thresholds from HAL:"]
    limits = "NaN, 39.0, 41.0, 43.0, 45.0, 47.0, 55.0"
    lines += [f"\tTemperatureThreshold{{mType=3, mName=SKIN, mHotThrottlingThresholds=[{limits}]}}"]
    return "\n".join(lines) + "\n"


def hal(maker: Maker, celsius: dict[str, float], severity: int) -> list[str]:
    """The lines of Google's thermal HAL about each sensor, in its dump and in its log."""
    return [
        f"Type: {_TYPES[kind]} Name: {name} CurrentValue: {celsius[where]:.4f} ThrottlingStatus: {_SEVERITY[severity]}"
        for name, kind, where in maker.sensors
    ]


def rails(monitor: int, ms: int, microjoules: list[int]) -> str:
    """energy_value of a power monitor; as many digits always, for it is written in place."""
    lines = [f"t={ms:012}"]
    for n, (name, value) in enumerate(zip(RAILS[monitor], microjoules, strict=True)):
        lines.append(f"CH{n}(T={ms:012})[{name}], {value:015}")
    return "\n".join(lines) + "\n"


def packets(
    maker: Maker, seen: Seen, energies: list[list[float]], ms: list[int], now_s: float, *, first: bool
) -> bytes:
    """What perfetto's android.power writes of one poll. Times of rails are their monitors', of packets the clock's."""
    t_ns, names = round(now_s * 1e9), [name for monitor in RAILS for name in monitor]
    told = {"charge": counter(maker, seen), "current": counts(maker, seen, "uA"), "voltage": round(seen.volts * 1e6)}
    out = packet(power_rails(*(named(n, name) for n, name in enumerate(names))), t_ns=t_ns) if first else b""
    values = [(round(value), when) for monitor, when in zip(energies, ms, strict=True) for value in monitor]
    out += packet(battery_counters(percent=float(seen.level), **told), t_ns=t_ns)
    return out + packet(power_rails(*(energy_of(n, uws, when) for n, (uws, when) in enumerate(values))), t_ns=t_ns)


def powerstats(maker: Maker) -> str:
    """`dumpsys powerstats`: names alone. Phones without power monitors list none."""
    lines = ["PowerStatsService dumpsys: available Channels"]
    names = [name for monitor in RAILS for name in monitor] if maker.power_monitors else []
    lines += [f"  ChannelId: {n}, ChannelName: {name}, ChannelSubsystem: {name}" for n, name in enumerate(names)]
    return "\n".join([*lines, "PowerStatsService dumpsys: available EnergyConsumers"]) + "\n"
