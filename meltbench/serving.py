"""A server that runs already: where it is, and whether it is spoken to straight or by way of our relay.

The probe speaks plain HTTP to its own machine. For another host, TLS, a key or a tokenizer's count a relay runs beside
it as if it were the engine (runners/openai/relay.py).
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meltbench.spec import Scalar

# The relay finds a server's key in this variable of the environment that it inherits; it is written down nowhere.
KEY = "MELTBENCH_API_KEY"
_EXAMPLE = "write http://127.0.0.1:8000/v1 or https://HOST/v1"
_MAX_URL = 2000
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """Where a server is; ``path`` is where its routes begin, empty where the address does not say."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """The address without its path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port != _PORTS[self.scheme] else "")

    @property
    def remote(self) -> bool:
        """Whether it is another machine than the one that asks, as far as its name tells."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"

    @property
    def straight(self) -> bool:
        """Whether the probe can speak to it: plain HTTP, at the loopback address that it knows."""
        return self.scheme == "http" and self.host in ("127.0.0.1", "localhost")


def read_address(text: str) -> Address:
    """The address of a server. UserError where it is none, or holds what may be a secret."""
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        port, host = 0, None
    if port == 0 or not host or parts.scheme not in ("http", "https") or len(text) > _MAX_URL or not text.isascii():
        raise UserError(f"{text[:80]!r} is no address of a server", hint=_EXAMPLE)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UserError("an address with a password, a query or a fragment would be written down", hint=f"{KEY} is not")
    path = parts.path.rstrip("/")
    if not path.isprintable() or " " in path or "\\" in path:
        raise UserError(f"{text[:80]!r} is no address of a server", hint=_EXAMPLE)
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], path)


def is_address(text: str | None) -> bool:
    """Whether this is meant as one."""
    return text is not None and text.startswith(("http://", "https://"))


def relayed(url: str, knobs: Mapping[str, Scalar]) -> bool:
    """Whether the server at ``url`` is spoken to by way of the relay."""
    return not read_address(url).straight or bool(os.environ.get(KEY)) or knobs.get("tokenizer", "none") != "none"
