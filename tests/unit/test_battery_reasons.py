"""What the supply of power speaks against a run, at the level of the verdict (measurement traps 5 to 9)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import digests, phase, series

from meltbench.measure.battery import battery_reasons, on_battery, under_voltage_reasons
from meltbench.measure.total import Designation, designated
from meltbench.records import SourceStatus

T = np.arange(0, 40, 0.5)
RUN = phase("run", 10, 30)
UNITS = {
    "power": "W", "current_a": "A", "voltage_v": "V", "charge_c": "C", "soc_percent": "%",
    "status": "1", "plugged": "1", "updates_stopped": "1",
}  # fmt: skip


def told(prefix="battery", at=T, **values):
    """What a battery tells over the run: one value, or one a reading."""
    return [
        series(f"{prefix}.{what}", at, np.broadcast_to(np.asarray(value, dtype=float), len(at)),
               kind="gauge", unit=UNITS[what], scope="battery", source=prefix)
        for what, value in values.items()
    ]  # fmt: skip


def against(*signals, energy=True):
    found = battery_reasons(digests([one for part in signals for one in part], RUN), RUN, energy)
    return {one.code: one.detail for one in found}


def test_a_battery_that_is_discharged_has_nothing_against_it():
    assert (
        against(told(power=2.0, current_a=-0.5, status=3, plugged=0, soc_percent=80 - T / 40, charge_c=9000 - T)) == {}
    )
    assert battery_reasons(digests(told(status=2), RUN), None, True) == []
    assert against([]) == {}


def test_trap_5_what_was_frozen_is_stale_and_tells_no_state():
    frozen = told("dumpsys_battery", updates_stopped=1, status=2, soc_percent=77, current_a=0.9)
    found = against(frozen, told(current_a=-0.4, status=3))
    assert set(found) == {"stale_sensor"}
    assert found["stale_sensor"].startswith("dumpsys_battery: updates stopped")
    assert against(told("dumpsys_battery", updates_stopped=0, status=3)) == {}
    # Stopped for a while only, within the run.
    assert set(against(told("dumpsys_battery", updates_stopped=(T > 12) & (T < 13)))) == {"stale_sensor"}


def test_trap_6_an_unplug_that_unplugs_nothing_is_charging():
    unplugged = told("dumpsys_battery", updates_stopped=1, plugged=0, status=3)
    found = against(unplugged, told(plugged=1, current_a=0.002))
    assert set(found) == {"stale_sensor", "charging"}
    assert found["charging"] == "battery: plugged in, and its gauge does not see what comes in"
    # That it was plugged in when its updates were stopped it would not have been told to say.
    assert "charging" in against(told("dumpsys_battery", updates_stopped=1, plugged=1))
    assert set(against(unplugged)) == {"stale_sensor"}


def test_trap_7_a_gauge_near_zero_on_usb_is_no_measurement():
    flips = np.where(np.arange(len(T)) % 2, 0.005, -0.005)  # what a full phone on USB reads
    found = against(told(current_a=flips, power=-flips * 4, status=5, plugged=1, soc_percent=100))
    assert set(found) == {"charging"}
    assert "does not see what comes in" in found["charging"]


def test_trap_8_the_status_alone_proves_nothing_against_the_current():
    held = told(status=2, plugged=0, current_a=-0.45, soc_percent=80 - T / 20)
    found = against(held)
    assert set(found) == {"charge_state_contradictory"}
    assert found["charge_state_contradictory"] == "battery: status charging, 450 mA out of the battery"
    # Held at 80 % on the charger: the phone runs from it, whatever the status calls that.
    assert set(against(told(status=2, plugged=1, current_a=0.001, soc_percent=80))) == {"charging"}
    assert set(against(told(status=4, plugged=1, current_a=0.001))) == {"charging"}
    # Taken off the charger a moment ago: still "full", and discharged.
    assert against(told(status=5, plugged=0, current_a=-0.3)) == {}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"status": 2, "soc_percent": np.where(T < 20, 61, 60)}, "status charging, the level fell by"),
        ({"status": 2, "charge_c": 9000 - 1.5 * T}, "status charging, the charge fell by 30 C"),
        ({"plugged": 1, "current_a": -0.7}, "plugged in, 700 mA out of the battery"),
        ({"status": 3, "current_a": 0.9}, "status discharging, 900 mA into the battery"),
        ({"status": 3, "soc_percent": np.where(T < 20, 60, 61)}, "status discharging, the level rose by"),
        ({"status": 3, "charge_c": 9000 + 1.5 * T}, "status discharging, the charge rose by 30 C"),
    ],
)
def test_what_cannot_all_be_true_is_told(values, said):
    assert said in against(told(**values))["charge_state_contradictory"]


def test_two_that_tell_of_one_battery_contradict_each_other():
    found = against(told(status=3), told("dumpsys_battery", status=2))
    assert found["charge_state_contradictory"] == "dumpsys_battery says charging, battery says discharging"


def test_trap_9_a_counter_of_zero_and_a_single_step_show_no_direction():
    assert against(told(status=2, plugged=0, charge_c=0, current_a=-0.001)) == {"charging": "battery: status charging"}
    step = np.where(T < 20, 9007.2, 9000.0)  # 2 mAh: one step of the counter
    assert "charge_state_contradictory" not in against(told(status=2, charge_c=step * 0 + 9003.6 + (step - 9003.6) / 2))
    assert "charge_state_contradictory" not in against(told(status=3, charge_c=np.full(len(T), np.nan)))
    # A level that flips to and fro has come nowhere.
    assert against(told(status=3, soc_percent=np.where((T > 19) & (T < 21), 79, 80))) == {}


@pytest.mark.parametrize(("values", "said"), [({"current_a": 1.2}, "1200 mA into"), ({"power": -4.5}, "4.5 W into")])
def test_power_into_the_battery_is_charging(values, said):
    assert said in against(told(**values))["charging"]


def test_where_the_energy_is_another_sources_a_charger_does_not_matter():
    found = against(told(status=2, plugged=1, current_a=2.0, soc_percent=90), energy=False)
    assert found == {}
    assert set(against(told(soc_percent=12), energy=False)) == {"low_battery"}


def test_what_was_told_last_before_the_run_is_in_force_in_it():
    slow = np.array([2.0, 35.0])  # asked once a minute
    assert set(against(told(at=slow, plugged=[1, 0]))) == {"charging"}
    assert against(told(at=slow, plugged=[0, 1])) == {}
    assert against(told(at=slow, soc_percent=[19.0, 60.0])) == {"low_battery": "battery: 19 %"}


def test_low_is_below_twenty_percent_in_the_run():
    assert against(told(soc_percent=np.where(T < 31, 20, 19))) == {}
    assert against(told(soc_percent=np.where(T < 29, 20, 19))) == {"low_battery": "battery: 19 %"}


def flag(name, value, at=T):
    return series(name, at, np.broadcast_to(np.asarray(value, dtype=float), len(at)), kind="state", unit="1")


def volts(*signals):
    return [(one.code, one.detail) for one in under_voltage_reasons(digests(signals, RUN), RUN)]


def test_trap_24_under_voltage_now_or_newly_since_boot():
    assert volts(flag("throttled.under_voltage", (T > 20) & (T < 21))) == [("under_voltage", "throttled: in the run")]
    assert volts(flag("throttled.under_voltage", T < 5)) == []
    sticky = "throttled.under_voltage_since_boot"
    assert volts(flag(sticky, T > 20)) == [("under_voltage", "throttled: since the run began")]
    assert volts(flag(sticky, T > 33)) == [("under_voltage", "throttled: since the run began")]
    assert volts(flag(sticky, 1)) == []  # set before the run: its end says nothing of it
    assert volts(flag(sticky, T > 4)) == []
    assert volts(flag(sticky, np.nan)) == []
    assert under_voltage_reasons(digests([flag(sticky, T > 20)]), None) == []


def test_the_battery_is_the_source_where_the_total_is_its_gauge():
    gauge = digests(told(power=2.0), RUN)
    named = [Designation("battery")]
    seen = [SourceStatus("battery", "ok", 1, 80)]
    assert on_battery(designated(named, seen, gauge), named, gauge)
    rapl = digests([series("rapl.package-0", T, 7 * T + 1, source="rapl")], RUN)
    both = [Designation("rapl"), *named]
    total = designated(both, [*seen, SourceStatus("rapl", "ok", 1, 80)], [*rapl, *gauge])
    assert not on_battery(total, both, [*rapl, *gauge])
    # What the gauge told was no power, and what it tells of the charge counts all the same.
    dark = digests(told(status=2), RUN)
    assert on_battery(designated(named, seen, dark), named, dark)
    assert not on_battery(designated([], [], gauge), [], gauge)


AROUND = [phase("idle_before", 0, 9), phase("idle_after", 31, 39)]
FLIP = np.where(np.arange(len(T)) % 2, 0.005, -0.005)


def fed(*signals, calibration="made"):
    """What is said against a run with its idle windows, of a gauge that was calibrated, or was not."""
    made = [replace(one, klass="D", calibration=calibration) for part in signals for one in part]
    found = battery_reasons(digests(made, RUN), RUN, True, AROUND)
    return {one.code: one.detail for one in found}


def loaded(idle, load, t0=10, t1=30):
    return np.where((t0 <= T) & (t1 > T), load, idle) * (1 + 0.01 * np.sin(T))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        # Held at a limit, full, or fed past a status that says discharging: the gauge sees next to nothing.
        ({"current_a": FLIP, "status": 4}, "battery: next to no current for 39 of 39 s"),
        ({"current_a": FLIP, "status": 3}, "battery: next to no current for 39 of 39 s"),
        ({"current_a": np.where(T < 20, -0.9, FLIP), "status": 3}, "battery: next to no current for 19 of 39 s"),
        # A port that gives less than the load takes: idle it charges, or the battery gives nothing.
        ({"current_a": loaded(0.38, -0.42), "status": 3}, "battery: up to 384 mA into the battery for 19 of 39 s"),
        ({"current_a": loaded(0.002, -0.42), "status": 3}, "battery: next to no current for 19 of 39 s"),
        # Plugged in for six seconds in the middle of the run, or at the end of it.
        (
            {"current_a": np.where((T > 20) & (T < 26), 0.7, -0.9)},
            "battery: up to 700 mA into the battery for 5 of 39 s",
        ),
        ({"current_a": np.where(T > 33, 0.7, -0.9)}, "battery: up to 700 mA into the battery for 5 of 39 s"),
    ],
)
def test_trap_7_and_8_what_feeds_a_phone_shows_in_its_current_whatever_its_status_says(values, said):
    assert fed(told(**values))["charging"] == said


def test_an_awake_phone_that_lives_on_its_battery_has_nothing_against_it():
    for idle, load in ((-0.03, -0.9), (-0.12, -1.6), (-0.05, -0.06)):
        assert fed(told(current_a=loaded(idle, load), status=3, soc_percent=80 - T / 40, charge_c=9000 - T)) == {}
    # It passes through zero for a moment when its charger is taken away, before the record.
    assert fed(told(current_a=np.where(T < 1, 0.8, -0.3))) == {}


def test_trap_1_a_current_of_unknown_sign_shows_no_direction_but_that_it_turned():
    """A vendor that counts the other way reads +450 mA all the time; nobody calibrated it."""
    upside_down = loaded(0.1, 0.45)
    assert fed(told(current_a=upside_down, power=4 * -upside_down, status=3), calibration="") == {}
    assert "charging" in fed(told(current_a=upside_down))  # of a calibrated one it is a charge
    turned = np.where((T > 20) & (T < 27), -0.3, upside_down)
    for unit in (1, 1000, 1e-3):
        assert fed(told(current_a=unit * turned, status=3), calibration="")["charging"].startswith(
            "battery: the current turned: "
        )
    assert fed(told(current_a=np.where(T < 12, -0.001, upside_down)), calibration="") == {}


def test_the_counters_tell_of_a_charger_where_no_current_is_known():
    fallen_and_risen = 9000 - np.minimum(T, 24) + 3 * np.maximum(T - 24, 0)
    assert fed(told(charge_c=fallen_and_risen, status=3))["charging"] == "battery: the charge rose by 42 C"
    assert fed(told(soc_percent=np.where(T < 20, 60, 62)))["charging"] == "battery: the level rose by 2 %"
    # A known current that is drawn all the time says more than a counter that was mended.
    assert "charging" not in fed(told(charge_c=fallen_and_risen, current_a=loaded(-0.1, -0.9)))
    # One step up, as gauges mend it once a load is gone, is no charger.
    assert fed(told(charge_c=9000 - T + 10 * (T > 31), status=3)) == {}
    assert fed(told(charge_c=0 * T)) == {}


def test_trap_4_a_current_of_a_cache_is_of_another_time():
    old = [replace(one, update_s=600.0) for one in told("dumpsys_battery", current_a=np.where(T > 33, 0.7, -0.9))]
    assert fed(old) == {}
