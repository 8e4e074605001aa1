"""Arms side by side: what shares a column, what is held against the first and how surely, and what is not alike."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
from analysis_kit import in_turn, manifest
from jsoncheck import problems

from meltbench.comparing import compare
from meltbench.errors import UserError
from meltbench.records import Measure, RunRecord, Score
from meltbench.report.comparison import comparison_notes, comparison_sheet
from meltbench.report.jsonanalysis import COMPARE


def run(run_id: str, model: str = "a", workload: str = "quick", **more: Any) -> RunRecord:
    about = manifest(run_id)
    about["model"] = {
        "name": model,
        "sha256": model * 8,
        "bits_per_weight": more.pop("bits", None),
        "descends_from": None,
    }
    about["workload"] = {"name": workload, "kind": "generate", "sha256": more.pop("sha", "w1")}
    about["runner"] = about["runner"] | more.pop("runner", {})
    about["knobs"] = more.pop("knobs", {"threads": 1, "ctx": 512})
    about["outcome"], about["validity"] = "done", more.pop("validity", "degraded")
    values = more.pop("values", {})
    rows = [
        Measure(name, value, unit, stat=stat, source=source) for name, (value, unit, stat, source) in values.items()
    ]
    return replace(
        RunRecord(run_id, about, requests=more.pop("requests", []), scores=more.pop("scores", [])), measures=rows
    )


def rate(tps: float) -> dict[str, Any]:
    return {"decode_tps": (tps, "tok/s", "median", "")}


def text(nats: list[float]) -> dict[str, Any]:
    chunks = [Score(f"chunk{n}", "nll", None, True, value=-v * 255, n=255, requests=str(n)) for n, v in enumerate(nats)]
    ppl = math.exp(sum(nats) / len(nats))
    return {"scores": chunks, "values": {"perplexity": (ppl, "1", "value", "")}, "workload": "wikitext-2"}


def marks(right: list[int]) -> dict[str, Any]:
    scores = [Score(f"q{n}", "match", float(one), True, requests=str(n)) for n, one in enumerate(right)]
    return {"scores": scores, "values": {"accuracy": (sum(right) / len(right), "1", "mean", "")}, "workload": "smoke"}


def test_parts_of_a_whole_have_the_accuracy_of_all_their_items() -> None:
    def part(run_id: str, model: str, right: list[int], first: int) -> RunRecord:
        made = run(run_id, model, **marks(right))
        made.manifest["conditions"]["piece"] = {"items": len(right), "of": 8, "before": first, "runs": []}
        return replace(made, scores=[replace(s, item=f"q{first + at}") for at, s in enumerate(made.scores)])

    parts = [part("1", "a", [1, 1, 1, 1, 0], 0), part("2", "a", [0, 0, 0], 5)]
    (first, second) = compare([*parts, run("3", "b", **marks([1] * 8))])["arms"]
    (found,) = [n for n in first["numbers"] if n["n_runs"] == 2]
    assert (found["value"], found["least"], found["most"]) == (0.5, 0.0, 0.8)
    assert second["numbers"][0]["against_first"]["value"] == pytest.approx(0.5)


def cells(document: dict[str, Any]) -> list[tuple[str, ...]]:
    assert problems(COMPARE, document) == []
    return comparison_sheet(document).rows


def test_a_ladder_is_one_table_with_perplexities_paired_by_chunk() -> None:
    base = [2.0, 3.0, 4.0, 3.5]
    records = []
    for model, bits, more in (("q8", 8.5, 0.0), ("q5", 5.5, 0.05), ("q4", 4.5, 0.14)):
        noise = [0.0, 0.002, -0.002, 0.001]
        worse = [v + more + n * bool(more) for v, n in zip(base, noise, strict=True)]
        records += [
            run(f"{model}p", model, bits=bits, **text(worse)),
            run(f"{model}s", model, bits=bits, values=rate(80 - bits)),
        ]
    document = compare(records)
    rows = cells(document)
    assert [row[:2] for row in rows] == [("q8", "8.50"), ("q5", "5.50"), ("q4", "4.50")]
    heads = [column.heading for column in comparison_sheet(document).columns]
    assert heads == ["model", "bits/weight", "perplexity", "against first", "decode", "energy/token"]
    of_q4 = document["arms"][2]["numbers"][0]["against_first"]
    assert of_q4["value"] == pytest.approx(math.exp(0.14025), rel=1e-3)
    # Unpaired these perplexities are as good as equal; chunk by chunk the step is beyond doubt.
    assert 1.14 < of_q4["lo"] < of_q4["value"] < of_q4["hi"] < 1.16
    assert (of_q4["kind"], of_q4["n"]) == ("ratio", 4)
    assert any(line.startswith("no energy/token in quick: ") for line in comparison_notes(document))
    assert rows[2][5] == "—"


def test_a_divergence_from_a_reference_is_no_part_of_a_perplexity() -> None:
    records = [run(f"r{n}", model, **text([2.0, 3.0 + n])) for n, model in enumerate(("q8", "q4"))]
    kld = [Score(f"chunk{n}", "kld", None, True, value=5.0, n=255, requests="0") for n in range(2)]
    with_kld = [replace(one, scores=[*one.scores, *kld]) for one in records]
    first, second = (compare(these)["arms"][1]["numbers"][0]["against_first"]["value"] for these in (records, with_kld))
    assert first == second == pytest.approx(math.exp(0.5))


def test_accuracies_are_paired_by_item_and_shown_as_a_difference() -> None:
    one, other = [1] * 30 + [0] * 10, [1] * 26 + [0] * 4 + [0] * 9 + [1]
    document = compare([run("r1", "a", **marks(one)), run("r2", "b", **marks(other))])
    found = document["arms"][1]["numbers"][0]["against_first"]
    assert (found["kind"], found["value"]) == ("difference", pytest.approx(-3 / 40))
    assert found["lo"] < -3 / 40 < found["hi"]
    assert cells(document)[1][1:3] == ("67.5 %", f"-7.5 pp ({found['lo'] * 100:+.3g} to {found['hi'] * 100:+.3g})")


def test_rates_have_an_interval_over_runs_and_of_one_run_none() -> None:
    single = compare([run("r1", "a", values=rate(80)), run("r2", "b", values=rate(40))])
    found = single["arms"][1]["numbers"][0]["against_first"]
    assert (found["value"], found["lo"]) == (0.5, None)
    assert "--reps 5" in found["method"]
    several = [run(f"a{n}", "a", values=rate(80 + n)) for n in range(3)]
    several += [run(f"b{n}", "b", values=rate(40 + n)) for n in range(3)]
    found = compare(several)["arms"][1]["numbers"][0]["against_first"]
    assert found["lo"] < 41 / 81 < found["hi"]


@pytest.mark.parametrize("n", [3, 4, 11])
def test_the_ratio_is_that_of_the_medians_in_the_columns(n: int) -> None:
    fast = [100.0 + k for k in range(n - 1)] + [20.0]  # one run was disturbed: the mean moves, the median does not
    slow = [50.0 + k / 2 for k in range(n)]
    runs = [
        run(f"{model}{k}", model, values=rate(v)) for model, of in (("a", slow), ("b", fast)) for k, v in enumerate(of)
    ]
    first, second = (arm["numbers"][0] for arm in compare(runs)["arms"])
    found = second["against_first"]
    assert found["value"] == pytest.approx(second["value"] / first["value"])
    assert found["value"] == pytest.approx(statistics.median(fast) / statistics.median(slow))
    assert found["lo"] < found["value"] < found["hi"]


def test_what_is_paired_stands_in_the_columns_as_it_is_paired_also_where_runs_differ() -> None:
    rights = {"a": ([1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]), "b": ([1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 0])}
    document = compare(
        [run(f"{model}{k}", model, **marks(one)) for model in "ab" for k, one in enumerate(rights[model])]
    )
    first, second = (arm["numbers"][0] for arm in document["arms"])
    assert (first["value"], second["value"]) == (pytest.approx(0.25), pytest.approx(0.75))
    assert second["against_first"]["value"] == pytest.approx(0.5)
    assert (second["least"], second["most"]) == (0.25, 1.0)
    nats = {"a": ([2.0, 3.0], [2.0, 3.0], [2.4, 3.8]), "b": ([2.5, 3.5], [2.1, 3.3], [2.5, 3.5])}
    document = compare([run(f"{m}{k}", m, **text(one)) for m in "ab" for k, one in enumerate(nats[m])])
    first, second = (arm["numbers"][0] for arm in document["arms"])
    assert second["against_first"]["value"] == pytest.approx(second["value"] / first["value"])


def test_a_model_that_is_broken_beyond_measure_is_held_against_another_all_the_same() -> None:
    broken = [Score(f"chunk{n}", "nll", None, True, value=-1e6, n=255, requests=str(n)) for n in range(2)]
    other = text([2.0, 3.0])
    runs = [run("r1", "a", **other), run("r2", "b", **(other | {"scores": broken}))]
    assert compare(runs)["arms"][1]["numbers"][0]["against_first"]["value"] == math.exp(700)


def test_modes_and_workloads_never_share_a_column() -> None:
    bench = {"name": "llama-bench", "mode": "bench"}
    document = compare(
        [
            run("r1", "a", values=rate(80)),
            run("r2", "a", runner=bench, values={"bench_decode_tps": (90, "tok/s", "median", "")}),
            run("r3", "a", workload="long", values=rate(70)),
        ]
    )
    columns = [(c["workload"], c["mode"], c["name"]) for c in document["columns"] if c["name"] == "decode_tps"]
    assert columns == [
        ("quick", "server", "decode_tps"),
        ("long", "server", "decode_tps"),
        ("quick", "bench", "decode_tps"),
    ]
    assert cells(document)[1][1:5].count("—") >= 2
    assert any("modes bench and server are measured in different ways" in line for line in document["notes"])


def test_what_was_not_asked_the_same_is_told() -> None:
    mine, theirs = in_turn([(64, 17), (65, 17)], 0, 0), in_turn([(66, 17), (65, 12)], 0, 0)
    onnx = {"name": "onnx", "engine": "onnxruntime-genai"}
    document = compare(
        [run("r1", requests=mine, values=rate(80)), run("r2", runner=onnx, requests=theirs, sha="w2", values=rate(81))]
    )
    notes = "\n".join(document["notes"])
    assert "another version of the workload or its items: not the same prompts" in notes
    assert (
        "1 of 2 prompts have other counts of tokens (q0: 66 here, 64 there): another tokenizer or chat template"
        in notes
    )
    assert "1 answers have another length (q1: 12 here, 17 there)" in notes
    alike = compare([run("r1", requests=mine, values=rate(80)), run("r2", runner=onnx, requests=mine, values=rate(81))])
    assert alike["notes"] == []


def test_energies_of_two_scopes_are_not_ranked_without_a_word() -> None:
    def metered(run_id: str, model: str, scope: Any, klass: str) -> RunRecord:
        one = run(run_id, model, values=rate(80))
        total = Measure("energy_j", 10.0, "J", source="total", scope=scope, klass=klass)
        token = Measure("j_per_output_token", 0.1, "J/token", stat="ratio_of_sums", source="total", scope=scope)
        return replace(one, measures=[*one.measures, total, token])

    document = compare([metered("r1", "a", "soc", "B"), metered("r2", "b", "wall", "A")])
    assert document["notes"] == [
        "energies of soc (class B) and wall (class A) stand side by side: they do not cover the same, or not as surely"
    ]


def test_runs_that_are_one_arm_or_none_are_refused() -> None:
    with pytest.raises(UserError, match="these runs are of one model, engine and setting"):
        compare([run("r1", values=rate(80)), run("r2", values=rate(81))])
    invalid = [run(f"r{n}", model, validity="invalid", values=rate(81)) for n, model in enumerate("ab")]
    with pytest.raises(
        UserError, match=r"^1 of 2 runs are invalid, failed, or of no engine, the others are of one model, engine and"
    ):
        compare([run("r1", "a", values=rate(80)), invalid[1]])
    with pytest.raises(UserError, match=r"^all 2 runs are invalid, failed, or of no engine; name runs that are none"):
        compare(invalid)
    with pytest.raises(UserError, match=r"^a comparison is of two runs or more"):
        compare(invalid[:1])


def asked(run_id: str, workload: str, sha: str = "w1", **settings: Any) -> RunRecord:
    one = run(run_id, sha=sha, **(marks([1, 0, 1]) | {"workload": workload}))
    one.manifest["workload"].update(settings)
    return one


def test_an_arm_is_named_with_the_workload_whose_settings_it_has_and_alike_lines_are_one() -> None:
    document = compare(
        [
            asked("r1", "gsm8k", n_items=2),
            asked("r2", "gsm8k", sha="w2", thinking="on"),
            asked("r3", "hellaswag", n_items=3),
            run("r4", values=rate(80) | {"ttft_s": (0.1, "s", "median", "")}),
        ]
    )
    assert [row[:3] for row in cells(document)] == [
        ("gsm8k", "2", "not set"),
        ("gsm8k", "not set", "on"),
        ("hellaswag and quick", "3", ""),
    ]
    of_gsm8k = "gsm8k n_items 2 thinking not set; gsm8k n_items not set thinking on"
    why = "not_measured: no run of this arm has it"
    assert comparison_notes(document)[:-2] == [
        f"no accuracy in gsm8k of hellaswag and quick n_items 3: {why}",
        f"no accuracy in hellaswag of {of_gsm8k}: {why}",
        f"no TTFT or decode in quick of {of_gsm8k}: {why}",
        f"no energy/token in quick: {why}",
    ]
    assert document["notes"] == [
        "gsm8k n_items not set thinking on: another version of the workload or its items: not the same prompts"
    ]


def test_what_is_unlike_in_the_same_way_is_one_line() -> None:
    runs = [run(f"r{n}", "abc"[n], sha=f"w{min(n, 1)}", values=rate(80)) for n in range(3)]
    assert compare(runs)["notes"] == [
        "b; c, quick: another version of the workload or its items: not the same prompts",
    ]


def test_an_arm_that_lacks_all_that_tells_it_from_others_has_a_name() -> None:
    runs = [run(f"r{n}", knobs={"moe": n} if n else {}, values=rate(80) if n else {}) for n in range(3)]
    assert any(line.startswith("no decode of without moe: ") for line in comparison_notes(compare(runs)))


def test_a_knob_that_differs_is_an_arm_and_room_for_the_context_is_none() -> None:
    records = [run(f"t{n}", knobs={"threads": n, "ctx": 512 * n}, values=rate(40 * n)) for n in (1, 2)]
    assert [arm["about"] for arm in compare(records)["arms"]] == [{"threads": "1"}, {"threads": "2"}]


def test_a_knob_that_one_engine_has_not_or_one_run_was_not_given_is_told_where_it_matters() -> None:
    runs = [
        run("r1", knobs={"threads": 1, "batch": 2048}, values=rate(80)),
        run("r2", knobs={"threads": 1, "batch": 2048, "memory_mib": 900, "n_cpu_moe": 8}, values=rate(70)),
        run("r3", knobs={"threads": 1, "provider": "cpu"}, runner={"name": "onnx"}, values=rate(60)),
    ]
    for turned in (runs, runs[::-1]):
        arms = {arm["runs"][0]: arm["about"] for arm in compare(turned)["arms"]}
        assert arms["r1"] == {"runner": "llamacpp", "memory_mib": "none"}
        assert arms["r2"] == {"runner": "llamacpp", "memory_mib": "900"}
        assert arms["r3"] == {"runner": "onnx", "memory_mib": "none"}


def loads(run_id: str, asked: str, found: str | None, load_s: float, energy_j: float | None) -> RunRecord:
    one = run(run_id, knobs={"threads": 1, "load": asked}, values=rate(80) | {"load_s": (load_s, "s", "value", "")})
    why = None if energy_j is not None else "no_energy_source: none"
    energy = Measure("energy_j", energy_j, "J", phase="load", source="total", reason=why)
    of_run = replace(energy, phase="run", value=99.0, reason=None)
    about = one.manifest | {"conditions": {"load": found}}
    return replace(one, manifest=about, measures=[*one.measures, energy, of_run])


def test_cold_starts_stand_beside_warm_ones_with_what_the_load_took() -> None:
    warm = [loads(f"w{n}", "warm", "warm", 0.5 + 0.01 * n, 4.0 + 0.1 * n) for n in range(3)]
    cold = [loads(f"c{n}", "cold", "cold", 2.0 + 0.04 * n, 9.0 + 0.2 * n) for n in range(3)]
    document = compare([*warm, *cold])
    sheet = comparison_sheet(document)
    assert [column.heading for column in sheet.columns] == [
        *("load", "decode", "against first", "energy/token"),
        *("load time", "against first", "energy of load", "against first"),
    ]
    of_cold = dict(zip((c["name"] for c in document["columns"]), document["arms"][1]["numbers"], strict=True))
    assert of_cold["load_s"]["value"] == 2.04
    assert of_cold["load_s"]["against_first"]["value"] == pytest.approx(2.04 / 0.51, rel=0.01)
    assert of_cold["energy_j"]["value"] == 9.2  # of the load, not of the run
    assert of_cold["energy_j"]["against_first"]["lo"] > 2
    assert document["notes"] == []


def test_a_load_that_was_not_as_cold_as_it_was_to_be_is_told() -> None:
    runs = [loads("w1", "warm", "mixed", 0.9, None), loads("c1", "cold", "warm", 0.5, None)]
    runs += [loads("w2", "warm", "warm", 0.5, None), loads("c2", "cold", None, 2.0, None)]
    notes = compare(runs)["notes"]
    assert notes[:2] == [
        "load warm: 1 of 2 loads found a mixed page cache, warm was asked for",
        "load cold: 1 of 2 loads found a warm page cache, cold was asked for",
    ]


def test_what_is_of_the_engine_is_told_once_however_many_workloads_there_are() -> None:
    both = {"load_s": (0.5, "s", "value", ""), "peak_rss_bytes": (1e8, "B", "max", "")}
    runs = [
        one
        for model in "ab"
        for one in (
            run(f"{model}1", model, values=rate(80) | both),
            run(f"{model}2", model, workload="smoke", values=both),
        )
    ]
    names = [(column["name"], column["workload"]) for column in compare(runs)["columns"]]
    assert names.count(("load_s", "quick")) == names.count(("peak_rss_bytes", "quick")) == 1
    assert ("load_s", "smoke") not in names


def test_other_settings_and_other_files_of_one_name_are_arms_of_their_own() -> None:
    records = [run("r1", values=rate(80)), run("r2", values=rate(81))]
    for one, shots, sha, governor in zip(records, (0, 5), ("aaaa", "bbbb"), ("performance", "powersave"), strict=True):
        one.manifest["workload"]["shots"] = shots
        one.manifest["model"]["sha256"] = sha
        one.manifest["conditions"] = {"settings": {"governor": {"used": governor}}}
    assert [arm["about"] for arm in compare(records)["arms"]] == [
        {"shots": "0", "governor": "performance", "model file": "aaaa"},
        {"shots": "5", "governor": "powersave", "model file": "bbbb"},
    ]
