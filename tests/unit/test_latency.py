"""Latency and throughput of the timed requests."""

import numpy as np
import pytest
from evidence_kit import request

from meltbench.measure.latency import itl_s, latency_measures, t95


def by(measures):
    return {(m.name, m.stat): m for m in measures}


def test_distributions_of_timed_requests_alone():
    ttft = [0.1, 0.2, 0.3, 0.4, 1.0]
    timed = [request(i, i * 10, i * 10 + 5, ttft_s=x) for i, x in enumerate(ttft)]
    warm = request(9, 90, 99, role="warmup", ttft_s=8)
    got = by(latency_measures([warm, *timed], 2.5, "cold"))
    assert got["ttft_s", "median"].value == pytest.approx(0.3)
    assert got["ttft_s", "p90"].value == pytest.approx(np.percentile(ttft, 90))
    assert got["ttft_s", "max"].value == 1.0
    assert got["ttft_s", "mean"].u_k2 == pytest.approx(2.776 * np.std(ttft, ddof=1) / np.sqrt(5), rel=1e-3)
    assert got["ttft_s", "median"].u_k2 is None
    assert got["n_out", "sum"].value == 250
    assert got["requests_timed", "count"].value == 5
    assert (got["load_s", "value"].value, got["load_s", "value"].method) == (2.5, "cold page cache")
    assert got["engine_decode_tps", "median"].reason == "no_reading: no timed request has engine_decode_tps"


def test_trap_44_no_success_is_none_and_not_zero():
    got = by(latency_measures([request(0, 0, 1, status="http_500")], None))
    assert got["requests_failed", "count"].value == 1
    assert got["ttft_s", "median"].reason == "no_timed_request: none succeeded"
    assert got["n_out", "sum"].reason == "no_timed_request: none succeeded"
    assert got["load_s", "value"].value is None


def test_a_single_request_has_no_interval_and_no_requests_no_latency():
    assert by(latency_measures([request(0, 0, 1)], 1.0))["ttft_s", "mean"].u_k2 is None
    assert ("ttft_s", "median") not in by(latency_measures([], None))


def test_a_chunk_of_several_tokens_shares_its_gap():
    one = request(0, 0, 1, token_t_ns=(0, 100_000_000, 400_000_000), token_n=(1, 1, 3))
    assert itl_s(one) == pytest.approx([0.1, 0.1, 0.1, 0.1])
    assert by(latency_measures([one], 1.0))["itl_s", "median"].n == 4


def test_the_source_of_prefill_speed_is_named():
    got = by(latency_measures([request(0, 0, 1, prefill_source="client_side")], 1.0))
    assert got["prefill_tps", "median"].method.startswith("client_side;")


@pytest.mark.parametrize(("df", "t"), [(1, 12.706), (9, 2.262), (31, 2.040), (40, 2.021), (120, 1.980), (1000, 1.962)])
def test_students_t(df, t):
    assert t95(df) == pytest.approx(t, rel=0.002)
