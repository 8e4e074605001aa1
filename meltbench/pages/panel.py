"""A panel's question asked, and its rows drawn by its kind; whatever is wrong with one panel, the others are drawn."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench.analysis.metrics import metric
from meltbench.errors import MeltbenchError, UserError
from meltbench.pages.drawn import Drawn
from meltbench.pages.published import Answer, QueryRefused, literal, shown_as

if TYPE_CHECKING:
    from meltbench.pages.address import Address
    from meltbench.pages.page import Page, PageFile, Panel
    from meltbench.pages.published import Asking
    from meltbench.store import Store

_BRACED = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_DOLLAR = re.compile(r"\$([a-z][a-z0-9_]*)")
MAX_ROWS = 200_000


@dataclass(frozen=True)
class Context:
    """All that a panel is drawn from.

    ``choices``: what is chosen of the page, by name; ``rows``: how many a table has at most.
    """

    store: Store
    asking: Asking
    address: Address
    choices: dict[str, str]
    panel: Panel
    rows: int

    def sql(self) -> str:
        """The panel's query with the metrics that were chosen in the place of their braces."""
        return _BRACED.sub(lambda found: f'"{metric(self.choices.get(found[1], found[1])).name}"', self.panel.sql)

    def params(self) -> dict[str, object]:
        """What a query may name with a dollar: every choice, and the run."""
        return {**self.choices, "run": self.address.run}

    def answer(self, limit: int = MAX_ROWS) -> Answer:
        """The rows of the panel's query. Raises UserError where there are more than anything is made of."""
        found = self.asking.ask(self.sql(), self.params(), limit)
        if found.more and limit == MAX_ROWS:
            raise UserError(f"the query gives more than {MAX_ROWS:,} rows", hint="choose fewer runs in the filter")
        return found

    def field(self, key: str) -> str:
        """A column that the panel names, by itself or by a choice."""
        said: str = getattr(self.panel, key)
        return self.choices[said.strip("{}")] if said.startswith("{") else said


def contexts(store: Store, asking: Asking, address: Address, page: Page, rows: int | None = None) -> list[Context]:
    """One context a panel of the page. ``rows``: of a table, where it is not to be what the panel says."""
    choices = address.choices(page)
    return [Context(store, asking, address, choices, panel, rows or panel.limit) for panel in page.panel]


def draw(context: Context, file: PageFile, number: int) -> Drawn:
    """What a panel comes to; what is wrong with it, in which line of which file, is told in its place."""
    try:
        return _drawn(context)
    except UserError as error:
        return Drawn(f"{_where(context, file, number, error)}{error}", troubled=True)
    except MeltbenchError as error:
        return Drawn(str(error), troubled=True)


def _where(context: Context, file: PageFile, number: int, error: UserError) -> str:
    """The place in the file that an error is about; of a panel without a query it is what was chosen."""
    if not context.panel.sql:
        return ""
    if len(file.lines) <= number:
        return f"{file.path}, panel {number + 1}: "
    line = file.lines[number]
    return (
        f"{file.path}, line {line + error.line - 1}: "
        if isinstance(error, QueryRefused)
        else f"{file.path}, panel in line {line}: "
    )


def rows_of(context: Context, limit: int = MAX_ROWS) -> Answer:
    """All rows behind a panel: those of its query, else those that it was drawn from."""
    if context.panel.sql:
        return context.answer(limit)
    drawn = _drawn(context)
    if drawn.answer is None:
        raise UserError("there are no rows behind this")
    return drawn.answer


def statement(context: Context) -> str:
    """The panel's query as one can ask it oneself, with the filter and what was chosen written out."""
    if not context.panel.sql:
        sql = _drawn(context).sql
        if not sql:
            raise UserError("there is nothing that could be asked for again", hint="draw it first")
        return f"{sql};\n"
    made = [f"{one};" for one in shown_as(context.asking.selection)]
    params = context.params()
    sql = _DOLLAR.sub(lambda found: literal(str(params.get(found[1], ""))), context.sql().strip())
    return "\n".join([*made, f"{sql};", ""])


def _drawn(context: Context) -> Drawn:
    from meltbench.pages.kinds import KINDS

    return KINDS[context.panel.kind](context)
