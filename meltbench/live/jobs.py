"""The jobs of a store that are under way, for ``meltbench top``: what is known of each without asking any device.

Of this machine's own the journal is read, which the run's record will tell. Of another device nothing is asked: what is
shown of it is what the controller that looks with ``--live`` has seen, if there is one.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench.controller import is_alive
from meltbench.errors import MeltbenchError
from meltbench.live import notes
from meltbench.live.looking import Looker, here, recorded
from meltbench.live.picture import Picture
from meltbench.probe.client import Probe
from meltbench.report.console import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meltbench.live.picture import Sight
    from meltbench.store import Store

AGAIN_S = 5.0  # between looks for runs that have begun: a store may have many
_STATE_BYTES = 1 << 16
UNWATCHED = "not watched: nothing crosses the link while it measures (run --live)"
DETACHED = "nobody looks on at it here: meltbench collect"
ENDED = "it waits to be brought in: meltbench collect"


@dataclass(frozen=True)
class Job:
    """One run that is not stored yet. ``state``: running, detached, ended, or unknown; ``note`` says what that means.

    ``target``: local, ssh or adb. ``elapsed_s`` since its start, ``left_s``: until when it should have ended at the
    latest. ``sight``: what was seen of it, None where nobody looks.
    """

    run_id: str
    state: str
    device: str
    target: str
    model: str | None = None
    engine: str | None = None
    workload: str | None = None
    command: str | None = None
    elapsed_s: float | None = None
    left_s: float | None = None
    sight: Sight | None = None
    note: str = ""


@dataclass
class Jobs:
    """The jobs of one store. Each ``look`` costs a little of this machine, also where it is measured just now."""

    store: Store
    _lookers: dict[str, Looker] = field(default_factory=dict)
    _tickets: dict[str, dict[str, Any]] = field(default_factory=dict)
    _scanned_s: float | None = None

    def look(self) -> list[Job]:
        """Every run that was begun and is not stored, oldest first."""
        if self._scanned_s is None or time.monotonic() - self._scanned_s >= AGAIN_S:
            self._scan()
        jobs = []
        for run_id, ticket in list(self._tickets.items()):
            if self.store.folder(run_id).stored or not self.store.folder(run_id).path.exists():
                self._forget(run_id)
                continue
            try:
                jobs.append(self._job(run_id, ticket))
            except (MeltbenchError, OSError) as error:
                words = error.message if isinstance(error, MeltbenchError) else str(error)
                jobs.append(Job(run_id, "unknown", "?", "?", note=words))
            except (KeyError, TypeError, ValueError):
                jobs.append(Job(run_id, "unknown", "?", "?", note="its ticket lacks what ours have"))
        return jobs

    def _scan(self) -> None:
        self._scanned_s = time.monotonic()
        begun = self.store.open_ids()
        for run_id in begun:
            if run_id in self._tickets and "folder" in self._tickets[run_id]:
                continue
            entry = self.store.entry(run_id)
            if entry.state == "open":
                self._tickets[run_id] = entry.info
        for run_id in set(self._tickets) - set(begun):
            self._forget(run_id)

    def _forget(self, run_id: str) -> None:
        self._tickets.pop(run_id, None)
        self._lookers.pop(run_id, None)

    def _job(self, run_id: str, ticket: Mapping[str, Any]) -> Job:
        watched = is_alive(ticket.get("controller"))
        if "folder" not in ticket:
            return Job(run_id, "running" if watched else "detached", "?", "?", note="" if watched else DETACHED)
        device, target = str(ticket["device"]["name"]), str(ticket["device"]["target"])
        elapsed_s = (datetime.now(UTC) - datetime.fromisoformat(ticket["started_at"])).total_seconds()
        sight, note = None, ""
        if target == "local":
            state, note, sight = self._local(run_id, ticket, watched=watched)
        else:
            state = "running" if watched else "detached"
            sight = notes.published(run_id) if watched else None
            note = DETACHED if not watched else "" if sight is not None else UNWATCHED
        if sight is not None and sight.elapsed_s is not None:
            elapsed_s = sight.elapsed_s
        left_s = float(ticket["expected_s"]) - elapsed_s if "expected_s" in ticket and state != "ended" else None
        return Job(
            run_id,
            state,
            device,
            target,
            None if ticket["model"] is None else str(ticket["model"]["name"]),
            None if ticket["runner"] is None else str(ticket["runner"]["engine"]),
            str(ticket["workload"]["name"]),
            command_line(dict(ticket)),
            elapsed_s,
            None if left_s is None or left_s < 0 else left_s,
            sight,
            note,
        )

    def _local(self, run_id: str, ticket: Mapping[str, Any], *, watched: bool) -> tuple[str, str, Sight | None]:
        folder = Path(ticket["folder"])
        Probe.root_of(str(folder), run_id)
        told = _state(folder)
        if not told:
            return ("running", "", None) if watched else ("unknown", "nothing of it is on this machine", None)
        if told.get("state") == "ended" or not _lives(told):
            return "ended", "" if watched else ENDED, None
        looker = self._lookers.get(run_id)
        if looker is None:
            looker = self._lookers[run_id] = Looker(Picture(ticket), here(folder / "journal"), recorded(ticket))
        sight = looker.look()
        notes.leave(run_id, looker.told() | {"cpu_s": time.process_time()})  # its start and what it draws, too
        return "running" if watched else "detached", "" if watched else DETACHED, sight


def _state(folder: Path) -> dict[str, Any]:
    """The probe's state of a run on this machine; nothing where there is none."""
    try:
        with (folder / "state").open("rb") as file:
            told = json.loads(file.read(_STATE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _lives(told: Mapping[str, Any]) -> bool:
    """Whether a probe that wrote a state, or its guard, is still there."""
    host = os.uname().nodename
    pairs = (("pid", "start_ticks"), ("guard_pid", "guard_start_ticks"))
    return any(is_alive({"host": host, "pid": told.get(p), "start_ticks": told.get(t)}) for p, t in pairs)
