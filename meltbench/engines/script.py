"""What a script of ours prints on a target: a line of JSON an event, which the probe stamps as it comes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.engines import Process

ASKS_FILE = "asks.json"  # what it is to ask, beside the job


def printed(processes: Sequence[Process]) -> list[tuple[int, list[Any] | dict[str, Any]]]:
    """The lines of the one process, each with its stamp; whatever else a library prints is none of them."""
    out: list[tuple[int, list[Any] | dict[str, Any]]] = []
    for process in processes[:1]:
        for t_ns, raw in zip(process.out.t1_ns, process.out.raw, strict=True):
            if raw[:1] not in (b"[", b"{"):
                continue
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, list | dict):
                out.append((int(t_ns), line))
    return out


def events(processes: Sequence[Process]) -> list[tuple[int, dict[str, Any]]]:
    """Of the lines those that are objects."""
    return [(t_ns, line) for t_ns, line in printed(processes) if isinstance(line, dict)]


def loaded_ns(processes: Sequence[Process]) -> int | None:
    """When the script said that the model was loaded."""
    return next((t_ns for t_ns, line in events(processes) if line.get("event") == "loaded"), None)
