"""What is said of a run under way, from states that may lack anything."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meltbench.report.progress import Lines, Look, Quiet, Steps

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    st.lists,
    max_leaves=3,
)
KEYS = ("state", "step", "steps", "op", "name", "done", "of", "elapsed_ms", "limit_ms", "said")


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_idle_window_says_how_long_it_still_takes() -> None:
    clock = Clock()
    steps = Steps({"idle_before": 10}, clock)
    status = {"op": "idle", "name": "idle_before", "step": 0}
    assert steps.look(status) == Look("idle window before", "0 s of 10 s, 10 s left", 0.0)
    clock.now += 4
    assert steps.look(status) == Look("idle window before", "4 s of 10 s, 6 s left", 0.4)
    clock.now += 60
    assert steps.look(status).share == 1.0


def test_requests_are_counted_and_each_step_has_a_clock_of_its_own() -> None:
    clock = Clock()
    steps = Steps({}, clock)
    assert steps.look({"op": "ready", "name": "engine", "step": 3}) == Look("loading the model", "0 s", None)
    clock.now += 75
    assert steps.look({"op": "ready", "name": "engine", "step": 3}).detail == "1 min 15 s"
    asked = {"op": "http", "name": "requests", "step": 4, "done": 2, "of": 6}
    assert steps.look(asked) == Look("answering requests", "request 3 of 6, 0 s", 2 / 6)
    assert steps.look(asked | {"done": 6}).detail == "request 6 of 6, 0 s"


def test_a_build_counts_its_files() -> None:
    clock = Clock()
    steps = Steps({}, clock)
    assert steps.look({"op": "configure"}) == Look("getting the compiler ready", "0 s", None)
    steps.look({"op": "build", "done": 1, "of": 214})
    clock.now += 75
    assert steps.look({"op": "build", "done": 107, "of": 214}).detail == "107 of 214 files, 1 min 15 s"
    assert steps.look({"op": "build", "done": 107, "of": 214}).share == 0.5


def test_a_circle_of_requests_has_the_devices_own_clock() -> None:
    state = {"op": "http", "name": "requests", "done": 7, "of": 0, "elapsed_ms": 12_000, "limit_ms": 60_000}
    assert Steps().look(state) == Look("answering requests", "7 requests, 12 s of 1 min 00 s, 48 s left", 0.2)


def test_the_gate_tells_the_temperature_and_how_long_it_waits_at_most() -> None:
    state = {"op": "gate", "name": "gate", "elapsed_ms": 30_500, "limit_ms": 300_000, "said": "51.2 °C, -0.8 °C/min"}
    look = Steps().look(state)
    assert look.words == "waiting for a steady temperature"
    assert look.detail == "51.2 °C, -0.8 °C/min; 30 s of at most 5 min 00 s"


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_state_gives_words(state: dict[str, Any]) -> None:
    look = Steps({"x": 1.0}).look(state)
    assert look.words
    assert look.share is None or 0 <= look.share <= 1
    Lines(lambda _: None).step(state)


def test_lines_are_few_and_harmless() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    for done in range(5):
        lines.step({"state": "running", "op": "http", "name": "requests", "done": done, "of": 5})
        lines.fetched(done, 5 << 20)
    lines.step({"state": "ended", "op": "stop"})
    lines.warn("a\x1b[2Jb")
    assert said[:2] == ["answering requests", "fetching the model, 5.00 MiB"]
    assert said[-1] == "a\ufffd[2Jb"


def test_quiet_tells_only_what_must_not_be_missed(capsys) -> None:
    quiet = Quiet()
    quiet.say("x")
    quiet.fetched(1, 2)
    quiet.step({"op": "idle"})
    quiet.warn("the index is full")
    assert capsys.readouterr().err == "the index is full\n"
