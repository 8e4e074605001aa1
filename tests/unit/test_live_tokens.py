"""Token rates of answers that are still coming, by the stamps of their chunks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.live.tokens import Tokens
from meltbench.records import Readings

SECOND = 1_000_000_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunks(parts: list[tuple[float, bytes]]) -> Readings:
    t = np.array([round(at * SECOND) for at, _ in parts], np.int64)
    return Readings.of(t - 1000, t, np.zeros(len(parts), np.int32), [part for _, part in parts])


def framed(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def event(told: object) -> bytes:
    return framed(b"data: " + json.dumps(told).encode() + b"\n\n")


def chat(text: str | None) -> dict[str, object]:
    return {"choices": [{"delta": {"role": "assistant", "content": text}}], "prompt": 'data: {"content": "no"}'}


def rate(parts: list[tuple[float, bytes]], now_s: float, *, ended: bool = False) -> float | None:
    tokens = Tokens()
    tokens.answer(1, chunks(parts))
    if ended:
        tokens.answered(1)
    return tokens.rate(round(now_s * SECOND))


STEADY = [(10.0, HEAD + event(chat(None)))] + [(10 + n / 20, event(chat("word"))) for n in range(61)]


def test_a_steady_answer_has_the_rate_of_its_tokens_and_what_is_no_text_is_none() -> None:
    assert rate(STEADY, 13) == pytest.approx(20)
    closing = [
        (13.05, event({"choices": [{"delta": {}, "finish_reason": "stop"}]})),
        (13.1, framed(b"data: [DONE]\n\n")),
    ]
    assert rate([*STEADY, *closing], 13.2) == pytest.approx(20)
    whole = [(at, data.replace(b"\n\n", b"\r\n\r\n")) for at, data in STEADY]
    assert rate(whole, 13) == pytest.approx(20)


def test_only_the_last_seconds_count() -> None:
    slow = [*STEADY, *((13 + n / 4, event(chat("w"))) for n in range(1, 61))]
    assert rate(slow, 28) == pytest.approx(4)


def test_llama_cpp_tells_how_many_it_made_and_ids_count_without_text() -> None:
    def told(n: int) -> dict[str, object]:
        return {"content": "", "tokens": [], "timings": {"predicted_n": n, "predicted_per_token_ms": 1.5}}

    assert rate([(n / 2, event(told(3 * n))) for n in range(1, 9)], 4) == pytest.approx(6)
    ids = [(n / 10, event({"content": "", "tokens": [17]})) for n in range(11)]
    assert rate(ids, 1) == pytest.approx(10)
    assert rate([(n / 10, event({"content": "", "tokens": []})) for n in range(11)], 1) is None


def test_an_answer_that_stands_still_slows_and_one_that_has_ended_has_no_rate() -> None:
    assert rate(STEADY, 15) == pytest.approx(20)
    stalled = rate(STEADY, 17)
    assert stalled is not None
    assert stalled < 6
    assert rate(STEADY, 17, ended=True) is None
    assert rate(STEADY, 30) is None


def test_two_at_a_time_add_up_and_one_after_the_other_do_not() -> None:
    tokens = Tokens()
    for number in (1, 2):
        tokens.answer(number, chunks(STEADY))
    assert tokens.rate(13 * SECOND) == pytest.approx(40)
    tokens = Tokens()
    for number, shift in ((1, 0), (2, 2.0)):
        tokens.answer(number, chunks([(at / 2 + 5 + shift, data) for at, data in STEADY]))
        tokens.answered(number)
    assert tokens.rate(round(13.6 * SECOND)) == pytest.approx(40)


def test_a_program_prints_a_list_a_token_and_the_pause_between_requests_is_none_of_either() -> None:
    lines = [(0.0, b'{"event": "loaded"}')]
    for start in (1.0, 3.0):
        lines.append((start, b'{"event": "start", "file": "0"}'))
        lines += [(start + n / 10, b'["w"]') for n in range(1, 11)]
        lines.append((start + 1.05, b'{"event": "end", "file": "0"}'))
    tokens = Tokens()
    tokens.printed(4, chunks(lines))
    assert tokens.rate(round(4.2 * SECOND)) == pytest.approx(10)
    assert tokens.rate(9 * SECOND) is None


@given(st.lists(st.integers(1, 400), max_size=30))
def test_an_answer_cut_anywhere_into_chunks_has_the_same_tokens(sizes: list[int]) -> None:
    data, parts, at = b"".join(part for _, part in STEADY), [], 0
    for size in [*sizes, len(b"".join(part for _, part in STEADY))]:
        parts.append((10 + len(parts), data[at : at + size]))
        at += size
    tokens = Tokens()
    tokens.answer(1, chunks(parts))
    assert sum(n for request in tokens._requests.values() for _, n in request.arrivals) == 61


@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=60)), max_size=20), st.integers(0, 2**62)
)
def test_nothing_that_comes_raises_or_is_held_for_long(parts: list[tuple[int, bytes]], now_ns: int) -> None:
    tokens = Tokens()
    t = np.array([at for at, _ in parts], np.int64)
    readings = Readings.of(t, t, np.zeros(len(parts), np.int32), [part for _, part in parts])
    tokens.answer(1, readings)
    tokens.printed(2, readings)
    found = tokens.rate(now_ns)
    assert found is None or found >= 0


def test_what_is_held_is_bounded() -> None:
    tokens = Tokens()
    for number in range(2000):
        tokens.answer(number, chunks([(1.0, b"data: {" + b"x" * 70_000)]))
    tokens.answer(1, chunks([(n / 1000, event(chat("w"))) for n in range(40_000)]))
    tokens.printed(2, chunks([(n / 1000, b'{"event": "start"}') for n in range(2000)]))
    assert len(tokens._requests) <= 256
    assert max(len(one.arrivals) for one in tokens._requests.values()) <= 1 << 14
    assert sum(len(one.held) for one in tokens._requests.values()) <= 256 << 16
