"""Real OpenSSH servers on loopback, each with a configuration, a port, a host key and a folder of its own.

`start_sshd` needs root, for sshd then logs a plain user in as it does on a device; `lab_user` makes that user once. The
user's home in a session is a folder of the test, and his search path holds a few programs of the machine and no Python.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from targets_kit import one_at_a_time

# What a small system has. No Python, no compiler.
PROGRAMS = (
    *("sh", "cat", "mkdir", "mv", "chmod", "wc", "rm", "echo", "printf", "sleep", "true", "false", "id", "ls", "head"),
    *("test", "env", "kill", "pwd", "df", "uname", "getconf", "dd", "touch", "stat", "ln", "tr", "seq", "nproc"),
)
USER = "meltlab"
_SHELLS = {"sh": "/bin/sh", "bash": "/bin/bash", "tcsh": "/usr/bin/tcsh", "fish": "/usr/bin/fish"}
_READY_S = 10.0


@dataclass
class Sshd:
    """A running server. ``address``: what a user would write; ``config_path``: the client's ssh_config for it."""

    address: str
    port: int
    folder: Path
    home: Path
    config_path: Path
    known_hosts: Path
    user_key: Path
    host_key: Path
    host_key_fingerprint: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The listener: its children, one and more a connection, are `family`."""
        return self.process.pid

    def family(self) -> list[int]:
        """The processes of its connections: sshd's own, and what runs under them, children after their parents."""
        return _descendants(self.pid)

    def connections(self) -> list[int]:
        """The processes of sshd itself that serve connections, with and without privileges."""
        return [pid for pid in self.family() if _command(pid) == "sshd"]

    def signal_connections(self, number: int) -> list[int]:
        """Send a signal to every process that serves a connection; the listener stays as it is."""
        told = self.connections()
        for pid in told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return told

    def log(self) -> str:
        """What the server wrote."""
        return (self.folder / "sshd.log").read_text(errors="replace")

    def stop(self) -> None:
        """End the server and all its connections."""
        for pid in [*reversed(self.family()), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


def need_sshd() -> None:
    """Skip where no sshd can be started as it runs on devices."""
    if os.geteuid() != 0:
        pytest.skip("sshd logs other users in for root only")
    for program in ("sshd", "ssh-keygen", "ssh"):
        if _which(program) is None:
            pytest.skip(f"no {program} here: `make lab` as root installs openssh-server and openssh-client")


def lab_user(shell: str = "sh") -> str:
    """A plain user of this machine with that login shell, made when he is not there. Skips where it cannot be had."""
    need_sshd()
    if _which(_SHELLS[shell]) is None:
        pytest.skip(f"no {shell} here: `make lab` installs it where root and apt are there")
    name = USER if shell == "sh" else f"{USER}-{shell}"
    # useradd fails where another has the list of users open.
    with one_at_a_time(Path(tempfile.gettempdir()) / "meltbench-lab-users"):
        if not _is_user(name):
            # A password that no text gives: with none at all the account counts as locked.
            words = ["useradd", "--password", "*", "--no-create-home", "--home-dir", "/tmp"]
            done = subprocess.run([*words, "--shell", _SHELLS[shell], name], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no user can be made here: {done.stderr.strip()}")
    return name


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@contextlib.contextmanager
def folder_for_all() -> Iterator[Path]:
    """A temporary folder that other users can enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="meltbench-sshd-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A key pair at ``path`` and ``path``.pub."""
    words = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "lab", "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return path


def fingerprint(key: Path) -> str:
    """SHA256:... as ssh-keygen tells it."""
    told = subprocess.run(["ssh-keygen", "-lf", str(key)], check=True, capture_output=True, text=True).stdout
    return told.split()[1]


def small_path(folder: Path, programs: Sequence[str] = PROGRAMS) -> Path:
    """A folder of links to these programs: the search path of a session."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in programs:
        if (found := shutil.which(name)) is not None and not (folder / name).exists():
            (folder / name).symlink_to(found)
    return folder


def start_sshd(
    folder: Path,
    *,
    user: str = USER,
    port: int | None = None,
    host: str = "127.0.0.1",
    host_key_type: str = "ed25519",
    known: bool = True,
    prefix: Sequence[str] = (),
    programs: Sequence[str] = PROGRAMS,
    options: Sequence[str] = (),
) -> Sshd:
    """Start a server in ``folder`` (which its user must be able to enter) and wait until it listens.

    ``options``: further lines of sshd_config, before the kit's own, so theirs win. ``known``: whether the client's
    known_hosts holds its key. ``prefix``: words before sshd's, as ``ip netns exec NAME``.
    """
    need_sshd()
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    owner = pwd.getpwnam(user)
    home = folder / "home"
    home.mkdir(exist_ok=True)
    os.chown(home, owner.pw_uid, owner.pw_gid)
    host_key, user_key = folder / "host_key", folder / "user_key"
    if not host_key.exists():
        make_key(host_key, host_key_type)
    if not user_key.exists():
        make_key(user_key)
        shutil.copy(f"{user_key}.pub", folder / "authorized_keys")
    known_hosts = folder / "known_hosts"
    public = " ".join((folder / "host_key.pub").read_text().split()[:2])
    known_hosts.write_text(f"[{host}]:{port} {public}\n" if known else "")
    (folder / "sshd_config").write_text(
        "\n".join(
            [
                *options,
                f"ListenAddress {host}:{port}",
                f"HostKey {host_key}",
                f"AuthorizedKeysFile {folder}/authorized_keys",
                f"PidFile {folder}/sshd.pid",
                "UsePAM no\nStrictModes no\nPasswordAuthentication no",
                "KbdInteractiveAuthentication no\nUseDNS no\nPrintMotd no\nPrintLastLog no",
                "MaxStartups 200\nLogLevel VERBOSE\nSubsystem sftp internal-sftp",
                f"SetEnv HOME={home} PATH={small_path(folder / 'bin', programs)}",
                "",
            ]
        )
    )
    config = folder / "ssh_config"
    config.write_text(
        f"Host *\n  IdentityFile {user_key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {known_hosts}\n"
        "  GlobalKnownHostsFile none\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    # sshd wants to be called by its whole path, for it calls itself again for every connection.
    words = [*prefix, _which("sshd") or "sshd", "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    sshd = Sshd(
        f"{user}@{host}:{port}",
        port,
        folder,
        home,
        config,
        known_hosts,
        user_key,
        host_key,
        fingerprint(host_key),
        process,
    )
    _wait_until_ready(sshd)
    return sshd


def _wait_until_ready(sshd: Sshd) -> None:
    until = time.monotonic() + _READY_S
    while time.monotonic() < until and sshd.process.poll() is None:
        if "Server listening" in sshd.log():
            return
        time.sleep(0.01)
    sshd.stop()
    raise RuntimeError(f"sshd did not start: {sshd.log()[-500:]}")


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found
