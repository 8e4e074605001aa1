"""Counters: wraps undone, resets told, gaps kept as gaps."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import SECOND, phase, series
from hypothesis import given
from hypothesis import strategies as st

from meltbench.measure.counters import Unwrapper, difference
from meltbench.measure.digest import digest
from meltbench.measure.energy import energy, rail_of, window

RANGE_J = 65532.610987


def unwrap(one, max_rate=None, block=7):
    """The counter and its line, taken in blocks."""
    counter = Unwrapper(one.wrap, max_rate)
    lines = []
    for at in range(0, len(one), block):
        arrays = {name: getattr(one, name)[at : at + block] for name in ("t0_ns", "t1_ns", "value", "status")}
        lines.append(counter.add(replace(one, **arrays))[1])
    counter.value = np.concatenate(lines)
    return counter


def test_trap_25_rapl_wrap_is_not_reset():
    t = np.arange(0, 20, 0.1)
    raw = (RANGE_J - 100 + 20 * t) % RANGE_J
    counter = unwrap(series("rapl.package-0", t, raw, wrap=RANGE_J), max_rate=2000)
    assert (counter.wraps, len(counter.resets)) == (1, 0)
    assert counter.value[-1] - counter.value[0] == pytest.approx(20 * 19.9)


def test_trap_25_rapl_reset_is_not_wrap():
    t = np.arange(0, 20, 0.1)
    raw = np.where(t < 10, 30000 + 20 * t, 20 * (t - 10))
    one = series("rapl.package-0", t, raw, wrap=RANGE_J)
    counter = unwrap(one, max_rate=2000)
    assert (counter.wraps, len(counter.resets)) == (0, 1)
    assert energy(one, phase("run", 5, 15)).reason.startswith("counter_reset")
    assert energy(one, phase("run", 12, 15)).value == pytest.approx(60)


def test_a_fall_near_the_range_end_that_no_power_could_bridge_is_a_reset():
    one = series("rapl.package-0", [0, 0.1, 0.2], [55000, 55001, 3], wrap=RANGE_J)
    assert len(unwrap(one, max_rate=2000).resets) == 1
    assert unwrap(one).wraps == 1


def test_perun_trap_equal_values_are_no_wrap():
    counter = unwrap(series("c", [0, 1, 2, 3], [5, 5, 5, 6], wrap=RANGE_J))
    assert (counter.wraps, len(counter.resets), counter.value.tolist()) == (0, 0, [5, 5, 5, 6])


def test_a_pause_long_enough_to_hide_a_wrap_is_a_reset():
    one = series("c", [0, 1, 40, 41], [0, 100, 200, 300], wrap=RANGE_J)
    assert unwrap(one, max_rate=2000).resets == [(SECOND, 40 * SECOND)]
    assert len(unwrap(one, max_rate=200).resets) == 0


def test_codecarbon_trap_a_read_error_adds_nothing():
    t = np.arange(0, 10, 0.1)
    raw = 1000 + 15 * t
    raw[40:45] = np.nan
    one = series("rapl.package-0", t, raw, wrap=RANGE_J)
    assert energy(one, phase("run", 1, 9)).value == pytest.approx(120)


def test_a_counter_without_a_range_that_falls_was_reset():
    assert len(unwrap(series("c", [0, 1, 2], [5, 6, 2])).resets) == 1


def test_differences_of_a_counter_that_may_stand_still():
    counter = digest(series("cpu", [0, 1, 2, 3], [5, 5, 5, 6], unit="s"))
    assert difference(counter, 0, 2 * SECOND) == 0
    assert difference(counter, 0, round(2.5 * SECOND)) == pytest.approx(0.5)
    assert difference(counter, 0, 4 * SECOND).startswith("low_coverage")
    assert difference(digest(series("cpu", [0], [np.nan], unit="s")), 0, 1) == "no readable sample"
    assert difference(digest(series("cpu", [0, 1, 2], [5, 1, 2], unit="s")), 0, 2 * SECOND).startswith("counter_reset")


@given(
    st.lists(st.floats(0, 100), min_size=2, max_size=60),
    st.floats(0, RANGE_J - 1),
    st.sets(st.integers(0, 59), max_size=10),
)
def test_unwrapping_gives_back_what_was_added(steps, start, lost):
    truth = start + np.concatenate([[0], np.cumsum(steps)])
    raw = truth % RANGE_J
    raw[[i for i in lost if i < len(raw)]] = np.nan
    good = np.isfinite(raw)
    counter = unwrap(series("c", np.arange(len(raw)) * 0.1, raw, wrap=RANGE_J))
    assert len(counter.resets) == 0
    if good.any():
        assert np.allclose(np.diff(counter.value), np.diff(truth[good]), atol=1e-6)


@given(
    st.lists(st.tuples(st.integers(-(2**62), 2**62), st.floats(allow_nan=True, allow_infinity=True)), max_size=20),
    st.one_of(st.none(), st.floats(0.001, 1e9)),
    st.integers(-(2**62), 2**62),
    st.integers(0, 2**40),
)
def test_any_stamps_and_values_give_a_number_or_a_reason(samples, wrap, t0, length):
    with np.errstate(all="ignore"):
        one = series("c", [0] * len(samples), [v for _, v in samples], wrap=wrap)
        one.t0_ns[:] = one.t1_ns[:] = [t for t, _ in samples]
        found = energy(one, phase("run", t0 / SECOND, (t0 + length) / SECOND))
    assert (found.value is None) == (found.reason is not None)


@pytest.mark.parametrize("jump_j", [100, 5_000, 262_000])
def test_a_counter_that_jumps_by_more_than_the_machine_can_draw_gives_no_energy_over_the_jump(jump_j):
    t = np.arange(0, 60, 0.097)
    one = series("rapl.package-0", t, 1000 + 15 * t + np.where(t > 40, jump_j, 0), wrap=RANGE_J * 8)
    counter = unwrap(one, max_rate=60)
    assert len(counter.resets) == 1
    assert counter.value[-1] - counter.value[0] == pytest.approx(15 * 59.946, rel=0.01)
    rail = rail_of(digest(one, most_w=60))
    assert window(rail, 10 * SECOND, 50 * SECOND).reason.startswith("counter_reset")
    assert window(rail, 10 * SECOND, 30 * SECOND).energy_j == pytest.approx(300)


@given(
    st.floats(0.005, 2), st.floats(0.01, 120), st.floats(1e-4, 4000), st.floats(0.5, 60), st.integers(1, 40), st.data()
)
def test_a_counter_that_publishes_seldom_or_in_coarse_steps_does_not_jump(period, update, quantum, watts, block, data):
    """What it shows in one reading was drawn since its last one, however coarse: no power below the limit is."""
    start = data.draw(st.floats(0, 1))
    t = start + np.arange(0, 400) * period
    shown = np.floor(np.floor(t / update) * update * watts / quantum) * quantum
    assert unwrap(series("meter.energy", t, shown), max_rate=max(60.0, 2 * quantum / update), block=block).resets == []
