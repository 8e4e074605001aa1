"""The API over stored runs: frames, values, samples, queries; and what it says to bad input."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import SECOND, phase, series
from store_kit import add_run, open_run, record_of, store_at

import meltbench
from meltbench.api import _text
from meltbench.errors import StoreError, UnknownName, UserError
from meltbench.records import Regime


def one(tmp_path) -> meltbench.Run:
    store_at(tmp_path, runs=1)
    return meltbench.Store(tmp_path).run()


def test_frames_hold_what_was_stored_with_seconds_of_the_run(tmp_path):
    run = one(tmp_path)
    assert run.path == tmp_path / "runs" / run.run_id
    assert (run.validity, run.ok, run.manifest["model"]["name"]) == ("degraded", True, "tiny")
    assert run.phases[["name", "t0_s", "t1_s", "duration_s"]].to_dict("records") == [
        {"name": "idle_before", "t0_s": 0.0, "t1_s": 1e-8, "duration_s": 1e-8},
        {"name": "decode", "t0_s": 1e-8, "t1_s": 2e-8, "duration_s": 1e-8},
    ]
    requests = run.requests
    assert list(requests["t_send_s"]) == [0, 10, 20, 30]
    assert requests["t_first_s"].isna().all()
    assert str(requests["n_out"].dtype) == "Int64"
    assert (requests["answer"] == "an answer").all()
    assert len(run.tokens) == 64
    assert list(run.series["name"]) == ["power_w", "temp_c"]
    assert set(run.reasons["code"]) == {"sensor_denied", "not_gated"}
    assert list(run.sources["status"]) == ["ok", "denied"]
    assert run.measures.set_index("seq").loc[3, "reason"] == "sensor_denied"


def test_a_frame_or_manifest_that_is_changed_changes_nothing(tmp_path):
    run = one(tmp_path)
    measures = run.measures
    measures["value"] = 0
    run.manifest["model"]["name"] = "another"
    assert run.measures["value"].iloc[0] > 0
    assert run.manifest["model"]["name"] == "tiny"


def test_a_value_is_what_the_console_shows_and_missing_is_none(tmp_path):
    run = one(tmp_path)
    measures = run.measures
    shown = measures[measures["name"] == "ttft_s"]["value"].iloc[0]
    assert run.value("ttft_s") == shown
    assert run.value("ttft_s", stat="median") == shown
    assert run.value("max_temp_c") == 50.0
    assert run.value("peak_rss_bytes") == 123456789.0
    with pytest.raises(UnknownName, match="did you mean decode_tps"):
        run.value("decode_tp")
    with pytest.raises(UnknownName, match="unknown stat of ttft_s 'p90'"):
        run.value("ttft_s", stat="p90")
    with pytest.raises(UnknownName, match="unknown phase 'pp512'"):
        run.value("ttft_s", phase="pp512")


def test_a_missing_value_is_none(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    record = record_of(folder.run_id)
    store.commit(folder, replace(record, measures=[m for m in record.measures if m.source != "core"]))
    assert meltbench.Store(tmp_path).run().value("energy_j") is None


def test_samples_are_chosen_by_name_or_pattern_and_condensed(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    t = np.arange(0, 100, 0.1)
    zones = [series(f"thermal.{k}", t + 5, t * (k + 1), kind="gauge", unit="degC") for k in range(2)]
    zones.append(series("thermal.[odd]", t[:2], t[:2], kind="gauge", unit="degC"))
    zones[0].value[7] = np.nan
    spans = [Regime("burst", 10 * SECOND, 30 * SECOND), Regime("throttled", 30 * SECOND, 40 * SECOND, "a flag")]
    record = replace(record_of(folder.run_id), series=zones, phases=[phase("idle_before", 5, 6)], regimes=spans)
    store.commit(folder, record)
    run = meltbench.Store(tmp_path).run()
    every = run.samples("thermal.0")
    shown = every["regime"].fillna("none")
    # The record's regimes reach from 10 to 40 s, and a span ends where the next begins.
    assert shown.value_counts().to_dict() == {"burst": 200, "throttled": 100, "none": 700}
    assert (shown[every["t_ns"].between(10 * SECOND, 30 * SECOND - 1)] == "burst").all()
    assert (len(every), every["value"].isna().sum(), every["t_s"].iloc[10]) == (1000, 1, 1.0)
    assert list(every.columns) == ["series", "name", "unit", "t_ns", "t_s", "value", "status", "regime"]
    assert len(run.samples("thermal.?")) == 2000
    assert len(run.samples()) == 2002
    assert len(run.samples("thermal.[odd]")) == 2
    few = run.samples("thermal.?", max_points=10)
    assert few.groupby("name").size().tolist() == [10, 10]
    assert few["n"].sum() == 1999
    assert (few["low"] <= few["value"]).all()
    assert (few["value"] <= few["high"]).all()
    assert set(few["regime"].dropna()) == {"burst", "throttled"}
    assert run.regimes[["name", "t0_s", "duration_s", "cause"]].to_dict("records")[1] == {
        "name": "throttled", "t0_s": 25.0, "duration_s": 10.0, "cause": "a flag",
    }  # fmt: skip
    second = few[few["name"] == "thermal.1"]
    assert second["value"].iloc[0] == pytest.approx(9.9, abs=0.3)
    assert int(few["t_ns"].iloc[0]) > 5 * SECOND
    with pytest.raises(UnknownName, match=r"unknown series 'thermo'"):
        run.samples("thermo")
    with pytest.raises(UserError, match="max_points is 0"):
        run.samples(max_points=0)


def test_a_run_without_samples_or_phases_has_empty_frames(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    lists = ("series", "phases", "requests", "measures", "reasons", "sources", "regimes")
    empty = replace(record_of(folder.run_id), **{name: [] for name in lists})
    store.commit(folder, empty)
    run = meltbench.Store(tmp_path).run()
    for name in ("measures", "requests", "tokens", "phases", "series", "reasons", "sources", "regimes"):
        assert len(getattr(run, name)) == 0
    assert len(run.samples()) == len(run.samples(max_points=5)) == 0
    assert run.plot().to_json()
    assert "tiny" in run._repr_html_()


def test_a_damaged_file_is_an_error_and_never_a_number(tmp_path):
    run = one(tmp_path)
    for name in ("measures", "samples"):
        path = run.path / f"{name}.parquet"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match=r"measures\.parquet is not the file that was stored"):
        run.measures  # noqa: B018
    with pytest.raises(StoreError, match=r"samples\.parquet is not the file that was stored"):
        run.samples()


def test_a_store_gives_frames_runs_and_relations(tmp_path):
    inner = store_at(tmp_path, runs=3)
    store = meltbench.Store(tmp_path)
    ids = inner.run_ids()
    assert len(store) == 3
    assert [run.run_id for run in store] == ids == list(store.runs()["run_id"])
    assert store.run().run_id == ids[-1]
    assert store.run(ids[0]).run_id == ids[0]
    assert len(store.frame("measures")) == 21
    asked = store.sql("SELECT run_id FROM runs WHERE run_id = $id", params={"id": ids[1]})
    assert asked.fetchall() == [(ids[1],)]
    with pytest.raises(UnknownName, match="did you mean measures"):
        store.frame("measure")
    with pytest.raises(UnknownName, match=r"Store\.run\(\)\.tokens"):
        store.frame("tokens")
    with pytest.raises(UserError, match="decode_tps") as caught:
        store.sql("SELECT decod_tps FROM runs_wide")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="gives no rows"):
        store.sql("-- nothing")
    with pytest.raises(UserError, match="cannot be answered"):
        store.sql("DROP TABLE runs")
    with pytest.raises(UnknownName):
        store.run("2031")


def test_a_relation_outlives_new_runs_and_its_store(tmp_path):
    inner = store_at(tmp_path, runs=2)
    relation = meltbench.Store(tmp_path).sql("SELECT count(*) AS n FROM runs")
    gc.collect()
    inner.ingest(add_run(inner, 7).run_id)
    add_run(inner, 8)  # stored, and not yet in the index
    assert relation.fetchall() == [(2,)]
    assert relation.filter("n > 1").df()["n"].tolist() == [2]
    assert len(meltbench.Store(tmp_path).runs()) == 4


def test_there_is_no_store_until_something_was_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MELTBENCH_DATA", raising=False)
    with pytest.raises(StoreError, match="there is no store in"):
        meltbench.Store()
    store_at(tmp_path / "data", runs=1)
    assert meltbench.Store().path == tmp_path / "data"
    monkeypatch.setenv("MELTBENCH_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(StoreError, match="elsewhere"):
        meltbench.Store()


def test_settings_are_written_as_on_the_command_line():
    given = {"a": 1, "b": 0.3, "c": ["pp64", "tg8"], "d": None, "e": True, "f": "none", "g": (1, 2)}
    assert {key: _text(key, value) for key, value in given.items()} == {
        "a": "1",
        "b": "0.3",
        "c": "pp64,tg8",
        "d": "none",
        "e": "true",
        "f": "none",
        "g": "1,2",
    }
    with pytest.raises(UserError, match="setting a is a set"):
        _text("a", {1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "smolm2-135m-q4"}, "smollm2-135m-q4"),
        ({"workload": "quik"}, "quick"),
        ({"settings": {"idel_s": 1}}, "idle_s"),
        ({"reps": 0}, "1 to 10000"),
    ],
)
def test_bad_input_is_one_line_with_the_nearest_and_nothing_is_made(tmp_path, arguments, said):
    with pytest.raises(meltbench.MeltbenchError, match=said):
        meltbench.run(data=tmp_path / "data", **arguments)
    assert not (tmp_path / "data").exists()


def test_a_damaged_block_of_the_index_is_an_error_of_ours_and_never_one_of_duckdb(tmp_path):
    store_at(tmp_path, runs=2)
    index = tmp_path / "meltbench.duckdb"
    whole = index.read_bytes()
    raised = 0
    # Three headers of 4 KiB, then blocks of 256 KiB with a checksum each.
    for start in range(12_288, len(whole), 256 << 10):
        spoilt = bytearray(whole)
        spoilt[start + 1000] ^= 0xFF
        index.write_bytes(spoilt)
        try:
            assert len(meltbench.Store(tmp_path).frame("measures")) > 2
        except StoreError:
            raised += 1
    assert raised


def test_a_frame_without_times_reads_no_phases(tmp_path):
    run = one(tmp_path)
    (run.path / "phases.parquet").write_bytes(b"")
    assert "not_gated" in set(run.reasons["code"])
    with pytest.raises(StoreError):
        run.requests.head()
