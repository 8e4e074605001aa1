"""Where meltbench keeps what is the user's: the cache, the configuration, the state; and what a file is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOCK_POLL_S = 0.2


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex, read in pieces. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def alone(lock: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file; ``waiting`` is called once where another process holds it. The folder must be there.

    The file stays: removing it would let a third process lock a new one beside the second.
    """
    import fcntl

    with lock.open("w") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    waiting()
                    told = True
                time.sleep(_LOCK_POLL_S)
        yield


def cache_dir() -> Path:
    """Return the folder for what can be fetched or computed again; not created here.

    ``$MELTBENCH_CACHE``, else ``$XDG_CACHE_HOME/meltbench``, else ``~/.cache/meltbench``.
    """
    own = os.environ.get("MELTBENCH_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    return _xdg("XDG_CACHE_HOME", ".cache") / "meltbench"


def config_dir() -> Path:
    """Return the folder of the user's own definitions and pins; not created here.

    ``$XDG_CONFIG_HOME/meltbench``, else ``~/.config/meltbench``.
    """
    return _xdg("XDG_CONFIG_HOME", ".config") / "meltbench"


def _xdg(variable: str, fallback: str) -> Path:
    # The XDG specification tells programs to ignore relative values.
    value = os.environ.get(variable, "")
    return Path(value) if os.path.isabs(value) else Path.home() / fallback


def state_dir() -> Path:
    """Return the folder of what must outlive a run but is not the user's data; not created here.

    ``$XDG_STATE_HOME/meltbench``, else ``~/.local/state/meltbench``. Runs on this machine live below it until
    they are collected.
    """
    return _xdg("XDG_STATE_HOME", ".local/state") / "meltbench"
