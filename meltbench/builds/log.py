"""What the log of a build says: how far it is, and why it failed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_edge = re.compile(r"\[ {0,2}(\d{1,6})(?:/(\d{1,6})\]|%\]) ")
_error = re.compile(r"(?:^|[ :])(?:fatal )?error: .|^CMake Error|No space left on device|^ninja: error:")


def edge_of(line: str) -> tuple[int, int] | None:
    """How many files of how many, as ninja says it; of 100 as make does."""
    found = _edge.match(line)
    return (int(found[1]), int(found[2] or 100)) if found else None


def why(lines: Sequence[str], code: int) -> str:
    """The first error in a tool's own words: those after it follow from it."""
    at = next((n for n, line in enumerate(lines) if _error.search(line)), None)
    if at is None:
        return f"exit status {code}"
    said = lines[at].strip()
    if said.startswith("CMake Error"):  # what it is stands below, in several lines
        said = " ".join([said, *filter(None, (line.strip() for line in lines[at + 1 : at + 9]))])
    return said[:300]
