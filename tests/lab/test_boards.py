"""Runs on made boards over SSH: what is stored of them is what the made board drew, and how warm and slow it was.

A made board keeps a truth of its own (board_simulator.py): watts, degrees and flags by the room's own clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from board_simulator import PHYSICS, PI_GAIN, PI_OFFSET_W
from cli import Bench
from engines_kit import stock_folder
from made_boards import Board
from made_runs import (
    WORK,
    codes,
    controller,
    detail,
    is_the_heat,
    is_the_truth,
    measure,
    metered,
    now_c,
    profile,
    series,
    status,
    windows,
)  # fmt: skip
from targets_kit import until

# Readings that come late on a busy machine are refused, as they should be.
pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every board is as it was made when the next test gets it."""
    yield
    for kind in ("jetson", "pi5", "desktop"):
        if kind in request.fixturenames:
            board: Board = request.getfixturevalue(kind)
            board.warm_to(PHYSICS[kind].ambient_c)


@pytest.mark.usefixtures("default_model")
def test_a_jetson_is_known_by_itself_and_a_model_that_runs_on_it_takes_what_it_took(
    bench: Bench, jetson: Board
) -> None:
    made = controller(bench, jetson)
    assert (made["profile"], made["identity_from"]) == ("jetson-orin-nano", "/proc/device-tree/serial-number")
    words = ("--engine", str(stock_folder()), "--set", "idle_s=1", "--set", "max_tokens=8")
    done = bench.run("run", "--device", "board", "--json", *words)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    assert {one["n_out"] for one in run["requests"]} == {8}, "real tokens of the real server"
    is_the_truth(run, jetson)
    is_the_heat(run, jetson)
    for phase in ("load", "prefill", "decode"):
        found = measure(run, "energy_j", phase)
        true = sum(jetson.truth.joules(*window) for window in windows(run, phase))
        assert true > 0
        assert (found["value"] is None) != (found["reason"] is None), phase
        if found["value"] is not None:
            assert found["value"] == pytest.approx(true, abs=found["u_k2"]), phase
    assert measure(run, "peak_rss_bytes", stat="max", source=None)["value"] > 100 << 20
    assert status(run, "nvpmodel") == ("ok", "mode 15W (0)")
    clocks = [one["value"] for one in run["measures"] if one["name"] == "cpu_freq_hz" and one["value"] is not None]
    assert clocks
    assert 115_200_000 <= min(clocks) <= max(clocks) <= 1_510_400_000
    assert "policy0: 1.51 GHz of 1.73 GHz" in detail(run, "frequency_capped"), "the power mode's cap"
    # Its GPU stood idle: said while it is made, and kept.
    assert "board has a Jetson's own GPU, and this engine computes on the CPU only" in done.stderr
    assert "runners build llamacpp --on-device board --cuda" in done.stderr
    assert run["runner"]["accelerator"] == "CPU"
    assert "the machine has NVIDIA tegra234" in detail(run, "gpu_unused")


def test_a_hot_jetson_says_that_heat_slowed_it(bench: Bench, jetson: Board) -> None:
    controller(bench, jetson)
    jetson.warm_to(120)
    until(lambda: now_c(jetson) > 100, "the board to be hot")
    run = metered(bench)
    is_the_truth(run, jetson)
    is_the_heat(run, jetson)
    assert {"throttled", "frequency_capped"} <= codes(run)
    assert "cooling.cpu.thermal_slowdown" in detail(run, "throttled")
    assert run["regimes"][-1]["name"] == "throttled"
    assert measure(run, "cpu_freq_cap_hz", stat="min", source=None)["value"] < 0.7 * 1.728e9
    assert run["validity"] != "valid"


FIT = f"""title = "a Pi that was held to a meter"
inherits = "rpi5"
[[source]]
name = "pmic"
gain_limit = 0.05
gain_limit_from = "the made board's own figures"
[source.options]
gain = {PI_GAIN}
offset_w = {PI_OFFSET_W}
"""


def test_a_pi_5_gives_no_joules_until_somebody_held_its_pmic_to_a_meter(bench: Bench, pi5: Board) -> None:
    made = controller(bench, pi5)
    assert (made["profile"], made["identity_from"]) == ("rpi5", "/proc/device-tree/serial-number")
    run = metered(bench)
    energy = measure(run, "energy_j")
    assert (energy["value"], energy["klass"]) == (None, "D")
    assert energy["reason"].startswith("uncalibrated_sensor: relative only, pmic")
    assert {"uncalibrated_sensor", "partial_total"} <= codes(run)
    is_the_heat(run, pi5)
    # The watts are there, and right: what the PMIC puts out is less than what the board draws, as it was made.
    rows = pi5.truth.rows()
    seen = series(run, "pmic.sum.power")
    assert len(seen) > 10
    for t1_ns, watts in seen[3:-3]:
        before = [row[1] for row in rows if t1_ns - 1_500_000_000 <= row[0] <= t1_ns]
        drawn = PI_GAIN * watts + PI_OFFSET_W
        assert min(before) - 0.01 <= drawn <= max(before) + 0.01
    controller(bench, pi5, "", "--profile", profile(bench, "fitted", FIT))
    fitted = metered(bench)
    is_the_truth(fitted, pi5)
    assert "uncalibrated_sensor" not in codes(fitted)


def test_a_pi_5_that_is_hot_and_short_of_volts_says_both_of_the_run_alone(bench: Bench, pi5: Board) -> None:
    controller(bench, pi5, "", "--profile", profile(bench, "fitted", FIT))
    pi5.warm_to(110)
    until(lambda: now_c(pi5) > 90, "the board to be hot")
    running = bench.start("exec", "--json", "--device", "board", "--set", "idle_s=1.5", "--", "sh", "-c", WORK)
    until(lambda: "sleep 1" in pi5.room.processes().values(), "the middle of the work")
    pi5.brown_out(now=True)
    told, said = running.communicate(timeout=120)
    pi5.brown_out(now=False)
    assert running.returncode == 0, said
    (run,) = json.loads(told)
    is_the_truth(run, pi5)
    is_the_heat(run, pi5)
    assert {"throttled", "under_voltage", "frequency_capped"} <= codes(run)
    assert "throttled.thermal_slowdown" in detail(run, "throttled")
    flags = [value for _, value in series(run, "throttled.under_voltage")]
    assert flags[0] == 0
    assert 1 in flags
    assert run["regimes"][-1]["name"] == "throttled"
    # What sticks since boot is no sign of the next run.
    pi5.warm_to(20)
    until(lambda: now_c(pi5) < 60, "the board to cool down")
    later = metered(bench)
    assert not {"throttled", "under_voltage"} & codes(later)
    assert {value for _, value in series(later, "throttled.under_voltage_since_boot")} == {1.0}


def test_a_desktop_has_its_energy_once_its_counters_may_be_read(bench: Bench, desktop: Board) -> None:
    made = controller(bench, desktop)
    assert (made["profile"], made["identity_from"]) == ("linux-desktop", "/etc/machine-id")
    denied = metered(bench, work="sleep 0.3", idle_s=0.3)
    energy = measure(denied, "energy_j")
    assert energy["value"] is None
    assert energy["reason"].startswith("sensor_denied: rapl exists and may not be read")
    assert status(denied, "rapl")[0] == "denied"
    assert "sensor_denied" in codes(denied)
    # As the udev rule that the doctor gives does it.
    counters = "/sys/class/powercap/intel-rapl:*/energy_uj"
    desktop.ssh(f"chgrp lab {counters}; chmod g+r {counters}", user="root")
    allowed = metered(bench)
    is_the_truth(allowed, desktop, factor=1 + 1 / 9)  # memory draws a ninth beside the package
    is_the_heat(allowed, desktop)
    assert allowed["conditions"]["powercap"] == ["core", "dram", "package-0"]
    assert "sensor_denied" not in codes(allowed)
