"""Whatever stands in a file of another tool: runs whose values are finite or have a reason, or one clear line."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.errors import UserError
from meltbench.imports import codecarbon, ipw, llama_bench, localscore, tegrastats
from meltbench.imports.foreign import File
from meltbench.report import imported as report
from meltbench.store.manifest import dump_value

HERE = Path(__file__).parents[1] / "contract" / "imports"
READERS = {
    "llama_bench.json": llama_bench.read,
    "llama_bench.jsonl": llama_bench.read,
    "llama_bench.sql": llama_bench.read,
    "profile.jsonl": ipw.read,
    "traces.jsonl": ipw.read,
    "tegrastats_dated.log": tegrastats.read,
    "emissions.csv": codecarbon.read,
    "localscore.json": localscore.read,
}
WORDS = ("NaN", "-1", "1e999", "0", "[[[[", "{", "}", "'", '"', "\n", ",", "null", "true", "\0", "1e308", "\\ud800")
LONG = (b"\xff\xfe", b"9" * 20, b"9" * 5000, b"[" * 3000)
JUNK = st.sampled_from((*(word.encode() for word in WORDS), *LONG))


def read(name: str, raw: bytes) -> None:
    """Read it: runs of which all can be told and stored, or a UserError of one line."""
    said = ""
    try:
        runs = READERS[name]([File(name, raw)])
    except UserError as error:
        said, runs = error.message, []
    assert "\n" not in said
    for run in runs:
        assert run.run_id(0)
        dump_value(run.manifest({}))
        for one in run.measures:
            assert (one.value is None) == bool(one.reason)
            assert one.value is None or math.isfinite(one.value)
    json.dumps(report.as_json("x", [], runs, []), allow_nan=False)
    report.sheet("x", runs)


@pytest.mark.parametrize("name", READERS)
@given(raw=st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_any_bytes(name: str, raw: bytes) -> None:
    read(name, raw)


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_with_a_piece_of_it_replaced(name: str, data: st.DataObject) -> None:
    raw = (HERE / name).read_bytes()[:6000]
    at = data.draw(st.integers(0, len(raw)))
    gone = data.draw(st.integers(0, 200))
    read(name, raw[:at] + data.draw(JUNK) + raw[at + gone :])


@given(junk=st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5), st.lists))
@settings(max_examples=15, deadline=None)
def test_values_of_other_types(junk: object) -> None:
    row = json.loads((HERE / "llama_bench.json").read_text())[0]
    for key in row:
        read("llama_bench.json", json.dumps([row | {key: junk}]).encode())
    profile = json.loads((HERE / "profile.jsonl").read_text().splitlines()[0])
    for key in profile["model_metrics"]["made:1b"]:
        changed = {"made:1b": profile["model_metrics"]["made:1b"] | {key: junk}}
        read("profile.jsonl", json.dumps(profile | {"model_metrics": changed}).encode())
    score = json.loads((HERE / "localscore.json").read_text())
    for key in score:
        read("localscore.json", json.dumps(score | {key: junk}).encode())
    for key in score["results"][0]:
        read("localscore.json", json.dumps(score | {"results": [score["results"][0] | {key: junk}]}).encode())


BENCH = {"model_filename": "m", "n_prompt": 1}
QUERY = {"turns": [], "completed": True}
ODD = (math.nan, math.inf, 10**400, [], {}, "\ud800", 1e308)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_values_anywhere(odd: object) -> None:
    """A setting that is no number is none, also where the run is known by its settings."""
    for key in ("n_batch", "type_k", "model_size", "mode", "meltbench", "test_time", "avg_ts"):
        read("llama_bench.json", json.dumps([BENCH | {"meltbench": {}, key: odd}]).encode())
    score = json.loads((HERE / "localscore.json").read_text())
    for part in ("runtime_info", "system_info", "accelerator_info"):
        for key in score[part]:
            read("localscore.json", json.dumps(score | {part: score[part] | {key: odd}}).encode())
    read("traces.jsonl", json.dumps(QUERY | {"total_wall_clock_s": odd}).encode())


@pytest.mark.parametrize(("lasts", "good"), [("5e-324", False), ("1e300", False), ("1e12", False), ("1e6", True)])
def test_no_time_is_beyond_what_a_date_can_name(lasts: str, good: bool) -> None:
    table = f"timestamp,duration,energy_consumed\n2026-11-20T21:00:00,{lasts},1\n".encode()
    trace = json.dumps(QUERY | {"total_wall_clock_s": float(lasts)}).encode()
    for name, raw in (("emissions.csv", table), ("traces.jsonl", trace)):
        if good:
            read(name, raw)
        else:
            with pytest.raises(UserError, match=r"line [12]: (the duration|a query without its time)"):
                READERS[name]([File(name, raw)])


def test_times_that_come_to_ages_are_refused_and_late_dates_are_none() -> None:
    ages = [
        BENCH | {"n_prompt": at, "samples_ns": [9 * 10**14] * 10_000, "test_time": "2026-01-01T00:00:00Z"}
        for at in (1, 2)
    ]
    with pytest.raises(UserError, match="more than 30 years"):
        llama_bench.read([File("x", json.dumps(ages).encode())])
    score = json.loads((HERE / "localscore.json").read_text())
    score["results"][0]["samples_ns"] = [9 * 10**14] * 10_000
    with pytest.raises(UserError, match="more than 30 years"):
        localscore.read([File("x", json.dumps(score).encode())])
    (late,) = llama_bench.read([File("x", json.dumps([BENCH | {"test_time": "9999-12-31T23:59:59Z"}]).encode())])
    assert late.started_ns is None


def test_tests_of_two_models_or_of_one_size_twice_are_no_one_run() -> None:
    score = json.loads((HERE / "localscore.json").read_text())
    first, second, *_ = score["results"]
    for results, said in (
        ([first, second | {"model_name": "another"}], "result 2 is of another model"),
        ([first, second, first | {"gen_tps": 1}], "result 3 is a second one of pp1024"),
    ):
        with pytest.raises(UserError, match=said):
            localscore.read([File("x", json.dumps(score | {"results": results}).encode())])


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("llama_bench.jsonl", b'{"model_filename": "m"}\n{"model_filename"\n', "line 2: not JSON"),
        ("llama_bench.json", b'[\n {"model_filename": "m"},\n {,}\n]', "line 3: not JSON"),
        ("llama_bench.json", b'[{"model_filename": "m", "n_prompt": 1}, {}]', "entry 2: no row"),
        ("llama_bench.json", b'[{"model_filename": "m"}]', "entry 1: n_prompt, n_gen and n_depth"),
        ("llama_bench.sql", b"\n\nINSERT INTO other (a) VALUES ('1');", "line 3: a table other"),
        ("llama_bench.sql", b"\nINSERT INTO llama_bench (a, b) VALUES ('1');", "line 2: 2 columns"),
        ("llama_bench.sql", b"hello", "no row of llama-bench"),
        ("profile.jsonl", b'{"a": 1}', "line 1: neither model_metrics nor turns"),
        ("profile.jsonl", b'{"model_metrics": {"m": {"a": 1}}}', "line 1: a query without its time"),
        ("emissions.csv", b"a,b\n1,2\n", "line 1: the head lacks timestamp"),
        ("emissions.csv", b"timestamp,duration,energy_consumed\nx,1,2\ny,1\n", "line 3: 2 cells under 3"),
        ("emissions.csv", b"timestamp,duration,energy_consumed\nx,0,2\n", "line 2: the duration '0'"),
        ("localscore.json", b"[]", "is not LocalScore's"),
        ("localscore.json", b'{"runtime_info": {}, "results": [{"n_prompt": 1}]}', "result 1: n_prompt"),
        ("tegrastats_dated.log", b"RAM 1/2MB\n", "no 4 lines of tegrastats"),
    ],
)
def test_the_line_is_named(name: str, raw: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        READERS[name]([File(name, raw)])


def database(path: Path, more: str = "") -> bytes:
    base = sqlite3.connect(path)
    base.execute(f"CREATE TABLE llama_bench (a, model_filename, n_prompt{more})")
    base.executemany("INSERT INTO llama_bench (a, model_filename, n_prompt) VALUES (?, 'm', 1)", [(1,), (2,)])
    base.commit()
    base.close()
    return path.read_bytes()


def test_databases_that_are_other_damaged_or_would_fill_the_memory(tmp_path: Path) -> None:
    good = database(tmp_path / "good")
    assert len(llama_bench.read([File("x", good)])) == 2
    with pytest.raises(UserError, match="no table llama_bench"):
        llama_bench.read([File("x", good.replace(b"llama_bench", b"lamma_bench"))])
    with pytest.raises(UserError, match="cannot be read as SQLite"):
        llama_bench.read([File("x", good[:100] + b"\xff" * 4000)])
    huge = database(tmp_path / "huge", ", b AS (length(hex(zeroblob(100000000)))) VIRTUAL")
    with pytest.raises(UserError, match="too big"):
        llama_bench.read([File("x", huge)])


@pytest.mark.parametrize("parts", [1, 30])
def test_arrow_that_unfolds_to_more_than_is_held_is_told(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed bytes are few; they are counted as they unfold, part by part."""
    monkeypatch.setattr(ipw, "_MAX_ROW_BYTES", 1 << 20)
    table = pa.table({"query": ["a" * (4 << 20) if parts == 1 else "a" * (64 << 10)]})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        for _ in range(parts):
            stream.write_table(table)
    with pytest.raises(UserError, match="more than 100000 rows or 256 MiB"):
        ipw.read([File("x.arrow", sink.getvalue().to_pybytes())])


def test_arrow_that_is_damaged_is_told() -> None:
    with pytest.raises(UserError, match="cannot be read as Arrow"):
        ipw.read([File("x.arrow", b"\xff\xff\xff\xff" + b"\x10" * 40)])
    with pytest.raises(UserError, match="cannot be read as Arrow"):
        ipw.read([File("x.arrow", b"ARROW1\0\0" + b"\0" * 40)])
    with pytest.raises(UserError, match="no file with queries"):
        ipw.read([File("summary.json", b"{}")])
