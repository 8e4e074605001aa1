from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.engines import Process, ProgramEngine, protocol
from meltbench.engines.prompts import Ask
from meltbench.errors import UserError
from meltbench.measure.latency import in_mode, latency_measures
from meltbench.records import Readings, Request, bare

MS = 1_000_000
speak = protocol("in-process")
assert isinstance(speak, ProgramEngine)
SPEAK: ProgramEngine = speak
ASK = Ask("00000", "a", "timed", 3, 0, prompt="Hello")
PREFILL = Ask("00001", "pp8", "timed", 0, 0, tokens=(1,) * 8, n_in=8, n_cached=0, point="pp8")

Line = tuple[int, bytes]


def line(value: object) -> bytes:
    return json.dumps(value).encode()


START = line({"event": "start", "file": "00000"})
END = {
    "event": "end",
    "file": "00000",
    "n_in": 5,
    "n_cached": 1,
    "n_out": 3,
    "prefill_ns": 40 * MS,
    "decode_ns": 20 * MS,
    "stop": "limit",
}
LOADED = line({"event": "loaded", "version": "0.3.36"})
TALK: list[Line] = [
    (90, LOADED),
    (100, START),
    (150, line(["Hel"])),
    (160, line(["lo"])),
    (170, line([" you"])),
    (171, line(END)),
]


def process(lines: list[Line]) -> Process:
    t = np.array([ms * MS for ms, _ in lines], np.int64)
    out = Readings.of(t, t, np.zeros(len(t), np.int32), [raw for _, raw in lines])
    none = np.empty(0, np.int64)
    return Process(999 * MS, out, Readings.of(none, none, np.empty(0, np.int32), []))


def ask(lines: list[Line], *asks: Ask) -> list[Request]:
    return SPEAK.requests(asks or (ASK,), [process(lines)], {})


def test_tokens_are_observed_and_the_scripts_own_times_stand_beside_them() -> None:
    (got,) = ask(TALK)
    assert (got.status, got.answer, got.stop_reason) == ("ok", "Hello you", "limit")
    assert (got.n_in, got.n_cached, got.n_out) == (5, 1, 3)
    assert (got.t_send_ns, got.t_first_ns, got.t_end_ns) == (100 * MS, 150 * MS, 171 * MS)
    assert got.ttft_s == pytest.approx(0.05)
    assert got.tpot_s == pytest.approx(0.01)
    assert got.decode_tps == pytest.approx(100)
    assert (got.prefill_tps, got.prefill_source) == (pytest.approx(4 / 0.04), "engine")
    assert got.engine_decode_tps == pytest.approx(100)
    assert SPEAK.loaded_ns([process(TALK)]) == 90 * MS


def test_a_prompt_alone_gives_no_token_and_its_count_is_held_against_what_was_asked() -> None:
    said = END | {"file": "00001", "n_in": 8, "n_cached": 0, "n_out": 0, "decode_ns": 0}
    lines = [(100, line({"event": "start", "file": "00001"})), (150, line([""])), (151, line(said))]
    (got,) = ask(lines, PREFILL)
    assert (got.status, got.n_out, got.prefill_tps, got.point) == ("ok", 0, pytest.approx(200), "pp8")
    assert got.decode_tps is None
    assert ask(lines, replace(PREFILL, n_in=9))[0].status == "wrong_n_in"
    assert ask(lines, replace(PREFILL, n_cached=4))[0].status == "wrong_depth"


def test_what_a_crash_left_is_kept_and_is_not_ok() -> None:
    (got,) = ask(TALK[:4])
    assert (got.status, got.answer, got.t_end_ns) == ("truncated", "Hello", 999 * MS)
    assert ask(TALK[:1]) == []
    assert SPEAK.requests([ASK], [], {}) == []
    assert SPEAK.loaded_ns([]) is None
    assert SPEAK.loaded_ns([process(TALK[1:])]) is None
    again = [*TALK[:4], (200, START), *((t + 100, raw) for t, raw in TALK[2:])]
    assert [r.status for r in ask(again)] == ["truncated", "ok"]


@pytest.mark.parametrize("more", [{"n_out": 4}, {"n_in": None}, {"prefill_ns": "1"}, {"n_cached": -1}, {"n_in": True}])
def test_an_end_that_does_not_fit_is_garbage(more: dict[str, Any]) -> None:
    assert ask([*TALK[:5], (171, line(END | more))])[0].status == "garbage"


def test_the_asks_lie_in_a_file_beside_the_job_and_what_will_be_printed_is_bounded() -> None:
    (command,) = SPEAK.commands([ASK, PREFILL], "/runs/1/req")
    assert command.words == {"asks": "/runs/1/req/asks.json"}
    assert [entry["tokens"] for entry in json.loads(command.files["asks.json"])] == [None, [1] * 8]
    assert command.log_bytes > sum(len(raw) + 1 for _, raw in TALK)
    with pytest.raises(UserError, match="something to be asked"):
        SPEAK.commands([], "/runs")


def test_latencies_stand_under_the_name_of_their_mode() -> None:
    found = in_mode(latency_measures(ask(TALK)), "in-process")
    assert {m.name for m in found if m.value is not None} >= {"inprocess_ttft_s", "inprocess_itl_s"}
    assert {bare(m.name) for m in found} == {m.name for m in latency_measures(ask(TALK))}
    assert in_mode(found, "server") == found


LINES = (
    st.sampled_from([raw for _, raw in TALK])
    | st.binary(max_size=40)
    | st.builds(
        line,
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["event", "file", "n_in", "n_out", "n_cached"]), inner, max_size=4)
            ),
            max_leaves=6,
        ),
    )
)


@given(st.lists(st.tuples(st.integers(0, 999), LINES), max_size=14))
def test_whatever_is_printed_nothing_is_raised(lines: list[Line]) -> None:
    for request in ask(sorted(lines, key=lambda one: one[0])):
        assert request.t_end_ns >= request.t_send_ns
        assert len(request.token_t_ns) == len(request.token_n) <= 3 + 16
        assert request.status != "ok" or request.n_out == len(request.token_t_ns)
    SPEAK.loaded_ns([process(lines)])
