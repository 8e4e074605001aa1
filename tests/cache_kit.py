"""A push cache on this machine: the real probe, a real folder, and a link that can be cut."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probe_kit import call, probe_path

from meltbench.deadline import Deadline
from meltbench.errors import LinkLost
from meltbench.probe.client import Probe
from meltbench.targets import Completed, Feed
from meltbench.targets.cache import PushCache
from meltbench.targets.local import LocalTransport

ROOM = (1 << 40, 0)  # cap and reserve of who does not care


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Box:
    """The commands of one cache, without the controller's half."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.dir = home / "cache"

    def call(self, *words: str | Path, **more: Any) -> subprocess.CompletedProcess[bytes]:
        return call("cache", self.dir, *words, **more)

    def json(self, *words: str | Path, **more: Any) -> dict[str, Any]:
        done = self.call(*words, **more)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def put(
        self, data: bytes, offset: int = 0, room: tuple[int, int] = ROOM, sha: str | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        words = [sha or sha_of(data), *map(str, (len(data), offset, *room))]
        return self.call("put", *words, input=data[offset:])

    def keep(self, data: bytes, room: tuple[int, int] = ROOM) -> str:
        done = self.put(data, room=room)
        assert (done.returncode, json.loads(done.stdout)) == (0, {"state": "whole", "bytes": len(data)}), done.stderr
        return sha_of(data)

    def state(self, sha: str, *flags: str) -> str:
        return str(self.json("look", *flags, sha)["blobs"][sha]["state"])

    def blob(self, sha: str) -> Path:
        return self.dir / "blobs" / sha

    def part(self, sha: str) -> Path:
        return self.dir / "blobs" / f"{sha}.part"

    def held(self) -> set[str]:
        return set(self.json("list")["blobs"])

    def start_put(self, data: bytes, offset: int = 0, room: tuple[int, int] = ROOM) -> subprocess.Popen[bytes]:
        words = [sha_of(data), *map(str, (len(data), offset, *room))]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [probe_path(), "cache", str(self.dir), "put", *words], stdin=pipe, stdout=pipe, stderr=pipe
        )


class Link(LocalTransport):
    """The real transport; ``fate`` may do something else with a push, and every call is counted."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def fate(self, argv: Sequence[str], deadline: Deadline, feed: Feed) -> Completed:
        return super().run(argv, deadline, feed=feed)

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        self.calls.append(list(argv))
        return super().run(argv, deadline) if feed is None else self.fate(argv, deadline, feed)

    def commands(self) -> list[str]:
        return [argv[3] for argv in self.calls if argv[1:2] == ["cache"]]


class CutLink(Link):
    """Gives up after so many bytes of each push, as a link does that is cut; then it is there again."""

    def __init__(self, *after: int) -> None:
        super().__init__()
        self.after = list(after)

    def fate(self, argv: Sequence[str], deadline: Deadline, feed: Feed) -> Completed:
        if not self.after:
            return super().fate(argv, deadline, feed)
        assert isinstance(feed.source, Path)
        begun = feed.source.read_bytes()[feed.offset :][: self.after.pop(0)]
        assert super().fate(argv, deadline, Feed(begun)).code == 74
        raise LinkLost("the link was cut")


@dataclass
class Told:
    """A watch that remembers."""

    lines: list[str] = field(default_factory=list)
    bytes: list[tuple[int, int | None]] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(f"! {text}")

    def fetched(self, done: int, total: int | None, what: str = "") -> None:
        assert what == "pushing"
        self.bytes.append((done, total))

    def step(self, status: dict[str, Any]) -> None:
        raise AssertionError(status)


def pusher(home: Path, link: LocalTransport, **more: Any) -> PushCache:
    home.mkdir(exist_ok=True)
    return PushCache(Probe(link, probe_path(), str(home / "runs"), "pi"), str(home / "cache"), **more)
