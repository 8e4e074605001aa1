"""What the console prints of real runs: tables to be pasted, plots, and JSON with every key described."""

from __future__ import annotations

import json

import pytest
from cli import QUICK, Bench
from jsoncheck import NAMED, problems

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("default_model")]
BARE = ("--set", "idle_s=0")


def test_every_key_of_json_is_described_and_there(bench: Bench) -> None:
    documents = {
        "plan": [bench.json("run", "--dry-run"), bench.json("exec", "--dry-run", "--", "true")],
        "run": [
            *bench.json("run", *QUICK, "--reps", "2"),
            *bench.json("run", *QUICK[:2], "--workload", "grid", "--set", "points=pp32,tg8", "--set", "repeat=1"),
            *bench.json("run", "--workload", "idle", "--set", "window_s=0.5", *BARE),
            *bench.json("exec", *BARE, "--", "sh", "-c", "echo words; exit 3", code=1),
        ],
    }
    documents["run"] += [bench.json("show", run["run_id"]) for run in documents["run"]]
    bench.start_detached(30)
    documents["runs"] = [bench.json("runs")]
    documents["top"] = [bench.json("top")]
    documents["rebuild"] = [bench.json("rebuild")]
    victim = next((bench.data / "runs").glob("*/phases.parquet"))
    victim.write_bytes(b"PAR1")
    documents["verify"] = [bench.json("verify", code=1)]
    documents["models"] = [bench.json("models")]
    documents["model"] = [json.loads(bench.run("models", "show", "smollm2-135m", "--json").stdout)]
    documents["definitions"], documents["runners"] = ([bench.json(kind)] for kind in ("workloads", "runners"))
    documents["devices"] = [bench.json("devices")]
    documents["device"] = [json.loads(bench.run("devices", "show", "local", "--json").stdout)]
    documents["read"] = [bench.json("read", "/proc/meminfo", "--reader", "meminfo")]
    # Held by tests of their own.
    elsewhere = {"calibration", "selftest", "build", "cache", "import"}
    elsewhere |= {"inventory", "device added", "doctor", "device known"}
    elsewhere |= {"model pulled", "model added", "model quantised", "model built", "model built in MLC's form"}
    elsewhere |= {"compare", "contrast", "predict", "intelligence"}
    elsewhere |= {"intelligence_tables", "cost", "battery", "route", "pareto", "imported", "report"}
    assert set(documents) == set(NAMED) - elsewhere
    for name, printed in documents.items():
        assert printed
        for document in printed:
            assert problems(NAMED[name], document) == [], name
    bench.run("collect")


def test_a_key_that_is_new_or_gone_is_found() -> None:
    found = problems(NAMED["rebuild"], {"index": 3, "runs": None, "extra": 1})
    assert found == [
        "extra is not documented",
        "index is int, documented is text",
        "notes is documented and absent",
        "runs is NoneType, documented is integer",
    ]


def test_repetitions_end_with_a_summary_also_in_markdown(bench: Bench) -> None:
    done = bench.run("run", *QUICK, "--reps", "2", "--markdown")
    assert done.returncode == 0, done.stderr
    assert "**2 runs**" in done.stdout
    assert "|   | measure | median | least | most | n |" in done.stdout
    assert done.stdout.count("| peak_rss_bytes |") == 3
    listed = bench.run("runs", "--markdown", "--last", "1")
    lines = listed.stdout.splitlines()
    assert lines[0] == "**mode server**"
    assert len([line for line in lines if "smollm2" in line]) == 1
    assert bench.run("runs", "--json", "--markdown").returncode == 2
    assert "no such run" in bench.run("runs", "--model", "nosuch").stderr


def test_show_plots_what_there_is_and_can_leave_it_out(bench: Bench) -> None:
    (run,) = bench.json("run", *QUICK)
    shown = bench.run("show").stdout
    assert "token rate, tok/s" in shown
    assert "upright lines: load from" in shown
    assert "power: " in shown or "power, W" in shown
    assert "▗" in shown or "▄" in shown
    bare = bench.run("show", "--no-plot").stdout
    assert "upright lines" not in bare
    assert run["run_id"] in bare
    fenced = bench.run("show", "--markdown").stdout
    assert fenced.count("```") == 2
    assert "| phase | from | to | lasts |" in fenced
    assert json.loads(bench.run("show", "--json").stdout)["run_id"] == run["run_id"]
    bench.env["PYTHONIOENCODING"] = "ascii"
    plain = bench.run("show").stdout
    assert "upright lines" in plain
    assert "\\u25" not in plain.partition("phases")[0].partition("token rate")[2]
