"""A report in Markdown: the sentence of every panel, and its table where there is one, short enough to be pasted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.report.sheet import Column, Sheet, escaped
from meltbench.report.sheet import markdown as table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.pages.drawn import Grid
    from meltbench.pages.offline import Chapter
    from meltbench.pages.published import Asking
    from meltbench.selecting import Selection

_ROWS = 30


def facts(asking: Asking, selection: Selection, runs: Sequence[str]) -> list[str]:
    """Which runs a report is of, and which of them no aggregate has taken in."""
    sql = """
    SELECT count(DISTINCT run_id), strftime(min(started_at), '%Y-%m-%d'), strftime(max(started_at), '%Y-%m-%d'),
        count(DISTINCT device), count(DISTINCT model) FROM """
    n, first, last, devices, models = asking.ask(f"{sql} listed").rows[0]
    pooled = asking.ask(f"{sql} selected").rows[0][0]
    said = [f"Runs: {str(selection) or 'all'}."]
    if not n:
        said.append("There is none.")
    if n:
        said.append(f"runs {n}, models {models}, devices {devices}, {first} to {last}.")
    if pooled < n:
        said.append(f"{n - pooled} of them are invalid, failed or imported: listed, and in no aggregate.")
    if selection.of_word("run") and runs:
        said.append(f"Traces of {len(runs)} of them.")
    return said


def markdown(title: str, made: Sequence[Chapter], said: Sequence[str]) -> str:
    """The whole as GitHub-flavoured Markdown."""
    parts = [f"# {_line(title)}", "", *(f"- {_line(one)}" for one in said), ""]
    for chapter in made:
        parts += [f"## {_line(chapter.title)}", ""]
        for part in chapter.parts:
            drawn = part.drawn
            parts += [f"### {_line(part.title)}", "", _line(drawn.says), ""]
            grid = drawn.told or drawn.grid
            if grid is not None:
                parts.append(table(_sheet(grid)))
                if len(grid.texts) > _ROWS:
                    parts += [f"The first {_ROWS} of {len(grid.texts)} rows.", ""]
            if drawn.facts:
                parts.append(table(Sheet("", (Column("what"), Column("is")), [*drawn.facts])))
            parts += [f"- {_line(note)}" for note in drawn.notes] + ([""] if drawn.notes else [])
    return "\n".join(parts)


def _sheet(grid: Grid) -> Sheet:
    columns = tuple(Column(column.heading, right=column.right) for column in grid.columns)
    return Sheet("", columns, [tuple(row[column.key] for column in grid.columns) for row in grid.texts[:_ROWS]])


def _line(text: str) -> str:
    return escaped(" ".join(text.split()))
