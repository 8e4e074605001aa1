"""Whatever a target sends, every reader gives samples or a status: never an exception, never a zero from nothing."""

import numpy as np
import pytest
from evidence_kit import said, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.errors import DefinitionError, UnknownName
from meltbench.readings import READERS, read
from meltbench.readings.base import parse_ints

WORDS = {"ok", "denied", "absent", "again", "error", "unparsed", "gated"}
ROOT = "/tmp/tree"


def found(spec):
    return ROOT + spec.glob.replace("{pid:engine}", "4120").replace("*", "0")


PATHS = sorted({found(spec) for reader in READERS.values() for spec in reader.paths} | {"/etc/passwd", ""})
item = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([1, 2, 7, 11, 13, 999]),
    st.sampled_from([b"", b"\n", b"0\n", b"-256000\n", b"cpu  " + b"1" * 400, b"cpu0 1 2 3 4\n", b"VmHWM:\t kB\n"]),
)
streams = st.lists(
    st.builds(
        stream,
        st.sampled_from(PATHS),
        st.lists(item, max_size=4),
        status=st.sampled_from(["ok", "denied", "absent", "error"]),
    ),
    max_size=8,
)


@pytest.mark.parametrize("name", sorted(READERS))
@settings(max_examples=60, deadline=None)
@given(given_streams=streams)
def test_arbitrary_bytes_give_samples_or_a_status(name, given_streams):
    series, status = read("src", name, given_streams, {})
    assert status.source == "src"
    assert status.status in WORDS
    for one in series:
        assert len(one.t0_ns) == len(one.t1_ns) == len(one.value) == len(one.status)
        assert set(one.status) <= WORDS
        assert [w == "ok" for w in one.status] == np.isfinite(one.value).tolist()
    assert (status.status == "ok") == any("ok" in one.status for one in series)


@pytest.mark.parametrize("name", sorted(READERS))
@pytest.mark.parametrize("raw", [b"", b"\n", b"nonsense\n", b"\xff\xfe\x00"])
def test_trap_44_nothing_readable_is_never_zero(name, raw):
    nothing = [*(stream(path, [raw, 13, 11]) for path in PATHS), said([raw])]
    series, status = read("src", name, nothing, {})
    assert status.status != "ok"
    assert not any(np.isfinite(one.value).any() for one in series)


@pytest.mark.parametrize("name", sorted(READERS))
def test_denied_is_not_absent(name):
    assert read("src", name, [], {})[1].status == "absent"
    if READERS[name].helper is not None:
        assert read("src", name, [said([{"cannot": "denied"}])], {})[1].status == "denied"
        return
    denied = [stream(found(spec), [], status="denied") for spec in READERS[name].paths]
    assert read("src", name, denied, {})[1].status == "denied"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=30), st.integers(-(10**17), 10**17).map(lambda n: b"%d\n" % n)), min_size=1)
)
def test_block_parser_agrees_with_python(raw):
    values, good = parse_ints(raw)
    for text, value, ok in zip(raw, values.tolist(), good.tolist(), strict=True):
        body = text.rstrip(b"\r\n\t ")
        plain = body.removeprefix(b"-")
        expected = plain.isdigit() and len(plain) <= 18 and len(text) <= 24
        assert ok == expected
        if expected:
            assert value == int(body)


def test_unknown_reader_and_option_name_the_nearest():
    with pytest.raises(UnknownName, match="did you mean rapl"):
        read("src", "rapll", [], {})
    with pytest.raises(UnknownName, match="user_hz"):
        read("src", "procstat", [], {"user_hertz": 100})
    with pytest.raises(DefinitionError, match="user_hz"):
        read("src", "procstat", [stream("/proc/1/stat", [b"1 (a) S"])], {"user_hz": "fast"})
    with pytest.raises(DefinitionError, match="celsius_per_count"):
        read("src", "thermal", [], {"celsius_per_count": 0.01})
