"""Whatever a target sends, every reader gives samples or a status: never an exception, never a zero from nothing."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import ran, said, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.errors import DefinitionError, UnknownName
from meltbench.readings import READERS, read
from meltbench.readings.integers import parse_ints

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
        assert set(one.words) <= WORDS
        assert [w == "ok" for w in one.words] == np.isfinite(one.value).tolist()
    assert (status.status == "ok") == any("ok" in one.words for one in series)


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
    denied += [ran(command, [], status="denied") for command in READERS[name].commands]
    if not denied:  # it reads logs alone
        denied.append(replace(stream("", [], status="denied"), kind="log"))
    assert read("src", name, denied, {})[1].status == "denied"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=30), st.integers(-(10**17), 10**17).map(lambda n: b"%d\n" % n)), min_size=1)
)
def test_block_parser_agrees_with_python(raw):
    values, good = parse_ints(stream("x", raw).readings)
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


FILES = {
    "hwmon": {
        "/sys/class/hwmon/hwmon3/power1_input": [b"5000000\n", b"6000000\n", 11, b"7000000\n"],
        "/sys/class/hwmon/hwmon3/power1_average": [b"5\n", b"x\n", b"6\n", b"7\n"],
        "/sys/class/hwmon/hwmon12/power1_input": [b"1\n", 13, b"2\n", b"3\n"],
    },
    "time_in_state": {
        "/sys/devices/system/cpu/cpufreq/policy0/stats/time_in_state": [b"800000 %d\n900000 7\n" % n for n in range(4)]
    },
    "rapl": {
        "/sys/class/powercap/intel-rapl:0/energy_uj": [b"1\n", b"2\n", 5, b"3\n"],
        "/sys/class/powercap/intel-rapl:1/energy_uj": [b"4\n", b"5\n", b"6\n", b"7\n"],
    },
}
ONCE = [
    stream("/sys/class/hwmon/hwmon3/name", [b"xe\n"]),
    stream("/sys/class/hwmon/hwmon12/name", [b"xe\n"]),
    stream("/sys/class/powercap/intel-rapl:0/name", [b"package-0\n"]),
    stream("/sys/class/powercap/intel-rapl:1/name", [b"package-0\n"]),
]


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("at", [0, 1, 3, 4])
def test_a_run_read_in_two_parts_gives_the_series_of_the_whole(name, at):
    """The texts that are read once are given with each part."""
    whole, _ = read("src", name, [*(stream(path, raw) for path, raw in FILES[name].items()), *ONCE], {})
    assert len(whole) >= 2
    parts = []
    for part in (slice(None, at), slice(at, None)):
        parts += read("src", name, [*(stream(path, raw[part]) for path, raw in FILES[name].items()), *ONCE], {})[0]
    for one in whole:
        same = [part for part in parts if part.name == one.name]
        assert np.array_equal(np.concatenate([part.value for part in same]), one.value, equal_nan=True)
        assert {(part.unit, part.kind, part.scope, part.klass, part.path) for part in same} == {
            (one.unit, one.kind, one.scope, one.klass, one.path)
        }
    assert {part.name for part in parts} == {one.name for one in whole}
