"""The DuckDB index: derived from the run folders, replaced as a whole, never written in place.

An update copies the published file, changes the copy and renames it over the original, under the store's
lock. A kill at any point leaves the old file or the new one; a reader keeps the one it opened.
"""

from __future__ import annotations

import shutil
import sys
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meltbench.deadline import Deadline
from meltbench.errors import MeltbenchError, StoreError, UserError
from meltbench.store import fs, rows, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import duckdb

    from meltbench.store.folder import Store

# DuckDB 1.2 and newer read this; without it a file of 2.0 cannot be read by 1.x.
STORAGE_VERSION = "v1.2.0"
_LOCK_S = 600.0


@dataclass(frozen=True)
class Indexed:
    """What an update did: runs added and removed, whether all was made anew, and lines to tell the user."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    rebuilt: bool = False
    notes: tuple[str, ...] = ()


class Unusable(Exception):
    """The index is absent, damaged or older than this meltbench; it can be made again."""


@dataclass(frozen=True)
class _Batch:
    """Runs that threads of this process bring in together, and what came of it."""

    run_ids: list[str] = field(default_factory=list)
    done: Future[Indexed] = field(default_factory=Future)


_joining = threading.Lock()
_open_batches: dict[Path, _Batch] = {}  # by the index


def ingest(store: Store, run_id: str) -> Indexed:
    """Bring one stored run into the index. Raises StoreError; the run itself is safe in its folder.

    An update costs the same for one run as for some, so what other threads want in while this one waits for the
    store's lock goes along, and is told too.
    """
    with _joining:
        leads = store.index not in _open_batches
        batch = _open_batches.setdefault(store.index, _Batch())
        batch.run_ids.append(run_id)
    if not leads:
        return batch.done.result()

    def closed() -> list[str]:
        """Who comes from here on begins the next batch."""
        with _joining:
            if _open_batches.get(store.index) is batch:
                del _open_batches[store.index]
        return batch.run_ids

    try:
        done = _update(store, closed, [])
    except BaseException as error:
        told = error if isinstance(error, StoreError) else StoreError("writing the index was broken off")
        batch.done.set_exception(told)
        raise
    finally:
        closed()
    batch.done.set_result(done)
    return done


def rebuild(store: Store, progress: rows.Progress | None = None) -> Indexed:
    """Make the index anew from all stored runs; ``progress`` is called with (done, total) runs."""
    return _update(store, None, [], progress)


def refresh(store: Store, progress: rows.Progress | None = None) -> Indexed:
    """Bring the index in line with the run folders, when it is not; else touch nothing."""
    import duckdb

    try:
        with attached(store.index) as connection:
            known = {row[0] for row in connection.execute("SELECT run_id FROM runs").fetchall()}
    except (Unusable, duckdb.Error):
        return _update(store, None, [], progress)
    stored = set(store.stored_ids())
    if known == stored:
        return Indexed()
    return _update(store, sorted(stored - known), sorted(known - stored), progress)


def to_stderr(line: str) -> None:
    """Tell the user a line that is no part of a result."""
    sys.stderr.write(f"{line}\n")


@contextmanager
def opened(store: Store, say: Callable[[str], None] = to_stderr) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a read-only connection to an index that has every readable stored run.

    ``say`` is called with a line for each run that could not be read, and when the index had to be made anew. Raises
    StoreError when the index cannot be made or another program holds it open for writing.
    """
    for note in refresh(store).notes:
        say(note)
    import duckdb

    try:
        with attached(store.index) as connection:
            yield connection
    except duckdb.Error as error:
        # Its first pages were sound, or it would have been made anew; DuckDB checks the others as it reads them.
        why = str(error).splitlines()[0]
        raise StoreError(f"{store.index} cannot be read: {why}", hint=store.command("rebuild")) from error


def query(
    store: Store,
    sql: str,
    params: Sequence[object] | Mapping[str, object] | None,
    say: Callable[[str], None] = to_stderr,
) -> duckdb.DuckDBPyRelation:
    """A query as a relation, over an index that has every readable stored run.

    The relation keeps its own connection, and with it the file it was asked of, also when a newer one is put in its
    place. ``say`` and StoreError as with ``opened``; UserError for a query that DuckDB refuses or that gives no rows.
    """
    import duckdb

    for note in refresh(store).notes:
        say(note)
    connection = open_memory()
    try:
        _attach(connection, store.index, write=False)
        relation = connection.sql(sql, params=params)
        if relation is None:
            raise UserError("this query gives no rows", hint="ask with SELECT or FROM")
    except Unusable as why:
        connection.close()
        raise StoreError(f"{store.index} cannot be read: {why}", hint=store.command("rebuild")) from why
    except duckdb.Error as error:
        connection.close()
        said = " ".join(str(error).split())
        raise UserError(f"this query cannot be answered: {said[:500]}", hint="docs/store.md has the tables") from error
    except MeltbenchError:
        connection.close()
        raise
    return relation


@contextmanager
def attached(path: Path, *, write: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a private DuckDB with the index at ``path`` attached as its default database.

    Attaching, unlike connecting to a path, never hands out a cached older version of a replaced file. Raises
    Unusable for an index that must be made again, StoreError for one that is newer or locked.
    """
    connection = _opened(path, write=write)
    try:
        yield connection
    finally:
        connection.close()


def open_published(store: Store) -> duckdb.DuckDBPyConnection:
    """Return a private DuckDB with the index as it was last published attached as ``idx``, read-only.

    Raises as ``attached`` does. It is the caller's to close.
    """
    return _opened(store.index, write=False)


def _opened(path: Path, *, write: bool) -> duckdb.DuckDBPyConnection:
    if not path.exists():
        raise Unusable("there is no index")
    connection = open_memory()
    try:
        _attach(connection, path, write=write)
    except BaseException:
        connection.close()
        raise
    return connection


def open_memory() -> duckdb.DuckDBPyConnection:
    """Return a private in-memory DuckDB that never asks the network for anything."""
    import duckdb

    return duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false", "threads": "2"})


def _attach(connection: duckdb.DuckDBPyConnection, path: Path, *, write: bool) -> None:
    import duckdb

    try:
        connection.execute(_attach_sql(path, write=write))
        connection.execute("USE idx")
        # Fetched to the end: a DuckDB 2 connection does nothing else while a result is unfinished.
        found = connection.execute("SELECT max(version) FROM schema_version").fetchall()
    except duckdb.Error as error:
        if "Could not set lock" in str(error):
            raise StoreError(
                f"{path} is open for writing in another program",
                hint="close it there, or open it read-only (duckdb -readonly)",
            ) from error
        raise Unusable("it was damaged") from error
    version = found[0][0]
    if version is not None and version > schema.INDEX_VERSION:
        raise StoreError(
            f"{path} has schema {version}, this meltbench knows {schema.INDEX_VERSION}",
            hint="update meltbench, or delete the file and run: meltbench rebuild",
        )
    if version != schema.INDEX_VERSION:
        raise Unusable(f"it had the older schema {version}")


def _attach_sql(path: Path, *, write: bool) -> str:
    quoted = str(path).replace("'", "''")
    option = f"STORAGE_VERSION '{STORAGE_VERSION}'" if write else "READ_ONLY"
    return f"ATTACH '{quoted}' AS idx ({option})"


def _update(
    store: Store,
    add: list[str] | Callable[[], list[str]] | None,
    remove: list[str],
    progress: rows.Progress | None = None,
) -> Indexed:
    """Publish an index with the runs of ``add`` in and those of ``remove`` out; ``add`` None: all anew.

    A function is asked for the runs once it is this update's turn.
    """
    import duckdb

    hint = f"every stored run is safe in {store.runs_dir}; when the cause is gone: {store.command('rebuild')}"
    temporary = store.root / f".{store.index.name}.tmp"
    with (
        fs.explained(f"write the index {store.index}", hint=hint),
        fs.locked(store.lock_file, Deadline.after(_LOCK_S), what="writing the index"),
    ):
        try:
            return _publish(store, temporary, add() if callable(add) else add, remove, progress)
        except duckdb.Error as error:
            why = str(error).splitlines()[0]
            raise StoreError(f"cannot write the index {store.index}: {why}", hint=hint) from error
        finally:
            _drop(temporary)


def _publish(
    store: Store, temporary: Path, add: list[str] | None, remove: list[str], progress: rows.Progress | None
) -> Indexed:
    import duckdb

    _drop(temporary)
    why = ""
    if store.index.exists():
        shutil.copyfile(store.index, temporary)
        try:
            with attached(temporary, write=True) as connection:
                if add is not None:
                    done = _change(connection, store, add, remove, progress)
        except (Unusable, duckdb.Error) as error:
            why, add = (str(error) if isinstance(error, Unusable) else "it was damaged"), None
    if add is None or not store.index.exists():
        done = _make(store, temporary, progress, why)
    _swap(temporary, store.index)
    return done


def _change(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    add: list[str],
    remove: list[str],
    progress: rows.Progress | None,
) -> Indexed:
    connection.execute("BEGIN")
    rows.delete(connection, [*remove, *add])
    added, notes = rows.fill(connection, [store.folder(run_id) for run_id in add], progress)
    _finish(connection)
    return Indexed(tuple(added), tuple(remove), notes=tuple(notes))


def _make(store: Store, temporary: Path, progress: rows.Progress | None, why: str) -> Indexed:
    _drop(temporary)
    connection = open_memory()
    try:
        connection.execute(_attach_sql(temporary, write=True))
        connection.execute("USE idx")
        connection.execute("BEGIN")
        rows.create(connection)
        added, notes = rows.fill(connection, [store.folder(run_id) for run_id in store.stored_ids()], progress)
        _finish(connection)
    finally:
        connection.close()
    told = [f"the index was made anew: {why}"] if why else []
    return Indexed(tuple(added), rebuilt=True, notes=(*told, *notes))


def _finish(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("COMMIT")
    connection.execute("CHECKPOINT idx")
    connection.execute("USE memory")
    connection.execute("DETACH idx")


def _swap(temporary: Path, published: Path) -> None:
    fs.sync(temporary)
    # A program that opened the index for writing may have left a log beside it, which would be replayed
    # onto the new file. Whatever is in it is not ours: the index is derived from the folders alone.
    published.with_name(f"{published.name}.wal").unlink(missing_ok=True)
    temporary.replace(published)
    fs.sync(published.parent)


def _drop(temporary: Path) -> None:
    temporary.unlink(missing_ok=True)
    temporary.with_name(f"{temporary.name}.wal").unlink(missing_ok=True)
