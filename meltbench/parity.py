"""What keeps arms of a comparison from having been asked, or measured, the same; a line each, which names its arms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.measure.total import TOTAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.comparing import Arm
    from meltbench.records import RunRecord

_BY_VALUE = ("device", "model", "runner", "engine", "accelerator", "workload")


def called(about: Mapping[str, str]) -> str:
    """What an arm is called in a line: what tells it from the others, with its heading where a value alone says
    little. Bits per weight are those of the model that is named."""
    named = [
        value if name in _BY_VALUE else f"{name} {value}"
        for name, value in about.items()
        if value and name != "bits/weight"
    ]
    return " ".join(named) or f"without {', '.join(about)}"


def workload_of(record: RunRecord) -> str:
    """The name of a run's workload."""
    return str(record.manifest["workload"]["name"])


def parity(arms: Sequence[Arm]) -> list[str]:
    """What is other of arms than of the first: items, counts of the same prompt's tokens, loads, meters."""
    first = arms[0]
    found: dict[tuple[str, str], list[str]] = {}
    for arm in arms[1:]:
        about = dict(arm.about)
        for name in dict.fromkeys(map(workload_of, arm.records)):
            pairs = [[r for r in one.records if workload_of(r) == name] for one in (arm, first)]
            asked = "" if about.get("workload") == name else f", {name}"
            for line in _unlike(pairs[0][0], pairs[1][0]) if all(pairs) else ():
                found.setdefault((asked, line), []).append(called(about))
    out = [f"{'; '.join(who)}{asked}: {line}" for (asked, line), who in found.items()]
    return out + _other_loads(arms) + _other_meters(arms)


def _other_loads(arms: Sequence[Arm]) -> list[str]:
    """Loads that were not as cold or as warm as they were to be."""
    out = []
    for arm in arms:
        found = [
            (str(record.manifest["knobs"]["load"]), str(state))
            for record in arm.records
            if (state := (record.manifest.get("conditions") or {}).get("load")) and "load" in record.manifest["knobs"]
        ]
        for asked, state in dict.fromkeys(one for one in found if one[0] != one[1]):
            n = found.count((asked, state))
            of = f"{n} of {len(arm.records)} loads"
            out.append(f"{called(dict(arm.about))}: {of} found a {state} page cache, {asked} was asked for")
    return out


def _other_meters(arms: Sequence[Arm]) -> list[str]:
    """Energies that do not cover the same, or not as surely, are never ranked without a word."""
    kinds = {
        (m.scope, m.klass)
        for arm in arms
        for record in arm.records
        for m in record.measures
        if (m.name, m.phase, m.source) == ("energy_j", "run", TOTAL) and m.value is not None
    }
    if len(kinds) < 2:
        return []
    told = " and ".join(sorted(f"{scope} (class {klass})" for scope, klass in kinds))
    return [f"energies of {told} stand side by side: they do not cover the same, or not as surely"]


def _unlike(mine: RunRecord, theirs: RunRecord) -> list[str]:
    out = []
    if mine.manifest["workload"].get("sha256") != theirs.manifest["workload"].get("sha256"):
        out.append("another version of the workload or its items: not the same prompts")
    if mine.manifest["runner"].get("mode") != theirs.manifest["runner"].get("mode"):
        modes = " and ".join(str(r.manifest["runner"].get("mode")) for r in (mine, theirs))
        out.append(f"modes {modes} are measured in different ways, and stand in columns of their own")
    one, other = _counts(mine, "n_in"), _counts(theirs, "n_in")
    differ = [item for item in one.keys() & other.keys() if one[item] != other[item]]
    if differ:
        item = sorted(differ)[0]
        of = f"{len(differ)} of {len(one.keys() & other.keys())} prompts have other counts of tokens"
        out.append(f"{of} ({item}: {one[item]} here, {other[item]} there): another tokenizer or chat template")
    made, wanted = _counts(mine, "n_out"), _counts(theirs, "n_out")
    shorter = [item for item in made.keys() & wanted.keys() if made[item] != wanted[item]]
    if shorter:
        item = sorted(shorter)[0]
        out.append(
            f"{len(shorter)} answers have another length ({item}: {made[item]} here, {wanted[item]} there): "
            "compare rates and energy by token, not by request"
        )
    return out


def _counts(record: RunRecord, key: str) -> dict[str, int]:
    """Tokens of each item's timed requests, by item; of several the first."""
    out: dict[str, int] = {}
    for one in record.requests:
        count = getattr(one, key)
        if one.role == "timed" and one.status == "ok" and count is not None:
            out.setdefault(one.item, count)
    return out
