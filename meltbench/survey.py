"""Looks at a device that may have no profile yet: which fit, and what each source says when it is asked once."""

from __future__ import annotations

import errno
import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from meltbench import catalog
from meltbench.deploy import importable
from meltbench.errors import UserError
from meltbench.readings import READERS
from meltbench.readings import Source as ReadBy
from meltbench.records import OK, Readings, Status, Stream
from meltbench.scripts import Scripts, wanted
from meltbench.site import PYTHON, meet
from meltbench.targets import inventory, matching, profile
from meltbench.targets.draft import GAUGES, Seen, Signal, Survey, known, name_of
from meltbench.targets.facts import rooted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from meltbench.site import Site
    from meltbench.targets.inventory import Known
    from meltbench.targets.profile import Profile, Source
    from meltbench.watch import Watch


_UNOPENED: tuple[Status, ...] = ("denied", "absent")


def look(device: str, watch: Watch, name: str | None = None) -> Survey:
    """Reach a device by a profile and look at it. Nothing is changed on it, and no program that runs on is started.

    ``name``: of the profile to be drafted, else one after the board; a draft never inherits from what it replaces.
    """
    known_as = inventory.resolve(device)
    reached, _ = profile.load(known_as.profile_name)
    site = meet(known_as, reached, watch, READERS)
    try:
        return _surveyed(site, known_as, reached, watch, name)
    finally:
        site.probe.transport.close()


def _surveyed(site: Site, known_as: Known, reached: Profile, watch: Watch, name: str | None) -> Survey:
    name = name or name_of(site.facts)
    replaced = _path(name).absolute()
    candidates, broken = profile.candidates(but=name, without=replaced)
    for line in broken:
        watch.warn(f"left out: {line}")
    fits = matching.fits(site.facts, candidates)
    if not fits:
        raise UserError(
            "no profile fits this device, not even a generic one", hint="look for one that hides linux-desktop"
        )
    base, _ = profile.load(fits[0].name, without=replaced if fits[0].name == name else None)
    scripts = scripts_of(known_as, site)
    others = _batteries(site, known(base.source, _shipped()))
    return Survey(
        name, reached, site.facts, fits, base,
        tuple(seen_of(site, reached, scripts, one) for one in base.source),
        tuple(seen for one in others if (seen := seen_of(site, reached, scripts, one)).status == "ok"),
    )  # fmt: skip


def _shipped() -> list[Source]:
    """The sources of all profiles, by which one that fits none of them is looked at."""
    out = []
    for name in catalog.find("devices"):
        try:
            out.append(profile.load(name)[0].source)
        except UserError:  # its own user is told when it is named; a look at a device must not need them all
            continue
    return list(itertools.chain.from_iterable(out))


def _batteries(site: Site, sources: list[Source]) -> list[Source]:
    """Of the gauges of other devices those that this one has, without what holds for other devices alone."""
    out = [one for one in sources if one.reader not in GAUGES]
    for one in sources:
        if one.reader == "power_supply":
            names = site.facts.batteries
            out += [
                replace(one, name=name if len(names) > 1 else "battery", options={"supply": name}) for name in names
            ]
        elif one.reader in GAUGES and site.facts.platform == "android":
            out.append(replace(one, options={}))
    return out


def scripts_of(known_as: Known, site: Site) -> Scripts | None:
    """How helper programs could be started on a device; nothing is put there."""
    if known_as.place.kind == "local":
        return Scripts.here()
    return importable(site.probe) if PYTHON in site.facts.programs else None


def seen_of(site: Site, reached: Profile, scripts: Scripts | None, source: Source) -> Seen:
    """One look at a source."""
    reader = READERS[source.reader]
    if reader.helper is not None and scripts is not None and wanted(reader.helper, reached, site.facts, scripts):
        return Seen(source, "ok", "by a helper program", None)
    if any(command.program in site.facts.programs for command in reader.commands):
        return Seen(source, "ok", "by a program of the target", None)
    if any("{pid:" in spec.glob for spec in reader.paths):
        return Seen(source, "ok", "of the engine's process", None)
    globs = [rooted(spec.glob, reached.roots.sys, reached.roots.proc) for spec in reader.paths]
    streams = _streams(site.probe.facts(globs)) if globs else []
    series, seen = ReadBy.of(source.name, source.reader, source.options).read(streams)
    told = seen.told()
    signals = [Signal(s.name, s.kind, s.unit, s.scope) for s in series if bool((s.status == OK).any())]
    return Seen(source, told.status, told.detail, tuple(signals))


def _streams(answer: Mapping[str, Any]) -> list[Stream]:
    """The files that the probe read once, as a run's streams of one reading.

    What could not be opened has no reading; what was opened and not read has one, with its errno.
    """
    files = answer.get("files")
    out = []
    for number, (path, entry) in enumerate((files if isinstance(files, dict) else {}).items()):
        said = entry if isinstance(entry, dict) else {}
        status: Status = next((word for word in _UNOPENED if word == said.get("status")), "ok")
        err = said.get("errno") if said.get("status") != "ok" else 0
        err = err if isinstance(err, int) else errno.EIO
        text = str(said.get("text", "")).encode("latin-1", "replace")
        once = [] if status != "ok" else [text if err == 0 else b""]
        stamps = np.zeros(len(once), np.int64)
        readings = Readings.of(stamps, stamps, np.full(len(once), err, np.int32), once)
        out.append(Stream(number, "look", "file", str(path), status, err, readings))
    return out


def _path(name: str) -> Path:
    """Where a draft is written."""
    return Path("devices") / f"{name}.toml"


def check_name(name: str) -> None:
    """Raise UserError for what is no name of a profile."""
    if not profile.is_name(name) or name.startswith("."):
        raise UserError(f"{name!r} is no name for a profile", hint="use letters, digits, _, . and -")


def write(name: str, text: str, *, force: bool) -> Path:
    """Write ./devices/NAME.toml. Raises UserError where there is one and it is not to be replaced, or no writing it."""
    check_name(name)
    path = _path(name)
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} is there already", hint="give another --name, or --force") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path
