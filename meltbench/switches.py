"""Settings that the controller itself makes and puts back, such as the power of a hub's port.

The target's own list cannot hold them, so the ticket of the run does: it says what there is to put back before anything
is changed, and whoever brings the run in does it. A command is only ever run when the profile of the device names it:
a ticket lies in a store, which may come from somebody else.
"""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from meltbench import hub
from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, UserError
from meltbench.settings import SET_S, Planned, as_rows, ask, from_ticket, programs, told, undo_words
from meltbench.targets import printable
from meltbench.targets.local import LocalTransport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.store import RunFolder
    from meltbench.targets.profile import Profile, Setting
    from meltbench.watch import Watch

_TRIES = 2
_MARGIN_S = 60.0


def check(profile: Profile, device: str) -> None:
    """Raise UserError when a setting that may not be left out needs a program that this machine does not have."""
    for one in profile.setting:
        lost = [name for name in programs([one], "controller") if shutil.which(name) is None]
        if lost and not one.optional:
            raise UserError(
                f"setting {one.name!r} of device {device} needs {lost[0]}, which is not on this machine",
                hint="install it, or leave the device as it is with --no-prepare",
            )


def make(folder: RunFolder, profile: Profile, *, started: bool) -> None:
    """Make the controller's settings, once the ticket says how they are put back; what came of it goes there too.

    ``started``: those that are made once the job has been started, else the others.
    """
    ticket = folder.ticket()
    plans, here = from_ticket(ticket), LocalTransport()
    by_name = {one.name: one for one in profile.setting}
    mine = [one for one in plans if _ours(one) and one.todo == "set" and by_name[one.name].once_started == started]
    if not mine:
        return
    made = []
    for one in plans:
        if one in mine:
            failed = _failure(here, by_name[one.name].set)
            found = ask(here, by_name[one.name].get)
            problem = "; ".join(filter(None, (found.problem, failed if found.value != one.wanted else "")))
            made.append(replace(one, found=((found.value, problem),)))
        else:
            made.append(one)
    folder.write_ticket(ticket | {"settings": as_rows(made)})


def cut(ticket: Mapping[str, Any]) -> bool:
    """Whether the port that the device hangs at is without power for this run, as far as the ticket knows."""
    return any(one.name == hub.NAME and one.todo == "set" and not one.restored for one in from_ticket(ticket))


def check_cut(plans: Sequence[Planned]) -> None:
    """Raise DeviceError where the power of the device's port was to be cut, and that cannot be."""
    for one in plans:
        if one.name == hub.NAME and one.todo == "nothing":
            raise DeviceError(
                f"the power of its USB port cannot be cut: {one.why}",
                hint="look at the port (meltbench devices show), and whether this user may switch it",
            )


def put_back(folder: RunFolder, profile: Profile | None, watch: Watch, *, once_started: bool = False) -> bool:
    """Put the controller's settings of a run back, the last one first, and note it in the ticket. True: there were.

    ``once_started``: only what was made once the job had been started, for it is needed to reach the device again.
    ``profile``: what the device is set to, None where it is not known here any more. What cannot be put back is told
    with the command that would.
    """
    ticket = folder.ticket()
    plans, here = from_ticket(ticket), LocalTransport()
    by_name = {one.name: one for one in profile.setting} if profile is not None else {}
    late = {name for name, one in by_name.items() if one.once_started}
    mine = [one for one in plans if _ours(one) and not one.restored and (not once_started or one.name in late)]
    if not mine:
        return False
    host = (ticket.get("controller") or {}).get("host")
    done = {}
    for one in reversed(mine):
        setting = by_name.get(one.name)
        tried, problem = one, _refusal(one, setting, host)
        if setting is not None and not problem:
            tried, problem = _put_back(one, setting, here)
        if problem:
            command = shlex.join(printable(word) for word in one.undo)
            watch.warn(f"setting {printable(one.name)} was not put back: {problem}; by hand: {command}")
        done[one.name] = replace(tried, restored=not problem)
    folder.write_ticket(ticket | {"settings": as_rows(done.get(one.name, one) for one in plans)})
    return True


def over_at(ticket: dict[str, Any]) -> float | None:
    """When, s of the wall clock, a run must have ended whose target cannot be asked, None where nobody can tell.

    One that is without power for the run should have ended earlier: nobody leaves it so for longer than was planned.
    """
    try:
        started = datetime.fromisoformat(str(ticket["started_at"])).timestamp()
        return started + float(ticket["expected_s" if cut(ticket) else "longest_s"]) + _MARGIN_S
    except (KeyError, ValueError):
        return None


def _ours(one: Planned) -> bool:
    return one.on == "controller" and one.todo != "nothing"


def _refusal(one: Planned, setting: Setting | None, host: object) -> str:
    """Why a command of a ticket is not run here; empty where it is."""
    from meltbench.controller import this_process

    if one.todo == "set" and host != this_process()["host"]:
        return f"it was made on {printable(str(host))}"
    if one.todo == "set" and (setting is None or undo_words(setting, one.before) != one.undo):
        return "the profile of the device does not say so here"
    return ""


def _put_back(one: Planned, setting: Setting, here: LocalTransport) -> tuple[Planned, str]:
    """Look whether it held until the end, then undo it."""
    last = ask(here, setting.get)
    one = replace(one, found=(*one.found, (last.value, last.problem)))
    if one.todo != "set":
        return one, ""
    problem = ""
    for _ in range(_TRIES):
        problem = _failure(here, one.undo)
        if not problem:
            break
    return one, problem


def _failure(here: LocalTransport, argv: Sequence[str]) -> str:
    """Run a command; what it complained of, empty when it succeeded."""
    try:
        done = here.run(argv, Deadline.after(SET_S))
    except DeviceError as error:
        return printable(str(error))
    return "" if done.code == 0 else f"{told(done.code, b'').problem}: {done.complaint()}"
