"""A machine of its own within this one: the program that makes a room's namespaces, and boots a root file system there.

    python room.py SPEC        SPEC: JSON of rooms_kit.Plan

It needs root. A room has its own mounts, processes, network, host name, clock since boot and boot id; kernel, processor
and wall clock are the machine's. Its root is an overlay: the given layers below, a file system in memory above, which
outlives a reboot of the room and is as large as its disk is said to be. Where ``emulate`` names an emulator, the room
has a user namespace, and so its own table of how programs are started (binfmt_misc): nothing of it is seen outside.

Each line of stdin is a command: ``boot`` (again), ``halt``, ``disk BYTES``. Each is answered by a line: the pid of
the room's first process, ``halted``, ``resized``. At the end of stdin the room ends, and the kernel takes all of it
back: there is nothing to unmount and nothing to delete.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWTIME, _NEWNS, _NEWUTS, _NEWIPC = 0x80, 0x20000, 0x4000000, 0x8000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_BIND, _REC, _PRIVATE, _REMOUNT, _DETACH = 0x1000, 0x4000, 0x40000, 0x20, 2
_PR_SET_PDEATHSIG, _PIVOT_ROOT = 1, {"x86_64": 155}.get(os.uname().machine, 41)
BOOTED_S = 5  # what the clock since boot shows when the room's first process starts
# The kernel's own file systems stand there where made ones stand at /proc and /sys.
REAL = ".kernel"
PIDS = 2048  # of a room whose /proc is made: each has a link there beforehand
# binfmt_misc: ELF, 64 bits, little endian, executable or shared, machine 183. P: argv[0] is kept; F: the interpreter is
# opened at once, from the outside.
_ARM64 = (
    rb":arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    rb":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:%s:PF"
)


def _did(answer: int, what: str) -> None:
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    _did(_LIBC.unshare(flags), "unshare")


def mount(source: str | Path, target: str | Path, kind: str = "none", flags: int = 0, options: str = "") -> None:
    words = [str(word).encode() for word in (source, target, kind)]
    _did(_LIBC.mount(*words, ctypes.c_ulong(flags), options.encode()), f"mount {source} on {target}")


def bind(source: str | Path, target: Path) -> None:
    """``source`` seen at ``target`` too, which is made where it is not there."""
    if Path(source).is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(source, target, flags=_BIND | _REC)


def dies_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def own_users() -> None:
    """A user namespace with everybody of this machine in it under his own number."""
    ready, parent = os.pipe(), os.getpid()
    helper = os.fork()
    if helper == 0:  # stays outside, for only from there may all numbers be given
        os.read(ready[0], 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{parent}/{name}").write_text("0 0 65536\n")
        os._exit(0)
    unshare(_NEWUSER)
    os.write(ready[1], b"x")
    if os.waitpid(helper, 0)[1]:
        raise RuntimeError("the users of the room could not be given")
    os.setgid(0)
    os.setuid(0)


class Room:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan, self.stage = plan, Path(plan["stage"])
        self.holder = self.pid = 0
        if plan["emulate"]:
            own_users()
        unshare(_NEWNS | _NEWUTS | _NEWIPC | _NEWNET)
        mount("none", "/", flags=_REC | _PRIVATE)
        mount("disk", self.stage, "tmpfs", options=f"size={plan['disk_bytes']},mode=755")
        for name in ("upper", "work", "root"):
            (self.stage / name).mkdir()
        dirs = f"lowerdir={':'.join(plan['layers'])},upperdir={self.stage}/upper,workdir={self.stage}/work"
        options = dirs + (",userxattr" if plan["emulate"] else "")
        mount("overlay", self.stage / "root", "overlay", options=options)
        host = plan["hostname"].encode()
        _did(_LIBC.sethostname(host, len(host)), "sethostname")

    def boot(self) -> int:
        """Start the room's first process; its pid as this machine sees it. Its holder reaps it, and ends with it."""
        told = os.pipe()  # closed by a successful exec: what is in it but the pid is what went wrong
        self.holder = os.fork()
        if self.holder:
            os.close(told[1])
            with os.fdopen(told[0]) as answer:
                pid, _, wrong = answer.read().partition("\n")
            if wrong or not pid.isdigit():
                raise RuntimeError(f"the room did not boot: {wrong or pid}")
            self.pid = int(pid)
            return self.pid
        try:
            dies_with_parent()
            unshare(_NEWNS | _NEWPID | _NEWTIME)
            up_s = float(Path("/proc/uptime").read_text().split()[0])
            Path("/proc/self/timens_offsets").write_text(f"boottime {BOOTED_S - int(up_s)} 0\n")
            first = os.fork()
            if first == 0:
                dies_with_parent()
                self._furnish(self.stage / "root")
                self._start()
            os.write(told[1], b"%d\n" % first)
            os.close(told[1])
            os.waitpid(first, 0)
        finally:
            if (wrong := sys.exception()) is not None:
                os.write(told[1], f"\n{wrong!r}".encode())
            os._exit(0)

    def _furnish(self, root: Path) -> None:
        """The kernel's file systems of the room, and the made ones over them; then its root becomes the root."""
        own, made = root / REAL, Path(self.plan["made"])
        for name in ("proc", "sys"):
            (own / name).mkdir(parents=True, exist_ok=True)
        mount("proc", own / "proc", "proc")
        mount("sysfs", own / "sys", "sysfs")
        mount("/sys/fs/cgroup", own / "sys/fs/cgroup", flags=_BIND | _REC)
        boot_id = self.stage / "boot_id"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        mount(boot_id, own / "proc/sys/kernel/random/boot_id", flags=_BIND)
        if self.plan["emulate"]:
            mount("none", own / "proc/sys/fs/binfmt_misc", "binfmt_misc")
            if not (own / "proc/sys/fs/binfmt_misc/arm64").exists():  # the table outlives a boot
                (own / "proc/sys/fs/binfmt_misc/register").write_bytes(_ARM64 % self.plan["emulate"].encode())
        self._proc(root, made / "proc")
        bind(made / "sys" if (made / "sys").is_dir() else own / "sys", root / "sys")
        if (made / "sys/fs/cgroup").is_dir():
            mount(own / "sys/fs/cgroup", root / "sys/fs/cgroup", flags=_BIND | _REC)
        for source, target in self.plan["binds"]:
            bind(source, root / target.lstrip("/"))
        mount("dev", root / "dev", "tmpfs", options="mode=755,size=1m")
        for name in ("null", "zero", "full", "random", "urandom", "tty"):
            bind(f"/dev/{name}", root / "dev" / name)
        for name, kind, options in (("pts", "devpts", "newinstance,ptmxmode=666"), ("shm", "tmpfs", "mode=1777")):
            (root / "dev" / name).mkdir()
            mount(kind, root / "dev" / name, kind, options=options)
        (root / "dev/ptmx").symlink_to("pts/ptmx")
        for name, mode in (("run", "755"), ("tmp", "1777")):
            if (root / name).is_dir():  # a phone has neither
                mount(name, root / name, "tmpfs", options=f"mode={mode},size=64m")
        os.chdir(root)
        _did(_LIBC.syscall(_PIVOT_ROOT, b".", b"."), "pivot_root")
        _did(_LIBC.umount2(b".", _DETACH), "umount2")
        os.chdir("/")

    def _proc(self, root: Path, made: Path) -> None:
        """/proc. A name that procfs does not have can only be made beside its own: a folder of links to them all."""
        own = root / REAL / "proc"
        for path in made.iterdir() if made.is_dir() else ():
            if (own / path.name).exists():
                mount(path, own / path.name, flags=_BIND)
        new = [path for path in made.iterdir() if not (own / path.name).exists()] if made.is_dir() else []
        if not new:
            bind(own, root / "proc")
        else:
            # Numbers of processes are the room's own since Linux 6.14; before it this would be the whole machine's.
            if tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 14):
                raise OSError(errno.ENOSYS, "a made /proc needs Linux 6.14, where a room can have its own pid_max")
            (own / "sys/kernel/pid_max").write_text(f"{PIDS}\n")
            mount("proc", root / "proc", "tmpfs", options="mode=555,size=4m")
            names = {path.name for path in own.iterdir() if not path.name.isdigit()}
            for name in sorted(names | {str(pid) for pid in range(1, PIDS)}):
                (root / "proc" / name).symlink_to(f"/{REAL}/proc/{name}")
            for path in new:
                (root / "proc" / path.name).symlink_to(os.readlink(path))

    def _start(self) -> None:
        silent = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(silent, number)
        os.execve(self.plan["init"], ["init"], {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})

    def halt(self) -> None:
        """End every process of the room, as a cut of its power does: with its first process all others are killed."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.holder, 0)
            self.pid = 0

    def obey(self, line: str) -> str:
        word, _, rest = line.strip().partition(" ")
        if word == "disk":
            mount("disk", self.stage, "tmpfs", _REMOUNT, f"size={int(rest)}")
            return "resized"
        self.halt()
        return "halted" if word == "halt" else str(self.boot())

    def serve(self) -> None:
        try:
            print(self.boot(), flush=True)
            for line in sys.stdin:
                print(self.obey(line), flush=True)
        finally:
            self.halt()


if __name__ == "__main__":
    dies_with_parent()
    Room(json.loads(sys.argv[1])).serve()
