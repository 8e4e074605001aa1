"""Of a stored run only what can be compared is taken, what is not is counted, and runs that differ are never mixed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from analysis_kit import IDLE_W, answered, in_turn, manifest, measures, record, with_scores

from meltbench.analysis.observations import meter_of, observed, origin_of, queries_of, steps_of
from meltbench.analysis.sameness import demand_same, differences
from meltbench.errors import UserError
from meltbench.records import Score


def test_a_server_has_one_step_less_than_tokens():
    found = observed(record(lengths=[(64, 17)]))
    (one,) = found.observations
    assert (one.n_in, one.n_steps) == (64, 16)
    assert one.prefill_s + one.decode_s == pytest.approx(record(lengths=[(64, 17)]).requests[0].e2e_s)
    assert (steps_of(17, "server"), steps_of(17, "in-process"), steps_of(17, "bench"), steps_of(0, "server")) == (
        *(16, 16, 17, 0),
    )


def test_of_llama_bench_every_token_is_a_step_and_its_prefill_ends_at_the_mark():
    both = answered(0, 64, 17, 0, 0.0, 0, ttft_s=None)
    first_ns = both.t_send_ns + 120_000_000
    runs = [replace(both, t_first_ns=first_ns)]
    decode_alone = answered(1, 512, 17, 10**11, 0.0, 0, ttft_s=None, n_cached=512)
    runs.append(replace(decode_alone, t_first_ns=decode_alone.t_send_ns))
    found = observed(record(requests=runs, runner={"mode": "bench"}))
    assert [(one.n_in, one.n_steps) for one in found.observations] == [(64, 17), (512, 17)]
    assert [one.prefill_s for one in found.observations] == [pytest.approx(0.12), None]
    assert found.observations[1].decode_s == pytest.approx(decode_alone.e2e_s)
    assert all(one.energy_j is not None for one in found.observations)


def test_a_prompt_from_the_cache_tells_of_the_decode_alone():
    asked = in_turn([(64, 17), (512, 17), (512, 17)], 0.0, 0)
    asked[1] = replace(asked[1], n_cached=511)
    asked[2] = replace(asked[2], n_cached=400)
    found = observed(record(requests=asked))
    assert [one.prefill_s is None for one in found.observations] == [False, True, True]
    assert all(one.decode_s for one in found.observations)
    assert found.left_out == {"prompt in the cache, used for the decode alone": 2}
    assert [one.energy_j is None for one in found.observations] == [False, False, True]
    assert found.observations[1].cached_first_s == asked[1].ttft_s


def test_a_prompt_that_may_have_been_in_the_cache_tells_of_the_decode_alone():
    asked = [replace(one, n_cached=None) for one in in_turn([(64, 17), (512, 17)], 0.0, 0)]
    asked[1] = replace(asked[1], prefill_tps=None, prefill_source="cache_unknown")
    found = observed(record(requests=asked))
    assert [one.prefill_s is None for one in found.observations] == [False, True]
    assert [one.energy_j is None for one in found.observations] == [False, True]
    assert found.observations[1].cached_first_s == asked[1].ttft_s
    assert found.left_out == {"prompt perhaps in the cache, used for the decode alone": 1}


def test_what_cannot_be_used_is_counted():
    asked = in_turn([(64, 17)] * 7, 0.0, 0)
    asked[0] = replace(asked[0], role="warmup")
    asked[1] = replace(asked[1], status="truncated")
    asked[2] = replace(asked[2], n_out=None)
    asked[4] = replace(asked[4], t_send_ns=asked[3].t_send_ns + 1)
    found = observed(record(requests=asked))
    assert len(found.observations) == 2
    assert found.left_out == {"not answered": 1, "ran beside another": 2, "without a count of its tokens or a time": 1}


def test_a_prefill_alone_is_all_of_its_request():
    alone = replace(answered(0, 64, 1, 0, 0.0, 0), n_out=0, ttft_s=None)
    (one,) = observed(record(requests=[alone])).observations
    assert (one.n_steps, one.prefill_s, one.decode_s) == (0, alone.e2e_s, None)


def test_the_energy_of_a_run_that_was_refused_is_none_of_its_requests():
    found = observed(record(reason="implausible_power: 2e+03 W over the run, 60 W at most"))
    assert all(one.energy_j is None for one in found.observations)
    assert found.energy_reason.startswith("implausible_power")
    assert all(one.energy_j is None for one in queries_of(record(reason="implausible_power: x"), None))


def test_the_gain_is_the_relative_u_of_the_runs_energy_and_the_rest_of_a_requests_is_its_own():
    found = observed(record())
    assert found.gain_u == pytest.approx(0.029)
    one = found.observations[0]
    assert one.energy_u_j == pytest.approx(one.energy_j * (0.03**2 - 0.029**2) ** 0.5)
    meter = meter_of([record(), record("r2")])
    assert (meter.scope, meter.klass) == ("soc", "B")
    assert meter.baseline_u_w == pytest.approx(
        (0.05**2 + 2 * (IDLE_W * (0.03**2 - 0.029**2) ** 0.5 / 2) ** 2) ** 0.5, rel=0.01
    )


def test_a_meter_nobody_knows():
    bare = replace(record(), measures=[])
    assert meter_of([bare]).gain_u is None
    assert meter_of([bare]).baseline_u_w is None
    refused = meter_of([record(reason="stale_sensor: x")])
    assert refused.gain_u == pytest.approx(0.05 / 3**0.5), "of its class, where the run has no energy"
    no_after = replace(record(), measures=measures(record().requests)[:2])
    assert meter_of([no_after]).baseline_u_w is None
    assert queries_of(no_after, None)[0].net_energy_j is None


def test_a_query_is_a_scored_question_with_its_own_cost():
    run = record(lengths=[(64, 17)] * 4)
    rows = [
        Score("a", "exact", 1.0, True, requests="0,1"),
        Score("b", "exact", 0.0, True, requests="2"),
        Score("c", "exact", None, False, requests="9"),
        Score("d", "exact", 0.0, False),
    ]
    run = with_scores(run, rows)
    a, b, c, d = queries_of(run, run.scores)
    first = run.requests
    assert a.energy_j == pytest.approx(first[0].energy_j + first[1].energy_j)
    assert a.latency_s == pytest.approx((first[1].t_end_ns - first[0].t_send_ns) / 1e9)
    assert a.net_energy_j == pytest.approx(a.energy_j - IDLE_W * a.latency_s)
    assert (b.item, b.correct, b.run) == ("b", 0.0, "r1")
    assert (c.correct, c.energy_j, c.latency_s) == (None, None, None)
    assert (d.energy_j, d.latency_s) == (None, None)


def test_without_scores_each_timed_request_is_a_query():
    run = record(lengths=[(64, 17)] * 3)
    run = replace(run, requests=[replace(run.requests[0], role="warmup"), *run.requests[1:]])
    assert [(one.item, one.correct) for one in queries_of(run, None)] == [("q1", None), ("q2", None)]


def test_methods():
    assert (origin_of("loglik/bytes"), origin_of("letter"), origin_of("")) == ("loglik", "generated", "generated")


def test_runs_of_one_cell_are_the_same_whatever_they_were_asked():
    a, b = manifest("r1"), manifest("r2", workload={"name": "other", "sha256": "w2"}, rep=3)
    b["knobs"] = a["knobs"] | {"ctx": 4096}
    assert differences([a, b], workload=False) == []
    assert differences([a, b], workload=True) == ["workload (study, other)"]
    demand_same([a, b], workload=False, hint="")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"runner": {"mode": "bench"}}, "mode (server, bench)"),
        ({"runner": {"version": "b7000", "sha256": "e2"}}, "engine (b6543, b7000)"),
        ({"runner": {"sha256": "0123456789abcdef"}}, "engine (e1, 0123456789ab)"),
        ({"device": {"name": "pi5", "identity": "x"}}, "device (desk, pi5)"),
        ({"model": {"name": "big", "sha256": "cd"}}, "model (tiny, big)"),
        ({"model": {"name": "big", "sha256": None}}, "model (tiny, big)"),
        ({"knobs": {"threads": 4}}, "batch (2048, not set), gpu_layers (none, not set), threads (2, 4)"),
        (
            {"conditions": {"settings": {"governor": {"value": "x", "used": "performance"}}}},
            "setting governor (not set, performance)",
        ),
    ],
)
def test_what_differs_is_named(changed, said):
    with pytest.raises(UserError) as caught:
        demand_same([manifest("r1"), manifest("r2", **changed)], workload=True, hint="name others")
    assert caught.value.message.startswith("these 2 runs are not to be taken together: they differ in ")
    for part in said.split("), "):
        assert part in caught.value.message
    assert caught.value.hint == "name others"


def test_many_differences_are_counted():
    other = manifest("r2", knobs={f"k{at}": at for at in range(9)})
    with pytest.raises(UserError, match="and 10 more"):
        demand_same([manifest("r1"), other], workload=False, hint="")
    assert differences([manifest(f"r{n}", knobs={"threads": n}) for n in range(6)], workload=False) == [
        "threads (0, 1, 2, 3 and 2 more)"
    ]


def test_a_setting_of_the_workload_keeps_runs_apart_and_a_files_place_does_not():
    about = [manifest("r1"), manifest("r2")]
    for one, shots, path in zip(about, (0, 5), ("a.jsonl", "b.jsonl"), strict=True):
        one["workload"] = {"name": "gsm8k", "sha256": "w1", "kind": "generate", "shots": shots, "data": path}
    assert differences(about, workload=True) == ["shots (0, 5)"]
    assert differences(about, workload=False) == []


def test_energies_of_two_scopes_are_not_averaged():
    runs = [record(run_id) for run_id in ("r1", "r2")]
    other = [replace(m, scope="wall", klass="A") for m in runs[1].measures]
    with pytest.raises(UserError, match=r"soc \(class B\) and wall \(class A\): they do not cover the same"):
        meter_of([runs[0], replace(runs[1], measures=other)])
