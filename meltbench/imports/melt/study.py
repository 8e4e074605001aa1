"""The files of a MELT run, told apart by what is in them, put together by the numbers in their names."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from meltbench.errors import UserError
from meltbench.imports.melt import app, events, gauge, operators, output, tables
from meltbench.imports.melt.conversation import Conversation, Parts, put_together
from meltbench.imports.melt.power import Power, parse_jetson, parse_monsoon
from meltbench.readings.melt import LINE
from meltbench.readings.meters.monsoon import RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.imports.foreign import File

FileKind = Literal[
    "events", "states", "app", "output", "monsoon", "start", "adb", "stages", "jetson", "operators", "configuration"
]
POWER: tuple[FileKind, ...] = ("monsoon", "adb", "jetson")
MAX_FILES = 4096
MAX_TEXT_BYTES = 64 << 20  # of a file that is held whole in many small parts; a meter's and an engine's logs are larger
OPTIONS = ("start_s", "rate_hz", "clock_bound_s", "rail", *gauge.OPTIONS)
_RANGES = {"start_s": (0.0, 4e9), "rate_hz": (0.1, RATE_HZ), "clock_bound_s": (0.0, 60.0)}
_iteration, _conversation = re.compile(r"iter(\d{1,6})"), re.compile(r"conv(\d{1,6})")
_cell = rb"(?:np\.float64\()?[\d.eE+-]{1,24}\)?"
_sample = re.compile(rb"\s*(?:\"?Time[^\n]{0,400}\n\s*)?" + _cell + b"," + _cell + b"," + _cell)
_list = re.compile(rb"\[\s{0,64}(?:\{|\])")
_event = re.compile(rb"^[A-Za-z_][A-Za-z0-9_.]{0,127}\.(?:start|end)[ ,]\d{10,19}[ \t\r]*$", re.MULTILINE)
_HEADS: tuple[tuple[bytes, FileKind], ...] = (
    (b"start_date,duration,state", "states"),
    (b"timestamp,current,voltage", "adb"),
    (b"stage,time_start,time_end", "stages"),
)


@dataclass
class Study:
    """What the files of a run hold. ``power`` by iteration, None for all; ``kinds``: what each file is, by its path."""

    kinds: dict[str, FileKind] = field(default_factory=dict)
    conversations: list[Conversation] = field(default_factory=list)
    files_of: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    power: dict[int | None, Power] = field(default_factory=dict)
    power_files: dict[int | None, list[str]] = field(default_factory=dict)
    operators: list[tuple[str, operators.Operators]] = field(default_factory=list)
    stages: list[tables.HostStage] = field(default_factory=list)
    configuration: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def power_of(self, iteration: int) -> Power | None:
        """The power that was recorded beside an iteration."""
        return self.power.get(iteration, self.power.get(None))


def kind_of(file: File) -> FileKind | None:
    """What a file of MELT's is, by its name where that is a fixed one and else by what is in it; None for no such."""
    head = file.raw[:65536]
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if file.name == ".t_monsoon":
        return "start"
    if file.name == "configuration.json":
        return "configuration"
    for text, kind in _HEADS:
        if start.startswith(text):
            return kind
    if file.name.startswith("llm_output"):
        return "output"
    if _list.match(start):
        return "app"
    if _event.search(head):
        return "events"
    if LINE.search(head):
        return "jetson"
    if _sample.match(start):
        return "monsoon"
    if b"perf_total_per_op_us[" in file.raw or b"Report from function" in file.raw:
        return "operators"
    return "output" if b"llama_print_timings:" in file.raw or b": /stats" in file.raw else None


def read(files: Sequence[File], power: File | None, options: Mapping[str, object]) -> Study:
    """The study of these files. ``power``: the one that the user named, in place of any among them.

    Raises UserError for a file that is not what it seems, an option that nothing takes, or where nothing is found.
    """
    study = Study()
    parts: dict[tuple[int, int], Parts] = {}
    sorts = [(file, kind) for file in files if (kind := kind_of(file)) is not None]
    study.kinds = {file.path: kind for file, kind in sorts}
    study.configuration = next((_object(file) for file, kind in sorts if kind == "configuration"), {})
    for file, kind in sorts:
        if kind not in (*POWER, "operators") and len(file.raw) > MAX_TEXT_BYTES:
            raise UserError(
                f"{file.path} is larger than {MAX_TEXT_BYTES >> 20} MiB", hint="no run of MELT's writes so much"
            )
        if kind in ("events", "states", "output", "app"):
            _take(study, parts, file, kind)
        elif kind == "stages":
            study.stages, lost = tables.parse_stages(file.raw, file.path)
            study.notes += [f"{lost} lines of {file.path} are no stage"] if lost else []
        elif kind == "operators":
            study.operators.append((file.path, operators.parse(file.raw, file.path)))
    _take_power(study, sorts, power, options)
    batch = study.configuration.get("input_token_batching")
    for key, mine in sorted(parts.items()):
        mine.batch = batch if isinstance(batch, int) and not isinstance(batch, bool) and 0 < batch < 1 << 20 else None
        if mine.states or mine.events is not None or mine.session is not None:
            study.conversations.append(put_together(*key, mine))
        else:
            alone = study.files_of[key][0]
            study.notes.append(f"{alone} stands alone: without its table or marks it is no conversation")
    if not study.conversations and not study.operators:
        hint = "give a folder of a run, or measurements_iter*_conv*.tsv, .csv, .json, or a log of operators"
        raise UserError("none of these files holds a prompt or an operator", hint=hint)
    return study


def _take(study: Study, parts: dict[tuple[int, int], Parts], file: File, kind: FileKind) -> None:
    """Put a file of prompts where its iteration and conversation are."""
    names = (one.search(file.name) for one in (_iteration, _conversation))
    iteration, number = (int(found[1]) if found else 0 for found in names)
    if kind == "app":
        for at, session in enumerate(app.parse(file.raw, file.path)):
            mine = _at(study, parts, (iteration, at), file)
            mine.session = session
        return
    mine = _at(study, parts, (iteration, number), file)
    if kind == "events":
        if mine.events is not None:
            raise UserError(f"{file.path} is a second event log of its conversation", hint="give the files of one run")
        mine.events = events.parse(file.raw, file.path)
    elif kind == "states":
        mine.states, lost = tables.parse_states(file.raw, file.path)
        mine.notes += [f"{lost} lines of {file.path} are no row"] if lost else []
    else:
        timings = output.parse_timings(file.raw)
        if timings.lines:
            mine.timings = timings
        else:
            mine.stats = output.parse_stats(file.raw)


def _at(study: Study, parts: dict[tuple[int, int], Parts], key: tuple[int, int], file: File) -> Parts:
    study.files_of.setdefault(key, []).append(file.path)
    return parts.setdefault(key, Parts())


def _take_power(
    study: Study, sorts: Sequence[tuple[File, FileKind]], named: File | None, options: Mapping[str, object]
) -> None:
    """The one file of power that is read: the named one, else the Monsoon's, the Jetson's, or the gauge's."""
    starts = [file for file, kind in sorts if kind == "start"]
    found: list[tuple[File, FileKind]] = []
    if named is not None:
        kind = kind_of(named)
        if kind is None or kind not in POWER:
            hint = "give measurements_monsoon.csv, energy_iter0.log or measurements_adb.csv"
            raise UserError(f"{named.path} is no power file of MELT's", hint=hint)
        found = [(named, kind)]
        study.kinds[named.path] = kind
    else:
        for wanted in ("monsoon", "jetson", "adb"):
            found = found or [(file, kind) for file, kind in sorts if kind == wanted]
    _check_options(options, {kind for _, kind in found})
    for file, kind in found:
        which = _iteration.search(file.name) if kind == "jetson" else None
        iteration = int(which[1]) if which else None
        if iteration in study.power:
            raise UserError(f"{file.path} is a second power file of one run", hint="name one with --power")
        study.power[iteration] = _power(file, kind, starts, options)
        study.power_files[iteration] = [file.path, *(one.path for one in starts[:1] if kind == "monsoon")]


def _power(file: File, kind: FileKind, starts: Sequence[File], options: Mapping[str, object]) -> Power:
    if kind == "adb":
        return gauge.parse(file.raw, file.path, options)
    if kind == "jetson":
        return parse_jetson(file.raw, file.path, options.get("rail"))
    start_s = options.get("start_s")
    if start_s is None and starts:
        text = starts[0].raw[:64].decode("ascii", "replace").strip()
        start_s = float(text) if re.fullmatch(r"\d{1,10}(\.\d{1,9})?", text, re.ASCII) else None
    rate_hz = options.get("rate_hz", RATE_HZ)
    start = start_s if isinstance(start_s, int | float) else None
    return parse_monsoon(file.raw, file.path, start, rate_hz if isinstance(rate_hz, int | float) else RATE_HZ)


def _check_options(options: Mapping[str, object], kinds: set[FileKind]) -> None:
    """Refuse an option that nobody takes here."""
    takes: dict[str, set[FileKind]] = {
        "start_s": {"monsoon"},
        "rate_hz": {"monsoon"},
        "clock_bound_s": {"monsoon", "adb"},
        "rail": {"jetson"},
        **{name: {"adb"} for name in gauge.OPTIONS},
    }
    for name, value in options.items():
        low, high = _RANGES.get(name, (-math.inf, math.inf))
        if name in _RANGES and (isinstance(value, bool | str) or not low <= float(str(value)) <= high):
            raise UserError(f"{name} is {value!r}", hint=f"give {low:g} to {high:g}")
        if not takes[name] & kinds:
            what = " or ".join(sorted(takes[name]))
            raise UserError(f"--option {name} is for a power file of kind {what}", hint="leave it out, or give --power")


def _object(file: File) -> dict[str, Any]:
    """The experiment's settings; empty for what is no object."""
    try:
        value = json.loads(file.raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
