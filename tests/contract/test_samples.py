"""Every capture beside the checkout is read by its reader, and none is forgotten. The values of each family in full
stand in the tests of its readers; here is one of each file, in SI units."""

from __future__ import annotations

import pytest
from shared import shared

from meltbench.readings import READERS
from meltbench.readings.capture import captured

# File, reader, and a series with its last value.
SAMPLES = [
    ("android_dumpsys_powerstats_channels.txt", "powerstats", "powerstats.channels", 6),
    ("android_odpm_energy_value_pixel.txt", "odpm", "odpm.VSYS_PWR_WLAN_BT.energy", 192612.469095),
    ("android_thermalservice_xiaomi13tpro.txt", "thermalservice", "thermal.thermalservice.CPU", 57.9),
    ("dumpsys_battery_emulator_a16.txt", "dumpsys_battery", "dumpsys_battery.status", 4),
    ("dumpsys_battery_honor_alt_nx1.txt", "dumpsys_battery", "dumpsys_battery.charge_c", 2848000 * 3.6e-3),
    ("dumpsys_battery_motorola.txt", "dumpsys_battery", "dumpsys_battery.voltage_v", 4.471),
    ("dumpsys_battery_samsung_2023.txt", "dumpsys_battery", "thermal.dumpsys_battery", 30.9),
    ("dumpsys_battery_updates_stopped.txt", "dumpsys_battery", "dumpsys_battery.updates_stopped", 1),
    ("dumpsys_battery_xiaomi13tpro_a16.txt", "dumpsys_battery", "dumpsys_battery.soc_percent", 64),
    ("dumpsys_meminfo_app.txt", "dumpsys_meminfo", "app_memory.pss_bytes", (39321 - 545) * 1024),
    ("fnb58_fnirsi_logger.txt", "fnb58", "meter.current_a", 0.0),
    ("jetson_orin_nano_ina3221_sysfs.txt", "ina3221", "ina3221.VDD_IN.power", 5.016 * 1.496),
    ("jetson_orin_nano_ina3221_sysfs.txt", "thermal", "thermal.GPU-therm", 41.218),
    ("jtop_stats_xavier.txt", "jtop", "jtop.cur.power", 4.859),
    ("kasa_ep25_v1.json", "kasa", "meter.energy", 50 * 3600),
    ("kasa_hs110_v1.json", "kasa", "meter.power", 0.928511),
    ("macmon_line.json", "macmon", "macmon.sys.power", 10.4955415725708),
    ("melt_llamacpp.log", "ggml_profile", "ggml.MUL_MAT_s", 0.204334),
    ("melt_mlc.log", "tvm_profile", "tvm.decode.metal0_s", None),
    ("mlperf_ptd_spl.txt", "ptdaemon", "meter.power", 22.99),
    ("perfetto_battery_counters.txt", "perfetto", "perfetto.battery.current_a", -1.434062),
    ("pixel_thermal_logcat.txt", "pixel_thermal", "thermal.pixel_thermal.SKIN.VIRTUAL-SKIN", 28.9687),
    ("power_supply_battery_pixel3a.txt", "power_supply", "battery.current_a", 976e-6),
    ("power_supply_battery_uevent_pixel8.txt", "power_supply", "battery.power", 0.268750 * 4.290625),
    ("powermetrics_gpu_m2pro.txt", "powermetrics", "powermetrics.gpu.power", 0.004),
    ("rpi5_pmic_read_adc.txt", "pmic", "pmic.sum.power", 10.8),
    ("rpi_get_throttled.txt", "throttled", "throttled.under_voltage_since_boot", 1),
    ("shelly_gen2_switch_status.json", "shelly", "meter.energy", 5.125 * 3600),
    ("smaps_rollup.txt", "smaps", "process.held_bytes", (391088 + 836004) * 1024),
    ("tasmota_status8.json", "tasmota", "meter.energy", 49.766 * 3.6e6),
    ("tegrastats_nano_jp461.txt", "tegrastats", "tegrastats.POM_5V_IN.power", 1.75),
    ("tegrastats_orin_nano.txt", "tegrastats", "tegrastats.VDD_IN.power", 4.824),
    ("tegrastats_tx2_jp4.txt", "tegrastats", "tegrastats.VDD_IN.power", 5.297),
    ("tegrastats_xavier_nx_jp411.txt", "tegrastats", "tegrastats.ram_used_bytes", 5246 * 2**20),
]


@pytest.mark.parametrize(("name", "reader", "series", "value"), SAMPLES, ids=[f"{s[0]}-{s[1]}" for s in SAMPLES])
def test_a_capture_is_read_in_si_units(name, reader, series, value):
    raw = shared(f"samples/{name}").read_bytes()
    found, seen = READERS[reader].parse(reader, captured(READERS[reader], raw), {})
    one = next(s for s in found if s.name == series)
    assert seen.told().status == "ok"
    assert one.words[-1] == "ok"
    assert value is None or one.value[-1] == pytest.approx(value, rel=1e-3)


def test_no_capture_is_forgotten():
    there = {path.name for path in shared("samples").iterdir()} - {"SOURCES.md"}
    assert there == {name for name, *_ in SAMPLES}
