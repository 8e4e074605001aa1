"""What names a board: which of several marks is taken, and which of them say nothing."""

from __future__ import annotations

from typing import Any

import pytest

from meltbench.targets.facts import Facts, parse

NET = "/sys/class/net/"
CARD = {"/etc/machine-id": "0123456789abcdef0123456789abcdee\n"}
ONBOARD = "DRIVER=e1000e\nPCI_CLASS=20000\nPCI_ID=8086:15BB\nPCI_SLOT_NAME=0000:00:1f.6\n"
TREE = "DRIVER=rk_gmac-dwmac\nOF_NAME=ethernet\nOF_FULLNAME=/ethernet@fe1c0000\nMODALIAS=of:NethernetT\n"


def board(*parts: dict[str, str], denied: tuple[str, ...] = (), **more: Any) -> Facts:
    files: dict[str, Any] = {}
    for part in parts:
        files |= {path: {"status": "ok", "errno": 0, "text": text} for path, text in part.items()}
    files |= {path: {"status": "denied", "errno": 13} for path in denied}
    return parse({"uname": {"machine": "x86_64", "nodename": "box"}, "files": files} | more)


def card(name: str, address: str, hardware: str, kind: str = "0", more: str = "") -> dict[str, str]:
    """A network interface as sysfs shows it."""
    said = {"address": f"{address}\n", "addr_assign_type": f"{kind}\n", "uevent": f"INTERFACE={name}\n{more}"}
    said |= {"device/uevent": hardware} if hardware else {}
    return {f"{NET}{name}/{file}": text for file, text in said.items()}


LAN = card("enp0s31f6", "3c:ec:ef:01:02:03", ONBOARD)


def test_a_pi_is_the_same_board_whichever_file_tells_its_serial_number() -> None:
    serial = "10000000a1b2c3d4"
    tree = board({"/proc/device-tree/serial-number": serial + "\0"}, CARD, LAN)
    old = board({"/proc/cpuinfo": f"processor\t: 0\nHardware\t: BCM2711\nSerial\t\t: {serial}\n"}, CARD)
    assert tree.identity == old.identity
    assert (tree.identity_from, old.identity_from) == ("/proc/device-tree/serial-number", "/proc/cpuinfo")


@pytest.mark.parametrize(
    "serial",
    ["0000000000000000", "0", "00000001", "FFFFFFFF", "0123456789ABCDEF", "12345678", "To be filled by O.E.M.",
     "Default string", "Not Specified", "unknown", "None", "", "0x0"],
)  # fmt: skip
def test_a_serial_number_that_every_board_has_names_none(serial: str) -> None:
    found = board({"/proc/device-tree/serial-number": serial, "/proc/cpuinfo": f"Serial : {serial}\n"}, CARD)
    assert found.identity_from == "/etc/machine-id"
    assert found.identity == board(CARD).identity


def test_a_cloned_card_does_not_make_two_boards_one() -> None:
    one = board(CARD, card("eth0", "9a:11:22:33:44:55", TREE))
    two = board(CARD, card("eth0", "9a:11:22:33:44:56", TREE))
    assert one.identity != two.identity
    assert one.identity_from == "/sys/class/net/eth0/address"


def test_a_machine_that_was_installed_anew_or_renamed_its_interface_is_the_same() -> None:
    before = board(CARD, LAN)
    after = board({"/etc/machine-id": "ffffffffffffffffffffffffffffff00\n"}, card("lan0", "3c:ec:ef:01:02:03", ONBOARD))
    assert before.identity == after.identity
    assert before.identity_from == "/sys/class/net/enp0s31f6/address"


@pytest.mark.parametrize(
    "other",
    [
        card("enx00", "00:00:c9:01:02:03", "DEVTYPE=usb_interface\nDRIVER=ax88179_178a\nPRODUCT=b95/1790/100\n"),
        card("enp63s0", "00:1b:21:01:02:03", ONBOARD.replace("0000:00:1f.6", "0000:3f:00.0")),
        card("wlp2s0", "00:00:48:00:00:01", ONBOARD.replace("1f.6", "02.0"), more="DEVTYPE=wlan\n"),
        card("eno2", "00:00:48:00:00:02", ONBOARD.replace("1f.6", "02.1"), kind="3"),
        card("eno3", "00:00:48:00:00:03", ONBOARD.replace("1f.6", "02.2"), kind="1"),
        card("br0", "00:00:48:00:00:04", "", more="DEVTYPE=bridge\n"),
        card("lo", "00:00:00:00:00:00", ""),
        card("docker0", "02:42:00:00:00:01", "", kind="3"),
        card("eth9", "00:00:00:00:00:00", ONBOARD.replace("1f.6", "02.3")),
        card("ib0", "80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01", ONBOARD.replace("1f.6", "02.4")),
    ],
    ids=["usb", "dock", "wifi", "set", "random", "bridge", "loopback", "container", "zero", "infiniband"],
)
def test_what_is_plugged_in_or_made_by_software_does_not_name_the_board(other: dict[str, str]) -> None:
    assert board(CARD, LAN, other).identity == board(CARD, LAN).identity


@pytest.mark.parametrize(
    ("address", "hardware"),
    [("52:54:00:12:34:56", ONBOARD), ("02:fc:00:00:00:01", "DRIVER=virtio_net\nMODALIAS=virtio:d00000001v00001AF4\n")],
)
def test_an_address_that_a_hypervisor_makes_up_names_nothing(address: str, hardware: str) -> None:
    assert board(CARD, card("eth0", address, hardware)).identity_from == "/etc/machine-id"


def test_the_identity_does_not_depend_on_who_reads() -> None:
    dmi = {"/sys/class/dmi/id/product_uuid": "4c4c4544-0042", "/sys/class/dmi/id/board_serial": "BSS-0123456789"}
    assert board(CARD, LAN, dmi).identity == board(CARD, LAN, denied=tuple(dmi)).identity


def test_without_any_mark_processor_and_host_name_are_all_there_is() -> None:
    assert board({"/etc/machine-id": "uninitialized\n"}).identity_from == "cpu and host name"
