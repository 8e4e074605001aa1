"""Which runs of two arms may be held against each other: like with like, stratum by stratum.

Where both arms have the same device, say, and several of them, each device is a stratum of its own. What only one arm
has is left out and told. What differs between the arms of a stratum is what is compared, and an arm of a stratum holds
one kind of run: of two it would be a mixture, whose scatter is that of no device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# What follows from another: that a file is another one goes without saying where its name is.
_FOLLOWS = {
    "model file": "model",
    "engine file": "engine",
    "device identity": "device",
    "OS": "device",
    "kernel": "device",
    "runner": "engine",
}
# Words of a selection that are called as what they choose by.
_WORDS = ("origin", "device", "model", "runner", "engine", "accelerator")
_SHOWN = 3


class Member(NamedTuple):
    """One run: all that makes runs unlike, by name, in the order in which arms are split by it.

    Runs that are alike may have the same object of factors, which then is looked at once.
    """

    run_id: str
    cell_key: str
    factors: Mapping[str, str]


@dataclass(frozen=True)
class Stratum:
    """Runs of both arms that are alike but for ``differs``: by name what the first and what the second has."""

    alike: Mapping[str, str]
    differs: Mapping[str, tuple[str, str]]
    first: tuple[Member, ...]
    second: tuple[Member, ...]


@dataclass
class Pairing:
    """Strata, what was left out of them, and what could not be made one: a line each, with what to do about it."""

    strata: list[Stratum] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def paired(first: Sequence[Member], second: Sequence[Member], called: tuple[str, str] = ("A", "B")) -> Pairing:
    """The strata of two arms. ``called``: by what the arms are told of."""
    made = Pairing()
    _split(list(first), list(second), called, made, "")
    return made


def _split(first: list[Member], second: list[Member], called: tuple[str, str], made: Pairing, within: str) -> None:
    """``within``: of which part of the arms these are, to be told."""
    mixed = ""
    kinds = [[*{id(member.factors): member.factors for member in part}.values()] for part in (first, second)]
    for name in dict.fromkeys(name for part in kinds for factors in part for name in factors):
        if all(len({factors.get(name, "") for factors in part}) == 1 for part in kinds):
            continue
        ours, theirs = _by_value(first, name), _by_value(second, name)
        shared = [value for value in ours if value in theirs]
        if not shared:
            mixed = mixed or name  # another factor may tell these apart, such as a device its engine's file
            continue
        for mine, others, who in ((ours, theirs, called), (theirs, ours, called[::-1])):
            for value in (value for value in mine if value not in others):
                line = f"of {who[0]}: {_said(name, value)}, which {who[1]} has not"
                made.left_out[line] = made.left_out.get(line, 0) + len(mine[value])
        for value in shared:
            part = ", ".join(filter(None, (within, _said(name, value))))
            _split(ours[value], theirs[value], called, made, part)
        return
    if mixed:
        line, hint = _refusal(first, second, mixed, called)
        made.refused[f"{within}: {line}" if within else line] = hint
        return
    alike: dict[str, str] = {}
    differs: dict[str, tuple[str, str]] = {}
    for name in dict.fromkeys(name for member in (first[0], second[0]) for name in member.factors):
        here, there = (member.factors.get(name, "") for member in (first[0], second[0]))
        if here == there:
            alike[name] = here
        else:
            differs[name] = (here, there)
    made.strata.append(Stratum(alike, differs, tuple(first), tuple(second)))


def _by_value(members: Iterable[Member], name: str) -> dict[str, list[Member]]:
    out: dict[str, list[Member]] = {}
    for member in members:
        out.setdefault(member.factors.get(name, ""), []).append(member)
    return out


def _refusal(first: Sequence[Member], second: Sequence[Member], name: str, called: tuple[str, str]) -> tuple[str, str]:
    groups = [_by_value(members, name) for members in (first, second)]
    at = 0 if len(groups[0]) > 1 else 1
    line = f"{called[at]} holds {_several(name, groups[at])}, {called[1 - at]} {_several(name, groups[1 - at])}"
    value, members = next(iter(groups[at].items()))
    word = f"{name}={value}" if name in _WORDS else f"cell={members[0].cell_key[:12]}"
    return f"{line}: runs of several are not taken together", printable(f"choose one of them, such as {word}")


def _several(name: str, values: Iterable[str]) -> str:
    told = [value or "not set" for value in values]
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return printable(f"{name} {', '.join(told[:_SHOWN])}{more}")


def _said(name: str, value: str) -> str:
    return printable(f"{name} {value}" if value else f"no {name}")


def labels(groups: Iterable[Sequence[Stratum]]) -> list[str]:
    """The fewest names that tell the strata of every group (a workload in a mode) from each other, first ones first."""
    needed: dict[str, None] = {}
    for strata in groups:
        names = dict.fromkeys(name for one in strata for name in one.alike)
        kept: list[str] = []
        for name in names:
            if _told_apart(strata, [*kept, name]) > _told_apart(strata, kept):
                kept.append(name)
        needed |= dict.fromkeys(kept)
    return list(needed)


def _told_apart(strata: Sequence[Stratum], names: Sequence[str]) -> int:
    return len({tuple(one.alike.get(name) for name in names) for one in strata})


def differing(strata: Sequence[Stratum]) -> dict[str, tuple[list[str], list[str]]]:
    """What the arms differ in: by name the values of the first and of the second, over all strata."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for one in strata:
        for name, pair in one.differs.items():
            if _FOLLOWS.get(name) in one.differs:
                continue
            for values, value in zip(found.setdefault(name, ([], [])), pair, strict=True):
                if value not in values:
                    values.append(value)
    return found
