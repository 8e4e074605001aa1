"""The devices that are reached over a link, by name: a file that people edit and carry to other controllers.

    [pi5]
    profile = "rpi5"                        # what is read on it: devices/rpi5.toml
    ssh = "pi@10.0.0.7"                     # [USER@]HOST[:PORT], or a Host of ~/.ssh/config
    identity = "8f3a..."                    # the board's, whatever its address: see docs/devices.md

    [phone]
    profile = "pixel6"
    adb = "1A2B3C4D5E6F7G"                  # its serial, as `adb devices` lists it, or HOST:PORT

A device is its identity, not its address. Nothing secret stands here: keys and passwords are ssh's own.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from meltbench import catalog
from meltbench.deadline import Deadline
from meltbench.errors import DefinitionError, ManyDevices, UnknownName, UserError, WrongDevice
from meltbench.hub import Hub
from meltbench.paths import config_dir
from meltbench.tables import parse_toml, read_bounded, read_table
from meltbench.targets import Place
from meltbench.targets.local import LocalTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meltbench.targets.facts import Facts
    from meltbench.targets.profile import Profile

LOCAL = "local"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,59}", re.ASCII)
_IDENTITY = re.compile(r"[0-9a-f]{16}", re.ASCII)
_header = re.compile(r"^\[[ \t]*(?:\"([^\"\\]+)\"|'([^']+)'|([A-Za-z0-9_-]+))[ \t]*\][ \t]*(?:#.*)?$", re.ASCII)
_HEAD = (
    "# Devices that meltbench reaches, by name. `meltbench devices add` writes here; edit it, and carry it to other\n"
    "# controllers, as you like. Keys and passwords have no place in it: they are ssh's and adb's.\n"
)
_WRITE_S = 20.0


@dataclass(frozen=True)
class Entry:
    """A device as the inventory has it, reached by ``ssh`` or ``adb``: an address of the one, a serial of the other.

    ``identity``: Facts.identity, None where nobody has looked yet; then any board at the address is taken for it.
    ``workdir``: the folder of ours on it, None for the default (site.py). ``adb_port``: of an adb server of its own.
    ``hub``: the port that its cable is in, where that can be switched (hub.py).
    """

    profile: str
    ssh: str | None = None
    identity: str | None = None
    identity_from: str | None = None
    board: str | None = None
    workdir: str | None = None
    added: str | None = None
    adb: str | None = None
    adb_port: int | None = None
    hub: str | None = None

    def __post_init__(self) -> None:
        if (self.ssh is None) == (self.adb is None):
            raise ValueError("needs either ssh = ADDRESS or adb = SERIAL")
        if self.hub is not None:
            Hub.parse(self.hub)
        if self.adb is None and self.adb_port is not None:
            raise ValueError("adb_port is of a device that has adb")
        try:
            check_place(self.place)
        except UserError as error:
            raise ValueError(f"{self.place.kind}: {error}") from None
        if not _NAME.fullmatch(self.profile):
            raise ValueError(f"profile {self.profile[:80]!r} is no name of a profile")
        if self.identity is not None and not _IDENTITY.fullmatch(self.identity):
            raise ValueError(
                f"identity {self.identity[:80]!r} is not 16 hexadecimal digits: leave it out, and add it anew"
            )
        if self.workdir is not None:
            check_workdir(self.workdir)
        for text in (self.identity_from, self.board, self.added):
            if text is not None and not (text.isprintable() and len(text) <= 200):
                raise ValueError(f"{text[:40]!r} is not a line of text")

    @classmethod
    def at(
        cls, place: Place, profile: str, facts: Facts, workdir: str | None, added: str | None, hub: str | None
    ) -> Entry:
        """An entry for the board that answered at a place."""
        ssh, adb = (None, place.address) if place.kind == "adb" else (place.address, None)
        who = (facts.identity, facts.identity_from, facts.board)
        return cls(profile, ssh, *who, workdir, added, adb, place.port, hub)

    @property
    def place(self) -> Place:
        """Where it is."""
        if self.adb is not None:
            return Place("adb", self.adb, self.adb_port)
        return Place("ssh", str(self.ssh))


@dataclass(frozen=True)
class Known:
    """A device that can be reached: what it is called, the profile by which it is read, and where it is.

    ``identity``: the board's, None where any is taken for it. ``workdir``: its folder of ours, None for the default of
    the way it is reached. ``hub``: the port that its cable is in, where that can be switched.
    """

    name: str
    profile_name: str
    place: Place
    identity: str | None = None
    workdir: str | None = None
    hub: Hub | None = None


def path() -> Path:
    """Where the inventory is: ``$MELTBENCH_INVENTORY``, else ``inventory.toml`` in the user's configuration."""
    own = os.environ.get("MELTBENCH_INVENTORY")
    return Path(own).expanduser().absolute() if own else config_dir() / "inventory.toml"


def load() -> dict[str, Entry]:
    """Every device of the inventory by name, in its order. DefinitionError names file and key of what is odd."""
    where = path()
    return _read(read_bounded(where) if where.exists() else b"", where)


def resolve(name: str) -> Known:
    """The device that a name stands for: of the inventory, else of a profile that says by itself where it is.

    The profile of a phone stands for the one of its kind that is attached, ``adb:SERIAL`` for the one of that serial,
    ``PROFILE@SERIAL`` for that one by this profile.
    Raises UserError for the profile of a device that is reached and is nowhere to be found, ManyDevices for that of
    several; UnknownName, with the nearest names, for what is neither.
    """
    known = load()
    serial = name.removeprefix("adb:")
    if serial != name:
        from meltbench.targets.adb import attached

        place, profile_name = attached.of_serial(serial)
        return Known(name, profile_name, place)
    profile_name, at, serial = name.partition("@")
    if at and profile_name in catalog.find("devices"):
        return Known(name, profile_name, Place("adb", serial))
    if name in known:
        return of_entry(name, known[name])
    found = _profile(name, known)
    if found.target in ("ssh", "adb"):
        return _only(name, known, found.target)
    return Known(name, name, Place(found.target), None, found.workdir)


def kind_of(name: str) -> str:
    """How the device that a name stands for is reached (Profile.target), from its profile and the inventory alone:
    nothing is looked for. "log": it cannot be. Raises UnknownName as ``resolve`` does."""
    from meltbench.targets import profile

    known = load()
    profile_name, at, _ = name.partition("@")
    if name.startswith("adb:") or (at and profile_name in catalog.find("devices")):
        return "adb"
    if name not in known:
        return _profile(name, known).target
    found = of_entry(name, known[name])
    return "log" if profile.load(found.profile_name)[0].target == "log" else found.place.kind


def _profile(name: str, known: dict[str, Entry]) -> Profile:
    from meltbench.targets import profile

    profiles = catalog.find("devices")
    if name not in profiles:
        raise UnknownName("device", name, [*known, *profiles])
    return profile.load(name)[0]


def _only(profile_name: str, known: dict[str, Entry], way: str) -> Known:
    mine = [name for name, entry in known.items() if entry.profile == profile_name]
    if len(mine) > 1:
        choices = {one: f"{known[one].board or 'a device'} at {known[one].place}" for one in mine}
        raise ManyDevices(f"{profile_name} is the profile of {len(mine)} devices", choices)
    if not mine and way == "adb":
        from meltbench.targets.adb import attached

        return Known(profile_name, profile_name, attached.of_profile(profile_name))
    if not mine:
        raise UserError(
            f"{profile_name} is a profile, and no device of it is in {path()}",
            hint=f"meltbench devices add {profile_name} --ssh USER@HOST",
        )
    return of_entry(mine[0], known[mine[0]])


def of_entry(name: str, entry: Entry) -> Known:
    """An entry as a device to be reached. Raises UnknownName when its profile is not there."""
    profiles = catalog.find("devices")
    if entry.profile not in profiles:
        raise UnknownName(f"profile of {name} in {path()}:", entry.profile, profiles)
    hub = None if entry.hub is None else Hub.parse(entry.hub)
    return Known(name, entry.profile, entry.place, entry.identity, entry.workdir, hub)


def by_identity(identity: str) -> Known | None:
    """The board of that identity, under whatever name and address it is known now; None where it is not."""
    for name, entry in load().items():
        if entry.identity == identity:
            return of_entry(name, entry)
    return None


def check_board(known: Known, facts: Facts) -> None:
    """Raise WrongDevice where another board answers than the one that the inventory means."""
    if known.identity is not None and facts.identity != known.identity:
        raise WrongDevice(
            f"another board answers at {known.place}: {facts.board or 'one without a name'} of identity "
            f"{facts.identity}, {known.name} is {known.identity}",
            hint=f"if it stands in for the old one: meltbench devices remove {known.name}, then devices add",
        )


def check_name(name: str) -> None:
    """Raise UserError for what can be no name of a device."""
    if name == LOCAL:
        raise UserError("local is the machine meltbench runs on", hint="give the device a name of its own")
    if not _NAME.fullmatch(name):
        raise UserError(f"{name[:80]!r} is no name for a device", hint="use letters, digits, _, . and -")


def check_place(place: Place) -> None:
    """Raise UserError for what ssh or adb could not be given. A password that is in it is not repeated."""
    if place.kind == "adb":
        from meltbench.targets.adb.words import check_serial, checked_port

        check_serial(place.address)
        if place.port is not None:
            checked_port(place.port)
    else:
        from meltbench.targets.ssh.address import Address

        Address.parse(place.address)


def check_workdir(workdir: str) -> None:
    """Raise ValueError for what is no folder of a target."""
    parts = workdir.split("/")
    if not workdir.startswith("/") or ".." in parts or not workdir.isprintable() or len(workdir) > 400:
        raise ValueError(f"workdir {workdir[:80]!r} is no absolute path")
    if len([part for part in parts if part]) < 2:
        raise ValueError(f"workdir {workdir!r} is a folder of the system: give one below it")


def put(name: str, entry: Entry) -> None:
    """Write a device into the inventory, or anew over the one of that name; every other line of it stays."""
    check_name(name)
    _change(lambda known: known | {name: entry}, name, entry)


def drop(name: str) -> None:
    """Take a device out of the inventory."""
    _change(lambda known: {key: one for key, one in known.items() if key != name}, name, None)


def now() -> str:
    """The present time as the inventory has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read(content: bytes, where: Path) -> dict[str, Entry]:
    known: dict[str, Entry] = {}
    boards: dict[str, str] = {}
    for name, table in parse_toml(content, where).items():
        try:
            check_name(name)
        except UserError as error:
            raise DefinitionError(f"{where}: {error.message}", hint=error.hint) from None
        entry = known[name] = read_table(Entry, table, f"{where}: {name}")
        if entry.identity is not None and (other := boards.setdefault(entry.identity, name)) != name:
            raise DefinitionError(f"{where}: {name}: identity is that of {other}", hint="leave one of the two out")
    return known


def _change(wanted: Callable[[dict[str, Entry]], dict[str, Entry]], name: str, entry: Entry | None) -> None:
    """Edit the file as a person would, so that comments and order stay, and check what came of it before it is kept."""
    where = path().resolve()  # what a link points at is what is replaced
    with _alone(where):
        content = read_bounded(where) if where.exists() else _HEAD.encode()
        aim = wanted(_read(content, where))
        text = _edited(content.decode("utf-8"), name, entry)
        try:
            right = _read(text.encode("utf-8"), where) == aim
        except DefinitionError:
            right = False
        if not right:
            raise UserError(f"{name} is not written as a table [{name}] in {where}", hint="edit it there by hand")
        LocalTransport().push(text.encode("utf-8"), str(where), Deadline.after(_WRITE_S))


@contextmanager
def _alone(where: Path) -> Iterator[None]:
    """Two commands that add a device at once write one after the other."""
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(where.parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"cannot write {where}: {error.strerror or error}", hint="set MELTBENCH_INVENTORY") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _edited(text: str, name: str, entry: Entry | None) -> str:
    lines = text.splitlines()
    begin = next((n for n, line in enumerate(lines) if _named(line) == name), None)
    if begin is None:
        if entry is None:
            return text
        return "\n".join([*lines, "", f"[{_key(name)}]", *_written(entry).values()]) + "\n"
    end = next((n for n in range(begin + 1, len(lines)) if lines[n].startswith("[")), len(lines))
    while end > begin + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1  # remarks before the next table are about that one
    if entry is None:
        return "\n".join([*lines[:begin], *lines[end:]]).rstrip("\n") + "\n"
    written, kept = _written(entry), []
    for line in lines[begin + 1 : end]:
        key = line.partition("=")[0].strip()
        kept += [written.pop(key, "")] if key in _KEYS else [line]
    return "\n".join([*lines[: begin + 1], *filter(None, kept), *written.values(), *lines[end:]]) + "\n"


_KEYS = tuple(field.name for field in fields(Entry))


def _named(line: str) -> str | None:
    found = _header.match(line)
    return None if found is None else next(filter(None, found.groups()))


def _key(name: str) -> str:
    return f'"{name}"' if "." in name else name


def _written(entry: Entry) -> dict[str, str]:
    """The lines of an entry by key; JSON's strings are TOML's, and an entry holds no control character."""
    told = {key: getattr(entry, key) for key in _KEYS}
    return {key: f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in told.items() if text is not None}
