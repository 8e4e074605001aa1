"""Whatever a phone prints, a reader gives samples or a status: arbitrary bytes, and dialects with bytes changed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.evidence_kit import ran, stream

from meltbench.readings import READERS, Source, read
from meltbench.readings.capture import captured
from meltbench.readings.protowire import fields

HERE = Path(__file__).parent
READER_OF = {
    "battery": ("dumpsys_battery", "cmd_battery"),
    "thermal_hal": ("thermal_hal",),
    "thermal": ("thermalservice",),
    "pixel": ("pixel_thermal",),
    "odpm": ("odpm",),
    "powerstats": ("powerstats",),
    "uevent": ("power_supply", "power_supply_uevent"),
    "meminfo": ("dumpsys_meminfo",),
}
NAMES = sorted({name for names in READER_OF.values() for name in names} | {"perfetto", "kgsl", "mali"})
TEXTS = [path.read_bytes() for path in sorted(HERE.iterdir()) if path.suffix in (".txt", ".log")]
WORDS = {"ok", "denied", "absent", "again", "error", "unparsed", "gated"}
PACKET = b"\x0a\x19\x40\x80\x89\x7a\xb2\x02\x11\x08\xe0\xd7\x7f\x15\x00\x00\x96\x42\x18\xc0\x84\x3d\x38\x80\xc9\xea\x01"
changed = st.builds(
    lambda text, at, junk, cut: text[: at % (len(text) + 1)] + junk + text[at % (len(text) + 1) + cut :],
    st.sampled_from([*TEXTS, PACKET * 3, b"12 345\n", b"42 %\n"]),
    st.integers(0, 10_000),
    st.one_of(
        st.binary(max_size=20), st.sampled_from([b"\r\n", b"9" * 30, b"-", b"NaN", b"{", b"}", b"\x00", b"\xff" * 9])
    ),
    st.integers(0, 200),
)
errors = st.sampled_from([1, 2, 7, 11, 13, 110, 0x100 + 1, 0x100 + 255, 0x200 + 9])
items = st.lists(st.one_of(st.binary(max_size=300), changed, errors), max_size=4)


def streams_of(name, given_items):
    reader = READERS[name]
    made = [stream(spec.glob.replace("*", "0"), given_items) for spec in reader.paths]
    return made + [ran(command, given_items) for command in reader.commands]


def check(name, given_streams):
    series, status = read("src", name, given_streams, {})
    assert status.status in WORDS
    for one in series:
        assert len(one.t0_ns) == len(one.t1_ns) == len(one.value) == len(one.status)
        assert set(one.words) <= WORDS
        assert [w == "ok" for w in one.words] == np.isfinite(one.value).tolist()
        assert one.name.isprintable()
        assert one.name.isascii()
        assert len(one.name) < 200
    assert (status.status == "ok") == any("ok" in one.words for one in series)
    keys = [(one.name, one.path) for one in series]
    assert len(keys) == len(set(keys))
    return series


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80, deadline=None)
@given(given_items=items)
def test_arbitrary_and_changed_bytes_give_samples_or_a_status(name, given_items):
    check(name, streams_of(name, given_items))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(raw=st.one_of(st.binary(max_size=400), changed))
def test_a_capture_of_anything_gives_samples_or_a_status(name, raw):
    check(name, captured(READERS[name], raw))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("raw", [b"", b"\n", b"nonsense\n", b"\xff\xfe\x00", b":::\n", b"=\n", b"{}", b"0 0\n"])
def test_trap_44_nothing_readable_is_never_zero(name, raw):
    series = check(name, streams_of(name, [raw, 13, 110]))
    assert not any(np.isfinite(one.value).any() for one in series)


@pytest.mark.parametrize("name", NAMES)
def test_a_later_slice_continues_the_series_of_the_first(name):
    texts = [text for group, names in READER_OF.items() for text in TEXTS if name in names and group]
    given_streams = streams_of(name, [text for text in texts for _ in range(2)])
    source = Source.of("src", name, {})
    series, seen = source.read(given_streams)
    again, more = source.read(given_streams, again=True)
    often = {s.path for s in given_streams if not source.whole(s)}
    assert [one.name for one in again] == [one.name for one in series if one.path in often]
    assert (seen + more).told().readings >= seen.told().readings


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_a_walk_over_any_bytes_ends_inside_of_them(raw):
    total = sum(len(one.data) + 1 for one in fields(memoryview(raw)))
    assert total <= len(raw)
