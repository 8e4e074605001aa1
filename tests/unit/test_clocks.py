"""time_in_state: what the kernel counted at each clock, and the mean clock of a run."""

import numpy as np
import pytest
from evidence_kit import digests, phase, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.measure import clocks, gauges
from meltbench.readings import read

PATH = "/sys/devices/system/cpu/cpufreq/policy{}/stats/time_in_state"
PERIOD = 1_000_000_000


def mean_clocks(parts, run):
    return clocks.mean_clocks(digests(parts, run), run)


def frequency_measures(parts, run):
    return gauges.frequency_measures(digests(parts, run), run)


def text(**ticks):
    """Lines by kHz: k800000=5."""
    return b"".join(b"%s %d\n" % (khz[1:].encode(), n) for khz, n in ticks.items())


def parsed(raw, policy=0):
    return read("clocks", "time_in_state", [stream(PATH.format(policy), raw, period_ns=PERIOD)], {})


def test_states_are_counters_in_seconds_by_policy_and_hertz():
    series, status = parsed([text(k800000=100, k2400000=5), text(k800000=150, k2400000=55)], policy=4)
    assert {one.name: (one.value.tolist(), one.unit, one.kind) for one in series} == {
        "cpufreq.policy4.at_hz.800000000": ([1.0, 1.5], "s", "counter"),
        "cpufreq.policy4.at_hz.2400000000": ([pytest.approx(0.05), pytest.approx(0.55)], "s", "counter"),
    }
    assert (status.status, status.paths) == ("ok", 1)


def test_garbage_between_lines_a_second_line_and_a_cut_one_change_nothing():
    raw = b"800000 100\n# a comment\n800000 999\n-1 5\n1e6 5\n 900000 1\n2400000 50\n2500000 7"
    series, _ = parsed([raw, text(k800000=101, k2400000=50)])
    assert {one.name.rpartition(".")[2]: one.value[0] for one in series} == {"800000000": 1.0, "2400000000": 0.5}


def test_hundreds_of_states_are_bounded():
    raw = b"".join(b"%d 5\n" % khz for khz in range(100_000, 101_000))
    assert len(parsed([raw])[0]) == 256


def of_run(low, high, *, t0=1.0, t1=9.0):
    """Readings once a second; ticks at 1 and at 2 GHz."""
    series, _ = parsed([text(k1000000=a, k2000000=b) for a, b in zip(low, high, strict=True)])
    (found,) = mean_clocks(series, phase("run", t0, t1))
    return found


def test_the_mean_is_weighed_by_time():
    # A quarter of each second at 1 GHz, the rest at 2 GHz.
    found = of_run(range(0, 275, 25), range(0, 825, 75))
    assert found.value == pytest.approx(1.75e9)
    assert found.reason is None
    assert (found.stat, found.unit, found.source, found.n) == ("mean", "Hz", "cpufreq.policy0.at_hz", 2)
    # 10 ms ticks in 8 s: 0.25 and 0.75 GHz away from the mean, and edges that lie on readings.
    assert found.u_k2 == pytest.approx(2 * np.hypot(0.25e9, 0.75e9) * 0.01 / np.sqrt(6) / 8, rel=1e-4)


def test_one_clock_all_the_time_is_known_exactly():
    found = of_run([0] * 11, range(0, 1100, 100), t0=1.3)
    assert (found.value, found.u_k2) == (2e9, 0.0)


def test_an_edge_between_two_readings_is_in_u():
    on_readings = of_run(range(0, 550, 50), range(0, 550, 50))
    between = of_run(range(0, 550, 50), range(0, 550, 50), t0=1.5)
    assert between.value == pytest.approx(1.5e9)
    assert between.u_k2 > 10 * on_readings.u_k2


def test_the_truth_lies_within_u_whatever_happened_inside_the_edges():
    # Second 1 to 2 was first all low, then all high; the run begins in its middle.
    found = of_run([0, 100, *range(150, 1051, 100)], [0, 0, *[50] * 10], t0=1.5)
    truth = (0.5 * 2e9 + 7.0 * 1e9) / 7.5
    assert abs(found.value - truth) < found.u_k2


@pytest.mark.parametrize(
    ("low", "high", "window", "code"),
    [
        (range(0, 1100, 100), [0] * 11, (1.0, 1.1), "low_coverage"),
        (range(0, 1100, 100), [0] * 11, (-1.0, 5.0), "low_coverage"),
        ([0, 100, 200, 300, 400, 10, 110, 210, 310, 410, 510], [0] * 11, (1.0, 9.0), "counter_reset"),
        ([n * 20 for n in range(11)], [0] * 11, (1.0, 9.0), "low_coverage"),
        ([n * 500 for n in range(11)], [0] * 11, (1.0, 9.0), "low_coverage"),
    ],
)
def test_what_cannot_be_told_is_none_with_a_reason(low, high, window, code):
    found = of_run(low, high, t0=window[0], t1=window[1])
    assert found.value is None
    assert found.reason.startswith(code)


def test_a_policy_that_was_never_readable_has_no_mean_and_a_run_that_never_was_none():
    series, status = parsed([13, 13])
    assert (series, status.status) == ([], "denied")
    assert mean_clocks(series, phase("run", 1, 9)) == []
    series, _ = parsed([text(k800000=1)] * 9)
    assert mean_clocks(series, None) == []


def test_the_mean_stands_beside_what_polling_saw():
    cur = stream("/sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", [b"900000\n"] * 9, period_ns=PERIOD)
    stats, _ = parsed([text(k1000000=n * 100) for n in range(11)])
    polled, _ = read("cpufreq", "cpufreq", [cur], {})
    found = {m.stat: m.value for m in frequency_measures([*stats, *polled], phase("run", 1, 8))}
    assert found == {"mean": 1e9, "min": 9e8, "max": 9e8}
    assert frequency_measures([], phase("run", 1, 8))[0].reason.startswith("no_reading")


RAW = st.lists(
    st.one_of(
        st.binary(max_size=80),
        st.lists(
            st.tuples(st.sampled_from([800000, 2400000, 10**9, 10**12]), st.integers(-5, 10**20)), max_size=400
        ).map(lambda rows: b"".join(b"%d %d\n" % row for row in rows)),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(RAW)
def test_any_text_gives_a_mean_between_its_states_or_a_reason(raw):
    series, _ = parsed(raw)
    for found in mean_clocks(series, phase("run", 0.5, 3.5)):
        assert (found.value is None) == (found.reason is not None)
        if found.value is not None:
            assert 8e8 <= found.value <= 1e15
            assert np.isfinite(found.u_k2)
