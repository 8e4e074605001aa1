"""Captures of real phones beside the checkout: every file of Android says what its device said, in SI units."""

import numpy as np
import pytest
from shared import shared

from meltbench.readings import READERS, read
from meltbench.readings.capture import captured

KIB = 1024


def got(name, reader, **options):
    series, status = read("capture", reader, captured(READERS[reader], shared(f"samples/{name}").read_bytes()), options)
    return {one.name: one for one in series}, status


def values(found):
    return {name: float(one.value[0]) for name, one in found.items() if np.isfinite(one.value[0])}


BATTERIES = {
    "xiaomi13tpro_a16": {
        "voltage_v": 4.32,
        "charge_c": 15789.6,
        "soc_percent": 64,
        "status": 3,
        "plugged": 0,
        "heat": 32.8,
    },
    "samsung_2023": {
        "voltage_v": 4.312,
        "charge_c": 10681.2,
        "soc_percent": 100,
        "status": 5,
        "plugged": 1,
        "heat": 30.9,
        "current_a": 0,
        "power": 0,
    },
    "honor_alt_nx1": {
        "voltage_v": 3.906,
        "charge_c": 10252.8,
        "soc_percent": 54,
        "status": 3,
        "plugged": 0,
        "heat": 22.0,
    },
    "motorola": {
        "voltage_v": 4.471,
        "charge_c": 18446.4108,
        "full_c": 18511.2,
        "full_design_c": 18511.2,
        "soc_percent": 100,
        "status": 5,
        "plugged": 1,
        "heat": 25.1,
    },
    "emulator_a16": {"soc_percent": 100, "status": 4, "plugged": 0},
    "updates_stopped": {},
}


@pytest.mark.parametrize("phone", sorted(BATTERIES))
def test_trap_5_dumps_of_batteries(phone):
    found, status = got(f"dumpsys_battery_{phone}.txt", "dumpsys_battery")
    expected = {f"dumpsys_battery.{name}": value for name, value in BATTERIES[phone].items() if name != "heat"}
    if "heat" in BATTERIES[phone]:
        expected["thermal.dumpsys_battery"] = BATTERIES[phone]["heat"]
    stopped = phone == "updates_stopped"
    expected["dumpsys_battery.updates_stopped"] = float(stopped)
    assert values(found) == pytest.approx(expected)
    assert ("updates are stopped" in status.detail) == stopped


def test_trap_3_the_pixel_3a_that_is_fed_past_its_battery():
    found, _ = got("power_supply_battery_pixel3a.txt", "power_supply")
    assert values(found) == pytest.approx(
        {
            "battery.current_a": 976e-6,
            "battery.voltage_v": 3.815175,
            "battery.power": -0.0037236,
            "battery.soc_percent": 44,
            "thermal.battery": 31.3,
            "battery.status": 4,
        },
        rel=1e-4,
    )


def test_trap_9_the_pixel_8_whose_counter_holds_more_than_its_battery():
    found, status = got("power_supply_battery_uevent_pixel8.txt", "power_supply")
    assert found["battery.charge_c"].words == ["unparsed"]
    assert "beyond" in status.detail
    assert values(found)["battery.power"] == pytest.approx(0.26875 * 4.290625)
    assert values(found)["thermal.battery"] == pytest.approx(36.8)


def test_trap_10_the_xiaomi_that_is_84_degrees_in_its_cache_and_58_live():
    found, _ = got("android_thermalservice_xiaomi13tpro.txt", "thermalservice")
    assert values(found) == {
        "thermalservice.thermal_status": 0,
        "thermal.thermalservice.CPU": 57.9,
        "thermal.thermalservice.SKIN": 34.351,
    }


def test_the_pixels_log_without_what_is_no_temperature():
    found, _ = got("pixel_thermal_logcat.txt", "pixel_thermal")
    heat = {name.removeprefix("thermal.pixel_thermal."): v for name, v in values(found).items() if "status" not in name}
    assert heat == {"POWER_AMPLIFIER.cellular-emergency": 28.9687, "SKIN.VIRTUAL-SKIN": 28.9687, "BATTERY": 28.0}


def test_trap_12_both_pmics_of_a_pixel():
    found, _ = got("android_odpm_energy_value_pixel.txt", "odpm")
    assert len(found) == 16
    assert values(found)["odpm.VSYS_PWR_WLAN_BT.energy"] == pytest.approx(192612.469095)
    assert values(found)["odpm.S1M_VDD_MIF.energy"] == pytest.approx(196.512891)
    assert values(found)["odpm.VSYS_PWR_RFFE.energy"] == 0.0
    assert {(one.klass, one.kind, one.unit) for one in found.values()} == {("B", "counter", "J")}


def test_perfettos_table_of_a_phone_that_discharges():
    found, _ = got("perfetto_battery_counters.txt", "perfetto")
    current = found["perfetto.battery.current_a"]
    assert current.value.tolist() == pytest.approx([-1.469687, -1.434062])
    assert np.diff(current.t0_ns).tolist() == [105_407_146]
    assert found["perfetto.battery.charge_c"].value.tolist() == [7506.0, 7506.0]
    assert found["perfetto.battery.soc_percent"].value.tolist() == [75.0, 75.0]
    assert "perfetto.battery.power" not in found  # no voltage was traced


def test_channels_of_powerstats():
    found, status = got("android_dumpsys_powerstats_channels.txt", "powerstats")
    assert values(found) == {"powerstats.channels": 6}
    assert "S3M_VDD_CPUCL1 (CPU(MID))" in status.detail


def test_memory_of_an_app_whose_total_holds_what_was_swapped_out():
    found, _ = got("dumpsys_meminfo_app.txt", "dumpsys_meminfo")
    assert {name.removeprefix("app_memory."): value / KIB for name, value in values(found).items()} == {
        "pss_total_bytes": 39321,
        "pss_bytes": 38776,
        "swap_pss_bytes": 545,
        "rss_bytes": 124676,
        "graphics_bytes": 0,
    }


def test_trap_40_a_plain_smaps_rollup():
    found, _ = got("smaps_rollup.txt", "smaps")
    assert {name.removeprefix("process."): value / KIB for name, value in values(found).items()} == {
        "pss_bytes": 380165,
        "swap_pss_bytes": 396,
        "pss_file_bytes": 1350,
        "pss_total_bytes": 380165 + 396,
        "held_bytes": 391088 + 836004,
    }
