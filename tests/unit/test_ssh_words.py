"""Addresses, command lines, ssh_config and known_hosts: what is read and written of words before anything is sent."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.deadline import Deadline
from meltbench.errors import HostKeyError, UserError
from meltbench.targets.shell.quoting import MAX_LINE_BYTES, line
from meltbench.targets.ssh import config, hostkeys
from meltbench.targets.ssh.address import Address

MARK = "meltbench-0"
KEY = base64.b64decode("AAAAC3NzaC1lZDI1NTE5AAAAIE9tTmJx5S8mD0bzFJ3m1ZyZ0kz2m5m5m5m5m5m5m5m5")
OTHER = KEY[:-1] + b"x"
ED = "ssh-ed25519"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pi5", Address("pi5")),
        ("pi@10.0.0.7", Address("10.0.0.7", "pi")),
        ("pi@10.0.0.7:2222", Address("10.0.0.7", "pi", 2222)),
        ("[fe80::1%eth0]", Address("fe80::1%eth0")),
        ("pi@[::1]:22", Address("::1", "pi", 22)),
        ("ssh://pi@host.example:22/", Address("host.example", "pi", 22)),
        ("ssh://host", Address("host")),
        ("me@corp.example@host", Address("host", "me@corp.example")),
    ],
)
def test_addresses_are_taken_apart(text: str, found: Address) -> None:
    assert Address.parse(text) == found
    assert Address.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "@host",
            "host:",
            "host:0",
            "host:65536",
            "host:22x",
            "host:\u0662",
            "-oProxyCommand=x",
            "-l@host",
            "a b",
        ),
        *("::1", "fe80::1:22", "[::1", "[::1]22", "[host]", "[]", "host/path", "ssh://host/path", "http://host", "h\n"),
        *("$(id)", "`id`", "a;b", "a|b", "host\0", "\u202ehost", "höst", "pi@", "..@.", "*", "x" * 300),
    ],
)
def test_odd_addresses_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError) as caught:
        Address.parse(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["pi:geheim@host", "ssh://pi:geheim@host:22", "pi:geheim@x@host", "pi:geheim@-x"])
def test_a_password_in_an_address_is_never_shown(text: str) -> None:
    with pytest.raises(UserError) as caught:
        Address.parse(text)
    assert "geheim" not in str(caught.value)


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser_and_what_it_takes_is_tame(text: str) -> None:
    try:
        found = Address.parse(text)
    except UserError:
        return
    for word in (found.host, found.user or "x"):
        assert not word.startswith("-")
        assert not set(word) & set(" \t\r\n'\"\\$`;|&<>(){}*?!#~")
    assert Address.parse(str(found)) == found


_words = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12), max_size=6)


def _ran(shell: list[str], words: list[str]) -> list[str]:
    command = line(["sh", "-c", 'for w; do printf "%s\\0" "$w"; done', "sh", *words], MARK)
    done = subprocess.run([*shell, "-c", command], capture_output=True, check=True)
    marked, _, rest = done.stdout.partition(b"\n")
    assert marked.decode() == MARK
    return rest.decode().split("\0")[:-1]


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox sh", "tcsh", "fish", "zsh", "mksh"])
def test_every_shell_passes_words_on_as_they_are(shell: str) -> None:
    argv = shell.split()
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {argv[0]} here")

    @settings(deadline=None, max_examples=50)  # a process each
    @given(_words)
    def check(words: list[str]) -> None:
        assert _ran(argv, words) == words

    check()
    visible = [chr(code) for code in range(32, 127)]
    assert _ran(argv, visible) == visible
    every = [a + b for a in "'\"\\!$`~-= x" for b in "'\"\\!$`~-= x"]
    assert _ran(argv, every) == every
    assert _ran(argv, ["\n", "a\n\nb\n", "\\\n", "!\n", "\x01\x7f\t\r"]) == [
        "\n",
        "a\n\nb\n",
        "\\\n",
        "!\n",
        "\x01\x7f\t\r",
    ]


def test_what_no_command_can_hold_is_refused() -> None:
    for argv in ([], ["a\0b"], ["x" * MAX_LINE_BYTES]):
        with pytest.raises(UserError):
            line(argv, MARK)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("MELTBENCH_SSH_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


def route(address: str) -> tuple[config.Hop, ...]:
    return config.route(address, Deadline.after(10))


def needs_ssh() -> None:
    if shutil.which("ssh") is None:
        pytest.skip("no ssh here")


def test_ssh_config_is_read_as_openssh_reads_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_ssh()
    monkeypatch.setenv("KEYS", str(place / "keys"))
    (place / "more").write_text("Match host 10.0.0.7 user pi\n  IdentitiesOnly yes\n  ConnectTimeout 7\n")
    (place / "config").write_text(
        "Host pi5\n  HostName 10.0.0.7\n  User pi\n  Port 2222\n  HostKeyAlias Board\n  AddressFamily inet\n"
        f'  UserKnownHostsFile {place}/known "{place}/two words/known_%h"\n  GlobalKnownHostsFile none\n'
        "  IdentityFile ${KEYS}/%r@%n-%p%%\n  IdentityAgent /run/agent-%r\n"
        f"Match all\n  Include {place}/more\n"
    )
    (hop,) = route("pi5")
    assert (hop.host, hop.user, hop.port, hop.known_as) == ("10.0.0.7", "pi", 2222, "board")
    assert hop.known_hosts == (place / "known", place / "two words" / "known_10.0.0.7")
    assert hop.identities == (place / "keys" / "pi@pi5-2222%",)
    assert (hop.identities_only, hop.connect_s, hop.family) == (True, 7.0, socket.AF_INET)
    assert hop.agent == "/run/agent-pi"
    (other,) = route("root@pi5:2200")
    assert (other.user, other.port, other.known_as) == ("root", 2200, "board")
    assert not other.identities_only
    (plain,) = route("[::1]:2200")
    assert (plain.host, plain.port, plain.known_as, plain.agent) == ("::1", 2200, "[::1]:2200", None)


def test_jump_hosts_are_reached_as_their_own_configuration_says(place: Path) -> None:
    needs_ssh()
    (place / "config").write_text(
        "Host gate\n  HostName gate.example\n  ProxyJump outer\nHost pi5\n  ProxyJump me@gate:23,inner\n"
        "Host round\n  ProxyJump square\nHost square\n  ProxyJump round\nHost told\n  ProxyCommand nc %h %p\n"
        "Host odd\n  ProxyJump a;b\n"
    )
    assert [str(hop) for hop in route("pi5")] == ["outer", "me@gate:23", "inner", "pi5"]
    with pytest.raises(UserError, match="circle"):
        route("round")
    with pytest.raises(UserError, match="ProxyCommand is not run; use ProxyJump"):
        route("told")
    with pytest.raises(UserError):
        route("odd")


def test_a_bad_line_of_ssh_config_is_named(place: Path) -> None:
    needs_ssh()
    (place / "config").write_text("Host x\n  Prot 22\n")
    with pytest.raises(UserError, match=r"line 2.*correct that line") as caught:
        route("x")
    assert "\n" not in str(caught.value)


def test_without_openssh_a_plain_file_is_read_and_others_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(place))
    (place / "config").write_text("Host pi5\n  HostName 10.0.0.7\n  Port 2222\n  IdentityFile /keys/%h\n")
    (hop,) = route("pi@pi5")
    assert (hop.host, hop.user, hop.port, hop.identities) == ("10.0.0.7", "pi", 2222, (Path("/keys/10.0.0.7"),))
    (place / "config").write_text("Include more\n")
    with pytest.raises(UserError, match="install openssh-client"):
        route("pi5")


def hop_with(place: Path, text: str, host: str = "pi.example", port: int = 22, alias: str = "") -> config.Hop:
    (place / "known").write_text(text)
    known_as = alias or (host if port == 22 else f"[{host}]:{port}")
    return config.Hop("pi5", host, "pi", port, known_as, (place / "known",), (), False, None, 1.0, 0, "pi5")


def written(names: str, blob: bytes = KEY, kind: str = ED) -> str:
    return f"{names} {kind} {base64.b64encode(blob).decode()} comment\n"


@pytest.mark.parametrize(
    ("names", "host", "port"),
    [
        ("pi.example", "pi.example", 22),
        ("other,PI.example,10.0.0.7", "pi.example", 22),
        ("*.example", "pi.example", 22),
        ("p?.example", "pi.example", 22),
        ("[pi.example]:2222", "pi.example", 2222),
        ("[*.example]:2222", "pi.example", 2222),
        ("pi.example", "pi.example", 2222),  # as ssh: known without the port
    ],
)
def test_a_known_key_passes(place: Path, names: str, host: str, port: int) -> None:
    hostkeys.check(hop_with(place, f"# text\n\nnonsense\n{written(names)}", host, port), ED, KEY)


@pytest.mark.parametrize(
    "names", ["other", "pi.example.org", "[pi.example]:22", "*,!pi.example", "!*", "p[i].example", "|1|x", "|1|!|!"]
)
def test_an_unknown_key_does_not(place: Path, names: str) -> None:
    with pytest.raises(HostKeyError, match="is not known") as caught:
        hostkeys.check(hop_with(place, written(names)), ED, KEY)
    assert caught.value.fingerprint == hostkeys.fingerprint(KEY)


def test_a_changed_a_revoked_and_a_second_key(place: Path) -> None:
    with pytest.raises(HostKeyError, match=r"known:1 has SHA256.*someone in between"):
        hostkeys.check(hop_with(place, written("pi.example", OTHER)), ED, KEY)
    hostkeys.check(hop_with(place, written("pi.example", OTHER) + written("pi.example")), ED, KEY)
    with pytest.raises(HostKeyError, match="is not known"):  # another key without the port says nothing of this one
        hostkeys.check(hop_with(place, written("pi.example", OTHER), port=2222), ED, KEY)
    with pytest.raises(HostKeyError, match="revoked by"):
        hostkeys.check(hop_with(place, written("pi.example") + written("@revoked *")), ED, KEY)
    with pytest.raises(HostKeyError, match="is not known"):
        hostkeys.check(hop_with(place, written("@cert-authority *")), ED, KEY)


def test_the_kind_of_key_that_is_known_is_asked_for_first(place: Path) -> None:
    kinds = [ED, "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"]
    assert hostkeys.preferred(hop_with(place, ""), kinds) == kinds
    wanted = hostkeys.preferred(hop_with(place, written("pi.example", kind="ssh-rsa")), kinds)
    assert wanted == ["rsa-sha2-512", "rsa-sha2-256", ED, "ecdsa-sha2-nistp256"]


def test_a_key_is_remembered_in_our_own_file_only_and_replaces_the_old_one(place: Path) -> None:
    hop = hop_with(place, "")
    own = hostkeys.own_file()
    hostkeys.remember(hop, ED, OTHER)
    own.write_text(own.read_text() + "# kept\n" + written("another"))
    hostkeys.remember(hop, ED, KEY)
    hostkeys.check(hop, ED, KEY)
    with pytest.raises(HostKeyError):
        hostkeys.check(hop, ED, OTHER)
    assert own.read_text().splitlines()[:2] == ["# kept", written("another").strip()]
    assert own.stat().st_mode & 0o777 == 0o600
    assert (place / "known").read_text() == ""
    assert sorted(path.name for path in own.parent.iterdir()) == ["known_hosts"]


def test_a_file_that_cannot_be_read_is_no_reason_to_trust(place: Path) -> None:
    hop = hop_with(place, "")
    (place / "known").unlink()
    (place / "known").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        hostkeys.check(hop, ED, KEY)
    (place / "known").rmdir()
    with pytest.raises(HostKeyError):
        hostkeys.check(hop, ED, KEY)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_known_hosts_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "known-hosts"
    folder.mkdir(exist_ok=True)
    hop = hop_with(folder, "")
    os.environ["XDG_CONFIG_HOME"] = str(folder)
    (folder / "known").write_bytes(data)
    with pytest.raises(HostKeyError):
        hostkeys.check(hop, ED, KEY)
