"""`dumpsys battery` and `cmd battery get` in the dialects of several vendors, of our own making."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unit.evidence_kit import SECOND, ran

from meltbench.errors import DefinitionError, UnknownName
from meltbench.readings import READERS, read
from meltbench.readings.capture import captured

HERE = Path(__file__).parent
DUMP = READERS["dumpsys_battery"].commands[0]
GET = READERS["cmd_battery"].commands[0]


def fixture(name):
    return (HERE / name).read_bytes()


def dumps(*texts, **options):
    series, status = read("phone", "dumpsys_battery", [ran(DUMP, texts)], options)
    return {one.name.removeprefix("dumpsys_battery."): one for one in series}, status


def first(found):
    return {name: round(float(one.value[0]), 6) for name, one in found.items() if np.isfinite(one.value[0])}


def gets(currents, texts, *, apart_ns=0, **options):
    streams = [ran(GET, currents), ran(DUMP, texts, t0_ns=apart_ns)]
    series, status = read("phone", "cmd_battery", streams, options)
    return {one.name.removeprefix("cmd_battery."): one for one in series}, status


def test_every_key_of_aosp_in_si_units():
    found, status = dumps(fixture("battery_tablet_android14.txt"))
    assert first(found) == {
        "updates_stopped": 0.0,
        "voltage_v": 3.874,
        "charge_c": 19116.0,
        "soc_percent": 71.0,
        "thermal.dumpsys_battery": 28.7,
        "status": 3.0,
        "plugged": 1.0,
    }
    assert {(one.unit, one.kind, one.scope) for name, one in found.items() if name == "charge_c"} == {
        ("C", "gauge", "battery")
    }
    assert found["thermal.dumpsys_battery"].unit == "degC"
    assert (status.status, status.detail) == ("ok", "")


def test_a_line_that_only_ends_in_a_key_is_not_that_key():
    """`Capacity level:` stands before and after `level:`, and Android 16 quotes keys in prose."""
    found = first(dumps(fixture("battery_prose_android16.txt"))[0])
    assert (found["soc_percent"], found["voltage_v"], found["thermal.dumpsys_battery"]) == (63.0, 4.211, 36.4)
    assert first(dumps(b"  Capacity level: 3\n  level: 40\n  level: 90\n")[0])["soc_percent"] == 40.0


def test_lines_that_end_as_on_windows_and_another_order_are_the_same_dump():
    text = fixture("battery_tablet_android14.txt")
    turned = b"\r\n".join(reversed(text.splitlines())) + b"\r\n"
    assert first(dumps(turned)[0]) == first(dumps(text)[0])


def test_trap_2_samsung_counts_current_in_milliamperes_and_its_second_counter_stands_in_for_a_zero():
    found, _ = dumps(fixture("battery_samsung_discharging.txt"))
    assert first(found)["current_a"] == -0.634
    assert first(found)["power"] == round(0.634 * 3.852, 6)
    assert first(found)["charge_c"] == 1_960_000 * 3.6e-3
    assert first(found)["soc_percent"] == 48.0
    assert (found["power"].klass, found["power"].unit, found["power"].window_s) == ("D", "W", None)


def test_trap_2_units_are_the_profiles():
    text = b"  Charge counter: 3290\n  level: 80\n  voltage: 4021000\n  temperature: 31500\n  current now: -250000\n"
    options = {"charge_unit": "mAh", "voltage_unit": "uV", "temp_unit": "mC", "current_unit": "uA"}
    assert first(dumps(text, **options)[0]) == {
        "updates_stopped": 0.0,
        "current_a": -0.25,
        "voltage_v": 4.021,
        "power": round(0.25 * 4.021, 6),
        "charge_c": 3290 * 3.6,
        "soc_percent": 80.0,
        "thermal.dumpsys_battery": 31.5,
    }


def test_trap_2_a_wrong_unit_gives_no_value_instead_of_a_thousandfold_one():
    """What is printed in mAh (Redmi, HyperOS) would be a battery of 6 mAh in uAh."""
    text = b"  Charge counter: 3290\n  level: 53\n  voltage: 4021000\n  temperature: 315\n"
    found, status = dumps(text)
    assert found["charge_c"].words == found["voltage_v"].words == ["unparsed"]
    assert "see charge_unit" in status.detail


def test_trap_1_the_sign_is_the_profiles_and_power_is_what_the_battery_gives():
    text = b"  level: 50\n  voltage: 4000\n  current now: 500\n"
    assert first(dumps(text)[0])["power"] == -2.0
    turned = first(dumps(text, discharge_sign=1)[0])
    assert (turned["power"], turned["current_a"]) == (2.0, -0.5)


def test_trap_4_a_cached_dump_shows_how_stale_it_is():
    """A minute of readings of one cached state and then another: all are kept, and two of them are fresh."""
    text = fixture("battery_tablet_android14.txt")
    later = text.replace(b"voltage: 3874", b"voltage: 3861")
    one = dumps(*[text] * 40, *[later] * 20)[0]["voltage_v"]
    assert len(one) == 60
    assert np.count_nonzero(np.diff(one.value)) == 1
    assert one.update_s == 600.0


def test_trap_5_values_of_stopped_updates_are_not_taken():
    found, status = dumps(fixture("battery_stopped.txt"), fixture("battery_tablet_android14.txt"))
    assert found["updates_stopped"].value.tolist() == [1.0, 0.0]
    for name in ("voltage_v", "charge_c", "soc_percent", "thermal.dumpsys_battery", "status", "plugged"):
        assert found[name].words == ["gated", "ok"], name
    assert "dumpsys battery reset" in status.detail


def test_trap_6_an_unplugged_state_that_was_set_by_hand_claims_no_discharge():
    """`dumpsys battery unplug` prints the supplies as off; the phone goes on charging."""
    found, _ = dumps(fixture("battery_stopped.txt"))
    assert np.isnan(found["plugged"].value[0])
    assert np.isnan(found["status"].value[0])
    currents, _ = gets([b"-500000\n"], [fixture("battery_stopped.txt")])
    assert currents["current_a"].words == currents["power"].words == ["gated"]


def test_trap_8_the_status_field_is_told_and_decides_nothing():
    """A phone that holds at 80 % says "charging" while its battery feeds it."""
    text = b"  AC powered: true\n  status: 2\n  level: 80\n  voltage: 4000\n  current now: -300\n"
    found = first(dumps(text)[0])
    assert (found["status"], found["plugged"], found["power"]) == (2.0, 1.0, 1.2)


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (b"  Charge counter: 0\n", "absent"),
        (b"  Charge counter: -4\n", "absent"),
        (b"  Charge counter: 10000\n", "unparsed"),
        (b"  Charge counter: 90000000\n", "unparsed"),
    ],
)
def test_trap_9_a_charge_counter_of_nothing_or_of_no_battery_is_none(lines, word):
    found, _ = dumps(b"  level: 55\n" + lines)
    assert found["charge_c"].words == [word]
    assert np.isnan(found["charge_c"].value[0])


def test_trap_9_a_counter_of_twice_and_a_half_the_capacity_is_none_and_said():
    found, status = dumps(fixture("battery_moto.txt"))
    assert found["charge_c"].words == ["unparsed"]
    assert found["soc_percent"].value.tolist() == [88.0]
    assert "beyond what the battery can hold" in status.detail
    right = fixture("battery_moto.txt").replace(b"13260000", b"4303200")
    assert dumps(right)[0]["charge_c"].value.tolist() == [4303200 * 3.6e-3]


def test_trap_44_what_an_emulator_does_not_have_is_not_zero():
    found, _ = dumps(fixture("battery_emulator.txt"))
    assert set(first(found)) == {"updates_stopped", "soc_percent", "status", "plugged"}
    assert found["voltage_v"].words == found["thermal.dumpsys_battery"].words == ["absent"]
    assert "current_a" not in found


def test_refusals_of_dumpsys_are_told_apart():
    denied = b"Permission Denial: can't dump BatteryService from from pid=7101, uid=2000\n"
    assert dumps(denied)[1].status == "denied"
    assert dumps(b"Can't find service: battery\n")[1].status == "absent"
    assert dumps(b"\n", b"Error: whatever\n")[1].status == "unparsed"
    assert dumps(110, 0x100 + 20)[1].status == "error"
    assert read("phone", "dumpsys_battery", [], {})[1].status == "absent"
    failed = ran(DUMP, [0x100 + 255])
    said = b"\nSecurity exception: java.lang.SecurityException: uid 2000 has not android.permission.DUMP\n"
    why = replace(failed, readings=replace(failed.readings, data=said, ends=np.array([len(said)])))
    assert read("phone", "dumpsys_battery", [why], {})[1].status == "denied"


def test_current_of_cmd_battery_with_the_dumps_voltage():
    """The OPLUS phones of Android 16: sysfs is closed, the number is in mA and below 0 when it discharges."""
    dump = b"  AC powered: false\n  status: 3\n  level: 90\n  voltage: 3870\n"
    found, status = gets([b"-119\n", b"-121\r\n"], [dump, dump], current_unit="mA")
    assert found["power"].value.tolist() == pytest.approx([0.119 * 3.87, 0.121 * 3.87])
    assert found["current_a"].value.tolist() == pytest.approx([-0.119, -0.121])
    assert first(found)["soc_percent"] == 90.0
    assert (found["power"].klass, found["power"].window_s) == ("D", 7.0)
    assert status.status == "ok"


def test_trap_20_current_and_voltage_too_far_apart_are_no_pair_and_near_ones_span_both_reads():
    dump = b"  level: 90\n  voltage: 3870\n"
    near, _ = gets([b"-119000\n"], [dump], apart_ns=SECOND)
    assert near["power"].words == ["ok"]
    assert near["power"].t1_ns[0] - near["power"].t0_ns[0] > SECOND
    assert near["current_a"].t1_ns[0] - near["current_a"].t0_ns[0] < SECOND
    far, _ = gets([b"-119000\n"], [dump], apart_ns=5 * SECOND)
    assert far["power"].words == ["again"]
    assert far["current_a"].words == ["ok"]


def test_what_a_build_prints_that_cannot_tell_is_not_a_current():
    dump = b"  level: 90\n  voltage: 3870\n"
    found, _ = gets([b"", b"-2147483648\n", b"Unknown get option: current_now\n", 0x100 + 255], [dump] * 4)
    assert found["current_a"].words == ["absent", "absent", "unparsed", "error"]
    assert found["power"].words == found["current_a"].words


def test_a_number_alone_is_a_capture_of_cmd_battery():
    series, _ = read("phone", "cmd_battery", captured(READERS["cmd_battery"], b"-356250\n"), {})
    assert {one.name: one.value[0] for one in series} == {"cmd_battery.current_a": -0.35625}


def test_what_a_calibration_found_is_applied_and_named():
    text = b"  level: 50\n  voltage: 4000\n  current now: -500\n"
    found, _ = dumps(text, scale=1.1, calibration="pixel-7-burn")
    assert first(found)["power"] == 2.2
    assert found["power"].calibration == found["current_a"].calibration == "pixel-7-burn"
    assert found["voltage_v"].calibration == ""
    assert dumps(text)[0]["power"].calibration == ""


@pytest.mark.parametrize(
    "option",
    [
        {"current_unit": "amps"},
        {"charge_unit": 1},
        {"voltage_unit": "kV"},
        {"temp_unit": "F"},
        {"discharge_sign": 0},
        {"discharge_sign": True},
        {"scale": 0},
        {"scale": "x"},
        {"calibration": 4},
    ],
)
def test_a_wrong_option_is_named_before_anything_is_read(option):
    name = next(iter(option))
    for reader in ("dumpsys_battery", "cmd_battery", "power_supply", "perfetto"):
        # A trace has no temperature of the battery, and so no unit of it.
        known = name in READERS[reader].options
        assert known or (reader, name) == ("perfetto", "temp_unit")
        with pytest.raises(DefinitionError if known else UnknownName, match=name):
            read("phone", reader, [], option)


@pytest.mark.parametrize("end", [b"\r\n", b"\r\r\n"])
def test_a_terminal_between_doubles_the_ends_of_lines_and_changes_nothing(end):
    text = fixture("battery_tablet_android14.txt")
    assert first(dumps(text.replace(b"\n", end))[0]) == first(dumps(text)[0])
