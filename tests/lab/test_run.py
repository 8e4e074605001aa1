"""The whole road with the real engine and the real model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cli import QUICK, Bench

from meltbench import plan
from meltbench.assemble import assemble
from meltbench.probe.journal import read_journal
from meltbench.spec import Spec

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("default_model")]


def medians(run: dict[str, object]) -> dict[str, float | None]:
    measures = run["measures"]
    assert isinstance(measures, list)
    of_run = [m for m in measures if m["phase"] == "run"]
    return {m["name"]: m["value"] for stat in ("max", "value", "median") for m in of_run if m["stat"] == stat}


def codes(run: dict[str, object]) -> set[str]:
    reasons = run["reasons"]
    assert isinstance(reasons, list)
    return {reason["code"] for reason in reasons}


def test_the_main_job_and_the_same_numbers_in_plain_duckdb(bench: Bench) -> None:
    done = bench.run("run", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "smollm2-135m-q4 stands for smollm2-135m-q4_1, 5.74 bits per weight" in done.stderr
    for word in (
        "ttft_s",
        "prefill_tps",
        "decode_tps",
        "peak_rss_bytes",
        "energy_j",
        "validity",
        "not_gated",
        "stored in",
    ):
        assert word in done.stdout
    (row,) = bench.json("runs")
    shown = bench.json("show", row["run_id"])
    assert shown["runner"]["accelerator"] == "CPU"
    assert shown["model"]["sha256"].startswith("b179c952")
    with duckdb.connect(str(bench.data / "meltbench.duckdb"), read_only=True) as db:
        wide = db.sql("SELECT * FROM runs_wide").df().iloc[0]
        requests = db.sql("SELECT count(*) FROM requests WHERE role = 'timed' AND status = 'ok'").fetchall()
    assert requests == [(5,)]
    found = medians(shown)
    for name in ("ttft_s", "prefill_tps", "decode_tps", "load_s", "peak_rss_bytes", "wall_s"):
        assert found[name] is not None
        assert wide[name] == found[name]
    assert wide["run_id"] == row["run_id"]


def test_observed_and_reported_rates_agree(bench: Bench) -> None:
    (run,) = bench.json("run", *QUICK, "--set", "max_tokens=64")
    ratios = [r["decode_tps"] / r["engine_decode_tps"] for r in run["requests"]]
    # The engine stamps a token when it is made, the probe when it arrives: on a busy machine one may be held up.
    assert sorted(ratios)[len(ratios) // 2] == pytest.approx(1, abs=0.1)
    assert all(r["ttft_s"] >= r["engine_prefill_s"] for r in run["requests"])


def test_repetitions_are_runs_of_their_own_with_one_key(bench: Bench) -> None:
    runs = bench.json("run", *QUICK, "--reps", "2")
    assert [run["rep"] for run in runs] == [0, 1]
    assert len({run["run_id"] for run in runs}) == 2
    assert len({run["cell_key"] for run in runs}) == 1
    assert len({run["plan_hash"] for run in runs}) == 1
    orders = [[r["item"] for r in run["requests"]] for run in runs]
    assert orders[0] != orders[1]  # each run has a seed of its own
    answers = [{r["item"]: r["answer"] for r in run["requests"]} for run in runs]
    assert answers[0] == answers[1]


def test_a_dry_run_prints_the_hash_that_the_run_carries(bench: Bench) -> None:
    planned = bench.json("run", *QUICK, "--dry-run")
    assert not bench.data.exists()
    assert planned["plan_hash"] != bench.json("run", *QUICK, "--seed", "1", "--dry-run")["plan_hash"]
    (run,) = bench.json("run", *QUICK)
    assert run["plan_hash"] == planned["plan_hash"]


def test_every_option_changes_the_plan(bench: Bench) -> None:
    plain = bench.json("run", "--dry-run")["plan_hash"]
    options = (
        *(
            ("--set", f"{key}=77")
            for key in (
                "idle_s",
                "gate_timeout_s",
                "warmup",
                "repeat",
                "max_tokens",
                "timeout_s",
                "ctx",
                "batch",
                "ubatch",
            )
        ),
        ("--set", "load=cold"),
        ("--set", "cache_ram_mib=none"),
        ("--set", "gpu_layers=0"),
        ("--threads", "3"),
        ("--seed", "5"),
        ("--reps", "2"),
        ("--workload", "grid"),
        ("--model", "qwen-1.5b-q4"),
    )
    hashes = [bench.json("run", *option, "--dry-run")["plan_hash"] for option in options]
    assert len({plain, *hashes}) == len(options) + 1


def test_a_thread_sweep_is_interleaved_and_each_number_a_cell_of_its_own(bench: Bench) -> None:
    words = ("--threads", "1,2", "--reps", "2", "--set", "repeat=1", "--set", "warmup=0", "--seed", "3")
    planned = bench.json("run", *QUICK, *words, "--dry-run")
    assert "threads" not in planned["knobs"]
    rounds = [[cell["knobs"]["threads"] for cell in planned["cells"] if cell["rep"] == rep] for rep in (0, 1)]
    assert [sorted(one) for one in rounds] == [[1, 2], [1, 2]]
    assert bench.json("run", *QUICK, *words, "--dry-run") == planned
    done = bench.run("run", *QUICK, *words)
    assert done.returncode == 0, done.stderr
    _, summary = done.stdout.split("4 runs; medians")
    rows = [line.split() for line in summary.splitlines() if line.strip()[:1].isdigit()]
    assert [(row[0], row[-1]) for row in rows] == [("1", "2"), ("2", "2")]
    runs = sorted((json.loads(path.read_text()) for path in bench.data.glob("runs/*/manifest.json")), key=by_id)
    assert [(run["knobs"]["threads"], run["rep"], run["round"]) for run in runs] == [
        (cell["knobs"]["threads"], cell["rep"], cell["rep"]) for cell in planned["cells"]
    ]
    keys = {run["knobs"]["threads"]: {one["cell_key"] for one in runs if one["knobs"] == run["knobs"]} for run in runs}
    assert all(len(found) == 1 for found in keys.values())
    assert keys[1] != keys[2]


def by_id(run: dict[str, Any]) -> str:
    return str(run["run_id"])


def test_orders_of_rounds_are_drawn_and_hold_every_number_once() -> None:
    cells = plan.make(Spec(threads=(1, 2, 4), reps=30)).cells
    orders = [tuple(dict(cell.knobs)["threads"] for cell in cells[at : at + 3]) for at in range(0, 90, 3)]
    assert {tuple(sorted(map(str, order))) for order in orders} == {("1", "2", "4")}
    assert len(set(orders)) > 3
    assert [cell.rep for cell in cells] == [at // 3 for at in range(90)]


def test_a_grid_keeps_its_points_apart_and_its_depth_true(bench: Bench) -> None:
    (run,) = bench.json(
        "run", *QUICK[:2], "--workload", "grid", "--set", "points=pp64,tg8,tg8@d64", "--set", "repeat=2"
    )
    timed = [r for r in run["requests"] if r["role"] == "timed"]
    assert {(r["item"], r["n_in"], r["n_cached"], r["n_out"]) for r in timed} == {
        ("pp64", 64, 0, 0),
        ("tg8", 1, 0, 8),
        ("tg8@d64", 65, 64, 8),
    }
    found = {(m["phase"], m["name"]): m["value"] for m in run["measures"] if m["stat"] == "median"}
    assert found["pp64", "prefill_tps"] > 0
    assert found["tg8@d64", "decode_tps"] > 0
    assert ("run", "decode_tps") not in found
    bench_rows = json.loads(bench.run("export", "--format", "llama-bench").stdout)
    assert {(r["n_prompt"], r["n_gen"], r["n_depth"]) for r in bench_rows} == {(64, 0, 0), (0, 8, 0), (0, 8, 64)}


def test_prompts_of_ones_own(bench: Bench) -> None:
    path = bench.home / "mine.jsonl"
    path.write_text('{"id": "a", "prompt": "One two three", "max_tokens": 5}\n')
    (run,) = bench.json("run", *QUICK, "--workload", str(path))
    assert [r["item"] for r in run["requests"]] == ["a", "a"]
    assert run["requests"][1]["n_out"] <= 5


def test_a_model_by_path_and_a_cold_load(bench: Bench, default_model: Path) -> None:
    path = bench.home / "my model.gguf"
    shutil.copy(default_model, path)
    os.sync()
    (run,) = bench.json("run", *QUICK, "--model", str(path), "--set", "load=cold")
    assert run["conditions"]["load"] in ("cold", "mixed")
    path.read_bytes()  # all of it, whatever the engine itself touched
    (warm,) = bench.json("run", *QUICK, "--model", str(path))
    assert warm["conditions"]["load"] == "warm"
    assert warm["cell_key"] != run["cell_key"]


@pytest.mark.alone
def test_sleep_takes_two_seconds_and_a_hog_its_memory(bench: Bench) -> None:
    (slept,) = bench.json("exec", "--set", "idle_s=0.2", "--", "sleep", "2")
    found = medians(slept)
    assert found["wall_s"] is not None
    assert 2.0 <= found["wall_s"] < 2.5
    assert found["cpu_s"] is not None
    assert found["cpu_s"] < 0.1
    hog = "b = bytearray(300 << 20)\nfor i in range(0, len(b), 4096): b[i] = 1\nx = sum(range(5_000_000))"
    (hogged,) = bench.json("exec", "--set", "idle_s=0.2", "--", sys.executable, "-c", hog)
    found = medians(hogged)
    assert found["peak_rss_bytes"] is not None
    assert 300 << 20 < found["peak_rss_bytes"] < 340 << 20
    assert found["cpu_s"] is not None
    assert found["wall_s"] is not None
    assert 0 < found["cpu_s"] <= found["wall_s"] * 1.1


def test_the_arguments_of_a_command_are_taken_literally(bench: Bench) -> None:
    odd = ["{port:x}", "{pid:engine}", "a b", "*", "%41", "é", ""]
    code = "import sys; print(sys.argv[1:])"
    (run,) = bench.json("exec", "--set", "idle_s=0", "--", sys.executable, "-c", code, *odd)
    journal = read_journal(Path(run["stored"]) / "evidence" / "journal")
    said = [raw for s in journal.streams.values() if s.kind == "out" for raw in s.readings.raw]
    assert b"".join(said).decode().strip() == str(odd)


def test_a_stored_run_measured_again_gives_the_same_numbers(bench: Bench) -> None:
    (run,) = bench.json("run", *QUICK)
    folder = Path(run["stored"])
    ticket, journal = json.loads((folder / "ticket.json").read_text()), read_journal(folder / "evidence" / "journal")
    again = assemble(ticket, journal, lambda _: None)
    assert json.loads(json.dumps([asdict(measure) for measure in again.measures])) == run["measures"]
    assert again.manifest["validity"] == run["validity"]


def test_the_probes_own_memory_is_not_taken_for_a_small_programs(bench: Bench) -> None:
    (run,) = bench.json("exec", "--set", "idle_s=0", "--", "true")
    folder = Path(run["stored"])
    ticket, journal = json.loads((folder / "ticket.json").read_text()), read_journal(folder / "evidence" / "journal")
    ended = journal.first("exit")
    assert ended is not None
    ended["maxrss_floor_bytes"] = ended["maxrss_bytes"]
    (peak,) = [m for m in assemble(ticket, journal, lambda _: None).measures if m.name == "peak_rss_bytes"]
    assert peak.method == "VmHWM" if peak.value is not None else "no more than the probe" in str(peak.reason)


def test_a_command_that_fails_is_stored_as_failed(bench: Bench) -> None:
    (run,) = bench.json("exec", "--set", "idle_s=0", "--", "sh", "-c", "echo words; exit 3", code=1)
    assert (run["outcome"], run["failure_log"]) == ("failed", "words")
    assert "command_failed" in codes(run)


def test_idle_measures_nothing_but_the_machine(bench: Bench) -> None:
    (run,) = bench.json("run", "--workload", "idle", "--set", "window_s=1", "--set", "idle_s=0.2")
    assert run["model"] is None
    assert 1.0 <= (medians(run)["wall_s"] or 0) < 1.5
    assert "ttft_s" not in medians(run)


WATTS = 8.0
RANGE_UJ = 65_532_610_987


@pytest.fixture
def made_machine(bench: Bench) -> Iterator[str]:
    """A made /sys whose RAPL counter counts a known power in real time, and whose one zone reads 50 C."""
    zone = bench.home / "sys" / "class" / "powercap" / "intel-rapl:0"
    heat = bench.home / "sys" / "class" / "thermal" / "thermal_zone0"
    for folder in (zone, heat):
        folder.mkdir(parents=True)
    for path, text in {
        zone / "name": "package-0",
        zone / "max_energy_range_uj": str(RANGE_UJ),
        zone / "energy_uj": "0",
        heat / "type": "x86_pkg_temp",
        heat / "temp": "50000",
    }.items():
        path.write_text(text + "\n")
    (bench.home / "devices").mkdir()
    tree = f'inherits = "local"\n[roots]\nsys = "{bench.home / "sys"}"\n'
    (bench.home / "devices" / "made.toml").write_text(tree)
    stop = threading.Event()

    def count() -> None:
        with (zone / "energy_uj").open("r+b", buffering=0) as counter:
            start = time.clock_gettime(time.CLOCK_BOOTTIME)
            while not stop.wait(0.001):
                joules = WATTS * (time.clock_gettime(time.CLOCK_BOOTTIME) - start)
                # It starts 25 J below its end, so that it wraps inside the run.
                os.pwrite(counter.fileno(), b"%-12d\n" % ((RANGE_UJ - 25_000_000 + int(joules * 1e6)) % RANGE_UJ), 0)

    thread = threading.Thread(target=count)
    thread.start()
    yield "made"
    stop.set()
    thread.join()


def test_a_made_counter_of_known_power_gives_the_right_joules_across_a_wrap(bench: Bench, made_machine: str) -> None:
    (run,) = bench.json("run", *QUICK, "--set", "idle_s=1", "--device", made_machine)
    found = {
        (m["name"], m["phase"]): m for m in run["measures"] if m["name"].endswith(("energy_j", "power_w", "temp_c"))
    }
    wall = medians(run)["wall_s"]
    assert wall is not None
    energy = found["energy_j", "run"]
    assert energy["reason"] is None
    assert energy["value"] == pytest.approx(WATTS * wall, rel=0.05)
    assert abs(energy["value"] - WATTS * wall) < energy["u_k2"]
    assert (energy["scope"], energy["klass"]) == ("soc", "B")
    assert found["mean_power_w", "run"]["value"] == pytest.approx(WATTS, rel=0.05)
    # Constant power: what the run cost above idle is nothing, within its own uncertainty.
    net = found["net_energy_j", "run"]
    assert net["value"] is None or abs(net["value"]) <= net["u_k2"]
    assert found["max_temp_c", "run"]["value"] == 50
    assert "no_thermal_sensor" not in codes(run)


def test_no_energy_is_a_reason_and_never_a_zero(bench: Bench) -> None:
    (bench.home / "sys").mkdir()
    (bench.home / "devices").mkdir()
    (bench.home / "devices" / "bare.toml").write_text(f'inherits = "local"\n[roots]\nsys = "{bench.home / "sys"}"\n')
    (run,) = bench.json("exec", "--set", "idle_s=0.2", "--device", "bare", "--", "sleep", "0.3")
    energy = next(m for m in run["measures"] if m["name"] == "energy_j")
    assert energy["value"] is None
    assert energy["reason"].startswith("no_energy_source")
    assert run["conditions"]["cores_physical"] is None


def test_the_index_can_be_deleted_and_a_flipped_byte_is_found(bench: Bench) -> None:
    bench.json("exec", "--set", "idle_s=0", "--", "true")
    bench.json("run", *QUICK)
    index = bench.data / "meltbench.duckdb"

    def content() -> dict[str, list[tuple[object, ...]]]:
        with duckdb.connect(str(index), read_only=True) as db:
            names = [row[0] for row in db.sql("SELECT table_name FROM information_schema.tables ORDER BY 1").fetchall()]
            return {name: sorted(db.sql(f'SELECT * FROM "{name}"').fetchall(), key=str) for name in names}

    before = content()
    index.unlink()
    assert bench.json("rebuild")["runs"] == 2
    assert content() == before
    assert bench.json("verify") == []
    victim = next((bench.data / "runs").glob("*/evidence/journal"))
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(raw)
    findings = bench.json("verify", code=1)
    assert [Path(f["file"]).name for f in findings] == ["journal"]


def test_help_has_an_example_and_lists_are_json(bench: Bench) -> None:
    for command in (
        "run",
        "exec",
        "runs",
        "show",
        "collect",
        "export",
        "verify",
        "rebuild",
        "models",
        "devices",
        "runners",
    ):
        done = bench.run(command, "--help")
        assert done.returncode == 0
        assert "Example: " in " ".join(done.stdout.split())
    for kind, name in (
        ("models", "smollm2-135m-q4"),
        ("devices", "local"),
        ("runners", "llamacpp"),
        ("workloads", "quick"),
    ):
        assert name in {row["name"] for row in bench.json(kind)}


def test_a_reader_that_goes_away_is_no_error(bench: Bench) -> None:
    command = f"{sys.executable} -m meltbench workloads --json | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=bench.home)
    assert "Traceback" not in done.stderr
