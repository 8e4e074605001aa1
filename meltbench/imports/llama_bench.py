"""What llama-bench printed with ``-o json``, ``jsonl`` or ``sql``, or what such SQL made in SQLite: runs of mode bench.

Rows of one build, machine, model and setting are the points of one run; a point that stands there again begins the
next one. From tools/llama-bench/llama-bench.cpp: ``samples_ns`` is a time a repetition, without tokens drawn or texts
made. Its avg and stddev are made from it, and stddev_ns wraps around, so neither is read where there are samples. SQL
has none: there only ``avg_ts``, a mean of rates, is left, and medians are None.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from meltbench.engines.llama_bench import accelerator_of, unmarked
from meltbench.engines.prompts import Point
from meltbench.errors import UserError
from meltbench.imports.foreign import (
    MAX_RUNS,
    File,
    Imported,
    count,
    ended,
    facts,
    json_lines,
    json_of,
    measured,
    number,
    part_of,
    positive,
    quantisation,
    samples_ns,
    utc_ns,
    word,
)
from meltbench.measure import RunInputs
from meltbench.records import MODE_PREFIX, Measure, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

TOOL = "llama-bench"
OURS = "meltbench-export"  # of rows that we wrote: not what anybody else measured
_TABLES = ("llama_bench", "test")  # its name now, and before 2025
_OF_POINT = {
    *("n_prompt", "n_gen", "n_depth", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts"),
    *("samples_ns", "samples_ts"),
}
_KNOBS = {"n_threads": "threads", "n_batch": "batch", "n_ubatch": "ubatch", "n_gpu_layers": "gpu_layers"}
_HARDWARE = ("cpu_info", "gpu_info", "backends", "build_commit", "build_number")
_MODEL = ("model_filename", "model_type", "model_size", "model_n_params")
_MAX_TOKENS = 10**9
_SQLITE = b"SQLite format 3\0"
_MAX_CELL = 1 << 20  # of SQLite: a column that it computes may be of any size
_INSERT = re.compile(r"INSERT\s+INTO\s+[\"'`]?(\w{1,40})[\"'`]?\s*\(([^()]{1,4000})\)\s*VALUES\s*\(", re.IGNORECASE)
_VALUE = re.compile(r"\s*(?:'((?:[^']|''){0,65536})'|(NULL|[-+.\w]{1,40}))\s*(,|\)\s*;)", re.IGNORECASE)
_CLOCK = "test_time of the first point; its repetitions are put one behind the other, for nobody tells where they were"


class _Row(NamedTuple):
    """A row of results: where it stands, what it says, and which point it is of."""

    where: str
    said: dict[str, Any]
    point: Point


def read(files: Sequence[File], device: str | None = None) -> list[Imported]:
    """The runs of these files, in order. ``device``: the name of the machine, which llama-bench does not know.

    Raises UserError, with the line, for a file that is not llama-bench's.
    """
    out: list[Imported] = []
    for file in files:
        groups: dict[str, list[list[_Row]]] = defaultdict(list)
        seen: Counter[tuple[str, Point]] = Counter()
        for row in map(_checked, _rows(file)):
            same = repr(sorted((k, str(v)) for k, v in row.said.items() if k not in _OF_POINT))
            rep = seen[same, row.point]
            seen[same, row.point] += 1
            groups[same] += [[]] if rep == len(groups[same]) else []
            groups[same][rep].append(row)
        runs = [(at, rep, rows) for at, held in enumerate(groups.values()) for rep, rows in enumerate(held)]
        out += [_run(_own(file, rows, len(runs)), f"{at}/{rep}", rep, rows, device) for at, rep, rows in runs]
    return out


def _lines(rows: Sequence[_Row]) -> bytes:
    """Rows as JSONL, from which they can be imported again."""
    return "".join(f"{json.dumps(row.said, sort_keys=True, default=str)}\n" for row in rows).encode()


def _own(file: File, rows: Sequence[_Row], runs: int) -> File:
    """What is kept with a run: the file, or where it holds many runs its own rows alone."""
    return file if runs == 1 else File(f"{file.path}.rows.jsonl", _lines(rows))


def _rows(file: File) -> list[tuple[str, Any]]:
    """The rows of a file, each with where it stands, by what the file begins with."""
    head = file.raw[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if file.raw.startswith(_SQLITE):
        found = _sqlite(file)
    elif head.startswith(b"["):
        value = json_of(file)
        found = [(f"entry {at}", one) for at, one in enumerate(value, 1)]
    elif head.startswith(b"{"):
        found = [(f"line {at}", one) for at, one in json_lines(file)]
    else:
        found = _sql(file)
    if not found or len(found) > MAX_RUNS:
        what = "no row of llama-bench" if not found else f"more than {MAX_RUNS} rows"
        raise UserError(f"{file.path} has {what}", hint="give what llama-bench -o json, jsonl or sql printed")
    return [(f"{file.path}, {where}", one) for where, one in found]


def _sql(file: File) -> list[tuple[str, Any]]:
    """What follows INSERT INTO llama_bench; nothing is executed."""
    text = file.raw.decode("utf-8", "replace")
    out: list[tuple[str, Any]] = []
    line, counted = 1, 0
    for found in _INSERT.finditer(text):
        line, counted = line + text.count("\n", counted, found.start()), found.start()
        where = f"line {line}"
        if found[1].lower() not in _TABLES:
            raise UserError(f"{file.path}, {where}: a table {found[1]}, not {_TABLES[0]}")
        names = [name.strip(" \t\r\n\"'`") for name in found[2].split(",")]
        values: list[str | None] = []
        at = found.end()
        while (value := _VALUE.match(text, at)) is not None:
            bare = value[2]
            values.append(value[1].replace("''", "'") if bare is None else None if bare.upper() == "NULL" else bare)
            at = value.end()
            if value[3] != ",":
                break
        if value is None or len(values) != len(names):
            raise UserError(f"{file.path}, {where}: {len(names)} columns, and not as many values that can be read")
        out.append((where, dict(zip(names, values, strict=True))))
        if len(out) > MAX_RUNS:
            break
    return out


def _sqlite(file: File) -> list[tuple[str, Any]]:
    """The rows of the table in a SQLite file, which is held in memory and never written."""
    try:
        with closing(sqlite3.connect(":memory:")) as base:
            base.deserialize(file.raw)
            base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_CELL)
            base.execute("PRAGMA trusted_schema = OFF")
            names = {row[0] for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            table = next((name for name in _TABLES if name in names), None)
            if table is None:
                raise UserError(f"{file.path} has no table {_TABLES[0]}", hint="llama-bench -o sql | sqlite3 FILE")
            cursor = base.execute(f"SELECT * FROM {table} LIMIT {MAX_RUNS + 1}")
            heads = [column[0] for column in cursor.description]
            return [(f"row {at}", dict(zip(heads, row, strict=True))) for at, row in enumerate(cursor, 1)]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file.path} cannot be read as SQLite: {error}") from error


def _checked(given: tuple[str, Any]) -> _Row:
    """A row with its point. Raises UserError where it lacks what every row has."""
    where, row = given
    if not isinstance(row, dict) or "model_filename" not in row:
        raise UserError(f"{where}: no row of llama-bench: it has no model_filename")
    numbers = [count(row.get(name, 0)) for name in ("n_prompt", "n_gen", "n_depth")]
    if any(one is None or one > _MAX_TOKENS for one in numbers) or not (numbers[0] or numbers[1]):
        raise UserError(f"{where}: n_prompt, n_gen and n_depth are no numbers of tokens")
    return _Row(where, row, Point(*(one or 0 for one in numbers)))


def _samples(row: _Row) -> list[int] | None:
    """Its times, ns; None where it has none. Raises UserError where they are no times."""
    given = row.said.get("samples_ns")
    if given == []:
        raise UserError(f"{row.where}: samples_ns is empty")
    return None if given is None else samples_ns(row.where, given)


def _run(file: File, part: str, rep: int, rows: Sequence[_Row], device: str | None) -> Imported:
    said = rows[0].said
    mode, backends, ours = _mode(said)
    tool = OURS if ours else TOOL
    starts = [ns for row in rows if (ns := utc_ns(row.said.get("test_time"))) is not None]
    requests: list[Request] = []
    theirs: list[Measure] = []
    prefix = MODE_PREFIX[mode]
    now = min(starts, default=0)
    for row in rows:
        samples = _samples(row)
        for sample in samples or ():
            requests.append(_request(len(requests), row.point, now, sample))
            now += sample
        theirs += _theirs(row, prefix, sampled=samples is not None)
    ended(file.path, min(starts, default=0), now)
    inputs = RunInputs(
        kind="grid",
        mode=mode,
        signals=(),
        sources=(),
        phases=(),
        requests=requests,
        totals=(),
        conditions=[("imported", f"{file.name} of {tool}; what it did not record is missing")],
    )
    measures, reasons = measured(tool, inputs, theirs, clock="samples_ns")
    gpu, cpu = word(said.get("gpu_info")), word(said.get("cpu_info"))
    hardware = gpu if backends not in ("", "CPU") and gpu else cpu
    number_, commit = count(said.get("build_number")), word(said.get("build_commit")) or "unknown"
    name = PurePath(word(said.get("model_filename")).replace("\\", "/"))
    size, params = count(said.get("model_size")), count(said.get("model_n_params"))
    type_ = word(said.get("model_type"))
    return Imported(
        tool=tool,
        files=(file,),
        identity=_lines(rows),
        part=part,
        started_ns=min(starts, default=None),
        ended_ns=now if starts and requests else None,
        device=device or word(part_of(said, "meltbench", "device")) or hardware or "unknown",
        clock=_CLOCK,
        workload={"name": "llama-bench", "title": "a grid of llama-bench", "kind": "grid"},
        model={
            "name": name.stem or "unknown",
            "file": name.name or None,
            "bytes": size or None,
            "n_params": params or None,
            "bits_per_weight": size * 8 / params if size and params else None,
            "quantisation": quantisation(type_),
        },
        runner={
            "name": tool,
            "engine": "llama.cpp",
            "version": f"{number_} ({commit})" if number_ else commit,
            "protocol": TOOL,
            "mode": mode,
            "accelerator": accelerator_of(said | {"backends": backends, "n_gpu_layers": count(_layers(said))}),
        },
        knobs=_knobs(said),
        said=facts({key: said.get(key) for key in (*_HARDWARE, *_MODEL)}),
        rep=rep,
        requests=requests,
        measures=measures,
        reasons=reasons,
    )


def _layers(said: dict[str, Any]) -> object:
    """-1 stands for as many as fit."""
    found = number(said.get("n_gpu_layers"))
    return None if found is None or found < 0 else found


def _mode(said: dict[str, Any]) -> tuple[str, str, bool]:
    """In which mode a row was measured, its backends, and whether it is one that we wrote."""
    mode, written = word(said.get("mode")), "meltbench" in said
    backends, marked = unmarked(word(said.get("backends")))
    if marked is not None:
        return marked, backends, True
    # What was llama-bench's before we imported it and wrote it again is llama-bench's still.
    ours = written and part_of(said, "meltbench", "origin") != TOOL
    return (mode if written and mode in MODE_PREFIX else "bench"), backends, ours


def _knobs(said: dict[str, Any]) -> dict[str, Any]:
    """Its settings, ours under our names; those of the machine, the build and the model are no settings."""
    out: dict[str, Any] = {}
    for key, value in facts(said).items():
        if key in (*_OF_POINT, *_HARDWARE, *_MODEL, "mode"):
            continue
        whole = number(value) if not isinstance(value, bool) else None
        out[_KNOBS.get(key, key)] = value if whole is None else int(whole) if whole == int(whole) else whole
    return out


def _request(index: int, point: Point, send_ns: int, sample: int) -> Request:
    """A repetition. One of pp+tg has one time for both, which no rate of either follows from."""
    both = bool(point.prefill and point.generate)
    seconds = sample / 1e9
    return Request(
        index=index,
        item=point.name,
        point=point.name,
        role="timed",
        status="ok",
        t_send_ns=send_ns,
        t_end_ns=send_ns + sample,
        t_first_ns=None if both else send_ns + sample if point.prefill else send_ns,
        n_in=point.depth + point.prefill,
        n_cached=point.depth,
        n_out=point.generate,
        e2e_s=seconds,
        prefill_tps=point.prefill / seconds if point.prefill and not both else None,
        prefill_source="samples_ns" if point.prefill and not both else None,
        decode_tps=point.generate / seconds if point.generate and not both else None,
    )


def _theirs(row: _Row, prefix: str, *, sampled: bool) -> list[Measure]:
    """Its own mean rate; where that is all there is, also under our name as the mean that it is, and no median."""
    rate, point = positive(row.said.get("avg_ts")), row.point
    samples = row.said.get("samples_ns")
    n = len(samples) if sampled and isinstance(samples, list) else None
    method = "mean of (n_prompt + n_gen) / time over its repetitions, as llama-bench computes it"
    if rate is None:
        return []
    out = [Measure("llamabench_avg_ts", rate, "tok/s", "mean", point.name, n=n, method=method)]
    if not sampled and not (point.prefill and point.generate):
        name = f"{prefix}{'prefill' if point.prefill else 'decode'}_tps"
        why = "no_samples: SQL of llama-bench has means alone"
        out.append(Measure(name, rate, "tok/s", "mean", point.name, method="avg_ts of llama-bench"))
        out.append(Measure(name, None, "tok/s", "median", point.name, n=0, reason=why))
    return out
