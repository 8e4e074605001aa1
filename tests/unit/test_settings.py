"""What is done about the settings of a device, and what the evidence says came of it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journalmaker import event, journal, readings, stream

from meltbench import settings
from meltbench.errors import DefinitionError
from meltbench.measure.outcome import outcome
from meltbench.probe.job import Job
from meltbench.probe.journal import parse_journal
from meltbench.settings import Planned, Told, planned, told, undo_words
from meltbench.targets.profile import Profile, Setting, load

MODE = Setting("mode", "0", get=("nvpmodel", "-q"), set=("nvpmodel", "-m", "0"), undo=("nvpmodel", "-m", "{old}"))
PINNED = Setting("pin", "1", get=("look",), set=("pin",), undo=("unpin",))
GOVERNOR = Setting("governor", "performance", path="/sys/devices/system/cpu/cpufreq/policy*/scaling_governor")
POLICY = "/sys/devices/system/cpu/cpufreq/policy{}/scaling_governor"
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("output", "value"),
    [
        (b"2\n", "2"),
        (b"NVPM WARN: fan mode is not set!\r\nNV Power Mode: MAXN\r\n0\r\n\r\n", "0"),
        (b"enabled", "enabled"),
        (b"  a line \t with blanks  \n \n", "a line   with blanks"),
        (b"\xff\xfe\x1b[31mred\n", "\ufffd\ufffd\ufffd[31mred"),
    ],
)
def test_the_last_line_is_what_a_command_tells(output: bytes, value: str) -> None:
    assert told(0, output) == Told(value)


@given(st.integers(-200, 300), st.binary(max_size=600))
def test_whatever_a_device_prints_is_one_harmless_line_or_a_reason(code: int, output: bytes) -> None:
    found = told(code, output)
    assert (found.value is None) == bool(found.problem)
    assert found.value is None or (found.value.isprintable() and 0 < len(found.value) <= 200)
    if code != 0:
        assert found.value is None
    # Of a value only what is safe everywhere ever becomes a word of a command.
    words = undo_words(MODE, found.value)
    if words is not None:
        assert found.value is not None
        assert words[:2] == ("nvpmodel", "-m")
        assert shlex.split(" ".join(words)) == list(words)
        assert words[2] == found.value
        assert not words[2].startswith("-") or words[2][1:].replace(".", "").isdigit()


@given(st.text(max_size=80))
def test_a_value_never_smuggles_a_word_in(old: str) -> None:
    words = undo_words(MODE, old)
    assert words is None or not set(words[2]) & set(" \t\n\"'`$;&|<>(){}*?!~#\\")
    assert undo_words(PINNED, old) == ("unpin",)


def test_what_is_done_about_a_setting() -> None:
    assert planned(MODE, Told("2")).undo == ("nvpmodel", "-m", "2")
    in_force = planned(MODE, Told("0"))
    assert (in_force.todo, in_force.undo) == ("look", ())
    silent = planned(MODE, Told(None, "it told nothing"))
    assert (silent.todo, silent.why) == ("nothing", "it told nothing")
    unsafe = planned(MODE, Told("15 W"))
    assert unsafe.todo == "nothing"
    assert "'15 W' was in force" in unsafe.why
    # Where the way back is the same whatever was there, the value need not be a word.
    assert planned(PINNED, Told("free for all")).undo == ("unpin",)
    expecting = Setting("hub", "off", get=("g",), set=("s",), undo=("u",), expect="Port 2: 0000 off")
    assert planned(expecting, Told("Port 2: 0000 off")).todo == "look"
    assert planned(expecting, Told("off")).todo == "set"


def test_the_way_back_stands_in_the_job_before_the_change() -> None:
    hub = Setting("hub", "off", get=("g",), set=("s",), undo=("u",), on="controller")
    profile = Profile("made", "local", setting=(GOVERNOR, MODE, PINNED, hub))
    plans = [
        Planned("governor", "performance", "performance", path="/r/policy*/scaling_governor"),
        planned(MODE, Told("2")),
        planned(PINNED, Told("1")),
        planned(hub, Told("on")),
    ]
    job = Job("r")
    assert settings.make(job, plans, profile) == 2 * (settings.SET_S + 2 * settings.GET_S)
    settings.look_again(job, plans, profile)
    assert job.lines == [
        "channel set.governor file /r/policy*/scaling_governor 0 0",
        "step set /r/policy*/scaling_governor performance",
        "step undo -- nvpmodel -m 2",
        "step try set.mode 30000 -- nvpmodel -m 0",
        "step try get.mode 10000 -- nvpmodel -q",
        "step try get.pin 10000 -- look",
        "step try get.mode 10000 -- nvpmodel -q",
        "step try get.pin 10000 -- look",
    ]


def test_a_ticket_keeps_the_plans(tmp_path: Path) -> None:
    plans = [planned(MODE, Told("2")), Planned("hub", "off", "off", "controller", found=((None, "gone"), ("on", "")))]
    rows = settings.as_rows(plans)
    assert settings.from_ticket({"settings": rows}) == plans
    assert settings.from_ticket({}) == []


FILE = Planned("governor", "performance", "performance", path=POLICY.format("*"))


def file_run(*frames: bytes, after: list[bytes], old: str = "powersave", result: str = "ok", number: int = 3) -> bytes:
    """A journal in which one governor is set, and then read once a second."""
    path = POLICY.format(0)
    rows = [(0, 10, 0, old.encode() + b"\n")] + [
        (at * SECOND, at * SECOND + 10, 0, text) for at, text in enumerate(after, 2)
    ]
    return journal(
        event("begin"),
        stream(number, "set.governor", path),
        event("step", 1, op="set", name="", state="start", step=0),
        event("set", 2, path=path, old=old, new="performance", result=result),
        event("step", SECOND, op="set", name="", state="end", step=0, result="ok"),
        readings(number, rows),
        *frames,
    )


@pytest.mark.parametrize(
    ("raw", "state", "detail"),
    [
        (file_run(after=[b"performance\n"] * 3), "set", ""),
        (file_run(after=[b"ondemand [performance] powersave\n"]), "set", ""),
        (file_run(after=[b"performance\n"] * 3, old="performance"), "in_force", ""),
        (file_run(after=[b"powersave\n"] * 2, result="mismatch"), "not_applied", "it did not take"),
        (file_run(after=[b"performance\n", b"schedutil\n"]), "not_applied", "something set it back in the run"),
        (file_run(after=[b"powersave\n"], result="denied"), "not_applied", "policy0/scaling_governor: denied"),
        (file_run(after=[b"powersave\n"], result="no_undo"), "not_applied", "policy0/scaling_governor: no_undo"),
        (file_run(after=[]), "not_applied", "it was not read again"),
        (journal(event("begin"), event("end", result="failed")), "not_applied", "the run ended before it was made"),
        (b"", "not_applied", "the run ended before it was made"),
    ],
)
def test_what_was_read_afterwards_decides(raw: bytes, state: str, detail: str) -> None:
    (verdict,) = settings.judge([FILE], parse_journal(raw))
    assert verdict.state == state
    assert detail in verdict.detail
    assert bool(verdict.detail) == (state == "not_applied")


def test_a_file_may_be_expected_to_read_otherwise() -> None:
    clamped = Planned("cap", "99999999", "2400000", path="/p")
    raw = journal(
        stream(1, "set.cap", "/p"),
        event("step", 1, op="set", name="", state="start"),
        event("set", 2, path="/p", old="1800000", new="99999999", result="mismatch"),
        event("step", 3, op="set", name="", state="end", result="ok"),
        readings(1, [(5, 6, 0, b"2400000\n")]),
    )
    (verdict,) = settings.judge([clamped], parse_journal(raw))
    assert (verdict.state, verdict.before, verdict.used) == ("set", "1800000", "2400000")


def answers(*texts: tuple[int | None, bytes], name: str = "get.mode") -> list[bytes]:
    out = []
    for at, (code, text) in enumerate(texts):
        number = 10 + at
        out += [
            stream(number, name, "", "out"),
            event("spawn", at, proc=name, pid=5, stdout=number, stderr=99),
            readings(number, [(1, 2, 0, line) for line in text.splitlines()]),
            event("exit", at, proc=name, pid=5, code=code, signal=9 if code is None else None),
        ]
    return out


@pytest.mark.parametrize(
    ("said", "state", "detail"),
    [
        ([(0, b"0\n"), (0, b"warn\n0\n")], "set", ""),
        ([(0, b"2\n"), (0, b"2\n")], "not_applied", "2 was in force"),
        ([(0, b"0\n"), (0, b"2\n")], "not_applied", "2 was in force at the end, something set it back"),
        ([(0, b"0\n"), (3, b"")], "not_applied", "nobody knows: it ended with status 3"),
        ([(None, b"0\n")], "not_applied", "nobody knows: it ended with signal 9"),
        ([], "not_applied", "the run ended before it was looked at"),
    ],
)
def test_what_a_command_tells_afterwards_decides(said: list[tuple[int | None, bytes]], state: str, detail: str) -> None:
    (verdict,) = settings.judge([planned(MODE, Told("2"))], parse_journal(journal(*answers(*said))))
    assert (verdict.state, verdict.before) == (state, "2")
    assert detail in verdict.detail


def test_why_a_command_failed_is_told_with_what_it_said() -> None:
    raw = journal(
        stream(4, "set.mode", "", "err"),
        readings(4, [(1, 2, 0, b"NVPM ERROR: \x1b[31mneeds root")]),
        event("step", 3, op="try", name="set.mode", state="end", result="process set.mode ended with 1"),
        *answers((0, b"2\n")),
    )
    (verdict,) = settings.judge([planned(MODE, Told("2"))], parse_journal(raw))
    said = "2 was in force; process set.mode ended with 1: NVPM ERROR: \ufffd[31mneeds root"
    assert verdict.detail == said
    assert settings.against([verdict]) == [f"mode = 0: {said}"]
    assert settings.conditions([verdict])["mode"]["state"] == "not_applied"


def test_a_try_that_failed_is_not_what_ended_a_job() -> None:
    events = [
        {"event": "step", "op": "try", "name": "set.mode", "state": "end", "result": "timeout", "boot_ns": 1},
        {"event": "step", "op": "spawn", "name": "engine", "state": "end", "result": "cannot start: x", "boot_ns": 2},
        {"event": "end", "result": "failed", "reason": "cannot start: x", "step": 4, "boot_ns": 3},
    ]
    detail = outcome(events, [], 1, "engine", "generate").detail
    assert detail is not None
    assert detail.startswith("spawn engine: cannot start: x")


@given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.binary(max_size=40), max_size=3))
def test_judging_never_raises_on_what_a_device_wrote(after: list[bytes], lines: list[bytes]) -> None:
    raw = file_run(*answers(*((0, line) for line in lines)), after=after)
    for verdict in settings.judge([FILE, planned(MODE, Told("2"))], parse_journal(raw)):
        assert verdict.used is None or verdict.used.isprintable()
        assert (verdict.state == "not_applied") == bool(verdict.detail)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "a"\nvalue = "1"', "needs either path or set"),
        ('name = "a"\nvalue = "1"\npath = "/sys/x"\nset = ["y"]', "needs either path or set"),
        ('name = "a"\nvalue = "1"\nset = ["y"]\nget = ["y"]', "lacks get or undo"),
        ('name = "a"\nvalue = "1"\npath = "/sys/x"\non = "controller"', "is a file of the target"),
        ('name = "a b"\nvalue = "1"\npath = "/sys/x"', "is not valid"),
        (f'name = "{"a" * 61}"\nvalue = "1"\npath = "/sys/x"', "is not valid"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "made.toml").write_text(f'title = "t"\ntarget = "local"\n[[setting]]\n{text}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefinitionError, match=said) as error:
        load("made")
    assert "\n" not in str(error.value)
