"""Thermal zones, clocks and RAPL as their folders look below /sys."""

import errno

import numpy as np
import pytest
from evidence_kit import ints, stream

from meltbench.readings import READERS, read
from meltbench.readings.capture import captured

THERMAL = "/tmp/tree/sys/class/thermal/thermal_zone{}/{}"
POLICY = "/sys/devices/system/cpu/cpufreq/policy{}/{}"
RAPL = "/sys/class/powercap/intel-rapl:{}/{}"


def zone(number, kind, temps):
    return [
        stream(THERMAL.format(number, "temp"), temps),
        stream(THERMAL.format(number, "type"), [kind, kind]),
    ]


def domain(number, name, counts, wrap=262143328850, status="ok"):
    return [
        stream(RAPL.format(number, "energy_uj"), ints(counts), status=status),
        stream(RAPL.format(number, "name"), [name + b"\n"]),
        stream(RAPL.format(number, "max_energy_range_uj"), ints([wrap])),
    ]


def test_trap_11_zones_are_named_by_type_and_not_by_number():
    a = zone(2, b"cpu-thermal\n", ints([41000])) + zone(10, b"gpu-thermal\n", ints([52000]))
    b = zone(7, b"gpu-thermal\n", ints([52000])) + zone(1, b"cpu-thermal\n", ints([41000]))
    for streams in (a, b):
        series, _ = read("thermal", "thermal", streams, {})
        assert {one.name: one.value[0] for one in series} == {"thermal.cpu-thermal": 41.0, "thermal.gpu-thermal": 52.0}


def test_trap_11_a_sensor_that_is_off_gives_no_temperature():
    raw = [b"48500\n", b"-256000\n", b"0\n", errno.EAGAIN, b"999000\n", b"-41000\n", b"", b"-20000\n"]
    series, status = read("thermal", "thermal", zone(0, b"soc\n", raw), {})
    one = series[0]
    assert one.words == ["ok", "gated", "gated", "again", "unparsed", "unparsed", "unparsed", "ok"]
    assert np.isnan(one.value[1:7]).all()
    assert one.value[7] == -20.0
    assert status.status == "ok"
    assert status.detail == "2 gated, 1 again, 3 unparsed"


def test_a_zone_that_knows_alarms_only_tells_no_temperature_while_there_is_none() -> None:
    quiet = zone(5, b"PMIC-Die\n", ints([100000, 100000, 120000])) + zone(1, b"CPU-therm\n", ints([100000, 99000]))
    series = {one.name: one for one in read("thermal", "thermal", quiet, {})[0]}
    assert series["thermal.PMIC-Die"].words == ["gated", "gated", "ok"]
    assert series["thermal.CPU-therm"].value.tolist() == [100.0, 99.0]


def test_trap_11_eagain_on_every_read_is_recorded_and_is_not_absence():
    series, status = read("thermal", "thermal", zone(0, b"gpu-thermal\n", [errno.EAGAIN] * 300), {})
    assert status.status == "again"
    assert series[0].words == ["again"] * 300


def test_zones_of_one_type_are_counted_in_order_of_their_numbers():
    streams = zone(10, b"x86_pkg_temp\n", ints([60000])) + zone(9, b"x86_pkg_temp\n", ints([50000]))
    series, _ = read("thermal", "thermal", streams + zone(11, b"\xff\n", ints([1000])), {})
    got = {one.name: one.value[0] for one in series}
    assert got == {"thermal.x86_pkg_temp": 50.0, "thermal.x86_pkg_temp#2": 60.0, "thermal.untyped": 1.0}


def test_trap_2_the_unit_comes_from_the_profile_and_is_not_guessed():
    tenths = zone(0, b"battery\n", ints([294]))
    assert read("thermal", "thermal", tenths, {"celsius_per_count": 0.1})[0][0].value[0] == pytest.approx(29.4)
    assert read("thermal", "thermal", tenths, {})[0][0].value[0] == pytest.approx(0.294)


def test_clocks_in_hertz_and_the_governor_in_the_detail():
    streams = [
        stream(POLICY.format(4, "scaling_cur_freq"), ints([1800000, 2400000])),
        stream(POLICY.format(4, "scaling_max_freq"), ints([2400000, 2000000])),
        stream(POLICY.format(4, "cpuinfo_max_freq"), ints([2400000])),
        stream(POLICY.format(4, "scaling_governor"), [b"schedutil\n", b"performance\n"]),
        stream(POLICY.format(4, "related_cpus"), [b"4 5 6 7\n"]),
        stream(POLICY.format(0, "scaling_governor"), [errno.EACCES]),
    ]
    series, status = read("cpufreq", "cpufreq", streams, {})
    got = {one.name: one.value.tolist() for one in series}
    assert got == {
        "cpufreq.policy4.cur_hz": [1.8e9, 2.4e9],
        "cpufreq.policy4.max_hz": [2.4e9, 2.0e9],
        "cpufreq.policy4.hw_max_hz": [2.4e9],
    }
    assert "policy4: schedutil > performance, cpus 4 5 6 7" in status.detail
    assert "policy0: governor unknown" in status.detail


def test_trap_25_two_sockets_with_dies_nest_by_number_and_carry_their_wrap():
    streams = (
        domain("0", b"package-0-die-0", [5_000_000])
        + domain("1", b"package-1", [7_000_000], wrap=65532610987)
        + domain("0:0", b"core", [1_000_000])
        + domain("0:1", b"dram", [500_000])
        + domain("1:0", b"core", [2_000_000])
        + domain("2", b"psys", [9_000_000])
    )
    series, status = read("rapl", "rapl", streams, {})
    got = {one.name: (one.value[0], one.scope) for one in series}
    assert got == {
        "rapl.package-0-die-0": (5.0, "soc"),
        "rapl.package-1": (7.0, "soc"),
        "rapl.package-0-die-0.core": (1.0, "rail"),
        "rapl.package-0-die-0.dram": (0.5, "rail"),
        "rapl.package-1.core": (2.0, "rail"),
        "rapl.psys": (9.0, "module"),
    }
    assert {one.name: round(one.wrap) for one in series}["rapl.package-1"] == 65533
    assert {one.klass for one in series} == {"B"}
    assert status.status == "ok"


def test_trap_25_the_mmio_duplicate_is_left_out():
    mmio = stream("/sys/class/powercap/intel-rapl-mmio:0/energy_uj", ints([5_000_000]))
    series, status = read("rapl", "rapl", [mmio, *domain("0", b"package-0", [1])], {})
    assert [one.name for one in series] == ["rapl.package-0"]
    assert read("rapl", "rapl", [mmio], {})[1].status == "absent"
    assert status.paths == 1


def test_trap_26_denied_says_so_and_the_domain_is_not_forgotten():
    series, status = read("rapl", "rapl", domain("0", b"package-0", [], status="denied"), {})
    assert status.status == "denied"
    assert [(one.name, len(one.value)) for one in series] == [("rapl.package-0", 0)]
    read_errors = stream(RAPL.format("0", "energy_uj"), [errno.EACCES, errno.EACCES])
    assert read("rapl", "rapl", [read_errors], {})[1].status == "denied"


def test_trap_25_a_read_error_is_a_gap_and_not_zero():
    streams = domain("0", b"package-0", [])[1:]
    streams.append(stream(RAPL.format("0", "energy_uj"), [b"1000000\n", errno.EIO, b"3000000\n"]))
    series, _ = read("rapl", "rapl", streams, {})
    assert np.array_equal(series[0].value, [1.0, np.nan, 3.0], equal_nan=True)
    assert series[0].words == ["ok", "error", "ok"]


def test_a_domain_without_a_readable_name_keeps_its_number():
    nameless = stream(RAPL.format("3", "energy_uj"), ints([1]))
    nested = stream(RAPL.format("3:0", "energy_uj"), ints([1]))
    series, _ = read("rapl", "rapl", [nested, nameless], {})
    assert [one.name for one in series] == ["rapl.zone-3", "rapl.zone-3.zone-3-0"]
    assert series[0].wrap is None


def test_trap_26_a_denied_domain_beside_readable_ones_is_a_series_without_a_sample():
    streams = domain("0", b"package-0", [1_000_000, 2_000_000]) + domain("1", b"package-1", [], status="denied")
    series, status = read("rapl", "rapl", streams, {})
    assert {one.name: len(one.value) for one in series} == {"rapl.package-0": 2, "rapl.package-1": 0}
    assert (status.status, status.detail) == ("ok", "1 denied")


def test_a_powercap_that_may_not_be_looked_into_is_denied_and_a_glob_without_a_match_says_what_it_looked_for():
    closed = stream(RAPL.format("*", "energy_uj"), [], status="denied")
    assert read("rapl", "rapl", [closed], {})[1].status == "denied"
    missing = stream(RAPL.format("*", "energy_uj"), [], status="absent")
    assert read("rapl", "rapl", [missing], {})[1].detail == "no /sys/class/powercap/intel-rapl:* on this machine"
    zoneless = stream(THERMAL.format("*", "temp"), [], status="absent")
    assert read("t", "thermal", [zoneless], {})[1].detail.startswith("no /sys/class/thermal/thermal_zone*/temp")


def test_trap_25_amds_tree_has_packages_and_cores_and_no_dram():
    streams = domain("0", b"package-0", [4_000_000], wrap=65532610987) + domain("0:0", b"core", [1_000_000])
    series, _ = read("rapl", "rapl", streams, {})
    assert {one.name: one.scope for one in series} == {"rapl.package-0": "soc", "rapl.package-0.core": "rail"}


def test_trap_25_zones_of_one_name_are_kept_apart():
    streams = domain("0", b"package-0", [1_000_000]) + domain("1", b"package-0", [2_000_000])
    streams += domain("0:0", b"dram", [3_000_000]) + domain("1:0", b"dram", [4_000_000])
    series, _ = read("rapl", "rapl", streams, {})
    assert {one.name: one.value[0] for one in series} == {
        "rapl.package-0": 1.0,
        "rapl.package-0#2": 2.0,
        "rapl.package-0.dram": 3.0,
        "rapl.package-0.dram#2": 4.0,
    }
    assert {one.scope for one in series if "dram" not in one.name} == {"soc"}


@pytest.mark.parametrize("text", [b"0\n", b"-1\n", b"", b"many\n", errno.EACCES])
def test_trap_25_a_range_that_says_nothing_is_no_range(text):
    streams = domain("0", b"package-0", [1_000_000])[:2]
    streams.append(stream(RAPL.format("0", "max_energy_range_uj"), [text]))
    (one,), _ = read("rapl", "rapl", streams, {})
    assert (one.value[0], one.wrap) == (1.0, None)


@pytest.mark.parametrize("text", [b"", b"\n", b"many\n", b"1e6\n", b"0x10\n", b"12 13\n"])
def test_trap_44_an_energy_that_is_no_number_is_none(text):
    streams = domain("0", b"package-0", [])[1:]
    streams.append(stream(RAPL.format("0", "energy_uj"), [text, text]))
    (one,), status = read("rapl", "rapl", streams, {})
    assert np.isnan(one.value).all()
    assert (status.status, status.detail) == ("unparsed", "2 unparsed")


def test_a_recorded_tree_stands_in_for_sys_and_proc():
    counter = stream("/tmp/tree/class/powercap/intel-rapl:0/energy_uj", ints([1_000_000]))
    assert read("rapl", "rapl", [counter], {})[1].status == "ok"
    assert read("load", "loadavg", [stream("/tmp/tree/loadavg", [b"0.57 0.16 0.06 2/98 8787\n"])], {})[1].status == "ok"


def test_a_dump_of_a_devices_real_place_is_known_by_its_class():
    zone = b"/sys/devices/virtual/thermal/thermal_zone3/"
    raw = zone + b"temp: 41500\n" + zone + b"type: soc\n"
    (one,), seen = READERS["thermal"].parse("t", captured(READERS["thermal"], raw), {})
    assert (one.name, one.value.tolist(), seen.told().status) == ("thermal.soc", [41.5], "ok")
    chip = b"/sys/devices/platform/bus/1-0040/hwmon/hwmon5/"
    raw = chip + b"power1_input: 2500000\n" + chip + b"name: ina238\n" + chip + b"power1_label: VIN\n"
    (one,), _ = READERS["hwmon"].parse("h", captured(READERS["hwmon"], raw), {})
    assert (one.name, one.value.tolist()) == ("hwmon.ina238.VIN.power", [2.5])
