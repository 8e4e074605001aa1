"""Every source of the local profile along the whole road: command line, probe, readers, measures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import Bench

from meltbench.probe.journal import read_journal


def by_source(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["source"]: row for row in run["sources"]}


@pytest.fixture
def made_machine(bench: Bench) -> Iterator[str]:
    """A power monitor, a clock that is at 1 GHz for a quarter of the time and at 2 GHz else, and NVIDIA's driver."""
    sys, proc = bench.home / "sys", bench.home / "proc"
    chip, stats = sys / "class/hwmon/hwmon4", sys / "devices/system/cpu/cpufreq/policy0/stats"
    for folder in (chip, stats, proc / "driver/nvidia", bench.home / "devices"):
        folder.mkdir(parents=True)
    texts = {chip / "name": "ina238", chip / "power1_label": "VIN", chip / "power1_input": "7500000"}
    texts |= {proc / "driver/nvidia/version": "NVRM version: made", stats / "time_in_state": "1000000 0\n2000000 0"}
    for path, text in texts.items():
        path.write_text(text + "\n")
    profile = f'inherits = "local"\n[roots]\nsys = "{sys}"\nproc = "{proc}"\n'
    (bench.home / "devices" / "made.toml").write_text(profile)
    stop = threading.Event()

    def count() -> None:
        with (stats / "time_in_state").open("r+b", buffering=0) as file:
            while not stop.wait(0.005):
                ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)  # shared finely: a tick is of neither clock alone
                file.seek(0)
                file.write(b"1000000 %d\n2000000 %d\n" % (ns // 4 // 10_000_000, ns * 3 // 4 // 10_000_000))

    thread = threading.Thread(target=count)
    thread.start()
    yield "made"
    stop.set()
    thread.join()


def test_what_is_not_there_is_a_row_with_what_was_looked_for_and_no_process(bench: Bench) -> None:
    (bench.home / "devices").mkdir()
    (bench.home / "none").mkdir()
    roots = f'inherits = "local"\n[roots]\nsys = "{bench.home}/none"\nproc = "{bench.home}/none"\n'
    (bench.home / "devices" / "bare.toml").write_text(roots)
    (run,) = bench.json("exec", "--set", "idle_s=0.2", "--device", "bare", "--", "sleep", "0.3")
    rows = by_source(run)
    looked_for = {"hwmon": "/sys/class/hwmon", "clocks": "time_in_state", "nvml": "no NVIDIA GPU", "pyrapl": "pyRAPL"}
    for source, words in looked_for.items():
        assert rows[source]["status"] == "absent"
        assert words in rows[source]["detail"]
    journal = read_journal(Path(run["stored"]) / "evidence" / "journal")
    assert {event["proc"] for event in journal.named("spawn")} == {"engine"}


def test_a_made_machine_is_read_whole(bench: Bench, made_machine: str, made_nvml: Path) -> None:
    bench.env["LD_LIBRARY_PATH"] = str(made_nvml)
    (run,) = bench.json("exec", "--set", "idle_s=1.2", "--device", made_machine, "--", "sleep", "2")
    rows = by_source(run)
    assert {rows[source]["status"] for source in ("hwmon", "clocks", "nvml")} == {"ok"}, rows
    assert run["conditions"]["gpus"] == ["NVIDIA"]
    found = {(m["name"], m["stat"], m["source"]): m for m in run["measures"]}
    assert found["max_temp_c", "max", "thermal.gpu0"]["value"] == 54
    mean = found["cpu_freq_hz", "mean", "cpufreq.policy0.at_hz"]
    assert mean["reason"] is None
    assert mean["value"] == pytest.approx(1.75e9, rel=0.02)
    assert abs(mean["value"] - 1.75e9) <= mean["u_k2"]
    assert "throttled" not in {reason["code"] for reason in run["reasons"]}
