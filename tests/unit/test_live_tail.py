"""A journal that is read while it grows: whatever the looks saw of it, together they are what the whole holds."""

from __future__ import annotations

import struct

import journalmaker as make
from hypothesis import example, given
from hypothesis import strategies as st

from meltbench.probe.journal import Held, frames
from meltbench.probe.tail import LONGEST_BYTES, Tail

SMALL = make.journal(
    make.event("begin", 5, run="r"),
    make.stream(1, "mem", "/proc/meminfo"),
    make.readings(1, [(1, 2, 0, b"one\n"), (3, 4, 11, b"")]),
    make.readings(1, [(5, 6, 0, b"\x00\xff")]),
    make.event("end", 9, result="done"),
)


def whole(data: bytes) -> list[tuple[int, bytes]]:
    return [(kind, payload) for kind, payload, _ in frames(Held(data))]


def looked(data: bytes, lengths: list[int], most: int = 1 << 22) -> list[tuple[int, bytes]]:
    """What is taken where each look finds the file so long, and the last ones all of it."""
    tail, found = Tail(), []
    for length in [*sorted(min(one, len(data)) for one in lengths), *[len(data)] * 60]:
        found += tail.take(data[tail.at : min(length, tail.at + most)])
    return found


@given(st.lists(st.integers(0, len(SMALL)), max_size=12), st.integers(200, 400))
def test_any_looks_together_give_what_the_whole_gives(lengths: list[int], most: int) -> None:
    assert looked(SMALL, lengths, most) == whole(SMALL)


def test_a_torn_frame_is_taken_once_it_is_whole() -> None:
    for cut in range(len(SMALL)):
        tail = Tail()
        first = tail.take(SMALL[:cut])
        assert first == whole(SMALL[:cut])
        assert first + tail.take(SMALL[tail.at :]) == whole(SMALL)
        assert not tail.lost


@given(st.integers(0, len(SMALL) - 1), st.integers(0, 7), st.lists(st.integers(0, len(SMALL)), max_size=6))
def test_a_flipped_bit_ends_it_where_it_ends_the_whole(at: int, bit: int, lengths: list[int]) -> None:
    torn = bytearray(SMALL)
    torn[at] ^= 1 << bit
    assert looked(bytes(torn), lengths) == whole(bytes(torn))


@given(st.binary(max_size=300), st.lists(st.integers(0, 320), max_size=5))
@example(b"", [])
def test_arbitrary_bytes_never_raise_and_end_the_looks(data: bytes, lengths: list[int]) -> None:
    for text in (data, make.MAGIC + data, SMALL + data):
        assert looked(text, lengths) == whole(text)


def test_bytes_that_come_late_are_waited_for_and_not_for_ever() -> None:
    tail, late = Tail(), bytearray(SMALL)
    late[-3:] = bytes(3)  # its length is on the disk, its last bytes are not
    found = tail.take(bytes(late))
    assert found == whole(SMALL)[:-1]
    assert [tail.take(bytes(late[tail.at :])), tail.lost] == [[], False]
    assert tail.take(SMALL[tail.at :]) == whole(SMALL)[-1:]
    lost = Tail()
    lost.take(bytes(late))
    for _ in range(3):
        lost.take(bytes(late[lost.at :]))
    assert lost.lost
    assert lost.take(SMALL[lost.at :]) == []


def test_a_frame_beyond_bounds_is_passed_and_never_held() -> None:
    long = make.readings(1, [(1, 2, 0, bytes(LONGEST_BYTES))])
    data = make.journal(make.event("begin", 5), long, make.event("end", 9))
    tail = Tail()
    before = tail.take(data[:200])
    after = tail.take(data[tail.at :])
    assert [payload[:18] for _, payload in before + after] == [b'{"event": "begin",', b'{"event": "end", "']
    claims = make.MAGIC + struct.pack("<IHHII", 0x4A544C4D, 2, 0, 0xFFFFFFFF, 0)
    tail = Tail()
    assert tail.take(claims) == []
    assert tail.at == len(claims) + 0xFFFFFFFF
