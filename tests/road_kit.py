"""A controller and a room: runs over the whole road, stopped at a stage, and what must be true whatever happened."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli import Bench, heed_interrupts
from rooms_kit import RoomTarget
from targets_kit import HERE, until

from meltbench.report.document import as_json
from meltbench.store import find_store, read_record, verifying

EXEC = ("exec", "--device", "box", "--set", "idle_s=0.3")
PATIENCE_S = 60.0
# A command that runs until the test opens its gate: how slow this machine is does not matter.
GATED = ("--", "sh", "-c", "while [ ! -e $HOME/gate ]; do sleep 0.1; done")
# A setting of the device that every run changes and puts back: a file of the room's user stands for a governor.
_PROFILE = """title = "the room of the laboratory"
inherits = "linux-desktop"
target = "ssh"

[[setting]]
name = "knob"
path = "{home}/knob"
value = "fast"
"""


class Staged:
    """A controller that stands still at a stage of staged.py."""

    def __init__(self, bench: Bench, stage: str, words: Sequence[str]) -> None:
        say, self._say = os.pipe()
        self._here, hear = say, 0
        hear, self._hear = os.pipe()
        env = bench.environment() | {"STAGED_SAY": str(self._say), "STAGED_HEAR": str(hear)}
        argv = [sys.executable, str(HERE / "staged.py"), stage, *bench.words(*words)]
        self.process = subprocess.Popen(
            argv, env=env, cwd=bench.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=heed_interrupts, start_new_session=True, pass_fds=(self._say, hear),
        )  # fmt: skip
        os.close(self._say)
        os.close(hear)

    def reached(self) -> Staged:
        """Wait until it stands at its stage."""
        if os.read(self._here, 16) != b"here\n":
            raise AssertionError(f"it ended before its stage: {self.process.communicate()}")
        return self

    def go(self) -> None:
        os.write(self._hear, b"\n")

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self, patience_s: float = PATIENCE_S) -> tuple[int, str, str]:
        """Wait for its end: exit status, stdout, stderr."""
        try:
            out, err = self.process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it did not end: {self.process.communicate()}") from None
        finally:
            for end in (self._here, self._hear):
                os.close(end)
        assert "Traceback" not in err, err
        assert "internal error" not in err, err
        return self.process.returncode, out, err


@dataclass
class Road(Bench):
    """A controller with a store, an inventory and folders of its own, and the room that it knows as ``box``."""

    target: RoomTarget = field(kw_only=True)

    def __post_init__(self) -> None:
        for name in ("state", "config", "tmp"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        own = {"XDG_CONFIG_HOME": str(self.home / "config"), "TMPDIR": str(self.home / "tmp")}
        self.env = {"STAGED_TTL_S": "4"} | self.env | self.target.environment | own
        self.env["PYTHONPATH"] = str(HERE.parent)
        profile = self.home / "config/meltbench/devices/knobbed.toml"
        profile.parent.mkdir(parents=True, exist_ok=True)
        profile.write_text(self.profile)

    @property
    def profile(self) -> str:
        """The profile ``knobbed``."""
        return _PROFILE.format(home=self.target.home)

    def open_gate(self) -> None:
        """Let the command GATED end."""
        self.target.room.path(f"{self.target.home}/gate").touch()

    def close_gate(self) -> None:
        self.target.room.path(f"{self.target.home}/gate").unlink(missing_ok=True)

    def fill_disk(self) -> None:
        """Leave no byte on the room's disk."""
        disk = os.statvfs(self.target.room.path("/"))
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        self.target.room.tell(f"disk {used + (4 << 20)}")
        with self.target.room.path("fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 12)):
                pass

    def drain_disk(self) -> None:
        self.target.room.path("fill").unlink()
        self.target.room.tell(f"disk {2 << 30}")

    @property
    def inventory(self) -> Path:
        return self.home / "config/meltbench/inventory.toml"

    def added(self, name: str = "box") -> Road:
        """Know the room by that name."""
        self.target.ssh("echo slow > knob")
        done = self.run("devices", "add", name, "--ssh", self.target.address, "--profile", "knobbed")
        assert done.returncode == 0, done.stderr
        return self

    def knows(self, other: Road) -> Road:
        """Know what another controller knows, by its inventory."""
        shutil.copy(other.inventory, self.inventory)
        return self

    def staged(self, stage: str, *words: str) -> Staged:
        return Staged(self, stage, words)

    # What is on the device, by this machine's own eyes: no traffic.

    @property
    def there(self) -> Path:
        """Our folder on the device."""
        return self.target.room.path(f"{self.target.home}/.meltbench")

    def jobs(self) -> list[Path]:
        return sorted(self.there.glob("runs/*/state"))

    def state(self) -> dict[str, Any]:
        """The state of the newest run."""
        for path in reversed(self.jobs()):
            try:
                found: dict[str, Any] = json.loads(path.read_text())
            except OSError:  # collected meanwhile
                continue
            return found
        return {}

    def until_run(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        until(lambda: what(self.state()), "a state of the run", PATIENCE_S)
        return self.state()

    def until_ended(self) -> None:
        self.until_run(lambda state: state.get("state") == "ended")

    def device_processes(self) -> list[str]:
        return [
            one for one in self.target.room.processes().values() if not one.startswith(("init", "sshd", "/usr/sbin"))
        ]

    def kill_there(self, pid: int) -> None:
        """Kill a process of the device, by its number there."""
        for outside in self.target.room.processes():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                told = Path(f"/proc/{outside}/status").read_text().partition("NSpid:")[2]
                if int(told.split("\n")[0].split()[-1]) == pid:
                    os.kill(outside, signal.SIGKILL)

    def device_files(self) -> list[str]:
        """What of ours lies on the device beside probe, cache and lease."""
        kept = ("bin/meltprobe-", "cache/lock", "cache/blobs/", "cache/trees/")
        files = [str(path.relative_to(self.there)) for path in self.there.rglob("*") if not path.is_dir()]
        files += [f"/tmp/{path.name}" for path in self.target.room.path("/tmp").iterdir()]
        lease = {"runs/lock", "runs/lease", "runs/lease.copy", "runs/lease.lock"}
        return sorted({one for one in files if not one.startswith(kept)} - lease)

    def holder(self) -> str | None:
        """Who holds the lease, by the probe's own word."""
        probes = sorted(path.name for path in self.there.glob("bin/meltprobe-*"))
        if not probes:
            return None
        told = self.target.ssh(f".meltbench/bin/{probes[-1]} lease .meltbench/runs show")
        found: str | None = json.loads(told)["holder"]
        return found

    def nothing_left(self, *, lease: bool = True) -> None:
        """No process, no file beyond cache and probe, on the device and here; no lease."""
        until(lambda: self.device_processes() == [], f"{self.device_processes()} to end", 15)
        assert self.device_files() == []
        assert self.target.room.path(f"{self.target.home}/knob").read_text().strip() == "slow"
        if lease:
            until(lambda: self.holder() is None, "the lease to run out", 15)
        assert self.leftovers() == []
        assert sorted((self.home / "tmp").iterdir()) == []
        assert list(self.data.glob("runs/.*")) == []

    def run_ids(self) -> list[str]:
        """Of all runs of the store, stored or not."""
        return find_store(self.data).run_ids() if self.data.is_dir() else []

    def stored(self) -> list[dict[str, Any]]:
        """Every stored run, as `show --json` tells it."""
        if not self.data.is_dir():
            return []
        store = find_store(self.data)
        folders = [store.folder(run_id).path for run_id in store.stored_ids()]
        return [as_json(read_record(folder, signals=False), str(folder)) for folder in folders]

    def honest(self, least_s: float = 1.0) -> list[dict[str, Any]]:
        """Every stored run; none with a number that is wrong and stands as valid, and the store is whole."""
        runs = self.stored()
        for run in runs:
            sound(run, least_s)
        if runs:
            assert verifying.verify(find_store(self.data), None, lambda _done, _total: None) == []
        return runs


def sound(run: dict[str, Any], least_s: float) -> None:
    """A run that ended well has all its parts and a right time; any other is invalid, and says why."""
    if run["outcome"] != "done":
        assert run["validity"] == "invalid", run["validity"]
        assert run["failure"] or run["outcome"] == "stopped", run
        assert [one for one in run["reasons"] if one.get("level", "invalid") == "invalid"] != []
        return
    assert run["validity"] in ("valid", "degraded"), run["reasons"]
    assert run["phases"][0]["name"] == "idle_before"
    assert run["phases"][-1]["name"] == "idle_after"
    (wall,) = [m["value"] for m in run["measures"] if m["name"] == "wall_s" and m["phase"] == "run"]
    measured = next(phase for phase in run["phases"] if phase["name"] == "run")
    assert least_s <= wall <= (measured["t1_ns"] - measured["t0_ns"]) / 1e9 + 0.01


def reasons(run: dict[str, Any]) -> set[str]:
    return {one["code"] for one in run["reasons"]}


def numbers(run: dict[str, Any]) -> dict[str, Any]:
    """What a run says, without where it is kept and by whom it was brought in."""
    return {key: run[key] for key in ("outcome", "validity", "measures", "phases", "requests", "reasons", "sources")}


__all__ = ["EXEC", "GATED", "PATIENCE_S", "Road", "Staged", "numbers", "reasons", "sound"]
