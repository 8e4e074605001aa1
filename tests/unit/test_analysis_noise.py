"""Noise floors: what was put in comes out, its interval covers, and what it leaves to be seen is what tests find."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.analysis import noise
from meltbench.analysis.contrast import mann_whitney
from meltbench.analysis.noise import noise_floor

ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("123"), st.floats(1, 2) | st.sampled_from([None, 0.0, math.nan])),
    max_size=40,
)


def runs(seed, cells=6, nights=10, each=5, within=0.02, between=0.01, odd=0.0):
    """Runs of a device: of so many cells, nights and runs a night, with known standard deviations of their logs."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(3, 1, (cells, 1, 1)) + between * rng.standard_normal((cells, nights, 1))
    logs = levels + within * rng.standard_normal((cells, nights, each))
    logs += np.where(rng.random(logs.shape) < odd, rng.uniform(0.1, 0.5, logs.shape), 0)
    return [
        (f"cell {c}", f"night {n:02d}", float(math.exp(logs[c, n, r])))
        for c, n, r in np.ndindex(*logs.shape)
    ]  # fmt: skip


def covered(truth, found):
    return found.lo <= truth <= found.hi


@pytest.mark.parametrize(("cells", "nights", "each"), [(1, 1, 5), (1, 1, 20), (3, 2, 5), (6, 10, 5), (20, 10, 2)])
def test_the_scatter_of_runs_comes_out(cells, nights, each):
    found = [noise_floor(runs(seed, cells, nights, each)).within for seed in range(120)]
    assert np.median([one.value for one in found]) == pytest.approx(0.02, rel=0.1)
    assert sum(covered(0.02, one) for one in found) >= 0.88 * 120
    assert (found[0].n, found[0].clusters) == (cells * nights * each, cells * nights)


@pytest.mark.parametrize(("cells", "nights", "each"), [(5, 5, 5), (6, 10, 4), (20, 10, 2)])
def test_what_nights_add_is_told_apart(cells, nights, each):
    found = [noise_floor(runs(seed, cells, nights, each, between=0.02)).between for seed in range(120)]
    assert np.median([one.value for one in found]) == pytest.approx(0.02, rel=0.1)
    assert sum(covered(0.02, one) for one in found) >= 0.88 * 120
    assert (found[0].n, found[0].clusters) == (cells * (nights - 1), cells)


def test_a_median_of_two_runs_is_their_mean():
    found = [noise_floor(runs(seed, 40, 10, 2, within=0.04, between=0.02)).between.value for seed in range(40)]
    assert np.median(found) == pytest.approx(0.02, rel=0.1)


def test_what_is_known_badly_of_runs_is_known_badly_of_nights():
    found = []
    for seed in range(120):
        once = runs(seed, 20, 10, 1, between=0.02)
        found.append(noise_floor([*once, *[("r", night, v) for _, night, v in runs(seed, 1, 1, 5)]]).between)
    assert sum(covered(0.02, one) for one in found) >= 0.9 * 120


def test_cells_that_scatter_differently_widen_the_interval():
    alike = noise_floor(runs(0, 20, 1, 20)).within
    other = noise_floor([run for c in range(20) for run in named(c, runs(c, 1, 1, 20, within=0.005 * 1.15**c))]).within
    assert (other.hi - other.lo) / other.value > 2 * (alike.hi - alike.lo) / alike.value


def named(number, rows):
    return [(f"{number}", night, value) for _, night, value in rows]


def test_a_night_of_many_runs_does_not_outweigh_many_nights():
    many = named("many", runs(0, 1, 1, 40, within=0.05))
    assert noise_floor([*many, *runs(0, 6, 10, 2, within=0.01)]).within.value < 0.025


def test_nights_that_add_nothing_add_nothing():
    found = [noise_floor(runs(seed, between=0.0)).between for seed in range(60)]
    assert sum(one.value == 0 for one in found) >= 20
    assert sum(one.lo == 0 for one in found) >= 0.9 * 60
    assert all(one.hi < 0.02 for one in found)


def test_odd_runs_and_steps_matter_little():
    plain, odd = noise_floor(runs(1)), noise_floor(runs(1, odd=0.05))
    assert odd.within.value == pytest.approx(plain.within.value, rel=0.25)
    assert odd.between.value < 0.02
    stepped = [(cell, night, value * (1.2 if night >= "night 05" else 1)) for cell, night, value in runs(1)]
    assert noise_floor(stepped).within.value == pytest.approx(plain.within.value)
    assert noise_floor(stepped).between.value == pytest.approx(plain.between.value, rel=0.4)


def test_cells_are_never_taken_together():
    rows = [("a", "1", 10.0), ("a", "1", 10.0), ("a", "2", 10.0), ("b", "1", 90.0), ("b", "1", 90.0), ("b", "3", 90.0)]
    found = noise_floor(rows)
    assert found.within.value == found.between.value == 0
    assert found.advice is None


def test_pairs_of_runs_are_shamos_estimator():
    found = noise_floor([("a", "1", math.exp(x)) for x in (0.0, 0.01, 0.03, 0.07)])  # differences 1 2 3 4 6 7
    assert found.within.value == pytest.approx(0.035 / 0.953873)


@pytest.mark.parametrize("n", noise.ARMS)
def test_what_can_be_detected_is_what_the_exact_test_finds(n):
    rng, times = np.random.default_rng(n), 600
    (increase,) = (found.value for arm, found in noise_floor(runs(0, 20, 10)).detectable if arm == n)
    sigma = noise_floor(runs(0, 20, 10)).within.value
    first = sigma * rng.standard_normal((times, n))
    second = sigma * rng.standard_normal((times, n)) + math.log1p(increase)
    found = sum(mann_whitney(a, b).p < 0.05 for a, b in zip(first.tolist(), second.tolist(), strict=True))
    assert found / times == pytest.approx(0.8, abs=0.05)


def test_a_device_that_cannot_show_3_percent_is_told_what_to_do():
    quiet, loud = noise_floor(runs(0, within=0.018)), noise_floor(runs(0, within=0.05))
    assert [arm for arm, _ in loud.detectable] == [5, 8, 10]
    least = dict(loud.detectable)
    assert least[5].value > least[8].value > least[10].value
    assert all(one.lo < one.value < one.hi for one in least.values())
    assert dict(quiet.detectable)[8].value < 0.03
    assert quiet.advice is None
    assert loud.advice == (
        "runs scatter by 5.1% within a night, so 8 an arm show 8.2% at the least: 3% takes 50 an arm, or a device that "
        "is cooled, charged and left alone"
    )
    barely = [(str(c), "1", math.exp(sign * 0.0192 * 0.953873 / 2)) for c in range(10) for sign in (1, -1)]
    assert "show 3.0% at the least: 3% takes 9 an arm" in noise_floor(barely).advice
    assert "3% takes more than 10,000 an arm" in noise_floor(runs(0, within=2.0)).advice


def test_what_is_not_there_is_no_zero():
    none = noise_floor([])
    assert (none.within.value, none.between.value, none.advice) == (None, None, None)
    assert all(one.value is None and one.reason == none.within.reason for _, one in none.detectable)
    single = noise_floor([("a", "1", 1.0), ("a", "2", 1.1), ("b", "1", 5.0)])
    assert single.within.reason == "no_repeats: no cell has two runs in one night"
    assert single.between.reason == single.within.reason
    one_night = noise_floor([("a", "1", 1.0), ("a", "1", 1.1), ("b", "2", 5.0)])
    assert one_night.within.value > 0
    assert one_night.between.reason == "one_night: no cell has runs in two nights"
    bad = noise_floor([("a", "1", value) for value in (None, math.nan, math.inf, 0.0, -1.0, 2.0, 2.0)])
    assert (bad.left_out, bad.within.n) == (5, 2)


def test_two_runs_have_no_interval():
    found = noise_floor([("a", "1", 1.0), ("a", "1", 1.1), ("a", "2", 1.2)])
    assert (found.within.lo, found.within.hi, found.between.hi) == (None, None, None)
    assert found.within.value == pytest.approx(math.log(1.1) / 0.953873)
    assert found.between.value is not None
    wild = noise_floor([("a", "1", 1e-300), ("a", "1", 1e300), ("a", "1", 1.0)])
    assert all(math.isfinite(one.value) for _, one in wild.detectable)


def test_many_runs_of_one_night_are_not_all_paired():
    found = noise_floor(runs(0, 1, 1, 4000)).within
    assert found.value == pytest.approx(0.02, rel=0.05)
    assert covered(0.02, found)
    assert found.clusters == 4000 / 50
    assert noise_floor(runs(0, 1, 1, 4000)[::-1]).within == found


@given(ROWS, st.randoms(), st.floats(0.01, 100))
@settings(max_examples=60)
def test_neither_order_nor_unit_matters(rows, random, factor):
    found = noise_floor(rows)
    random.shuffle(rows)
    assert noise_floor(rows) == found
    assert found.left_out == sum(value is None or not value > 0 for _, _, value in rows)
    other = noise_floor([(cell, night, value and value * factor) for cell, night, value in rows])
    for mine, its in ((found.within, other.within), (found.between, other.between)):
        assert (its.value is None) == (mine.value is None)
        if mine.value is not None:
            assert its.value == pytest.approx(mine.value, abs=1e-7)
        if mine.lo is not None:
            assert mine.lo <= mine.value <= mine.hi
