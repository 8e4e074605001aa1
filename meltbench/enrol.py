"""Devices come into the inventory and leave it: who a board is, is found out by asking it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from meltbench import catalog, site
from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, HostKeyError, TargetBusy, UserError, WrongDevice
from meltbench.hub import Hub
from meltbench.probe.client import leased
from meltbench.targets import Place, inventory, matching, notes, printable
from meltbench.targets import profile as profiles
from meltbench.targets.inventory import Entry, Known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meltbench.probe.client import Probe
    from meltbench.targets.facts import Facts
    from meltbench.targets.matching import Fit
    from meltbench.watch import Watch

Outcome = Literal["added", "moved", "renamed", "unchanged"]
_KEYS = 4  # of hosts on the way that may be new: jump hosts, and the device
_CALL_S, _PURGE_S = 20.0, 120.0


@dataclass(frozen=True)
class Asked:
    """What a person wants of a device: its name, where it is, and what is not to be found out by asking it."""

    name: str
    place: Place
    profile: str | None = None
    workdir: str | None = None
    rename: bool = False
    hub: str | None = None


@dataclass(frozen=True)
class Enrolled:
    """What became of it. ``was``: the address or name it had before; ``by``: why the profile fits; ``ties``: those
    that fit as well; ``root``: our folder on the device."""

    name: str
    entry: Entry
    outcome: Outcome
    facts: Facts
    was: str | None
    by: str
    ties: tuple[str, ...]
    root: str


def add(asked: Asked, watch: Watch, trust: Callable[[HostKeyError], None]) -> Enrolled:
    """Reach a device, find out which board it is and which profile fits, and write it into the inventory.

    ``trust`` is told of a host key that is not the known one, and raises unless it is to be accepted.
    """
    known = _checked(asked)
    old = known.get(asked.name)
    workdir = asked.workdir or (old.workdir if old is not None else None)
    probe = _reach(asked.place, workdir, watch, trust)
    try:
        facts, fits = _met(probe, asked.profile or (old.profile if old is not None else None), watch)
        asked = replace(asked, workdir=workdir)
        done = settle(asked, known, facts, fits, set(catalog.find("devices")), probe.root.rsplit("/", 1)[0])
    finally:
        probe.transport.close()
    if done.outcome == "renamed":
        assert done.was is not None
        inventory.drop(done.was)
        notes.rename(done.was, done.name)
    if done.outcome != "unchanged":
        inventory.put(done.name, done.entry)
    notes.note_seen(done.name, facts)
    return done


def settle(
    asked: Asked, known: Mapping[str, Entry], facts: Facts, fits: list[Fit], profile_names: set[str], root: str
) -> Enrolled:
    """What is to be written for a board that answered. Raises where it would take another's name, or get a second one.

    ``fits``: the profiles that fit, best first, or the one that was asked for.
    """
    old = known.get(asked.name)
    if old is not None and old.identity not in (None, facts.identity):
        raise WrongDevice(
            f"{asked.name} is another board ({old.board or 'one without a name'}, identity {old.identity}); at "
            f"{asked.place} answers {facts.board or 'one without a name'}, identity {facts.identity}",
            hint=f"give this one another name, or first: meltbench devices remove {asked.name}",
        )
    other = next((name for name, one in known.items() if one.identity == facts.identity and name != asked.name), None)
    if other is not None and (old is not None or not asked.rename):
        raise UserError(
            f"this board is {other} already, at {known[other].place} (identity by {facts.identity_from})",
            hint=_second(asked, facts),
        )
    before = old if other is None else known[other]
    if before is None and asked.profile is None and asked.name in profile_names - {fit.name for fit in fits}:
        raise UserError(
            f"{asked.name} is a profile, and not of this board ({facts.board or 'without a name'}: {fits[0].name})",
            hint="give the device another name, or the profile by --profile",
        )
    added = inventory.now() if before is None else before.added
    hub = asked.hub or (None if before is None else before.hub)
    entry = Entry.at(asked.place, fits[0].name, facts, asked.workdir, added, hub)
    outcome, was = _outcome(entry, before, other)
    return Enrolled(
        asked.name, entry, outcome, facts, was, fits[0].by, tuple(matching.ties(fits)) if before is None else (), root
    )


def _outcome(entry: Entry, before: Entry | None, other: str | None) -> tuple[Outcome, str | None]:
    if before is None:
        return "added", None
    if other is not None:
        return "renamed", other
    return ("unchanged", None) if entry == before else ("moved", str(before.place))


def _second(asked: Asked, facts: Facts) -> str:
    """What to do about a board that has a name, or looks like one that has."""
    again = f"to call it {asked.name} from now on: add --rename"
    if facts.identity_from == "/etc/machine-id":
        return f"{again}; if it is another with a copy of that one's card, give it an id of its own: docs/devices.md"
    return again


def _checked(asked: Asked) -> dict[str, Entry]:
    """The inventory, once what was asked for can be an entry of it."""
    inventory.check_name(asked.name)
    inventory.check_place(asked.place)
    try:
        if asked.workdir is not None:
            inventory.check_workdir(asked.workdir)
        if asked.hub is not None:
            Hub.parse(asked.hub)
    except ValueError as error:
        raise UserError(str(error), hint="meltbench devices add --help has an example") from None
    if asked.profile is not None:
        profiles.load(asked.profile)
    return inventory.load()


def _reach(place: Place, workdir: str | None, watch: Watch, trust: Callable[[HostKeyError], None]) -> Probe:
    seen: set[str] = set()
    while True:
        try:
            return site.reach(place, workdir, watch)
        except HostKeyError as error:
            from meltbench.targets import ssh

            if error.fingerprint in seen or len(seen) == _KEYS:
                raise
            seen.add(error.fingerprint)
            trust(error)
            ssh.accept(place.address, error.fingerprint)


def _met(probe: Probe, wanted: str | None, watch: Watch) -> tuple[Facts, list[Fit]]:
    """What the device is, by the profile that is asked for, else by the one that fits best."""
    if wanted is not None:
        found = profiles.load(wanted)[0]
        return site.ask(probe, found), [matching.Fit(wanted, "your choice", 0)]
    facts = site.ask(probe, profiles.Profile("", "ssh"))  # which sets nothing; how it is reached is not asked for
    candidates, broken = profiles.candidates()
    for line in broken:
        watch.warn(f"left out: {line}")
    fits = [fit for fit in matching.fits(facts, candidates) if profiles.load(fit.name)[0].target != "log"]
    if not fits:
        raise UserError("no profile fits this device, not even a generic one", hint="give one by --profile")
    found = profiles.load(fits[0].name)[0]
    # A made tree stands in for /sys where a profile says so: then the board is the tree's.
    return (site.ask(probe, found) if found.roots != profiles.Roots() else facts), fits


def remove(name: str) -> None:
    """Take a device out of the inventory, and forget what was remembered of it. Nothing on it is touched."""
    inventory.drop(name)
    notes.forget(name)


@dataclass(frozen=True)
class Purge:
    """What of ours is on a device: the folder, and its runs that nobody has brought in. Its probe is to be left."""

    probe: Probe
    root: str
    runs: tuple[str, ...]


def before_purge(known: Known, watch: Watch) -> Purge:
    """Look at what a purge would remove. Raises TargetBusy while a run is under way there, or somebody has a lease."""
    probe = site.meet(known, profiles.load(known.profile_name)[0], watch, ()).probe
    try:
        if not probe.recover():
            raise TargetBusy(f"a run is under way on {known.name}", hint="wait for it, or `meltbench collect`")
        if (holder := leased(probe.lease_show())) is not None:
            raise TargetBusy(f"{known.name} is leased: {holder}", hint="wait for it: its runs lie there")
        answer = probe.facts([f"{probe.root}/*/journal"])
    except BaseException:
        probe.transport.close()
        raise
    return Purge(probe, probe.root.rsplit("/", 1)[0], runs_of(answer, "journal"))


def runs_of(answer: Mapping[str, Any], file: str) -> tuple[str, ...]:
    """The runs that have such a file, from an answer of the probe that looked for it in all of them."""
    files = answer.get("files")
    paths = [printable(str(path)) for path in files] if isinstance(files, dict) else []
    return tuple(sorted(path.split("/")[-2] for path in paths if path.endswith(f"/{file}") and "*" not in path))


def purge(what: Purge) -> None:
    """Remove what is ours from a device, and the folder it lies in once nothing else is in that."""
    # The names are arguments of a fixed script. The folder may hold what is not ours: somebody gave it as --workdir.
    script = (
        'cd -- "$1" && rm -rf -- runs cache bin/meltprobe-* && { rmdir bin; cd / && rmdir -- "$1"; } 2>/dev/null; '
        'test ! -e "$1/runs"'
    )
    done = what.probe.transport.run(["sh", "-c", script, "sh", what.root], Deadline.after(_PURGE_S))
    if done.code != 0:
        raise DeviceError(f"could not remove {what.root}: {done.complaint()}", hint="remove it there by hand")
