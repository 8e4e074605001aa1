"""What a target is, from one call of the probe: a list of files to look at, and a pure parser of their texts."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from meltbench.probe.journal import unbyte
from meltbench.spec import digest
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

GLOBS = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/kernel/osrelease",
    "/proc/device-tree/model",
    "/proc/device-tree/compatible",
    "/proc/device-tree/serial-number",
    "/sys/class/dmi/id/product_name",
    "/sys/class/dmi/id/sys_vendor",
    "/sys/devices/system/cpu/cpu*/topology/core_id",
    "/sys/devices/system/cpu/cpu*/topology/physical_package_id",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
    "/sys/class/powercap/intel-rapl:*/name",
    "/sys/class/drm/card*/device/vendor",
    "/proc/driver/nvidia/gpus/*/information",
    "/proc/driver/nvidia/version",
    "/sys/class/thermal/thermal_zone*/type",
    "/sys/class/power_supply/*/type",
    "/sys/class/power_supply/*/scope",
    "/etc/machine-id",
    "/etc/os-release",
)
_GPU_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}

GETPROP = "getprop"  # Android's own program: without arguments it prints every system property
_SERIAL = "ro.serialno"
_PROPERTIES = (
    *("ro.product.manufacturer", "ro.product.model", "ro.product.device", "ro.soc.model", "ro.board.platform"),
    *("ro.build.version.release", "ro.build.id", "ro.build.version.incremental", "ro.build.fingerprint"),
)
_property = re.compile(r"^\[([\w.:@-]{1,128})\]: \[([^\n]{0,512})\]\r?$", re.ASCII | re.MULTILINE)


@dataclass(frozen=True)
class Facts:
    """The conditions of a device that are data of every run.

    ``identity`` names the hardware, not its address: a digest of the board's serial number, else of the machine
    id, else of what the processor and host name say. A fact that could not be read is None or empty. ``compatible``:
    the device tree's own list, the most specific name first. ``properties``: those of Android that tell model and
    build. ``programs``: which of those that were asked for can be found there. ``time_namespace``: with the boot id it
    names the clock.
    """

    identity: str
    identity_from: str
    board: str | None
    cpu: str | None
    arch: str
    kernel: str | None
    os: str | None
    boot_id: str | None
    cores_physical: int | None
    cpus_online: int | None
    cpus_allowed: str | None
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    disk_free_bytes: int | None
    governors: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    powercap: tuple[str, ...] = ()
    thermal_zones: tuple[str, ...] = ()
    batteries: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)
    programs: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    time_namespace: int | None = None

    def conditions(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)

    @property
    def product(self) -> str | None:
        """Android's name of the device, such as "oriole"."""
        return self.properties.get("ro.product.device")

    @property
    def platform(self) -> str:
        """Of the systems that the probe is for, the one that this is."""
        return "android" if self.properties else "linux"

    @property
    def threads(self) -> int:
        """Threads an engine gets by default: physical cores less one, at least one (the observer needs a core)."""
        return max(1, (self.cores_physical or self.cpus_online or 2) - 1)


def globs(sys_root: str, proc_root: str) -> list[str]:
    """The files to ask for, below the roots a profile names."""
    return [rooted(path, sys_root, proc_root) for path in GLOBS]


def rooted(path: str, sys_root: str, proc_root: str) -> str:
    """A kernel path below other roots. A process's own folder stays real: no made tree knows its pid."""
    if path.startswith("/sys/"):
        return sys_root.rstrip("/") + path[4:]
    if path.startswith("/proc/") and not path.startswith("/proc/{pid:"):
        return proc_root.rstrip("/") + path[5:]
    return path


def properties(printed: bytes) -> dict[str, str]:
    """Android's system properties from the output of `getprop`: lines of ``[name]: [value]``, others are left out."""
    text = printed[: 1 << 20].decode("utf-8", "replace")
    return {name: printable(value) for name, value in _property.findall(text) if value}


def parse(
    answer: Mapping[str, Any],
    sys_root: str = "/sys",
    proc_root: str = "/proc",
    programs: tuple[str, ...] = (),
    said: Mapping[str, str] | None = None,
) -> Facts:
    """Facts from the probe's answer and Android's ``said`` properties. Missing or odd parts become None, never an
    exception."""
    texts, unreadable = _texts(answer, sys_root, proc_root)
    uname = answer.get("uname")
    uname = uname if isinstance(uname, dict) else {}
    cpuinfo, meminfo = texts.get("/proc/cpuinfo", ""), texts.get("/proc/meminfo", "")
    said = said or {}
    cpu = _line(cpuinfo, "model name") or _line(cpuinfo, "Hardware") or _line(cpuinfo, "Model")
    key, source = _identity(texts, said, cpu, str(uname.get("nodename") or ""))
    disk = answer.get("disk")
    return Facts(
        identity=digest([key])[:16],
        identity_from=source,
        board=_board(texts, said) or None,
        cpu=cpu,
        arch=str(uname.get("machine") or "unknown"),
        kernel=texts.get("/proc/sys/kernel/osrelease") or _clean(uname.get("release")),
        os=_android(said) or _os_name(texts.get("/etc/os-release", "")),
        boot_id=_clean(answer.get("boot_id")),  # the probe's own: a made tree did not boot
        cores_physical=_cores(texts),
        cpus_online=_count(answer.get("cpus_online")),
        cpus_allowed=_clean(answer.get("cpus_allowed")),
        memory_total_bytes=_kib(meminfo, "MemTotal"),
        memory_available_bytes=_kib(meminfo, "MemAvailable"),
        disk_free_bytes=_count(disk.get("free_bytes")) if isinstance(disk, dict) else None,
        governors=tuple(sorted({v for k, v in texts.items() if k.endswith("/scaling_governor")})),
        gpus=_gpus(texts),
        powercap=tuple(sorted(v for k, v in texts.items() if k.startswith("/sys/class/powercap/"))),
        thermal_zones=tuple(k.split("/")[-2] for k in sorted(texts) if k.startswith("/sys/class/thermal/")),
        batteries=_batteries(texts),
        compatible=tuple(filter(None, texts.get("/proc/device-tree/compatible", "").split("\n")))[:16],
        properties={name: said[name] for name in _PROPERTIES if name in said},
        programs=programs,
        unreadable=unreadable,
        time_namespace=_count(answer.get("time_namespace")),
    )


def _batteries(texts: Mapping[str, str]) -> tuple[str, ...]:
    """The batteries that the machine runs on; one of scope Device is a mouse's or a headset's."""
    supplies = {key.split("/")[-2]: text for key, text in texts.items() if re.search(r"/power_supply/[^/]+/type$", key)}
    return tuple(
        name
        for name, kind in sorted(supplies.items())
        if kind == "Battery" and texts.get(f"/sys/class/power_supply/{name}/scope") != "Device"
    )


def _texts(answer: Mapping[str, Any], sys_root: str, proc_root: str) -> tuple[dict[str, str], dict[str, str]]:
    """Texts by their kernel path, whatever root they stood under; and the status of those without one."""
    files = answer.get("files")
    texts: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for found, entry in (files if isinstance(files, dict) else {}).items():
        path = str(found)
        for root, name in ((sys_root, "/sys"), (proc_root, "/proc")):
            if path.startswith(root.rstrip("/") + "/"):
                path = name + path[len(root.rstrip("/")) :]
                break
        if not isinstance(entry, dict):
            continue
        if entry.get("status") == "ok":
            # The strings of a device tree end in NUL, and those of a list follow each other.
            text = (
                unbyte(str(entry.get("text", ""))).replace("\0", "\n" if path.endswith("/compatible") else "").strip()
            )
            texts[path] = "\n".join(printable(line.replace("\t", " ")) for line in text.split("\n"))
        elif "*" not in path and entry.get("status") != "absent":
            unreadable[path] = str(entry.get("status"))
    return texts, unreadable


def _board(texts: Mapping[str, str], said: Mapping[str, str]) -> str:
    """Maker and product: Android's before the device tree's, which names a phone's prototype, and that before DMI's."""
    phone = [said[name] for name in ("ro.product.manufacturer", "ro.product.model") if name in said]
    dmi = [text for name in ("sys_vendor", "product_name") if (text := texts.get(f"/sys/class/dmi/id/{name}"))]
    return " ".join(phone) or texts.get("/proc/device-tree/model") or " ".join(dmi)


def _android(said: Mapping[str, str]) -> str | None:
    if "ro.build.version.release" not in said:
        return None
    build = " ".join(said[name] for name in ("ro.build.id", "ro.build.version.incremental") if name in said)
    return f"Android {said['ro.build.version.release']}" + (f" ({build})" if build else "")


def _identity(texts: Mapping[str, str], said: Mapping[str, str], cpu: str | None, host: str) -> tuple[str, str]:
    # Every phone is called localhost: without its serial number two of a model would be one device.
    if _SERIAL in said:
        return said[_SERIAL], _SERIAL
    for path in ("/proc/device-tree/serial-number", "/etc/machine-id"):
        if texts.get(path):
            return texts[path], path
    return f"{cpu} {host}", "cpu and host name"


def _line(text: str, key: str) -> str | None:
    match = re.search(rf"^{re.escape(key)} *: *(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else None


def _kib(text: str, key: str) -> int | None:
    match = re.search(rf"^{key}: +(\d{{1,15}}) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _os_name(text: str) -> str | None:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', text, re.MULTILINE)
    return match[1] if match else None


def _cores(texts: Mapping[str, str]) -> int | None:
    cores = {
        (texts.get(path.replace("core_id", "physical_package_id"), "0"), text)
        for path, text in texts.items()
        if path.endswith("/topology/core_id")
    }
    return len(cores) or None


def _gpus(texts: Mapping[str, str]) -> tuple[str, ...]:
    """One entry a GPU: its name where the driver tells it, else its vendor.

    NVIDIA's driver names its GPUs below /proc/driver/nvidia; in a container that may be all there is of them.
    """
    named = [
        model if (model := _line(text, "Model") or "").startswith("NVIDIA") else f"NVIDIA {model}".strip()
        for path, text in sorted(texts.items())
        if path.endswith("/information")
    ]
    cards = [_GPU_VENDORS.get(v, v) for k, v in sorted(texts.items()) if k.endswith("/device/vendor")]
    if not named and "NVIDIA" not in cards and "/proc/driver/nvidia/version" in texts:
        named = ["NVIDIA"]
    return (*named, *(card for card in cards if not (named and card == "NVIDIA")))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _clean(value: object) -> str | None:
    return printable(str(value)) if value else None
