"""Cost, carbon and battery life: the truth of a made machine times what was stated, and never without saying so."""

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

from meltbench import energy_factors
from meltbench.analysis import stats
from meltbench.analysis.unit_costs import Spent, per_unit
from meltbench.billing import Capacity, battery_tables, capacities_of, cost_tables
from meltbench.catalog import data_files
from meltbench.cli.app import app
from meltbench.energy_factors import grid, grid_of_region, price, regions
from meltbench.errors import DefinitionError, UnknownName, UserError
from meltbench.measure.charge import NEW_LIMIT

EUR, GRID = price("0.36EUR/kWh"), grid("360g/kWh")  # of a joule 1e-7 EUR and 1e-4 g
MARKS = [1.0, 0.0, 1.0, 1.0] * 5


def unscored(run_id="r1", **more):
    return replace(scored(run_id, MARKS, noise=0.02, **more), scores=[])


def numbers(document, at=0):
    (table,) = document["tables"]
    return {(one["name"], one["energy"]): one for one in table["rows"][at]["numbers"]}


def flags(document):
    return [flag.partition(":")[0] for flag in document["tables"][0]["rows"][0]["flags"]]


def joules(*runs):
    return sum(one.energy_j for run in runs for one in run.requests)


def test_an_energy_times_a_factor():
    runs = [unscored("r1", seed=1), unscored("r2", seed=2)]
    found = cost_tables(runs, EUR, GRID)
    assert problems(NAMED["cost"], found) == []
    told = numbers(found)
    by_query = joules(*runs) / 40
    by_token = joules(*runs) / (40 * 65)
    assert told["j_per_1000_queries", "gross"]["value"] == pytest.approx(1000 * by_query)
    assert told["cost_per_1000_queries", "gross"]["value"] == pytest.approx(1000 * by_query * 1e-7)
    assert told["g_co2e_per_1000_output_tokens", "gross"]["value"] == pytest.approx(1000 * by_token * 1e-4)
    for one in told.values():
        if one["value"] is not None:
            assert one["hi"] / one["value"] >= 1.058 - 1e-9, "the meter's gain is in every interval"
    assert told["cost_per_1000_queries", "gross"]["unit"] == "EUR"
    assert flags(found) == ["not_wall", "in_use"]
    assert [one["source"] for one in found["factors"]] == ["stated on the command line"] * 2


def test_a_right_answer_costs_what_the_wrong_ones_did_too():
    run = scored("r1", MARKS, noise=0.02)
    told = numbers(cost_tables([run], EUR, None))
    right = told["j_per_right_answer", "gross"]
    assert right["value"] == pytest.approx(joules(run) / 15, rel=0.001)
    assert right["lo"] < right["value"] < right["hi"]
    assert told["j_per_1000_queries", "net"]["value"] < told["j_per_1000_queries", "gross"]["value"]
    assert not [name for name, _ in told if name.startswith("g_co2e")]
    of_cost = [(name, which) for name, which in told if name.startswith("cost")]
    assert [which for _, which in of_cost] == ["gross"] * 3 + ["net"] * (len(of_cost) - 3), "gross is the headline"
    wrong = numbers(cost_tables([scored("r1", [0.0] * 8)], EUR, None))["j_per_right_answer", "gross"]
    assert (wrong["value"], wrong["reason"].partition(":")[0]) == (None, "not_positive")


def test_without_an_energy_there_is_no_cost_but_a_reason():
    run = unscored(reason="sensor_denied: EACCES")
    told = numbers(cost_tables([run], EUR, GRID))
    assert {one["value"] for one in told.values()} == {None}
    assert {one["reason"] for (_, which), one in told.items() if which == "gross"} == {"sensor_denied: EACCES"}
    half = cost_tables([run, unscored("r2")], EUR, None)
    assert flags(half)[:2] == ["no_energy", "one_run"]
    assert numbers(half)["j_per_1000_queries", "gross"]["n"] == 1


def test_a_battery_lasts_its_energy_over_the_cost():
    runs = [unscored("r1", seed=1), unscored("r2", seed=2)]
    found = battery_tables(runs, {}, 10.0)
    assert problems(NAMED["battery"], found) == []
    told = numbers(found)
    seconds = sum(one.e2e_s for run in runs for one in run.requests)
    assert told["prompts_per_charge", "gross"]["value"] == pytest.approx(36000 * 40 / joules(*runs))
    assert told["output_tokens_per_charge", "gross"]["value"] == pytest.approx(36000 * 40 * 65 / joules(*runs))
    assert told["battery_life_h", "gross"]["value"] == pytest.approx(10 * seconds / joules(*runs))
    assert flags(found) == ["at_most"]
    assert found["tables"][0]["rows"][0]["battery_wh"] == 10
    right = numbers(battery_tables([scored("r1", MARKS)], {}, 10.0))["right_answers_per_charge", "gross"]
    assert right["value"] == pytest.approx(36000 * 15 / joules(scored("r1", MARKS)))


@pytest.mark.parametrize(
    ("scope", "said", "value"),
    [("battery", [], True), ("wall", ["at_least"], True), ("module", ["at_most"], True), ("rail", [], False)],
)
def test_a_scope_is_a_bound_or_says_nothing(scope, said, value):
    run = unscored()
    run = replace(run, measures=[replace(m, scope=scope) for m in run.measures])
    found = battery_tables([run], {"desk": Capacity(15.0, "its data sheet", NEW_LIMIT)})
    one = numbers(found)["prompts_per_charge", "gross"]
    assert (one["value"] is not None) == value
    assert [flag for flag in flags(found) if flag != "one_run"] == said
    if value:
        assert one["hi"] / one["value"] > 1.2, "what a used battery may lack is in it"
    else:
        assert one["reason"].startswith("no_battery_scope")


def test_what_a_battery_holds_is_the_runs_own_before_the_profiles():
    run = unscored()
    watts = next(m for m in run.measures if m.name == "mean_power_w")
    hours = replace(watts, name="battery_life_h", unit="h", value=15.1 / watts.value, u_k2=15.1 / watts.value * 0.24)
    told = replace(run, measures=[*run.measures, replace(hours, method="15.1 Wh when full (a sheet) over mean power")])
    row = battery_tables([told], {"desk": Capacity(99.0, "a profile")})["tables"][0]["rows"][0]
    assert row["battery_wh"] == pytest.approx(15.1)
    assert row["battery_source"] == "15.1 Wh when full (a sheet)"
    assert numbers(battery_tables([run], {}))["battery_life_h", "gross"]["reason"].startswith("no_battery_capacity")
    phone = replace(run, manifest=run.manifest | {"device": {"name": "my", "profile": "galaxy-s23"}})
    gone = replace(run, manifest=run.manifest | {"device": {"name": "my", "profile": "not-here"}})
    assert capacities_of([phone, gone])["galaxy-s23"].energy_wh == 15.1
    assert list(capacities_of([phone, gone])) == ["galaxy-s23"]


def test_points_stand_apart():
    run = unscored()
    per = next(m for m in run.measures if m.name == "j_per_request")
    mixed = replace(per, value=None, u_k2=None, reason="mixed_points: see its points")
    rest = [m for m in run.measures if m is not per]
    grid_run = replace(run, measures=[*rest, mixed, replace(per, phase="pp8"), replace(per, phase="tg8", value=9.0)])
    found = cost_tables([grid_run], EUR, None)
    assert [table["point"] for table in found["tables"]] == ["pp8", "tg8"]
    (row,) = found["tables"][1]["rows"]
    assert {one["value"] for one in row["numbers"] if one["name"] == "j_per_1000_queries"} == {9000, None}


def test_the_interval_of_a_unit_cost_covers():
    hits, trials = 0, 300
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        runs = [Spent(100 * rng.lognormal(0, 0.1) * 5, 100, 0.0) for _ in range(5)]
        found = per_unit(runs)
        hits += found.lo < 5 * np.exp(0.005) < found.hi
    assert 0.92 <= hits / trials <= 0.985


def test_one_run_has_the_meters_interval_and_none_has_a_reason():
    one = per_unit([Spent(200.0, 100, 0.05)])
    assert (one.value, one.hi / one.value) == (2, pytest.approx(np.exp(0.1)))
    assert per_unit([Spent(200.0, 100, None)]).lo is None
    assert per_unit([], "why: so").reason == "why: so"


def test_an_inverse_turns_its_interval():
    found = stats.inverted(stats.Estimate(2.0, 1.0, 4.0), 8.0)
    assert (found.value, found.lo, found.hi) == (4.0, 2.0, 8.0)
    assert stats.inverted(stats.Estimate(2.0, 0.0, 4.0)).lo is None
    assert stats.inverted(stats.Estimate(0.0, 0.0, 4.0)).reason.startswith("not_positive")


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [("0.30/kWh", 0.3, ""), ("0.30 EUR/kWh", 0.3, "EUR"), ("12usd/kWh", 12, "USD"), ("0.2€/kWh", 0.2, "€")],
)
def test_prices(text, value, unit):
    found = price(text)
    assert (found.value, found.unit, found.of_number) == (value, unit, ("cost", unit))


def test_carbons():
    assert grid("400g/kWh").value == grid("0.4 kg/kWh").value == 400
    for text in ("400", "400g", "-1g/kWh", "4e2g/kWh", "400kg/kWh", "", "nan g/kWh"):
        with pytest.raises(UserError, match="--grid"):
            grid(text)
    for text in ("0.3", "0.3/MWh", "free", "-1/kWh", "1/kWh/kWh"):
        with pytest.raises(UserError, match="--price"):
            price(text)


@given(st.text(max_size=40))
def test_any_text_is_a_factor_or_one_line(text):
    for read in (price, grid):
        try:
            said = read(text).name
        except UserError as error:
            said = error.message
        assert "\n" not in said


def test_shipped_factors_have_a_source_and_a_year():
    known = regions()
    assert {"world", "EU", "USA", "DEU"} <= known.keys()
    assert all(one.source and 2020 <= one.year <= 2026 and 10 < one.g_co2e_per_kwh < 900 for one in known.values())
    assert grid_of_region("EU").as_json()["unit"] == "gCO2e/kWh"
    with pytest.raises(UnknownName, match="'DE'"):
        grid_of_region("DE")


def test_a_file_of_ones_own_replaces_and_a_broken_one_says_where(tmp_path, monkeypatch):
    mine = tmp_path / "factors.toml"
    shipped = data_files(energy_factors.FACTORS)
    monkeypatch.setattr(energy_factors, "data_files", lambda _: [(mine, "folder"), *shipped])
    mine.write_text('[[grid]]\nname = "EU"\ng_co2e_per_kwh = 1\nyear = 2030\nsource = "me"\n')
    assert (grid_of_region("EU").value, grid_of_region("USA").year) == (1, 2024)
    mine.write_text('[[grid]]\nname = "EU"\ng_co2e_per_kwh = 0.2\nyear = 2030\nsource = ""\n')
    with pytest.raises(DefinitionError, match="needs a source"):
        regions()


def test_the_commands_print_what_was_stated(tmp_path):
    store = store_at(tmp_path)
    for seed in range(2):
        keep(store, scored("r", MARKS, seed=seed, noise=0.02))
    keep(store, scored("r", MARKS, validity="invalid"))
    to = ["--data", str(tmp_path)]
    made = CliRunner().invoke(app, ["cost", "--price", "0.3EUR/kWh", "--grid-region", "EU", "--json", *to])
    found = json.loads(made.stdout)
    assert problems(NAMED["cost"], found) == []
    assert (found["left_out"], found["factors"][1]["year"]) == (1, 2024)
    text = CliRunner().invoke(app, ["cost", "--price", "0.3EUR/kWh", "--markdown", *to]).stdout
    for said in ("| right answer | gross |", "0.3 EUR/kWh (stated on the command line), taken as exact", "not_wall: "):
        assert said in text
    made = CliRunner().invoke(app, ["battery", "model=tiny", "--battery-wh", "17", *to])
    assert "17 Wh, stated by --battery-wh" in made.stdout
    assert "at_most: " in made.stdout
    assert problems(NAMED["battery"], json.loads(CliRunner().invoke(app, ["battery", "--json", *to]).stdout)) == []
    for words in (["cost"], ["cost", "--grid", "1g/kWh", "--grid-region", "EU"], ["cost", "--price", "1/kWh", "x=y"]):
        assert CliRunner().invoke(app, [*words, *to]).exit_code != 0
