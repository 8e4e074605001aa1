"""The state of a page, which is its address: the filter, what was chosen, the run. No state lives anywhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from meltbench.selecting import WORDS, Selection

if TYPE_CHECKING:
    from meltbench.pages.page import Page

MAX_QUERY = 8192
MAX_VALUE = 512
MAX_FIELDS = 256


@dataclass(frozen=True)
class Address:
    """What a query string says. ``chosen``: choices of the page by name; ``run``: the run that is looked at."""

    selection: Selection = field(default_factory=Selection)
    chosen: tuple[tuple[str, str], ...] = ()
    run: str = ""

    @classmethod
    def parse(cls, query: str) -> Address:
        """From ``?a=b&c=d``; what is too long or no text is left out, for anybody can write an address."""
        pairs: list[tuple[str, str]] = []
        chosen: dict[str, str] = {}
        run = ""
        query = query.removeprefix("?")
        sane = len(query) <= MAX_QUERY and query.count("&") < MAX_FIELDS
        for word, value in parse_qsl(query, errors="replace") if sane else ():
            if len(value) > MAX_VALUE or not (_is_text(word) and _is_text(value)):
                continue
            if word == "run":
                run = value
            elif word in WORDS:
                pairs.append((word, value))
            else:
                chosen[word] = value
        return cls(Selection.of(pairs), tuple(sorted(chosen.items())), run)

    def query(self) -> str:
        """As a query string, with its question mark; empty where there is nothing to say."""
        pairs = [*self.selection.values, *self.chosen, *([("run", self.run)] if self.run else [])]
        return f"?{urlencode(pairs)}" if pairs else ""

    def choices(self, page: Page) -> dict[str, str]:
        """What is chosen of a page: by the address where it has a sensible value, else the default."""
        said = dict(self.chosen)
        out = {}
        for choice in page.choice:
            value = said.get(choice.name, choice.default)
            out[choice.name] = choice.default if choice.options and value not in choice.options else value
        return out


def _is_text(value: str) -> bool:
    """Whether it can be kept in a database and sent again: JSON can bring halves of characters."""
    return "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
