"""What is shown of a run under way, from journals of which the truth is known."""

from __future__ import annotations

import json
from typing import Any

import journalmaker as make
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.live import window
from meltbench.live.picture import Picture
from meltbench.probe.tail import Tail

SECOND = 1_000_000_000
ZONE = "/sys/class/powercap/intel-rapl:0"
HEAT = "/sys/class/thermal/thermal_zone0"
RANGE_UJ = 262_143_328_850
WATTS, TPS = 12.5, 25


def ticket(**more: Any) -> dict[str, Any]:
    sources = [{"name": name, "reader": name, "options": {}} for name in ("rapl", "thermal", "loadavg")]
    return {
        "run_id": "r",
        "sources": sources,
        "totals": [{"source": "rapl", "rails": [], "scope": None, "partial": ""}],
        "max_power_w": None,
        "conditions": {"gpus": []},
        "runner": {"mode": "server", "engine": "llama.cpp"},
        "workload": {"kind": "generate"},
        "asks": [{}, {}, {}],
    } | more


def begun() -> list[bytes]:
    return [
        make.event("begin", 0, run="r"),
        make.stream(1, "rapl", f"{ZONE}/name"),
        make.stream(2, "rapl", f"{ZONE}/max_energy_range_uj"),
        make.stream(3, "rapl", f"{ZONE}/energy_uj"),
        make.stream(4, "thermal", f"{HEAT}/type"),
        make.stream(5, "thermal", f"{HEAT}/temp"),
        make.stream(6, "loadavg", "/proc/loadavg"),
        make.readings(1, [(1, 2, 0, b"package-0\n")]),
        make.readings(2, [(1, 2, 0, b"%d\n" % RANGE_UJ)]),
        make.readings(4, [(1, 2, 0, b"x86_pkg_temp\n")]),
        make.event("step", 5, step=3, op="http", name="requests", state="start"),
        make.stream(9, "requests", "req/00000", kind="http"),
    ]


def second(n: int, watts: float = WATTS, start_uj: int = RANGE_UJ - 30_000_000) -> list[bytes]:
    """One second of a run as the probe writes it; the counter wraps after 30 J."""
    times = [n * SECOND + k * SECOND // 50 for k in range(50)]
    energy = [(t, t + 1000, 0, b"%d\n" % ((start_uj + int(watts * t / 1000)) % RANGE_UJ)) for t in times]
    tokens = [n * SECOND + k * SECOND // TPS for k in range(TPS)]
    word = b'data: {"content": "w", "tokens": [3], "stop": false}\n\n'
    return [
        make.readings(3, energy),
        make.readings(5, [(times[0], times[0] + 1000, 0, b"%d\n" % (40_000 + n * 1000))]),
        make.readings(6, [(times[0], times[0] + 1000, 0, b"0.10 0.10 0.10 1/100 1\n")]),
        make.readings(9, [(t, t + 1, 0, word) for t in tokens]),
    ]


def seen(picture: Picture, *frames: bytes) -> Any:
    tail = Tail()
    picture.take(tail.take(make.journal(*frames)))
    return picture.sight()


def test_the_figures_are_those_of_the_last_seconds() -> None:
    picture = Picture(ticket())
    sight = seen(picture, *begun(), *(frame for n in range(12) for frame in second(n)))
    assert sight.power.value == pytest.approx(WATTS, rel=0.01)
    assert sight.power.of == "rapl.package-0, soc"
    assert sight.token_rate.value == pytest.approx(TPS, rel=0.01)
    assert (sight.temperature.value, sight.temperature.of) == (51.0, "thermal.x86_pkg_temp")
    assert sight.elapsed_s == pytest.approx(11.98, abs=0.02)
    assert dict(sight.status) == {
        "state": "running",
        "step": 3,
        "op": "http",
        "name": "requests",
        "done": 0,
        "of": 3,
    }
    later = seen(picture, *(frame for n in range(12, 20) for frame in second(n, 2 * WATTS)))
    assert later.power.value == pytest.approx(2 * WATTS, rel=0.01)
    assert [round(one) for one in later.powers] == [round(WATTS), round(2 * WATTS)]


def test_whatever_is_seen_between_the_figures_at_the_end_are_the_same() -> None:
    frames = [*begun(), *(frame for n in range(10) for frame in second(n))]
    at_once = seen(Picture(ticket()), *frames)
    often = Picture(ticket())
    for frame in frames:
        last = seen(often, frame)
    assert (last.power, last.token_rate, last.temperature) == (at_once.power, at_once.token_rate, at_once.temperature)


def test_a_source_of_neither_power_nor_heat_is_read_no_more() -> None:
    picture = Picture(ticket())
    seen(picture, *begun(), *second(0), *second(1))
    assert picture._of_interest == {"rapl": True, "thermal": True, "loadavg": False}


def test_what_cannot_be_told_has_its_reason_and_is_never_zero() -> None:
    nothing = Picture(ticket()).sight()
    assert (nothing.power.value, nothing.temperature.value, nothing.token_rate.value) == (None, None, None)
    assert nothing.power.reason.startswith("no_energy_source: ")
    assert nothing.temperature.reason.startswith("no_thermal_sensor: ")
    assert nothing.token_rate.reason == "no_token: none has come in the last 5 s"
    assert nothing.elapsed_s is None
    assert nothing.status["state"] == "starting"
    denied = [make.stream(3, "rapl", f"{ZONE}/energy_uj", status="denied", errno=13)]
    assert seen(Picture(ticket()), *begun()[:1], *denied).power.reason.startswith("sensor_denied: ")
    assert Picture(ticket(runner=None)).sight().token_rate.reason == "no engine was asked for"
    bench = Picture(ticket(runner={"mode": "bench", "engine": "llama-bench"})).sight()
    assert bench.token_rate.reason == "llama-bench tells its tokens when it has ended"
    jump = [*begun(), *second(0), *second(1), *second(2, start_uj=RANGE_UJ // 2)]
    assert seen(Picture(ticket()), *jump).power.reason.startswith("counter_reset: ")
    mad = [*begun(), *(frame for n in range(5) for frame in second(n, watts=900))]
    assert seen(Picture(ticket(max_power_w=100)), *mad).power.reason == "implausible_power: 900 W"


def test_a_temperature_of_long_ago_is_not_of_now() -> None:
    picture = Picture(ticket())
    assert seen(picture, *begun(), *second(0)).temperature.value == 40.0
    assert seen(picture, make.event("mark", 59 * SECOND)).temperature.value == 40.0
    assert seen(picture, make.event("mark", 70 * SECOND)).temperature.value is None


def test_what_the_controller_records_beside_it_is_read_too() -> None:
    told = ticket()
    told["sources"][0]["host"] = True
    picture = Picture(told)
    frames = [frame for n in range(5) for frame in second(n)]
    assert seen(picture, *begun(), *frames).power.value is None
    tail = Tail()
    picture.take_host(tail.take(make.journal(*begun(), *frames)))
    assert picture.sight().power.value == pytest.approx(WATTS, rel=0.01)


def test_lines_of_a_program_are_tokens_where_its_engine_is_in_its_process() -> None:
    started = [
        make.event("begin", 0),
        make.stream(7, "engine", "", kind="out"),
        make.event("spawn", 1, proc="engine", stdout=7, stderr=8),
        make.readings(7, [(SECOND, SECOND, 0, b'{"event": "start", "file": "0"}')]),
        make.readings(7, [(SECOND + n * SECOND // 10, SECOND + n * SECOND // 10, 0, b'["w"]') for n in range(31)]),
    ]
    inside = {"mode": "in-process", "engine": "x"}
    assert seen(Picture(ticket(runner=inside)), *started).token_rate.value == pytest.approx(10)
    assert seen(Picture(ticket()), *started).token_rate.value is None


def test_an_end_and_answers_are_told() -> None:
    picture = Picture(ticket())
    status = seen(picture, *begun(), make.event("request", 7, stream=9, error="")).status
    assert (status["done"], status["of"]) == (1, 3)
    assert seen(picture, make.event("end", 9, result="done")).status["state"] == "ended"
    circle = Picture(ticket(workload={"kind": "sustained"}))
    assert seen(circle, *begun()).status["of"] == 0


def test_what_is_held_of_a_hostile_journal_is_bounded() -> None:
    picture = Picture(ticket())
    tail = Tail()
    streams = [make.stream(n, "thermal", f"{HEAT}{n}/temp") for n in range(6000)]
    picture.take(tail.take(make.journal(*streams)))
    for n in range(0, 6000, 6):
        rows = [(5, 6, 0, bytes(60_000))] * 8
        picture.take(tail.take(make.readings(n, rows)))
        held = picture._target._streams
        assert sum(one.bytes for one in held.values()) == picture._target._bytes <= window._ALL_BYTES
    assert len(picture._target._streams) <= window._MOST_STREAMS
    for _ in range(40):
        picture.take(tail.take(make.readings(1, [(5, 6, 0, bytes(900_000))])))
    assert picture._target._streams[1].bytes <= 2 * window._STREAM_BYTES


VALUES = st.none() | st.integers(-(2**70), 2**70) | st.text(max_size=4) | st.lists(st.integers(), max_size=2)
NAMES = st.sampled_from(["begin", "stream", "step", "request", "spawn", "end", "stream_end", "mark"])
KEYS = st.sampled_from(["stream", "channel", "kind", "path", "status", "op", "name", "state", "stdout", "proc", "step"])
EVENTS = st.builds(
    lambda name, more: make.frame(1, json.dumps({"event": name, "boot_ns": 5} | more).encode()),
    NAMES,
    st.dictionaries(KEYS | st.just("boot_ns"), VALUES, max_size=5),
)
TIMES = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.tuples(TIMES, TIMES, st.integers(-5, 300), st.binary(max_size=12)), max_size=4)
READINGS = st.builds(make.readings, st.integers(0, 9), ROWS)
ANY = st.builds(make.frame, st.integers(0, 3), st.binary(max_size=40))


@settings(max_examples=150)
@given(st.lists(EVENTS | READINGS | ANY, max_size=12))
def test_no_journal_raises(frames: list[bytes]) -> None:
    picture = Picture(ticket())
    for sight in (seen(picture, *begun(), *second(0), *frames), seen(picture, *second(1))):
        for now in (sight.power, sight.token_rate, sight.temperature):
            assert (now.value is None) != (now.reason == "")
