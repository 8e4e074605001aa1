"""Device profiles: how a target is recognised and reached, what is read on it, and what is set before a run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from meltbench import catalog
from meltbench.errors import DefinitionError, UnknownName, UserError
from meltbench.readings import READERS, read
from meltbench.records import Scope  # noqa: TC001  read_table looks the types of fields up
from meltbench.spec import Scalar  # noqa: TC001  the same
from meltbench.tables import read_table
from meltbench.targets.matching import Candidate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from meltbench.catalog import Definition

Checked = Literal["device", "capture", "emulated", "unverified"]
_VALUE = re.compile(r"[A-Za-z0-9_.,:=+/@%-]{1,64}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}", re.ASCII)  # the probe's names have 64, of which a setting's take four


@dataclass(frozen=True)
class Roots:
    """Where /sys and /proc are read; a recorded or made tree can stand in. The engine's own /proc/PID stays real."""

    sys: str = "/sys"
    proc: str = "/proc"


@dataclass(frozen=True)
class Match:
    """How a device of this profile is recognised: each list that is given must have a pattern that fits.

    Patterns are globs, case-sensitive. ``board``: the model of the device tree, else maker and product of DMI.
    ``compatible``: an entry of the device tree's compatible. ``product``: Android's ro.product.device. ``build``: its
    ro.build.fingerprint, such as "google/oriole/oriole:16/BP2A.250605.031/13602143:user/release-keys". ``platform``:
    any device of that system, for a profile that knows none in particular. One that asks for nothing fits nothing.
    """

    board: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    product: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    platform: Literal["android", "linux"] | None = None


@dataclass(frozen=True)
class Source:
    """One source of readings: a reader of meltbench.readings at a period.

    ``options`` are the reader's own ([source.options]): what it cannot know by itself, like a unit or a place.
    ``gain_limit``: relative limit of the gain error where one better founded than its class's is known, and
    ``gain_limit_from`` by whom. ``host``: it is read on the controller, by its clock (an external meter).
    """

    name: str
    reader: str
    period_ms: float
    options: dict[str, Scalar] = field(default_factory=dict)
    gain_limit: float | None = None
    gain_limit_from: str = ""
    host: bool = False


@dataclass(frozen=True)
class Total:
    """What makes the energy of the device up (measurement rule 8: one designated total rail).

    ``rails``: globs of the series of ``source`` that add up, none of which contains another; empty where the source
    itself knows (RAPL) or has one alone. ``scope``: what they cover together. ``partial``: the loads they leave out, in
    words; empty where they leave none out. A profile lists them in order of preference: the first that can be read.
    """

    source: str
    rails: tuple[str, ...] = ()
    scope: Scope | None = None
    partial: str = ""


@dataclass(frozen=True)
class Setting:
    """Something that is set before a run and put back after it.

    A file of the target (``path``, a glob) is written ``value``. Else ``set`` is a command that sets it, ``get`` one
    whose last line tells what is in force, ``undo`` one that puts it back, in whose words ``{old}`` stands for that
    line as it was before (then it must be made of letters, digits and ``_.,:=+/@%-``). ``expect``: what ``get`` tells,
    or the file holds, when it is in force, where that is not ``value``. ``on``: who runs the commands; the controller
    runs its own before the job. ``optional``: a device that cannot be set so is measured all the same, without a word
    against it. ``once_started``: of the controller's own, it is made once the job has been started, for it takes the
    way to the target away. Settings are made in the order of the profile and put back in reverse; no word is seen by a
    shell.
    """

    name: str
    value: str
    path: str | None = None
    get: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    expect: str | None = None
    on: Literal["target", "controller"] = "target"
    optional: bool = False
    once_started: bool = False

    def __post_init__(self) -> None:
        if (self.path is None) == (not self.set):
            raise ValueError(f"setting {self.name!r} needs either path or set")
        if self.set and not (self.get and self.undo):
            raise ValueError(f"setting {self.name!r} has set and lacks get or undo: none could check it or put it back")
        if self.path is not None and (self.get or self.undo or self.on == "controller"):
            raise ValueError(f"setting {self.name!r} is a file of the target: leave out get, undo and on")
        if self.once_started and self.on != "controller":
            raise ValueError(f"setting {self.name!r} is made by the target itself: leave out once_started")

    @property
    def wanted(self) -> str:
        """What is told, or read, when it is in force."""
        return self.value if self.expect is None else self.expect


@dataclass(frozen=True)
class Factor:
    """Something of the device that a run sets when it is asked to, by ``--set NAME=VALUE``: a Setting whose words have
    ``{value}`` for what was given. Without a ``path`` it is set by commands, as a Setting is."""

    help: str
    path: str | None = None
    get: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    expect: str | None = None

    def __post_init__(self) -> None:
        Setting("factor", "value", self.path, self.get, self.set, self.undo)

    def setting(self, name: str, value: str) -> Setting:
        """The setting of a run. Raises UserError for a value that is no plain word."""
        if not _VALUE.fullmatch(value):
            raise UserError(f"{name} = {value!r} is not a valid setting", hint=self.help)

        def filled(words: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(word.replace("{value}", value) for word in words)

        expect = None if self.expect is None else self.expect.replace("{value}", value)
        return Setting(name, value, self.path, filled(self.get), filled(self.set), filled(self.undo), expect)


@dataclass(frozen=True)
class Battery:
    """What the device's battery holds, for what a run takes of a charge.

    ``energy_wh``: of a full one, new. Where it is left out, the charge that the device says a full one holds is taken
    times ``nominal_v``. ``limit``: relative limit of the error, where one is better founded than that of a battery of
    unknown age. ``source``: who says so.
    """

    energy_wh: float | None = None
    nominal_v: float | None = None
    limit: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.energy_wh is None and self.nominal_v is None:
            raise ValueError("a battery needs energy_wh, or nominal_v for the charge that the device tells")
        if not self.source:
            raise ValueError("a battery needs a source: who says what it holds")
        ranges = {"energy_wh": (0.1, 1000.0), "nominal_v": (1.0, 100.0), "limit": (0.001, 0.9)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} = {value:g} is out of range: give {low:g} to {high:g}")


@dataclass(frozen=True)
class Gate:
    """When a device is cool and charged enough to begin.

    ``zones``: globs of thermal series (``thermal.TYPE``), of which the hottest counts; empty: any. ``target_c``: the
    temperature to begin at, None where only the slope is looked at. ``soc_percent``: the least and the most charge of
    its battery to begin with, None where that does not matter.
    """

    zones: tuple[str, ...] = ()
    target_c: float | None = None
    soc_percent: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        bounds = self.soc_percent
        if bounds is not None and not (len(bounds) == 2 and 0 <= bounds[0] < bounds[1] <= 100):
            raise ValueError("soc_percent needs the least and the most percent of charge, such as [30, 80]")


@dataclass(frozen=True)
class Profile:
    """devices/NAME.toml. ``workdir`` is the probe's folder on this machine, None for the default; that of a device over
    a link stands in the inventory.

    ``target``: how it is reached; ``log``: not at all, its readings come from a recorded log. ``contains``: by the name
    of a series those that lie inside of it. ``max_power_w``: more than the device can draw. ``battery``: what it holds,
    None for a device without one. ``slows_at_c``: from which
    temperature on it slows itself, where none of its zones tells that. ``big_cpus``: the fast cores (such as "4-7").
    ``factor``: by name what ``--set`` can change of it. ``permissions``: by source, what it needs to be readable.
    ``advice``: by topic (a source, or a matter of meltbench.doctor) and by case, what somebody who knows the board
    would say of it; ``{user}`` and ``{name}`` stand for the user there and the device. ``checked``: how this profile
    was, and ``unverified`` what of it nobody has seen on a device.
    """

    title: str
    target: Literal["local", "ssh", "adb", "log"]
    workdir: str | None = None
    roots: Roots = field(default_factory=Roots)
    match: Match = field(default_factory=Match)
    source: tuple[Source, ...] = ()
    total: tuple[Total, ...] = ()
    contains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    max_power_w: float | None = None
    battery: Battery | None = None
    slows_at_c: float | None = None
    big_cpus: str | None = None
    gate: Gate = field(default_factory=Gate)
    setting: tuple[Setting, ...] = ()
    factor: dict[str, Factor] = field(default_factory=dict)
    permissions: dict[str, str] = field(default_factory=dict)
    advice: dict[str, dict[str, str]] = field(default_factory=dict)
    checked: Checked = "unverified"
    unverified: tuple[str, ...] = ()


def load(name: str, *, without: Path | None = None) -> tuple[Profile, Definition]:
    """The profile of a device by name, as if the file ``without`` were not there."""
    found = catalog.load("devices", name, without=without)
    data = {key: value for key, value in found.data.items() if key != "inherits"}
    profile = read_table(Profile, data, found.path)
    if profile.workdir is not None and profile.target != "local":
        raise DefinitionError(
            f"{found.path}: workdir is of a device, not of a profile for target {profile.target}",
            hint="meltbench devices add NAME --ssh ADDRESS --workdir DIR",
        )
    _check_names([one.name for one in profile.source], "source", found.path)
    _check_names([one.name for one in profile.setting], "setting", found.path)
    _check_names(list(profile.factor), "factor", found.path)
    for source in profile.source:
        if source.reader not in READERS:
            raise UnknownName(f"reader of source {source.name!r} in {found.path}:", source.reader, READERS)
        _check_options(source, found.path)
        if not 0.5 <= source.period_ms <= 3_600_000:
            raise DefinitionError(
                f"{found.path}: period_ms = {source.period_ms} is out of range", hint="give 0.5 to 3600000"
            )
        if source.gain_limit is not None and not (0 < source.gain_limit < 1 and source.gain_limit_from):
            raise DefinitionError(
                f"{found.path}: source {source.name!r}: gain_limit = {source.gain_limit} needs a gain_limit_from",
                hint="give a share between 0 and 1, and who says so",
            )
    for total in profile.total:
        _check_total(total, profile, found.path)
    return profile, found


def candidates(*, but: str = "", without: Path | None = None) -> tuple[dict[str, Candidate], list[str]]:
    """By name what decides whether a profile fits a device, and a line for each that cannot be read.

    ``but`` is the name of a profile that is to be written to the file ``without``, so none that inherits from it can be
    what it inherits; of that name itself only what lies further down the search path can.
    """
    found, broken = {}, []
    for name in catalog.find("devices"):
        try:
            one = catalog.load("devices", name, without=without if name == but else None)
            match = read_table(Match, one.data.get("match", {}), one.path)
        except UnknownName:  # nothing is further down
            continue
        except DefinitionError as error:
            broken.append(str(error))  # somebody's half-written file must not keep a device from being recognised
            continue
        ancestors = tuple(path.stem for path in one.lineage)
        if name == but or but not in ancestors:
            found[name] = Candidate(match, ancestors)
    return found, broken


def is_name(text: str) -> bool:
    """Whether a text can be the name of a source, a setting or a profile."""
    return _NAME.fullmatch(text) is not None


def _check_names(names: list[str], kind: str, path: Path) -> None:
    for name in names:
        if not is_name(name):
            raise DefinitionError(f"{path}: {kind} name {name!r} is not valid", hint="use letters, digits, _, . and -")
        if names.count(name) > 1:
            raise DefinitionError(f"{path}: {kind} {name!r} stands twice", hint="give each a name of its own")


def _check_total(total: Total, profile: Profile, path: Path) -> None:
    """Its source is one of the profile's, and none of its rails lies inside another."""
    names = [one.name for one in profile.source]
    if total.source not in names:
        raise UnknownName(f"source of a total in {path}:", total.source, names)
    known = {*profile.contains, *(part for parts in profile.contains.values() for part in parts)}
    added = {name for rail in total.rails for name in {rail, *known} if fnmatchcase(name, rail)}
    for rail in sorted(added):
        if doubled := sorted(added.intersection(_inside(rail, profile.contains))):
            raise DefinitionError(
                f"{path}: the total adds {rail} and {doubled[0]}, which lies inside of it", hint="leave one out"
            )


def _inside(rail: str, contains: Mapping[str, Sequence[str]]) -> set[str]:
    """Everything that lies in a rail, and in what lies in it."""
    found: set[str] = set()
    wanted = list(contains.get(rail, ()))
    while wanted:
        if (one := wanted.pop()) not in found:
            found.add(one)
            wanted += contains.get(one, ())
    return found


def _check_options(source: Source, path: Path) -> None:
    """A reader checks its options before it looks at a stream, so without one it says what is wrong with them."""
    try:
        read(source.name, source.reader, [], source.options)
    except UserError as error:
        raise DefinitionError(f"{path}: source {source.name!r}: {error.message}", hint=error.hint) from None
