"""A made /sys: the files that a made board or phone has, beside what the kernel of this machine has there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

REAL = "/.kernel/sys"
# Below these nothing of this machine's own /sys is shown beside what is made.
CLOSED = ("thermal", "hwmon", "powercap", "devfreq", "dmi", "power_supply", "drm", "cpufreq", "i2c", "firmware")
Files = dict[str, str]


def write(root: Path, files: Files) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def link(root: Path, links: Files) -> None:
    """Links within a made /sys, relative as the kernel's are."""
    for name, target in links.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(root / target, path.parent))


def rest(made: Path, real: Path) -> None:
    """Beside what is made, links to what the kernel has there."""
    for entry in sorted(real.iterdir()):
        mine = made / entry.name
        if mine.is_dir() and not mine.is_symlink():
            if entry.is_dir() and entry.name not in CLOSED:
                rest(mine, entry)
        elif entry.name not in CLOSED and not mine.exists() and not mine.is_symlink():
            mine.symlink_to(f"{REAL}/{entry.relative_to('/sys')}")


def tree(made: Path, files: Files, links: Files, secret: tuple[str, ...] = ()) -> None:
    """All of it below ``made``/sys. ``secret``: files and folders that only root may read."""
    root = made / "sys"
    write(root, files)
    link(root, links)
    for name in secret:
        (root / name).chmod(0o700 if (root / name).is_dir() else 0o400)
    for name in ("bus", "class", "devices/system/cpu", "devices/virtual", "devices/platform", "firmware"):
        (root / name).mkdir(parents=True, exist_ok=True)
    rest(root, Path("/sys"))
    # The mount point of the control groups, which are the machine's own.
    (root / "fs").unlink(missing_ok=True)
    (root / "fs/cgroup").mkdir(parents=True)


def policies(policies: dict[int, tuple[int, int]], cpus: Callable[[int], str], governor: str, driver: str) -> Files:
    out: Files = {}
    for policy, (low, high) in policies.items():
        texts = {"scaling_cur_freq": low, "scaling_min_freq": low, "scaling_max_freq": high, "cpuinfo_max_freq": high}
        texts |= {"cpuinfo_min_freq": low}
        words = {"scaling_governor": governor, "scaling_driver": driver, "related_cpus": cpus(policy)}
        words |= {"scaling_available_governors": "ondemand performance powersave schedutil"}
        words |= {"stats/time_in_state": "", "stats/total_trans": "0"}
        place = f"devices/system/cpu/cpufreq/policy{policy}"
        out |= {f"{place}/{name}": f"{text}\n" for name, text in {**texts, **words}.items()}
    return out


def zones(types: list[str], cold: str = "") -> Files:
    out: Files = {}
    for zone, kind in enumerate(types):
        out[f"class/thermal/thermal_zone{zone}/type"] = f"{kind}\n"
        out[f"class/thermal/thermal_zone{zone}/temp"] = "-256000\n" if kind == cold else "40000\n"
    return out
