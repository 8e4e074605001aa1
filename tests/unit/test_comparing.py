"""Arms side by side: what shares a column, what is held against the first and how surely, and what is not alike."""

from __future__ import annotations

import math
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
    assert any(line.startswith("no energy/token: ") for line in comparison_notes(document))
    assert rows[2][5] == "—"


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
    with pytest.raises(UserError, match="1 of 2 runs are invalid, failed, or of no engine"):
        compare([run("r1", "a", values=rate(80)), run("r2", "b", validity="invalid", values=rate(81))])


def test_a_knob_that_differs_is_an_arm_and_room_for_the_context_is_none() -> None:
    records = [run(f"t{n}", knobs={"threads": n, "ctx": 512 * n}, values=rate(40 * n)) for n in (1, 2)]
    assert [arm["about"] for arm in compare(records)["arms"]] == [{"threads": "1"}, {"threads": "2"}]
