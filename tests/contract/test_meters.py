"""What meters answer and what their programs log: own fixtures in their dialects, and captures beside the checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared import shared

from meltbench.readings import READERS, read
from meltbench.readings.capture import captured

HERE = Path(__file__).with_name("meters")
NAN = float("nan")
Found = dict[str, Any]


def logged(reader: str, raw: bytes, **options: object) -> tuple[Found, Any]:
    series, status = read("plug", reader, captured(READERS[reader], raw), options)
    return {one.name: one for one in series}, status


def fixture(reader: str, name: str, **options: object) -> tuple[Found, Any]:
    return logged(reader, (HERE / name).read_bytes(), **options)


def capture(reader: str, name: str, **options: object) -> tuple[Found, Any]:
    return logged(reader, shared(f"samples/{name}").read_bytes(), **options)


def values(found: Found) -> dict[str, list[float]]:
    return {name: one.value.tolist() for name, one in found.items()}


def close(found: Found, want: dict[str, list[float]]) -> None:
    got = values(found)
    assert set(got) == set(want)
    for name, numbers in want.items():
        assert got[name] == pytest.approx(numbers, rel=1e-12, nan_ok=True), name


def kinds(found: Found) -> dict[str, tuple[Any, ...]]:
    return {name: (one.unit, one.kind, one.scope, one.klass) for name, one in found.items()}


PLUG = {
    "meter.power": ("W", "gauge", "wall", "C"),
    "meter.energy": ("J", "counter", "wall", "B"),
    "meter.voltage_v": ("V", "gauge", "wall", None),
    "meter.current_a": ("A", "gauge", "wall", "C"),
}


def test_trap_31_the_first_shelly_counts_watt_minutes() -> None:
    found, status = fixture("shelly", "shelly_gen1_plug_s_status.json")
    close(found, {"meter.power": [61.37], "meter.energy": [90241 * 60.0]})
    assert found["meter.power"].t0_ns.tolist() == [1714294962 * 10**9]
    assert found["meter.power"].window_s == 1.0
    assert kinds(found) == {name: PLUG[name] for name in found}
    assert (status.status, status.detail) == ("ok", "")


def test_trap_31_the_meters_of_a_first_shelly_em_count_watt_hours_and_one_that_is_not_valid_says_nothing() -> None:
    found, status = fixture("shelly", "shelly_gen1_em_status.json")
    close(
        found,
        {
            "meter.ch0.power": [128.05],
            "meter.ch0.energy": [81204.7 * 3600],
            "meter.ch0.voltage_v": [229.61],
            "meter.ch1.power": [-312.44],
            "meter.ch1.energy": [17.2 * 3600],
            "meter.ch1.voltage_v": [229.61],
            "meter.ch2.power": [NAN],
            "meter.ch2.energy": [NAN],
        },
    )
    assert found["meter.ch2.power"].words == ["error"]
    assert (status.status, status.detail) == ("ok", "2 error")
    only, _ = fixture("shelly", "shelly_gen1_em_status.json", channel=1)
    close(only, {"meter.power": [-312.44], "meter.energy": [17.2 * 3600], "meter.voltage_v": [229.61]})


def test_trap_44_a_shelly_without_a_meter_is_no_load_of_0_w() -> None:
    found, status = fixture("shelly", "shelly_gen1_without_meter_status.json")
    assert found["meter.lost"].words == ["unparsed"]
    assert status.status == "unparsed"


def test_trap_31_later_shellys_count_watt_hours_and_their_minutes_in_mwh_are_left_alone() -> None:
    found, _ = fixture("shelly", "shelly_gen2_pro2pm_status.json")
    close(
        found,
        {
            "meter.ch0.power": [38.9],
            "meter.ch0.energy": [10432.118 * 3600],
            "meter.ch0.voltage_v": [231.4],
            "meter.ch0.current_a": [0.201],
            "meter.ch1.power": [7.2],
            "meter.ch1.energy": [77.5 * 3600],
            "meter.ch1.voltage_v": [231.4],
            "meter.ch1.current_a": [0.044],
        },
    )
    assert found["meter.ch1.power"].t0_ns.tolist() == [1714295251 * 10**9]


def test_a_meter_that_failed_is_an_error_and_not_0_w() -> None:
    found, _ = fixture("shelly", "shelly_gen3_pm_mini.jsonl")
    close(
        found,
        {
            "meter.power": [47.6, 48.1, NAN],
            "meter.voltage_v": [119.8, 119.7],
            "meter.current_a": [0.402, 0.409],
            "meter.energy": [54900.0, 54946.8, 54946.8],
        },
    )
    assert found["meter.power"].words == ["ok", "ok", "error"]


def test_trap_31_whole_watts_are_told_and_lists_are_channels() -> None:
    found, status = fixture("tasmota", "tasmota_two_channels_status8.json")
    close(
        found,
        {
            "meter.ch0.power": [43.0],
            "meter.ch1.power": [6.0],
            "meter.energy": [12.345 * 3.6e6],
            "meter.voltage_v": [231.0],
            "meter.ch0.current_a": [0.221],
            "meter.ch1.current_a": [0.040],
        },
    )
    assert status.detail == "meter.ch0.power comes in steps of 1 W; meter.ch1.power comes in steps of 1 W"
    only, status = fixture("tasmota", "tasmota_two_channels_status8.json", channel=1)
    close(only, {"meter.power": [6.0], "meter.current_a": [0.040]})
    assert status.detail == "meter.power comes in steps of 1 W"


def test_a_tasmota_with_a_finer_resolution_and_a_console_before_its_objects() -> None:
    found, status = fixture("tasmota", "tasmota_console.txt")
    assert found["meter.power"].value.tolist() == [5.24, 5.31]
    assert found["meter.energy"].value.tolist() == pytest.approx([3.70512 * 3.6e6, 3.70514 * 3.6e6], rel=1e-12)
    assert found["meter.power"].t0_ns.tolist() == [1714303260 * 10**9, 1714303270 * 10**9]
    assert "steps" not in status.detail
    assert found["meter.lost"].words == ["unparsed"]  # its state, which is no reading


def test_trap_31_the_unit_of_a_kasa_is_its_keys() -> None:
    found, _ = fixture("kasa", "kasa_hs110_first_firmware.json")
    close(
        found,
        {
            "meter.power": [88.120455],
            "meter.energy": [31.402 * 3.6e6],
            "meter.voltage_v": [229.318842],
            "meter.current_a": [0.412077],
        },
    )
    assert kinds(found) == PLUG
    found, status = fixture("kasa", "kasa_kp115.jsonl")
    close(
        found,
        {
            "meter.power": [41.207, 41.399, NAN],
            "meter.energy": [5120 * 3600.0, 5121 * 3600.0],
            "meter.voltage_v": [230.114, 230.240],
            "meter.current_a": [0.190, 0.191],
        },
    )
    assert (found["meter.power"].words[-1], status.detail) == ("error", "1 error")


def test_trap_31_current_power_is_what_its_method_says() -> None:
    for name in ("tapo_p110_methods.json", "tapo_energy_usage_bare.json"):
        found, _ = fixture("kasa", name)
        close(found, {"meter.power": [33.18], "meter.energy": [2250 * 3600.0]})
        assert found["meter.power"].t0_ns.tolist() == [1714303805 * 10**9]
    found, status = fixture("kasa", "tapo_p110_frame.json")
    close(found, {"meter.power": [33.0]})
    assert status.detail == "meter.power comes in steps of 1 W"


def test_trap_31_current_power_by_itself_is_refused_until_the_profile_says_its_unit() -> None:
    found, status = fixture("kasa", "tapo_current_power_bare.jsonl")
    assert found["meter.power"].words == ["unparsed", "unparsed"]
    assert status.status == "unparsed"
    assert "current_power may be W or mW" in status.detail
    close(fixture("kasa", "tapo_current_power_bare.jsonl", power_unit="W")[0], {"meter.power": [33.0, 33180.0]})
    close(fixture("kasa", "tapo_current_power_bare.jsonl", power_unit="mW")[0], {"meter.power": [0.033, 33.18]})


def test_a_fnirsi_log_gives_power_of_each_sample_at_its_own_time() -> None:
    found, status = fixture("fnb58", "fnb48_logger.txt")
    volts = [5.081, 5.080, 5.079, 5.081, 5.080, 5.080, 5.080, 5.080]
    amps = [0.512, 0.514, 0.515, 0.511, 0.513, 0.513, 0.513, 0.513]
    sums = [0.026015, 0.052126, 0.078283, 0.104247, 0.130307, 0.156368, 0.182428, 0.208489]
    close(
        found,
        {
            "meter.power": [v * a for v, a in zip(volts, amps, strict=True)],
            "meter.voltage_v": volts,
            "meter.current_a": amps,
            "meter.energy": sums,
        },
    )
    stamps = [120, 130, 140, 150, 157, 167, 177, 187]
    assert found["meter.power"].t0_ns.tolist() == [1714296000 * 10**9 + ms * 10**6 for ms in stamps]
    assert kinds(found)["meter.power"] == ("W", "gauge", "module", "C")
    assert kinds(found)["meter.energy"] == ("J", "counter", "module", "C")
    assert found["meter.power"].window_s == 0.0
    assert (status.status, status.detail) == ("ok", "")


def test_trap_33_the_sum_of_a_fnirsi_logger_is_no_counter_once_packets_were_lost() -> None:
    lines = (HERE / "fnb48_logger.txt").read_bytes().splitlines(keepends=True)
    late = [line.replace(b"1714296000.1", b"1714296001.1") for line in lines[2:]]
    found, status = logged("fnb58", b"".join(lines + late))
    assert set(found["meter.energy"].words) == {"error"}
    assert np.isnan(found["meter.energy"].value).all()
    assert found["meter.power"].words == ["ok"] * 16
    assert status.detail == "16 error; 92 of 108 samples are missing, and from energy_Ws with them"


def test_meters_of_rdtech_by_both_of_their_programs() -> None:
    found, _ = fixture("um25c", "um34c_rd_usb.csv")
    close(
        found,
        {
            "meter.power": [2.549, 2.560, 2.554],
            "meter.energy": [604 * 3.6, 605 * 3.6, 605 * 3.6],
            "meter.voltage_v": [5.12, 5.11, 5.12],
            "meter.current_a": [0.498, 0.501, 0.499],
        },
    )
    assert found["meter.power"].t0_ns.tolist() == [1714297200125000000, 1714297200625000000, 1714297201131000000]
    assert kinds(found)["meter.energy"] == ("J", "counter", "module", "B")
    assert found["meter.power"].window_s == 0.5
    found, _ = fixture("um25c", "um25c_rdserialtool.jsonl")
    close(
        found,
        {
            "meter.power": [0.58, 0.582],
            "meter.energy": [0.057 * 3600, 0.058 * 3600],
            "meter.voltage_v": [5.062, 5.061],
            "meter.current_a": [0.1146, 0.1150],
        },
    )
    assert found["meter.power"].t0_ns.tolist() == [1714297300250000000, 1714297300750000000]


def test_a_semicolon_makes_the_comma_a_decimal_point() -> None:
    raw = b"Unix time;Voltage (mV);Current (mA);Power (W)\r\n1714297200,5;5120,5;498,25;2,551\r\n"
    found, _ = logged("um25c", raw)
    close(found, {"meter.power": [2.551], "meter.voltage_v": [5.1205], "meter.current_a": [0.49825]})
    assert found["meter.power"].t0_ns.tolist() == [1714297200500000000]


def test_a_column_of_a_unit_that_nobody_knows_is_not_taken() -> None:
    found, _ = logged("um25c", b"Time,Voltage (V),Current (kA),Power (HP)\n2024-04-28 11:40:00,5.12,0.5,2.5\n")
    close(found, {"meter.voltage_v": [5.12]})


APRIL_5 = 1617667198_900000000  # 2021-04-05 23:59:58.900 as if UTC


def test_trap_32_the_mark_proves_the_month_first_and_a_minus_one_is_no_power() -> None:
    found, status = fixture("ptdaemon", "ptd_month_first.txt")
    close(
        found,
        {
            "meter.power": [181.4, 182.1, NAN],
            "meter.voltage_v": [120.11, 120.09, 120.10],
            "meter.current_a": [1.604, 1.609, 1.611],
        },
    )
    assert found["meter.power"].t0_ns.tolist() == [APRIL_5, APRIL_5 + 1_003_000_000, APRIL_5 + 2_005_000_000]
    assert found["meter.power"].words == ["ok", "ok", "error"]
    assert kinds(found)["meter.power"] == ("W", "gauge", "wall", "A")
    assert found["meter.power"].window_s == 1.0025  # from line to line
    assert status.status == "ok"


def test_trap_32_a_date_that_may_be_two_days_is_refused_until_the_profile_says_which() -> None:
    found, status = fixture("ptdaemon", "ptd_ambiguous.txt")
    assert found["meter.power"].words == ["unparsed", "unparsed"]
    assert status.detail.endswith(
        'its dates may be day first or month first: the profile must say date_order = "dmy" or "mdy"'
    )
    by_day, _ = fixture("ptdaemon", "ptd_ambiguous.txt", date_order="dmy")
    by_month, _ = fixture("ptdaemon", "ptd_ambiguous.txt", date_order="mdy")
    assert by_day["meter.power"].t0_ns[0] == 1620122400 * 10**9  # 4 May 2021
    assert by_month["meter.power"].t0_ns[0] == 1617616800 * 10**9  # 5 April 2021
    assert by_day["meter.power"].value.tolist() == by_month["meter.power"].value.tolist() == [50.0, 51.0]


def test_trap_32_one_day_above_12_proves_the_order_for_the_lines_before_it() -> None:
    raw = (HERE / "ptd_ambiguous.txt").read_bytes()
    later = raw.replace(b"04-05-2021", b"13-05-2021")
    found, _ = logged("ptdaemon", raw + later)
    assert found["meter.power"].t0_ns[0] == 1620122400 * 10**9
    other = raw.replace(b"04-05-2021", b"04-13-2021")
    found, status = logged("ptdaemon", raw + later + other)
    assert set(found["meter.power"].words) == {"unparsed"}
    assert "its dates are of both orders" in status.detail


def test_trap_32_an_option_that_the_log_contradicts_gives_no_time_of_another_day() -> None:
    raw = (HERE / "ptd_ambiguous.txt").read_bytes().replace(b"04-05-2021", b"28-05-2021")
    found, status = logged("ptdaemon", raw, date_order="mdy")
    assert set(found["meter.power"].words) == {"unparsed"}
    assert "a date is none when it is read as mdy" in status.detail


def test_channels_of_an_analyser_are_read_one_by_one_and_not_added_to_their_sum() -> None:
    found, _ = fixture("ptdaemon", "ptd_channels.txt")
    assert found["meter.power"].value.tolist() == [412.5, 413.0]
    assert set(found["meter.voltage_v"].words) == {"error"}
    second, _ = fixture("ptdaemon", "ptd_channels.txt", channel=2)
    close(second, {"meter.power": [212.25, 212.5], "meter.voltage_v": [230.2, 230.2], "meter.current_a": [0.95, 0.951]})


def test_powertool_keeps_its_gap_and_says_it() -> None:
    found, status = fixture("monsoon", "monsoon_powertool.csv")
    volts, amps = [4.2002, 4.2001, 4.2003, 4.2, 4.2], [0.51231, 0.5129, 0.49812, 0.501, 0.502]
    close(
        found,
        {
            "meter.power": [v * a for v, a in zip(volts, amps, strict=True)],
            "meter.voltage_v": volts,
            "meter.current_a": amps,
        },
    )
    assert found["meter.power"].t0_ns.tolist() == [0, 200_000, 400_000, 4_600_000, 4_800_000]
    assert kinds(found)["meter.power"] == ("W", "gauge", "battery", "A")
    assert status.detail == "1 gaps, 0.004 s in all: samples were lost"


def test_pymonsoon_with_a_new_numpy_prints_its_types() -> None:
    found, status = fixture("monsoon", "monsoon_pymonsoon_numpy2.csv", time_unit="s")
    close(
        found,
        {
            "meter.ch0.power": [1.002, 1.006, NAN],
            "meter.ch0.voltage_v": [4.0, 4.0, 4.0],
            "meter.ch0.current_a": [0.2505, 0.2515, NAN],
            "meter.ch1.power": [0.05125, 0.0525, 0.05375],
            "meter.ch1.voltage_v": [5.0, 5.0, 5.0],
            "meter.ch1.current_a": [0.01025, 0.0105, 0.01075],
        },
    )
    # Three samples of one packet share a stamp and lie 200 us apart.
    assert np.diff(found["meter.ch0.power"].t0_ns).tolist() == [200_000, 200_000]
    assert status.detail == "2 unparsed"
    usb, _ = fixture("monsoon", "monsoon_pymonsoon_numpy2.csv", time_unit="s", channel=1)
    assert set(usb) == {"meter.power", "meter.voltage_v", "meter.current_a"}


def test_a_joulescopes_statistics_keep_the_digits_of_its_integers() -> None:
    found, _ = fixture("joulescope", "joulescope_js220_statistics.jsonl")
    close(
        found,
        {
            "meter.power": [1.90394, 1.90827],
            "meter.voltage_v": [4.745, 4.744],
            "meter.current_a": [0.40125, 0.40225],
            "meter.energy": [510027366 / 2**27, 765041049 / 2**27],
        },
    )
    assert found["meter.power"].t0_ns.tolist() == [3 * 10**9, 4 * 10**9]
    assert found["meter.power"].window_s == 1.0
    assert kinds(found)["meter.energy"] == ("J", "counter", "module", "A")
    found, _ = fixture("joulescope", "joulescope_js110_statistics.json")
    close(
        found,
        {"meter.power": [0.825], "meter.voltage_v": [3.3], "meter.current_a": [0.25], "meter.energy": [0.4125]},
    )
    assert found["meter.power"].window_s == 0.5


def test_the_csv_of_joulescopes_ui() -> None:
    found, _ = fixture("joulescope", "joulescope_ui.csv")
    close(
        found,
        {
            "meter.power": [1.89553, 1.90114, 1.89532],
            "meter.energy": [0.947765, 1.89833, 2.84599],
            "meter.voltage_v": [4.74572, 4.74479, 4.74555],
            "meter.current_a": [0.399422, 0.400691, 0.399392],
        },
    )
    assert found["meter.power"].t0_ns.tolist() == [500_000_000, 1_000_000_000, 1_500_000_000]
    assert found["meter.power"].window_s == 0.5


def test_a_power_file_has_a_power_once_the_profile_says_the_voltage() -> None:
    found, _ = fixture("historian", "historian_power_file.txt")
    close(found, {"meter.current_a": [0.22, 0.25, 0.25]})
    found, _ = fixture("historian", "historian_power_file.txt", voltage_v=4.0)
    close(found, {"meter.current_a": [0.22, 0.25, 0.25], "meter.power": [0.88, 1.0, 1.0]})
    one = found["meter.power"]
    assert one.t0_ns.tolist() == [1714298000 * 10**9, 1714298001 * 10**9, 1714298002 * 10**9]
    assert (one.t1_ns - one.t0_ns).tolist() == [10**9] * 3  # a mean over that second


def test_crlf_and_a_byte_order_mark_change_nothing() -> None:
    for reader, name in (
        *(("um25c", "um34c_rd_usb.csv"), ("joulescope", "joulescope_ui.csv"), ("fnb58", "fnb48_logger.txt")),
        *(("shelly", "shelly_gen1_em_status.json"), ("ptdaemon", "ptd_month_first.txt")),
    ):
        raw = (HERE / name).read_bytes()
        plain, _ = logged(reader, raw)
        mark = b"\xef\xbb\xbf" if name.endswith("csv") else b""
        odd, _ = logged(reader, mark + raw.replace(b"\n", b"\r\n"))
        np.testing.assert_equal(values(odd), values(plain))
        assert {n: o.t0_ns.tolist() for n, o in odd.items()} == {n: o.t0_ns.tolist() for n, o in plain.items()}


def test_captures_of_real_plugs() -> None:
    found, _ = capture("kasa", "kasa_hs110_v1.json")
    close(
        found,
        {
            "meter.power": [0.928511],
            "meter.energy": [55.139 * 3.6e6],
            "meter.voltage_v": [231.067823],
            "meter.current_a": [0.014937],
        },
    )
    found, status = capture("kasa", "kasa_ep25_v1.json")
    close(
        found,
        {
            "meter.power": [0.0],
            "meter.energy": [50 * 3600.0],
            "meter.voltage_v": [125.403],
            "meter.current_a": [0.0],
        },
    )
    assert status.detail == ""  # a load that is off says nothing of steps
    found, _ = capture("shelly", "shelly_gen2_switch_status.json")
    close(
        found,
        {
            "meter.power": [47.11],
            "meter.energy": [5.125 * 3600],
            "meter.voltage_v": [232.0],
            "meter.current_a": [0.0],
        },
    )
    found, status = capture("tasmota", "tasmota_status8.json")
    close(
        found,
        {
            "meter.power": [1.0],
            "meter.energy": [49.766 * 3.6e6],
            "meter.voltage_v": [230.0],
            "meter.current_a": [0.085],
        },
    )
    assert found["meter.power"].t0_ns.tolist() == [1696843309 * 10**9]
    assert status.detail == "meter.power comes in steps of 1 W"


def test_a_capture_of_a_real_fnirsi_meter_without_a_load() -> None:
    found, _ = capture("fnb58", "fnb58_fnirsi_logger.txt")
    close(
        found,
        {
            "meter.power": [0.0, 0.0],
            "meter.voltage_v": [0.0, 0.0],
            "meter.current_a": [0.00011, 0.0],
            "meter.energy": [0.0, 0.0],
        },
    )
    assert found["meter.power"].t0_ns.tolist() == [1657568326775000000, 1657568326785000000]


def test_trap_32_a_capture_of_mlperfs_power_log_has_its_day_first() -> None:
    found, _ = capture("ptdaemon", "mlperf_ptd_spl.txt")
    close(
        found,
        {
            "meter.power": [22.95, 23.08, 22.99],
            "meter.voltage_v": [228.57, 228.44, 228.52],
            "meter.current_a": [0.20643, 0.20732, 0.20674],
        },
    )
    start = 1609168874_682000000  # 2020-12-28 15:21:14.682 as if UTC
    assert found["meter.power"].t0_ns.tolist() == [start, start + 1_004_000_000, start + 2_009_000_000]


def test_the_phases_of_a_shelly_that_was_asked_for_them_alone() -> None:
    power = '{"id":0,"a_voltage":229.5,"a_current":0.5,"a_act_power":101.5,"b_act_power":20.0,"total_act_power":121.5}'
    found, _ = logged("shelly", power.encode())
    close(
        found,
        {
            "meter.ch0.power": [101.5],
            "meter.ch0.voltage_v": [229.5],
            "meter.ch0.current_a": [0.5],
            "meter.ch1.power": [20.0],
        },
    )
    found, _ = logged("shelly", b'{"id":0,"a_total_act_energy":2.5,"b_total_act_energy":4,"total_act":6.5}')
    close(found, {"meter.ch0.energy": [9000.0], "meter.ch1.energy": [14400.0]})


def test_a_notification_of_a_shelly_tells_its_own_time() -> None:
    params = '{"ts":1714295300.25,"switch:0":{"id":0,"apower":8.5}}'
    found, _ = logged("shelly", f'{{"src":"plug","method":"NotifyStatus","params":{params}}}'.encode())
    close(found, {"meter.power": [8.5]})
    assert found["meter.power"].t0_ns.tolist() == [1714295300_250_000_000]


def test_trap_31_a_tapos_own_answer_names_no_method_and_is_told_by_the_keys_in_it() -> None:
    usage = b'{"result":{"today_energy":12,"month_energy":250,"current_power":23456},"error_code":0}'
    close(logged("kasa", usage)[0], {"meter.power": [23.456], "meter.energy": [250 * 3600.0]})
    bare = b'{"result":{"current_power":23},"error_code":0}'
    found, status = logged("kasa", bare)
    assert found["meter.power"].words == ["unparsed"]
    assert "power_unit" in status.detail
    close(logged("kasa", bare, power_unit="W")[0], {"meter.power": [23.0]})
    assert logged("kasa", b'{"error_code":-1301,"result":{}}')[0]["meter.power"].words == ["error"]


@pytest.mark.parametrize("name", ["um25c", "joulescope"])
def test_a_sentence_that_speaks_of_time_and_current_is_no_header(name: str) -> None:
    prose = b" Time when the newest value of the Most charging current was told to anybody: +3s20ms\n"
    prose += b" The newest voltage value told to anybody at all: 4310\n"
    series, seen = READERS[name].parse(name, captured(READERS[name], prose), {})
    assert seen.told().status != "ok"
    assert not any((one.value == one.value).any() for one in series)
