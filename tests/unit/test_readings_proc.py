"""The texts of /proc in the kernel's dialect."""

import errno
from pathlib import Path

import numpy as np
import pytest
from evidence_kit import stream

from meltbench.readings import READERS, read

FIXTURES = Path(__file__).parent.parent / "contract" / "proc"
KIB = 1024


def values(reader, path, text, options=None):
    series, status = read("src", reader, [stream(path, [text])], options or {})
    assert status.status == "ok"
    return {one.name: one.value[0] for one in series}


def test_memory_of_the_process():
    got = values("procmem", "/root/proc/4120/status", (FIXTURES / "status_engine.txt").read_bytes())
    assert got == {
        "process.hwm_bytes": 1204880 * KIB,
        "process.rss_bytes": 1190016 * KIB,
        "process.swap_bytes": 20480 * KIB,
        "process.rss_swap_bytes": (1190016 + 20480) * KIB,
    }


def test_trap_40_mapped_weights_and_swap_stand_apart():
    got = values("smaps", "/proc/4120/smaps_rollup", (FIXTURES / "smaps_rollup_engine.txt").read_bytes())
    assert got == {
        "process.pss_bytes": 1100288 * KIB,
        "process.swap_pss_bytes": 20400 * KIB,
        "process.pss_file_bytes": 698176 * KIB,
        "process.pss_total_bytes": (1100288 + 20400) * KIB,
        "process.held_bytes": (1190016 + 20480) * KIB,
    }


def test_trap_38_smaps_is_read_at_most_twice_a_second():
    assert READERS["smaps"].paths[0].min_period_ns >= 500_000_000


def test_processor_time_of_a_name_with_brackets_and_blanks():
    text = (FIXTURES / "stat_engine.txt").read_bytes()
    assert values("procstat", "/proc/4120/stat", text) == {"process.cpu_s": 200.0, "process.major_faults": 12}
    assert values("procstat", "/proc/4120/stat", text, {"user_hz": 1000})["process.cpu_s"] == 20.0


def test_procstat_does_not_take_the_machines_own_stat():
    machine = stream("/proc/stat", [(FIXTURES / "stat_machine.txt").read_bytes()])
    assert read("src", "procstat", [machine], {})[1].status == "absent"


def test_memory_of_the_machine():
    got = values("meminfo", "/proc/meminfo", (FIXTURES / "meminfo.txt").read_bytes())
    assert got == {
        "memory.available_bytes": 4200112 * KIB,
        "memory.total_bytes": 8138916 * KIB,
        "memory.swap_used_bytes": 20480 * KIB,
    }


def test_trap_44_swap_that_is_not_told_is_not_zero():
    got = values("meminfo", "/proc/meminfo", (FIXTURES / "meminfo_no_swap_lines.txt").read_bytes())
    assert set(got) == {"memory.available_bytes", "memory.total_bytes"}


def test_busy_time_leaves_out_idle_and_iowait_and_counts_guest_once():
    text = (FIXTURES / "stat_machine.txt").read_bytes()
    assert values("cpustat", "/proc/stat", text) == {"cpu.busy_s": 1305.0, "cpu.steal_s": 7.0}
    per_cpu = values("cpustat", "/proc/stat", text, {"per_cpu": True})
    assert per_cpu["cpu.busy_s.cpu0"] == 803.0
    assert per_cpu["cpu.busy_s.cpu1"] == 502.0


def test_a_text_cut_at_the_probes_limit_is_still_read_where_whole():
    cut = stream("/proc/stat", [(FIXTURES / "stat_machine.txt").read_bytes()[:60]])
    cut.readings.err[0] = errno.E2BIG
    series, _ = read("src", "cpustat", [cut], {})
    assert [one.name for one in series] == ["cpu.busy_s", "cpu.steal_s"]


def test_pressure_in_seconds():
    got = values("psi", "/proc/pressure/memory", (FIXTURES / "pressure_memory.txt").read_bytes())
    assert got == {"pressure.memory.some_s": pytest.approx(10.938041), "pressure.memory.full_s": pytest.approx(2.5)}


def test_kernel_counters_and_load():
    got = values("vmstat", "/proc/vmstat", (FIXTURES / "vmstat.txt").read_bytes())
    assert got == {"vm.oom_kills": 2, "vm.swap_in_pages": 30, "vm.swap_out_pages": 5120}
    assert values("loadavg", "/proc/loadavg", (FIXTURES / "loadavg.txt").read_bytes()) == {"load.avg_1min": 0.57}


def test_a_process_that_ended_leaves_gaps():
    text = (FIXTURES / "stat_engine.txt").read_bytes()
    series, status = read("src", "procstat", [stream("/proc/4120/stat", [text, errno.ESRCH, b""])], {})
    assert series[0].words == ["ok", "absent", "unparsed"]
    assert np.isnan(series[0].value[1:]).all()
    assert status.detail == "2 unparsed, 2 absent"  # of each of its two series


def test_a_stream_that_was_never_read_says_so():
    status = read("src", "meminfo", [stream("/proc/meminfo", [])], {})[1]
    assert (status.status, status.detail) == ("absent", "opened, never read")


def test_a_slice_of_failed_readings_alone_still_shows_them():
    text = (FIXTURES / "meminfo.txt").read_bytes()
    whole, _ = read("src", "meminfo", [stream("/proc/meminfo", [text, text, errno.EIO, errno.EIO])], {})
    parts = [read("src", "meminfo", [stream("/proc/meminfo", raw)], {})[0] for raw in ([text] * 2, [errno.EIO] * 2)]
    assert [one.name for one in parts[1]] == [one.name for one in whole]
    for one, first, second in zip(whole, *parts, strict=True):
        assert one.words == first.words + second.words == ["ok", "ok", "error", "error"]
