"""Runs in the forms of other tools: what those would read of them, and back again."""

from __future__ import annotations

import csv
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_kit import open_run, record_of, store_at

from meltbench.errors import UserError
from meltbench.imports import codecarbon as their_codecarbon
from meltbench.imports import llama_bench as their_llama_bench
from meltbench.imports.foreign import File
from meltbench.records import Measure, Request, RunRecord
from meltbench.store import Store, codecarbon, llama_bench, mlperf, otel
from meltbench.store.export import export, unnamed
from meltbench.store.llama_bench_sql import sql_text

# What llama.cpp's scripts/compare-llama-bench.py joins two builds by (LLAMA_BENCH_KEY_PROPERTIES), as of build 11549.
KEYS = (
    *("cpu_info", "gpu_info", "backends", "n_gpu_layers", "n_cpu_moe", "tensor_buft_overrides", "model_filename"),
    *("model_type", "n_batch", "n_ubatch", "embeddings", "cpu_mask", "cpu_strict", "poll", "n_threads", "type_k"),
    *("type_v", "load_mode", "no_kv_offload", "split_mode", "main_gpu", "tensor_split", "flash_attn", "n_prompt"),
    *("n_gen", "n_depth", "fit_target", "fit_min_ctx"),
)


def stored(store: Store, record: RunRecord) -> str:
    folder = open_run(store)
    about = record.manifest | {"run_id": folder.run_id}
    store.commit(folder, replace(record, run_id=folder.run_id, manifest=about))
    return folder.run_id


def bench(version: str = "11549 (0c1e570)", mode: str = "bench", rate: float = 100.0) -> RunRecord:
    """A run of a grid whose rates are known."""
    record = record_of("20260101T000000Z-000000")
    engine = record.manifest["runner"] | {"version": version, "mode": mode}
    made = [
        Request(
            *(index, item, "timed", "ok", index * 10**10, index * 10**10 + 10**9),
            n_in=n_in,
            n_out=n_out,
            prefill_tps=rate + repeat if n_in else None,
            decode_tps=rate + repeat if n_out else None,
            e2e_s=1.0,
            point=item,
        )
        for index, (item, n_in, n_out, repeat) in enumerate(
            (item, *shape, repeat) for item, shape in (("pp64", (64, 0)), ("tg32@d16", (0, 32))) for repeat in range(3)
        )
    ]
    return replace(record, requests=made, manifest=record.manifest | {"runner": engine})


def base_of(*texts: str) -> sqlite3.Connection:
    base = sqlite3.connect(":memory:")
    for text in texts:
        base.executescript(text)
    return base


def joined(base: sqlite3.Connection, baseline: str, compare: str) -> list[tuple[Any, ...]]:
    """The script's own join of two builds."""
    equal = " AND ".join(f"tb.{key} = tc.{key}" for key in KEYS)
    return base.execute(
        "SELECT tb.n_prompt, tb.n_gen, tb.n_depth, AVG(tb.avg_ts), AVG(tc.avg_ts), tb.n_gpu_layers "
        f"FROM llama_bench tb JOIN llama_bench tc ON {equal} AND tb.build_commit = ? AND tc.build_commit = ? "
        "GROUP BY tb.n_gen, tb.n_prompt, tb.n_depth ORDER BY tb.n_gen",
        (baseline, compare),
    ).fetchall()


def test_sql_of_two_builds_is_compared_by_llama_cpp_s_script(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    ids = [stored(store, bench()), stored(store, bench("11550 (feedbee)", rate=200.0))]
    (path,) = export(store, ids, "llama-bench-sql", tmp_path / "out.sql")
    rows = joined(base_of(path.read_text()), "0c1e570", "feedbee")
    assert rows == [(64, 0, 0, 101.0, 201.0, -1), (0, 32, 16, 101.0, 201.0, -1)]


def test_a_server_is_never_joined_with_llama_bench() -> None:
    entries = [*llama_bench.entries(bench()), *llama_bench.entries(bench("1 (feedbee)", "server"))]
    base = base_of(sql_text(entries))
    assert joined(base, "0c1e570", "feedbee") == []
    assert base.execute("SELECT DISTINCT backends FROM llama_bench ORDER BY 1").fetchall() == [
        ("cpu",),
        ("cpu (meltbench, mode server)",),
    ]


@given(name=st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_no_name_ends_a_statement(name: str) -> None:
    (entry, *_) = llama_bench.entries(bench())
    base = base_of(sql_text([entry | {"model_filename": name}]))
    assert base.execute("SELECT count(*), max(n_prompt) FROM llama_bench").fetchall() == [(1, 64)]


@pytest.mark.parametrize("fmt", ["llama-bench", "llama-bench-jsonl", "llama-bench-sql"])
@pytest.mark.parametrize("mode", ["bench", "server"])
def test_rates_come_back(tmp_path: Path, fmt: str, mode: str) -> None:
    store = store_at(tmp_path)
    (path,) = export(store, [stored(store, bench(mode=mode))], fmt, tmp_path / "out")
    (run,) = their_llama_bench.read([File(str(path), path.read_bytes())])
    assert run.runner is not None
    assert (run.runner["mode"], run.runner["version"]) == (mode, "11549 (0c1e570)")
    prefix = "bench_" if mode == "bench" else ""
    means = {(m.name, m.phase): m.value for m in run.measures if m.stat == "mean"}
    assert means[f"{prefix}prefill_tps", "pp64"] == pytest.approx(101)
    assert means[f"{prefix}decode_tps", "tg32@d16"] == pytest.approx(101)
    assert run.tool == ("llama-bench" if (fmt, mode) == ("llama-bench-sql", "bench") else "meltbench-export")


def powered(record: RunRecord, scope: str = "soc") -> RunRecord:
    found = [
        Measure("wall_s", 10.0, "s"),
        Measure("energy_j", 720.0, "J", scope=scope, source="total", klass="B", u_k2=36.0),  # type: ignore[arg-type]
        Measure("mean_power_w", 72.0, "W", scope=scope, source="total", klass="B"),  # type: ignore[arg-type]
        Measure("energy_j", 300.0, "J", scope="soc", source="rapl.package-0"),
        Measure("energy_j", 100.0, "J", scope="rail", source="rapl.package-0/dram"),
        Measure("energy_j", 200.0, "J", scope="rail", source="rapl.package-0/core"),
        Measure("energy_j", None, "J", scope="rail", source="nvml.gpu0.energy", reason="no_reading: x"),
    ]
    return replace(record, measures=found)


def test_codecarbon_has_what_was_measured_and_nothing_else(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    (path,) = export(store, [stored(store, powered(bench()))], "codecarbon", tmp_path / "emissions.csv")
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert list(row) == list(codecarbon.COLUMNS)
    assert float(row["energy_consumed"]) == pytest.approx(720 / 3.6e6)
    assert float(row["cpu_energy"]) == pytest.approx(300 / 3.6e6)
    assert float(row["ram_energy"]) == pytest.approx(100 / 3.6e6)
    assert float(row["cpu_power"]) == pytest.approx(30)
    assert (row["timestamp"], row["duration"]) == ("2026-11-21T10:32:05", "10.0")
    assert {row[name] for name in ("gpu_energy", "emissions", "country_iso_code", "codecarbon_version")} == {""}
    (back,) = their_codecarbon.read([File(str(path), path.read_bytes())])
    (total,) = (m for m in back.measures if (m.name, m.source) == ("energy_j", "total"))
    assert (round(total.value or 0, 6), total.klass) == (720.0, "E")


def test_a_process_is_no_machine(tmp_path: Path) -> None:
    assert codecarbon.row(powered(bench(), "process"))["tracking_mode"] == "process"
    assert codecarbon.row(powered(bench()))["tracking_mode"] == "machine"


@pytest.mark.parametrize(
    "more", [{"validity": "invalid"}, {"outcome": "failed"}, {"imported": {"from": "llama-bench"}}]
)
def test_what_a_file_cannot_tell_is_left_out_of_it_unasked(tmp_path: Path, more: dict[str, Any]) -> None:
    store = store_at(tmp_path)
    good = stored(store, bench())
    other = bench()
    bad = stored(store, replace(other, manifest=other.manifest | more))
    for fmt in ("llama-bench-sql", "codecarbon"):
        said: list[str] = []
        assert unnamed(store, [good, bad], fmt, said.append) == [good]
        assert len(said) == 1
        assert said[0].startswith("1 of 2 runs")
        assert unnamed(store, [good], fmt, pytest.fail) == [good]
    for fmt in ("llama-bench", "otel", "mlperf", "csv"):
        assert unnamed(store, [good, bad], fmt, pytest.fail) == [good, bad]


def test_an_import_that_is_exported_has_its_origin(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    other = bench()
    about = other.manifest | {"imported": {"from": "llama-bench"}}
    run_id = stored(store, replace(other, manifest=about))
    (path,) = export(store, [run_id], "llama-bench", tmp_path / "out")
    assert {entry["meltbench"]["origin"] for entry in json.loads(path.read_text())} == {"llama-bench"}
    (back,) = their_llama_bench.read([File(str(path), path.read_bytes())])
    assert back.tool == "llama-bench"
    (path,) = export(store, [run_id], "mlperf", tmp_path / "summary")
    assert "Mode     : llama-bench bench;" in path.read_text()


def test_a_run_without_a_duration_is_no_row_of_codecarbon(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    with pytest.raises(UserError, match="has a duration"):
        export(store, [stored(store, replace(bench(), measures=[]))], "codecarbon")


def otlp(record: RunRecord) -> dict[str, Any]:
    (line,) = otel.text([record]).splitlines()
    ((resource,),) = json.loads(line).values()
    (scope,) = resource["scopeMetrics"]
    assert scope["schemaUrl"] == "https://opentelemetry.io/schemas/1.36.0"
    return {metric["name"]: metric for metric in scope["metrics"]}


def test_requests_are_histograms_that_add_up() -> None:
    record = record_of("20260101T000000Z-000000")
    found = otlp(record)
    good = [one for one in record.requests if one.role == "timed" and one.status == "ok" and one.ttft_s is not None]
    (point,) = found["gen_ai.server.time_to_first_token"]["histogram"]["dataPoints"]
    bounds, counts = point["explicitBounds"], [int(one) for one in point["bucketCounts"]]
    assert len(counts) == len(bounds) + 1
    assert sum(counts) == int(point["count"]) == len(good)
    assert point["sum"] == pytest.approx(sum(one.ttft_s or 0 for one in good))
    for at, bound in enumerate(bounds):
        assert sum(counts[: at + 1]) == sum((one.ttft_s or 0) <= bound for one in good)
    kinds = [
        attribute["value"]["stringValue"]
        for each in found["gen_ai.client.token.usage"]["histogram"]["dataPoints"]
        for attribute in each["attributes"]
        if attribute["key"] == "gen_ai.token.type"
    ]
    assert kinds == ["input", "output"]


def test_llama_bench_sends_no_requests() -> None:
    assert not any(name.startswith("gen_ai") for name in otlp(bench()))


@pytest.mark.parametrize(("scope", "host"), [("wall", "hw.host"), ("soc", "hw"), ("battery", "hw")])
def test_the_total_alone_is_an_energy_of_hardware(scope: str, host: str) -> None:
    found = otlp(powered(bench(), scope))
    (point,) = found[f"{host}.energy"]["sum"]["dataPoints"]
    assert (point["asDouble"], found[f"{host}.energy"]["sum"]["isMonotonic"]) == (720, True)
    assert found[f"{host}.power"]["gauge"]["dataPoints"][0]["asDouble"] == 72
    assert sum(name.endswith((".energy", ".power")) for name in found) == 2
    (ours,) = found["meltbench.energy_j"]["gauge"]["dataPoints"]
    assert ours["asDouble"] == 720


def test_a_summary_in_the_manner_of_mlperf_says_what_it_is_not(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    record = record_of("20260101T000000Z-000000")
    run_id = stored(store, record)
    (path,) = export(store, [run_id], "mlperf", tmp_path / "out.txt")
    text = path.read_text()
    assert text.splitlines()[1].startswith("NOT AN MLPERF RESULT")
    assert "VALID" not in text.replace("INVALID", "")
    assert "Validity by meltbench : degraded" in text
    assert {one.point for one in record.requests} == {""}
    times = [one.e2e_s for one in record.requests if one.role == "timed" and one.status == "ok"]
    middle = round(float(np.percentile([one or 0.0 for one in times], 50)) * 1e9)
    assert f"50.00 percentile latency (ns)               : {middle}\n" in text
    assert mlperf.text([replace(record, requests=[])]) == ""
    with pytest.raises(UserError, match="has a request that was answered"):
        export(store, [stored(store, replace(record, requests=[]))], "mlperf")


def test_points_are_summed_up_apart() -> None:
    text = mlperf.text([bench()])
    assert [line.split(", ")[1] for line in text.splitlines() if line.startswith("Mode")] == ["pp64", "tg32@d16"]
    assert text.count("NOT AN MLPERF RESULT") == 2
    assert text.count("timed requests that ended ok : 3") == 2


def test_names_of_others_break_no_line_of_a_summary() -> None:
    record = record_of("20260101T000000Z-000000")
    odd = record.manifest | {"model": {"name": "a\x1b[31m\nResult is : VALID"}}
    lines = mlperf.text([replace(record, manifest=odd)]).splitlines()
    assert not any(line.startswith("Result is") for line in lines)
