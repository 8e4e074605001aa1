from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.engines import Process, ProgramEngine, protocol
from meltbench.engines.llama_bench import MAX_REPEAT
from meltbench.engines.prompts import grid_asks, point
from meltbench.errors import UserError
from meltbench.measure.latency import in_mode, point_measures
from meltbench.measure.phases import phases
from meltbench.records import Readings, Request

MS = 1_000_000
speak = protocol("llama-bench")
assert isinstance(speak, ProgramEngine)
SPEAK: ProgramEngine = speak
ASKED: dict[str, Any] = {"threads": 1, "batch": 2048, "ubatch": 512, "gpu_layers": "none", "model": "m.gguf"}

Line = tuple[int, bytes]


def mark(what: str) -> bytes:
    return f"llama-bench: benchmark 1/1: {what}".encode()


def row(samples_ms: list[float], n_prompt: int = 0, n_gen: int = 0, n_depth: int = 0, **more: Any) -> bytes:
    """The fields of a row that are looked at, as llama-bench of the sdist 0.3.36 printed them."""
    said = {
        "build_commit": "0c1e570",
        "build_number": 1,
        "gpu_info": "",
        "backends": "CPU",
        "model_filename": "/models/m.gguf",
        "n_batch": 2048,
        "n_ubatch": 512,
        "n_threads": 1,
        "n_gpu_layers": -1,
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_depth": n_depth,
        "avg_ts": 1.0,
        "stddev_ns": 18446744073709551615,
        "samples_ns": [round(ms * MS) for ms in samples_ms],
    }
    return json.dumps(said | more).encode()


def readings(lines: list[Line]) -> Readings:
    t = np.array([ms * MS for ms, _ in lines], np.int64)
    return Readings.of(t, t, np.zeros(len(t), np.int32), [raw for _, raw in lines])


def process(marks: list[Line], rows: list[Line], exit_ms: int | None = 9000) -> Process:
    return Process(None if exit_ms is None else exit_ms * MS, readings(rows), readings(marks))


def run(cell: str, marks: list[Line], rows: list[Line], repeat: int = 2, **asked: Any) -> list[Request]:
    asks = [ask for ask in grid_asks([point(cell)], repeat, 100, 0, 1) if ask.role == "timed"]
    return SPEAK.requests(asks, [process(marks, rows)], ASKED | asked)


STARTING = (5, mark("starting"))
PP = [STARTING, (100, mark("warmup prompt run")), (600, mark("prompt run 1/2")), (1100, mark("prompt run 2/2"))]
TG = [
    STARTING,
    (100, mark("warmup generation run")),
    (130, mark("generation run 1/2")),
    (630, mark("generation run 2/2")),
]
BOTH = [
    STARTING,
    (100, mark("warmup prompt run")),
    (200, mark("warmup generation run")),
    (230, mark("depth run 1/2")),
    (330, mark("prompt run 1/2")),
    (430, mark("generation run 1/2")),
    (630, mark("depth run 2/2 (cached)")),
    (640, mark("prompt run 2/2")),
    (740, mark("generation run 2/2")),
]


def test_each_repetition_has_the_rate_of_its_own_sample() -> None:
    got = run("pp50", PP, [(1610, row([499, 505], 50))])
    assert [(r.role, r.status) for r in got] == [("warmup", "ok"), ("timed", "ok"), ("timed", "ok")]
    assert [r.prefill_tps for r in got[1:]] == [pytest.approx(50 / 0.499), pytest.approx(50 / 0.505)]
    assert {(r.n_in, r.n_cached, r.n_out, r.prefill_source) for r in got[1:]} == {(50, 0, 0, "samples_ns")}
    assert [r.e2e_s for r in got[1:]] == [0.499, 0.505]
    assert all(r.decode_tps is None and r.ttft_s is None for r in got)
    assert (got[1].t_send_ns, got[1].t_end_ns) == (600 * MS, 1099 * MS)


def test_a_generation_counts_every_token_and_has_decode_alone() -> None:
    got = run("tg8@d4", TG, [(1130, row([500, 500], 0, 8, 4))])
    assert [r.decode_tps for r in got[1:]] == [pytest.approx(16.0)] * 2
    assert {(r.n_in, r.n_cached, r.n_out, r.prefill_tps) for r in got[1:]} == {(4, 4, 8, None)}
    assert [(p.name, p.request) for p in phases([], got, "engine") if p.request] == [("decode", 1), ("decode", 2)]


def test_a_mark_tells_the_generation_of_a_mixed_point_from_its_prompt() -> None:
    got = run("pp50+tg10@d20", BOTH, [(940, row([300, 300], 50, 10, 20))])
    assert [r.role for r in got] == ["warmup", "warmup", "setup", "timed", "setup", "timed"]
    timed = [r for r in got if r.role == "timed"]
    assert [r.prefill_tps for r in timed] == [pytest.approx(500)] * 2
    assert [r.decode_tps for r in timed] == [pytest.approx(50)] * 2
    assert {r.prefill_source for r in timed} == {"progress marks"}
    assert [r.n_cached for r in got if r.role == "setup"] == [0, 20]
    spans = [(p.name, p.t0_ns // MS, p.t1_ns // MS) for p in phases([], timed, "engine") if p.request is not None]
    assert spans == [("prefill", 330, 430), ("decode", 430, 630), ("prefill", 640, 740), ("decode", 740, 940)]


def test_load_ends_with_the_first_mark_after_the_model_was_loaded() -> None:
    first = process(PP, [(1610, row([500, 500], 50))])
    assert SPEAK.loaded_ns([first, process(TG, [])]) == 100 * MS
    assert SPEAK.loaded_ns([process([STARTING], [])]) is None
    assert SPEAK.loaded_ns([]) is None
    events = [{"event": "spawn", "boot_ns": 0, "proc": "engine"}] * 2
    load = phases(events, run("pp50", PP, []), "engine", 100 * MS)[0]
    assert (load.name, load.t1_ns) == ("load", 100 * MS)


def test_what_a_crash_left_is_kept_and_is_not_ok() -> None:
    got = run("pp50", PP, [])
    assert [(r.role, r.status) for r in got] == [("warmup", "ok"), ("timed", "no_sample"), ("timed", "no_sample")]
    assert (got[2].t_end_ns, got[2].prefill_tps) == (9000 * MS, None)
    few = run("pp50", PP, [(1610, row([500], 50))])
    assert [r.status for r in few] == ["ok", "ok", "no_sample"]
    asks = [ask for ask in grid_asks([point("pp50")], 2, 100, 0, 1) if ask.role == "timed"]
    lost = SPEAK.requests(asks, [process(PP, [], exit_ms=None)], ASKED)
    assert [r.status for r in lost] == ["ok", "no_sample", "no_sample"]
    assert SPEAK.requests(asks, [], ASKED) == []


@pytest.mark.parametrize(
    ("said", "asked", "detail"),
    [
        ({"n_prompt": 51}, {}, "asked n_prompt = 50, llama-bench says 51"),
        ({"n_threads": 4}, {}, "asked n_threads = 1, llama-bench says 4"),
        ({"model_filename": "/x/other.gguf"}, {}, "asked for the model m.gguf, llama-bench says other.gguf"),
        ({}, {"gpu_layers": 7}, "asked n_gpu_layers = 7, llama-bench says -1"),
    ],
)
def test_a_row_of_something_else_is_no_result(said: dict[str, Any], asked: dict[str, Any], detail: str) -> None:
    got = run("pp50", PP, [(1610, row([500, 500], **{"n_prompt": 50, **said}))], **asked)
    assert {(r.status, r.detail) for r in got if r.role == "timed"} == {("wrong_row", detail)}


def test_a_sample_that_does_not_fit_its_marks_is_said_and_a_late_line_is_not_that() -> None:
    got = run("pp50", PP, [(1610, row([5, 505], 50))])
    assert [r.status for r in got] == ["ok", "inconsistent", "ok"]
    assert "0.005 s does not fit 0.5 s" in got[1].detail
    late = run("pp50", PP, [(1610, row([540, 500], 50))])
    assert [r.status for r in late] == ["ok", "ok", "ok"]
    assert late[1].t_end_ns == 1100 * MS  # two requests never overlap, or neither would have an energy
    assert run("pp50+tg10", PP, [(1610, row([500, 500], 50, 10))])[1].status == "inconsistent"


def test_more_repetitions_than_asked_for_are_not_taken_for_results() -> None:
    got = run("pp50", PP, [(1610, row([500, 505], 50))], repeat=1)
    assert [r.status for r in got] == ["ok", "ok", "wrong_row"]


def test_the_points_of_a_run_are_processes_in_the_order_of_their_first_request() -> None:
    asks = grid_asks([point("pp50"), point("pp8+tg4"), point("tg8@d64")], 3, 100, 7, 1)
    order = list(dict.fromkeys(ask.item for ask in asks if ask.role == "timed"))
    commands = SPEAK.commands(asks, "/nowhere")
    assert [command.asks[0].item for command in commands] == order
    assert {len(command.asks) for command in commands} == {3}
    words = {command.asks[0].item: command.words for command in commands}
    none = {"n_prompt_gen": "none", "n_depth": "none", "repeat": "3"}
    assert words["pp50"] == none | {"n_prompt": "50", "n_gen": "0"}
    assert words["tg8@d64"] == none | {"n_prompt": "0", "n_gen": "8", "n_depth": "64"}
    assert words["pp8+tg4"] == none | {"n_prompt": "0", "n_gen": "0", "n_prompt_gen": "8,4"}
    with pytest.raises(UserError, match="64 repetitions at most"):
        SPEAK.commands(grid_asks([point("pp5")], MAX_REPEAT + 1, 100, 0, 0), "")


def test_a_row_of_the_most_repetitions_fits_into_a_line() -> None:
    longest = row([99999.999999] * MAX_REPEAT, 512, 128, 4096, model_filename="/models/" + "m" * 255)
    rates = b'"samples_ts": [ ' + b"123456.123, " * MAX_REPEAT
    assert len(longest) + len(rates) + 1000 < 4096


def test_rates_stand_under_the_name_of_their_mode() -> None:
    requests = run("tg1", TG, [(1130, row([500, 500], 0, 1))])
    found = {(m.name, m.stat): m for m in in_mode(point_measures(requests, "bench"), "bench")}
    assert found["bench_decode_tps", "median"].value == pytest.approx(2)  # of one token too
    assert found["bench_decode_tps", "median"].method.startswith("samples_ns")
    assert all(name.startswith("bench_") for name, _ in found)


@pytest.mark.parametrize(
    ("said", "accelerator"),
    [
        ({}, "CPU"),
        ({"backends": "BLAS"}, "CPU"),
        ({"backends": "CUDA", "gpu_info": "NVIDIA H100"}, "CUDA"),
        ({"backends": "CUDA", "gpu_info": "NVIDIA H100", "n_gpu_layers": 99}, "CUDA"),
        ({"backends": "CUDA", "gpu_info": "NVIDIA H100", "n_gpu_layers": 12}, "CUDA ngl=12"),
        ({"backends": "BLAS,Vulkan", "gpu_info": "AMD"}, "Vulkan"),
        ({"backends": "MTL,BLAS", "gpu_info": "Apple M4"}, "Metal"),
        ({"backends": "CUDA", "gpu_info": ""}, "CPU"),
        ({"backends": None}, "CPU"),
        ({"backends": "\x1b[31m", "gpu_info": "x"}, "unknown"),
    ],
)
def test_the_accelerator_is_what_the_row_says(said: dict[str, Any], accelerator: str) -> None:
    log = "\n".join(["noise", "{", row([1], 50, **said).decode()])
    assert SPEAK.identity(log)["accelerator"] == accelerator
    assert SPEAK.identity(log)["version"] == "1 (0c1e570)"


def test_without_a_row_nothing_is_known_of_the_engine() -> None:
    assert SPEAK.identity("llama-bench: benchmark 1/1: starting\n{}\n[1]") == {"accelerator": "unknown"}


WORDS = st.sampled_from([raw for _, raw in (*PP, *TG, *BOTH)]) | st.binary(max_size=60)
NUMBERS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.none(), max_size=2)
)
ROWS = st.builds(
    lambda samples, more: json.dumps(json.loads(row([1], 50)) | {"samples_ns": samples} | more).encode(),
    NUMBERS | st.lists(NUMBERS, max_size=4),
    st.dictionaries(st.sampled_from(["n_prompt", "n_gen", "n_threads", "backends", "model_filename"]), NUMBERS),
)
TIMES = st.integers(0, 3000)


@given(
    st.sampled_from(["pp50", "tg8", "pp50+tg10", "tg8@d64"]),
    st.lists(st.tuples(TIMES, WORDS), max_size=12),
    st.lists(st.tuples(TIMES, ROWS | st.binary(max_size=60)), max_size=3),
)
def test_whatever_is_printed_nothing_is_raised_and_no_rate_is_made_up(
    cell: str, marks: list[Line], rows: list[Line]
) -> None:
    for request in run(cell, sorted(marks), rows):
        assert request.t_end_ns >= request.t_send_ns
        rates = [rate for rate in (request.prefill_tps, request.decode_tps) if rate is not None]
        assert all(rate > 0 for rate in rates)
        assert not rates or (request.role, request.status) == ("timed", "ok")
    log = "\n".join(raw.decode("utf-8", "replace") for _, raw in rows)
    assert SPEAK.identity(log)["accelerator"].isprintable()
