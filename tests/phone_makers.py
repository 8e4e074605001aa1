"""What each maker's phone says, and what it denies to the shell: data for made phones.

The units, signs and lines are those of public captures and issues; the profile of each model in devices/ names them.
Nothing of it was seen on a phone by this project. `Denied` stands for what SELinux denies: here files and folders that
only root may read, so that the shell's user gets the same EACCES.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from made_gauge import Dialect

# frameworks/base, BatteryService.java, Android 12 and newer.
_AOSP = """\
Current Battery Service state:
  AC powered: false
  USB powered: {usb}
  Wireless powered: false
  Dock powered: false
  Max charging current: {max_ua}
  Max charging voltage: {max_uv}
  Charge counter: {counter}
  status: {status}
  health: 2
  present: true
  level: {level}
  scale: 100
  voltage: {mv}
  temperature: {temp}
  technology: Li-ion
"""
_DOCK = "  Dock powered: false\n"
_SAMSUNG = """\
  batteryMiscEvent: 0
  batteryCurrentEvent: 256
  mSecPlugTypeSummary: 0
  LED Charging: true
  current now: {now}
  charge counter: {counter}
  Adaptive Fast Charging Settings: true
USE_FAKE_BATTERY: false
SEC_FEATURE_BATTERY_SIMULATION: false
LLB CAL: 20230211
LLB MAN:
BatteryInfoBackUp
  mSavedBatteryAsoc: 97
  level: 99
"""
_PROSE = {
    "Max charging current: {max_ua}\n": " Time when the latest updated value of the Max charging current was sent via"
    " battery changed broadcast: +11s154ms\n",
    "voltage: {mv}\n": " The last voltage value sent via the battery changed broadcast: 4320\n",
}
_MOTOROLA = """\
  AdaptiveCharging: config package:com.motorola.actions, mUpperLimit:-1, level: 12, HAL service:none
  vbus state: {usb}
  Full capacity: {full}
  Full design capacity: {full}
  charge watt: 0
"""


def _xiaomi() -> str:
    """With lines of prose after some keys, as Android 16 of a Xiaomi 13T Pro prints them."""
    text = _AOSP
    for line, prose in _PROSE.items():
        text = text.replace(line, line + prose)
    return text


class Denied(Enum):
    """What of a part of /sys the shell may not read."""

    NOTHING = 0
    FILES = 1  # the names can be listed
    FOLDER = 2  # not even those


@dataclass(frozen=True)
class Maker:
    """A maker's phone. ``gauge``: its current in sysfs and, if at all, in the dump; ``dump``: of `dumpsys battery`.

    ``current``: the unit in which `cmd battery get current_now` answers; "" where a flag of the build is off, and it
    prints nothing; None where the build is older than the word. ``supply``, ``thermal``: what of them is denied.
    ``zones``: types of thermal zones and ``sensors``: name and type of those of the thermal service, each with the
    part that it sits at: cpu, skin, battery, or off (it reads nothing).
    """

    properties: dict[str, str]
    gauge: Dialect
    dump: str
    zones: dict[str, str]
    sensors: tuple[tuple[str, int, str], ...]
    current: str | None = ""
    supply: Denied = Denied.NOTHING
    thermal: Denied = Denied.NOTHING
    power_monitors: bool = False  # ODPM of a Pixel, and Google's thermal HAL
    fixed_performance: bool = False


def _properties(maker: str, model: str, device: str, chip: str, release: str, build: str) -> dict[str, str]:
    brand = maker.lower()
    return {
        "ro.product.manufacturer": maker,
        "ro.product.model": model,
        "ro.product.device": device,
        "ro.product.name": device,
        "ro.product.brand": brand,
        "ro.product.cpu.abi": "arm64-v8a",
        "ro.soc.model": chip.split("/")[0],
        "ro.board.platform": chip.split("/")[1],
        "ro.build.version.release": release,
        "ro.build.version.sdk": {"10": "29", "13": "33", "15": "35", "16": "36"}[release],
        "ro.build.id": build.split("/")[0],
        "ro.build.version.incremental": build.split("/")[1],
        "ro.build.type": "user",
        "ro.build.fingerprint": f"{brand}/{device}/{device}:{release}/{build}:user/release-keys",
        "ro.debuggable": "0",
        "sys.boot_completed": "1",
    }


_SKIN, _BATTERY = ("SKIN", 3, "skin"), ("BATTERY", 2, "battery")
_QUALCOMM = {"cpu-0-0-0": "cpu", "cpuss-0": "cpu", "gpuss-0": "cpu", "nspss-0": "off", "skin-msm-therm": "skin"}
_QUALCOMM |= {"battery": "battery"}

MAKERS = {
    "pixel6": Maker(
        _properties("Google", "Pixel 6", "oriole", "GS101/gs101", "15", "AP4A.250205.002/12821496"),
        Dialect("uA", -1, filter_s=0.175, update_s=0.25, charge_quantum=500),
        _AOSP + "  Charging state: 0\n  Charging policy: 1\n",
        {"BIG": "cpu", "MID": "cpu", "LITTLE": "cpu", "G3D": "cpu", "TPU": "off", "battery": "battery"},
        (("BIG", 0, "cpu"), ("G3D", 1, "cpu"), ("battery", 2, "battery"), ("VIRTUAL-SKIN", 3, "skin")),
        current="uA",
        power_monitors=True,
        fixed_performance=True,
    ),
    # One UI: mA in sysfs, lines of its own in the dump, and an AOSP counter that stays 0.
    "galaxy-s23": Maker(
        _properties("samsung", "SM-S911B", "dm1q", "SM8550/kalama", "15", "AP3A.240905.015.A2/S911BXXU7DYA1"),
        Dialect("mA", -1, filter_s=0.35, update_s=1.0, charge_quantum=1000),
        _AOSP.replace(_DOCK, "").replace("Charge counter: {counter}", "Charge counter: 0") + _SAMSUNG,
        {"cpuss-0-0": "cpu", "gpuss-0": "cpu", "sec-battery": "battery", "quiet-therm": "skin"},
        (("AP", 0, "cpu"), ("BAT", 2, "battery"), ("SUBBAT", 2, "off"), ("SKIN", 3, "skin"), ("USB", 4, "off")),
        current="mA",
    ),
    # OxygenOS 16: mA, what flows out is positive, sysfs denied, and asked for it answers.
    "oneplus-12": Maker(
        _properties("OnePlus", "CPH2581", "OP595DL1", "SM8650/pineapple", "16", "BP2A.250605.015/V.R4T2.1f0a"),
        Dialect("mA", 1, filter_s=0.5, update_s=1.0, charge_quantum=1000),
        _AOSP,
        _QUALCOMM,
        (("cpu-0-0-0", 0, "cpu"), _SKIN, _BATTERY),
        current="mA",
        supply=Denied.FILES,
    ),
    # HyperOS on Android 16: no current anywhere, and prose in its dump.
    "xiaomi-13t-pro": Maker(
        _properties("Xiaomi", "23078PND5G", "corot", "MT6985/mt6985", "16", "BP2A.250605.031.A3/OS3.0.1.0.WMLEUXM"),
        Dialect("uA", -1, filter_s=0.5, update_s=1.0, charge_quantum=1000),
        _xiaomi(),
        {"mtktscpu": "cpu", "mtktsbattery": "battery", "mtktsAP": "skin"},
        (("CPU", 0, "cpu"), ("GPU", 1, "cpu"), ("NPU", 9, "cpu"), _SKIN, _BATTERY),
        supply=Denied.FOLDER,
    ),
    # Older Qualcomm kernels: uA, what flows out is positive.
    "oneplus-6": Maker(
        _properties("OnePlus", "ONEPLUS A6003", "OnePlus6", "SDM845/sdm845", "10", "QKQ1.190716.003/2010140010"),
        Dialect("uA", 1, filter_s=0.5, update_s=1.0, charge_quantum=1000),
        _AOSP.replace(_DOCK, ""),
        {"tsens_tz_sensor1": "cpu", "xo-therm-adc": "skin", "battery": "battery", "bms": "battery"},
        (("cpu0-silver-usr", 0, "cpu"), ("skin", 3, "skin"), ("battery", 2, "battery")),
        current=None,
    ),
    "honor-alt": Maker(
        _properties("HONOR", "ALT-NX1", "HNALT", "SM6450/parrot", "16", "HONORALT-N21/10.0.0.135"),
        Dialect("mA", -1, filter_s=0.5, update_s=1.0, charge_quantum=1000),
        _AOSP + "  Charging state: 0\n  Charging policy: 0\n",
        _QUALCOMM,
        (("CPU0", 0, "cpu"), _SKIN, _BATTERY),
        thermal=Denied.FILES,
    ),
    "motorola": Maker(
        _properties("motorola", "moto g84 5G", "bangkk", "SM6375/holi", "15", "V1TC35H.106/a3f1d"),
        Dialect("uA", -1, filter_s=0.5, update_s=1.0, charge_quantum=1000),
        _AOSP + _MOTOROLA,
        _QUALCOMM,
        (("CPU0", 0, "cpu"), _SKIN, _BATTERY),
    ),
}
