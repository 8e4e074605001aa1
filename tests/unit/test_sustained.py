"""What a device holds over minutes, from requests of known rates."""

import numpy as np
import pytest
from evidence_kit import phase, request, series
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.measure.digest import Edges, digest
from meltbench.measure.energy import rail_of
from meltbench.measure.sustained import drift, power_drift, power_windows, sustained_measures
from meltbench.records import Request


def asked(rate, run_s, each_s=2.0, **more):
    """Requests without a pause, each at the rate that ``rate`` gives for its middle."""
    starts = np.arange(0, run_s, each_s)
    return [
        request(i, 100 + t, 100 + t + each_s, decode_tps=float(rate(t + each_s / 2)), **more)
        for i, t in enumerate(starts)
    ]


def by_name(measures):
    return {m.name: m for m in measures}


def test_both_ends_of_a_run_that_throttles_once():
    got = by_name(sustained_measures(asked(lambda t: 100.0 if t < 120 else 60.0, 600)))
    assert got["burst_decode_tps"].value == 100
    assert got["sustained_decode_tps"].value == 60
    assert got["throttle_retention"].value == pytest.approx(0.6)
    assert got["burst_decode_tps"].method == "requests of the first 60 s; linear interpolation"
    assert (got["burst_decode_tps"].n, got["sustained_decode_tps"].n) == (31, 31)
    drift = got["decode_tps_drift_per_min"]
    assert (drift.value, drift.method.partition(";")[0]) == (pytest.approx(0, abs=1e-9), "settled")


def test_a_tenth_of_a_long_run_is_longer_than_half_a_minute():
    got = by_name(sustained_measures(asked(lambda t: 50.0, 3600, each_s=10)))
    assert "first 360 s" in got["burst_decode_tps"].method


def test_a_rate_that_keeps_falling_is_drifting_by_as_much():
    got = by_name(sustained_measures(asked(lambda t: 100.0 - t / 30, 600)))
    drift = got["decode_tps_drift_per_min"]
    # 2 tok/s a minute, of 85 tok/s in the middle of the second half
    assert drift.value == pytest.approx(-2 / 85, rel=0.02)
    assert drift.method.startswith("drifting;")
    assert drift.u_k2 < 1e-6


def test_a_noisy_short_run_does_not_claim_to_have_settled():
    dice = np.random.default_rng(3)
    got = by_name(sustained_measures(asked(lambda t: dice.normal(100, 10), 80)))
    assert got["decode_tps_drift_per_min"].method.startswith("undecided;")
    assert got["decode_tps_drift_per_min"].u_k2 > 0.01


def test_a_minute_is_just_long_enough_and_a_request_over_its_middle_is_of_the_burst():
    got = by_name(sustained_measures(asked(lambda t: 80.0, 61, each_s=3)))
    assert (got["burst_decode_tps"].n, got["sustained_decode_tps"].n) == (11, 10)


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ([], "no_timed_request: none has a decode rate"),
        ([request(0, 0, 50, role="warmup")], "no_timed_request"),
        ([request(0, 0, 50, status="http_500")], "no_timed_request"),
        ([request(0, 0, 50, n_out=1)], "no_timed_request"),
        ([request(0, 0, 50)], "short_run: two windows of 30 s do not fit apart into 50 s"),
        ([request(0, 0, 300)], "short_run: two windows"),
    ],
)
def test_a_short_run_has_reasons_and_no_numbers(requests, said):
    found = sustained_measures(requests)
    names = ["burst_decode_tps", "sustained_decode_tps", "throttle_retention", "decode_tps_drift_per_min"]
    assert [m.name for m in found] == names
    assert {m.value for m in found} == {None}
    assert all(m.reason.startswith(said) for m in found[:3])
    assert found[3].reason.startswith(said[:9])


RUN = phase("run", 100, 700)


def total(power_w, until_s=900):
    """A counter of a power that is given by the second of the run."""
    t = np.arange(0, until_s, 0.5)
    joules = np.cumsum([power_w(one - 100) * 0.5 for one in t])
    edges = Edges.of(power_windows(RUN), RUN)
    return rail_of(digest(series("rapl.package-0", t, joules), edges))


@pytest.mark.parametrize(
    ("power_w", "slope", "label"),
    [
        (lambda t: 10.0 + 5 * (t < 200), 0.0, "settled"),
        (lambda t: 10.0 - 0.006 * (t - 450), -0.036, "drifting"),
        (lambda t: 10.0 + 3 * ((t // 60) % 2), None, "undecided"),
    ],
)
def test_the_drift_of_the_power_is_that_of_the_second_half(power_w, slope, label):
    found = power_drift(total(power_w), "", RUN)
    assert found.method.startswith(f"{label}; least squares over 10 windows")
    assert (found.n, found.unit, found.source) == (10, "1/min", "rapl.package-0")
    if slope is not None:
        assert found.value == pytest.approx(slope, abs=0.001)


def test_power_without_evidence_has_a_reason_and_no_drift():
    assert power_drift(None, "no_energy_source: none", RUN).reason == "no_energy_source: none"
    assert power_drift(total(lambda t: 9.0), "", None).reason.startswith("no_timed_request")
    cut = power_drift(total(lambda t: 9.0, until_s=500), "", RUN)
    assert (cut.value, cut.reason.partition(":")[0]) == (None, "low_coverage")
    assert power_drift(total(lambda t: 0.0), "", RUN).value is None


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [0.0] * 9])
def test_too_little_has_no_drift(values):
    assert drift(range(len(values)), values) is None
    assert drift([3.0] * 9, [1.0] * 9) is None


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(-(10**12), 10**12), st.integers(0, 10**11), st.floats(1e-6, 1e6)),
        max_size=30,
    )
)
def test_any_requests_give_four_measures(spans):
    made = [
        Request(i, "a", "timed", "ok", t0, t0 + length, n_out=9, decode_tps=rate)
        for i, (t0, length, rate) in enumerate(spans)
    ]
    found = sustained_measures(made)
    assert len(found) == 4
    for one in found:
        assert (one.value is None) == (one.reason is not None)
        assert one.value is None or np.isfinite(one.value)
