"""The transport `ssh` against the tools of its trade, at a real sshd: scp for files, paramiko for calls."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import kit
from benchmarks.claims import Claim, Part, Row, Site, Unmeasurable
from meltbench.deadline import Deadline
from meltbench.targets.ssh import SshTransport
from meltbench.targets.ssh.config import VARIABLE

PUSH = Claim("ssh push of 500 MB, rate over scp's", ">=", 0.9)
CALL = Claim("ssh call of true, time over plain paramiko's", "<=", 1.5)

_BYTES = 500_000_000
_CALLS = 50
_LONG_S = 120.0


@dataclass(frozen=True)
class Server:
    """An sshd of this user's own: ``address`` to reach it, ``config`` for ssh, ``home`` for files."""

    address: str
    port: int
    config: Path
    key: Path
    home: Path


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[Server]:
    """Start an sshd that serves the user who runs this, with a home without start-up files."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    program = shutil.which("sshd", path=path)
    if program is None or not all(map(shutil.which, ("ssh-keygen", "ssh", "scp"))):
        raise Unmeasurable("openssh-server and openssh-client are not installed")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    home = folder / "home"
    home.mkdir()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nUsePAM no\n"
        f"StrictModes no\nPermitRootLogin yes\nPidFile none\nUseDNS no\nSubsystem sftp internal-sftp\n"
        f"SetEnv HOME={home}\n"
    )
    config = folder / "ssh_config"
    config.write_text(
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known\nLogLevel ERROR\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        until = time.monotonic() + 10
        while "Server listening" not in (told := (folder / "log").read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > until:
                raise Unmeasurable(f"sshd did not start here: {told[-200:]}")
            time.sleep(0.01)
        yield Server(f"{getpass.getuser()}@127.0.0.1:{port}", port, config, folder / "user", home)
    finally:
        process.terminate()
        process.wait(10)


def _pushed(server: Server, source: Path) -> float:
    """Bytes a second of a push over a connection of its own, as scp has one."""
    transport = SshTransport(server.address)
    there = server.home / "pushed"
    start = time.monotonic()
    transport.push(source, str(there), Deadline.after(_LONG_S))
    seconds = time.monotonic() - start
    transport.close()
    return _rate(there, source, seconds)


def _copied(server: Server, source: Path, *options: str) -> float:
    """Bytes a second of scp."""
    there = server.home / "copied"
    words = ["scp", "-q", "-F", str(server.config), "-P", str(server.port), *options, str(source)]
    start = time.monotonic()
    subprocess.run([*words, f"{getpass.getuser()}@127.0.0.1:{there}"], check=True, timeout=_LONG_S)
    return _rate(there, source, time.monotonic() - start)


def _rate(there: Path, source: Path, seconds: float) -> float:
    size = there.stat().st_size
    if size != source.stat().st_size:
        raise RuntimeError(f"{size} bytes arrived")
    there.unlink()
    return size / seconds


def _pushes(site: Site) -> Iterator[Row]:
    source = site.folder / "source"
    source.write_bytes(os.urandom(1 << 20) * ((_BYTES // 25 if site.quick else _BYTES) // (1 << 20)))
    with _served(site, "push") as server:
        arms: dict[str, Callable[[], float]] = {
            "meltbench": partial(_pushed, server, source),
            "scp": partial(_copied, server, source),
            "scp, our cipher": partial(_copied, server, source, "-c", "aes128-gcm@openssh.com"),
        }
        found = kit.interleaved(arms, 1 if site.quick else 7, site.say)
    pairs = [ours / theirs for ours, theirs in zip(found["meltbench"], found["scp"], strict=True)]
    low, high = kit.median_interval(pairs)
    beside: dict[str, float | str] = {f"{name} MB/s": statistics.median(one) / 1e6 for name, one in found.items()}
    beside |= {"low": low, "high": high}
    yield PUSH.row(statistics.median(pairs), beside, kit.undecided(low, high, PUSH.limit))


def _calls(site: Site) -> Iterator[Row]:
    import paramiko

    count = 3 if site.quick else _CALLS
    with _served(site, "call") as server:
        transport = SshTransport(server.address)
        transport.run(["true"], Deadline.after(_LONG_S))
        connected = socket.create_connection(("127.0.0.1", server.port))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain = paramiko.Transport(connected)
        try:
            plain.start_client(timeout=_LONG_S)
            plain.auth_publickey(getpass.getuser(), paramiko.Ed25519Key.from_private_key_file(str(server.key)))

            def theirs() -> None:
                channel = plain.open_session(timeout=_LONG_S)
                channel.exec_command("true")
                if channel.recv_exit_status() != 0:
                    raise RuntimeError("true failed")
                channel.close()

            def ours() -> None:
                if transport.run(["true"], Deadline.after(_LONG_S)).code != 0:
                    raise RuntimeError("true failed")

            arms: dict[str, Callable[[], float]] = {
                "meltbench": partial(_timed, ours, count),
                "paramiko": partial(_timed, theirs, count),
            }
            found = kit.interleaved(arms, 1 if site.quick else 15)
        finally:
            plain.close()
            transport.close()
    pairs = [mine / other for mine, other in zip(found["meltbench"], found["paramiko"], strict=True)]
    low, high = kit.median_interval(pairs)
    beside: dict[str, float | str] = {f"{name} ms": statistics.median(one) * 1e3 for name, one in found.items()}
    beside |= {"low": low, "high": high}
    yield CALL.row(statistics.median(pairs), beside, kit.undecided(low, high, CALL.limit))


def _timed(call: Callable[[], None], count: int) -> float:
    """Seconds of the middle one of so many calls."""
    found = []
    for _ in range(count):
        start = time.monotonic()
        call()
        found.append(time.monotonic() - start)
    return statistics.median(found)


@contextlib.contextmanager
def _served(site: Site, name: str) -> Iterator[Server]:
    """A server, and nothing of the user's own configuration beside it."""
    folder = site.folder / name
    folder.mkdir()
    with sshd(folder) as server, kit.environment({VARIABLE: str(server.config), "SSH_AUTH_SOCK": None}):
        yield server


PARTS = (Part(_pushes, (PUSH,)), Part(_calls, (CALL,)))
