"""The transport `ssh` against real sshds: commands, files, programs that answer, keys, jump hosts, refusals."""

from __future__ import annotations

import io
import os
import pty
import secrets
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd_kit import Sshd, folder_for_all, lab_user, make_key, start_sshd
from transport_kit import SOON, floods_are_bounded, no_shell_sees_arguments, soon, stdin_is_what_is_fed

from meltbench.deadline import Deadline
from meltbench.errors import DeadlineExceeded, DeviceError, HostKeyError, LinkLost, UserError
from meltbench.targets import Feed, Place, connect
from meltbench.targets.ssh import SshTransport, accept, hostkeys

pytestmark = pytest.mark.usefixtures("own_place")


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    """One server for all tests that leave it as it is."""
    with folder_for_all() as folder:
        server = start_sshd(folder / "device", user=lab_user())
        yield server
        server.stop()


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_all() as made:
        yield made


def use(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> SshTransport:
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(server.config_path))
    return SshTransport(server.address)


@pytest.fixture
def ssh(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshTransport]:
    transport = use(sshd, monkeypatch)
    yield transport
    transport.close()


def test_arguments_are_never_seen_by_a_shell(ssh: SshTransport, sshd: Sshd) -> None:
    no_shell_sees_arguments(ssh)
    assert "python" not in ssh.run(["sh", "-c", "command -v python3 python"], soon()).stdout.decode()
    assert ssh.run(["sh", "-c", "echo $HOME"], soon()).stdout.decode() == f"{sshd.home}\n"


def test_a_status_a_signal_and_a_complaint(ssh: SshTransport) -> None:
    assert ssh.run(["sh", "-c", "echo no >&2; exit 7"], soon()).code == 7
    for number in (signal.SIGHUP, signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        assert ssh.run(["sh", "-c", f"kill -{number} $$"], soon()).code == -number
    assert ssh.run(["sh", "-c", "kill -7 $$"], soon()).code < 0  # sshd has no name for SIGBUS
    done = ssh.run(["sh", "-c", "printf 'one\\ntwo \\033[31m\\n' >&2; exit 1"], soon())
    assert done.complaint() == "two \ufffd[31m"
    done = ssh.run(["/nowhere/program"], soon())
    assert done.code == 127
    assert "not found" in done.complaint()


def test_a_command_that_hangs_is_killed_at_its_deadline(ssh: SshTransport, sshd: Sshd) -> None:
    with pytest.raises(DeadlineExceeded):
        ssh.run(["sh", "-c", f"echo $$ > {sshd.home}/pid; sleep 60; true"], Deadline.after(1))
    pid = int((sshd.home / "pid").read_text())
    until = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
    assert ssh.run(["echo", "there"], soon()).stdout == b"there\n"


def test_floods_are_bounded_on_both_streams(ssh: SshTransport) -> None:
    floods_are_bounded(ssh)


def test_stdin_is_what_is_fed_and_empty_without(ssh: SshTransport, tmp_path: Path) -> None:
    data = os.urandom(5 << 20)
    assert 0 < stdin_is_what_is_fed(ssh, data, tmp_path / "file") <= 4 << 20
    # It ends before it has taken all.
    done = ssh.run(["sh", "-c", "head -c 3; exit 9"], soon(), feed=Feed(data))
    assert (done.code, done.stdout) == (9, data[:3])
    with pytest.raises(DeviceError, match="nowhere"):
        ssh.run(["cat"], soon(), feed=Feed(tmp_path / "nowhere"))


def test_a_job_that_goes_on_does_not_hold_the_call(ssh: SshTransport, sshd: Sshd) -> None:
    done = ssh.run(["sh", "-c", "sleep 30 & echo $!"], Deadline.after(10))
    assert done.code == 0
    os.kill(int(done.stdout), signal.SIGKILL)


def test_push_and_pull_are_whole_or_not_at_all(ssh: SshTransport, sshd: Sshd, tmp_path: Path) -> None:
    source, there, back = tmp_path / "a", sshd.home / "deep" / "er" / "it's a file", tmp_path / "c"
    source.write_bytes(os.urandom(3 << 20))
    ssh.push(source, str(there), soon(), executable=True)
    assert there.stat().st_mode & 0o777 == 0o755
    ssh.pull(str(there), back, soon())
    assert back.read_bytes() == source.read_bytes()
    ssh.push(b"", str(there), soon())
    assert there.read_bytes() == b""
    ssh.pull(str(there), back, soon())
    assert back.read_bytes() == b""
    with pytest.raises(DeadlineExceeded):
        ssh.push(b"late", str(there), Deadline.after(0))
    assert there.read_bytes() == b""
    assert [path.name for path in there.parent.iterdir()] == ["it's a file"]


@pytest.mark.parametrize(
    ("path", "why"),
    [("/dev/full/x", "File exists|Not a directory"), ("/root/x", "Permission denied"), ("/tmp", "Is a directory")],
)
def test_what_cannot_be_written_is_one_clear_line(ssh: SshTransport, path: str, why: str) -> None:
    with pytest.raises(DeviceError, match=why) as caught:
        ssh.push(b"x", path, soon())
    assert "\n" not in str(caught.value)


def test_what_cannot_be_fetched_is_said(ssh: SshTransport, sshd: Sshd, tmp_path: Path) -> None:
    for path, why in (("/nowhere/x", "No such file"), ("/tmp", "directory"), ("/dev/zero", "regular")):
        with pytest.raises(DeviceError, match=why):
            ssh.pull(path, tmp_path / "x", soon())
    os.mkfifo(sshd.home / "fifo")
    with pytest.raises(DeviceError, match="regular"):
        ssh.pull(str(sshd.home / "fifo"), tmp_path / "x", soon())
    assert list(tmp_path.glob("*x*")) == []


def test_a_channel_answers_line_by_line(ssh: SshTransport) -> None:
    channel = ssh.spawn(["cat"], soon())
    assert channel.ask(b"one", soon()) == b"one\n"
    assert channel.ask(b"two\n", soon()) == b"two\n"
    channel.close()
    channel.close()
    gone = ssh.spawn(["true"], soon())
    with pytest.raises(DeviceError, match="ended"):
        gone.ask(b"x", soon())
    gone.close()
    mute = ssh.spawn(["sleep", "60"], soon())
    with pytest.raises(DeadlineExceeded):
        mute.ask(b"x", Deadline.after(0.2))
    mute.close()
    with pytest.raises(DeviceError, match="nonsense"):
        ssh.spawn(["sh", "-c", "read x; head -c 100000 /dev/zero; sleep 9"], soon()).ask(b"x", soon())


def test_nothing_is_sent_before_a_call_and_nothing_stays_after_close(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(sshd.config_path))
    fds = set(os.listdir("/proc/self/fd"))
    connections = sshd.log().count("Connection from")
    transport = connect(Place("ssh", sshd.address))
    time.sleep(0.1)
    assert sshd.log().count("Connection from") == connections
    for _ in range(2):  # and it can be used again
        transport.run(["true"], soon())
        transport.spawn(["cat"], soon())
        transport.close()
        assert set(threading.enumerate()) == before
        assert set(os.listdir("/proc/self/fd")) == fds


def test_calls_come_from_several_threads_and_four_run_at_once(ssh: SshTransport, sshd: Sshd) -> None:
    answers: list[bytes] = []

    def work(number: int) -> None:
        for turn in range(5):
            answers.append(ssh.run(["echo", f"{number}.{turn}"], soon()).stdout)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(f"{n}.{t}\n".encode() for n in range(8) for t in range(5))
    channels = [ssh.spawn(["cat"], soon()) for _ in range(4)]
    with pytest.raises(DeadlineExceeded, match="4 commands"):
        ssh.run(["true"], Deadline.after(0.2))
    channels[0].close()
    assert ssh.run(["true"], soon()).code == 0
    for channel in channels:
        channel.close()


def test_four_are_enough_for_a_server_that_takes_four(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start_sshd(folder, user=lab_user(), options=["MaxSessions 4"])
    transport = use(server, monkeypatch)
    try:
        held = [transport.spawn(["cat"], soon()) for _ in range(3)]
        for _ in range(20):
            assert transport.run(["true"], soon()).code == 0
        with pytest.raises(DeadlineExceeded):
            transport.run(["sleep", "9"], Deadline.after(0.2))
        assert transport.run(["true"], soon()).code == 0
        assert [channel.ask(b"x", soon()) for channel in held] == [b"x\n"] * 3
    finally:
        transport.close()
        server.stop()


def test_a_server_that_takes_no_session_says_what_to_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start_sshd(folder, user=lab_user(), options=["MaxSessions 0"])
    transport = use(server, monkeypatch)
    with pytest.raises(DeviceError, match="MaxSessions"):
        transport.run(["true"], soon())
    transport.close()
    server.stop()


def test_keys_that_are_not_known_are_refused_and_can_be_accepted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start_sshd(folder, user=lab_user(), known=False)
    transport = use(server, monkeypatch)
    try:
        with pytest.raises(HostKeyError, match="not known") as caught:
            transport.run(["true"], soon())
        assert (caught.value.fingerprint, caught.value.state) == (server.host_key_fingerprint, "unknown")
        assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in str(caught.value)
        assert f"--ssh {server.address} --accept-key {server.host_key_fingerprint}" in str(caught.value)
        with pytest.raises(HostKeyError):
            accept(server.address, "SHA256:" + "A" * 43)
        with pytest.raises(UserError, match="no fingerprint"):
            accept(server.address, "MD5:00")
        accept(server.address, server.host_key_fingerprint)
        assert transport.run(["true"], soon()).code == 0
        assert server.known_hosts.read_text() == ""
    finally:
        transport.close()
        server.stop()
    # Set up anew: another key under the same address.
    os.unlink(folder / "host_key")
    os.unlink(folder / "host_key.pub")
    other = start_sshd(folder, user=lab_user(), port=server.port, known=False)
    try:
        with pytest.raises(HostKeyError, match="not the one that is known") as caught:
            transport.run(["true"], soon())
        assert (caught.value.fingerprint, caught.value.state) == (other.host_key_fingerprint, "changed")
        assert server.host_key_fingerprint in str(caught.value)
        accept(server.address, other.host_key_fingerprint)
        assert transport.run(["true"], soon()).code == 0
    finally:
        transport.close()
        other.stop()


def test_hashed_names_other_kinds_and_revoked_keys_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_key(folder / "rsa", "rsa")
    server = start_sshd(folder, user=lab_user(), options=[f"HostKey {folder}/rsa"])
    transport = use(server, monkeypatch)
    try:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", server.known_hosts], check=True, capture_output=True)
        assert "|1|" in server.known_hosts.read_text()
        assert transport.run(["true"], soon()).code == 0
        transport.close()
        # Only the other key of this server is known: it is asked for that one.
        public = (folder / "rsa.pub").read_text()
        server.known_hosts.write_text(f"[127.0.0.*]:{server.port},!nowhere {public}")
        assert transport.run(["true"], soon()).code == 0
        transport.close()
        server.known_hosts.write_text(f"127.0.0.1 {public}@revoked * {public}")
        with pytest.raises(HostKeyError, match="revoked") as caught:
            transport.run(["true"], soon())
        with pytest.raises(HostKeyError, match="revoked"):
            accept(server.address, caught.value.fingerprint)
        own = hostkeys.own_file()
        assert not own.exists() or public.split()[1] not in own.read_text(), "that line may be taken away one day"
    finally:
        transport.close()
        server.stop()


def test_the_way_leads_through_jump_hosts_that_are_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = lab_user()
    first, second, device = (start_sshd(folder / name, user=user) for name in ("first", "second", "device"))
    config = folder / "config"
    known = folder / "known"
    public = device.host_key.with_suffix(".pub").read_text()
    known.write_text(f"{first.known_hosts.read_text()}the-device {public}")

    def host(name: str, server: Sshd, more: str = "") -> str:
        return (
            f"Host {name}\n  HostName 127.0.0.1\n  Port {server.port}\n  User {user}\n"
            f"  IdentityFile {server.user_key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n{more}"
        )

    (folder / "more").write_text(
        host("one", first)
        + host("two", second, "  ProxyJump one\n")
        + host("board", device, "  ProxyJump two\n  HostKeyAlias the-device\n")
        + host("chain", device, "  ProxyJump one,two\n  HostKeyAlias the-device\n")
    )
    config.write_text(f"Include {folder}/more\n")
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(config))
    transport = SshTransport("board")
    before = set(threading.enumerate())
    try:
        with pytest.raises(HostKeyError) as caught:
            transport.run(["true"], soon())
        assert caught.value.fingerprint == second.host_key_fingerprint
        assert f"--ssh board --accept-key {second.host_key_fingerprint}" in str(caught.value)
        accept("board", second.host_key_fingerprint)
        data = os.urandom(3 << 20)
        transport.push(data, f"{device.home}/x", soon())
        transport.pull(f"{device.home}/x", folder / "back", soon())
        assert (folder / "back").read_bytes() == data
        assert transport.run(["sh", "-c", "echo $HOME"], soon()).stdout.decode().strip() == str(device.home)
        chain = SshTransport("chain")
        assert chain.run(["true"], soon()).code == 0
        chain.close()
        device.stop()
        with pytest.raises(LinkLost):
            transport.run(["true"], soon())
        with pytest.raises(LinkLost, match="from the jump host"):
            transport.run(["true"], soon())
    finally:
        transport.close()
        for server in (first, second, device):
            server.stop()
    assert set(threading.enumerate()) == before


@pytest.fixture
def agent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent here")
    socket = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    while not socket.exists():
        time.sleep(0.01)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    yield socket
    process.terminate()
    process.wait(10)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_every_kind_of_key_logs_in_from_a_file_and_from_the_agent(
    sshd: Sshd, folder: Path, agent: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(folder / kind, kind)
    allowed = sshd.folder / "authorized_keys"
    allowed.write_text(allowed.read_text() + key.with_suffix(".pub").read_text())
    config = folder / "config"
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(config))
    base = f"UserKnownHostsFile {sshd.known_hosts}\n"
    for text in (f"{base}IdentityFile {key}\nIdentitiesOnly yes\n", base):
        config.write_text(text)
        transport = SshTransport(sshd.address)
        assert transport.run(["true"], soon()).code == 0
        transport.close()
        subprocess.run(["ssh-add", "-q", str(key)], check=True, capture_output=True)
    key.unlink()  # the agent alone, chosen by the public half
    config.write_text(f"{base}IdentityFile {key}\nIdentitiesOnly yes\n")
    transport = SshTransport(sshd.address)
    assert transport.run(["true"], soon()).code == 0
    transport.close()
    config.write_text(f"{base}IdentityFile {folder}/nothing\nIdentitiesOnly yes\n")
    with pytest.raises(DeviceError, match="there was no key to try"):
        SshTransport(sshd.address).run(["true"], soon())


def test_a_damaged_certificate_beside_a_key_is_left_out(sshd: Sshd, ssh: SshTransport) -> None:
    certificate = Path(f"{sshd.user_key}-cert.pub")
    try:
        for text in ("no certificate\n", "", "ssh-rsa-cert-v01@openssh.com AAAA\n"):
            certificate.write_text(text)
            ssh.close()
            assert ssh.run(["true"], soon()).code == 0
    finally:
        certificate.unlink()


def test_an_encrypted_key_without_a_person_is_refused_with_what_to_do(
    sshd: Sshd, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(folder / "locked", passphrase="not told")
    config = folder / "config"
    config.write_text(f"UserKnownHostsFile {sshd.known_hosts}\nIdentityFile {key}\n")
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(config))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(DeviceError, match="is encrypted: `ssh-add") as caught:
        SshTransport(sshd.address).run(["true"], soon())
    assert "not told" not in str(caught.value)


# Runs a command with nothing but a terminal to ask, twice, so that what is kept for the process is seen.
ASKING = """
import sys
from meltbench.deadline import Deadline
from meltbench.targets.ssh import SshTransport
for turn in range(2):
    transport = SshTransport(sys.argv[1])
    try:
        print(transport.run(["echo", "let in"], Deadline.after(20)).stdout)
    except Exception as error:
        print(error)
    transport.close()
"""


def asked(address: str, answers: list[str], **env: str) -> str:
    """All that a terminal shows: every question is answered with the next answer."""
    pid, terminal = pty.fork()
    if pid == 0:
        root = str(Path(__file__).parents[2])
        os.execve(sys.executable, [sys.executable, "-c", ASKING, address], {**os.environ, "PYTHONPATH": root, **env})
    shown = b""
    left = list(answers)
    try:
        while select.select([terminal], [], [], SOON)[0]:
            shown += os.read(terminal, 4096)
            if shown.endswith(b": ") and left:
                os.write(terminal, f"{left.pop(0)}\n".encode())
    except OSError:  # a terminal whose program has ended reads as an error
        pass
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return shown.decode()


@pytest.fixture
def with_password(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sshd, str]]:
    """A server that takes a password, and the password, which its user has while the test runs."""
    user, password = lab_user("bash"), secrets.token_hex(12)
    subprocess.run(["chpasswd", "-c", "SHA512"], input=f"{user}:{password}", text=True, check=True)
    server = start_sshd(folder, user=user, options=["PasswordAuthentication yes"])
    (folder / "authorized_keys").write_text("")
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(server.config_path))
    yield server, password
    server.stop()
    subprocess.run(["usermod", "-p", "*", user], check=True)


def test_a_password_is_asked_for_once_on_a_terminal_and_told_nowhere(with_password: tuple[Sshd, str]) -> None:
    server, password = with_password
    shown = asked(server.address, [password])
    assert shown.count("Password of") == 1
    assert shown.count("let in") == 2
    wrong = asked(server.address, ["wrong-" + password, password])  # forgotten, and asked for again
    assert wrong.count("Password of") == 2
    assert wrong.count("let in") == 1
    assert "tried" in wrong
    assert password not in shown + wrong + server.log()


def test_a_password_comes_from_the_secret_store(
    with_password: tuple[Sshd, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library `keyring` is made: its real backends need a desktop."""
    server, password = with_password
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(DeviceError, match="it takes publickey, password") as caught:
        SshTransport(server.address).run(["true"], soon())
    assert "\n" not in str(caught.value)
    (folder / "keyring").mkdir()
    (folder / "keyring" / "__init__.py").write_text(
        "from keyring import errors\n"
        "def get_password(service, name):\n"
        f"    return {password!r} if (service, name) == ('meltbench', {server.address!r}) else None\n"
    )
    (folder / "keyring" / "errors.py").write_text("class KeyringError(Exception): pass\n")
    monkeypatch.syspath_prepend(str(folder))
    transport = SshTransport(server.address)
    assert transport.run(["true"], soon()).code == 0
    transport.close()
    for name in ("keyring", "keyring.errors"):
        sys.modules.pop(name)


def test_a_passphrase_is_asked_for_on_a_terminal(sshd: Sshd, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("ed25519", "rsa"):
        key = make_key(folder / kind, kind, "open sesame")
        allowed = sshd.folder / "authorized_keys"
        allowed.write_text(allowed.read_text() + key.with_suffix(".pub").read_text())
        (folder / "config").write_text(f"UserKnownHostsFile {sshd.known_hosts}\nIdentityFile {key}\n")
        monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(folder / "config"))
        shown = asked(sshd.address, ["wrong", "open sesame"])
        assert shown.count(f"Passphrase of {key}: ") == 2
        assert shown.count("let in") == 1
        assert "is encrypted" in shown
        assert "sesame" not in shown


def test_prose_of_the_login_spoils_no_output(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start_sshd(folder, user=lab_user("bash"), options=["PrintMotd yes"])
    (server.home / ".bashrc").write_text("echo welcome; echo to stderr >&2; printf 'no newline'\n")
    transport = use(server, monkeypatch)
    try:
        done = transport.run(["sh", "-c", "echo out; echo err >&2"], soon())
        assert (done.stdout, done.complaint()) == (b"out\n", "err")
        transport.push(b"text", f"{server.home}/x", soon())
        transport.pull(f"{server.home}/x", folder / "back", soon())
        assert (folder / "back").read_bytes() == b"text"
        channel = transport.spawn(["cat"], soon())
        assert channel.ask(b"x", soon()) == b"x\n"
        channel.close()
        (server.home / ".bashrc").write_text("echo this account is closed; exit 1\n")
        with pytest.raises(DeviceError, match="this account is closed"):
            transport.run(["true"], soon())
        (server.home / ".bashrc").write_text("while :; do echo for ever and ever; done\n")
        with pytest.raises(DeviceError, match="without end"):
            transport.run(["true"], soon())
    finally:
        transport.close()
        server.stop()


@pytest.mark.parametrize("shell", ["tcsh", "bash", "fish"])
def test_other_login_shells_pass_arguments_on_as_they_are(
    folder: Path, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_sshd(folder, user=lab_user(shell))
    transport = use(server, monkeypatch)
    try:
        no_shell_sees_arguments(transport, ["\n", "a\nb!\n", "ü€"])
        assert transport.run(["sh", "-c", "kill -9 $$"], soon()).code == -9
        transport.push(b"text", f"{server.home}/it's!", soon())
        assert (server.home / "it's!").read_bytes() == b"text"
    finally:
        transport.close()
        server.stop()


@pytest.mark.parametrize("applets", ["busybox", "toybox"])
def test_files_are_pushed_with_what_a_small_system_has(
    folder: Path, applets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (found := shutil.which(applets)) is None:
        pytest.skip(f"no {applets} here: `make lab` installs it where root and apt are there")
    server = start_sshd(folder, user=lab_user(), programs=())
    for name in ("cat", "mkdir", "mv", "chmod", "wc", "rm", *(["sh"] if applets == "busybox" else [])):
        (folder / "bin" / name).symlink_to(found)
    if applets == "toybox":
        (folder / "bin" / "sh").symlink_to("/bin/sh")
    transport = use(server, monkeypatch)
    try:
        data = os.urandom(1 << 20)
        transport.push(data, f"{server.home}/deep/x", soon(), executable=True)
        transport.pull(f"{server.home}/deep/x", folder / "back", soon())
        assert (folder / "back").read_bytes() == data
        assert [path.name for path in (server.home / "deep").iterdir()] == ["x"]
        with pytest.raises(DeviceError, match="Permission denied"):
            transport.push(data, "/root/x/y", soon())
    finally:
        transport.close()
        server.stop()


def test_an_address_that_leads_nowhere_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "config"
    empty.write_text("")
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(empty))
    for address, why in (("127.0.0.1:1", "Connection refused"), ("no-such-host.invalid", "cannot be reached")):
        with pytest.raises(LinkLost, match=why):
            SshTransport(address).run(["true"], soon())
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no file"):
        SshTransport("127.0.0.1").run(["true"], soon())
