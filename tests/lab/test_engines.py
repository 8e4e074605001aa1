"""Every kind of engine on the whole road, with real programs and the real model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tarfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cli import QUICK, Bench
from engines_kit import in_process_env, stock_folder
from test_run import WATTS, made_machine  # noqa: F401  (the fixture of a machine with a known power)

from meltbench.assemble import assemble
from meltbench.probe.journal import read_journal

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("default_model")]
POINTS = ("--set", "points=pp64,tg16,tg16@d64,pp32+tg8", "--set", "repeat=2")
FAST = ("--set", "idle_s=0.3")


def found(run: dict[str, Any], stat: str = "median") -> dict[tuple[str, str], Any]:
    return {(m["phase"], m["name"]): m for m in run["measures"] if m["stat"] == stat}


@pytest.mark.alone  # its lines, late on a busy machine, no longer agree with its own clock, and then it has no rate
def test_llama_bench_measures_a_grid_by_its_own_clock(
    bench: Bench,
    made_machine: str,  # noqa: F811
    default_model: Path,
) -> None:
    default_model.read_bytes()  # into the page cache, for its load is told by what lies there
    (run,) = bench.json(
        *("run", "--runner", "llama-bench", "--engine", str(stock_folder())),
        *(*POINTS, "--set", "idle_s=1", "--device", made_machine),
    )
    assert (run["runner"]["mode"], run["runner"]["accelerator"]) == ("bench", "CPU")
    assert run["workload"]["name"] == "grid"
    timed = [r for r in run["requests"] if r["role"] == "timed"]
    assert {(r["item"], r["n_in"], r["n_cached"], r["n_out"]) for r in timed} == {
        ("pp64", 64, 0, 0),
        ("tg16", 0, 0, 16),
        ("tg16@d64", 64, 64, 16),
        ("pp32+tg8", 32, 0, 8),
    }
    assert len(timed) == 8
    assert all(before["t_end_ns"] <= after["t_send_ns"] for before, after in pairwise(timed))
    medians = found(run)
    assert medians["pp64", "bench_prefill_tps"]["value"] > 0
    assert medians["tg16@d64", "bench_decode_tps"]["value"] > 0
    assert medians["pp32+tg8", "bench_prefill_tps"]["method"].startswith("progress marks")
    assert not {name for _, name in medians} & {"prefill_tps", "decode_tps", "ttft_s"}
    values = found(run, "value")
    # The counter of the made machine counts a constant power, so each phase has its own time's worth of it.
    for phase in ("run", "prefill", "decode", "load"):
        assert values[phase, "energy_j"]["reason"] is None, phase
    decode_s = sum(r["e2e_s"] for r in timed if r["item"] in ("tg16", "tg16@d64"))
    decode_s += sum(8 / r["decode_tps"] for r in timed if r["item"] == "pp32+tg8")
    assert values["decode", "energy_j"]["value"] == pytest.approx(WATTS * decode_s, rel=0.1)
    of_tg16 = found(run, "ratio_of_sums")["tg16", "bench_j_per_output_token"]
    assert of_tg16["reason"] is None, of_tg16
    assert of_tg16["value"] > 0
    assert values["run", "bench_load_s"]["method"] == "warm page cache"
    assert values["run", "bench_load_s"]["value"] > 0
    assert values["run", "cpu_s"]["value"] > 0
    assert found(run, "max")["run", "peak_rss_bytes"]["value"] > 100 << 20
    rows = json.loads(bench.run("export", "--format", "llama-bench").stdout)
    assert {(r["n_prompt"], r["n_gen"], r["n_depth"], r["mode"]) for r in rows} >= {(64, 0, 0, "bench")}
    with duckdb.connect(str(bench.data / "meltbench.duckdb"), read_only=True) as db:
        assert db.sql("SELECT ttft_s, decode_tps, mode FROM runs_wide").fetchall() == [(None, None, "bench")]
        modes = db.sql("SELECT DISTINCT mode, accelerator FROM energy").fetchall()
    assert modes == [("bench", "CPU")]


def test_a_cold_load_is_told_from_a_warm_one_in_every_mode(bench: Bench, default_model: Path) -> None:
    model = bench.home / "m.gguf"
    shutil.copy(default_model, model)
    os.sync()
    given = ("--model", str(model), *FAST, "--workload", "grid", "--set", "points=tg4", "--set", "repeat=1")
    bench.env |= in_process_env()
    bench_runner = ("llama-bench", "--engine", str(stock_folder()))
    for prefix, runner in (("bench_", bench_runner), ("inprocess_", ("llama-cpp-python",))):
        (cold,) = bench.json("run", "--runner", *runner, *given, "--set", "load=cold")
        model.read_bytes()  # all of it, whatever the engine itself touched
        (warm,) = bench.json("run", "--runner", *runner, *given)
        assert cold["conditions"]["load"] in ("cold", "mixed")
        assert warm["conditions"]["load"] == "warm"
        assert found(warm, "value")["run", f"{prefix}load_s"]["value"] > 0


def test_an_engine_in_a_process_sees_the_tokens_that_a_server_sees(bench: Bench) -> None:
    bench.env |= in_process_env()
    (inside,) = bench.json("run", *QUICK, "--runner", "llama-cpp-python", "--set", "flash_attn=1")
    (served,) = bench.json("run", *QUICK, "--engine", str(stock_folder()))
    assert (inside["runner"]["mode"], served["runner"]["mode"]) == ("in-process", "server")
    assert inside["runner"]["accelerator"] == "CPU"
    one, other = ({r["item"]: r for r in run["requests"]} for run in (inside, served))
    assert {item: (r["n_in"], r["n_out"]) for item, r in one.items()} == {
        item: (r["n_in"], r["n_out"]) for item, r in other.items()
    }
    assert {item: r["answer"] for item, r in one.items()} == {item: r["answer"] for item, r in other.items()}
    medians = found(inside)
    for name in ("ttft_s", "tpot_s", "prefill_tps", "decode_tps", "itl_s"):
        assert medians["run", f"inprocess_{name}"]["value"] > 0
        assert ("run", name) not in medians
    assert len({r["cell_key"] for r in (inside, served)}) == 2
    with duckdb.connect(str(bench.data / "meltbench.duckdb"), read_only=True) as db:
        wide = db.sql(
            "SELECT mode, decode_tps IS NULL, inprocess_decode_tps IS NULL FROM runs_wide ORDER BY 1"
        ).fetchall()
    assert wide == [("in-process", True, False), ("server", False, True)]
    folder = Path(inside["stored"])
    ticket, journal = json.loads((folder / "ticket.json").read_text()), read_journal(folder / "evidence" / "journal")
    assert assemble(ticket, journal, lambda _: None).manifest["cell_key"] == inside["cell_key"] != ticket["cell_key"]
    ticket["conditions"]["gpus"] = ["NVIDIA", "0x1234"]
    noted = assemble(ticket, journal, lambda _: None)
    (note,) = [reason for reason in noted.reasons if reason.code == "gpu_unused"]
    assert (note.state, note.detail) == ("valid", "the engine computed on the CPU only, the machine has NVIDIA")
    assert noted.manifest["validity"] == inside["validity"]


def test_a_grid_in_a_process_keeps_its_depths_true(bench: Bench) -> None:
    bench.env |= in_process_env()
    points = ("--set", "points=pp64,tg8,tg8@d64", "--set", "repeat=2")
    (run,) = bench.json("run", *FAST, "--runner", "llama-cpp-python", "--workload", "grid", *points)
    timed = [r for r in run["requests"] if r["role"] == "timed"]
    assert {(r["item"], r["n_in"], r["n_cached"], r["n_out"], r["status"]) for r in timed} == {
        ("pp64", 64, 0, 0, "ok"),
        ("tg8", 1, 0, 8, "ok"),
        ("tg8@d64", 65, 64, 8, "ok"),
    }
    assert found(run)["tg8@d64", "inprocess_decode_tps"]["value"] > 0


def test_answers_end_by_themselves_where_they_may(bench: Bench) -> None:
    bench.env |= in_process_env()
    mine = bench.home / "mine.jsonl"
    mine.write_text('{"id": "a", "messages": [{"role": "user", "content": "Say only the word yes."}]}\n')
    (run,) = bench.json("run", *FAST, "--runner", "llama-cpp-python", "--workload", str(mine))
    last = run["requests"][-1]
    assert last["stop_reason"] == "eos"
    assert last["n_out"] < 128


def test_a_stock_archive_serves_both_of_its_programs(bench: Bench) -> None:
    archive = bench.home / "llama-b1-bin-linux.tar.gz"
    with tarfile.open(archive, "w:gz") as bundle:
        bundle.add(stock_folder(), "build/bin")
    bench.env["MELTBENCH_CACHE"] = str(bench.home / "cache")
    for runner, program in (("llamacpp", "llama-server"), ("llama-bench", "llama-bench")):
        planned = bench.json("run", "--runner", runner, "--engine", str(archive), "--dry-run")
        known = bench.json("run", "--runner", runner, "--engine", str(stock_folder()), "--dry-run")
        assert (planned["runner"]["engine"], planned["runner"]["sha256"]) == (program, known["runner"]["sha256"])
        assert "build" in planned["runner"]["version"]
    del bench.env["MELTBENCH_CACHE"]
    (run,) = bench.json("run", *QUICK, "--engine", str(archive))
    assert (run["outcome"], run["runner"]["engine"]) == ("done", "llama-server")
    assert run["runner"]["version"] != "unknown"
    assert run["runner"]["accelerator"] == "CPU"


def test_a_program_that_is_killed_in_the_middle_leaves_what_was_measured(bench: Bench) -> None:
    process = bench.start(
        *("run", "--json", *FAST, "--runner", "llama-bench", "--engine", str(stock_folder())),
        *("--set", "points=tg32", "--set", "repeat=60"),
    )
    bench.wait_for(lambda s: s.get("op") == "exec")
    program = bench.engine_pid((b"llama-bench\0", b"--progress"), 30)
    time.sleep(3)
    os.kill(program, signal.SIGKILL)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    (run,) = json.loads(out)
    assert run["outcome"] == "failed"
    assert "signal 9" in run["failure"]
    assert "killed from outside" in run["failure"]
    assert {r["status"] for r in run["requests"] if r["role"] == "timed"} <= {"no_sample", "unfinished"}
    assert found(run, "value")["run", "bench_load_s"]["value"] > 0
    assert bench.no_leftovers()
