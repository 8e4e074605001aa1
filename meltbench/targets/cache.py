"""The push cache of a target: a file is sent once, known there by its SHA-256, and checked there: docs/probe.md."""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from meltbench.deadline import Deadline, patiently
from meltbench.errors import DeadlineExceeded, DeviceError, LinkLost, TargetBusy, UserError
from meltbench.models.hashes import SHA256, file_sha256
from meltbench.probe.client import room_hint
from meltbench.targets import Feed, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from meltbench.probe.client import Probe
    from meltbench.targets import Completed
    from meltbench.watch import Watch

Policy = Literal["fast", "full"]
CAP_BYTES = 20 << 30
RESERVE_BYTES = 512 << 20  # left free on the target's disk: a run writes its journal there

_CALL_S = 30.0
_SLOWEST_BYTES_S = 250e3  # a push that is slower is cut, looked at, and gone on with
_HASHED_BYTES_S = 5e6  # reading from an old card
_TRIES, _PAUSE_S = 5, 1.0  # without a byte more
_BUSY_TRIES, _BUSY_PAUSE_S = 60, 3.0  # of another's push, which may be waiting for a slow disk
_DAMAGED, _ABSENT, _CUT, _BUSY = 65, 66, 74, 75
_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]{0,127}\Z")
_STATES = ("whole", "partial", "absent", "damaged", "unchecked")


@dataclass(frozen=True)
class Blob:
    """A file of the cache. ``idle_s`` since it was used, None where nobody knows; ``names`` it has in trees."""

    sha256: str
    state: str
    bytes: int
    idle_s: int | None = None
    in_use: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holding:
    """What a cache holds, least recently used first, and the disk that it lies on."""

    blobs: tuple[Blob, ...]
    used_bytes: int
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Dropped:
    """What was removed, and what was not, because a running job or a push needs it."""

    dropped: tuple[str, ...]
    in_use: tuple[str, ...]
    freed_bytes: int


class PushCache:
    """The cache in ``folder`` on a target.

    It holds at most ``cap_bytes`` and leaves ``reserve_bytes`` free: what was used longest ago makes room, but never
    what a running job uses.
    """

    def __init__(
        self, probe: Probe, folder: str, *, cap_bytes: int = CAP_BYTES, reserve_bytes: int = RESERVE_BYTES
    ) -> None:
        self._probe, self.folder, self._name = probe, folder, probe.name
        self._cap_bytes, self._reserve_bytes = cap_bytes, reserve_bytes

    @classmethod
    def beside(cls, probe: Probe) -> PushCache:
        """The cache of the probe's own working folder."""
        return cls(probe, str(PurePosixPath(probe.root).parent / "cache"))

    def path(self, sha256: str) -> str:
        """Where a whole file lies on the target."""
        return str(PurePosixPath(self.folder) / "blobs" / sha256)

    def ensure(self, files: Sequence[Path], watch: Watch, *, policy: Policy = "fast") -> dict[Path, str]:
        """See that the target has these files, push what it lacks, and return where each lies there.

        One round trip where nothing is lacking. ``fast`` believes the target's record of a file that has not changed
        since it was verified, by size, times and inode; ``full`` has every byte hashed again there. A push that is cut
        is gone on with from where it was. Raises DeviceError where there is no room, or a file does not arrive whole;
        LinkLost or DeadlineExceeded after several tries that brought nothing.
        """
        hashes = {path: file_sha256(path) for path in files}
        local: dict[str, Path] = {}
        for path, sha in hashes.items():
            local.setdefault(sha, path)
        seen = patiently(lambda: self._look(local, policy), _PAUSE_S)
        lacking = {sha: path for sha, path in local.items() if seen[sha].state != "whole"}
        for path in (path for sha, path in lacking.items() if seen[sha].state == "damaged"):
            watch.warn(f"{path.name} was damaged in the cache of {self._name} and removed there")
        if lacking:
            there = {sha: seen[sha].bytes if seen[sha].state == "partial" else 0 for sha in lacking}
            meter = _Meter(watch, {sha: path.stat().st_size - there[sha] for sha, path in lacking.items()})
            names = [path.name for path in lacking.values()]
            told = ", ".join(names) if len(names) < 4 else f"{len(names)} files"
            watch.say(f"pushing {told} ({meter.size}) to {self._name}")
            for sha, path in lacking.items():
                self._push(sha, path, there[sha], meter, watch)
        return {path: self.path(sha) for path, sha in hashes.items()}

    def tree(self, files: Mapping[str, Path], watch: Watch, *, policy: Policy = "fast") -> str:
        """A folder on the target in which the files have these names; what it lacks of them is pushed.

        For a program and the libraries beside it. One round trip where the folder is there and as it was made; with
        ``full`` every file in it is hashed besides. Raises UserError for a name that it could not have, and like
        ``ensure``.
        """
        for name in files:
            if not _NAME.match(name):
                raise UserError(f"a file called {name!r} is not put on a device", hint="letters, digits and _ . + -")
        wanted = {name: file_sha256(path) for name, path in sorted(files.items())}
        path = self._tree(wanted, files, watch)
        if policy == "full" and (bad := self._damaged(path, wanted, files)):
            watch.warn(f"{', '.join(bad)} was damaged in the cache of {self._name} and is pushed again")
            self.drop(wanted[name] for name in bad)
            path = self._tree(wanted, files, watch)
            if bad := self._damaged(path, wanted, files):
                raise DeviceError(f"{', '.join(bad)} does not stay whole on {self._name}", hint="check its disk")
        return path

    def _tree(self, wanted: Mapping[str, str], files: Mapping[str, Path], watch: Watch) -> str:
        words = [f"{name}={sha}" for name, sha in wanted.items()]
        digest = hashlib.sha256("\n".join(words).encode("ascii")).hexdigest()
        seconds = _size(files.values()) / _HASHED_BYTES_S
        done = patiently(lambda: self._call(["tree", digest, *words], seconds), _PAUSE_S)
        if done.code == _ABSENT:
            self.ensure(list(files.values()), watch)
            done = patiently(lambda: self._call(["tree", digest, *words], seconds), _PAUSE_S)
        self._answer(done)
        return str(PurePosixPath(self.folder) / "trees" / digest)

    def _damaged(self, path: str, wanted: Mapping[str, str], files: Mapping[str, Path]) -> list[str]:
        """The names in a tree whose files are not what they must be, every byte read."""
        there = {f"{path}/{name}": name for name in wanted}
        deadline = Deadline.after(_CALL_S + _size(files.values()) / _HASHED_BYTES_S)
        found = patiently(lambda: self._probe.hashes(list(there), deadline), _PAUSE_S)
        return [name for at, name in there.items() if found[at] != wanted[name]]

    def holding(self) -> Holding:
        """What the cache holds."""
        answer = self._answer(self._call(["list"]))
        found = answer.get("blobs")
        blobs = tuple(_blob(sha, told) for sha, told in found.items()) if isinstance(found, dict) else ()
        disk = answer.get("disk")
        free, total = (_count(disk, key) for key in ("free_bytes", "total_bytes"))
        return Holding(blobs, _count(answer, "used_bytes"), free, total)

    def drop(self, shas: Iterable[str] | None) -> Dropped:
        """Remove these files, or all of them (None), with the trees they are in; what is in use stays."""
        words = ["--all"] if shas is None else sorted(set(shas))
        answer = self._answer(self._call(["drop", *words]), (0, _BUSY))
        gone, kept = ([sha for sha in answer.get(key) or () if _is_sha(sha)] for key in ("dropped", "in_use"))
        return Dropped(tuple(gone), tuple(kept), _count(answer, "freed_bytes"))

    def _look(self, local: Mapping[str, Path], policy: Policy) -> dict[str, Blob]:
        """What of these is there, by SHA-256."""
        words = ["look", *(["--full"] if policy == "full" else []), *local]
        found = self._answer(self._call(words, _size(local.values()) / _HASHED_BYTES_S)).get("blobs")
        return {sha: _blob(sha, found.get(sha) if isinstance(found, dict) else None) for sha in local}

    def _push(self, sha: str, path: Path, have: int, meter: _Meter, watch: Watch) -> None:
        """Send one file, from byte ``have`` on, until the target says that it is whole."""
        most, tries, damaged = have, 0, False
        while True:
            failed = self._put(sha, path, have, meter)
            if failed is None:
                meter.finish(sha)
                return
            if isinstance(failed, _Damaged):
                if damaged:
                    raise DeviceError(
                        f"{path.name} does not arrive whole on {self._name}: twice its hash there was another",
                        hint="check the disk and the memory of the device, and the file here",
                    )
                watch.warn(f"{path.name} did not arrive whole on {self._name}: pushing it again")
                damaged, have, most = True, 0, 0
                continue
            busy = isinstance(failed, TargetBusy)
            time.sleep(_BUSY_PAUSE_S if busy else _PAUSE_S * (tries + 1))
            try:
                blob = self._look({sha: path}, "fast")[sha]
            except (LinkLost, DeadlineExceeded) as error:
                failed = error
            else:
                if blob.state == "whole":
                    meter.finish(sha)
                    return
                have = blob.bytes if blob.state == "partial" else 0
            tries, most = (0, have) if have > most else (tries + 1, most)
            if tries >= (_BUSY_TRIES if busy else _TRIES):
                raise failed

    def _put(self, sha: str, path: Path, have: int, meter: _Meter) -> DeviceError | None:
        """One try to send the rest of a file: None when it is whole, else what may be better the next time."""
        size = path.stat().st_size
        words = ["put", sha, str(size), str(have), str(self._cap_bytes), str(self._reserve_bytes)]
        seconds = have / _HASHED_BYTES_S + max(0, size - have) / _SLOWEST_BYTES_S
        try:
            done = self._call(words, seconds, Feed(path, have, meter.of(sha, size - have)))
        except (LinkLost, DeadlineExceeded) as error:
            return error
        said = f"pushing {path.name} to {self._name}: {done.complaint()}"
        if done.code == _DAMAGED:
            return _Damaged(said)
        if done.code == _BUSY:
            return TargetBusy(said, hint="another meltbench pushes it: wait for it")
        if done.code == _CUT or done.code < 0:
            return LinkLost(said, hint="try again: what arrived is kept")
        self._answer(done, doing=f"pushing {path.name} to {self._name}")
        return None

    def _call(self, words: Sequence[str], more_s: float = 0.0, feed: Feed | None = None) -> Completed:
        return self._probe.cache(self.folder, words, Deadline.after(_CALL_S + more_s), feed)

    def _answer(self, done: Completed, codes: tuple[int, ...] = (0,), doing: str = "") -> dict[str, Any]:
        """What a command answered. Raises DeviceError with what it complains of."""
        what = doing or f"the cache of {self._name}"
        if done.code not in codes or not done.stdout:
            if done.code == _BUSY:
                raise TargetBusy(f"{what}: {done.complaint()}", hint="try again in a moment")
            said = done.complaint()
            raise DeviceError(f"{what}: {said}", hint=room_hint(said, self._name))
        try:
            answer = json.loads(done.stdout)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise DeviceError(f"{what}: the probe answered something that is not JSON")
        return answer


class _Damaged(DeviceError):
    """What arrived was another file."""


class _Meter:
    """Tells a watch how much of all that is to be sent was sent."""

    def __init__(self, watch: Watch, to_send: Mapping[str, int]) -> None:
        self._watch, self._to_send = watch, dict(to_send)
        self._total = sum(to_send.values())
        self._left = dict(to_send)
        self.size = f"{self._total / 1e6:.1f} MB"

    def of(self, sha: str, rest: int) -> Callable[[int], None]:
        """Is told the bytes given of a file, of which ``rest`` were left to give."""

        def told(given: int) -> None:
            self._left[sha] = max(0, rest - given)
            self._tell()

        return told

    def finish(self, sha: str) -> None:
        """The file is there."""
        self._left[sha] = 0
        self._tell()

    def _tell(self) -> None:
        done = self._total - sum(self._left.values())
        self._watch.fetched(max(0, done), self._total, "pushing")


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _is_sha(value: object) -> bool:
    return isinstance(value, str) and SHA256.match(value) is not None


def _count(told: object, key: str) -> int:
    value = told.get(key) if isinstance(told, dict) else None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DeviceError(f"the probe's answer about its cache has no {key}")
    return value


def _blob(sha: str, told: object) -> Blob:
    if not _is_sha(sha) or not isinstance(told, dict) or told.get("state") not in _STATES:
        raise DeviceError("the probe's answer about its cache has a file without a state")
    idle, names = told.get("idle_s"), told.get("names")
    return Blob(
        sha,
        str(told["state"]),
        _count(told, "bytes"),
        idle if isinstance(idle, int) and idle >= 0 else None,
        told.get("in_use") is True,
        tuple(printable(str(name)) for name in names) if isinstance(names, list) else (),
    )
