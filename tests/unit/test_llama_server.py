from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.engines import protocol
from meltbench.engines.prompts import Ask, Sent
from meltbench.errors import UnknownName
from meltbench.records import Readings, Request

MS = 1_000_000
SPEAK = protocol("llama-server")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
ASK = Ask("00000", "a", "timed", 4, 0, prompt="Hello")


def timings(n: int, ms: float, **more: Any) -> dict[str, Any]:
    return {
        "cache_n": 0,
        "prompt_n": 5,
        "prompt_ms": 50.0,
        "prompt_per_second": 100.0,
        "predicted_n": n,
        "predicted_ms": ms,
    } | more


def sse(event: object) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def token(n: int, text: str = "x", **more: Any) -> bytes:
    return sse({"content": text, "tokens": [n], "timings": timings(n, 10.0 * (n - 1))} | more)


LAST = sse(
    {
        "content": "",
        "tokens": [],
        "stop": True,
        "stop_type": "limit",
        "timings": timings(4, 30, predicted_per_second=100.0),
    }
)


def ask(*parts: tuple[int, bytes], of: Ask = ASK, error: str = "") -> Request:
    t = np.array([ms * MS for ms, _ in parts], np.int64)
    raw = [part for _, part in parts]
    end = int(t[-1]) if len(t) else 0
    return SPEAK.answer(of, Sent(0, 0, end, error), Readings.of(t, t, np.zeros(len(t), np.int32), raw))


def test_observed_and_reported_stand_side_by_side() -> None:
    got = ask((60, HEAD + token(1)), (70, token(2)), (80, token(3)), (90, token(4)), (91, LAST))
    assert got.status == "ok"
    assert (got.n_in, got.n_cached, got.n_out) == (5, 0, 4)
    assert got.ttft_s == pytest.approx(0.060)
    assert got.e2e_s == pytest.approx(0.090)
    assert got.tpot_s == pytest.approx(0.010)
    assert got.decode_tps == pytest.approx(100)
    assert (got.prefill_tps, got.prefill_source) == (100, "engine")
    assert (got.engine_prefill_s, got.engine_decode_tps) == (0.05, 100.0)
    assert (got.token_n, got.stop_reason, got.answer) == ((1, 1, 1, 1), "limit", "xxxx")


def test_a_chunk_with_several_tokens_counts_them() -> None:
    got = ask((60, HEAD + token(1)), (80, token(3)), (90, token(4)), (91, LAST))
    assert got.token_n == (1, 2, 1)
    assert got.n_out == 4


def test_the_prefill_rate_falls_back_to_the_clients_and_says_so() -> None:
    bare = {"predicted_n": 4, "predicted_ms": 30, "prompt_n": 5, "cache_n": 0}
    got = ask((50, HEAD + sse({"content": "a"})), (60, sse({"content": "b", "stop": True, "timings": bare})))
    assert (got.prefill_tps, got.prefill_source) == (pytest.approx(100), "client_side")
    assert got.engine_prefill_tps is None


def test_one_token_has_no_rate_between_tokens() -> None:
    got = ask((60, HEAD + token(1)), (61, sse({"content": "", "stop": True, "timings": timings(1, 0.001)})))
    assert got.n_out == 1
    assert (got.tpot_s, got.decode_tps, got.engine_decode_tps) == (None, None, None)


def test_a_chat_answer_reads_its_deltas() -> None:
    def delta(text: str | None, n: int | None = None) -> bytes:
        more = {} if n is None else {"timings": timings(n, 10.0 * (n - 1))}
        return sse({"choices": [{"delta": {"content": text}, "finish_reason": None}], **more})

    end = sse({"choices": [], "usage": {}, "timings": timings(2, 10)})
    stop = sse({"choices": [{"delta": {}, "finish_reason": "length"}]})
    got = ask(
        (1, HEAD + delta(None)), (40, delta("Hi", 1)), (50, delta("!", 2)), (51, stop + end + b"data: [DONE]\n\n")
    )
    assert (got.status, got.answer, got.n_out, got.stop_reason) == ("ok", "Hi!", 2, "length")
    assert got.ttft_s == pytest.approx(0.040)


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([], "http_garbage"),
        ([(1, b"\x00\x1b[2J garbage")], "http_garbage"),
        ([(1, b'HTTP/1.1 400 Bad\r\n\r\n{"error":{"message":"too long"}}')], "http_400"),
        ([(1, HEAD + b"data: {\n\n")], "engine_error"),
        ([(1, HEAD + b"data: 7\n\n")], "engine_error"),
        ([(1, HEAD + sse({"error": {"message": "boom"}}))], "engine_error"),
        ([(1, HEAD + token(1, timings=None))], "truncated"),
        ([(1, HEAD + b"hello")], "garbage"),
    ],
)
def test_a_broken_answer_is_named_and_never_a_number(parts: list[tuple[int, bytes]], status: str) -> None:
    got = ask(*parts)
    assert got.status == status
    assert got.detail
    assert got.decode_tps is None


def test_the_probes_error_wins() -> None:
    assert ask((60, HEAD + token(1)), error="deadline").status == "deadline"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "content", "tokens", "timings", "delta", "predicted_n", "error"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=4))
def test_any_json_gives_a_request_and_no_exception(events: list[object]) -> None:
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    got = ask((5, HEAD + body))
    assert got.n_out is None or got.n_out >= 0


def test_requests_are_greedy_seeded_and_sized() -> None:
    head, _, body = SPEAK.request(Ask("0", "a", "timed", 7, 3, tokens=(1, 2), keep_cache=True)).partition(b"\r\n\r\n")
    sent = json.loads(body)
    assert head.startswith(b"POST /completion HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert (sent["prompt"], sent["n_predict"], sent["seed"], sent["temperature"], sent["cache_prompt"]) == (
        [1, 2],
        7,
        3,
        0,
        True,
    )
    chat = SPEAK.request(Ask("0", "a", "timed", 7, 3, messages=({"role": "user", "content": "é\r\nX: y"},)))
    assert chat.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert chat.count(b"\r\n\r\n") == 1
    assert json.loads(chat.partition(b"\r\n\r\n")[2])["messages"][0]["content"] == "é\r\nX: y"


def test_the_accelerator_is_read_from_the_log() -> None:
    assert SPEAK.identity("llama_model_load: using device CUDA0 (NVIDIA) - 20000 MiB free")["accelerator"] == "CUDA"
    assert SPEAK.identity("ggml: using device Vulkan1")["accelerator"] == "Vulkan"
    assert SPEAK.identity("srv init: model loaded")["accelerator"] == "CPU"
    assert SPEAK.identity("")["accelerator"] == "unknown"


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UnknownName, match="llama-sever"):
        protocol("llama-sever")


def test_the_end_of_text_token_is_counted_when_the_closing_event_brings_it() -> None:
    def delta(text: str, n: int) -> bytes:
        return sse({"choices": [{"delta": {"content": text}}], "timings": timings(n, 10.0 * (n - 1))})

    stop = sse({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    usage = sse({"choices": [], "timings": timings(3, 20, predicted_per_second=100.0)})
    got = ask((40, HEAD + delta("Hi", 1)), (50, delta("!", 2)), (60, stop + usage))
    assert (got.status, got.stop_reason, got.n_out, got.token_n) == ("ok", "stop", 3, (1, 1, 1))
    assert got.e2e_s == pytest.approx(0.060)
    assert got.decode_tps == pytest.approx(got.engine_decode_tps) == pytest.approx(100)


@pytest.mark.parametrize("n", [21, 3_000_000_000, 100_000_000_000_000])
def test_a_count_beyond_what_was_asked_is_not_believed(n: int) -> None:
    got = ask((60, HEAD + token(1)), (70, token(2, timings=timings(n, 10))), (91, LAST))
    assert got.status == "engine_error"
    assert got.detail == f"the engine counts {n} tokens, 4 were asked for"
    assert got.n_out == 4
    got = ask((60, HEAD + sse({"content": "", "timings": timings(n, 10)})))
    assert (got.status, got.n_out) == ("engine_error", None)


@pytest.mark.parametrize("status", [200, 500])
def test_json_nested_beyond_reason_is_an_error_of_the_engine(status: int) -> None:
    head = b"HTTP/1.1 %d x\r\n\r\n" % status
    got = ask((1, head + b'data: {"a":' + b"[" * 100_000 + b"\n\n"))
    assert got.status == ("engine_error" if status == 200 else "http_500")


def test_an_engine_that_says_nothing_of_its_cache_is_not_said_to_have_found_nothing() -> None:
    bare = {key: value for key, value in timings(4, 30).items() if key != "cache_n"}
    parts = ((60, HEAD + token(1)), (90, sse({"content": "", "stop": True, "timings": bare})))
    told_not_to = ask(*parts)
    assert (told_not_to.n_in, told_not_to.n_cached) == (5, 0)
    unknown = ask(*parts, of=Ask("00000", "a", "timed", 4, 0, prompt="Hello", keep_cache=True))
    assert (unknown.n_in, unknown.n_cached) == (None, None)


@pytest.mark.parametrize(
    ("log", "accelerator"),
    [
        ("using device CUDA0 (NVIDIA)\noffloaded 31/31 layers to GPU", "CUDA"),
        ("using device CUDA0 (NVIDIA)\noffloaded 0/31 layers to GPU", "CUDA 0/31"),
        ("using device Vulkan0 (AMD)\noffloaded 12/31 layers to GPU", "Vulkan 12/31"),
        ("using device Metal (Apple)", "Metal"),
    ],
)
def test_a_model_that_lies_on_the_device_in_part_is_said_to(log: str, accelerator: str) -> None:
    assert SPEAK.identity(log)["accelerator"] == accelerator


def test_an_early_refusal_is_named_and_not_the_reset_after_it() -> None:
    refusal = b'HTTP/1.1 413 x\r\n\r\n{"error":{"message":"too large"}}'
    got = ask((1, refusal), error="reset")
    assert (got.status, got.detail) == ("http_413", "too large")
    assert ask(error="reset").status == "reset"
