"""MELT's small tables: of its prompts by the host's clock, and of its stages.

``measurements_iter*_conv*.csv`` (run_scripts/run-llamacpp-*.exp, run-mlc-chat-cli.exp) has
``start_date,duration,state`` in s; a state is ``load_model`` or the text of a prompt in quotes that nothing escapes.
``measurements_ts.csv`` (libs/tslog.py) has ``stage,time_start,time_end,duration,rx,tx``.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeVar

from meltbench.errors import UserError

Row = TypeVar("Row")

LOAD = "load_model"
_MAX_S = 4e9  # unix time of the year 2096
_MAX_TEXT = 65536
_state = re.compile(rb"^(\d{1,10}(?:\.\d{1,9})?),(\d{1,9}(?:\.\d{1,9})?),(.{0,65536})$", re.MULTILINE)
_stage = re.compile(
    rb"^([^,\r\n]{1,128}),(\d{1,10}(?:\.\d{1,9})?),(\d{1,10}(?:\.\d{1,9})?),[\d.eE+-]{1,24},"
    rb"(-?\d{1,18}),(-?\d{1,18})[ \t\r]*$",
    re.MULTILINE,
)


class State(NamedTuple):
    """What the host waited for: ``text`` is load_model or a prompt; in s of the host's clock, as they were logged."""

    text: str
    start_s: float
    duration_s: float


class HostStage(NamedTuple):
    """A stage of an experiment by the host's clock, s, and the bytes that the phone received and sent in it."""

    name: str
    start_s: float
    end_s: float
    rx_bytes: int
    tx_bytes: int


def parse_states(raw: bytes, name: str) -> tuple[list[State], int]:
    """The rows, and how many lines are none. Raises UserError where there is no row."""
    rows = [
        State(text.decode("utf-8", "replace").strip().removeprefix('"').removesuffix('"')[:_MAX_TEXT], *times)
        for start, duration, text in _state.findall(raw)
        if max(times := (float(start), float(duration))) <= _MAX_S
    ]
    return _whole(rows, raw, f"{name} has no row of start_date,duration,state")


def parse_stages(raw: bytes, name: str) -> tuple[list[HostStage], int]:
    """The rows, and how many lines are none. Raises UserError where there is no row."""
    rows = [
        HostStage(stage.decode("utf-8", "replace"), float(start), float(end), int(rx), int(tx))
        for stage, start, end, rx, tx in _stage.findall(raw)
        if max(float(start), float(end)) <= _MAX_S
    ]
    return _whole(rows, raw, f"{name} has no row of stage,time_start,time_end,duration,rx,tx")


def _whole(rows: list[Row], raw: bytes, missing: str) -> tuple[list[Row], int]:
    if not rows:
        raise UserError(missing, hint="give the file as MELT wrote it")
    lines = sum(1 for line in raw.splitlines() if line.strip())
    return rows, max(lines - len(rows) - 1, 0)  # the header is none of them
