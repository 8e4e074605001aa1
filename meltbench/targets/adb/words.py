"""What an adb server says of a device that it does not give, and what to do about it."""

from __future__ import annotations

import re

from meltbench.errors import DeviceError, LinkLost, UserError
from meltbench.targets import printable

# A USB serial number, HOST:PORT, or a name of mDNS, which may have " (2)" in it.
_SERIAL = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:%\[\]() -]{0,199}", re.ASCII)
_NETWORK = re.compile(r"(\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", re.ASCII)
_MAX_CHARS = 200

# Of what adb says or calls a state, in the order they are looked for: the words, whether it may pass by itself, what it
# means, and whose move it is. The states are those of adb.cpp, ConnectionState.
_MEANINGS = (
    (
        "unauthorized", False, "does not trust this computer yet",
        "unlock its screen and tap Allow under 'Allow USB debugging?'; no question: switch USB debugging off and on",
    ),
    ("authorizing", True, "is making up its mind whether to trust this computer", "look at its screen, and try again"),
    ("connecting", True, "is being connected", "try again in a moment"),
    (
        "offline", True, "is attached and does not answer (adb says offline)",
        "pull its cable and plug it in again, or switch USB debugging off and on",
    ),
    (
        "permission", False, "may not be opened by this user (adb says no permissions)",
        "take the group plugdev, install Android's udev rules (android-sdk-platform-tools-common), plug it in again",
    ),
    ("bootloader", False, "is in its boot loader", "start its system: fastboot reboot"),
    ("recovery", False, "is in its recovery system", "start its system: adb reboot"),
    ("sideload", False, "waits for an update (sideload)", "start its system: adb reboot"),
    ("rescue", False, "is in its rescue system", "start its system: adb reboot"),
)  # fmt: skip
_UNATTACHED = "check its cable, and that USB debugging is on; what is attached: adb devices"
_UNREACHED = (
    "check that Wi-Fi and wireless debugging are on, and the port it shows; a computer that it does not know yet is "
    "paired first: adb pair HOST:PORT, from its 'Pair device with pairing code'"
)


def check_serial(serial: str) -> None:
    """Raise UserError for what adb could not be given as the serial of a device."""
    if not _SERIAL.fullmatch(serial):
        raise UserError(f"{printable(serial)[:80]!r} is no serial of an adb device", hint="adb devices lists them")


def checked_port(port: int) -> int:
    """The port of an adb server. Raises UserError for what is none."""
    if not isinstance(port, int) or not 0 < port < 65536:
        raise UserError(f"{str(port)[:40]} is no port of an adb server", hint="give 1 to 65535, or leave it out")
    return port


def is_network(serial: str) -> bool:
    """Whether it is HOST:PORT, to which a server connects when it is asked to."""
    found = _NETWORK.fullmatch(serial)
    return found is not None and 0 < int(found[2]) < 65536


def refused(serial: str, said: str) -> DeviceError:
    """The error for a device that the server does not give, by what it said: LinkLost for what may pass by itself."""
    told = said.replace(serial, "")
    for word, passes, meaning, hint in _MEANINGS:
        if word in told:
            return (LinkLost if passes else DeviceError)(f"{serial} {meaning}", hint=hint)
    if "not found" in said or "no devices" in said:
        where, hint = ("connected", _UNREACHED) if is_network(serial) else ("attached", _UNATTACHED)
        return LinkLost(f"{serial} is not {where}", hint=hint)
    return LinkLost(f"adb does not reach {serial}: {_line(said)}", hint="try again")


def unconnected(serial: str, said: str) -> LinkLost:
    """The error for an address that the server could not connect to."""
    return LinkLost(f"{serial} is not connected: {_line(said)}", hint=_UNREACHED)


def _line(said: str) -> str:
    return printable(" ".join(said.split()))[:_MAX_CHARS] or "it gave no reason"
