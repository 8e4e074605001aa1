"""Two selections against each other: what is paired with what, what is shown, what is left out, and what to do."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contrast_kit import MadeIndex
from hypothesis import given, settings
from hypothesis import strategies as st
from jsoncheck import problems
from store_kit import store_at
from typer.testing import CliRunner

from meltbench.cli.app import app
from meltbench.contrasts import compare_selections
from meltbench.contrasts.strata import Member, labels, paired
from meltbench.errors import MeltbenchError, UnknownName, UserError
from meltbench.report.contrast import change, contrast_notes, contrast_sheet
from meltbench.report.jsonanalysis import CONTRAST
from meltbench.report.sheet import markdown
from meltbench.selecting import WORDS, Selection

B1, B2 = "engine=llama.cpp b1", "engine=llama.cpp b2"


def rates(seed: int, step: float = 1.0, sd: float = 0.01, **more: float) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    first, second = np.exp(sd * rng.normal(size=2)).tolist()
    return {"decode_tps": 50 * step * first, "ttft_s": 0.3 * second, **more}


def builds(index: MadeIndex, n: int = 5, step: float = 1.10, sd: float = 0.01, **about: Any) -> None:
    """Runs of two versions of an engine, in turn; the second decodes faster."""
    for k in range(n):
        index.add(rates(2 * k, sd=sd), engine_version="b1", **about)
        index.add(rates(2 * k + 1, step, sd), engine_version="b2", **about)


def told(index: MadeIndex, first: str, second: str, **more: Any) -> dict[str, Any]:
    found = compare_selections(index.connection, Selection.parse(first), Selection.parse(second), **more)
    assert problems(CONTRAST, json.loads(json.dumps(found, allow_nan=False))) == []
    return found


def row(document: dict[str, Any], measure: str, **stratum: str) -> dict[str, Any]:
    found = [
        r for r in document["rows"] if r["measure"] == measure and stratum.items() <= {**r, **r["stratum"]}.items()
    ]
    assert len(found) == 1
    return dict(found[0])


def lines(document: dict[str, Any]) -> str:
    return "\n".join(contrast_notes(document))


def test_a_difference_is_shown_and_what_is_none_is_a_tilde() -> None:
    index = MadeIndex()
    builds(index)
    document = told(index, B1, B2)
    rate, first = row(document, "decode_tps"), row(document, "ttft_s")
    assert (rate["verdict"], first["verdict"]) == ("differs", "alike")
    assert rate["against"]["lo"] < 1.10 < rate["against"]["hi"]
    assert (rate["p"], rate["q"], rate["delta"]) == (pytest.approx(2 / 252), pytest.approx(4 / 252), 1.0)
    assert document["family"] == 2
    assert document["differs"] == [{"name": "engine", "first": ["llama.cpp b1"], "second": ["llama.cpp b2"]}]
    text = markdown(contrast_sheet(document)).replace("\\", "")
    assert f"{change(rate['against']['value'], 'ratio')} (p=0.008 q=0.016 n=5+5)" in text
    assert f"~ (p={first['p']:.3f} q={first['q']:.3f} n=5+5)" in text
    assert "~: no difference is shown at 5 %, as one of 2 figures" in lines(document)
    assert "differences of 3 % are excluded by the interval of: TTFT" in lines(document)
    assert document["advice"] == []


def test_one_figure_alone_is_a_family_of_its_own() -> None:
    index = MadeIndex()
    builds(index)
    document = told(index, B1, B2, measures=["decode_tps"])
    assert [r["measure"] for r in document["rows"]] == ["decode_tps"]
    assert row(document, "decode_tps")["q"] == row(document, "decode_tps")["p"]
    assert "q=" not in markdown(contrast_sheet(document))
    with pytest.raises(UnknownName, match="unknown measure 'decode'; did you mean decode_tps"):
        told(index, B1, B2, measures=["decode"])
    with pytest.raises(UserError, match="a difference that matters is above zero, not 0 %"):
        told(index, B1, B2, effect=0.0)


def test_like_is_held_against_like_and_the_mean_over_strata_stands_below() -> None:
    index = MadeIndex()
    builds(index, step=1.10, device="pi")
    builds(index, step=1.21, device="orin")
    index.add(rates(50), device="mac", engine_version="b1")
    document = told(index, B1, B2)
    assert document["labels"] == ["device"]
    pi, orin = row(document, "decode_tps", device="pi"), row(document, "decode_tps", device="orin")
    assert (pi["first"]["n_runs"], orin["second"]["n_runs"]) == (5, 5)
    mean = next(one for one in document["means"] if one["measure"] == "decode_tps")
    assert mean["against"]["value"] == pytest.approx(math.sqrt(pi["against"]["value"] * orin["against"]["value"]))
    assert mean["against"]["lo"] < math.sqrt(1.10 * 1.21) < mean["against"]["hi"]
    assert mean["n_strata"] == 2
    rows = contrast_sheet(document).rows
    assert [r[1] for r in rows[:3]] == ["pi", "orin", "geomean"]
    assert "1 run of A: device mac, which B has not: left out" in document["notes"]


def test_knobs_settings_kernels_and_points_are_never_mixed() -> None:
    index = MadeIndex()
    for k in range(5):
        for threads, step in ((1, 0.3), (4, 1.0)):
            for version, more in (("b1", 1.0), ("b2", 1.05)):
                values = rates(100 * k + threads, step * more)
                index.add(values, knobs={"threads": threads}, engine_version=version)
    document = told(index, B1, B2)
    assert document["labels"] == ["threads"]
    assert row(document, "decode_tps", threads="1")["against"]["value"] == pytest.approx(1.05)
    assert row(document, "decode_tps", threads="4")["first"]["value"] > 40

    points = MadeIndex()
    for k in range(5):
        for version in ("b1", "b2"):
            of = {"pp512": {"prefill_tps": 500.0 + k}, "tg128": {"decode_tps": 50.0 + k}}
            points.add({}, points=of, engine_version=version, workload="grid")
    found = told(points, B1, B2)
    assert {(r["measure"], r["point"]) for r in found["rows"]} == {("prefill_tps", "pp512"), ("decode_tps", "tg128")}
    only = told(points, f"{B1},point=tg128", f"{B2},point=tg128")
    assert {r["point"] for r in only["rows"]} == {"tg128"}


def test_a_mixture_is_refused_with_a_word_that_chooses() -> None:
    index = MadeIndex()
    for k in range(3):
        index.add(rates(k), engine_version="b1")
        index.add(rates(k), engine_version="b2")
        index.add(rates(k), engine="onnx", engine_version="1", runner="onnx")
    with pytest.raises(
        UserError,
        match=r"A holds engine llama.cpp b1, llama.cpp b2, B engine onnx 1: runs of several are not taken together; "
        "choose one of them, such as engine=llama.cpp b1",
    ):
        told(index, "engine=llama.cpp", "engine=onnx")
    threads = MadeIndex()
    for n in (1, 2):
        threads.add(rates(n), knobs={"threads": n}, cell_key=f"cell{n}")
    threads.add(rates(3), knobs={"threads": 8}, model="other")
    with pytest.raises(UserError, match=r"A holds threads 1, 2, B threads 8: .*such as cell=cell1"):
        told(threads, "model=tiny", "model=other")


def test_what_is_refused_is_told_once_and_of_which_part_of_the_arms() -> None:
    index = MadeIndex()
    for k in range(6):
        for workload in ("quick", "chat"):
            for device in ("pi", "orin"):
                old = device == "pi" or k < 3
                index.add(rates(k), engine_version="b1" if old else "b2", device=device, workload=workload)
                index.add(rates(k), engine="onnx", engine_version="1", runner="onnx", device=device, workload=workload)
    document = told(index, "engine=llama.cpp", "engine=onnx")
    assert {r["stratum"].get("device", "pi") for r in document["rows"]} == {"pi"}
    (refused,) = [line for line in document["notes"] if "are not taken together" in line]
    assert refused.startswith("device orin: A holds engine llama.cpp b1, llama.cpp b2, B engine onnx 1")


def test_a_knob_that_one_engine_has_and_is_called_none_is_not_what_the_other_lacks() -> None:
    index = MadeIndex()
    for k in range(3):
        index.add(rates(k), knobs={"gpu_layers": "none"})
        index.add(rates(k), engine="onnx", runner="onnx")
    assert "gpu_layers: none in A, not set in B" in lines(told(index, "engine=llama.cpp", "engine=onnx"))


def test_of_how_many_rows_an_interval_leaves_no_difference_is_told() -> None:
    index = MadeIndex()
    builds(index, n=8, step=1.0, sd=0.001, device="pi")
    builds(index, n=8, step=1.5, sd=0.001, device="orin")
    (line,) = [line for line in lines(told(index, B1, B2)).splitlines() if "are excluded" in line]
    assert line == "differences of 3 % are excluded by the interval of: TTFT, decode rate (1 of 2 rows)"


def test_a_file_that_differs_by_device_splits_nothing_and_one_that_is_other_is_told() -> None:
    index = MadeIndex()  # the engine's program is another file on each device
    builds(index, device="pi")
    builds(index, device="orin")
    document = told(index, B1, B2)
    assert (document["labels"], len(document["rows"])) == (["device"], 4)
    assert [one["name"] for one in document["differs"]] == ["engine"]
    other = MadeIndex()
    for k in range(4):
        other.add(rates(k), plan_hash="p1")
        other.add(rates(k + 9), plan_hash="p2", engine_sha256="else")
    assert [one["name"] for one in told(other, "plan=p1", "plan=p2")["differs"]] == ["engine file"]


def test_two_modes_or_workloads_are_never_compared() -> None:
    index = MadeIndex()
    index.add(rates(1), mode="bench", engine_version="b1")
    index.add(rates(2), engine_version="b2")
    with pytest.raises(UserError, match=r"A was asked quick \(bench\), B quick \(server\); figures of two workloads"):
        told(index, B1, B2)
    builds(index)
    document = told(index, B1, B2)
    assert {r["mode"] for r in document["rows"]} == {"server"}
    assert "1 run of A: quick (bench), which B has not: left out" in document["notes"]


def test_runs_that_are_not_pooled_are_counted_and_taken_in_where_asked() -> None:
    index = MadeIndex()
    builds(index)
    index.add(rates(1, 9.0), engine_version="b1", validity="invalid")
    index.add(rates(1, 9.0), engine_version="b1", outcome="failed")
    index.add(rates(1, 9.0), engine_version="b2", origin="MELT")
    document = told(index, B1, B2)
    assert row(document, "decode_tps")["first"]["n_runs"] == 5
    assert document["first"]["left_out"] == {"failed": 1, "invalid": 1}
    assert "A: 1 failed and 1 invalid runs left out" in document["notes"]
    assert "B: 1 imported run left out" in document["notes"]
    asked = told(index, f"{B1},validity=valid,validity=invalid", B2)
    assert row(asked, "decode_tps")["first"]["n_runs"] == 7  # a validity that is asked for is of failed runs too
    foreign = told(index, f"{B1}", f"{B2},origin=MELT")
    assert {"name": "origin", "first": ["meltbench"], "second": ["MELT"]} in foreign["differs"]
    with pytest.raises(UserError, match="means no run that may be pooled: 1 imported; they are taken in where"):
        told(index, B1, "engine=llama.cpp b2,night=2026-11-20,run=r0013")


def test_words_that_mean_nothing_are_one_line() -> None:
    index = MadeIndex()
    builds(index)
    with pytest.raises(UnknownName, match=r"unknown engine 'llama.cpp b3'; did you mean"):
        told(index, B1, "engine=llama.cpp b3")
    with pytest.raises(UnknownName, match="unknown model 'tony'; did you mean tiny"):
        told(index, "model=tony", B2)
    with pytest.raises(UserError, match="plan=zz means no run of a model; meltbench runs lists them"):
        told(index, B1, "plan=zz")
    with pytest.raises(UserError, match="10 runs are in both, such as r0001; add a word"):
        told(index, "model=tiny", "device=desk")
    empty = MadeIndex()
    with pytest.raises(UserError, match="unknown engine"):
        told(empty, B1, B2)


def test_accuracy_and_perplexity_are_paired_by_item() -> None:
    index = MadeIndex()
    for version, wrong in (("b1", 5), ("b2", 17)):
        scores = [(f"q{n}", "match", float(n >= wrong)) for n in range(40)]
        index.add({"accuracy": 1 - wrong / 40}, scores=scores, workload="smoke", engine_version=version)
    for version, more in (("b1", 0.0), ("b2", 0.05)):
        nats = [2.0, 3.0, 4.0, 3.5, 2.5]
        noise = [0.0, 0.002, -0.002, 0.001, -0.001]
        scores = [(f"c{n}", "nll", v + more * (1 + e)) for n, (v, e) in enumerate(zip(nats, noise, strict=True))]
        index.add({"perplexity": 20.0}, scores=scores, workload="text", engine_version=version)
    document = told(index, B1, B2)
    right, text = row(document, "accuracy"), row(document, "perplexity")
    assert (right["kind"], right["against"]["value"]) == ("difference", pytest.approx(-12 / 40))
    assert (right["test"], right["p"], right["verdict"]) == ("exact McNemar", pytest.approx(2 / 2**12), "differs")
    assert (right["first"]["value"], right["second"]["value"]) == (pytest.approx(35 / 40), pytest.approx(23 / 40))
    assert text["against"]["value"] == pytest.approx(math.exp(0.05))
    assert text["first"]["value"] == pytest.approx(math.exp(3.0))
    assert (text["test"], text["verdict"]) == ("t on paired differences", "differs")
    assert "-30.0 pp (p=5e-04 q=5e-04 n=1+1)" in markdown(contrast_sheet(document)).replace("\\", "")


def test_an_accuracy_that_says_little_says_how_many_items_would_do() -> None:
    index = MadeIndex()
    for version, wrong in (("b1", 5), ("b2", 6)):
        scores = [(f"q{n}", "match", float(n >= wrong)) for n in range(20)]
        index.add({"accuracy": 1 - wrong / 20}, scores=scores, workload="smoke", engine_version=version)
    (line,) = told(index, B1, B2)["advice"]
    assert line.startswith("accuracy: 20 items tell it to 15 pp either way; to 3 pp about ")


def test_too_few_runs_are_told_how_many_would_do() -> None:
    index = MadeIndex()
    builds(index, n=3, step=1.5)
    document = told(index, B1, B2)
    assert {r["verdict"] for r in document["rows"]} <= {"unknown", "alike"}
    assert document["family"] == 0  # three runs an arm can never be a false alarm
    assert document["advice"][0] == ("3+3 runs show no difference, however large: 4 an arm can; --reps 5 makes five")
    single = MadeIndex()
    builds(single, n=1)
    found = told(single, B1, B2)
    assert (row(found, "decode_tps")["p"], row(found, "decode_tps")["against"]["lo"]) == (None, None)
    assert found["advice"][0].startswith("1+1 runs show no difference, however large: 4 an arm can")
    assert "~ (n=1+1)" in markdown(contrast_sheet(found)).replace("\\", "")


def test_a_device_that_is_noisier_than_the_wanted_effect_is_told_what_it_would_take() -> None:
    index = MadeIndex()
    builds(index, n=5, step=1.0, sd=0.10)
    (advice, *_) = told(index, B1, B2, measures=["decode_tps"])["advice"]
    assert advice.startswith("decode rate: runs of one arm scatter by ")
    assert "5+5 show a difference of" in advice
    assert ", for 3 % about " in advice
    (large,) = told(index, B1, B2, measures=["decode_tps"], effect=0.15)["advice"]
    assert ", for 15 % about " in large
    assert told(index, B1, B2, measures=["decode_tps"], effect=2.0)["advice"] == []


def test_what_would_have_been_shown_alone_is_told() -> None:
    index = MadeIndex()
    rng = np.random.default_rng(4)
    names = ("ttft_s", "prefill_tps", "inference_s", "question_latency_s", "load_s", "peak_rss_bytes")
    for _ in range(5):
        for version, step in (("b1", 1.0), ("b2", 1.2)):
            other = {name: float(np.exp(0.01 * rng.normal())) for name in names}
            index.add(other | {"decode_tps": step * float(np.exp(0.01 * rng.normal()))}, engine_version=version)
    document = told(index, B1, B2)
    assert (document["family"], row(document, "decode_tps")["verdict"]) == (7, "unknown")
    assert document["advice"][-1] == (
        "decode rate: shown alone, not among 7 figures; if meant from the outset, ask for it alone: "
        "--measure decode_tps"
    )
    assert row(told(index, B1, B2, measures=["decode_tps"]), "decode_tps")["verdict"] == "differs"


def test_outliers_are_told_with_their_cause_and_kept() -> None:
    index = MadeIndex()
    builds(index, n=8)
    odd = index.add(rates(99, 0.5), engine_version="b1", reasons=["throttled", "background_load"])
    document = told(index, B1, B2)
    assert row(document, "decode_tps")["first"]["n_runs"] == 9
    (found,) = [one for one in document["outliers"] if one["run"] == odd]
    assert (found["arm"], found["measure"], found["reasons"]) == ("first", "decode_tps", "background_load, throttled")
    assert f"outlier, kept: {odd}, decode rate x 0.5 of the median: background_load, throttled" in lines(document)


def test_energies_of_two_scopes_are_not_ranked_without_a_word_nor_mixed() -> None:
    index = MadeIndex()
    for k in range(5):
        index.add(rates(k, j_per_output_token=0.2, energy_j=9.0), engine_version="b1", scope="soc")
        index.add(rates(k, j_per_output_token=0.3, energy_j=9.0), engine_version="b2", scope="wall", klass="A")
    document = told(index, B1, B2)
    end = "stand side by side: they do not cover the same, or not as surely"
    assert f"energies of soc (class B) and wall (class A) {end}" in document["notes"]
    index.add(rates(9, j_per_output_token=0.2, energy_j=9.0), engine_version="b1", scope="rail")
    mixed = row(told(index, B1, B2), "j_per_output_token")
    assert mixed["against"]["value"] is None
    assert mixed["against"]["reason"] == "mixed_scopes: energies of A are of rail (class B) and soc (class B)"
    none = MadeIndex()
    builds(none)
    assert "no energy of A and B: no_energy_source: none" in told(none, B1, B2)["notes"]


def test_arms_that_were_measured_one_after_the_other_are_told_so() -> None:
    late, turned = MadeIndex(), MadeIndex()
    for k in range(4):
        late.add(rates(k), engine_version="b1", at_s=k)
        late.add(rates(k), engine_version="b2", at_s=100 + k)
    builds(turned, n=4)
    line = "all runs of one arm came before those of the other: what drifted meanwhile counts as a difference"
    assert line in told(late, B1, B2)["notes"]
    assert line not in told(turned, B1, B2)["notes"]


def test_hostile_names_are_harmless_in_every_line() -> None:
    index = MadeIndex()
    name = "\x1b[31mevil|<script>"
    builds(index, device=name)
    builds(index, device="pi")
    document = told(index, B1, B2)
    text = markdown(contrast_sheet(document)) + lines(document)
    assert "\x1b" not in text
    assert "|<script>" not in text


def test_the_command_takes_words_and_a_run_beside_them(tmp_path: Path) -> None:
    store = store_at(tmp_path, runs=2)
    first, second = store.stored_ids()

    def ask(*words: str) -> Any:
        return CliRunner().invoke(app, ["compare", *words, "--data", str(tmp_path)])

    found = ask(first, f"run={second}", "--measure", "decode_tps", "--json")
    document = json.loads(found.stdout)
    assert problems(CONTRAST, document) == []
    assert (document["first"]["runs"], document["second"]["runs"]) == ([first], [second])
    assert [one["measure"] for one in document["rows"]] == ["decode_tps"]
    shown = ask("last", f"run={first}", "--effect", "5")
    assert "decode rate: " not in shown.stdout  # of one run an arm nobody knows the scatter
    assert f"A: run={second} (1 run)" in shown.stdout
    assert ask("last", f"run={first}", "--markdown").stdout.startswith("|   | A | B | B against A |")
    with pytest.raises(UserError, match="selections are compared two at a time, not 3"):
        raise ask("run=a", "run=b", "run=c").exception
    for option in (["--measure", "decode_tps"], ["--effect", "5"]):
        with pytest.raises(UserError, match=f"{option[0]} is of two selections"):
            raise ask("--last", "2", *option).exception


FACTORS = st.fixed_dictionaries(
    {name: st.sampled_from(["x", "y", "z"]) for name in ("device", "model", "engine", "threads")}
)


@settings(max_examples=80, deadline=None)
@given(st.lists(FACTORS, min_size=1, max_size=12), st.lists(FACTORS, min_size=1, max_size=12))
def test_every_run_is_in_one_stratum_left_out_or_refused_and_no_arm_is_a_mixture(
    first: list[dict[str, str]], second: list[dict[str, str]]
) -> None:
    arms = [[Member(f"{who}{k}", "c", f) for k, f in enumerate(arm)] for who, arm in (("a", first), ("b", second))]
    made = paired(arms[0], arms[1])
    used = [m.run_id for one in made.strata for m in (*one.first, *one.second)]
    assert len(used) == len(set(used))
    assert len(used) + sum(made.left_out.values()) <= len(first) + len(second)
    if not made.refused:
        assert len(used) + sum(made.left_out.values()) == len(first) + len(second)
    for one in made.strata:
        assert one.first
        assert one.second
        for arm in (one.first, one.second):
            assert len({tuple(sorted(m.factors.items())) for m in arm}) == 1
        assert not one.alike.keys() & one.differs.keys()
    names = labels([made.strata])
    assert len({tuple(one.alike.get(n) for n in names) for one in made.strata}) == len(
        {tuple(one.alike.items()) for one in made.strata}
    )


@pytest.fixture(scope="module")
def made() -> Iterator[MadeIndex]:
    index = MadeIndex()
    builds(index, n=2)
    yield index
    index.connection.close()


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.sampled_from(WORDS), st.text(min_size=1, max_size=8)), max_size=3))
def test_any_words_end_in_one_line(made: MadeIndex, pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(MeltbenchError) as error:  # these runs are of B too, or there are none
        compare_selections(made.connection, Selection.of(pairs), Selection.parse("device=desk"))
    assert "\n" not in str(error.value)
