"""Passwords and passphrases: of the system's secret store or of a person, kept while this process lives."""

from __future__ import annotations

import getpass
import importlib
import importlib.util
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meltbench.deadline import Deadline
from meltbench.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meltbench.targets.ssh.config import Hop

SERVICE = "meltbench"  # `keyring set meltbench USER@HOST:PORT` puts one there

_lock = threading.Lock()  # one question at a time, of whatever devices are being reached
_kept: dict[str, str] = {}
_silent = threading.Event()


@contextmanager
def nobody_is_asked() -> Iterator[None]:
    """Within it no person is asked for a secret, for whoever looks at many devices at once: what is known is tried."""
    _silent.set()
    try:
        yield
    finally:
        _silent.clear()


class Asker:
    """Asks for secrets; ``waited_s`` is the time that a person took, which is no device's fault."""

    def __init__(self) -> None:
        self.waited_s = 0.0

    def extended(self, deadline: Deadline) -> Deadline:
        """A deadline, later by that time."""
        return Deadline(deadline.at_s + self.waited_s)

    def password(self, hop: Hop) -> str | None:
        """The password of a user on a server; None where there is none and nobody to ask."""
        who = f"{hop.user}@{hop.host}:{hop.port}"
        return self._secret(who, f"Password of {who}: ", who)

    def passphrase(self, key: Path) -> str | None:
        """The passphrase of a key file, from a person only."""
        return self._secret(str(key), f"Passphrase of {key}: ", None)

    def _secret(self, name: str, question: str, stored_as: str | None) -> str | None:
        with _lock:
            if (known := _kept.get(name)) is not None:
                return known
            found = _stored(stored_as) if stored_as else None
            if found is None and not _silent.is_set() and sys.stdin is not None and sys.stdin.isatty():
                found = self._ask(question)
            if found is not None:
                _kept[name] = found
            return found

    def _ask(self, question: str) -> str | None:
        started = time.monotonic()
        try:
            return getpass.getpass(question) or None
        except EOFError:
            return None
        except KeyboardInterrupt:
            raise Interrupted("no password was given") from None
        finally:
            self.waited_s += time.monotonic() - started


def forget(name: str) -> None:
    """Drop a secret that turned out to be wrong, so that it is asked for again."""
    with _lock:
        _kept.pop(name, None)


def forget_password(hop: Hop) -> None:
    """Drop the password of a user on a server."""
    forget(f"{hop.user}@{hop.host}:{hop.port}")


def _stored(name: str) -> str | None:
    """What the system's secret store has under that name, where the extra `keyring` is installed."""
    if importlib.util.find_spec("keyring") is None:
        return None
    keyring = importlib.import_module("keyring")
    try:
        found = keyring.get_password(SERVICE, name)
    except keyring.errors.KeyringError:
        return None  # locked, or there is no store here: a person is asked, as if there were no such entry
    return found if isinstance(found, str) else None
