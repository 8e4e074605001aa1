"""The probe's other builds, executed by qemu-user: /proc is the host's there, the code that runs is the target's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from meltbench.probe import build
from meltbench.probe.job import Job
from meltbench.probe.journal import read_journal

EMULATORS = {
    "aarch64-linux-musl": "qemu-aarch64-static",
    "arm-linux-musleabihf": "qemu-arm-static",
    "riscv64-linux-musl": "qemu-riscv64-static",
}


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(EMULATORS))
def test_a_job_runs_under_emulation(target: str, tmp_path: Path) -> None:
    emulator = shutil.which(EMULATORS[target])
    if emulator is None:
        pytest.skip(f"no {EMULATORS[target]} here: make lab installs it where it may")
    if not build.zig_there():
        pytest.skip("the pinned ziglang is not installed")
    probe = [emulator, str(build.binary(target))]
    version = subprocess.run([*probe, "version"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert target in version
    folder = tmp_path / "runs" / "r1"
    folder.mkdir(parents=True)
    (tmp_path / "setting").write_text("old\n")
    job = Job("r1")
    job.file("up", "/proc/uptime", 50_000_000)
    job.file("gone", "/proc/nowhere", 50_000_000)
    job.set(str(tmp_path / "setting"), "new")
    job.idle("before", 0.4)
    job.execute("engine", 20, ["sh", "-c", "echo hello; exit 3"])
    job.idle("after", 0.1)
    (folder / "job").write_text(job.text())
    subprocess.run([*probe, "run", str(folder)], timeout=120, check=True, stdin=subprocess.DEVNULL)
    journal = read_journal(folder / "journal")
    assert journal.dropped_bytes == 0
    assert journal.end is not None
    assert (journal.end["result"], journal.end["reason"]) == ("failed", "process engine ended with 3")
    (up,) = journal.channel("up")
    assert len(up.readings) >= 4
    assert (up.readings.t1_ns >= up.readings.t0_ns).all()
    assert [stream.status for stream in journal.channel("gone")] == ["absent"]
    said = [raw for stream in journal.streams.values() if stream.kind == "out" for raw in stream.readings.raw]
    assert [raw.rstrip(b"\n") for raw in said] == [b"hello"]
    assert (tmp_path / "setting").read_text().strip() == "old"
    facts = json.loads(
        subprocess.run([*probe, "facts", str(tmp_path), "/proc/uptime"], capture_output=True, timeout=60).stdout
    )
    assert facts["files"]["/proc/uptime"]["status"] == "ok"
