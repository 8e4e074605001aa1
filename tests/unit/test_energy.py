"""Energy of windows against known power: within the stated u, or None with a reason."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import SECOND, phase, request, series
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.measure import costs
from meltbench.measure.digest import Edges, digest
from meltbench.measure.energy import energy, prepare, rail_of
from meltbench.records import Request

QUANTUM_J = 61e-6
FINE_S = np.arange(0, 60, 0.001)


def energy_measures(total, *rest, **more):
    return costs.energy_measures(total and prepare(total), *rest, **more)


def wave(t):
    """Idle 2 W; per second of work 0.4 s prefill at 9 W and 0.6 s decode at 5 W, from 10 s to 50 s."""
    busy = (t >= 10) & (t < 50)
    return np.where(busy, np.where(t % 1 < 0.4, 9.0, 5.0), 2.0)


SHAPES = {"constant": lambda t: 0 * t + 7.0, "ramp": lambda t: 1 + t / 4, "wave": wave}


def true_energy(power, t0, t1):
    x = np.linspace(t0, t1, 40001)[:-1] + (t1 - t0) / 80000
    return float(power(x).mean() * (t1 - t0))


def counter_of(power, period=0.047, update=0.001, t_end=60.0):
    """Polled every ``period``; the register itself moves every ``update``."""
    joules = np.concatenate([[0], np.cumsum(power(FINE_S + 0.0005)) * 0.001])
    t = np.arange(0.013, t_end - period, period)
    seen = np.interp(np.floor(t / update) * update, np.append(FINE_S, 60.0), joules)
    return series("total", t, np.floor((500 + seen) / QUANTUM_J) * QUANTUM_J)


def gauge_of(power, period=0.047):
    t = np.arange(0.013, 60 - period, period)
    return series("total", t, power(t), kind="gauge", unit="W", klass="C")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("t0", "t1"), [(10, 50), (20.1, 22.1), (30.0, 30.4), (30.4, 31.0), (9.7, 10.9)])
@pytest.mark.parametrize("update", [0.001, 0.1])
def test_counter_energy_is_within_its_u(shape, t0, t1, update):
    found = energy(counter_of(SHAPES[shape], update=update), phase("run", t0, t1))
    truth = true_energy(SHAPES[shape], t0, t1)
    gain = 2 * 0.05 / np.sqrt(3) * truth
    assert found.value == pytest.approx(truth, abs=np.sqrt(max(found.u_k2**2 - gain**2, 0)) + 0.002 * truth)
    assert found.coverage == 1.0


@pytest.mark.parametrize("update", [0.001, 0.02, 0.1])
@pytest.mark.parametrize("period", [0.019, 0.047, 0.097])
def test_u_of_the_edges_covers_random_windows(update, period):
    """At k = 2 about 95 % of windows lie within u; the gain is left out, for a synthetic counter has no gain error."""
    trace = prepare(replace(counter_of(wave, period=period, update=update), update_s=update))
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(100):
        t0 = rng.uniform(5, 50)
        t1 = t0 + rng.uniform(0.3, 5)
        found = energy(trace, phase("run", t0, t1))
        edges = np.sqrt(max(found.u_k2**2 - (2 * 0.05 / np.sqrt(3) * found.value) ** 2, 0))
        inside.append(abs(found.value - true_energy(wave, t0, t1)) <= edges + 0.002)
    assert np.mean(inside) >= 0.93


@pytest.mark.parametrize("period", [0.019, 0.097])
def test_repeated_values_betray_a_register_as_slow_as_the_readings(period):
    one, span = counter_of(wave, period=period, update=period * 1.03), phase("run", 20.7, 22.2)
    assert abs(energy(one, span).value - true_energy(wave, 20.7, 22.2)) <= energy(one, span).u_k2
    quick = counter_of(wave, period=period)
    assert energy(one, span).u_k2 > energy(quick, span).u_k2


@pytest.mark.parametrize("shape", ["ramp", "wave"])
def test_gauge_energy_is_within_its_u(shape):
    found = energy(gauge_of(SHAPES[shape]), phase("run", 10, 50))
    assert found.value == pytest.approx(true_energy(SHAPES[shape], 10, 50), abs=found.u_k2)
    assert found.klass == "C"


@pytest.mark.parametrize("period", [0.047, 0.097, 0.2, 0.9])
def test_trap_34_edges_are_not_clipped(period):
    """Only the samples inside a 2 s decode lose up to half of its energy at 1 Hz; interpolation loses none."""
    one = counter_of(SHAPES["constant"], period=period)
    assert energy(one, phase("decode", 20.05, 22.05)).value == pytest.approx(14.0, rel=0.002)


def test_counter_needs_updates_on_both_sides_of_both_edges():
    one = counter_of(wave)
    first, last = one.t0_ns[1] / 1e9, one.t0_ns[-1] / 1e9
    assert energy(one, phase("run", first - 0.01, 30)).reason.startswith("low_coverage")
    assert energy(one, phase("run", 30, last + 0.01)).reason.startswith("low_coverage")
    assert energy(one, phase("run", 30.001, 30.002)).reason.startswith("low_coverage")
    assert energy(one, phase("run", 30, 30)).reason.startswith("low_coverage")
    assert energy(one, phase("run", first, last)).value is not None


def test_edgereasoning_trap_a_phase_between_two_updates_is_not_given_idle_power():
    one = counter_of(wave, period=1.0)
    assert energy(one, phase("prefill", 30.1, 30.5)).value is None


def test_a_window_shorter_than_the_updates_are_apart_is_refused_also_with_one_inside():
    one = counter_of(wave, period=1.0)
    found = energy(one, phase("prefill", 29.8, 30.2))
    assert found.value is None
    assert found.reason == "low_coverage: 1 s between updates, the window has 0.4 s"
    assert energy(one, phase("run", 20.5, 30.2)).value is not None


def test_rule_9_a_stuck_counter_is_named_and_is_not_zero():
    one = series("total", np.arange(0, 60, 0.1), np.full(600, 77.0))
    found = energy(one, phase("run", 10, 20))
    assert (found.value, found.u_k2) == (None, None)
    assert found.reason.startswith("stale_sensor")


@pytest.mark.parametrize("kind", ["counter", "gauge"])
@pytest.mark.parametrize("values", [[], [1.0], [np.nan] * 5])
def test_trap_44_no_sample_is_none_and_not_zero(kind, values):
    found = energy(series("total", np.arange(len(values)), values, kind=kind), phase("run", 1, 2))
    assert found.value is None
    assert found.reason


def test_trap_21_equal_readings_in_a_row_keep_their_energy():
    """Oversampled five times: each value is seen five times, and dropping the copies would change nothing but time."""
    t = np.arange(0, 60, 0.02)
    fresh = 6 + 0.01 * (np.arange(600) % 7)
    one = series("total", t, np.repeat(fresh, 5), kind="gauge", unit="W")
    assert energy(one, phase("run", 10, 50)).value == pytest.approx(40 * 6.03, rel=0.002)


def test_zeus_trap_constant_power_is_not_zero_joules():
    """A gauge that never moves cannot be told from a stuck one: None, never 0 J. A counter has no such doubt."""
    one = gauge_of(SHAPES["constant"])
    assert energy(one, phase("run", 10, 20)).value is None
    assert energy(one, phase("run", 10, 20)).reason.startswith("stale_sensor")
    assert energy(counter_of(SHAPES["constant"]), phase("run", 10, 20)).value == pytest.approx(70, rel=0.001)


def test_rule_7_a_gauge_needs_ten_fresh_values_in_the_phase():
    one = gauge_of(SHAPES["ramp"])
    assert energy(one, phase("run", 20, 20.4)).reason.startswith("stale_sensor")
    assert energy(one, phase("run", 20, 20.6)).value == pytest.approx(3.645, rel=0.01)


def test_a_gauge_that_paused_covers_too_little():
    one = gauge_of(SHAPES["ramp"])
    one.value[(one.t0_ns > 20e9) & (one.t0_ns < 24e9)] = np.nan
    found = energy(one, phase("run", 15, 30))
    assert found.reason.startswith("low_coverage")
    assert found.coverage == pytest.approx(11 / 15, abs=0.02)


def test_readings_of_the_steps_around_a_run_do_not_make_a_slow_gauge_one_with_gaps():
    """A gauge asked every 2 s is read once more at each of the thirty steps that set a phone, 7 ms apart."""
    t = np.concatenate([np.arange(30) * 0.007, np.arange(2, 64, 2), 63 + np.arange(12) * 0.007])
    one = series("cmd_battery.power", t, 5 + 0.01 * (np.arange(len(t)) % 7), kind="gauge", unit="W", klass="C")
    spans = [(4 * SECOND, 8 * SECOND), (8 * SECOND, 58 * SECOND)]
    known = digest(one, Edges.of(spans, phase("run", 8, 58)))
    assert energy(rail_of(known), phase("run", 8, 58)).value == pytest.approx(5.03 * 50, rel=0.01)


def test_the_bound_of_the_clock_costs_what_moving_the_window_by_it_does():
    """Idle 2 W before 10 s and 9 W after it: 0.3 s later the window has lost as much of 9 W as it won."""
    one, step = counter_of(wave), phase("run", 10, 30)
    exact, off = energy(one, step), energy(replace(one, clock_bound_s=0.3), step)
    assert off.value == exact.value
    moved = max(abs(true_energy(wave, 10 + by, 30 + by) - true_energy(wave, 10, 30)) for by in (-0.3, 0.3))
    assert off.u_k2**2 - exact.u_k2**2 == pytest.approx((2 * moved / np.sqrt(3)) ** 2, rel=0.2)
    steady = energy(replace(counter_of(SHAPES["constant"]), clock_bound_s=0.3), step)
    assert steady.u_k2 == pytest.approx(energy(counter_of(SHAPES["constant"]), step).u_k2, rel=1e-3)


def test_a_model_has_no_u():
    one = counter_of(wave)
    estimate = series("total", one.t0_ns / 1e9, one.value, klass="E")
    assert energy(estimate, phase("run", 10, 30)).u_k2 is None


@settings(max_examples=40, deadline=None)
@given(st.floats(5, 30), st.floats(0.5, 25), st.sampled_from([0.019, 0.047, 0.097]))
def test_windows_add_up(t0, length, period):
    trace = prepare(counter_of(wave, period=period))
    t1 = t0 + length
    half = (t0 + t1) / 2
    whole = energy(trace, phase("run", t0, t1)).value
    parts = energy(trace, phase("run", t0, half)).value + energy(trace, phase("run", half, t1)).value
    assert whole == pytest.approx(parts, rel=1e-6)


def run_of(power, n=40):
    """Requests of one second each, back to back from 10 s: 0.4 s prefill and 0.6 s decode."""
    requests = [request(i, 10 + i, 11 + i, ttft_s=0.4, n_in=100, n_out=25) for i in range(n)]
    phases = [phase("idle_before", 0, 9), phase("load", 9, 10), phase("run", 10, 10 + n), phase("idle_after", 51, 60)]
    for i in range(n):
        phases += [phase("prefill", 10 + i, 10.4 + i, i), phase("decode", 10.4 + i, 11 + i, i)]
    return counter_of(power), phases, requests


def by_name(measures):
    return {(one.name, one.phase): one for one in measures}


def test_a_whole_run_against_its_truth():
    got = by_name(energy_measures(*[(a := run_of(wave))[0], "", a[1], a[2]]))
    expected = {
        ("energy_j", "run"): 264,
        ("net_energy_j", "run"): 264 - 80,
        ("mean_power_w", "run"): 6.6,
        ("idle_power_w", "idle_before"): 2,
        ("idle_power_w", "idle_after"): 2,
        ("energy_j", "load"): 2,
        ("energy_j", "prefill"): 144,
        ("energy_j", "decode"): 120,
        ("net_energy_j", "load"): 0,
        ("net_energy_j", "prefill"): 144 - 32,
        ("net_energy_j", "decode"): 120 - 48,
        ("j_per_output_token", "run"): 0.264,
        ("j_per_total_token", "run"): 264 / 5000,
        ("j_per_request", "run"): 6.6,
        ("tokens_per_joule", "run"): 1000 / 264,
        ("edp_js", "run"): 6.6,
        ("net_j_per_output_token", "run"): 0.184,
        ("net_j_per_total_token", "run"): 184 / 5000,
        ("net_j_per_request", "run"): 4.6,
    }
    assert got.keys() == expected.keys()
    for key, truth in expected.items():
        # Edges where power steps smear by up to one reading: 2 W before 9 W at the load's end, 9 W beside 5 W.
        short = {"load": 0.05, "prefill": 0.02, "decode": 0.03}.get(key[1], 0.005)
        assert got[key].value == pytest.approx(truth, rel=short * (2 if "net" in key[0] else 1), abs=0.2), key
        assert abs(got[key].value - truth) <= got[key].u_k2
        assert (got[key].source, got[key].klass) == ("total", "B")


def test_melt_trap_phase_energies_are_not_zero_and_add_up_to_the_run():
    one, phases, requests = run_of(wave)
    got = by_name(energy_measures(one, "", phases, requests))
    parts = got["energy_j", "prefill"].value + got["energy_j", "decode"].value
    assert parts == pytest.approx(got["energy_j", "run"].value, rel=1e-6)


def test_ipw_trap_a_long_request_does_not_saturate():
    one = counter_of(SHAPES["constant"])
    assert energy(one, phase("decode", 5, 50, 0)).value == pytest.approx(315, rel=0.001)


def test_trap_44_without_a_source_every_energy_is_none_with_the_reason():
    _, phases, requests = run_of(wave)
    reason = "no_energy_source: no /sys/class/powercap/intel-rapl:* on this machine"
    absent = energy_measures(None, reason, phases, requests)
    present = energy_measures(counter_of(wave), "", phases, requests)
    assert {(m.name, m.phase, m.unit, m.stat) for m in absent} == {(m.name, m.phase, m.unit, m.stat) for m in present}
    assert {(m.value, m.reason) for m in absent} == {(None, reason)}


def test_trap_37_a_drifted_baseline_goes_into_u():
    def drifting(t):
        return wave(t) + np.where(t > 50, 1.0, 0.0)

    steady = by_name(energy_measures(*[(a := run_of(wave))[0], "", a[1], a[2]]))["net_energy_j", "run"]
    drifted = by_name(energy_measures(*[(a := run_of(drifting))[0], "", a[1], a[2]]))["net_energy_j", "run"]
    assert drifted.value == pytest.approx(264 - 2.5 * 40, rel=0.005)
    assert drifted.u_k2 > steady.u_k2 + 30


def test_trap_37_net_energy_far_below_zero_is_no_result():
    one, phases, requests = run_of(lambda t: np.where((t >= 10) & (t < 50), 2.0, 6.0))
    net = by_name(energy_measures(one, "", phases, requests))["net_energy_j", "run"]
    assert (net.value, net.u_k2) == (None, None)
    assert net.reason.startswith("net_below_baseline")


def test_net_needs_both_idle_windows():
    one, phases, requests = run_of(wave)
    got = by_name(energy_measures(one, "", [p for p in phases if p.name != "idle_after"], requests))
    assert got["net_energy_j", "run"].reason.startswith("no_baseline: idle_after")
    assert got["energy_j", "run"].value is not None


def test_trap_43_denominators_are_timed_requests_with_a_whole_answer():
    one, phases, requests = run_of(wave)
    warm = request(99, 9.2, 9.9, role="warmup", n_out=1000)
    got = by_name(energy_measures(one, "", phases, [warm, *requests]))
    assert got["j_per_output_token", "run"].value == pytest.approx(0.264, rel=0.005)
    failed = [*requests[:-1], request(39, 49, 50, status="http_500")]
    got = by_name(energy_measures(one, "", phases, failed))
    assert got["j_per_output_token", "run"].reason == "request_failed: 1 of 40 timed requests have no whole answer"
    assert got["energy_j", "run"].value is not None


def test_energy_per_token_is_a_ratio_of_sums():
    one = counter_of(SHAPES["constant"])
    uneven = [request(0, 10, 12, n_out=10), request(1, 12, 20, n_out=190)]
    got = by_name(energy_measures(one, "", [phase("run", 10, 20)], uneven))
    assert got["j_per_output_token", "run"].value == pytest.approx(70 / 200, rel=0.001)
    assert got["j_per_output_token", "run"].stat == "ratio_of_sums"


def test_phases_too_short_for_the_counter_are_none_and_the_run_stands():
    requests = [request(0, 10, 11, ttft_s=0.05)]
    spans = [phase("run", 10, 11), phase("prefill", 10.01, 10.05, 0), phase("decode", 10.05, 11, 0)]
    got = by_name(energy_measures(counter_of(wave, period=0.097), "", spans, requests))
    assert got["energy_j", "prefill"].reason.endswith("(1 of 1 prefill phases); each request has it")
    assert got["energy_j", "run"].value == pytest.approx(6.6, rel=0.1)


def test_requests_at_the_same_time_have_no_phase_energies():
    requests = [request(0, 10, 12), request(1, 10.5, 12.5)]
    spans = [phase("run", 10, 12.5), phase("decode", 10.4, 12, 0), phase("decode", 10.9, 12.5, 1)]
    got = by_name(energy_measures(counter_of(wave), "", spans, requests))
    assert got["energy_j", "decode"].reason.startswith("overlapping_requests")


def test_a_run_without_requests_has_energy_and_no_ratios():
    got = by_name(energy_measures(counter_of(wave), "", [phase("run", 10, 50)], []))
    assert got["energy_j", "run"].value == pytest.approx(264, rel=0.005)
    assert got["j_per_request", "run"].reason.startswith("no_timed_request")
    assert by_name(energy_measures(counter_of(wave), "", [], []))["energy_j", "run"].reason.startswith("no_timed")


def test_a_request_of_no_output_tokens_is_whole_and_has_no_ratio_by_them():
    asked = [request(0, 10, 12, n_out=0), request(1, 12, 20, n_out=0)]
    got = by_name(energy_measures(counter_of(SHAPES["constant"]), "", [phase("run", 10, 20)], asked))
    for name in ("j_per_output_token", "tokens_per_joule"):
        assert got[name, "run"].reason.startswith("no_output_tokens")
    assert got["j_per_total_token", "run"].value == pytest.approx(70 / 200, rel=0.001)
    assert got["j_per_request", "run"].value == pytest.approx(35, rel=0.001)
    mixed = [asked[0], request(1, 12, 20, n_out=10)]
    got = by_name(energy_measures(counter_of(SHAPES["constant"]), "", [phase("run", 10, 20)], mixed))
    assert got["j_per_output_token", "run"].value == pytest.approx(7, rel=0.001)


def test_unknown_counts_of_tokens_are_not_zero():
    asked = [request(0, 10, 20), Request(1, "item1", "timed", "ok", 20 * SECOND, 30 * SECOND, e2e_s=10.0)]
    got = by_name(energy_measures(counter_of(SHAPES["constant"]), "", [phase("run", 10, 30)], asked))
    for name in ("j_per_output_token", "j_per_total_token", "tokens_per_joule"):
        assert got[name, "run"].reason.startswith("no_token_count")
    assert got["j_per_request", "run"].value == pytest.approx(70, rel=0.001)


def grid():
    """Two points of 1 s requests with a set-up prefill of 5 s before each of the second point's."""
    first = [request(i, 10 + i, 11 + i, item="pp64", point="pp64", n_in=64, n_out=0, n_cached=0) for i in range(2)]
    setups = [
        request(2 + i, 12 + 6 * i, 17 + 6 * i, item="tg16@d128", point="tg16@d128", role="setup") for i in range(2)
    ]
    second = [
        request(4 + i, 17 + 6 * i, 18 + 6 * i, item="tg16@d128", point="tg16@d128", n_in=129, n_out=16, n_cached=128)
        for i in range(2)
    ]
    return [phase("run", 10, 24)], [*first, *setups, *second]


def test_the_energy_of_a_points_requests_is_without_the_prefills_that_set_it_up():
    spans, asked = grid()
    got = by_name(energy_measures(counter_of(SHAPES["constant"]), "", spans, asked, kind="grid"))
    assert got["energy_j", "run"].value == pytest.approx(98, rel=0.001)
    for point, by_total in (("pp64", 14 / 128), ("tg16@d128", 14 / (2 * 17))):
        assert got["energy_j", point].value == pytest.approx(14, rel=0.002)
        assert got["j_per_request", point].value == pytest.approx(7, rel=0.002)
        assert got["j_per_total_token", point].value == pytest.approx(by_total, rel=0.002)
        assert got["edp_js", point].value == pytest.approx(7, rel=0.002)
        assert got["j_per_request", point].n == 2
        assert 0 < got["j_per_request", point].u_k2 < 1
    assert got["j_per_output_token", "tg16@d128"].value == pytest.approx(14 / 32, rel=0.002)
    assert got["tokens_per_joule", "pp64"].reason.startswith("no_output_tokens")
    ratios = [m for (_, where), m in got.items() if where == "run" and m.stat == "ratio_of_sums"]
    assert len(ratios) == 8
    assert all(m.value is None for m in ratios)
    assert {m.reason.partition(":")[0] for m in ratios} == {"mixed_points"}


def test_a_point_counts_its_answered_requests_alone():
    spans, asked = grid()
    asked[0] = request(0, 10, 11, item="pp64", point="pp64", status="http_500")
    asked[4] = request(4, 16.5, 18, item="tg16@d128", point="tg16@d128", n_in=129, n_out=16)
    got = by_name(energy_measures(counter_of(SHAPES["constant"]), "", spans, asked, kind="grid"))
    assert (got["j_per_request", "pp64"].n, got["energy_j", "pp64"].value) == (1, pytest.approx(7, rel=0.002))
    assert got["energy_j", "tg16@d128"].reason.startswith("overlapping_requests")
    assert got["j_per_request", "tg16@d128"].reason.startswith("overlapping_requests")
    asked[1] = request(1, 11, 12, item="pp64", point="pp64", status="http_500")
    got = by_name(energy_measures(counter_of(SHAPES["constant"]), "", spans, asked, kind="grid"))
    assert got["energy_j", "pp64"].reason == "no_timed_request: none succeeded"


def test_a_depth_nobody_counted_has_no_energy_by_total_token():
    spans, asked = grid()
    asked[5] = request(5, 23, 24, item="tg16@d128", point="tg16@d128", n_in=129, n_out=16)
    got = by_name(energy_measures(counter_of(SHAPES["constant"]), "", spans, asked, kind="grid"))
    assert got["j_per_total_token", "tg16@d128"].reason.startswith("no_token_count")
    assert got["j_per_output_token", "tg16@d128"].value is not None


def test_a_point_too_short_for_the_counter_says_how_many_were():
    asked = [
        request(0, 10, 10.01, item="pp1", point="pp1", n_out=0, n_cached=0),
        request(1, 11, 12, item="pp1", point="pp1", n_cached=0),
    ]
    found = energy_measures(counter_of(wave, period=0.5), "", [phase("run", 10, 12)], asked, kind="grid")
    assert by_name(found)["energy_j", "pp1"].reason.endswith("(1 of 2 requests of pp1)")


@pytest.mark.parametrize("kind", ["grid", "exec", "idle"])
def test_trap_44_the_same_measures_with_and_without_a_source(kind):
    spans, asked = grid() if kind == "grid" else ([phase("run", 10, 20)], [])
    absent = energy_measures(None, "sensor_denied: no", spans, asked, kind=kind)
    present = energy_measures(counter_of(wave), "", [*spans, phase("load", 5, 9)], asked, kind=kind)
    assert {(m.name, m.phase, m.unit, m.stat) for m in absent} == {(m.name, m.phase, m.unit, m.stat) for m in present}
    assert {m.value for m in absent} == {None}
    assert {m.reason.partition(":")[0] for m in absent} <= {"sensor_denied", "mixed_points"}


@pytest.mark.parametrize("kind", ["exec", "idle"])
def test_what_answers_no_requests_has_no_energy_by_token_or_request(kind):
    found = energy_measures(counter_of(wave), "", [phase("run", 10, 50), phase("idle_after", 51, 59)], [], kind=kind)
    assert {m.name for m in found} == {"energy_j", "net_energy_j", "mean_power_w", "idle_power_w"}
    assert by_name(found)["energy_j", "run"].value == pytest.approx(264, rel=0.005)
