"""Battery and temperature before a run, on the road with the real probe: made batteries, and a `dumpsys` on the PATH
that stands for Android's."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli import Bench
from made_battery import CALIBRATED, PROFILE, Phone

from meltbench import gating, plan, road
from meltbench.gate import Gate
from meltbench.report.progress import Lines
from meltbench.spec import Spec, parse_sets
from meltbench.store import open_store

WINDOW = "[gate]\nsoc_percent = [30, 80]\n"
DUMPSYS = """[[source]]
name = "thermal_service"
reader = "thermalservice"
period_ms = 2999
[[source]]
name = "dump"
reader = "dumpsys_battery"
period_ms = 9973
"""


@pytest.fixture
def phone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    """A made phone, `made` in the devices, whose battery is looked at often."""
    monkeypatch.chdir(bench.home)
    monkeypatch.setenv("XDG_STATE_HOME", str(bench.home / "state"))
    monkeypatch.setattr(gating, "CHARGE_S", 0.05)
    (bench.home / "devices").mkdir()
    made = Phone(bench.home / "sys")
    with made.living():
        yield made


def profile(bench: Bench, *more: str) -> None:
    text = PROFILE.format(sys=bench.home / "sys", options=CALIBRATED, period_ms=19) + "".join(more)
    (bench.home / "devices" / "made.toml").write_text(text)


def ran(bench: Bench, *sets: str, reps: int = 1, waits: threading.Event | None = None) -> tuple[list[Any], list[str]]:
    """The records of metering a command on the phone, and what was said meanwhile. ``waits``: set once it waits."""
    given = sets if any("gate_timeout_s" in one for one in sets) else (*sets, "gate_timeout_s=0")
    knobs = parse_sets(["idle_s=0.2", *given])
    spec = Spec(device="made", workload="exec", command=("sleep", "0.5"), reps=reps, knobs=knobs)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if waits and "waits for" in line:
            waits.set()

    return list(road.run(plan.make(spec), open_store(bench.data), Lines(say))), said


def codes(record: Any) -> dict[str, str]:
    return {reason.code: reason.detail for reason in record.reasons}


def test_a_low_battery_is_waited_for_and_the_run_begins_once_it_is_charged(bench: Bench, phone: Phone) -> None:
    profile(bench, WINDOW)
    phone.values["battery/capacity"] = "18"
    waits, stop = threading.Event(), threading.Event()

    def charge() -> None:
        waits.wait(60)
        for percent in range(18, 42):
            phone.values["battery/capacity"] = str(percent)
            if stop.wait(0.1):
                return

    thread = threading.Thread(target=charge)
    thread.start()
    try:
        (record,), said = ran(bench, waits=waits)
    finally:
        waits.set()
        stop.set()
        thread.join()
    seen = record.manifest["conditions"]["charge"]
    assert (seen["state"], seen["window_percent"], seen["timeout_s"]) == ("inside", [30, 80], 3600)
    assert 30 <= seen["soc_percent"] <= 32
    assert seen["waited_s"] > 0.5
    assert "battery at 18 %, waits for 30 %, nothing charges it: connect a charger; at most 60 min" in said
    assert "waiting for the battery to charge" in said
    assert "charge_out_of_window" not in codes(record)


def test_a_battery_that_stays_low_is_measured_in_the_end_and_says_so(bench: Bench, phone: Phone) -> None:
    profile(bench, WINDOW)
    phone.values["battery/capacity"] = "18"
    records, said = ran(bench, "charge_timeout_s=1", reps=2)
    for record in records:
        assert record.manifest["conditions"]["charge"]["state"] == "below"
        assert codes(record)["charge_out_of_window"].startswith("18 % after 1 s of waiting")
        assert codes(record)["low_battery"] == "battery: 18 %"
        assert record.manifest["validity"] == "degraded"
    warned = [line for line in said if "below the window of 30 to 80 %: the run is marked" in line]
    assert len(warned) == 2


def test_a_full_battery_is_not_waited_for_and_marks_its_run(bench: Bench, phone: Phone) -> None:
    profile(bench, WINDOW)
    phone.values["battery/capacity"] = "100"
    (record,), said = ran(bench)
    assert record.manifest["conditions"]["charge"]["waited_s"] == 0
    assert codes(record)["charge_out_of_window"] == "100 %, the window is 30 to 80 %"
    assert any("battery at 100 %, above the window of 30 to 80 %" in line for line in said)


def test_nobody_tells_how_full_the_battery_is(bench: Bench, phone: Phone) -> None:
    profile(bench, WINDOW)
    phone.values["battery/capacity"] = "?"
    (record,), said = ran(bench)
    assert codes(record)["charge_out_of_window"].startswith("nobody told how full the battery was")
    assert any(line.startswith("nobody tells how full the battery is") for line in said)


def test_without_a_window_nothing_is_waited_for_and_the_charge_is_a_condition_all_the_same(
    bench: Bench, phone: Phone
) -> None:
    profile(bench)
    phone.values["battery/capacity"] = "7"
    (record,), said = ran(bench)
    seen = record.manifest["conditions"]["charge"]
    assert (seen["state"], seen["soc_percent"], seen["window_percent"], seen["fed"]) == ("inside", 7, None, "")
    assert set(codes(record)) & {"charge_out_of_window", "low_battery"} == {"low_battery"}
    assert not any("charger" in line for line in said)


def test_trap_7_a_charger_is_told_before_minutes_are_spent_and_once(bench: Bench, phone: Phone) -> None:
    profile(bench, WINDOW)
    phone.values["usb/online"] = "1"
    records, said = ran(bench, reps=2)
    told = [line for line in said if line.startswith("a charger is connected (battery: plugged in): pull the plug")]
    assert len(told) == 1
    for record in records:
        assert record.manifest["conditions"]["charge"]["fed"] == "battery: plugged in"
        assert "plugged in" in codes(record)["charging"]


def test_trap_8_a_status_that_says_charging_and_is_not_brings_no_word(bench: Bench, phone: Phone) -> None:
    profile(bench)
    phone.values["battery/status"] = "Charging"
    (record,), said = ran(bench)
    assert record.manifest["conditions"]["charge"]["fed"] == ""
    assert not any("charger" in line for line in said)


def test_an_interrupt_while_it_is_charged_starts_and_stores_nothing(bench: Bench, phone: Phone) -> None:
    profile(bench, WINDOW)
    phone.values["battery/capacity"] = "18"
    controller = bench.start("exec", "--device", "made", "--set", "idle_s=0.1", "--", "true")
    assert controller.stderr is not None
    line = ""
    while "waiting for the battery to charge" not in line:
        line = controller.stderr.readline()
        assert line, "ended without waiting"
    controller.send_signal(signal.SIGINT)
    _, err = controller.communicate(timeout=30)
    assert controller.returncode == 130
    assert "stopping: no run is under way" in err
    assert not list((bench.data / "runs").iterdir())
    assert not bench.jobs()


def made_dumpsys(bench: Bench, monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    """A `dumpsys` that prints the file of a service's name, as Android's does from its memory."""
    folder = bench.home / "bin"
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    program = folder / "dumpsys"
    program.write_text(f'#!/bin/sh\n[ -f "{folder}/$1" ] && exec cat "{folder}/$1"\necho "Can\'t find service: $1"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


SKIN = """IsStatusOverride: false
Thermal Status: 0
HAL Ready: true
Current temperatures from HAL:
	Temperature{{mValue={0}, mType=3, mName=SKIN, mStatus=0}}
	Temperature{{mValue=0.0, mType=4, mName=USB, mStatus=0}}
"""
DUMP = "Current Battery Service state:\n  USB powered: false\n  level: 64\n  temperature: {0}\n"


def test_a_phone_whose_zones_are_denied_is_gated_by_its_thermal_service(
    bench: Bench, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its battery's file tells 31.1 degC; the skin, which nothing but the service tells, cools from 48 to 40 degC."""
    profile(bench, "[gate]\n", 'zones = ["thermal.*SKIN*", "thermal.battery", "thermal.dump*"]\n', DUMPSYS)
    made_dumpsys(bench, monkeypatch, thermalservice=SKIN.format(48.0), battery=DUMP.format(290))
    monkeypatch.setattr(gating.thermal, "Gate", partial(Gate, hold_s=2.0))
    monkeypatch.setattr(gating, "ASKED_S", 0.1)
    service, stop, steps = bench.home / "bin" / "thermalservice", threading.Event(), []
    gated = threading.Event()

    def cool() -> None:
        gated.wait(60)
        for step in range(80):
            beside = Path(f"{service}.new")
            beside.write_text(SKIN.format(48 - step / 10))
            beside.replace(service)
            if stop.wait(0.05):
                return

    class Seeing(Lines):
        def step(self, status: dict[str, Any]) -> None:
            steps.append(dict(status))
            if status.get("name") == "gate":
                gated.set()
            super().step(status)

    thread = threading.Thread(target=cool)
    thread.start()
    knobs = parse_sets(["idle_s=0.2", "gate_timeout_s=60"])
    spec = Spec(device="made", workload="exec", command=("true",), knobs=knobs)
    said: list[str] = []
    try:
        (record,) = road.run(plan.make(spec), open_store(bench.data), Seeing(said.append))
    finally:
        gated.set()
        stop.set()
        thread.join()
    gate = record.manifest["conditions"]["gate"]
    assert (gate["state"], gate["zone"]) == ("passed", "thermalservice.SKIN")
    assert gate["temp_c"] == pytest.approx(40, abs=0.2)
    assert gate["waited_s"] > 4
    # The progress tells the zone, its temperature, and the time.
    told = [one for one in steps if one.get("name") == "gate"]
    assert told[0]["said"].startswith("thermalservice.SKIN at 4")
    assert told[0]["limit_ms"] == 60_000
    assert not set(codes(record)) & {"warm_start", "not_gated"}


def test_trap_4_a_temperature_of_a_cache_alone_has_to_hold_for_three_times_as_long(
    bench: Bench, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(bench, '[gate]\nzones = ["thermal.dump*"]\n', DUMPSYS)
    made_dumpsys(bench, monkeypatch, battery=DUMP.format(290))
    monkeypatch.setattr(gating, "ASKED_S", 0.05)
    monkeypatch.setattr(gating, "CACHED_HOLD_S", 1.0)
    (record,), _ = ran(bench, "gate_timeout_s=60")
    gate = record.manifest["conditions"]["gate"]
    assert (gate["state"], gate["zone"], gate["hold_s"]) == ("passed", "dumpsys_battery", 1.0)
    assert gate["temp_c"] == pytest.approx(29)
    assert gate["waited_s"] >= 1


def test_a_program_that_prints_prose_is_a_sensor_that_tells_nothing(
    bench: Bench, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(bench, WINDOW + 'zones = ["thermal.*SKIN*"]\n', DUMPSYS)
    made_dumpsys(bench, monkeypatch, thermalservice="welcome to this phone\n", battery="welcome\n")
    (record,), _ = ran(bench, "gate_timeout_s=60")
    assert record.manifest["conditions"]["gate"]["state"] == "no_sensor"
    assert record.manifest["conditions"]["charge"]["soc_percent"] == 64


def test_the_conditions_are_in_the_json_of_a_run(bench: Bench, phone: Phone) -> None:
    profile(bench, WINDOW)
    done = bench.run("exec", "--device", "made", "--set", "idle_s=0.1", "--json", "--", "true")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    assert run["conditions"]["charge"] | {"waited_s": 0.0} == {
        "state": "inside", "waited_s": 0.0, "soc_percent": 64, "fed": "",
        "window_percent": [30, 80], "timeout_s": 3600,
    }  # fmt: skip
    shown = bench.run("devices", "show", "made").stdout
    assert "gate: 30 to 80 % of charge" in shown
