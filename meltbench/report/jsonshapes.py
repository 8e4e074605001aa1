"""How the keys that ``--json`` prints are described."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """One key. ``path`` has ``[]`` for the items of a list and ``*`` for any key of an open object.

    ``null`` says when the value is null; empty: never.
    """

    path: str
    type: str
    meaning: str
    null: str = ""


@dataclass(frozen=True)
class Document:
    """What some commands print: a heading, a sentence, its keys."""

    name: str
    heading: str
    text: str
    keys: tuple[Key, ...]
