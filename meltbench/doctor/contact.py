"""Whether a device can be reached, is the one that is meant, and lets our probe run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.doctor.exam import Finding, count
from meltbench.report.units import quantity

if TYPE_CHECKING:
    from meltbench.doctor.exam import Exam

SLOW_S = 0.25  # of an empty command: more is a shell's start-up files, or a far network
OFF_S = 2.0  # the wall clock of a device that asks a time server is nearer than that
LITTLE_BYTES, SCARCE_BYTES = 4 << 30, 300 << 20  # a small model with its engine; a journal with room to spare
_MEMORY_KINDS = ("tmpfs", "ramfs", "zram")
_BAR = ("noexec",)


def findings(exam: Exam) -> list[Finding]:
    """From the link to the lease."""
    if exam.failed is not None or exam.link is None:
        why, hint = exam.failed or ("not reached", "")
        return [Finding("reached", why, "problem", hint or "is it switched on, and on this network?")]
    found = [_reached(exam), _user(exam)]
    if exam.folder is not None:
        found += _folder(exam)
    if exam.facts is None:
        return found
    return [*found, _identity(exam), *_profile(exam), *_clock(exam), *_runs(exam)]


def _reached(exam: Exam) -> Finding:
    assert exam.link is not None
    link, place = exam.link, exam.known.place
    seen = f"{place}, an empty command takes {quantity(link.latency_s, 's')}"
    if place.kind == "ssh":
        seen += ", host key known"
    if link.latency_s > SLOW_S:
        return Finding(
            "reached", seen, "advice",
            "Runs are not slowed by it, for nothing crosses the link while they measure; starting and collecting them "
            "is.\nOn the device a shell's start-up files often take most of it; time them there:\n"
            "    time sh -lc true; time bash -ic true",
        )  # fmt: skip
    return Finding("reached", seen)


def _user(exam: Exam) -> Finding:
    assert exam.link is not None
    link = exam.link
    groups = f", groups {' '.join(link.groups)}" if link.groups else ""
    return Finding("user", f"{link.user or 'unknown'}{' (root)' if link.uid == 0 else groups}")


def _folder(exam: Exam) -> list[Finding]:
    assert exam.folder is not None
    folder = exam.folder
    seen = ", ".join(
        filter(
            None,
            (
                folder.path,
                folder.kind and f"{folder.kind} at {folder.mount}",
                "" if folder.free_bytes is None else f"{quantity(folder.free_bytes, 'B')} free",
            ),
        )
    )
    other = f"meltbench devices add {exam.known.name} {exam.known.place.words} --workdir /a/folder/elsewhere"
    if exam.known.place.kind == "local":
        other = "export XDG_STATE_HOME=/a/folder/elsewhere"
    if folder.why:
        if any(word in folder.options for word in _BAR):
            hint = f"{folder.mount} is mounted noexec: no program may run from there. Take a folder of another disk:"
            return [Finding("folder", f"{seen}; noexec", "problem", f"{hint}\n    {other}")]
        return [Finding("probe", folder.why, "problem", f"Look at the folder there, or take another one:\n    {other}")]
    found = []
    free = folder.free_bytes
    if free is not None and free < SCARCE_BYTES:
        mend = f"A run's journal needs room, and a model far more. Free some, or take another disk:\n    {other}"
        found.append(Finding("folder", seen, "problem", mend))
    elif folder.kind in _MEMORY_KINDS:
        mend = f"What is kept there is kept in memory, which the models need, and is gone at a reboot:\n    {other}"
        found.append(Finding("folder", seen, "advice", mend))
    elif free is not None and free < LITTLE_BYTES:
        mend = f"Enough for a small model and its engine. For larger ones, another disk:\n    {other}"
        found.append(Finding("folder", seen, "advice", mend))
    else:
        found.append(Finding("folder", seen))
    return [*found, Finding("probe", "runs")]


def _identity(exam: Exam) -> Finding:
    assert exam.facts is not None
    facts, known = exam.facts, exam.known
    seen = f"{facts.board or 'a board without a name'}, {facts.identity} by {facts.identity_from}"
    if exam.wrong_board:
        return Finding(
            "board", f"{seen}; {known.name} is {known.identity}", "problem",
            f"Another board answers at {known.place}. If it stands in for the old one:\n"
            f"    meltbench devices remove {known.name} && meltbench devices add {known.name} {known.place.words}\n"
            "If the old one has another address now:\n"
            f"    meltbench devices add {known.name} --{known.place.kind} ADDRESS",
        )  # fmt: skip
    if known.place.kind != "local" and known.identity is None:
        return Finding(
            "board", f"{seen}; the inventory names none", "advice",
            "A board in its place would not be noticed. To write down which it is:\n"
            f"    meltbench devices add {known.name} {known.place.words}",
        )  # fmt: skip
    if facts.identity_from == "cpu and host name":
        return Finding(
            "board", seen, "advice",
            "Nothing but its name tells it from its twins: renamed, it is another device. An id of its own:\n"
            "    sudo systemd-machine-id-setup",
        )  # fmt: skip
    return Finding("board", seen)


def _profile(exam: Exam) -> list[Finding]:
    known = exam.known
    if exam.fits is None:
        return []
    if known.place.kind != "local":
        how = f"meltbench devices add {known.name} {known.place.words} --profile {exam.fits}"
    else:
        how = "meltbench devices profile --write"
    seen = f"{known.profile_name}; {exam.fits} knows this board"
    return [Finding("profile", seen, "advice", f"It reads the board's own sensors, too:\n    {how}")]


def _clock(exam: Exam) -> list[Finding]:
    assert exam.link is not None
    off, u = exam.link.offset_s, exam.link.offset_u_s
    if off is None or exam.known.place.kind == "local":
        return []
    side = "ahead" if off > 0 else "behind"
    if abs(off) <= u:
        return [Finding("clock", f"as ours, within {quantity(u, 's')}")]
    seen = f"{quantity(abs(off), 's')} {side} of ours, within {quantity(u, 's')}"
    if abs(off) <= OFF_S:
        return [Finding("clock", seen)]
    return [
        Finding(
            "clock", seen, "advice",
            "Runs do not use it (they count from the boot), but the dates of its files and logs are wrong. A board "
            "without a clock's battery needs a time server:\n    sudo timedatectl set-ntp true",
        )
    ]  # fmt: skip


def _runs(exam: Exam) -> list[Finding]:
    found = []
    if exam.ended:
        some = ", ".join(exam.ended[:3]) + (" ..." if len(exam.ended) > 3 else "")
        found.append(
            Finding(
                "runs there", f"{count(len(exam.ended), 'run')} not brought in: {some}", "advice",
                "From the controller whose store has their tickets, or one that has the inventory:\n"
                "    meltbench collect",
            )
        )  # fmt: skip
    if exam.running:
        found.append(
            Finding(
                "free", f"no: {exam.running} is under way", "advice", "Its sensors are looked at when it has ended."
            )
        )
    elif exam.holder is not None:
        mend = "Another controller measures on it. Wait for it: meltbench run --wait"
        found.append(Finding("free", f"no: held by {exam.holder}", "advice", mend))
    else:
        found.append(Finding("free", "yes"))
    return found
