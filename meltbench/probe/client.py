"""Calls the probe on a target: one method a command of docs/probe.md."""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, InternalError, LeaseLost, StoreError, TargetBusy
from meltbench.models.hashes import SHA256, file_sha256
from meltbench.probe import build
from meltbench.targets import Feed, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from meltbench.probe.job import Job
    from meltbench.targets import Completed, Transport

TICKET = "ticket"  # beside the job: what another controller must know to bring the run in
_CALL_S = 20.0
_STEAL_S = 60.0  # the job of another is ended first
_FETCH_S = 600.0  # and more for a journal that may be long: one that is too slow would never be brought in
_SLOW_BYTES_PER_S = 100_000  # of a link or a card that is still worth using
_BUSY, _USAGE, _FENCED = 75, 64, 77
_MAX_RUNS = 10_000
_PASSING = re.compile(r"[a-z]+-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}", re.ASCII)
_FORGOTTEN_S = 3600.0
_JOB_BYTES = 4 << 20  # the probe takes no longer one
_MOST_BYTES = re.compile(rb"^limit journal_bytes ([0-9]{1,12})$", re.M)  # of a job
_HOLDER_BYTES = 200
_MAX_NAME = 255  # of a holder, a reason, a run


@dataclass(frozen=True)
class Probe:
    """The probe at ``path`` on a target, with its working folder ``root`` there; ``name``: what the user calls it."""

    transport: Transport
    path: str
    root: str
    name: str = "NAME"

    @classmethod
    def root_of(cls, folder: str, run_id: str) -> str:
        """The root that a run's folder on a target lies under. Raises StoreError when it is no such folder."""
        path = PurePosixPath(folder)
        if path.name != run_id or path.parent.name != "runs" or not path.is_absolute():
            raise StoreError(f"the ticket of {run_id} names {folder!r} as its folder", hint="do not trust this store")
        return str(path.parent.parent)

    @classmethod
    def install(cls, transport: Transport, root: str, target: str, say: Callable[[str], None]) -> Probe:
        """Put the probe for ``target`` (a zig triple) below ``root`` unless its content is there already.

        One round trip where it is. Raises DeviceError where what was put does not run, or is not what was given.
        """
        binary = build.binary(target, say=say)
        path = str(PurePosixPath(root) / "bin" / f"meltprobe-{build.source_hash()[:16]}")
        probe = cls(transport, path, str(PurePosixPath(root) / "runs"))
        try:
            known = probe._is(binary) is None
        except DeviceError:  # what is wrong there, the push says better
            known = False
        if not known:
            transport.push(binary, path, Deadline.after(_CALL_S), executable=True)
            if (wrong := probe._is(binary)) is not None:
                raise DeviceError(f"the probe was put at {path}, but {wrong}", hint="give the device another workdir")
        return probe

    def _is(self, binary: Path) -> str | None:
        """Why the program there is not that one: it is asked for its own hash. None where it is. Makes ``root`` too."""
        # The names are arguments of a fixed script: nothing in them is seen by the shell.
        script = 'mkdir -p -- "$2" && exec "$1" hash "$1"'
        done = self.transport.run(["sh", "-c", script, "sh", self.path, self.root], Deadline.after(_CALL_S))
        if done.code != 0:
            return f"cannot be run: {done.complaint()}"
        return None if file_sha256(binary).encode() in done.stdout else "is not what was sent"

    def folder(self, run_id: str) -> str:
        """Where a run lives on the target."""
        return str(PurePosixPath(self.root) / run_id)

    def _json(self, *args: str) -> dict[str, Any]:
        done = self.transport.run([self.path, *args], Deadline.after(_CALL_S))
        if done.code != 0:
            raise DeviceError(f"meltprobe {args[0]}: {done.complaint()}")
        return _object(done.stdout, args[0])

    def _failed(self, what: str, done: Completed) -> DeviceError:
        """The error of a command that failed, in the probe's words, and what to do where the disk there is full."""
        said = done.complaint().removeprefix("meltprobe: ")
        return DeviceError(f"{what}: {said}", hint=room_hint(said, self.name))

    def facts(self, globs: Sequence[str]) -> dict[str, Any]:
        """What the target is: identity, clocks, disk, and the text of every file that the globs match."""
        return self._json("facts", self.root.rsplit("/", 1)[0], *globs)

    def hashes(self, paths: Sequence[str], deadline: Deadline) -> dict[str, str | None]:
        """SHA-256 of files on the target, read to the end; None where a path is no file that can be read."""
        done = self.transport.run([self.path, "hash", *paths], deadline)
        try:
            told = {path: json.loads(done.stdout)["files"][path].get("sha256") for path in paths}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DeviceError(f"meltprobe hash: {done.complaint()}") from None
        return {path: sha if isinstance(sha, str) and SHA256.match(sha) else None for path, sha in told.items()}

    def cache(self, folder: str, words: Sequence[str], deadline: Deadline, feed: Feed | None = None) -> Completed:
        """One command of the push cache at ``folder`` (targets/cache.py); its exit status means something."""
        return self.transport.run([self.path, "cache", folder, *words], deadline, feed=feed)

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
        """What an Android target's getprop prints; nothing where there is none."""
        done = self.transport.run(["sh", "-c", "getprop 2>/dev/null"], Deadline.after(_CALL_S))
        return done.stdout if done.code == 0 else b""

    def start(self, job: Job, ticket: Mapping[str, Any] | None = None, token: int | None = None) -> str:
        """Push a job, with its ``ticket`` beside it, and start it detached; returns its folder on the target.

        ``token`` is that of the lease it runs under. Raises LeaseLost when it is that of no lease any more, TargetBusy
        while another job runs, or without a token while somebody holds a lease.
        """
        folder = self.folder(job.run_id)
        files = {f"req/{name}": body for name, body in job.requests.items()} | {"job": job.text().encode()}
        if ticket is not None:
            files[TICKET] = json.dumps(ticket).encode("ascii")
        pack = b"".join(b"file %s %d\n%s" % (name.encode("ascii"), len(body), body) for name, body in files.items())
        deadline = Deadline.after(_CALL_S + len(pack) / _SLOW_BYTES_PER_S)
        done = self.transport.run([self.path, "unpack", folder], deadline, feed=Feed(pack + b"end\n"))
        if done.code != 0:
            raise DeviceError(f"the job did not arrive: {done.complaint()}", hint="free space on the target")
        done = self.transport.run([self.path, "run", folder, "--detach", *_fence(token)], Deadline.after(_CALL_S))
        if done.code == _BUSY:
            holder = leased(self.lease_show()) if token is None else None
            if holder is not None:
                raise TargetBusy(f"the target is leased: {holder}", hint=BUSY_HINT)
            raise TargetBusy(
                f"the target is busy: {done.complaint()}", hint="wait for that run, or `meltbench collect`"
            )
        if done.code == _FENCED:
            raise lost(self.lease_show())
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

    def runs(self) -> list[str]:
        """The runs that lie on the target."""
        done = self.transport.run(["ls", "-1", "--", self.root], Deadline.after(_CALL_S))
        if done.code != 0:
            raise DeviceError(f"{self.root} cannot be listed: {done.complaint()}")
        return done.stdout.decode("utf-8", "replace").split("\n")[:_MAX_RUNS]

    def sweep(self, kind: str) -> None:
        """Remove jobs of a kind (see ``passing_id``) that have ended and are an hour old: nobody fetches them now."""
        old = passing_id(kind, time.time() - _FORGOTTEN_S)
        for name in self.runs():
            if not _PASSING.fullmatch(name) or not f"{kind}-" < name < old:
                continue
            if not self.status(self.folder(name)).get("alive"):
                self.forget(self.folder(name))

    def stop(self, folder: str, token: int | None = None) -> None:
        """End the job now; it restores its settings and closes its journal. LeaseLost: the token is over."""
        done = self.transport.run([self.path, "stop", folder, *_fence(token)], Deadline.after(_CALL_S))
        if done.code == _FENCED:
            raise lost(self.lease_show())
        if done.code != 0:
            raise self._failed("the run on the target could not be stopped", done)

    def wait(self, folder: str, deadline: Deadline) -> dict[str, Any]:
        """The status of a job once it has ended. Until then nothing crosses the link, and the target is not woken."""
        # It is given one line and then an end, so that it goes when it has answered: the device may not hear for long
        # that the controller is gone.
        script = 'read -r _ && echo | "$1" wait "$2"'
        channel = self.transport.spawn(["sh", "-c", script, "sh", self.path, folder], deadline)
        try:
            return _object(channel.ask(b"", deadline), "wait")
        finally:
            channel.close()

    def lease_take(
        self, holder: str, ttl_ms: int, steal: str | None = None, from_token: int | None = None
    ) -> dict[str, Any]:
        """Take the lease for ``holder`` (1 to 200 printable ASCII); ``steal`` is why it may be taken from another.

        The job that runs under a lease that is stolen is stopped first. ``from_token``: the only lease to steal.
        Raises TargetBusy, naming the holder, where another has it.
        """
        why: list[str] = []
        if steal is not None:
            why = ["steal", steal, *([] if from_token is None else [str(from_token)])]
        return self._lease(_CALL_S if steal is None else _STEAL_S, "take", holder, str(ttl_ms), *why)

    def lease_renew(self, token: int, ttl_ms: int) -> dict[str, Any]:
        """Hold the lease for ``ttl_ms`` from now. Raises LeaseLost when it is another's, or has run out."""
        return self._lease(_CALL_S, "renew", str(token), str(ttl_ms))

    def lease_drop(self, token: int) -> dict[str, Any]:
        """Give the lease back; under a job it ends with the job. Raises LeaseLost like ``lease_renew``."""
        return self._lease(_CALL_S, "drop", str(token))

    def lease_show(self) -> dict[str, Any]:
        """Who holds the lease (``holder`` None: nobody), for how long, and what runs under it."""
        return self._lease(_CALL_S, "show")

    def _lease(self, seconds: float, *args: str) -> dict[str, Any]:
        done = self.transport.run([self.path, "lease", self.root, *args], Deadline.after(seconds))
        if done.code not in (0, _BUSY, _FENCED) or (done.code == _BUSY and not done.stdout):
            did = "read" if args[0] == "show" else "written"
            raise self._failed(f"the lease on the target could not be {did}", done)
        answer = _object(done.stdout, "lease")
        if not _is_lease(answer):
            raise DeviceError("meltprobe lease answered something else than a lease")
        if done.code == _BUSY:
            raise TargetBusy(f"the target is leased: {leased(answer)}", hint=BUSY_HINT, lease=answer)
        if done.code == _FENCED:
            raise lost(answer)
        return answer

    def recover(self) -> bool:
        """Mend every run on this target whose probe died. While a job is running there is none to mend: then False."""
        done = self.transport.run([self.path, "recover", self.root], Deadline.after(_CALL_S))
        if done.code not in (0, _BUSY):
            raise self._failed("what an earlier run left on the target could not be mended", done)
        return done.code == 0

    def fetch(self, folder: str, destination: Path) -> None:
        """Bring a run's evidence: its job and its journal, which may be as long as the job allows."""
        self.transport.pull(f"{folder}/job", destination / "job", Deadline.after(_FETCH_S))
        with (destination / "job").open("rb") as file:
            most = max(map(int, _MOST_BYTES.findall(file.read(_JOB_BYTES))), default=0)
        deadline = Deadline.after(_FETCH_S + most / _SLOW_BYTES_PER_S)
        self.transport.pull(f"{folder}/journal", destination / "journal", deadline)

    def forget(self, folder: str) -> None:
        """Remove a run from the target once it is stored."""
        if PurePosixPath(folder).parent != PurePosixPath(self.root):
            raise InternalError(f"{folder} is not a run of {self.root}")
        self.transport.run(["rm", "-rf", "--", folder], Deadline.after(_CALL_S))


BUSY_HINT = "--wait waits for its end, --steal REASON takes it over"


def room_hint(said: str, name: str) -> str | None:
    """What to do about what a device complained of, where that is a lack of room."""
    if not any(words in said for words in ("No space", "no room", "uota exceeded")):
        return None
    return f"free space there, or see and drop what is cached: meltbench devices cache {name}"


def passing_id(kind: str, at_s: float | None = None) -> str:
    """The name of a job that is fetched by who started it or by nobody, and is no run of a store."""
    return f"{kind}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(at_s))}-{secrets.token_hex(3)}"


def _fence(token: int | None) -> tuple[str, ...]:
    return () if token is None else ("--token", str(token))


def _is_lease(answer: Mapping[str, Any]) -> bool:
    """Whether a target's answer has all that a lease has, and no more of it than a lease may have."""
    numbers = [answer.get(key) for key in ("token", "left_ms", "held_ms")]
    stolen = answer.get("stolen")
    if not all(type(n) is int and 0 <= n < 1 << 53 for n in numbers) or not isinstance(stolen, (dict, type(None))):
        return False
    names = [answer.get("holder"), answer.get("running"), *map((stolen or {}).get, ("holder", "reason"))]
    return all(name is None or (isinstance(name, str) and len(name) <= _MAX_NAME) for name in names)


def _object(said: bytes, command: str) -> dict[str, Any]:
    """The JSON object that a command of the probe answered."""
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise DeviceError(f"meltprobe {command} answered something that is not JSON")
    return answer


def lost(answer: dict[str, Any]) -> LeaseLost:
    """The error of one who holds the lease no more. ``answer``: what the probe says of the lease now."""
    now = leased(answer)
    return LeaseLost(
        f"the lease was taken over: {now}"
        if now
        else "the lease has run out: this process was not heard of in time, or the target was rebooted",
        hint="what ran is collected by `meltbench collect`",
    )


def leased(answer: dict[str, Any]) -> str | None:
    """Who holds a lease, since when and for how long at most, in words; None where nobody does."""
    if not isinstance(answer.get("holder"), str):
        return None
    held_s, left_s = answer["held_ms"] / 1000, answer["left_ms"] / 1000
    return f"{holder_words(answer['holder'])}, for {held_s:.0f} s now, at most {left_s:.0f} s more"


def holder_words(holder: str) -> str:
    """A holder as people say it: those of ours are JSON, another's is shown as it is."""
    try:
        told = json.loads(holder)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        return printable(holder)[:_HOLDER_BYTES]
    name, host, pid, store = (printable(str(told.get(key, "?"))) for key in ("user", "host", "pid", "store"))
    return f"{name} on {host} (process {pid}, store {store})"
