"""What every target of the laboratory is to a test: a name that ssh knows, and a way to end it.

A target is reached with OpenSSH's own configuration, in a file of the test's own: $MELTBENCH_SSH_CONFIG names that file
to meltbench. Neither the user's keys, his known hosts nor his agent come into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ADMIN = "/usr/local/sbin:/usr/sbin:/sbin"
HERE = Path(__file__).parent


def lab_folder() -> Path:
    """Where setup_lab.py keeps what it made; the test is skipped where it was never called."""
    named = os.environ.get("MELTBENCH_LAB")
    if not named or not Path(named).is_dir():
        pytest.skip("no laboratory: MELTBENCH_LAB names no folder that tests/lab/setup_lab.py made")
    return Path(named)


@contextlib.contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Among all processes of this machine: test files run side by side."""
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def artefact(make: Callable[[Path], Path]) -> Path:
    """What lab_images makes, made now where it is not there; the test is skipped where that cannot be."""
    lab = lab_folder()
    try:
        with one_at_a_time(lab / "lock"):
            return make(lab)
    except (RuntimeError, OSError) as error:
        pytest.skip(f"this target cannot be made here: {error}")


def which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:{ADMIN}")


def need(*programs: str) -> None:
    """Skip the test unless it is root's, and these programs are installed."""
    if os.geteuid() != 0:
        pytest.skip("a target has namespaces of its own, which root alone may make")
    for program in programs:
        if which(program) is None:
            pytest.skip(f"no {program} on this machine: tests/lab/setup_lab.py installs it")


def sh(*words: str | Path) -> str:
    """Run a program of this machine; what it printed."""
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:{ADMIN}"}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr or done.stdout}")
    return done.stdout


def until(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.02)


@dataclass
class Keys:
    """A client's key, and ssh's configuration file with the targets that it may go to."""

    folder: Path
    hosts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.identity = keygen(self.folder / "identity")
        self.config = self.folder / "config"
        self.known = self.folder / "known_hosts"
        self.known.touch()

    def add(self, name: str, address: str, port: int, user: str, host_key: Path, *more: str) -> None:
        """Make a target known by its name; of the same name, another."""
        lines = [f"Host {name}", f"HostName {address}", f"Port {port}", f"User {user}", f"HostKeyAlias {name}", *more]
        common = [
            *(f"IdentityFile {self.identity}", "IdentitiesOnly yes", "IdentityAgent none"),
            *(f"UserKnownHostsFile {self.known}", "GlobalKnownHostsFile none", "StrictHostKeyChecking yes"),
        ]
        self.hosts[name] = "\n    ".join([*lines, *common])
        self.config.write_text("\n".join(self.hosts.values()) + "\n")
        self.trust(name, host_key)

    def move(self, name: str, address: str) -> None:
        """Give a target another address; its key stays."""
        self.hosts[name] = re.sub(r"HostName \S+", f"HostName {address}", self.hosts[name])
        self.config.write_text("\n".join(self.hosts.values()) + "\n")

    def trust(self, name: str, host_key: Path) -> None:
        others = [line for line in self.known.read_text().splitlines() if line.split(" ")[0] != name]
        key = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
        self.known.write_text("\n".join([*others, f"{name} {key}"]) + "\n")


def keygen(path: Path) -> Path:
    """A new ed25519 key at ``path``, its public half beside it."""
    for old in (path, path.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", path)
    return path


@dataclass
class Target:
    """A machine to reach by SSH. ``name``: its alias in the file ``config_path``; ``home``: the user's folder there."""

    name: str
    user: str
    home: str
    keys: Keys

    @property
    def address(self) -> str:
        """What ``--ssh`` is given."""
        return f"{self.user}@{self.name}"

    @property
    def config_path(self) -> Path:
        return self.keys.config

    @property
    def environment(self) -> dict[str, str]:
        """What tells meltbench of it."""
        return {"MELTBENCH_SSH_CONFIG": str(self.config_path)}

    def argv(self, *words: str, user: str | None = None) -> list[str]:
        return ["ssh", "-F", str(self.config_path), "-o", "BatchMode=yes", "-l", user or self.user, self.name, *words]

    def try_ssh(self, command: str, user: str | None = None, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        argv = self.argv(command, user=user)
        return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL)

    def ssh(self, command: str, user: str | None = None, seconds: float = 60) -> str:
        """What a command printed there, by OpenSSH's own client; it must end well."""
        done = self.try_ssh(command, user, seconds)
        assert done.returncode == 0, f"{command!r} on {self.name}: {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def boot_id(self, seconds: float = 60) -> str:
        """Empty where it does not answer so soon."""
        try:
            return self.try_ssh("cat /proc/sys/kernel/random/boot_id", seconds=seconds).stdout.strip()
        except subprocess.TimeoutExpired:
            return ""

    def ready(self) -> None:
        """Wait until it answers."""
        until(lambda: self.boot_id(seconds=30), f"{self.name} to answer", 120)


USERS = """root:x:0:0:root:/root:/bin/sh
sshd:x:104:65534::/run/sshd:/bin/false
{user}:x:1000:1000::/home/{user}:/bin/sh
"""
SSHD = """Port 22
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
UseDNS no
Subsystem sftp /usr/lib/openssh/sftp-server
"""
INITTAB = "::sysinit:/etc/rc\n::respawn:/usr/sbin/sshd -D -E /var/log/sshd\n"
RC = """#!/bin/sh
mkdir -p /run/sshd
ip link set lo up
hostname > /etc/hostname
[ ! -x /etc/rc.board ] || /etc/rc.board
"""


def layer(folder: Path, user: str, keys: Keys, files: dict[str, str] | None = None, sshd: str = "") -> Path:
    """The files that make a root file system a machine of its own: its users, its keys, its programs.

    Of ``files``, text by path below the root, those that begin with #! can be run.
    """
    for place in ("etc/ssh", "root", f"home/{user}", "var/empty"):
        (folder / place).mkdir(parents=True)
    os.chown(folder / f"home/{user}", 1000, 1000)
    keygen(folder / "etc/ssh/host_key")
    texts = {
        "etc/passwd": USERS.format(user=user),
        "etc/group": f"root:x:0:\nvideo:x:44:{user}\nnogroup:x:65534:\n{user}:x:1000:\n",
        "etc/shadow": f"root:*:19000::::::\n{user}:*:19000::::::\n",
        "etc/ssh/authorized_keys": keys.identity.with_suffix(".pub").read_text(),
        "etc/ssh/sshd_config": SSHD + sshd,
        "etc/inittab": INITTAB,
        "etc/rc": RC,
        "etc/machine-id": f"{uuid.uuid4().hex}\n",
        "etc/os-release": 'PRETTY_NAME="a made machine of the laboratory"\n',
        **(files or {}),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755 if text.startswith("#!") else 0o644)
    return folder


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def listens(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex((address, port)) == 0


def answers(address: str, port: int) -> bool:
    """Whether an sshd greets there."""
    try:
        with socket.create_connection((address, port), 1) as link:
            link.settimeout(1)
            return link.recv(4) == b"SSH-"
    except OSError:
        return False
