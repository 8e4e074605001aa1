"""How warm a device is, what holds its clocks back now or did since it was started, and who sets them."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from meltbench.doctor.exam import Finding, number_of

if TYPE_CHECKING:
    from meltbench.doctor.exam import Exam

WARM_C, NEAR_K = 60.0, 8.0  # an idle board above it cools badly; a load takes one this near to its limit within minutes
LIMIT_C = 95.0  # what nobody knows the limit of is near one there
_SINCE = "_since_boot"
_FLAGS = {
    "under_voltage": "under-voltage: the 5 V input fell below 4.63 V",
    "frequency_capped": "the clock of the processor is capped",
    "thermal_slowdown": "slowed by heat",
    "soft_temp_limit": "at the soft limit of its temperature",
}
_FLAG_MEND = {
    "under_voltage": "The supply or its cable is too weak: take another one before anything is measured.",
    "frequency_capped": "Its supply is too weak, or it is too hot: see the findings about both.",
    "thermal_slowdown": "Cool it: a heat sink, a fan, air around it. Runs would measure the cooler, not the chip.",
    "soft_temp_limit": "Cool it: a heat sink, a fan, air around it. Runs would measure the cooler, not the chip.",
}
_CPUFREQ = "/sys/devices/system/cpu/cpufreq/"
_ZONE = "/sys/class/thermal/"
# Governors that choose the clock by the load, within milliseconds, are none of those below.
_LATE = "It raises the clock some time after the load came, so that short answers look slower."
_SLOW = {
    "powersave": "It keeps the lowest clock, whatever the load: runs are several times slower than the device.",
    "userspace": "It keeps the clock that somebody wrote, whatever the load.",
    "conservative": _LATE,
    "ondemand": _LATE,
}
# Drivers with a powersave of their own, which follows the load; in their passive modes (intel_cpufreq, amd-pstate) it
# is that of all others (the kernel's admin-guide/pm).
_OWN_POWERSAVE = ("intel_pstate", "amd-pstate-epp")
# Zones of the processor, where the profile names none to wait for: a PC's others are of its chipset, radio and case.
_CHIP = ("thermal.x86_pkg_temp*", "thermal.*cpu*", "thermal.*CPU*")
_mode = re.compile(r"NV Power Mode: *([\w.+-]{1,40})", re.ASCII)
_modes = re.compile(r"^< *POWER_MODEL +ID=(\d{1,3}) +NAME=([\w.+-]{1,40}) *>", re.ASCII | re.MULTILINE)


def findings(exam: Exam) -> list[Finding]:
    """Temperature, throttling, supply, governor, power mode, and which of them a run may set."""
    return [
        _temperature(exam),
        *_flags(exam),
        *_supply(exam),
        *_governor(exam),
        *_offline(exam),
        *_power_mode(exam),
        *_settable(exam),
    ]


def _temperature(exam: Exam) -> Finding:
    zones = _zones(exam)
    if not zones:
        look = exam.look("thermal")
        if look is not None and look.status == "denied":
            return Finding("temperature", "the zones may not be read", "advice", exam.advice("thermal", "denied"))
        if exam.looked_why:
            return Finding("temperature", "not looked at")
        mend = "No run can wait for it to cool down, nor tell when heat slowed it."
        return Finding("temperature", "no zone tells one", "advice", exam.advice("heat", "blind", mend))
    name, hottest = max(zones.items(), key=lambda one: one[1])
    limit = _limit(exam)
    seen = f"{hottest:.0f} degC ({name.removeprefix('thermal.')})" + (f", slows at {limit:.0f}" if limit else "")
    if _slowed(exam):
        return Finding("temperature", seen, "problem", "It is slowed for that just now: see throttling.")
    if hottest > (limit or LIMIT_C) - NEAR_K:
        mend = "It will be slowed as soon as it computes: let it cool down, then see that it stays cool."
        return Finding("temperature", seen, "problem", exam.advice("heat", "hot", mend))
    if hottest > WARM_C:
        mend = "Warm for a device that does nothing: a run waits for it to cool, and heats it to its limit soon."
        return Finding("temperature", seen, "advice", exam.advice("heat", "warm", mend))
    return Finding("temperature", seen)


def _zones(exam: Exam) -> dict[str, float]:
    """What tells how warm the chip is: the zones that a run waits for, where there are such, else all."""
    zones = {name: value for name, value in exam.values(begin="thermal.").items() if not name.endswith("slowdown")}
    chip = {name: value for name, value in zones.items() if _of_chip(exam, name)}
    return chip or zones


def _of_chip(exam: Exam, name: str) -> bool:
    return any(fnmatchcase(name, zone) for zone in exam.profile.gate.zones or _CHIP)


def _limit(exam: Exam) -> float | None:
    """The lowest temperature at which a zone of the chip begins to slow the device, degC."""
    found = []
    for path, status, text in exam.matching(_ZONE, "_type"):
        zone = exam.text(f"{path.rpartition('/')[0]}/type")
        if status != "ok" or text not in ("passive", "hot") or not (zone is None or _of_chip(exam, f"thermal.{zone}")):
            continue
        value = number_of(exam.text(path.removesuffix("_type") + "_temp"))
        if value is not None and 40_000 <= value <= 130_000:
            found.append(value / 1000)
    return min(found, default=exam.profile.slows_at_c)


def _slowed(exam: Exam) -> list[str]:
    """What says that heat slows the device now."""
    return [name for name, value in exam.values(".thermal_slowdown").items() if value]


def _flags(exam: Exam) -> list[Finding]:
    """What the firmware or the kernel says of clocks that are held back. A flag of now says more than one of before."""
    found = []
    said = exam.values(begin="throttled.")
    for flag, words in _FLAGS.items():
        now, before = said.get(f"throttled.{flag}"), said.get(f"throttled.{flag}{_SINCE}")
        if flag == "frequency_capped" and _why_capped(said, since="" if now else _SINCE):
            continue
        if now:
            mend = exam.advice("throttled", flag, _FLAG_MEND[flag])
            found.append(Finding("throttling", f"now: {words}", "problem", mend))
        elif before:
            mend = exam.advice("throttled", f"{flag}{_SINCE}", exam.advice("throttled", flag, _FLAG_MEND[flag]))
            found.append(Finding("throttling", f"since it was started: {words}", "advice", mend))
    if said and not found:
        found.append(Finding("throttling", "none now, none since it was started"))
    alerts = [name for name in _slowed(exam) if "throttled." not in name]
    if alerts:
        mend = exam.advice("heat", "throttled", _FLAG_MEND["thermal_slowdown"])
        found.append(Finding("throttling", f"now: {', '.join(alerts[:4])}", "problem", mend))
    return found


def _why_capped(said: dict[str, float], since: str) -> bool:
    """Whether another flag says for what the clock is capped, or was: the cap is no news then."""
    return any(said.get(f"throttled.{flag}{since}") for flag in ("under_voltage", "thermal_slowdown"))


def _supply(exam: Exam) -> list[Finding]:
    """What the supply of a Pi 5 said it can give: the firmware writes it into the device tree, mA, big-endian."""
    raw = exam.text("/proc/device-tree/chosen/power/max_current")
    if raw is None or len(raw) != 4:
        return []
    milliamperes = int.from_bytes(raw.encode("latin-1", "replace"), "big")
    if not 100 <= milliamperes <= 20_000:
        return []
    seen = f"it said that it gives {milliamperes / 1000:g} A"
    if milliamperes >= 5000:
        return [Finding("supply", seen)]
    return [Finding("supply", seen, "advice", exam.advice("supply", "weak"))]


def _governor(exam: Exam) -> list[Finding]:
    """Who sets the clocks. Of some drivers `powersave` follows the load; elsewhere it is the lowest clock."""
    said = {path: text for path, status, text in exam.matching(_CPUFREQ, "/scaling_governor") if status == "ok"}
    if not said:
        return [Finding("governor", "none: the clocks are not the kernel's to set")]
    drivers = {text for _, status, text in exam.matching(_CPUFREQ, "/scaling_driver") if status == "ok"}
    names = sorted(set(said.values()))
    seen = ", ".join(names) + (f" (driver {', '.join(sorted(drivers))})" if drivers else "")
    found = []
    slow = [name for name in names if name in _SLOW]
    if slow and not ("powersave" in slow and drivers & set(_OWN_POWERSAVE)):
        case = "lowest" if "powersave" in slow else "slow"
        mend = (
            f"{_SLOW['powersave' if case == 'lowest' else slow[0]]} Runs say which was in force, and are comparable "
            "among themselves. One run alone with the highest clock: --set governor=performance. All, until the next "
            "start:\n"
            "    echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
        )
        if slow != ["userspace"]:  # which is no board's own: what its profile says is of the others
            mend = exam.advice("governor", case, mend)
        found.append(Finding("governor", seen, "advice", mend))
    else:
        found.append(Finding("governor", seen))
    return [*found, *_capped(exam)]


def _capped(exam: Exam) -> list[Finding]:
    """A policy whose clock somebody, or a daemon, keeps below what the processor can."""
    capped = []
    for path, status, text in exam.matching(_CPUFREQ, "/scaling_max_freq"):
        policy = path.rpartition("/")[0]
        now, most = number_of(text) if status == "ok" else None, number_of(exam.text(f"{policy}/cpuinfo_max_freq"))
        if now and most and now < 0.98 * most:
            capped.append(f"{policy.rpartition('/')[2]} {now / 1e6:.2f} of {most / 1e6:.2f} GHz")
    if not capped:
        return []
    if _slowed(exam):
        return [Finding("clocks", f"capped: {', '.join(capped)}; by heat at least, see throttling")]
    mend = exam.advice(
        "clocks", "capped",
        "Somebody set that, a power mode did, or a daemon for heat. To lift it until the next start:\n"
        "    for p in /sys/devices/system/cpu/cpufreq/policy*; do cat $p/cpuinfo_max_freq | sudo tee "
        "$p/scaling_max_freq; done",
    )  # fmt: skip
    return [Finding("clocks", f"capped: {', '.join(capped)}", "advice", mend)]


def _offline(exam: Exam) -> list[Finding]:
    text = (exam.text("/sys/devices/system/cpu/offline") or "").strip()
    present = (exam.text("/sys/devices/system/cpu/present") or "").strip()
    # What a kernel could have and the board has not is offline, too: more than are present.
    ours = [part for part in text.split(",") if part and _first(part) <= _last(present)]
    if not ours:
        return []
    mend = exam.advice("power_mode", "any", "A power mode or somebody switched them off; runs would not have them.")
    return [Finding("processors", f"switched off: {','.join(ours)}", "advice", mend)]


def _first(part: str) -> int:
    return int(number_of(part.split("-")[0]) or 0)


def _last(ranges: str) -> int:
    return int(number_of(re.split(r"[,-]", ranges)[-1]) or 0)


def _power_mode(exam: Exam) -> list[Finding]:
    """The mode of a Jetson: sets of caps on clocks and of processors that are on, by name."""
    found = _mode.search(exam.answers.get("nvpmodel", ""))
    if found is None:
        return []
    modes = _modes.findall(exam.text("/etc/nvpmodel.conf") or "")
    all_of_them = "; modes: " + ", ".join(f"{number} {name}" for number, name in modes[:16]) if modes else ""
    mend = exam.advice("power_mode", "any")
    return [Finding("power mode", f"{found[1]}{all_of_them}", "ok", mend)]


def _settable(exam: Exam) -> list[Finding]:
    """The factors (``--set``) that are files, and whether they are ours to write."""
    if not exam.settable:
        return []
    mine = [name for name, yes in exam.settable.items() if yes]
    closed = {name: exam.profile.factor[name].path for name, yes in exam.settable.items() if not yes}
    seen = "; ".join(filter(None, (", ".join(mine), f"not {', '.join(closed)}" if closed else "")))
    if not closed:
        return [Finding("may be set", seen)]
    link = exam.link
    group = link.groups[0] if link is not None and link.groups else "GROUP"
    paths = " ".join(shlex.quote(str(path)) for path in closed.values())
    mend = (
        "A run that is to --set it needs its files to be yours to write. Now and after every start:\n"
        f"    printf 'z %s 0664 root {group}\\n' {paths} | sudo tee /etc/tmpfiles.d/meltbench.conf\n"
        "    sudo systemd-tmpfiles --create meltbench.conf"
    )
    return [Finding("may be set", seen, "ok", mend)]
