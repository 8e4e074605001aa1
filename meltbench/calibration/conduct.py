"""Conducts a calibration: starts its job, looks on, brings the journal in, and forgets the job on the target."""

from __future__ import annotations

import secrets
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meltbench
from meltbench import host
from meltbench.calibration import record
from meltbench.calibration.battery import STEP_W
from meltbench.calibration.job import compose_alone, compose_steps
from meltbench.errors import DeadlineExceeded, DeviceError, Interrupted
from meltbench.host import Hosted, Recorder
from meltbench.probe.journal import read_journal
from meltbench.road import meet
from meltbench.store import find_store, open_store
from meltbench.targets import profile as profiles

if TYPE_CHECKING:
    from meltbench.calibration.job import Design
    from meltbench.probe.client import Probe
    from meltbench.probe.job import Job
    from meltbench.road import Site
    from meltbench.store import Store
    from meltbench.targets.profile import Profile
    from meltbench.watch import Watch

_SLACK_S = 600.0  # of a recording on the controller beside steps whose loads begin late
_LOOK_S, _PATIENCE = 1.0, 5  # looking costs the target a fork
_UNIQUE_W = 299.0  # units lie a thousand apart: with a limit below 1000 times 0.3 W one of them fits at most


def calibrate(name: str, design: Design, data: str | None, watch: Watch) -> record.Kept:
    """Calibrate the sources of a device, and store what was found, good or bad."""
    profile, definition = profiles.load(name)
    site = meet(profile, watch, [source.reader for source in profile.source])
    store = open_store(data)  # not before the device was reached: a wrong name leaves no folder behind
    store.check_writable()
    with tempfile.TemporaryDirectory(prefix="meltbench-") as folder:
        watched, alone = Path(folder) / "watched", Path(folder) / "alone"
        _watched(site, profile, design, watched, watch)
        if design.same:
            watch.say("the equal loads once more with nothing read: what watching costs")
            _run(site.probe, compose_alone(design, _run_id(), site.probe.path), alone, watch)
        ticket = _ticket(name, definition.sha256, profile, site, design)
        journal = read_journal(watched / "journal")
        hosted = Hosted.of(ticket, journal, watched)
        bare = read_journal(alone / "journal") if design.same else None
        return record.save(store, record.made(ticket, journal, hosted, bare), watched)


def selftest(name: str, design: Design, data: str | None, watch: Watch) -> dict[str, Any]:
    """Make load steps and say which sensors see them; nothing is stored. Calibrations of the store are used."""
    profile, definition = profiles.load(name)
    site = meet(profile, watch, [source.reader for source in profile.source])
    known = _store(data)
    profile = record.calibrated(profile, site.facts, known, watch) if known is not None else profile
    with tempfile.TemporaryDirectory(prefix="meltbench-") as folder:
        watched = Path(folder) / "watched"
        _watched(site, profile, design, watched, watch)
        ticket = _ticket(name, definition.sha256, profile, site, design)
        journal = read_journal(watched / "journal")
        return record.tested(ticket, journal, Hosted.of(ticket, journal, watched))


def _store(data: str | None) -> Store | None:
    """The store that is there, if one is: a look at a device makes none."""
    from meltbench.errors import StoreError

    try:
        return find_store(data)
    except StoreError:
        return None


def _ticket(name: str, sha256: str, profile: Profile, site: Site, design: Design) -> dict[str, Any]:
    facts = site.facts
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "device": {"name": name, "sha256": sha256, "identity": facts.identity, "board": facts.board},
        "system": record.system(facts),
        "versions": {"meltbench": meltbench.__version__},
        "design": asdict(design),
        "sources": [asdict(source) for source in profile.source],
        "max_step_w": min(profile.max_power_w or STEP_W[1], _UNIQUE_W),
        "conditions": facts.conditions(),
    }


def _run_id() -> str:
    return f"cal-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"


def _watched(site: Site, profile: Profile, design: Design, where: Path, watch: Watch) -> None:
    """The load steps with all sources read, those of the controller too."""
    recorder = Recorder.meet(profile, site.facts, watch)
    job = compose_steps(design, _run_id(), profile, site.facts, site.probe.path)
    if recorder is None:
        _run(site.probe, job, where, watch)
        return
    told = recorder.told(job.run_id)
    try:
        recorder.begin(job.run_id, design.seconds + _SLACK_S, site.probe, where)
        _run(site.probe, job, where, watch)
        host.finish(told, job.run_id, site.probe, where, watch)
    finally:
        host.abandon(told, job.run_id)


def _run(probe: Probe, job: Job, where: Path, watch: Watch) -> None:
    """One job from its start to its journal on this machine. Ctrl-C ends it, and nothing of it is left."""
    folder = probe.start(job)
    try:
        _follow(probe, folder, watch)
    except KeyboardInterrupt:
        probe.stop(folder)
        probe.forget(folder)
        raise Interrupted("interrupted; the load was ended, and nothing was stored") from None
    probe.fetch(folder, where)
    probe.forget(folder)


def _follow(probe: Probe, folder: str, watch: Watch) -> None:
    """Look on until the job has ended. A device whose every processor is busy may miss a few answers."""
    missed = 0
    while True:
        try:
            status, missed = probe.status(folder), 0
        except DeadlineExceeded:
            missed += 1
            if missed > _PATIENCE:
                raise
            continue
        watch.step(status)
        if status.get("state") == "ended":
            return
        if not status.get("alive"):
            probe.recover()
            raise DeviceError("the probe was killed", hint="look for what kills programs on the target, then try again")
        time.sleep(_LOOK_S)
