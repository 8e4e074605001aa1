"""Whether a host key is the one that is known: the known_hosts files of the user and of the system, and one of our own.

The format is that of sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: patterns, hashed names, @revoked. Host certificates are not
used.
"""

from __future__ import annotations

import base64
import fcntl
import fnmatch
import hashlib
import hmac
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meltbench.errors import HostKeyError, UserError
from meltbench.paths import config_dir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.targets.ssh.config import Hop

_RSA = ("rsa-sha2-512", "rsa-sha2-256")  # how a server signs with an ssh-rsa key


@dataclass(frozen=True)
class Entry:
    """A line of a known_hosts file: for which hosts, and which key. ``where``: file and line."""

    names: str
    kind: str
    blob: bytes
    revoked: bool
    where: str

    def is_for(self, name: str) -> bool:
        """Whether the line speaks of that host."""
        if self.names.startswith("|1|"):
            return _hashed(self.names, name)
        found = False
        for pattern in self.names.lower().split(","):
            # Of fnmatch's signs only * and ? are patterns here; a bracket stands for itself.
            wanted = pattern.removeprefix("!").replace("[", "[[]")
            if fnmatch.fnmatchcase(name, wanted):
                if pattern.startswith("!"):
                    return False
                found = True
        return found


def own_file() -> Path:
    """The known_hosts file that meltbench writes; it writes no other."""
    return config_dir() / "known_hosts"


def fingerprint(blob: bytes) -> str:
    """A key's fingerprint as ssh-keygen -l tells it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _known(hop: Hop) -> tuple[list[Entry], list[Entry]]:
    """What all files say of a server, and what they say of its host without the port.

    The second counts as ssh counts it, which is only where the first is empty, and only where it holds the very key.
    """
    every = [entry for path in (*hop.known_hosts, own_file()) for entry in _read(path)]
    found = [entry for entry in every if entry.is_for(hop.known_as)]
    has_port = hop.known_as == f"[{hop.host}]:{hop.port}".lower()
    return found, [entry for entry in every if entry.is_for(hop.host.lower())] if has_port and not found else []


def preferred(hop: Hop, kinds: Sequence[str]) -> list[str]:
    """Key algorithms in the order to ask for: first those of which a key is known, or the server might show another."""
    found, without_port = _known(hop)
    have = {name for entry in (*found, *without_port) for name in (_RSA if entry.kind == "ssh-rsa" else (entry.kind,))}
    return sorted(kinds, key=lambda kind: kind not in have)


def check(hop: Hop, kind: str, blob: bytes) -> None:
    """Raise HostKeyError unless this key is known for that server and not revoked."""
    entries, without_port = _known(hop)
    shown = fingerprint(blob)
    same = [entry for entry in (*entries, *without_port) if entry.blob == blob]
    if bad := [entry for entry in same if entry.revoked]:
        raise HostKeyError(
            f"the host key of {hop}, {shown}, is revoked by {bad[0].where}",
            fingerprint=shown,
            state="revoked",
            hint="do not use this host before its owner gave it a new key",
        )
    if same:
        return
    compare = f"compare it on the device itself (ssh-keygen -lf /etc/ssh/ssh_host_{_short(kind)}_key.pub)"
    accepting = f"meltbench devices add NAME --ssh {hop.device} --accept-key {shown}"
    if others := [entry for entry in entries if not entry.revoked]:
        raise HostKeyError(
            f"the host key of {hop} is not the one that is known: it shows {shown} ({kind}), "
            f"{others[0].where} has {fingerprint(others[0].blob)} ({others[0].kind})",
            fingerprint=shown,
            state="changed",
            hint="the device was set up anew, another has its address, or someone in between reads all that is sent: "
            f"{compare}, and only if it is the same: {accepting}",
        )
    raise HostKeyError(
        f"the host key of {hop} is not known: it shows {shown} ({kind})",
        fingerprint=shown,
        state="unknown",
        hint=f"{compare}, then {accepting}",
    )


def remember(hop: Hop, kind: str, blob: bytes) -> None:
    """Write a key into our own file, in place of what it has for that server; other files are left as they are."""
    path = own_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # another meltbench may be writing another key
            kept = [line for line, entry in _lines(path) if entry is None or entry.names.lower() != hop.known_as]
            kept.append(f"{hop.known_as} {kind} {base64.b64encode(blob).decode()}")
            _replace(path, "\n".join(kept) + "\n")
        finally:
            os.close(folder)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _replace(path: Path, text: str) -> None:
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=".known_hosts.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _short(kind: str) -> str:
    return "ecdsa" if kind.startswith("ecdsa") else kind.removeprefix("ssh-")


def _read(path: Path) -> list[Entry]:
    return [entry for _, entry in _lines(path) if entry is not None]


def _lines(path: Path) -> list[tuple[str, Entry | None]]:
    """The lines of a file, each with what it says; nothing where there is no file."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", hint="it says which hosts are known") from error
    return [(line, _entry(line, f"{path}:{number}")) for number, line in enumerate(text.rstrip("\n").split("\n"), 1)]


def _entry(line: str, where: str) -> Entry | None:
    words = line.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#") or marker not in ("", "@revoked"):
        return None  # a comment, or a certificate authority: host certificates are not used
    try:
        blob = base64.b64decode(words[2], validate=True)
    except ValueError:
        return None  # ssh passes over such a line as well: the host then counts as not known
    return Entry(words[0], words[1], blob, marker == "@revoked", where)


def _hashed(names: str, name: str) -> bool:
    """HashKnownHosts: |1|salt|HMAC-SHA1 of the name."""
    parts = names.split("|")
    if len(parts) != 4:
        return False
    try:
        salt, wanted = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), wanted)
