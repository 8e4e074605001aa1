"""MELT's event logs: what a program marked of itself, a line ``EVENT NS`` each, in ns since 1970 of its own wall clock.

llama.cpp (examples/main/main.cpp of MELT's fork) writes them with a blank between and in the order of a hash table, the
MLC apps (ChatModule.java: whole milliseconds; LLMChat.mm) with a comma. MLC's command line (mlc_chat/chat_module.py)
never counts up what it numbers, so that of all prompts and of all tokens the last one alone is left.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

Dialect = Literal["llama.cpp", "mlc-app", "mlc-cli"]
_event = re.compile(rb"^([A-Za-z_][A-Za-z0-9_.]{0,127})\.(start|end)[ ,]([0-9]{1,19})[ \t\r]*$", re.MULTILINE)
_MAX_NS = 1 << 62
# What only one of them marks.
_DIALECTS: tuple[tuple[Dialect, re.Pattern[str]], ...] = (
    ("llama.cpp", re.compile(r"prompt\.\d+\.tokenize|generate\.\d+\.decode|load_model\.llama_backend_init")),
    ("mlc-app", re.compile(r"prefill\.\d+|generate\.decode\.\d+|reload\.\d+")),
    ("mlc-cli", re.compile(r"chat\.\d+\.\d+\.\w+(?:\.\d+)?")),
)


class Stage(NamedTuple):
    """When a stage began and ended, ns; None where that was not marked."""

    start_ns: int | None
    end_ns: int | None


@dataclass(frozen=True)
class Events:
    """The stages of a log by name, in the order of their marks. ``unread``: lines that are no event, or stand twice."""

    dialect: Dialect
    stages: Mapping[str, Stage] = field(default_factory=dict)
    unread: int = 0

    def span(self, name: str) -> tuple[int, int] | None:
        """Start and end of a stage, ns; None where either is missing or they are in no order."""
        start, end = self.stages.get(name, Stage(None, None))
        return None if start is None or end is None or end < start else (start, end)

    def numbered(self, pattern: str) -> list[tuple[int, tuple[int, int]]]:
        """The whole stages of a name with one number in it, ``prefill.(\\d+)`` say: (number, span) by their start."""
        found = [
            (int(match[1][:9]), span)
            for name in self.stages
            if (match := re.fullmatch(pattern, name, re.ASCII)) and (span := self.span(name)) is not None
        ]
        return sorted(found, key=lambda one: (one[1][0], one[0]))

    @property
    def load(self) -> tuple[int, int] | None:
        """The loading of the model, ns."""
        return self.span("reload.0" if self.dialect == "mlc-app" else "load_model")


def parse(raw: bytes, name: str) -> Events:
    """The events of a log. Raises UserError where it has none, or none that one of MELT's engines makes."""
    stages: dict[str, list[int | None]] = {}
    read = 0
    for word, edge, digits in _event.findall(raw):
        marks, at = stages.setdefault(word.decode(), [None, None]), (edge == b"end")
        if int(digits) < _MAX_NS and marks[at] is None:
            marks[at] = int(digits)
            read += 1
    dialect = next((one for one, known in _DIALECTS if any(known.fullmatch(stage) for stage in stages)), None)
    if dialect is None:
        what = "no mark that MELT's engines make" if read else "no line such as load_model.start 1709550000000000000"
        raise UserError(f"{name} is no event log: it has {what}", hint="give measurements_iter0_conv0.tsv or .csv")
    lines = sum(1 for line in raw.splitlines() if line.strip())
    return Events(dialect, {stage: Stage(*marks) for stage, marks in stages.items()}, lines - read)
