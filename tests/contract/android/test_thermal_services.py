"""Android's thermal service, Google's thermal HAL and its log: what is a temperature, of when, and what is not."""

from pathlib import Path

import numpy as np
import pytest
from unit.evidence_kit import ran

from meltbench.readings import READERS, read
from meltbench.readings.capture import captured
from meltbench.records import Readings, Stream

HERE = Path(__file__).parent


def got(reader, *texts):
    command = READERS[reader].commands[0]
    series, status = read("heat", reader, [ran(command, texts)], {})
    return {one.name: one for one in series}, status


def fixture(name):
    return (HERE / name).read_bytes()


def celsius(found):
    return {
        name.split(".", 2)[2]: one.value[0]
        for name, one in found.items()
        if one.unit == "degC" and np.isfinite(one.value[0])
    }


def test_trap_10_only_what_the_hal_says_now_is_a_temperature():
    found, status = got("thermalservice", fixture("thermal_samsung.txt"))
    assert celsius(found) == {
        "CPU.AP": 52.6,
        "BATTERY.BAT": 36.1,
        "SKIN": 40.9,
        "POWER_AMPLIFIER.PA": 38.0,
    }
    assert found["thermalservice.thermal_status"].value.tolist() == [2.0]
    assert status.status == "ok"


@pytest.mark.parametrize("heading", [b"Current temperatures from HAL:", b"Current temperatures:", b"Temperatures:"])
def test_trap_10_a_dump_without_that_block_gives_no_temperature(heading):
    text = fixture("thermal_samsung.txt").replace(b"Current temperatures from HAL:", heading)
    found, _ = got("thermalservice", text)
    assert bool(celsius(found)) == (heading == b"Current temperatures from HAL:")
    assert 71.4 not in celsius(found).values()


def test_a_sensor_that_is_not_fitted_reads_zero_and_is_none():
    found, _ = got("thermalservice", fixture("thermal_samsung.txt"))
    assert found["thermal.thermalservice.BATTERY.SUBBAT"].words == ["gated"]
    assert found["thermal.thermalservice.USB_PORT.USB"].words == ["gated"]


def test_types_are_named_and_what_is_no_temperature_is_left_out():
    found, _ = got("thermalservice", fixture("thermal_pixel.txt"))
    assert celsius(found) == {
        "CPU.BIG": 49.0,
        "CPU.LITTLE": 47.0,
        "GPU.G3D": 45.0,
        "TPU": 44.5,
        "NPU": 43.25,
        "BATTERY": 31.2,
        "SKIN.VIRTUAL-SKIN": 35.718,
        "USB_PORT.usbc_therm": 33.0,
    }
    assert found["thermal.thermalservice.MODEM"].words == ["unparsed"]
    assert not any(word in name for name in found for word in ("vbat", "ibat", "soc", "MODEL", "CHARGE", "USB-UI"))


def test_a_hal_that_is_not_ready_has_neither_temperatures_nor_a_state():
    found, status = got("thermalservice", fixture("thermal_not_ready.txt"))
    assert {name: one.words for name, one in found.items()} == {"thermalservice.thermal_status": ["gated"]}
    assert (status.status, "HAL Ready: false" in status.detail) == ("gated", True)


def test_a_state_set_by_hand_is_none():
    text = fixture("thermal_samsung.txt").replace(b"IsStatusOverride: false", b"IsStatusOverride: true")
    found, status = got("thermalservice", text)
    assert found["thermalservice.thermal_status"].words == ["error"]
    assert "overridden" in status.detail


def test_other_layouts_of_the_same_dump():
    """Windows line ends, members in another order, no indentation, spaces, a sensor twice, exponents."""
    text = (
        b"DUMP OF SERVICE thermalservice:\r\nThermal Status: 3\r\nHAL Ready: true\r\nCurrent temperatures from HAL:\r\n"
        b"Temperature{mName=cpu0, mStatus=0, mType=0, mValue=4.15E1}\r\n"
        b"Temperature{mName = cpu0, mStatus = 1, mType = 0, mValue = 43.5}\r\n"
        b"Temperature{mValue=300.0, mType=1, mName=gpu, mStatus=0}\r\n"
        b"Current cooling devices from HAL:\r\nTemperature{mValue=99.0, mType=0, mName=no, mStatus=0}\r\n"
    )
    found, _ = got("thermalservice", text)
    assert celsius(found) == {"CPU.cpu0": 41.5, "CPU.cpu0#2": 43.5}
    assert found["thermal.thermalservice.GPU"].words == ["unparsed"]
    assert found["thermalservice.thermal_status"].value.tolist() == [3.0]


def test_a_sensor_that_comes_and_goes_is_absent_between():
    text = fixture("thermal_samsung.txt")
    found, _ = got("thermalservice", text, text.replace(b"mName=PA", b"mName=PB"), 110)
    assert found["thermal.thermalservice.POWER_AMPLIFIER.PA"].words == ["ok", "absent", "error"]
    assert found["thermal.thermalservice.POWER_AMPLIFIER.PB"].words == ["absent", "ok", "error"]


def test_refusals_are_told_apart():
    denied = b"Permission Denial: can't dump thermalservice from from pid=1, uid=2000 due to missing permission\n"
    assert got("thermalservice", denied)[1].status == "denied"
    assert got("thermalservice", b"Can't find service: thermalservice\n")[1].status == "absent"
    assert got("thermal_hal", b"Can't find service: android.hardware.thermal.IThermal/default\n")[1].status == "absent"
    assert got("thermal_hal", b"ThermalHAL not initialized properly.\n")[1].status == "unparsed"


def test_the_hals_own_dump_without_the_sensors_of_another_meaning():
    found, status = got("thermal_hal", fixture("thermal_hal_pixel.txt"))
    assert celsius(found) == {"CPU.BIG": 54.0, "GPU.G3D": 51.0, "BATTERY": 32.4, "SKIN.VIRTUAL-SKIN": 38.6054}
    assert found["thermal.thermal_hal.POWER_AMPLIFIER.qi_therm"].words == ["unparsed"]
    assert found["thermal_hal.thermal_status"].value.tolist() == [1.0]  # the skin's, of what was kept the worst
    hot = fixture("thermal_hal_pixel.txt").replace(b"32.4 ThrottlingStatus: NONE", b"46 ThrottlingStatus: SEVERE")
    assert got("thermal_hal", hot)[0]["thermal_hal.thermal_status"].value.tolist() == [1.0]
    assert status.status == "ok"


def test_lines_of_the_hals_log_are_stamped_by_their_arrival():
    lines = fixture("pixel_thermal.log").splitlines(keepends=True)
    found, status = got("pixel_thermal", *lines)
    skin = found["thermal.pixel_thermal.SKIN.VIRTUAL-SKIN"]
    assert (skin.value.tolist(), skin.t0_ns.tolist()) == ([36.25, 37.5], [1_000_000_000, 5_000_000_000])
    assert found["pixel_thermal.SKIN.VIRTUAL-SKIN.thermal_status"].value.tolist() == [0.0, 1.0]
    assert found["thermal.pixel_thermal.BATTERY"].value.tolist() == [30.1]
    assert len(found) == 3  # a battery's severity steers its charging and slows nothing
    assert status.status == "ok"


def test_a_recorded_log_has_its_own_times_also_across_the_turn_of_a_year():
    streams = captured(READERS["pixel_thermal"], fixture("pixel_thermal.log"))
    series, _ = read("heat", "pixel_thermal", streams, {})
    skin = next(one for one in series if one.name == "thermal.pixel_thermal.SKIN.VIRTUAL-SKIN")
    assert np.diff(skin.t0_ns).tolist() == [4_500_000_000]


def test_a_log_without_a_line_of_the_hal_is_not_understood():
    assert got("pixel_thermal", b"--------- beginning of main\n")[1].status == "unparsed"
    empty = Stream(0, "c", "lines", "", "ok", 0, Readings.of(*[np.empty(0, np.int64)] * 2, np.empty(0, np.int32), []))
    assert read("heat", "pixel_thermal", [empty], {})[1].status == "absent"


def test_the_last_sensor_counts_in_a_text_that_ends_with_it_and_half_of_one_does_not():
    text = b"Thermal Status: 0\nHAL Ready: true\nCurrent temperatures from HAL:\n"
    whole = (
        text
        + b"\tTemperature{mValue=47.5, mType=0, mName=AP, mStatus=0}\n\tTemperature{mValue=39.25, mType=3, mName=SKIN"
    )
    assert celsius(got("thermalservice", whole + b", mStatus=0}")[0]) == {"CPU.AP": 47.5, "SKIN": 39.25}
    assert celsius(got("thermalservice", whole)[0]) == {"CPU.AP": 47.5}
