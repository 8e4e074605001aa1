"""What the doctor says of boards: made facts, made outputs in each device's dialect, the real readers and profiles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from device_kit import PMIC, ina3221, power_supply, rapl, streams, tegrastats

from meltbench import catalog, examine
from meltbench.deadline import Deadline
from meltbench.doctor import CASES, Exam, Finding, diagnose, worst
from meltbench.doctor.exam import SOURCE_CASES, Folder, Link
from meltbench.errors import LinkLost
from meltbench.examine import on_mount, seen_in
from meltbench.records import Readings, Status, Stream
from meltbench.report.progress import Quiet
from meltbench.targets import Completed, Feed, Place, profile
from meltbench.targets.facts import parse
from meltbench.targets.inventory import Known
from meltbench.targets.local import LocalTransport

LINK = Link(0.003, user="pi", uid=1000, groups=("pi", "adm"))
HERE = Folder("/home/pi/.meltbench", "/", "ext4", ("rw",), 30 << 30)
IDLE = {"/proc/loadavg": ("ok", "0.02 0.03 0.00 1/99 1"), "/proc/swaps": ("ok", "Filename Type Size Used Priority")}
MEMORY = "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\n"


def facts(model: str = "", compatible: str = "", arch: str = "aarch64", **files: str) -> Any:
    texts = {"/proc/meminfo": MEMORY, "/proc/device-tree/model": model, "/proc/device-tree/compatible": compatible}
    texts |= {"/proc/device-tree/serial-number": "a1b2c3d4"}
    texts |= {(path if path.startswith("/") else path.replace("__", "/")): text for path, text in files.items()}
    answer = {path: {"status": "ok", "text": text} for path, text in texts.items() if text}
    return parse({"uname": {"machine": arch}, "cpus_online": 4, "files": answer})


def polled(command: str, *outputs: str) -> list[Stream]:
    """What a program printed, a second apart, as the probe's polls record it."""
    t = range(0, len(outputs) * 10**9, 10**9)
    at = np.array(t, np.int64)
    raw = [text.encode() for text in outputs]
    return [Stream(1, "made", "poll", command, "ok", 0, Readings.of(at, at, np.zeros(len(raw), np.int32), raw))]


def denied(glob: str) -> list[Stream]:
    """A file that may not be opened."""
    return [Stream(1, "made", "file", glob, "denied", 13, Readings.of(*EMPTY))]


def _empty() -> tuple[Any, ...]:
    none = np.array([], np.int64)
    return none, none, np.array([], np.int32), []


EMPTY = _empty()
ZONE = "/sys/class/thermal/thermal_zone0/"


def warm(celsius: float, kind: str = "cpu-thermal") -> bytes:
    return f"{ZONE}type: {kind}\n{ZONE}temp: {celsius * 1000:.0f}\n{ZONE}temp: {celsius * 1000:.0f}\n".encode()


def exam(name: str, about: Any, texts: dict[str, tuple[str, str]] | None = None, **sources: Any) -> Exam:
    """A board of that profile. ``sources``: what each gave: made output, streams, or nothing."""
    found = profile.load(name)[0]
    known = Known("pi5", name, Place("ssh", "pi@10.0.0.7"), about.identity)
    by_name = {source.name: source for source in found.source}
    given = {key: streams(by_name[key], said) if isinstance(said, bytes) else said for key, said in sources.items()}
    seen = Exam(known, found, link=LINK, folder=HERE, facts=about, texts=IDLE | (texts or {}))
    return seen_in(seen, given)


def said(found: list[Finding], what: str) -> Finding:
    (one,) = [one for one in found if one.what == what]
    return one


def verdicts(found: list[Finding]) -> dict[str, str]:
    return {one.what: one.verdict for one in found if one.verdict != "ok"}


PI4 = facts("Raspberry Pi 4 Model B Rev 1.4", "raspberrypi,4-model-b\nbrcm,bcm2711")
PI5 = facts(
    "Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b\nbrcm,bcm2712",
    __proc__cpuinfo="processor : 0\nFeatures : fp asimd aes crc32 asimddp\n",
)  # fmt: skip
THROTTLED = "vcgencmd get_throttled"
ADC = "vcgencmd pmic_read_adc"
NO_MAILBOX = "VCHI initialization failed\n"


def test_a_healthy_pi_5_has_watts_and_is_told_why_they_are_no_joules() -> None:
    found = diagnose(
        exam("rpi5", PI5, thermal=warm(48), throttled=polled(THROTTLED, "throttled=0x0\n"), pmic=PMIC * 1,
             texts={"/proc/device-tree/chosen/power/max_current": ("ok", "\x00\x00\x13\x88")})
    )  # fmt: skip
    assert said(found, "supply").seen == "it said that it gives 5 A"
    assert said(found, "throttling").seen == "none now, none since it was started"
    assert "sum.power 12.0 W" in said(found, "source pmic").seen
    assert "13 % and 0.6 W low" in said(found, "source pmic").mend
    assert "pmic.sum.power" in said(found, "energy").seen
    assert "USB, HATs, NVMe" in said(found, "energy").seen
    assert "has dotprod" in said(found, "processor").seen
    assert said(found, "energy").seen.startswith("none: pmic.sum.power")
    assert set(verdicts(found)) <= {"source pmic", "source firmware_temp", "energy"}
    assert worst(found) == "advice"


def test_a_pi_5_that_is_short_of_volts_is_told_which_supply_it_wants() -> None:
    weak = {"/proc/device-tree/chosen/power/max_current": ("ok", "\x00\x00\x0b\xb8")}
    found = diagnose(exam("rpi5", PI5, weak, throttled=polled(THROTTLED, "throttled=0x50005\n"), thermal=warm(50)))
    now = [one for one in found if one.what == "throttling"]
    assert [one.verdict for one in now] == ["problem", "problem"]
    assert "under-voltage" in now[0].seen
    assert "27 W supply with USB PD" in now[0].mend
    assert "slowed by heat" in now[1].seen
    assert said(found, "supply").seen == "it said that it gives 3 A"
    assert "600 mA" in said(found, "supply").mend
    assert worst(found) == "problem"


def test_what_happened_since_the_start_is_advice_and_says_how_the_flag_is_cleared() -> None:
    found = diagnose(exam("rpi4", PI4, throttled=polled(THROTTLED, "throttled=0x50000\n"), thermal=warm(50)))
    flags = [one for one in found if one.what == "throttling"]
    assert [one.verdict for one in flags] == ["advice", "advice"]
    assert "5.1 V and 3 A" in flags[0].mend
    assert "sudo reboot" in flags[0].mend
    assert worst(found) == "advice"


def test_a_pi_whose_user_is_not_in_group_video_is_given_the_line_to_paste() -> None:
    found = diagnose(
        exam("rpi5", PI5, throttled=polled(THROTTLED, NO_MAILBOX), pmic=polled(ADC, NO_MAILBOX), thermal=warm(50))
    )
    assert said(found, "source throttled").verdict == "advice"
    assert "sudo usermod -aG video pi" in said(found, "source throttled").mend
    assert said(found, "source pmic").verdict == "problem"
    assert "denied" in said(found, "source pmic").seen
    assert said(found, "source pmic").mend == "As said of throttled."
    assert said(found, "energy").verdict == "problem"


def test_a_pi_4_needs_a_meter_and_a_pi_without_vcgencmd_its_package() -> None:
    found = diagnose(exam("rpi4", PI4, thermal=warm(50)))
    assert "measures neither its input nor its rails" in said(found, "energy").mend
    assert "apt install raspi-utils" in said(found, "source throttled").mend
    assert "neither dotprod nor i8mm" in said(found, "processor").seen
    assert worst(found) == "advice"


def test_the_governor_of_raspberry_pi_os_and_pages_of_16_kib() -> None:
    policy = "/sys/devices/system/cpu/cpufreq/policy0/"
    slow = {f"{policy}scaling_governor": ("ok", "ondemand"), f"{policy}scaling_driver": ("ok", "cpufreq-dt")}
    found = diagnose(replace(exam("rpi5", PI5, slow, thermal=warm(50)), page_bytes=16384))
    assert said(found, "governor").verdict == "advice"
    assert "echo performance | sudo tee" in said(found, "governor").mend
    assert "kernel=kernel8.img" in said(found, "pages").mend
    assert said(found, "pages").verdict == "ok"


NANO = facts("NVIDIA Jetson Nano Developer Kit", "nvidia,jetson-nano\nnvidia,tegra210")
ORIN = facts(
    "NVIDIA Jetson Orin Nano Developer Kit",
    "nvidia,p3768-0000+p3767-0005\nnvidia,p3767-0005\nnvidia,tegra234",
)
NVPMODEL = "NVPM WARN: fan mode is not set!\nNV Power Mode: 15W\n0\n"
CONF = "# modes\n< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=7W >\n"


def test_an_orin_has_its_input_rail_and_its_power_modes_and_a_gpu_that_the_engine_leaves_idle() -> None:
    texts = {"/etc/nvpmodel.conf": ("ok", CONF), "/sys/devices/system/cpu/present": ("ok", "0-5")}
    texts["/sys/devices/system/cpu/offline"] = ("ok", "4-7")
    seen = exam("jetson-orin-nano", ORIN, texts, ina3221=ina3221("jetson-orin-nano"), thermal=warm(45))
    found = diagnose(replace(seen, answers={"nvpmodel": NVPMODEL}))
    assert "ina3221.VDD_IN.power (module" in said(found, "energy").seen
    assert "VDD_IN.power 4.00 W" in said(found, "source ina3221").seen
    assert said(found, "power mode").seen == "15W; modes: 0 15W, 1 7W"
    assert "sudo nvpmodel -m ID" in said(found, "power mode").mend
    assert said(found, "processors").seen == "switched off: 4-7"
    assert said(found, "accelerator").seen == "NVIDIA tegra234"
    assert "meltbench runners build llamacpp --on-device pi5 --cuda" in said(found, "accelerator").mend
    assert "later runs take it by themselves" in said(found, "accelerator").mend.replace("\n", " ")
    made = said(diagnose(replace(seen, cuda="12.6")), "accelerator")
    assert (made.verdict, made.seen) == (
        "ok", "NVIDIA tegra234; runs take the engine that was compiled there for it (CUDA 12.6)"
    )  # fmt: skip
    assert "nvidia-l4t-tools" in said(found, "source tegrastats").mend
    assert said(found, "source tegrastats").verdict == "advice"


def test_a_nano_reads_its_rails_by_the_tool_where_the_files_are_roots() -> None:
    source = denied("/sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input")
    found = diagnose(exam("jetson-nano", NANO, ina3221=source, tegrastats=tegrastats("jetson-nano"), thermal=warm(40)))
    assert said(found, "source ina3221").verdict == "advice", "the tool tells the same rail"
    assert "chmod a+r ina3221" in said(found, "source ina3221").mend
    assert "tegrastats.POM_5V_IN.power" in said(found, "energy").seen
    blind = diagnose(exam("jetson-nano", NANO, ina3221=source, thermal=warm(40)))
    assert said(blind, "source ina3221").verdict == "problem"


def pc(*zones: str, **more: Any) -> Any:
    texts = {"/sys/class/dmi/id/product_name": "21CB", "/proc/cpuinfo": "model name : Some CPU\nflags : fpu avx avx2\n"}
    return facts(arch="x86_64", **texts, **more)


COUNTER = "/sys/class/powercap/intel-rapl:0/energy_uj"


def test_a_desktop_whose_rapl_is_roots_is_given_the_udev_rule() -> None:
    found = diagnose(exam("linux-desktop", pc(), rapl=denied(COUNTER), thermal=warm(45, "x86_pkg_temp")))
    mend = said(found, "source rapl").mend
    assert said(found, "source rapl").verdict == "problem"
    assert "CVE-2020-8694" in mend
    assert "usermod -aG powercap pi" in mend
    assert 'RUN+="/bin/chgrp powercap /sys%p/energy_uj", RUN+="/bin/chmod g+r /sys%p/energy_uj"\' | sudo tee' in mend
    assert "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj" in mend
    assert "see what is said of rapl" in said(found, "energy").mend
    assert "has AVX2" in said(found, "processor").seen


def test_a_desktop_whose_rapl_can_be_read_has_its_energy() -> None:
    found = diagnose(exam("linux-desktop", pc(), rapl=rapl(), thermal=warm(45, "x86_pkg_temp")))
    assert "rapl.package-0" in said(found, "energy").seen
    assert "1.00 W" in said(found, "source rapl").seen
    assert verdicts(found) == {}
    assert worst(found) == "ok"


def test_a_counter_that_wraps_while_it_is_looked_at_tells_its_watts_all_the_same() -> None:
    found = diagnose(exam("linux-desktop", pc(), rapl=rapl(262140, 262142, 1), thermal=warm(45, "x86_pkg_temp")))
    assert said(found, "energy").seen == "of rapl.package-0 (soc, 2.16 W now)"  # it wraps at 262,143.33 J
    assert "2.16 W" in said(found, "source rapl").seen


def test_a_gpu_that_nothing_reads_over_ssh_is_told() -> None:
    about = pc(__sys__class__drm__card0__device__vendor="0x10de")
    found = diagnose(exam("linux-desktop", about, rapl=rapl(), thermal=warm(45, "x86_pkg_temp")))
    assert said(found, "source nvml").seen == "not read: its GPU is there"
    assert "leave this GPU out" in said(found, "source nvml").mend
    assert said(found, "source amdsmi").verdict == "ok"
    assert said(found, "accelerator").seen == "NVIDIA"


def test_a_card_without_a_name_computes_nothing_and_hides_none_that_does() -> None:
    screen = pc(__sys__class__drm__card0__device__vendor="0x1a03")
    assert "accelerator" not in {one.what for one in diagnose(exam("linux-desktop", screen))}
    both = pc(__sys__class__drm__card0__device__vendor="0x1a03", __sys__class__drm__card1__device__vendor="0x1002")
    one = said(diagnose(exam("linux-desktop", both)), "accelerator")
    assert (one.seen, "built for Vulkan" in one.mend) == ("AMD", True)


@pytest.mark.parametrize(
    ("governor", "driver", "verdict", "words"),
    [
        ("powersave", "intel_pstate", "ok", ""),
        ("powersave", "amd-pstate-epp", "ok", ""),
        ("powersave", "acpi-cpufreq", "advice", "keeps the lowest clock"),
        ("powersave", "intel_cpufreq", "advice", "keeps the lowest clock"),  # intel_pstate in its passive mode
        ("powersave", "amd-pstate", "advice", "keeps the lowest clock"),
        ("userspace", "acpi-cpufreq", "advice", "keeps the clock that somebody wrote"),
        ("schedutil", "cpufreq-dt", "ok", ""),
        ("performance", "intel_pstate", "ok", ""),
        ("ondemand", "acpi-cpufreq", "advice", "short answers look slower"),
    ],
)
def test_powersave_is_slow_only_where_the_driver_does_not_choose_by_itself(
    governor: str, driver: str, verdict: str, words: str
) -> None:
    policy = "/sys/devices/system/cpu/cpufreq/policy0/"
    texts = {f"{policy}scaling_governor": ("ok", governor), f"{policy}scaling_driver": ("ok", driver)}
    one = said(diagnose(exam("linux-desktop", pc(), texts)), "governor")
    assert (one.verdict, words in one.mend) == (verdict, True)


POLICIES = "/sys/devices/system/cpu/cpufreq/policy0"


@pytest.mark.parametrize(("name", "own"), [("rpi5", "ondemand"), ("jetson-orin-nano", "schedutil")])
def test_a_governor_that_keeps_the_lowest_clock_is_not_taken_for_a_slow_one(name: str, own: str) -> None:
    texts = {f"{POLICIES}/scaling_governor": ("ok", "powersave")}
    one = said(diagnose(exam(name, PI5, texts)), "governor")
    assert one.mend.startswith("It keeps the lowest clock")
    assert f"echo {own} |" in one.mend


def test_what_heat_does_to_the_clocks_is_said_once() -> None:
    texts = {f"{POLICIES}/scaling_max_freq": ("ok", "1440000"), f"{POLICIES}/cpuinfo_max_freq": ("ok", "2400000")}
    texts[f"{POLICIES}/scaling_governor"] = ("ok", "schedutil")
    hot = exam("rpi5", PI5, texts, throttled=polled(THROTTLED, "throttled=0x60006\n"), thermal=warm(83))
    found = diagnose(hot)
    assert said(found, "throttling").seen == "now: slowed by heat"
    assert said(found, "temperature").mend == "It is slowed for that just now: see throttling."
    assert (said(found, "clocks").verdict, said(found, "clocks").mend) == ("ok", "")
    capped = exam("rpi5", PI5, throttled=polled(THROTTLED, "throttled=0x2\n"), thermal=warm(50))
    assert said(diagnose(capped), "throttling").seen == "now: the clock of the processor is capped"


def test_a_user_of_the_right_group_is_told_of_the_device_file_instead() -> None:
    silent = polled("vcgencmd pmic_read_adc", "Can't open device file: /dev/vcio\n")
    seen = replace(exam("rpi5", PI5, pmic=silent), link=replace(LINK, groups=("pi", "video")))
    one = said(diagnose(seen), "source pmic")
    assert one.seen == "denied: Can't open device file: /dev/vcio"
    assert "usermod" not in one.mend
    assert "sudo chgrp video /dev/vcio && sudo chmod 660 /dev/vcio" in one.mend


def test_what_a_run_may_set_is_told_with_the_rule_that_opens_the_rest() -> None:
    seen = replace(exam("rpi5", PI5), settable={"governor": True, "cpu_max_khz": False})
    one = said(diagnose(seen), "may be set")
    assert one.seen == "governor; not cpu_max_khz"
    assert "printf 'z %s 0664 root pi\\n' '/sys/devices/system/cpu/cpufreq/policy*/scaling_max_freq' | sudo" in one.mend
    assert "scaling_governor" not in one.mend
    open_ = replace(seen, settable={"governor": True})
    assert said(diagnose(open_), "may be set") == Finding("may be set", "governor")


def test_a_clock_that_somebody_keeps_low_is_told_in_ghz() -> None:
    policy = "/sys/devices/system/cpu/cpufreq/policy4/"
    texts = {f"{policy}scaling_governor": ("ok", "schedutil"), f"{policy}scaling_max_freq": ("ok", "1200000")}
    texts[f"{policy}cpuinfo_max_freq"] = ("ok", "2400000")
    assert said(diagnose(exam("linux-desktop", pc(), texts)), "clocks").seen == "capped: policy4 1.20 of 2.40 GHz"


def test_a_phone_is_told_to_calibrate_its_gauge() -> None:
    phone = parse({"uname": {"machine": "aarch64"}, "files": {}}, said={"ro.serialno": "x", "ro.product.model": "A"})
    found = diagnose(exam("generic-android", phone, battery=power_supply(-500_000)))
    assert said(found, "source battery").verdict == "advice"
    assert "meltbench devices calibrate pi5" in said(found, "source battery").mend


@pytest.mark.parametrize(
    ("celsius", "verdict", "words"),
    [(45.0, "ok", ""), (66.0, "advice", "Active Cooler"), (79.0, "problem", "slows it from 80 degC on")],
)
def test_heat_is_held_against_the_limit_that_the_zone_tells(celsius: float, verdict: str, words: str) -> None:
    trips = {f"{ZONE}trip_point_0_type": ("ok", "passive"), f"{ZONE}trip_point_0_temp": ("ok", "80000")}
    trips |= {f"{ZONE}trip_point_1_type": ("ok", "critical"), f"{ZONE}trip_point_1_temp": ("ok", "110000")}
    one = said(diagnose(exam("rpi5", PI5, trips, thermal=warm(celsius))), "temperature")
    assert one.verdict == verdict
    assert "slows at 80" in one.seen
    assert words in one.mend


def zones(**celsius: float) -> bytes:
    """Zones of a made tree, by type."""
    lines = ""
    for n, (kind, value) in enumerate(celsius.items()):
        place = f"/sys/class/thermal/thermal_zone{n}/"
        lines += f"{place}type: {kind.replace('__', '-')}\n" + f"{place}temp: {value * 1000:.0f}\n" * 2
    return lines.encode()


def test_a_zone_that_is_not_the_chips_says_nothing_of_its_heat() -> None:
    nano = exam("jetson-nano", NANO, thermal=zones(CPU__therm=41, GPU__therm=40, PMIC__Die=100, iwlwifi=65))
    one = said(diagnose(nano), "temperature")
    assert (one.seen, one.verdict) == ("41 degC (CPU-therm)", "ok")
    case = {
        f"/sys/class/thermal/thermal_zone{n}/type": ("ok", kind) for n, kind in enumerate(("acpitz", "x86_pkg_temp"))
    }
    case |= {f"{ZONE}trip_point_0_type": ("ok", "passive"), f"{ZONE}trip_point_0_temp": ("ok", "50000")}
    desktop = exam("linux-desktop", pc(), case, thermal=zones(acpitz=28, x86_pkg_temp=44, pch_cannonlake=71))
    one = said(diagnose(desktop), "temperature")
    assert (one.seen, one.verdict) == ("44 degC (x86_pkg_temp)", "ok"), "nor does the limit of its case"
    other = exam("linux-desktop", pc(), thermal=zones(acpitz=28))
    assert said(diagnose(other), "temperature").seen == "28 degC (acpitz)", "better than nothing"


def test_the_seconds_of_the_look_tell_of_other_load_before_the_mean_of_a_minute() -> None:
    minute = {"/proc/loadavg": ("ok", "3.90 2.00 1.00 1/99 1")}
    assert said(diagnose(exam("rpi4", PI4, minute)), "other load").verdict == "problem"
    stat = "/proc/stat: cpu  {0} 0 0 {1} 0 0 0 0 0 0\n"
    calm = "".join(stat.format(n, 400 * n) for n in (1, 2, 3)).encode()
    one = said(diagnose(exam("rpi4", PI4, minute, cpu=calm)), "other load")
    assert (one.verdict, "load 3.9 over the last minute" in one.seen) == ("ok", True)


def test_swap_in_zram_and_little_memory_are_told() -> None:
    swaps = "Filename Type Size Used Priority\n/dev/zram0 partition 2000000 500000 100\n"
    low = facts(__proc__meminfo="MemTotal: 1000000 kB\nMemAvailable: 500000 kB\n")
    found = diagnose(exam("linux-desktop", low, {"/proc/swaps": ("ok", swaps)}))
    assert "/dev/zram0: 488 MiB of 1.91 GiB used" in said(found, "swap").seen
    assert "hides how full that is" in said(found, "swap").mend
    assert said(found, "memory").verdict == "advice"
    tight = facts(__proc__meminfo="MemTotal: 1000000 kB\nMemAvailable: 100000 kB\n")
    assert said(diagnose(exam("linux-desktop", tight)), "memory").verdict == "problem"


def test_32_bits_on_a_processor_of_64() -> None:
    old = facts(arch="armv7l", __proc__cpuinfo="Features : half thumb neon vfpv4 crc32\n")
    assert said(diagnose(exam("rpi4", old)), "system").verdict == "advice"
    real = facts(arch="armv7l", __proc__cpuinfo="Features : half thumb neon vfpv4\n")
    assert said(diagnose(exam("rpi4", real)), "system").verdict == "ok"


def test_a_device_that_is_not_reached_is_one_problem_with_its_hint() -> None:
    known = Known("pi5", "rpi5", Place("ssh", "pi5"))
    (one,) = diagnose(Exam(known, profile.load("rpi5")[0], failed=("no route", "switch it on")))
    assert (one.verdict, one.seen, one.mend) == ("problem", "no route", "switch it on")


def test_another_board_ends_the_examination() -> None:
    seen = exam("rpi5", PI5)
    found = diagnose(replace(seen, known=replace(seen.known, identity="0" * 16)))
    assert said(found, "board").verdict == "problem"
    assert "meltbench devices remove pi5" in said(found, "board").mend
    assert "energy" not in verdicts(found)
    unknown = diagnose(replace(seen, known=replace(seen.known, identity=None)))
    assert "meltbench devices add pi5 --ssh pi@10.0.0.7" in said(unknown, "board").mend


@pytest.mark.parametrize(
    ("folder", "what", "verdict", "words"),
    [
        (replace(HERE, options=("rw", "noexec"), why="exit status 126"), "folder", "problem", "mounted noexec"),
        (replace(HERE, why="No space left on device"), "probe", "problem", "take another one"),
        (replace(HERE, free_bytes=100 << 20), "folder", "problem", "journal needs room"),
        (replace(HERE, free_bytes=2 << 30), "folder", "advice", "small model"),
        (replace(HERE, kind="tmpfs"), "folder", "advice", "kept in memory"),
    ],
)
def test_what_is_wrong_with_our_folder(folder: Folder, what: str, verdict: str, words: str) -> None:
    seen = exam("rpi5", PI5)
    one = said(diagnose(replace(seen, folder=folder, facts=None if folder.why else seen.facts)), what)
    assert one.verdict == verdict
    assert words in one.mend


def test_this_machine_has_no_address_to_add() -> None:
    seen = replace(
        exam("local", pc()), known=Known("local", "local", Place()), folder=replace(HERE, free_bytes=100 << 20)
    )
    mend = said(diagnose(seen), "folder").mend
    assert "export XDG_STATE_HOME=" in mend
    assert "devices add" not in mend


def test_a_slow_shell_and_a_clock_that_is_off_and_runs_that_wait() -> None:
    seen = exam("rpi5", PI5)
    link = replace(LINK, offset_s=3600.0, offset_u_s=0.01, latency_s=0.4)
    found = diagnose(replace(seen, link=link, ended=("20260101T000000Z-aaaaaa",)))
    assert "timedatectl set-ntp true" in said(found, "clock").mend
    assert "ahead of ours" in said(found, "clock").seen
    assert "meltbench collect" in said(found, "runs there").mend
    assert said(found, "reached").verdict == "advice"
    good = diagnose(replace(seen, link=replace(LINK, offset_s=-0.004, offset_u_s=0.01)))
    assert said(good, "clock").seen == "as ours, within 10.0 ms"


def test_a_device_that_is_busy_is_not_looked_into() -> None:
    busy = replace(exam("rpi5", PI5), running="20260101T000000Z-aaaaaa", looked_why="it runs")
    found = diagnose(busy)
    assert said(found, "sensors").verdict == "advice"
    assert "energy" not in {one.what for one in found}
    held = diagnose(replace(exam("rpi5", PI5), holder="desk:4711"))
    assert said(held, "free").seen == "no: held by desk:4711"


MOUNTS = (
    "/dev/root / ext4 rw,noatime 0 0\ntmpfs /tmp tmpfs rw,nosuid,noexec 0 0\n"
    "/dev/sda1 /mnt/my\\040disk ext4 rw 0 0\n/dev/sdb1 / ext4 rw 0 0\nbroken\n"
)


class Gone(LocalTransport):
    """A link that is cut after its first command."""

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        if argv[0] != "cat":
            raise LinkLost("the link was lost")
        return super().run(argv, deadline, feed=feed)


def test_a_link_that_is_cut_is_no_fault_of_our_folder() -> None:
    known = Known("pi5", "rpi5", Place("ssh", "pi5"), workdir="/data/mb")
    with pytest.raises(LinkLost):
        examine._folder(known, Gone(), Quiet())


@pytest.mark.parametrize(
    ("path", "mount", "kind"),
    [("/tmp/mb", "/tmp", "tmpfs"), ("/tmpfoo/mb", "/", "ext4"), ("/mnt/my disk/mb", "/mnt/my disk", "ext4")],
)
def test_the_file_system_of_our_folder_is_the_nearest_above_it(path: str, mount: str, kind: str) -> None:
    found = on_mount(Folder(path), MOUNTS)
    assert (found.mount, found.kind) == (mount, kind)


NAMES = sorted(path.stem for path in (catalog.builtin_root() / "devices").glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_what_profiles_say_of_their_boards_is_said_of_something(name: str) -> None:
    found = profile.load(name)[0]
    sources = {source.name for source in found.source}
    for topic, cases in found.advice.items():
        known = CASES.get(topic, SOURCE_CASES)
        assert topic in CASES or topic in sources, f"{topic} is neither a source of {name} nor a matter of the doctor"
        for case, text in cases.items():
            assert case in known, f"{topic}.{case} is never asked for"
            assert text.strip()
            assert set(re.findall(r"\{(\w+)\}", text)) <= {"user", "name"}
            assert "<<" not in text, "pasted with the blanks before it a here-document has no end"


STATUSES: tuple[Status, ...] = ("denied", "absent", "again", "error", "unparsed")


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "macbook"])
def test_every_source_of_every_profile_has_something_to_say(name: str, status: Status) -> None:
    seen = exam(name, PI5)
    looks = tuple(replace(look, status=status, detail="made", last={}) for look in seen.looks)
    found = diagnose(replace(seen, looks=looks))
    for look in looks:
        one = said(found, f"source {look.source.name}")
        assert one.verdict == "ok" if status == "absent" and not one.mend else one.mend
