"""A battery whose gauge lies, or that is charged, in the middle of a run: the run goes on and says so.

The phone is made (made_battery.py), so what its battery truly gave is known.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from cli import Bench
from made_battery import AMPS, CALIBRATED, PROFILE, VOLTS, Phone

DUMP = "Current Battery Service state:{stopped}\n  USB powered: {plugged}\n  status: 3\n  level: 64\n"


def metered(
    bench: Bench,
    fault: Callable[[Phone], None],
    options: str = CALIBRATED,
    *,
    lasting: str = "2.2",
    after_s: float = 0.6,
    more: str = "",
) -> dict[str, Any]:
    """A run of so many seconds on the made phone, which the fault befalls a while after it began."""
    phone = Phone(bench.home / "sys")
    (bench.home / "devices").mkdir()
    text = PROFILE.format(sys=bench.home / "sys", options=options, period_ms=19) + more
    (bench.home / "devices" / "made.toml").write_text(text)
    with phone.living():
        running = bench.start("exec", "--json", "--device", "made", "--set", "idle_s=0.9", "--", "sleep", lasting)
        bench.wait_for(lambda s: s.get("op") == "exec")
        time.sleep(after_s)
        fault(phone)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    (run,) = json.loads(out)
    assert run["outcome"] == "done"
    return dict(run)


def energy(run: dict[str, Any]) -> dict[str, Any]:
    keys = ("energy_j", "run", "total")
    (found,) = [m for m in run["measures"] if (m["name"], m["phase"], m["source"]) == keys]
    return dict(found)


def against(run: dict[str, Any]) -> dict[str, str]:
    return {reason["code"]: reason["detail"] for reason in run["reasons"]}


def test_a_battery_that_is_discharged_gives_what_it_gave(bench: Bench) -> None:
    run = metered(bench, lambda _: None)
    wall = next(m["value"] for m in run["measures"] if m["name"] == "wall_s")
    assert energy(run)["reason"] is None
    assert energy(run)["value"] == pytest.approx(AMPS * VOLTS * wall, rel=0.03)
    assert energy(run)["scope"] == "battery"
    assert not set(against(run)) & {"charging", "charge_state_contradictory", "low_battery", "stale_sensor"}


def test_trap_7_a_cable_that_is_plugged_in_midway(bench: Bench) -> None:
    def plug(phone: Phone) -> None:
        phone.values |= {"usb/online": "1", "battery/status": "Charging"}
        phone.current = lambda ua: str(ua % 10_000 - 5000)  # the gauge sees next to nothing now

    run = metered(bench, plug)
    assert "battery: plugged in, and its gauge does not see what comes in" in against(run)["charging"]
    assert run["validity"] == "invalid"


def test_trap_8_a_status_that_lies(bench: Bench) -> None:
    def lie(phone: Phone) -> None:
        phone.values["battery/status"] = "Charging"

    run = metered(bench, lie)
    assert against(run)["charge_state_contradictory"].startswith("battery: status charging, 5")
    assert "charging" not in against(run)
    assert run["validity"] == "invalid"


def test_trap_7_a_phone_that_is_fed_behind_its_back(bench: Bench) -> None:
    """Its supply says that it is off, its status that it discharges; the gauge flips around zero as of a full one."""

    def feed(phone: Phone) -> None:
        phone.current = lambda ua: str(ua % 10_000 - 5000)

    run = metered(bench, feed, lasting="5")
    assert "battery: next to no current for " in against(run)["charging"]
    assert run["validity"] == "invalid"


def test_trap_8_a_charger_that_nothing_but_the_current_tells_of(bench: Bench) -> None:
    def charge(phone: Phone) -> None:
        phone.current = lambda ua: str(-ua)

    run = metered(bench, charge, lasting="5")
    assert "charging" in against(run)
    assert run["validity"] == "invalid"


def test_trap_1_a_gauge_that_nobody_calibrated_shows_a_charger_by_its_turn_alone(bench: Bench) -> None:
    def charge(phone: Phone) -> None:
        phone.current = lambda ua: str(-ua)

    run = metered(bench, charge, "discharge_sign = 1", lasting="10", after_s=5)
    assert "battery: the current turned: " in against(run)["charging"]


def test_trap_1_a_gauge_that_counts_the_other_way_is_not_called_charged(bench: Bench) -> None:
    run = metered(bench, lambda _: None, "discharge_sign = 1", lasting="4")
    assert energy(run)["reason"].startswith("uncalibrated_sensor")
    assert set(against(run)) & {"charging", "charge_state_contradictory"} == set()
    assert run["validity"] == "degraded"


def test_trap_5_updates_that_are_stopped_midway_say_nothing_more(bench: Bench) -> None:
    """`dumpsys battery unplug` says that nothing is plugged in; the gauge, which it does not reach, says what flows."""
    folder = bench.home / "bin"
    folder.mkdir()
    dump = folder / "battery"
    dump.write_text(DUMP.format(stopped="", plugged="true"))
    (folder / "dumpsys").write_text(f'#!/bin/sh\nexec cat "{folder}/$1"\n')
    (folder / "dumpsys").chmod(0o755)
    bench.env["PATH"] = f"{folder}:{os.environ['PATH']}"

    def stop(_: Phone) -> None:
        dump.write_text(DUMP.format(stopped="\n  (UPDATES STOPPED -- use 'reset' to restart)", plugged="false"))

    reader = '[[source]]\nname = "dump"\nreader = "dumpsys_battery"\nperiod_ms = 97\n'
    run = metered(bench, stop, more=reader)
    assert against(run)["stale_sensor"].startswith("dumpsys_battery: updates stopped")
    assert "dumpsys_battery: plugged in" in against(run)["charging"]


def test_a_battery_that_runs_low(bench: Bench) -> None:
    run = metered(bench, lambda phone: phone.values.update({"battery/capacity": "19"}))
    assert against(run)["low_battery"] == "battery: 19 %"
    assert energy(run)["value"] is not None


def test_trap_5_a_gauge_that_is_frozen_midway(bench: Bench) -> None:
    def freeze(phone: Phone) -> None:
        phone.frozen = True

    run = metered(bench, freeze)
    assert energy(run)["value"] is None
    assert "battery.power stood still for" in against(run)["stale_sensor"]


def test_trap_2_a_gauge_that_counts_in_another_unit_than_its_profile_says(bench: Bench) -> None:
    run = metered(bench, lambda _: None, CALIBRATED + ', current_unit = "mA"')
    assert energy(run)["value"] is None
    assert set(against(run)) & {"sensor_unreadable", "implausible_power"}


def test_a_gauge_that_answers_with_prose(bench: Bench) -> None:
    def talk(phone: Phone) -> None:
        phone.current = lambda _: "no battery"

    run = metered(bench, talk)
    assert energy(run)["value"] is None
    assert "battery.power" in against(run)["sensor_unreadable"]
