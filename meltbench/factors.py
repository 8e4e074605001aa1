"""Factors of an experiment beside the engine's own: what ``--set`` changes of a device and of the engine's process.

Those of a device (governor, power mode) become settings of the run: made by its job, checked, put back. Those of the
process (processors, memory) are given to it by the probe, which says what was in force.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.spec import Scalar
    from meltbench.targets.profile import Profile

CPUS, MEMORY = "cpus", "memory_mib"
PROCESS = (CPUS, MEMORY)
_LIST = re.compile(r"\d{1,5}(?:-\d{1,5})?(?:,\d{1,5}(?:-\d{1,5})?){0,63}", re.ASCII)
_MAX_CPU = 8191  # of any kernel
_MAX_MIB = 1 << 24


def of_device(profile: Profile, given: Mapping[str, str]) -> tuple[Profile, dict[str, str]]:
    """The profile with its factors that are ``given`` as settings, and what of it was given for something else."""
    made = {name: profile.factor[name].setting(name, text) for name, text in given.items() if name in profile.factor}
    kept = [one for one in profile.setting if one.name not in made]
    rest = {name: text for name, text in given.items() if name not in made}
    return replace(profile, setting=(*kept, *made.values())), rest


def of_process(profile: Profile, given: Mapping[str, str]) -> tuple[dict[str, Scalar], dict[str, str]]:
    """Knobs of the engine's process, and what was given for something else. ``none`` is the same as not given."""
    knobs: dict[str, Scalar] = {}
    rest = dict(given)
    if (text := rest.pop(CPUS, "none")) != "none":
        if text == "big":
            if profile.big_cpus is None:
                raise UserError(f"{profile.title}: no profile says which its fast cores are", hint="give cpus=4-7")
            text = profile.big_cpus
        knobs[CPUS] = in_words(processors(text))
    if (text := rest.pop(MEMORY, "none")) != "none":
        if not re.fullmatch(r"\d{1,9}", text) or not 1 <= int(text) <= _MAX_MIB:
            raise UserError(f"{MEMORY} = {text!r} is not a valid setting", hint=f"give 1 to {_MAX_MIB}, or none")
        knobs[MEMORY] = int(text)
    return knobs, rest


def processors(text: str) -> list[int]:
    """The processors that a list of the kernel's kind names, such as "0-3,6". Raises UserError for what is none."""
    if not _LIST.fullmatch(text):
        raise UserError(f"{CPUS} = {text!r} is not a list of processors", hint="give cpus=0-3,6, cpus=big, or none")
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not low <= high <= _MAX_CPU:
            raise UserError(f"{CPUS} = {text!r}: {part} is no range of processors", hint="give cpus=0-3,6")
        found.update(range(low, high + 1))
    return sorted(found)


def in_words(cpus: Sequence[int]) -> str:
    """Processors as the kernel lists them, one spelling for each set."""
    parts: list[list[int]] = []
    for cpu in cpus:
        if parts and cpu == parts[-1][1] + 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def limits(knobs: Mapping[str, Scalar]) -> dict[str, Any]:
    """What a step of a job that starts the process is given."""
    memory = knobs.get(MEMORY)
    return {"cpus": knobs.get(CPUS), "memory_bytes": memory << 20 if isinstance(memory, int) else None}


def in_force(starts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the last start of the process was held to, as the probe read it back; None where it was held to nothing."""
    last = starts[-1] if starts else {}
    found = {key: last.get(key) for key in ("cpus", "memory_by", "memory_bytes")}
    return found if any(value is not None for value in found.values()) else None


def against(knobs: Mapping[str, Scalar], starts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was asked for and not in force, by what the probe says of the process's ``starts``."""
    out = []
    for start in starts:
        wanted, used = knobs.get(CPUS), start.get("cpus")
        if wanted is not None and used != wanted:
            out.append(f"{CPUS} = {wanted}: {used or 'nobody knows which'} were in force")
        limit, found = knobs.get(MEMORY), start.get("memory_bytes")
        if limit is not None and not start.get("memory_by"):
            out.append(f"{MEMORY} = {limit}: no limit was in force")
        elif isinstance(limit, int) and found != limit << 20:  # a harder limit of the user's own stands above ours
            known = f"{found / (1 << 20):g} MiB" if isinstance(found, int) else "nobody knows what"
            out.append(f"{MEMORY} = {limit}: {known} was in force")
    return sorted(set(out))
