"""What may be condensed with what: levels of concurrency, turns of conversations, long answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from evidence_kit import SECOND, phase, request, series
from hypothesis import given
from hypothesis import strategies as st

from meltbench.measure import RunInputs, measure_run
from meltbench.measure.digest import digest
from meltbench.measure.latency import latency_measures
from meltbench.measure.points import span_ns, together
from meltbench.measure.throughput import throughput
from meltbench.records import SourceStatus


def levels():
    """Four requests of 2 s and 50 tokens: one by one from 10 s, two at a time from 20 s; 7 W all along."""
    alone = [request(i, 10 + 2 * i, 12 + 2 * i, point="c1", ttft_s=0.5) for i in range(4)]
    pairs = [request(4 + i, 20 + i // 2 * 3, 23 + i // 2 * 3, point="c2", ttft_s=1.0) for i in range(4)]
    return [request(8, 5, 9, role="warmup"), *alone, *pairs]


def measured(kind, requests, **more):
    """Every measure of a run at 7 W from 0 to 60 s."""
    t = [0.05 * n for n in range(1200)]
    total = series("rapl.package-0", t, [7 * x for x in t], source="rapl")
    inputs = RunInputs(
        kind=kind,
        signals=[digest(total)],
        sources=[SourceStatus("rapl", "ok", 1, len(t))],
        phases=[phase("load", 1, 4), phase("run", 10, 26)],
        requests=requests,
        **more,
    )
    return {(m.phase, m.name, m.stat): m for m in measure_run(inputs)[0]}


def test_levels_are_never_mixed_and_each_has_its_throughput():
    got = measured("generate", levels())
    assert ("run", "decode_tps", "median") not in got
    assert ("run", "output_tps", "value") not in got
    assert got["c1", "output_tps", "value"].value == pytest.approx(200 / 8)
    assert got["c2", "output_tps", "value"].value == pytest.approx(200 / 6)
    assert got["c2", "requests_per_s", "value"].value == pytest.approx(4 / 6)
    assert got["c1", "ttft_s", "median"].value == pytest.approx(0.5)
    assert got["c2", "ttft_s", "median"].value == pytest.approx(1.0)
    assert got["run", "requests_timed", "count"].value == 8


def test_points_that_share_the_engine_have_no_throughput_of_their_own():
    pairs = [request(2 * i + k, 10 + 2 * i, 12 + 2 * i, point=f"w{k}", ttft_s=0.5) for i in range(4) for k in range(2)]
    got = measured("generate", pairs)
    for point in ("w0", "w1"):
        found = got[point, "output_tps", "value"]
        assert found.value is None
        assert found.reason.startswith("overlapping_requests")


def test_the_energy_of_a_level_is_of_one_window_however_many_share_it():
    got = measured("generate", levels())
    assert got["c1", "energy_j", "value"].value == pytest.approx(7 * 8, rel=0.01)
    assert got["c2", "energy_j", "value"].value == pytest.approx(7 * 6, rel=0.01)
    assert got["c2", "j_per_output_token", "ratio_of_sums"].value == pytest.approx(42 / 200, rel=0.01)
    assert got["c2", "j_per_output_token", "ratio_of_sums"].method.startswith("energy of the level")
    run = got["run", "j_per_output_token", "ratio_of_sums"]
    assert run.reason == "mixed_points: these requests are not alike; see each of their points"
    assert got["run", "energy_j", "value"].value == pytest.approx(7 * 16, rel=0.01)
    assert got["decode", "energy_j", "value"].value is None


def test_a_level_with_a_failed_request_has_no_throughput_and_no_ratio():
    asked = levels()
    asked[5] = replace(asked[5], status="http_500", n_out=None)
    got = measured("generate", asked)
    assert got["c2", "output_tps", "value"].reason.startswith("request_failed: 1 of 4")
    assert got["c2", "j_per_output_token", "ratio_of_sums"].reason.startswith("request_failed: 1 of 4")
    assert got["c2", "energy_j", "value"].value is not None
    assert got["c1", "output_tps", "value"].value is not None


def test_levels_that_ran_at_the_same_time_share_their_energy():
    asked = levels()
    asked[4] = replace(asked[4], t_end_ns=21 * SECOND)
    got = measured("generate", asked)
    assert got["c1", "energy_j", "value"].reason.startswith("overlapping_requests")


def test_a_single_level_is_a_run_of_like_requests():
    got = measured("generate", [replace(r, point="") for r in levels()[5:]])
    assert got["run", "decode_tps", "median"].n == 4
    assert got["run", "output_tps", "value"].value == pytest.approx(200 / 6)
    assert got["run", "j_per_output_token", "ratio_of_sums"].value == pytest.approx(7 * 16 / 200, rel=0.01)
    assert {where for where, *_ in got} <= {"run", "load", "prefill", "decode", "idle_before", "idle_after"}


def test_first_and_later_turns_are_told_apart_where_the_cache_decides():
    asked = [
        request(0, 10, 12, point="first_turn", ttft_s=0.4, n_in=100, n_cached=0),
        request(1, 12, 14, point="later_turns", ttft_s=0.1, n_in=300, n_cached=250),
        request(2, 14, 16, point="later_turns", ttft_s=0.2, n_in=500, n_cached=400),
    ]
    got = measured("chat", asked)
    assert ("run", "ttft_s", "median") not in got
    assert ("run", "prefill_tps", "median") not in got
    assert got["first_turn", "ttft_s", "median"].value == pytest.approx(0.4)
    assert got["later_turns", "ttft_s", "median"].value == pytest.approx(0.15)
    assert got["run", "decode_tps", "median"].n == 3
    assert got["run", "output_tps", "value"].value == pytest.approx(150 / 6)
    assert ("first_turn", "output_tps", "value") not in got
    # The run counts every prompt token, a kind of turn those that were evaluated.
    assert got["run", "j_per_total_token", "ratio_of_sums"].value == pytest.approx(112 / (900 + 150), rel=0.01)
    assert got["later_turns", "j_per_total_token", "ratio_of_sums"].value == pytest.approx(28 / (150 + 100), rel=0.01)


def test_the_points_are_there_without_a_source_of_energy_as_well():
    there, absent = measured("generate", levels()), measured("generate", levels(), totals=())
    assert set(absent) == set(there)
    assert absent["c2", "energy_j", "value"].reason.startswith("no_energy_source")


def arms():
    """Two questions, each in two ways, in an order of its own: one answer of 2 s, two at a time of 3 s and 4 s."""
    asked = [("n1", 10, 12), ("n2", 12, 15), ("n2", 12, 16), ("n2", 20, 23), ("n2", 20, 24), ("n1", 24, 26)]
    return [request(at, start, end, point=point) for at, (point, start, end) in enumerate(asked)]


def test_arms_that_lie_among_each_other_have_the_energy_of_what_is_under_way_at_once():
    got = measured("generate", arms())
    assert got["n1", "energy_j", "value"].value == pytest.approx(7 * 4, rel=0.01)
    assert got["n2", "energy_j", "value"].value == pytest.approx(7 * 8, rel=0.01)
    assert got["n2", "j_per_request", "ratio_of_sums"].value == pytest.approx(7 * 8 / 4, rel=0.01)
    assert got["n1", "output_tps", "value"].value == pytest.approx(100 / 4)
    assert got["n2", "output_tps", "value"].value == pytest.approx(200 / 8)
    assert got["n2", "output_tps", "value"].method == "over the time in which they were under way"


def test_an_arm_one_of_whose_answers_failed_or_shared_its_time_with_another_arm_has_no_energy():
    asked = arms()
    asked[4] = replace(asked[4], status="http_500", n_out=None)
    got = measured("generate", asked)
    assert got["n2", "energy_j", "value"].reason == "request_failed: one that failed shares the energy of others"
    assert got["n2", "output_tps", "value"].reason.startswith("request_failed: 1 of 4")
    assert got["n1", "energy_j", "value"].value is not None
    alone = [*arms(), request(6, 30, 31, point="n1", status="http_500")]  # which took no other's time
    assert measured("generate", alone)["n1", "energy_j", "value"].value == pytest.approx(7 * 4, rel=0.01)
    for other in (request(6, 25, 27, point="n2"), request(6, 25, 27, role="warmup", point="n1")):
        got = measured("generate", [*arms(), other])
        assert got["n1", "energy_j", "value"].reason.startswith("overlapping_requests")


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=20))
def test_requests_in_groups_are_all_there_and_lie_apart_in_time(spans):
    asked = [request(at, start, start + length, ttft_s=0.5) for at, (start, length) in enumerate(spans)]
    groups = together(asked)
    assert sorted(one.index for group in groups for one in group) == list(range(len(asked)))
    edges = [span_ns(group) for group in groups]
    assert all(before[1] <= after[0] for before, after in pairwise(edges))
    for group in groups:
        for one in group[1:]:
            assert any(one.t_send_ns < other.t_end_ns for other in group if other is not one)


def test_throughput_of_nothing_is_a_reason():
    assert [m.reason for m in throughput("run", [])] == ["no_timed_request: no timed request was sent"] * 2
    unknown = [replace(request(0, 0, 1), n_out=None)]
    output, per_s = throughput("run", unknown)
    assert (output.value, output.reason) == (None, "no_token_count: nobody counted the tokens of an answer")
    assert per_s.value == 1
    assert throughput("run", [request(0, 1, 1, ttft_s=1)])[0].reason == "no_reading: the requests took no time"


def test_a_long_answer_shows_how_decoding_slows_down():
    times, t = [], 0.0
    for n in range(401):
        times.append(round(t * SECOND))
        t += 0.01 if n < 100 else 0.02 if n < 300 else 0.04
    one = request(0, 0, 10, token_t_ns=tuple(times), token_n=(1,) * 401, n_out=401)
    got = {(m.name, m.stat): m for m in latency_measures([one])}
    assert got["decode_tps_first", "median"].value == pytest.approx(100)
    assert got["decode_tps_last", "median"].value == pytest.approx(25)
    short = replace(one, token_t_ns=tuple(times[:200]), token_n=(1,) * 200)
    assert not [m for m in latency_measures([short]) if m.name.startswith("decode_tps_")]


def test_points_that_items_name_lie_among_each_other_and_have_the_energy_of_their_own_requests():
    """Two lengths of text by turns: 1 s and 3 s, with a second between them that is neither's."""
    asked = [request(i, 10 + 4 * i, 11 + 4 * i + 2 * (i % 2), point=("short", "long")[i % 2]) for i in range(4)]
    got = measured("generate", asked)
    assert got["short", "energy_j", "value"].value == pytest.approx(7 * 2, rel=0.01)
    assert got["long", "energy_j", "value"].value == pytest.approx(7 * 6, rel=0.01)
    assert got["long", "j_per_request", "ratio_of_sums"].value == pytest.approx(7 * 3, rel=0.01)
    assert ("short", "output_tps", "value") not in got  # of no window can it be said that it was theirs
    assert ("short", "ttft_s", "median") in got
    assert got["run", "j_per_output_token", "ratio_of_sums"].reason.startswith("mixed_points")
