"""Each sample has the regime of its time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from meltbench.store import arrow, schema
from meltbench.store.labels import regimes_at


def table(spans):
    rows = {"seq": list(range(len(spans))), "name": [s[0] for s in spans], "t0_ns": [s[1] for s in spans]}
    return arrow.table(schema.REGIMES.columns, rows | {"t1_ns": [s[2] for s in spans], "cause": [""] * len(spans)})


def test_a_span_holds_its_start_and_not_its_end():
    found = regimes_at(np.array([9, 10, 19, 20, 29, 30, 35, 40]), table([("a", 10, 20), ("b", 20, 30), ("a", 35, 40)]))
    assert found.to_pylist() == [None, "a", "a", "b", "b", None, "a", None]
    assert regimes_at(np.array([1, 2]), table([])).to_pylist() == [None, None]
    assert regimes_at(np.empty(0, np.int64), table([("a", 1, 2)])).to_pylist() == []


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=9),
    st.lists(st.integers(-5, 90), max_size=20),
)
def test_every_time_has_the_name_of_the_one_span_around_it(steps, times):
    spans, at = [], 0
    for name, width in steps:
        spans.append((name, at, at + width))
        at += width
    expected = [next((name for name, a, b in spans if a <= t < b), None) for t in times]
    assert regimes_at(np.array(times, np.int64), table(spans)).to_pylist() == expected
