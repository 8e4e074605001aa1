"""How far a model's domains are apart: what the indices are, and that their intervals are of that width."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.analysis.domains import NAMES, domain_measures, indices
from meltbench.records import Score


def marks(right: int, n: int) -> list[tuple[str, float]]:
    return [(f"q{k}", float(k < right)) for k in range(n)]


def scores(by_domain: dict[str, tuple[int, int]], point: str = "") -> list[Score]:
    return [
        Score(f"{domain}-{item}", "match", mark, True, group=domain, point=point)
        for domain, (right, n) in by_domain.items()
        for item, mark in marks(right, n)
    ]


def test_the_indices_of_three_domains() -> None:
    (dsi, gap, transfer), best = indices({"law": marks(40, 100), "health": marks(80, 100), "home": marks(60, 100)})
    assert best == "health"
    assert dsi.value == pytest.approx(0.8 / 0.5)
    assert gap.value == pytest.approx(0.3)
    assert transfer.value == pytest.approx(0.5)
    for one in (dsi, gap, transfer):
        assert None not in (one.lo, one.value, one.hi)
        assert one.lo < one.value < one.hi


def test_a_difference_is_newcombes_where_there_are_two_domains() -> None:
    (_, gap, _), _ = indices({"a": marks(56, 70), "b": marks(48, 80)})
    # The example of Newcombe (1998), Statistics in Medicine 17, 873-890, table II (a), method 10.
    assert (gap.value, gap.lo, gap.hi) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_domains_that_are_alike_stand_out_in_nothing() -> None:
    (dsi, gap, transfer), _ = indices({"a": marks(5, 10), "b": marks(5, 10)})
    assert (dsi.value, gap.value, transfer.value) == (1, 0, 1)


def test_where_nothing_was_right_there_is_no_ratio() -> None:
    found = {one.name: one for one in domain_measures(scores({"a": (0, 6), "b": (0, 6)}))}
    assert found["domain_specialization_index"].reason == "no_right_answer: in any domain"
    assert found["generalization_gap"].value == 0
    assert found["generalization_gap"].u_k2
    others = {one.name: one for one in domain_measures(scores({"a": (3, 6), "b": (0, 6)}))}
    assert str(others["domain_specialization_index"].reason).startswith("not_positive")
    assert others["cross_domain_transfer_ratio"].value == 0


def test_a_run_has_them_where_its_groups_are_several_and_it_asks_in_one_way() -> None:
    found = domain_measures(scores({"law": (2, 6), "home": (6, 6)}))
    assert [one.name for one in found] == list(NAMES)
    assert all(one.n == 12 and one.phase == "run" for one in found)
    assert found[1].method.startswith("home, the best of 2 domains, and the others; 95 % interval ")
    assert domain_measures(scores({"law": (2, 6)})) == []
    assert domain_measures(scores({"": (2, 6), "law": (2, 6)})) == []
    assert domain_measures(scores({"law": (2, 6), "home": (6, 6)}, "n1") + scores({"law": (2, 6)}, "n8")) == []
    failed = [Score("a", "match", None, False, group="a"), Score("b", "match", None, False, group="b")]
    assert domain_measures(failed) == []


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 8)), min_size=2, max_size=6))
def test_whatever_the_marks_a_number_lies_in_its_interval_or_has_a_reason(each: list[tuple[int, int]]) -> None:
    for one in indices({f"d{k}": marks(min(right, n), n) for k, (right, n) in enumerate(each)})[0]:
        assert (one.value is None) == (one.reason is not None)
        if one.value is not None and one.lo is not None and one.hi is not None:
            assert one.lo - 1e-9 <= one.value <= one.hi + 1e-9


def test_the_interval_of_a_gap_covers_what_it_promises() -> None:
    """Of domains that are truly apart, so that the same one is nearly always the best."""
    rng = random.Random(1)
    covered = 0
    for _ in range(400):
        drawn = {f"d{k}": [(str(n), float(rng.random() < p)) for n in range(40)] for k, p in enumerate((0.9, 0.5, 0.4))}
        (_, gap, _), _ = indices(drawn)
        assert gap.lo is not None
        assert gap.hi is not None
        covered += gap.lo <= 0.45 <= gap.hi
    assert 370 <= covered <= 395
