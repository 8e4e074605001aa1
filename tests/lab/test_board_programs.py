"""The real probe over made boards: a tegrastats, a vcgencmd and the files of an INA3221 of known power."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe_kit import Lab, probe_path, result

from meltbench.measure.energy import energy, prepare
from meltbench.probe.job import Job
from meltbench.readings import READERS, read
from meltbench.records import Phase
from meltbench.targets.facts import rooted

# Stand-ins for the tools of a Jetson and a Pi: the words of the real ones, at the interval that they are asked for.
TEGRASTATS = f"""#!{sys.executable}
import sys, time
interval_s, at = float(sys.argv[sys.argv.index("--interval") + 1]) / 1000, 0
while True:
    print(f"11-24-2025 10:00:00 RAM 4000/15656MB (lfb 3x4MB) CPU [9%@729] VDD_IN {{15000 + at % 3 * 40 - 40}}mW/9000mW",
          flush=True)
    at += 1
    time.sleep(interval_s)
"""
VCGENCMD = """#!/bin/sh
case "$1" in
get_throttled) echo throttled=0x50005 ;;
pmic_read_adc) printf ' VDD_CORE_A current(7)=2.00000000A\\n VDD_CORE_V volt(15)=0.75000000V\\n' ;;
*) echo VCHI initialization failed; exit 255 ;;
esac
"""


def board(lab: Lab, folder: Path) -> dict[str, str]:
    for name, text in (("tegrastats", TEGRASTATS), ("vcgencmd", VCGENCMD)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    chip = folder / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    chip.mkdir(parents=True)
    for n, (label, mv, ma) in enumerate([("VDD_IN", 5000, 2000), ("VDD_SOC", 5000, 400)], 1):
        (chip / f"in{n}_label").write_text(f"{label}\n")
        (chip / f"in{n}_input").write_text(f"{mv}\n")
        (chip / f"curr{n}_input").write_text(f"{ma}\n")
        (chip / f"in{n + 3}_input").write_text("7320\n")
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def channels(job: Job, reader: str, period_ms: float, sys_root: Path) -> None:
    """What meltbench.compose makes of a source."""
    period_ns = round(period_ms * 1e6)
    for command in READERS[reader].commands:
        if command.poll:
            job.poll(reader, period_ns, command.deadline_s, command.words(period_ms))
        else:
            job.stream(reader, command.words(period_ms))
    for spec in READERS[reader].paths:
        job.file(reader, rooted(spec.glob, str(sys_root), "/proc"), period_ns if spec.periodic else 0)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("board")
    lab = Lab(folder)
    env = board(lab, folder)
    job = Job(lab.run_id)
    for reader, period_ms in (
        ("tegrastats", 29),
        ("throttled", 97),
        ("pmic", 97),
        ("measure_temp", 97),
        ("ina3221", 19),
    ):
        channels(job, reader, period_ms, folder / "sys")
    rest = ("idle before 500", "mark first", "idle window 1500", "mark last", "idle after 500")
    lab.job(*job.lines, *(f"step {step}" for step in rest))
    done = subprocess.run([probe_path(), "run", str(lab.dir)], env=env, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = lab.journal()
    assert result(found) == ("done", "")
    assert lab.left() == []
    return found


def seen(journal: Any, reader: str):
    series, status = read(reader, reader, journal.channel(reader), {})
    return {one.name: one for one in series}, status


@pytest.mark.alone
def test_the_joules_of_a_made_tegrastats_between_two_marks(journal: Any) -> None:
    found, status = seen(journal, "tegrastats")
    assert status.status == "ok"
    power = found["tegrastats.VDD_IN.power"]
    assert np.median(np.diff(power.t0_ns)) == pytest.approx(29e6, rel=0.5)  # stamped as they arrived
    first, last = (event["boot_ns"] for event in journal.named("mark"))
    joules = energy(prepare(power), Phase("run", first, last))
    assert joules.reason is None
    assert joules.value == pytest.approx(15.0 * (last - first) / 1e9, rel=0.005)
    assert (joules.scope, joules.klass) == ("module", "C")


def test_the_files_of_a_made_ina3221_are_paired_and_its_shunts_left_alone(journal: Any) -> None:
    found, status = seen(journal, "ina3221")
    assert {name: set(one.value.tolist()) for name, one in found.items()} == {
        "ina3221.VDD_IN.power": {10.0},
        "ina3221.VDD_SOC.power": {2.0},
    }
    assert len(found["ina3221.VDD_IN.power"]) > 50
    assert status.detail == ""


def test_a_made_vcgencmd_is_polled_and_its_refusal_is_a_status(journal: Any) -> None:
    flags, _ = seen(journal, "throttled")
    assert set(flags["throttled.under_voltage"].value.tolist()) == {1.0}
    assert set(flags["throttled.frequency_capped"].value.tolist()) == {0.0}
    power, _ = seen(journal, "pmic")
    assert set(power["pmic.sum.power"].value.tolist()) == {1.5}
    nothing, status = seen(journal, "measure_temp")
    assert (nothing, status.status) == ({}, "denied")
    assert "VCHI initialization failed" in status.detail
