"""What lies between the samples of a gauge: means that trail behind, copies, old values, and sampling in step."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import SECOND, phase, request, series
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.measure.beats import beats
from meltbench.measure.digest import Edges, digest
from meltbench.measure.energy import energy, prepare, rail_of, window

FINE = 0.0005


def mean_before(power, t, window_s):
    """The mean of a power over the time before each moment, from its own fine integral."""
    grid = np.arange(-window_s - 1, t.max() + 1, FINE)
    joules = np.concatenate([[0], np.cumsum(power(grid[:-1] + FINE / 2)) * FINE])
    at = np.interp(t, grid, joules)
    return (at - np.interp(t - window_s, grid, joules)) / window_s


def trailing(power, window_s=1.0, period=0.0097, seconds=30.0):
    t = np.arange(0.003, seconds, period)
    made = series("gpu.power_average", t, mean_before(power, t, window_s), kind="gauge", unit="W", klass="C")
    return replace(made, window_s=window_s)


def prefill_then_decode(t):
    """Idle 2 W; from 10 s on 2 s of prefill at 6 W, then 2 s of decode at 5 W."""
    return np.where((t >= 10) & (t < 12), 6.0, np.where((t >= 12) & (t < 14), 5.0, 2.0))


def true_energy(power, t0, t1):
    x = np.arange(t0, t1, FINE) + FINE / 2
    return float(power(x).sum() * FINE)


def without_gain(found):
    """The rest of u, k = 2."""
    return np.sqrt(max(found.u_k2**2 - (2 * 0.10 / np.sqrt(3) * found.value) ** 2, 0))


def test_trap_36_a_mean_of_a_second_leaks_five_per_cent_of_prefill_into_two_seconds_of_decode():
    taken_as_now = energy(replace(trailing(prefill_then_decode), window_s=0.0), phase("decode", 12, 13.9))
    assert taken_as_now.value / true_energy(prefill_then_decode, 12, 13.9) == pytest.approx(1.05, abs=0.005)


@pytest.mark.parametrize(("name", "t0", "t1"), [("decode", 12, 14), ("prefill", 10, 12), ("run", 10, 14)])
def test_trap_36_a_mean_that_stands_for_its_middle_is_within_its_u(name, t0, t1):
    found, truth = energy(trailing(prefill_then_decode), phase(name, t0, t1)), true_energy(prefill_then_decode, t0, t1)
    assert abs(found.value - truth) <= without_gain(found) + 0.001 * truth
    assert abs(found.value / truth - 1) < 0.06
    assert without_gain(found) < 0.15 * truth


def test_trap_36_a_step_at_an_edge_moves_an_eighth_of_the_mean():
    def step(t):
        return np.where(t < 15, 2.0, 10.0)

    found = energy(trailing(step), phase("decode", 15, 25))
    assert found.value - 100 == pytest.approx(-8 / 8, rel=0.02)
    assert without_gain(found) == pytest.approx(2 / np.sqrt(2), rel=0.05)


def test_trap_36_a_prefill_much_shorter_than_the_mean_leaks_more_than_its_height_tells():
    def spike(t):
        return np.where((t >= 10) & (t < 10.2), 40.0, np.where((t >= 10.2) & (t < 20), 6.0, 2.0))

    found = energy(trailing(spike), phase("run", 10, 20))
    truth = true_energy(spike, 10, 20)
    assert truth - found.value > 2
    assert truth - found.value <= without_gain(found)


def test_trap_36_a_window_shorter_than_two_means_is_refused_and_so_is_a_mean_of_unknown_length():
    one = trailing(prefill_then_decode)
    short = energy(one, phase("decode", 12, 13.9))
    assert short.reason == "trailing_average: gpu.power_average is a mean of 1 s, the window has 1.9 s, 2 s are needed"
    unknown = energy(replace(one, window_s=None), phase("run", 5, 25))
    assert unknown.reason.startswith("trailing_average: gpu.power_average is a mean of the time before each reading")
    assert (short.value, unknown.value) == (None, None)


def test_trap_36_idle_power_is_taken_where_no_mean_reaches_the_run():
    from meltbench.measure.energy import mean_power

    watts, _, _ = mean_power(prepare(trailing(prefill_then_decode)), 14 * SECOND, 29 * SECOND)
    assert watts == pytest.approx(2, abs=1e-6)


def ten_a_second(share=0.3, high=5.8, low=4.3):
    """Ten tokens a second from 10 s to 70 s, each a burst of 30 ms."""

    def power(t):
        inside = (t >= 10) & (t < 70)
        return np.where(inside, np.where((t * 10) % 1 < share, high, low), 2.0)

    asked = request(0, 9.9, 70, ttft_s=0.1, token_t_ns=tuple(round((10 + k / 10) * 1e9) for k in range(601)))
    return power, asked


def gauge_at(power, period, start, seconds=80.0):
    t = np.arange(start, seconds, period)
    rng = np.random.default_rng(7)
    return series("board", t, power(t) + rng.normal(0, 0.01, len(t)), kind="gauge", unit="W", klass="C")


def seen_with_tokens(one, asked, span):
    return window(rail_of(digest(one, Edges.of([(span.t0_ns, span.t1_ns)], span, (), beats([asked])))), *_ns(span))


def _ns(span):
    return span.t0_ns, span.t1_ns


def test_trap_35_a_gauge_read_at_every_token_is_off_by_a_tenth_however_long_and_is_refused():
    power, asked = ten_a_second()
    for seconds in (10, 60):
        span = phase("decode", 10, 10 + seconds)
        truth = true_energy(power, 10, 10 + seconds)
        found = [
            (energy(one, span).value / truth - 1, seen_with_tokens(one, asked, span))
            for start in np.arange(0.0013, 0.1, 0.0049)
            for one in (gauge_at(power, 0.1, start),)
        ]
        assert 0.11 < np.std([error for error, _ in found]) < 0.16
        assert {w.energy_j for _, w in found} == {None}
        why = "aliased_gauge: values every 0.1 s, tokens every 0.1 s: it sees one place of each, and not the rest"
        assert {w.reason for _, w in found} == {why}


def test_trap_35_a_period_that_shares_nothing_with_the_tokens_is_within_one_per_cent():
    power, asked = ten_a_second()
    span, truth = phase("decode", 10, 20), true_energy(power, 10, 20)
    for start in np.arange(0.0013, 0.097, 0.0049):
        found = seen_with_tokens(gauge_at(power, 0.097, start), asked, span)
        assert found.energy_j == pytest.approx(truth, rel=0.01)
        assert abs(found.energy_j - truth) <= 2 * np.hypot(found.u_edge_j, found.u_alias_j)


@pytest.mark.parametrize("period", [0.05, 0.2, 0.15, 0.0333333333])
def test_trap_35_multiples_and_parts_of_the_token_period_are_no_better(period):
    power, asked = ten_a_second()
    found = seen_with_tokens(gauge_at(power, period, 0.011), asked, phase("decode", 10, 70))
    assert found.reason.startswith("aliased_gauge: ")


@pytest.mark.parametrize("period", [0.101, 0.0985, 0.093])
def test_trap_35_what_a_slow_beat_leaves_out_of_a_short_window_is_in_u(period):
    power, asked = ten_a_second()
    inside = []
    for start in np.arange(0.0013, period, 0.0031):
        for t0 in (10, 23.7, 41.2):
            found = seen_with_tokens(gauge_at(power, period, start), asked, phase("decode", t0, t0 + 3))
            if found.energy_j is not None:
                off = abs(found.energy_j - true_energy(power, t0, t0 + 3))
                inside.append(off <= 2 * np.hypot(found.u_edge_j, found.u_alias_j))
    assert not inside or np.mean(inside) > 0.9


def test_trap_35_a_mean_over_a_whole_token_cannot_be_in_step():
    power, asked = ten_a_second()
    t = np.arange(0.011, 80, 0.1)
    one = series("board", t, mean_before(power, t, 0.1) + 0.001 * (np.arange(len(t)) % 7), kind="gauge", unit="W")
    span = phase("decode", 10, 70)
    found = seen_with_tokens(replace(one, window_s=0.1, klass="C"), asked, span)
    assert found.energy_j == pytest.approx(true_energy(power, 10, 70), rel=0.005)


def test_trap_35_requests_that_come_as_often_as_a_slow_gauge_is_read_are_refused_too():
    def power(t):
        return np.where(((t - 10) % 2 < 0.5) & (t >= 10) & (t < 90), 18.0, 4.0)

    asked = [request(i, 10 + 2 * i, 11.9 + 2 * i) for i in range(40)]
    run = phase("run", 10, 90)
    for period, code in ((1.0, "aliased_gauge"), (0.97, None)):
        one = gauge_at(power, period, 0.7, 100)
        rail = rail_of(digest(one, Edges.of([_ns(run)], run, (), beats(asked))))
        assert (window(rail, *_ns(run)).reason or "").partition(":")[0] == (code or "")


def test_tokens_of_requests_that_overlap_are_one_beat_and_a_pause_is_none():
    both = [
        request(0, 0, 2, token_t_ns=tuple(SECOND + k * 10_000_000 for k in range(50))),
        request(1, 0.5, 2, token_t_ns=tuple(SECOND + k * 10_000_000 for k in range(80))),
        request(2, 9, 12, token_t_ns=(10 * SECOND, 10 * SECOND + 10_000_000)),
    ]
    tokens, sent = beats(both)
    assert (tokens.what, sent.what) == ("tokens", "requests")
    assert tokens.period_s == pytest.approx(0.01)
    assert (tokens.starts[1:] >= tokens.ends[:-1]).all()
    inside, place = tokens.places(np.array([SECOND - 1, SECOND + 2_500_000, 5 * SECOND, 10 * SECOND + 5_000_000]))
    assert inside.tolist() == [False, True, False, True]
    assert place.tolist() == pytest.approx([0, 0.25, 0, 0.5])
    assert beats([]) == ()
    assert [one.what for one in beats(both[:2])] == ["tokens", "requests"]


def slow(renewed=1.0, period=0.05, seconds=60.0, power=lambda t: np.where((t >= 20) & (t < 40), 9.0, 3.0)):
    """A gauge that is renewed once a second and read twenty times in it."""
    t = np.arange(0.003, seconds, period)
    held = np.floor((t - 0.0171) / renewed) * renewed + 0.0171
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.02, int(seconds / renewed) + 2)[np.unique(held, return_inverse=True)[1]]
    return series("battery", t, power(held) + noise, kind="gauge", unit="W", klass="C")


def test_trap_21_copies_are_no_samples_and_the_edges_know_how_far_apart_the_real_ones_are():
    one = slow()
    found = digest(one)
    assert found.period_s == pytest.approx(1.0, rel=0.01)
    assert 55 <= len(found.kept["t"]) <= 62
    copied, span = energy(one, phase("run", 20.4, 39.7)), phase("run", 20.4, 39.7)
    assert copied.value == pytest.approx(9 * 19.3, rel=0.02)
    assert copied.n == 20 or copied.n == 19
    exact = energy(slow(renewed=0.05), span)
    assert copied.u_k2 > exact.u_k2


def test_trap_21_constant_power_under_copies_keeps_its_energy_also_where_values_are_equal():
    t = np.arange(0, 60, 0.02)
    once_a_second = 6 + 0.5 * ((np.arange(60) // 3) % 2)  # three updates in a row find the same value
    one = series("total", t, np.repeat(once_a_second, 50), kind="gauge", unit="W", klass="C")
    assert energy(one, phase("run", 6, 54)).value == pytest.approx(48 * 6.25, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 1.1), st.floats(0.02, 0.09), st.floats(18, 22), st.floats(36, 42))
def test_the_u_of_a_slow_gauge_holds_its_error_wherever_the_edges_are(renewed, period, t0, t1):
    def power(t):
        return np.where((t >= 20) & (t < 40), 9.0, 3.0)

    found = energy(slow(renewed, period, power=power), phase("run", t0, t1))
    assert abs(found.value - true_energy(power, t0, t1)) <= without_gain(found) + 0.3


def test_what_a_value_may_be_old_by_is_in_u_where_power_steps():
    def power(t):
        return np.where((t >= 20) & (t < 40), 9.0, 3.0)

    t = np.arange(0.003, 60, 0.05)
    rng = np.random.default_rng(2)
    late = series("battery", t, power(t - 0.8) + rng.normal(0, 0.02, len(t)), kind="gauge", unit="W", klass="C")
    span, truth = phase("run", 20, 40), 180.0
    assert abs(energy(late, span).value - truth) > without_gain(energy(late, span))
    told = energy(replace(late, update_s=1.0), span)
    assert abs(told.value - truth) <= without_gain(told)


def test_trap_31_whole_watts_are_in_u():
    t = np.arange(0.003, 60, 0.05)
    coarse = series("plug", t, np.floor(7.6 + 0.9 * np.sin(t)), kind="gauge", unit="W", klass="C")
    found, truth = energy(coarse, phase("run", 10, 50)), true_energy(lambda x: 7.6 + 0.9 * np.sin(x), 10, 50)
    assert abs(found.value - truth) > 10
    assert abs(found.value - truth) <= without_gain(found)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_gauge_whose_clock_may_be_off_needs_samples_that_far_beyond_the_edges(share):
    one = replace(gauge_at(lambda t: 5 + np.sin(t), 0.0197, 10.0, 50.0), clock_bound_s=2.0)
    assert energy(one, phase("run", 10 + 2 * share, 40)).reason.startswith("low_coverage")
    assert energy(one, phase("run", 12 + share, 40)).value is not None
