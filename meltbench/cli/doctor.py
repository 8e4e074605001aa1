"""``meltbench devices doctor``: what ails a device, and how to mend it."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from meltbench.cli.common import Data, Json, choosing, console, plain, print_json

if TYPE_CHECKING:
    from meltbench.doctor import Finding
    from meltbench.store import Store

_WIDE = 100  # of a line of prose; what is to be pasted is never broken


def doctor(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A device of the inventory, or a profile: meltbench devices.")
    ] = "local",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Examine a device, sensor by sensor: what is missing, what would spoil a run, and how to mend it.

    Reads every sensor for two seconds and changes nothing. Exit status 1 when something would spoil runs.
    """
    from meltbench import examine
    from meltbench.cli.watching import Terminal
    from meltbench.doctor import diagnose, worst
    from meltbench.report import doctor as report
    from meltbench.targets import inventory, notes

    known = choosing(inventory.resolve, name)
    with Terminal() as watch:
        exam = examine.examine(known, _store(data), watch)
    findings = diagnose(exam)
    verdict = worst(findings)
    if exam.facts is not None and not exam.wrong_board:
        notes.note_verdict(known.name, exam.facts, verdict)
    if as_json:
        print_json(report.exam_json(known, exam.facts, findings, verdict))
    else:
        _print(report.title(known, exam.facts), findings, report.summary(findings))
    if verdict == "problem":
        raise typer.Exit(1)


def register(devices: typer.Typer) -> None:
    """Put the command below ``meltbench devices``."""
    devices.command(epilog="Example: meltbench devices doctor pi5")(doctor)


def _store(data: str | None) -> Store | None:
    """The store that is there, for its calibrations; an examination makes none."""
    from meltbench.errors import StoreError
    from meltbench.store import find_store

    try:
        return find_store(data)
    except StoreError:
        return None


def _print(title: str, findings: list[Finding], summary: str) -> None:
    """Findings as lines: what needs something done stands out, and what to do can be pasted."""
    out = console()
    styles = {"ok": "", "advice": "yellow", "problem": "bold red"}
    wide = max(len(one.what) for one in findings)
    plain(out, title)
    for one in findings:
        word = "" if one.verdict == "ok" else one.verdict
        line = f"  {word:8}{one.what:{wide}}  {one.seen}".rstrip()
        plain(out, line, style=styles[one.verdict])
        for said in _lines(one.mend):
            plain(out, f"{'':{wide + 12}}{said}")
    plain(out, summary)


def _lines(mend: str) -> list[str]:
    """Prose filled to the width of a page, line after line; what begins with blanks is to be pasted, and stays."""
    lines: list[str] = []
    for pasted, group in itertools.groupby(mend.splitlines(), lambda line: line.startswith(" ")):
        part = list(group)
        lines += part if pasted else textwrap.wrap(" ".join(part), _WIDE, break_on_hyphens=False)
    return lines
