"""What ssh_config says of a host, as OpenSSH itself reads it.

``ssh -G`` is asked, for it is the truth: Include, Match with all its criteria, canonical names, tokens, the system's
file. paramiko's own parser knows no Include, no token of the newer releases and not the system's file; it is used where
there is no ssh program, and a file with Include or Match is then refused rather than half read.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from meltbench.errors import DeadlineExceeded, UserError
from meltbench.targets import printable
from meltbench.targets.ssh.address import Address

if TYPE_CHECKING:
    from meltbench.deadline import Deadline

VARIABLE = "MELTBENCH_SSH_CONFIG"
_CONNECT_S = 15.0  # without ConnectTimeout: TCP, greeting and keys of a slow board
_MAX_HOPS = 8
_DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_KNOWN = {"userknownhostsfile": "~/.ssh/known_hosts", "globalknownhostsfile": "/etc/ssh/ssh_known_hosts"}


@dataclass(frozen=True)
class Hop:
    """One server on the way to a ``device`` (its address), which the last one is.

    ``known_as``: its name in known_hosts files. ``agent``: the path of its socket, None for none. ``connect_s``:
    for TCP, greeting and keys together.
    """

    address: str
    host: str
    user: str
    port: int
    known_as: str
    known_hosts: tuple[Path, ...]
    identities: tuple[Path, ...]
    identities_only: bool
    agent: str | None
    connect_s: float
    family: int
    device: str = ""

    def __str__(self) -> str:
        return self.address


def route(address: str, deadline: Deadline) -> tuple[Hop, ...]:
    """The servers on the way to a device, the device last. Raises UserError for an odd address or configuration."""
    parsed = Address.parse(address)
    return tuple(replace(hop, device=str(parsed)) for hop in _route(parsed, deadline, 1))


def _route(address: Address, deadline: Deadline, depth: int) -> tuple[Hop, ...]:
    if depth > _MAX_HOPS:
        raise UserError(f"{address}: ProxyJump leads through more than {_MAX_HOPS} hosts", hint="look for a circle")
    options = _options(address, deadline)
    if options.get("proxycommand", ["none"])[0] != "none":
        raise UserError(f"{address}: ProxyCommand is not run", hint="use ProxyJump in ssh_config")
    jumps = [Address.parse(one) for one in options.get("proxyjump", ["none"])[0].split(",") if one != "none"]
    # As ssh: the first jump host is reached as its own configuration says, each further one through those before.
    before = _route(jumps[0], deadline, depth + 1) if jumps else ()
    between = tuple(_hop(one, _options(one, deadline)) for one in jumps[1:])
    return (*before, *between, _hop(address, options))


def _options(address: Address, deadline: Deadline) -> dict[str, list[str]]:
    """Every option by its name in small letters, with each of its values."""
    given = os.environ.get(VARIABLE)
    own = Path(given).expanduser() if given else None
    if own is not None and not own.is_file():
        raise UserError(f"${VARIABLE} names {own}, which is no file")
    if (ssh := shutil.which("ssh")) is None:
        return _read_without_ssh(address, own or Path("~/.ssh/config").expanduser())
    words = [ssh, "-G", "-T"]
    words += ["-F", str(own)] if own else []
    words += ["-l", address.user] if address.user else []
    words += ["-p", str(address.port)] if address.port else []
    try:
        done = subprocess.run(
            [*words, "--", address.host],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=deadline.remaining(),
        )
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"ssh_config was not read in time for {address}", hint="see its Match exec") from None
    if done.returncode:
        text = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["ssh -G failed"]
        raise UserError(f"ssh_config: {printable(text[0])[:300]}", hint="correct that line")
    found: dict[str, list[str]] = {}
    for line in done.stdout.decode("utf-8", "surrogateescape").splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name.lower(), []).append(value)
    return found


def _read_without_ssh(address: Address, path: Path) -> dict[str, list[str]]:
    from paramiko.config import SSHConfig
    from paramiko.ssh_exception import ConfigParseError

    text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""
    if re.search(r"^\s*(include|match)\b", text, re.IGNORECASE | re.MULTILINE):
        raise UserError(f"{path} has Include or Match, which only OpenSSH reads", hint="install openssh-client")
    try:
        read = SSHConfig.from_text(text).lookup(address.host)
    except ConfigParseError as error:
        raise UserError(f"{path}: {printable(str(error))[:300]}") from error
    found = {name: value if isinstance(value, list) else [str(value)] for name, value in read.items()}
    found |= {"user": [address.user]} if address.user else {}
    return found | ({"port": [str(address.port)]} if address.port else {})


def _hop(address: Address, options: dict[str, list[str]]) -> Hop:
    def first(name: str, otherwise: str) -> str:
        return options.get(name, [otherwise])[0]

    host = first("hostname", address.host)
    port = first("port", "22")
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UserError(f"{address}: ssh_config gives it port {printable(port)!r}", hint="1 to 65535")
    user, alias = first("user", getpass.getuser()), first("hostkeyalias", "")
    tokens = _tokens(address, host, port, user, alias)
    files = [path for name, value in _KNOWN.items() for path in _paths(first(name, value), tokens)]
    named = [_expanded(value, tokens) for value in options.get("identityfile", _DEFAULT_KEYS)]
    agent = _agent(first("identityagent", "SSH_AUTH_SOCK"), tokens)
    wait = first("connecttimeout", "none")
    return Hop(
        address=str(address),
        host=host,
        user=user,
        port=int(port),
        known_as=(alias or (host if port == "22" else f"[{host}]:{port}")).lower(),
        known_hosts=tuple(files),
        identities=tuple(Path(one) for one in named if one != "none"),
        identities_only=first("identitiesonly", "no") == "yes",
        agent=agent,
        connect_s=float(wait) if wait.isdecimal() and int(wait) else _CONNECT_S,
        family={"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(first("addressfamily", "any"), 0),
    )


def _agent(value: str, tokens: dict[str, str]) -> str | None:
    """The socket that IdentityAgent names (ssh_config(5)); by default that of the environment."""
    if value.startswith("$"):
        value = os.environ.get(value[1:].strip("{}"), "none")
    elif value == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    return None if value == "none" else _expanded(value, tokens)


def _tokens(address: Address, host: str, port: str, user: str, alias: str) -> dict[str, str]:
    """ssh_config(5), TOKENS: those that file names take. ``ssh -G`` leaves them in identity files as they stand."""
    local = socket.gethostname()
    return {
        "%": "%",
        "d": str(Path.home()),
        "h": host,
        "i": str(os.getuid()),
        "k": alias or address.host,
        "L": local.partition(".")[0],
        "l": local,
        "n": address.host,
        "p": port,
        "r": user,
        "u": getpass.getuser(),
    }


def _expanded(value: str, tokens: dict[str, str]) -> str:
    text = re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), value.strip('"'))
    return str(Path(re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], ""), text)).expanduser())


def _paths(value: str, tokens: dict[str, str]) -> list[Path]:
    """The files of a list. ``ssh -G`` sets no quotes: a word that begins no path goes on with the one before it."""
    words: list[str] = []
    for word in value.split(" "):
        if words and not word.startswith(("/", "~", "%", "$", '"')):
            words[-1] += f" {word}"
        else:
            words.append(word)
    return [Path(_expanded(word, tokens)) for word in words if word not in ("", "none")]
