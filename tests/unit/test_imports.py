"""Files of other tools: their numbers under their names, ours where they follow, and nothing made up between."""

from __future__ import annotations

import json
import sqlite3
import statistics
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from jsoncheck import NAMED, problems

from meltbench import importing
from meltbench.errors import StoreError, UserError
from meltbench.importing import store_imported
from meltbench.imports import codecarbon, ipw, llama_bench, localscore, tegrastats
from meltbench.imports.foreign import File, Imported
from meltbench.records import Measure
from meltbench.report import imported as report
from meltbench.selecting import Selection
from meltbench.store import Store, open_store
from meltbench.store import index as index_module


class Silent:
    """A watch that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)

    def fetched(self, done: int, total: int | None, what: str = "") -> None:
        raise AssertionError("nothing is fetched")

    def step(self, status: object) -> None:
        raise AssertionError("nothing runs")


HERE = Path(__file__).parents[1] / "contract" / "imports"


def given(*names: str) -> list[File]:
    return [File(str(HERE / name), (HERE / name).read_bytes()) for name in names]


def of(run: Imported, name: str, stat: str = "value", phase: str = "run", source: str | None = None) -> Measure:
    (found,) = (
        m for m in run.measures if (m.name, m.stat, m.phase) == (name, stat, phase) and source in (None, m.source)
    )
    return found


def entry(**more: object) -> dict[str, object]:
    row = json.loads((HERE / "llama_bench.json").read_text())[0]
    return row | more


def text(*rows: object) -> File:
    return File("made.json", json.dumps(list(rows)).encode())


def test_llama_bench_is_read_by_its_samples_alone() -> None:
    (run,) = llama_bench.read(given("llama_bench.json"))
    rows = json.loads((HERE / "llama_bench.json").read_text())
    for row in rows:
        point = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
        name = "bench_prefill_tps" if row["n_prompt"] else "bench_decode_tps"
        rates = [(row["n_prompt"] + row["n_gen"]) / ns * 1e9 for ns in row["samples_ns"]]
        assert of(run, name, "median", point).value == pytest.approx(statistics.median(rates))
        assert of(run, name, "mean", point).value == pytest.approx(row["avg_ts"], rel=1e-5)
    assert (run.device, run.model and run.model["quantisation"]) == ("Intel(R) Xeon(R) Processor", "Q8_0")
    assert run.runner is not None
    assert (run.runner["mode"], run.runner["version"], run.runner["accelerator"]) == ("bench", "1 (0c1e570)", "CPU")
    assert run.knobs["threads"] == 2
    assert not run.phases, "nobody tells when a repetition was"


def test_a_wrapped_stddev_is_read_by_nobody() -> None:
    slow = entry(samples_ns=[60 * 10**9, 61 * 10**9], stddev_ns=13_000_000_000_000_000_000, avg_ns=1, avg_ts=1e-9)
    (run,) = llama_bench.read([text(slow)])
    assert of(run, "bench_e2e_s", "median", "pp16").value == pytest.approx(60.5)
    assert not any("stddev" in m.name for m in run.measures)


def test_points_are_one_run_and_a_point_that_stands_there_again_begins_another() -> None:
    tg = entry(n_prompt=0, n_gen=8)
    runs = llama_bench.read([text(entry(), tg, entry(), entry(n_threads=9), entry(build_commit="feedbee"))])
    assert [(len({r.point for r in run.requests}), run.rep) for run in runs] == [(2, 0), (1, 1), (1, 0), (1, 0)]
    assert len({run.run_id(0) for run in runs}) == 4


def test_sql_has_means_and_no_medians(tmp_path: Path) -> None:
    (of_sql,) = llama_bench.read(given("llama_bench.sql"))
    base = sqlite3.connect(tmp_path / "x.sqlite")
    base.executescript((HERE / "llama_bench.sql").read_text())
    base.close()
    (of_base,) = llama_bench.read([File("x.sqlite", (tmp_path / "x.sqlite").read_bytes())])
    assert of_sql.measures == of_base.measures
    assert of(of_sql, "bench_prefill_tps", "median", "pp16").value is None
    assert "no_samples" in str(of(of_sql, "bench_prefill_tps", "median", "pp16").reason)
    assert of(of_sql, "bench_prefill_tps", "mean", "pp16").value == pytest.approx(21.349, rel=1e-4)


def test_one_time_for_prompt_and_answer_is_no_rate_of_either() -> None:
    (run,) = llama_bench.read([text(entry(n_prompt=16, n_gen=8, n_depth=4))])
    assert {m.name for m in run.measures if m.phase == "pp16+tg8@d4"} == {"bench_e2e_s", "llamabench_avg_ts"}


def test_localscore_means_are_ours_and_its_first_token_is_not() -> None:
    (run,) = localscore.read(given("localscore.json"))
    assert of(run, "bench_prefill_tps", "mean", "pp1024+tg16").value == 1280
    assert of(run, "bench_prefill_tps", "median", "pp1024+tg16").value is None
    assert of(run, "localscore_ttft_s", "mean", "pp1024+tg16").value == pytest.approx(0.82)
    assert of(run, "bench_e2e_s", "median", "pp1024+tg16").value == pytest.approx(1.1)
    assert not any(m.name.endswith("ttft_s") and m.name != "localscore_ttft_s" for m in run.measures)
    powers = {m.phase for m in run.measures if m.name == "localscore_power_w"}
    assert powers == {"pp1024+tg16"}, "0 W of the other test is no power"
    assert (run.device, run.model and run.model["quantisation"]) == ("A Made GPU", "Q4_K_M")


def test_what_was_sent_to_localscore_s_site_has_no_time_and_no_samples() -> None:
    found = json.loads((HERE / "localscore.json").read_text())
    for one in found["results"]:
        del one["samples_ns"], one["test_time"]
    found["results_summary"] = {
        "avg_prompt_tps": 840.0, "avg_gen_tps": 52.0, "avg_ttft_ms": 440.0, "performance_score": 463.0
    }  # fmt: skip
    (run,) = localscore.read([File("sent.json", json.dumps(found).encode())])
    assert (run.started_ns, run.run_id(0)[:16]) == (None, "19700101T000000Z")
    assert of(run, "localscore_score").value == 463
    assert of(run, "bench_decode_tps", "mean", "pp16+tg1536").value == 51.2
    assert not run.requests


def test_queries_of_ipw_by_our_definitions() -> None:
    (run,) = ipw.read(given("profile.jsonl", "summary.json"))
    first = run.requests[0]
    assert (first.ttft_s, first.e2e_s, first.n_in, first.n_out) == (0.5, 10.0, 100, 96)
    assert first.decode_tps == pytest.approx(95 / 9.5)
    assert first.tpot_s == pytest.approx(9.5 / 95)
    assert [one.correct for one in run.scores] == [1, 0, 1, None]
    assert run.scores[3].detail.startswith("not_scored")
    assert of(run, "accuracy", "mean").value == pytest.approx(2 / 3)
    names = {m.name for m in run.measures}
    assert not names & {"output_tps", "requests_per_s"}, "the time between queries is not recorded"
    assert (run.device, run.runner and run.runner["engine"]) == ("A Made GPU", "ollama")


def test_an_energy_that_stopped_at_30_s_is_none() -> None:
    (run,) = ipw.read(given("profile.jsonl", "summary.json"))
    assert [one.energy_j for one in run.requests] == [1000, 2000, None, 4000]
    assert run.requests[2].energy_reason == "capped: 3000 J at 100 W are 30 of its 120 s"
    assert "low_coverage" in {one.code for one in run.reasons}
    for name, stat in (("energy_j", "value"), ("j_per_request", "ratio_of_sums"), ("j_per_question", "mean")):
        one = of(run, name, stat)
        assert one.value is None
        assert "capped" in str(one.reason)
    assert of(run, "ipwtool_gpu_energy_j", "mean").value == 2500, "its own number stands under its own name"


@pytest.mark.parametrize(
    ("latency_s", "energy_j", "power_w", "kept"),
    [(29, 100.0, 100.0, True), (31, 3000.0, 100.0, True), (60, 3000.0, 100.0, False), (60, 6000.0, None, False)],
)
def test_which_energies_may_be_of_less_than_the_query(
    latency_s: float, energy_j: float, power_w: float | None, kept: bool
) -> None:
    assert (ipw.energy_of(latency_s, energy_j, power_w)[0] is not None) is kept


def test_energies_of_whole_queries_give_ratios_of_sums() -> None:
    whole = File("p.jsonl", b"".join((HERE / "profile.jsonl").read_bytes().splitlines(keepends=True)[:2]))
    (run,) = ipw.read([whole])
    assert of(run, "j_per_request", "ratio_of_sums").value == 1500
    assert of(run, "j_per_output_token", "ratio_of_sums").value == pytest.approx(3000 / 287)
    assert of(run, "energy_j").klass == "B"


def test_the_arrow_of_a_saved_dataset_is_the_same_run() -> None:
    rows = [json.loads(line) for line in (HERE / "profile.jsonl").read_text().splitlines()]
    table = pa.Table.from_pylist([{k: v for k, v in row.items() if k != "dataset_metadata"} for row in rows])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (run,) = ipw.read([File("data-00000-of-00001.arrow", sink.getvalue().to_pybytes()), *given("summary.json")])
    (same,) = ipw.read(given("profile.jsonl", "summary.json"))
    assert run.requests == same.requests
    assert run.measures == same.measures


def test_what_is_missing_is_told_with_its_part() -> None:
    (old,) = codecarbon.read(given("emissions_old.csv"))
    assert "codecarbon does not tell peak_rss_bytes, max_temp_c, energy_j codecarbon.gpu" in report.lines([old])


def test_a_trace_lacks_the_energy_that_one_of_its_turns_lacks() -> None:
    (run,) = ipw.read(given("traces.jsonl"))
    assert [one.energy_j for one in run.requests] == [700, None]
    assert [one.n_out for one in run.requests] == [50, 50]
    assert [one.correct for one in run.scores] == [1, 0]


@pytest.mark.parametrize("lacking", [{}, {"output_tokens": 0}, {"output_tokens": None}])
def test_a_trace_has_no_tokens_where_one_of_its_turns_has_none(lacking: dict[str, object]) -> None:
    turns = [{"input_tokens": 5, "output_tokens": 7}, {"input_tokens": 3, **lacking}]
    trace = {"turns": turns, "total_wall_clock_s": 2.0, "completed": True}
    (run,) = ipw.read([File("x.jsonl", json.dumps(trace).encode())])
    assert [(one.n_in, one.n_out) for one in run.requests] == [(8, None)]


def test_codecarbon_s_energies_are_of_class_e_and_zeros_are_missing() -> None:
    first, *_, last = codecarbon.read(given("emissions.csv"))
    assert of(first, "energy_j", source="total").value == pytest.approx(7300)
    assert of(first, "energy_j", source="codecarbon.ram").value == pytest.approx(300)
    assert of(first, "mean_power_w").value == pytest.approx(73)
    assert {m.klass for m in first.measures if m.name == "energy_j"} == {"E"}
    assert (of(first, "energy_j", source="total").scope, of(last, "energy_j", source="total").scope) == (
        "module",
        "process",
    )
    assert of(last, "energy_j", source="codecarbon.gpu").value is None
    assert first.started_ns == 1_795_209_000 * 10**9 - 100 * 10**9
    (old,) = codecarbon.read(given("emissions_old.csv"))
    assert of(old, "energy_j", source="total").value == pytest.approx(1500)


def test_a_failed_read_of_rapl_is_flagged() -> None:
    _, short, long, _ = codecarbon.read(given("emissions.csv"))
    assert short.validity == "invalid"
    assert of(short, "energy_j", source="total").value is None
    assert "262 kJ" in str(of(short, "energy_j", source="total").reason)
    assert "counter_reset" in {one.code for one in long.reasons}, "in two hours it hides: 36 W more"
    assert long.validity == "degraded"


def test_ten_watts_of_tegrastats_are_ten_watts() -> None:
    (dated,) = tegrastats.read(given("tegrastats_dated.log"))
    assert dated.said["period_ms"] == pytest.approx(1000)
    assert of(dated, "mean_power_w").value == pytest.approx(8.0)
    assert of(dated, "energy_j", source="total").value == pytest.approx(8.0 * 117)
    assert of(dated, "energy_j", source="total").klass == "C"
    assert of(dated, "max_temp_c", "max", source="").value == pytest.approx(50.2)
    assert dated.started_ns is not None
    (bare,) = tegrastats.read(given("tegrastats_bare.log"), period_ms=500)
    assert of(bare, "energy_j", source="total").value == pytest.approx(8.0 * 117 / 2)
    assert bare.started_ns is None
    with pytest.raises(UserError, match="--period-ms"):
        tegrastats.read(given("tegrastats_bare.log"))


def test_a_board_without_an_input_rail_has_no_total() -> None:
    raw = (HERE / "tegrastats_dated.log").read_bytes().replace(b"VDD_IN", b"VDD_GPU_SOC")
    (run,) = tegrastats.read([File("agx.log", raw)])
    assert of(run, "energy_j", source="total").value is None
    assert of(run, "energy_j", source="tegrastats.VDD_SOC.power").value is not None


def test_dates_that_contradict_the_period_are_told() -> None:
    (run,) = tegrastats.read(given("tegrastats_dated.log"), period_ms=100)
    assert any("dates say 1000 ms" in note for note in run.notes)


ALL = [
    (llama_bench.read, ("llama_bench.jsonl",)),
    (ipw.read, ("profile.jsonl", "summary.json")),
    (tegrastats.read, ("tegrastats_dated.log",)),
    (codecarbon.read, ("emissions.csv",)),
    (localscore.read, ("localscore.json",)),
]


@pytest.mark.parametrize(("read", "names"), ALL, ids=lambda one: getattr(one, "__module__", "").rpartition(".")[2])
def test_every_value_is_there_or_has_a_reason(read, names) -> None:
    runs = read(given(*names))
    for run in runs:
        assert all((m.value is None) == bool(m.reason) for m in run.measures)
        assert "imported" in {one.code for one in run.reasons}
    found = json.loads(json.dumps(report.as_json("x", given(*names), runs, [])))
    assert problems(NAMED["imported"], found) == []
    assert report.sheet("x", runs).rows
    assert report.lines(runs)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "data")


def test_the_same_files_are_the_same_runs_and_nobody_pools_them(store: Store) -> None:
    runs = [run for read, names in ALL for run in read(given(*names))]
    folders = store_imported(store, runs, Silent())
    assert store_imported(store, [run for read, names in ALL for run in read(given(*names))], Silent()) == folders
    assert len(store.stored_ids()) == len(runs) == 8
    with duckdb.connect(str(store.index), read_only=True) as index:
        origins = {row[0] for row in index.execute("SELECT DISTINCT origin FROM results").fetchall()}
        condition, values = Selection.parse("").sql(pooled=True)
        pooled = index.execute(f"SELECT count(*) FROM results WHERE {condition}", values).fetchall()
        condition, values = Selection.parse("origin=codecarbon").sql(pooled=True)
        energies = index.execute(f"SELECT energy_j FROM results WHERE {condition} ORDER BY 1", values).fetchall()
    assert origins == {"llama-bench", "intelligence-per-watt", "tegrastats", "codecarbon", "localscore"}
    assert pooled == [(0,)]
    assert [round(row[0]) for row in energies] == [180, 7300, 427743]
    evidence = store.folder(folders[0].name).evidence / "llama_bench.jsonl"
    assert evidence.read_bytes() == (HERE / "llama_bench.jsonl").read_bytes()


def test_many_runs_are_told_of_and_come_into_the_index_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[object] = []
    swap = index_module._swap
    monkeypatch.setattr(index_module, "_swap", lambda *paths: (published.append(paths), swap(*paths)))
    told: list[tuple[str, int, int]] = []
    runs = codecarbon.read(given("emissions.csv"))
    store_imported(store, runs, Silent(), lambda *words: told.append(words))
    assert [one for one in told if one[0] == "storing runs"] == [("storing runs", at, 4) for at in range(4)]
    assert told[-1] == ("indexing runs", 4, 4)
    assert len(published) == 1


def test_runs_that_cannot_be_indexed_are_stored(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(importing, "refresh", full)
    watch = Silent()
    store_imported(store, codecarbon.read(given("emissions.csv")), watch)
    assert len(store.stored_ids()) == 4
    assert len(watch.said) == 1
    assert "the disk is full; then: meltbench rebuild" in watch.said[0]


def test_a_file_that_has_grown_gives_its_old_runs_once(store: Store) -> None:
    lines = (HERE / "emissions.csv").read_text().splitlines(keepends=True)
    store_imported(store, codecarbon.read([File("emissions.csv", "".join(lines[:3]).encode())]), Silent())
    store_imported(store, codecarbon.read(given("emissions.csv")), Silent())
    assert len(store.stored_ids()) == 4
    row = (HERE / "llama_bench.jsonl").read_bytes()
    store_imported(store, llama_bench.read([File("a.jsonl", row)]), Silent())
    more = row + row.replace(b"0c1e570", b"feedbee")
    store_imported(store, llama_bench.read([File("b.jsonl", more)]), Silent())
    assert len(store.stored_ids()) == 6
    kept = [
        path
        for name in store.stored_ids()
        for path in store.folder(name).evidence.iterdir()
        if path.name == "b.jsonl.rows.jsonl"
    ]
    (again,) = llama_bench.read([File("x", kept[0].read_bytes())])
    assert again.runner is not None
    assert again.runner["version"] == "1 (feedbee)"


def test_two_runs_whose_names_are_alike_are_both_stored(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Imported, "run_id", lambda self, attempt: f"20260101T000000Z-00000{attempt}")
    first, second = localscore.read([*given("localscore.json")]), codecarbon.read(given("emissions_old.csv"))
    store_imported(store, [*first, *second, *first], Silent())
    assert store.stored_ids() == ["20260101T000000Z-000000", "20260101T000000Z-000001"]


def test_a_device_may_be_named_and_then_the_run_is_still_the_same() -> None:
    (named,) = llama_bench.read(given("llama_bench.json"), "desk")
    assert named.device == "desk"
    assert named.run_id(0) == llama_bench.read(given("llama_bench.json"))[0].run_id(0)


def test_a_row_that_we_wrote_keeps_its_mode_and_is_nobody_else_s() -> None:
    (run,) = llama_bench.read([text(entry(mode="server", meltbench={"run_id": "x"}))])
    assert run.runner is not None
    assert (run.tool, run.runner["mode"]) == ("meltbench-export", "server")
    assert of(run, "prefill_tps", "median", "pp16").value is not None
    mine = {"run_id": "x", "origin": "llama-bench", "device": "desk"}
    (theirs,) = llama_bench.read([text(entry(mode="bench", meltbench=mine))])
    assert (theirs.tool, theirs.device) == ("llama-bench", "desk")
    (stranger,) = llama_bench.read([text(entry(mode="server"))])
    assert stranger.runner is not None
    assert (stranger.tool, stranger.runner["mode"]) == ("llama-bench", "bench")
