"""Device profiles: how a target is reached and which of its sources are read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meltbench import catalog
from meltbench.errors import DefinitionError, UnknownName, UserError
from meltbench.readings import READERS, read
from meltbench.spec import Scalar  # noqa: TC001  read_table looks the types of fields up
from meltbench.tables import read_table

if TYPE_CHECKING:
    from pathlib import Path

    from meltbench.catalog import Definition

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Roots:
    """Where /sys and /proc are read; a recorded or made tree can stand in. The engine's own /proc/PID stays real."""

    sys: str = "/sys"
    proc: str = "/proc"


@dataclass(frozen=True)
class Source:
    """One source of readings: a reader of meltbench.readings at a period.

    ``total`` marks the one source whose energy is the device's (measurement rule 8: one designated total).
    ``options`` are the reader's own ([source.options]): what it cannot know by itself, like a unit or a place.
    """

    name: str
    reader: str
    period_ms: float
    total: bool = False
    options: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """devices/NAME.toml. ``workdir`` is the probe's folder on the target, None for the transport's default."""

    title: str
    target: str
    workdir: str | None = None
    roots: Roots = field(default_factory=Roots)
    source: tuple[Source, ...] = ()


def load(name: str) -> tuple[Profile, Definition]:
    """The profile of a device by name."""
    found = catalog.load("devices", name)
    data = {key: value for key, value in found.data.items() if key != "inherits"}
    profile = read_table(Profile, data, found.path)
    names = [source.name for source in profile.source]
    for source in profile.source:
        if source.reader not in READERS:
            raise UnknownName(f"reader of source {source.name!r} in {found.path}:", source.reader, READERS)
        _check_options(source, found.path)
        if not 0.5 <= source.period_ms <= 3_600_000:
            raise DefinitionError(
                f"{found.path}: period_ms = {source.period_ms} is out of range", hint="give 0.5 to 3600000"
            )
        if not _NAME.fullmatch(source.name):
            raise DefinitionError(
                f"{found.path}: source name {source.name!r} is not valid", hint="use letters, digits, _, . and -"
            )
        if names.count(source.name) > 1:
            raise DefinitionError(
                f"{found.path}: source {source.name!r} stands twice", hint="give each a name of its own"
            )
    if sum(source.total for source in profile.source) > 1:
        raise DefinitionError(f"{found.path}: two sources claim the total", hint="one source is the total rail")
    return profile, found


def _check_options(source: Source, path: Path) -> None:
    """A reader checks its options before it looks at a stream, so without one it says what is wrong with them."""
    try:
        read(source.name, source.reader, [], source.options)
    except UserError as error:
        raise DefinitionError(f"{path}: source {source.name!r}: {error.message}", hint=error.hint) from None
