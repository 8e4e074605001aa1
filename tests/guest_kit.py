"""Machines with a kernel of their own, emulated by qemu: their own clock, reboot, disk and network card."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import lab_images
from room import dies_with_parent
from targets_kit import INITTAB, Keys, Target, answers, artefact, free_port, layer, need, sh, until

RC = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mkdir -p /dev/pts; mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=755 run /run; mount -t tmpfs -o mode=1777 tmp /tmp; mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/sshd; hostname lab-guest
echo +memory > /sys/fs/cgroup/cgroup.subtree_control  # as systemd does
[ -c /dev/ttyAMA0 ] || mknod -m 666 /dev/ttyAMA0 c 204 64
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
"""
FILLER = "/var/filler"
SSH_PORT = 22
BOOT_S = 240  # 6 s on a machine that has nothing else to do
# By architecture: qemu's program and kind of machine, and the serial line that is the kernel's console.
_KINDS = {"arm64": ("qemu-system-aarch64", "virt", "ttyAMA0"), "amd64": ("qemu-system-x86_64", "q35", "ttyS0")}


@dataclass(frozen=True)
class Plan:
    """A guest to be. ``with_phone``: its disk has the root file system of a phone too. ``rc``: what it does as it
    starts, beside RC; ``inittab``: what it keeps running, beside sshd; ``ports``: of it, that this machine can reach;
    ``more``: puts further files into the folder that is given, a part of its disk.
    """

    arch: str = "arm64"
    cpu: str = "cortex-a76"
    with_phone: bool = False
    rc: str = ""
    inittab: str = ""
    ports: tuple[int, ...] = ()
    more: Callable[[Path], object] = lambda _: None


@dataclass
class Guest(Target):
    """A running guest. What it does to itself, it does as root over SSH; what is done to it, through qemu's monitor.

    ``ports``: those of this machine by those of it that they lead to.
    """

    qemu: subprocess.Popen[str] = field(kw_only=True)
    ports: Mapping[int, int] = field(kw_only=True)
    console: Path = field(kw_only=True)

    def monitor(self, command: str) -> None:
        assert self.qemu.stdin is not None
        self.qemu.stdin.write(f"{command}\n")
        self.qemu.stdin.flush()

    def reboot(self) -> None:
        """Have its kernel boot again at once."""
        was = self.boot_id()
        self.ssh("(sleep 0.3; echo b > /proc/sysrq-trigger) < /dev/null > /dev/null 2>&1 &", user="root")
        self.rebooted(was)

    def kill_sshd(self) -> None:
        """Kill every process of its sshd. What started under one goes on, and a new one listens soon after."""
        self.try_ssh("killall -9 sshd", user="root")

    def crash(self) -> None:
        """Reset the processor: nothing is written back, and nobody is told. It boots again."""
        was = self.boot_id()
        self.monitor("system_reset")
        self.rebooted(was)

    def rebooted(self, was: str) -> None:
        """Wait until it answers with another boot id than that."""
        # A question that was under way when it went down is never answered, for qemu holds the connection.
        until(lambda: self.greets() and self.boot_id(seconds=12) not in ("", was), f"{self.name} to boot again", BOOT_S)

    def greets(self) -> bool:
        return answers("127.0.0.1", self.ports[SSH_PORT])

    def said(self) -> str:
        """What came over its serial line, ``/dev/ttyAMA0``: anybody in it may write there, and no link is asked."""
        return self.console.read_text(errors="replace")

    def cut(self) -> None:
        """Take the carrier of its network card away. What is connected stays so, for qemu stands between."""
        self.monitor("set_link net off")

    def restore(self) -> None:
        self.monitor("set_link net on")

    def netem(self, rule: str) -> None:
        """What leaves its card goes through the kernel's netem, as ``delay 200ms loss 5%``; an empty rule ends that."""
        self.ssh(f"tc qdisc replace dev eth0 root {f'netem {rule}' if rule else 'fq_codel'}", user="root")

    def step_clock(self, seconds: int) -> None:
        """Set its wall clock forward (or back) by so much."""
        self.ssh(f"date -s @$(($(date +%s) + {seconds}))", user="root")

    def fill_disk(self, leave_bytes: int) -> None:
        """Fill its disk up to so many bytes."""
        free = "$(df -P -k / | awk 'NR == 2 {print $4}')"
        self.ssh(f"fallocate -l $(({free} * 1024 - {leave_bytes})) {FILLER}", user="root")

    def free_disk(self) -> None:
        self.ssh(f"rm -f {FILLER}", user="root")


def _seed(folder: Path, user: str, keys: Keys, plan: Plan) -> Path:
    """What makes the disk a machine of its own, as the archive that its first boot unpacks."""
    above = layer(folder / "layer", user, keys, {"etc/rc": RC + plan.rc, "etc/inittab": INITTAB + plan.inittab})
    plan.more(above)
    with tarfile.open(folder / "seed.tar", "w") as archive:
        for path in sorted(above.rglob("*")):
            archive.add(path, str(path.relative_to(above)), recursive=False)
    return above / "etc/ssh/host_key"


def _qemu(folder: Path, plan: Plan, ports: Mapping[int, int]) -> list[str]:
    kernel = artefact(lambda lab: lab_images.kernel(lab, plan.arch))
    image = artefact(lambda lab: lab_images.disk(lab, plan.arch, with_phone=plan.with_phone))
    program, kind, console = _KINDS[plan.arch]
    disk = folder / "disk.qcow2"
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", disk)
    machine = ["-M", kind, "-cpu", plan.cpu, "-smp", "2", "-m", "1024", "-display", "none", "-nodefaults"]
    boot = ["-kernel", str(kernel / "vmlinuz"), "-initrd", str(kernel / "initramfs")]
    boot += ["-append", f"console={console} quiet"]
    drives = ["-drive", f"file={disk},if=virtio,format=qcow2,cache=unsafe"]
    drives += ["-drive", f"file={folder / 'seed.tar'},if=virtio,format=raw,readonly=on"]
    # It can be reached by some ports of this machine, and reach nothing itself.
    forwarded = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in ports.items())
    network = ["-netdev", f"user,id=net,restrict=on{forwarded}"]
    network += ["-device", "virtio-net-pci,netdev=net,romfile="]
    serial = ["-serial", f"file:{folder / 'console'}", "-monitor", "stdio"]
    return [program, *machine, *boot, *drives, *network, *serial]


G = TypeVar("G", bound=Guest)


@contextmanager
def booted(folder: Path, keys: Keys, plan: Plan, kind: type[G], user: str = "lab", **more: object) -> Iterator[G]:
    """A guest that has booted and answers; it is gone afterwards. ``more``: what its kind has beside a Guest."""
    need(_KINDS[plan.arch][0], "qemu-img", "ssh")
    folder.mkdir(parents=True, exist_ok=True)
    ports = {port: free_port() for port in (SSH_PORT, *plan.ports)}
    argv, host_key = _qemu(folder, plan, ports), _seed(folder, "lab", keys, plan)
    running = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=dies_with_parent,
    )

    try:
        keys.add("lab-guest", "127.0.0.1", ports[SSH_PORT], user, host_key)
        own = {"qemu": running, "ports": ports, "console": folder / "console", **more}
        home = "/root" if user == "root" else f"/home/{user}"
        guest = kind("lab-guest", user, home, keys, **own)

        def up() -> bool:
            if running.poll() is not None:
                raise RuntimeError(f"qemu ended: {running.communicate()[1][-500:]}")
            return guest.greets()

        until(up, "the guest to boot", BOOT_S)
        guest.ready()
        yield guest
    finally:
        running.kill()
        running.communicate()


@contextmanager
def arm64_guest(folder: Path, keys: Keys, cpu: str = "cortex-a76") -> Iterator[Guest]:
    """An arm64 machine that is reached by SSH."""
    with booted(folder, keys, Plan(cpu=cpu), Guest) as guest:
        yield guest
