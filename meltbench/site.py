"""Reaching a device: its probe put there, its facts asked, and that it is the board it should be."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meltbench import settings, switches
from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, LinkLost, UserError
from meltbench.probe import build
from meltbench.probe.client import Probe
from meltbench.readings import READERS
from meltbench.targets import Place, connect, default_root, inventory, matching, printable
from meltbench.targets import facts as device_facts
from meltbench.targets import profile as device_profile
from meltbench.targets.notes import note_seen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meltbench.plan import Plan
    from meltbench.targets import Transport
    from meltbench.targets.facts import Facts
    from meltbench.targets.inventory import Known
    from meltbench.targets.profile import Profile
    from meltbench.watch import Watch

FOLDER = ".meltbench"  # in the home of the user on the target
PYTHON = "python3"  # by which helper programs are run there, where it has one
_CALL_S = 15.0
_BLINK_S, _PAUSE_S = 1.5, 0.5  # a link that blinks is there again; one that is not there is not waited for
_WHO = 'uname -sm; printf %s "$HOME"'


@dataclass(frozen=True)
class Site:
    """A device made ready: its probe and its facts."""

    probe: Probe
    facts: Facts


def reach(place: Place, workdir: str | None, watch: Watch, identity: str | None = None) -> Probe:
    """Connect to a target and put the probe on it. ``workdir`` None: the default of the way it is reached;
    ``identity``: of the board that is meant. A link that is refused is tried again for a moment.

    Raises DeviceError, or UserError for what cannot be measured.
    """
    if place.kind == "local" and platform.system() == "Windows":
        raise UserError("Windows cannot be measured", hint="the probe is for Linux and Android")
    transport, root = connect(place, identity), workdir or default_root(place)
    try:
        began = time.monotonic()
        while True:
            try:
                return put(transport, root, watch)
            except LinkLost:
                if time.monotonic() > began + _BLINK_S:
                    raise
                time.sleep(_PAUSE_S)
    except BaseException:
        transport.close()
        raise


def put(transport: Transport, root: str | None, watch: Watch) -> Probe:
    """Put the probe below ``root`` on a target, None: below our folder in the home of its user there.

    Two round trips where it is there already. Raises UserError for a target that the probe is not for.
    """
    system, machine, home = _who(transport)
    target = build.target_of(system, machine)
    if target is None:
        what = f"{system or 'this system'} on {machine or 'this machine'}"
        hint = "the probe is for Linux and Android on x86-64, ARM and RISC-V"
        if system == "Darwin":
            hint += "; of a Mac's own log: meltbench read LOG --device macbook"
        raise UserError(f"{what} cannot be measured", hint=hint)
    return Probe.install(transport, root or _below(home), target, watch.say)


def root_of(known: Known, transport: Transport) -> str:
    """Our folder on a device."""
    return known.workdir or default_root(known.place) or _below(_who(transport)[2])


def _below(home: str) -> str:
    if not home.startswith("/") or not home.isprintable():
        raise DeviceError("the device tells no home folder", hint="give --workdir, a folder that may be written there")
    return f"{home.rstrip('/')}/{FOLDER}"


def _who(transport: Transport) -> tuple[str, str, str]:
    """The system and machine of a target by uname(1), and the home of the user there, each "" where it tells none."""
    done = transport.run(["sh", "-c", _WHO], Deadline.after(_CALL_S))
    told, _, home = done.stdout.decode("utf-8", "replace").partition("\n")
    system, _, machine = told.strip().partition(" ")
    return printable(system)[:64], printable(machine)[:64], home


def ask(probe: Probe, profile: Profile, readers: Iterable[str] = ()) -> Facts:
    """What a device is, with which of the programs that these readers and the profile's settings need it has."""
    roots = profile.roots
    answer = probe.facts(device_facts.globs(roots.sys, roots.proc))
    wanted = [command.program for reader in readers for command in READERS[reader].commands]
    programs = probe.programs([*wanted, *settings.programs(profile.setting), device_facts.GETPROP, PYTHON])
    said = device_facts.properties(probe.properties()) if device_facts.GETPROP in programs else {}
    return device_facts.parse(answer, roots.sys, roots.proc, programs, said)


def visit(plan: Plan, watch: Watch) -> Site:
    """Look at the plan's device: mend what an earlier run left there, and ask what it is."""
    switches.check(plan.profile, plan.spec.device)
    site = meet(plan.known, plan.profile, watch, [source.reader for source in plan.profile.source])
    if plan.spec.device == "local" and (better := _better(site.facts)):
        watch.say(f"profile {better} knows this device: meltbench devices profile --write makes one of it to run with")
    return site


def meet(known: Known, profile: Profile, watch: Watch, readers: Iterable[str]) -> Site:
    """Reach a device, and look for the programs that these readers poll. Raises WrongDevice for another board."""
    probe = replace(reach(known.place, known.workdir, watch, known.identity), name=known.name)
    try:
        probe.recover()
        facts = ask(probe, profile, readers)
        inventory.check_board(known, facts)
    except BaseException:
        probe.transport.close()
        raise
    if known.place.kind != "local":
        note_seen(known.name, facts)
    return Site(probe, facts)


def facts_of(probe: Probe, profile: Profile | None) -> Facts:
    """What a target is, as far as files tell: enough to know which board it is."""
    roots = profile.roots if profile is not None else device_profile.Roots()
    answer, said = probe.facts(device_facts.globs(roots.sys, roots.proc)), device_facts.properties(probe.properties())
    return device_facts.parse(answer, roots.sys, roots.proc, said=said)


def _better(facts: Facts) -> str | None:
    """The profile of a board or phone that was made for it: what fits any device of a platform says no more."""
    if not (facts.compatible or facts.properties):
        return None
    found = matching.fits(facts, device_profile.candidates()[0])
    return found[0].name if found and not found[0].generic else None
