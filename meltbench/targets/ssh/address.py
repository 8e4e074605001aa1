"""What a user writes for a device: [USER@]HOST[:PORT], ssh://[USER@]HOST[:PORT], or a Host of ssh_config."""

from __future__ import annotations

import re
from dataclasses import dataclass

from meltbench.errors import UserError
from meltbench.targets import printable

_HINT = "write [USER@]HOST[:PORT], as pi@10.0.0.7 or [fe80::1%eth0]:22, or a Host of your ssh_config"
# None begins with a hyphen, and none holds what a shell or ssh's own option parser could take for more than a name.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.-]{1,15})?")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True)
class Address:
    """``user`` and ``port`` are None where the words leave them to ssh_config."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Take an address apart. Raises UserError, in one line that never shows a password."""
        rest = text
        if text.lower().startswith("ssh://"):
            rest = text[6:].removesuffix("/")
        user, at, place = rest.rpartition("@")
        port: str | None
        if ":" in user:
            raise UserError("the address of a device holds no password", hint="leave it out: it is asked for")
        if at and not _USER.fullmatch(user):
            raise _odd(text, "its user")
        if place.startswith("["):
            host, closed, port = place[1:].partition("]")
            if not closed or not _IPV6.fullmatch(host) or port[:1] not in ("", ":"):
                raise _odd(text, "what is in brackets")
            port = port[1:] if port else None
        else:
            host, colon, port = place.partition(":")
            if ":" in port:
                raise _odd(text, "its port (an IPv6 address stands in brackets)")
            if not _HOST.fullmatch(host):
                raise _odd(text, "its host")
            port = port if colon else None
        if port is not None and not (_PORT.fullmatch(port) and 1 <= int(port) <= 65535):
            raise _odd(text, "its port")
        return cls(host, user or None, int(port) if port is not None else None)


def _odd(text: str, what: str) -> UserError:
    shown = printable(text if len(text) <= 80 else f"{text[:79]}…")
    return UserError(f"{shown!r} is no address of a device: {what} is odd", hint=_HINT)
