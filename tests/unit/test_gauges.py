"""Memory, heat, clocks and load beside energy."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import digests, phase, series

from meltbench.measure import gauges
from meltbench.measure.findings import measure_reasons

RUN = phase("run", 10, 20)
T = np.arange(0, 30, 0.5)


def process_memory_measures(parts, maxrss_bytes):
    return gauges.process_memory_measures(digests(parts), maxrss_bytes)


def memory_measures(parts, run):
    return gauges.memory_measures(digests(parts, run), run)


def thermal_measures(parts, run):
    return gauges.thermal_measures(digests(parts, run), run)


def frequency_measures(parts, run):
    return gauges.frequency_measures(digests(parts, run), run)


def load_measures(parts, run, *rest, **more):
    return gauges.load_measures(digests(parts, run), run, *rest, **more)


def gauge(name, values, unit="B", path=""):
    one = series(name, T[: len(values)], values, kind="gauge", unit=unit)
    return one if not path else one.__class__(**{**one.__dict__, "path": path})


def by(measures):
    return {(m.name, m.stat, m.source): m for m in measures}


def test_peak_memory_by_the_kernels_high_water_mark():
    got = by(process_memory_measures([gauge("process.hwm_bytes", [1e9, 2e9, np.nan])], 1_500_000_000))
    peak = got["peak_rss_bytes", "max", ""]
    assert (peak.value, peak.method, peak.n) == (2e9, "VmHWM", 2)


def test_peak_memory_by_rusage_when_the_process_was_too_quick_for_the_sampler():
    got = by(process_memory_measures([gauge("process.hwm_bytes", [1e9])], 3_000_000_000))["peak_rss_bytes", "max", ""]
    assert (got.value, got.method) == (3e9, "largest resident set by rusage at exit")
    assert by(process_memory_measures([], 7))["peak_rss_bytes", "max", ""].value == 7


def smaps(t_s, pss, held, pid=7):
    """What readings of smaps_rollup say: Pss + SwapPss, and Rss + Swap in the same text."""
    return [
        replace(series(name, t_s, values, kind="gauge", unit="B"), path=f"/proc/{pid}/smaps_rollup")
        for name, values in (("process.pss_total_bytes", pss), ("process.held_bytes", held))
    ]


def peak_pss(parts, maxrss=None):
    return by(process_memory_measures(parts, maxrss))["peak_pss_bytes", "max", ""]


def test_trap_40_mapped_weights_stand_apart():
    parts = [*smaps([0, 1], [500.0, 700.0], [800.0, 1100.0]), gauge("process.pss_file_bytes", [200.0, 100.0, 0.0])]
    got = by(process_memory_measures(parts, 1200))
    assert got["peak_pss_bytes", "max", ""].value == 700
    assert got["pss_file_bytes", "max", "process.pss_file_bytes"].value == 200


def test_a_program_that_grew_between_two_readings_of_smaps_has_no_peak_pss():
    got = peak_pss(smaps([0.0], [48e3], [1e5]), 328_000_000)
    assert (got.value, got.n) == (None, 1)
    assert got.reason.startswith("low_coverage")
    assert peak_pss(smaps([0.0, 0.95], [48e3, 3.2e8], [1e5, 3.28e8]), 328_000_000).value == 3.2e8
    assert peak_pss(smaps([0.0], [48e3], [np.nan]), 50_000).reason.startswith("low_coverage")


def test_peak_pss_of_an_engine_stands_though_smaps_is_read_ten_times_as_seldom():
    seen = smaps([0, 1, 2, 3], [1e3, 1.6e8, 1.63e8, 1.61e8], [2e3, 1.7e8, 1.7e8, 1.7e8])
    assert peak_pss(seen, 170_000_000).value == 1.63e8


def test_trap_40_what_goes_to_zram_is_still_held_by_the_process():
    """RSS falls from 1000 to 600 while the swap grows from 0 to 700, and smaps_rollup is read at both ends."""
    rss, swap = np.linspace(1000, 600, 60), np.linspace(0, 700, 60)
    parts = [gauge("process.hwm_bytes", np.full(60, 1000.0)), gauge("process.rss_bytes", rss)]
    parts += [gauge("process.swap_bytes", swap), gauge("process.rss_swap_bytes", rss + swap)]
    got = by(process_memory_measures([*parts, *smaps([0, 29], [900.0, 1250.0], [1000.0, 1300.0])], None))
    assert got["peak_rss_bytes", "max", ""].value == 1000
    assert got["peak_held_bytes", "max", "process.rss_swap_bytes"].value == 1300
    assert got["peak_pss_bytes", "max", ""].value == 1250
    early = by(process_memory_measures([*parts, *smaps([0], [900.0], [1000.0])], None))
    assert early["peak_pss_bytes", "max", ""].reason.startswith("low_coverage")
    measures = process_memory_measures(parts, None)
    (why,) = measure_reasons(measures)
    assert (why.code, why.state) == ("swapped", "degraded")
    assert (
        measure_reasons(process_memory_measures([*parts[:2], gauge("process.swap_bytes", swap / 100), parts[3]], None))
        == []
    )


def test_memory_of_a_gpu_is_of_each_board_and_of_the_run():
    boards = [
        gauge(f"{name}.memory_bytes", np.where((T > 12) & (T < 13), top, 1e9))
        for name, top in (("nvml.gpu0", 7e9), ("amd.gpu1", 3e9))
    ]
    boards[0].value[:3] = 9e9
    got = by(gauges.gpu_memory_measures(digests(boards, RUN), RUN, []))
    assert {source: m.value for (_, _, source), m in got.items()} == {
        "nvml.gpu0.memory_bytes": 7e9,
        "amd.gpu1.memory_bytes": 3e9,
    }
    assert gauges.gpu_memory_measures([], RUN, []) == []


@pytest.mark.parametrize("parts", [[gauge("gpu.hz", T * 0 + 3e8, "Hz")], [gauge("nvml.gpu0.memory_bytes", T * np.nan)]])
def test_a_gpu_that_shares_the_machines_memory_has_none_of_its_own(parts):
    (got,) = gauges.gpu_memory_measures(digests(parts, RUN), RUN, [])
    assert (got.value, got.reason.partition(":")[0]) == (None, "no_reading")
    # What it took is seen in what the machine had left: 3 GB less in the run than in the idle windows.
    left = np.where((T > 9) & (T < 21), 2e9, 5e9)
    assert (
        by(memory_measures([gauge("memory.available_bytes", left)], RUN))[
            "memory_taken_bytes", "max", "memory.available_bytes"
        ].value
        == 3e9
    )


def test_pages_read_again_from_a_disk_are_counted():
    faults = series("process.major_faults", T, np.where(T > 15, 900.0, 100.0), unit="1")
    got = {m.name: m for m in load_measures([faults], RUN)}
    assert (got["major_faults"].value, got["major_faults"].unit) == (800, "1")
    assert {m.name: m for m in load_measures([], RUN)}["major_faults"].reason.startswith("no_reading")


def test_least_available_memory_is_of_the_run_alone():
    values = np.full(60, 5e9)
    values[2], values[30] = 1e9, 2e9
    got = by(memory_measures([gauge("memory.available_bytes", values)], RUN))
    assert got["memory_available_bytes", "min", "memory.available_bytes"].value == 2e9


def test_trap_44_unread_memory_is_none_and_not_zero():
    got = [*process_memory_measures([], 0), *memory_measures([], RUN)]
    assert len(got) == 7
    assert all(m.value is None and m.reason for m in got)


def test_heat_names_the_hottest_zone():
    zones = [
        gauge("thermal.soc", 40 + T / 10, "degC"),
        gauge("thermal.gpu", 41 + T, "degC"),
        gauge("thermal.off", T * np.nan, "degC"),
    ]
    got = by(thermal_measures(zones, RUN))
    assert got["max_temp_c", "max", ""].value == 61
    assert got["max_temp_c", "max", ""].method == "hottest of 2 zones: gpu"
    assert got["max_temp_c", "max", "thermal.soc"].value == 42
    assert got["start_temp_c", "value", ""].value == 51
    assert got["temp_slope_c_per_s", "slope", ""].value == pytest.approx(1)


def test_trap_11_a_gated_sensor_is_no_sensor():
    for zones in ([], [gauge("thermal.soc", T * np.nan, "degC")]):
        got = thermal_measures(zones, RUN)
        assert {m.name for m in got} == {"start_temp_c", "max_temp_c", "temp_slope_c_per_s"}
        assert all(m.value is None and m.reason.startswith("no_thermal_sensor") for m in got)


def test_few_or_late_temperatures_leave_slope_and_start_open():
    late = series("thermal.soc", [12, 13], [50, 51], kind="gauge", unit="degC")
    got = by(thermal_measures([late], RUN))
    assert got["max_temp_c", "max", ""].value == 51
    assert got["start_temp_c", "value", ""].reason.startswith("low_coverage")
    assert got["temp_slope_c_per_s", "slope", ""].reason.startswith("low_coverage")


def test_clocks_of_the_run():
    clock = np.where((T > 11) & (T < 19), 1e9, 2e9)
    parts = [gauge("cpufreq.policy0.cur_hz", clock, "Hz"), gauge("cpufreq.policy0.max_hz", clock + 1e9, "Hz")]
    got = by([*frequency_measures(parts, RUN)])
    assert got["cpu_freq_hz", "min", "cpufreq.policy0.cur_hz"].value == 1e9
    assert got["cpu_freq_hz", "max", "cpufreq.policy0.cur_hz"].value == 2e9
    assert got["cpu_freq_cap_hz", "min", "cpufreq.policy0.max_hz"].value == 2e9
    assert frequency_measures([], RUN)[0].reason


def rising(name, rate):
    return series(name, T, rate * T, unit="s")


def test_foreign_load_is_what_the_machine_did_beyond_the_engine():
    parts = [
        rising("cpu.busy_s", 2.4),
        rising("cpu.steal_s", 0.1),
        rising("process.cpu_s", 2.0),
        rising("pressure.cpu.some_s", 0.25),
    ]
    got = {m.name: m for m in load_measures(parts, RUN)}
    assert got["foreign_cores"].value == pytest.approx(0.5)
    assert got["cpu_s"].value == pytest.approx(20)
    assert got["wall_s"].value == 10
    assert got["pressure_cpu_some"].value == pytest.approx(0.25)
    assert got["pressure_io_some"].reason.startswith("no_reading")


def test_foreign_load_needs_both_counters_and_a_run():
    got = {m.name: m for m in load_measures([rising("cpu.busy_s", 1)], RUN)}
    assert got["foreign_cores"].reason.startswith("no_reading: process.cpu_s")
    got = {m.name: m for m in load_measures([rising("cpu.busy_s", 1)], None)}
    assert all(m.value is None and m.reason for m in got.values())


def test_of_a_process_started_twice_the_stream_that_encloses_the_run_counts():
    first = series("process.cpu_s", [0, 5], [0, 1], unit="s")
    got = {m.name: m for m in load_measures([first, rising("process.cpu_s", 3)], RUN)}
    assert got["cpu_s"].value == pytest.approx(30)


@pytest.mark.parametrize("rate", [0.0, 0.001])
def test_trap_44_a_process_that_used_less_than_ticks_tell_did_not_use_nothing(rate):
    parts = [rising("process.cpu_s", rate), rising("cpu.busy_s", 2.4)]
    got = {m.name: m for m in load_measures(parts, RUN)}
    assert got["cpu_s"].value is None
    assert got["cpu_s"].reason == "low_coverage: less than 0.02 s, ticks of 10 ms tell no less"
    assert got["foreign_cores"].value == pytest.approx(2.4 - rate)  # which so little does not change
    idle = {m.name: m for m in load_measures(parts, RUN, 0.0, "nothing is under test")}
    assert idle["cpu_s"].value == 0.0


def test_what_rusage_knows_of_a_command_stands_before_what_was_sampled():
    got = {m.name: m for m in load_measures([rising("cpu.busy_s", 3)], RUN, 2.0, "by rusage")}
    assert (got["cpu_s"].value, got["cpu_s"].method) == (2.0, "by rusage")
    assert got["foreign_cores"].value is not None


@pytest.mark.parametrize("seconds", [0.001, 0.39])
def test_a_run_of_a_few_ticks_says_nothing_of_others(seconds):
    got = {m.name: m for m in load_measures([rising("cpu.busy_s", 3)], phase("run", 10, 10 + seconds), seconds)}
    assert got["foreign_cores"].value is None
    assert got["foreign_cores"].reason.startswith("low_coverage")
    assert got["cpu_s"].value == seconds


def test_a_run_of_enough_ticks_tells_the_load_of_others():
    got = {m.name: m for m in load_measures([rising("cpu.busy_s", 3)], phase("run", 10, 10.5), 1.0)}
    assert got["foreign_cores"].value == pytest.approx(1)


def test_why_there_is_no_run_window_is_told_in_its_own_words():
    got = load_measures([], None, no_run="no_reading: the command did not run")
    assert {m.reason for m in got} == {"no_reading: the command did not run"}
