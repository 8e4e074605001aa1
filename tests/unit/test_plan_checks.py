"""What a runner cannot do as a workload wants it is refused when the plan is made, before anything is started."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meltbench import plan_checks, runners, workload
from meltbench.errors import UserError


def check(runner: str, name: str, **more: Any) -> None:
    work = workload.load(name)
    work = replace(work, items=more.pop("items", work.items), workload=replace(work.workload, **more))
    recipe = runners.load(runner)[0]
    plan_checks.check_asked(runner, recipe, work)
    plan_checks.check_items(runner, recipe, work)


@pytest.mark.parametrize("runner", ["mlc-tvm", "llama-cpp-python"])
@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("mmlu", {}, "answers that can be nothing but a letter; --runner llamacpp$"),
        ("smoke", {"thinking": "off"}, "thinking switched; --runner llamacpp, or leave out thinking$"),
        (
            "gsm8k",
            {"items": ({"id": "a", "prompt": "3?", "stop": ["Question:"]},)},
            "answers that end at certain words; --runner llamacpp$",
        ),
        ("smoke", {"temperature": 0.7}, "takes the best token, smoke has temperature set; --runner llamacpp$"),
        (
            "smoke",
            {"pause_s": 1.0, "top_k": 4, "temperature": 1.0},
            "smoke has pause_s, temperature, top_k set;",
        ),
    ],
)
def test_an_engine_in_a_process_is_asked_nothing_that_it_would_drop(
    runner: str, name: str, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check(runner, name, **more)
    check(runner, "quick")
    check("llamacpp", name, **more)


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        ({"samples": (1, 4), "temperature": 0.7}, "--set samples=1"),
        ({"concurrency": (1, 2)}, "--set concurrency=1"),
    ],
)
@pytest.mark.parametrize("runner", ["onnx", "mlc-tvm"])
def test_what_asks_for_several_at_a_time_is_named(runner: str, more: dict[str, Any], hint: str) -> None:
    with pytest.raises(UserError, match=f"runner {runner} answers one request at a time") as refused:
        check(runner, "smoke", **more)
    assert refused.value.hint == hint


def test_a_share_of_probability_is_not_taken_for_the_likeliest_choice() -> None:
    with pytest.raises(UserError, match="takes the likeliest choice by tokens"):
        check("llama-perplexity", "truthfulqa-mc2")
    check("llama-perplexity", "truthfulqa-mc1")
    check("llamacpp", "truthfulqa-mc2")


def test_a_reference_is_of_the_runner_that_can_hold_a_text_against_it() -> None:
    with pytest.raises(UserError, match="runner llamacpp holds no text against a model of reference"):
        check("llamacpp", "wikitext-2", reference="smollm2-135m-q4")
    check("llama-perplexity", "wikitext-2", reference="smollm2-135m-q4")


def test_where_a_file_lies_is_no_part_of_what_was_asked() -> None:
    work = workload.load("gsm8k").workload
    moved = replace(work, data="/elsewhere/test.jsonl", examples="/elsewhere/train.jsonl")
    assert moved.identity() == work.identity()
    assert moved.told()["data"] == "/elsewhere/test.jsonl"
    assert replace(work, shots=0).identity() != work.identity()


def test_thinking_is_switched_in_messages_alone() -> None:
    with pytest.raises(UserError, match="thinking = on is of messages, smoke asks prompts") as refused:
        check("llamacpp", "smoke", thinking="on", chat=False)
    assert refused.value.hint == "--set chat=true, or leave out thinking"
    check("llamacpp", "smoke", thinking="on")
    talk = {"id": "a", "messages": [{"role": "user", "content": "3?"}]}
    check("llamacpp", "smoke", thinking="on", chat=False, items=(talk,))
