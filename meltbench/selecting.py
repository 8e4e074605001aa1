"""Which rows of the view ``results`` are meant: the words of a selection, as SQL.

The same words stand on the command line (``model=qwen-1.5b-q4,night=2026-11-20``) and in a page's address
(``?model=qwen-1.5b-q4&night=2026-11-20``). One word given twice means either; different words must all hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench.errors import UnknownName, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import duckdb

# Each word: the condition on a row of results that one value of it makes, and what it means.
_WORDS = {
    "device": ("device = ?", "name of the device"),
    "model": ("model = ?", "name of the model"),
    "quantisation": ("quantisation = ?", "quantisation of its weights"),
    "runner": ("runner = ?", "name of the runner"),
    "engine": ("(engine = ? OR concat(engine, ' ', engine_version) = ?)", "engine, or engine and version"),
    "accelerator": ("accelerator = ?", "what computed"),
    "mode": ("mode = ?", "server, bench or in-process"),
    "workload": ("workload = ?", "name of the workload"),
    "point": ("point = ?", "point of a grid, or level of concurrency"),
    "validity": ("validity = ?", "valid, degraded or invalid"),
    "origin": ("origin = ?", "meltbench, or the tool whose records were imported"),
    "night": ("night = ?", "date on which a night began, noon to noon UTC"),
    "plan": ("starts_with(plan_hash, ?)", "start of a plan's hash: one sweep"),
    "cell": ("starts_with(cell_key, ?)", "start of a cell's key"),
    "run": ("starts_with(run_id, ?)", "start of a run's name"),
}
WORDS = tuple(_WORDS)
# What no aggregate takes in unasked: a row has to be this unless the word is given.
_UNASKED = {
    "validity": "validity <> 'invalid' AND outcome = 'done'",
    "origin": "origin = 'meltbench'",
}


@dataclass(frozen=True)
class Selection:
    """Words and their values, in the order given; an empty one means every row."""

    values: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Selection:
        """From the command line. Raises UserError for a part that says nothing, UnknownName for an unknown word."""
        pairs = []
        for part in filter(None, (each.strip() for each in text.split(","))):
            word, is_, value = part.partition("=")
            if not is_ or not value.strip():
                hint = f"write WORD=VALUE, such as model=NAME; words are {', '.join(WORDS)}"
                raise UserError(f"{part!r} selects nothing", hint=hint)
            if not part.isascii() and any("\ud800" <= c <= "\udfff" for c in part):
                raise UserError(f"{part!r} selects nothing: it is no text", hint="write names in UTF-8")
            pairs.append((word.strip(), value.strip()))
        return cls.of(pairs)

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Selection:
        """From pairs. Raises UnknownName for an unknown word."""
        kept = tuple(dict.fromkeys(pairs))
        for word, _ in kept:
            if word not in _WORDS:
                raise UnknownName("word of a selection", word, WORDS)
        return cls(kept)

    def __str__(self) -> str:
        return ",".join(f"{word}={value}" for word, value in self.values)

    def of_word(self, word: str) -> tuple[str, ...]:
        """The values given for a word."""
        return tuple(value for mine, value in self.values if mine == word)

    def sql(self, *, pooled: bool = True) -> tuple[str, list[str]]:
        """A condition on rows of ``results``, and its parameters in order.

        ``pooled``: leave out, unless asked for, what no aggregate may take in: invalid and failed runs, and what other
        tools measured.
        """
        conditions, params = [], []
        for word in dict.fromkeys(word for word, _ in self.values):
            condition, values = _WORDS[word][0], self.of_word(word)
            conditions.append(f"({' OR '.join([condition] * len(values))})")
            params += [value for value in values for _ in range(condition.count("?"))]
        if pooled:
            conditions += [rule for word, rule in _UNASKED.items() if not self.of_word(word)]
        return " AND ".join(conditions) or "true", params


def unknown_value(connection: duckdb.DuckDBPyConnection, selection: Selection) -> UnknownName | None:
    """Why a selection means nothing: a value of it that no row of ``results`` has, of words that are no starts."""
    for word, value in selection.values:
        if not _WORDS[word][0].startswith((f"{word} = ", f"({word} = ")):
            continue
        told = f"{word}, concat({word}, ' ', engine_version)" if word == "engine" else word
        known = connection.execute(f"SELECT DISTINCT {told} FROM results").fetchall()
        names = {str(name) for row in known for name in row if name}
        if value not in names:
            return UnknownName(word, value, names)
    return None


def described() -> Sequence[tuple[str, str]]:
    """Every word of a selection and what it means."""
    return [(word, meaning) for word, (_, meaning) in _WORDS.items()]
