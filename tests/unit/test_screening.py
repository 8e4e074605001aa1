"""Samples that cannot be true are marked; a sensor that is wrong, or stands still, gives no energy and says why."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from evidence_kit import digests, phase, series
from hypothesis import given
from hypothesis import strategies as st

from meltbench.measure.screening import Screen, most_w, screen_reasons, screened_total, without_refuted
from meltbench.measure.total import Designation, designated
from meltbench.records import IMPLAUSIBLE, OK, Measure, SourceStatus

T = np.arange(0, 40, 0.1)
RUN = phase("run", 10, 30)
NOISE = np.random.default_rng(7).normal(0, 0.1, len(T))
TRUE = 5 + NOISE


def power(value, name="ina.vdd_in.power", *, source="ina", **more):
    return series(name, T, value, kind="gauge", unit="W", source=source, scope="module", klass="C", **more)


def screened(*signals, limit_w=15.0, run=RUN):
    screen = Screen(limit_w, run)
    return [screen.take(one) for one in signals], screen.done()


def test_a_true_sensor_passes_untouched():
    signal = power(TRUE)
    (passed,), (found,) = screened(signal)
    assert passed is signal
    assert (found.refuted, found.counts, found.n) == ("", {"ok": 201}, 201)


def test_one_jump_is_marked_and_missing_and_bridged():
    values = np.where(np.abs(T - 20) < 0.04, 4000.0, TRUE)
    (passed,), (found,) = screened(power(values))
    assert np.flatnonzero(passed.status == IMPLAUSIBLE).tolist() == [200]
    assert np.isnan(passed.value[200])
    assert np.isfinite(np.delete(passed.value, 200)).all()
    assert found.refuted == ""
    total = designated([Designation("ina")], [SourceStatus("ina", "ok", 1, 400)], digests([passed], RUN))
    assert screened_total(total, [Designation("ina")], [found]) is total
    (reason,) = screen_reasons(total, [Designation("ina")], [found])
    assert (reason.code, reason.state) == ("bridged_readings", "degraded")
    assert reason.detail == "1 of 201 samples of ina.vdd_in.power are beyond 15 W"


@pytest.mark.parametrize(("factor", "words"), [(1e3, "about 1,000 times"), (1e6, "about 1,000,000 times")])
def test_trap_2_a_unit_that_is_wrong_is_called_that(factor, words):
    _, (found,) = screened(power(TRUE * factor))
    assert found.refuted == (
        f"implausible_power: 201 of 201 samples of ina.vdd_in.power are beyond 15 W, {words} too much: "
        "the unit of its profile looks wrong"
    )
    _, (midway,) = screened(power(np.where(T < 20, TRUE, TRUE * factor)))
    assert words in midway.refuted
    _, (odd,) = screened(power(TRUE * 1e12))
    assert "unit" not in odd.refuted


def test_beyond_counts_either_way():
    _, (found,) = screened(power(-TRUE * 1e3))
    assert found.refuted.startswith("implausible_power: 201 of 201")
    (passed,), (small,) = screened(power(-TRUE))  # a battery that is charged, or a sign: no matter of magnitude
    assert (passed.status == OK).all()
    assert small.refuted == ""


def test_no_energy_of_a_refuted_signal_and_no_other_total_in_its_stead():
    signals, found = screened(power(TRUE * 1e3), power(TRUE, "meter.power", source="meter"))
    named = [Designation("ina"), Designation("meter")]
    seen = [SourceStatus("ina", "implausible", 1, 400), SourceStatus("meter", "ok", 1, 400)]
    total = designated(named, seen, digests(signals, RUN))
    assert total.rail is not None  # what stands in for it would be taken for it
    refuted = screened_total(total, named, found)
    assert refuted.rail is None
    assert refuted.reason.startswith("implausible_power: ")
    assert screened_total(total, named[1:], found) is total
    rows = [Measure("energy_j", 7.0, "J", source=one.name, u_k2=1.0) for one in signals]
    bad, good = without_refuted(rows, found)
    assert (bad.value, bad.u_k2, bad.reason) == (None, None, found[0].refuted)
    assert good is rows[1]


def test_a_rail_that_the_total_does_not_take_refutes_nothing():
    signals, found = screened(power(TRUE), power(TRUE * 1e3, "ina.nc.power"))
    named = [Designation("ina", rails=("ina.vdd_in.power",))]
    total = designated(named, [SourceStatus("ina", "ok", 2, 800)], digests(signals, RUN))
    assert screened_total(total, named, found) is total
    assert screen_reasons(total, named, found) == []


def test_a_sensor_that_stands_still_in_the_run_gives_no_energy():
    frozen = np.where(T < 22, TRUE, TRUE[220])
    _, (found,) = screened(power(frozen))
    assert found.refuted.startswith("stale_sensor: ina.vdd_in.power stood still for 8 s, it changed every 1 readings")
    # The same of a register that is polled four times an update.
    slow = np.repeat(TRUE[:100], 4)
    _, (polled,) = screened(power(np.where(T < 18, slow, slow[180])))
    assert "changed every 4 readings" in polled.refuted


def test_trap_21_constant_power_is_no_frozen_sensor():
    steps = np.round(TRUE)  # whole watts: equal for long, and true
    for values in (np.full(len(T), 5.0), steps, np.where(T < 20, 5.0, 6.0), np.where(T < 15, TRUE, 0.0)):
        _, (found,) = screened(power(values))
        assert found.refuted == ""
    brief = np.where((T > 20) & (T < 21.5), 5.1, TRUE)
    assert screened(power(brief))[1][0].refuted == ""


@pytest.mark.parametrize(
    ("word", "code"),
    [("denied", "sensor_denied"), ("again", "sensor_gated"), ("gated", "sensor_gated"), ("absent", "sensor_unreadable"),
     ("error", "sensor_unreadable"), ("unparsed", "sensor_unreadable")],
)  # fmt: skip
def test_what_most_of_a_totals_samples_were_is_named(word, code):
    bad = T > 25
    values = np.where(bad, np.nan, TRUE)
    signals, found = screened(power(values, status=np.where(bad, word, "ok").tolist()))
    named = [Designation("ina")]
    total = designated(named, [SourceStatus("ina", "ok", 1, 400)], digests(signals, RUN))
    (reason,) = screen_reasons(total, named, found)
    assert (reason.code, reason.detail) == (code, f"50 of 201 samples of ina.vdd_in.power: {word}")
    lost = screen_reasons(designated(named, [], []), named, found)  # also where it gave no total at all
    assert [one.code for one in lost] == [code]


def test_only_what_lies_in_the_run_counts():
    jumpy = np.where(T < 10, 9999.0, TRUE)
    assert screened(power(jumpy))[1][0].refuted == ""
    assert screened(power(jumpy), run=None)[1][0].refuted.startswith("implausible_power: 100 of 400")


def test_other_signals_pass_by():
    heat = series("thermal.soc", T, np.full(len(T), 5e6), kind="gauge", unit="degC")
    counter = series("rapl.package-0.energy", T, 1e9 * T)
    passed, found = screened(heat, counter)
    assert passed == [heat, counter]
    assert [one.name for one in found] == ["rapl.package-0.energy"]


def test_more_than_the_machine_can_draw():
    assert most_w(15.0, ["NVIDIA"]) == 15.0
    assert most_w(None, []) < most_w(None, ["NVIDIA", "NVIDIA"])


VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 5.0]), min_size=1, max_size=60)


@given(VALUES, st.lists(st.integers(0, 60), max_size=4), st.booleans())
def test_blocks_give_what_the_whole_gives_whatever_the_values(values, cuts, inside):
    at = np.arange(len(values)) * 0.1
    run = phase("run", 1, 4) if inside else None
    whole = series("p.power", at, values, kind="gauge", unit="W")
    edges = sorted({min(cut, len(values)) for cut in cuts} | {0, len(values)})
    parts = [
        replace(whole, **{name: getattr(whole, name)[a:b] for name in ("t0_ns", "t1_ns", "value", "status")})
        for a, b in pairwise(edges)
    ]
    (one,), (found,) = screened(whole, run=run)
    pieces, (again,) = screened(*parts, run=run)
    # Sums of floats depend on the order in which they are made, in the last place.
    sums = {name: pytest.approx(getattr(found.signs, name)) for name in ("below_w", "above_w")}
    assert again == replace(found, signs=replace(found.signs, **sums))
    joined = np.concatenate([part.value for part in pieces])
    assert np.array_equal(joined, one.value, equal_nan=True)
    # What is left can be true, and nothing else was touched.
    kept = np.isfinite(one.value)
    assert (np.abs(one.value[kept]) <= 15).all()
    assert (one.value[kept] == np.asarray(values)[kept]).all()
    assert found.refuted == "" or found.refuted.partition(":")[0] in ("implausible_power", "stale_sensor")
