"""What a benchmark promises and what it found. Tests hold docs/performance.md to the claims."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Beside = Mapping[str, float | str]
_HOLDS = {"<=": operator.le, ">=": operator.ge}


class Unmeasurable(Exception):
    """What is needed is not on this machine; the text says what. Such a row is told, and is no miss."""


@dataclass(frozen=True)
class Claim:
    """One line of the table: ``figure sense limit``, in ``unit`` ("" for a ratio)."""

    name: str
    sense: Literal["<=", ">="]
    limit: float
    unit: str = ""

    def row(self, figure: float, beside: Beside | None = None, note: str = "") -> Row:
        """The line with what was found; ``note`` explains it where it may be a miss."""
        return Row(self, figure, beside or {}, note)

    def missing(self, why: str) -> Row:
        """The line without a figure."""
        return Row(self, None, {}, why)


@dataclass(frozen=True)
class Row:
    """A claim and what was found; ``figure`` is None where it could not be measured, and ``note`` says why.

    ``beside`` are absolute figures of the same run: they inform and decide nothing.
    """

    claim: Claim
    figure: float | None
    beside: Beside = field(default_factory=dict)
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the figure keeps the limit; None where there is no figure."""
        return None if self.figure is None else bool(_HOLDS[self.claim.sense](self.figure, self.claim.limit))


@dataclass(frozen=True)
class Site:
    """Where a benchmark works: ``folder`` is its own and empty, ``say`` tells progress.

    ``quick``: the fewest repetitions that go through all of it. The figures are then worth nothing.
    """

    quick: bool
    folder: Path
    say: Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """Claims that are measured together: ``measure`` yields one row for each of them."""

    measure: Callable[[Site], Iterator[Row]]
    claims: tuple[Claim, ...]


class Subject(Protocol):
    """A module of benchmarks/."""

    PARTS: tuple[Part, ...]
