"""Which of the devices that are attached to an adb server a name means.

The server tells of each its ``ro.product.device``, by which profiles know phones; one of which it does not is asked.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, ManyDevices, UserError
from meltbench.targets import Place, printable, profile
from meltbench.targets.adb import words
from meltbench.targets.adb.server import Attached, Server
from meltbench.targets.adb.transport import AdbTransport
from meltbench.targets.facts import PRODUCT_PROPERTY, SERIAL_PROPERTY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.targets.profile import Match

ANY = "generic-android"
_LIST_S = 30.0  # a server may have to be started for it
_ASK_S = 5.0


def of_profile(name: str) -> Place:
    """The one device attached that the profile of this name is for.

    Raises ManyDevices where there are several, UserError, with what to tap where that is it, where there is none.
    """
    listed = _listed()
    match = profile.load(name)[0].match
    mine = [one for one in listed if one.state == "device" and _fits(one, match)]
    mine = _apart(mine) if len(mine) > 1 else mine
    if len(mine) > 1:
        choices = {f"{name}@{one.serial}": one.product or "a device without a name" for one in mine}
        raise ManyDevices(f"{len(mine)} devices attached are a {name}", choices)
    if mine:
        return Place("adb", mine[0].serial)
    raise _none(name, listed)


def of_serial(serial: str) -> tuple[Place, str]:
    """A device by its serial, and the profile that knows it by its product, else that of any phone.

    Raises UserError where several profiles know it.
    """
    words.check_serial(serial)
    one = _known(Attached(serial, "device"), Deadline.after(_LIST_S))
    fits = [name for name, by in profile.candidates()[0].items() if _fits(one, by.match, known=True)]
    if len(fits) > 1:
        raise UserError(f"{', '.join(fits)} all know {serial}", hint=f"name one: --device {fits[0]}@{serial}")
    return Place("adb", serial), fits[0] if fits else ANY


def _apart(several: Sequence[Attached]) -> list[Attached]:
    """Each phone once: one may be on a cable and on Wi-Fi at the same time."""
    deadline = Deadline.after(_LIST_S)
    found: dict[str, Attached] = {}
    for one in several:
        found.setdefault(_told(one.serial, SERIAL_PROPERTY, deadline) or one.serial, one)
    return list(found.values())


def _listed() -> list[Attached]:
    deadline = Deadline.after(_LIST_S)
    return [_known(one, deadline) for one in Server().devices(deadline)]


def _known(one: Attached, deadline: Deadline) -> Attached:
    if one.product is not None or one.state != "device":
        return one
    return replace(one, product=_told(one.serial, PRODUCT_PROPERTY, deadline) or None)


def _told(serial: str, name: str, deadline: Deadline) -> str:
    """A property of a device; nothing where it does not answer."""
    try:
        done = AdbTransport(serial).run(["getprop", name], deadline.within(_ASK_S))
    except DeviceError:
        return ""
    return printable(done.stdout.decode("utf-8", "replace").strip())[:200]


def _fits(one: Attached, match: Match, *, known: bool = False) -> bool:
    """``known``: by its product, not merely as one of Android. No server tells a build: a profile that asks for one is
    for a device that is named by that profile."""
    if known and match.build:
        return False
    if match.product:
        return any(fnmatchcase(one.product or "", glob) for glob in match.product)
    return not known and match.platform == "android"


def _none(name: str, listed: Sequence[Attached]) -> UserError:
    """What keeps a device that is there from being used, else what is there."""
    unusable = [one for one in listed if one.state != "device"]
    if unusable and len(unusable) == len(listed):
        why = words.refused(unusable[0].serial, unusable[0].state)
        return UserError(f"no {name} can be used: {why.message}", hint=why.hint)
    there = ", ".join(f"{one.serial} ({one.product or 'no name'})" for one in listed[:8]) or "nothing"
    return UserError(
        f"no {name} is attached: the adb server has {there}",
        hint=f"plug it in with USB debugging on; over Wi-Fi: meltbench devices add {name} --adb HOST:PORT",
    )
