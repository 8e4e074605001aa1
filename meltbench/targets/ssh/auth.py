"""Logs in: the agent's keys, key files, and where the server takes one, a password."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
from paramiko.agent import AgentSSH

from meltbench.errors import DeviceError
from meltbench.targets.ssh import secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meltbench.deadline import Deadline
    from meltbench.targets.ssh.config import Hop
    from meltbench.targets.ssh.secrets import Asker

_KINDS = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
_ASKED = ("password", "keyboard-interactive")
_FEW = 3  # tries that no server minds


class _Agent(AgentSSH):
    """The ssh-agent at a path: paramiko's own knows the environment's only, and waits for it without end."""

    def __init__(self, path: str, deadline: Deadline) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(max(0.1, deadline.remaining()))
        try:
            self._socket.connect(path)
            self._connect(self._socket)  # type: ignore[attr-defined]
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()


class Login:
    """One log-in: what was tried, for the sentence that says why it failed."""

    def __init__(self, transport: paramiko.Transport, hop: Hop, asker: Asker, deadline: Deadline) -> None:
        self._transport = transport
        self._hop = hop
        self._asker = asker
        self._deadline = deadline
        self._tried: list[str] = []
        self._encrypted: list[Path] = []
        self._takes: tuple[str, ...] = ()

    def run(self) -> None:
        """Log in, or raise DeviceError with what was tried and what the server takes."""
        if self._step(lambda: self._transport.auth_none(self._hop.user)):
            return
        agent = self._agent()
        try:
            if "publickey" in self._takes and any(map(self._offer, self._keys(agent))):
                return
        finally:
            if agent is not None:
                agent.close()
        if any(method in self._takes for method in _ASKED) and self._password():
            return
        raise self._refused()

    def _step(self, ask: Callable[[], list[str]]) -> bool:
        """One question of the protocol: whether it logged us in. What the server takes next is kept."""
        deadline = self._asker.extended(self._deadline)
        deadline.check(f"logging in to {self._hop}")
        self._transport.auth_timeout = max(0.1, deadline.remaining())
        try:
            left = ask()
        except paramiko.BadAuthenticationType as error:
            self._takes = tuple(error.allowed_types)
            return False
        except paramiko.AuthenticationException:
            if self._transport.is_active():
                return False
            if len(self._tried) < _FEW:
                raise
            raise DeviceError(
                f"{self._hop} ended the log-in after {len(self._tried)} tries: {', '.join(self._tried)}",
                hint="name the right key by IdentityFile, with IdentitiesOnly yes, in ssh_config",
            ) from None
        self._takes = tuple(left) or self._takes
        return not left

    def _offer(self, named: tuple[str, paramiko.PKey]) -> bool:
        name, key = named
        self._tried.append(name)
        return self._step(lambda: self._transport.auth_publickey(self._hop.user, key))

    def _agent(self) -> _Agent | None:
        """The agent, where one answers; a socket that is left over of one is as if there were none, as ssh has it."""
        if self._hop.agent is None:
            return None
        try:
            return _Agent(self._hop.agent, self._deadline)
        except (OSError, paramiko.SSHException):
            return None

    def _keys(self, agent: _Agent | None) -> Iterator[tuple[str, paramiko.PKey]]:
        """Keys in the order of their likelihood: the configured ones, held by the agent or in files; then its others.

        Encrypted files that the agent does not hold come last, for a person has to be asked. paramiko signs at once
        with what it offers: a server that counts tries (MaxAuthTries, 6) sees each key once.
        """
        held = {key.asbytes(): key for key in agent.get_keys()} if agent is not None else {}
        offered = set()
        for path in self._hop.identities:
            public = _public(path)
            if public in held:
                offered.add(public)
                yield f"{path} (agent)", held[public]
            elif path.is_file() and (key := self._load(path)) is not None:
                yield str(path), key
        if not self._hop.identities_only:
            for blob, held_key in held.items():
                if blob not in offered:
                    yield f"{held_key.comment or held_key.get_name()} (agent)", held_key
        for path in tuple(self._encrypted):
            if (passphrase := self._asker.passphrase(path)) is not None:
                if (key := self._load(path, passphrase)) is not None:
                    yield str(path), key
                else:
                    secrets.forget(str(path))

    def _load(self, path: Path, passphrase: str | None = None) -> paramiko.PKey | None:
        """A private key; None, and kept in mind, where it is encrypted and no passphrase opens it."""
        for kind in _KINDS:
            try:
                key = kind.from_private_key_file(str(path), passphrase)
            except paramiko.PasswordRequiredException:
                self._encrypted.append(path)
                return None
            except OSError as error:
                self._tried.append(f"{path} ({error.strerror})")
                return None
            except (paramiko.SSHException, ValueError):
                continue  # a key of another kind, or a wrong passphrase
            certificate = Path(f"{path}-cert.pub")
            try:
                if certificate.is_file():
                    key.load_certificate(str(certificate))
            except (OSError, ValueError):  # the server may take the key by itself
                self._tried.append(f"{certificate} (no certificate of that key)")
            return key
        if passphrase is None:
            self._tried.append(f"{path} (no ed25519, ecdsa or rsa key)")
        return None

    def _password(self) -> bool:
        password = self._asker.password(self._hop)
        if password is None:
            return False
        self._tried.append("a password")
        done = self._step(lambda: self._transport.auth_password(self._hop.user, password))
        if not done:
            secrets.forget_password(self._hop)
        return done

    def _refused(self) -> DeviceError:
        hop, takes = self._hop, ", ".join(self._takes)
        tried = f"tried {', '.join(self._tried)}" if self._tried else "there was no key to try"
        if self._encrypted:
            hint = f"{self._encrypted[0]} is encrypted: `ssh-add {self._encrypted[0]}`, or run this on a terminal"
        elif "publickey" in self._takes:
            hint = f"`ssh-copy-id {hop}` brings a key there, IdentityFile in ssh_config names it"
        else:
            hint = "run this on a terminal, or keep the password in the system's secret store (docs/ssh.md)"
        return DeviceError(
            f"{hop} did not let {hop.user} in: it takes {takes or 'nothing we have'}; {tried}", hint=hint
        )


def _public(path: Path) -> bytes | None:
    """The public half of an identity, from the .pub file beside it or from the file itself, as ssh has it."""
    for file in (Path(f"{path}.pub"), path):
        try:
            words = file.read_text(encoding="utf-8", errors="replace")[:20000].split()
        except OSError:
            continue
        if len(words) >= 2 and not words[0].startswith("-"):
            try:
                return base64.b64decode(words[1], validate=True)
            except ValueError:
                continue
    return None
