"""Conducts a calibration: starts its job, looks on, brings the journal in, and forgets the job on the target."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meltbench
from meltbench import host
from meltbench.calibration import record
from meltbench.calibration.battery import STEP_W
from meltbench.calibration.job import compose_alone, compose_steps
from meltbench.deploy import helper_scripts
from meltbench.errors import DeviceError, Interrupted
from meltbench.follow import Lengths, follow
from meltbench.host import Hosted, Recorder
from meltbench.probe.client import passing_id
from meltbench.probe.journal import read_journal
from meltbench.site import meet
from meltbench.store import find_store, open_store
from meltbench.targets import inventory
from meltbench.targets import profile as profiles
from meltbench.targets.lease import Lease, holder_of
from meltbench.watch import Interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meltbench.calibration.job import Design
    from meltbench.probe.job import Job
    from meltbench.scripts import Scripts
    from meltbench.site import Site
    from meltbench.store import Store
    from meltbench.targets.inventory import Known
    from meltbench.targets.profile import Profile
    from meltbench.watch import Watch

_KIND = "cal"  # of job
_SLACK_S = 600.0  # of a recording on the controller beside steps whose loads begin late
_UNIQUE_W = 299.0  # units lie a thousand apart: with a limit below 1000 times 0.3 W one of them fits at most


@dataclass(frozen=True)
class _Bench:
    """A device that is leased and ready for the steps."""

    known: Known
    profile: Profile
    sha256: str
    site: Site
    scripts: Scripts | None
    lease: Lease


@contextmanager
def _bench(name: str, watch: Watch) -> Iterator[_Bench]:
    known = inventory.resolve(name)
    profile, definition = profiles.load(known.profile_name)
    site = meet(known, profile, watch, [source.reader for source in profile.source])
    try:
        with Lease.take(site.probe, holder_of(Path.cwd()), watch, wait=False) as lease:
            site.probe.sweep(_KIND)
            scripts = helper_scripts(profile, known, site, watch)
            yield _Bench(known, profile, definition.sha256, site, scripts, lease)
    finally:
        site.probe.transport.close()


def calibrate(name: str, design: Design, data: str | None, watch: Watch) -> record.Kept:
    """Calibrate the sources of a device, and store what was found, good or bad."""
    with _bench(name, watch) as bench, tempfile.TemporaryDirectory(prefix="meltbench-") as folder:
        store = open_store(data)  # not before the device was reached: a wrong name leaves no folder behind
        store.check_writable()
        watched, alone = Path(folder) / "watched", Path(folder) / "alone"
        _watched(bench, design, watched, watch)
        if design.same:
            watch.say("the equal loads once more with nothing read: what watching costs")
            _run(bench, compose_alone(design, passing_id(_KIND), bench.site.probe.path), design, alone, watch)
        ticket = _ticket(name, bench.sha256, bench.profile, bench.site, design)
        journal = read_journal(watched / "journal")
        hosted = Hosted.of(ticket, journal, watched)
        bare = read_journal(alone / "journal") if design.same else None
        return record.save(store, record.made(ticket, journal, hosted, bare), watched)


def selftest(name: str, design: Design, data: str | None, watch: Watch) -> dict[str, Any]:
    """Make load steps and say which sensors see them; nothing is stored. Calibrations of the store are used."""
    with _bench(name, watch) as bench, tempfile.TemporaryDirectory(prefix="meltbench-") as folder:
        store, profile = _store(data), bench.profile
        if store is not None:
            profile = record.calibrated(profile, bench.site.facts, store, watch)
        watched = Path(folder) / "watched"
        _watched(replace(bench, profile=profile), design, watched, watch)
        ticket = _ticket(name, bench.sha256, profile, bench.site, design)
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


def _watched(bench: _Bench, design: Design, where: Path, watch: Watch) -> None:
    """The load steps with all sources read, those of the controller too."""
    probe, facts = bench.site.probe, bench.site.facts
    recorder = Recorder.meet(bench.profile, facts, watch)
    job = compose_steps(design, passing_id(_KIND), bench.profile, facts, bench.scripts, probe.path)
    if recorder is None:
        _run(bench, job, design, where, watch)
        return
    told = recorder.told(job.run_id)
    try:
        recorder.begin(job.run_id, design.seconds + _SLACK_S, probe, where)
        _run(bench, job, design, where, watch)
        host.finish(told, job.run_id, probe, where, watch)
    finally:
        host.abandon(told, job.run_id)


def _run(bench: _Bench, job: Job, design: Design, where: Path, watch: Watch) -> None:
    """One job from its start to its journal on this machine. Ctrl-C ends it, and nothing of it is left."""
    probe, lengths = bench.site.probe, Lengths(0.0, design.seconds, design.seconds + _SLACK_S)
    with bench.lease.quiet():
        folder = probe.start(job, token=bench.lease.token)
        try:
            ended = follow(probe, bench.known.place, folder, lengths, watch, Interrupts(watch))
        except KeyboardInterrupt:
            probe.stop(folder)
            probe.forget(folder)
            raise Interrupted("interrupted; the load was ended, and nothing was stored") from None
    if ended.killed:
        raise DeviceError("the probe was killed", hint="look for what kills programs on the target, then try again")
    probe.fetch(folder, where)
    probe.forget(folder)
