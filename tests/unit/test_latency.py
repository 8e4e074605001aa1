"""Latency and throughput of the timed requests."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import request

from meltbench.measure.latency import count_measures, itl_s, latency_measures, load_measure, point_measures, t95


def by(measures):
    return {(m.name, m.stat): m for m in measures}


def test_distributions_of_timed_requests_alone():
    ttft = [0.1, 0.2, 0.3, 0.4, 1.0]
    timed = [request(i, i * 10, i * 10 + 5, ttft_s=x) for i, x in enumerate(ttft)]
    warm = request(9, 90, 99, role="warmup", ttft_s=8)
    got = by([load_measure(2.5, "cold"), *count_measures([warm, *timed]), *latency_measures([warm, *timed])])
    assert got["ttft_s", "median"].value == pytest.approx(0.3)
    assert got["ttft_s", "p90"].value == pytest.approx(np.percentile(ttft, 90))
    assert got["ttft_s", "max"].value == 1.0
    assert got["ttft_s", "mean"].u_k2 == pytest.approx(2.776 * np.std(ttft, ddof=1) / np.sqrt(5), rel=1e-3)
    assert got["ttft_s", "median"].u_k2 is None
    assert got["n_out", "sum"].value == 250
    assert got["requests_timed", "count"].value == 5
    assert (got["load_s", "value"].value, got["load_s", "value"].method) == (2.5, "cold page cache")
    assert got["engine_decode_tps", "median"].reason == "no_reading: no timed request has engine_decode_tps"


def test_answers_that_nobody_counted_say_so_and_not_that_a_rate_is_missing():
    bare = {"n_in": None, "n_out": None, "tpot_s": None, "decode_tps": None, "prefill_tps": None, "token_n": (0, 0)}
    one, two = (replace(request(n, n, n + 1), **bare, token_t_ns=(1, 2)) for n in range(2))
    got = by([*count_measures([one, two]), *latency_measures([one, two])])
    for name in ("decode_tps", "tpot_s", "itl_s"):
        assert got[name, "median"].reason == "no_token_count: nobody counted the tokens of the answers"
    assert got["n_out", "sum"].reason == "no_token_count: nobody counted the tokens of the answers"
    assert got["prefill_tps", "median"].reason == "no_token_count: nobody counted the tokens of the prompts"
    assert got["n_in", "sum"].reason == "no_token_count: nobody counted the tokens of the prompts"
    assert got["engine_decode_tps", "median"].reason == "no_reading: no timed request has engine_decode_tps"
    some = by(count_measures([one, two, request(2, 2, 3)]))
    assert some["n_out", "sum"].reason == "no_token_count: nobody counted the tokens of 2 of 3 answers"
    short = request(0, 0, 1, n_out=1, tpot_s=None, decode_tps=None)
    assert by(latency_measures([short]))["decode_tps", "median"].reason == "no_reading: one token has no rate"
    odd = request(0, 0, 1, n_out=8, decode_tps=None)
    assert by(latency_measures([odd]))["decode_tps", "median"].reason == "no_reading: no timed request has decode_tps"


def test_trap_44_no_success_is_none_and_not_zero():
    failed = [request(0, 0, 1, status="http_500")]
    got = by([load_measure(None, None), *count_measures(failed), *latency_measures(failed)])
    assert got["requests_failed", "count"].value == 1
    assert got["ttft_s", "median"].reason == "no_timed_request: none succeeded"
    assert got["n_out", "sum"].reason == "no_timed_request: none succeeded"
    assert got["load_s", "value"].value is None


def test_a_single_request_has_no_interval():
    assert by(latency_measures([request(0, 0, 1)]))["ttft_s", "mean"].u_k2 is None


def test_the_points_of_a_grid_are_never_mixed():
    def asked(index, item, n_in, n_cached, n_out, **more):
        return request(
            index, index, index + 1, item=item, point=item, n_in=n_in, n_cached=n_cached, n_out=n_out, **more
        )

    got = {
        (m.phase, m.name): m
        for m in point_measures(
            [
                asked(0, "pp64", 64, 0, 0, role="warmup", prefill_tps=1.0, decode_tps=None),
                asked(1, "pp64", 64, 0, 0, prefill_tps=100.0, decode_tps=None),
                asked(2, "tg16", 1, 0, 16, prefill_tps=7.0, decode_tps=50.0),
                asked(3, "tg16@d128", 129, 128, 16, prefill_tps=7.0, decode_tps=40.0),
                asked(4, "tg16@d128", 128, 0, 0, role="setup", prefill_tps=90.0),
                asked(5, "pp8", 8, 0, 0, status="wrong_n_in"),
                asked(6, "tg1", 1, 0, 1, prefill_tps=7.0, decode_tps=None),
            ]
        )
        if m.stat == "median"
    }
    assert got["tg1", "decode_tps"].reason == "no_reading: one token has no rate"
    assert ("pp64", "decode_tps") not in got
    assert got["pp64", "prefill_tps"].value == 100
    assert got["tg16", "decode_tps"].value == 50
    assert got["tg16@d128", "decode_tps"].value == 40
    assert not {("tg16", "prefill_tps"), ("tg16@d128", "prefill_tps"), ("pp64", "decode_tps")} & set(got)
    assert got["pp8", "e2e_s"].reason == "no_timed_request: none succeeded"


def test_a_chunk_of_several_tokens_shares_its_gap():
    one = request(0, 0, 1, token_t_ns=(0, 100_000_000, 400_000_000), token_n=(1, 1, 3))
    assert itl_s(one) == pytest.approx([0.1, 0.1, 0.1, 0.1])
    assert by(latency_measures([one]))["itl_s", "median"].n == 4


def test_the_source_of_prefill_speed_is_named():
    got = by(latency_measures([request(0, 0, 1, prefill_source="client_side")]))
    assert got["prefill_tps", "median"].method.startswith("client_side;")


def test_a_prefill_that_may_have_been_one_of_the_cache_has_a_reason_and_no_rate():
    unknown = [request(n, n, n + 1, prefill_tps=None, prefill_source="cache_unknown") for n in range(2)]
    (median,) = [m for m in latency_measures(unknown) if m.name == "prefill_tps"]
    assert (median.value, median.stat) == (None, "median")
    assert median.reason.startswith("cache_unknown: prompts began as earlier ones")
    fresh = request(2, 2, 3, prefill_source="client_side", prefill_tps=50.0)
    some = by(latency_measures([*unknown, fresh]))["prefill_tps", "median"]
    assert (some.value, some.n) == (50.0, 1)
    assert some.method.startswith("client_side, 2 of 3 left out: cache_unknown;")
    of_turns = point_measures([request(0, 0, 1, point="later_turns", prefill_tps=None, prefill_source="cache_unknown")])
    assert [m.reason for m in of_turns if m.name == "prefill_tps"] == [median.reason]


@pytest.mark.parametrize(("df", "t"), [(1, 12.706), (9, 2.262), (31, 2.040), (40, 2.021), (120, 1.980), (1000, 1.962)])
def test_students_t(df, t):
    assert t95(df) == pytest.approx(t, rel=0.002)
