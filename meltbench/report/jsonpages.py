"""The keys of ``meltbench report --json``."""

from __future__ import annotations

from meltbench.report.jsonshapes import Document, Key

REPORT = Document(
    "report",
    "meltbench report",
    "One document: the file that was written.",
    (
        Key("path", "text", "The file."),
        Key("bytes", "integer", "Its size."),
        Key("facts[]", "text", "Which runs it is of, and which no aggregate has taken in; a line each."),
        Key("pages[].title", "text", "A page in it."),
        Key("pages[].panels[]", "text", "Titles of its panels."),
    ),
)
