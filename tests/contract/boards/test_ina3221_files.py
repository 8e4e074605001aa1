"""The INA3221 by the files of its drivers: what is a rail and what is not, and values that were not read together."""

import errno
import math

import numpy as np
import pytest
from boards_kit import HERE, SECOND, got, ints, of, stream, values

from meltbench.measure.digest import digest
from meltbench.measure.energy import energy, prepare
from meltbench.measure.total import Designation, total
from meltbench.records import Phase

CHIP = "/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/"


def rail(n, label, millivolts, milliamperes, chip=CHIP, **more):
    named = [stream(f"{chip}in{n}_label", [label + b"\n"])] if label else []
    volts = stream(f"{chip}in{n}_input", ints(millivolts), **more)
    return [*named, volts, stream(f"{chip}curr{n}_input", ints(milliamperes), **more)]


def test_trap_19_no_shunt_and_no_sum_is_a_rail_and_two_nc_are_told_apart():
    found, status = of("ina3221", "ina3221_agx_orin.txt")
    assert values(found) == {
        "ina3221.VDD_GPU_SOC.power": 6.39744,
        "ina3221.VDD_CPU_CV.power": 1.59872,
        "ina3221.VIN_SYS_5V0.power": 4.132224,
        "ina3221.NC.power": 0.0,
        "ina3221.VDDQ_VDD2_1V8AO.power": 0.608256,
        "ina3221.NC#2.power": 0.000128,
    }
    assert {(one.scope, one.klass, one.unit, one.kind) for one in found.values()} == {("rail", "C", "W", "gauge")}
    assert status.status == "ok"
    # in4 to in7 are microvolts of shunts and their sum, curr4 a sum: read as a rail they would be 5.9 kW.
    assert max(one.value.max() for one in found.values()) < 10


def test_the_files_of_jp4_say_milliwatts_themselves():
    found, _ = of("ina3221", "ina3221x_nano_jp4.txt")
    assert values(found) == {
        "ina3221.POM_5V_IN.power": 2.391,
        "ina3221.POM_5V_GPU.power": 0.0,
        "ina3221.POM_5V_CPU.power": 0.444,
    }
    assert [one.scope for one in found.values()] == ["module", "rail", "rail"]


def test_trap_20_voltage_and_current_of_one_moment_differ_by_less_than_the_class_allows():
    """The shunt register said 7 320 uV over 5 mOhm while the current register said 1 496 mA: 2.1 % apart."""
    found, _ = got("ina3221", rail(1, b"VDD_IN", [5016], [1496]))
    power = found["ina3221.VDD_IN.power"].value[0]
    assert power == 7.503936
    other = 5.016 * 7.320e-3 / 5e-3
    assert power / other - 1 == pytest.approx(0.0219, abs=1e-4)
    assert power / other - 1 < 0.10 / 3**0.5  # what class C puts into u
    assert found["ina3221.VDD_IN.power"].gain_limit is None


def test_trap_20_a_current_takes_the_voltage_that_was_read_next_to_it():
    volts = stream(CHIP + "in1_input", ints([5000, 4800, 4600]), t0_ns=0)
    amperes = stream(CHIP + "curr1_input", ints([1000, 2000, 3000]), t0_ns=1_300_000)
    one = got("ina3221", [volts, amperes])[0]["ina3221.ch1.power"]
    assert one.value.tolist() == pytest.approx([5.0, 9.6, 13.8])
    assert one.t0_ns.tolist() == amperes.readings.t0_ns.tolist()
    late = stream(CHIP + "curr1_input", ints([1000]), t0_ns=30 * SECOND)
    lost = got("ina3221", [volts, late])[0]["ina3221.ch1.power"]
    assert (lost.words, np.isnan(lost.value[0])) == (["error"], True)


def test_a_run_that_was_cut_between_voltage_and_current_keeps_both_sides():
    """What is sampled is written a second at a time, one file after the other: a part of a run may end between them."""
    volts, amperes = ints([5000] * 60), ints(range(1000, 1060))
    whole = got("ina3221", [stream(CHIP + "in1_input", volts), stream(CHIP + "curr1_input", amperes)])[0]
    parts = []
    for v, i in ((slice(0, 30), slice(0, 20)), (slice(30, 60), slice(20, 60))):
        cut = [
            stream(CHIP + "in1_input", volts[v], t0_ns=v.start * 100_000_000),
            stream(CHIP + "curr1_input", amperes[i], t0_ns=i.start * 100_000_000),
        ]
        parts.append(got("ina3221", cut)[0]["ina3221.ch1.power"])
    joined = np.concatenate([one.value for one in parts])
    assert joined.tolist() == whole["ina3221.ch1.power"].value.tolist()


def test_trap_21_what_is_read_faster_than_it_converts_keeps_its_equal_values():
    """Read every 2 ms, converted every 6.6 ms or so: dropping what repeats would turn steady power into nothing."""
    steps = np.repeat(ints([2000, 2000, 2000, 2008, 1992] * 60), 4).tolist()
    volts = ints([5000] * len(steps))
    pair = [
        stream(CHIP + "in1_label", [b"VDD_IN\n"]),
        stream(CHIP + "in1_input", volts, period_ns=2_000_000, read_ns=0),
        stream(CHIP + "curr1_input", steps, period_ns=2_000_000, read_ns=0),
    ]
    one = got("ina3221", pair)[0]["ina3221.VDD_IN.power"]
    assert len(one) == len(steps) == 1200
    assert set(one.words) == {"ok"}
    found = energy(prepare(one), Phase("run", SECOND // 5, 2 * SECOND + SECOND // 5))
    assert found.value == pytest.approx(2 * 10.0, rel=0.002)


def test_trap_22_the_parts_of_an_agx_orin_have_the_scope_of_parts():
    found, _ = of("ina3221", (HERE / "ina3221_agx_orin.txt").read_bytes() * 3, period_ms=20)
    signals = [digest(one) for one in found.values()]
    assert total(signals, Designation("ina3221")).rail is None
    summed = total(signals, Designation("ina3221", ("ina3221.VDD*.power", "ina3221.VIN_SYS_5V0.power")))
    assert (summed.rail.scope, len(summed.rail.parts)) == ("rail", 4)


@pytest.mark.parametrize(
    ("interval", "samples", "update_s", "window_s"),
    [(None, None, 0.0066, 0), (b"7\n", b"1\n", 0.007, 0), (b"422\n", b"64\n", 0.422, 0.422), (b"0\n", None, 0.001, 0)],
)
def test_how_old_a_value_may_be_and_whether_the_chip_averages(interval, samples, update_s, window_s):
    said = [(name, text) for name, text in (("update_interval", interval), ("samples", samples)) if text]
    once = [stream(CHIP + name, [text]) for name, text in said]
    found, status = got("ina3221", [*rail(1, b"VDD_IN", [5000], [1000]), *once])
    one = found["ina3221.VDD_IN.power"]
    assert (one.update_s, one.window_s) == (pytest.approx(update_s), pytest.approx(window_s))
    assert status.detail == ("1-0040 averages 64 samples" if window_s else "")


def test_a_hat_without_labels_and_two_chips_of_one_label_are_told_apart_in_the_order_of_their_numbers():
    two, ten = CHIP.replace("hwmon3", "hwmon2"), CHIP.replace("hwmon3", "hwmon10")
    found, _ = got("ina3221", [*rail(2, b"", [5000], [200], ten), *rail(2, b"", [5000], [100], two)])
    assert values(found) == {"ina3221.ch2.power": 0.5, "ina3221.ch2#2.power": 1.0}
    odd, _ = got("ina3221", rail(1, "5V in/µ".encode()[:6], [1000], [1000]))
    assert list(odd) == ["ina3221.5V_in_.power"]


def test_what_the_driver_says_without_a_value_is_a_status():
    volts = stream(CHIP + "in1_input", [b"5000\n"] * 6)
    raw = [b"0\n", errno.EAGAIN, errno.EACCES, errno.EIO, b"", b"-16\n"]
    one = got("ina3221", [volts, stream(CHIP + "curr1_input", raw)])[0]["ina3221.ch1.power"]
    assert one.words == ["ok", "again", "denied", "error", "unparsed", "ok"]
    assert [one.value[0], one.value[-1]] == [0.0, -0.08]
    assert all(math.isnan(v) for v in one.value[1:5])


def test_a_current_without_a_voltage_is_no_power():
    amperes = stream(CHIP + "curr1_input", ints([1000, 1100]))
    alone, status = got("ina3221", [amperes])
    assert (alone["ina3221.ch1.power"].words, status.status) == (["absent", "absent"], "absent")
    closed = stream(CHIP + "in1_input", [], status="denied")
    assert got("ina3221", [amperes, closed])[1].status == "denied"
    mute = stream(CHIP + "in1_input", [errno.EAGAIN, errno.EAGAIN])
    assert got("ina3221", [amperes, mute])[0]["ina3221.ch1.power"].words == ["again", "again"]


def test_nothing_there_names_both_layouts():
    _, status = got("ina3221", [])
    assert status.status == "absent"
    assert "hwmon" in status.detail
    assert "iio" in status.detail
