"""``meltbench predict`` and ``meltbench intelligence`` over runs of a made machine: its own numbers come back."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from analysis_kit import DECODE, PREFILL, answered, in_turn, joules, record, stored, with_scores
from jsoncheck import NAMED, problems
from store_kit import store_at
from typer.testing import CliRunner

from meltbench.analysis.edgereasoning import decode_time_s, prefill_time_s
from meltbench.analysis.power import rising_energy_j
from meltbench.cli.app import app
from meltbench.efficiency import efficiency, joined_accuracy
from meltbench.errors import UnknownName, UserError
from meltbench.predicting import chosen, predict
from meltbench.records import Score
from meltbench.report.intelligence import intelligence_sheet
from meltbench.report.intelligence import notes as intelligence_notes
from meltbench.report.prediction import fit_sheet, notes, prediction_sheet

FIRST = prefill_time_s(**PREFILL, n_in=512)
REST = decode_time_s(**DECODE, n_in=512, n_steps=255)


def by_name(document):
    return {one["name"]: one for one in document["predictions"]}


def asked(*words):
    """The command line's answer, with what it raised where it raised."""
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_made_machine_is_predicted():
    found = predict([record("r1", noise=0.01, seed=1), record("r2", noise=0.01, seed=2)], 512, 256)
    told = by_name(found)
    for name, true in (
        ("prefill_s", FIRST),
        ("decode_s", REST),
        ("e2e_s", FIRST + REST),
        ("energy_j", joules(FIRST, REST)),
        ("mean_power_w", joules(FIRST, REST) / (FIRST + REST)),
    ):
        assert told[name]["lo"] < true < told[name]["hi"], name
        assert told[name]["value"] == pytest.approx(true, rel=0.02), name
        assert told[name]["beyond"] == ""
    assert told["energy_j"]["hi"] / told["energy_j"]["value"] > 1.058, "the meter's gain is in it"
    assert (found["scope"], found["klass"], found["gain_u_k2"]) == ("soc", "B", pytest.approx(0.058))
    assert (found["n_requests"], found["runs"], found["left_out"]) == (24, ["r1", "r2"], {})
    assert [fit["name"] for fit in found["fits"]] == ["prefill", "decode", "energy"]
    assert problems(NAMED["predict"], found) == []
    assert notes(found) == ["from 24 requests of 2 runs"]


@pytest.mark.parametrize(
    ("prefill_w", "delta_w", "said"),
    [
        (lambda i: 5 + 9 * max(0.0, math.log(i / 128)), 0.0, "(p_prefill + p_growth ln(max(I / 128, 1))) T_prefill"),
        (lambda i: 12.0, 6.0, "p_decode T_decode - delta_p tau (1 - exp(-T_decode / tau)), tau = "),
        (lambda i: 8.0, 0.0, "p (T_prefill + T_decode)"),
    ],
)
def test_the_form_of_the_power_is_told_as_it_was_taken(prefill_w, delta_w, said):
    made = []
    for one in in_turn([(i, o) for i in (64, 128, 512, 1024, 4096) for o in (1, 9, 65, 513)], 0.001, 3):
        decode_s = one.e2e_s - one.ttft_s
        energy = prefill_w(one.n_in) * one.ttft_s + (rising_energy_j(8.0, delta_w, 0.5, decode_s))
        made.append(replace(one, energy_j=energy, energy_u_k2_j=None))
    found = predict([record(requests=made)], 512, 64)
    assert said in found["fits"][2]["form"]


def test_without_energy_times_are_told_and_the_reason():
    run = record()
    why = "no_energy_source: no counter on this machine"
    run = replace(run, requests=[replace(r, energy_j=None, energy_reason=why) for r in run.requests], measures=[])
    found = predict([run], 4096, 256)
    told = by_name(found)
    assert told["e2e_s"]["value"] > 0
    assert "4096 tokens" in told["e2e_s"]["beyond"]
    assert told["energy_j"] == told["energy_j"] | {"value": None, "lo": None, "hi": None, "reason": why}
    assert problems(NAMED["predict"], found) == []
    cells = prediction_sheet(found).rows
    assert cells[-1] == ("energy_j", "—", "", why)
    assert cells[0][3].startswith("extrapolated: 4096 tokens")
    assert fit_sheet(found).rows[-1][1] == why
    assert notes(found) == ["from 12 requests of 1 run: how runs differ is not in the intervals"]


def test_prefills_alone_tell_nothing_of_a_decodes_energy():
    alone = [replace(one, n_out=1) for one in in_turn([(i, 1) for i in (64, 128, 256, 512)] * 2, 0.01, 0)]
    steps = [replace(one, energy_j=None) for one in in_turn([(i, 64) for i in (64, 128, 256, 512)], 0.01, 0)]
    shift = alone[-1].t_end_ns + 10**9
    moved = [replace(r, index=90 + r.index, t_send_ns=r.t_send_ns + shift, t_end_ns=r.t_end_ns + shift) for r in steps]
    found = predict([record(requests=[*alone, *moved])], 128, 64)
    assert by_name(found)["decode_s"]["value"] is not None
    assert by_name(found)["energy_j"]["reason"] == "no_decode_energy: no request with an energy had a decode"
    assert by_name(predict([record(requests=alone)], 128, 1))["energy_j"]["value"] is not None


def test_the_command_prints_tables_and_json(tmp_path):
    store = store_at(tmp_path)
    for seed in range(2):
        stored(store, noise=0.01, seed=seed)
    stored(store, validity="invalid", noise=0.5)
    done = asked("predict", "--in", 512, "--out", 256, "--data", tmp_path)
    assert done.exit_code == 0, done.output
    assert "energy: p_prefill T_prefill + p_decode T_decode" in done.stdout
    assert "from 24 requests of 2 runs" in done.stdout
    plain = asked(
        "predict", "--in", 512, "--out", 256, "--model", "TIN", "--device", "desk", "--data", tmp_path, "--json"
    )
    assert problems(NAMED["predict"], json.loads(plain.stdout)) == []
    assert "| prefill_s |" in asked("predict", "--in", 9, "--out", 2, "--data", tmp_path, "--markdown").stdout


def test_a_run_that_is_named_is_used_even_if_invalid_and_told(tmp_path):
    store = store_at(tmp_path)
    run_id = stored(store, validity="invalid")
    done = asked("predict", "--in", 512, "--out", 256, run_id, "--data", tmp_path)
    assert f"invalid, and used because named: {run_id}" in done.stdout.replace("\n", " ")
    with pytest.raises(UserError, match="no run of a model in "):
        chosen(store, [], None, None)


def test_requests_that_are_all_alike_predict_nothing_and_exit_1(tmp_path):
    store = store_at(tmp_path)
    stored(store, lengths=[(64, 17)] * 6)
    done = asked("predict", "--in", 512, "--out", 256, "--data", tmp_path)
    assert done.exit_code == 1
    assert "too_few_lengths: prompts of 3 lengths are needed, there are 1 (64)" in done.stdout
    assert "degenerate" in done.stdout


def test_bad_input_is_refused_in_a_line(tmp_path):
    store = store_at(tmp_path)
    first = stored(store)
    other = stored(store, runner={"mode": "bench"})
    with pytest.raises(UserError, match=r"they differ in mode \(server, bench\)"):
        predict(chosen(store, [first, other], None, None), 512, 256)
    with pytest.raises(UserError, match="no run of model 'qwen' and device 'pi' in "):
        chosen(store, [], "qwen", "pi")
    with pytest.raises(UnknownName):
        chosen(store, ["2019"], None, None)
    command = stored(store, runner={}, spec={})
    assert chosen(store, [first, first], None, None)[0].run_id == first
    done = asked("predict", "--in", 5, "--out", 5, command, "--model", "x", "--data", tmp_path)
    assert isinstance(done.exception, UserError)
    assert asked("predict", "--in", 0, "--out", 5, "--data", tmp_path).exit_code == 2


def test_a_run_of_no_model_is_refused(tmp_path):
    from store_kit import open_run

    store = store_at(tmp_path)
    folder = open_run(store)
    made = record(folder.run_id)
    store.commit(folder, replace(made, manifest=made.manifest | {"runner": None, "model": None}))
    store.ingest(folder.run_id)
    with pytest.raises(UserError, match="is not of a model"):
        chosen(store, [folder.run_id], None, None)


def scored(n=40, run_id="r1", right=0.6, method="exact", **more):
    """A run of that many questions on the made machine, of which that share was answered right."""
    run = record(run_id, lengths=[(64 + at, 65) for at in range(n)], noise=0.01, **more)
    marks = [Score(f"q{at}", method, float(at < right * n), True, requests=str(at)) for at in range(n)]
    return with_scores(run, marks)


def numbers(document):
    return {(one["name"], one["energy"]): one for one in document["numbers"]}


def test_the_right_value_lies_in_its_interval():
    """Show 6 on a made device: known power, known answers."""
    run = scored()
    (found,) = efficiency([run])
    first = sum(prefill_time_s(**PREFILL, n_in=64 + at) for at in range(40)) / 40
    rest = sum(decode_time_s(**DECODE, n_in=64 + at, n_steps=64) for at in range(40)) / 40
    energy = joules(first, rest)
    told = numbers(found)
    for name, true in (("ipj_per_j", 0.6 / energy), ("ipw_per_w", 0.6 / (energy / (first + rest)))):
        assert told[name, "gross"]["lo"] < true < told[name, "gross"]["hi"]
        assert told[name, "gross"]["value"] == pytest.approx(true, rel=0.01)
    net = energy - 3.0 * (first + rest)
    assert told["mean_energy_j", "net"]["value"] == pytest.approx(net, rel=0.02)
    assert told["mean_energy_j", "net"]["lo"] < net < told["mean_energy_j", "net"]["hi"]
    assert told["accuracy", None]["value"] == pytest.approx(0.6)
    assert (found["scope"], found["klass"], found["origin"], found["n_queries"]) == ("soc", "B", "generated", 40)
    assert problems(NAMED["intelligence"], [found]) == []
    rows_shown = {cells[0]: cells for cells in intelligence_sheet(found).rows}
    assert rows_shown["accuracy"][2] == "60 %"
    assert rows_shown["accuracy"][5].startswith("standard error 7.8 %")
    assert {"ipw_per_w", "ipj_per_j"} <= rows_shown.keys(), "never one without the other"
    assert intelligence_notes(found)[0] == "scope soc, class B, generated: 40 queries of 40 items in 1 run"


def test_points_and_methods_stand_apart():
    run = scored(20)
    half = [replace(one, point="n4" if at % 2 else "n1") for at, one in enumerate(run.scores)]
    found = efficiency([replace(run, scores=half)])
    assert [(one["point"], one["n_queries"]) for one in found] == [("n1", 10), ("n4", 10)]
    unread = [replace(one, parsed=False, correct=0.0) if at < 3 else one for at, one in enumerate(run.scores)]
    (found,) = efficiency([replace(run, scores=unread)])
    assert "unparsed: 3 answers could not be read, and count as wrong" in found["flags"]


def test_a_query_without_energy_is_a_dash_with_its_count():
    run = scored(20)
    requests = [
        replace(r, energy_j=None, energy_reason="low_coverage: 3 updates") if r.index == 4 else r for r in run.requests
    ]
    (found,) = efficiency([with_scores(replace(run, requests=requests), run.scores)])
    why = "no_energy: 1 of 20 queries have none (low_coverage: 3 updates)"
    assert numbers(found)["ipw_per_w", "gross"] | {"reason": why, "value": None} == numbers(found)["ipw_per_w", "gross"]
    assert ("ipj_per_j", "gross", "—", "", "20", why) in intelligence_sheet(found).rows
    assert problems(NAMED["intelligence"], [found]) == []


def test_a_text_has_a_perplexity_per_watt_and_joule():
    run = scored(12)
    chunks = [Score(f"q{at}", "nll", None, True, value=-1000.0 - at, n=256, requests=str(at)) for at in range(12)]
    run = with_scores(run, chunks)
    (found,) = efficiency([run])
    told = numbers(found)
    level = math.exp((12 * 1000 + 66) / (12 * 256))
    assert told["perplexity", None]["value"] == pytest.approx(level)
    assert told["ppj_per_j", "gross"]["value"] == pytest.approx(1 / level / told["mean_energy_j", "gross"]["value"])
    assert found["origin"] == "loglik"
    assert problems(NAMED["intelligence"], [found]) == []
    assert intelligence_sheet(found).rows[0][:3] == ("perplexity", "", f"{level:.1f}")
    with pytest.raises(UserError, match="run r1 has no accuracy"):
        joined_accuracy(run)
    (joined,) = efficiency([run], joined_accuracy(scored(9, "host")))
    assert ("ipj_per_j", "gross") in numbers(joined)


def test_an_accuracy_is_joined_and_flagged():
    joined = joined_accuracy(scored(100, "host", 0.5))
    for run in (replace(scored(20), scores=[]), scored(20, right=1.0)):
        (found,) = efficiency([run], joined)
        assert numbers(found)["accuracy", None]["value"] == pytest.approx(0.5)
        assert found["origin"] == "inherited"
        assert found["flags"][0].startswith("accuracy_inherited: ")
        assert problems(NAMED["intelligence"], [found]) == []
    assert joined_accuracy(scored(20, method="loglik/bytes")).accuracy.origin == "loglik"
    several = scored(4)
    more = [*several.scores, *(replace(one, point="n4") for one in several.scores)]
    with pytest.raises(UserError, match="run r1 has 2 accuracies: exact, n4 exact"):
        joined_accuracy(replace(several, scores=more))


def test_runs_that_differ_or_were_not_scored_are_refused():
    run = scored(20)
    with pytest.raises(UserError, match="run r1 has no scores"):
        efficiency([replace(run, scores=[])])
    other = replace(run, run_id="r2", manifest=run.manifest | {"workload": {"name": "other", "sha256": "w9"}})
    with pytest.raises(UserError, match=r"they differ in workload \(study, other\)"):
        efficiency([run, other])
    bad = replace(run, manifest=run.manifest | {"validity": "invalid"})
    assert any(flag.startswith("invalid: r1 ") for flag in efficiency([bad])[0]["flags"])


def test_repetitions_are_taken_together():
    (found,) = efficiency([scored(20, "r1", seed=1), scored(20, "r2", seed=2)])
    assert (found["n_queries"], found["n_items"], found["flags"]) == (40, 20, [])


def test_the_command_reads_scores_of_the_store(tmp_path):
    store = store_at(tmp_path)
    marks = [Score(f"q{at}", "number", float(at % 3 > 0), True, requests=str(at)) for at in range(12)]
    run_id = stored(store, lengths=[(64 + at, 65) for at in range(12)], noise=0.01, scores=marks)
    bare = stored(store, lengths=[(64, 65)] * 3)
    assert isinstance(asked("intelligence", bare, "--data", tmp_path).exception, UserError)
    done = asked("intelligence", run_id, "--data", tmp_path)
    assert done.exit_code == 0, done.output
    assert "66.7 %" in done.stdout
    assert "one_run: how runs differ is not in the interval" in done.stdout
    told = json.loads(asked("intelligence", run_id, "--data", tmp_path, "--json").stdout)
    assert problems(NAMED["intelligence"], told) == []
    again = asked("intelligence", bare, "--accuracy", run_id, "--data", tmp_path, "--markdown")
    assert "| ipw_per_w | gross |" in again.stdout
    assert "inherited: 3 queries of 3 items in 1 run" in again.stdout


def test_warmups_are_no_observations():
    asked_for = [answered(0, 64, 17, 0, 0.0, 0, role="warmup"), *in_turn([(64, 17)] * 3, 0.0, 0)[1:]]
    assert predict([record(requests=asked_for)], 64, 17)["n_requests"] == 2


def test_a_selection_is_fitted_to_from_the_index(tmp_path):
    store = store_at(tmp_path)
    kept = [stored(store, noise=0.01, seed=seed) for seed in range(2)]
    stored(store, model={"name": "other", "sha256": "ef"})
    stored(store, imported={"from": "MELT"})
    stored(store, validity="invalid")
    found = chosen(store, ["model=tiny"], None, None)
    assert [record.run_id for record in found] == sorted(kept)
    assert predict(found, 512, 256) == predict(chosen(store, sorted(kept), None, None), 512, 256)
