"""Intervals are what textbooks say, cover what they promise, and come out the same every time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.analysis import stats
from meltbench.errors import InternalError

MARKS = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)
POSITIVE = st.floats(0.01, 1e4)


def test_quantiles_are_students():
    assert stats.t_quantile(1) == pytest.approx(12.7062, abs=1e-4)
    assert stats.t_quantile(9) == pytest.approx(2.26216, abs=1e-5)
    assert stats.t_quantile(math.inf) == pytest.approx(1.959964, abs=1e-6)


def test_wilson_is_wilsons():
    found = stats.proportion(81, 263)  # the example of Newcombe (1998), Statistics in Medicine 17
    assert (found.value, found.lo, found.hi) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)
    assert found.se == pytest.approx(math.sqrt(0.3080 * 0.6920 / 262), abs=1e-5)
    assert (stats.proportion(0, 10).lo, stats.proportion(10, 10).hi) == (0.0, 1.0)
    assert stats.proportion(0, 10).hi == pytest.approx(0.2775, abs=1e-4)
    assert stats.proportion(0, 10).value == 0.0
    assert stats.proportion(0, 10).se is stats.proportion(10, 10).se is None


def test_nothing_is_no_number():
    assert stats.proportion(0, 0).value is None
    assert stats.mean([]).value is None
    assert stats.paired_accuracy([], []).value is None
    assert stats.ratio_of_means([], []).value is None
    assert stats.ratio_of_medians([], [1.0]).value is None
    one = stats.mean([3.0])
    assert (one.value, one.lo, one.se) == (3.0, None, None)
    assert stats.proportion(1, 1).se is None
    half = stats.proportion(0.5, 1)  # a part mark
    assert (half.value, half.se) == (0.5, None)
    assert 0.0 < half.lo < 0.5 < half.hi < 1.0
    assert stats.ratio_of_means([1.0], [2.0]).lo is None
    assert stats.ratio_of_medians([1.0], [2.0, 2.0]).lo is None
    for wrong in (
        lambda: stats.proportion(3, 2),
        lambda: stats.paired_accuracy([1], []),
        lambda: stats.paired_mean([], [1]),
    ):
        with pytest.raises(InternalError):
            wrong()
    with pytest.raises(InternalError):
        stats.cluster_sums([[1.0, 2.0]], ["a"])


def test_a_paired_difference_counts_the_items_on_which_they_differ():
    both = [1.0] * 50 + [0.0] * 30
    found = stats.paired_accuracy([*both, *[0.0] * 12, *[1.0] * 8], [*both, *[1.0] * 12, *[0.0] * 8])
    assert found.value == pytest.approx(0.04)
    assert found.se == pytest.approx(math.sqrt(20 - 16 / 100) / 100)
    assert found.lo < 0 < found.hi
    half = 1.959964 * math.sqrt((22 - 16 / 102) / 102**2)  # 13 and 9 of 102
    assert found.hi == pytest.approx(4 / 102 + half, rel=1e-5)
    alike = stats.paired_accuracy([1.0] * 20, [1.0] * 20)
    assert alike.value == 0.0
    assert alike.hi == pytest.approx(-alike.lo)
    assert alike.hi > 0.05, "no difference seen is not none there"
    parts = stats.paired_accuracy([0.5, 0.25, 1.0], [0.75, 0.5, 1.0])
    assert parts.value == pytest.approx(1 / 6)
    assert parts.method == "Bonett and Price, paired"
    # Three of four runs agree on all but one of sixteen items: that is not the same as knowing the others.
    nearly = stats.paired_accuracy([0.0] * 16, [0.25] + [0.0] * 15)
    assert nearly.hi > 0.1


def test_a_paired_mean_is_free_of_what_both_share():
    rng = np.random.default_rng(0)
    chunks = rng.normal(-3, 1, 50)
    found = stats.paired_mean(chunks.tolist(), (chunks - 0.1 + rng.normal(0, 0.01, 50)).tolist())
    assert found.lo < -0.1 < found.hi
    assert found.hi - found.lo < 0.01


@given(MARKS)
def test_an_interval_holds_its_value(marks):
    found = stats.proportion(sum(marks), len(marks))
    assert 0 <= found.lo <= found.value <= found.hi <= 1
    assert found.hi > found.lo


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=2, max_size=40), st.floats(1e-3, 1e3))
def test_a_ratio_scales_with_its_unit(pairs, scale):
    above, below = zip(*pairs, strict=True)
    found, scaled = stats.ratio_of_means(above, below), stats.ratio_of_means([x * scale for x in above], below)
    assert (found.value is None) == (scaled.value is None)
    if found.value is not None:
        assert found.value == pytest.approx(sum(above) / sum(below))
        assert found.lo <= found.value * (1 + 1e-9)
        assert found.hi >= found.value * (1 - 1e-9)
        for a, b in ((found.value, scaled.value), (found.lo, scaled.lo), (found.hi, scaled.hi)):
            assert b == pytest.approx(a * scale, rel=1e-9)


def test_few_use_t_and_many_the_bootstrap_and_both_are_deterministic():
    rng = np.random.default_rng(1)
    for n, method in ((9, "t on the log ratio"), (10, "BCa bootstrap of clusters")):
        x, y = rng.uniform(1, 2, n).tolist(), rng.uniform(3, 4, n).tolist()
        assert stats.ratio_of_means(x, y).method == method
        assert stats.ratio_of_means(x, y) == stats.ratio_of_means(x, y)


def test_clusters_are_drawn_whole():
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 1, 30), rng.uniform(1, 2, 30)
    alone = stats.ratio_of_means(x.tolist(), y.tolist())
    # Every value five times over tells no more than once, where one says which belong together.
    copies, labels = np.repeat([x, y], 5, axis=1).tolist(), np.repeat(np.arange(30), 5).tolist()
    again = stats.ratio_of_means(*copies, labels)
    assert (again.lo, again.hi) == pytest.approx((alone.lo, alone.hi))
    assert (again.n, again.clusters) == (150, 30)
    fooled = stats.ratio_of_means(*copies)
    assert fooled.hi - fooled.lo < 0.6 * (alone.hi - alone.lo)


def test_what_goes_together_is_resampled_together():
    rng = np.random.default_rng(3)
    y = rng.uniform(1, 10, 60)
    found = stats.ratio_of_means((0.5 * y).tolist(), y.tolist())  # a ratio that no draw can change
    assert found.lo == pytest.approx(0.5)
    assert found.hi == pytest.approx(0.5)
    apart = stats.ratio_of_estimates(stats.mean((0.5 * y).tolist()), stats.mean(y.tolist()))
    assert apart.hi - apart.lo > 0.1


@pytest.mark.parametrize(("n", "least"), [(5, 0.92), (12, 0.92), (40, 0.92)])
def test_intervals_of_ratios_cover(n, least):
    rng = np.random.default_rng(n)
    true, hits, trials = 0.03012, 0, 200  # by four million questions; no closed form, for the marks are clipped
    for _ in range(trials):
        hard = rng.uniform(0, 1, n)  # hard questions cost more and are answered wrong more often
        cost = 10 + 20 * hard
        right = np.clip(1.2 - 1.2 * hard + rng.normal(0, 0.1, n), 0.01, None)
        found = stats.ratio_of_means(right.tolist(), cost.tolist())
        hits += found.lo <= true <= found.hi
    assert hits / trials >= least


def test_below_zero_there_is_no_ratio():
    assert "not_positive" in stats.ratio_of_means([1.0, 1.0], [1.0, -2.0]).reason
    assert "cannot be told" in stats.ratio_of_means([1.0] * 4, [1.0, -0.9, 1.1, -1.0]).reason
    assert "cannot be told" in stats.ratio_of_estimates(stats.mean([1.0, 1.1]), stats.mean([0.1, 5.0])).reason
    assert stats.ratio_of_estimates(stats.mean([1.0, 1.1]), stats.missing("gone")).reason == "gone"
    assert stats.ratio_of_medians([1.0, 2.0], [0.0, 2.0]).value is None
    assert stats.ratio_of_estimates(stats.mean([1.0]), stats.mean([2.0, 2.1])).lo is None


def test_a_zero_above_is_a_real_zero_with_a_bound():
    found = stats.ratio_of_estimates(stats.proportion(0, 20), stats.mean([9.9, 10.0, 10.1]))
    assert (found.value, found.lo) == (0.0, 0.0)
    assert found.hi == pytest.approx(stats.proportion(0, 20).hi / 10, rel=0.05)
    few = stats.ratio_of_means([0.0, 0.0], [1.0, 1.1])
    assert (few.value, few.lo) == (0.0, None)


def test_mover_covers():
    rng, hits = np.random.default_rng(7), 0
    for _ in range(300):
        right, watts = int(rng.binomial(40, 0.6)), rng.normal(10, 2, 30).tolist()
        found = stats.ratio_of_estimates(stats.proportion(right, 40), stats.mean(watts))
        hits += found.lo <= 0.06 <= found.hi
    assert hits / 300 >= 0.93


def test_arms_of_runs():
    few = stats.ratio_of_medians([10.1, 9.9, 10.0], [5.0, 5.1, 4.9])
    assert few.value == pytest.approx(2.0)
    assert few.method == "t on the log ratio of medians"
    assert few.lo < 2 < few.hi
    rng = np.random.default_rng(4)
    many = stats.ratio_of_medians(rng.normal(10, 1, 20).tolist(), rng.normal(5, 0.5, 20).tolist())
    assert many.method == "bootstrap of the medians of both arms' runs"
    assert many.lo < 2 < many.hi
    same = stats.ratio_of_medians([3.0, 3.0], [3.0, 3.0])
    assert (same.lo, same.value, same.hi) == (1.0, 1.0, 1.0)


@settings(max_examples=50, deadline=None)
@given(*[st.lists(POSITIVE, min_size=2, max_size=14)] * 2, st.floats(1e-3, 1e3))
def test_a_ratio_of_arms_is_that_of_their_medians_and_lies_in_its_interval(above, below, scale):
    found = stats.ratio_of_medians(above, below)
    assert found.value == pytest.approx(np.median(above) / np.median(below))
    assert found.lo <= found.value <= found.hi
    scaled = stats.ratio_of_medians([x * scale for x in above], below)
    assert (scaled.lo, scaled.hi) == pytest.approx((found.lo * scale, found.hi * scale), rel=1e-6)


# Runs scatter normally, or on one side alone, or a tenth of them is far off.
SCATTER = {
    "normal": (lambda rng, n: rng.normal(100, 5, n), 100.0),
    "one-sided": (lambda rng, n: 10 + rng.exponential(2, n), 10 + 2 * math.log(2)),
    "outliers": (lambda rng, n: np.where(rng.random(n) < 0.1, 60.0, rng.normal(100, 2, n)), 100 - 2 * 0.13971),
}


@pytest.mark.parametrize("scatter", SCATTER)
@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 9), (12, 12)])
def test_intervals_of_ratios_of_medians_cover(scatter, n, m):
    draw, median = SCATTER[scatter]
    rng, hits, trials = np.random.default_rng(n), 0, 300
    for _ in range(trials):
        found = stats.ratio_of_medians(draw(rng, n).tolist(), (2 * draw(rng, m)).tolist())
        hits += found.lo <= 0.5 <= found.hi
    assert hits / trials >= 0.935
    far = draw(np.random.default_rng(0), 10**6)
    assert np.median(far) == pytest.approx(median, rel=1e-3)  # the median that is held to be the true one


@pytest.mark.parametrize("n", [10, 11])
def test_medians_drawn_by_rank_are_those_of_resampling_runs(n):
    rng = np.random.default_rng(n)
    a, b = (np.exp(0.2 * rng.normal(size=n)) for _ in range(2))
    found = stats.ratio_of_medians(a.tolist(), b.tolist())
    drawn = [np.median(rng.choice(x, (40_000, n)), axis=1) for x in (a, b)]
    lo, hi = np.quantile(drawn[0] / drawn[1], [0.025, 0.975])
    assert (found.lo, found.hi) == pytest.approx((lo, hi), rel=0.02)
