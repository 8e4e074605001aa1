"""What makes a room a phone: the files of its disk, its /sys, and what its made programs share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import lab_images
from made_tree import Files, policies, tree, write
from phone_dumps import powerstats
from phone_makers import Denied, Maker
from phone_simulator import policies as clusters
from targets_kit import HERE

PORT = 6555  # of adbd: a server looks for emulators at 5555 to 5585
LISTENS = f"ADBD_PORT={PORT}"
SHELL = 2000  # Android's user and group "shell"
# Where Android's shell looks for programs. Only /system/bin is there.
PATH = ":".join(
    [
        *("/product/bin", "/apex/com.android.runtime/bin", "/apex/com.android.art/bin", "/system_ext/bin"),
        *("/system/bin", "/system/xbin", "/odm/bin", "/vendor/bin", "/vendor/xbin"),
    ]
)
# The groups that Android's adbd gives its shell (packages/modules/adb/daemon/main.cpp, drop_privileges).
_GROUPS = {"input": 1004, "log": 1007, "adb": 1011, "sdcard_rw": 1015, "inet": 3003, "readproc": 3009, "uhid": 3011}
_INITTAB = "::sysinit:/lab/rc\n::respawn:/lab/start\n::respawn:/lab/radio\n"
# What a boot makes anew is below /.made/run: who has asked for what since.
_RC = """#!/lab/busybox sh
/lab/busybox ip link set lo up
/lab/busybox hostname localhost
/lab/busybox rm -rf /.made/run
/lab/busybox mkdir -m 777 /.made/run
/lab/busybox mkfifo -m 666 /.made/run/radio
"""
_START = f"""#!/lab/busybox sh
while [ -e /lab/off ]; do /lab/busybox sleep 0.05; done
export PATH={PATH} ANDROID_ROOT=/system ANDROID_DATA=/data EXTERNAL_STORAGE=/sdcard {{}}
exec /lab/busybox start-stop-daemon -S -c shell:shell -x /{lab_images.ADBD}
"""
# Wi-Fi is the wire: a phone that switches it off is gone. At each start it is what it was set to be. Open for both, the
# pipe has no end: a word whose writer is slow to close it would be followed by an empty one.
_RADIO = """#!/lab/busybox sh
exec 3<> /.made/run/radio
read on < /.made/settings/global/wifi_on
while :; do
  if [ "$on" = 0 ]; then to=down; else to=up; fi
  /lab/busybox ip link set eth0 $to
  read on <&3
done
"""
# A shell that says something whenever it is started, on its output.
_PROSE = """#!/apex/lab/sh
echo 'WARNING: linker: Warning: "/system/bin/sh" unused DT entry: DT_RPATH (type 0xf arg 0x2d) (ignoring)'
exec /apex/lab/sh "$@"
"""
SETTINGS = {
    "system": {"screen_off_timeout": "30000", "screen_brightness": "102", "screen_brightness_mode": "1"},
    "global": {"airplane_mode_on": "0", "wifi_on": "1", "low_power": "0", "stay_on_while_plugged_in": "0"},
    "secure": {"android_id": "5f1c0a9e7d3b2648"},
}


# Folder, owner (1000: Android's user "system") and mode.
_DATA = (
    *(("data", 1000, 0o771), ("data/local", 0, 0o751), ("data/local/tmp", SHELL, 0o771)),
    *(("data/misc", 1000, 0o771), ("data/misc/perfetto-traces", 0, 0o773)),
)


def layer(folder: Path, maker: Maker, *, prose: bool) -> Path:
    """The files that make the root file system a phone of its own. ``prose``: its shell says something as it starts."""
    texts = {"etc/inittab": _INITTAB, "lab/rc": _RC, "lab/radio": _RADIO}
    texts |= {"system/bin/sh": _PROSE} if prose else {}
    places = {"bin": "system/bin", "services": "apex/lab/services"}
    places |= {"pixel": "system/bin"} if maker.power_monitors else {}
    for place, where in places.items():
        texts |= {f"{where}/{path.name}": path.read_text() for path in (HERE / "made_android" / place).iterdir()}
    return root(folder, texts, LISTENS)


def root(folder: Path, files: Files, adbd: str) -> Path:
    """The files that any phone has: its users, its data folders, what starts its adbd, and ``files`` beside them.

    ``adbd``: what more of an environment adbd has.
    """
    users = f"root:x:0:0:root:/:/system/bin/sh\nshell:x:{SHELL}:{SHELL}::/:/system/bin/sh\n"
    groups = "".join(f"{name}:x:{number}:shell\n" for name, number in _GROUPS.items())
    texts = {"etc/passwd": users, "etc/group": f"root:x:0:\nshell:x:{SHELL}:\n{groups}", **files}
    texts |= {"lab/start": _START.format(adbd)}
    write(folder, texts)
    for name, text in texts.items():
        (folder / name).chmod(0o755 if text.startswith("#!") else 0o644)
    (folder / "lab").chmod(0o700)
    for place, owner, mode in _DATA:
        (folder / place).mkdir()
        os.chown(folder / place, owner, SHELL if place.endswith("traces") else owner)
        (folder / place).chmod(mode)
    return folder


def made_sys(made: Path, maker: Maker, *, root: bool) -> None:
    """Its /sys. ``root``: as root sees it, with nothing denied."""
    supply, thermal, monitors = "class/power_supply", "class/thermal", "bus/iio/devices"
    files: Files = {f"{supply}/battery/{name}": "0\n" for name in _BATTERY}
    files |= {f"{supply}/battery/type": "Battery\n", f"{supply}/usb/type": "USB\n", f"{supply}/usb/online": "0\n"}
    full = round(16000 * maker.gauge.charge_counts_per_c)
    files |= {f"{supply}/battery/{name}": f"{full}\n" for name in ("charge_full", "charge_full_design")}
    for zone, (kind, where) in enumerate(maker.zones.items()):
        place = f"{thermal}/thermal_zone{zone}"
        files |= {f"{place}/type": f"{kind}\n", f"{place}/temp": "-256000\n" if where == "off" else "30000\n"}
    for monitor in range(2 if maker.power_monitors else 0):
        place = f"{monitors}/iio:device{monitor}"
        files |= {f"{place}/energy_value": "", f"{place}/sampling_rate": "125.000000\n"}
    cores = os.cpu_count() or 1
    groups = clusters(cores)
    big = max(groups)
    listed = {low: " ".join(map(str, range(low, cores if low == big else big))) for low in groups}
    files |= policies(groups, lambda first: listed[first], "schedutil", "cpufreq-dt")
    capacities = {core: 1024 if core >= big else 250 for core in range(cores)}
    files |= {f"devices/system/cpu/cpu{core}/cpu_capacity": f"{value}\n" for core, value in capacities.items()}
    secret = [*_denied(files, supply, maker.supply), *_denied(files, thermal, maker.thermal)]
    secret += _denied(files, monitors, Denied.FILES)
    tree(made, files, {}, secret=() if root else tuple(secret))


_BATTERY = ("current_now", "voltage_now", "charge_counter", "capacity", "temp", "status")


def _denied(files: Files, place: str, what: Denied) -> list[str]:
    """What of a folder only root may read."""
    if what is Denied.FOLDER:
        return [place]
    return [name for name in files if what is Denied.FILES and name.startswith(f"{place}/") and "/type" not in name]


def shared_state(folder: Path, maker: Maker, properties: Mapping[str, str]) -> Path:
    """What its programs share: properties, settings, and what the simulator has them say."""
    texts = {"properties": "".join(f"{name}={value}\n" for name, value in {**maker.properties, **properties}.items())}
    texts |= {"powerstats": powerstats(maker)}
    texts |= {"fixed_performance": ""} if maker.fixed_performance else {}
    write(folder, texts)
    (folder / "run").mkdir()
    return settings(folder)


def settings(folder: Path) -> Path:
    """The settings of a phone, which its shell may change."""
    for space, values in SETTINGS.items():
        place = folder / "settings" / space
        write(place, {name: f"{value}\n" for name, value in values.items()})
        for path in (place, *place.iterdir()):
            os.chown(path, SHELL, SHELL)
    return folder
