"""What goes wrong on the way to a device: sshd killed or stopped, the link cut, reset or silent, disks full, lies told.

The link is a pair of virtual network cards between this machine and a network namespace in which sshd runs.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sshd_kit import Sshd, folder_for_all, lab_user, start_sshd

from meltbench.deadline import Deadline
from meltbench.errors import DeadlineExceeded, DeviceError, LinkLost
from meltbench.targets import Feed
from meltbench.targets.ssh import SshTransport, link, session

LONG = 60.0  # a deadline that no fault may be left to
SECONDS = 20.0  # within which a dead peer is noticed, on a machine that does other things too
pytestmark = pytest.mark.usefixtures("own_place")
_numbers = itertools.count(os.getpid() % 200 * 4)


def soon(seconds: float = LONG) -> Deadline:
    return Deadline.after(seconds)


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_all() as made:
        yield made


@pytest.fixture
def sshd(folder: Path) -> Iterator[Sshd]:
    server = start_sshd(folder, user=lab_user())
    yield server
    server.stop()


@pytest.fixture
def ssh(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshTransport]:
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(sshd.config_path))
    transport = SshTransport(sshd.address)
    transport.run(["true"], soon())
    yield transport
    transport.close()


class Island:
    """A network namespace with one link to this machine."""

    def __init__(self) -> None:
        number = next(_numbers)
        self.name, self.card = f"mbssh{number}", f"mbs{number}"
        self.here, self.there = f"198.51.100.{number % 60 * 4 + 1}", f"198.51.100.{number % 60 * 4 + 2}"
        for words in (
            f"netns add {self.name}",
            f"link add {self.card} type veth peer name far netns {self.name}",
            f"address add {self.here}/30 dev {self.card}",
            f"-n {self.name} address add {self.there}/30 dev far",
            f"-n {self.name} link set lo up",
            f"-n {self.name} link set far up",
            f"link set {self.card} up",
        ):
            _ip(words)
        # The cards' own talk would be counted as ours.
        Path(f"/proc/sys/net/ipv6/conf/{self.card}/disable_ipv6").write_text("1")
        self.inside("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/far/disable_ipv6")

    def inside(self, *words: str, text: str = "") -> None:
        argv = ["ip", "netns", "exec", self.name, *words]
        subprocess.run(argv, check=True, capture_output=True, input=text.encode())

    def cut(self) -> None:
        _ip(f"link set {self.card} down")

    def mend(self) -> None:
        _ip(f"link set {self.card} up")
        self.inside("nft", "flush", "ruleset")

    def reset(self) -> None:
        rule = "tcp flags rst accept\nmeta l4proto tcp reject with tcp reset"
        text = f"table inet t {{\nchain c {{\ntype filter hook input priority 0\n{rule}\n}}\n}}\n"
        self.inside("nft", "-f", "-", text=text)

    def packets(self) -> int:
        folder = Path(f"/sys/class/net/{self.card}/statistics")
        return int((folder / "tx_packets").read_text()) + int((folder / "rx_packets").read_text())

    def close(self) -> None:
        _ip(f"netns delete {self.name}")  # and with it the cards


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.fixture
def island(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Island, Sshd, SshTransport]]:
    user = lab_user()
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    try:
        made = Island()
    except (subprocess.CalledProcessError, OSError) as error:
        pytest.skip(f"no network namespace can be made here: {error}")
    try:
        prefix = ["ip", "netns", "exec", made.name]
        server = start_sshd(folder / "device", user=user, host=made.there, prefix=prefix)
        monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(server.config_path))
        transport = SshTransport(server.address)
        transport.run(["true"], soon())
        yield made, server, transport
        transport.close()
        server.stop()
    finally:
        made.close()


@contextmanager
def meanwhile(after_s: float, act: Callable[[], object]) -> Iterator[None]:
    """Something that happens while a call is under way."""
    timer = threading.Timer(after_s, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def endless(folder: Path) -> Path:
    """A file of 64 GiB that takes no room: a push of it is under way as long as a test needs."""
    with (folder / "endless").open("wb") as file:
        file.truncate(64 << 30)
    return folder / "endless"


def until(found: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not found():
        assert time.monotonic() < end
        time.sleep(0.02)


def names(server: Sshd) -> list[str]:
    return sorted(path.name for path in server.home.iterdir())


def test_sshd_killed_in_a_call_is_a_lost_link_and_the_next_call_goes_through(sshd: Sshd, ssh: SshTransport) -> None:
    with meanwhile(0.5, lambda: sshd.signal_connections(signal.SIGKILL)), pytest.raises(LinkLost):
        ssh.run(["sleep", "60"], soon())
    assert ssh.run(["echo", "there"], soon()).stdout == b"there\n"
    channel = ssh.spawn(["sh", "-c", "read x; sleep 60"], soon())
    with meanwhile(0.5, lambda: sshd.signal_connections(signal.SIGKILL)), pytest.raises(LinkLost):
        channel.ask(b"x", soon())
    channel.close()
    # Lost while nothing was under way: nobody is told, for nothing was asked yet.
    ssh.run(["true"], soon())
    sshd.signal_connections(signal.SIGKILL)
    assert ssh.run(["echo", "there"], soon()).stdout == b"there\n"


def test_a_push_that_is_cut_leaves_nothing_under_the_name(sshd: Sshd, ssh: SshTransport, folder: Path) -> None:
    ssh.push(b"the old one", f"{sshd.home}/x", soon())
    with meanwhile(0.5, lambda: sshd.signal_connections(signal.SIGKILL)), pytest.raises(LinkLost):
        ssh.push(endless(folder), f"{sshd.home}/x", soon())
    until(lambda: names(sshd) == ["x"])
    assert (sshd.home / "x").read_bytes() == b"the old one"
    with pytest.raises(DeadlineExceeded):
        ssh.push(folder / "endless", f"{sshd.home}/x", soon(0.7))
    until(lambda: names(sshd) == ["x"])
    assert (sshd.home / "x").read_bytes() == b"the old one"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits of the product cut short, so that tests are."""
    monkeypatch.setattr(link, "_QUIET_S", 0.5)
    monkeypatch.setattr(link, "_ANSWER_S", 1.0)
    monkeypatch.setattr(session, "_LOOK_S", 0.2)


def test_a_stopped_sshd_is_noticed_within_seconds(sshd: Sshd, ssh: SshTransport, folder: Path) -> None:
    started = time.monotonic()
    with meanwhile(0.5, lambda: sshd.signal_connections(signal.SIGSTOP)), pytest.raises(LinkLost):
        ssh.push(endless(folder), f"{sshd.home}/x", soon())
    assert time.monotonic() - started < SECONDS


@pytest.mark.usefixtures("impatient")
def test_a_stopped_sshd_is_noticed_by_every_call(sshd: Sshd, ssh: SshTransport, folder: Path) -> None:
    for call in (
        lambda: ssh.push(endless(folder), f"{sshd.home}/x", soon()),
        lambda: ssh.run(["sleep", "60"], soon()),
        lambda: ssh.run(["cat"], soon(), feed=Feed(endless(folder))),
    ):
        ssh.run(["true"], soon())
        with meanwhile(0.5, lambda: sshd.signal_connections(signal.SIGSTOP)), pytest.raises(LinkLost):
            call()
        sshd.signal_connections(signal.SIGKILL)


def test_a_stopped_sshd_ends_a_wait_at_its_deadline(sshd: Sshd, ssh: SshTransport) -> None:
    channel = ssh.spawn(["cat"], soon())
    sshd.signal_connections(signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        channel.ask(b"x", soon(0.5))
    with pytest.raises(DeadlineExceeded):
        ssh.run(["true"], soon(0.5))
    channel.close()
    ssh.close()
    os.kill(sshd.pid, signal.SIGSTOP)  # and one that takes connections, but never greets
    with pytest.raises((DeadlineExceeded, LinkLost)):
        ssh.run(["true"], soon(0.5))
    assert time.monotonic() - started < SECONDS
    os.kill(sshd.pid, signal.SIGCONT)
    assert ssh.run(["echo", "there"], soon()).stdout == b"there\n"


@pytest.mark.usefixtures("impatient")
def test_a_device_that_falls_silent_behind_a_jump_host_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = lab_user()
    jump, device = start_sshd(folder / "jump", user=user), start_sshd(folder / "device", user=user)
    config = folder / "config"
    config.write_text(
        f"Host jump\n  HostName 127.0.0.1\n  Port {jump.port}\n  User {user}\n  IdentityFile {jump.user_key}\n"
        f"  UserKnownHostsFile {jump.known_hosts}\nHost *\n  ProxyJump jump\n  IdentityFile {device.user_key}\n"
        f"  UserKnownHostsFile {device.known_hosts}\n".replace("Host *", "Host 127.0.0.1")
    )
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(config))
    transport = SshTransport(device.address)
    before = set(threading.enumerate())
    try:
        transport.run(["true"], soon())
        with meanwhile(0.5, lambda: device.signal_connections(signal.SIGSTOP)), pytest.raises(LinkLost):
            transport.push(endless(folder), f"{device.home}/x", soon())
        transport.run(["true"], soon())
        with meanwhile(0.5, lambda: jump.signal_connections(signal.SIGKILL)), pytest.raises(LinkLost):
            transport.run(["sleep", "60"], soon())
        assert transport.run(["echo", "there"], soon()).stdout == b"there\n"
    finally:
        transport.close()
        device.stop()
        jump.stop()
    until(lambda: set(threading.enumerate()) == before)


@pytest.mark.usefixtures("impatient")
def test_a_link_that_is_cut_is_noticed_and_made_again(island: tuple[Island, Sshd, SshTransport], folder: Path) -> None:
    wire, server, ssh = island
    with meanwhile(0.5, wire.cut), pytest.raises(LinkLost):
        ssh.push(endless(folder), f"{server.home}/x", soon())
    started = time.monotonic()
    with pytest.raises(DeviceError):
        ssh.run(["true"], soon(1))
    assert time.monotonic() - started < SECONDS
    wire.mend()
    assert ssh.run(["echo", "there"], soon()).stdout == b"there\n"
    assert "x" not in names(server)
    with meanwhile(0.5, wire.cut), pytest.raises(LinkLost):
        ssh.run(["sleep", "60"], soon())
    wire.mend()
    ssh.push(b"text", f"{server.home}/x", soon())
    assert (server.home / "x").read_bytes() == b"text"


def test_a_short_cut_loses_nothing(island: tuple[Island, Sshd, SshTransport], tmp_path: Path) -> None:
    wire, server, ssh = island
    data = os.urandom(1 << 20) * 200
    (tmp_path / "file").write_bytes(data)

    def blink() -> None:
        wire.cut()
        time.sleep(1)
        wire.mend()

    with meanwhile(0.1, blink):
        ssh.push(tmp_path / "file", f"{server.home}/x", soon())
    assert (server.home / "x").read_bytes() == data


def test_a_reset_is_noticed_at_once(island: tuple[Island, Sshd, SshTransport], folder: Path) -> None:
    wire, server, ssh = island
    with meanwhile(0.5, wire.reset), pytest.raises(LinkLost):
        ssh.push(endless(folder), f"{server.home}/x", soon())
    with pytest.raises(LinkLost, match="refused"):
        ssh.run(["true"], soon())
    wire.mend()
    assert ssh.run(["echo", "there"], soon()).stdout == b"there\n"


@contextmanager
def halting(port: int) -> Iterator[tuple[int, threading.Event]]:
    """A way to a port of this machine. Once the event is set it brings what the server says in pieces, with long pauses
    between them, as a link does that loses much."""
    slow = threading.Event()

    def carry(source: socket.socket, sink: socket.socket, *, halts: bool) -> None:
        while data := source.recv(16_000):
            sink.sendall(data)
            if halts and slow.is_set():
                time.sleep(1.4)
        sink.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken: list[socket.socket] = []

        def take() -> None:
            here, there = listening.accept()[0], socket.create_connection(("127.0.0.1", port))
            taken.extend((here, there))
            back = threading.Thread(target=carry, args=(there, here), kwargs={"halts": True})
            back.start()
            carry(here, there, halts=False)
            back.join()

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield listening.getsockname()[1], slow
        finally:
            thread.join(SECONDS)
            for one in taken:
                one.close()


def test_what_comes_late_over_a_link_that_halts_is_not_lost(
    sshd: Sshd, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sshd is slow it tells the status of a command before it has read all that this wrote."""
    (folder / "known").write_text(f"the-device {sshd.host_key.with_suffix('.pub').read_text()}")
    (folder / "config").write_text(
        f"IdentityFile {sshd.user_key}\nUserKnownHostsFile {folder}/known\nHostKeyAlias the-device\n"
    )
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(folder / "config"))
    (sshd.home / "file").write_bytes(data := os.urandom(65_000))

    def stand_still() -> None:
        sshd.signal_connections(signal.SIGSTOP)
        time.sleep(1)
        sshd.signal_connections(signal.SIGCONT)

    with halting(sshd.port) as (port, slow):
        transport = SshTransport(f"{sshd.address.partition('@')[0]}@127.0.0.1:{port}")
        try:
            transport.run(["true"], soon())
            slow.set()
            with meanwhile(1, stand_still):
                done = transport.run(["sh", "-c", f"sleep 1.5; cat {sshd.home}/file"], soon())
            assert (done.code, done.stdout == data) == (0, True), len(done.stdout)
        finally:
            slow.clear()
            transport.close()


@pytest.mark.usefixtures("impatient")
def test_a_wait_makes_no_traffic_and_a_call_asks_for_a_sign_of_life(
    island: tuple[Island, Sshd, SshTransport],
) -> None:
    wire, _, ssh = island

    def packets_during(act: Callable[[], object]) -> int:
        counts = []

        def count() -> None:
            counts.append(wire.packets())

        with meanwhile(0.7, count), meanwhile(2.2, count):
            act()
        return counts[1] - counts[0]

    channel = ssh.spawn(["sh", "-c", "while read x; do sleep 3; echo $x; done"], soon())
    assert packets_during(lambda: channel.ask(b"x", soon())) == 0
    channel.close()
    assert packets_during(lambda: time.sleep(0)) == 0  # and so does a connection that nothing is asked of
    assert packets_during(lambda: ssh.run(["sleep", "3"], soon())) > 0


def test_no_room_on_the_device_is_one_clear_line(sshd: Sshd, ssh: SshTransport, folder: Path) -> None:
    small = sshd.home / "small"
    small.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "small", str(small)], capture_output=True)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(DeviceError, match="No space left on device; free some space"):
            ssh.push(endless(folder), f"{small}/x", soon())
        assert list(small.iterdir()) == []
        (folder / "two").write_bytes(bytes(2 << 20))
        ssh.push(folder / "two", f"{sshd.home}/two", soon())
        with pytest.raises(DeviceError, match="free some space"):
            ssh.pull(f"{sshd.home}/two", small / "y", soon())
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_device_that_lies_about_a_file_fills_no_disk(sshd: Sshd, ssh: SshTransport, tmp_path: Path) -> None:
    (sshd.home / "x").write_bytes(b"text")
    lie = sshd.folder / "bin" / "wc"
    lie.unlink()
    for told, why in (("99999999999999999999", "bytes"), ("-3", "bytes"), ("many", "size"), ("9", "shorter")):
        lie.write_text(f"#!/bin/sh\necho '{told}'\n")
        lie.chmod(0o755)
        with pytest.raises(DeviceError, match=why):
            ssh.pull(f"{sshd.home}/x", tmp_path / "x", soon())
    lie.write_text("#!/bin/sh\nexec head -c 300000000 /dev/zero\n")
    with pytest.raises(DeviceError, match="size"):
        ssh.pull(f"{sshd.home}/x", tmp_path / "x", soon())
    lie.write_text("#!/bin/sh\necho 3\n")
    (sshd.folder / "bin" / "cat").unlink()
    (sshd.folder / "bin" / "cat").write_text("#!/bin/sh\necho text; exec head -c 3000000000 /dev/zero\n")
    (sshd.folder / "bin" / "cat").chmod(0o755)
    ssh.pull(f"{sshd.home}/x", tmp_path / "x", soon())
    assert (tmp_path / "x").read_bytes() == b"tex"
    assert [path.name for path in tmp_path.iterdir() if path.name != "config"] == ["x"]


@pytest.mark.parametrize(
    "greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n" + b"\0" * 64, b"x" * 9000]
)
def test_what_is_no_ssh_server_is_said(greeting: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("")
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(tmp_path / "config"))
    before = set(threading.enumerate())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def greet() -> None:
            one, _ = listener.accept()
            with one:
                one.sendall(greeting)
                one.recv(1)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises((LinkLost, DeadlineExceeded)) as caught:
            SshTransport(f"127.0.0.1:{listener.getsockname()[1]}").run(["true"], soon(2))
        thread.join()
    assert "\n" not in str(caught.value)
    until(lambda: set(threading.enumerate()) == before)
