"""Which profiles fit a device, from its facts alone: the most specific first, and ties are told.

A pattern says more the more characters of it are literal: "nvidia,p3767-0005" fits one module, "nvidia,tegra*" all of a
family, a platform any device at all. A profile that inherits from another that fits refines it, and goes before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meltbench.targets.facts import Facts
    from meltbench.targets.profile import Match

_wild = re.compile(r"\[[^\]]*\]|[*?]")


@dataclass(frozen=True)
class Candidate:
    """What of a profile decides whether it fits: its patterns, and the names of the profiles that it inherits from."""

    match: Match
    ancestors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """A profile that fits. ``by``: what fitted, in words; ``literal``: how many characters of its patterns are."""

    name: str
    by: str
    literal: int
    ancestors: tuple[str, ...] = ()

    @property
    def generic(self) -> bool:
        """Whether it fits any device of a platform: nothing in it knows this one."""
        return self.literal == 0


def fits(facts: Facts, profiles: Mapping[str, Candidate]) -> list[Fit]:
    """The profiles that fit, best first."""
    found = []
    for name, one in profiles.items():
        by = _fitting(facts, one.match)
        if by:
            words = ", ".join(f"{what} {text!r}" for what, text, _ in by)
            found.append(Fit(name, words, sum(literal for _, _, literal in by), one.ancestors))
    return sorted(found, key=lambda fit: (-fit.literal, -len(fit.ancestors), fit.name))


def ties(found: list[Fit]) -> list[str]:
    """Names of the profiles that fit as well as the first: none knows more of the device, so a person must choose."""
    best = found[0] if found else None
    return [fit.name for fit in found[1:] if best and fit.literal == best.literal and fit.name not in best.ancestors]


def _fitting(facts: Facts, match: Match) -> list[tuple[str, str, int]]:
    """What fitted of each thing that the profile asks for; nothing where it asks for nothing, or one does not fit."""
    asked: list[tuple[str, tuple[str, ...], Iterable[str | None]]] = [
        ("board", match.board, [facts.board]),
        ("compatible", match.compatible, facts.compatible),
        ("product", match.product, [facts.product]),
        ("build", match.build, [facts.build]),
    ]
    out = [] if match.platform is None else [("platform", facts.platform, 0)]
    if match.platform not in (None, facts.platform):
        return []
    for what, patterns, said in asked:
        hits = [(_literal(glob), text) for glob in patterns for text in said if text and fnmatchcase(text, glob)]
        if patterns and not hits:
            return []
        if hits:
            literal, text = max(hits)
            out.append((what, text, literal))
    return out


def _literal(glob: str) -> int:
    return len(_wild.sub("", glob))
