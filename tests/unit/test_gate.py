"""When a device is cool and steady enough to begin: the rule, and what it reads."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import numpy as np
import pytest
from evidence_kit import ran, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench import glance
from meltbench.definition import Workload
from meltbench.errors import DeadlineExceeded, UserError
from meltbench.gate import MIN_READINGS, Gate, Seen, gated, hottest, wait
from meltbench.measure.findings import gate_conditions
from meltbench.readings import READERS
from meltbench.targets import profile


def fed(gate: Gate, temperature, until_s: float = 1000.0, every_s: float = 2.0) -> Seen:
    """Readings until the gate is done waiting; ``temperature`` of the time."""
    seen = Seen("waiting", 0.0)
    for t in np.arange(0, until_s, every_s):
        seen = gate.feed(1000 + float(t), temperature(float(t)))
        if seen.state != "waiting":
            break
    return seen


def quantised(value: float, quantum: float) -> float:
    return round(math.floor(value / quantum) * quantum, 6)


def test_a_steady_device_passes_after_the_hold_and_not_before():
    seen = fed(Gate(300), lambda t: 40.0)
    assert (seen.state, seen.waited_s, seen.temp_c, seen.slope_c_per_min) == ("passed", 60, 40, 0)


def test_a_cooling_device_passes_once_its_slope_is_small():
    tau = 120.0
    seen = fed(Gate(3000), lambda t: 40 + 30 * math.exp(-t / tau), 3000)
    assert seen.state == "passed"
    # The middle of the hold lies half a minute back.
    assert 60 * 30 / tau * math.exp(-(seen.waited_s - 30) / tau) == pytest.approx(0.1, rel=0.1)
    assert 0 < seen.slope_c_per_min * -1 <= 0.1


def test_trap_41_a_gate_that_ran_out_of_time_says_so_with_what_it_saw():
    gate = Gate(120, target_c=35)
    seen = fed(gate, lambda t: 60.0 - t / 100)
    assert (seen.state, seen.waited_s) == ("timed_out", 120)
    ((code, detail),) = gate_conditions(vars(seen) | {"target_c": gate.target_c})
    assert (code, detail) == ("warm_start", "58.8 degC, target 35.0 degC, -0.60 degC/min after 120 s of waiting")


def test_the_target_must_be_met_within_a_degree_for_the_whole_hold():
    assert fed(Gate(200, 40), lambda t: 41.5).state == "timed_out"
    assert fed(Gate(200, 40), lambda t: 40.9).state == "passed"
    assert fed(Gate(200, 40), lambda t: 38.0).state == "timed_out"  # too cold is another state, too
    once = fed(Gate(300, 40), lambda t: 42.0 if t == 50 else 40.5)
    assert (once.state, once.waited_s) == ("passed", 112)


@pytest.mark.parametrize(("quantum", "per_min", "state"), [(1.0, 0.7, "passed"), (0.1, 0.7, "timed_out")])
def test_a_coarse_sensor_is_given_its_quantum_a_minute(quantum, per_min, state):
    """From a steep fall on, which shows the quantum, the device cools by 0.7 degC a minute."""
    gate = Gate(240)
    seen = fed(gate, lambda t: quantised(60 - (0.5 * t if t < 60 else 30 + per_min * (t - 60) / 60), quantum))
    assert seen.state == state
    assert seen.quantum_c == pytest.approx(quantum)


def test_a_spike_of_one_reading_stops_no_gate():
    dice = np.random.default_rng(7)
    spikes = {round(t, 0) for t in dice.choice(np.arange(0, 100, 2), 5)}
    seen = fed(Gate(300), lambda t: 45.0 + 0.03 * dice.integers(-1, 2) + (9.0 if t in spikes else 0.0))
    assert seen.state == "passed"


@settings(max_examples=100, deadline=None)
@given(st.floats(0.2, 30), st.floats(0.5, 5), st.sampled_from([0.001, 0.031, 0.1, 0.5, 1.0]), st.floats(20, 90))
def test_no_device_that_cools_steadily_passes_because_its_quantum_was_misjudged(per_min, every_s, quantum, start):
    gate = Gate(180)
    seen = fed(gate, lambda t: quantised(start - per_min * t / 60, quantum), every_s=every_s)
    # A step more or less lies in the hold's readings.
    if seen.state == "passed":
        assert per_min <= max(0.1, 2 * quantum) * 1.1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 40), st.none() | st.floats(-300, 1000) | st.just(math.nan)), max_size=80))
def test_any_readings_give_a_state_and_a_bounded_wait(steps):
    gate, t = Gate(90, hold_s=20), 0.0
    for step, temp in steps:
        t += step  # a clock that goes back counts as one that stands
        seen = gate.feed(t, temp)
        assert seen.state in ("waiting", "passed", "timed_out", "no_sensor")
        assert seen.state != "waiting" or seen.waited_s < 90
        if seen.state == "passed":
            assert seen.temp_c is not None
            assert seen.waited_s >= 20


def test_a_gap_in_the_readings_begins_the_hold_anew():
    seen = fed(Gate(300), lambda t: None if 40 <= t < 60 else 40.0)
    assert (seen.state, seen.waited_s) == ("passed", 120)
    assert fed(Gate(300), lambda t: None if t % 10 == 2 else 40.0).waited_s == 60


def test_few_readings_pass_no_gate():
    every = 60 / (MIN_READINGS - 2)
    assert fed(Gate(240), lambda t: 40.0, every_s=every).waited_s > 60


def test_without_a_temperature_there_is_no_sensor_and_no_wait():
    seen = fed(Gate(300), lambda t: None)
    assert (seen.state, seen.waited_s, seen.words) == ("no_sensor", 4, "no temperature")
    assert fed(Gate(300), lambda t: None if t < 4 else 40.0).state == "passed"


def test_a_sensor_that_falls_silent_is_waited_for_until_time_is_out():
    assert fed(Gate(100), lambda t: 40.0 if t < 10 else None).state == "timed_out"


@pytest.mark.parametrize(
    ("told", "codes"),
    [
        (None, ["not_gated"]),
        ({"state": "off"}, ["not_gated"]),
        ({"state": "no_sensor"}, ["no_thermal_sensor"]),
        ({"state": "timed_out"}, ["warm_start"]),
        ({"state": "passed", "temp_c": 40.0}, []),
    ],
)
def test_each_outcome_has_its_reason(told, codes):
    assert [code for code, _ in gate_conditions(told)] == codes


def test_a_gate_that_could_only_run_out_is_refused():
    with pytest.raises(UserError, match="gate_timeout_s = 59 is shorter than the 60 s") as caught:
        Workload("t", 1, "idle", gate_timeout_s=59).check("--set")
    assert "or 0 for no gate" in str(caught.value.hint)
    for fine in (0, 60, 7200):
        Workload("t", 1, "idle", gate_timeout_s=fine).check("--set")


SYS = "/somewhere/sys"


def answered(zones: dict[str, tuple[str, object]]) -> dict[str, object]:
    """The probe's answer about zones: type and temp by number; a number for temp is the errno of its read."""
    files: dict[str, object] = {}
    for number, (kind, temp) in zones.items():
        folder = f"{SYS}/class/thermal/thermal_zone{number}"
        files[f"{folder}/type"] = {"status": "ok", "errno": 0, "text": f"{kind}\n"}
        files[f"{folder}/temp"] = (
            {"status": "again", "errno": temp} if isinstance(temp, int) else {"status": "ok", "errno": 0, "text": temp}
        )
    return {"files": files}


def of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> profile.Profile:
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "mine.toml").write_text(f'inherits = "local"\n[roots]\nsys = "{SYS}"\n{more}')
    monkeypatch.chdir(tmp_path)
    return profile.load("mine")[0]


def look(answer, mine):
    """The series of a look at files alone, as the probe answered."""
    return glance.series(glance.sources(mine, "heat"), glance.of_files(answer))


def hottest_c(answer, mine):
    heat = hottest(look(answer, mine), mine)
    return None if heat is None else heat.temp_c


def test_trap_11_zones_that_are_off_are_no_temperatures_at_the_gate(tmp_path, monkeypatch):
    mine = of(tmp_path, monkeypatch)
    off = {"0": ("gpu-thermal", errno.EAGAIN), "1": ("cv0-thermal", "-256000\n"), "2": ("cv1-thermal", "0\n")}
    assert hottest_c(answered(off), mine) is None
    assert len(gated(look(answered(off), mine), mine)) == 3
    assert hottest_c(answered(off | {"3": ("cpu-thermal", "51250\n"), "4": ("tj-thermal", "47000\n")}), mine) == 51.25
    files = glance.globs(mine, glance.sources(mine, "heat"))
    assert files == [f"{SYS}/class/thermal/thermal_zone*/{name}" for name in ("temp", "type")]


def test_the_hottest_of_the_profiles_zones_counts(tmp_path, monkeypatch):
    mine = of(tmp_path, monkeypatch, '[gate]\nzones = ["thermal.skin*", "thermal.quiet-therm"]\ntarget_c = 30\n')
    zones = {"0": ("cpu-0-0", "70000"), "1": ("skin-msm-therm", "33100"), "2": ("quiet-therm", "34500")}
    assert hottest_c(answered(zones), mine) == 34.5
    assert hottest_c(answered({"0": zones["0"]}), mine) is None


ANDROID = Path(__file__).parents[1] / "contract" / "android"


def of_phone(*streams):
    """The hottest zone of a phone by these streams, and what was asked for it."""
    phone = profile.load("generic-android")[0]
    wanted = glance.sources(phone, "heat")
    return hottest(glance.series(wanted, list(streams)), phone)


def polled(reader: str, text: bytes):
    return ran(READERS[reader].commands[0], [text])


def test_a_phone_whose_zones_are_denied_is_gated_by_its_thermal_service():
    skin = polled("thermalservice", (ANDROID / "thermal_pixel.txt").read_bytes())
    denied = [stream("/sys/class/thermal/thermal_zone0/temp", [errno.EACCES])]
    heat = of_phone(skin, *denied)
    assert (heat.temp_c, heat.zone, heat.cached) == (35.718, "thermalservice.SKIN.VIRTUAL-SKIN", False)
    asked = glance.commands(glance.sources(profile.load("generic-android")[0], "heat"), ("dumpsys", "cmd"))
    assert [" ".join(one.argv) for one in asked] == [
        "dumpsys battery", "cmd battery get -f current_now", "dumpsys thermalservice",
    ]  # fmt: skip


def test_trap_4_a_cached_temperature_counts_where_nobody_tells_a_live_one():
    dump = polled("dumpsys_battery", (ANDROID / "battery_tablet_android14.txt").read_bytes())
    alone = of_phone(dump)
    assert (alone.temp_c, alone.zone, alone.cached) == (pytest.approx(28.7), "dumpsys_battery", True)
    cool = [
        stream("/sys/class/power_supply/battery/type", [b"Battery\n"]),
        stream("/sys/class/power_supply/battery/temp", [b"251\n"]),
    ]
    beside = of_phone(dump, *cool)
    assert (beside.temp_c, beside.zone, beside.cached) == (pytest.approx(25.1), "battery", False)
    assert of_phone() is None


paths = st.sampled_from([f"{SYS}/class/thermal/thermal_zone{n}/{f}" for n in range(3) for f in ("temp", "type")])
hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["ok", "40000\n", 11]),
    lambda inner: st.dictionaries(st.sampled_from(["status", "errno", "text", f"{SYS}/x/temp"]), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(paths | st.text(max_size=9), hostile, max_size=6) | hostile)
def test_any_answer_gives_a_temperature_or_none(files):
    local = profile.load("local")[0]
    found = hottest_c({"files": files}, local)
    assert found is None or -40 <= found <= 150
    assert hottest_c({}, local) is None


def test_waiting_ends_when_it_is_stopped_and_bears_a_device_that_is_slow_to_answer():
    shown: list[Seen] = []
    seen = wait(Gate(60), lambda: 40.0, shown.append, lambda: len(shown) >= 3, period_s=0.01)
    assert (seen.state, len(shown)) == ("waiting", 3)
    answers = iter([DeadlineExceeded("slow")] * 5 + [40.0] * 100)

    def look() -> float:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert wait(Gate(9, hold_s=0.1), look, shown.append, lambda: False, period_s=0.005).state == "passed"
    answers = iter([DeadlineExceeded("gone")] * 6)
    with pytest.raises(DeadlineExceeded):
        wait(Gate(9), look, shown.append, lambda: False, period_s=0.01)
