"""A device profile drafted from what was found on a device: TOML to be read, corrected and kept by a person.

It guesses nothing. What cannot be known by looking (the unit and sign of a battery's gauge, which of several rails make
up the device) is written as a comment that says how to find out.
"""

from __future__ import annotations

import glob
import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import meltbench
from meltbench.records import Scope, Status  # noqa: TC001  fields of a dataclass that is looked into
from meltbench.targets.matching import Fit, ties

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.records import Kind
    from meltbench.targets.facts import Facts
    from meltbench.targets.profile import Profile, Source, Total

# Readers whose unit and sign differ from maker to maker: what one device needs says nothing about another.
GAUGES = frozenset({"power_supply", "dumpsys_battery", "cmd_battery"})
_SCOPES: tuple[Scope, ...] = ("wall", "battery", "module", "soc", "rail")  # what holds more goes first
_odd = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Signal:
    """A series that a source gave when it was looked at."""

    name: str
    kind: Kind
    unit: str
    scope: Scope

    @property
    def energy(self) -> bool:
        """Whether an energy can be made of it."""
        return (self.kind, self.unit) in (("counter", "J"), ("gauge", "W"))


@dataclass(frozen=True)
class Seen:
    """What a look showed of a source. ``signals`` is None where only running it would tell (a program's output)."""

    source: Source
    status: Status
    detail: str = ""
    signals: tuple[Signal, ...] | None = ()


@dataclass(frozen=True)
class Survey:
    """All that was found.

    The name of the profile to be drafted, the profile by which the device was reached, its facts, the profiles that
    fit, best first, the best of them as loaded, and a look at each of its sources and at those of other profiles.
    """

    name: str
    reached: Profile
    facts: Facts
    fits: list[Fit]
    base: Profile
    seen: tuple[Seen, ...]
    others: tuple[Seen, ...]


def name_of(facts: Facts) -> str:
    """A name for the profile of this device, after its product or board."""
    plain = _odd.sub("-", (facts.product or facts.board or "").lower()).strip("-")[:40].strip("-")
    return plain or "this-machine"


def draft(survey: Survey) -> str:
    """The profile as TOML."""
    facts, base = survey.facts, survey.fits[0]
    other = ties(survey.fits)
    on = " on ".join(filter(None, (facts.board, facts.os)))
    lines = [
        _remark(
            f"Drafted by meltbench {meltbench.__version__} from what was found on {on or 'a device without a name'}."
        ),
        _remark(
            "Nothing in it was held against a meter: read it, correct it, and say so in `checked` and `unverified`."
        ),
        f"title = {_text(facts.board or 'this machine')}",
        f"inherits = {_text(base.name)}  " + _remark(f"fits by {base.by}"),
        *([_remark(f"fits as well: {', '.join(other)}")] if other else []),
        f"target = {_text(survey.reached.target)}",
        'checked = "unverified"',
        'unverified = ["Drafted from a look at the device: no period, option or total was checked."]',
        "",
    ]
    lines += _roots(survey.reached) + _match(facts, base)
    lines += _told(survey)
    for seen in survey.others:
        lines += _source(seen)
    return "\n".join([*lines, *_totals(survey)]) + "\n"


def _roots(reached: Profile) -> list[str]:
    if (reached.roots.sys, reached.roots.proc) == ("/sys", "/proc"):
        return []
    return ["[roots]", f"sys = {_text(reached.roots.sys)}", f"proc = {_text(reached.roots.proc)}", ""]


def _match(facts: Facts, base: Fit) -> list[str]:
    """How this very model is recognised, where what it inherits is for others too."""
    for key, said in (
        ("product", facts.product),
        ("compatible", next(iter(facts.compatible), None)),
        ("board", facts.board),
    ):
        if said is None:
            continue
        exact = glob.escape(said)
        return ["[match]", f"{key} = [{_text(exact)}]", ""] if f"{key} {said!r}" not in base.by else []
    return []


def _told(survey: Survey) -> list[str]:
    """What of the inherited sources is there, in comments."""
    by_status: dict[str, list[str]] = {}
    for seen in survey.seen:
        by_status.setdefault(seen.status, []).append(seen.source.name)
    lines = []
    for status, words in (
        ("ok", "Can be read"),
        ("denied", "Is there and may not be read"),
        ("absent", "Is not there"),
    ):
        if names := by_status.pop(status, []):
            lines.append(_remark(f"{words}: {', '.join(names)}."))
    lines += [_remark(f"Gave no value ({status}): {', '.join(names)}.") for status, names in by_status.items()]
    for seen in survey.seen:
        if seen.status == "denied":
            needs = survey.base.permissions.get(seen.source.name, "permission for the user that runs meltbench")
            lines.append(_remark(f"  {seen.source.name} needs {needs}"))
    return [*lines, ""]


def _source(seen: Seen) -> list[str]:
    """A source that the inherited profile does not have and this device does."""
    source = seen.source
    lines = []
    if source.reader in GAUGES:
        lines += [
            _remark("A battery's gauge. Unit, sign and scale differ from maker to maker, and none is guessed here:"),
            _remark("until `meltbench devices calibrate` has held them against a known load it is not calibrated."),
        ]
    lines += ["[[source]]", f"name = {_text(source.name)}", f"reader = {_text(source.reader)}"]
    lines.append(f"period_ms = {source.period_ms:g}")
    if source.options:
        lines += ["[source.options]", *(f"{key} = {_text(value)}" for key, value in source.options.items())]
    return [*lines, ""]


def _totals(survey: Survey) -> list[str]:
    """The total: the inherited one if it can be read, else what the rules single out, else the choices as comments."""
    looked = {seen.source.name: seen for seen in (*survey.seen, *survey.others)}
    for one in survey.base.total:
        if _readable(one, looked.get(one.source)):
            return [_remark(f"Its total is inherited: {_words(one)}.")]
    candidates = _candidates(looked)
    if not candidates:
        return [_remark("Nothing was found that tells a power or an energy: energies will be empty and say so.")]
    source, signals = candidates[0]
    if len(signals) == 1 and looked[source].source.reader not in GAUGES:
        return ["[[total]]", f"source = {_text(source)}", f"rails = [{_text(glob.escape(signals[0].name))}]"]
    lines = [
        _remark("No total is named, for looking does not tell it. A [[total]] has the source and those of its rails")
    ]
    lines.append(_remark("that add up, none of which contains another (docs/devices.md). There are:"))
    return lines + [_remark(f"  {name}: {', '.join(s.name for s in found)}") for name, found in candidates[:16]]


def _candidates(looked: Mapping[str, Seen]) -> list[tuple[str, list[Signal]]]:
    """By source the signals that measure: counters before gauges, what covers more before what covers less, and a
    battery's gauge, which needs a calibration first, last."""
    found: list[tuple[tuple[int, int, int], str, list[Signal]]] = []
    for name, seen in looked.items():
        measuring = [one for one in seen.signals or () if one.energy]
        counters = [one for one in measuring if one.kind == "counter"]
        if kept := counters or measuring:
            scope = min(_SCOPES.index(one.scope) if one.scope in _SCOPES else len(_SCOPES) for one in kept)
            found.append(((int(seen.source.reader in GAUGES), int(not counters), scope), name, kept))
    return [(name, kept) for _, name, kept in sorted(found, key=lambda one: one[0])]


def _readable(total: Total, seen: Seen | None) -> bool:
    """Whether what the total adds up was seen; of a program's output nothing can be said before it runs."""
    if seen is None or seen.status != "ok":
        return False
    if seen.signals is None:
        return True
    names = [one.name for one in seen.signals if one.energy]
    return bool(names) and all(any(fnmatchcase(name, rail) for name in names) for rail in total.rails)


def _words(total: Total) -> str:
    return f"{total.source}" + (f" ({' + '.join(total.rails)})" if total.rails else "")


def _text(value: object) -> str:
    """A value in TOML: its strings are written as JSON's are, and what a device said holds no control character."""
    return json.dumps(value, ensure_ascii=False)


def _remark(words: str) -> str:
    return "# " + "".join(c if c.isprintable() else " " for c in words)  # one line, whatever a device calls itself


def known(sources: Sequence[Source], others: Sequence[Source]) -> list[Source]:
    """Those of ``others`` that no source has the reader or the name of, each reader once."""
    readers, names = {one.reader for one in sources}, {one.name for one in sources}
    out = []
    for one in others:
        if not (one.host or one.reader in readers or one.name in names):
            out.append(one)
            readers.add(one.reader)
            names.add(one.name)
    return out
