"""IPW and IPJ are the paper's, hold the truth in their intervals, and never hide what they lack."""

from __future__ import annotations

import csv
import math
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shared import shared

from meltbench.analysis import stats
from meltbench.analysis.intelligence import Accuracy, Meter, Query, accuracy_of, intelligence
from meltbench.analysis.perplexity import Chunk, text_intelligence
from meltbench.analysis.published import Row, check

PUBLISHED = tomllib.loads((Path(__file__).parents[2] / "data" / "published.toml").read_text(encoding="utf-8"))
METER = Meter("module", "B", 0.05 / math.sqrt(3), 0.02)
EXACT = Meter("wall", "A", 0.0, 0.0)


def asked(n: int, seed: int = 0, runs: int = 1, share: float = 0.6, watts: float = 8.0) -> list[Query]:
    """Questions of which the long ones are harder, on a machine of that power."""
    rng = np.random.default_rng(seed)
    length = rng.uniform(1, 3, n)
    right = rng.uniform(size=n) < share * (1.3 - 0.15 * length)
    return [
        Query(
            f"q{at}", float(right[at]), watts * length[at], float(length[at]), (watts - 3) * length[at], run=f"run{run}"
        )
        for run in range(runs)
        for at in range(n)
    ]


def test_both_are_ratios_of_means():
    queries = [Query("a", 1, 10.0, 2.0, 4.0), Query("b", 0, 30.0, 3.0, 12.0), Query("c", 1, 20.0, 2.0, 8.0)]
    found = intelligence(queries, EXACT)
    assert found.accuracy.estimate.value == pytest.approx(2 / 3)
    assert found.gross.mean_power_w.value == pytest.approx((5 + 10 + 10) / 3)
    assert found.gross.mean_energy_j.value == pytest.approx(20)
    assert found.gross.per_w.value == pytest.approx((2 / 3) / (25 / 3))
    assert found.gross.per_j.value == pytest.approx((2 / 3) / 20)
    assert found.net.per_j.value == pytest.approx((2 / 3) / 8)
    assert 0 < found.gross.mean_energy_j.lo < 10 < 30 < found.gross.mean_energy_j.hi
    assert (found.scope, found.klass, found.n_queries, found.n_items, found.n_runs) == ("wall", "A", 3, 3, 1)
    assert found.gross.per_w.n == 3
    assert [flag.partition(":")[0] for flag in found.flags] == ["one_run"]


def test_the_truth_lies_in_the_interval():
    length = np.random.default_rng(99).uniform(1, 3, 400_000)
    true_w = float((0.6 * (1.3 - 0.15 * length)).mean()) / 8
    true_j = true_w / float(length.mean())
    hits, trials = 0, 60
    for seed in range(trials):
        found = intelligence(asked(80, seed), EXACT).gross
        hits += found.per_w.lo <= true_w <= found.per_w.hi
        hits += found.per_j.lo <= true_j <= found.per_j.hi
    assert hits / (2 * trials) >= 0.92


def test_the_gain_widens_every_interval_and_moves_no_number():
    queries = asked(60)
    sure, unsure = intelligence(queries, EXACT), intelligence(queries, Meter("wall", "C", 0.1 / math.sqrt(3)))
    for name in ("mean_power_w", "mean_energy_j", "per_w", "per_j"):
        a, b = getattr(sure.gross, name), getattr(unsure.gross, name)
        assert a.value == b.value
        assert b.lo < a.lo <= a.hi < b.hi
    # Power is the same for each question here, so the gain at k = 2 is all there is.
    power = unsure.gross.mean_power_w
    assert math.log(power.hi / power.value) == pytest.approx(2 * 0.1 / math.sqrt(3))


def test_the_baseline_widens_net_numbers_alone():
    queries = asked(60)
    sure, unsure = intelligence(queries, EXACT), intelligence(queries, replace(EXACT, baseline_u_w=0.5))
    assert unsure.gross == sure.gross
    assert math.log(unsure.net.mean_power_w.hi / 5.0) == pytest.approx(2 * 0.5 / 5.0)
    assert unsure.net.per_j.hi > sure.net.per_j.hi


def test_a_query_without_an_energy_leaves_no_number_and_is_counted():
    queries = asked(20)
    queries[3] = replace(queries[3], energy_j=None)
    queries[7] = replace(queries[7], latency_s=None)
    told = replace(queries[3], energy_reason="stale_sensor: one value")
    why = intelligence([*queries[:3], told, *queries[4:]], METER).gross.per_w.reason
    assert why == "no_energy: 2 of 20 queries have none (stale_sensor: one value)"
    found = intelligence(queries, METER)
    for one in (found.gross.mean_power_w, found.gross.mean_energy_j, found.gross.per_w, found.gross.per_j):
        assert (one.value, one.lo, one.hi) == (None, None, None)
        assert one.reason == "no_energy: 2 of 20 queries have none"
    assert found.net.per_w.reason == "no_energy: 1 of 20 queries have none"
    assert found.accuracy.estimate.value is not None


@pytest.mark.parametrize("share", [1.01, 30.0, 1e6])
def test_a_net_cost_that_its_baseline_may_be_all_of_is_not_told_from_zero(share):
    queries = [replace(one, net_energy_j=one.latency_s * 1e-3) for one in asked(20)]
    found = intelligence(queries, replace(EXACT, baseline_u_w=share * 0.5e-3)).net
    for mean in (found.mean_power_w, found.mean_energy_j):
        assert mean.lo == 0
        assert 0.999 * mean.value * (1 + share) < mean.hi < mean.value * (2 + share)
    for one in (found.per_w, found.per_j):
        assert (one.value, one.reason) == (None, "not_positive: the mean cost cannot be told from zero")
    assert intelligence(queries, replace(EXACT, baseline_u_w=0.4e-3)).net.per_w.value is not None


def test_a_query_without_a_score_is_left_out_and_told():
    queries = [*asked(20), Query("open", None, None, 1.0)]
    found = intelligence(queries, METER)
    assert found.n_queries == 20
    assert found.gross.per_w.value is not None
    assert "unscored: 1 of 21 queries have no score and are left out" in found.flags
    no_idle = intelligence([replace(one, net_energy_j=None) for one in asked(3)], METER)
    assert no_idle.net.per_w.reason.startswith("no_energy: 3 of 3 queries have no net energy, for want of an idle")
    nothing = intelligence([Query("open", None, 1.0, 1.0)], METER)
    assert nothing.accuracy.estimate.value is None
    assert nothing.gross.per_j.reason == "no_items: nothing was scored"


@pytest.mark.parametrize("mark", [0.0, 1.0])
def test_all_wrong_is_a_real_zero_and_all_right_is_not_certain(mark):
    queries = [replace(one, correct=mark) for one in asked(20)]
    found = intelligence(queries, EXACT).gross.per_j
    assert found.value == pytest.approx(mark / intelligence(queries, EXACT).gross.mean_energy_j.value)
    assert found.hi > found.lo
    if mark == 0.0:
        assert (found.value, found.lo) == (0.0, 0.0)
        assert found.hi > 0.1 / 30
    more = intelligence([replace(one, correct=mark, run="b") for one in queries] + queries, EXACT)
    assert more.accuracy.estimate.clusters == 20, "the same items again tell no more of the other items"
    assert more.accuracy.estimate.hi > more.accuracy.estimate.lo


def test_runs_that_differ_widen_what_queries_cannot_tell():
    base = asked(40, runs=3)
    factor = {"run0": 0.9, "run1": 1.0, "run2": 1.1}
    moved = [replace(one, energy_j=one.energy_j * factor[one.run]) for one in base]
    still, shaken = intelligence(base, EXACT).gross, intelligence(moved, EXACT).gross
    assert shaken.per_j.hi / shaken.per_j.lo > 1.15 * still.per_j.hi / still.per_j.lo
    assert intelligence(base, EXACT).flags == ()
    assert (intelligence(base, EXACT).n_runs, intelligence(base, EXACT).n_items) == (3, 40)
    parts = [replace(one, run="run0" if int(one.item[1:]) < 20 else "run1") for one in asked(40)]
    assert [flag.partition(":")[0] for flag in intelligence(parts, EXACT).flags] == ["runs_differ"]


def test_one_item_that_is_always_right_has_the_interval_of_one_that_was_asked_once():
    once, twice = accuracy_of([("a", 1.0)]), accuracy_of([("a", 1.0), ("a", 1.0)])
    assert (twice.lo, twice.hi) == (once.lo, once.hi) == (pytest.approx(0.2065, abs=1e-4), 1.0)
    half = accuracy_of([("a", 1.0), ("a", 0.0)])
    assert (half.value, half.lo) == (0.5, None)


def test_an_accuracy_of_elsewhere_is_flagged_and_taken_as_independent():
    queries = [replace(one, correct=None) for one in asked(50)]
    joined = Accuracy(stats.proportion(120, 200), "inherited")
    found = intelligence(queries, METER, joined=joined)
    assert found.gross.per_w.value == pytest.approx(0.6 / 8)
    assert found.gross.per_w.method == "MOVER"
    assert found.flags[0].startswith("accuracy_inherited: ")
    assert intelligence(asked(50), METER, "loglik").flags[0].startswith("accuracy_loglik: ")
    unknown = intelligence(queries, METER, joined=Accuracy(stats.missing("nobody scored it"), "inherited"))
    assert unknown.gross.per_w.reason == "nobody scored it"
    assert unknown.gross.mean_power_w.value == pytest.approx(8)


def test_an_unknown_gain_is_told():
    unknown = Meter("soc", "E", None)
    assert any(flag.startswith("gain_unknown: ") for flag in intelligence(asked(20), unknown).flags)
    unmetered = [replace(one, energy_j=None) for one in asked(20)]
    assert not any(flag.startswith("gain_unknown: ") for flag in intelligence(unmetered, unknown).flags)


def test_net_energy_that_cannot_be_told_from_nothing_has_no_ratio():
    queries = [replace(one, net_energy_j=(-1) ** at * 0.5) for at, one in enumerate(asked(20))]
    found = intelligence(queries, METER)
    assert found.net.per_j.value is None
    assert "not_positive" in found.net.per_j.reason
    assert found.gross.per_j.value is not None


def test_part_marks_and_one_question():
    found = intelligence([Query("a", 0.5, 10.0, 2.0, 4.0), Query("b", 0.75, 30.0, 3.0, 12.0)], METER)
    assert found.accuracy.estimate.value == pytest.approx(0.625)
    alone = intelligence([Query("a", 0.5, 10.0, 2.0, 4.0)], METER)
    assert alone.gross.per_w.value == pytest.approx(0.1)
    assert alone.gross.per_w.lo is None


def chunk(at, loglik, energy_j, run="run0", n=512):
    return Chunk(Query(f"c{at}", None, energy_j, 5.0, None if energy_j is None else energy_j - 15.0, run), loglik, n)


@pytest.mark.parametrize("n", [6, 30])
def test_perplexity_per_watt_and_joule(n):
    rng = np.random.default_rng(n)
    nll, joules = rng.normal(2.5, 0.2, n), rng.normal(40, 1, n)
    chunks = [chunk(at, -512 * nll[at], joules[at]) for at in range(n)]
    found = text_intelligence(chunks, EXACT)
    level = math.exp(nll.mean())
    assert found.perplexity.value == pytest.approx(level)
    assert found.perplexity.lo < level < found.perplexity.hi
    for per_j, per_w, mean in (
        (found.gross.per_j, found.gross.per_w, joules.mean()),
        (found.net.per_j, found.net.per_w, joules.mean() - 15),
    ):
        assert per_j.value == pytest.approx(1 / (level * mean))
        assert per_w.value == pytest.approx(1 / (level * mean / 5))
        assert per_j.lo < per_j.value < per_j.hi
    wider = text_intelligence(chunks, Meter("soc", "D", 0.2 / math.sqrt(3)))
    assert wider.gross.per_j.hi > found.gross.per_j.hi
    again = text_intelligence([*chunks, *(replace(c, query=replace(c.query, run="b")) for c in chunks)], EXACT)
    assert again.perplexity.lo == pytest.approx(found.perplexity.lo), "the same chunks again tell no more of the text"
    assert (again.n_queries, again.n_items, again.flags) == (2 * n, n, ())


def test_intervals_of_perplexities_cover():
    rng, hits = np.random.default_rng(8), 0
    for _ in range(200):
        nll, joules = rng.normal(2.5, 0.2, 12), rng.normal(40, 4, 12)
        found = text_intelligence([chunk(at, -512 * nll[at], joules[at]) for at in range(12)], EXACT)
        hits += found.gross.per_j.lo <= 1 / (math.exp(2.5) * 40) <= found.gross.per_j.hi
    assert hits / 200 >= 0.92


def test_perplexity_without_energy_or_text():
    chunks = [chunk(0, -1000.0, 40.0), chunk(1, -1100.0, None), chunk(2, None, 30.0)]
    found = text_intelligence(chunks, METER)
    assert found.perplexity.value == pytest.approx(math.exp(2100 / 1024))
    assert found.gross.per_w.reason == "no_energy: 1 of 2 queries have none"
    assert "unscored: 1 of 3 queries have no score and are left out" in found.flags
    assert text_intelligence([], METER).perplexity.reason == "no_items: nothing was scored"
    assert text_intelligence(chunks[:1], METER).gross.per_j.lo is None
    swung = [chunk(at, -1000.0, 15.0 + (-1) ** at) for at in range(4)]
    assert "cannot be told from zero" in text_intelligence(swung, METER).net.per_j.reason


ROWS = PUBLISHED["ipw"]["row"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["system"])
def test_published_rows_agree_with_their_definition_but_for_ipw_of_the_phone(row):
    found = check(Row(**{key: value for key, value in row.items() if key not in ("table", "system")}))
    if "A18 Pro" in row["system"]:
        assert 2.97 <= round(found.ipw_ratio, 2) <= 3.13
        assert len(found.inconsistent) == 1
        assert found.inconsistent[0].startswith("printed IPW is not accuracy / power: that is ")
        assert found.ipj_ratio == pytest.approx(1, abs=0.01)
    else:
        assert found.inconsistent == ()
        assert found.ipw_ratio == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("machine", PUBLISHED["ipw"]["implied"], ids=lambda machine: machine["machine"])
def test_the_power_that_printed_ipw_implies_is_one_for_a_machine(machine):
    pairs = zip(machine["accuracy"], machine["ipw_per_w"], strict=True)
    watts = [check(Row(a, ipw_per_w=ipw)).implied_power_w for a, ipw in pairs]
    assert max(watts) / min(watts) < 1.01
    assert watts[0] == pytest.approx({"M4 Max": 352.5, "B200": 253}[machine["machine"]], rel=0.005)


def test_a_row_that_prints_little_is_checked_for_that():
    assert check(Row(0.5)).inconsistent == ()
    assert check(Row(0.5, 10.0, 2.0, energy_j=40.0)).inconsistent[0].startswith("printed energy is not power x latency")
    assert check(Row(0.5, 10.0, 2.0, ipj_per_j=0.0251)).ipj_ratio == pytest.approx(0.996, abs=1e-3)


def test_melts_standard_errors_are_those_of_their_items():
    """Accuracies on whole data sets: the error that is printed beside them is what a proportion has here."""
    items = {"arc_easy": 2376, "arc_challenge": 1172, "winogrande": 1267, "hellaswag": 10042}
    off = []
    with shared("reference/melt_accuracy.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["dataset"] in items and row["std_err"] not in ("None", ""):
                n, share = items[row["dataset"]], float(row["accuracy"])
                off.append(abs(stats.proportion(share * n, n).se - float(row["std_err"])))
    assert len(off) > 50
    assert sum(one < 2e-4 for one in off) >= 0.95 * len(off), "all but a few misprints"
