"""What is asked in a chat, at levels of concurrency and in a circle, and what is refused beforehand."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench import workload
from meltbench.definition import SAMPLING
from meltbench.engines.llama_server import LlamaServer
from meltbench.errors import DefinitionError, UnknownName, UserError
from meltbench.items import check_conversations, turns
from meltbench.plan import make
from meltbench.spec import Spec, parse_sets


def loaded(name: str, **changed: Any) -> workload.Loaded:
    found = workload.load(name)
    return replace(found, workload=replace(found.workload, **changed))


def own(folder: Path, toml: str, *items: object) -> str:
    """A workload in a folder that is searched before the built-in ones."""
    (folder / "workloads").mkdir(exist_ok=True)
    (folder / "workloads" / "mine.toml").write_text('title = "t"\nversion = 1\nitems = "mine.jsonl"\n' + toml)
    (folder / "workloads" / "mine.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return "mine"


def talk(*roles: str, **more: object) -> dict[str, object]:
    return {"id": "a", "messages": [{"role": role, "content": f"{role} {n}"} for n, role in enumerate(roles)], **more}


def planned(workload_: str, *sets: str) -> Any:
    return make(Spec(workload=workload_, knobs=parse_sets(sets)))


def test_every_turn_is_asked_with_all_that_was_said_before_it() -> None:
    chat = loaded("chat", warmup=0)
    items = {item["id"]: item["messages"] for item in chat.items}
    (play,) = chat.plays(0, 3)
    assert (play.concurrency, play.circle) == (1, False)
    seen: dict[str, int] = {}
    for before, ask in zip([None, *play.asks], play.asks, strict=False):
        name, _, number = ask.item.partition("/")
        seen[name] = seen.get(name, 0) + 1
        assert int(number) == seen[name]
        assert ask.messages is not None
        assert ask.messages[-1]["role"] == "user"
        assert list(ask.messages) == items[name][: len(ask.messages)]
        assert ask.keep_cache == (number != "1")
        assert ask.point == ("first_turn" if number == "1" else "later_turns")
        if number != "1":  # right after the turn before it, whose messages it begins with
            assert before is not None
            assert before.messages is not None
            assert before.item == f"{name}/{int(number) - 1}"
            assert ask.messages[: len(before.messages)] == before.messages
    assert {name: sum(m["role"] == "user" for m in messages) for name, messages in items.items()} == seen
    assert all(3 <= count <= 5 for count in seen.values())


def test_the_turns_of_another_pass_come_in_another_order_that_the_seed_repeats() -> None:
    chat = loaded("chat", repeat=2, warmup=0)
    one, again, other = ([ask.item for ask in chat.asks(0, seed)] for seed in (0, 0, 1))
    assert one == again != other
    assert one[: len(one) // 2] != one[len(one) // 2 :]
    assert sorted(one[: len(one) // 2]) == sorted(one[len(one) // 2 :])


def test_the_warm_up_of_a_chat_begins_like_none_of_its_turns() -> None:
    warm, *timed = loaded("chat").asks(0, 0)
    assert (warm.role, warm.keep_cache) == ("warmup", False)
    assert warm.messages is not None
    assert all(ask.messages is not None and ask.messages[0] != warm.messages[0] for ask in timed)
    body = json.loads(LlamaServer().request(timed[0]).partition(b"\r\n\r\n")[2])
    assert body["cache_prompt"] is False
    assert json.loads(LlamaServer().request(timed[1]).partition(b"\r\n\r\n")[2])["cache_prompt"] is True


def test_one_level_of_one_is_a_run_as_ever() -> None:
    (play,) = loaded("quick").plays(0, 0)
    assert (play.concurrency, [ask.role for ask in play.asks]) == (1, ["warmup"] + ["timed"] * 5)
    assert {ask.point for ask in play.asks} == {""}


def test_a_single_level_has_its_warm_up_apart_and_no_points() -> None:
    warm, timed = loaded("quick", concurrency=(3,), warmup=2).plays(0, 0)
    assert (warm.concurrency, len(warm.asks), {ask.role for ask in warm.asks}) == (3, 6, {"warmup"})
    assert (timed.concurrency, len(timed.asks), {ask.point for ask in timed.asks}) == (3, 5, {""})


def test_levels_are_points_and_ask_the_same_items() -> None:
    warm, *levels = loaded("quick", concurrency=(4, 1), repeat=2).plays(0, 0)
    assert (warm.concurrency, len(warm.asks)) == (4, 4)
    assert [(play.concurrency, {ask.point for ask in play.asks}) for play in levels] == [(4, {"c4"}), (1, {"c1"})]
    four, one = ([ask.item for ask in play.asks] for play in levels)
    assert sorted(four) == sorted(one)
    assert four != one
    files = [ask.file for play in (warm, *levels) for ask in play.asks]
    assert files == [f"{n:05d}" for n in range(24)]


def test_a_circle_holds_every_item_once_after_the_warm_up() -> None:
    warm, circle = loaded("sustained").plays(0, 0)
    assert (warm.circle, [ask.role for ask in warm.asks]) == (False, ["warmup"])
    assert circle.circle
    assert sorted(ask.item for ask in circle.asks) == sorted(item["id"] for item in workload.load("quick").items)
    (only,) = loaded("sustained", warmup=0).plays(0, 0)
    assert only.circle
    orders = {tuple(ask.item for ask in loaded("sustained", warmup=0).asks(0, seed)) for seed in range(5)}
    assert len(orders) > 1


@pytest.mark.parametrize(
    "name", ["quick", "chat", "long", "concurrency", "sustained", "idle", "exec", "start", "experts"]
)
def test_the_requests_of_a_run_are_counted_without_making_them(name: str) -> None:
    found = loaded(name)
    for changed in ({}, {"repeat": 3, "warmup": 2}):
        again = replace(found, workload=replace(found.workload, **changed))
        assert again.n_requests == len(again.asks(0, 0))


@pytest.mark.parametrize("name", ["chat", "long", "concurrency", "sustained"])
def test_every_answer_of_the_new_presets_has_room(name: str) -> None:
    found = loaded(name)
    longest = max(sum(len(m["content"]) for m in ask.messages or ()) for ask in found.asks(0, 0))
    assert found.n_ctx >= longest / 2 + found.workload.max_tokens


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"id": "a", "prompt": "Hello"}, "its turns are a prompt"),
        (talk("user", "assistant"), "'a' is no conversation: its turns are user, assistant"),
        (talk("assistant", "user"), "no conversation"),
        (talk("user", "user"), "no conversation"),
        (talk("system"), "no conversation"),
        (talk("system", "system", "user"), "no conversation"),
        (talk("user", "tool", "user"), "no conversation"),
        (talk("user", "assistant", "system", "user"), "no conversation"),
        (talk("user", promt=1), "unknown key"),
        ({"id": "a", "messages": [["user", "x"]]}, "role and content"),
    ],
)
def test_what_is_no_conversation_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: dict[str, object], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefinitionError, match=said):
        workload.load(own(tmp_path, 'kind = "chat"\n', item))


@given(st.lists(st.sampled_from(["system", "user", "assistant", "tool", ""]), max_size=7))
def test_any_roles_are_a_conversation_or_one_line(roles: list[str]) -> None:
    item = {"id": "a", "messages": [{"role": role, "content": "x"} for role in roles]}
    if re.fullmatch("(system,)?(user,assistant,)*user,", "".join(f"{role}," for role in roles)):
        check_conversations(Path("x.jsonl"), (item,))
        assert turns(item) == roles.count("user")
    else:
        with pytest.raises(DefinitionError, match="no conversation"):
            check_conversations(Path("x.jsonl"), (item,))


def test_conversations_of_ones_own_are_asked_by_a_toml_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = workload.load(own(tmp_path, 'kind = "chat"\n', talk("user", "assistant", "user", max_tokens=9)))
    assert [(ask.item, ask.n_out) for ask in mine.asks(0, 0)] == [("warmup", 9), ("a/1", 9), ("a/2", 9)]
    # The same lines as a file are prompts: each is asked once, with all its messages.
    alone = workload.load(str(tmp_path / "workloads" / "mine.jsonl"))
    assert [(ask.item, len(ask.messages or ())) for ask in alone.asks(0, 0)] == [("a", 3), ("a", 3)]


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('kind = "chat"\nconcurrency = [2]\n', "concurrency is no setting of kind chat, only of generate"),
        ('kind = "generate"\nlimit_s = 5\n', "limit_s is no setting of kind generate, only of sustained"),
        ('kind = "sustained"\nrepeat = 2\n', "repeat is no setting of kind sustained, only of generate and chat and"),
        ('kind = "generate"\nconcurrency = ["2"]\n', "expected an integer"),
        ('kind = "sustained"\nlimit_temp_c = true\n', "limit_temp_c"),
        ('kind = "chats"\n', "did you mean 'chat'"),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefinitionError, match=said):
        workload.load(own(tmp_path, toml, talk("user")))


@pytest.mark.parametrize(
    ("name", "setting", "said"),
    [
        ("quick", "concurrency=0", "concurrency = 0 cannot be run; give levels of 1 to 64"),
        ("quick", "concurrency=65", "cannot be run"),
        ("quick", "concurrency=2,2", "none of them twice"),
        ("quick", "concurrency=", "cannot be run"),
        ("quick", "concurrency=two", "is not a number"),
        ("quick", "concurrency=1.5", "is not a number"),
        ("quick", "concurrency=8", "more than the 5 requests of a level; give repeat = 2 or more"),
        ("chat", "concurrency=2", "concurrency is no setting of kind chat, only of generate; chat is one"),
        ("quick", "limit_s=60", "only of sustained; quick is one; known here: idle_s"),
        ("sustained", "limit_s=0", "0.0 is out of range"),
        ("sustained", "limit_s=nan", "out of range"),
        ("sustained", "limit_s=soon", "not a number"),
        ("sustained", "limit_temp_c=900", "give 1 to 150"),
        ("sustained", "limit_soc_percent=0", "give 1 to 99"),
        ("sustained", "repeat=2", "repeat is no setting of kind sustained"),
        ("chat", "pause_s=601", "give 0 to 600"),
        ("grid", "pause_s=1", "pause_s is no setting of kind grid, only of generate and chat and sustained"),
        ("quick", "temperature=9", "give 0 to 5"),
        ("quick", "top_k=40", "top_k and top_p change nothing at temperature 0"),
        ("quick", "top_p=0.5", "top_k and top_p change nothing at temperature 0"),
        ("melt-conversation", "temperature=0", "top_k and top_p change nothing at temperature 0"),
        ("melt-conversation", "top_k=1.5", "not a number"),
    ],
)
def test_a_wrong_setting_is_one_line(name: str, setting: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        planned(name, setting)
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="limit_s"):
        planned("sustained", "limits=5")


def test_every_setting_changes_the_plan() -> None:
    for name, settings in {
        "chat": ("max_tokens=7", "repeat=2", "warmup=0", "idle_s=1", "timeout_s=9"),
        "concurrency": ("concurrency=1", "concurrency=4,2,1", "repeat=5"),
        "sustained": ("limit_s=60", "limit_temp_c=80", "limit_soc_percent=20", "max_tokens=7", "warmup=0"),
        "melt-conversation": (
            "pause_s=0",
            "temperature=1",
            "top_k=10",
            "top_p=0.5",
            "repeat_penalty=1",
            "max_tokens=9",
        ),
    }.items():
        hashes = [planned(name).hash, *(planned(name, setting).hash for setting in settings)]
        assert len(set(hashes)) == len(settings) + 1


def test_how_tokens_are_drawn_is_in_the_request_and_a_greedy_one_says_nothing_of_it() -> None:
    def body(name: str) -> dict[str, Any]:
        (ask, *_) = workload.load(name).asks(0, 7)
        found: dict[str, Any] = json.loads(LlamaServer().request(ask).partition(b"\r\n\r\n")[2])
        return found

    drawn, greedy = body("melt-conversation"), body("chat")
    assert {key: drawn[key] for key in SAMPLING} == {
        "temperature": 0.9,
        "top_k": 40,
        "top_p": 0.95,
        "repeat_penalty": 1.1,
    }
    assert drawn["seed"] == 7
    assert greedy["temperature"] == 0
    assert not {"top_k", "top_p", "repeat_penalty"} & set(greedy)


# Words in the prompts of the study's first conversations; of the sustained one, 48 on end.
SHAPE = [
    [6, 17, 25, 22, 42, 30],
    [24, 38, 4, 36, 6, 12, 21, 7, 9, 10],
    [34, 10, 25, 10, 20, 11],
    [15, 7, 121, 21, 38, 23],
    [10, 10, 1, 8, 54, 13],
]
MORE = [9, 15, 19, 22, 8, 11, 10, 13, 22, 15, 13, 6, 17, 10]


def test_melts_workloads_have_the_shape_of_its_study() -> None:
    talks, circle = workload.load("melt-conversation"), workload.load("melt-sustained")

    def words(item: Any) -> list[int]:
        return [len(m["content"].split()) for m in item["messages"] if m["role"] == "user"]

    assert [words(item) for item in talks.items] == SHAPE
    assert [words(item) for item in circle.items] == [[n] for talk in SHAPE for n in talk] + [[n] for n in MORE]
    for work in (talks.workload, circle.workload):
        assert (work.pause_s, work.idle_s, work.max_tokens, work.ignore_eos, work.warmup) == (5, 60, 512, False, 0)
    assert talks.n_requests == 34
    assert (circle.workload.kind, circle.workload.limit_s) == ("sustained", 3600)
