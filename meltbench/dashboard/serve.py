"""The server of the dashboard: on this machine alone, or with a token for others."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from meltbench.errors import MissingExtra, UserError
from meltbench.pages.published import Published
from meltbench.store import index

if TYPE_CHECKING:
    from meltbench.store import Store

LOCAL = ("127.0.0.1", "localhost", "::1")
_THREADS = 4
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Serving:
    """A server that is bound, and the address under which it can be opened, with its token where it has one."""

    server: Any
    address: str

    def run(self) -> None:
        """Answer until Ctrl-C."""
        gc.collect()
        gc.freeze()  # what stands now stays: else it is gone through again in the middle of some page
        self.server.run()

    def close(self) -> None:
        """Let go of the port."""
        self.server.close()


def bound(store: Store, host: str, port: int) -> Serving:
    """A server over this store. Raises MissingExtra without Dash, UserError for a port or host that is not to be had.

    Bound to anything but this machine it asks for a token: $MELTBENCH_TOKEN, else one that is made up.
    """
    try:
        import dash  # noqa: F401
        import dash_ag_grid  # noqa: F401
        import waitress
    except ImportError as error:
        raise MissingExtra("Dash, which draws the dashboard,", "dashboard") from error
    from meltbench.dashboard.app import make_app

    token = None if host in LOCAL else _token()
    family, listen = _resolved(host, port)
    _check_free(family, listen, port)
    index.refresh(store)
    published = Published(store)
    published.snapshot()  # so that the first page is drawn once, and what cannot be read is told here
    app = make_app(published, token)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    try:
        server = waitress.create_server(app.server, host=listen, port=port, threads=_THREADS, ident="meltbench")
    except OSError as error:
        raise _not_bound(listen, port, error) from error
    shown = socket.gethostname() if host in ("", "0.0.0.0", "::") else host  # noqa: S104  it was asked for
    name = f"[{shown}]" if ":" in shown else shown
    return Serving(server, f"http://{name}:{server.effective_port}/{f'?token={quote(token)}' if token else ''}")


def _token() -> str:
    given = os.environ.get("MELTBENCH_TOKEN")
    if given is None:
        return secrets.token_urlsafe(24)
    if len(given) < _SHORTEST_TOKEN or not given.isascii() or not given.isprintable():
        hint = "python3 -c 'import secrets; print(secrets.token_urlsafe())' makes one"
        raise UserError(f"MELTBENCH_TOKEN has fewer than {_SHORTEST_TOKEN} characters, or none of ASCII", hint=hint)
    return given


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    """The one address that a name stands for: of a name with several the server would be several."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)  # noqa: S104  as sockets have it
    except OSError as error:
        raise _not_bound(host, port, error) from error
    except UnicodeError as error:
        raise UserError(f"{host!r} is no name of a machine", hint="give an address, such as 0.0.0.0") from error
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, str(address[0])


def _check_free(family: socket.AddressFamily, host: str, port: int) -> None:
    """Ask for the port before anything slow is done."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _not_bound(host, port, error) from error


def _not_bound(host: str, port: int, error: OSError) -> UserError:
    hint = "another dashboard may be open there; --port 0 takes one that is free"
    return UserError(f"cannot listen on {host}, port {port}: {error.strerror or error}", hint=hint)
