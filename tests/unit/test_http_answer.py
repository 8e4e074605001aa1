from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from meltbench.engines.http import decode, server_sent_events
from meltbench.records import Readings


def chunks(*parts: bytes) -> Readings:
    t = np.arange(1, len(parts) + 1, dtype=np.int64) * 1000
    return Readings.of(t, t, np.zeros(len(parts), np.int32), list(parts))


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), st.data())
def test_a_chunked_answer_is_the_same_however_it_was_cut(parts: list[bytes], data: st.DataObject) -> None:
    raw = HEAD + chunked(*parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    answer = decode(chunks(*pieces))
    assert (answer.status, answer.problem, answer.body) == (200, "", b"".join(parts))
    arrivals = [answer.arrival_ns(at) for at in range(len(answer.body))]
    assert arrivals == sorted(arrivals)


def test_a_byte_arrives_with_the_chunk_that_brought_it() -> None:
    answer = decode(chunks(HEAD + b"4\r\nab", b"cd\r\n", b"2\r\nef\r\n0\r\n\r\n"))
    assert answer.body == b"abcdef"
    assert [answer.arrival_ns(at) for at in range(6)] == [1000, 1000, 2000, 2000, 3000, 3000]


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_arbitrary_bytes_never_raise(parts: list[bytes]) -> None:
    answer = decode(chunks(*parts))
    assert answer.status is None or 0 <= answer.status <= 999
    decode(chunks(HEAD, *parts))
    list(server_sent_events(b"".join(parts)))


def test_what_is_wrong_is_named() -> None:
    assert decode(chunks()).problem == "empty answer"
    assert decode(chunks(b"\x00" * 100)).problem == "no HTTP header"
    assert decode(chunks(b"SSH-2.0\r\n\r\n")).problem == "not an HTTP status line"
    assert decode(chunks(HEAD + b"5\r\nab")).problem == "answer cut inside its chunks"
    assert decode(chunks(HEAD + b"zz\r\nab")).problem == "malformed chunk size"
    assert decode(chunks(HEAD + b"-5\r\nab")).problem == "malformed chunk size"
    assert decode(chunks(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")).problem == "answer cut at 2 of 9 bytes"


def test_events_end_at_their_last_byte_and_a_torn_one_is_left() -> None:
    body = b": ping\n\ndata: {}\n\ndata: a\ndata: b\n\ndata: torn"
    assert [data for _, data in server_sent_events(body)] == [b"{}", b"a\nb"]
    assert [body[offset - 1 : offset + 1] for offset, _ in server_sent_events(body)] == [b"\n\n", b"\n\n"]
