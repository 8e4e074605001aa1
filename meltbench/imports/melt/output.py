"""What MELT's engines print of themselves in ``llm_output_iter*.txt``: llama.cpp's timings, MLC's answer to /stats.

llama_print_timings (llama.cpp of MELT's fork) prints five lines, at the end of each answer and when the program is
interrupted; a count of 0 is printed as 1. MLC (cpp/llm_chat.cc: VerboseRuntimeStatsText) prints a JSON object, counts
of the last prompt.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

_LINES = 5  # that MELT's report takes as one group (report-measurements-llms.py)
_STATS_LINES = 12
_MAX_COUNT = 10**9
_timing = re.compile(
    r"llama_print_timings:\s{1,20}(load|sample|prompt eval|eval|total) time =\s{0,20}(\d{1,15}\.\d\d) ms"
    r"(?: /\s{0,8}(\d{1,9}) (?:runs|tokens)\s{0,4}\(.{0,40}?,\s{0,20}(\d{1,15}\.\d\d|inf|-?nan) tokens per second\))?"
)
_ansi = re.compile(r"\x1B(?:[@-Z\\-_]|\[[0-?]*[ -/]*[@-~])")


@dataclass(frozen=True)
class Counted:
    """What an engine says of one prompt, as it prints it.

    ``n_in``: tokens that it evaluated as a batch; ``n_steps``: of the answer those that it evaluated one by one;
    ``n_drawn``: how many it drew. ``prefill_tps`` and ``tps``: its own rates, of those numbers. None for what it does
    not say.
    """

    n_in: int | None
    n_steps: int | None
    prefill_tps: float | None
    tps: float | None
    n_drawn: int | None = None
    prefill_s: float | None = None
    decode_s: float | None = None


@dataclass(frozen=True)
class Timings:
    """The groups of llama.cpp's timings in order. ``lines``: how many lines begin as they do, in groups or not."""

    groups: tuple[Counted, ...]
    lines: int

    def of_melt(self, prompts: int) -> list[Counted | None]:
        """The group that MELT's report takes for each prompt: the last so many, by counting lines in fives.

        None where it takes none: there its report ends with an error, or reads another group from behind.
        """
        skipped = self.lines // _LINES - prompts
        taken = [skipped + at for at in range(prompts)]
        return [self.groups[at] if 0 <= at < len(self.groups) else None for at in taken]


def parse_timings(raw: bytes) -> Timings:
    """llama.cpp's timings in the output of a program."""
    groups: list[Counted] = []
    seen: dict[str, tuple[float, int | None, float | None]] = {}
    lines = 0
    for line in raw.decode("utf-8", "replace").splitlines():
        if not line.startswith("llama_print_timings:"):
            continue
        lines += 1
        found = _timing.match(line)
        if found is None:
            continue
        what, ms, n, rate = found.groups()
        seen[what] = (float(ms) / 1e3, int(n) if n else None, _finite(rate))
        if what == "total":
            groups.append(_group(seen))
            seen = {}
    return Timings(tuple(groups), lines)


def _group(seen: dict[str, tuple[float, int | None, float | None]]) -> Counted:
    prefill_s, n_in, prefill_tps = seen.get("prompt eval", (None, None, None))
    decode_s, n_steps, tps = seen.get("eval", (None, None, None))
    _, n_drawn, _ = seen.get("sample", (None, None, None))
    return Counted(n_in, n_steps, prefill_tps, tps, n_drawn, prefill_s, decode_s)


def parse_stats(raw: bytes) -> list[Counted]:
    """MLC's answers to /stats that are whole, as MELT's report finds them: the twelve lines after the command."""
    text = _ansi.sub("", raw.decode("utf-8", "replace"))
    lines = [line for line in text.splitlines() if line.strip() and "cursor position requests" not in line]
    found = []
    for at, line in enumerate(lines):
        if ": /stats" not in line:
            continue
        stats = stats_of("\n".join(lines[at + 1 : at + 1 + _STATS_LINES]))
        if stats is not None:
            found.append(stats)
    return found


def stats_of(text: str) -> Counted | None:
    """MLC's statistics of a prompt; None for a text that is not such."""
    try:
        stats = json.loads(text)
    except (ValueError, RecursionError):
        return None
    prefill, decode = (stats.get(name) if isinstance(stats, dict) else None for name in ("prefill", "decode"))
    if not isinstance(prefill, dict) or not isinstance(decode, dict):
        return None
    return Counted(
        _count(prefill),
        _count(decode),
        _number(prefill, "throughput"),
        _number(decode, "throughput"),
        prefill_s=_number(prefill, "total time", "total_time"),
        decode_s=_number(decode, "total time", "total_time"),
    )


def _count(part: dict[str, Any]) -> int | None:
    value = _number(part, "total tokens", "total_tokens")
    return int(value) if value is not None and value == int(value) and value < _MAX_COUNT else None


def _number(part: dict[str, Any], *names: str) -> float | None:
    """The number that a text such as "87.9 tok/s" begins with."""
    said = next((part[name] for name in names if name in part), None)
    found = re.match(r"\s{0,8}(\d{1,15}(?:\.\d{1,9})?)(?:\s|$)", said) if isinstance(said, str) else None
    return float(found[1]) if found else None


def _finite(text: str | None) -> float | None:
    value = math.nan if text is None else float(text)
    return value if math.isfinite(value) else None
