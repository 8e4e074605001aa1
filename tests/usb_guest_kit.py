"""A phone at a USB port, with no hardware: a guest whose kernel is at both ends of a cable that is made of software.

In the guest, adbd is the gadget's end (FunctionFS), a real adb server the host's (usbfs), and dummy_hcd the controllers
and the wire. This machine reaches that server through a port. The phone is that of adb_guest_kit.py, its adbd without a
network.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import adb_guest_kit
import adbutils
import lab_images
import pytest
from adb_guest_kit import ROOT, SERIAL
from adb_kit import ByAdb, Client
from guest_kit import Guest, Plan, booted
from targets_kit import HERE, Keys, until

from meltbench import paths
from meltbench.probe import build

SERVER_PORT = 5038
GADGET = "/sys/kernel/config/usb_gadget/phone"
_PORT = "/sys/bus/usb/devices/1-0:1.0/usb1-port1"
# Android's init does the like (its init.usb.configfs.rc); 18d1:4ee7 is a phone with USB debugging alone.
_RC = f"""mkdir -p /dev/bus; mount -o bind {ROOT}/dev/bus /dev/bus
mount -t configfs configfs /sys/kernel/config
mkdir -p {GADGET}/strings/0x409 {GADGET}/configs/b.1/strings/0x409 {GADGET}/functions/ffs.adb
cd {GADGET}
echo 0x18d1 > idVendor; echo 0x4ee7 > idProduct
echo {SERIAL} > strings/0x409/serialnumber; echo made > strings/0x409/manufacturer; echo phone > strings/0x409/product
echo adb > configs/b.1/strings/0x409/configuration
ln -s functions/ffs.adb configs/b.1/f1
mkdir -p {ROOT}/dev/usb-ffs/adb; mount -t functionfs -o uid=2000,gid=2000 adb {ROOT}/dev/usb-ffs/adb
"""
# The phone is at its socket once adbd has said what it is, and is not when adbd ends.
_SOCKET = f"""#!/bin/sh
while read udc < {GADGET}/UDC; do
  [ "$udc" ] || echo dummy_udc.0 > {GADGET}/UDC
  sleep 0.3
done 2> /dev/null
"""
_SERVER = f"""#!/bin/sh
export HOME=/root TMPDIR=/tmp ADB_MDNS=0 ADB_LOCAL_TRANSPORT_MAX_PORT=5553
exec /usr/local/bin/adb -a -P {SERVER_PORT} server nodaemon > /tmp/server.log 2>&1
"""
_INITTAB = adb_guest_kit.INITTAB + "::respawn:/etc/socket\n::respawn:/etc/server\n"
_PRELOAD = "bionic_threads"


def _more(above: Path) -> None:
    made = adb_guest_kit.phone(above, f"LD_PRELOAD=/lib/{_PRELOAD}.so") / "usr/lib"
    made.mkdir(parents=True)
    words = ("-target", "x86_64-linux-gnu", "-shared", "-fPIC", "-O1", "-o", f"{made}/{_PRELOAD}.so", "-ldl")
    build.zig_cc((*words, f"{HERE}/{_PRELOAD}.c"), paths.cache_dir() / "probe/zig")
    (above / "usr/local/bin").mkdir(parents=True)
    shutil.copy2(adbutils.adb_path(), above / "usr/local/bin/adb")
    for name, text in {"socket": _SOCKET, "server": _SERVER}.items():
        (above / "etc" / name).write_text(text)
        (above / "etc" / name).chmod(0o755)


@dataclass
class UsbGuest(ByAdb, Guest):
    """A running phone at a USB port. ``ssh`` is root's, on the guest around it: no traffic of adb."""

    server: Client = field(init=False)
    serial = SERIAL

    def __post_init__(self) -> None:
        self.server = Client(self.console.parent, self.ports[SERVER_PORT])

    def unplug(self) -> None:
        """Take the power from the port that it hangs at: its cable is pulled, as either end sees it."""
        self.ssh(f"echo 1 > {_PORT}/disable")

    def plug(self) -> None:
        """Put its cable in again."""
        self.ssh(f"echo 0 > {_PORT}/disable")

    def connect(self) -> None:
        """Wait until it answers."""
        until(self._answers, f"{SERIAL} to answer", 120)

    def _answers(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            return self.try_adb("shell", "echo ready", seconds=20).stdout.endswith("ready\n")
        return False


@contextmanager
def usb_guest(folder: Path, keys: Keys) -> Iterator[UsbGuest]:
    """A phone that has booted and that the server in its guest sees; it is gone afterwards."""
    if lab_images.native() != "amd64" or not build.zig_there():
        pytest.skip("a guest with a phone at its USB needs an x86-64 machine's adb, and the pinned ziglang")
    rc = adb_guest_kit.RC + _RC
    plan = Plan("amd64", "max", with_phone=True, rc=rc, inittab=_INITTAB, ports=(SERVER_PORT,), more=_more)
    with booted(folder, keys, plan, UsbGuest, "root") as guest:
        yield guest
