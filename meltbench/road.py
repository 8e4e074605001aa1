"""The road itself: a plan becomes stored runs, and a run left behind is brought in.

The target owns a run from the moment its job is started. This module starts it, looks on, and collects; it may be
killed at any point between, and ``collect`` does the rest later, from the same evidence to the same numbers.
"""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from meltbench import gate as thermal
from meltbench import host, models, settings, switches
from meltbench.assemble import assemble, assemble_refused
from meltbench.calibration.record import calibrated
from meltbench.compose import LocalModel, check_engine, check_fit, compose, refused_ticket, settled
from meltbench.controller import is_alive, this_process
from meltbench.deadline import Deadline
from meltbench.errors import (
    DeadlineExceeded,
    DeviceError,
    MeltbenchError,
    ModelDamaged,
    StoreError,
    TargetBusy,
    UserError,
)
from meltbench.models.gguf import read_gguf
from meltbench.paths import state_dir
from meltbench.probe import build
from meltbench.probe.client import Probe
from meltbench.probe.journal import read_journal
from meltbench.readings import READERS
from meltbench.targets import connect, matching
from meltbench.targets import facts as device_facts
from meltbench.targets import profile as device_profile
from meltbench.watch import Interrupts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meltbench.plan import Cell, Plan
    from meltbench.records import RunRecord
    from meltbench.spec import Scalar
    from meltbench.store import RunFolder, Store
    from meltbench.targets.facts import Facts
    from meltbench.targets.profile import Profile
    from meltbench.watch import Watch

_LOOK_S, _MEASURING_S, _PATIENCE = 0.25, 1.0, 5


@dataclass(frozen=True)
class Site:
    """A device made ready: its probe and its facts."""

    probe: Probe
    facts: Facts


@dataclass(frozen=True)
class Prepared:
    """A plan whose open ends are settled on a device."""

    plan: Plan
    site: Site
    model: LocalModel | None
    knobs: dict[str, Scalar]
    recorder: host.Recorder | None


def reach(kind: str, workdir: str | None, watch: Watch) -> Probe:
    """Connect to a target and put the probe on it."""
    if kind == "local" and platform.system() == "Windows":
        raise UserError("Windows cannot be measured", hint="the probe is for Linux and Android")
    transport = connect(kind)
    done = transport.run(["uname", "-sm"], Deadline.after(10))
    system, _, machine = done.stdout.decode("ascii", "replace").strip().partition(" ")
    target = build.target_of(system, machine)
    if target is None:
        what = f"{system or 'this system'} on {machine or 'this machine'}"
        hint = "the probe is for Linux and Android on x86-64, ARM and RISC-V"
        if system == "Darwin":
            hint += "; of a Mac's own log: meltbench read LOG --device macbook"
        raise UserError(f"{what} cannot be measured", hint=hint)
    root = workdir or str(state_dir() / "target")
    return Probe.install(transport, root, target, watch.say)


def visit(plan: Plan, watch: Watch) -> Site:
    """Look at the plan's device: mend what an earlier run left there, and ask what it is."""
    switches.check(plan.profile, plan.spec.device)
    site = meet(plan.profile, watch, [source.reader for source in plan.profile.source])
    if plan.spec.device == "local" and (better := _better(site.facts)):
        watch.say(f"profile {better} knows this device: meltbench devices profile --write makes one of it to run with")
    return site


def meet(profile: Profile, watch: Watch, readers: Iterable[str]) -> Site:
    """Reach a device by its profile, and look for the programs that these readers poll."""
    if profile.target == "log":
        raise UserError(f"{profile.title}: not reached, its readings come from a recorded log", hint="meltbench read")
    roots = profile.roots
    probe = reach(profile.target, profile.workdir, watch)
    probe.recover()
    answer = probe.facts(device_facts.globs(roots.sys, roots.proc))
    wanted = [command.argv[0] for reader in readers for command in READERS[reader].commands]
    programs = probe.programs([*wanted, *settings.programs(profile.setting), device_facts.GETPROP])
    said = device_facts.properties(probe.properties()) if device_facts.GETPROP in programs else {}
    return Site(probe, device_facts.parse(answer, roots.sys, roots.proc, programs, said))


def _better(facts: Facts) -> str | None:
    """The profile of a board or phone that was made for it: what fits any device of a platform says no more."""
    if not (facts.compatible or facts.properties):
        return None
    found = matching.fits(facts, device_profile.candidates()[0])
    return found[0].name if found and not found[0].generic else None


def prepare(plan: Plan, site: Site, watch: Watch) -> Prepared:
    """Fetch what is missing, and check that the plan can work on its device. Starts nothing.

    Raises ModelDamaged for a model that no engine should be given, UserError for one that does not fit.
    """
    check_engine(plan, site.facts)
    model = None
    if plan.model is not None:
        path = models.ensure(plan.model, watch.fetched, watch.say)
        header = read_gguf(path)
        model = LocalModel(plan.model, str(path), models.file_sha256(path), path.stat().st_size, header)
    knobs = settled(plan, site.facts, model)
    if model is not None:
        check_fit(plan, model, knobs, site.facts)
    return Prepared(plan, site, model, knobs, host.Recorder.meet(plan.profile, site.facts, watch))


def run(plan: Plan, store: Store, watch: Watch) -> Iterator[RunRecord]:
    """Make every run of a plan and yield each once it is stored; fewer when the user interrupted.

    Failed runs are stored and yielded like the others: their manifest says why.
    """
    store.check_writable()
    site = visit(plan, watch)
    plan = _calibrated(plan, site, store, watch)
    try:
        ready = prepare(plan, site, watch)
    except ModelDamaged as error:
        for cell in plan.cells:
            yield _refused(plan, cell, site, store, str(error), watch)
        return
    with Interrupts(watch) as interrupts:
        for cell in plan.cells:
            if interrupts.finish:
                break
            if len(plan.cells) > 1:
                watch.say(f"run {cell.rep + 1} of {len(plan.cells)}")
            gated = _gate(ready, watch, interrupts)
            if interrupts.finish:
                break
            yield _one(ready, cell, store, watch, interrupts, gated)


def _calibrated(plan: Plan, site: Site, store: Store, watch: Watch) -> Plan:
    """The plan with what calibrations of this very device found; its hash stays that of what was asked for."""
    return replace(plan, profile=calibrated(plan.profile, site.facts, store, watch))


def _refused(plan: Plan, cell: Cell, site: Site, store: Store, why: str, watch: Watch) -> RunRecord:
    """Store a run that was never started, as failed: a sweep with a bad model must show that it has one."""
    folder = store.new_run({"plan_hash": plan.hash, "controller": this_process()})
    ticket = refused_ticket(plan, cell, folder.run_id, site.facts)
    folder.write_ticket(ticket)
    record = assemble_refused(ticket, "model_damaged", why)
    store.commit(folder, record)
    _index(store, folder.run_id, watch)
    return record


def _gate(ready: Prepared, watch: Watch, interrupts: Interrupts) -> dict[str, Any]:
    """Wait for a steady temperature as the plan wants it, and say what came of it: a part of the run's conditions."""
    profile, limit_s = ready.plan.profile, ready.plan.work.workload.gate_timeout_s
    gate, probe = thermal.Gate(limit_s, profile.gate.target_c), ready.site.probe
    asked = {"target_c": gate.target_c, "hold_s": gate.hold_s, "timeout_s": limit_s}
    if not limit_s:
        return asdict(thermal.Seen("off", 0.0)) | asked
    if not probe.recover():
        raise TargetBusy("the target is busy", hint="wait for that run, or `meltbench collect`")
    files = thermal.globs(profile)
    if not files or not thermal.there(probe.facts(files)):
        return asdict(thermal.Seen("no_sensor", 0.0)) | asked

    def look() -> float | None:
        return thermal.hottest_c(probe.facts(files), profile)

    def show(seen: thermal.Seen) -> None:
        told = {"elapsed_ms": seen.waited_s * 1e3, "limit_ms": limit_s * 1e3, "said": seen.words}
        watch.step({"state": "running", "op": "gate", "name": "gate", **told})

    interrupts.waiting = True
    seen = thermal.wait(gate, look, show, lambda: interrupts.finish)
    interrupts.waiting = False
    if seen.state == "timed_out":
        watch.warn(f"not at a steady temperature after {seen.waited_s:.0f} s ({seen.words}): the run starts warm")
    return asdict(seen) | asked


def _one(
    ready: Prepared, cell: Cell, store: Store, watch: Watch, interrupts: Interrupts, gated: dict[str, Any]
) -> RunRecord:
    looking_on = {"controller": this_process()}
    folder = store.new_run({"plan_hash": ready.plan.hash} | looking_on)
    probe, where = ready.site.probe, ready.site.probe.folder(folder.run_id)
    profile, facts = ready.plan.profile, ready.site.facts
    try:
        todo = settings.plan(profile, probe.transport, facts.programs)
        job, ticket = compose(ready.plan, cell, folder.run_id, facts, ready.knobs, ready.model, where, todo)
        ticket |= {"folder": where, "gate": gated}
        if ready.recorder is not None:
            ticket["host"] = ready.recorder.told(folder.run_id)
        folder.write_ticket(ticket | looking_on)
        switches.make(folder, profile)
        if ready.recorder is not None:
            ready.recorder.begin(folder.run_id, ticket["longest_s"], probe, folder.evidence)
        probe.start(job)
    except BaseException:
        _give_up(store, folder.run_id, probe, where, profile, watch)
        raise
    _follow(probe, where, watch, interrupts, ticket["workload"]["idle_s"])
    return bring_in(store, folder.run_id, probe, watch, profile)


def _give_up(store: Store, run_id: str, probe: Probe, where: str, profile: Profile, watch: Watch) -> None:
    """After a start that failed: remove what is left, unless the job runs after all; then it is for collect."""
    if probe.started(where):
        return
    probe.forget(where)
    switches.put_back(store.folder(run_id), profile, watch)
    _discard(store, run_id)


def _discard(store: Store, run_id: str) -> None:
    """Remove a run that was never started, and what the controller began to record beside it."""
    folder = store.folder(run_id)
    if (told := folder.ticket().get("host")) is not None:
        host.abandon(told, run_id)
    store.discard(folder)


class _Pauses:
    """How long to wait before the next look: long while the run measures, for looking costs the target a fork.

    The last window is of known length, ``last_s``: near its end looks come closer, so that nobody waits for nothing.
    """

    def __init__(self, last_s: float) -> None:
        self._last_s, self._pause_s = last_s, _LOOK_S
        self._ends: float | None = None

    def after(self, status: Mapping[str, Any]) -> float:
        """The pause after a look that showed ``status``."""
        left = _MEASURING_S if status.get("op") in ("idle", "http", "exec") else _LOOK_S
        if status.get("name") == "idle_after":
            now = time.monotonic()
            if self._ends is None:  # at the earliest: it may have begun right after the look before this one
                self._ends = now - self._pause_s + self._last_s
            left = self._ends - now
        self._pause_s = min(max(left, _LOOK_S), _MEASURING_S)
        return self._pause_s


def _follow(probe: Probe, folder: str, watch: Watch, interrupts: Interrupts, last_s: float) -> None:
    """Look on until the job has ended, however it ends. ``last_s``: length of the idle window that ends it."""
    stopped, missed, pauses = False, 0, _Pauses(last_s)
    while True:
        try:
            status = probe.status(folder)
            missed = 0
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
            return
        if interrupts.abort and not stopped:
            probe.stop(folder)
            stopped = True
        time.sleep(pauses.after(status))


def bring_in(store: Store, run_id: str, probe: Probe, watch: Watch, profile: Profile | None) -> RunRecord:
    """Fetch the evidence of an ended run, turn it into numbers, commit it, and only then forget it on the target."""
    folder = store.folder(run_id)
    switches.put_back(folder, profile, watch)  # before the commit: what is stored never changes
    ticket = folder.ticket()
    told = ticket.get("host")
    try:
        if told is not None:
            host.finish(told, run_id, probe, folder.evidence, watch)
        probe.fetch(ticket["folder"], folder.evidence)
    except DeviceError as error:
        error.hint = f"the run is safe on the target; when that is mended: {store.command('collect', run_id)}"
        raise
    journal = read_journal(folder.evidence / "journal")
    hosted = host.Hosted.of(ticket, journal, folder.evidence)
    record = store.commit(folder, lambda keep: assemble(ticket, journal, keep, hosted))
    _index(store, run_id, watch)
    probe.forget(ticket["folder"])
    if told is not None:
        host.forget(told, run_id)
    return record


def _index(store: Store, run_id: str, watch: Watch) -> None:
    try:
        store.ingest(run_id)
    except StoreError as error:  # the run is stored; its index is derived and can be made at any time
        watch.warn(f"{run_id} is stored, its index is not: {error.message}; then: {store.command('rebuild')}")


def collect(store: Store, watch: Watch, run_ids: list[str], *, wait: bool = True) -> tuple[list[RunRecord], int]:
    """Bring in runs whose controller went away: what was brought in, and how many could not be, each said why.

    A run still under way is waited for, or left with a word when ``wait`` is false. One bad run never keeps another.
    """
    records: list[RunRecord] = []
    failed = 0
    with Interrupts(watch) as interrupts:
        for run_id in run_ids:
            if interrupts.finish:
                break
            try:
                record = _collect_one(store, run_id, watch, interrupts, wait=wait)
            except MeltbenchError as error:
                watch.say(f"{run_id}: {error}")
                failed += 1
                continue
            except Exception as error:  # noqa: BLE001  a bug met in one run's evidence; the run stays as it is
                watch.say(f"{run_id}: internal error: {type(error).__name__}: {error}; please report it")
                failed += 1
                continue
            if record is not None:
                records.append(record)
    return records, failed


def _collect_one(store: Store, run_id: str, watch: Watch, interrupts: Interrupts, *, wait: bool) -> RunRecord | None:
    folder = store.folder(run_id)
    ticket = folder.ticket()
    if is_alive(ticket.get("controller")):
        watch.say(f"{run_id} is looked on at by another meltbench: left to it")
        return None
    if "folder" not in ticket:
        store.discard(folder)
        watch.say(f"{run_id} was never started: removed")
        return None
    profile = _profile(ticket)
    try:
        return _collect_from(folder, ticket, profile, store, watch, interrupts, wait=wait)
    except MeltbenchError:
        # It may not be reached because of what the controller set: once it must have ended, nothing is disturbed.
        if switches.overdue(ticket) and not folder.stored:
            switches.put_back(folder, profile, watch)
        raise


def _profile(ticket: Mapping[str, Any]) -> Profile | None:
    """The profile of a ticket's device as it is now, None where it is gone."""
    try:
        return device_profile.load(str(ticket["device"]["name"]))[0]
    except UserError:
        return None


def _collect_from(
    folder: RunFolder,
    ticket: dict[str, Any],
    profile: Profile | None,
    store: Store,
    watch: Watch,
    interrupts: Interrupts,
    *,
    wait: bool,
) -> RunRecord | None:
    run_id, where = folder.run_id, ticket["folder"]
    # Where the run lies, not where this user's runs lie: another home or state folder must find it too.
    probe = reach(ticket["device"]["target"], Probe.root_of(where, run_id), watch)
    probe.recover()
    state = probe.status(where).get("state")
    if state == "none":
        switches.put_back(folder, profile, watch)
        if not probe.has(where):
            raise DeviceError("the target has nothing of it", hint=f"if it never will again, remove {folder.path}")
        probe.forget(where)
        _discard(store, run_id)
        watch.say(f"{run_id} was never started: removed")
        return None
    if not wait and state != "ended":
        watch.say(f"{run_id} is still running")
        return None
    _follow(probe, where, watch, interrupts, ticket["workload"]["idle_s"])
    if folder.stored:  # by another collect that looked on as well
        watch.say(f"{run_id} was stored by another meltbench meanwhile")
        return None
    return bring_in(store, run_id, probe, watch, profile)
