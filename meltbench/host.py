"""What is read on the controller beside a run: external meters, and other sources that a profile marks as the host's.

The controller's own probe records them by a job of its own, so that they survive the death of whoever looks on, and the
target's clock is asked before and after the run. Left of the evidence this module touches the world; ``Hosted`` is a
pure function of it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from meltbench.compose import channels
from meltbench.errors import DeviceError, StoreError, UserError
from meltbench.paths import state_dir
from meltbench.probe import build
from meltbench.probe.client import Probe
from meltbench.probe.clockmap import Batch, Clock, ClockMap, clock_map
from meltbench.probe.job import Job, milliseconds
from meltbench.probe.journal import Journal, read_journal
from meltbench.probe.sync import exchange
from meltbench.readings import READERS
from meltbench.scripts import Scripts
from meltbench.store import fs
from meltbench.targets import Place, connect
from meltbench.targets import facts as device_facts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from meltbench.readings import Sighting
    from meltbench.records import Series
    from meltbench.targets.facts import Facts
    from meltbench.targets.profile import Profile
    from meltbench.watch import Watch

_JOURNAL_BYTES = 256 << 20
_SLACK_S = 120.0  # the recording begins before the run and ends after it, with an exchange on either side
SYNC = "sync.json"
FOLDER = "host"


@dataclass(frozen=True)
class Recorder:
    """The controller's probe, ready to record the host sources of a profile beside runs of one target."""

    probe: Probe
    facts: Facts
    profile: Profile

    @classmethod
    def meet(cls, profile: Profile, target: Facts, watch: Watch) -> Recorder | None:
        """The recorder of a profile's host sources; None where it has none. Raises UserError where none can be made."""
        mine = [source for source in profile.source if source.host]
        if not mine:
            return None
        if build.native_target() is None:
            names = ", ".join(source.name for source in mine)
            raise UserError(
                f"{names} is read on this machine, where the probe does not run", hint="use a Linux machine"
            )
        # One recording at a time a device, as the device itself makes one run at a time.
        root = str(state_dir() / "host" / target.identity)
        probe = Probe.install(connect(Place()), root, build.host_target(), watch.say)
        probe.recover()
        answer = probe.facts(device_facts.globs("/sys", "/proc"))
        programs = probe.programs([c.program for source in mine for c in READERS[source.reader].commands])
        return cls(probe, device_facts.parse(answer, programs=programs), profile)

    def told(self, run_id: str) -> dict[str, Any]:
        """What the ticket of a run must know of its recording, before it is started."""
        return {"folder": self.probe.folder(run_id), "machine": os.uname().nodename}

    def begin(self, run_id: str, longest_s: float, target: Probe, where: Path) -> None:
        """Start to record, then ask the target's clock; ``where``: the run's evidence, in which that is kept."""
        job = Job(run_id)
        job.limit("journal_bytes", _JOURNAL_BYTES)
        job.limit("duration_ms", milliseconds(longest_s + 2 * _SLACK_S))
        channels(job, self.profile, self.facts, Scripts.here(), has_process=False, host=True)
        job.idle("recording", longest_s + _SLACK_S)
        self.probe.start(job)
        _ask(self.probe, target, where)


def _ask(recorder: Probe, target: Probe, where: Path) -> None:
    """One batch of exchanges added to those that are kept; none where both clocks are provably one."""
    here, there = (Clock.of(probe.facts([])) for probe in (recorder, target))
    if here.is_surely(there):
        return
    batches = [*read_batches(where), exchange(target, here)]
    where.mkdir(exist_ok=True)
    content = json.dumps([batch.told() for batch in batches]).encode("ascii")
    with fs.explained(f"keep the clock exchange in {where}", hint="free space, then: meltbench collect"):
        fs.write_atomic(where / SYNC, content)


def finish(told: dict[str, Any], run_id: str, target: Probe, where: Path, watch: Watch) -> None:
    """Ask the target's clock once more, end the recording and bring it in. The target's run is over.

    Raises DeviceError where the recording is on another machine: brought in without it, it would be lost.
    """
    if told["machine"] != os.uname().nodename:
        raise DeviceError(f"a part of the run was recorded on {told['machine']}", hint="collect it there")
    probe = _of(told, run_id)
    probe.recover()
    if not probe.has(told["folder"]):
        watch.warn(f"{run_id}: what this machine recorded beside it is gone")
        return
    try:
        _ask(probe, target, where)
    except DeviceError as error:  # the numbers can do without, and say so
        watch.warn(f"{run_id}: the target's clock was not asked after the run: {error.message}")
    if probe.status(told["folder"]).get("state") != "ended":
        probe.stop(told["folder"])
    probe.fetch(told["folder"], where / FOLDER)


def forget(told: dict[str, Any], run_id: str) -> None:
    """Remove the recording from the state folder, once the run is stored."""
    _of(told, run_id).forget(told["folder"])


def abandon(told: dict[str, Any], run_id: str) -> None:
    """End a recording beside which nothing ran."""
    probe = _of(told, run_id)
    if probe.status(told["folder"]).get("alive"):
        probe.stop(told["folder"])
    probe.recover()
    probe.forget(told["folder"])


def _of(told: dict[str, Any], run_id: str) -> Probe:
    root = Probe.root_of(told["folder"], run_id)
    return Probe.install(connect(Place()), root, build.host_target(), lambda _: None)


def read_batches(where: Path) -> list[Batch]:
    """The exchanges that are kept in a run's evidence. Raises StoreError for a file that is none of ours."""
    path = where / SYNC
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged", hint="remove it, and the clocks are taken as not tied") from error
    return [batch for row in rows if (batch := Batch.read(row)) is not None] if isinstance(rows, list) else []


@dataclass(frozen=True)
class Hosted:
    """The evidence of the controller beside that of the target: its journal, its sources by name, and how its stamps
    become the target's. ``bound_s``: the most that they may be off within the run."""

    journal: Journal = field(default_factory=Journal)
    names: frozenset[str] = frozenset()
    line: ClockMap = field(default_factory=ClockMap)
    bound_s: float = 0.0

    @classmethod
    def of(cls, ticket: dict[str, Any], target: Journal, evidence: Path | None) -> Hosted:
        """From a run's evidence folder; None where only the target's journal is at hand."""
        names = frozenset(source["name"] for source in ticket["sources"] if source.get("host"))
        if not names:
            return cls()
        path = None if evidence is None else evidence / FOLDER / "journal"
        journal = read_journal(path) if path is not None and path.exists() else Journal()
        batches = read_batches(evidence) if evidence is not None else []
        return cls.tied(names, journal, target, batches)

    @classmethod
    def tied(cls, names: frozenset[str], journal: Journal, target: Journal, batches: Sequence[Batch]) -> Hosted:
        """The two journals tied by exchanges with the target's clock."""
        begin, end = target.first("begin") or {}, target.end or {}
        here, there = (Clock.of(one.first("begin") or {}) for one in (journal, target))
        begin_ns, end_ns = int(begin.get("boot_ns") or 0), end.get("boot_ns")
        line = clock_map(batches, here, there, begin_ns, end_ns)
        last_ns = max((int(event["boot_ns"]) for event in target.events), default=begin_ns)
        return cls(journal, names, line, line.bound_s(begin_ns, last_ns))

    @property
    def conditions(self) -> list[tuple[str, str]]:
        """What speaks against the run: clocks that could not be tied as they should."""
        if not self.line.why or not self.journal.events:
            return []
        return [("clock_unsynced", f"{', '.join(sorted(self.names))}: {self.line.why}")]

    def placed(self, series: list[Series], seen: Sighting) -> tuple[list[Series], Sighting]:
        """Series of the controller with their stamps on the target's clock; none where nothing ties the two."""
        if self.line.why and not self.line.knots:
            readings = sum(seen.tally.values())
            lost = replace(seen, tally=Counter({"error": readings}), note=f"clock_unsynced: {self.line.why}")
            return [], lost
        return [
            replace(
                one,
                t0_ns=self.line.target_ns(one.t0_ns),
                t1_ns=self.line.target_ns(one.t1_ns),
                clock_bound_s=self.bound_s,
            )
            for one in series
        ], seen
