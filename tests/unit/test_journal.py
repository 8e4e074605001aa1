from __future__ import annotations

import journalmaker as make
from hypothesis import given
from hypothesis import strategies as st

from meltbench.probe.journal import parse_journal, unbyte

SMALL = make.journal(
    make.event("begin", 5, run="r"),
    make.stream(1, "mem", "/proc/meminfo"),
    make.stream(2, "rapl", "/sys/x", status="denied", errno=13),
    make.readings(1, [(1, 2, 0, b"one\n"), (3, 4, 11, b"")]),
    make.event("stream_end", 8, stream=1, late=1, overruns=2, dropped_bytes=3),
    make.readings(1, [(5, 6, 0, b"\x00\xff")]),
    make.event("end", 9, result="done"),
)


def test_a_whole_journal() -> None:
    journal = parse_journal(SMALL)
    assert journal.dropped_bytes == 0
    assert journal.end is not None
    assert journal.end["result"] == "done"
    mem, rapl = journal.streams[1], journal.streams[2]
    assert mem.readings.raw == [b"one\n", b"", b"\x00\xff"]
    assert mem.readings.t0_ns.tolist() == [1, 3, 5]
    assert mem.readings.err.tolist() == [0, 11, 0]
    assert (mem.late, mem.overruns, mem.dropped_bytes) == (1, 2, 3)
    assert (rapl.status, rapl.errno, len(rapl.readings)) == ("denied", 13, 0)
    assert [s.number for s in journal.channel("mem")] == [1]


def test_a_journal_cut_at_every_byte_gives_its_whole_frames() -> None:
    names = [event["event"] for event in parse_journal(SMALL).events]
    for cut in range(len(SMALL)):
        journal = parse_journal(SMALL[:cut])
        found = [event["event"] for event in journal.events]
        assert found == names[: len(found)]
        assert journal.dropped_bytes <= cut
    assert parse_journal(SMALL[:-1]).end is None


def test_a_flipped_byte_ends_the_journal_where_it_stands() -> None:
    whole = parse_journal(SMALL)
    for at in range(8, len(SMALL)):
        torn = bytearray(SMALL)
        torn[at] ^= 0x40
        journal = parse_journal(bytes(torn))
        assert journal.dropped_bytes > 0
        assert len(journal.events) <= len(whole.events)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    for text in (data, make.MAGIC + data, make.journal(make.frame(1, data)), make.journal(make.frame(2, data))):
        journal = parse_journal(text)
        assert journal.end is None or isinstance(journal.end, dict)


@given(st.binary(max_size=60))
def test_device_bytes_come_back_as_text(raw: bytes) -> None:
    assert unbyte(raw.decode("latin-1")) == raw.decode("utf-8", "replace")


def test_text_that_is_no_bytes_stays() -> None:
    assert unbyte("\u20ac") == "\u20ac"


def test_odd_types_in_sound_frames_are_no_numbers() -> None:
    journal = parse_journal(
        make.journal(
            make.stream(1, "mem", "/proc/meminfo") + make.event("stream", stream=[], errno=1),
            make.event("stream", stream=2, errno="x"),
            make.frame(1, b'{"event":"stream","boot_ns":1,"stream":3,"errno":1e999}'),
            make.event("stream_end", stream=[], late=1),
            make.event("stream_end", stream=1, late="x", overruns=1e9, dropped_bytes=None),
            make.frame(1, b'{"event":"x","boot_ns":1,"a":' + b"[" * 100_000),
        )
    )
    assert sorted(journal.streams) == [1, 2, 3]
    assert {stream.errno for stream in journal.streams.values()} == {0}
    assert journal.streams[1].late == journal.streams[1].overruns == 0
    assert journal.dropped_bytes > 100_000


def test_what_is_written_after_a_reboot_has_no_time_of_the_run() -> None:
    # The new boot's clocks: one that has run for longer than the run's, and one that has just begun.
    for later in (5_000_000, 3):
        clocks = {"mono_ns": later, "wall_ns": later}
        journal = parse_journal(
            make.journal(
                make.event("begin", 10, boot_id="a1", mono_ns=10, wall_ns=1000),
                make.event("step", 20, step=0, state="start", mono_ns=20, wall_ns=1010),
                make.event("reboot", later, boot_id="b2"),
                make.event("undo", later + 1, what="x", result="ok"),
                make.event("end", later + 2, result="failed", reason="device_rebooted", **clocks),
            )
        )
        assert [event["boot_ns"] for event in journal.events] == [10, 20, 20, 20, 20]
        assert [event.get("mono_ns") for event in journal.events] == [10, 20, None, None, None]
        assert journal.end is not None
        assert "wall_ns" not in journal.end


def test_a_journal_that_begins_with_a_reboot() -> None:
    journal = parse_journal(make.journal(make.event("reboot", 7, boot_id="b2"), make.event("end", 9, result="failed")))
    assert [event["boot_ns"] for event in journal.events] == [0, 0]
