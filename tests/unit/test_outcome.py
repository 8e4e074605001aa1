from __future__ import annotations

from typing import Any

import pytest

from meltbench.measure.outcome import outcome
from meltbench.measure.phases import phases
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
