"""Runs come back from the index as they are in their folders, and only those that are meant."""

from __future__ import annotations

from dataclasses import replace

import pytest
from economy_kit import keep, scored
from store_kit import store_at

from meltbench.errors import UnknownName, UserError
from meltbench.measure.total import TOTAL
from meltbench.recalling import recall, recalled
from meltbench.selecting import Selection
from meltbench.store import index, read_record


def test_records_are_those_of_the_folders(tmp_path):
    store = store_at(tmp_path, 1)
    run_id = keep(store, scored("r", [1.0, 0.0, 1.0]))
    (found,) = recalled(store, [f"run={run_id}"], scores=True, requests=True).records
    folder = read_record(store.folder(run_id).path, signals=False)
    assert found.manifest == folder.manifest
    assert found.scores == folder.scores
    assert found.requests == folder.requests
    assert found.measures == [one for one in folder.measures if one.source == TOTAL]
    assert recalled(store, [f"run={run_id}"]).records[0].scores == []


def test_invalid_ones_are_left_out_and_counted_and_imported_ones_are_told_by_their_origin(tmp_path):
    store = store_at(tmp_path)
    ours = keep(store, scored("r", [1.0]))
    keep(store, scored("r", [1.0], validity="invalid"))
    keep(store, scored("r", [1.0], outcome="failed"))
    theirs = keep(store, scored("r", [1.0], imported={"from": "MELT"}))
    found = recalled(store, [])
    assert ({one.run_id for one in found.records}, found.left_out) == ({ours, theirs}, 2)
    assert [one.run_id for one in recalled(store, ["origin=meltbench"]).records] == [ours]
    assert len(recalled(store, ["validity=invalid"]).records) == 1


def test_a_point_is_all_that_is_taken(tmp_path):
    store = store_at(tmp_path)
    made = scored("r", [1.0, 0.0])
    of_point = [replace(one, phase="pp8") for one in made.measures if one.name == "j_per_request"]
    made = replace(made, scores=[replace(made.scores[0], point="pp8"), made.scores[1]])
    keep(store, replace(made, measures=[*made.measures, *of_point]))
    (found,) = recalled(store, ["point=pp8"], scores=True).records
    assert [one.point for one in found.scores] == ["pp8"]
    with index.opened(store) as connection:
        assert recall(connection, Selection.parse("point=tg8")).records == ()


def test_nothing_is_one_line(tmp_path):
    store = store_at(tmp_path)
    with pytest.raises(UserError, match="no run of an engine in "):
        recalled(store, [])
    keep(store, scored("r", [1.0], validity="invalid"))
    with pytest.raises(UserError, match="no scored run of model=tiny counts: 1 that are meant are invalid"):
        recalled(store, ["model=tiny"], scored=True)
    with pytest.raises(UnknownName, match="unknown model 'tinny'") as why:
        recalled(store, ["model=tinny"], scored=True)
    assert why.value.nearest == ["tiny"]
    keep(store, replace(scored("r", [1.0]), scores=[]))
    assert len(recalled(store, ["model=tiny"]).records) == 1
    with pytest.raises(UserError, match="no scored run"):
        recalled(store, ["model=tiny,validity=valid"], scored=True)
