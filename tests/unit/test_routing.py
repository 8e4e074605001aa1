"""Routers over a made world: shares, accuracies and savings are those that it was made with, paired item by item."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from economy_kit import keep, scored
from hypothesis import given
from hypothesis import strategies as st
from jsoncheck import NAMED, problems
from store_kit import store_at
from typer.testing import CliRunner

from meltbench.analysis.routing import SCALES, Arm, Asked, Cloud, covered, routed
from meltbench.cli.app import app
from meltbench.errors import UserError
from meltbench.routing import Limits, StatedCloud, route

ITEMS = ["a", "b", "c", "d"]


def arm(name, marks, energy_j, size=1.0, sure=None):
    held = {
        item: Asked(float(mark), bool(mark), energy_j, None if sure is None else sure[at])
        for at, (item, mark) in enumerate(zip(ITEMS, marks, strict=True))
    }
    return Arm(name, size, held, 0.0)


SMALL, BIG = arm("small", [1, 0, 0, 0], 2.0), arm("big", [1, 1, 1, 0], 10.0, 5.0)
CLOUD = Cloud(100.0, 0.9)


def by_name(arms, cloud, items=ITEMS):
    return {one.name: one for one in routed(arms, cloud, items)}


def test_an_oracle_takes_the_cheapest_that_is_right_and_a_cascade_pays_for_every_try():
    found = by_name([BIG, SMALL], CLOUD)
    oracle, cascade = found["oracle"], found["cascade, checked"]
    assert covered([BIG, SMALL], ITEMS).value == oracle.local.value == cascade.local.value == 0.75
    assert oracle.j_per_query.value == pytest.approx((2 + 10 + 10 + 100) / 4)
    assert oracle.saved.value == pytest.approx(1 - 122 / 400)
    assert oracle.break_even_j == pytest.approx(22 / 3)
    assert cascade.j_per_query.value == pytest.approx((2 + 12 + 12 + 112) / 4)
    assert oracle.accuracy.value == pytest.approx((3 + 0.9) / 4)
    assert found["oracle, finds 80%"].saved.value == pytest.approx(0.8 * oracle.saved.value)
    assert (oracle.hypothetical, found["all to big"].hypothetical) == (True, False)
    small = found["all to small"]
    assert (small.local.value, small.local.lo, small.accuracy.value) == (1.0, None, 0.25)
    assert small.saved.value == pytest.approx(0.98)


def test_the_break_even_is_where_nothing_is_saved():
    found = by_name([SMALL, BIG], CLOUD)
    for one in found.values():
        at = by_name([SMALL, BIG], Cloud(one.break_even_j, 0.9))[one.name]
        assert at.saved.value == pytest.approx(0, abs=1e-12), one.name
    assert [cost for cost, _ in found["oracle"].sensitivity] == [100 * scale for scale in SCALES]
    for cost, saved in found["oracle"].sensitivity:
        assert saved.value == pytest.approx(by_name([SMALL, BIG], Cloud(cost, 0.9))["oracle"].saved.value)


def test_the_surest_answers_stay_local_and_all_were_paid_for():
    one = arm("one", [1, 1, 0, 0], 4.0, sure=[-0.1, -0.2, -3.0, -4.0])
    found = by_name([one], CLOUD)
    half = found["surest 50% to one"]
    assert (half.local.value, half.local.method) == (0.5, "chosen")
    assert half.accuracy.value == pytest.approx((2 + 1.8) / 4)
    assert half.j_per_query.value == pytest.approx(4 + 50)
    assert not half.hypothetical
    assert not [name for name in by_name([SMALL], CLOUD) if name.startswith("surest")]


def test_a_cloud_that_was_measured_is_paired():
    there = Cloud(asked=arm("far", [1, 1, 1, 1], 80.0).asked)
    found = by_name([SMALL], there)["oracle"]
    assert found.saved.value == pytest.approx(1 - (2 + 240) / 320)
    assert found.accuracy.value == 1.0
    assert found.sensitivity == ()


def test_what_is_not_known_has_a_reason():
    nobody = by_name([SMALL], Cloud())
    assert nobody["all to small"].accuracy.value == 0.25
    assert nobody["oracle"].accuracy.reason.startswith("no_cloud_accuracy")
    assert nobody["oracle"].saved.reason.startswith("no_cloud")
    dark = arm("dark", [1, 0, 0, 0], None)
    found = by_name([dark], CLOUD)["oracle"]
    assert (found.local.value, found.saved.value, found.break_even_j) == (0.25, None, None)
    assert found.saved.reason.startswith("no_energy")


def test_none_and_all_local_have_a_width():
    none = by_name([arm("x", [0, 0, 0, 0], 1.0)], CLOUD)["oracle"]
    assert (none.saved.value, none.saved.lo, none.break_even_j) == (0.0, 0.0, None)
    assert none.saved.hi == pytest.approx(none.local.hi)
    every = by_name([arm("x", [1, 1, 1, 1], 1.0)], CLOUD)["oracle"]
    assert every.saved.value == pytest.approx(0.99)
    assert every.saved.lo < 0.6
    finds = by_name([arm("x", [1, 1, 1, 1], 1.0)], CLOUD)["oracle, finds 80%"]
    assert (finds.accuracy.value, finds.accuracy.lo) == (pytest.approx(0.98), None)


def test_the_saving_covers_the_truth():
    """An arm that is right on 60 % of items, the long ones less often, against a cloud of 30 J."""

    def world(n, seed):
        rng = np.random.default_rng(seed)
        length = rng.uniform(1, 3, n)
        right = rng.uniform(size=n) < 1.0 - 0.2 * length
        items = [f"q{at}" for at in range(n)]
        held = {q: Asked(float(r), bool(r), 4.0 * t) for q, r, t in zip(items, right, length, strict=True)}
        return Arm("a", 1.0, held, 0.0), items

    big, items = world(100_000, 999)
    true = {one.name: one for one in routed([big], Cloud(30.0, 0.9), items)}
    hits, trials = {"oracle": 0, "all to a": 0, "cascade, checked": 0}, 200
    for seed in range(trials):
        one, items = world(40, seed)
        for found in routed([one], Cloud(30.0, 0.9), items):
            if found.name in hits:
                hits[found.name] += found.saved.lo < true[found.name].saved.value < found.saved.hi
    assert all(0.9 <= hit / trials <= 0.99 for hit in hits.values()), hits


marks = st.lists(st.tuples(st.booleans(), st.floats(0.01, 1e4)), min_size=4, max_size=4)


@given(st.lists(marks, min_size=1, max_size=3), st.floats(0.01, 1e5))
def test_an_oracle_is_never_beaten_by_its_arms(world, cost):
    arms = [
        Arm(f"m{at}", at, {i: Asked(float(r), r, e) for i, (r, e) in zip(ITEMS, held, strict=True)}, 0.0)
        for at, held in enumerate(world)
    ]
    found = by_name(arms, Cloud(cost, 1.0))
    oracle, cascade = found["oracle"], found["cascade, checked"]
    assert oracle.local.value == cascade.local.value
    assert oracle.j_per_query.value <= cascade.j_per_query.value * (1 + 1e-9)
    assert oracle.accuracy.value == 1.0
    for one in found.values():
        assert one.saved.lo is None or one.saved.lo <= one.saved.value <= one.saved.hi


MARKS = [1.0, 0.0, 0.0, 1.0] * 5


def model(name, size):
    return {"name": name, "sha256": name, "bytes": size}


def two(**more):
    small = scored("r1", MARKS, model=model("small", 100), **more)
    return [small, scored("r2", [1.0, 1.0, 0.0, 1.0] * 5, n_out=129, model=model("big", 900), **more)]


def test_the_document_is_of_one_device_and_its_arms():
    runs = [*two(), scored("r3", MARKS, device={"name": "pi", "identity": "pi"})]
    found = route(runs, StatedCloud(500.0, 0.9))
    assert problems(NAMED["route"], found) == []
    assert [(table["device"], len(table["arms"])) for table in found["tables"]] == [("desk", 2), ("pi", 1)]
    desk = found["tables"][0]
    assert desk["covered"]["value"] == 0.75
    assert [one["right"]["value"] for one in desk["arms"]] == [0.5, 0.75]
    assert {flag.partition(":")[0] for flag in desk["flags"]} == {"cloud_stated", "scope", "one_run"}
    oracle = desk["routers"][-1]
    energies = [{s.item: s.energy_j for s in run.scores} for run in runs]
    taken = [min(e[f"q{at}"] for e, run in zip(energies, runs[:2], strict=False) if run.scores[at].correct)
             if any(run.scores[at].correct for run in runs[:2]) else 500.0 for at in range(20)]  # fmt: skip
    assert oracle["j_per_query"]["value"] == pytest.approx(sum(taken) / 20)
    gain = oracle["saved"]["hi"] - oracle["saved"]["value"]
    assert gain > 0


def test_limits_count_as_wrong_what_they_exclude_and_refuse_what_was_not_measured():
    latency = sum(s.latency_s for s in two()[1].scores) / 20
    (table,) = route(two(), StatedCloud(), Limits(latency_s=latency * 0.9))["tables"]
    assert [one["right_within"]["value"] for one in table["arms"]] == [0.5, 0.0]
    assert [one["right"]["value"] for one in table["arms"]] == [0.5, 0.75]
    dark = replace(
        two()[0], scores=[replace(s, energy_j=None, energy_reason="sensor_gated: off") for s in two()[0].scores]
    )
    found = route([dark, two()[1]], StatedCloud(), Limits(power_w=50.0))
    assert [arm["name"] for arm in found["tables"][0]["arms"]] == ["big"]
    assert "no power to hold against the limit: sensor_gated: off" in found["refused"][0]["reason"]


def test_a_run_as_the_cloud_is_no_arm_and_must_have_been_asked_the_same():
    far = scored("far", [1.0] * 20, n_out=513, model=model("huge", 9000), device={"name": "dgx", "identity": "dgx"})
    found = route([*two(), far], [far])
    assert problems(NAMED["route"], found) == []
    (table,) = found["tables"]
    assert (found["cloud"]["device"], found["cloud"]["scope"], len(table["arms"])) == ("dgx", "soc", 2)
    assert table["routers"][-1]["accuracy"]["value"] == 1.0
    assert not [flag for flag in table["flags"] if flag.startswith("cloud_stated")]
    other = scored("far", [1.0] * 20, workload={"name": "mmlu", "sha256": "w9"})
    refused = route(two(), [other])
    assert refused["tables"] == []
    assert "was not asked these items" in refused["refused"][0]["reason"]
    with pytest.raises(UserError, match="not of one cell"):
        route(two(), [far, other])


def test_items_that_not_all_answered_are_told_and_a_refused_total_refuses_its_items():
    less = replace(two()[0], scores=two()[0].scores[:8])
    (table,) = route([less, two()[1]], StatedCloud(500.0, 0.9))["tables"]
    assert table["n_items"] == 8
    assert "not_shared: 12 items" in table["flags"][0]
    slow = [replace(one, latency_s=100.0) if one not in less.scores else one for one in two()[0].scores]
    arms = [replace(two()[0], scores=slow), replace(two()[1], scores=two()[1].scores[:8])]
    (asked,) = route(arms, StatedCloud())["tables"]
    assert asked["arms"][0]["mean_latency_s"] == table["arms"][0]["mean_latency_s"] < 100  # of what all answered
    refused = [replace(m, value=None, reason="implausible_power: 0 W") for m in less.measures if m.name == "energy_j"]
    dark = replace(less, measures=refused)
    (table,) = route([dark], StatedCloud(500.0, 0.9))["tables"]
    assert (table["arms"][0]["mean_energy_j"], table["routers"][0]["saved"]["value"]) == (None, None)
    assert {flag.partition(":")[0] for flag in table["flags"]} == {"cloud_stated", "one_run"}
    wall = replace(two()[1], measures=[replace(m, scope="wall", klass="A") for m in two()[1].measures])
    (table,) = route([two()[0], wall], StatedCloud(500.0, 0.9))["tables"]
    assert [flag for flag in table["flags"] if flag.startswith("mixed_scopes: energies of soc (class B) and wall")]


def test_the_command_tells_what_was_stated(tmp_path):
    store = store_at(tmp_path)
    for run in two():
        keep(store, run)
    to = ["--data", str(tmp_path)]
    words = ["route", "device=desk", "--cloud-j-per-query", "50", "--cloud-accuracy", "0.9"]
    found = json.loads(CliRunner().invoke(app, [*words, "--json", *to]).stdout)
    assert problems(NAMED["route"], found) == []
    text = CliRunner().invoke(app, [*words, "--markdown", *to]).stdout
    for said in (
        "| any of them |",
        "| oracle |",
        "hypothetical",
        "cloud: 50 J a query and accuracy 90 %, stated",
        "| 200 J |",
    ):
        assert said in text, said
    bare = CliRunner().invoke(app, ["route", "--max-latency-s", "5", *to]).stdout
    assert "cloud: nothing was stated of it" in bare
    assert "latency 5.00 s at most" in bare
    both = CliRunner().invoke(app, ["route", "--cloud", "last", "--cloud-accuracy", "0.9", *to])
    assert isinstance(both.exception, UserError)
    away = json.loads(
        CliRunner().invoke(app, ["route", "--cloud", found["tables"][0]["arms"][1]["runs"][0], "--json", *to]).stdout
    )
    assert len(away["tables"][0]["arms"]) == 1
