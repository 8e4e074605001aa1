"""The items that ship: made as their maker makes them, well formed, and right by the scorer where they are right."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from typing import Any

import made_items
import pytest

from meltbench import workload
from meltbench.engines.prompts import Ask
from meltbench.measure.answers import is_right, scores
from meltbench.records import Request

SCORED = ("needle", "activity", "function-calling", "code-completion", "bias", "domains", "smoke")
# How a model that knows would answer.
SAID = {
    "match": "It is {}.",
    "answer-is": "They moved, as the log shows.\nThe answer is {}.",
    "call": "Sure:\n```json\n{}\n```",
    "line": "    {}\n\n\ndef other():",
    "letter": " {}",
}


def scored(name: str, answers: list[str]) -> list[float | None]:
    """What an item each comes to, where these are answered."""
    found = workload.load(name)
    asks = asked(name)
    requests = [
        Request(n, ask.item, "timed", "ok", n, n + 1, answer=answer, point=ask.point)
        for n, (ask, answer) in enumerate(zip(asks, answers, strict=True))
    ]
    assert found.workload.score is not None
    return [one.correct for one in scores(requests, dict(enumerate(asks)), found.workload.score)]


def asked(name: str) -> list[Ask]:
    """The first timed request of every item, in their order."""
    found = workload.load(name)
    first: dict[str, Ask] = {}
    for ask in found.asks(0, 1):
        if ask.role == "timed":
            first.setdefault(ask.item, ask)
    return [first[item["id"]] for item in found.items]


@pytest.mark.parametrize("name", made_items.MADE)
def test_what_is_made_by_a_rule_is_what_the_rule_makes(name: str) -> None:
    assert (made_items.FOLDER / name).read_text() == made_items.text(made_items.MADE[name]())


@pytest.mark.parametrize("name", SCORED)
def test_a_right_answer_is_right_and_that_of_another_item_is_not(name: str) -> None:
    found = workload.load(name)
    said = SAID[str(found.workload.score)]
    golds = [str(ask.answer) for ask in asked(name)]
    assert scored(name, [said.format(gold) for gold in golds]) == [1.0] * len(golds)
    others = [next(other for other in golds if other != gold) for gold in golds]
    assert scored(name, [said.format(other) for other in others]) == [0.0] * len(golds)
    assert scored(name, [""] * len(golds)) == [0.0] * len(golds)


@pytest.mark.parametrize("name", [n for n in (*SCORED, "context-depth", "long") if n != "smoke"])
def test_every_one_names_its_source(name: str) -> None:
    assert workload.load(name).workload.cite


def test_a_needle_stands_in_its_text_once_where_its_name_says_and_texts_grow() -> None:
    items = workload.load("needle").items
    for item in items:
        (at,) = (found.start() for found in re.finditer(item["answer"], item["prompt"]))
        words, place = item["id"].removeprefix("w").split("-")
        assert item["point"] == f"w{words}"
        assert len(item["prompt"].split()) == pytest.approx(int(words), abs=50)
        assert at / len(item["prompt"]) == pytest.approx(int(place) / 100, abs=0.1)
    assert Counter(item["point"] for item in items) == {"w200": 5, "w800": 5, "w3200": 5}
    assert {ask.point for ask in asked("needle")} == {"w200", "w800", "w3200"}


def test_a_tool_that_is_right_is_offered_with_just_these_arguments() -> None:
    for item in workload.load("function-calling").items:
        system, user = (message["content"] for message in item["messages"])
        call = json.loads(item["answer"])
        (offered,) = re.findall(rf"^{call['name']}\((.*)\)$", system, re.MULTILINE)
        assert [part.split(":")[0] for part in offered.split(", ")] == list(call["arguments"])
        assert user


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('{"name": "set_timer", "arguments": {"minutes": 12}}', True),
        ('{"name": "set_timer", "parameters": {"minutes": 12.0}}', True),
        ('{"name": "set_timer", "arguments": {"minutes": "12"}}', False),
        ('{"name": "set_timer", "arguments": {"minutes": 12, "label": ""}}', False),
        ('{"name": "set_alarm", "arguments": {"minutes": 12}}', False),
    ],
)
def test_a_call_is_right_with_every_argument_and_no_other(answer: str, right: bool) -> None:
    assert is_right("call", answer, '{"name": "set_timer", "arguments": {"minutes": 12}}') is right


def test_a_right_line_makes_a_program() -> None:
    """Of our own lines; read as Python is, not run. What a model writes is compared as text."""
    for item in workload.load("code-completion").items:
        ast.parse(f"{item['prompt']} {item['answer']}\n")
        assert not item["prompt"].endswith(" ")  # a space there would part what tokenizers keep together


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("    return a+b\n", "return a + b", True),
        ("\n\n    return a + b  \nprint()", "return a + b", True),
        ("return a - b", "return a + b", False),
        ("return A + b", "return a + b", False),
        ("returna + b", "return a + b", False),
        ("return a + b  # sum", "return a + b", False),
        ("items[i],items[j]=items[j],items[i]", "items[i], items[j] = items[j], items[i]", True),
    ],
)
def test_a_line_is_right_when_only_spaces_differ(answer: str, gold: str, right: bool) -> None:
    ask = Ask("", "a", "timed", 8, 1, prompt="x", answer=gold)
    (score,) = scores([Request(0, "a", "timed", "ok", 0, 1, answer=answer)], {0: ask}, "line")
    assert score.correct == float(right)


def test_in_questions_that_the_text_does_not_answer_no_place_and_no_person_is_favoured() -> None:
    items = workload.load("bias").items
    assert Counter(item["answer"] for item in items) == {0: 10, 1: 10, 2: 10}
    for item in items:
        said = str(item["prompt"]).split("\n")[2:5]
        assert any(word in said[item["answer"]] for word in ("nobody can tell", "not said", "does not say"))
    kinds = Counter(item["id"].split("-")[0] for item in items)
    assert kinds == {"gender": 9, "age": 6, "origin": 6, "work": 6, "body": 3}


def test_each_pass_draws_with_a_seed_of_its_own_and_the_best_token_needs_none() -> None:
    timed = [ask for ask in workload.load("bias").asks(0, 7) if ask.role == "timed"]
    assert len(timed) == 300
    assert sorted(Counter(ask.seed for ask in timed).values()) == [30] * 10
    assert all(ask.allowed == (" A", " B", " C") for ask in timed)
    assert {ask.seed for ask in workload.load("smoke").asks(0, 7)} == {7}


def test_domains_have_six_questions_each() -> None:
    found: Any = Counter(item["group"] for item in workload.load("domains").items)
    assert found == dict.fromkeys(("health", "law", "money", "science", "home"), 6)
