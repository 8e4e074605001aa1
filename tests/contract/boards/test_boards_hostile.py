"""Whatever a board sends, its readers give samples or a status: never an exception, never a number from nothing."""

import errno

import numpy as np
import pytest
from boards_kit import HERE, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.readings import READERS, read
from meltbench.readings.capture import captured

BOARDS = ("devfreq", "ina3221", "jtop", "measure_temp", "melt_jetson", "nvpmodel", "pmic", "tegrastats", "throttled")
NAMES = (*BOARDS, "throttle_alert")
WORDS = {"ok", "denied", "absent", "again", "error", "unparsed", "gated"}
SAMPLES = {
    "jtop": ["jtop_lines_orin_nx.txt", "jtop_flat_tx2.txt"],
    "melt_jetson": ["jetson_monitor_agx_orin.log"],
    "pmic": ["pi5_pmic_healthy.txt", "pi5_pmic_undervoltage.txt"],
    "tegrastats": sorted(path.name for path in HERE.glob("tegrastats_*.txt")),
    "ina3221": ["ina3221_agx_orin.txt", "ina3221x_nano_jp4.txt"],
}


def places(name):
    """Every stream that a reader might take: its files, its commands, lines, and a log."""
    reader = READERS[name]
    files = [(spec.glob.replace("*", "0"), "file") for spec in reader.paths]
    polls = [(" ".join(command.argv), "poll") for command in reader.commands if command.poll]
    return [*files, *polls, ("", "lines"), ("", "log"), ("", "err")]


item = st.one_of(
    st.binary(max_size=120),
    st.sampled_from([errno.EACCES, errno.EAGAIN, errno.E2BIG, errno.ETIMEDOUT, 0x100 + 255, 0x200 + 9]),
    st.sampled_from(
        [b"", b"\n", b"0\n", b"-256000\n", b"9" * 400, b"VDD_IN 1/1", b"throttled=0x\n", b"{}", b"[1]", b"time, x\n"]
    ),
    st.sampled_from(
        [b'{"power":{"rail":{"":{"power":1e400}},"tot":[]}}', b'{"temperature":{"a":{"temp":[]}}}', b"{" * 9]
    ),
)


def checked(name, streams):
    series, status = read("src", name, streams, {})
    assert status.status in WORDS
    for one in series:
        assert len(one.t0_ns) == len(one.t1_ns) == len(one.value) == len(one.status)
        assert [word == "ok" for word in one.words] == np.isfinite(one.value).tolist()
        assert one.name.isprintable()
        assert one.name.isascii()
        assert one.klass is not None or one.unit != "W"
    assert (status.status == "ok") == any("ok" in one.words for one in series)
    return series


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_arbitrary_bytes_give_samples_or_a_status(name, data):
    some = st.builds(
        lambda place, raw, status: stream(place[0], raw, kind=place[1], status=status),
        st.sampled_from(places(name)),
        st.lists(item, max_size=5),
        st.sampled_from(["ok", "ok", "denied", "absent", "error"]),
    )
    checked(name, data.draw(st.lists(some, max_size=6)))


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in SAMPLES.items() for file in files])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_recording_with_bytes_changed_gives_samples_or_a_status(name, file, data):
    raw = bytearray((HERE / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    cut = data.draw(st.integers(0, len(raw)))
    checked(name, captured(READERS[name], bytes(raw[:cut])))
    checked(name, captured(READERS[name], bytes(raw)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("raw", [b"", b"\n", b"nonsense\n", b"\xff\xfe\x00", b"RAM /MB VDD_IN /", b"NaN\n", b"nan A\n"])
def test_trap_44_nothing_readable_is_never_zero(name, raw):
    for path, kind in places(name):
        series = checked(name, [stream(path, [raw, errno.EACCES, errno.EAGAIN], kind=kind)])
        assert not any(np.isfinite(one.value).any() for one in series)


@pytest.mark.parametrize("name", NAMES)
def test_denied_is_not_absent(name):
    nothing = read("src", name, [], {})[1]
    assert nothing.status == "absent"
    assert nothing.detail
    everything = [stream(path, [], kind=kind, status="denied") for path, kind in places(name)]
    assert read("src", name, everything, {})[1].status == "denied"


@pytest.mark.parametrize("name", ["tegrastats", "jtop", "pmic", "melt_jetson", "nvpmodel"])
def test_texts_that_make_patterns_search_long_are_read_in_no_time(name):
    """64 KiB, as long as a reading gets, of what patterns here begin with: quadratic search would take minutes."""
    for seed in (
        b"A" * 65536,
        b"1721048400123456789 " * 3000,
        b"CPU [" * 13000,
        b" \t" * 32768,
        b"X_A current(" * 5000,
    ):
        for path, kind in places(name):
            checked(name, [stream(path, [seed], kind=kind)])
