"""What may be shown: energies that cannot be true are not, each request has its own, and gains are the best known."""

from dataclasses import replace

import journalmaker as make
import numpy as np
import pytest
from evidence_kit import SECOND, digests, ints, phase, request, series, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench import assemble
from meltbench.errors import UnknownName
from meltbench.host import Hosted
from meltbench.measure import Designation, RunInputs, energies, measure_run
from meltbench.measure.digest import Edges, digest
from meltbench.measure.energy import Rail, energy
from meltbench.measure.screening import Screen
from meltbench.probe.journal import parse_journal
from meltbench.readings import Source
from meltbench.records import SourceStatus

T = np.arange(0, 60, 0.05)
SPANS = [phase("idle_before", 0, 9), phase("run", 10, 50), phase("idle_after", 51, 59)]
REQUESTS = [request(i, 10 + i, 10.9 + i, ttft_s=0.3) for i in range(40)]
PHASES = [
    *SPANS,
    *(phase("prefill", 10 + i, 10.3 + i, i) for i in range(40)),
    *(phase("decode", 10.3 + i, 10.9 + i, i) for i in range(40)),
]


def counter(run_w, idle_w=2.0, name="board.energy", **more):
    joules = idle_w * T + (run_w - idle_w) * np.clip(T - 10, 0, 40)
    return series(name, T, joules - joules.min(), source="board", **more)


def gauge(power, name="board.power", period=0.05):
    t = np.arange(0.01, 60, period)
    return series(name, t, power(t) + 0.01 * (np.arange(len(t)) % 7), kind="gauge", unit="W", klass="C", source="board")


def inputs(*parts, kind="generate", requests=REQUESTS, rails=("board.*",), **more):
    edges = [(p.t0_ns, p.t1_ns) for p in PHASES] + [(r.t_send_ns, r.t_end_ns) for r in requests]
    return RunInputs(
        kind=kind,
        signals=[digest(one, Edges.of(edges, SPANS[1])) for one in parts],
        sources=[SourceStatus("board", "ok", 1, len(T))],
        phases=PHASES if kind == "generate" else SPANS,
        requests=requests,
        totals=[Designation("board", rails)],
        **more,
    )


def named(measures, name, where="run", source="total"):
    return next(m for m in measures if (m.name, m.phase, m.source) == (name, where, source))


@pytest.mark.parametrize(
    ("run_w", "idle_w", "words"),
    [
        (500.0, 2.0, "500 W over the run, 60 W at most"),
        (2.0, 8.0, "2 W over the run, idling took 8 W"),
    ],
)
def test_an_implausible_power_is_shown_by_no_measure_and_makes_the_run_invalid(run_w, idle_w, words):
    given = inputs(counter(run_w, idle_w), max_power_w=60.0)
    measures, reasons, verdict = measure_run(given)
    assert verdict == "invalid"
    (why,) = [one for one in reasons if one.code == "implausible_power"]
    assert why.detail == words
    of_total = [m for m in measures if m.source == "total"]
    assert {m.value for m in of_total} == {None}
    assert {m.reason for m in of_total if "net" not in m.name} == {f"implausible_power: {words}"}
    assert {m.u_k2 for m in of_total} == {None}
    for one in energies(given, measures)[0]:
        assert (one.energy_j, one.energy_u_k2_j) == (None, None)
        assert one.energy_reason == f"implausible_power: {words}"


def test_power_that_is_not_above_zero_is_implausible():
    given = inputs(gauge(lambda t: 0 * t - 3.0))
    measures, reasons, verdict = measure_run(given)
    assert (verdict, named(measures, "energy_j").value) == ("invalid", None)
    assert named(measures, "energy_j").reason == "implausible_power: -2.97 W over the run"
    assert "implausible_power" in {one.code for one in reasons}


def test_a_rail_that_is_fed_back_keeps_its_sign_and_one_beyond_the_device_is_none():
    back, wild = gauge(lambda t: 0 * t - 3.0, "board.back"), gauge(lambda t: 0 * t + 5000.0, "board.wild")
    measures, _, verdict = measure_run(inputs(counter(9.0), back, wild, rails=("board.energy",)))
    assert named(measures, "energy_j", source="board.back").value == pytest.approx(-3 * 40, rel=0.02)
    assert named(measures, "energy_j", source="board.wild").reason.startswith("implausible_power: 5e+03 W")
    assert named(measures, "energy_j").value == pytest.approx(360, rel=0.01)
    assert verdict == "degraded"  # no thermometer


def test_idle_windows_that_differ_are_a_baseline_that_is_unsure_and_no_implausible_power():
    joules = np.concatenate([[0], np.cumsum(np.where(T[:-1] < 10, 20.0, np.where(T[:-1] < 50, 9.0, 2.0)) * 0.05)])
    measures, reasons, _ = measure_run(inputs(series("board.energy", T, joules, source="board")))
    assert named(measures, "energy_j").value == pytest.approx(360, rel=0.01)
    assert "implausible_power" not in {one.code for one in reasons}


@pytest.mark.parametrize("kind", ["exec", "idle"])
def test_what_runs_no_engine_may_draw_less_than_idling(kind):
    measures, reasons, _ = measure_run(inputs(counter(2.0, 8.0), kind=kind, requests=[]))
    assert named(measures, "energy_j").value == pytest.approx(80, rel=0.02)
    assert named(measures, "net_energy_j").reason.startswith("net_below_baseline")
    assert "implausible_power" not in {one.code for one in reasons}


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_trap_44_a_gauge_that_shows_one_value_while_an_engine_computes_is_stale_and_not_that_power(value):
    stuck = series("board.power", T, np.full(len(T), value), kind="gauge", unit="W", klass="C", source="board")
    busy = series("cpu.busy_s", T, 0.1 * T + np.clip(T - 10, 0, 40), unit="s")
    measures, reasons, _ = measure_run(inputs(stuck, busy))
    assert named(measures, "energy_j").value is None
    assert named(measures, "energy_j").reason.startswith("stale_sensor: 0 fresh values")
    assert {m.value for m in measures if m.source in ("total", "board.power")} == {None}
    assert "stale_sensor" in {one.code for one in reasons}


def test_each_request_has_its_energy_and_together_they_are_the_run_less_its_pauses():
    given = inputs(counter(9.0))
    measures, _, _ = measure_run(given)
    found = energies(given, measures)[0]
    assert [one.energy_reason for one in found] == [""] * 40
    assert [one.energy_j for one in found[1:-1]] == pytest.approx([8.1] * 38, rel=1e-6)
    assert all(abs(one.energy_j - 8.1) <= one.energy_u_k2_j < 1 for one in found)
    assert sum(one.energy_j for one in found) == pytest.approx(
        named(measures, "energy_j").value - 40 * 0.1 * 9, rel=0.01
    )


def test_rule_7_what_is_too_short_for_one_request_is_told_for_the_fewest_that_have_it():
    given = inputs(gauge(lambda t: np.where((t >= 10) & (t < 50), 9.0, 2.0), period=0.3))
    measures, _, _ = measure_run(given)
    found = energies(given, measures)[0]
    assert {one.energy_j for one in found} == {None}
    why = "stale_sensor: 3 fresh values in the window, 10 are needed; requests 4 to 7 have it together: "
    assert found[5].energy_reason.startswith(why)
    joules = float(found[5].energy_reason.partition("together: ")[2].partition(" J")[0])
    assert joules == pytest.approx(3.9 * 9, rel=0.02)
    assert found[5].energy_reason.endswith(" u 4.1 J")
    prefill = named(measures, "energy_j", "prefill").reason
    assert prefill.startswith("stale_sensor")
    assert prefill.endswith("(40 of 40 prefill phases); 4 requests in a row have it")


def test_rule_7_where_only_the_run_is_long_enough_that_is_said():
    given = inputs(gauge(lambda t: np.where((t >= 10) & (t < 50), 9.0, 2.0), period=3.3))
    measures, _, _ = measure_run(given)
    assert named(measures, "energy_j").value == pytest.approx(360, rel=0.1)
    assert energies(given, measures)[0][0].energy_reason.endswith("10 are needed; the run has it")
    assert named(measures, "energy_j", "decode").reason.endswith("(40 of 40 decode phases); the run has it")


def test_requests_that_share_their_time_have_no_energy_of_their_own():
    asked = [request(0, 10, 14), request(1, 12, 16), request(2, 20, 24)]
    given = inputs(counter(9.0), requests=asked)
    found = energies(given, measure_run(given)[0])[0]
    assert [one.energy_reason.partition(":")[0] for one in found] == [
        "overlapping_requests",
        "overlapping_requests",
        "",
    ]
    assert found[2].energy_j == pytest.approx(36, rel=0.01)


def test_requests_of_a_run_without_a_total_say_why():
    given = replace(inputs(counter(9.0)), sources=[SourceStatus("board", "denied", 1, 0)])
    found = energies(given, measure_run(given)[0])[0]
    assert {one.energy_j for one in found} == {None}
    assert {one.energy_reason.partition(":")[0] for one in found} == {"sensor_denied"}


def test_rule_10_a_gain_that_is_better_founded_replaces_that_of_the_class():
    one, span = counter(9.0), phase("run", 10, 50)
    assert energy(one, span).u_k2 == pytest.approx(2 * 0.05 / np.sqrt(3) * 360, rel=0.01)
    assert energy(replace(one, gain_limit=0.01), span).u_k2 == pytest.approx(2 * 0.01 / np.sqrt(3) * 360, rel=0.05)
    estimate = replace(one, klass="E")
    assert energy(estimate, span).u_k2 is None
    assert energy(replace(estimate, gain_limit=0.3), span).u_k2 == pytest.approx(2 * 0.3 / np.sqrt(3) * 360, rel=0.01)


def test_rule_10_of_several_parts_the_worst_gain_counts_and_an_unknown_one_leaves_none():
    parts = [counter(9.0), replace(counter(9.0, name="b"), klass="C"), replace(counter(9.0, name="c"), gain_limit=0.02)]
    rail = Rail("total", "soc", "C", tuple(digests(parts)))
    assert rail.gain == pytest.approx(0.10 / np.sqrt(3))
    assert replace(rail, parts=(*rail.parts, *digests([replace(parts[0], klass="E")]))).gain is None
    assert replace(rail, parts=()).gain is None


def test_rule_6_a_fuel_gauge_or_a_pmic_that_nobody_calibrated_gives_no_absolute_energy():
    one, span = replace(gauge(lambda t: 5 + np.sin(t)), klass="D", source="pmic"), phase("run", 10, 50)
    found = energy(one, span)
    assert (found.value, found.u_k2) == (None, None)
    assert found.reason == ("uncalibrated_sensor: relative only, pmic was not calibrated on this device")
    known = energy(replace(one, calibration="desk 2026-11-02"), span)
    assert known.u_k2 == pytest.approx(2 * 0.20 / np.sqrt(3) * known.value, rel=0.01)
    stated = energy(replace(one, gain_limit=0.13), span)
    assert stated.u_k2 == pytest.approx(2 * 0.13 / np.sqrt(3) * stated.value, rel=0.01)


def test_what_a_profile_knows_of_a_source_reaches_its_energies_and_powers_alone():
    files = [
        stream("/sys/class/hwmon/hwmon0/name", [b"ina238\n"]),
        stream("/sys/class/hwmon/hwmon0/power1_input", ints([5_000_000, 6_000_000])),
    ]
    (one,), _ = Source.of("board", "hwmon", {"calibration": "bench 1"}, gain_limit=0.02).read(files)
    assert (one.gain_limit, one.calibration) == (0.02, "bench 1")
    (plain,), _ = Source.of("board", "hwmon", {}).read(files)
    assert (plain.gain_limit, plain.calibration) == (None, "")
    zone = [
        stream("/sys/class/thermal/thermal_zone0/type", [b"soc\n"]),
        stream("/sys/class/thermal/thermal_zone0/temp", ints([40000])),
    ]
    (warm,), _ = Source.of("heat", "thermal", {"calibration": "x"}, gain_limit=0.02).read(zone)
    assert (warm.gain_limit, warm.calibration) == (None, "")
    with pytest.raises(UnknownName, match="did you mean calibration"):
        Source.of("board", "hwmon", {"calibratoin": "x"})


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 3), st.integers(1, 30), st.floats(0.05, 2))
def test_every_request_has_an_energy_or_a_reason_whatever_the_source_can_do(period, n, length):
    asked = [request(i, 10 + i * 1.3 * length, 10 + (i * 1.3 + 1) * length) for i in range(n)]
    asked = [one for one in asked if one.t_end_ns < 50 * SECOND]
    given = inputs(gauge(lambda t: 5 + 2 * np.sin(t), period=period), requests=asked)
    for one in energies(given, measure_run(given)[0])[0]:
        assert (one.energy_j is None) == bool(one.energy_reason) == (one.energy_u_k2_j is None)


def test_the_gain_limit_and_the_calibration_of_a_profile_reach_the_signals_of_a_run():
    journal = make.journal(
        make.stream(0, "board", "/sys/class/hwmon/hwmon0/power1_input"),
        make.readings(0, [(10, 20, 0, b"5000000\n"), (30, 40, 0, b"6000000\n")]),
    )
    one = {"name": "board", "reader": "hwmon", "options": {"calibration": "bench 1"}, "gain_limit": 0.03}
    (found,), _ = assemble._signals(
        {"sources": [one]}, parse_journal(journal), Hosted(), Edges(), Screen(100.0, None), lambda _: None
    )
    assert (found.head.gain_limit, found.head.calibration) == (0.03, "bench 1")


def screened(part, **more):
    """A run of one gauge of the board, its samples looked at as they pass."""
    screen = Screen(60.0, SPANS[1])
    taken = screen.take(part)
    return measure_run(replace(inputs(taken, **more), screened=screen.done(), max_power_w=60.0))


def went(power, low_s, high_s, to):
    return gauge(lambda t: np.where((t > low_s) & (t < high_s), to(power(t)), power(t)))


@pytest.mark.parametrize(
    ("to", "words"),
    [(np.negative, "below 0 W, by"), (lambda w: np.zeros_like(w) - 0.01 * (np.arange(len(w)) % 7), "are 0 W, and no")],
)
def test_a_total_whose_gauge_goes_negative_or_to_zero_for_a_while_is_never_shown(to, words):
    """A sixth of the energy would be missing, or be taken off, of a run that nothing else speaks against."""
    measures, reasons, state = screened(went(lambda t: np.where((t > 10) & (t < 50), 9.0, 2.0), 20, 26, to))
    assert all(m.value is None for m in measures if m.source == "total")
    assert named(measures, "energy_j").reason.startswith("implausible_power: ")
    assert words in next(r for r in reasons if r.code == "implausible_power").detail
    assert state == "invalid"


def test_a_battery_that_was_charged_for_a_while_is_told_and_invalid():
    part = went(lambda t: np.where((t > 10) & (t < 50), 9.0, 2.0), 20, 26, np.negative)
    _, reasons, state = screened(replace(part, scope="battery"))
    assert "below 0 W" in next(r for r in reasons if r.code == "charging").detail
    assert state == "invalid"


def test_trap_1_a_battery_of_unknown_sign_that_reads_below_zero_is_not_called_charged():
    part = went(lambda t: np.where((t > 10) & (t < 50), 9.0, 2.0), 0, 60, np.negative)
    measures, reasons, state = screened(replace(part, scope="battery", klass="D"))
    assert named(measures, "energy_j").reason.startswith("uncalibrated_sensor")
    assert "charging" not in {one.code for one in reasons}
    assert state == "degraded"


def test_what_a_coarse_plug_rounds_to_nothing_and_what_a_rail_at_rest_is_off_by_refute_nothing():
    coarse = gauge(lambda t: np.round(0.5 + 0.9 * np.sin(t)))
    whole = replace(coarse, value=np.maximum(np.round(coarse.value), 0))
    assert (whole.value == 0).mean() > 0.2
    assert named(screened(whole)[0], "energy_j").value == pytest.approx(0.55 * 40, rel=0.3)
    board = gauge(lambda t: np.where((t > 10) & (t < 50), 9.0, 2.0))
    still = gauge(lambda t: np.full(len(t), -0.06), name="board.gpu.power")
    screen = Screen(60.0, SPANS[1])
    measures, _, _ = measure_run(replace(inputs(*map(screen.take, (board, still))), screened=screen.done()))
    assert named(measures, "energy_j").value == pytest.approx(9 * 40 + 0.03 * 80 - 0.06 * 40, rel=0.02)


def test_a_machine_that_computes_on_a_few_milliwatts_has_a_wrong_unit():
    part = gauge(lambda t: np.where((t > 10) & (t < 50), 9.0, 2.0))
    measures, _, state = screened(replace(part, value=part.value / 1000))
    assert named(measures, "energy_j").reason.startswith("implausible_power: 0.009")
    assert state == "invalid"
