"""TOML files into tables, and tables into frozen dataclasses: strict, with errors that name file, key and remedy."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import tomllib
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from meltbench.errors import DefinitionError

if TYPE_CHECKING:
    from pathlib import Path

MAX_TOML_BYTES = 1 << 20
MAX_DEPTH = 32

T = TypeVar("T")
_POSITION = re.compile(r"(.*) \(at line (\d+), column (\d+)\)$", re.DOTALL)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the TOML file at ``path`` as a table. DefinitionError names the file and the line."""
    return parse_toml(read_bounded(path), path)


def read_bounded(path: Path) -> bytes:
    """Return the bytes of a definition, at most 1 MiB. DefinitionError when it cannot be read or is larger."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TOML_BYTES + 1)
    except OSError as error:
        raise DefinitionError(f"cannot read {path}: {error.strerror or error}") from error
    if len(content) > MAX_TOML_BYTES:
        raise DefinitionError(f"{path} is larger than {MAX_TOML_BYTES} bytes", hint="a definition is a small file")
    return content


def parse_toml(content: bytes, path: Path) -> dict[str, Any]:
    """Parse TOML; ``path`` is named in errors."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DefinitionError(f"{path}, line {line}: not UTF-8") from error
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise DefinitionError(f"{path}: nested deeper than {MAX_DEPTH}") from error
    except ValueError as error:  # TOMLDecodeError is one; a number of 5,000 digits raises a plain one
        found = _POSITION.match(str(error))
        last = text.count("\n") + 1
        what, place = (found[1], f"line {found[2]}, column {found[3]}") if found else (str(error), f"line {last}")
        what = " ".join(what.removesuffix("(at end of document)").split())
        raise DefinitionError(f"{path}, {place}: {what}") from error
    # A dotted key nests without the parser recursing, so what walks the table later would be the one to break.
    level: list[Any] = [table]
    for _ in range(MAX_DEPTH):
        level = [v for t in level for v in (t.values() if isinstance(t, dict) else t) if isinstance(v, (dict, list))]
    if level:
        raise DefinitionError(f"{path}: nested deeper than {MAX_DEPTH}")
    return table


def read_table(cls: type[T], table: dict[str, Any], where: str | Path) -> T:
    """Return ``table`` as an instance of the dataclass ``cls``, checked key by key.

    Understood field types: str, int, float (takes an int), bool, Literal, ``X | None``, tuple[X, ...], nested
    dataclasses, dict[str, X], and Any for what the caller checks. A field's key is its name, or
    ``metadata={"key": ...}`` where the name is a Python keyword. ``where`` (the file) begins every message. A
    ValueError of ``__post_init__`` becomes a DefinitionError, so dataclasses may check themselves.
    """
    return _Reader(str(where)).dataclass(cls, table, "")


@functools.cache  # a catalogue has many tables of few kinds
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


class _Reader:
    def __init__(self, where: str) -> None:
        self.where = where

    def error(self, at: str, message: str, hint: str | None = None) -> DefinitionError:
        return DefinitionError(f"{self.where}: {at}: {message}" if at else f"{self.where}: {message}", hint=hint)

    def dataclass(self, cls: type[T], table: object, at: str) -> T:
        if not isinstance(table, dict):
            raise self.error(at, f"expected a table, got {_described(table)}")
        hints = _hints(typing.cast("typing.Hashable", cls))
        fields = {f.metadata.get("key", f.name): f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
        for key in table:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(sorted(fields))}"
                raise self.error(at, f"unknown key {key!r}", hint)
        values: dict[str, Any] = {}
        for key, field in fields.items():
            if key in table:
                values[field.name] = self.value(hints[field.name], table[key], f"{at}.{key}" if at else key)
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise self.error(at, f"missing key {key!r}", f"expected {_named(hints[field.name])}")
        try:
            return cls(**values)
        except ValueError as error:
            raise self.error(at, str(error)) from error

    def value(self, hint: Any, value: object, at: str) -> object:
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if hint is Any:
            return value
        if origin in (types.UnionType, typing.Union):
            return self.union([a for a in args if a is not type(None)], value, at)
        if origin is Literal:
            if not isinstance(value, str) or value not in args:
                near = difflib.get_close_matches(str(value), [str(a) for a in args], n=1)
                hint_text = f"did you mean {near[0]!r}?" if near else None
                raise self.error(at, f"expected {_named(hint)}, got {_described(value)}", hint_text)
            return value
        if origin is tuple:
            if not isinstance(value, list):
                raise self.error(at, f"expected {_named(hint)}, got {_described(value)}")
            return tuple(self.value(args[0], item, f"{at}[{i}]") for i, item in enumerate(value))
        if origin is dict:
            if not isinstance(value, dict):
                raise self.error(at, f"expected {_named(hint)}, got {_described(value)}")
            return {key: self.value(args[1], item, f"{at}.{key}") for key, item in value.items()}
        if dataclasses.is_dataclass(hint):
            return self.dataclass(typing.cast("type[Any]", hint), value, at)
        return self.scalar(hint, value, at)

    def union(self, members: list[Any], value: object, at: str) -> object:
        """Take the one member that fits; with a single member (``X | None``) its own errors stand."""
        if len(members) == 1:
            return self.value(members[0], value, at)
        for member in sorted(members, key=lambda m: m is float):  # an int stays an int in int | float
            try:
                return self.value(member, value, at)
            except DefinitionError:
                continue
        raise self.error(at, f"expected {' or '.join(_named(m) for m in members)}, got {_described(value)}")

    def scalar(self, hint: Any, value: object, at: str) -> object:
        is_int = isinstance(value, int) and not isinstance(value, bool)
        if hint is float and (is_int or isinstance(value, float)):
            number = float(typing.cast("float", value))
            if not math.isfinite(number):
                raise self.error(at, f"expected a finite number, got {value}")
            return number
        if (hint is int and is_int) or (hint in (str, bool) and isinstance(value, hint)):
            return value
        raise self.error(at, f"expected {_named(hint)}, got {_described(value)}")


_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}
_PLURALS = {str: "strings", int: "integers", float: "numbers", bool: "true or false"}


def _named(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin is tuple:
        return f"a list of {_PLURALS.get(args[0], 'tables')}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_named(a) for a in args if a is not type(None))
    return "a table" if origin is dict or dataclasses.is_dataclass(hint) else _NAMES.get(hint, str(hint))


def _described(value: object) -> str:
    """Return a value of a TOML file in the words of TOML."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    kind = {str: "the string", int: "the integer", float: "the number"}.get(type(value), "the date")
    shown = repr(value) if isinstance(value, str) else str(value)
    return f"{kind} {shown if len(shown) <= 60 else shown[:57] + '...'}"
