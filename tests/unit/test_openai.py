from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.engines import Dialect
from meltbench.engines.checks import checked
from meltbench.engines.openai import OpenAI
from meltbench.engines.prompts import Ask, Sent
from meltbench.errors import UserError
from meltbench.measure.latency import itl_s
from meltbench.records import Readings, Request

MS = 1_000_000
SPEAK = OpenAI(Dialect(), "smol")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
ASK = Ask("00000", "a", "timed", 4, 0, messages=({"role": "user", "content": "Hi"},))
DONE = b"data: [DONE]\n\n"
ROLE = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
Part = tuple[int, bytes]


def sse(event: object) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def delta(text: str, **more: Any) -> bytes:
    return sse({"choices": [{"delta": {"content": text}, "finish_reason": None}]} | more)


def stop(reason: str = "length", **more: Any) -> bytes:
    return sse({"choices": [{"delta": {}, "finish_reason": reason}]} | more)


def usage(n_out: object, n_in: object = 9, **more: Any) -> bytes:
    told = {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": 13} | more
    return sse({"choices": [], "usage": told}) + DONE


def ask(*parts: Part, of: Ask = ASK, error: str = "") -> Request:
    t = np.array([ms * MS for ms, _ in parts], np.int64)
    end = int(t[-1]) if len(t) else 0
    chunks = Readings.of(t, t, np.zeros(len(t), np.int32), [raw for _, raw in parts])
    return checked(of, SPEAK.answer(of, Sent(0, 0, end, error), chunks))


TALK: list[Part] = [
    (40, HEAD + sse(ROLE)),
    (60, delta("Hel")),
    (70, delta("lo")),
    (80, delta(" ")),
    (90, delta("you")),
    (91, stop() + usage(4)),
]


def test_tokens_are_seen_arriving_and_the_server_counts_them() -> None:
    got = ask(*TALK)
    assert (got.status, got.detail, got.answer, got.stop_reason) == ("ok", "", "Hello you", "length")
    assert (got.n_in, got.n_cached, got.n_out, got.count_source) == (9, None, 4, "server")
    assert (got.token_n, got.token_t_ns) == ((1, 1, 1, 1), (60 * MS, 70 * MS, 80 * MS, 90 * MS))
    assert (got.ttft_s, got.e2e_s, got.tpot_s, got.decode_tps) == pytest.approx((0.060, 0.090, 0.010, 100))
    assert (got.prefill_tps, got.prefill_source) == (pytest.approx(9 / 0.06), "client_side")
    assert (got.engine_ttft_s, got.engine_prefill_tps, got.engine_decode_tps) == (None, None, None)


def test_what_mlc_says_of_itself_stands_beside_what_was_observed() -> None:
    extra: dict[str, float] = {"prompt_tokens": 9, "completion_tokens": 4, "prefill_tokens": 6, "decode_tokens": 3}
    extra |= {"prefill_tokens_per_s": 150.0, "decode_tokens_per_s": 110.0, "ttft_s": 0.05, "end_to_end_latency_s": 0.09}
    got = ask(*TALK[:-1], (91, stop() + usage(4, extra=extra)))
    assert (got.ttft_s, got.engine_ttft_s) == (pytest.approx(0.060), 0.05)
    assert (got.n_in, got.n_cached) == (9, 3)
    assert (got.prefill_tps, got.prefill_source, got.engine_prefill_tps) == (150.0, "engine", 150.0)
    assert (got.decode_tps, got.engine_decode_tps) == (pytest.approx(100), 110.0)
    cached = usage(4, prompt_tokens_details={"cached_tokens": 5}, extra=extra)
    assert ask(*TALK[:-1], (91, stop() + cached)).n_cached == 5
    # MLC leaves a rate out where its count is 0, and one token has no rate between tokens.
    one = {"prefill_tokens": 9, "ttft_s": 0.05}
    got = ask((60, HEAD + delta("x")), (61, stop() + usage(1, extra=one)))
    assert (got.n_out, got.engine_prefill_tps, got.engine_decode_tps, got.tpot_s) == (1, None, None, None)


def test_a_server_of_ours_sends_an_event_a_token_also_for_one_without_text() -> None:
    got = ask((40, HEAD + sse(ROLE)), (50, delta("")), (60, delta("é")), (70, delta("")), (71, stop() + usage(3)))
    # The first token was half a letter: it is seen where the letter is.
    assert (got.n_out, got.token_n, got.token_t_ns) == (3, (2, 1), (60 * MS, 70 * MS))
    assert got.ttft_s == pytest.approx(0.060)


def test_the_token_that_ends_the_text_arrives_with_the_last_event() -> None:
    got = ask((60, HEAD + delta("a")), (70, delta("b")), (80, stop("stop")), (81, usage(3)))
    assert (got.n_out, got.stop_reason, got.token_n) == (3, "stop", (1, 1, 1))
    assert got.token_t_ns[-1] == 80 * MS


def test_a_count_in_every_event_tells_what_each_brought() -> None:
    def so_far(n: int) -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 9, "completion_tokens": n}}

    opening = sse(ROLE | so_far(0))
    parts = [(40, HEAD + opening), (60, delta("a", **so_far(1))), (70, delta("bcd", **so_far(4)))]
    got = ask(*parts, (71, stop(**so_far(4)) + usage(4)))
    assert (got.n_out, got.token_n, got.count_source) == (4, (1, 3), "server")
    # A count that falls is no count of each event, though the sum may stand.
    got = ask(*parts, (71, stop(**so_far(2)) + usage(4)))
    assert (got.status, got.n_out, got.token_n) == ("ok", 4, (0, 0))


def test_what_nobody_can_share_out_is_not() -> None:
    got = ask((60, HEAD + delta("Hello")), (90, delta(" you")), (91, stop() + usage(4)))
    assert (got.status, got.n_out, got.token_n) == ("ok", 4, (0, 0))
    assert got.decode_tps == pytest.approx(100)
    assert itl_s(got) == []


def test_without_a_count_there_is_only_a_lower_bound() -> None:
    got = ask(*TALK[:-1], (91, stop() + DONE))
    assert (got.status, got.n_out, got.count_source) == ("ok", None, "chunks")
    assert got.detail == "nobody counted its tokens: at least 4, one a chunk of text"
    assert (got.tpot_s, got.decode_tps, got.token_n) == (None, None, (0, 0, 0, 0))
    assert got.ttft_s == pytest.approx(0.060)


def test_a_tokenizer_that_counted_afterwards_is_named() -> None:
    told = sse({"meltbench": {"completion_tokens": 4}})
    for last in (stop() + DONE + told, stop() + usage(9) + told):
        got = ask(*TALK[:-1], (91, last))
        assert (got.status, got.n_out, got.count_source, got.token_n) == ("ok", 4, "tokenizer", (1, 1, 1, 1))


def test_reasoning_is_text_that_arrives() -> None:
    thought = sse({"choices": [{"delta": {"reasoning_content": "hm"}}]})
    other = sse({"choices": [{"delta": {"reasoning": "so"}}]})
    got = ask((60, HEAD + thought), (70, other), (80, delta("yes")), (81, stop() + usage(3)))
    # As a model writes it where no server takes the marks out.
    assert (got.answer, got.token_n) == ("<think>hmso</think>yes", (1, 1, 1))
    both = sse({"choices": [{"delta": {"reasoning_content": "hm", "content": "ok"}}]})
    assert ask((60, HEAD + both), (70, delta("!")), (81, stop() + usage(2))).answer == "<think>hm</think>ok!"


def test_completions_have_text_in_place_of_a_delta() -> None:
    def piece(text: str, end: str | None = None) -> bytes:
        return sse({"choices": [{"text": text, "finish_reason": end}]})

    words = replace(ASK, messages=None, prompt="Hi")
    got = ask((60, HEAD + piece("a")), (70, piece("b")), (80, piece("", "stop")), (81, usage(2)), of=words)
    assert (got.status, got.answer, got.n_out, got.token_n) == ("ok", "ab", 2, (1, 1))


def test_events_may_end_in_crlf_and_hold_comments_and_letters_cut_by_chunks() -> None:
    raw = sse({"choices": [{"delta": {"content": "né"}}]}).replace(b"\\u00e9", "é".encode()).replace(b"\n", b"\r\n")
    body = b": ping\r\n\r\n" + raw
    at = body.index("é".encode()) + 1
    got = ask((50, HEAD + body[:at]), (60, body[at:]), (61, stop() + usage(1)))
    assert (got.status, got.answer, got.ttft_s) == ("ok", "né", pytest.approx(0.060))


def test_a_prompt_alone_ends_with_a_token_that_is_not_its_own() -> None:
    setup = replace(ASK, messages=None, tokens=(1,) * 9, n_out=0, n_in=9, n_cached=0)
    details = {"prompt_tokens_details": {"cached_tokens": 0}}
    got = ask((60, HEAD + delta("x")), (61, stop() + usage(1, **details)), of=setup)
    assert (got.status, got.n_out, got.decode_tps) == ("ok", 0, None)
    # A server that counts other tokens than the ids it was sent has changed them.
    assert ask((60, HEAD + delta("x")), (61, stop() + usage(1, 10, **details)), of=setup).status == "wrong_n_in"
    assert ask((60, HEAD + delta("x")), (61, stop() + usage(1)), of=setup).status == "wrong_depth"


@pytest.mark.parametrize(
    ("parts", "status", "detail"),
    [
        ([], "http_garbage", "empty answer"),
        ([(1, b"\x00\x1b[2J garbage")], "http_garbage", "no HTTP header"),
        ([(1, b'HTTP/1.1 401 x\r\n\r\n{"error":{"message":"no key"}}')], "http_401", "no key"),
        ([(1, b"HTTP/1.1 502 x\r\n\r\n<html>")], "http_502", "<html>"),
        ([(1, HEAD + b"data: {\n\n")], "engine_error", "an event that is not JSON"),
        ([(1, HEAD + b"data: 7\n\n")], "engine_error", "an event that is not an object"),
        ([*TALK[:3], (75, sse({"error": {"message": "out of memory"}}))], "engine_error", "out of memory"),
        ([*TALK[:3], (75, sse({"object": "error", "message": "bad"}))], "engine_error", "bad"),
        (TALK[:4], "truncated", "the answer ended without saying why"),
        ([*TALK[:3], (75, b'data: {"choices":[{"del')], "truncated", "the answer ended without saying why"),
        ([(1, HEAD + b"hello")], "garbage", "the answer holds no event"),
        ([*TALK[:-1], (91, stop() + usage(3))], "miscounted", "the server counts 3 tokens, 4 chunks of text came"),
        ([*TALK[:-1], (91, stop() + usage(4000))], "miscounted", "the server counts 4000 tokens, 4 were asked for"),
        (
            [*TALK[:-1], (91, stop() + usage(4, prompt_tokens_details={"cached_tokens": 10}))],
            "miscounted",
            "the server counts 9 tokens of the prompt, 10 of them cached",
        ),
        (
            [(1, HEAD + delta("x") * 10_000)],
            "engine_error",
            "more than 20 chunks of text came, 4 tokens were asked for",
        ),
    ],
)
def test_a_broken_answer_is_named_and_never_a_number(parts: list[Part], status: str, detail: str) -> None:
    got = ask(*parts)
    assert (got.status, got.detail) == (status, detail)
    assert (got.n_out, got.decode_tps, got.tpot_s, got.count_source) == (None, None, None, None)


def test_tokens_without_any_text_are_counted_and_have_no_times() -> None:
    got = ask((60, HEAD + delta("")), (70, stop("stop") + usage(2)))
    assert (got.status, got.n_out, got.ttft_s, got.decode_tps, got.token_n) == ("ok", 2, None, None, ())


def test_a_server_that_does_not_stream_is_told_from_one_that_says_nothing() -> None:
    whole = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    raw = json.dumps(whole).encode()
    got = ask((50, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + raw))
    assert (got.status, got.ttft_s) == ("not_streamed", None)


def test_the_probes_word_wins_over_an_answer_cut_short() -> None:
    assert ask(*TALK[:3], error="timeout").status == "timeout"
    assert ask((1, HEAD + delta("x") * 3), error="too_large").status == "too_large"


@pytest.mark.parametrize("count", [None, True, -1, 1e3, "4", 10**400, [4]])
def test_what_is_no_count_is_none(count: object) -> None:
    got = ask(*TALK[:-1], (91, stop() + sse({"choices": [], "usage": {"completion_tokens": count}}) + DONE))
    assert (got.status, got.n_out, got.count_source) == ("ok", None, "chunks")


KEYS = ["choices", "delta", "content", "text", "usage", "completion_tokens", "prompt_tokens", "extra", "error"]
MORE = ["prefill_tokens", "ttft_s", "role", "finish_reason", "meltbench", "prompt_tokens_details", "cached_tokens"]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS + MORE), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(JSON, max_size=4), st.booleans())
def test_any_json_gives_a_request_and_no_exception(events: list[object], done: bool) -> None:
    got = ask((5, HEAD + b"".join(map(sse, events)) + DONE * done))
    assert (got.status == "ok") == (got.count_source is not None)
    assert got.n_out is None or got.n_out >= 0


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_after_a_good_beginning_give_a_request(noise: bytes, cut: int) -> None:
    whole = b"".join(raw for _, raw in TALK)
    for raw in (whole[:cut] + noise, HEAD + noise + sse({"choices": []})):
        got = ask((5, raw[: len(raw) // 2]), (6, raw[len(raw) // 2 :]))
        assert got.status
        assert got.status == "ok" or got.detail


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 3)), min_size=1, max_size=8))
def test_counts_in_every_event_add_up_to_the_answers(pieces: list[tuple[str, int]]) -> None:
    total, parts = 0, [(1, HEAD)]
    for at, (text, more) in enumerate(pieces):
        total += more
        parts.append((10 + at, delta(text, usage={"completion_tokens": total, "prompt_tokens": 9})))
    long = replace(ASK, n_out=24)
    got = ask(*parts, (99, stop(usage={"completion_tokens": total, "prompt_tokens": 9}) + usage(total)), of=long)
    if got.status == "ok" and got.token_n:
        first = next(at for at, (text, _) in enumerate(pieces) if text)
        assert sum(got.token_n) == total == got.n_out
        assert got.token_n[0] == sum(more for _, more in pieces[: first + 1])


def body(raw: bytes) -> dict[str, Any]:
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(rest)}".encode() in head
    told: dict[str, Any] = json.loads(rest)
    return told


def test_a_request_holds_nothing_that_a_strict_server_would_refuse() -> None:
    raw = SPEAK.request(replace(ASK, seed=3, messages=({"role": "user", "content": "é\r\nX: y"},)))
    assert raw.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert raw.count(b"\r\n\r\n") == 1
    assert body(raw) == {
        "model": "smol",
        "messages": [{"role": "user", "content": "é\r\nX: y"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 4,
        "temperature": 0,
        "seed": 3,
    }
    words = SPEAK.request(replace(ASK, messages=None, prompt="Hi", n_out=0, sampling={"temperature": 0.5}))
    assert words.startswith(b"POST /v1/completions HTTP/1.1\r\n")
    assert (body(words)["prompt"], body(words)["max_tokens"], body(words)["temperature"]) == ("Hi", 1, 0.5)


def test_what_a_recipe_says_its_server_knows_is_sent() -> None:
    vllm = Dialect(
        path="/api/v1",
        token_ids=True,
        fields=("ignore_eos", "min_tokens", "continuous_usage_stats", "repetition_penalty", "top_k"),
    )
    speak = OpenAI(vllm, "m")
    ids = replace(ASK, messages=None, tokens=(5, 6), sampling={"top_k": 40, "repeat_penalty": 1.1})
    raw = speak.request(ids)
    told = body(raw)
    assert raw.startswith(b"POST /api/v1/completions HTTP/1.1\r\n")
    assert (told["prompt"], told["ignore_eos"], told["min_tokens"]) == ([5, 6], True, 4)
    assert told["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert (told["top_k"], told["repetition_penalty"], "repeat_penalty" in told) == (40, 1.1, False)
    assert not {"ignore_eos", "min_tokens"} & set(body(speak.request(replace(ids, ignore_eos=False))))
    bounded = OpenAI(Dialect(fields=("structured_outputs", "chat_template_kwargs")), "m")
    told = body(bounded.request(replace(ASK, allowed=("A", "B"), thinks=False, stop=("\n",))))
    assert (told["structured_outputs"], told["stop"]) == ({"choice": ["A", "B"]}, ["\n"])
    assert told["chat_template_kwargs"] == {"enable_thinking": False}
    mlc = OpenAI(Dialect(fields=("debug_config", "cache_prompt")), "m")
    told = body(mlc.request(ASK))
    assert (told["debug_config"], told["cache_prompt"]) == ({"ignore_eos": True}, False)


def test_a_server_that_was_told_not_to_look_into_its_cache_did_not() -> None:
    speak, parts = OpenAI(Dialect(fields=("cache_prompt",)), "m"), TALK
    t = np.array([ms * MS for ms, _ in parts], np.int64)
    chunks = Readings.of(t, t, np.zeros(len(t), np.int32), [raw for _, raw in parts])
    asks = [replace(ASK, keep_cache=keep) for keep in (False, True)]
    found = [speak.answer(one, Sent(0, 0, 91 * MS), chunks).n_cached for one in asks]
    assert found == [0, None]


def test_what_a_server_does_not_know_is_refused_and_not_left_out() -> None:
    with pytest.raises(UserError, match="not known to take repeat_penalty"):
        SPEAK.request(replace(ASK, sampling={"repeat_penalty": 1.1}))
    for ask_, what in (
        (replace(ASK, messages=None, tokens=(1,)), "token ids, which a grid is made of"),
        (replace(ASK, target=7), "a question about a token's log-probability"),
        (replace(ASK, allowed=("A", "B")), "the only answers that it may give"),
        (replace(ASK, thinks=False), "whether a model is to think"),
    ):
        with pytest.raises(UserError, match=what):
            SPEAK.request(ask_)


def test_where_a_server_says_that_it_is_ready() -> None:
    assert SPEAK.health_path == "/v1/models"
    assert OpenAI(Dialect(path="", health="/health"), "m").health_path == "/health"
    for path in ("v1", "/v 1", "/v1\r\nX: y", "/é"):
        with pytest.raises(ValueError, match="is no path"):
            Dialect(path=path)


def test_the_accelerator_is_what_a_server_of_ours_writes_or_llama_cpp_in_another() -> None:
    assert SPEAK.identity("loading\nmeltbench: accelerator CUDA\n")["accelerator"] == "CUDA"
    assert SPEAK.identity("using device Vulkan0 (AMD)")["accelerator"] == "Vulkan"
    assert SPEAK.identity("INFO started")["accelerator"] == "unknown"
