"""A table as data: drawn by rich on a terminal, or written as GitHub-flavoured Markdown to be pasted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meltbench.targets import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MISSING = "—"
_WIDEST = 10_000
_MANY = 300  # rows from which on rich, which measures and wraps every cell, keeps one waiting


@dataclass(frozen=True)
class Column:
    """A heading; ``right`` for numbers. ``whole`` cells are never broken over lines, ``faint`` ones are remarks."""

    heading: str
    right: bool = False
    whole: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Sheet:
    """Rows of text under columns. Cells may hold a device's own words: whoever draws them makes them harmless."""

    title: str
    columns: tuple[Column, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)


def rich_table(sheet: Sheet) -> Table:
    """The sheet for a terminal."""
    from rich import box
    from rich.cells import cell_len
    from rich.markup import escape
    from rich.table import Table

    title = escape(printable(sheet.title)) or None
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(sheet.columns):
        widths = (cell_len(printable(text)) for text in (column.heading, *(row[place] for row in sheet.rows)))
        table.add_column(
            escape(printable(column.heading)),
            justify="right" if column.right else "left",
            no_wrap=column.whole,
            # What rich cannot break it cuts, where it is not told so: a number without its end is another one.
            min_width=max(widths) if column.whole else None,
            overflow="fold",
            style="dim" if column.faint else "",
        )
    for row in sheet.rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    return table


def markdown(sheet: Sheet) -> str:
    """The sheet as a GitHub-flavoured table, its title a line in bold above it."""
    lines = [f"**{escaped(sheet.title)}**", ""] if sheet.title else []
    lines.append(f"| {' | '.join(escaped(column.heading) or ' ' for column in sheet.columns)} |")
    lines.append(f"|{'|'.join('---:' if column.right else '---' for column in sheet.columns)}|")
    lines += [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in sheet.rows]
    return "\n".join(lines) + "\n"


def plain_table(sheet: Sheet) -> str:
    """The sheet as lines of text that are never wrapped, for more rows than anybody draws a table of."""
    rows = [tuple(column.heading for column in sheet.columns)]
    rows += [tuple(printable(cell) for cell in row) for row in sheet.rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(sheet.columns))]

    def line(row: tuple[str, ...]) -> str:
        cells = zip(sheet.columns, row, widths, strict=True)
        return "  ".join(text.rjust(width) if c.right else text.ljust(width) for c, text, width in cells).rstrip()

    return "\n".join([*([sheet.title] if sheet.title else []), *map(line, rows), ""])


def escaped(text: str) -> str:
    r"""Text that Markdown leaves as it is.

    >>> escaped("a|b <c> *d*")
    'a\\|b &lt;c> \\*d\\*'
    """
    text = printable(text).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for mark in "|*`[]~":
        text = text.replace(mark, f"\\{mark}")
    return text


def print_sheet(out: Console, sheet: Sheet, *, as_markdown: bool) -> None:
    """Draw a sheet, or print it as Markdown, which is never wrapped."""
    if as_markdown or len(sheet.rows) > _MANY:
        out.file.write(f"{markdown(sheet) if as_markdown else plain_table(sheet)}\n")
        return
    from rich.measure import measure_renderables

    table = rich_table(sheet)
    least = measure_renderables(out, out.options.update(max_width=_WIDEST), [table]).minimum
    out.width = max(out.width, least)
    out.print(table)
