"""The road itself: a plan becomes stored runs.

The target owns a run from the moment its job is started. This module starts it, looks on, and collects; it may be
killed at any point between, and ``collecting`` does the rest later, from the same evidence to the same numbers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench import deploy, host, loglik, models, resuming, settings, switches, tokenizer
from meltbench.assemble import assemble_refused
from meltbench.calibration.record import calibrated
from meltbench.collecting import bring_in, discard, index, lengths
from meltbench.compose import BEFORE_S, check_engine, check_fit, compose, settled
from meltbench.controller import this_process
from meltbench.conversing import check_thinking
from meltbench.deadline import patiently
from meltbench.definition import BY_TOKEN
from meltbench.errors import DeadlineExceeded, DeviceError, LinkLost, MeltbenchError, ModelDamaged, UserError
from meltbench.follow import follow
from meltbench.gating import Gates
from meltbench.live.looking import Live, intent
from meltbench.site import visit
from meltbench.targets.lease import Lease, holder_of
from meltbench.ticket import LocalModel, cell_key, refused_ticket
from meltbench.watch import Interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meltbench.live.picture import Sight
    from meltbench.models import Model
    from meltbench.plan import Cell, Plan
    from meltbench.probe.client import Probe
    from meltbench.probe.job import Job
    from meltbench.records import RunRecord
    from meltbench.resuming import Piece
    from meltbench.scripts import Scripts
    from meltbench.site import Site
    from meltbench.spec import Scalar
    from meltbench.store import Store
    from meltbench.targets.profile import Profile
    from meltbench.tokenizer import Tokenized
    from meltbench.watch import Watch

_ASIDE_S = 10.0  # what a repetition may take longer than the run before it


@dataclass(frozen=True)
class Prepared:
    """A plan whose open ends are settled on a device, and what its runs need lies there."""

    plan: Plan
    site: Site
    model: LocalModel | None
    knobs: dict[Cell, dict[str, Scalar]]
    recorder: host.Recorder | None
    scripts: Scripts | None
    pushed: dict[str, Any]
    lease: Lease
    tokens: Tokenized | None = None
    reference: LocalModel | None = None
    piece: Piece | None = None
    live: Callable[[Sight], None] | None = None


def run(
    plan: Plan,
    store: Store,
    watch: Watch,
    spared: list[Cell] | None = None,
    live: Callable[[Sight], None] | None = None,
) -> Iterator[RunRecord]:
    """Make every run of a plan and yield each once it is stored; fewer when the user interrupted.

    Failed runs are stored and yielded like the others: their manifest says why. Cells in which no item is left to ask,
    because earlier runs scored them all, are put into ``spared``. ``live`` is shown what each run does meanwhile, which
    is a condition of the run and none of its plan.
    """
    if live is not None and plan.spec.unplug is not None:
        raise UserError("--live looks over the link that --unplug cuts", hint="leave one out")
    store.check_writable()
    site = visit(plan, watch)
    try:
        left = [] if spared is None else spared
        yield from _at(site, _calibrated(plan, site, store, watch), store, watch, left, live)
    finally:
        site.probe.transport.close()


def _at(
    site: Site,
    plan: Plan,
    store: Store,
    watch: Watch,
    spared: list[Cell],
    live: Callable[[Sight], None] | None,
) -> Iterator[RunRecord]:
    try:
        plan, model, knobs = prepare(plan, site, watch)
    except ModelDamaged as error:
        for cell in plan.cells:
            if plan.spec.resume and cell.rep:
                spared.append(cell)
                continue
            yield _refused(plan, cell, site, store, str(error), watch)
        return
    tokens, reference = _tokens(plan, model, watch), _local(plan.reference, watch)
    recorder = host.Recorder.meet(plan.profile, site.facts, watch)
    with Lease.take(site.probe, holder_of(store.root), watch, wait=plan.spec.wait, steal=plan.spec.steal) as lease:
        there = deploy.put(plan, site, model, watch, reference)
        plan = replace(plan, engine=there.engine)
        ready = Prepared(
            replace(plan, work=there.work), site, there.model, knobs, recorder, there.scripts, there.told, lease,
            tokens, there.reference, live=live,
        )  # fmt: skip
        took_s: dict[object, float] = {}  # the last run of the same knobs
        gates = Gates(plan, site)
        with Interrupts(watch) as interrupts:
            for number, cell in enumerate(plan.cells, 1):
                if interrupts.finish:
                    break
                now = _taken_up(ready, cell, store, watch) if plan.spec.resume else ready
                if now is None:
                    spared.append(cell)
                    continue
                if len(plan.cells) > 1 and not plan.spec.resume:
                    own = "".join(f", {name} {value}" for name, value in cell.knobs)
                    watch.say(f"run {number} of {len(plan.cells)}{own}")
                if cell is not plan.cells[0]:
                    deploy.files_there(plan, site, model, watch, reference)
                gated = gates.wait(watch, interrupts)
                if interrupts.finish:
                    break
                before_s = took_s.get(cell.knobs)
                record, took_s[cell.knobs] = _one(now, cell, store, watch, interrupts, gated, before_s)
                yield record
        if plan.spec.resume:
            for cell in {cell.knobs: cell for cell in plan.cells}.values():
                resuming.conclude(plan, _key(ready, cell), store, watch)


def _key(ready: Prepared, cell: Cell) -> str:
    return cell_key(ready.plan, ready.site.facts, ready.knobs[cell], ready.model)


def _taken_up(ready: Prepared, cell: Cell, store: Store, watch: Watch) -> Prepared | None:
    """The same for a run of what no earlier one has scored; None where that is nothing."""
    piece = resuming.piece(ready.plan, _key(ready, cell), store, watch)
    if piece is None:
        return None
    return replace(ready, plan=replace(ready.plan, work=replace(ready.plan.work, left=piece.items)), piece=piece)


def prepare(plan: Plan, site: Site, watch: Watch) -> tuple[Plan, LocalModel | None, dict[Cell, dict[str, Scalar]]]:
    """Fetch and build what is missing, and check that the plan can work on its device. Starts nothing there.

    Raises ModelDamaged for a model that no engine should be given, UserError for one that does not fit.
    """
    plan = replace(plan, engine=deploy.engine_files(plan, site, watch))
    check_engine(plan, site.facts)
    deploy.check_loader(plan, site)
    model = None
    if plan.model is not None:
        model = _local(plan.model, watch)
    if model is not None:
        check_thinking(plan, model)
    knobs = {cell: settled(plan, cell, site.facts, model) for cell in plan.cells}
    if model is not None and model.files:  # what only a server has needs no memory here
        for cell in {cell.knobs: cell for cell in plan.cells}.values():
            check_fit(plan, model, knobs[cell], site.facts)
    return plan, model, knobs


def _local(model: Model | None, watch: Watch) -> LocalModel | None:
    """A model as it lies on this machine, fetched where it does not."""
    if model is None:
        return None
    return LocalModel.of(model, None if model.format == "served" else models.ensure(model, watch.fetched, watch.say))


def _tokens(plan: Plan, model: LocalModel | None, watch: Watch) -> Tokenized | None:
    """The texts of a workload that is scored by the token, in tokens; None where the engine does that by itself."""
    assert plan.recipe is not None or model is None
    by_token = plan.work.workload.kind in BY_TOKEN and plan.recipe is not None and plan.recipe.mode == "server"
    if model is None or not by_token:
        return None
    return tokenizer.tokenized(Path(model.path), loglik.texts(plan.work.items), watch.say)


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
    index(store, folder.run_id, watch)
    return record


def _one(
    ready: Prepared,
    cell: Cell,
    store: Store,
    watch: Watch,
    interrupts: Interrupts,
    gated: dict[str, Any],
    took_s: float | None,
) -> tuple[RunRecord, float]:
    """One run, and how long it took; ``took_s``: one like it before."""
    looking_on = {"controller": this_process()}
    asked = cell if ready.piece is None else replace(cell, seed=ready.piece.seed(ready.plan.spec.seed))
    folder = store.new_run({"plan_hash": ready.plan.hash} | looking_on)
    probe, where = ready.site.probe, ready.site.probe.folder(folder.run_id)
    profile, facts, lease = ready.plan.profile, ready.site.facts, ready.lease
    try:
        todo = settings.plan(profile, probe.transport, facts.programs)
        switches.check_cut(todo)
        job, ticket = compose(
            ready.plan, asked, folder.run_id, facts, ready.knobs[cell], ready.model, where, todo, ready.scripts,
            ready.tokens, ready.reference,
        )  # fmt: skip
        ticket |= {"folder": where, **gated, "lease": lease.told(), "pushed": ready.pushed}
        if ready.piece is not None:
            ticket["piece"] = ready.piece.told()
        if ready.live is not None:
            ticket["live"] = intent(ready.plan.known.place.kind)
        if took_s is not None:
            ticket["expected_s"] = min(took_s + _ASIDE_S, ticket["longest_s"])
        if ready.recorder is not None:
            ticket["host"] = ready.recorder.told(folder.run_id)
        folder.write_ticket(ticket | looking_on)
        switches.make(folder, profile, started=False)
        if ready.recorder is not None:
            ready.recorder.begin(folder.run_id, ticket["longest_s"], probe, folder.evidence)
        lease.pause()
        began = time.monotonic()
        looks = _start(probe, job, folder.ticket(), lease.token)
        if ready.plan.known.place.kind != "local":  # there nothing else is measured here, and no link can be cut
            folder.write_ticket(folder.ticket() | {"started": True})
        switches.make(folder, profile, started=True)
        live = None if ready.live is None else Live(probe, folder.ticket(), ready.live, watch)
    except BaseException as error:
        lease.drop()  # a start that is on its way there still is refused from here on
        _give_up(store, folder.run_id, probe, profile, watch, error)
        raise
    try:
        plug_in = None
        if switches.cut(folder.ticket()):
            plug_in = partial(switches.put_back, folder, profile, watch, once_started=True)
        ended = follow(probe, ready.plan.known.place, where, lengths(ticket), watch, interrupts, plug_in, live)
    except DeviceError as error:
        error.hint = f"the run goes on on its target; later: {store.command('collect', folder.run_id)}"
        raise
    finally:
        if switches.cut(folder.ticket()):
            switches.put_back(folder, profile, watch, once_started=True)
        if live is not None:
            folder.write_ticket(folder.ticket() | {"live": live.done()})
    took_s = time.monotonic() - began
    lease.resume()
    record = bring_in(store, folder.run_id, probe, watch, profile, looks + ended.looks)
    return record, took_s if ready.plan.spec.unplug is None else _length_s(record, took_s)


def _length_s(record: RunRecord, took_s: float) -> float:
    """How long a run was by its own windows: while its device was unplugged nobody saw when it ended."""
    if not record.phases:
        return took_s
    first, last = min(one.t0_ns for one in record.phases), max(one.t1_ns for one in record.phases)
    return min(took_s, (last - first) / 1e9 + BEFORE_S)


def _start(probe: Probe, job: Job, ticket: dict[str, Any], token: int) -> int:
    """Start a job. Returns how often the target was asked since: once where the link was cut before it answered."""
    try:
        probe.start(job, ticket, token)
    except (LinkLost, DeadlineExceeded):
        if not patiently(lambda: probe.started(probe.folder(job.run_id))):
            raise
        return 1
    return 0


def _give_up(store: Store, run_id: str, probe: Probe, profile: Profile, watch: Watch, error: BaseException) -> None:
    """After a start that failed: remove what is left, unless the job runs after all, or may: then it is for collect."""
    folder = store.folder(run_id)
    if switches.cut(folder.ticket()):
        switches.put_back(folder, profile, watch, once_started=True)
    if "folder" in folder.ticket():  # before that nothing of it was sent
        where = probe.folder(run_id)
        try:
            runs = probe.started(where)
            if not runs:
                probe.forget(where)
        except DeviceError as unreachable:
            watch.warn(f"{run_id}: what is left of it on the target was not removed: {unreachable.message}")
            runs = True
        if runs:
            if isinstance(error, MeltbenchError):
                error.hint = f"the run may go on there; when it can be reached: {store.command('collect', run_id)}"
            return
    switches.put_back(folder, profile, watch)
    discard(store, run_id)
