"""A device that reboots while a job runs.

The reboot is faked at its edge: the probe's processes are killed at once, as a power cut ends them, and the state says
another boot id than the kernel does."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from cli import Bench
from probe_kit import Lab, call, result

OTHER = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "knob").write_text("old")
    return Lab(tmp_path)


def reboot(lab: Lab, knob: Path, *, state: str = "kept") -> None:
    """Run a job, and let a reboot end it. ``state``: kept, or what a power cut made of it."""
    running = lab.start("channel u file /proc/uptime 10000000", f"step set {knob} new", "step idle long 60000")
    lab.until(lambda: lab.state().get("name") == "long")
    now = lab.state()
    os.kill(now["guard_pid"], signal.SIGSTOP)
    for victim in ("pid", "guard_pid"):
        os.kill(now[victim], signal.SIGKILL)
    running.wait(30)
    boot = now["boot_id"].encode()
    path = lab.dir / "state"
    if state == "kept":
        path.write_bytes(path.read_bytes().replace(boot, OTHER.encode()))
    else:
        if state == "lost":
            path.unlink()
        else:  # as ext4 leaves a file that was renamed, and not yet written
            path.write_bytes(bytes(path.stat().st_size if state == "zeros" else 0))
        whole = (lab.dir / "journal").read_bytes()
        (lab.dir / "journal").write_bytes(with_boot(whole, boot))


def with_boot(journal: bytes, boot: bytes) -> bytes:
    """The journal as another boot would have begun it."""
    at = journal.index(b'"boot_id":"' + boot)
    start = journal.rindex(b"MLTJ", 0, at)
    kind, zero, length = struct.unpack_from("<HHI", journal, start + 4)
    payload = journal[start + 16 : start + 16 + length].replace(boot, OTHER.encode())
    crc = zlib.crc32(payload, zlib.crc32(struct.pack("<HHI", kind, zero, length)))
    return journal[: start + 12] + struct.pack("<I", crc) + payload + journal[start + 16 + length :]


@pytest.mark.parametrize("state", ["kept", "lost", "zeros", "empty"])
@pytest.mark.parametrize("by", ["recover", "run", "stop"])
def test_the_run_ends_as_rebooted_and_its_settings_are_put_back(lab: Lab, tmp_path: Path, by: str, state: str) -> None:
    knob = tmp_path / "knob"
    reboot(lab, knob, state=state)
    told = status(lab)
    assert told["alive"] is False
    if state == "kept":
        assert (told["state"], told["result"], told["reason"]) == ("running", "failed", "device_rebooted")
    else:
        assert told["state"] == "lost"
    if by == "run":
        assert result(Lab(tmp_path).run("step mark m")) == ("done", "")
    else:
        assert call(by, lab.root if by == "recover" else lab.dir).returncode == 0
    assert knob.read_text() == "old"
    assert result(lab.journal()) == ("failed", "device_rebooted")
    told = status(lab)
    assert (told["state"], told["result"], told["reason"]) == ("ended", "failed", "device_rebooted")
    names = [event["event"] for event in lab.journal().events]
    assert names.index("reboot") < names.index("undo") < names.index("end")
    whole = (lab.dir / "journal").read_bytes()
    assert call("recover", lab.root).returncode == 0
    assert (lab.dir / "journal").read_bytes() == whole


def status(lab: Lab) -> dict[str, Any]:
    return dict(json.loads(call("status", lab.dir).stdout))


def test_no_time_of_the_new_boot_is_taken_for_one_of_the_run(lab: Lab, tmp_path: Path) -> None:
    reboot(lab, tmp_path / "knob")
    before = lab.journal().events
    assert call("recover", lab.root).returncode == 0
    journal = lab.journal()
    after = journal.events[len(before) :]
    assert [event["event"] for event in after] == ["reboot", "undo", "end"]
    assert {event["boot_ns"] for event in after} == {before[-1]["boot_ns"]}
    assert not any(key in event for event in after for key in ("mono_ns", "wall_ns"))
    assert re.fullmatch(r"[0-9a-f-]{36}", after[0]["boot_id"])
    assert after[0]["boot_id"] != OTHER


def test_a_run_that_had_ended_before_the_reboot_is_what_it_was(lab: Lab) -> None:
    lab.run("step mark m")
    for old, new in ((lab.state()["boot_id"], OTHER), ('"ended"', '"running"')):
        path = lab.dir / "state"
        path.write_text(path.read_text().replace(old, new))
    assert call("recover", lab.root).returncode == 0
    assert result(lab.journal()) == ("done", "")
    assert lab.journal().named("reboot") == []


@pytest.mark.parametrize("left", ["kept", "zeros"])
def test_a_run_is_collected_as_rebooted_and_has_no_number(bench: Bench, left: str) -> None:
    bench.start_detached(300)
    state = bench.state()
    os.kill(state["guard_pid"], signal.SIGSTOP)
    for victim in ("pid", "guard_pid"):
        os.kill(state[victim], signal.SIGKILL)
    (path,) = bench.jobs()
    boot = state["boot_id"].encode()
    path.write_bytes(path.read_bytes().replace(boot, OTHER.encode()) if left == "kept" else bytes(path.stat().st_size))
    journal = path.with_name("journal")
    journal.write_bytes(with_boot(journal.read_bytes(), boot))
    (record,) = bench.json("collect", code=1)
    assert (record["outcome"], record["validity"]) == ("failed", "invalid")
    assert "device_rebooted" in {reason["code"] for reason in record["reasons"]}
    assert record["failure"].startswith("the device rebooted")
    assert record["ended_at"] is None
    shown = bench.json("show", "last")
    of_time = [one for one in shown["measures"] if one["phase"] == "run" and one["unit"] in ("s", "J", "W", "1/s")]
    assert [one["name"] for one in of_time if one["value"] is not None] == []
    assert "run" not in {phase["name"] for phase in shown["phases"]}
    assert bench.json("verify") == []
    assert bench.no_leftovers()
    assert bench.jobs() == []
