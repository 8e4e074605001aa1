"""How a signal went over time: bounded, and the same however the samples came."""

from itertools import pairwise

import numpy as np
import pytest
from evidence_kit import SECOND, series
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.measure.course import MAX_STRETCHES, Course, Courser, highest
from meltbench.measure.digest import digest


def course_of(t_s, v, cuts=()):
    t, v = np.round(np.asarray(t_s, float) * SECOND).astype(np.int64), np.asarray(v, float)
    courser = Courser()
    for a, b in pairwise([0, *sorted(cut % (len(t) + 1) for cut in cuts), len(t)]):
        courser.add(t[a:b], v[a:b])
    return courser.done()


def test_every_second_has_its_mean_and_its_highest_value():
    found = course_of([10.1, 10.9, 11.5, 13.0], [1, 3, 5, 7])
    assert found.width_ns == SECOND
    assert (found.t_ns / SECOND).tolist() == [10, 11, 13]
    assert found.mean.tolist() == [2, 5, 7]
    assert found.high.tolist() == [3, 5, 7]
    assert [found.at(round(t * SECOND)) for t in (9.9, 10.0, 12.5, 99)] == [None, 2, 5, 7]
    inside = found.within(10 * SECOND, round(13.5 * SECOND))
    assert inside.mean.tolist() == [2, 5]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 20_000),
    st.integers(0, 10**6),
    st.floats(0.01, 3.0),
    st.lists(st.integers(0, 10**6), max_size=6),
)
def test_blocks_change_nothing_and_memory_is_bounded(n, seed, step, cuts):
    dice = np.random.default_rng(seed)
    t, v = np.cumsum(dice.uniform(0, 2 * step, n)), dice.normal(50, 9, n)
    whole, cut = course_of(t, v), course_of(t, v, cuts)
    assert len(whole) <= MAX_STRETCHES
    assert whole.width_ns == cut.width_ns
    assert (whole.t_ns == cut.t_ns).all()
    assert cut.mean == pytest.approx(whole.mean)
    assert (cut.high == whole.high).all()
    if n:
        assert whole.high.max() == v.max()


def test_a_day_is_kept_in_longer_stretches():
    found = course_of(np.arange(0, 86_400, 2.0), np.arange(43_200.0))
    assert (found.width_ns, len(found)) == (32 * SECOND, 2700)
    assert found.mean[0] == 7.5


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-(1 << 62), 1 << 62), st.floats(-1e300, 1e300)), max_size=50))
def test_any_times_are_borne(rows):
    courser = Courser()
    courser.add(np.array([t for t, _ in rows], np.int64), np.array([v for _, v in rows], float))
    assert len(courser.done()) <= max(1, len(rows))


def test_a_span_lasts_until_the_next_reading_says_otherwise():
    found = course_of([0, 1, 2, 10, 11, 20], [0, 1, 1, 1, 0, 1])
    spans = found.while_(found.high > 0, 25 * SECOND)
    assert [(a / SECOND, b / SECOND) for a, b in spans] == [(1, 11), (20, 25)]
    assert course_of([], []).while_(np.empty(0, bool), 5) == []


def test_the_highest_of_several_courses():
    fine, coarse = (
        course_of([0, 1, 2], [1, 9, 2]),
        Course(2 * SECOND, np.array([0, 4 * SECOND]), np.array([5.0, 6]), np.array([5.0, 6])),
    )
    found = highest([fine, coarse])
    assert (found.width_ns, (found.t_ns / SECOND).tolist(), found.mean.tolist()) == (2 * SECOND, [0, 2, 4], [9, 2, 6])
    assert len(highest([])) == 0


@pytest.mark.parametrize(
    ("kind", "unit", "kept"),
    [
        ("gauge", "degC", True),
        ("gauge", "Hz", True),
        ("state", "1", True),
        ("gauge", "W", False),
        ("counter", "s", False),
    ],
)
def test_temperatures_clocks_and_states_have_a_course_and_nothing_else_has(kind, unit, kept):
    one = digest(series("x", [0.0, 1.0, 2.0], [1.0, np.nan, 3.0], kind=kind, unit=unit))
    assert (one.course is not None) == kept
    if one.course is not None:
        assert one.course.mean.tolist() == [1, 3]  # what could not be read is not there
