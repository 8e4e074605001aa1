"""Questions that are asked again and again: what their answers do, and that they are no new questions."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.measure.accuracy import accuracy_measures
from meltbench.measure.repeats import repeat_measures
from meltbench.records import Measure, Score


def asked(*items: str, point: str = "") -> list[Score]:
    """A text an item, a letter a pass: A is right, - cannot be read, ! is a request that failed."""
    return [
        Score(
            f"q{n}",
            "letter",
            None if letters[k] == "!" else float(letters[k] == "A"),
            letters[k] not in "-!",
            letters[k].replace("-", ""),
            point=point,
        )
        for k in range(len(items[0]))
        for n, letters in enumerate(items)
    ]


def named(scores: list[Score]) -> dict[str, Measure]:
    return {one.name: one for one in repeat_measures(scores, "run")}


def test_what_was_asked_once_has_neither() -> None:
    assert repeat_measures(asked("A", "B"), "run") == []


def test_flips_are_answers_that_are_not_the_first_one() -> None:
    flips = named(asked("AAAA", "ABAB", "BCCC"))["answer_flip_rate"]
    assert flips.value == pytest.approx((0 + 2 / 3 + 1) / 3)
    assert flips.n == 3
    shares = [0, 2 / 3, 1]
    mean = sum(shares) / 3
    assert flips.u_k2 == pytest.approx(2 * math.sqrt(sum((s - mean) ** 2 for s in shares) / 2 / 3))
    assert flips.method == "not as the first answer; 3 questions, asked up to 4 times"


def test_an_answer_that_cannot_be_read_is_like_another_and_a_failed_request_is_none() -> None:
    assert named(asked("--A"))["answer_flip_rate"].value == 0.5
    assert named(asked("A!A"))["answer_flip_rate"].value == 0
    assert named(asked("A!!"))["answer_flip_rate"].reason == "no_score: no question was answered twice"


@pytest.mark.parametrize(
    ("method", "first", "later", "flips"),
    [
        ("number", "42", "42.0", 0),
        ("number/vote", "1,200", "1200", 0),
        ("number", "42", "43", 1),
        ("match", "The sky.", "sky", 0),
        ("match", "the sky", "the sea", 1),
        ("call", '{"name": "f", "arguments": {"n": 2}}', '{"arguments": {"n": 2.0}, "name": "f"}', 0),
        ("line", "a+b", "a + b", 0),
        ("line", "A", "a", 1),  # names of a program differ by case
        ("loglik/none", "0", "1", 1),
    ],
)
def test_a_flip_is_another_answer_by_the_method_that_scores_and_no_other_spelling(
    method: str, first: str, later: str, flips: float
) -> None:
    scores = [Score("q", method, 1.0, True, text) for text in (first, later)]
    assert named(scores)["answer_flip_rate"].value == flips


def test_a_drift_is_told_from_what_goes_up_and_down() -> None:
    drift = named(asked("AABB", "AABB"))["accuracy_drift_per_pass"]
    assert (drift.value, drift.unit, drift.u_k2) == (pytest.approx(-0.4), "1/pass", 0)
    assert named(asked("ABBA", "BAAB"))["accuracy_drift_per_pass"].value == pytest.approx(0)
    # A failed request leaves its pass out, and the others keep their numbers.
    assert named(asked("A!!B"))["accuracy_drift_per_pass"].value == pytest.approx(-1 / 3)
    assert named(asked("A!!B"))["accuracy_drift_per_pass"].u_k2 is None  # of one question nobody knows


def test_a_drift_that_is_there_is_found_and_none_is_not() -> None:
    rng = random.Random(3)
    for per_pass, found in ((-0.05, True), (0.0, False)):
        items = ["".join("A" if rng.random() < 0.7 + per_pass * k else "B" for k in range(10)) for _ in range(60)]
        drift = named(asked(*items))["accuracy_drift_per_pass"]
        assert drift.value is not None
        assert drift.u_k2 is not None
        assert drift.value == pytest.approx(per_pass, abs=drift.u_k2 * 1.5)
        assert (abs(drift.value) > drift.u_k2) is found


@given(st.lists(st.sampled_from("ABC-!"), min_size=12, max_size=12))
def test_whatever_was_answered_they_are_in_bounds_or_have_a_reason(letters: list[str]) -> None:
    text = "".join(letters)
    for one in repeat_measures(asked(text[:4], text[4:8], text[8:]), "run"):
        assert (one.value is None) == bool(one.reason)
        assert one.value is None or -1 <= one.value <= 1


def test_they_stand_beside_the_accuracy_whose_u_counts_questions_and_not_answers() -> None:
    made = {(one.name, one.phase): one for one in accuracy_measures(asked("AAAA", "BBBB", "AAAA", "BBBB"))}
    accuracy = made["accuracy", "run"]
    assert (accuracy.value, accuracy.n) == (0.5, 16)
    assert accuracy.u_k2 == pytest.approx(2 * math.sqrt(0.25 * 4 / 3 / 4))  # as of four answers
    assert accuracy.method == "letter; 4 questions"
    assert made["answer_flip_rate", "run"].value == 0
    one = next(m for m in accuracy_measures(asked("ABAB")) if m.name == "accuracy")
    assert (one.value, one.u_k2) == (0.5, None)
    by_point = accuracy_measures(asked("AB", point="w1") + asked("AA", point="w2"))
    assert {(m.phase, m.value) for m in by_point if m.name == "answer_flip_rate"} == {("w1", 1.0), ("w2", 0.0)}
