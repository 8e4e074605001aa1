"""Ways of asking the same questions: which requests they are, who votes with whom, and what a question costs."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench import arms
from meltbench.asks import item_plays
from meltbench.definition import Workload
from meltbench.engines.llama_server import LlamaServer
from meltbench.engines.prompts import Ask, Sent
from meltbench.errors import UserError
from meltbench.measure.accuracy import accuracy_measures
from meltbench.measure.answers import scores
from meltbench.measure.digest import Edges, digest
from meltbench.measure.energy import Rail
from meltbench.measure.question_costs import question_measures, windows, with_costs
from meltbench.records import OK, Measure, Readings, Request, Score, Series
from meltbench.workload import Loaded

ITEMS: tuple[dict[str, Any], ...] = tuple({"id": f"q{n}", "prompt": f"Q{n}?", "answer": str(n)} for n in range(3))


def work(**more: Any) -> Workload:
    base: dict[str, Any] = {"items": "q.jsonl", "ignore_eos": False, "max_tokens": 32, "warmup": 0, "temperature": 0.7}
    return Workload("t", 1, "generate", **base | more)


def test_each_question_is_asked_at_a_time_in_each_way_with_seeds_of_its_own() -> None:
    plays = item_plays(ITEMS, work(budget=(8, 16), samples=(1, 4)), 5)
    assert all(play.concurrency == len(play.asks) == int(play.asks[0].point[-1]) for play in plays)
    assert {play.asks[0].point for play in plays} == {"b8.n1", "b8.n4", "b16.n1", "b16.n4"}
    for play in plays:
        first = play.asks[0]
        assert len({ask.item for ask in play.asks}) == 1
        assert [ask.seed for ask in play.asks] == [arms.own_seed(5, 0, k) for k in range(len(play.asks))]
        assert {ask.n_out for ask in play.asks} == {8 if first.point.startswith("b8.") else 16}
        assert (first.vote is None) == (play.concurrency == 1)
    votes = [play.asks[0].vote for play in plays if play.concurrency > 1]
    assert len(set(votes)) == len(votes) == 6
    assert len({ask.file for play in plays for ask in play.asks}) == sum(len(play.asks) for play in plays)
    loaded = Loaded("t", "0", work(budget=(8, 16), samples=(1, 4), warmup=1), ITEMS)
    assert (loaded.slots, loaded.n_requests) == (4, 4 + 3 * (1 + 4) * 2)
    assert loaded.n_requests == sum(len(play.asks) for play in loaded.plays(0, 0))


@given(
    st.integers(0, 2**31 - 1),
    st.integers(1, 3),
    st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
    st.integers(2, 40),
)
def test_a_round_of_questions_is_asked_in_every_way_before_the_next(
    seed: int, passes: int, budgets: list[int], n: int
) -> None:
    items = tuple({"id": f"q{k}", "prompt": f"Q{k}?", "answer": "1"} for k in range(n))
    settings = work(budget=tuple(budgets), samples=(1, 2), repeat=passes)
    plays = item_plays(items, settings, seed)
    assert plays == item_plays(items, settings, seed)
    ways = {point for point, _, _ in arms.of(settings)}
    asked = [(play.asks[0].item, play.asks[0].point) for play in plays]
    each = n * len(ways)
    assert len(asked) == passes * each
    for first in range(0, len(asked), each):
        mine = asked[first : first + each]
        assert set(mine) == {(item["id"], way) for item in items for way in ways}
        whole = len(ways) * -(-n // -(-n // arms.ROUND))
        for at in range(0, each, whole):
            rows = mine[at : at + whole]
            assert len({item for item, _ in rows}) == len(rows) / len(ways)  # cut off here, all are whole
            assert len(rows) > len(ways)
            assert all(one[0] != other[0] for one, other in pairwise(rows))


def test_what_drifts_falls_on_no_arm_more_than_on_another() -> None:
    items = tuple({"id": f"q{n}", "prompt": f"Q{n}?", "answer": "1"} for n in range(200))
    plays = item_plays(items, work(budget=(8, 16, 32)), 1)
    places: dict[str, list[int]] = {}
    for at, play in enumerate(plays):
        places.setdefault(play.asks[0].point, []).append(at)
    assert all(abs(sum(of) / len(of) - (len(plays) - 1) / 2) < 1 for of in places.values())
    firsts: dict[str, str] = {}
    for play in plays:
        firsts.setdefault(play.asks[0].item, play.asks[0].point)
    assert all(40 < list(firsts.values()).count(point) < 95 for point in places)


def test_no_two_answers_to_a_question_are_drawn_alike_in_passes_or_runs() -> None:
    seeds = {
        (run, ask.item, ask.seed)
        for run in (0, 1)
        for play in item_plays(ITEMS, work(samples=(4,), repeat=2), run)
        for ask in play.asks
    }
    assert (
        len({seed for _, _, seed in seeds}) == 2 * 2 * 4
    )  # by run, pass and answer; alike for the questions of a pass


def test_one_way_of_asking_has_no_name() -> None:
    plays = item_plays(ITEMS, work(samples=(4,)), 0)
    assert {ask.point for play in plays for ask in play.asks} == {""}
    assert arms.plain(work())
    assert not arms.plain(work(budget=(8,)))


def test_a_soft_budget_is_told_to_the_model_and_leaves_it_room() -> None:
    (play, *_) = item_plays(ITEMS[:1], work(budget=(100,), soft=True), 0)
    assert (play.asks[0].prompt, play.asks[0].n_out) == ("Q0? Think for maximum 100 tokens.", 400)
    (play, *_) = item_plays(ITEMS[:1], work(budget=(100,), soft=True, chat=True), 0)
    assert play.asks[0].messages == ({"role": "user", "content": "Q0? Think for maximum 100 tokens."},)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"samples": (4,), "temperature": 0.0}, "temperature 0 are the same answer; --set temperature=0.7"),
        ({"soft": True}, "soft is of a budget"),
        ({"budget": (8,), "ignore_eos": True}, "answers that end by themselves"),
        ({"budget": (8, 8)}, r"budget = 8,8 cannot be run; give levels of 1 to 1000000"),
        ({"samples": ()}, "samples =  cannot be run"),
        ({"samples": (65,)}, "give levels of 1 to 64"),
        ({"samples": (4,), "concurrency": (2,)}, "concurrency is of questions asked once each"),
    ],
)
def test_a_way_that_cannot_be_asked_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        work(**settings).check("here")


def test_thinking_is_switched_by_the_template_and_its_words_are_told_apart() -> None:
    (play, *_) = item_plays(ITEMS[:1], work(chat=True, thinking="off"), 0)
    body = json.loads(LlamaServer().request(play.asks[0]).partition(b"\r\n\r\n")[2])
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    deltas = [{"reasoning_content": "3 or"}, {"reasoning_content": " 4?"}, {"content": "It is"}, {"content": " 4"}]
    events = [{"choices": [{"delta": delta}], "timings": {"predicted_n": n + 1}} for n, delta in enumerate(deltas)]
    stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    raw = b"HTTP/1.1 200 OK\r\n\r\n" + stream
    stamps = np.array([40], np.int64)
    chunks = Readings.of(stamps, stamps, np.zeros(1, np.int32), [raw])
    found = LlamaServer().answer(play.asks[0], Sent(0, 10, 50), chunks)
    assert found.answer == "<think>3 or 4?</think>It is 4"
    both = b'data: {"choices": [{"delta": {"reasoning_content": "3 or 4?", "content": "4"}}]}\n\n'
    whole = Readings.of(stamps, stamps, np.zeros(1, np.int32), [b"HTTP/1.1 200 OK\r\n\r\n" + both])
    assert LlamaServer().answer(play.asks[0], Sent(0, 10, 50), whole).answer == "<think>3 or 4?</think>4"
    (score,) = scores([replace(found, role="timed")], {0: replace(play.asks[0], answer="3")}, "number")
    assert (score.extracted, score.correct) == ("4", 0.0)  # what it only thought of is no answer
    cut = replace(found, role="timed", answer="<think>3 or 4? 4")  # a budget that ended before its answer began
    (score,) = scores([cut], {0: replace(play.asks[0], answer="4")}, "number")
    assert (score.parsed, score.correct) == (False, 0.0)


def request(index: int, answer: str, t0: int, t1: int, **more: Any) -> Request:
    known: dict[str, Any] = {"status": "ok", "answer": answer} | more
    return Request(index, "q0", "timed", t_send_ns=t0 * 10**9, t_end_ns=t1 * 10**9, **known)


def voting(answers: list[str], gold: str | None = "7", **more: Any) -> Score:
    requests = [request(n, answer, 0, 1, **(more.get(f"r{n}") or {})) for n, answer in enumerate(answers)]
    asks = {n: Ask("", "q0", "timed", 8, n, answer=gold, vote=3) for n in range(len(answers))}
    (score,) = scores(requests, asks, "number")
    return score


def test_the_commonest_answer_is_taken_and_best_of_n_told_beside() -> None:
    score = voting(["so 8", "it is 7.0", "8", "7", "no idea", "7"])
    assert (score.extracted, score.correct, score.best, score.requests) == ("7.0", 1.0, 1.0, "0,1,2,3,4,5")
    assert score.method == "number/vote"
    wrong = voting(["8", "7", "8"])
    assert (wrong.extracted, wrong.correct, wrong.best) == ("8", 0.0, 1.0)
    tie = voting(["8", "7"])
    assert (tie.extracted, tie.correct) == ("8", 0.0)
    unread = voting(["a", "b"])
    assert (unread.parsed, unread.correct, unread.best) == (False, 0.0, 0.0)
    lost = voting(["7", "8", "8"], r1={"status": "truncated"}, r2={"status": "truncated"})
    assert (lost.extracted, lost.detail) == ("7", "2 of 3 answers failed")
    none = voting(["7", "7"], r0={"status": "http_500"}, r1={"status": "http_500"})
    assert (none.correct, none.detail) == (None, "http_500")
    assert voting(["7", "7"], gold=None).best is None


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_a_vote_is_won_by_no_rarer_answer(values: list[int]) -> None:
    score = voting([str(value) for value in values])
    assert values.count(int(score.extracted)) == max(values.count(value) for value in values)


def test_ways_have_accuracies_of_their_own_and_the_run_has_none() -> None:
    made = [
        replace(voting(["7", "8", "8"]), point="n3"),
        replace(voting(["7", "7", "8"]), item="other", point="n3"),
        replace(voting(["7"]), point="n1", requests="9"),
    ]
    found = {(one.name, one.phase): one.value for one in accuracy_measures(made)}
    assert found == {
        ("accuracy", "n3"): 0.5, ("unparsed", "n3"): 0.0, ("best_of_n", "n3"): 1.0,
        ("accuracy", "n1"): 1.0, ("unparsed", "n1"): 0.0,
    }  # fmt: skip


def rail(watts: float, seconds: int) -> Rail:
    """A counter of a constant power, read ten times a second, whose windows were all asked for."""
    t = np.arange(0, seconds * 10, dtype=np.int64) * 10**8
    status = np.full(len(t), OK, np.uint8)
    head = Series("rapl.p0", "J", "counter", "rapl", "soc", t, t + 1000, watts * t / 1e9, status, klass="B")
    spans = [(a * 10**9, b * 10**9) for a in range(seconds) for b in range(a + 1, seconds)]
    return Rail("total", "soc", "B", (digest(head, Edges.of(spans, None)),))


def test_a_question_costs_what_its_requests_took_together() -> None:
    requests = [request(0, "7", 2, 5), request(1, "7", 2, 8), request(2, "7", 9, 11), request(3, "7", 10, 12)]
    asked = [
        Score("q0", "m", 1.0, True, requests="0,1"),
        Score("q1", "m", 1.0, True, requests="2"),
        Score("q2", "m", 1.0, True, requests="9"),
    ]
    assert windows(asked, requests) == [(2 * 10**9, 8 * 10**9), (9 * 10**9, 11 * 10**9)]
    both, shared, lost = with_costs(asked, requests, rail(10.0, 20), "")
    assert both.latency_s == 6
    assert both.energy_j == pytest.approx(60, rel=0.01)
    assert both.energy_u_k2_j is not None
    assert abs(both.energy_j - 60) < both.energy_u_k2_j
    assert (shared.latency_s, shared.energy_j) == (2, None)
    assert shared.energy_reason.startswith("overlapping_requests: another question was under way")
    assert (lost.latency_s, lost.energy_j, lost.energy_reason) == (None, None, "no_request: its end was not seen")
    assert [one.energy_reason for one in with_costs(asked, requests, None, "no_energy_source: none")][:2] == [
        "no_energy_source: none"
    ] * 2


def test_a_question_with_a_failed_request_costs_nothing_that_is_known() -> None:
    requests = [
        request(0, "7", 2, 5), request(1, "", 2, 3, status="http_500"),
        request(2, "7", 9, 11), request(3, "", 12, 13, status="timeout"),
    ]  # fmt: skip
    asked = [
        Score("q0", "m", 1.0, True, requests="0,1"),  # a vote of the rest
        Score("q1", "m", 1.0, True, requests="2"),
        Score("q2", "m", None, False, requests="3"),
    ]
    assert windows(asked, requests) == [(9 * 10**9, 11 * 10**9)]
    made = with_costs(asked, requests, rail(10.0, 20), "")
    assert [one.latency_s for one in made] == [None, 2.0, None]
    assert [one.energy_j is None for one in made] == [True, False, True]
    assert made[0].energy_reason == "request_failed: q0: http_500"
    latency, energy = question_measures(made)
    assert (latency.value, latency.n) == (2.0, 1)
    assert latency.method == "2 of 3 questions have none: request_failed: q0: http_500"
    assert (energy.value, energy.reason) == (None, "request_failed: q0: http_500")
    none, energy = question_measures(with_costs(asked[2:], requests, None, "no_energy_source: none"))
    assert (none.value, none.reason, none.n) == (None, "request_failed: q0: timeout", 0)
    _, energy = question_measures(with_costs(asked, requests, None, "no_energy_source: none"))
    assert energy.reason == "no_energy_source: none"


def test_a_mean_over_questions_is_of_all_of_them_or_of_none() -> None:
    made = [replace(Score("a", "m", 1.0, True), latency_s=t, energy_j=10.0 * t) for t in (1.0, 3.0)]
    found = {one.name: one for one in question_measures(made)}
    assert (found["question_latency_s"].value, found["j_per_question"].value, found["j_per_question"].n) == (
        2.0,
        20.0,
        2,
    )
    made[1] = replace(made[1], energy_j=None, energy_reason="low_coverage: 3 updates")
    (energy,) = [one for one in question_measures(made) if one.name == "j_per_question"]
    assert (energy.value, energy.reason) == (None, "low_coverage: 3 updates")


def test_a_mean_energy_says_what_measured_it_and_how_surely() -> None:
    made = [
        replace(Score("a", "m", 1.0, True), latency_s=1.0, energy_j=e, energy_u_k2_j=u)
        for e, u in ((4.0, 0.4), (6.0, 0.6))
    ]
    total = Measure("energy_j", 10.0, "J", source="total", scope="wall", klass="A")
    (energy,) = [one for one in question_measures(made, total) if one.name == "j_per_question"]
    assert (energy.value, energy.u_k2, energy.scope, energy.klass) == (5.0, 0.5, "wall", "A")


def test_an_item_keeps_the_point_that_it_names_beside_that_of_its_arm() -> None:
    items = tuple(item | {"point": f"d{n}"} for n, item in enumerate(ITEMS))
    for more, named in (
        ({}, {"d0", "d1", "d2"}),
        ({"budget": (8,)}, {"d0", "d1", "d2"}),
        ({"samples": (1, 2)}, {f"d{n}.n{k}" for n in range(3) for k in (1, 2)}),
        ({"concurrency": (1, 2)}, {f"d{n}.c{k}" for n in range(3) for k in (1, 2)}),
    ):
        plays = item_plays(items, work(**more), 5)
        assert {ask.point for play in plays for ask in play.asks} == named
