"""What jobs leave that no store collects, when who started them was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probe_kit import Lab, call, probe_path

from meltbench.probe.client import Probe, passing_id
from meltbench.targets.local import LocalTransport

if TYPE_CHECKING:
    from pathlib import Path


def test_old_jobs_of_a_kind_are_removed_once_they_have_ended(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    probe = Probe(LocalTransport(), probe_path(), str(lab.root))
    lab.run_id = passing_id("doctor", 60.0)
    lab.dir = lab.dir.rename(lab.root / lab.run_id)
    kept = {passing_id("doctor"), passing_id("cal", 0.0), "20260101T000000Z-aaaaaa", "doctor-of-mine", "doctor-"}
    for name in {passing_id("doctor", 0.0), *kept}:
        (lab.root / name).mkdir()
    running = lab.start("step idle a 60000")
    probe.sweep("doctor")
    assert {path.name for path in lab.root.iterdir() if path.is_dir()} == {lab.run_id, *kept}
    assert call("stop", lab.dir).returncode == 0
    running.wait()
    probe.sweep("doctor")
    assert {path.name for path in lab.root.iterdir() if path.is_dir()} == kept
