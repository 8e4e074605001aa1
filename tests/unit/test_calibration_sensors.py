"""What made sensors of known truth show of load steps: levels, noise, response, freshness, quantum."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import series
from gauge_kit import windows
from hypothesis import given
from hypothesis import strategies as st

from meltbench.calibration.sensors import is_sensor, look, looks
from meltbench.calibration.steady import observer, steady
from meltbench.calibration.steps import Windows, loops_per_s
from meltbench.calibration.steps import windows as windows_of
from meltbench.records import Phase

SPAN = windows(20, 20)
LOADS = [(step.load.t0_ns / 1e9, step.load.t1_ns / 1e9) for step in SPAN.steps]
END_S = 120.0


def truth(t, idle, load):
    return np.where(np.any([(t >= a) & (t < b) for a, b in LOADS], axis=0), load, idle)


def made(idle=2.0, load=7.0, *, tau_s=0.0, update_s=0.1, period_s=0.03, noise=0.0, quantum=0.0, seed=1, unit="W"):
    """A gauge that follows with time constant ``tau_s``, is updated every ``update_s`` and read every ``period_s``."""
    rng = np.random.default_rng(seed)
    fine = np.arange(0, END_S, 0.001)
    v = truth(fine, idle, load)
    if tau_s:
        out, x = np.empty(len(v)), v[0]
        for i, target in enumerate(v):
            x += (target - x) * (1 - math.exp(-0.001 / tau_s))
            out[i] = x
        v = out
    at = np.arange(0, END_S, update_s)
    register = np.interp(at, fine, v) + rng.normal(0, noise, len(at)) if noise else np.interp(at, fine, v)
    if quantum:
        register = np.round(register / quantum) * quantum
    t = np.arange(0, END_S, period_s)
    held = register[np.maximum(np.searchsorted(at, t, "right") - 1, 0)]
    return series("x.power", t, held, kind="gauge", unit=unit, klass="C")


@pytest.mark.parametrize("tau_s", [0.175, 0.5, 1.0])
def test_the_response_of_a_filter_is_its_10_to_90_percent_rise(tau_s):
    found = look(made(tau_s=tau_s, noise=0.01), SPAN)
    assert found.seen == "yes"
    assert found.response_s == pytest.approx(tau_s * math.log(9), abs=0.06)
    assert found.dead_s == pytest.approx(tau_s * math.log(1 / 0.9), abs=0.1)
    assert (found.idle, found.load) == (pytest.approx(2.0, abs=0.02), pytest.approx(7.0, abs=0.02))
    assert found.difference == pytest.approx(5.0, abs=0.02)
    assert found.noise == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize(("update_s", "period_s"), [(1.0, 0.097), (0.25, 0.097), (0.1, 0.019)])
def test_trap_21_updates_are_counted_and_not_readings(update_s, period_s):
    found = look(made(update_s=update_s, period_s=period_s, noise=0.05), SPAN)
    assert found.update_s == pytest.approx(update_s, rel=0.1)
    assert found.fresh_per_s == pytest.approx(1 / update_s, rel=0.1)
    assert not found.sampled
    assert found.readings == pytest.approx(END_S / period_s, rel=0.01)


def test_a_sensor_that_is_read_slower_than_it_updates_is_known_to_be():
    found = look(made(update_s=0.01, period_s=0.05, noise=0.05), SPAN)
    assert found.sampled
    assert found.update_s == pytest.approx(0.05, rel=0.05)


def test_the_quantum_is_the_smallest_step():
    assert look(made(noise=0.3, quantum=0.04), SPAN).quantum == pytest.approx(0.04)


def test_a_dead_sensor_is_not_seen_and_its_level_is_not_called_a_measurement():
    found = look(made(idle=0, load=0), SPAN)
    assert (found.seen, found.why) == ("no", "it read 0 W all the time")
    assert (found.difference, found.u, found.response_s, found.quantum) == (None, None, None, None)
    counter = series("x.energy", np.arange(0, END_S, 0.1), np.full(1200, 55.0))
    assert (look(counter, SPAN).seen, look(counter, SPAN).why) == ("no", "the counter never changed")


def test_a_sensor_without_a_value_was_not_read():
    t = np.arange(0, END_S, 0.1)
    found = look(series("x.power", t, np.full(len(t), np.nan), kind="gauge", unit="W"), SPAN)
    assert (found.seen, found.readings, found.idle) == ("not read", 0, None)
    assert look(made(), Windows()).seen == "not read"


def test_noise_alone_is_no_step():
    for seed in range(20):
        found = look(made(idle=2, load=2, noise=0.5, seed=seed), SPAN)
        assert found.seen == "no", found
        assert found.difference is not None


def test_a_small_step_is_seen_where_it_stands_out_of_the_noise_and_its_u_covers_the_truth():
    misses = 0
    for seed in range(20):
        found = look(made(idle=2, load=2.5, noise=0.2, seed=seed), SPAN)
        assert found.seen == "yes"
        assert found.difference is not None
        assert found.u is not None
        misses += abs(found.difference - 0.5) > 2 * found.u
    assert misses <= 4


def test_a_drift_that_is_even_is_no_step():
    """A battery runs down and its voltage with it: idle before and after a load cancel it."""
    t = np.arange(0, END_S, 0.1)
    v = 4.0 - 0.002 * t + np.random.default_rng(0).normal(0, 0.0005, len(t))
    found = look(series("battery.voltage_v", t, v, kind="gauge", unit="V"), SPAN)
    assert found.seen == "no"
    sag = look(series("battery.voltage_v", t, v - truth(t, 0, 0.08), kind="gauge", unit="V"), SPAN)
    assert (sag.seen, sag.difference) == ("yes", pytest.approx(-0.08, abs=0.002))


def test_trap_4_a_cached_source_is_too_slow():
    """dumpsys battery tells what it was told up to 60 s ago: a minute of load may pass unseen."""
    found = look(made(update_s=30, noise=0.01), SPAN)
    assert found.seen == "too slow"
    assert "fresh values a window" in found.why


def test_trap_21_a_sensor_without_noise_has_few_new_values_and_is_not_slow():
    """Its values repeat because the load is steady; what it does at the edges shows that it is quick."""
    found = look(made(noise=0.0, update_s=0.25), SPAN)
    assert (found.seen, found.difference) == ("yes", pytest.approx(5.0, abs=0.02))
    assert found.quantum == pytest.approx(5.0)  # the smallest step that was seen, no more is known
    late = made(noise=0.0)
    assert look(replace(late, t0_ns=late.t0_ns + 12 * 10**9, t1_ns=late.t1_ns + 12 * 10**9), SPAN).seen == "too slow"


def test_heat_that_still_rises_when_the_load_ends_is_too_slow():
    heat = made(idle=40, load=60, tau_s=30, unit="degC")
    found = look(replace(heat, name="thermal.cpu"), SPAN)
    assert (found.seen, found.why) == ("too slow", "it was still moving when the load ended")
    assert found.response_s is None
    assert found.difference is not None
    assert found.difference > 0


@pytest.mark.parametrize("wrap", [None, 300.0])
def test_a_counter_of_energy_shows_its_power(wrap):
    t = np.arange(0, END_S, 0.05)
    fine = np.arange(0, END_S, 0.001)
    energy = np.concatenate([[0], np.cumsum(truth(fine, 10.0, 25.0) * 0.001)])[:-1]
    at = np.interp(np.floor(t / 0.1) * 0.1, fine, energy) + 250.0
    found = look(series("rapl.package-0", t, at % wrap if wrap else at, wrap=wrap), SPAN)
    assert (found.seen, found.unit) == ("yes", "W")
    assert (found.idle, found.load) == (pytest.approx(10, rel=0.01), pytest.approx(25, rel=0.01))
    assert found.update_s == pytest.approx(0.1, rel=0.02)


def test_only_what_a_load_can_move_is_a_sensor():
    t = np.arange(0, END_S, 0.5)
    names = {
        "battery.power": ("W", "gauge", True),
        "cpufreq.policy0.cur_hz": ("Hz", "gauge", True),
        "cpufreq.policy0.hw_max_hz": ("Hz", "gauge", False),
        "battery.status": ("1", "state", False),
        "memory.available": ("B", "gauge", False),
    }
    every = [series(name, t, t, kind=kind, unit=unit) for name, (unit, kind, _) in names.items()]
    for one in every:
        assert is_sensor(one) == names[one.name][2]
    assert [one.series for one in looks(every, SPAN)] == ["battery.power", "cpufreq.policy0.cur_hz"]


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), max_size=200), st.sampled_from(["W", "J", "V"])
)
def test_any_values_give_a_look(values, unit):
    t = np.linspace(0, 60, len(values))
    found = look(series("x", t, values, kind="counter" if unit == "J" else "gauge", unit=unit), windows(5, 5, 2, 1.0))
    assert found.seen in ("yes", "no", "too slow", "not read")
    assert (found.seen == "yes") <= (found.difference is not None)
    if not np.isfinite(values).any():
        assert (found.idle, found.difference) == (None, None)  # never a zero from nothing


def same(n=7, length=15.0):
    return [Phase(f"same_{i}", round((10 + i * length) * 1e9), round((10 + (i + 1) * length) * 1e9)) for i in range(n)]


def test_equal_windows_give_a_noise_floor_and_the_smallest_difference():
    rng = np.random.default_rng(2)
    t = np.arange(0, 130, 0.047)
    levels = 5 * (1 + rng.normal(0, 0.03, 20))
    power = levels[np.clip(((t - 10) // 15).astype(int), 0, 19)] + rng.normal(0, 0.01, len(t))
    found = steady(series("x.power", t, power, kind="gauge", unit="W", klass="C"), same())
    assert found.n == 6
    assert found.cv == pytest.approx(float(np.std(levels[1:7], ddof=1) / np.mean(levels[1:7])), rel=0.1)
    assert found.cv is not None
    assert found.mde == pytest.approx(1.507 * found.cv, rel=1e-3)


def test_the_smallest_difference_is_found_in_four_of_five_tries():
    """Two arms of 8 runs that differ by just it, compared by Student's t at 5 %: truth by simulation."""
    rng, cv = np.random.default_rng(5), 0.02
    mde = 1.507 * cv
    a, b = (rng.normal(level, cv, (4000, 8)) for level in (1.0, 1.0 + mde))
    spread = np.sqrt((a.var(axis=1, ddof=1) + b.var(axis=1, ddof=1)) / 8)
    hits = np.abs(b.mean(axis=1) - a.mean(axis=1)) / spread > 2.145
    assert hits.mean() == pytest.approx(0.8, abs=0.03)


def test_equal_windows_without_energy_say_why():
    t = np.arange(0, 130, 5.0)
    few = steady(series("x.power", t, np.sin(t), kind="gauge", unit="W"), same())
    assert (few.cv, few.mde, few.mean_w) == (None, None, None)
    assert "0 of 6 windows gave an energy, 3 are needed (stale_sensor" in few.reason
    assert steady(made(), []).reason.startswith("0 of 0 windows")


def test_what_watching_costs_is_told_with_its_noise():
    rng = np.random.default_rng(1)
    found = observer([97.0 + x for x in rng.normal(0, 0.2, 6)], [100.0 + x for x in rng.normal(0, 0.2, 6)])
    assert found is not None
    assert found.share == pytest.approx(0.03, abs=0.004)
    assert 0 < found.u_k2 < 0.01
    assert observer([97.0] * 2, [100.0] * 6) is None


def step(name, state, t, result="ok"):
    return {
        "event": "step",
        "name": name,
        "state": state,
        "boot_ns": t,
        **({"result": result} if state == "end" else {}),
    }


def test_windows_are_those_that_were_seen_whole():
    events = []
    for n, name in enumerate(("idle_0", "load_0", "idle_1", "load_1", "idle_2", "same_0", "same_1", "charge_0")):
        failed = name == "load_1"
        events += [step(name, "start", n * 10), step(name, "end", n * 10 + 9, "timeout" if failed else "ok")]
    found = windows_of([{"event": "mark", "name": "idle_9", "boot_ns": 3}, *events, step("idle_7", "start", 99)])
    assert [(s.before.name, s.load.t0_ns, s.after.t1_ns) for s in found.steps] == [("idle_0", 10, 29)]
    assert [one.name for one in found.same] == ["same_0", "same_1"]
    assert found.charge == Phase("charge_0", 70, 79)
    assert windows_of([]) == Windows()


def test_the_work_of_a_burn_is_read_from_its_words():
    assert loops_per_s([b"junk\n", b"500 loops 2 threads 2000000000 ns\n"]) == 250
    assert loops_per_s([b"500 loops 2 threads 0 ns"]) is None
    assert loops_per_s([]) is None
