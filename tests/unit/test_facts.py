from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.targets.facts import GLOBS, globs, parse, rooted


def answer(files: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "uname": {"machine": "x86_64", "release": "6.1.0", "nodename": "box"},
        "cpus_online": 4,
        "disk": {"free_bytes": 5},
        "files": {path: {"status": "ok", "errno": 0, "text": text} for path, text in files.items()},
    } | more


FILES = {
    "/proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\n",
    "/proc/meminfo": "MemTotal:        1000 kB\nMemAvailable:     400 kB\n",
    "/proc/sys/kernel/random/boot_id": "11111111-2222-3333-4444-555555555555\n",
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/etc/os-release": 'NAME="X"\nPRETTY_NAME="X 12"\n',
    "/sys/devices/system/cpu/cpu0/topology/core_id": "0\n",
    "/sys/devices/system/cpu/cpu1/topology/core_id": "0\n",
    "/sys/devices/system/cpu/cpu2/topology/core_id": "1\n",
    "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil\n",
}


def test_facts_of_an_ordinary_machine() -> None:
    facts = parse(answer(FILES))
    assert (facts.cpu, facts.os, facts.arch) == ("Some CPU", "X 12", "x86_64")
    assert (facts.memory_total_bytes, facts.memory_available_bytes) == (1024000, 409600)
    assert (facts.cores_physical, facts.threads) == (2, 1)
    assert facts.governors == ("schedutil",)
    assert facts.identity_from == "/etc/machine-id"


def test_a_made_tree_did_not_boot_the_machine() -> None:
    facts = parse(answer(FILES, boot_id="99999999-2222-3333-4444-555555555555"))
    assert facts.boot_id == "99999999-2222-3333-4444-555555555555"
    assert parse(answer(FILES)).boot_id is None


def test_the_identity_is_the_boards_before_the_installations() -> None:
    board = parse(answer(FILES | {"/proc/device-tree/serial-number": "abc123\0"}))
    again = parse(answer({"/proc/device-tree/serial-number": "abc123\0", "/etc/machine-id": "other"}))
    assert board.identity == again.identity
    assert board.identity != parse(answer(FILES)).identity


def test_two_packages_with_the_same_core_numbers_are_four_cores() -> None:
    topology = {
        f"/sys/devices/system/cpu/cpu{n}/topology/{key}": text
        for n in range(4)
        for key, text in (("core_id", str(n % 2)), ("physical_package_id", str(n // 2)))
    }
    assert parse(answer(topology)).cores_physical == 4


def test_the_batteries_the_machine_runs_on_are_told_from_those_of_its_mouse() -> None:
    found = parse(
        answer(
            {
                "/sys/class/power_supply/BAT0/type": "Battery",
                "/sys/class/power_supply/AC/type": "Mains",
                "/sys/class/power_supply/battery/type": "Battery",
                "/sys/class/power_supply/battery/scope": "System",
                "/sys/class/power_supply/hid-1/type": "Battery",
                "/sys/class/power_supply/hid-1/scope": "Device",
                "/sys/class/thermal/thermal_zone1/type": "cpu",
            }
        )
    )
    assert found.batteries == ("BAT0", "battery")
    assert found.thermal_zones == ("thermal_zone1",)


def test_a_made_tree_stands_in_for_both_roots() -> None:
    tree = {("/tree" + path if path[1:5] in ("sys/", "proc") else path): text for path, text in FILES.items()}
    assert parse(answer(tree), "/tree/sys/", "/tree/proc") == parse(answer(FILES))
    assert "/tree/sys/devices/system/cpu/cpu*/topology/core_id" in globs("/tree/sys/", "/tree/proc")
    assert rooted("/proc/{pid:engine}/stat", "/a", "/b") == "/proc/{pid:engine}/stat"
    assert rooted("/etc/machine-id", "/a", "/b") == "/etc/machine-id"


def test_denied_is_told_and_missing_is_none() -> None:
    found = parse({"files": {"/proc/meminfo": {"status": "denied", "errno": 13, "text": ""}}})
    assert found.unreadable == {"/proc/meminfo": "denied"}
    assert found.memory_available_bytes is None
    assert found.cores_physical is None
    assert found.threads == 1


INFORMATION = "/proc/driver/nvidia/gpus/0000:{}:00.0/information"


def gpus(**files: str) -> tuple[str, ...]:
    paths = {"vendor0": "/sys/class/drm/card0/device/vendor", "vendor1": "/sys/class/drm/card1/device/vendor"}
    paths |= {"first": INFORMATION.format("01"), "second": INFORMATION.format("41")}
    paths |= {"version": "/proc/driver/nvidia/version"}
    return parse(answer({paths[key]: text for key, text in files.items()})).gpus


MODEL = "Model: \t\t NVIDIA GeForce RTX 3090\nIRQ:   \t\t 138\nGPU UUID: \t GPU-1\n"


def test_a_gpu_has_its_name_where_the_driver_tells_it_and_is_counted_once() -> None:
    assert gpus(vendor0="0x10de\n", first=MODEL, version="NVRM version: 1\n") == ("NVIDIA GeForce RTX 3090",)
    assert gpus(vendor0="0x8086\n", vendor1="0x10de\n", first=MODEL) == ("NVIDIA GeForce RTX 3090", "Intel")
    both = gpus(first=MODEL, second="Model: Tesla V100-SXM2-32GB\n")
    assert both == ("NVIDIA GeForce RTX 3090", "NVIDIA Tesla V100-SXM2-32GB")


def test_a_gpu_without_a_name_has_its_vendor() -> None:
    assert gpus(vendor0="0x10de\n", version="NVRM\n") == ("NVIDIA",)
    assert gpus(vendor0="0x1002\n", vendor1="0x1234\n") == ("AMD", "0x1234")
    assert gpus(version="NVRM version: NVIDIA UNIX x86_64\n") == ("NVIDIA",)
    assert gpus(first="IRQ: 5\n") == ("NVIDIA",)
    assert gpus() == ()


def test_the_zones_of_powercap_are_facts() -> None:
    path = "/sys/class/powercap/intel-rapl:{}/name"
    assert parse(answer({path.format("0"): "package-0\n", path.format("0:0"): "core\n"})).powercap == (
        "core",
        "package-0",
    )


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["status", "text", "free_bytes"]), inner)
    ),
)


@given(
    st.dictionaries(st.sampled_from(["uname", "files", "disk", "cpus_online", "boot_id"]), JSON), st.binary(max_size=50)
)
def test_any_answer_gives_facts(said: dict[str, Any], raw: bytes) -> None:
    files = {path: {"status": "ok", "text": raw.decode("latin-1")} for path in GLOBS if "*" not in path}
    for candidate in (said, {"files": files} | said, {"files": files}):
        facts = parse(candidate)
        assert len(facts.identity) == 16
        assert facts.memory_total_bytes is None or facts.memory_total_bytes > 0 or raw


@pytest.mark.parametrize("text", ["\x1b[31mred\x1b[0m", "a\x00b\rc"])
def test_escape_codes_of_a_device_are_gone(text: str) -> None:
    board = parse(answer({"/proc/device-tree/model": text})).board
    assert board is not None
    assert board.isprintable()


def test_what_a_device_says_of_itself_is_harmless_on_a_terminal_and_bounded() -> None:
    zone = "/sys/class/thermal/thermal_zone\x1b[2J0/type"
    said = answer(FILES | {zone: "x"}, uname={"machine": "\x1b]0;owned\x07x86_64"}, cpus_online=10**400)
    facts = parse(said | {"disk": {"free_bytes": 10**400}})
    assert facts.arch.isprintable()
    assert all(name.isprintable() for name in facts.thermal_zones)
    assert facts.thermal_zones
    assert (facts.cpus_online, facts.disk_free_bytes) == (None, None)
