"""Calls the probe on a target: one method a command of docs/probe.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, InternalError, StoreError, TargetBusy
from meltbench.probe import build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from meltbench.probe.job import Job
    from meltbench.targets import Transport

_CALL_S = 20.0
_BUSY, _USAGE = 75, 64


@dataclass(frozen=True)
class Probe:
    """The probe at ``path`` on a target, with its working folder ``root`` there."""

    transport: Transport
    path: str
    root: str

    @classmethod
    def root_of(cls, folder: str, run_id: str) -> str:
        """The root that a run's folder on a target lies under. Raises StoreError when it is no such folder."""
        path = PurePosixPath(folder)
        if path.name != run_id or path.parent.name != "runs" or not path.is_absolute():
            raise StoreError(f"the ticket of {run_id} names {folder!r} as its folder", hint="do not trust this store")
        return str(path.parent.parent)

    @classmethod
    def install(cls, transport: Transport, root: str, target: str, say: Callable[[str], None]) -> Probe:
        """Put the probe for ``target`` (a zig triple) below ``root`` unless its content is there already."""
        binary = build.binary(target, say=say)
        path = str(PurePosixPath(root) / "bin" / f"meltprobe-{build.source_hash()[:16]}")
        probe = cls(transport, path, str(PurePosixPath(root) / "runs"))
        deadline = Deadline.after(_CALL_S)
        try:
            known = transport.run([path, "version"], deadline).code == 0
        except DeviceError:
            known = False
        if not known:
            transport.push(binary, path, deadline, executable=True)
        transport.run(["mkdir", "-p", "--", probe.root], deadline)
        return probe

    def folder(self, run_id: str) -> str:
        """Where a run lives on the target."""
        return str(PurePosixPath(self.root) / run_id)

    def _json(self, *args: str) -> dict[str, Any]:
        done = self.transport.run([self.path, *args], Deadline.after(_CALL_S))
        if done.code != 0:
            raise DeviceError(f"meltprobe {args[0]}: {done.complaint()}")
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise DeviceError(f"meltprobe {args[0]} answered something that is not JSON")
        return answer

    def facts(self, globs: Sequence[str]) -> dict[str, Any]:
        """What the target is: identity, clocks, disk, and the text of every file that the globs match."""
        return self._json("facts", self.root.rsplit("/", 1)[0], *globs)

    def programs(self, names: Sequence[str]) -> tuple[str, ...]:
        """Which of these programs the target's search path has, each once."""
        wanted = sorted(set(names))
        if not wanted:
            return ()
        # The names are arguments of a fixed script: nothing in them is seen by the shell.
        script = 'for name; do command -v -- "$name" >/dev/null && echo "$name"; done; exit 0'
        done = self.transport.run(["sh", "-c", script, "sh", *wanted], Deadline.after(_CALL_S))
        found = set(done.stdout.decode("utf-8", "replace").split("\n"))
        return tuple(name for name in wanted if name in found)

    def properties(self) -> bytes:
        """What an Android target's getprop prints; nothing where it fails."""
        done = self.transport.run(["getprop"], Deadline.after(_CALL_S))
        return done.stdout if done.code == 0 else b""

    def start(self, job: Job) -> str:
        """Push a job and start it detached; returns its folder on the target."""
        folder = self.folder(job.run_id)
        for name, body in job.requests.items():  # each is given its own time: a slow card takes a while over many
            self.transport.push(body, f"{folder}/req/{name}", Deadline.after(_CALL_S))
        deadline = Deadline.after(_CALL_S)
        self.transport.push(job.text().encode(), f"{folder}/job", deadline)
        done = self.transport.run([self.path, "run", folder, "--detach"], deadline)
        if done.code == _BUSY:
            raise TargetBusy(
                f"the target is busy: {done.complaint()}", hint="wait for that run, or `meltbench collect`"
            )
        if done.code == _USAGE:
            raise InternalError(f"the probe refused the job: {done.complaint()}", hint="please report this")
        if done.code != 0:
            raise DeviceError(
                f"the probe could not start: {done.complaint()}", hint="free space on the target, or set its workdir"
            )
        return folder

    def status(self, folder: str) -> dict[str, Any]:
        """State, step, and whether the job lives."""
        return self._json("status", folder)

    def started(self, folder: str) -> bool:
        """Whether a job of that folder was ever started."""
        return self.status(folder).get("state") != "none"

    def has(self, folder: str) -> bool:
        """Whether the target holds anything of a run."""
        return self.transport.run(["test", "-d", folder], Deadline.after(_CALL_S)).code == 0

    def stop(self, folder: str) -> None:
        """End the job now; it restores its settings and closes its journal."""
        done = self.transport.run([self.path, "stop", folder], Deadline.after(_CALL_S))
        if done.code not in (0,):
            raise DeviceError(f"meltprobe stop: {done.complaint()}")

    def recover(self) -> bool:
        """Mend every run on this target whose probe died. While a job is running there is none to mend: then False."""
        done = self.transport.run([self.path, "recover", self.root], Deadline.after(_CALL_S))
        if done.code not in (0, _BUSY):
            raise DeviceError(f"meltprobe recover: {done.complaint()}")
        return done.code == 0

    def fetch(self, folder: str, destination: Path) -> None:
        """Bring a run's evidence: its job and its journal."""
        deadline = Deadline.after(600)
        for name in ("job", "journal"):
            self.transport.pull(f"{folder}/{name}", destination / name, deadline)

    def forget(self, folder: str) -> None:
        """Remove a run from the target once it is stored."""
        if PurePosixPath(folder).parent != PurePosixPath(self.root):
            raise InternalError(f"{folder} is not a run of {self.root}")
        self.transport.run(["rm", "-rf", "--", folder], Deadline.after(_CALL_S))
