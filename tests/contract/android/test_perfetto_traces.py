"""Perfetto's traces, written field by field (perfetto_wire.py), and trace_processor's table of counters."""

import zlib

import numpy as np
import pytest
from perfetto_wire import battery, energy_of, named, number, packet, part, rails, varint
from unit.evidence_kit import digests, phase, stream

from meltbench.measure.energy import energy, rail_of
from meltbench.readings import READERS, Source, read
from meltbench.readings.capture import captured
from meltbench.readings.protowire import fields

MS = 1_000_000
PATH = "/data/misc/perfetto-traces/run.perfetto-trace"


def got(raw, **options):
    series, status = read("trace", "perfetto", captured(READERS["perfetto"], raw), options)
    return {one.name.removeprefix("perfetto."): one for one in series}, status


def test_battery_counters_of_one_packet_in_si_units():
    trace = packet(t_ns=5_000 * MS) + packet(
        battery(charge=2_085_000, percent=75.5, current=-1_469_687, average=-900_000, voltage=3_912_000),
        t_ns=6_000 * MS,
    )
    found, status = got(trace)
    assert {name: one.value[0] for name, one in found.items()} == pytest.approx(
        {
            "battery.current_a": -1.469687,
            "battery.voltage_v": 3.912,
            "battery.power": 1.469687 * 3.912,
            "battery.charge_c": 7506.0,
            "battery.soc_percent": 75.5,
        }
    )
    assert {one.t0_ns[0] for one in found.values()} == {6_000 * MS}
    assert (found["battery.power"].klass, status.status) == ("D", "ok")


def test_trap_1_the_sign_of_perfettos_current_is_the_profiles():
    trace = packet(battery(current=1_469_687, voltage=4_000_000), t_ns=MS)
    assert got(trace)[0]["battery.power"].value[0] < 0
    assert got(trace, discharge_sign=1)[0]["battery.power"].value[0] == pytest.approx(5.878748)


def test_trap_9_a_counter_of_no_battery_is_none():
    assert got(packet(battery(charge=0, percent=50.0), t_ns=MS))[0]["battery.charge_c"].words == ["absent"]
    assert got(packet(battery(charge=1000, percent=50.0), t_ns=MS))[0]["battery.charge_c"].words == ["unparsed"]


def test_several_batteries_are_told_apart_by_name():
    trace = packet(battery(percent=50.0, name="BAT0"), t_ns=MS) + packet(battery(percent=70.0, name="BAT 1"), t_ns=MS)
    assert {name: one.value[0] for name, one in got(trace)[0].items()} == {
        "battery.BAT0.soc_percent": 50.0,
        "battery.BAT_1.soc_percent": 70.0,
    }


def test_trap_14_a_rail_is_timed_by_its_own_stamp_and_not_by_its_packet():
    """2 W. A packet is written when its buffer is full: up to 350 ms after the readings it carries."""
    trace = packet(rails(named(0, "S3M_VDD_CPUCL1"), named(1, "S2S_VDD_G3D", hz=61)), t_ns=1)
    for i in range(30):
        ms = 1_000 + 100 * i
        data = rails(energy_of(0, 2_000 * ms, ms), energy_of(1, 500 * ms, ms + 7))
        trace += packet(data, t_ns=(ms + (i * 131) % 350) * MS)
    found, _ = got(trace)
    cpu = found["rail.S3M_VDD_CPUCL1.energy"]
    assert cpu.t0_ns.tolist() == [(1_000 + 100 * i) * MS for i in range(30)]
    assert (cpu.t1_ns - cpu.t0_ns == MS).all()
    run = phase("run", 1.5, 3.5)
    assert energy(rail_of(digests([cpu], run)[0]), run).value == pytest.approx(4.0, rel=1e-3)
    gpu = found["rail.S2S_VDD_G3D.energy"]
    assert gpu.t0_ns[0] == 1_007 * MS
    assert (gpu.unit, gpu.kind, gpu.scope, gpu.klass, gpu.update_s) == ("J", "counter", "rail", "B", 1 / 61)


def test_rails_that_are_named_after_their_first_energy_and_one_that_never_is():
    trace = packet(rails(energy_of(4, 333, 3), energy_of(9, 1, 3)), t_ns=3_000_003)
    trace += packet(rails(named(4, "S3M_VDD_CPUCL1")), t_ns=4_000_000)
    found, status = got(trace)
    assert {name: (one.t0_ns[0], one.value[0]) for name, one in found.items()} == {
        "rail.S3M_VDD_CPUCL1.energy": (3 * MS, pytest.approx(333e-6))
    }
    assert "does not name" in status.detail


def test_a_rail_without_a_stamp_has_its_packets_time():
    trace = packet(rails(named(3, "S2S_VDD_G3D"), energy_of(3, 999)), t_ns=3_000_005)
    assert got(trace)[0]["rail.S2S_VDD_G3D.energy"].t0_ns.tolist() == [3_000_005]


def test_a_packet_of_another_clock_is_left_out_and_said():
    trace = packet(battery(percent=50.0), t_ns=MS, clock=3) + packet(battery(percent=60.0), t_ns=2 * MS, clock=6)
    found, status = got(trace)
    assert found["battery.soc_percent"].value.tolist() == [60.0]
    assert "CLOCK_BOOTTIME" in status.detail


def test_compressed_packets_and_packets_out_of_order():
    inner = b"".join(packet(battery(percent=float(p)), t_ns=t) for p, t in ((40, 9 * MS), (41, 5 * MS)))
    trace = packet(part(50, zlib.compress(inner))) + packet(part(50, b"no deflate"))
    one = got(trace)[0]["battery.soc_percent"]
    assert (one.t0_ns.tolist(), one.value.tolist()) == ([5 * MS, 9 * MS], [41.0, 40.0])


def test_a_trace_that_was_cut_is_read_up_to_the_cut():
    trace = b"".join(packet(battery(percent=float(p)), t_ns=(p + 1) * MS) for p in range(10, 60))
    whole = len(got(trace)[0]["battery.soc_percent"])
    for cut in range(1, len(trace), 37):
        found = got(trace[:cut])[0]
        assert len(found.get("battery.soc_percent", ())) <= whole
    assert len(got(trace[:-1])[0]["battery.soc_percent"]) == whole - 1


def test_a_trace_of_a_phone_without_rails_or_battery_is_not_understood():
    assert got(packet(part(33, b"config"), t_ns=MS))[1].status == "unparsed"


TABLE = b"""ts | name | value
---|------|------
7100000000 | batt.charge_uah | 2210000
7100000000 | batt.capacity_pct | 61
7100000000 | batt.current_ua | -512500
7100000000 | batt.voltage_uv | 3950000
7100000000 | batt.power_mw | 2024
7100000000 | batt.current.avg_ua | -400000
7090000000 | power.S2M_VDD_CPUCL2_uws | 91000250
7093000000 | power.rails.cpu.big | 5000
"""


@pytest.mark.parametrize("csv", [False, True])
def test_the_table_of_trace_processor_as_text_and_as_csv(csv):
    text = TABLE
    if csv:
        rows = [[word.strip() for word in line.split(b"|")] for line in TABLE.splitlines() if b"--" not in line]
        text = b"".join(b'"%s","%s",%s\r\n' % (ts, name, value) for ts, name, value in rows)
    found, _ = got(text)
    assert {name: one.value[0] for name, one in found.items()} == pytest.approx(
        {
            "battery.current_a": -0.5125,
            "battery.voltage_v": 3.95,
            "battery.power": 0.5125 * 3.95,
            "battery.charge_c": 7956.0,
            "battery.soc_percent": 61.0,
            "rail.S2M_VDD_CPUCL2.energy": 91.00025,
            "rail.cpu.big.energy": 0.005,
        }
    )
    assert found["rail.cpu.big.energy"].t0_ns.tolist() == [7_093_000_000]


def test_a_trace_that_is_there_at_both_ends_of_a_run_is_told_once():
    trace = packet(battery(percent=50.0), t_ns=MS) + packet(battery(percent=49.0), t_ns=2 * MS)
    source = Source.of("trace", "perfetto", {})
    streams = [stream(PATH, [trace, trace])]
    series, seen = source.read(streams)
    assert len(series[0]) == 2
    again, more = source.read(streams, again=True)
    assert again == []
    told = (seen + more).told()
    assert (told.status, told.readings) == ("ok", 2)


def test_numbers_of_the_wire_format():
    assert [(f.number, f.value) for f in fields(memoryview(number(1, -1) + number(2, 300)))] == [
        (1, 2**64 - 1),
        (2, 300),
    ]
    assert list(fields(memoryview(b"\x80" * 11))) == []  # a number that never ends
    assert list(fields(memoryview(part(1, b"abc")[:-1]))) == []  # bytes that are not all there
    assert list(fields(memoryview(b"\x0b\x01"))) == []  # a group, which no trace has
    assert np.isfinite([one.value for one in fields(memoryview(varint(9 << 3 | 1) + b"\1" * 8))]).all()


@pytest.mark.parametrize(
    "row",
    [
        "{} | {} | {}",
        "| {:<18} | {:<22} | {:>12} |",
        '{},"{}",{}',
        "{:>20} {:<20} {:>20}.000000",
    ],
)
def test_a_table_of_counters_however_its_columns_are_set_apart(row):
    rows = (("batt.current_ua", -310_000), ("batt.voltage_uv", 3_950_000), ("power.rails.gpu", 8_250_000))
    text = "\n".join(["ts name value", "-" * 20, *(row.format(41_000_000_000, *one) for one in rows)])
    series, _ = read("phone", "perfetto", captured(READERS["perfetto"], text.encode()), {})
    found = {one.name: one.value.tolist() for one in series}
    assert found["perfetto.battery.power"] == pytest.approx([0.31 * 3.95])
    assert found["perfetto.rail.gpu.energy"] == pytest.approx([8.25])
