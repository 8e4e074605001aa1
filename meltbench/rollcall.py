"""Who is there: every device is asked at once, each for a few seconds at most, and none is changed."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.deadline import Deadline
from meltbench.errors import DeadlineExceeded, DeviceError, HostKeyError, LinkLost, MeltbenchError, WrongDevice
from meltbench.probe.client import holder_words
from meltbench.store.folder import RUN_ID
from meltbench.targets import Place, connect, default_root, inventory, notes, printable
from meltbench.targets import facts as device_facts
from meltbench.targets import profile as profiles
from meltbench.targets.inventory import LOCAL, Known
from meltbench.targets.ssh.secrets import nobody_is_asked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.targets import Transport
    from meltbench.targets.facts import Facts
    from meltbench.targets.notes import Verdict

ASKED_S = 5.0
_LATE_S = 1.0  # for the threads to say that they had no answer
# Any probe of ours that runs there will do (a home that several machines share has one of each kind): it prints its
# path, the device's facts, and who holds the device; then come Android's properties.
_SCRIPT = """root=${1:-$HOME/.meltbench}; shift
for probe in "$root"/bin/meltprobe-*; do
    [ -x "$probe" ] && "$probe" version >/dev/null 2>&1 || continue
    echo "$probe"
    "$probe" facts "$root" "$root/runs/*/state" "$@" || exit
    "$probe" lease "$root/runs" show 2>/dev/null || echo
    getprop 2>/dev/null
    exit 0
done
exit 67"""
_OF_GPUS = ("gpus", "compatible")  # of what is remembered of a device
_NO_PROBE = 67


@dataclass(frozen=True)
class Answer:
    """What a device said of itself. ``why`` and ``word`` where it did not: in full, and in short; else None.

    ``facts`` is None also where it answered and no probe is on it yet. ``busy``: what it is busy with, "" with nothing,
    None where nobody can tell. ``runs``: those that lie there and are not under way, for somebody to collect.
    """

    facts: Facts | None = None
    busy: str | None = None
    word: str | None = None
    why: str | None = None
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A device and what is known of it. ``board``, ``accelerator``: now, else as it was last seen; ``seen_s``: when
    that was, of the wall clock; ``verdict``: the doctor's last."""

    name: str
    profile: str
    place: Place
    answer: Answer
    board: str | None
    accelerator: str | None
    disk_free_bytes: int | None
    seen_s: float | None
    verdict: Verdict | None


def call() -> list[Row]:
    """Ask this machine and every device of the inventory, all at the same time."""
    everyone = [Known(LOCAL, LOCAL, Place())]
    everyone += [
        Known(name, entry.profile, entry.place, entry.identity, entry.workdir)
        for name, entry in inventory.load().items()
    ]
    return [_row(known, answer) for known, answer in zip(everyone, ask(everyone), strict=True)]


def ask(everyone: Sequence[Known]) -> list[Answer]:
    """What each of these devices says of itself, within seconds; when it was there is remembered."""
    answers: list[Answer | None] = [None] * len(everyone)

    def one(n: int) -> None:
        answers[n] = _answer(everyone[n])

    # Daemons: one that hangs, whatever it hangs in, keeps nobody waiting.
    threads = [threading.Thread(target=one, args=(n,), daemon=True) for n in range(len(everyone))]
    with nobody_is_asked():
        for thread in threads:
            thread.start()
        until = Deadline.after(ASKED_S + _LATE_S)
        for thread in threads:
            thread.join(until.remaining())
    silent = Answer(word="no answer", why=f"no answer within {ASKED_S:g} s")
    for known, answer in zip(everyone, answers, strict=True):
        if answer is not None and answer.facts is not None:
            notes.note_seen(known.name, answer.facts)
    return [answer or silent for answer in answers]


def _row(known: Known, answer: Answer) -> Row:
    note = notes.noted(known.name, known.identity)
    if answer.facts is not None:
        facts = answer.facts
        board, accelerator, free = facts.board, facts.accelerator, facts.disk_free_bytes
    else:
        last = {} if note is None else note.facts
        board, accelerator, free = _text(last.get("board")), _gpus(last), None
    return Row(
        known.name, known.profile_name, known.place, answer, board, accelerator, free,
        None if note is None else note.seen_s, None if note is None else note.verdict,
    )  # fmt: skip


def _text(value: object) -> str | None:
    return printable(value) if isinstance(value, str) else None


def _gpus(last: Mapping[str, Any]) -> str | None:
    gpus, compatible = (
        [str(one) for one in said] if isinstance(said := last.get(key), list) else [] for key in _OF_GPUS
    )
    found = device_facts.accelerator(gpus, compatible)
    return None if found is None else printable(found)


def _answer(known: Known) -> Answer:
    """Ask one device. Whatever goes wrong with it is its answer: one device must not hide the others."""
    try:
        roots = profiles.load(known.profile_name)[0].roots
        transport = connect(known.place, known.identity)
        try:
            return _asked(known, transport, roots)
        finally:
            transport.close()
    except MeltbenchError as error:
        return Answer(word=_word(error), why=str(error))
    except Exception as error:  # noqa: BLE001  a bug met on the way to one device
        return Answer(word="internal error", why=f"{type(error).__name__}: {error}; please report it")


def _asked(known: Known, transport: Transport, roots: profiles.Roots) -> Answer:
    deadline = Deadline.after(ASKED_S)
    root = known.workdir or default_root(known.place) or ""
    globs = device_facts.globs(roots.sys, roots.proc)
    done = transport.run(["sh", "-c", _SCRIPT, "sh", root, *globs], deadline)
    if done.code == _NO_PROBE and known.identity is not None:
        again = f"meltbench devices add {known.name} {known.place.words}"
        why = f"no probe of ours runs there, so that nobody can tell which board it is; {again}"
        return Answer(word="no probe", why=why)
    if done.code == _NO_PROBE:
        return Answer()
    if done.code != 0:
        raise DeviceError(f"{known.name}: {done.complaint()}")
    probe, told, lease = (*done.stdout.decode("utf-8", "replace").splitlines(), "", "", "")[:3]
    said = device_facts.properties(done.stdout)
    answer = _object(told)
    if not answer:
        raise DeviceError(f"{known.name} answered something that is no answer of the probe", hint="try again")
    facts = device_facts.parse(answer, roots.sys, roots.proc, said=said)
    inventory.check_board(known, facts)
    running, holder = running_in(transport, probe, answer, deadline), lease_holder(_object(lease))
    busy = f"runs {running}" if running else f"held by {holder}" if holder else ""
    files = answer.get("files")
    there = {path.split("/")[-2] for path in files if path.endswith("/state")} if isinstance(files, dict) else set()
    return Answer(facts, busy, runs=tuple(sorted(name for name in there - {running} if RUN_ID.fullmatch(name))))


def running_in(transport: Transport, probe: str, answer: Mapping[str, Any], deadline: Deadline | None = None) -> str:
    """The run under way by the states of all runs in an answer of the probe; "" for none. A state that says it runs is
    believed once its probe was found alive."""
    files = answer.get("files")
    for path, entry in files.items() if isinstance(files, dict) else ():
        state = _object(str(entry.get("text", ""))) if isinstance(entry, dict) else {}
        if path.endswith("/state") and state.get("state") in ("starting", "running"):
            argv = [probe, "status", path.rpartition("/")[0]]
            done = transport.run(argv, deadline or Deadline.after(ASKED_S))
            if _object(done.stdout.decode("utf-8", "replace")).get("alive") is True:
                return printable(path.split("/")[-2])
    return ""


def lease_holder(lease: Mapping[str, Any]) -> str | None:
    """Who holds a device, from what its probe says of its lease; None where nobody does."""
    holder, left_ms = lease.get("holder"), lease.get("left_ms")
    held = isinstance(holder, str) and holder and not (isinstance(left_ms, int) and left_ms <= 0)
    return holder_words(str(holder)) if held else None


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _word(error: MeltbenchError) -> str:
    """Why a device was not reached, in a word or two."""
    words: Sequence[tuple[type[MeltbenchError], str]] = (
        (HostKeyError, "host key"),
        (WrongDevice, "another board"),
        (DeadlineExceeded, "no answer"),
        (LinkLost, "no link"),
        (DeviceError, "refused"),
    )
    return next((word for kind, word in words if isinstance(error, kind)), "unusable")


def ago(seen_s: float | None) -> str:
    """How long ago a moment of the wall clock was, in words."""
    if seen_s is None:
        return "never"
    gone_s = max(0.0, time.time() - seen_s)
    for unit_s, word in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if gone_s >= unit_s:
            return f"{gone_s / unit_s:.0f} {word} ago"
    return "now"
