"""Rows as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.pages.drawn import Drawn, grid_of, nothing

if TYPE_CHECKING:
    from meltbench.pages.panel import Context


def table(context: Context) -> Drawn:
    """Every column of the answer, headed by its name; units are those that the names say."""
    limit = context.rows
    answer = context.answer(limit)
    if not answer.rows:
        return nothing("There is nothing to list.", answer)
    notes = (f"The first {limit} rows; the CSV has them all.",) if answer.more else ()
    says = f"{len(answer.rows)} row{'s' if len(answer.rows) != 1 else ''}."
    return Drawn(says, grid=grid_of(answer), notes=notes, answer=answer)
