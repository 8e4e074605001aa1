"""``python -m benchmarks [NAME...] [--json] [--quick]``: one table of claims, each met, missed, or not measured.

Exit status 1 when a claim was missed or a benchmark broke; 0 also where something could not be measured here.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from benchmarks.claims import Part, Row, Site, Subject, Unmeasurable

# In the order they run: what needs quiet caches comes before the long engines.
SUBJECTS = ("truth", "coverage", "ingest", "ssh", "adb", "fleet", "overhead", "observer", "agreement", "dashboard")
_WIDE = 118


def load(name: str) -> Subject:
    """The module of a subject."""
    return cast("Subject", importlib.import_module(f"benchmarks.{name}"))


def rows(part: Part, site: Site) -> Iterator[tuple[Row, bool]]:
    """Every claim of a part once, in its order of arrival, and whether the benchmark broke before it."""
    left = {claim.name: claim for claim in part.claims}
    why, broke = "the benchmark gave no such row", True
    try:
        for row in part.measure(site):
            del left[row.claim.name]
            yield row, False
    except Unmeasurable as error:
        why, broke = str(error), False
    except Exception as error:  # noqa: BLE001  one benchmark that breaks keeps no other from being run
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}"
    for claim in left.values():
        yield claim.missing(why), broke


def as_json(name: str, row: Row) -> dict[str, Any]:
    """A row for machines."""
    claim = row.claim
    return {
        "subject": name,
        "name": claim.name,
        "figure": row.figure,
        "sense": claim.sense,
        "limit": claim.limit,
        "unit": claim.unit,
        "met": row.met,
        "beside": row.beside,
        "note": row.note,
    }


def number(value: float | str, unit: str = "") -> str:
    """Four digits and the unit."""
    if isinstance(value, str):
        return value
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"{text} {unit}".rstrip()


def as_text(row: Row) -> str:
    """A row for people: name, figure, limit, verdict; below it what stands beside, and the note."""
    claim = row.claim
    verdict = {True: "met", False: "MISSED", None: "not measured"}[row.met]
    figure = "-" if row.figure is None else number(row.figure, claim.unit)
    lines = [f"  {claim.name:<58}{figure:>12}  {claim.sense} {number(claim.limit, claim.unit):<10}  {verdict}"]
    below = [", ".join(f"{key} {number(value)}" for key, value in row.beside.items()), row.note]
    for text in filter(None, below):
        lines += textwrap.wrap(text, _WIDE, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _say_of(say: Callable[[str], None], name: str, text: str) -> None:
    say(f"{name}: {text}")


def run(names: Sequence[str], *, quick: bool, say: Callable[[str], None]) -> Iterator[tuple[str, Row, bool]]:
    """Run subjects one after the other, each in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="meltbench-benchmarks-") as work:
        for name in names:
            folder = Path(work) / name
            folder.mkdir()
            say(f"{name} ...")
            site = Site(quick, folder, partial(_say_of, say, name))
            for part in load(name).PARTS:
                for row, broke in rows(part, site):
                    yield name, row, broke


def status(found: Iterable[tuple[str, Row, bool]]) -> int:
    """1 when a claim was missed or a benchmark broke."""
    return int(any(broke or row.met is False for _, row, broke in found))


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What meltbench claims of itself.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SUBJECTS)}; without: all")
    parser.add_argument("--json", action="store_true", help="rows for machines")
    parser.add_argument("--quick", action="store_true", help="fewest repetitions: only to see that all of it works")
    given = parser.parse_args(argv)
    if wrong := [name for name in given.names if name not in SUBJECTS]:
        parser.error(f"no benchmark {wrong[0]!r}: there are {', '.join(SUBJECTS)}")

    def say(text: str) -> None:
        print(f"bench: {text}", file=sys.stderr, flush=True)

    found: list[tuple[str, Row, bool]] = []
    for one in run(given.names or SUBJECTS, quick=given.quick, say=say):
        if not given.json:
            if one[0] not in {name for name, _, _ in found}:
                print(f"\n{one[0]}", flush=True)
            print(as_text(one[1]), flush=True)
        found.append(one)
    if given.json:
        machine = {"system": platform.release(), "machine": platform.machine(), "quick": given.quick}
        print(json.dumps({**machine, "rows": [as_json(name, row) for name, row, _ in found]}, indent=2))
    else:
        _sum_up(found, quick=given.quick)
    return status(found)


def _sum_up(found: Sequence[tuple[str, Row, bool]], *, quick: bool) -> None:
    verdicts = [row.met for _, row, _ in found]
    told = f"{verdicts.count(True)} met, {verdicts.count(False)} missed, {verdicts.count(None)} not measured"
    print(f"\n{told}" + (" (quick: the figures are worth nothing)" if quick else ""))


if __name__ == "__main__":
    sys.exit(main())
