"""Bringing runs in: from an ended job on a target to a stored run, by whoever looks at it, now or later.

What a controller must know of a run lies in its ticket, in the store and beside the job on the target. So another
controller can bring a run in, on another machine, with nothing but the way to the device.
"""

from __future__ import annotations

import json
import shlex
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench import host, postmortem, rollcall, switches
from meltbench.assemble import assemble
from meltbench.controller import is_alive
from meltbench.deadline import Deadline, patiently
from meltbench.errors import DeviceError, MeltbenchError, StoreError, UserError
from meltbench.follow import Lengths, follow
from meltbench.live import notes
from meltbench.probe.client import TICKET, Probe
from meltbench.probe.journal import read_journal
from meltbench.site import facts_of, meet, reach
from meltbench.store.folder import RUN_ID
from meltbench.targets import Place, inventory
from meltbench.targets import profile as device_profile
from meltbench.targets.inventory import Known
from meltbench.watch import Interrupts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meltbench.probe.journal import Journal
    from meltbench.records import RunRecord
    from meltbench.store import RunFolder, Store
    from meltbench.targets.profile import Profile
    from meltbench.watch import Watch

_MAX_TICKET_BYTES = 64 << 20
_LONGEST_S = 86_400.0  # of a run whose ticket does not say


def lengths(ticket: Mapping[str, Any]) -> Lengths:
    """How long a run takes, by its ticket."""
    longest_s = float(ticket.get("longest_s", _LONGEST_S))
    return Lengths(ticket["workload"]["idle_s"], float(ticket.get("expected_s", longest_s)), longest_s)


def bring_in(
    store: Store, run_id: str, probe: Probe, watch: Watch, profile: Profile | None, looks: int = 0
) -> RunRecord:
    """Fetch the evidence of an ended run, turn it into numbers, commit it, and only then forget it on the target.

    ``looks``: how often the target was asked while it measured.
    """
    folder = store.folder(run_id)
    switches.put_back(folder, profile, watch)  # before the commit: what is stored never changes
    ticket = folder.ticket()
    if looks:
        ticket["looks"] = looks + int(ticket.get("looks") or 0)
        folder.write_ticket(ticket)
    if (watched := notes.gathered(run_id)) is not None:
        ticket["top"] = watched
        folder.write_ticket(ticket)
    told = ticket.get("host")
    try:
        if told is not None:
            host.finish(told, run_id, probe, folder.evidence, watch)
        patiently(lambda: probe.fetch(ticket["folder"], folder.evidence))
    except DeviceError as error:
        error.hint = f"the run is safe on the target; when that is mended: {store.command('collect', run_id)}"
        raise
    journal = read_journal(folder.evidence / "journal")
    _note_theft(folder, ticket, journal, probe)
    postmortem.ask(probe, journal, folder.evidence)
    hosted, kills = host.Hosted.of(ticket, journal, folder.evidence), postmortem.told(folder.evidence)
    record = store.commit(folder, lambda keep: assemble(ticket, journal, keep, hosted, kills))
    index(store, run_id, watch)
    try:
        patiently(lambda: probe.forget(ticket["folder"]))
    except DeviceError as error:  # it is stored: what lies there still is swept up when that device is collected from
        watch.warn(f"{run_id} is stored, and lies on its device still: {error.message}")
    if told is not None:
        host.forget(told, run_id)
    return record


def _note_theft(folder: RunFolder, ticket: dict[str, Any], journal: Journal, probe: Probe) -> None:
    """Where another controller ended the run: who, and why, as long as the target can tell."""
    if (journal.first("stopping") or {}).get("by") != "steal" or not isinstance(lease := ticket.get("lease"), dict):
        return
    try:
        now = probe.lease_show()
    except DeviceError:  # the run is here: what it was can be told without
        return
    if isinstance(stolen := now.get("stolen"), dict) and stolen.get("holder") == lease.get("holder"):
        lease |= {"stolen_by": now["holder"], "stolen_for": stolen.get("reason")}
        folder.write_ticket(ticket)


def index(store: Store, run_id: str, watch: Watch) -> None:
    """Add a run to the index, or say that it is not in it."""
    try:
        store.ingest(run_id)
    except StoreError as error:  # the run is stored; its index is derived and can be made at any time
        watch.warn(f"{run_id} is stored, its index is not: {error.message}; then: {store.command('rebuild')}")


def discard(store: Store, run_id: str) -> None:
    """Remove a run that was never started, and what the controller began to record beside it."""
    folder = store.folder(run_id)
    if (told := folder.ticket().get("host")) is not None:
        host.abandon(told, run_id)
    store.discard(folder)


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


def strays(store: Store | None) -> dict[str, list[str]]:
    """Runs that have ended on devices of the inventory and are in no folder of this store, by the device's name.

    All devices are asked at once, and one that does not answer within seconds is passed over.
    """
    everyone = [inventory.of_entry(name, entry) for name, entry in inventory.load().items()]
    known = set(store.run_ids()) if store is not None else set()
    answers = zip(everyone, rollcall.ask(everyone), strict=True)
    found = {one.name: [run_id for run_id in answer.runs if run_id not in known] for one, answer in answers}
    return {name: runs for name, runs in found.items() if runs}


def tell_strays(store: Store | None, watch: Watch) -> None:
    """Say what of others lies on the devices, and how it is brought in."""
    for name, found in strays(store).items():
        what = f"{len(found)} runs that are" if len(found) > 1 else f"a run ({found[0]}) that is"
        words = ("collect", "--device", name)
        command = store.command(*words) if store is not None else shlex.join(["meltbench", *words])
        watch.say(f"{name} holds {what} not in this store: {command}")


def adopt(store: Store, device: str, watch: Watch) -> list[str]:
    """Take the runs that lie on a device into this store, whoever started them, to be collected then: their ids.

    For when the controller that started them is gone for good. One that still looks on keeps what it brings in first.
    What of this store's own lies there still, because the link was cut once it was stored, is removed.
    """
    known = inventory.resolve(device)
    profile, _ = device_profile.load(known.profile_name)
    site = meet(known, profile, watch, [])
    taken = []
    try:
        for run_id in site.probe.runs():
            if not RUN_ID.fullmatch(run_id):
                continue
            if store.folder(run_id).path.exists():
                if store.folder(run_id).stored:
                    site.probe.forget(site.probe.folder(run_id))
                continue
            ticket = _ticket_there(site.probe, run_id)
            if ticket is None:
                watch.say(f"{run_id} has no ticket on {device}: left there")
                continue
            if is_alive(ticket.get("controller")):
                watch.say(f"{run_id} is looked on at by another meltbench: left to it")
                continue
            store.adopt(
                run_id, ticket | {"folder": site.probe.folder(run_id), "adopted_from": ticket.get("controller")}
            )
            taken.append(run_id)
    finally:
        site.probe.transport.close()
    return taken


def _ticket_there(probe: Probe, run_id: str) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory(prefix="meltbench-") as folder:
        path = Path(folder) / "ticket"
        try:
            probe.transport.pull(f"{probe.folder(run_id)}/{TICKET}", path, Deadline.after(60))
            whole = json.loads(path.read_bytes()[:_MAX_TICKET_BYTES])
        except (DeviceError, ValueError, RecursionError):
            return None
    return whole if isinstance(whole, dict) else None


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
    except MeltbenchError as error:
        # It may not be reached because of what the controller set: once it must have ended, nothing is disturbed.
        over_at, now = switches.over_at(ticket), time.time()
        if over_at is None or folder.stored:
            raise
        if now < over_at and switches.cut(ticket):
            clock = time.strftime("%H:%M", time.localtime(over_at + 60))
            error.hint = f"its USB port is without power for the run; from {clock} on `meltbench collect` gives it back"
        if now < over_at or not switches.put_back(folder, profile, watch):
            raise
        return patiently(lambda: _collect_from(folder, folder.ticket(), profile, store, watch, interrupts, wait=wait))


def _profile(ticket: Mapping[str, Any]) -> Profile | None:
    """The profile of a ticket's device as it is now, None where it is gone."""
    device = ticket["device"]
    try:
        found = device_profile.load(str(device.get("profile") or device["name"]))[0]
        known = inventory.by_identity(device["identity"]) if switches.cut(ticket) else None
        if known is not None and known.hub is not None:
            found = replace(found, setting=(*found.setting, known.hub.setting()))
    except UserError:
        return None
    return found


def _known(run_id: str, ticket: Mapping[str, Any]) -> Known:
    """Where the run lies: its device by its hardware, wherever that is now, else where it was when the run began.

    The folder is the ticket's, not where this user's runs lie: another home or state folder must find it too.
    """
    device = ticket["device"]
    there = inventory.by_identity(device["identity"]) if device["target"] != "local" else None
    place = there.place if there else Place(device["target"], str(device.get("address") or ""), device.get("adb_port"))
    return Known(
        device["name"],
        str(device.get("profile") or device["name"]),
        place,
        device["identity"] if device["target"] != "local" else None,
        Probe.root_of(ticket["folder"], run_id),
    )


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
    known = _known(run_id, ticket)
    probe = reach(known.place, known.workdir, watch, known.identity)
    try:
        if known.identity is not None:
            inventory.check_board(known, facts_of(probe, profile))
        probe.recover()
        status = probe.status(where)
        state = status.get("state")
        if state == "none":
            switches.put_back(folder, profile, watch)
            # What was never heard of after its start, and is not there, never arrived.
            if not probe.has(where) and ticket.get("started", known.place.kind == "local"):
                raise DeviceError("the target has nothing of it", hint=f"if it never will again, remove {folder.path}")
            probe.forget(where)
            discard(store, run_id)
            watch.say(f"{run_id} was never started: removed")
            return None
        if not wait and state != "ended":
            watch.say(f"{run_id} is still running")
            return None
        looks = follow(probe, known.place, where, lengths(ticket), watch, interrupts).looks
        if folder.stored:  # by another collect that looked on as well
            watch.say(f"{run_id} was stored by another meltbench meanwhile")
            return None
        return bring_in(store, run_id, probe, watch, profile, looks)
    finally:
        probe.transport.close()
