"""What the user asked for, in their words, before anything is looked up."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

Scalar = int | float | bool | str | None
KnobValue = Scalar | tuple[str, ...]


@dataclass(frozen=True)
class Spec:
    """One ``meltbench run``: names of definitions, and what is set beside their defaults.

    ``threads``: the numbers of computing threads to measure with, each in runs of its own; None: the engine's default.
    ``knobs`` are (key, text) pairs as given with ``--set``; ``command`` is the program of ``meltbench exec``.
    ``engine`` is a folder or archive of engine programs, or None for the runner's own. ``workload`` None: the one that
    the runner does when it is told of none. ``prepare`` False leaves the device's settings as they are. ``rehash``:
    what was pushed earlier is hashed again before the start. ``wait`` for a device that another controller holds, or
    ``steal`` it, for the reason given. ``unplug``: cut the device's USB power while it measures, by its hub.
    ``resume``: ask only those questions that no stored run of the same cell has scored, ``piece`` of them a run.
    """

    device: str = "local"
    model: str = "smollm2-135m-q4"
    runner: str = "llamacpp"
    workload: str | None = None
    threads: tuple[int, ...] | None = None
    seed: int = 0
    reps: int = 1
    engine: str | None = None
    knobs: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    prepare: bool = True
    rehash: bool = False
    wait: bool = False
    steal: str | None = None
    unplug: str | None = None
    resume: bool = False
    piece: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.reps <= 10_000:
            raise UserError(f"--reps {self.reps} is out of range", hint="give 1 to 10000")
        counts = self.threads if self.threads is not None else (1,)
        if not counts:
            raise UserError("--threads names no number", hint="give 4, or 1,2,4 to measure with each")
        for count in counts:
            if not 1 <= count <= 4096:
                raise UserError(f"--threads {count} is out of range", hint="give 1 to 4096")
        if len(set(counts)) < len(counts):
            said = ",".join(map(str, counts))
            raise UserError(f"--threads {said} has a number twice", hint="--reps makes more runs of each")
        if self.unplug not in (None, "hub"):
            raise UserError(f"--unplug {self.unplug!r} is no way to cut USB power", hint="give hub")
        if self.resume and self.reps > 1:
            raise UserError("--resume asks no item twice, --reps does", hint="leave out one of them")
        if self.piece is not None and not self.resume:
            raise UserError("--piece is how much of the rest a run asks", hint="write --resume --piece 200")
        if self.piece is not None and not 1 <= self.piece <= 1_000_000:
            raise UserError(f"--piece {self.piece} is out of range", hint="give 1 to 1000000")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"--seed {self.seed} is out of range", hint="give 0 to 2147483647")


def parse_threads(text: str | None) -> tuple[int, ...] | None:
    """The numbers of ``--threads 1,2,4``. Raises UserError for what is no such list."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() and len(part) < 9 for part in parts):
        raise UserError(f"--threads {text!r} is no number of threads", hint="give 4, or 1,2,4 to measure with each")
    return tuple(int(part) for part in parts)


def parse_sets(pairs: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Split the values of ``--set``; a key given twice keeps the last."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {pair!r} is not key=value", hint="write --set idle_s=10")
        found[key.strip()] = value.strip()
    return tuple(sorted(found.items()))


def canonical(value: Any) -> str:
    """JSON that is the same text for the same value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
