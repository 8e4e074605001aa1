"""Tests of difference are exact, intervals cover, and where nothing differs the false alarms are as many as stated."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from meltbench.analysis import contrast as of
from meltbench.analysis.stats import ratio_of_medians

Array = npt.NDArray[np.float64]
FEW_VALUES = st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0]), min_size=2, max_size=5)


def test_five_runs_an_arm_reach_0_0079_and_three_nothing() -> None:
    found = of.mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    assert found.p == pytest.approx(2 / 252)
    assert found.delta == 1.0
    assert of.floor_p(5, 5) == pytest.approx(found.p)
    assert [of.floor_runs(family) for family in (1, 2, 8)] == [4, 5, 6]
    assert of.mann_whitney([1, 2, 3], [4, 5, 6]).p == pytest.approx(0.1)


@settings(max_examples=60, deadline=None)
@given(FEW_VALUES, FEW_VALUES)
def test_with_ties_every_way_of_dealing_the_runs_is_counted(first: list[float], second: list[float]) -> None:
    pooled = [*first, *second]
    rank = {v: sum(w < v for w in pooled) + (pooled.count(v) + 1) / 2 for v in pooled}
    mean = len(first) * (len(pooled) + 1) / 2
    far = abs(sum(rank[v] for v in first) - mean)
    sums = [sum(rank[v] for v in each) for each in combinations(pooled, len(first))]
    found = of.mann_whitney(first, second)
    assert found.p == pytest.approx(sum(abs(one - mean) >= far - 1e-9 for one in sums) / len(sums))
    pairs = [(b > a) - (b < a) for a in first for b in second]
    assert found.delta == pytest.approx(sum(pairs) / len(pairs))
    turned = of.mann_whitney(second, first)
    assert turned.p == pytest.approx(found.p)
    assert turned.delta == pytest.approx(-found.delta)


@pytest.mark.parametrize(("n", "m", "how"), [(7, 12, "exact"), (28, 28, "exact"), (60, 45, "asymptotic")])
def test_it_is_the_test_that_scipy_has(n: int, m: int, how: str) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n), rng.normal(0.4, size=m)
    if how == "asymptotic":
        a, b = a.round(1), b.round(1)  # with ties
    found = of.mann_whitney(a.tolist(), b.tolist())
    assert found.method == ("exact Mann-Whitney" if how == "exact" else "Mann-Whitney, normal approximation")
    assert found.p == pytest.approx(float(mannwhitneyu(a, b, method=how).pvalue), rel=1e-9)


def test_where_all_runs_are_alike_nothing_is_shown() -> None:
    found = of.contrast([2.0] * 5, [2.0] * 5)
    assert found.test is not None
    assert (found.test.p, found.test.delta, found.ratio.value, found.shift.value) == (1.0, 0.0, 1.0, 1.0)
    assert of.mann_whitney([1.0] * 200, [1.0] * 200).p == 1.0  # beyond what is counted out


def test_the_shift_is_hodges_and_lehmanns_with_the_interval_of_the_test() -> None:
    first, second = [1.0, 2.0, 4.0, 8.0, 16.0], [3.0, 6.0, 12.0, 24.0, 48.0]
    found = of.shift_ratio(first, second)
    assert found.value == pytest.approx(3.0)
    ratios = sorted(b / a for a in first for b in second)
    assert (found.lo, found.hi) == (ratios[2], ratios[-3])  # P(U <= 2) = 4 / 252, P(U <= 3) is beyond 2.5 %
    scaled = of.shift_ratio([v * 1e3 for v in first], [v * 1e3 for v in second])
    assert (scaled.value, scaled.lo, scaled.hi) == pytest.approx((found.value, found.lo, found.hi))
    of_three = of.shift_ratio([1, 2, 3], [4, 5, 6])
    assert (of_three.lo, of_three.method) == (None, "too few runs for an interval")
    assert of.shift_ratio([0.0, 1.0], [1.0, 2.0]).reason == "not_positive: a value is not above zero"
    assert of.shift_ratio([], [1.0]).value is None
    assert of.shift_ratio([1.0] * 4000, [1.0] * 4000).reason == "too_many_pairs: more than 10,000,000 pairs of runs"


def test_adjusted_p_are_benjamini_and_hochbergs() -> None:
    assert of.benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert of.benjamini_hochberg([0.5, 0.9]) == pytest.approx([0.9, 0.9])
    assert of.benjamini_hochberg([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusting_keeps_the_order_and_never_lowers_a_p(ps: list[float]) -> None:
    qs = of.benjamini_hochberg(ps)
    assert all(p <= q <= 1 for p, q in zip(ps, qs, strict=True))
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    assert [qs[at] for at in order] == sorted(qs)
    assert max(qs) == pytest.approx(max(ps))


def test_outliers_are_flagged_by_five_mads() -> None:
    assert of.outliers([10.0, 10.1, 9.9, 10.2, 9.8, 20.0]) == [False] * 5 + [True]
    assert of.outliers([10.0, 10.1, 9.9, 10.2, 9.8, 10.5]) == [False] * 6
    assert of.outliers([10.0] * 8 + [11.0]) == [False] * 8 + [True]  # the MAD is 0
    assert of.outliers([10.0] * 5) == [False] * 5
    assert of.outliers([]) == []


def test_what_cannot_be_a_false_alarm_is_no_part_of_a_family() -> None:
    small, equal = of.mann_whitney([1, 2, 3], [4, 5, 6]), of.mann_whitney([2] * 5, [2] * 5)
    whole = of.mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    assert [one.least for one in (small, equal, whole)] == pytest.approx([0.1, 1.0, 2 / 252])
    assert of.family_of([small, whole, equal]) == [None, whole.p, None]
    alike = of.sign_test([1, 1, 0], [1, 1, 0])
    assert of.family_of([alike, whole, whole]) == [None, whole.p, whole.p]


def test_paired_marks_are_tested_by_the_items_that_differ() -> None:
    found = of.sign_test([0] * 9 + [1] + [1] * 30, [1] * 9 + [0] + [1] * 30)
    assert found.method == "exact McNemar"
    assert found.delta == pytest.approx(8 / 40)
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)
    assert of.sign_test([1, 0], [1, 0]).p == 1.0
    part = of.sign_test([0.5] * 4 + [1.0] * 12, [0.75] * 4 + [1.0] * 12)  # t would say 0.04 of four that differ
    assert part.method == "sign test of items"
    assert part.p == pytest.approx(0.125)
    shifted = of.paired_t([1.5, 2.5, 3.5], [2.0, 3.0, 4.0])  # the same by each: t would say that it is certain
    assert shifted.method == "sign test of chunks"
    assert shifted.p == pytest.approx(0.25)
    rng = np.random.default_rng(0)
    a = rng.normal(3, 1, 20)
    b = a + rng.normal(0.1, 0.05, 20)
    assert of.paired_t(a.tolist(), b.tolist()).p < 1e-4
    assert of.paired_t(b.tolist(), a.tolist()).delta < 0


def normal(rng: np.random.Generator, n: int) -> Array:
    return 100 + 3 * rng.normal(size=n)


def lognormal(rng: np.random.Generator, n: int) -> Array:
    return 100 * np.exp(0.3 * rng.normal(size=n))


def with_outliers(rng: np.random.Generator, n: int) -> Array:
    """One run in ten is disturbed by up to 30 %."""
    return normal(rng, n) * np.where(rng.random(n) < 0.1, 1 + 0.3 * rng.random(n), 1)


@pytest.mark.parametrize("draw", [normal, lognormal, with_outliers])
@pytest.mark.parametrize("n", [5, 10, 20])
def test_intervals_cover_the_truth(draw: Callable[[np.random.Generator, int], Array], n: int) -> None:
    rng, true, trials = np.random.default_rng(n), 1.05, 500
    hits = {"ratio": 0, "shift": 0}
    for _ in range(trials):
        found = of.contrast(draw(rng, n).tolist(), (true * draw(rng, n)).tolist())
        for name, one in (("ratio", found.ratio), ("shift", found.shift)):
            assert one.lo is not None
            assert one.hi is not None
            hits[name] += one.lo <= true <= one.hi
    # Nominal is 95 %; four standard errors of 500 trials below it are 91 %.
    assert 0.91 <= hits["ratio"] / trials <= 0.995
    assert 0.91 <= hits["shift"] / trials <= 0.99


@pytest.mark.parametrize("draw", [normal, with_outliers])
def test_the_mean_over_strata_covers_and_is_narrower(draw: Callable[[np.random.Generator, int], Array]) -> None:
    rng, trials, hits, narrower = np.random.default_rng(7), 500, 0, 0
    true = [1.02, 1.10, 0.97]
    mean = math.exp(math.fsum(map(math.log, true)) / 3)
    for _ in range(trials):
        arms = [(draw(rng, 5).tolist(), (one * draw(rng, 5)).tolist()) for one in true]
        found = of.ratio_over_strata(arms)
        assert found.lo is not None
        assert found.hi is not None
        hits += found.lo <= mean <= found.hi
        alone = ratio_of_medians(arms[0][1], arms[0][0])
        narrower += found.hi / found.lo < (alone.hi or 0) / (alone.lo or 1)
    assert hits / trials >= 0.91  # disturbed runs only make it wider
    assert narrower / trials > 0.75


def test_a_stratum_of_one_run_has_a_ratio_and_takes_the_interval() -> None:
    found = of.ratio_over_strata([([1.0], [2.0]), ([1.0, 1.1], [0.5, 0.55])])
    assert found.value == pytest.approx(1.0)
    assert found.lo is None
    assert of.ratio_over_strata([([0.0, 1.0], [1.0, 1.0])]).value is None
    assert of.ratio_over_strata([]).value is None


@pytest.mark.parametrize("n", [5, 10, 20])
def test_false_alarms_stay_at_the_stated_rate_alone_and_in_a_family(n: int) -> None:
    """A/A: arms of the same runs, eight figures each that go together as rates and energies do."""
    rng, trials, figures = np.random.default_rng(n), 250 if n == 20 else 400, 8
    alone, families, unadjusted = 0, 0, 0
    for _ in range(trials):
        shared = rng.normal(size=(2 * n, 1))
        values = np.exp(0.03 * (0.6 * shared + 0.8 * rng.normal(size=(2 * n, figures))))
        ps = [of.mann_whitney(column[:n].tolist(), column[n:].tolist()).p for column in values.T]
        alone += ps[0] <= of.ALPHA
        unadjusted += min(ps) <= of.ALPHA
        families += min(of.benjamini_hochberg(ps)) <= of.ALPHA
    bound = of.ALPHA + 3 * math.sqrt(of.ALPHA * (1 - of.ALPHA) / trials)
    assert alone / trials <= bound
    assert families / trials <= bound
    assert unadjusted / trials > 2 * of.ALPHA, "eight figures without adjusting alarm more often than stated"


@pytest.mark.parametrize("n", [5, 12, 30])
def test_what_is_called_detectable_is_shown_four_times_in_five(n: int) -> None:
    rng, sd, trials = np.random.default_rng(n), 0.04, 400
    step = 1 + of.detectable(sd, n, n)
    shown = sum(
        of.mann_whitney(np.exp(sd * a).tolist(), (step * np.exp(sd * b)).tolist()).p <= of.ALPHA
        for a, b in (rng.normal(size=(2, n)) for _ in range(trials))
    )
    assert 0.72 <= shown / trials <= 0.9


def test_runs_that_are_needed_make_the_wanted_effect_detectable() -> None:
    need = of.runs_needed(0.04, 0.03)
    assert need is not None
    assert of.detectable(0.04, need, need) <= 0.03 < of.detectable(0.04, need - 1, need - 1)
    assert of.runs_needed(1e-6, 0.03) == 4
    assert of.runs_needed(1e-6, 0.03, family=8) == 6
    assert of.runs_needed(3.0, 0.001) is None


def test_scatter_is_pooled_within_arms() -> None:
    assert of.scatter([1.0, math.e], [100.0, 100 * math.e]) == pytest.approx(math.sqrt(0.5))
    assert of.scatter([1.0], [2.0]) is None
    assert of.scatter([0.0, 1.0], [2.0]) is None
