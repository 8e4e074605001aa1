"""Sensor by sensor: what can be read, what may not be, what is not there; and what the energy will be made of."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from meltbench.doctor.exam import Finding, count
from meltbench.readings import READERS
from meltbench.report.units import quantity
from meltbench.targets.draft import GAUGES

if TYPE_CHECKING:
    from meltbench.doctor.exam import Exam, Look

_tally = re.compile(r"\d+ (absent|denied)")  # a detail that says no more than the status
_numbers = re.compile(r"^(?:\d+ [a-z]+(?:, |; |$))+")  # of readings, before what was said of them
_node = re.compile(r"/dev/[A-Za-z0-9_-]{1,32}", re.ASCII)
_group = re.compile(r"the group ([a-z][a-z0-9_-]{0,31})")
_SHOWN, _UNITS = 4, ("W", "V", "A", "degC", "Hz", "B")  # of values that mean something at a glance
_USER = "They are other users' to read. Let the user of ssh read them, or log in as one who may."
_HELPER = (
    "It is read by a Python program of ours, and there is no python3: energies leave this GPU out and say so.\n"
    "    sudo apt install python3"
)
METER = (
    "Nothing on the device tells its power: times, memory and heat are measured all the same. For energy put a meter "
    "at its plug (Shelly, Tasmota, Kasa, a USB meter ...), read here as a source: docs/devices.md shows a profile."
)


def findings(exam: Exam) -> list[Finding]:
    """A finding a source, then the total."""
    if exam.looked_why:
        return [Finding("sensors", f"not looked at: {exam.looked_why}", "advice", "Look again when it is free.")]
    return [*_once([_source(exam, look) for look in exam.looks]), *_total(exam)]


def _once(found: list[Finding]) -> list[Finding]:
    """What is to be done about several sources alike is said of the first."""
    first: dict[str, str] = {}
    out = []
    for one in found:
        of = first.setdefault(one.mend, one.what)
        out.append(
            replace(one, mend=f"As said of {of.removeprefix('source ')}.") if one.mend and of != one.what else one
        )
    return out


def _source(exam: Exam, look: Look) -> Finding:
    name = look.source.name
    mend = exam.advice(name, look.status)
    needs = exam.profile.permissions.get(name)
    if look.status == "ok":
        return _readable(exam, look)
    tells = look.detail and not _tally.fullmatch(look.detail)
    detail = _numbers.sub("", look.detail)
    seen = f"{look.status}: {detail}" if tells else look.status
    if look.status == "denied":
        generic = _allowed(exam, needs) if needs else _USER
        worse = name in _designated(exam) and not exam.total
        return Finding(f"source {name}", seen, "problem" if worse else "advice", mend or generic)
    if look.status == "absent" and _left_out(exam, look):
        return Finding(f"source {name}", "not read: its GPU is there", "advice", _HELPER)
    if look.status == "absent":
        # Profiles name all that such a device may have: what it lacks is no fault, unless somebody knows better.
        return Finding(f"source {name}", seen, "advice" if mend else "ok", mend)
    generic = "It is there and gives nothing of use: read it by hand, and look in the kernel's log (dmesg)."
    return Finding(f"source {name}", seen, "advice", mend or generic)


def _allowed(exam: Exam, needs: str) -> str:
    """What would let the user read it; of a group, the line that puts him into it."""
    group = _group.search(needs)
    if group is None:
        return f"It needs {needs}."
    user = exam.link.user if exam.link is not None and exam.link.user else "$USER"
    node = _node.search(needs)
    if node is not None and exam.link is not None and group[1] in exam.link.groups:
        name = node[0].removeprefix("/dev/")
        return (
            f"{user} is in the group {group[1]}, and {node[0]} is not open to it (ls -l {node[0]}). Now and after "
            "every start:\n"
            f'    echo \'KERNEL=="{name}", GROUP="{group[1]}", MODE="0660"\' | '
            f"sudo tee /etc/udev/rules.d/60-{name}.rules\n"
            f"    sudo chgrp {group[1]} {node[0]} && sudo chmod 660 {node[0]}"
        )
    return (
        f"It needs {needs}. Put {user} into the group; meltbench logs in anew the next time:\n"
        f"    sudo usermod -aG {group[1]} {user}"
    )


def _left_out(exam: Exam, look: Look) -> bool:
    """Whether a GPU is there that a helper of ours would read, and that runs on the controller's machine alone."""
    helper = READERS[look.source.reader].helper
    if helper is None or helper.fact != "gpus" or exam.facts is None or exam.known.place.kind == "local":
        return False
    return any(gpu.startswith(helper.begins) for gpu in exam.facts.gpus)


def _readable(exam: Exam, look: Look) -> Finding:
    name, options = look.source.name, look.source.options
    seen = f"readable: {_signals(look)}" if look.last else "readable"
    if look.detail:
        seen += f" ({look.detail})"
    if look.source.reader == "throttled" and not any(one.startswith("throttled.") for one in look.last):
        return _firmware_silent(exam, look)
    if look.source.reader in GAUGES and "calibration" not in options:
        generic = (
            "A battery's gauge has the unit, sign and scale that its maker chose. Hold it to a known load, unplugged:\n"
            f"    meltbench devices calibrate {exam.known.name}"
        )
        return Finding(f"source {name}", seen, "advice", exam.advice(name, "uncalibrated", generic))
    told = exam.advice(name, "uncalibrated")
    if told and look.source.gain_limit is None and "calibration" not in options:
        return Finding(f"source {name}", seen, "advice", told)
    return Finding(f"source {name}", seen)


def _firmware_silent(exam: Exam, look: Look) -> Finding:
    """A Pi whose firmware tells nothing, while the kernel's own alarm of under-voltage can be read."""
    name = look.source.name
    absent = exam.facts is not None and "vcgencmd" not in exam.facts.programs
    mend = exam.advice(name, "absent" if absent else "denied")
    seen = "in part: the kernel's alarm of under-voltage, not what the firmware holds back"
    if look.detail:
        seen += f" ({look.detail})"
    needs = exam.profile.permissions.get(name, "")
    return Finding(f"source {name}", seen, "advice", mend or _allowed(exam, needs))


def _signals(look: Look) -> str:
    """The first few values, those of power before all others."""
    known = sorted(look.last.items(), key=lambda one: (one[1][1] != "W", -one[1][0]))  # a whole before its parts
    prefix = f"{look.source.reader}."
    known = [one for one in known if one[1][1] in _UNITS]
    some = [f"{name.removeprefix(prefix)} {quantity(*value)}" for name, value in known[:_SHOWN]]
    more = len(look.last) - len(some)
    return ", ".join([*some, *([count(more, "signal") if not some else f"{more} more"] if more else [])])


def _designated(exam: Exam) -> set[str]:
    return {total.source for total in exam.profile.total}


def _total(exam: Exam) -> list[Finding]:
    """What the energy will be made of. A sensor that is there and may not be read has a finding of its own."""
    if exam.total:
        left_out = f"; leaves out {exam.total_partial}" if exam.total_partial else ""
        if exam.relative:
            seen = f"none: {exam.total} is of a gain that nobody knows{left_out}"
            return [
                Finding(
                    "energy",
                    seen,
                    "advice",
                    "Its watts are kept with each run, and no joules are made of them: see above.",
                )
            ]
        return [Finding("energy", f"of {exam.total}{left_out}")]
    denied = [
        look.source.name for look in exam.looks if look.status == "denied" and look.source.name in _designated(exam)
    ]
    if denied:
        seen = f"none: {' and '.join(denied)} may not be read"
        mend = exam.advice("total", "denied", f"Let {' or '.join(denied)} be read, as said above.")
        return [Finding("energy", seen, "problem", mend)]
    seen = f"none: {exam.total_why}" if exam.total_why else "none: its profile names no source of it"
    return [Finding("energy", seen, "advice", exam.advice("total", "none", METER))]
