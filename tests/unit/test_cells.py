"""Medians of cells: their intervals cover as often as they say, and say nothing that cannot be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.analysis.cells import grouped, median_of

figures = st.floats(1e-12, 1e12)
TRIALS = 1500


@pytest.mark.parametrize("n", [2, 3, 5, 9, 10, 15, 20])
@pytest.mark.parametrize("scatter", [0.03, 0.3])
def test_the_interval_covers_the_median(n: int, scatter: float) -> None:
    # Runs as measured rates are: alike but for a log-normal scatter, whose median is 7.
    drawn = 7 * np.exp(np.random.default_rng([n, 1]).normal(0, scatter, (TRIALS, n)))
    held = 0
    for row in drawn.tolist():
        one = median_of(row)
        assert one.lo is not None
        assert one.hi is not None
        held += one.lo <= 7 <= one.hi
    # 95 %, less three standard errors of a share of so many trials.
    assert held / TRIALS >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / TRIALS)


@pytest.mark.parametrize("n", [10, 20])
def test_from_ten_runs_on_no_shape_is_presumed(n: int) -> None:
    # Every fifth run is slower by a half: no t on logs covers the median of that.
    dice = np.random.default_rng([n, 2])
    base = 7 * np.exp(dice.normal(0, 0.02, (TRIALS, n)))
    rows = np.where(dice.random((TRIALS, n)) < 0.2, base / 1.5, base)
    truth = float(
        np.median(np.where(dice.random(400_000) < 0.2, 1 / 1.5, 1) * 7 * np.exp(dice.normal(0, 0.02, 400_000)))
    )
    held = sum(
        one.lo <= truth <= one.hi for one in map(median_of, rows.tolist()) if one.lo is not None and one.hi is not None
    )
    assert held / TRIALS >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / TRIALS)


@given(st.lists(st.floats(-1e100, 1e100) | figures, min_size=1, max_size=30))
def test_the_median_lies_in_its_interval(values: list[float]) -> None:
    one = median_of(values)
    assert one.value is not None
    assert min(values) <= one.value <= max(values)
    assert one.n == len(values)
    assert (one.lo is None) == (one.hi is None)
    if one.lo is not None and one.hi is not None:
        assert one.lo <= one.value <= one.hi
        assert math.isfinite(one.lo)
        assert math.isfinite(one.hi)


@given(st.lists(figures, min_size=2, max_size=25), st.integers(-20, 20))
def test_another_unit_gives_the_same_interval(values: list[float], power: int) -> None:
    scale = 2.0**power
    one, other = median_of(values), median_of([value * scale for value in values])
    for name in ("value", "lo", "hi"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None and b is None) or b == pytest.approx(a * scale, rel=1e-9)


@given(st.lists(figures, min_size=1, max_size=25), st.randoms())
def test_the_order_of_runs_does_not_matter(values: list[float], dice: object) -> None:
    mixed = sorted(values, key=lambda _: dice.random())  # type: ignore[attr-defined]
    assert median_of(mixed) == median_of(values)


def test_one_run_says_nothing_of_others() -> None:
    one = median_of([3.0])
    assert (one.value, one.lo, one.hi, one.n) == (3.0, None, None, 1)
    assert median_of([]).value is None


def test_runs_that_are_worlds_apart_have_no_interval() -> None:
    one = median_of([1e-30, 1e30])
    assert (one.lo, one.hi) == (None, None)
    assert "too far apart" in one.method


def test_what_is_missing_is_left_out_and_its_key_is_there() -> None:
    values = [1.0, None, float("nan"), float("inf"), 2.0]
    assert grouped("abcaa", values) == {"a": [1.0, 2.0], "b": [], "c": []}
