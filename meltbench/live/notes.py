"""What those who look at a run leave for each other on this machine: files of the state folder, by the run's id.

A controller that looks over a link leaves its last sight, so that ``meltbench top`` need not ask the device. ``top``
leaves what its looks at a journal of this very machine took, for whoever brings the run in: who watches is a part of
what was measured. All of it may be lost without harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from meltbench.live.picture import Now, Sight
from meltbench.paths import state_dir

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MOST_BYTES = 1 << 16
_FORGOTTEN_S = 30 * 86400.0


def _folder() -> Path:
    return state_dir() / "live"


def _sight(run_id: str) -> Path:
    return _folder() / f"{run_id}.json"


def publish(run_id: str, sight: Sight) -> None:
    """Let others on this machine see what was seen. Raises OSError."""
    _write(_sight(run_id), asdict(sight))


def published(run_id: str) -> Sight | None:
    """What a controller of this machine last saw of a run; None where none looks at it."""
    told = _read(_sight(run_id))
    try:
        rate, power, temperature = (Now(**told[key]) for key in ("token_rate", "power", "temperature"))
        rates, powers = (tuple(told[key]) for key in ("rates", "powers"))
        return Sight(told["status"], told["elapsed_s"], rate, power, temperature, rates, powers)
    except (KeyError, TypeError):
        return None


def withdraw(run_id: str) -> None:
    """Nobody looks at it any more."""
    with contextlib.suppress(OSError):
        _sight(run_id).unlink(missing_ok=True)


def leave(run_id: str, took: Mapping[str, Any]) -> None:
    """Tell what the looks of this process took so far. Raises OSError."""
    _write(_folder() / f"{run_id}.top-{os.getpid()}", took)


def gathered(run_id: str) -> dict[str, Any] | None:
    """What all looks of ``top`` at a run took; None where nobody looked. All that was left of the run is taken away."""
    withdraw(run_id)
    _sweep()
    found = sorted(_folder().glob(f"{run_id}.top-*"))
    total: dict[str, Any] = {"looks": 0, "bytes": 0, "cpu_s": 0.0}
    for path in found:
        told = _read(path)
        for key, so_far in total.items():
            more = told.get(key)
            total[key] = so_far + more if isinstance(more, int | float) else so_far
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return total | {"cpu_s": round(total["cpu_s"], 3)} if total["looks"] else None


def _sweep() -> None:
    """Remove what is left of runs that were never brought in here."""
    for path in _folder().glob("*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _FORGOTTEN_S:
                path.unlink(missing_ok=True)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Put it there whole; unlike what is stored it is not flushed to the disk, which would disturb."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content), encoding="ascii")
    temporary.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
