"""Unit, sign and scale of made gauges whose truth is known, and the gauges that must not be trusted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gauge_kit import SECOND, streams, windows
from hypothesis import given
from hypothesis import strategies as st
from made_gauge import IDLE_W, LOAD_W, Dialect, amps

from meltbench.calibration.battery import Recorded, is_gauge, judge
from meltbench.readings import read
from meltbench.records import Readings, Stream

SPAN = windows(60, 60)
STEP_W = (amps(LOAD_W)[0] - amps(IDLE_W)[0]) * np.mean([amps(w)[1] for w in (LOAD_W, IDLE_W)])


def found(dialect, spans=SPAN, options=None, **more):
    return judge(Recorded("gauge", "power_supply", streams(dialect, spans, **more), options or {}), spans)


def watts(dialect, options, spans=SPAN):
    """Mean power under load, as a run with these options would have it."""
    series, _ = read("gauge", "power_supply", streams(dialect, spans), options)
    (power,) = [one for one in series if one.name == "battery.power"]
    load = spans.steps[0].load
    inside = (power.t0_ns > (load.t0_ns + load.t1_ns) // 2) & (power.t0_ns < load.t1_ns)
    return float(np.nanmean(power.value[inside]))


DIALECTS = {
    "AOSP: uA, out is below 0": Dialect(),
    "Samsung: mA": Dialect(unit="mA", noise_a=0.0),
    "inverted uA, slow filter": Dialect(sign=1, filter_s=1.0, update_s=1.0),
    "inverted mA, mV, mAh": Dialect("mA", 1, 0.5, 0.5, volts=1e3, charge_counts_per_c=1 / 3.6, charge_quantum=1),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_trap_1_and_2_unit_and_sign_come_of_the_load_step(name):
    dialect = DIALECTS[name]
    gauge = found(dialect)
    assert gauge.refused == ""
    assert gauge.options is not None
    assert gauge.options["current_unit"] == dialect.unit
    assert gauge.options["discharge_sign"] == dialect.sign
    assert gauge.options["voltage_unit"] == ("uV" if dialect.volts == 1e6 else "mV")
    assert gauge.step_w == pytest.approx(STEP_W, rel=0.02)
    assert gauge.load_w == pytest.approx(LOAD_W, rel=0.03)
    assert watts(dialect, gauge.options) == pytest.approx(LOAD_W, rel=0.02)


def test_the_charge_counter_gives_the_scale_with_its_uncertainty():
    fine = replace(Dialect(gain=0.94), charge_quantum=1)
    gauge = found(fine)
    assert gauge.charge_ratio == pytest.approx(1 / 0.94, rel=0.01)
    assert gauge.charge_u_k2 is not None
    assert abs(gauge.charge_ratio - 1 / 0.94) < gauge.charge_u_k2 < 0.02
    assert gauge.options is not None
    assert gauge.options["charge_unit"] == "uAh"
    assert watts(fine, gauge.options) == pytest.approx(LOAD_W, rel=0.01)
    assert watts(fine, dict(gauge.options) | {"scale": 1.0}) == pytest.approx(0.94 * LOAD_W, rel=0.01)


def test_trap_9_a_counter_that_moved_by_a_few_of_its_steps_gives_no_scale():
    """Two minutes of load and three of idle are 131 C or 36 mAh: 18 steps of 2 mAh, too few to tell 10 % for sure."""
    gauge = found(replace(Dialect(), charge_quantum=2000))
    assert (gauge.charge_ratio, gauge.refused) == (None, "")
    assert gauge.charge_note.endswith("of its steps, 20 are needed")
    assert gauge.options is not None
    assert "scale" not in gauge.options
    none = found(replace(Dialect(), charge_quantum=10**9))
    assert none.charge_note == "the charge counter was not read"  # it stands at 0, which counts nothing


def test_a_counter_that_contradicts_the_current_is_refused():
    gauge = found(replace(Dialect(gain=0.7), charge_quantum=1))
    assert gauge.refused.startswith("charge_contradicts: the charge counter moved by -")
    assert gauge.options is None


@pytest.mark.parametrize(
    ("dialect", "more", "code"),
    [
        (Dialect(stuck=0), {}, "step_not_seen: it read"),
        (Dialect(stuck=-976), {}, "step_not_seen: it read"),
        (Dialect(stuck=-(2**31)), {}, "not_read"),
        (Dialect(noise_a=3.0), {}, "step_not_seen: the step"),
        (Dialect(update_s=60.0), {}, "step_not_seen: "),
        (Dialect(), {"plugged": 1}, "plugged"),
        (Dialect(), {"status": "Charging"}, "plugged"),
        (Dialect(), {"status": "Full"}, "plugged"),
        (Dialect(volts=1e9), {}, "no_voltage"),
        (Dialect(gain=0.05), {}, "implausible_step"),
        (Dialect(gain=9.0), {}, "implausible_step"),
    ],
)
def test_a_gauge_that_does_not_tell_is_refused_with_its_reason(dialect, more, code):
    gauge = found(dialect, **more)
    assert gauge.refused.startswith(code)
    assert gauge.options is None
    assert gauge.charge_ratio is None


def test_trap_7_what_a_cable_gives_is_not_in_the_battery_even_where_no_supply_says_so():
    """On a cable nobody reports, the battery is charged at idle: the step is there, the level is not the phone's."""
    made = streams(Dialect(), SPAN)
    current = made[0]
    charged = [b"%d\n" % (int(raw) + 400_000) for raw in current.readings.raw]  # 0.4 A flow in
    r = current.readings
    made[0] = replace(current, readings=Readings.of(r.t0_ns, r.t1_ns, r.err, charged))
    gauge = judge(Recorded("gauge", "power_supply", made, {}), SPAN)
    assert gauge.refused.startswith("charging: at idle the current flows the other way")


def test_trap_8_a_status_that_lies_does_not_hide_a_gauge_whose_supplies_are_off():
    """Limited to 80 %, a phone says "charging" on its battery; that no supply is online is the better witness."""
    assert found(Dialect(), status="Charging", plugged=0).refused == ""


def test_trap_3_a_magnitude_near_zero_decides_nothing():
    """976 uA of a phone that is fed past its battery would pass for 976 mA by size; without a step it is nothing."""
    for raw in (976, -976, 5000, -5000):
        assert found(Dialect(stuck=raw)).options is None
    flips = streams(Dialect(), SPAN)
    r = flips[0].readings
    noise = [b"%d\n" % (5000 if (n // 10) % 2 else -5000) for n in range(len(r))]  # a full phone on USB (Pixel 6a)
    flips[0] = replace(flips[0], readings=Readings.of(r.t0_ns, r.t1_ns, r.err, noise))
    assert judge(Recorded("gauge", "power_supply", flips, {}), SPAN).refused.startswith("step_not_seen")


def test_the_options_of_the_profile_do_not_lead_it():
    """A profile that is wrong in every option is what calibration is for."""
    wrong = {"current_unit": "A", "discharge_sign": 1, "scale": 7.5, "calibration": "old"}
    gauge = found(Dialect(unit="mA", noise_a=0.0), options=wrong)
    assert gauge.options == found(Dialect(unit="mA", noise_a=0.0)).options


def test_a_second_battery_is_not_taken_for_the_first():
    """Two nodes of one phone with opposite signs (a Pixel 5's): each is judged by the supply its profile names."""
    first, second = streams(Dialect(), SPAN), streams(Dialect(sign=1), SPAN)
    renamed = [replace(s, path=s.path.replace("/battery/", "/bms/"), number=s.number + 20) for s in second]
    renamed[3] = replace(second[3], path="/sys/class/power_supply/bms/type", number=40)
    for supply, sign in (("battery", -1), ("bms", 1)):
        gauge = judge(Recorded("g", "power_supply", first + renamed, {"supply": supply}), SPAN)
        assert gauge.refused == ""
        assert gauge.options is not None
        assert gauge.options["discharge_sign"] == sign


@given(
    st.lists(st.binary(max_size=12) | st.integers(-(2**40), 2**40).map(lambda n: b"%d\n" % n), min_size=0, max_size=60),
    st.sampled_from(["current_now", "voltage_now", "charge_counter", "status"]),
)
def test_any_bytes_give_a_gauge_or_a_reason(raw, name):
    spans = windows(2, 2)
    made = streams(Dialect(), spans, tail_s=1)
    t = np.arange(len(raw), dtype=np.int64) * (SECOND // 8)
    hostile = Readings.of(t, t, np.zeros(len(t), np.int32), raw)
    bad = Stream(0, "b", "file", f"/sys/class/power_supply/battery/{name}", "ok", 0, hostile)
    gauge = judge(Recorded("g", "power_supply", [*(s for s in made if not s.path.endswith(name)), bad], {}), spans)
    assert bool(gauge.refused) != bool(gauge.options)


def test_only_readers_with_a_unit_and_a_sign_are_gauges():
    assert is_gauge("power_supply")
    assert not is_gauge("rapl")
