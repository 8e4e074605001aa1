"""What a target is, from one call of the probe: a list of files to look at, and a pure parser of their texts."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from meltbench.probe.journal import unbyte
from meltbench.spec import digest
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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
    # Of each network interface: its address, who assigned it, and what hardware it is (none: made by software).
    "/sys/class/net/*/address",
    "/sys/class/net/*/addr_assign_type",
    "/sys/class/net/*/uevent",
    "/sys/class/net/*/device/uevent",
)
_DT_SERIAL, _CPUINFO, _MACHINE_ID = "/proc/device-tree/serial-number", "/proc/cpuinfo", "/etc/machine-id"
_NET = "/sys/class/net/"
_PLACES = ("OF_FULLNAME", "PCI_SLOT_NAME")  # of a device's uevent: where the device tree, or PCI, has it
_mac = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
_GPU_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}

GETPROP = "getprop"  # Android's own program: without arguments it prints every system property
SERIAL_PROPERTY, PRODUCT_PROPERTY = "ro.serialno", "ro.product.device"
BUILD_PROPERTY = "ro.build.fingerprint"
_PROPERTIES = (
    *("ro.product.manufacturer", "ro.product.model", "ro.product.device", "ro.soc.model", "ro.board.platform"),
    *("ro.build.version.release", "ro.build.id", "ro.build.version.incremental", BUILD_PROPERTY),
)
_property = re.compile(r"^\[([\w.:@-]{1,128})\]: \[([^\n]{0,512})\]\r?$", re.ASCII | re.MULTILINE)


@dataclass(frozen=True)
class Facts:
    """The conditions of a device that are data of every run.

    ``identity`` names the hardware, not its address: a digest of the board's serial number, else of the burned-in
    address of its wired network, else of the installation's machine id, else of what processor and host name say.
    ``identity_from`` says which. Whoever reads it, root or not, gets the same (docs/devices.md). A fact that could not
    be read is None or empty. ``compatible``: the device tree's own list, the most specific name first. ``properties``:
    those of Android that tell model and build. ``programs``: which of those that were asked for can be found there.
    ``time_namespace``: with the boot id it names the clock. ``cpu_features``: the instruction sets of the first
    processor, as /proc/cpuinfo calls them.
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
    cpu_features: tuple[str, ...] = ()

    def conditions(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)

    @property
    def product(self) -> str | None:
        """Android's name of the device, such as "oriole"."""
        return self.properties.get(PRODUCT_PROPERTY)

    @property
    def build(self) -> str | None:
        """Android's fingerprint of the system that is installed."""
        return self.properties.get(BUILD_PROPERTY)

    @property
    def accelerator(self) -> str | None:
        """What could compute beside the processor, in words; None where nothing was found."""
        return accelerator(self.gpus, self.compatible)

    @property
    def platform(self) -> str:
        """Of the systems that the probe is for, the one that this is."""
        return "android" if self.properties else "linux"

    @property
    def threads(self) -> int:
        """Threads an engine gets by default: physical cores less one, at least one (the observer needs a core)."""
        return max(1, (self.cores_physical or self.cpus_online or 2) - 1)


def accelerator(gpus: Iterable[str], compatible: Iterable[str]) -> str | None:
    """The GPUs that could compute, in words, else the one that is a part of a Jetson's chip, by its device tree.

    A card with a number for a vendor computes nothing here: a screen of a virtual machine, a board's own controller.
    """
    chip = next((name for name in compatible if name.startswith("nvidia,tegra")), None)
    found = ", ".join(gpu for gpu in gpus if not gpu.startswith("0x"))
    return found or (None if chip is None else f"NVIDIA {chip.removeprefix('nvidia,')}")


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
        identity=identity_of(key),
        identity_from=source[:200],
        board=_brief(_board(texts, said)),
        cpu=_brief(cpu),
        arch=_clean(uname.get("machine")) or "unknown",
        kernel=texts.get("/proc/sys/kernel/osrelease") or _clean(uname.get("release")),
        os=_brief(_android(said) or _os_name(texts.get("/etc/os-release", ""))),
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
        cpu_features=_features(cpuinfo),
    )


def identity_of(key: str) -> str:
    """The identity of a device by what names it, such as its serial number."""
    return digest([key])[:16]


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
        path = printable(str(found))
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
            unreadable[path] = printable(str(entry.get("status")))
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
    """What names the board, and where it stands. Every source is one that anybody may read: DMI's serial numbers are
    root's alone, and a board must not become another one when root looks at it."""
    # Every phone is called localhost: without its serial number two of a model would be one device.
    if SERIAL_PROPERTY in said:
        return said[SERIAL_PROPERTY], SERIAL_PROPERTY
    # A Raspberry Pi tells one number in both places; old kernels only in the second.
    for text, source in ((texts.get(_DT_SERIAL), _DT_SERIAL), (_line(texts.get(_CPUINFO, ""), "Serial"), _CPUINFO)):
        if text and _told(text):
            return text, source
    # A card that was cloned brings its machine id along, the socket of the cable stays with the board.
    for found in sorted(_wired(texts)):
        return found.address, f"/sys/class/net/{found.interface}/address"
    if _told(texts.get(_MACHINE_ID, "")):
        return texts[_MACHINE_ID], _MACHINE_ID
    return f"{cpu} {host}", "cpu and host name"


def _told(serial: str) -> bool:
    """Whether a serial number is one: firmware that knows none writes zeros, a run of digits or a phrase."""
    plain = serial.strip().lower()
    if len(plain) < 4 or len(set(plain.strip("0x"))) < 2 or plain in "0123456789abcdef0123456789":
        return False
    return not re.search(r"default|o\.e\.m|not (specified|available|set)|none|unknown|uninitialized", plain)


@dataclass(frozen=True, order=True)
class _Wired:
    """A wired interface of the board itself. They are ordered by where they sit, which stays; names do not."""

    place: tuple[int, str]
    interface: str
    address: str


def _wired(texts: Mapping[str, str]) -> Iterator[_Wired]:
    """The wired interfaces that were soldered on, with an address that was burned in.

    Not those on USB, which move from board to board; not Wi-Fi, whose address changes at random while it looks for
    networks; none whose address somebody set (a bond does), or that a hypervisor made up. An address that is only
    locally unique counts where the device tree names the interface: then the boot loader made it from the chip's own
    number.
    """
    for path, address in texts.items():
        name = path.removeprefix(_NET).removesuffix("/address")
        if not path.startswith(_NET) or "/" in name or not _mac.fullmatch(address) or not address.strip("0:"):
            continue
        hardware, more = (texts.get(f"{_NET}{name}/{file}", "") for file in ("device/uevent", "uevent"))
        # An interface that is more than Ethernet says what: wlan, bridge, bond ...
        if texts.get(f"{_NET}{name}/addr_assign_type") != "0" or "DEVTYPE=" in more or "DEVTYPE=usb" in hardware:
            continue
        tree, slot = (re.search(rf"^{key}=(\S{{1,200}})$", hardware, re.MULTILINE) for key in _PLACES)
        unique = not int(address[:2], 16) & 2
        if tree:
            yield _Wired((0, tree[1]), name, address)
        elif slot and unique:
            yield _Wired((1, slot[1]), name, address)


def _line(text: str, key: str) -> str | None:
    match = re.search(rf"^{re.escape(key)} *: *(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else None


def _features(cpuinfo: str) -> tuple[str, ...]:
    """What the kernel lists of the first processor: "flags" on x86, "Features" on ARM, letters of "isa" on RISC-V."""
    listed = _line(cpuinfo, "flags") or _line(cpuinfo, "Features") or (_line(cpuinfo, "isa") or "").replace("_", " ")
    return tuple(sorted(set(listed.split())))[:256]


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
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else None


def _clean(value: object) -> str | None:
    return _brief(printable(str(value))) if value else None


def _brief(text: str | None) -> str | None:
    """A name of something: one that is longer tells nobody more."""
    return text[:200] if text else None
