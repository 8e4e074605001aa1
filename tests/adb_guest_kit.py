"""An arm64 phone with a kernel of its own: a guest whose adbd, mksh and toybox live in a root file system of their own.

It is reached by adb over the network, through a port of this machine. What is done to it and what is looked up behind
adb's back goes over the guest's sshd, which the phone does not see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import phone_files
from adb_kit import ByAdb, Server
from guest_kit import Guest, Plan, booted
from lab_images import PHONE_ROOT
from targets_kit import HERE, Keys

SERIAL = "F9A72D0C51E3"  # of its hardware
ROOT = f"/{PHONE_ROOT}"
OURS = f"{ROOT}/data/local/tmp/.meltbench"  # as the guest sees it
# Of a phone whose big cores are Cortex-A72, which the guest's are.
PROPERTIES = {
    "ro.product.manufacturer": "HUAWEI",
    "ro.product.model": "EVA-L09",
    "ro.product.device": "HWEVA",
    "ro.product.name": "EVA-L09",
    "ro.product.brand": "HUAWEI",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.board.platform": "hi3650",
    "ro.build.version.release": "8.0.0",
    "ro.build.version.sdk": "26",
    "ro.build.id": "HUAWEIEVA-L09",
    "ro.build.version.incremental": "540",
    "ro.build.type": "user",
    "ro.build.fingerprint": "HUAWEI/EVA-L09/HWEVA:8.0.0/HUAWEIEVA-L09/540:user/release-keys",
    "ro.debuggable": "0",
    "ro.serialno": SERIAL,
    "ro.boot.serialno": SERIAL,
}
_PROGRAMS = ("getprop", "settings")  # of the made ones: what they answer from lies on the disk
RC = f"""mount -t proc proc {ROOT}/proc; mount -t sysfs -o ro sysfs {ROOT}/sys; mount -t devtmpfs dev {ROOT}/dev
mkdir {ROOT}/dev/pts; mount -t devpts -o ptmxmode=666 devpts {ROOT}/dev/pts
"""
INITTAB = f"::respawn:chroot {ROOT} /lab/start\n"


def phone(above: Path, adbd: str = phone_files.LISTENS) -> Path:
    """The files that make the phone on a guest's disk one of its own, in the folder that is returned."""
    texts = {f"system/bin/{name}": (HERE / "made_android/bin" / name).read_text() for name in _PROGRAMS}
    texts |= {".made/properties": "".join(f"{name}={value}\n" for name, value in PROPERTIES.items())}
    made = phone_files.root(above / PHONE_ROOT, texts, adbd)
    phone_files.settings(made / ".made")
    return made


@dataclass
class AdbGuest(ByAdb, Guest):
    """A running phone. ``ssh`` is root's, on the guest around it: no traffic of adb."""

    server: Server = field(kw_only=True)

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.ports[phone_files.PORT]}"

    @property
    def environment(self) -> dict[str, str]:
        """What tells meltbench of its server."""
        return self.server.environment

    def kill_adbd(self) -> None:
        """Kill it and what serves its connections. It is started again a second after."""
        self.ssh("killall -9 adbd")


@contextmanager
def adb_guest(folder: Path, keys: Keys, server: Server, cpu: str = "cortex-a72") -> Iterator[AdbGuest]:
    """A phone that has booted and that the server is connected to; it is gone afterwards."""
    ports = (phone_files.PORT,)
    plan = Plan(cpu=cpu, with_phone=True, rc=RC, inittab=INITTAB, ports=ports, more=phone)
    with booted(folder, keys, plan, AdbGuest, "root", server=server) as guest:
        guest.connect()
        try:
            yield guest
        finally:
            server.adb("disconnect", guest.serial)
