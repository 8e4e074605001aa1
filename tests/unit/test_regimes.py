"""Burst, throttled, recovery, sustained: made runs of known course."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from evidence_kit import SECOND, digests, phase, request, series
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.measure.battery import under_voltage_reasons
from meltbench.measure.breaks import FALSE_ALARMS, breaks, levels
from meltbench.measure.findings import frequency_reasons
from meltbench.measure.regimes import regimes
from meltbench.measure.throttle import throttle_reasons
from meltbench.records import Measure

START = 100.0
IDLE_S = 10.0


def phases(run_s, load_s=5.0):
    end = START + run_s
    return [
        phase("idle_before", START - load_s - IDLE_S, START - load_s),
        phase("load", START - load_s, START - 1),
        phase("run", START, end),
        phase("idle_after", end + 1, end + 1 + IDLE_S),
    ]


def asked(rate, run_s, each_s=3.0, items=5, **more):
    """Requests without a pause: each at the rate of its middle, s of the run, and of its item."""
    out = []
    for i, t in enumerate(np.arange(0, run_s - each_s / 2, each_s)):
        tps = float(rate(t + each_s / 2)) * (1 + i % items / 10)
        out.append(request(i, START + t, START + t + each_s, item=f"q{i % items}", decode_tps=tps, **more))
    return out


def signal(name, of, run_s, unit="degC", kind="gauge", every_s=0.5):
    """A signal from the first idle window on; ``of`` the seconds of the run."""
    t = np.arange(-15, run_s + 12, every_s)
    return series(name, START + t, [of(one) for one in t], kind=kind, unit=unit)


def flag(name, run_s, *spans, value=1.0):
    return signal(name, lambda t: value * any(a <= t < b for a, b in spans), run_s, unit="1", kind="state")


def heating(run_s, low=40.0, high=80.0, tau=60.0, after=300.0):
    def course(t):
        if t <= 0:
            return low
        hot = high - (high - low) * np.exp(-min(t, run_s) / tau)
        return hot if t <= run_s else low + (hot - low) * np.exp(-(t - run_s) / after)

    return signal("thermal.cpu", course, run_s)


def found(run_s, requests=(), parts=(), kind="sustained", **more):
    spans = phases(run_s)
    run = spans[2] if "run" in {p.name for p in spans} else None
    return regimes(kind, digests(parts, run), spans, requests, **more)


def told(result, run_s=None):
    """Name, start and end in seconds of the run, of the regimes in it."""
    rows = [(one.name, one.t0_ns / SECOND - START, one.t1_ns / SECOND - START) for one in result.regimes]
    return [(name, a, b) for name, a, b in rows if b > 0 and (run_s is None or a < run_s)]


def covers(result, t0_s, t1_s):
    spans = result.regimes
    assert all(a.t1_ns == b.t0_ns for a, b in pairwise(spans))
    assert all(one.t1_ns > one.t0_ns for one in spans)
    assert (spans[0].t0_ns, spans[-1].t1_ns) == (round(t0_s * SECOND), round(t1_s * SECOND))


def near(rows, expected, within=1.01):
    assert [name for name, *_ in rows] == [name for name, *_ in expected]
    for (_, a, b), (_, x, y) in zip(rows, expected, strict=True):
        assert abs(a - x) <= within
        assert abs(b - y) <= within


def test_a_steady_run_is_a_burst_that_settles():
    dice = np.random.default_rng(1)
    result = found(600, asked(lambda t: dice.normal(50, 1), 600), [heating(600)])
    near(told(result, 600), [("burst", 0, 60), ("sustained", 60, 600)])
    assert [one.name for one in result.regimes] == ["idle", "load", "burst", "sustained", "unload", "idle"]
    covers(result, START - 15, START + 611)
    assert result.throttled == ()
    assert result.recovery.reason.startswith("not_throttled")
    assert result.regimes[3].cause.startswith("the token rate drifts by ")


def test_a_short_run_is_all_burst():
    result = found(9, asked(lambda t: 50, 9), kind="generate")
    near(told(result, 9), [("burst", 0, 9)])
    assert result.recovery is None


@pytest.mark.parametrize(
    "name",
    ["nvml.gpu0.thermal_slowdown", "throttled.soft_temp_limit", "throttled.frequency_capped", "dumpsys.thermal_status"],
)
def test_a_flag_of_the_platform_is_throttling_while_it_stands(name):
    parts = [flag(name, 120, (60, 90), value=3.0 if name.endswith("status") else 1.0), heating(120)]
    result = found(120, asked(lambda t: 50.0, 120), parts, kind="generate")
    near(told(result, 120), [("burst", 0, 60), ("throttled", 60, 90), ("recovery", 90, 93), ("burst", 93, 120)])
    cause = result.throttled[0].cause
    assert cause.startswith(f"{name} 3; cpu at 65." if name.endswith("status") else f"{name}; cpu at 65.")
    assert result.recovery.value == pytest.approx(3, abs=0.01)
    (why,) = throttle_reasons(result.throttled, phases(120)[2])
    assert (why.code, why.state) == ("throttled", "degraded")
    assert why.detail.startswith(f"60-90 s of the run: {name}")


def test_trap_24_a_flag_that_stays_up_counts_where_it_rises_within_the_run():
    sticky, run = "throttled.thermal_slowdown_since_boot", phases(60)[2]
    rising = flag(sticky, 60, (30, 999))
    result = found(60, asked(lambda t: 50.0, 60), [rising], kind="generate")
    near(told(result, 60)[:2], [("burst", 0, 29), ("throttled", 29, 31)], 1.1)
    assert result.throttled[0].cause.startswith(sticky)
    for old in (flag(sticky, 60, (-99, 999)), flag(sticky, 60, (65, 999))):
        assert found(60, asked(lambda t: 50.0, 60), [old], kind="generate").throttled == ()
    low = [flag("throttled.under_voltage", 60, (20, 21)), flag("throttled.under_voltage_since_boot", 60, (20, 999))]
    (why,) = under_voltage_reasons(digests(low, run), run)
    assert (why.code, why.state) == ("under_voltage", "invalid")
    assert why.detail == "throttled: in the run"
    assert under_voltage_reasons(digests([flag("throttled.under_voltage_since_boot", 60, (-99, 999))], run), run) == []
    capped = frequency_reasons(digests([flag("throttled.frequency_capped", 60, (20, 30))], run), run)
    assert [(one.code, one.detail) for one in capped] == [("frequency_capped", "throttled.frequency_capped")]


def test_flags_outside_of_the_run_are_nothing_against_it():
    result = found(60, asked(lambda t: 50.0, 60), [flag("nvml.gpu0.thermal_slowdown", 60, (-14, -8), (64, 70))])
    assert result.throttled == ()
    assert throttle_reasons(result.throttled, None) == []


def test_a_flag_that_is_polled_seldom_stands_until_it_is_read_again():
    seldom = series("d.thermal_status", START + np.arange(-10, 71, 20.0), [0, 0, 2, 2, 0], kind="state", unit="1")
    near(told(found(90, asked(lambda t: 50.0, 90), [seldom]), 90)[:2], [("burst", 0, 30), ("throttled", 30, 70)])


def caps(run_s, course, top=2.4e9):
    return signal("cpufreq.policy4.max_hz", lambda t: course(t) * top, run_s, unit="Hz")


def test_a_cap_that_comes_in_the_run_is_throttling_and_one_that_stands_is_a_setting():
    hot = heating(300)
    result = found(
        300, asked(lambda t: 50.0 if t < 100 else 31.0, 300), [caps(300, lambda t: 1.0 if t < 100 else 0.5), hot]
    )
    near(told(result, 300), [("burst", 0, 99), ("throttled", 99, 311)])
    assert result.throttled[0].cause.startswith(
        "policy4 capped at 1.20 of 2.40 GHz, the token rate fell to 62%; cpu at 7"
    )
    assert found(300, asked(lambda t: 50.0, 300), [caps(300, lambda t: 0.5), hot]).throttled == ()


def test_a_clock_that_falls_under_load_is_throttling_and_that_of_an_idle_core_is_not():
    dice = np.random.default_rng(3)

    def clock(t, busy):
        return (2e9 if t < 80 else 1.5e9) if dice.random() < busy else 8e8

    clocks = [
        signal(f"cpufreq.policy{n}.cur_hz", lambda t, b=b: clock(t, b), 200, "Hz") for n, b in enumerate((0.9, 1))
    ]
    result = found(200, asked(lambda t: 50.0, 200), [*clocks, heating(200)], kind="generate")
    near(told(result, 200), [("burst", 0, 80), ("throttled", 80, 200)], within=2.5)
    assert result.throttled[0].cause.startswith("the clock fell to 75% of 2.00 GHz")
    resting = signal("nvml.gpu0.sm_hz", lambda t: 2.1e8 if (t // 7) % 2 else 1.5e9 * (40 < t < 50) + 2e8, 200, "Hz")
    assert found(200, asked(lambda t: 50.0, 200), [resting], kind="generate").throttled == ()
    # What a command does to its clock is its own affair.
    assert found(200, (), clocks, kind="exec").throttled == ()


def test_a_token_rate_that_falls_is_throttled_until_it_has_settled():
    dice = np.random.default_rng(5)
    requests = asked(lambda t: (100.0 if t < 150 else 60.0) * dice.normal(1, 0.01), 600)
    result = found(600, requests, [heating(600)])
    near(
        told(result, 600),
        [("burst", 0, 150), ("throttled", 150, 210), ("sustained", 210, 600)],
        3.1,
    )
    assert "the token rate fell to 60%; cpu at 76." in result.throttled[0].cause
    assert result.regimes[4].cause.endswith(f"throttled before: {result.throttled[0].cause}")
    assert told(result)[-1][0] == "recovery"  # the device was still slowed when the run ended
    assert result.recovery.reason.startswith("not_recovered: 7")
    covers(result, START - 15, START + 611)


def test_a_rate_that_falls_on_a_device_that_stayed_cool_is_not_called_throttling():
    slower = asked(lambda t: 100.0 if t < 150 else 60.0, 600)
    cool = signal("thermal.cpu", lambda t: 40.0 + 0.5 * (t > 0), 600)
    assert found(600, slower, [cool]).throttled == ()
    blind = found(600, slower)
    assert blind.throttled[0].cause == "the token rate fell to 60%; no thermometer tells why"
    assert blind.recovery.reason.startswith("no_thermal_sensor")


def test_a_rate_that_comes_back_is_a_recovery_of_so_many_seconds():
    """A clock is capped for a minute, and the rate takes half a minute to come back after that."""
    requests = asked(lambda t: 100.0 if t < 100 else 60.0 if t < 160 else min(100.0, 60 + (t - 160) * 4 / 3), 400)
    result = found(400, requests, [caps(400, lambda t: 0.6 if 100 <= t < 160 else 1.0)])
    # At 187 s the rate is within 5 % again; the request that shows it ends a little later.
    rows = told(result, 400)
    near(
        rows,
        [
            ("burst", 0, 100),
            ("throttled", 100, 160),
            ("recovery", 160, 189),
            ("burst", 189, 229),
            ("sustained", 229, 400),
        ],
        2.1,
    )
    assert result.recovery.value == pytest.approx(29, abs=2.1)


def test_a_run_that_ended_hot_recovers_when_the_device_is_cool():
    parts = [flag("nvml.gpu0.thermal_slowdown", 100, (50, 103)), heating(100, after=2.0)]
    result = found(100, asked(lambda t: 50.0, 100), parts, kind="generate")
    last = [name for name, *_ in told(result)]
    assert last == ["burst", "throttled", "recovery", "idle"]
    # From 103 s on, until exp(-(t - 100) / 2) is below a tenth.
    assert result.recovery.value == pytest.approx(2, abs=1.01)
    assert "less than 1 degC or 10% of its rise" in result.recovery.method
    standing = found(100, asked(lambda t: 50.0, 100), [flag("nvml.gpu0.thermal_slowdown", 100, (50, 999))])
    assert standing.recovery.reason.startswith("not_recovered: throttled until the end")
    assert standing.regimes[-1].name == "throttled"


def test_power_that_drifts_is_not_sustained():
    requests = asked(lambda t: 50.0, 300)
    drifting = Measure("power_drift_per_min", 0.05, "1/min", u_k2=0.001, method="drifting; least squares")
    assert [name for name, *_ in told(found(300, requests, power_drift=drifting), 300)] == ["burst"]
    settled = replace(drifting, value=0.0, method="settled; least squares")
    assert [name for name, *_ in told(found(300, requests, power_drift=settled), 300)] == ["burst", "sustained"]


def test_a_drifting_rate_is_no_sustained_regime():
    rows = told(found(300, asked(lambda t: 100 - t / 20, 300), [signal("thermal.cpu", lambda t: 40.0, 300)]), 300)
    assert [name for name, *_ in rows] == ["burst"]


def test_idle_and_failed_records_have_their_spans():
    window = [phase("idle_before", 0, 3), phase("run", 3, 8), phase("idle_after", 8, 11)]
    assert [(r.name, r.t0_ns, r.t1_ns) for r in regimes("idle", [], window, []).regimes] == [
        ("idle", 0, 3 * SECOND), ("idle", 3 * SECOND, 8 * SECOND), ("idle", 8 * SECOND, 11 * SECOND),
    ]  # fmt: skip
    failed = [phase("idle_before", 0, 3), phase("load", 3.5, 8)]
    assert [r.name for r in regimes("generate", [], failed, []).regimes] == ["idle", "load"]
    assert regimes("generate", [], [], []).regimes == ()


def test_the_stated_share_of_rows_without_a_break_has_one():
    """600 rows of noise of three shapes: twice the stated number of alarms would have a chance of one in 500."""
    dice = np.random.default_rng(11)
    alarms = 0
    for turn in range(600):
        n = int(dice.integers(10, 150))
        noise = (dice.normal(0, 0.03, n), dice.standard_t(2, n) * 0.02, np.round(dice.normal(0, 2, n)))[turn % 3]
        alarms += bool(breaks(noise))
    assert alarms <= 2 * FALSE_ALARMS * 600
    assert alarms >= 1  # a test that never rejects would prove nothing


def test_runs_of_constant_rate_are_not_called_throttled():
    dice = np.random.default_rng(13)
    alarms = 0
    for _ in range(200):
        requests = asked(lambda t: dice.normal(50, 2), 300)
        alarms += bool(found(300, requests).throttled)
    assert alarms <= 4


@pytest.mark.parametrize(("before", "after"), [(5, 18), (18, 5), (40, 40), (400, 900)])
def test_a_break_is_found_where_it_is(before, after):
    dice = np.random.default_rng(before)
    row = np.concatenate([np.ones(before), np.full(after, 0.8)]) + dice.normal(0, 0.02, before + after)
    assert [at for at in breaks(row) if abs(at - before) <= max(1, (before + after) // 256)]
    assert levels(row)[0][2] == pytest.approx(1, abs=0.03)
    assert levels(row)[-1][2] == pytest.approx(0.8, abs=0.03)


def test_single_odd_numbers_are_no_break_and_short_rows_say_nothing():
    row = np.ones(60)
    row[[7, 30, 31]] = 0.1
    assert breaks(row) == []
    assert breaks(np.array([1.0] * 4 + [0.0] * 5)) == []
    assert breaks(np.empty(0)) == []


def test_requests_are_held_against_their_like_alone():
    """Answers to long prompts are slower by half, and come late in each round: nothing slowed the device."""
    slow_items = [
        replace(r, decode_tps=(r.decode_tps or 0) / (1 + (r.index % 5 > 2))) for r in asked(lambda t: 50.0, 300)
    ]
    assert found(300, slow_items).throttled == ()
    # A workload that asks everything once shows no pace.
    once = [replace(r, item=f"i{r.index}") for r in asked(lambda t: 100.0 if t < 60 else 50.0, 120)]
    assert found(120, once, kind="generate").throttled == ()


TIMES = st.integers(0, 10**12)
CLOCKS = ("cpufreq.policy0.max_hz", "cpufreq.policy0.cur_hz", "gpu.hz")
NAMES = ("x.thermal_slowdown", "x.soft_temp_limit_since_boot", "thermal.z", *CLOCKS)
REQUESTS = st.tuples(TIMES, st.integers(0, 10**10), st.none() | st.floats(1e-9, 1e9), st.sampled_from("abc"))
SIGNALS = st.tuples(st.sampled_from(NAMES), st.lists(st.tuples(TIMES, st.floats(0, 1e12)), max_size=30))
KINDS = st.sampled_from(["generate", "sustained", "idle", "exec", "grid"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(REQUESTS, max_size=40),
    st.lists(SIGNALS, max_size=6),
    st.tuples(TIMES, st.integers(1, 10**12)),
    KINDS,
)
def test_any_evidence_gives_regimes_without_gap_or_overlap(asks, signals, span, kind):
    run = replace(phase("run", 0, 1), t0_ns=span[0], t1_ns=span[0] + span[1])
    parts = []
    for name, rows in signals:
        t, v = [sorted(r[0] for r in rows), [r[1] for r in rows]]
        unit = "1" if name.startswith("x.") else "degC" if name.startswith("thermal") else "Hz"
        parts.append(series(name, np.array(t) / SECOND, v, kind="state" if unit == "1" else "gauge", unit=unit))
    made = [
        replace(request(i, 0, 1, item=item), t_send_ns=t0, t_end_ns=t0 + length, decode_tps=tps)
        for i, (t0, length, tps, item) in enumerate(asks)
    ]
    result = regimes(kind, digests(parts, run), [run], made)
    assert result.regimes[0].t0_ns == run.t0_ns
    assert result.regimes[-1].t1_ns == run.t1_ns
    assert all(a.t1_ns == b.t0_ns for a, b in pairwise(result.regimes))
    assert all(one.t1_ns > one.t0_ns for one in result.regimes)
    assert result.recovery is None or (result.recovery.value is None) == (result.recovery.reason is not None)
