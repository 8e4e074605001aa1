from __future__ import annotations

from typing import Any

import pytest

from meltbench.measure import RunInputs, measure_run
from meltbench.measure.outcome import outcome
from meltbench.measure.phases import phases
from meltbench.postmortem import unexplained
from meltbench.probe.journal import Journal
from meltbench.records import Request

Event = dict[str, Any]


def event(event_: str, t: int = 0, **more: Any) -> Event:
    return {"event": event_, "boot_ns": t, **more}


DONE = event("end", 99, result="done")
FAILED = event("end", 99, result="failed", reason="deadline", step=4)
BAD_STEP = event("step", 98, op="ready", name="engine", state="end", result="deadline")


def request(status: str = "ok", **more: Any) -> Request:
    return Request(0, "a", "timed", status, 10, 50, detail="why", **more)


@pytest.mark.parametrize(
    ("events", "requests", "kind", "expected"),
    [
        ([DONE], [request()], "generate", ("done", None, None)),
        ([], [request()], "generate", ("failed", "probe_killed", "no end")),
        (
            [event("end", result="failed", reason="probe_killed")],
            [],
            "generate",
            ("failed", "probe_killed", "the probe was killed"),
        ),
        (
            [event("exit", proc="engine", signal=9, oom=True), FAILED],
            [],
            "generate",
            ("failed", "oom_killed", "memory"),
        ),
        ([event("full", reason="enospc"), FAILED], [], "generate", ("failed", "journal_full", "disk")),
        ([event("full", reason="limit"), FAILED], [], "generate", ("failed", "journal_full", "limit")),
        (
            [event("stopping", by="stop"), event("end", result="stopped")],
            [],
            "generate",
            ("stopped", "aborted", "ended"),
        ),
        (
            [event("stopping", by="steal"), event("end", result="stopped", reason="stolen")],
            [],
            "generate",
            ("stopped", "aborted", "another controller"),
        ),
        (
            [event("stopping", by="stop"), event("reboot"), event("end", result="failed", reason="device_rebooted")],
            [request()],
            "generate",
            ("failed", "device_rebooted", "rebooted, or lost power"),
        ),
        ([event("stopping", by="duration"), FAILED], [], "generate", ("failed", "engine_failed", "longer")),
        ([BAD_STEP, FAILED], [], "generate", ("failed", "engine_failed", "ready engine: deadline")),
        (
            [event("exit", proc="engine", code=3), BAD_STEP, FAILED],
            [],
            "generate",
            ("failed", "engine_failed", "ended with status 3"),
        ),
        ([DONE], [request("garbage")], "generate", ("failed", "engine_failed", "a: garbage: why")),
        ([DONE], [], "generate", ("failed", "engine_failed", "0 of 1 requests were answered")),
        ([event("exit", proc="engine", code=0), DONE], [], "exec", ("done", None, None)),
        ([BAD_STEP, FAILED], [], "exec", ("failed", "command_failed", "deadline")),
        (
            [event("exit", proc="engine", code=0), event("end", result="failed", reason="probe_killed")],
            [],
            "exec",
            ("failed", "probe_killed", "the probe was killed"),
        ),
        ([event("stopping", by="duration"), FAILED], [], "exec", ("failed", "command_failed", "longer")),
        (
            [event("step", 98, op="exec", name="engine", state="end", result="failed"), FAILED],
            [],
            "exec",
            ("failed", "command_failed", "the command: deadline"),
        ),
        ([event("exit", proc="engine", code=7), DONE], [], "exec", ("failed", "command_failed", "status 7")),
        (
            [event("exit", proc="engine", code=0), event("exit", proc="engine", signal=4), BAD_STEP, FAILED],
            [],
            "grid",
            ("failed", "engine_failed", "signal 4: an instruction this processor does not have"),
        ),
        (
            [BAD_STEP, event("end", result="failed", reason="cannot start: Exec format error")],
            [],
            "grid",
            ("failed", "engine_failed", "(it is no program for this machine)"),
        ),
        ([event("exit", proc="engine", signal=11), DONE], [], "exec", ("failed", "command_failed", "signal 11")),
    ],
)
def test_the_first_cause_wins(
    events: list[Event], requests: list[Request], kind: str, expected: tuple[str, str | None, str | None]
) -> None:
    got = outcome(events, requests, 0 if kind == "exec" else 1, "engine", kind)
    assert (got.outcome, got.code) == expected[:2]
    assert (expected[2] is None) == (got.detail is None)
    assert expected[2] is None or expected[2] in (got.detail or "")


@pytest.mark.parametrize(
    ("events", "status", "words"),
    [
        ([DONE], "http_400", "Change what the server's words name"),
        ([DONE], "http_503", "Read the server's words and its own log"),
        ([DONE], "http_garbage", "Look whether a server of the runner's protocol answers"),
        ([DONE], "engine_error", "Read the engine's words"),
        ([DONE], "miscounted", "The server contradicts itself"),
        ([DONE], "garbage", "is not of the runner's protocol"),
        ([DONE], "not_streamed", "must stream"),
        ([DONE], "wrong_n_in", "took another prompt"),
        ([DONE], "timeout", "more time"),
        ([DONE], "refused", "Nobody listens"),
        ([DONE], "truncated", "smaller context or model"),
        ([event("exit", proc="engine", signal=11), DONE], "http_500", "smaller context or model"),
        (
            [event("exit", proc="engine", signal=15, by_us=True), DONE],
            "http_400",
            "Change what the server's words name",
        ),
        (
            [BAD_STEP, event("end", result="failed", reason="cannot start: Exec format error")],
            "ok",
            "build for this target",
        ),
        ([BAD_STEP, FAILED], "ok", "smaller context or model"),
    ],
)
def test_what_to_do_is_said_by_how_the_engine_failed(events: list[Event], status: str, words: str) -> None:
    got = outcome(events, [request(status)], 1, "engine", "generate")
    assert got.code == "engine_failed"
    said = RunInputs("generate", [], [], [], failure=(got.code, got.detail or "", got.cause))
    (found,) = [one for one in measure_run(said)[1] if one.code == "engine_failed"]
    assert words in found.advice
    assert status == "ok" or f"a: {status}: why" in found.detail  # what was said stands before


@pytest.mark.parametrize(
    ("log", "code", "said"),
    [
        (
            "x: error while loading shared libraries: libggml.so.0: cannot open shared object file: No such file",
            127,
            "it needs the library libggml.so.0, which is not there",
        ),
        (
            "x: error while loading shared libraries: libcuda.so.1: wrong ELF class: ELFCLASS32",
            127,
            "its library libcuda.so.1 cannot be loaded: wrong ELF class: ELFCLASS32",
        ),
        (
            "x: /lib/libc.so.6: version `GLIBC_2.38' not found (required by x)",
            1,
            "it needs GLIBC_2.38, which the C library here does not have",
        ),
        ("x: symbol lookup error: libllama.so: undefined symbol: ggml_foo", 127, "it lacks ggml_foo"),
        ("", 127, "it, or something that it starts, was not found"),
        ("", 126, "it may not be executed"),
        ("no such tensor", 3, "status 3"),
    ],
)
def test_what_the_loader_of_programs_said_is_put_in_words(log: str, code: int, said: str) -> None:
    events = [event("exit", proc="engine", code=code), BAD_STEP, FAILED]
    assert (outcome(events, [], 1, "engine", "generate", log).detail or "").endswith(said)


def idle(name: str, t0: int, t1: int, result: str = "ok") -> list[Event]:
    return [
        event("step", t0, op="idle", name=name, state="start"),
        event("step", t1, op="idle", name=name, state="end", result=result),
    ]


def test_the_phases_of_a_served_run() -> None:
    events = [
        *idle("idle_before", 0, 5),
        event("spawn", 6, proc="engine"),
        event("ready", 9, proc="engine", load_ns=3),
        *idle("idle_after", 60, 65),
    ]
    warm = Request(0, "a", "warmup", "ok", 9, 10)
    timed = Request(1, "a", "timed", "ok", 10, 50, t_first_ns=20, token_t_ns=(20, 30, 48))
    found = [(p.name, p.t0_ns, p.t1_ns, p.request) for p in phases(events, [warm, timed], "engine")]
    assert found == [
        ("idle_before", 0, 5, None),
        ("load", 6, 9, None),
        ("run", 10, 50, None),
        ("prefill", 10, 20, 1),
        ("decode", 20, 48, 1),
        ("idle_after", 60, 65, None),
    ]


def test_a_phase_without_both_edges_is_left_out() -> None:
    events = [*idle("idle_before", 0, 5, result="stopped"), event("spawn", 6, proc="engine")]
    assert phases(events, [request(t_first_ns=20)], "engine")[0].name == "run"
    assert [p.name for p in phases(events, [], "engine")] == []
    failed = request("garbage", t_first_ns=20, token_t_ns=(20, 30))
    assert [p.name for p in phases([], [failed], "engine")] == ["run"]


def test_a_command_and_an_idle_window_are_runs_too() -> None:
    command = [event("spawn", 6, proc="engine"), event("exit", 9, proc="engine")]
    assert [(p.name, p.t0_ns, p.t1_ns) for p in phases(command, [], "engine")] == [("run", 6, 9)]
    assert [(p.name, p.t0_ns, p.t1_ns) for p in phases(idle("window", 1, 4), [], "engine")] == [("run", 1, 4)]
    server = [command[0], event("ready", 7, proc="engine", load_ns=1), command[1]]
    assert [p.name for p in phases(server, [], "engine")] == ["load"]


def test_an_engine_that_was_given_up_on_has_no_load_time() -> None:
    events = [event("spawn", 6, proc="engine"), event("ready", 9, proc="engine", status=503, load_ns=None)]
    assert phases(events, [], "engine") == []


LMKD = b"07-31 02:28:31.588   152   152 I lowmemorykiller: Kill './llama-server' (6870), uid 2000, reason: low\n"
SHOT = event("exit", 50, proc="engine", pid=6870, signal=9, oom=False, by_us=False)


@pytest.mark.parametrize(
    ("gone", "kills", "code"),
    [
        (SHOT, LMKD, "oom_killed"),
        (SHOT | {"oom": None}, LMKD, "oom_killed"),
        (SHOT | {"pid": 687}, LMKD, "engine_failed"),
        (SHOT, b"", "engine_failed"),
        (SHOT | {"by_us": True}, LMKD, "engine_failed"),  # that was the end of the job
        (SHOT | {"signal": 11}, LMKD, "engine_failed"),
        (SHOT | {"pid": None}, LMKD, "engine_failed"),
    ],
)
def test_an_engine_that_the_low_memory_killer_ended_is_told_by_its_words(gone: Event, kills: bytes, code: str) -> None:
    got = outcome([gone, FAILED], [], 1, "engine", "generate", "", kills)
    assert (got.outcome, got.code) == ("failed", code)
    told = (
        "Android's low-memory killer ended engine: lowmemorykiller: Kill './llama-server' (6870), uid 2000, reason: low"
    )
    assert (got.detail == told) == (code == "oom_killed")


def test_a_probe_that_the_low_memory_killer_ended_says_so() -> None:
    begin, kills = event("begin", 1, pid=6870), LMKD
    lost = outcome([begin], [], 1, "engine", "generate", "", kills)
    mended = outcome(
        [begin, event("end", result="failed", reason="probe_killed")], [], 1, "engine", "generate", "", kills
    )
    for got in (lost, mended):
        assert got.code == "probe_killed"
        assert "lowmemorykiller: Kill './llama-server' (6870)" in (got.detail or "")
    assert "lowmemorykiller" not in (outcome([event("begin", 1, pid=5)], [], 1, "e", "grid", "", kills).detail or "")


BEGIN = event("begin", 10**9, pid=400, wall_ns=1_700_000_000 * 10**9)


def asked(*events: Event) -> tuple[int, float] | None:
    journal = Journal(events=[BEGIN, *events])
    return unexplained(journal)


def test_only_a_kill_that_nothing_explains_is_asked_about() -> None:
    spawn, end = event("spawn", 3 * 10**9, proc="engine", pid=6870), DONE
    assert asked(spawn, SHOT, end) == (6870, 1_700_000_002.0)
    assert asked(spawn, SHOT) == (6870, 1_700_000_002.0)
    assert asked(spawn, SHOT | {"oom": None}, FAILED) == (6870, 1_700_000_002.0)
    for other in ({"oom": True}, {"by_us": True}, {"signal": 11}, {"signal": None, "code": 0}, {"proc": "helper"}):
        assert asked(spawn, SHOT | other, end) is None
    assert asked(end) is None
    # Of several processes of the name the one that was killed.
    ended = event("exit", 2 * 10**9, proc="engine", pid=6000, code=0)
    assert asked(event("spawn", 10**9, proc="engine", pid=6000), ended, spawn, SHOT, end) == (6870, 1_700_000_002.0)
    # The probe itself, where it did not live to say more.
    assert asked() == (400, 1_700_000_000.0)
    assert asked(event("end", result="failed", reason="probe_killed")) == (400, 1_700_000_000.0)
    # What a device wrote may lack anything.
    assert unexplained(Journal(events=[event("begin"), spawn, SHOT])) is None
    assert unexplained(Journal()) is None
