"""`meltbench devices doctor` on made boards over SSH: what somebody who knows them would say, and that it helps."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from board_simulator import PHYSICS
from cli import Bench
from made_boards import Board
from made_runs import controller, now_c
from targets_kit import until

Seen = dict[str, dict[str, str]]
GOVERNORS = "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"


def examined(bench: Bench) -> Seen:
    """The findings by what they are of; of several the first."""
    out: Seen = {}
    for one in json.loads(bench.run("devices", "doctor", "board", "--json").stdout)["findings"]:
        out.setdefault(one["what"], one)
    # Others work on this machine while the tests run: what the board would see of them is not the board's.
    return {what: one for what, one in out.items() if what != "other load"}


def problems(seen: Seen) -> set[str]:
    """But for what other tests do beside this one."""
    return {what for what, one in seen.items() if one["verdict"] == "problem"} - {"other load"}


def pasted(board: Board, mend: str) -> None:
    """Do what the advice says, by its lines that are to be pasted; the rooms have no sudo, so root does it."""
    lines = [line[4:] for line in mend.split("\n") if line.startswith("    ")]
    board.ssh('sudo() { "$@"; }\n' + "\n".join(lines), user="root")


@pytest.fixture(autouse=True)
def as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for kind, own in (("jetson", "schedutil"), ("pi5", "ondemand"), ("desktop", "powersave")):
        if kind in request.fixturenames:
            board: Board = request.getfixturevalue(kind)
            board.warm_to(PHYSICS[kind].ambient_c)
            board.ssh(f"for f in {GOVERNORS}; do echo {own} > $f; done", user="root")


def test_a_jetson_that_is_as_it_came(bench: Bench, jetson: Board) -> None:
    controller(bench, jetson)
    seen = examined(bench)
    assert problems(seen) == set()
    assert seen["board"]["seen"].startswith("NVIDIA Jetson Orin Nano")
    assert seen["energy"]["seen"].startswith("of ina3221.VDD_IN.power (module, ")
    assert seen["source tegrastats"]["seen"].startswith("readable: VDD_IN.power ")
    assert seen["power mode"]["seen"] == "15W; modes: 0 15W, 1 25W, 2 MAXN_SUPER, 3 7W"
    assert "--set nvpmodel=ID" in seen["power mode"]["mend"]
    assert seen["clocks"]["seen"] == "capped: policy0 1.51 of 1.73 GHz, policy4 1.51 of 1.73 GHz"
    assert "--set nvpmodel=ID" in seen["clocks"]["mend"]
    assert "meltbench runners build llamacpp --on-device board --cuda" in seen["accelerator"]["mend"]
    assert seen["may be set"]["seen"] == "not governor, cpu_max_khz"
    assert (seen["governor"]["seen"], seen["governor"]["verdict"]) == ("schedutil (driver tegra194)", "ok")
    row = json.loads(bench.run("devices", "list", "--json").stdout)[-1]
    assert (row["name"], row["accelerator"]) == ("board", "NVIDIA tegra234")


def test_a_jetson_that_is_hot_and_slow_and_hides_its_sensors(bench: Bench, jetson: Board) -> None:
    controller(bench, jetson)
    jetson.warm_to(120)
    closed = "chmod o-r /sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/*_input; mv /usr/bin/tegrastats /root"
    jetson.ssh(f"{closed}; for f in {GOVERNORS}; do echo powersave > $f; done", user="root")
    until(lambda: now_c(jetson) > 100, "the board to be hot")
    try:
        seen = examined(bench)
    finally:
        jetson.ssh("mv /root/tegrastats /usr/bin", user="root")
    assert problems(seen) == {"temperature", "throttling", "source ina3221", "energy"}
    assert seen["throttling"]["seen"] == "now: cooling.cpu.thermal_slowdown"
    assert "jetson_clocks --fan" in seen["throttling"]["mend"]
    assert seen["temperature"]["mend"] == "It is slowed for that just now: see throttling."
    assert seen["clocks"]["seen"].endswith("by heat at least, see throttling")
    assert "It keeps the lowest clock" in seen["governor"]["mend"]
    assert "sudo apt install nvidia-l4t-tools" in seen["source tegrastats"]["mend"]
    assert seen["energy"]["seen"] == "none: ina3221 may not be read"
    pasted(jetson, seen["governor"]["mend"])
    pasted(jetson, seen["source ina3221"]["mend"] + " || true")
    jetson.warm_to(0)
    until(lambda: now_c(jetson) < 50, "the board to cool down")
    assert problems(examined(bench)) == set(), "all of it was mended by what was said of it"


def test_a_pi_5_that_is_as_it_came(bench: Bench, pi5: Board) -> None:
    controller(bench, pi5)
    seen = examined(bench)
    assert problems(seen) == set()
    assert seen["throttling"]["seen"] == "none now, none since it was started"
    assert seen["temperature"]["seen"].endswith("slows at 80")
    assert seen["source pmic"]["seen"].startswith("readable: sum.power ")
    assert "13 % and 0.6 W low" in seen["source pmic"]["mend"]
    assert seen["energy"]["seen"].startswith("none: pmic.sum.power (rail, ")
    assert "leaves out USB, HATs, NVMe" in seen["energy"]["seen"]
    assert "--set governor=performance" in seen["governor"]["mend"]
    pasted(pi5, seen["governor"]["mend"])
    again = examined(bench)
    assert (again["governor"]["seen"], again["governor"]["verdict"]) == ("performance (driver cpufreq-dt)", "ok")


def test_a_pi_5_that_was_hot_and_short_of_volts(bench: Bench, pi5: Board) -> None:
    controller(bench, pi5)
    pi5.warm_to(120)
    pi5.brown_out(now=True)
    until(lambda: now_c(pi5) > 90, "the board to be hot")
    done = bench.run("devices", "doctor", "board")
    assert done.returncode == 1
    words = " ".join(done.stdout.split())
    assert "now: under-voltage: the 5 V input fell below 4.63 V The 5 V at the board" in words
    assert "the 27 W supply with USB PD" in words
    assert "now: slowed by heat" in words
    assert "is capped" not in words, "two flags say why already"
    pi5.brown_out(now=False)
    pi5.warm_to(0)
    until(lambda: now_c(pi5) < 50, "the board to cool down")
    seen = examined(bench)
    assert "throttling" not in problems(seen)
    assert seen["throttling"]["seen"].startswith("since it was started: under-voltage")
    assert "sudo reboot" in seen["throttling"]["mend"]
    pi5.reboot()
    assert examined(bench)["throttling"]["seen"] == "none now, none since it was started"


def test_a_pi_5_whose_firmware_may_not_be_asked(bench: Bench, pi5: Board) -> None:
    controller(bench, pi5)
    pi5.ssh("chmod 600 /dev/vcio", user="root")
    seen = examined(bench)
    assert seen["source throttled"]["seen"].startswith("in part: the kernel's alarm of under-voltage")
    assert "sudo chgrp video /dev/vcio && sudo chmod 660 /dev/vcio" in seen["source throttled"]["mend"]
    assert seen["source pmic"]["mend"] == "As said of throttled."
    assert "throttling" not in seen
    assert {"source pmic", "energy"} <= problems(seen)
    pi5.ssh("mkdir -p /etc/udev/rules.d", user="root")
    pasted(pi5, seen["source throttled"]["mend"])
    assert not {"source pmic", "energy"} & problems(examined(bench))


def test_a_desktop_that_hides_its_counters(bench: Bench, desktop: Board) -> None:
    controller(bench, desktop)
    seen = examined(bench)
    assert problems(seen) == {"source rapl", "energy"}
    assert 'SUBSYSTEM=="powercap"' in seen["source rapl"]["mend"]
    assert "usermod -aG powercap lab" in seen["source rapl"]["mend"]
    assert seen["energy"]["seen"] == "none: rapl may not be read"
    # Of this driver powersave follows the load: elsewhere it would be the lowest clock.
    assert (seen["governor"]["seen"], seen["governor"]["verdict"]) == ("powersave (driver intel_pstate)", "ok")
    pasted(desktop, "    " + seen["source rapl"]["mend"].rpartition("    ")[2])
    assert seen["may be set"]["seen"] == "not governor, cpu_max_khz"
    again = examined(bench)
    assert problems(again) == set()
    assert again["energy"]["seen"].startswith("of rapl.package-0 + rapl.package-0.dram (soc, ")
