"""Rows of a set of questions, from whatever file it is kept in. Such files are not ours: bounded and checked."""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING, Any

from meltbench.errors import DefinitionError, UserError
from meltbench.questions.parquet import MAX_ROWS, parquet_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Row = dict[str, Any]

MAX_BYTES = 512 << 20  # of a file
_MAX_JSON_BYTES = 64 << 20  # of one that is read as a whole, and takes many times that in memory
_MAX_HELD_BYTES = 1 << 30  # of the rows as Python has them: small values take twenty times what they have in a file
_MAX_LINE_CHARS = 16 << 20
_MAX_FIELD_CHARS = 1 << 20
_HELLASWAG_LINES = 6  # of an item as llama.cpp's perplexity program reads them: context, gold, four endings


def read_rows(path: Path, most: int | None = None) -> list[Row]:
    """The rows of a JSONL, JSON, CSV, Parquet or text file, the first ``most`` of them.

    A text file is one row with the key ``text``, unless it has the six lines an item of llama.cpp's HellaSwag files:
    then rows have ``ctx``, ``label`` and ``endings``. Raises UserError for what is not there or too large,
    DefinitionError that names the first line that is wrong.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UserError(f"{path} is no file", hint="name a JSONL, JSON, CSV, Parquet or text file")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}", hint="check the path") from error
    suffix = path.suffix.lower()
    if size > (most_bytes := _MAX_JSON_BYTES if suffix == ".json" else MAX_BYTES):
        hint = "write it as JSONL, one row a line" if suffix == ".json" else "split it"
        raise UserError(f"{path} is larger than {most_bytes >> 20} MiB", hint=hint)
    kinds: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": parquet_rows,
    }  # fmt: skip
    read = kinds.get(suffix, _text)
    rows: list[Row] = []
    held_bytes = 0
    try:
        for row in read(path):
            if most is not None and len(rows) >= most:
                break
            if len(rows) >= MAX_ROWS:
                raise UserError(f"{path} has more than {MAX_ROWS} rows", hint="split it")
            held_bytes += _held_bytes(row)
            if held_bytes > _MAX_HELD_BYTES:
                said = f"{path}, row {len(rows) + 1}: more than {_MAX_HELD_BYTES >> 20} MiB in memory"
                raise UserError(said, hint="split it, or keep only the fields that are asked for")
            rows.append(row)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path} is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from None
    if not rows:
        raise DefinitionError(f"{path} has no rows", hint="it is empty, or not what its name says")
    return rows


def _held_bytes(row: Row) -> int:
    """About how much memory a row takes, with all that is in it; what several places share is counted for each."""
    held_bytes = 0
    left: list[Any] = [row]
    while left:
        one = left.pop()
        held_bytes += sys.getsizeof(one)
        if isinstance(one, dict):
            left += one
            left += one.values()
        elif isinstance(one, list):
            left += one
    return held_bytes


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_CHARS + 1), ""), 1):
            if len(line) > _MAX_LINE_CHARS:
                said = f"{path}:{number} is longer than {_MAX_LINE_CHARS} characters"
                raise DefinitionError(said, hint="one JSON object a line")
            if line.strip():
                yield _object(_parsed(line, f"{path}:{number}"), f"{path}:{number}")


def _json(path: Path) -> Iterator[Row]:
    """A list of rows, or an object that has one under ``data`` or ``examples``."""
    found = _parsed(path.read_text(encoding="utf-8-sig"), str(path))
    if isinstance(found, dict):
        found = next((found[key] for key in ("data", "examples") if isinstance(found.get(key), list)), found)
    if not isinstance(found, list):
        raise DefinitionError(f"{path} holds no list of rows", hint='write [{"question": ...}, ...]')
    for number, row in enumerate(found, 1):
        yield _object(row, f"{path}, row {number}")


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        try:
            for row in reader:
                if None in row or None in row.values():
                    said = f"{path}:{reader.line_num} has another number of columns than the first line"
                    raise DefinitionError(said, hint="quote fields that hold commas")
                yield dict(row)
        except csv.Error as error:
            raise DefinitionError(f"{path}:{reader.line_num} is not CSV: {error}") from None


def _text(path: Path) -> Iterator[Row]:
    text = path.read_text(encoding="utf-8-sig")
    lines = text.removesuffix("\n").split("\n")
    groups = [lines[at : at + _HELLASWAG_LINES] for at in range(0, len(lines), _HELLASWAG_LINES)]
    if all(len(group) == _HELLASWAG_LINES and group[1] in ("0", "1", "2", "3") for group in groups):
        for group in groups:
            yield {"ctx": group[0], "label": group[1], "endings": group[2:]}
    elif text.strip():
        yield {"text": text}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"{where} is not JSON: {str(error)[:200]}", hint="one JSON object a line") from None


def _object(row: object, where: str) -> Row:
    if not isinstance(row, dict):
        raise DefinitionError(f"{where} is not an object", hint='write {"question": "...", "answer": "..."}')
    try:
        half = next((name for name, value in row.items() if _is_half([name, value])), None)
    except RecursionError:
        raise DefinitionError(f"{where} is nested too deeply", hint="one JSON object a line") from None
    if half is not None:
        said = f"{where}: {ascii(half)[:60]} holds half of a character (a lone surrogate)"
        raise DefinitionError(said, hint="write the whole character")
    return row


def _is_half(value: object) -> bool:
    """Whether a text in what was read as JSON has half of a character, which JSON can write and UTF-8 cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


class Lacking(Exception):
    """A row without what a recipe needs of it: what that is, and a hint. Whoever knows which row it is says so."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def field(row: Row, *names: str) -> Any:
    """The value under the first of these names that a row has; a dot leads into a table. Raises Lacking."""
    for name in names:
        found: Any = row
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if found is not None:
            return found
    wanted = " or ".join(repr(name) for name in names)
    raise Lacking(f"no field {wanted}", f"it has {', '.join(map(str, row))[:200]}")


def text(row: Row, *names: str) -> str:
    """The same, which must be a text or a number."""
    found = field(row, *names)
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        raise Lacking(f"{names[0]!r} is no text", "map another field")
    return str(found)


def texts(row: Row, *names: str) -> list[str]:
    """The same, which must be a list of texts, two at least; a list written as text is read as JSON."""
    found = field(row, *names)
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, list) or len(found) < 2 or not all(isinstance(one, str) for one in found):
        raise Lacking(f"{names[0]!r} is no list of texts", "map a field that holds two or more")
    if _is_half(found):
        raise Lacking(f"{names[0]!r} holds half of a character (a lone surrogate)", "write the whole character")
    return found
