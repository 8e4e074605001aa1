"""Reasons against validity: the table, what finds them, and a whole run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evidence_kit import SECOND, digests, phase, request, series

from meltbench.errors import InternalError
from meltbench.measure import Designation, RunInputs, StreamStats, energies, measure_run
from meltbench.measure.beats import beats
from meltbench.measure.digest import Edges, digest
from meltbench.measure.findings import (
    clock_reasons,
    frequency_reasons,
    gate_conditions,
    request_reasons,
    sampler_reasons,
    source_reasons,
)
from meltbench.measure.screening import Screen
from meltbench.measure.sustained import power_windows
from meltbench.measure.validity import TABLE, reason, state, table_markdown
from meltbench.records import SourceStatus

DOC = Path(__file__).parent.parent.parent / "docs" / "measuring.md"
NAMED_BY_THE_LAW = [
    "warm_start",
    "throttled",
    "frequency_capped",
    "under_voltage",
    "charging",
    "charge_state_contradictory",
    "low_battery",
    "clock_stepped",
    "device_rebooted",
    "oom_killed",
    "engine_failed",
    "truncated_output",
    "sampler_starved",
    "suspended",
    "not_gated",
    "no_thermal_sensor",
    "low_coverage",
    "stale_sensor",
    "sensor_denied",
    "sensor_gated",
    "counter_reset",
    "implausible_power",
    "background_load",
    "settings_not_applied",
    "partial_total",
    "clock_unsynced",
    "link_traffic",
]
T = np.arange(0, 40, 0.1)
PHASES = [phase("idle_before", 0, 9), phase("run", 10, 30), phase("idle_after", 31, 39)]
REQUESTS = [request(0, 10, 20), request(1, 20, 30)]


def codes(reasons):
    return [one.code for one in reasons]


def test_the_table_names_every_reason_and_the_document_shows_it():
    assert set(NAMED_BY_THE_LAW) <= set(TABLE)
    assert table_markdown() in DOC.read_text()
    assert all(rule.threshold and rule.advice.endswith(".") for rule in TABLE.values())


def test_states_and_unknown_codes():
    assert state([]) == "valid"
    assert state([reason("not_gated", "quick")]) == "degraded"
    assert state([reason("not_gated", "quick"), reason("suspended", "1 s")]) == "invalid"
    with pytest.raises(InternalError, match="no_such_code"):
        reason("no_such_code", "")


def pairs(*steps):
    return [(b * SECOND, m * SECOND, w * SECOND + 1_790_000_000 * SECOND) for b, m, w in steps]


def test_trap_15_suspend_step_and_reboot_are_told_apart():
    assert clock_reasons([]) == []
    assert clock_reasons(pairs((1, 1, 1), (100, 100, 100))) == []
    assert codes(clock_reasons(pairs((1, 1, 1), (100, 90, 100)))) == ["suspended"]
    assert codes(clock_reasons(pairs((1, 1, 1), (100, 100, 3700)))) == ["clock_stepped"]
    assert codes(clock_reasons(pairs((100, 100, 100), (1, 1, 101)))) == ["device_rebooted"]


def test_a_changed_boot_id_is_a_reboot_and_an_unknown_one_is_not():
    assert codes(clock_reasons([], ["a1", "b2"])) == ["device_rebooted"]
    assert clock_reasons([], ["a1", "b2", "a1"])[0].detail == "the boot id changed: a1, b2"
    assert clock_reasons([], ["a1", "a1", ""]) == []


def test_a_starved_sampler():
    assert sampler_reasons([StreamStats("cpu", 100, 97, late=15, overruns=3), StreamStats("name", 2, 0)]) == []
    found = sampler_reasons([StreamStats("cpu", 100, 90, overruns=10), StreamStats("rapl", 100, 100, late=60)])
    assert codes(found) == ["sampler_starved"]
    assert found[0].detail == "rapl: 0% missed, 60% late, cpu: 10% missed, 0% late"


def test_trap_26_denied_counts_and_absent_does_not():
    found = source_reasons(
        [
            SourceStatus("rapl", "denied", 1, 0),
            SourceStatus("psi", "absent", 0, 0),
            SourceStatus("gpu", "again", 1, 9),
            SourceStatus("cpu", "ok", 1, 9),
        ]
    )
    assert [(one.code, one.detail) for one in found] == [("sensor_denied", "rapl"), ("sensor_gated", "gpu")]


def test_a_cap_below_the_hardwares_maximum():
    caps = series("cpufreq.policy0.max_hz", T, np.where((T > 15) & (T < 16), 1.5e9, 2e9), kind="gauge", unit="Hz")
    top = series("cpufreq.policy0.hw_max_hz", [0], [2e9], kind="gauge", unit="Hz")
    found = frequency_reasons(digests([caps, top], PHASES[1]), PHASES[1])
    assert [(one.code, one.detail) for one in found] == [("frequency_capped", "policy0: 1.50 GHz of 2.00 GHz")]
    later = phase("run", 20, 30)
    assert frequency_reasons(digests([caps, top], later), later) == []
    assert frequency_reasons(digests([caps], PHASES[1]), PHASES[1]) == []
    assert frequency_reasons(digests([caps, top]), None) == []


def test_trap_43_an_early_end_is_told():
    short = [request(0, 10, 20, n_out=64), request(1, 20, 30, n_out=12)]
    found = request_reasons(short, {0: 64, 1: 64})
    assert [(one.code, one.detail) for one in found] == [("truncated_output", "item1: 12 of 64 tokens")]
    assert request_reasons(short, {}) == []
    (unknown,) = request_reasons([replace(request(1, 20, 30), n_out=None)], {1: 64})
    assert unknown.detail == "item1: an unknown number of 64 tokens"


def test_failed_requests():
    bad = request(1, 20, 30, status="http_500", detail="out of memory")
    assert codes(request_reasons([REQUESTS[0], bad], {})) == ["request_failed"]
    none = request_reasons([bad], {})
    assert (codes(none), none[0].detail) == (
        ["no_timed_request"],
        "all 1 failed; the first: item1: http_500: out of memory",
    )


def sound():
    """The signals of a quiet machine with a counter and a thermometer."""
    return [
        series("rapl.package-0", T, 7 * T + 0.001, source="rapl", wrap=262143.0),
        series("thermal.soc", T, 40 + T / 10, kind="gauge", unit="degC"),
        series("cpu.busy_s", T, 2.02 * T, unit="s"),
        series("process.cpu_s", T, 2.0 * T, unit="s"),
    ]


def evidence(**more):
    """A run on that machine; ``series`` are other signals than its own."""
    phases = more.get("phases", PHASES)
    run = next((one for one in phases if one.name == "run"), None)
    windows = power_windows(run) if more.get("kind") == "sustained" else []
    found = beats(more.get("requests", REQUESTS))
    edges = Edges.of([(one.t0_ns, one.t1_ns) for one in phases] + windows, run, (), found)
    given = {
        "signals": [digest(one, edges) for one in more.pop("series", sound())],
        "sources": [SourceStatus("rapl", "ok", 1, 400)],
        "kind": "generate",
        "phases": PHASES,
        "requests": REQUESTS,
        "load_s": 1.0,
        "clocks": pairs((1, 1, 1), (39, 39, 39)),
        "streams": [StreamStats("rapl", 400, 400)],
        "asked": {0: 50, 1: 50},
    }
    return RunInputs(**{**given, **more})


def value(measures, name, stat="value"):
    return next(m for m in measures if (m.name, m.stat, m.phase) == (name, stat, "run"))


def test_a_sound_run_is_valid():
    measures, reasons, verdict = measure_run(evidence())
    assert (verdict, reasons) == ("valid", [])
    assert value(measures, "energy_j").value == pytest.approx(140)
    assert value(measures, "net_energy_j").value == pytest.approx(0, abs=1e-6)
    assert value(measures, "j_per_output_token", "ratio_of_sums").value == pytest.approx(1.4)
    assert all((m.value is None) == (m.reason is not None) for m in measures)


def test_no_energy_source_is_no_reason_against_validity():
    given = sound()[1:]
    absent = [SourceStatus("rapl", "absent", 0, 0, "no /sys/class/powercap/intel-rapl:* on this machine")]
    measures, _, verdict = measure_run(evidence(series=given, sources=absent))
    assert verdict == "valid"
    assert value(measures, "energy_j").reason == "no_energy_source: no /sys/class/powercap/intel-rapl:* on this machine"
    measures, _, verdict = measure_run(evidence(series=given, sources=[], totals=()))
    assert (verdict, value(measures, "energy_j").reason.partition(":")[0]) == ("valid", "no_energy_source")


@pytest.mark.parametrize(
    ("status", "code", "reasons"),
    [
        ("denied", "sensor_denied", ["sensor_denied"]),
        ("again", "sensor_gated", ["sensor_gated"]),
        ("unparsed", "sensor_unreadable", ["sensor_unreadable"]),
        ("error", "sensor_unreadable", ["sensor_unreadable"]),
    ],
)
def test_an_energy_source_that_gave_nothing_says_why(status, code, reasons):
    given = evidence(series=sound()[1:], sources=[SourceStatus("rapl", status, 1, 0)])
    measures, found, verdict = measure_run(given)
    assert value(measures, "energy_j").reason.partition(":")[0] == code
    assert (codes(found), verdict) == (reasons, "degraded")


def flag(name):
    """A flag of the platform that is up for three seconds of the run."""
    return series(name, T, (T > 15) & (T < 18), kind="state", unit="1")


def swapping():
    """A process that holds 2 GB, of which up to 100 MB are in zram."""
    names = ("process.swap_bytes", "process.rss_swap_bytes")
    return [series(n, [12, 20], v, kind="gauge", unit="B") for n, v in zip(names, ([0, 1e8], [2e9, 2e9]), strict=True)]


def replaced(name, values):
    return [one if one.name != name else series(name, T, values, source=one.source, wrap=one.wrap) for one in sound()]


BATTERY = Designation("gauge", scope="battery")
_TOKENS = [tuple(range(start * SECOND + 30_000_000, (start + 10) * SECOND, SECOND // 10)) for start in (10, 20)]
IN_STEP = [replace(one, token_t_ns=_TOKENS[one.index]) for one in REQUESTS]  # a token with each reading of the gauge
NOISE = np.random.default_rng(5).normal(0, 0.05, len(T))


def gauge(name, value, unit="W", kind="gauge", **more):
    """A signal of a phone's battery, or of a board's sensor, that was read every 100 ms."""
    values = np.broadcast_to(np.asarray(value, dtype=float), T.shape)
    return series(name, T, values, kind=kind, unit=unit, source="gauge", scope="battery", klass="C", **more)


def on_battery(*signals, power=2 + NOISE):
    """A phone whose battery is what its energy is taken from."""
    others = [one for one in sound() if one.unit != "J"]
    given = [*(power if isinstance(power, list) else [gauge("battery.power", power)]), *signals, *others]
    return {"series": given, "sources": [SourceStatus("gauge", "ok", 1, 400)], "totals": [BATTERY]}


def screened(given, max_power_w):
    """The same after its samples were held against what the device can draw."""
    screen = Screen(max_power_w, PHASES[1])
    signals = [screen.take(one) for one in given["series"]]
    return given | {"series": signals, "screened": screen.done(), "max_power_w": max_power_w}


def second_opinion():
    """What pyRAPL read of the same package: a tenth more."""
    ours = series("rapl.package-0.energy", T, 7 * T, source="rapl", wrap=262143.0)
    return [ours, series("pyrapl.package-0.energy", T, 7.7 * T, source="pyrapl")]


def replaced_by(*others):
    return {"series": [*(one for one in sound() if one.unit != "J"), *others]}


# One case a reason at least: a reason that nothing can provoke is none.
CASES = [
    ("engine_failed", {"failure": ("engine_failed", "the engine ended with signal 11")}),
    ("model_damaged", {"failure": ("model_damaged", "x.gguf is truncated")}),
    ("command_failed", {"kind": "exec", "requests": [], "failure": ("command_failed", "status 3")}),
    ("oom_killed", {"failure": ("oom_killed", "the kernel killed the engine")}),
    ("aborted", {"failure": ("aborted", "the run was ended before it was complete")}),
    ("probe_killed", {"failure": ("probe_killed", "the journal has no end")}),
    ("journal_full", {"failure": ("journal_full", "the disk of the target is full")}),
    ("device_rebooted", {"boot_ids": ["a1", "b2"]}),
    ("suspended", {"clocks": pairs((1, 1, 1), (39, 30, 39))}),
    ("clock_stepped", {"clocks": pairs((1, 1, 1), (39, 39, 41))}),
    ("clock_unsynced", {"conditions": [("clock_unsynced", "the meter's host was never asked for its time")]}),
    ("request_failed", {"requests": [REQUESTS[0], request(1, 20, 30, status="http_500")]}),
    ("no_timed_request", {"requests": [request(0, 10, 20, status="timeout"), request(1, 20, 30, status="timeout")]}),
    ("truncated_output", {"asked": {0: 64}}),
    ("sampler_starved", {"streams": [StreamStats("rapl", 400, 200)]}),
    ("low_coverage", {"phases": [phase("run", 10, 50)]}),
    ("stale_sensor", {"series": replaced("rapl.package-0", np.full(len(T), 5.0))}),
    ("stale_sensor", on_battery(gauge("dumpsys_battery.updates_stopped", 1, "1", "state"))),
    ("stale_sensor", screened(on_battery(power=np.where(T < 20, 2 + NOISE, 2.3)), 15.0)),
    ("stale_sensor", on_battery(power=[replace(gauge("battery.power", 3.0), update_s=0.1)])),
    ("uncalibrated_sensor", on_battery(power=[replace(gauge("battery.power", 2 + NOISE), klass="D")])),
    ("trailing_average", on_battery(power=[replace(gauge("battery.power", 2 + NOISE), window_s=None)])),
    (
        "aliased_gauge",
        on_battery() | {"requests": IN_STEP},
    ),
    ("sensor_denied", {"sources": [SourceStatus("rapl", "denied", 1, 0)]}),
    ("sensor_gated", {"sources": [SourceStatus("rapl", "ok", 1, 9), SourceStatus("gpu", "again", 1, 9)]}),
    ("sensor_unreadable", {"sources": [SourceStatus("rapl", "error", 1, 0)]}),
    ("counter_reset", {"series": replaced("rapl.package-0", 7 * T + 0 * T // 1 - 100 * (T > 20))}),
    ("cross_check_failed", replaced_by(*second_opinion())),
    ("implausible_power", {"series": replaced("rapl.package-0", 5000 * T)}),
    ("implausible_power", screened(on_battery(power=2000 + NOISE), 15.0)),
    ("bridged_readings", screened(on_battery(power=np.where(np.abs(T - 20) < 0.05, 900.0, 2 + NOISE)), 15.0)),
    ("partial_total", {"series": [*sound(), series("rapl.package-0.dram", [], [], source="rapl")]}),
    ("background_load", {"series": replaced("cpu.busy_s", 2.2 * T)}),
    ("not_gated", {"conditions": gate_conditions({"state": "off"})}),
    ("warm_start", {"conditions": gate_conditions({"state": "timed_out", "temp_c": 61.0})}),
    ("no_thermal_sensor", {"conditions": gate_conditions({"state": "no_sensor"})}),
    ("swapped", {"series": [*sound(), *swapping()]}),
    ("frequency_capped", {"series": [*sound(), flag("throttled.frequency_capped")]}),
    ("no_thermal_sensor", {"series": [one for one in sound() if one.unit != "degC"]}),
    ("throttled", {"series": [*sound(), gauge("nvml.gpu0.thermal_slowdown", T > 20, "1", "state")]}),
    (
        "frequency_capped",
        {
            "series": [
                *sound(),
                gauge("cpufreq.policy0.max_hz", np.where(T > 20, 1.5e9, 2e9), "Hz"),
                gauge("cpufreq.policy0.hw_max_hz", 2e9, "Hz"),
            ]
        },
    ),
    ("under_voltage", {"series": [*sound(), gauge("throttled.under_voltage", T > 29, "1", "state")]}),
    ("under_voltage", {"series": [*sound(), gauge("throttled.under_voltage_since_boot", T > 25, "1", "state")]}),
    ("charging", on_battery(gauge("battery.status", 2, "1", "state"))),
    (
        "charge_state_contradictory",
        on_battery(gauge("battery.status", 2, "1", "state"), gauge("battery.current_a", -0.5, "A")),
    ),
    ("low_battery", {"series": [*sound(), gauge("battery.soc_percent", np.where(T > 20, 19, 20), "%")]}),
    ("charge_out_of_window", {"conditions": [("charge_out_of_window", "18 %, the window is 30 to 80 %")]}),
    ("imported", {"conditions": [("imported", "MELT's iteration 0, conversation 1")]}),
    ("gpu_unused", {"conditions": [("gpu_unused", "the machine has an NVIDIA GeForce")]}),
    ("remote_engine", {"conditions": [("remote_engine", "the server was at https://h/v1")]}),
    ("piece", {"conditions": [("piece", "8 of 30 items; 3 were scored before in 1 run")]}),
    ("no_chat_template", {"conditions": [("no_chat_template", "base has none")]}),
    ("link_traffic", {"conditions": [("link_traffic", "1 looks over the link")]}),
    ("watched", {"conditions": [("watched", "31 looks of --live at 80000 bytes, in 0.06 s of a processor")]}),
    ("settings_not_applied", {"conditions": [("settings_not_applied", "governor = performance: denied")]}),
]


@pytest.mark.parametrize(("code", "given"), CASES, ids=[f"{at}-{code}" for at, (code, _) in enumerate(CASES)])
def test_each_finding_reaches_the_verdict_with_its_state_and_advice(code, given):
    _, reasons, verdict = measure_run(evidence(**given))
    assert len(set(codes(reasons))) == len(reasons)
    (found,) = [one for one in reasons if one.code == code]
    assert (found.state, found.advice) == (TABLE[code].state, TABLE[code].advice)
    assert found.detail
    assert verdict == state(reasons)
    assert state([found, reason("gpu_unused", "")]) == TABLE[code].state


def test_every_reason_can_be_provoked():
    assert {code for code, _ in CASES} == set(TABLE)


def test_regimes_and_recovery_are_of_the_same_run():
    given = evidence(series=[*sound(), flag("nvml.gpu0.thermal_slowdown")])
    measures, reasons, _ = measure_run(given)
    assert [one.name for one in given.regimes.regimes] == [
        *("idle", "load", "burst", "throttled", "burst", "unload", "idle")
    ]  # fmt: skip
    assert value(measures, "recovery_s").reason.startswith("no_reading")  # two requests tell no pace
    (why,) = [one for one in reasons if one.code == "throttled"]
    assert why.detail.startswith("5-8 s of the run: nvml.gpu0.thermal_slowdown; soc at 41.5 degC, +0.5 since the start")
    assert not [m for m in measure_run(evidence())[0] if m.name in ("recovery_s", "power_drift_per_min")]
    long = measure_run(evidence(kind="sustained"))[0]
    assert value(long, "recovery_s").reason.startswith("not_throttled")
    assert value(long, "power_drift_per_min").value == pytest.approx(0, abs=1e-6)


def test_a_run_of_nothing_gives_reasons_and_no_numbers():
    measures, reasons, verdict = measure_run(
        RunInputs("generate", [], [], [], failure=("probe_killed", "the journal has no end"))
    )
    assert (verdict, codes(reasons)) == ("invalid", ["probe_killed", "no_thermal_sensor"])
    assert {m.name for m in measures if m.value is not None} == {"requests_timed", "requests_failed"}


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        ("idle", {"load_s", "peak_rss_bytes", "ttft_s"}),
        ("exec", {"load_s", "ttft_s"}),
        ("grid", {"ttft_s"}),
        ("generate", set()),
    ],
)
def test_measures_that_make_no_sense_for_what_ran_are_not_made(kind, absent):
    measures, _, _ = measure_run(RunInputs(kind, [], [], []))
    assert {m.name for m in measures} & {"load_s", "peak_rss_bytes", "ttft_s"} == {
        "load_s",
        "peak_rss_bytes",
        "ttft_s",
    } - absent


@pytest.mark.parametrize("kind", ["exec", "idle"])
def test_a_command_or_a_window_that_never_was_speaks_of_no_requests(kind):
    measures, _, _ = measure_run(evidence(kind=kind, phases=PHASES[:1], requests=[]))
    assert value(measures, "wall_s").reason.startswith("no_reading: the ")
    assert not [m for m in measures if "request" in (m.reason or "")]


def test_a_short_run_has_no_background_load():
    busy = series("cpu.busy_s", T, 4 * T, unit="s")
    short = evidence(kind="exec", series=[busy], phases=[phase("run", 10, 10.2)], requests=[], life_cpu_s=0.0)
    assert "background_load" not in codes(measure_run(short)[1])


def test_an_engine_that_nobody_saw_has_no_memory_and_one_elsewhere_no_energy():
    why = "not_started_here: the server was running before the run"
    measures, reasons, verdict = measure_run(evidence(unseen=why, unloaded=why))
    assert (verdict, reasons) == ("valid", [])
    assert {value(measures, name).reason for name in ("load_s", "cpu_s")} == {why}
    assert all(m.value is None and m.reason == why for m in measures if m.scope == "process")
    assert value(measures, "energy_j").value == pytest.approx(140)
    far = evidence(unseen=why, unloaded=why, remote="the engine was at https://h/v1")
    measures, _, _ = measure_run(far)
    asked = [m for m in measures if m.unit in ("J", "W") or m.name.startswith("j_per")]
    assert asked
    assert {(m.value, m.reason) for m in asked} == {(None, "remote_engine: the engine was at https://h/v1")}
    assert {r.energy_reason for r in energies(far, measures)[0]} == {"remote_engine: the engine was at https://h/v1"}
