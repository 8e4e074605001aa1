"""Settings of a device: looked at before a run, made by its job, put back when that ends, judged by the evidence.

What a file held before is remembered by the probe as it writes it. What a command changes is asked of the target before
the job, so that the way back is on the target's own list before anything is changed. Whether a setting was in force is
told by what was read afterwards, never by what was written.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from meltbench.deadline import Deadline
from meltbench.errors import DeviceError
from meltbench.targets import printable
from meltbench.targets.facts import rooted
from meltbench.targets.local import LocalTransport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from meltbench.probe.job import Job
    from meltbench.probe.journal import Journal
    from meltbench.records import Stream
    from meltbench.targets import Transport
    from meltbench.targets.profile import Profile, Roots, Setting

GET_S, SET_S = 10.0, 30.0  # Android's own tools take a second to start, nvpmodel some more to switch
_MAX_BYTES = 65_536
_MAX_CHARS = 200
# Made of these a word means the same to every program, and nothing to a shell that a profile may name.
_SAFE = re.compile(r"-?[0-9.]{1,20}|[A-Za-z0-9_.,:=+/@%][A-Za-z0-9_.,:=+/@%-]{0,63}", re.ASCII)
# A file that lists its choices as "a [b] c" has b in force; the probe reads it so too (undo.c, get_value).
_CHOSEN = re.compile(r"[^\[]*\[([^\] \n]*)\]")


@dataclass(frozen=True)
class Told:
    """What a command told of a setting: its last line, or why there is none."""

    value: str | None
    problem: str = ""


@dataclass(frozen=True)
class Planned:
    """What a run does about one setting, as its ticket keeps it.

    ``wanted``: what is read when it is in force. ``path``: of a file, below the profile's roots. ``before``: what a
    command told before. ``todo``: ``set`` it, only ``look`` because it was in force, ``nothing`` because of ``why``.
    ``undo``: the command that puts it back. Of the controller's own: ``found``, what it told in the run, each with its
    problem, and whether it was put back.
    """

    name: str
    value: str
    wanted: str
    on: Literal["target", "controller"] = "target"
    optional: bool = False
    path: str | None = None
    before: str | None = None
    todo: Literal["set", "look", "nothing"] = "set"
    why: str = ""
    undo: tuple[str, ...] = ()
    found: tuple[tuple[str | None, str], ...] = ()
    restored: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether a setting was in force in a run: ``set``, ``in_force`` already, or ``not_applied`` because of ``detail``.

    ``before`` and ``used``: what was in force before and in the run; several values are told with commas between them.
    """

    name: str
    value: str
    state: Literal["set", "in_force", "not_applied"]
    before: str | None
    used: str | None
    detail: str = ""
    optional: bool = False


def programs(settings: Iterable[Setting], on: str = "target") -> list[str]:
    """The programs that the settings made there need."""
    return [words[0] for one in settings if one.on == on for words in (one.get, one.set, one.undo) if words]


def told(code: int, output: bytes) -> Told:
    """What a command's output says: the last line that is not blank. Its content is a device's, so it is bounded."""
    if code != 0:
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return Told(None, f"it ended with {how}")
    lines = output[-_MAX_BYTES:].decode("utf-8", "replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if not last:
        return Told(None, "it told nothing")
    if len(last) > _MAX_CHARS:
        return Told(None, f"it told a line of more than {_MAX_CHARS} characters")
    return Told(printable(last))


def ask(transport: Transport, argv: Sequence[str], seconds: float = GET_S) -> Told:
    """Run a command and take what it tells."""
    try:
        done = transport.run(argv, Deadline.after(seconds))
    except DeviceError as error:
        return Told(None, printable(str(error))[:_MAX_CHARS])
    found = told(done.code, done.stdout)
    return found if done.code == 0 else Told(None, f"{argv[0]}: {found.problem}: {done.complaint()}"[:_MAX_CHARS])


def plan(profile: Profile, transport: Transport, there: Sequence[str]) -> list[Planned]:
    """What a run will do about each setting of a profile. ``there``: programs that the target has."""
    out, here = [], LocalTransport()
    for one in profile.setting:
        lost = [name for name in programs([one]) if name not in there]
        if one.path is not None:
            out.append(_file(one, profile.roots))
        elif lost:
            out.append(planned(one, Told(None, f"{lost[0]} is not on the target")))
        else:
            out.append(planned(one, ask(here if one.on == "controller" else transport, one.get)))
    return out


def _file(one: Setting, roots: Roots) -> Planned:
    path = rooted(str(one.path), roots.sys, roots.proc)
    return Planned(one.name, one.value, one.wanted, optional=one.optional, path=path)


def planned(one: Setting, before: Told) -> Planned:
    """What to do about a setting made by a command, which told ``before``."""
    todo: Literal["set", "look", "nothing"] = "set"
    why = before.problem
    undo = undo_words(one, before.value)
    if before.value is None:
        todo = "nothing"
    elif before.value == one.wanted:
        todo, undo = "look", None
    elif undo is None:
        todo, why = "nothing", f"{before.value!r} was in force, and is no word that could be given back"
    return Planned(
        one.name, one.value, one.wanted, one.on, one.optional,
        before=before.value, todo=todo, why=why, undo=undo or (),
    )  # fmt: skip


def undo_words(one: Setting, old: str | None) -> tuple[str, ...] | None:
    """The command that puts a setting back; None where it needs the old value and that is not safe to be a word."""
    if not any("{old}" in word for word in one.undo):
        return one.undo
    if old is None or not _SAFE.fullmatch(old):
        return None
    return tuple(word.replace("{old}", old) for word in one.undo)


def make(job: Job, plans: Sequence[Planned], profile: Profile) -> float:
    """The steps that make the target's settings; returns the most seconds they and the second look may take."""
    by_name, most_s = {one.name: one for one in profile.setting}, 0.0
    for one in plans:
        setting = by_name[one.name]
        if one.path is not None:
            # Read at transitions alone: something on the device may set it back while the run lasts.
            job.file(f"set.{one.name}", one.path, 0)
            job.set(one.path, one.value)
        elif one.on == "target" and one.todo != "nothing":
            if one.todo == "set":
                job.undo(one.undo)
                job.attempt(f"set.{one.name}", SET_S, setting.set)
            job.attempt(f"get.{one.name}", GET_S, setting.get)
            most_s += SET_S + 2 * GET_S
    return most_s


def look_again(job: Job, plans: Sequence[Planned], profile: Profile) -> None:
    """The steps that see whether the settings made by commands held until the end."""
    by_name = {one.name: one for one in profile.setting}
    for one in plans:
        if one.path is None and one.on == "target" and one.todo != "nothing":
            job.attempt(f"get.{one.name}", GET_S, by_name[one.name].get)


def from_ticket(ticket: Mapping[str, Any]) -> list[Planned]:
    """The plans that a ticket keeps; none in the tickets of earlier versions."""
    rows = [dict(row) for row in ticket.get("settings", ())]
    return [
        Planned(**row | {"undo": tuple(row["undo"]), "found": tuple((value, why) for value, why in row["found"])})
        for row in rows
    ]


def as_rows(plans: Iterable[Planned]) -> list[dict[str, Any]]:
    """The plans as a ticket keeps them."""
    return [asdict(one) for one in plans]


def judge(plans: Sequence[Planned], journal: Journal) -> list[Verdict]:
    """Which settings were in force, from what was read after they were made."""
    made, out = _set_steps(journal), []
    for one in plans:
        if one.todo == "nothing":
            out.append(_verdict(one, [], one.why))
        elif one.path is not None:
            out.append(_judge_file(one, next(made, None), journal))
        elif one.on == "controller":
            out.append(_judge_told(one, [Told(*pair) for pair in one.found]))
        else:
            out.append(_judge_told(one, _answers(one, journal), _failure(one, journal)))
    return out


def conditions(verdicts: Iterable[Verdict]) -> dict[str, dict[str, Any]]:
    """The settings as conditions of a run, by name."""
    keep = ("value", "state", "before", "used", "detail")
    return {one.name: {key: getattr(one, key) for key in keep} for one in verdicts}


def against(verdicts: Iterable[Verdict]) -> list[str]:
    """What speaks against the run: settings that it needed and that were not in force."""
    return [
        f"{one.name} = {one.value}: {one.detail}" for one in verdicts if one.state == "not_applied" and not one.optional
    ]


def _verdict(one: Planned, used: Sequence[str], problem: str, *, before: str | None = None) -> Verdict:
    before = one.before if before is None else before
    state: Literal["set", "in_force", "not_applied"] = "not_applied" if problem else "set"
    if not problem and before == one.wanted:
        state = "in_force"
    return Verdict(one.name, one.value, state, before, ", ".join(used) or None, problem, one.optional)


def _set_steps(journal: Journal) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Of each step that sets files, in order: when it ended, and what it said of each."""
    files: list[dict[str, Any]] = []
    for event in journal.events:
        if event["event"] == "set":
            files.append(event)
        elif event["event"] == "step" and event.get("op") == "set":
            if event.get("state") == "end":
                yield int(event["boot_ns"]), files
            files = []


def _judge_file(one: Planned, step: tuple[int, list[dict[str, Any]]] | None, journal: Journal) -> Verdict:
    if step is None:
        return _verdict(one, [], "the run ended before it was made")
    ended_ns, events = step
    before = list(dict.fromkeys(str(e["old"]) for e in events if e.get("old") is not None))
    # Read back another value ("mismatch") is no verdict yet: a profile may expect just that.
    problem = next((f"{_at(e)}: {e.get('result')}" for e in events if e.get("result") not in ("ok", "mismatch")), "")
    used: dict[str, None] = {}
    for stream in (journal.streams[number] for number in journal.numbers(f"set.{one.name}", ("file",))):
        read = _texts_after(stream, ended_ns)
        used |= dict.fromkeys(read)
        wrong = next((text for text in read if text != one.wanted), None)
        if wrong is not None and not problem:
            held = "it did not take" if read[0] == wrong else "something set it back in the run"
            problem = f"{_short(stream.path)} had {wrong}, {held}"
    if not used and not problem:
        problem = "it was not read again"
    return _verdict(one, list(used), problem, before=", ".join(before) or None)


def _texts_after(stream: Stream, after_ns: int) -> list[str]:
    """The values a file had from a time on, harmless; a choice out of a list is that choice."""
    readings = stream.readings
    out = []
    for t0, err, raw in zip(readings.t0_ns.tolist(), readings.err.tolist(), readings.raw, strict=True):
        if err == 0 and t0 >= after_ns:
            text = raw[:4096].decode("utf-8", "replace").rstrip()
            found = _CHOSEN.match(text)
            out.append(printable(found[1] if found else text)[:_MAX_CHARS] or "nothing")
    return out


def _at(event: Mapping[str, Any]) -> str:
    return _short(str(event.get("path", "")))


def _short(path: str) -> str:
    """The end of a path, which tells policies apart."""
    return printable("/".join(path.rsplit("/", 2)[-2:]))[:_MAX_CHARS]


def _judge_told(one: Planned, answers: Sequence[Told], failed: str = "") -> Verdict:
    used = list(dict.fromkeys(found.value for found in answers if found.value is not None))
    wrong = next((found for found in answers if found.value != one.wanted), None)
    problem = "" if answers else "the run ended before it was looked at"
    if wrong is not None:
        back = " at the end, something set it back" if answers[0].value == one.wanted else ""
        told_so = f"{wrong.value} was in force{back}" if wrong.value is not None else "nobody knows"
        problem = ": ".join(filter(None, (told_so, wrong.problem)))
    return _verdict(one, used, f"{problem}; {failed}" if problem and failed else problem)


def _answers(one: Planned, journal: Journal) -> list[Told]:
    """What the setting's ``get`` told each time it ran in the job."""
    name = f"get.{one.name}"
    starts = [event for event in journal.named("spawn") if event.get("proc") == name]
    ends = [event for event in journal.named("exit") if event.get("proc") == name]
    out = []
    for start, end in zip(starts, ends, strict=False):
        stream = journal.streams.get(start.get("stdout", -1))
        code = end.get("code")
        text = b"\n".join(stream.readings.raw) if stream is not None else b""
        out.append(told(code if isinstance(code, int) else -int(end.get("signal") or 1), text))
    return out


def _failure(one: Planned, journal: Journal) -> str:
    """What the step that set it complained of."""
    name = f"set.{one.name}"
    for event in journal.named("step"):
        if event.get("name") == name and event.get("state") == "end" and event.get("result") != "ok":
            said = [raw for n in journal.numbers(name, ("err",)) for raw in journal.streams[n].readings.raw]
            words = printable(said[-1].decode("utf-8", "replace").strip())[:_MAX_CHARS] if said else ""
            return f"{event.get('result')}" + (f": {words}" if words else "")
    return ""
