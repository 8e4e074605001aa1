"""``meltbench import melt`` as a person uses it, on made runs of MELT's, and every command of its page."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from cli import Bench
from jsoncheck import NAMED, problems
from melt_kit import EPOCH_S, LlamaCpp, app, jetson, monsoon
from shared import shared

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "contract" / "melt"
SLOW = ("--option", "rate_hz=1000")


def phone(bench: Bench, name: str = "run", **plan: object) -> Path:
    """A run of two conversations on a made phone, with a Monsoon of 1000 samples a second."""
    first = LlamaCpp(**plan).play(0, 0)  # type: ignore[arg-type]
    files = first.files | monsoon(first.power, EPOCH_S + 50, first.prompts[-1].end_s + 8, rate=1000)
    files["configuration.json"] = (FIXTURES / "phone" / "configuration.json").read_bytes()
    first.files = files
    return first.write(bench.home / name)


def test_both_accounts_are_printed_and_the_words_between_them(bench: Bench) -> None:
    phone(bench)
    done = bench.run("import", "melt", "run", *SLOW)
    assert done.returncode == 0, done.stderr
    assert "iteration 0, conversation 0, llama.cpp" in done.stdout
    assert re.search(r"inprocess_load_s +2\b", done.stdout)
    assert re.search(r"MELT: load s +5\.23\b", done.stdout)
    assert "- tokens: MELT's output_tokens are those that llama.cpp evaluated one by one" in done.stdout
    pasted = bench.run("import", "melt", "run", *SLOW, "--markdown").stdout
    assert "| # | MELT: s | in | out |" in pasted
    assert not bench.data.exists()


def test_the_json_is_as_described(bench: Bench) -> None:
    phone(bench)
    made = app()
    made.files |= monsoon(made.power, EPOCH_S + 50, made.prompts[-1].end_s + 8, rate=1000)
    made.write(bench.home / "app")
    board = LlamaCpp(skew_s=0).play()
    board.files["energy_iter0.log"] = jetson(board.power, EPOCH_S + 50, board.prompts[-1].end_s + 8)
    board.write(bench.home / "board")
    adb = ("current_unit=uA", "voltage_unit=uV", "discharge_sign=-1", "columns=current,voltage")
    given = [
        ("run", *SLOW),
        ("app", *SLOW),
        ("app", *SLOW, "--option", "clock_bound_s=0.01"),
        ("board",),
        (str(FIXTURES / "cli"),),
        (str(FIXTURES / "operators_llamacpp.log"), str(FIXTURES / "operators_mlc_chunked.log")),
        (
            str(FIXTURES / "phone" / "melt_measurements"),
            *("--power", str(FIXTURES / "phone" / "measurements_adb.csv")),
            *(word for option in adb for word in ("--option", option)),
        ),
    ]
    for words in given:
        done = bench.run("import", "melt", "--json", *words)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert problems(NAMED["import"], found) == [], words
        assert found["differences"]
        assert found["stored"] == []
    assert [one["name"] for one in found["power"][0]["series"]] == [
        "battery.current_a",
        "battery.voltage_v",
        "battery.power",
    ]
    reasons = {one["ours"]["energy_reason"].partition(":")[0] for one in found["conversations"][0]["prompts"]}
    assert reasons == {"uncalibrated_sensor"}


def test_constant_ten_watts_of_a_jetson_are_no_zero(bench: Bench) -> None:
    """MELT's report shows 0 mWh for each stage of this very log."""
    board = LlamaCpp(skew_s=0, answers=(30, 30, 30), ends=(False,) * 3).play()
    board.power.spans = [(EPOCH_S, EPOCH_S + 1000, 10.0)]
    board.files["energy_iter0.log"] = jetson(board.power, EPOCH_S + 50, board.prompts[-1].end_s + 8)
    board.write(bench.home / "board")
    (found,) = json.loads(bench.run("import", "melt", "board", "--json").stdout)["conversations"]
    assert {rail["energy_mwh"] for stage in found["stages"] for rail in stage["rails"].values()} == {0.0}
    lasts = {
        "load": board.load_s[1] - board.load_s[0],
        "decode": sum(t.token_s[-1] - t.token_s[0] for t in board.prompts),
        "run": board.prompts[-1].end_s - board.prompts[0].sent_s,
    }
    got = {m["phase"]: m for m in found["measures"] if m["name"] == "energy_j" and m["source"] == "total"}
    for phase, seconds in lasts.items():
        assert got[phase]["value"] == pytest.approx(10 * seconds, rel=0.01), phase
        assert got[phase]["scope"] == "module"


def test_an_import_is_a_run_like_any_other_and_says_that_it_is_none_of_ours(bench: Bench) -> None:
    folder = phone(bench)
    done = bench.run("import", "melt", "run", *SLOW, "--store")
    assert done.returncode == 0, done.stderr
    (row,) = bench.json("runs")
    assert problems(NAMED["runs"], [row]) == []
    assert (row["mode"], row["model"], row["device"]) == ("in-process", "made-1b/made-1b-q4_0.gguf", "Made Phone")
    assert (row["state"], row["validity"]) == ("done", "degraded")
    shown = bench.json("show", "last")
    assert problems(NAMED["run"], shown) == []
    assert shown["started_at"] == "2024-03-04T11:01:00.900+00:00"
    assert shown["knobs"]["ctx"] == 512
    assert shown["imported"]["from"] == "MELT"
    assert {one["code"] for one in shown["reasons"]} == {"imported", "no_thermal_sensor"}
    assert [one["n_out"] for one in shown["requests"]] == [9, 14, 11]
    assert all(one["energy_j"] > 0 for one in shown["requests"])
    measures = {(m["name"], m["phase"], m["source"]): m["value"] for m in shown["measures"]}
    charge = measures["energy_j", "run", "total"] / 4.0 / 3.6  # mAh: the Monsoon of the kit gives 4 V
    by_token = measures["inprocess_discharge_mah_per_token", "run", "total"]
    assert by_token == pytest.approx(charge / (9 + 14 + 11), rel=1e-6)
    evidence = Path(shown["stored"]) / "evidence"
    for path in folder.rglob("*"):
        if path.is_file():
            assert (evidence / path.name).read_bytes() == path.read_bytes()
    ticket = json.loads((evidence.parent / "ticket.json").read_text())
    assert ticket["imported"]["clock"] == "bounded by what the host saw of each prompt"
    plot = bench.run("show", "last")
    assert "power, W" in plot.stdout, plot.stderr
    exported = bench.run("export", "--format", "melt").stdout
    assert exported.splitlines()[0].startswith("iteration,conversation,prompt,duration (sec)")
    tokens = [line.split(",")[6] for line in exported.splitlines()[1:]]
    assert tokens == ["8", "13", "10"]
    assert "inprocess_ttft_s" in bench.run("export").stdout
    assert bench.run("verify").returncode == 0
    (bench.data / "meltbench.duckdb").unlink()
    assert bench.json("rebuild")["runs"] == 1


def test_the_same_files_are_the_same_run_and_others_are_another(bench: Bench) -> None:
    phone(bench)
    for _ in range(2):
        done = bench.run("import", "melt", "run", *SLOW, "--store")
        assert done.returncode == 0, done.stderr
    assert "is in this store already: these files were imported before" in done.stderr
    assert len(bench.json("runs")) == 1
    phone(bench, "other", answers=(9, 15, 11))
    bench.run("import", "melt", "other", *SLOW, "--store")
    assert len(bench.json("runs")) == 2


def test_what_a_killed_import_left_behind_is_made_anew(bench: Bench) -> None:
    phone(bench)
    bench.run("import", "melt", "run", *SLOW, "--store")
    (folder,) = (bench.data / "runs").iterdir()
    (folder / "manifest.json").unlink()  # as if it had been killed a moment before
    assert bench.json("runs")[0]["state"] == "detached"
    done = bench.run("import", "melt", "run", *SLOW, "--store")
    assert done.returncode == 0, done.stderr
    assert bench.json("runs")[0]["state"] == "done"
    assert bench.run("verify").returncode == 0


def test_a_meters_recording_of_hours_is_named_and_not_kept(bench: Bench) -> None:
    folder = phone(bench)
    meter = folder / "measurements_monsoon.csv"
    pad = b"no sample, for a file that is too large\n" * 4096
    with open(meter, "ab") as file:
        for _ in range((64 << 20) // len(pad) + 1):
            file.write(pad)
    done = bench.run("import", "melt", "run", *SLOW, "--store")
    assert done.returncode == 0, done.stderr
    shown = bench.json("show", "last")
    assert not (Path(shown["stored"]) / "evidence" / meter.name).exists()
    ticket = json.loads((Path(shown["stored"]) / "ticket.json").read_text())
    assert "larger than 64 MiB" in ticket["imported"]["not_kept"][meter.name]
    assert all(one["energy_j"] > 0 for one in shown["requests"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none.tsv",), "cannot read none.tsv: No such file"),
        (("empty",), "empty holds no file of MELT's; it is the one with configuration.json"),
        (("notes.txt",), "notes.txt is no file of MELT's that is known here"),
        (("operators.log", "--store"), "a log of operators is no run: nothing of it can be stored"),
        (("run", "--data", "x"), "--data names a store, and nothing is stored; give --store"),
        (("run", "--option", "rails=VDD_IN"), "unknown option of a power file 'rails'; did you mean rail"),
        (("run", "--option", "rate_hz"), "is not key=value"),
        (("run", "--json", "--markdown"), "two formats"),
        (("run",), "at 5000 a second"),
    ],
)
def test_what_cannot_be_imported_is_one_line(bench: Bench, words: tuple[str, ...], said: str) -> None:
    folder = phone(bench)
    (bench.home / "empty").mkdir()
    (bench.home / "notes.txt").write_text("to do: measure\n")
    shutil.copy(FIXTURES / "operators_mlc.log", bench.home / "operators.log")
    if words == ("run",):  # ten samples for each that a Monsoon can take
        rows = (folder / "measurements_monsoon.csv").read_text().splitlines()
        fast = "".join(f"{float(row.split(',')[0]) / 100!r},{row.partition(',')[2]}\n" for row in rows)
        (folder / "measurements_monsoon.csv").write_text(fast)
    done = bench.run("import", "melt", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not bench.data.exists()


def test_melts_own_examples(bench: Bench) -> None:
    logs = [str(shared(f"samples/melt_{name}.log")) for name in ("llamacpp", "mlc")]
    done = bench.run("import", "melt", *logs)
    assert done.returncode == 0, done.stderr
    assert re.search(r"MUL_MAT +18768\.184 +6547\.056 +6547\.056", done.stdout)
    assert re.search(r"tokens of answers +26 +26 +5\.528 +0\.2104 +4\.703", done.stdout)
    assert "such a log has no clock" in done.stdout


@pytest.mark.engine
@pytest.mark.usefixtures("default_model")
def test_every_command_of_the_page_runs(bench: Bench) -> None:
    page = (ROOT / "docs" / "melt.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    (meltbench .+)$", page, re.MULTILINE)
    assert len(commands) == 8
    phone(bench)
    shutil.copy(FIXTURES / "phone" / "measurements_adb.csv", bench.home / "run")
    shutil.copy(FIXTURES / "operators_llamacpp.log", bench.home / "log.txt")
    short = ("--set", "idle_s=0.3", "--set", "max_tokens=6", "--set", "pause_s=0")
    for command in commands:
        _, *args = shlex.split(command.replace("--reps 3", "--reps 1"))
        if args[0] == "run":  # whole: an hour and more
            assert bench.run(*shlex.split(command)[1:], "--dry-run").returncode == 0, command
            args += [*short, *(("--set", "limit_s=3") if "melt-sustained" in args else ())]
        if args[:3] == ["import", "melt", "run"] and "--power" not in args:
            args += SLOW
        done = bench.run(*args, timeout=280)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    results = bench.home / "run_cs2048_mgl512_bs1024" / "results_model_inference_measurements.csv"
    assert len(results.read_text().splitlines()) > 34
