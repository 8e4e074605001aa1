"""What other tools get wrong, on readings like theirs: each test says who, and what this project makes of the same."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import digests, phase, request, series

from benchmarks import peers
from meltbench.measure import RunInputs, measure_run
from meltbench.measure.energy import energy
from meltbench.records import SourceStatus


def gauge(t, watts, **more):
    """A shunt gauge that resolves a milliwatt, with a little noise."""
    rng = np.random.default_rng(11)
    shown = np.round(watts + rng.normal(0, 0.003, len(t)), 3)
    return series("board.power", t, shown, kind="gauge", unit="W", klass="C", **more)


def pulse(t, start=20.0, prefill_s=0.4):
    """Idle 2 W; 0.4 s of prefill at 18 W; decode at 7 W for 3 s."""
    return np.where((t >= start) & (t < start + prefill_s), 18.0, np.where((t >= start) & (t < start + 3.4), 7.0, 2.0))


def test_zeus_gives_0_j_under_constant_power_and_here_it_is_power_times_time():
    """Copies dropped, one value is left of a steady power: nothing to integrate. A counter counts it; a gauge needs its
    least digit to live, else it cannot be told from a stuck one and is None, never 0."""
    t, span = np.arange(0, 40, 0.02), phase("decode", 10, 30)
    still = series("gpu.power", t, np.full(len(t), 60.0), kind="gauge", unit="W", klass="C")
    assert peers.zeus(still, span) == 0.0
    found = energy(still, span)
    assert (found.value, found.u_k2) == (None, None)
    assert found.reason == "stale_sensor: 0 fresh values in the window, 10 are needed"
    assert energy(series("gpu.energy", t, 60 * t), span).value == pytest.approx(1200, rel=1e-3)
    once_in_100_ms = 60 + 0.001 * ((np.arange(len(t)) // 5) % 3)
    live = series("gpu.power", t, once_in_100_ms, kind="gauge", unit="W", klass="C")
    assert energy(live, span).value == pytest.approx(1200, rel=1e-3)


def test_melt_and_devlib_clip_a_phase_to_its_samples_and_here_a_constant_10_w_is_10_w_times_the_stage():
    t = np.arange(0.013, 40, 1.0)
    one, stage = gauge(t, np.full(len(t), 10.0)), phase("stage", 10.1, 29.9)
    assert peers.devlib(one, stage) == pytest.approx(180, rel=0.01)  # of 19.8 s it counts the 18 between its samples
    assert energy(one, stage).value == pytest.approx(198, rel=0.001)
    assert peers.devlib(one, phase("stage", 10.9, 11.9)) == 0.0


def test_edgereasoning_reads_idle_for_a_prefill_at_1_hz_and_here_it_is_refused_and_recovered_at_100_hz():
    span = phase("prefill", 20.0, 20.4)
    truth = 0.4 * 18
    for start in (0.05, 0.45, 0.83):
        t = np.arange(start, 40, 1.0)
        refused = energy(gauge(t, pulse(t)), span)
        assert refused.value is None
        assert refused.reason.startswith("stale_sensor")
        counted = series(
            "total", t, np.interp(t, np.arange(0, 41, 1e-3), np.cumsum(pulse(np.arange(0, 41, 1e-3))) / 1e3)
        )
        assert energy(counted, span).reason.startswith("low_coverage")
        fast = np.arange(start, 40, 0.0097)
        recovered = energy(gauge(fast, pulse(fast)), span)
        assert recovered.value == pytest.approx(truth, rel=0.02)
        assert abs(recovered.value - truth) <= recovered.u_k2


def test_ipw_capped_a_query_at_30_s_and_here_120_s_are_120_s():
    t = np.arange(0, 150, 0.0197)
    joules = np.where(t < 10, 3 * t, np.where(t < 130, 30 + 9 * (t - 10), 1110 + 3 * (t - 130)))
    span = phase("decode", 10, 130, 0)
    assert energy(series("total", t, joules), span).value == pytest.approx(1080, rel=1e-3)
    assert energy(gauge(t, np.where((t >= 10) & (t < 130), 9.0, 3.0)), span).value == pytest.approx(1080, rel=2e-3)


def phone(t, watts, unit_a, sign):
    """What the gauge of a phone shows of a power: raw counts of its own unit and sign, at 3.85 V."""
    return np.round(sign * watts / 3.85 / unit_a)


def test_phones_of_every_unit_and_sign_agree_once_their_gauges_are_calibrated():
    """Microamperes or milliamperes, discharge above or below zero: raw numbers differ by -1000, calibrated watts
    do not."""
    t = np.arange(0.02, 60, 0.25)
    watts = np.where((t >= 20) & (t < 45), 5.0, 0.8) + 0.02 * np.sin(t * 9)
    span, found = phase("decode", 20, 45), {}
    for name, unit_a, sign in (("pixel", 1e-6, -1), ("galaxy", 1e-3, -1), ("mi", 1e-6, 1), ("oplus", 1e-3, 1)):
        raw = phone(t, watts, unit_a, sign)
        # What a calibration finds is the scale and the sign; before it was done the same readings give no energy.
        shown = series(
            "battery.power", t, raw * unit_a * sign * 3.85, kind="gauge", unit="W", klass="D", scope="battery"
        )
        assert energy(shown, span).reason.startswith("uncalibrated_sensor")
        found[name] = energy(replace(shown, calibration=f"{name} 2026-11"), span)
    values = [one.value for one in found.values()]
    assert max(values) / min(values) < 1.002
    assert values[0] == pytest.approx(125, rel=0.01)
    assert all(abs(one.value - 125) <= one.u_k2 for one in found.values())


@pytest.mark.parametrize("shown", [0.0, -0.0, 2147.0])
def test_a_phone_whose_gauge_shows_one_value_is_not_trusted_and_is_not_0_j(shown):
    t = np.arange(0.02, 60, 0.25)
    one = series("battery.power", t, np.full(len(t), shown), kind="gauge", unit="W", klass="D")
    found = energy(replace(one, calibration="c"), phase("decode", 20, 45))
    assert (found.value, found.u_k2) == (None, None)
    assert found.reason.startswith("stale_sensor")


def test_perun_takes_a_zero_difference_for_a_wrap_and_here_a_resting_counter_rests():
    t = np.arange(0, 60, 0.1)
    joules = np.where(t < 20, 50 + 4 * t, np.where(t < 25, 130, 130 + 4 * (t - 25)))
    one = series("rapl.package-0", t, np.floor(joules * 100) / 100, wrap=262143.0)
    assert energy(one, phase("run", 10, 50)).value == pytest.approx(140, rel=0.005)


def test_codecarbon_turns_a_read_error_into_262_kj_and_here_it_is_a_reading_less():
    t = np.arange(0, 60, 0.1)
    one = series("rapl.package-0", t, 5000 + 4 * t, wrap=262143.3)
    one.value[(t > 20) & (t < 21)] = np.nan  # what the file gave was an error, with a status and no number
    assert energy(one, phase("run", 10, 50)).value == pytest.approx(160, rel=0.005)
    assert energy(one, phase("run", 10, 20.5)).value == pytest.approx(42, abs=energy(one, phase("run", 10, 20.5)).u_k2)


def test_pyrapl_never_handles_a_wrap_and_here_one_is_seen_and_a_reset_is_not_taken_for_one():
    t = np.arange(0, 60, 0.1)
    wrapped = series("rapl.package-0", t, (262000 + 8 * t) % 262143.3, wrap=262143.3)
    assert energy(wrapped, phase("run", 10, 50)).value == pytest.approx(320, rel=0.005)
    fell = series("rapl.package-0", t, np.where(t < 30, 100000 + 8 * t, 8 * (t - 30)), wrap=262143.3)
    assert energy(fell, phase("run", 10, 50)).reason.startswith("counter_reset")


def test_codecarbon_counts_a_second_for_a_spike_it_happened_to_see_and_here_u_says_what_was_not_seen():
    """A gauge of one value a second beside a prefill of 0.4 s in every 2.9 s: either all of a second or nothing."""
    inside = []
    for start in np.arange(0.03, 1.0, 0.067):
        t = np.arange(start, 80, 1.0)
        watts = np.where(((t - 10) % 2.9 < 0.4) & (t >= 10) & (t < 68), 18.0, 5.0)
        truth = 20 * (0.4 * 18 + 2.5 * 5)
        found = energy(gauge(t, watts), phase("run", 10, 68))
        inside.append(abs(found.value - truth) <= found.u_k2)
    assert np.mean(inside) >= 0.93


def test_the_batch_before_does_not_count_for_this_one():
    """nvidia-smi showed a batch the mean of a second of the batch before (Avarok atlas): here it is centred, or it is
    refused."""
    t = np.arange(0.004, 40, 0.05)
    batch = np.clip((t - 10) / 1.0, 0, 1) * 300 - np.clip((t - 12.5) / 1.0, 0, 1) * 300  # 2.5 s at 300 W, a second late
    one = replace(gauge(t, 50 + batch), window_s=1.0)
    after = energy(one, phase("idle", 13, 20))
    assert abs(after.value - 7 * 50) <= after.u_k2
    assert energy(one, phase("batch", 10, 11)).reason.startswith("trailing_average")


def test_conditions_of_all_this_reach_the_run_and_no_value_stands_without_them():
    t = np.arange(0, 40, 0.1)
    spans = [phase("idle_before", 0, 9), phase("run", 10, 30), phase("idle_after", 31, 39)]
    asked = [request(0, 10, 20), request(1, 20, 30)]
    watts = np.where((t >= 10) & (t < 30), 6.0, 2.0) + 0.01 * (np.arange(len(t)) % 7)
    one = series("battery.power", t, watts, kind="gauge", unit="W", klass="D", source="battery")
    given = {"kind": "generate", "sources": [SourceStatus("battery", "ok", 1, 400)], "phases": spans, "requests": asked}
    from meltbench.measure import Designation

    for calibration, code in (("", "uncalibrated_sensor"), ("phone 1", "")):
        signals = digests([replace(one, calibration=calibration)], spans[1])
        measures, reasons, _ = measure_run(RunInputs(signals=signals, totals=[Designation("battery")], **given))
        gross = next(m for m in measures if (m.name, m.phase, m.source) == ("energy_j", "run", "total"))
        assert (gross.reason or "").partition(":")[0] == code
        assert ("uncalibrated_sensor" in {r.code for r in reasons}) == bool(code)
        assert (gross.value is None) == bool(code)
