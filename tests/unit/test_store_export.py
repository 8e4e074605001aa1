"""What leaves the store is what is in it."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_kit import add_run, open_run, record_of, store_at

from meltbench.errors import StoreError, UnknownName, UserError
from meltbench.store import llama_bench
from meltbench.store.export import csv_text, export


def test_csv_of_runs_wide_and_of_requests(tmp_path, capsys):
    store = store_at(tmp_path / "data", runs=2)
    ids = store.run_ids()
    (path,) = export(store, ids, "csv", tmp_path / "sub" / "out.csv")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [row["run_id"] for row in rows] == ids
    assert (rows[0]["energy_j"], rows[0]["energy_reason"]) == ("", "sensor_denied")
    assert export(store, ids[:1], "csv", table="requests") == []
    text = capsys.readouterr().out
    assert text == csv_text(store, ids[:1], "requests")
    assert len(text.splitlines()) == 5


def test_a_cell_never_starts_a_formula(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    record = record_of(folder.run_id)
    store.commit(folder, replace(record, requests=[replace(record.requests[0], item="=cmd()", ttft_s=-1.0)]))
    (row,) = csv.DictReader(csv_text(store, [folder.run_id], "requests").splitlines())
    assert (row["item"], row["ttft_s"]) == ("'=cmd()", "-1.0")


def test_parquet_has_every_table_and_all_samples(tmp_path):
    store = store_at(tmp_path / "data", runs=2)
    made = export(store, store.run_ids(), "parquet", tmp_path / "out")
    rows = {path.stem: pq.read_table(path).num_rows for path in made}
    assert rows["runs"] == rows["runs_wide"] == 2
    assert (rows["samples"], rows["tokens"], rows["requests"], rows["series"]) == (2 * 502, 2 * 64, 8, 4)
    samples = pq.read_table(tmp_path / "out" / "samples.parquet")
    assert samples.column_names[-2:] == ["status", "regime"]
    assert rows["regimes"] == 4
    with pytest.raises(UserError, match="not an empty folder"):
        export(store, store.run_ids(), "parquet", tmp_path / "out")
    with pytest.raises(UserError, match="--out"):
        export(store, store.run_ids(), "parquet")


@pytest.mark.parametrize("fmt", ["parquet", "llama-bench"])
def test_a_table_is_for_csv_alone(tmp_path, fmt):
    store = store_at(tmp_path / "store", runs=1)
    with pytest.raises(UserError, match="has no one table"):
        export(store, store.run_ids(), fmt, tmp_path / "out", table="requests")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_told(tmp_path):
    store = store_at(tmp_path, runs=1)
    with pytest.raises(UnknownName, match="did you mean csv"):
        export(store, store.run_ids(), "cvs")
    with pytest.raises(UnknownName, match="did you mean requests"):
        csv_text(store, store.run_ids(), "request")
    with pytest.raises(StoreError, match="another place"):
        export(store, store.run_ids(), "csv", "/proc/nothing/out.csv")


def test_llama_bench_entries_have_its_fields_and_our_mode(tmp_path):
    store = store_at(tmp_path, runs=1)
    (path,) = export(store, store.run_ids(), "llama-bench", tmp_path / "out.json")
    entries = json.loads(path.read_text())
    shapes = [(entry["n_prompt"], entry["n_gen"], entry["n_depth"]) for entry in entries]
    assert shapes == [(512, 0, 0), (0, 16, 0), (0, 16, 4096), (8, 16, 0)]
    for entry in entries:
        assert list(entry) == [*llama_bench.FIELDS, "samples_ns", "samples_ts", "mode", "meltbench"]
        assert entry["mode"] == "server"
        assert (entry["build_number"], entry["build_commit"]) == (6543, None)
        assert (entry["n_threads"], entry["n_batch"], entry["n_ubatch"]) == (2, 2048, None)
        assert (entry["n_gpu_layers"], entry["type_k"], entry["type_v"]) == (None, None, "q8_0")
        assert entry["gpu_info"] == "a gpu, 0x10de"
        assert (entry["model_size"], entry["cpu_info"]) == (1 << 33, "a cpu")
        assert (entry["stddev_ts"], entry["stddev_ns"]) == (None, None)
        n = entry["n_prompt"] + entry["n_gen"]
        assert entry["samples_ts"] == pytest.approx([1e9 * n / ns for ns in entry["samples_ns"]], rel=1e-8)
    export(store, store.run_ids(), "llama-bench-jsonl", tmp_path / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == entries


@pytest.mark.parametrize(
    ("version", "build"),
    [
        ("b6000-abcdef", (6000, "abcdef")),
        ("b6543", (6543, None)),
        ("6000 (abcdef0)", (6000, "abcdef0")),
        ("0 (unknown)", (None, None)),
        ("0.5.0-dev (build 1, commit 0c1e570)", (1, "0c1e570")),
        ("2026.10.11549", (None, None)),
        ("unknown", (None, None)),
        ("6000 (abcdef0) and more", (None, None)),
        ("\u0661 (abcdef0)", (None, None)),
    ],
)
def test_build_and_commit_of_what_an_engine_calls_itself(version, build):
    assert llama_bench.parse_build(version) == build


def test_a_machine_without_gpus_or_facts_has_none():
    record = record_of("x")
    for conditions in ({"gpus": []}, {"gpus": 7}, None):
        entry = llama_bench.entries(replace(record, manifest={**record.manifest, "conditions": conditions}))[0]
        assert (entry["gpu_info"], entry["cpu_info"]) == (None, None)


def test_only_timed_whole_requests_become_samples():
    record = record_of("x")
    tg = record.requests[1]
    others = [
        replace(tg, index=5, role="warmup"),
        replace(tg, index=6, status="failed"),
        replace(tg, index=7, n_out=9),
        replace(tg, index=8, decode_tps=None),
        replace(tg, index=9, item="chat"),
    ]
    again = replace(tg, index=10, decode_tps=30.0)
    (entry,) = llama_bench.entries(replace(record, requests=[tg, *others, again]))
    assert entry["samples_ts"] == [tg.decode_tps, 30.0]
    assert entry["avg_ts"] == pytest.approx((tg.decode_tps + 30.0) / 2)
    assert entry["stddev_ts"] == pytest.approx(statistics.stdev([tg.decode_tps, 30.0]))


def test_a_run_without_grid_items_is_told(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    store.commit(folder, replace(record_of(folder.run_id), requests=[], manifest={"model": None, "runner": 7}))
    with pytest.raises(UserError, match="none of these runs has the rate of a grid's point"):
        export(store, [folder.run_id], "llama-bench")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pp512", (512, 0, 0)),
        ("tg128", (0, 128, 0)),
        ("pp512+tg128", (512, 128, 0)),
        ("tg128@d4096", (0, 128, 4096)),
        ("pp512 @ d4096", (512, 0, 4096)),
        ("pp512+", None),
        ("+tg1", None),
        ("pp512tg128", None),
        ("@d5", None),
        ("", None),
        ("pp\u0661", None),
    ],
)
def test_item_names(name, shape):
    assert llama_bench.parse_item(name) == shape


@given(st.text(), st.integers(0, 9999999), st.integers(1, 9999999), st.integers(0, 9999999))
def test_any_item_name_is_a_shape_or_nothing(text, n_prompt, n_gen, n_depth):
    assert llama_bench.parse_item(text) is None or text[:2] in ("pp", "tg")
    assert llama_bench.parse_item(f"pp{n_prompt}+tg{n_gen}@d{n_depth}") == (n_prompt, n_gen, n_depth)


def _damaged(tmp_path):
    """A store of two runs, the first of them damaged after it was stored and not in the index."""
    store = store_at(tmp_path / "data", runs=1)
    bad = add_run(store, 5)
    (bad.path / "phases.parquet").write_bytes(b"PAR1")
    return store, next(run_id for run_id in store.run_ids() if run_id != bad.run_id), bad.run_id


@pytest.mark.parametrize("fmt", ["csv", "parquet"])
def test_a_damaged_run_is_never_left_out_in_silence(tmp_path, fmt):
    store, _, bad = _damaged(tmp_path)
    said = []
    with pytest.raises(StoreError, match=f"run {bad} cannot be exported: .*; meltbench verify") as caught:
        export(store, store.run_ids(), fmt, tmp_path / "out", say=said.append)
    assert "\n" not in str(caught.value)
    assert said == [f"run {bad} is not in the index: {bad}/phases.parquet is not the file that was stored"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_others_are_exported_by_name_and_the_damaged_one_is_told(tmp_path, capsys):
    store, good, bad = _damaged(tmp_path)
    assert len(csv_text(store, [good]).splitlines()) == 2
    assert capsys.readouterr().err.startswith(f"run {bad} is not in the index: ")
    assert capsys.readouterr().out == ""


def test_several_missing_runs_are_counted(tmp_path):
    store = store_at(tmp_path, runs=1)
    with pytest.raises(StoreError, match="run a and 1 more cannot be exported"):
        csv_text(store, ["b", "a", *store.run_ids()])
