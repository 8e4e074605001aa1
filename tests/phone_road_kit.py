"""A controller and a made phone: runs over the whole road by adb, with the settings that a phone's profile makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from phones_kit import Phone
from road_kit import Road
from targets_kit import until

from meltbench import paths

TMP = "/data/local/tmp"
GATED = ("--", "sh", "-c", f"while [ ! -e {TMP}/gate ]; do sleep 0.1; done")
# A setting that a file holds, beside those of Android's own services.
_PROFILE = f"""title = "the made phone of the laboratory"
inherits = "generic-android"

[[setting]]
name = "knob"
path = "{TMP}/knob"
value = "fast"
"""
# What a profile of Android sets, and what it was before.
BEFORE = {"system screen_brightness_mode": "1", "system screen_off_timeout": "60000"}


@dataclass
class PhoneRoad(Road):
    """A controller with an inventory of its own, and the phone that it knows as ``box``."""

    target: Phone = field(kw_only=True)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        # A server that meltbench starts has its keys in the home.
        self.env |= {"HOME": str(self.target.server.folder), "MELTBENCH_CACHE": str(paths.cache_dir())}

    @property
    def profile(self) -> str:
        return _PROFILE

    def path(self, name: str) -> Path:
        return self.target.room.path(f"{TMP}/{name}")

    def open_gate(self) -> None:
        self.path("gate").touch()

    def close_gate(self) -> None:
        self.path("gate").unlink(missing_ok=True)

    def added(self, name: str = "box") -> PhoneRoad:
        self.target.shell(f"echo slow > {TMP}/knob")
        for key, value in BEFORE.items():
            self.target.shell(f"settings put {key} {value}")
        done = self.run("devices", "add", name, "--adb", self.target.serial, "--profile", "knobbed")
        assert done.returncode == 0, done.stderr
        return self

    @property
    def there(self) -> Path:
        return self.path(".meltbench")

    def device_processes(self) -> list[str]:
        own = ("/lab/", "init", "/apex/", "sh /", "/system/bin/sh /lab")
        return [one for one in self.target.room.processes().values() if not one.startswith(own)]

    def device_files(self) -> list[str]:
        kept = ("bin/meltprobe-", "cache/lock", "cache/blobs/", "cache/trees/")
        files = [str(path.relative_to(self.there)) for path in self.there.rglob("*") if not path.is_dir()]
        files += [f"{TMP}/{path.name}" for path in self.path(".").iterdir()]
        ours = {f"{TMP}/.meltbench", f"{TMP}/knob", f"{TMP}/gate"}
        lease = {"runs/lock", "runs/lease", "runs/lease.copy", "runs/lease.lock"}
        return sorted({one for one in files if not one.startswith(kept)} - lease - ours)

    def holder(self) -> str | None:
        import json

        probes = sorted(path.name for path in self.there.glob("bin/meltprobe-*"))
        if not probes:
            return None
        where = f"{TMP}/.meltbench"
        found: str | None = json.loads(self.target.shell(f"{where}/bin/{probes[-1]} lease {where}/runs show"))["holder"]
        return found

    def nothing_left(self, *, lease: bool = True) -> None:
        until(lambda: self.device_processes() == [], f"{self.device_processes()} to end", 20)
        assert self.device_files() == []
        self.as_before()
        if lease:
            until(lambda: self.holder() is None, "the lease to run out", 15)
        assert self.leftovers() == []
        assert [one for one in (self.home / "tmp").iterdir() if not one.name.startswith("adb.")] == []  # a server's log
        assert list(self.data.glob("runs/.*")) == []

    def as_before(self) -> None:
        """Every setting is what it was before anybody measured."""
        assert self.path("knob").read_text().strip() == "slow"
        assert {key: self.target.shell(f"settings get {key}") for key in BEFORE} == BEFORE
