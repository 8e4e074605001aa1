"""Writes conversations by a chat template, as a process of its own: python render.py, the ask on stdin as JSON.

A template is a program of others. Jinja's sandbox keeps it from everything but its own words; that it comes to an end,
and in how much memory, the kernel sees to. Imports nothing of meltbench, which would be of no use here.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from typing import Any

_MAX_CHARS = 1 << 20  # of one conversation


def texts(jinja: str, conversations: list[list[dict[str, str]]], bos: str, eos: str) -> list[str | None]:
    """What the template makes of each conversation, ready for the answer; None where it refuses or fails."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def one(messages: list[dict[str, str]]) -> str | None:
        try:
            room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
            text = room.from_string(jinja).render(
                messages=messages, add_generation_prompt=True, bos_token=bos, eos_token=eos, raise_exception=refuse
            )
        except Exception:  # noqa: BLE001  a program of others may raise any
            return None
        return text if len(text) <= _MAX_CHARS else None

    return [one(messages) for messages in conversations]


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def main() -> None:
    """Answer the ask, within its limits."""
    ask: dict[str, Any] = json.load(sys.stdin)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, ask["cpu_s"])
    # macOS lowers this one for nobody (ValueError); there the bound on time is what ends a template that grows.
    with contextlib.suppress(ValueError, OSError):
        _limit(resource.RLIMIT_AS, ask["memory_bytes"])
    json.dump(texts(ask["jinja"], ask["conversations"], ask["bos"], ask["eos"]), sys.stdout)


if __name__ == "__main__":
    main()
