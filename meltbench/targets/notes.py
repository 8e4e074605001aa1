"""What is remembered of devices between commands: when each was last there, what it was, what the doctor said.

STATE/devices/NAME.json; nothing depends on it, and what cannot be read is as if nobody had looked.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from meltbench.deadline import Deadline
from meltbench.paths import state_dir
from meltbench.targets.local import LocalTransport

if TYPE_CHECKING:
    from pathlib import Path

    from meltbench.targets.facts import Facts

Verdict = Literal["ok", "advice", "problem"]
VERDICTS: tuple[Verdict, ...] = ("ok", "advice", "problem")  # the worse the later
_WRITE_S = 20.0
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Note:
    """What is remembered of a board. ``seen_s``, ``doctor_s``: when, in s of the wall clock; ``facts``: as a run's
    conditions; ``verdict``: the doctor's worst."""

    identity: str
    seen_s: float
    facts: dict[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None
    doctor_s: float | None = None


def note_seen(name: str, facts: Facts) -> None:
    """Remember that a device was reached just now, and what it is; what the doctor said of another board goes."""
    old = noted(name)
    same = old is not None and old.identity == facts.identity
    verdict, doctor_s = (old.verdict, old.doctor_s) if old is not None and same else (None, None)
    _keep(name, Note(facts.identity, time.time(), facts.conditions(), verdict, doctor_s))


def note_verdict(name: str, facts: Facts, verdict: Verdict) -> None:
    """Remember what the doctor said of a device that was reached just now."""
    _keep(name, Note(facts.identity, time.time(), facts.conditions(), verdict, time.time()))


def noted(name: str, identity: str | None = None) -> Note | None:
    """What is remembered of a device; None where nothing is, or only of another board than ``identity``."""
    try:
        with _path(name).open("rb") as file:
            said = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):  # a note is no record: it is made anew at the next look
        return None
    found = _note(said)
    return found if found is None or identity in (None, found.identity) else None


def forget(name: str) -> None:
    """Remember nothing of a device any more."""
    _path(name).unlink(missing_ok=True)


def rename(old: str, new: str) -> None:
    """Remember under a new name what is known under the old."""
    if (found := noted(old)) is not None:
        _keep(new, found)
    forget(old)


def _note(said: object) -> Note | None:
    if not isinstance(said, dict):
        return None
    identity, seen_s, facts = (said.get(key) for key in ("identity", "seen_s", "facts"))
    verdict, doctor_s = said.get("verdict"), said.get("doctor_s")
    if not (isinstance(identity, str) and isinstance(seen_s, (int, float)) and isinstance(facts, dict)):
        return None
    if verdict not in VERDICTS or not isinstance(doctor_s, (int, float)):
        verdict = doctor_s = None
    return Note(identity, seen_s, facts, verdict, doctor_s)


def _keep(name: str, note: Note) -> None:
    content = json.dumps(note.__dict__, ensure_ascii=True).encode("ascii")
    LocalTransport().push(content, str(_path(name)), Deadline.after(_WRITE_S))


def _path(name: str) -> Path:
    return state_dir() / "devices" / f"{name}.json"
