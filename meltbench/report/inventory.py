"""Devices as tables, lines and JSON: who is there, what one is, what became of one that was added."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity
from meltbench.rollcall import ago

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meltbench.enrol import Enrolled
    from meltbench.rollcall import Row
    from meltbench.targets.inventory import Entry
    from meltbench.targets.notes import Note

_COLUMNS = ("device", "at", "state", "doctor", "last seen", "profile", "accelerator", "free disk", "board")


def moment(seen_s: float | None) -> str | None:
    """A time of the wall clock as JSON has it."""
    return None if seen_s is None else datetime.fromtimestamp(seen_s, UTC).isoformat(timespec="seconds")


def row_json(row: Row) -> dict[str, Any]:
    """A device of the list (docs/json.md)."""
    answer = row.answer
    return {
        "name": row.name,
        "target": row.place.kind,
        "address": row.place.address or None,
        "profile": row.profile,
        "reachable": answer.why is None,
        "why": answer.why,
        "busy": answer.busy,
        "verdict": row.verdict,
        "last_seen": moment(row.seen_s),
        "board": row.board,
        "accelerator": row.accelerator,
        "disk_free_bytes": row.disk_free_bytes,
    }


def sheet(rows: list[Row]) -> tuple[Sheet, list[str]]:
    """The list as a table, and a line for each device that was not reached, or is busy."""
    cells: list[tuple[str, ...]] = []
    whys = []
    for row in rows:
        answer = row.answer
        state = answer.word or ("busy" if answer.busy else "free" if answer.facts is not None else "no probe yet")
        if said := answer.why or answer.busy:
            whys.append(f"{row.name}: {said}")
        free = MISSING if row.disk_free_bytes is None else quantity(row.disk_free_bytes, "B")
        cells.append(
            (row.name, str(row.place), state, row.verdict or MISSING, ago(row.seen_s), row.profile,
             row.accelerator or MISSING, free, row.board or MISSING)
        )  # fmt: skip
    whole = {"device", "state", "doctor", "last seen"}
    columns = (Column(name, right=name == "free disk", whole=name in whole) for name in _COLUMNS)
    return Sheet("", tuple(columns), cells), whys


def entry_json(name: str, entry: Entry) -> dict[str, Any]:
    """A device as the inventory has it."""
    return {
        "name": name,
        "profile": entry.profile,
        "ssh": entry.ssh,
        "adb": entry.adb,
        "adb_port": entry.adb_port,
        "identity": entry.identity,
        "identity_from": entry.identity_from,
        "board": entry.board,
        "workdir": entry.workdir,
        "added": entry.added,
    }


def enrolled_json(done: Enrolled, where: str) -> dict[str, Any]:
    """What became of a device that was added."""
    return entry_json(done.name, done.entry) | {
        "outcome": done.outcome,
        "was": done.was,
        "fits_as_well": list(done.ties),
        "root": done.root,
        "inventory": where,
        "facts": done.facts.conditions(),
    }


def enrolled_lines(done: Enrolled, where: str) -> list[str]:
    """The same in lines, with the next step."""
    entry = done.entry
    became = {
        "added": f"added to {where}",
        "moved": f"the same board as before: now at {entry.place}, was at {done.was}",
        "renamed": f"the same board as before: was called {done.was}",
        "unchanged": "known already, nothing changed",
    }[done.outcome]
    if done.outcome == "moved" and done.was == str(entry.place):
        became = "the same board at the same address: its entry was brought up to date"
    lines = [f"{done.name}: {entry.board or 'a device without a name'} at {entry.place}", f"  {became}"]
    lines += facts_lines(done.facts.conditions(), done.root)
    lines.append(f"  profile {entry.profile}, fits by {done.by}")
    if done.ties:
        lines.append(f"  fits as well: {', '.join(done.ties)}; give another by --profile")
    return [*lines, f"next: meltbench run --device {done.name}; how well it can: meltbench devices doctor {done.name}"]


def facts_lines(facts: Mapping[str, Any], root: str | None = None) -> list[str]:
    """What a device is, in lines. ``facts`` as a run's conditions; anything of them may be missing or odd."""
    said = {key: value for key, value in facts.items() if isinstance(value, (str, int)) and value not in ("", 0)}
    system = ", ".join(str(said[key]) for key in ("os", "kernel", "arch") if key in said)
    cores = said.get("cores_physical") or said.get("cpus_online")
    cpu = ", ".join(str(part) for part in (said.get("cpu"), cores and f"{cores} cores") if part)
    room = [
        f"{quantity(float(said[key]), 'B')} {words}"
        for key, words in (("memory_total_bytes", "memory"), ("disk_free_bytes", f"free in {root or 'its folder'}"))
        if isinstance(said.get(key), int)
    ]
    lines = [f"  identity {said.get('identity', 'unknown')}, by {said.get('identity_from', 'nothing')}"]
    lines += [f"  {', '.join(filter(None, [system, cpu, *room]))}"]
    found = {
        key: ", ".join(str(one) for one in facts[key]) for key in _LISTS if isinstance(facts.get(key), (list, tuple))
    }
    return lines + [f"  {words} {found[key]}" for key, words in _LISTS.items() if found.get(key)]


_LISTS = {"gpus": "GPU", "governors": "governor", "batteries": "battery", "powercap": "RAPL domains"}


def known_json(name: str, entry: Entry, note: Note | None, why: str | None) -> dict[str, Any]:
    """A device as `devices show` prints it: the inventory's entry, and what is known of the board."""
    return entry_json(name, entry) | {
        "reachable": why is None,
        "why": why,
        "last_seen": None if note is None else moment(note.seen_s),
        "verdict": None if note is None else note.verdict,
        "examined": None if note is None else moment(note.doctor_s),
        "facts": None if note is None else dict(note.facts),
    }


def known_lines(name: str, entry: Entry, note: Note | None, why: str | None) -> list[str]:
    """The same in lines."""
    lines = [f"{name}: {entry.board or 'a device that nobody has looked at'} at {entry.place}"]
    lines.append("  reachable" if why is None else f"  not reached: {why}")
    if note is None:
        return [*lines, f"  nobody has reached it: meltbench devices add {name} {entry.place.words}"]
    if why is not None:
        lines.append(f"  as it was last seen, {ago(note.seen_s)}:")
    lines += facts_lines(note.facts)
    if note.verdict is not None:
        lines.append(f"  doctor: {note.verdict}, {ago(note.doctor_s)}")
    return lines
