"""Scores by log-likelihood: which tokens are asked about, whose they are, and what they come to."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench import loglik
from meltbench.compose import by_token
from meltbench.definition import Workload
from meltbench.engines import llama_logprob
from meltbench.engines.http import Answer, decode
from meltbench.engines.llama_server import LlamaServer
from meltbench.engines.prompts import Ask, Sent
from meltbench.errors import UserError
from meltbench.measure.accuracy import accuracy_measures
from meltbench.measure.likelihood import Normalise, gathered
from meltbench.records import Readings, Request
from meltbench.ticket import described
from meltbench.tokenizer import Tokenized
from meltbench.told import Told, told_of
from meltbench.workload import Loaded

BYTES = {text: tuple(text.encode()) for text in ("Q:", "Q: yes", "Q: no", "Q: yet")}
ITEM = {"id": "a", "prompt": "Q:", "choices": [" yes", " no", " yet"], "answer": 0}


def test_each_token_of_each_choice_is_asked_for_after_all_before_it() -> None:
    asks, (scored,) = loglik.choices([ITEM], BYTES, 7)
    assert [(span.first, span.n, span.start, span.common, span.characters) for span in scored.spans] == [
        (0, 4, 2, 1, 3),  # " yes": its space is common to all
        (4, 3, 2, 1, 2),
        (7, 4, 2, 1, 3),
    ]
    first = asks[0]
    assert (first.file, first.tokens, first.target, first.n_in, first.seed) == ("00000", tuple(b"Q:"), ord(" "), 2, 7)
    assert bytes([*(asks[10].tokens or ()), asks[10].target or 0]) == b"Q: yet"
    assert all(ask.keep_cache and not ask.ignore_eos and ask.n_out == 1 for ask in asks)
    again = loglik.expanded([loglik.Scored.of(json.loads(json.dumps(scored.told())))], [a.target or 0 for a in asks])
    assert [(a.file, a.item, a.n_in, a.target) for a in again] == [(a.file, a.item, a.n_in, a.target) for a in asks]


def test_where_the_prompts_end_joins_a_choice_all_choices_are_scored_from_the_same_token() -> None:
    tokens = {"ab": (1, 2), "ab c": (1, 2, 3), "ab d": (1, 9, 4)}  # the second one has b and the space in one token
    _, (scored,) = loglik.choices([{"id": "a", "prompt": "ab", "choices": [" c", " d"], "answer": 0}], tokens, 0)
    assert [(span.start, span.n, span.common) for span in scored.spans] == [(1, 2, 0), (1, 2, 0)]


def test_of_two_prompts_each_choice_begins_where_its_own_prompt_ends() -> None:
    tokens = {"x": (1,), "x z": (1, 5), "yy": (2, 3), "yy z": (2, 3, 5)}
    item = {"id": "w", "prompts": ["x", "yy"], "choices": [" z", " z"], "answer": 1}
    _, (scored,) = loglik.choices([item], tokens, 0)
    assert [(span.start, span.n, span.common) for span in scored.spans] == [(1, 1, 0), (2, 1, 0)]
    assert loglik.texts([item]) == ["x", "x z", "yy", "yy z"]


def test_a_text_is_scored_in_the_second_half_of_each_chunk_as_llama_perplexity_does() -> None:
    text = {"t": tuple(range(100, 135))}
    asks, scored = loglik.chunks("t", text, 8, None, 0, bos=None)
    assert len(scored) == 4  # of 35 tokens three are left over
    assert [ask.target for ask in asks[:3]] == [105, 106, 107]  # those before, 101 to 104, are only context
    assert asks[3].tokens == tuple(range(108, 113))
    with_bos, _ = loglik.chunks("t", text, 8, 1, 0, bos=1)
    assert with_bos[0].tokens == (1, 101, 102, 103, 104)
    with pytest.raises(UserError, match=r"35 tokens, less than one chunk of 64"):
        loglik.chunks("t", text, 64, None, 0, bos=None)
    with pytest.raises(UserError, match=r"at most 90000 can be in one run; --resume --piece 500"):
        loglik.chunks("t", {"t": (0,) * 400_000}, 512, None, 0, bos=None)


def answers(scored: loglik.Scored, logprobs: dict[int, list[float]]) -> dict[int, Request]:
    out = {}
    for span, values in zip(scored.spans, logprobs.values(), strict=True):
        for at, value in enumerate(values):
            n = span.first + at
            out[n] = Request(
                n,
                scored.item,
                "timed",
                "ok",
                n * 10,
                n * 10 + 5,
                n_in=span.start + at,
                n_cached=span.start,
                logprob=value,
            )
    return out


def test_the_likeliest_choice_depends_on_what_it_is_divided_by() -> None:
    _, (scored,) = loglik.choices([ITEM], BYTES, 0)
    said = answers(scored, {0: [-1.0, -1.0, -1.0, -1.0], 1: [-1.0, -1.5, -1.4], 2: [-1.0, -3.0, -3.0, -3.0]})
    # sums -4, -3.9, -10; by character -1.33, -1.95; by token, the common space left out, -1.0, -1.45
    taken: dict[Normalise, str] = {"none": "1", "characters": "0", "tokens": "0"}
    for way, choice in taken.items():
        (score,) = gathered([scored], said, way).scores
        assert (score.extracted, score.correct, score.gold) == (choice, float(choice == "0"), "0")
        assert score.method == f"loglik/{way}"
    assert gathered([scored], said, "characters").by_way == {
        "none": [0.0],
        "characters": [1.0],
        "tokens": [1.0],
    }
    two_true = replace(scored, true=(0, 2))
    (mass,) = gathered([two_true], said, "mass").scores
    likeliest_is_true = replace(scored, answer=0, true=(0, 1))
    assert gathered([likeliest_is_true], said, "none").by_way["none"] == [1.0]
    weights = [math.exp(-4), math.exp(-3.9), math.exp(-10)]
    assert mass.correct == pytest.approx((weights[0] + weights[2]) / sum(weights))


def test_a_choice_is_divided_by_its_characters_as_acc_norm_is_and_not_by_their_bytes() -> None:
    texts = ("Q:", "Q: naïveté", "Q: bluntness")  # 7 characters of 9 bytes, and 9 of 9
    item = {"id": "a", "prompt": "Q:", "choices": [" naïveté", " bluntness"], "answer": 1}
    _, (scored,) = loglik.choices([item], {text: tuple(text.encode()) for text in texts}, 0)
    assert [span.characters for span in scored.spans] == [7, 9]
    sums = (-9.0, -10.0)  # by character -1.286 and -1.111, by byte -1 and -1.111
    shares = {at: [total / span.n] * span.n for at, (total, span) in enumerate(zip(sums, scored.spans, strict=True))}
    said = answers(scored, shares)
    (score,) = gathered([scored], said, "characters").scores
    assert (score.extracted, score.correct) == ("1", 1.0)


def test_an_item_is_one_request_from_its_first_token_to_its_last() -> None:
    _, (scored,) = loglik.choices([ITEM], BYTES, 0)
    whole = answers(scored, {0: [-1.0] * 4, 1: [-1.0] * 3, 2: [-1.0] * 4})
    (request,) = gathered([scored], whole, "none").requests
    assert (request.t_send_ns, request.t_end_ns, request.e2e_s, request.status) == (0, 105, 1.05e-07, "ok")
    assert request.n_in == sum(one.n_in - one.n_cached for one in whole.values())  # type: ignore[operator]
    for broken, status in (
        ({n: one for n, one in whole.items() if n != 5}, "truncated"),
        (whole | {5: replace(whole[5], status="http_500", logprob=None)}, "http_500"),
        (whole | {5: replace(whole[5], logprob=None)}, "garbage"),
    ):
        found = gathered([scored], broken, "none")
        assert (found.requests[0].status, found.scores[0].correct, found.scores[0].detail) == (status, None, status)
        assert found.by_way["none"] == []
    assert gathered([scored], {}, "none").requests == []


def test_perplexity_is_of_all_tokens_and_its_error_of_the_chunks() -> None:
    _, scored = loglik.chunks("t", {"t": tuple(range(32))}, 8, None, 0, bos=None)
    per_chunk = [-1.0, -2.0, -3.0, -2.0]
    said = {n: one for item, v in zip(scored, per_chunk, strict=True) for n, one in answers(item, {0: [v] * 3}).items()}
    found = gathered(scored, said, "none")
    measures = {one.name: one for one in accuracy_measures(found.scores)}
    assert measures["perplexity"].value == pytest.approx(math.exp(2.0))
    assert (measures["perplexity"].n, measures["perplexity"].method) == (12, "4 chunks")
    assert measures["nll_per_token"].u_k2 == pytest.approx(2 * np.std(per_chunk, ddof=1) / 2)
    one = accuracy_measures(found.scores[:1])
    assert [m.u_k2 for m in one] == [None, None]  # one chunk says nothing of how chunks differ
    lost = [replace(score, value=None, n=None) for score in found.scores]
    assert [m.reason for m in accuracy_measures(lost)] == ["no_score: none of 4 chunks has one"] * 2


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.lists(st.lists(st.floats(-50, 0), min_size=1, max_size=5), min_size=2, max_size=4)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_the_log_probabilities_a_score_is_between_none_and_all(items: list[Any]) -> None:
    for answer, choices in items:
        spans, first = [], 0
        for values in choices:
            spans.append(loglik.Span(first, len(values), 3, min(1, len(values) - 1), 4))
            first += len(values)
        gold = answer % len(choices)
        scored = loglik.Scored("a", "", gold, (gold,), tuple(spans))
        said = answers(scored, dict(enumerate(choices)))
        for way in ("none", "characters", "tokens", "mass"):
            (score,) = gathered([scored], said, way).scores  # type: ignore[arg-type]
            assert score.correct is not None
            assert 0 <= score.correct <= 1


TOKEN = Ask("00000", "a", "timed", 1, 3, ignore_eos=False, keep_cache=True, tokens=(5, 6), n_in=2, target=9)
GOOD = {"completion_probabilities": [{"id": 9, "logprob": -1.25}], "tokens_evaluated": 2, "timings": {"cache_n": 1}}


def http(body: bytes, status: str = "200 OK") -> Readings:
    raw = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    stamps = np.array([40], np.int64)
    return Readings.of(stamps, stamps, np.zeros(1, np.int32), [raw])


def test_the_token_is_forced_and_its_own_probability_read() -> None:
    speak = LlamaServer()
    head, _, body = speak.request(TOKEN).partition(b"\r\n\r\n")
    asked = json.loads(body)
    assert head.startswith(b"POST /completion HTTP/1.1")
    assert (asked["prompt"], asked["logit_bias"], asked["n_predict"], asked["stream"]) == (
        [5, 6],
        [[9, 1000]],
        1,
        False,
    )
    found = speak.answer(TOKEN, Sent(0, 10, 50), http(json.dumps(GOOD).encode()))
    assert (found.status, found.logprob, found.n_in, found.n_cached, found.n_out) == ("ok", -1.25, 2, 1, 1)


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (
            GOOD | {"completion_probabilities": [{"id": 8, "logprob": -1.0}]},
            "garbage",
            "asked about token 9, it tells of 8",
        ),
        (GOOD | {"completion_probabilities": []}, "garbage", "it tells of no token"),
        (GOOD | {"completion_probabilities": [{"id": 9, "logprob": 3.5}]}, "garbage", "3.5 is no log-probability"),
        (GOOD | {"completion_probabilities": [{"id": 9, "logprob": "x"}]}, "garbage", "x is no log-probability"),
        (GOOD | {"completion_probabilities": [{"id": 9, "logprob": -3.4e38}]}, "garbage", "underflowed"),
        (GOOD | {"tokens_evaluated": 7}, "wrong_n_in", "asked 2 prompt tokens, the engine saw 7"),
        (GOOD | {"tokens_evaluated": True}, "wrong_n_in", "the engine saw True"),
        ([], "garbage", "no token"),
        ("not an object", "garbage", "no token"),
    ],
)
def test_what_is_told_of_something_else_is_no_answer(body: Any, status: str, detail: str) -> None:
    found = LlamaServer().answer(TOKEN, Sent(0, 10, 50), http(json.dumps(body).encode()))
    assert (found.status, found.logprob) == (status, None)
    assert detail in found.detail


@given(st.binary(max_size=200))
def test_no_bytes_of_a_server_raise(body: bytes) -> None:
    found = LlamaServer().answer(TOKEN, Sent(0, 10, 50), http(body))
    assert found.logprob is None or found.logprob <= 0
    blank = Request(0, "a", "timed", "ok", 0, 1)
    whole: Answer = decode(http(body))
    assert llama_logprob.read(TOKEN, blank, whole).status in ("ok", "garbage", "wrong_n_in")


def test_a_refusal_is_told_in_the_servers_words() -> None:
    found = LlamaServer().answer(TOKEN, Sent(0, 10, 50), http(b'{"error": {"message": "too long"}}', "400 Bad"))
    assert (found.status, found.detail) == ("http_400", "too long")


def test_an_answer_can_be_held_to_a_few_texts() -> None:
    ask = Ask("0", "a", "timed", 1, 0, ignore_eos=False, prompt="Q", stop=("\n\n",), allowed=(" A", ' "B'))
    body = json.loads(LlamaServer().request(ask).partition(b"\r\n\r\n")[2])
    assert body["grammar"] == r'root ::= " A" | " \"B"'
    assert body["stop"] == ["\n\n"]


WARM, TIMED = "00011", [f"{n:05d}" for n in range(11)]


def served(sent: list[str]) -> Told:
    """A run of one item of three choices, whose requests were sent in this order, a second each."""
    work = Loaded("t", "0", Workload("t", 1, "choices", items="q"), (ITEM,))
    plays, scored = by_token(work, Tokenized(BYTES, None), 7)
    asks = {ask.file: ask for play in plays for ask in play.asks}
    timed = [ask for ask in asks.values() if ask.role == "timed"]
    streams, events = {}, []
    for at, file in enumerate(sent):
        ask, t = asks[file], np.array([at + 1], np.int64) * 10**9
        told = {"completion_probabilities": [{"id": ask.target, "logprob": -1.0}], "tokens_evaluated": ask.n_in}
        body = json.dumps(told | {"timings": {"cache_n": 0}}).encode()
        if ask.target is None:
            event = {"content": "x", "tokens": [1], "timings": {"cache_n": 0, "prompt_n": 2, "predicted_n": 1}}
            body = b"data: " + json.dumps(event).encode() + b"\n\n"
        raw = b"HTTP/1.1 200 OK\r\n\r\n" + body
        streams[at] = SimpleNamespace(readings=Readings.of(t, t, np.zeros(1, np.int32), [raw]))
        span = {"boot_ns": at * 10**9, "t_send0": at * 10**9, "t_end": (at + 1) * 10**9, "stream": at}
        events.append({"file": f"req/{file}"} | span)
    journal = SimpleNamespace(named=lambda name: events if name == "request" else [], streams=streams)
    ticket = {
        "runner": {"protocol": "llama-server", "mode": "server"},
        "workload": {"kind": "choices", "normalise": "none"},
        "asks": json.loads(json.dumps(described([asdict(asks[file]) for file in sent if file == WARM]))),
        "scored": {"items": [one.told() for one in scored], "targets": [ask.target for ask in timed]},
    }
    return told_of(ticket, journal)  # type: ignore[arg-type]


def test_a_request_warms_the_engine_up_and_leaves_it_nothing_that_a_timed_one_begins_with() -> None:
    work = Loaded("t", "0", Workload("t", 1, "choices", items="q"), (ITEM,))
    (play,), _ = by_token(work, Tokenized(BYTES, None), 7)
    warm, *timed = play.asks
    assert (warm.role, warm.file, warm.tokens, warm.target) == ("warmup", WARM, tuple(b":Q"), None)
    assert not warm.keep_cache
    assert [ask.file for ask in timed] == TIMED
    text = Loaded("t", "0", Workload("t", 1, "perplexity", items="q", chunk=8), ({"id": "a", "text": "t"},))
    (play,), _ = by_token(text, Tokenized({"t": tuple(range(35))}, None), 0)
    assert [ask.role for ask in play.asks] == ["warmup"] + ["timed"] * 12


def test_a_warm_up_is_a_request_of_the_run_that_nobody_scores() -> None:
    told = served([WARM, *TIMED])
    assert [(one.index, one.role, one.status) for one in told.requests] == [(0, "warmup", "ok"), (1, "timed", "ok")]
    assert (told.requests[1].t_send_ns, told.requests[1].e2e_s) == (10**9, 11)
    assert [(one.item, one.requests, one.value) for one in told.scores] == [("a", "1", -3.0)]
    assert (told.n_asked, told.requests[0].t_end_ns) == (2, 10**9)
