"""Answers against what is right: what is read out of them, and what counts."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.analysis.stats import proportion
from meltbench.engines.prompts import Ask
from meltbench.measure.accuracy import accuracy_measures
from meltbench.measure.answers import NO_GOLD, Method, extract, is_right, scores
from meltbench.records import Request, Score

METHODS: tuple[Method, ...] = ("exact", "match", "number", "number-strict", "letter", "answer-is", "call")


@pytest.mark.parametrize(
    ("method", "answer", "found"),
    [
        ("number", "She has 3 + 4 = 7 apples.\n#### 7", "7"),
        ("number", "so $1,234.50 in all.", "$1,234.50"),
        ("number", "minus -5", "-5"),
        ("number", "no number at all", None),
        ("number", "...", None),
        ("number-strict", "3 + 4 = 7\n#### 7", "7"),
        ("number-strict", "The answer is 7", None),
        ("letter", " B", "B"),
        ("letter", "(c)", "C"),
        ("letter", "The answer is D.", "D"),
        ("letter", "Because", None),
        ("letter", "A's", None),
        ("answer-is", "First ... So the answer is (A).\nOr: the answer is 8.", "8"),
        ("answer-is", "I do not know", None),
        ("exact", "  Paris \n", "Paris"),
        ("exact", "   ", None),
        ("call", 'I call {"name": "get_weather", "arguments": {"city": "Bern"}} now', None),
        ("call", "no call", None),
        ("call", '{"nom": 1} {"name": 3}', None),
    ],
)
def test_what_is_read_out_of_an_answer(method: Method, answer: str, found: str | None) -> None:
    if method == "call" and "get_weather" in answer:
        assert json.loads(extract(method, answer) or "") == {"name": "get_weather", "arguments": {"city": "Bern"}}
    else:
        assert extract(method, answer) == found


@pytest.mark.parametrize(
    ("method", "answer", "gold", "right"),
    [
        ("number", "it is 1,000", "1000", True),
        ("number", "it is 7.0", "7", True),
        ("number", "it is 70", "7", False),
        ("letter", " b", "B", True),
        ("letter", "A", "B", False),
        ("answer-is", "the answer is (B).", "(B)", True),
        ("answer-is", "The answer is: Yes", "yes", True),
        ("match", "The capital of France is **Paris**.", "Paris", True),
        ("match", "Parisian food", "Paris", False),
        ("match", "There are 7 days in 1 week, so 7", "7", True),
        ("match", "There are 7 days, not 8", "7", False),
        ("match", "An élève", "eleve", True),
        ("exact", "Paris", "paris", True),
        ("exact", "It is Paris", "Paris", False),
        ("call", '{"name": "f", "arguments": {"a": 2.0, "b": 1}}', '{"name": "f", "arguments": {"b": 1,"a": 2}}', True),
        ("call", '{"name": "f", "arguments": {"a": "2"}}', '{"name": "f", "arguments": {"a": 2}}', False),
        ("call", '{"name": "f", "arguments": "{\\"a\\": 2}"}', '{"name": "f", "arguments": {"a": 2}}', True),
        ("call", '{"name": "g", "arguments": {}}', '{"name": "f", "arguments": {}}', False),
    ],
)  # fmt: skip
def test_what_counts_as_right(method: Method, answer: str, gold: str, right: bool) -> None:
    found = extract(method, answer)
    assert found is not None
    assert is_right(method, found, gold) is right


@given(st.sampled_from(METHODS), st.text(max_size=300), st.text(max_size=50))
def test_no_answer_is_too_odd_to_be_judged(method: Method, answer: str, gold: str) -> None:
    found = extract(method, answer)
    assert found is None or isinstance(is_right(method, found, gold), bool)


@given(st.sampled_from(METHODS))
def test_an_endless_answer_takes_no_endless_time(method: Method) -> None:
    for answer in (
        "{" * 60_000,
        "1" * 60_000,
        "answer is" * 8_000,
        "A" * 60_000,
        '{"name":"f","arguments":' + "[" * 50_000,
    ):
        found = extract(method, answer)
        assert found is None or isinstance(is_right(method, found, "1"), bool)


@given(st.integers(-(10**12), 10**12), st.text(alphabet="abc .,", max_size=20))
def test_a_number_is_found_at_the_end_of_any_words(number: int, words: str) -> None:
    found = extract("number", f"{words} is {number}")
    assert found is not None
    assert is_right("number", found, f"{number:,}")


def request(index: int, answer: str, **more: Any) -> Request:
    known: dict[str, Any] = {"role": "timed", "status": "ok", "t_send_ns": 0, "t_end_ns": 1, "answer": answer}
    return Request(index=index, item=f"q{index}", **known | more)


def ask(index: int, answer: str | None) -> Ask:
    return Ask(f"{index:05d}", f"q{index}", "timed", 8, 0, answer=answer)


def test_what_cannot_be_read_is_wrong_and_told_apart_and_what_failed_has_no_score() -> None:
    requests = [
        request(0, "7"), request(1, "eight"), request(2, "9"), request(3, "7", status="truncated"),
        request(4, "7", role="warmup"), request(5, "7"),
    ]  # fmt: skip
    asks = {n: ask(n, gold) for n, gold in enumerate(["7", "8", "8", "7", "7", None])}
    found = scores(requests, asks, "number")
    assert [(one.item, one.correct, one.parsed, one.extracted, one.gold) for one in found] == [
        ("q0", 1.0, True, "7", "7"),
        ("q1", 0.0, False, "", "8"),
        ("q2", 0.0, True, "9", "8"),
        ("q3", None, False, "", "7"),
        ("q5", None, True, "7", ""),
    ]
    assert [one.detail for one in found] == ["", "", "", "truncated", "no right answer is known"]
    measures = {one.name: one for one in accuracy_measures(found)}
    assert measures["accuracy"].value == pytest.approx(1 / 3)
    assert (measures["accuracy"].n, measures["unparsed"].value) == (3, pytest.approx(1 / 3))
    assert measures["accuracy"].u_k2 == pytest.approx(2 * math.sqrt(1 / 3 * 2 / 3 / 2))  # p (1 - p) / (n - 1)
    # Before the first semicolon, where a table shows it.
    said = "number, 2 of 5 items have no score: 1 truncated, 1 no right answer is known"
    assert measures["accuracy"].method == said
    only = accuracy_measures([one for one in found if one.correct is not None or one.detail == NO_GOLD])
    assert only[0].method == "number, 1 of 4 items have no score: no right answer is known"


def test_groups_have_an_accuracy_of_their_own_and_nothing_scored_has_a_reason() -> None:
    requests = [request(n, "A" if n % 2 else "B") for n in range(4)]
    asks = {n: Ask("", f"q{n}", "timed", 1, 0, answer="A", group="law" if n < 2 else "art") for n in range(4)}
    by_phase = {one.phase: one for one in accuracy_measures(scores(requests, asks, "letter")) if one.name == "accuracy"}
    assert {phase: one.value for phase, one in by_phase.items()} == {"run": 0.5, "law": 0.5, "art": 0.5}
    none = accuracy_measures(scores([request(0, "", status="http_500")], {0: ask(0, "A")}, "letter"))
    assert [(one.value, one.reason) for one in none] == [(None, "no_score: none of 1 items has one: http_500")] * 2
    assert accuracy_measures([]) == []


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_answers_that_are_all_right_or_all_wrong_are_not_known_without_doubt(right: float) -> None:
    found = [Score(f"q{n}", "letter", right, True, "A") for n in range(10)]
    accuracy = accuracy_measures(found)[0]
    assert (accuracy.value, accuracy.u_k2) == (right, pytest.approx(4 / 14))  # Wilson's limit at z = 2
    wilson = proportion(right * 10, 10, math.erf(2 / math.sqrt(2)))
    assert accuracy.u_k2 == pytest.approx(wilson.hi if right == 0 else 1 - wilson.lo)  # type: ignore[operator]
    assert accuracy.method == "letter; u of Wilson"
    unparsed = accuracy_measures(found)[1]
    assert (unparsed.name, unparsed.value, unparsed.u_k2) == ("unparsed", 0.0, pytest.approx(4 / 14))
    # The same questions again are no more questions; of one nobody knows.
    again = accuracy_measures([*found, *found])[0]
    assert (again.u_k2, again.method) == (accuracy.u_k2, "letter; u of Wilson; 10 questions")
    assert accuracy_measures(found[:1])[0].u_k2 == pytest.approx(4 / 5)  # of one question, as of two
    assert accuracy_measures([replace(found[0], correct=0.5)])[0].u_k2 is None
    ways = {one.name: one.u_k2 for one in accuracy_measures(found, {"tokens": [right] * 10}) if "_per_" in one.name}
    assert ways == {"accuracy_per_token": accuracy.u_k2}


def test_the_u_of_an_accuracy_covers_also_where_nearly_all_are_right() -> None:
    """Twice the standard error alone covers 33 % of 20 items that are right 98 times of 100: mostly all are right."""
    rng, hits = random.Random(5), 0
    for _ in range(400):
        found = [Score(f"q{n}", "letter", float(rng.random() < 0.98), True, "A") for n in range(20)]
        accuracy = accuracy_measures(found)[0]
        hits += abs((accuracy.value or 0) - 0.98) <= (accuracy.u_k2 or 0)
    assert hits / 400 >= 0.95
