"""Rooms: targets that are namespaces of this machine, with a root file system and a network card of their own.

A room starts in a second and is gone with the process that started it. room.py says what of it is its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import lab_images
from targets_kit import HERE, Keys, Target, answers, artefact, keygen, layer, need, sh, until, which
from wire_kit import Wire


@dataclass(frozen=True)
class Plan:
    """What room.py is told. ``layers``: below the room's own disk, the topmost first; ``made``: a folder with the made
    parts of /proc and /sys, if any; ``binds``: folders of this machine and where they are seen in the room; ``init``:
    the busybox that is its first process."""

    stage: str
    layers: list[str]
    made: str
    hostname: str
    disk_bytes: int = 2 << 30
    emulate: str = ""
    binds: list[tuple[str, str]] = field(default_factory=list)
    init: str = "/bin/busybox"


class Room:
    """A started room. It ends with ``stop``, and with the process that started it."""

    def __init__(self, plan: Plan) -> None:
        Path(plan.stage).mkdir(parents=True)
        argv = [sys.executable, str(HERE / "room.py"), json.dumps(asdict(plan))]
        self.plan, self._one = plan, threading.Lock()
        self._made = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            self.pid = int(self._answer())
        except BaseException:
            self.stop()
            raise

    def _answer(self) -> str:
        assert self._made.stdout is not None
        line = self._made.stdout.readline().strip()
        if not line:
            assert self._made.stderr is not None
            raise RuntimeError(f"the room ended: {self._made.stderr.read().strip()[-500:]}")
        return line

    def tell(self, command: str) -> str:
        assert self._made.stdin is not None
        with self._one:
            self._made.stdin.write(f"{command}\n")
            self._made.stdin.flush()
            return self._answer()

    def boot(self) -> None:
        """Start it, again if it runs: disk and network stay, processes, /run and /tmp do not."""
        self.pid = int(self.tell("boot"))

    def halt(self) -> None:
        """Cut its power."""
        self.tell("halt")

    @property
    def net(self) -> str:
        """Its network namespace, which outlives a reboot."""
        return f"/proc/{self._made.pid}/ns/net"

    def path(self, name: str) -> Path:
        """A path of the room as root of this machine reaches it."""
        return Path(f"/proc/{self.pid}/root") / name.lstrip("/")

    def ip(self, *words: str) -> str:
        return sh("nsenter", f"--net={self.net}", "ip", *words)

    def processes(self) -> dict[int, str]:
        """Every process of the room: pid on this machine, and command line."""
        if self._made.poll() is not None:
            self._answer()
        mine, found = os.readlink(f"/proc/{self.pid}/ns/pid"), {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                if command and os.readlink(folder / "ns/pid") == mine:  # one that has ended has no command line
                    found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
        return found

    def fill_disk(self, leave_bytes: int) -> None:
        """Let its disk be full but for so many bytes."""
        disk = os.statvfs(self.path("/"))
        self.tell(f"disk {(disk.f_blocks - disk.f_bfree) * disk.f_frsize + leave_bytes}")

    def free_disk(self) -> None:
        self.tell(f"disk {self.plan.disk_bytes}")

    def stop(self) -> None:
        """End it. With its first process the kernel ends all others, and takes mounts and network away with them."""
        assert self._made.stdin is not None
        self._made.stdin.close()
        try:
            self._made.wait(20)
        except subprocess.TimeoutExpired:
            self._made.kill()
            self._made.wait()
        for stream in (self._made.stdout, self._made.stderr):
            assert stream is not None
            stream.close()


@dataclass
class RoomTarget(Target):
    """A target that is a room; ``wire``: the way to it."""

    room: Room = field(kw_only=True)
    wire: Wire = field(kw_only=True)

    def reboot(self) -> None:
        """Cut its power and start it again; it answers when this returns."""
        self.room.boot()
        until(self.greets, f"{self.name} to boot")

    def greets(self) -> bool:
        return answers(self.wire.address, 22)

    def kill_sshd(self) -> None:
        """Kill every process of its sshd. What started under one goes on, and a new one listens soon after."""
        for pid, command in self.room.processes().items():
            if "sshd" in command:
                with suppress(ProcessLookupError):  # one that served a connection ends with it
                    os.kill(pid, signal.SIGKILL)

    def change_host_key(self) -> Path:
        """Give its sshd another key, as a system that was installed anew has; where the key lies."""
        key = keygen(self.keys.folder / f"{self.name}-{uuid.uuid4().hex}")
        for end in ("", ".pub"):
            self.room.path(f"/etc/ssh/host_key{end}").write_bytes(Path(f"{key}{end}").read_bytes())
        for pid, command in self.room.processes().items():
            if "[listener]" in command:
                os.kill(pid, signal.SIGHUP)
        return key

    def fill_disk(self, leave_bytes: int) -> None:
        self.room.fill_disk(leave_bytes)

    def free_disk(self) -> None:
        self.room.free_disk()


@contextmanager
def started(plan: Plan, user: str, keys: Keys, name: str, host_key: Path) -> Iterator[RoomTarget]:
    """A room that has booted and answers by that name; it is gone afterwards."""
    need("ip", "nft", "ssh", "nsenter")
    room = Room(plan)
    try:
        wire = Wire(room)
        try:
            keys.add(name, wire.address, 22, user, host_key)
            target = RoomTarget(name, user, f"/home/{user}", keys, room=room, wire=wire)
            until(target.greets, f"{name} to boot")
            yield target
        finally:
            wire.close()
    finally:
        room.stop()


@contextmanager
def plain_room(folder: Path, keys: Keys, name: str = "lab-plain", disk_bytes: int = 2 << 30) -> Iterator[RoomTarget]:
    """A room with this machine's architecture and nothing but sshd and a shell."""
    root = artefact(lambda lab: lab_images.rootfs(lab, lab_images.native()))
    above = layer(folder / "layer", "lab", keys)
    plan = Plan(str(folder / "stage"), [str(above), str(root)], str(folder / "made"), name, disk_bytes)
    with started(plan, "lab", keys, name, above / "etc/ssh/host_key") as target:
        yield target


# What the kernel tells of these processors: the room's own would tell of this machine's.
_CPU = """processor\t: {n}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: {variant}
CPU part\t: {part}
CPU revision\t: {revision}

"""
_A72 = "fp asimd evtstrm crc32 cpuid"  # of a Raspberry Pi 4
_A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"  # of a 5
_CPUS = {
    "cortex-a72": {"features": _A72, "variant": "0x0", "part": "0xd08", "revision": 3},
    "cortex-a76": {"features": _A76, "variant": "0x4", "part": "0xd0b", "revision": 1},
}


@contextmanager
def arm64_rootfs(folder: Path, keys: Keys, cpu: str = "cortex-a76") -> Iterator[RoomTarget]:
    """A room whose every program is for arm64; qemu's user emulation runs them as if on that processor.

    A cortex-a72 knows neither dotprod nor half precision: a program that uses them dies of an illegal instruction.
    """
    need("qemu-aarch64-static")
    root = artefact(lambda lab: lab_images.rootfs(lab, "arm64"))
    above = layer(folder / "layer", "lab", keys, sshd=f"SetEnv QEMU_CPU={cpu}\n")
    (folder / "made/proc").mkdir(parents=True)
    listed = (_CPU.format(n=n, **_CPUS[cpu]) for n in range(os.cpu_count() or 1))
    (folder / "made/proc/cpuinfo").write_text("".join(listed))
    plan = Plan(str(folder / "stage"), [str(above), str(root)], str(folder / "made"), "lab-arm64")
    emulated = replace(plan, emulate=str(which("qemu-aarch64-static")))
    with started(emulated, "lab", keys, "lab-arm64", above / "etc/ssh/host_key") as target:
        yield target
