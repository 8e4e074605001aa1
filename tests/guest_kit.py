"""An arm64 machine with a kernel of its own, emulated by qemu: its own clock, reboot, disk and network card."""

from __future__ import annotations

import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import lab_images
from room import dies_with_parent
from targets_kit import Keys, Target, answers, artefact, layer, need, sh, until

RC = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mkdir -p /dev/pts; mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=755 run /run; mount -t tmpfs -o mode=1777 tmp /tmp; mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/sshd; hostname lab-guest
echo +memory > /sys/fs/cgroup/cgroup.subtree_control  # as systemd does
[ -c /dev/ttyAMA0 ] || mknod -m 666 /dev/ttyAMA0 c 204 64
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
"""
FILLER = "/var/filler"
BOOT_S = 240  # 6 s on a machine that has nothing else to do


@dataclass
class Guest(Target):
    """A running guest. What it does to itself, it does as root over SSH; what is done to it, through qemu's monitor."""

    qemu: subprocess.Popen[str] = field(kw_only=True)
    port: int = field(kw_only=True)
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
        return answers("127.0.0.1", self.port)

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


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _seed(folder: Path, user: str, keys: Keys) -> Path:
    """What makes the disk a machine of its own, as the archive that its first boot unpacks."""
    above = layer(folder / "layer", user, keys, {"etc/rc": RC})
    with tarfile.open(folder / "seed.tar", "w") as archive:
        for path in sorted(above.rglob("*")):
            archive.add(path, str(path.relative_to(above)), recursive=False)
    return above / "etc/ssh/host_key"


def _qemu(folder: Path, image: Path, cpu: str, port: int) -> list[str]:
    disk = folder / "disk.qcow2"
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", image / "disk.img", "-F", "raw", disk)
    machine = ["-M", "virt", "-cpu", cpu, "-smp", "2", "-m", "1024", "-display", "none", "-nodefaults"]
    boot = ["-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initramfs"), "-append", "console=ttyAMA0 quiet"]
    drives = ["-drive", f"file={disk},if=virtio,format=qcow2,cache=unsafe"]
    drives += ["-drive", f"file={folder / 'seed.tar'},if=virtio,format=raw,readonly=on"]
    # It can be reached by one port of this machine, and reach nothing itself.
    network = ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
    network += ["-device", "virtio-net-pci,netdev=net,romfile="]
    serial = ["-serial", f"file:{folder / 'console'}", "-monitor", "stdio"]
    return ["qemu-system-aarch64", *machine, *boot, *drives, *network, *serial]


@contextmanager
def arm64_guest(folder: Path, keys: Keys, cpu: str = "cortex-a76") -> Iterator[Guest]:
    """A guest that has booted and answers; it is gone afterwards."""
    need("qemu-system-aarch64", "qemu-img", "ssh")
    image = artefact(lab_images.guest)
    folder.mkdir(parents=True, exist_ok=True)
    host_key, port = _seed(folder, "lab", keys), _free_port()
    running = subprocess.Popen(
        _qemu(folder, image, cpu, port),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=dies_with_parent,
    )

    try:
        keys.add("lab-guest", "127.0.0.1", port, "lab", host_key)
        more = {"qemu": running, "port": port, "console": folder / "console"}
        guest = Guest("lab-guest", "lab", "/home/lab", keys, **more)

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
