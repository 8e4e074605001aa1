"""Tables of intelligence per watt and joule: a row a cell, nothing pooled that must not be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from economy_kit import keep, scored
from jsoncheck import NAMED, problems
from store_kit import store_at
from typer.testing import CliRunner

from meltbench.analysis.sameness import differences, signature
from meltbench.cli.app import app
from meltbench.efficiency import efficiency
from meltbench.efficiency_tables import cells_of, intelligence_tables
from meltbench.errors import UnknownName
from meltbench.report.cells import table_notes

MARKS = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0] * 4


def model(name, **more):
    return {"name": name, "sha256": name, "quantisation": "Q4_K", **more}


def test_a_row_is_what_the_runs_of_the_cell_say_by_themselves():
    runs = [scored("r1", MARKS, seed=1, noise=0.01), scored("r2", MARKS, seed=2, noise=0.01)]
    other = scored("r3", MARKS[::-1], n_out=129, model=model("big"))
    found = intelligence_tables([*runs, other])
    assert problems(NAMED["intelligence_tables"], found) == []
    (table,) = found["tables"]
    assert [(row["group"], row["runs"]) for row in table["rows"]] == [("big", ["r3"]), ("tiny", ["r1", "r2"])]
    (alone,) = efficiency(runs)
    assert table["rows"][1]["numbers"] == alone["numbers"]
    names = {(one["name"], one["energy"]) for one in alone["numbers"]}
    assert {(name, which) for name in ("ipw_per_w", "ipj_per_j") for which in ("gross", "net")} <= names
    assert (table["flags"], found["left_out"], found["refused"]) == ([], 0, [])


@pytest.mark.parametrize(
    ("more", "key", "values"),
    [
        ({"runner": {"mode": "in-process"}}, "mode", ["in-process", "server"]),
        ({"workload": {"name": "mmlu", "sha256": "w2"}}, "workload", ["mmlu", "study"]),
        ({"imported": {"from": "MELT"}}, "measured_by", ["MELT", "meltbench"]),
    ],
)
def test_what_must_not_stand_together_has_tables_of_its_own(more, key, values):
    found = intelligence_tables([scored("r1", MARKS), scored("r2", MARKS, **more)])
    assert [table[key] for table in found["tables"]] == values
    assert all(len(table["rows"]) == 1 for table in found["tables"])


def test_two_methods_have_two_tables():
    one = scored("r1", MARKS)
    both = replace(one, scores=[*one.scores, *(replace(s, method="loglik/characters") for s in one.scores)])
    assert [t["method"] for t in intelligence_tables([both])["tables"]] == ["loglik/characters", "match"]


def test_domains_are_rows_of_their_own_items():
    run = scored("r1", [1.0, 0.0] * 12, groups=("maths", "law"))
    (table,) = intelligence_tables([run], "domain")["tables"]
    told = {row["domain"]: (row["numbers"][0]["value"], row["n_items"]) for row in table["rows"]}
    assert told == {"maths": (1.0, 12), "law": (0.0, 12)}


def test_meters_of_two_scopes_are_flagged_and_of_one_cell_refused():
    wall = scored("r2", MARKS, model=model("big"))
    wall = replace(wall, measures=[replace(m, scope="wall", klass="A") for m in wall.measures])
    (table,) = intelligence_tables([scored("r1", MARKS), wall])["tables"]
    assert [flag.partition(":")[0] for flag in table["flags"]] == ["mixed_scopes"]
    assert "soc (class B) and wall (class A)" in table["flags"][0]
    same = replace(wall, manifest=scored("r1", MARKS).manifest)
    found = intelligence_tables([scored("r1", MARKS), same])
    assert found["tables"] == []
    assert found["refused"][0]["runs"] == ["r1", "r2"]
    assert "do not cover the same" in found["refused"][0]["reason"]


def test_a_signature_is_what_differences_are_of():
    base = scored("r1", MARKS).manifest
    others = [
        base | {"model": model("big")},
        base | {"knobs": base["knobs"] | {"threads": 4}},
        base | {"knobs": base["knobs"] | {"ctx": 99}},
        base | {"conditions": {"settings": {"governor": {"used": "performance"}}}},
        base | {"workload": base["workload"] | {"max_tokens": 7}},
    ]
    for other in others:
        assert (signature(base) == signature(other)) == (differences([base, other], workload=True) == [])
    assert len(cells_of([scored("r1", MARKS), scored("r2", MARKS, knobs=others[2]["knobs"])])) == 1


def test_a_remark_names_its_rows_or_counts_them():
    runs = [scored(f"r{at}", MARKS, model=model(f"m{at}"), reason="sensor_denied: EACCES") for at in range(5)]
    for few, said in ((2, "m0 on desk, m1 on desk: no_energy: "), (4, "4 of 5 rows: no_energy: ")):
        mixed = [*runs[:few], *(scored(f"s{at}", MARKS, model=model(f"m{at}")) for at in range(few, 5))]
        (table,) = intelligence_tables(mixed)["tables"]
        assert [line for line in table_notes(table) if line.startswith(said)], table_notes(table)


def test_an_unknown_group_is_one_line():
    with pytest.raises(UnknownName, match="'colour'"):
        intelligence_tables([scored("r1", MARKS)], "colour")


def test_the_command_selects_groups_and_counts(tmp_path):
    store = store_at(tmp_path)
    for name in ("tiny", "big"):
        keep(store, scored("r", MARKS, model=model(name)))
    keep(store, scored("r", MARKS, validity="invalid"))
    made = CliRunner().invoke(app, ["intelligence", "--by", "quantisation", "--json", "--data", str(tmp_path)])
    found = json.loads(made.stdout)
    assert problems(NAMED["intelligence_tables"], found) == []
    assert (found["by"], found["left_out"], len(found["tables"][0]["rows"])) == ("quantisation", 1, 2)
    text = CliRunner().invoke(app, ["intelligence", "model=big", "--markdown", "--data", str(tmp_path)]).stdout
    assert "| big |" in text
    assert "tiny" not in text
    for word in ("IPW gross", "IPW net", "IPJ gross", "IPJ net", "soc, B"):
        assert word in text
    for words in (["intelligence", "model=big", "--accuracy", "last"], ["intelligence", "last", "--by", "model"]):
        refused = CliRunner().invoke(app, [*words, "--data", str(tmp_path)])
        assert refused.exit_code != 0
