"""The published index as readers of pages see it: one version at a time, in memory what every page asks for.

The file is opened read-only and is replaced as a whole by every ingest (meltbench.store.index), so that nobody who
reads it ever holds up one who writes. A snapshot keeps the version it opened until the next one is ready.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.errors import StoreError, UserError
from meltbench.report.headline import natural
from meltbench.report.sheet import MISSING
from meltbench.store import index

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import duckdb

    from meltbench.selecting import Selection
    from meltbench.store import Store

MEMORY_LIMIT = "192MB"
PATIENCE_S = 20.0
_REST = 10.0  # times as long as opening took, until the next version is opened
# Words of a selection that have few values, which everybody filters by; the others work in an address.
FILTERS = ("device", "model", "quantisation", "engine", "workload", "mode", "night", "validity", "origin")
_AT = re.compile(r"LINE (\d+):")


class QueryRefused(UserError):
    """DuckDB does not understand a query; ``line`` of it is what it means."""

    def __init__(self, message: str, line: int, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.line = line


@dataclass(frozen=True)
class Answer:
    """Rows of a query. ``more``: there were more than asked for."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool = False

    def column(self, name: str) -> list[Any]:
        """All values of a column. Raises UserError for one that the query does not give."""
        if name not in self.columns:
            raise UserError(f"the query gives no column {name!r}", hint=f"it gives {', '.join(self.columns)}")
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def numbers(self, name: str) -> list[float | None]:
        """A column of figures, None where there is none. Raises UserError as ``column``, and for anything else."""
        values = self.column(name)
        if other := {kind for kind in {*map(type, values)} if not issubclass(kind, int | float | type(None))}:
            first = next(value for value in values if type(value) in other)
            raise UserError(f"column {name!r} has no figures: {str(first)[:40]!r}", hint="name another column")
        return [None if value is None or not math.isfinite(value) else value for value in values]

    def names(self, name: str) -> list[str]:
        """A column of names, a dash where there is none. Raises UserError as ``column``."""
        return [MISSING if value is None else str(value) for value in self.column(name)]


def shown_as(selection: Selection) -> list[str]:
    """The statements that make ``selected`` and ``listed`` under this filter, with nothing left to be filled in.

    They are views, so that a query reads of them the columns that it names.
    """
    both = (("selected", True), ("listed", False))
    return [f"CREATE TEMP VIEW {name} AS {rows_sql(selection, pooled=pooled)}" for name, pooled in both]


def rows_sql(selection: Selection, *, pooled: bool = True) -> str:
    """The rows of ``results`` under a filter, as one asks for them oneself."""
    where, values = selection.sql(pooled=pooled)
    parts = where.split("?")  # a condition has no text of its own with a question mark in it
    filled = parts[0] + "".join(literal(value) + part for value, part in zip(values, parts[1:], strict=True))
    return f"SELECT * FROM results WHERE {filled}"


def literal(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"


class Asking:
    """Questions of one page to one version of the index, under one filter.

    Queries see every table and view of docs/store.md, and two more with the columns of ``results``: ``selected``, the
    rows under the filter that may be pooled, and ``listed``, those with invalid, failed and imported ones.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection, selection: Selection) -> None:
        self.connection = cursor
        self.selection = selection
        for statement in shown_as(selection):
            cursor.execute(statement)

    def ask(self, sql: str, params: Mapping[str, object] | None = None, limit: int = 1_000_000) -> Answer:
        """The rows of one SELECT, at most ``limit``. Of ``params`` the query gets those that it names.

        Raises UserError for a query that DuckDB refuses, with the line in it, or that takes longer than PATIENCE_S.
        """
        import duckdb

        alarm = threading.Timer(PATIENCE_S, self.connection.interrupt)
        skipped = 0
        try:
            statements = self.connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UserError("a page asks with one SELECT", hint="begin with SELECT, FROM or WITH")
            wanted = statements[0].named_parameters
            known = params or {}
            if lacking := sorted(wanted - known.keys()):
                hint = f"known are {', '.join(f'${name}' for name in sorted(known)) or 'none: the page has no choice'}"
                raise UserError(f"the query wants ${lacking[0]}, which is no choice of the page", hint=hint)
            # From here on DuckDB counts lines from where the statement itself begins.
            skipped = sql.partition(statements[0].query)[0].count("\n")
            alarm.start()
            with self._reading():
                self.connection.execute(statements[0], {name: known[name] for name in wanted})
                about = self.connection.description or []
                rows = self.connection.fetchmany(limit + 1)
        except duckdb.InterruptException as error:
            raise UserError(f"the query took longer than {PATIENCE_S:g} s", hint="ask for less") from error
        except duckdb.Error as error:
            raise _refused(error, skipped) from error
        finally:
            alarm.cancel()
        exact = {at for at, part in enumerate(about) if str(part[1]).startswith("DECIMAL")}
        if exact:  # 0.5 is one; everybody else reckons with floats
            rows = [tuple(_float(v) if at in exact else v for at, v in enumerate(row)) for row in rows]
        return Answer(tuple(part[0] for part in about), rows[:limit], more=len(rows) > limit)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """A transaction that cannot write: to DuckDB also ``WITH gone AS (DELETE ...) SELECT ...`` is a SELECT."""
        self.connection.execute("BEGIN TRANSACTION READ ONLY")
        try:
            yield
        finally:
            self.connection.execute("ROLLBACK")


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _refused(error: duckdb.Error, skipped: int) -> QueryRefused:
    text = str(error)
    line = skipped + (int(found[1]) if (found := _AT.search(text)) else 1)
    told = " ".join(text.split("\n\nLINE ", 1)[0].split())[:400]
    return QueryRefused(told, line, hint="docs/store.md has the tables and columns")


@dataclass(frozen=True)
class Snapshot:
    """One version of the index, open. ``version`` tells it from every other; ``values``: what FILTERS can be set to."""

    version: str
    connection: duckdb.DuckDBPyConnection
    values: dict[str, list[str]]

    @contextmanager
    def asking(self, selection: Selection) -> Iterator[Asking]:
        """Questions under this filter."""
        cursor = self.connection.cursor()
        try:
            cursor.execute("SET search_path = 'memory,idx'")
            yield Asking(cursor, selection)
        finally:
            cursor.close()


class Published:
    """The index of a store, whichever version of it is the newest that is open.

    A new version takes a moment to open; meanwhile, and for a while after a change, the one before answers.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._held: Snapshot | None = None
        self._tried: str | None = None  # the version that was opened last, or could not be; None: nobody asked yet
        self._opening: threading.Thread | None = None
        self._not_before = 0.0

    def version(self) -> str:
        """The version that answers. Sees to it that a newer one is opened, and does not wait for it."""
        with self._lock:
            idle = self._opening is None or not self._opening.is_alive()
            if self._tried not in (None, self._on_disk()) and idle and time.monotonic() >= self._not_before:
                self._opening = threading.Thread(target=self._renew, name="opens the index", daemon=True)
                self._opening.start()
            return "" if self._held is None else self._held.version

    def snapshot(self) -> Snapshot:
        """The version that answers, opened if there is none yet. Raises StoreError where it cannot be read."""
        with self._lock:
            if self._held is None:
                self._tried = self._on_disk()
                self._held = self._open(self._tried)
            return self._held

    def renew(self) -> None:
        """Open the newest version and wait for it. Raises StoreError; the one before is kept then."""
        self._tried = self._on_disk()
        made = self._open(self._tried)
        with self._lock:
            # Who still asks the old one has its connection; it is closed when the last of them lets go.
            self._held = made

    def _renew(self) -> None:
        began = time.monotonic()
        try:
            self.renew()
        except StoreError as error:
            with self._lock:
                self._held = None  # so that whoever asks next is told why
            logging.getLogger(__name__).warning("%s", error)
        took = time.monotonic() - began
        # Opening takes processor time that may be measured in, so most of the time nothing is opened.
        self._not_before = time.monotonic() + _REST * took

    def _on_disk(self) -> str:
        """What the file is now, without opening it; empty where there is none."""
        try:
            found = self.store.index.stat()
        except FileNotFoundError:
            return ""
        return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"

    def _open(self, version: str) -> Snapshot:
        import duckdb

        try:
            connection = index.open_published(self.store)
        except index.Unusable as why:
            hint = self.store.command("rebuild")
            raise StoreError(f"{self.store.index} cannot be read: {why}", hint=hint) from why
        try:
            connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
            connection.execute("CREATE TABLE memory.results AS FROM idx.results")
            # Page files are the user's own, but a page copied from somewhere should not read his other files.
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            values = _values(connection)
        except duckdb.Error as error:
            connection.close()
            said = str(error).splitlines()[0]
            hint = self.store.command("rebuild")
            raise StoreError(f"{self.store.index} cannot be read: {said}", hint=hint) from error
        return Snapshot(version, connection, values)


def _values(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """What each of FILTERS is somewhere in the store; an engine with and without its version, nights newest first."""
    asked = ", ".join(f"list(DISTINCT {word})" for word in (*FILTERS, "concat_ws(' ', engine, engine_version)"))
    *found, versions = connection.execute(f"SELECT {asked} FROM memory.results").fetchall()[0]
    held = {word: {str(value) for value in one or () if value} for word, one in zip(FILTERS, found, strict=True)}
    held["engine"] |= {str(value) for value in versions or () if value}
    return {word: sorted(one, key=natural, reverse=word == "night") for word, one in held.items()}
