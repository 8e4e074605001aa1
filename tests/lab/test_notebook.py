"""A notebook's work by the API alone, with the real engine: run, frame, query, plot."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import duckdb
import pytest
from cli import Bench, heed_interrupts

import meltbench

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("default_model", "probe_binary")]
UNGATED = {"gate_timeout_s": 0}  # a machine with thermal zones would be waited for
SHORT = {**UNGATED, "idle_s": 0.3, "max_tokens": 16}


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MELTBENCH_DATA", str(tmp_path / "data"))


def test_a_notebook_runs_frames_queries_and_plots() -> None:
    said: list[str] = []
    # Long enough to be seen: it is looked for once a second.
    runs = meltbench.run(reps=2, settings={**SHORT, "max_tokens": 64}, progress=said.append)
    frame = runs.frame
    assert list(frame["run_id"]) == [run.run_id for run in runs]
    assert (frame["decode_tps"] > 0).all()
    assert "answering requests" in said

    run = runs[-1]
    assert run.ok
    assert run.value("decode_tps") == frame["decode_tps"].iloc[1]
    timed = run.requests.query("role == 'timed'")
    assert (timed["t_first_s"] - timed["t_send_s"]).to_numpy() == pytest.approx(timed["ttft_s"].to_numpy(), abs=1e-6)
    assert run.tokens["n"].sum() == run.requests["n_out"].sum()
    busy = run.samples("cpu.busy_s")
    assert busy["t_s"].is_monotonic_increasing
    assert busy["value"].is_monotonic_increasing
    phases = run.phases.set_index("name")
    assert phases.loc["idle_before", "t0_s"] == 0

    store = meltbench.Store()
    best = store.sql("SELECT run_id, max(decode_tps) AS best FROM requests GROUP BY ALL ORDER BY run_id")
    assert isinstance(best, duckdb.DuckDBPyRelation)
    again = meltbench.run("smollm2-135m-q4", settings=SHORT)
    assert best.df()["run_id"].tolist() == frame["run_id"].tolist()
    assert len(store.runs()) == 3
    assert store.run().run_id == again[0].run_id

    figure = run.plot()
    names = [trace.name.partition(" (")[0] for trace in figure.data if trace.hoverinfo != "skip"]
    assert "token rate" in names
    assert json.loads(figure.to_json())["layout"]["annotations"]
    assert run.run_id in run._repr_html_()
    assert run.run_id in runs._repr_html_()


def test_it_works_in_a_worker_thread() -> None:
    found: list[meltbench.Runs] = []

    def work() -> None:
        found.append(
            meltbench.run(workload="grid", settings={**UNGATED, "idle_s": 0.3, "repeat": 1, "points": ["pp32", "tg8"]})
        )

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (run,) = found[0]
    assert (run.value("prefill_tps", phase="pp32") or 0) > 0
    assert (run.value("decode_tps", phase="tg8") or 0) > 0
    assert run.plot().to_json()


def test_ctrl_c_raises_interrupted_and_keeps_what_was_done(bench: Bench, tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import meltbench
        try:
            meltbench.run(reps=50, settings={SHORT!r}, progress=True)
        except meltbench.MeltbenchError as error:
            print(type(error).__name__, error)
        print(len(meltbench.Store()), meltbench.Store().run().ok)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    bench.answering()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert re.search(r"^Interrupted interrupted after 1 of 50 runs; what was stored: \S+ in ", out)
    assert out.splitlines()[1] == "1 True"
    assert "finishing this run, then stopping" in err
