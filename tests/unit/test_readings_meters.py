"""External meters: options, live lines and logs, and instruments that lose samples. Dialects: tests/contract."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from evidence_kit import said
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.errors import DefinitionError, UnknownName
from meltbench.measure.digest import digest
from meltbench.measure.energy import energy, prepare
from meltbench.readings import READERS, read
from meltbench.readings.capture import captured
from meltbench.readings.meters import METERS
from meltbench.readings.meters.monsoon import RATE_HZ, spread
from meltbench.readings.meters.text import iso_ns, seconds_ns, to_number, unit_of
from meltbench.records import Phase

NAMES = sorted(one.name for one in METERS)
SHELLY = {"apower": 20.5, "voltage": 230.0, "current": 0.1, "aenergy": {"total": 100.25}}


def got(reader, streams, **options):
    series, status = read("plug", reader, streams, options)
    return {one.name: one for one in series}, status


def log(reader, text, **options):
    return got(reader, captured(READERS[reader], text.encode()), **options)


@pytest.mark.parametrize("name", NAMES)
def test_every_meter_says_what_it_was_looking_for_and_refuses_a_wrong_option(name):
    found, status = got(name, [])
    assert (found, status.status) == ({}, "absent")
    assert status.detail
    wrong = {
        "address": "",
        "channel": 64,
        "scope": "board",
        "power_class": "F",
        "energy_class": 1,
        "window_s": -1,
        "power_unit": "kW",
        "date_order": "ymd",
        "rate_hz": 0,
        "voltage_v": "4.2",
        "time_unit": "us",
    }
    for option, value in wrong.items():
        if option in READERS[name].options:
            with pytest.raises(DefinitionError, match=option):
                got(name, [], **{option: value})
        else:
            with pytest.raises(UnknownName, match=option):
                got(name, [], **{option: value})


@pytest.mark.parametrize("address", [7, "-x", "a\nb", "x" * 256])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(DefinitionError, match="address"):
        got("shelly", [], address=address)


def test_a_live_reply_is_stamped_around_the_asking_and_a_logged_one_by_its_own_clock():
    reply = {"switch:0": SHELLY, "sys": {"unixtime": 1714295251}}
    live, _ = got("shelly", [said([{"reply": reply}], t0_ns=10**10, delay_ns=50_000_000)])
    logged, _ = log("shelly", json.dumps(reply))
    assert live["meter.power"].t0_ns.tolist() == [10**10 - 50_000_000]
    assert live["meter.power"].t1_ns.tolist() == [10**10 - 50_000_000 + 1000]
    assert logged["meter.power"].t0_ns.tolist() == [1714295251 * 10**9]
    for name in ("meter.power", "meter.energy", "meter.voltage_v", "meter.current_a"):
        assert live[name].value.tolist() == logged[name].value.tolist()


def test_lines_of_somebody_elses_program_are_stamped_by_their_arrival():
    lines = [json.dumps(SHELLY).encode()] * 2
    found, _ = got("shelly", [said(lines, t0_ns=10**10)])
    assert found["meter.power"].t0_ns.tolist() == [10**10, 10**10 + 100_000_000]


def test_what_a_helper_cannot_is_told_beside_what_it_could():
    lines = [{"cannot": "again", "detail": "192.0.2.7: no whole answer in 3 s"}, {"reply": SHELLY}]
    found, status = got("shelly", [said(lines)])
    assert found["meter.lost"].words == ["again"]
    assert found["meter.power"].words == ["ok"]
    assert status.detail == "1 again; 192.0.2.7: no whole answer in 3 s"
    assert got("shelly", [said([{"cannot": "denied"}])])[1].status == "denied"


def test_outlets_of_a_strip_are_channels_even_where_one_answers_alone():
    emeter = {"emeter": {"get_realtime": {"power_mw": 5000, "total_wh": 2}}}
    lines = [{"reply": emeter, "channel": n} for n in (0, 1, 0)]
    found, _ = got("kasa", [said(lines)])
    assert {name: len(one) for name, one in found.items()} == {
        "meter.ch0.power": 2,
        "meter.ch0.energy": 2,
        "meter.ch1.power": 1,
        "meter.ch1.energy": 1,
    }
    found, _ = got("kasa", [said(lines)], channel=1)
    assert {name: len(one) for name, one in found.items()} == {
        "meter.power": 1,
        "meter.energy": 1,
        "meter.lost": 2,  # the other outlet's lines are none of this channel's
    }


def test_the_profile_says_place_class_and_the_length_of_the_mean():
    found, _ = got("shelly", [said([{"reply": SHELLY}])], scope="battery", power_class="B", window_s=0.5)
    power, counter = found["meter.power"], found["meter.energy"]
    assert (power.scope, power.klass, power.window_s) == ("battery", "B", 0.5)
    assert (counter.scope, counter.klass, counter.window_s, counter.update_s) == ("battery", "B", 0.0, 1.0)


def test_phases_of_a_three_phase_meter_are_channels():
    em = {f"{p}_{key}": 1.0 + n for n, p in enumerate("abc") for key in ("act_power", "voltage", "current")}
    data = {f"{p}_total_act_energy": 10.0 * (n + 1) for n, p in enumerate("abc")}
    found, _ = got("shelly", [said([{"reply": {"em:0": em | {"total_act_power": 6.0}, "emdata:0": data}}])])
    assert [found[f"meter.ch{n}.power"].value[0] for n in range(3)] == [1.0, 2.0, 3.0]
    assert [found[f"meter.ch{n}.energy"].value[0] for n in range(3)] == [36_000.0, 72_000.0, 108_000.0]


def test_a_reply_printed_over_several_lines_between_garbage_and_other_replies():
    text = "noise\n" + json.dumps(SHELLY, indent=2) + "\n{\nbroken\n}\n" + json.dumps(SHELLY | {"apower": 7.5}) + "\n"
    found, _ = log("shelly", text)
    assert found["meter.power"].value.tolist() == [20.5, 7.5]
    assert len(found["meter.lost"]) == 4


def test_energy_of_a_run_from_a_plugs_counter_and_from_its_power():
    lines = [{"reply": SHELLY | {"apower": 36.0, "aenergy": {"total": 100 + 0.01 * n}}} for n in range(40)]
    found, _ = got("shelly", [said(lines, period_ns=10**9)])
    span = Phase("run", 5 * 10**9, 35 * 10**9)
    assert energy(prepare(found["meter.energy"]), span).value == pytest.approx(36.0 * 30, rel=1e-6)


PACKET = bytes([0xAA, 4]) + b"".join(
    (508_000 + n).to_bytes(4, "little") + (51_200 + n).to_bytes(4, "little") + bytes(7) for n in range(4)
) + b"\0\0"  # fmt: skip


def test_packets_of_a_fnirsi_meter_are_four_samples_before_their_arrival():
    assert len(PACKET) == 64
    live = said([{"reply": {"packet": PACKET.hex()}}], t0_ns=10**10, delay_ns=0)
    found, _ = got("fnb58", [live])
    assert found["meter.voltage_v"].value.tolist() == pytest.approx([5.08, 5.08001, 5.08002, 5.08003])
    assert found["meter.current_a"].value.tolist() == pytest.approx([0.512, 0.51201, 0.51202, 0.51203])
    assert np.diff(found["meter.power"].t0_ns).tolist() == [10_000_000] * 3
    assert found["meter.power"].t0_ns[-1] == 10**10
    assert "meter.energy" not in found  # the meter sends none
    for odd in (PACKET[:-1], b"\xaa\x03" + PACKET[2:], PACKET + b"\0"):
        assert got("fnb58", [said([{"reply": {"packet": odd.hex()}}])])[1].status == "unparsed"
    assert got("fnb58", [said([{"reply": {"packet": "zz" * 64}}])])[1].status == "unparsed"


def test_blocks_of_a_monsoon_are_means_and_one_that_lost_samples_is_none():
    whole = {"samples": 500, "seconds": 0.1, "amps": 0.5, "volts": 4.0, "watts": 2.01}
    found, status = got("monsoon", [said([{"reply": whole}, {"reply": whole | {"samples": 400}}])])
    assert found["meter.power"].value.tolist() == pytest.approx([2.01, np.nan], nan_ok=True)
    assert found["meter.power"].words == ["ok", "error"]
    assert found["meter.power"].window_s == 0.1
    assert status.detail == "1 error; samples were dropped"


def monsoon_log(kept, watts, *, burst=128, header="Time(ms),Main(mA),Main Voltage(V),", scale=1.0):
    """PyMonsoon's CSV of those of the samples that were kept: read from USB in bursts, each packet of 3 stamped so."""
    rows = [header]
    for at in range(0, len(kept), burst):
        part = kept[at : at + burst]
        read_at = part[-1] / RATE_HZ
        for n, sample in enumerate(part):
            stamp = read_at + (n // 3) * 20e-6
            rows.append(f"{stamp * scale!r},{watts[sample] / 4.0 * 1e3!r},4.0,")
    return "\n".join(rows)


def steps(n):
    """1 W, and 5 W in every other second, with a ripple that no instrument is without."""
    return np.where(np.arange(n) // 5000 % 2 == 1, 5.0, 1.0) + 1e-4 * (np.arange(n) % 3 - 1)


def test_trap_33_bursts_of_samples_are_laid_out_evenly_and_milliseconds_that_cannot_be_are_seconds():
    watts = steps(20_000)
    found, status = log("monsoon", monsoon_log([*range(20_000)], watts))
    power = found["meter.power"]
    assert len(power) == 20_000
    t = power.t0_ns / 1e9
    # Late by no more than the first burst, evenly apart, and in their order.
    assert np.diff(t).min() > 0
    assert np.abs(t - (t[0] + np.arange(20_000) / RATE_HZ)).max() < 1e-3
    assert status.detail == ""
    joules = energy(prepare(power), Phase("run", round(0.5e9), round(3.5e9)))
    assert joules.value == pytest.approx(0.5 * 1 + 5 + 1 + 0.5 * 5, rel=0.01)


def test_trap_33_dropped_samples_are_a_gap_and_no_stretch():
    kept = [n for n in range(20_000) if not 5000 <= n < 9000]
    watts = steps(20_000)
    found, status = log("monsoon", monsoon_log(kept, watts))
    power = found["meter.power"]
    assert len(power) == 16_000
    gaps = np.diff(power.t0_ns) / 1e9
    assert gaps.max() == pytest.approx(0.8, abs=0.03)
    assert status.detail.startswith("1 gaps, 0.8")
    # What came after the gap is where it was, not 0.8 s earlier.
    assert power.t0_ns[-1] / 1e9 == pytest.approx(19_999 / RATE_HZ, abs=0.03)
    over = energy(prepare(power), Phase("run", round(0.5e9), round(3.5e9)))
    assert over.value is None
    assert str(over.reason).startswith("low_coverage: 73% of the window")
    beside = energy(prepare(power), Phase("run", round(2.2e9), round(2.8e9)))
    assert beside.value == pytest.approx(0.6, rel=0.01)


def test_trap_33_true_milliseconds_stay_milliseconds():
    found, _ = log("monsoon", monsoon_log([*range(10_000)], steps(10_000), scale=1000.0))
    t = found["meter.power"].t0_ns / 1e9
    assert t[-1] - t[0] == pytest.approx(9999 / RATE_HZ, abs=0.03)


def test_a_log_with_every_tenth_sample_needs_its_rate_only_where_stamps_are_shared():
    watts = steps(20_000)
    plain = "\n".join(["Time (s),Main Avg Current (mA),Main Avg Voltage (V)"] + [
        f"{n / RATE_HZ:.4f},{watts[n] / 4 * 1e3},4.0" for n in range(0, 20_000, 10)
    ])  # fmt: skip
    for options in ({}, {"rate_hz": 500}):
        found, status = log("monsoon", plain, **options)
        assert np.allclose(np.diff(found["meter.power"].t0_ns), 2_000_000, atol=2)
        assert status.detail == ""
    found, status = log("monsoon", plain, rate_hz=50)
    assert "meter.power" not in found
    assert status.detail == "2000 unparsed; rate_hz = 50, and it has 2000 rows in 4 s"


def test_a_recording_that_starts_anew_in_one_file_is_cut_there():
    text = "Time (s),Main Avg Current (mA),Main Avg Voltage (V)\n" + "\n".join(
        f"{n / 100},1000,4" for n in [*range(300), *range(200)]
    )
    found, status = log("monsoon", text, rate_hz=100)
    assert len(found["meter.power"]) == 300
    assert len(found["meter.lost"]) == 200
    assert "its times start anew" in status.detail


def test_a_log_without_voltage_has_a_power_by_the_profiles_word():
    text = "Time (s),Main Avg Current (mA)\n0.0,500\n0.0002,501\n"
    assert "meter.power" not in log("monsoon", text)[0]
    found, _ = log("monsoon", text, voltage_v=4.0)
    assert found["meter.power"].value.tolist() == pytest.approx([2.0, 2.004])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=60), st.sampled_from([1.0, 7.0, 50.0]))
def test_laid_out_samples_rise_and_are_never_later_than_their_stamps(late, rate):
    stamps = np.sort(np.arange(len(late)) / rate + np.array(late))
    t = spread(stamps, rate)
    assert (np.diff(t) > 0).all()
    assert (t <= stamps + 1e-9).all()
    ahead = max(1, round(5 * rate))
    lead = stamps - np.arange(len(late)) / rate
    want = [np.arange(len(late))[i] / rate + lead[i : i + ahead].min() for i in range(len(late))]
    assert t == pytest.approx(np.array(want))


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999_999))
def test_unix_time_keeps_its_nanoseconds(seconds, ns):
    assert seconds_ns(f"{seconds}.{ns:09d}") == seconds * 10**9 + ns
    assert seconds_ns(str(seconds)) == seconds * 10**9


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01", 10**9),
        ("1970-01-02 00:00:00.5", 86_400_500_000_000),
        ("1970-01-02T01:30:00+01:30", 86_400 * 10**9),
        ("1970-01-01T22:00:00-0200", 86_400 * 10**9),
        ("2024-02-30T00:00:00", None),
        ("9999-12-31T23:59:59", None),
        ("0000-01-01T00:00:00", None),
        ("1969-12-31T23:59:59", None),
        (5, None),
    ],
)
def test_iso_times(text, ns):
    assert iso_ns(text) == ns


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e99", "", "0x10", "1_000", "١٢", "1.5.2", "np.float64(x)"])
def test_what_is_no_number(text):
    assert to_number(text) is None


def test_numbers_and_headers():
    assert [to_number(t) for t in (" 1.5 ", "-2", "+.5", "3.", "1e-3", "np.float64(2.5)")] == [
        1.5,
        -2,
        0.5,
        3,
        1e-3,
        2.5,
    ]
    headers = {
        "Voltage (V)": ("voltage", "v"),
        "Main(mA)": ("main", "ma"),
        "energy_Ws": ("energy", "ws"),
        "#time": ("time", ""),
        '"Power [µW]"': ("power", "uw"),
        "Unix time": ("unix time", ""),
    }
    assert {header: unit_of(header) for header in headers} == headers


@pytest.mark.parametrize("name", ["shelly", "tasmota", "kasa", "joulescope", "um25c"])
def test_numbers_that_are_none_are_no_zeros(name):
    odd = ["NaN", "1e400", '"5"', "null", "true", "[]", "{}", "1e16"]
    joules = '"accumulators": {"energy": {"value": %s, "units": "J"}}'
    replies = {
        "shelly": '{"apower": %s, "aenergy": {"total": %s}}',
        "tasmota": '{"ENERGY": {"Power": %s, "Total": %s}}',
        "kasa": '{"emeter": {"get_realtime": {"power_mw": %s, "total_wh": %s}}}',
        "joulescope": '{"signals": {"power": {"avg": {"value": %s, "units": "W"}}}, ' + joules + "}",
        "um25c": '{"watts": %s, "volts": %s}',
    }
    for value in odd:
        text = replies[name] % (value, value)
        found, status = got(name, [said([b'{"reply": %s}' % text.encode()])])
        assert status.status != "ok", value
        assert all(np.isnan(one.value).all() for one in found.values())


def checked(reader, streams, **options):
    series, status = read("src", reader, streams, options)
    assert (status.status == "ok") == any("ok" in one.words for one in series)
    for one in series:
        assert len(one.t0_ns) == len(one.t1_ns) == len(one.value) == len(one.status) > 0
        assert [word == "ok" for word in one.words] == np.isfinite(one.value).tolist()
        assert one.window_s is None or one.window_s >= 0
        digest(one)
    return series


KEYS = [
    *("meters", "emeters", "power", "total", "total_returned", "counters", "is_valid", "switch:0", "em:0", "em1data:3"),
    *("apower", "aenergy", "a_act_power", "unixtime", "sys", "result", "params", "id", "StatusSNS", "ENERGY", "Power"),
    *("Total", "Time", "Voltage", "emeter", "get_realtime", "power_mw", "total_wh", "get_energy_usage", "method"),
    *("get_current_power", "get_emeter_data", "current_power", "today_energy", "responses", "err_code", "signals"),
    *("accumulators", "energy", "time", "range", "value", "units", "avg", "int_value", "int_scale", "watts", "volts"),
    *("data_groups", "data_group_selected", "collection_time", "samples", "seconds", "amps", "packet", "reply"),
    *("channel", "cannot", "detail", "t0_ns", "t1_ns", "gpu", "energy_counts", "resolution_uj", "edge_c", "nulls"),
    *("cpu_power", "all_power", "temp", "cpu_temp_avg", "timestamp", "unit", "local_time", "watt_hours"),
]
ODD = ["W", "J", "pJ", "9999-12-31T23:59:59", "2024-04-28 11:30:05", "aa" * 64, "aa04" + "00" * 62]
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 1e15, 4_000_000_000, 2**70])
LEAF = st.none() | st.booleans() | NUMBERS | st.text(max_size=6) | st.sampled_from(ODD)
JSON = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
WORDS = [
    "Time,28-12-2020 15:21:14.682,Watts,22.95,Volts,228.5,Amps,0.2,PF,0.4,Mark,2020-12-28_x",
    "Time,04-05-9999 00:00:00.0,Watts,1,Mark,x",
    *("Time(ms),Main(mA),Main Voltage(V),", "0.001,5,4,", "1e9,1,1", "Time (s),Main Avg Current (mA)"),
    *("#time,current,voltage,power,charge,energy", "0.5,1,2,3,4,5", "99999999999.5,1,2,3,4,5"),
    *("timestamp sample_in_packet voltage_V current_A", "9999999999.999 0 5.0 0.5 0 0 30 1 1"),
    *("1714298000 0.2", "9999999999 1", "{", "}", "Unix time,Voltage (V)", "1714297200.5,5.1"),
    "*** Sampled system activity (Fri Dec 31 23:59:59 9999 +0000) (1000ms elapsed) ***",
    "*** Sampled system activity (x) (999999999.9ms elapsed) ***",
    *("CPU Power: 0 mW", "GPU Power: 5 mW", "Combined Power (CPU + GPU + ANE): 1 mW", "ANE Power: 1e9 mW"),
]
LINE = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(WORDS).map(str.encode),
    JSON.map(lambda x: json.dumps(x).encode()),
    JSON.map(lambda x: json.dumps({"reply": x, "t0_ns": -5, "t1_ns": 2**80}).encode()),
    st.tuples(st.sampled_from(WORDS), st.integers(0, 60), st.characters()).map(
        lambda x: (x[0][: x[1]] + x[2] + x[0][x[1] + 1 :]).encode("utf-8", "surrogatepass")
    ),
)


@pytest.mark.parametrize("name", [*NAMES, "powermetrics", "macmon", "amdsmi"])
@settings(max_examples=120, deadline=None)
@given(st.lists(LINE, max_size=12), st.booleans())
def test_any_lines_live_or_logged_give_samples_or_a_status(name, raw, live):
    streams = [said(raw)] if live else captured(READERS[name], b"\n".join(raw))
    checked(name, streams)


@pytest.mark.parametrize("name", ["shelly", "tasmota", "kasa", "ptdaemon", "fnb58", "macmon", "amdsmi"])
@settings(max_examples=40, deadline=None)
@given(st.lists(LINE, max_size=8), st.integers(0, 8))
def test_live_lines_read_in_two_parts_give_the_series_of_the_whole(name, raw, at):
    whole = checked(name, [said(raw)])
    r = said(raw).readings
    parts = []
    for begin, end in pairwise([0, min(at, len(raw)), len(raw)]):
        texts = type(r).of(r.t0_ns[begin:end], r.t1_ns[begin:end], r.err[begin:end], r.raw[begin:end])
        parts += checked(name, [replace(said(raw), readings=texts)])
    for one in whole:
        same = [part for part in parts if part.name == one.name]
        assert np.array_equal(np.concatenate([part.value for part in same]), one.value, equal_nan=True)
        assert {(part.unit, part.kind, part.scope) for part in same} == {(one.unit, one.kind, one.scope)}
    assert {part.name for part in parts} == {one.name for one in whole}


def test_a_log_that_never_closes_its_braces_is_read_in_time():
    raw = b'{"a":[\n' * 20_000 + b'{"apower": 5.0}\n'
    found, _ = got("shelly", captured(READERS["shelly"], raw))
    assert found["meter.power"].value.tolist() == [5.0]
