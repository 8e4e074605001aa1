"""``measurements_iter*.json`` of MELT's apps (ConversationsRecordManager.kt, PerformanceMetrics.swift): its prompts.

A list of conversations, each with the time its model took to load and a record a question. Times are s since 1970 of
the phone's clock (ISO text of iOS apps of before), durations s. What MLC says of a prompt is a text of JSON in it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from meltbench.errors import UserError
from meltbench.imports.melt.output import Counted, stats_of
from meltbench.readings.meters.text import iso_ns

MAX_RECORDS = 100_000
_MAX_S = 4e9
_MAX_COUNT = 10**9
_MAX_TEXT = 65536


class Question(NamedTuple):
    """A prompt of an app. ``stats``: what MLC said of it, None where it said nothing. -1 and less are no counts."""

    start_s: float
    duration_s: float
    n_in: int | None
    n_steps: int | None
    stats: Counted | None
    answer: str


@dataclass(frozen=True)
class Session:
    """A conversation of an app: ``load_s`` is when the loading of its model began, and how long it took."""

    model: str
    load_s: tuple[float, float] | None
    questions: tuple[Question, ...]
    unread: int


def parse(raw: bytes, name: str) -> list[Session]:
    """The conversations of a file. Raises UserError where it is not such a list."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not JSON: {str(error)[:120]}", hint="give measurements_iter0.json whole") from None
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value) or not value:
        raise UserError(f"{name} is no list of conversations", hint="MELT's apps write [{modelName, questionRecords}]")
    records = [_records(one) for one in value]
    if any(found is None for found in records):
        raise UserError(f"{name} has a conversation without questionRecords", hint="give MELT's own file")
    if sum(len(found or ()) for found in records) > MAX_RECORDS:
        raise UserError(f"{name} has more than {MAX_RECORDS} questions", hint="cut it into parts")
    return [_session(one, found or []) for one, found in zip(value, records, strict=True)]


def _records(one: dict[str, Any]) -> list[Any] | None:
    """The records under the name that they have now, or had before."""
    found = one.get("questionRecords", one.get("chatRecords"))
    return found if isinstance(found, list) else None


def _session(one: dict[str, Any], records: list[Any]) -> Session:
    questions = [question for record in records if (question := _question(record)) is not None]
    load_s, unread = _times(one.get("modelLoadTime")), len(records) - len(questions)
    return Session(_text(one.get("modelName"))[:200], load_s, tuple(questions), unread)


def _question(record: object) -> Question | None:
    """None for what has no times: nothing could be said of it."""
    times = _times(record.get("time")) if isinstance(record, dict) else None
    if times is None or not isinstance(record, dict):
        return None
    said = record.get("runtimeStats")
    stats = stats_of(said) if isinstance(said, str) else None
    counts = (_count(record.get("input_tokens")), _count(record.get("output_tokens")))
    return Question(*times, *counts, stats, _text(record.get("output"))[:_MAX_TEXT])


def _times(value: object) -> tuple[float, float] | None:
    if not isinstance(value, dict):
        return None
    start, duration = value.get("start"), value.get("duration")
    if isinstance(start, str):
        at = iso_ns(start)
        start = None if at is None else at / 1e9
    if not all(_is_time(one) for one in (start, duration)):
        return None
    return float(start), float(duration)  # type: ignore[arg-type]


def _is_time(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= _MAX_S
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_COUNT else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
