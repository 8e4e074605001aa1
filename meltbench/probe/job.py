"""Writes the probe's job file (docs/probe.md, "The job file")."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The probe takes 4096 words a line; a step has a few beside its list of requests or its command.
MAX_REQUESTS = 4000
_PLAIN = re.compile(rb"[A-Za-z0-9_./:=,+@{}*?\[\]-]")
_PLACEHOLDER = re.compile(r"\{(?:pid|port):\w+\}")
_SPECIAL = str.maketrans({c: f"%{ord(c):02X}" for c in "{}*?[]"})


def word(text: str | int) -> str:
    """One word of a job file: bytes outside the plain set become %XX, the empty word is %.

    Braces and glob characters keep their meaning. Text comes from argv and file names, so undecodable bytes are
    carried by surrogateescape.
    """
    raw = str(text).encode("utf-8", "surrogateescape")
    return (
        b"".join(c if _PLAIN.match(c) else b"%%%02X" % c[0] for c in (raw[i : i + 1] for i in range(len(raw)))).decode()
        or "%"
    )


def literal(text: str) -> str:
    """One word that stands for itself, whatever is in it: the user's arguments and paths."""
    return word(text).translate(_SPECIAL)


def milliseconds(seconds: float) -> int:
    """Seconds as the job file's whole milliseconds, at least 1 for anything above 0."""
    return max(1, round(seconds * 1000)) if seconds > 0 else 0


@dataclass(frozen=True)
class Until:
    """What ends a circle of requests: ``seconds`` from its start, or a file (or any of a glob) whose number is
    ``below`` or ``above`` a limit, in the file's own unit."""

    seconds: float
    limits: tuple[tuple[str, Literal["below", "above"], float], ...] = ()


@dataclass
class Job:
    """A job under construction: lines for the probe and the request bytes that go beside it.

    ``requests`` maps a name below ``req/`` to the exact bytes to be sent.
    """

    run_id: str
    lines: list[str] = field(default_factory=list)
    requests: dict[str, bytes] = field(default_factory=dict)

    def _add(self, *words: str | int) -> None:
        self.lines.append(" ".join(word(w) for w in words))

    def limit(self, name: str, value: int) -> None:
        """Set ``journal_bytes``, ``duration_ms`` or ``log_bytes``."""
        self._add("limit", name, value)

    def file(self, channel: str, path: str, period_ns: int, offset_ns: int = 0) -> None:
        """Sample a file or glob; period 0 reads it at transitions only."""
        self._add("channel", channel, "file", path, period_ns, offset_ns)

    def poll(self, channel: str, period_ns: int, deadline_s: float, argv: Sequence[str]) -> None:
        """Run a command at a period; one output is one reading."""
        self._add("channel", channel, "poll", period_ns, milliseconds(deadline_s), "--", *argv)

    def stream(self, channel: str, argv: Sequence[str]) -> None:
        """Run a helper program whose every line is a reading; its arguments are literal."""
        self.lines.append(" ".join(["channel", word(channel), "lines", "--", *(literal(arg) for arg in argv)]))

    def idle(self, name: str, seconds: float) -> None:
        """Wait while the channels are sampled."""
        self._add("step", "idle", name, milliseconds(seconds))

    def port(self, name: str, number: int | None = None) -> None:
        """Choose a free loopback port, or take that of a server that runs already; ``{port:NAME}`` stands for it from
        here on."""
        self._add("step", "port", name, *([] if number is None else [number]))

    def pages(self, path: str, *, drop: bool) -> None:
        """Measure, or first drop, what the page cache holds of a file."""
        self.lines.append(f"step pages {literal(path)} {'drop' if drop else 'measure'}")

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cpus: str | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """Start a supervised process. An argument that is a placeholder as a whole is filled in, others are literal.

        ``cpus``: the processors it may run on, as the kernel lists them (0-3,6); ``memory_bytes``: the most it may
        have. The event ``spawn`` says what is in force.
        """
        words = [word(arg) if _PLACEHOLDER.fullmatch(arg) else literal(arg) for arg in argv]
        given = _given(env, cpus, memory_bytes)
        self.lines.append(" ".join(["step", "spawn", word(name), *given, "--", *words]))

    def ready(self, name: str, port: str, path: str, deadline_s: float) -> None:
        """GET ``path`` until it answers 200."""
        self._add("step", "ready", name, port, path, milliseconds(deadline_s))

    def http(
        self,
        name: str,
        port: str,
        concurrency: int,
        deadline_s: float,
        max_bytes: int,
        files: Sequence[str],
        until: Until | None = None,
        pause_s: float = 0.0,
    ) -> None:
        """Play request files, ``concurrency`` at a time: each once, or in a circle ``until`` something ends it.

        ``pause_s``: how long is waited before each request.
        """
        words: list[str | int] = [f"pause={milliseconds(pause_s)}"] if pause_s > 0 else []
        if until is not None:
            words += [f"until={milliseconds(until.seconds)}"]
            words += [part for path, side, limit in until.limits for part in (path, side, f"{limit:.6f}")] + ["--"]
        self._add("step", "http", name, port, concurrency, milliseconds(deadline_s), max_bytes, *words, *files)

    def execute(
        self,
        name: str,
        deadline_s: float,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cpus: str | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """Run a program to its end; its arguments are literal. The job ends where it fails. Caps: see ``spawn``."""
        self._run("exec", name, deadline_s, argv, _given(env, cpus, memory_bytes))

    def attempt(
        self,
        name: str,
        deadline_s: float,
        argv: Sequence[str],
        cpus: str | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """Run a program to its end; the job goes on also where it fails. Caps: see ``spawn``."""
        self._run("try", name, deadline_s, argv, _given(None, cpus, memory_bytes))

    def _run(self, op: str, name: str, deadline_s: float, argv: Sequence[str], given: list[str]) -> None:
        words = [literal(arg) for arg in argv]
        self.lines.append(" ".join(["step", op, word(name), str(milliseconds(deadline_s)), *given, "--", *words]))

    def set(self, path: str, value: str) -> None:
        """Write a setting to a file or glob; what stood there is put back when the job ends, however it ends."""
        self.lines.append(f"step set {word(path)} {literal(value)}")

    def undo(self, argv: Sequence[str]) -> None:
        """Remember a command that is run when the job ends, however it ends; its arguments are literal."""
        self.lines.append(" ".join(["step", "undo", "--", *(literal(arg) for arg in argv)]))

    def mark(self, name: str) -> None:
        """Stamp a moment."""
        self._add("step", "mark", name)

    def stop(self, name: str, grace_s: float) -> None:
        """End a process and its group."""
        self._add("step", "stop", name, milliseconds(grace_s))

    def text(self) -> str:
        """The job file."""
        return "\n".join(["meltjob 1", f"run {word(self.run_id)}", *self.lines]) + "\n"


def _given(env: Mapping[str, str] | None, cpus: str | None, memory_bytes: int | None) -> list[str]:
    """What a process is given: its caps, and settings of its environment."""
    caps = [] if cpus is None else [f"cpus={word(cpus)}"]
    caps += [] if memory_bytes is None else [f"memory={memory_bytes}"]
    return [*caps, *(_filled(f"env={key}={value}") for key, value in (env or {}).items())]


def _filled(text: str) -> str:
    """One word in which placeholders are filled in and all else stands for itself."""
    parts = re.split(f"({_PLACEHOLDER.pattern})", text)
    return "".join(part if at % 2 else literal(part) for at, part in enumerate(parts) if part)
