"""What dashboards/NAME.toml says: a page's panels, each a query and how its rows are drawn (docs/new-page.md).

A page file that cannot be read says what is wrong in which line; the others go on working.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from meltbench import catalog
from meltbench.analysis.metrics import metric
from meltbench.errors import DefinitionError, UnknownName
from meltbench.selecting import WORDS
from meltbench.tables import parse_toml, read_bounded, read_table

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal[
    "table", "heat", "lines", "bars", "scatter", "pareto", "changes", "compare", "noise", "head", "trace", "alerts"
]
MAX_PANELS = 24
_PANEL = re.compile(r"\s*\[\[\s*panel\s*\]\]")
_ENTRY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=\s*(\"\"\"|''')?(.*)", re.DOTALL)
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,40}", re.ASCII)
RESERVED = (*WORDS, "theme", "token", "panel")  # words of an address that are not a choice of a page


@dataclass(frozen=True)
class Choice:
    """Something a reader of the page may choose; it stands in the page's address under ``name``.

    ``kind``: ``metric``, a column of figures of the view results, of ``options`` where some are named; ``list``, one
    of ``options``; ``text``, anything. ``default`` is used where the address has none.
    """

    name: str
    label: str
    kind: Literal["metric", "list", "text"]
    default: str = ""
    options: tuple[str, ...] = ()
    hint: str = ""

    def __post_init__(self) -> None:
        """Check the name and the options. Raises ValueError."""
        if not _IDENTIFIER.fullmatch(self.name):
            raise ValueError(f"{self.name!r} cannot be the name of a choice; small letters, figures and _")
        if self.name in RESERVED:
            raise ValueError(f"{self.name!r} cannot be the name of a choice; in an address it means something else")
        if self.kind == "metric":
            for name in (self.default, *self.options):
                _known(name)
        if self.kind == "list" and not self.options:
            raise ValueError("a list needs options")
        if self.options and self.default not in self.options:
            raise ValueError(f"default {self.default!r} is none of the options")


@dataclass(frozen=True)
class Panel:
    """One chart or table: ``sql`` asks, ``kind`` draws.

    ``x``, ``y``, ``value``, ``group`` name columns of the answer; a name in braces is a choice's, and stands for what
    was chosen. ``unit``: of the value, where its name does not say it. ``wide`` takes the whole width. ``limit``: rows
    that a table shows.
    """

    title: str
    kind: Kind
    sql: str = ""
    about: str = ""
    x: str = ""
    y: str = ""
    value: str = ""
    group: str = ""
    unit: str = ""
    wide: bool = False
    limit: int = 500

    def __post_init__(self) -> None:
        """Check what a kind needs. Raises ValueError."""
        lacking = [name for name in _NEEDS.get(self.kind, ()) if not getattr(self, name)]
        if lacking:
            raise ValueError(f"a panel of kind {self.kind!r} needs {' and '.join(lacking)}")
        if not 1 <= self.limit <= MAX_ROWS:
            raise ValueError(f"limit is {self.limit}; give 1 to {MAX_ROWS}")


MAX_ROWS = 20_000
_NEEDS = {
    "table": ("sql",),
    "heat": ("sql", "x", "y", "value"),
    "lines": ("sql", "x", "y"),
    "bars": ("sql", "x", "y"),
    "scatter": ("sql", "x", "y"),
    "changes": ("sql", "x", "group", "value"),
    "alerts": ("sql",),
    "noise": ("sql", "x", "value"),
}


@dataclass(frozen=True)
class Page:
    """A page as its file says. ``place``: where it stands among the others; pages without one come last, by name."""

    title: str
    about: str = ""
    place: int = 1000
    choice: tuple[Choice, ...] = ()
    panel: tuple[Panel, ...] = ()

    def __post_init__(self) -> None:
        """Check the whole. Raises ValueError."""
        if not self.panel:
            raise ValueError("a page needs a [[panel]]")
        if len(self.panel) > MAX_PANELS:
            raise ValueError(f"{len(self.panel)} panels are more than a page can have, {MAX_PANELS}")
        names = [one.name for one in self.choice]
        if len({*names}) != len(names):
            raise ValueError("two choices have the same name")
        for number, panel in enumerate(self.panel, 1):
            for key in ("x", "y", "value", "group"):
                said = getattr(panel, key)
                if said.startswith("{") and said.strip("{}") not in names:
                    raise ValueError(f"panel {number}: {key} is {said}, and no choice has that name")


@dataclass(frozen=True)
class PageFile:
    """A page file as found. ``page`` is None where it cannot be read, and ``why`` says so: file, line or key, remedy.

    ``lines``: where in the file each panel's query begins, for what DuckDB has to say about it; empty if unknown.
    """

    name: str
    path: Path
    page: Page | None
    why: str = ""
    lines: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """What stands in the list of pages."""
        return self.page.title if self.page else f"{self.name} (broken)"


def pages() -> dict[str, PageFile]:
    """Every page by name, in order of place, then name; the first on the search path wins. Read anew each time."""
    found: dict[str, PageFile] = {}
    for name, where in catalog.find("dashboards").items():
        try:
            found[name] = _read(where.path, name)
        except DefinitionError as error:
            found[name] = PageFile(name, where.path, None, str(error))
    return dict(sorted(found.items(), key=lambda item: (item[1].page.place if item[1].page else 2000, item[0])))


def _read(path: Path, name: str) -> PageFile:
    if not _IDENTIFIER.fullmatch(name.replace("-", "_")):
        raise DefinitionError(f"{path}: {name!r} is no name of a page", hint="small letters, figures, - and _")
    content = read_bounded(path)
    page = read_table(Page, parse_toml(content, path), path)
    return PageFile(name, path, page, lines=_lines(content))


def _lines(content: bytes) -> tuple[int, ...]:
    """The line in which the query of each panel begins, else its heading's."""
    out: list[int] = []
    ends = ""  # of the text of several lines that we are in
    for number, line in enumerate(content.decode("utf-8").split("\n"), 1):
        if ends:
            ends = "" if ends in line else ends
        elif _PANEL.match(line):
            out.append(number)
        elif found := _ENTRY.match(line):
            key, quotes, rest = found.groups()
            if key == "sql" and out:
                out[-1] = number + (quotes is not None and not rest.strip("\r"))  # TOML drops that end of a line
            ends = quotes if quotes and quotes not in rest else ""
    return tuple(out)


def _known(name: str) -> None:
    try:
        metric(name)
    except UnknownName as error:
        raise ValueError(str(error)) from error
