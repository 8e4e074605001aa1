"""llama-bench: one process a point of a grid, timed by itself, its phases stamped by when its progress marks arrived.

From tools/llama-bench/llama-bench.cpp: with ``--progress`` each run is announced on stderr by a line such as
``llama-bench: benchmark 1/1: prompt run 2/5`` right after its clock was started (``warmup prompt run``, ``warmup
generation run`` and ``depth run 1/5`` have no clock); the model is loaded before the first of them. A repetition of
pp+tg has one clock and two marks. At the end one line of JSON on stdout holds ``samples_ns``, a repetition each. Its
``avg_*`` and ``stddev_*`` are never used: they are made from the same samples, and stddev_ns wraps around.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from meltbench.engines import Command, llama_log
from meltbench.engines.prompts import Point, point
from meltbench.errors import UserError
from meltbench.records import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.engines import Process
    from meltbench.engines.prompts import Ask

# The probe keeps 4096 bytes of a line. A row is one line: about 1.4 KB and 30 bytes a repetition.
MAX_REPEAT = 64
# How far a sample may be from the time between its marks: a busy machine hands a line on late.
SLACK_S, SLACK_SHARE = 0.05, 0.1
_MARK = re.compile(
    rb"llama-bench: benchmark \d{1,6}/\d{1,6}: (?P<warm>warmup )?(?P<what>prompt|generation|depth) run"
    rb"(?: \d{1,6}/\d{1,6})?(?P<cached> \(cached\))?\s*"
)
_MAX_NS = 10**15
_MARKED = re.compile(r"(.{0,200}) \(meltbench, mode (server|in-process)\)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,40}", re.ASCII)
# Settings of the recipe and the fields of a row that must agree with them.
_FIELDS = {"threads": "n_threads", "batch": "n_batch", "ubatch": "n_ubatch", "gpu_layers": "n_gpu_layers"}
_ACCELERATES_CPU = {"CPU", "BLAS", "zDNN", ""}  # backends that are no device of this machine

What = Literal["prompt", "generation", "depth"]


@dataclass(frozen=True)
class _Mark:
    """A progress mark: when it arrived, and what began then."""

    t_ns: int
    what: str
    warm: bool
    cached: bool


@dataclass(frozen=True)
class _Repetition:
    """What lies between two marks: one thing that the engine did, of ``role``. ``split_ns``: its generation mark."""

    first: _Mark
    split_ns: int | None
    end_ns: int | None


@dataclass(frozen=True)
class LlamaBench:
    """One process a point, in the order of the points' first timed requests, each told all of its repetitions."""

    @property
    def words(self) -> tuple[str, ...]:
        """The model's path and the point, in llama-bench's own terms."""
        return ("model", "n_prompt", "n_gen", "n_prompt_gen", "n_depth", "repeat")

    def commands(self, asks: Sequence[Ask], folder: str) -> list[Command]:
        """Its own warm-up and depth runs stand in for those that were asked for."""
        del folder
        timed: dict[str, list[Ask]] = {}
        for ask in asks:
            if ask.role == "timed":
                timed.setdefault(ask.item, []).append(ask)
        repeat = max((len(same) for same in timed.values()), default=0)
        if repeat > MAX_REPEAT:
            raise UserError(
                f"llama-bench tells of {MAX_REPEAT} repetitions at most, {repeat} were asked for",
                hint="--set repeat=5, and --reps for runs of their own",
            )
        return [Command(_words(point(item), len(same)), tuple(same)) for item, same in timed.items()]

    def requests(self, asks: Sequence[Ask], processes: Sequence[Process], asked: Mapping[str, Any]) -> list[Request]:
        """Every run that llama-bench announced; a repetition without its sample is kept, and is not ok."""
        groups: dict[str, list[Ask]] = {}
        for ask in asks:
            groups.setdefault(ask.item, []).append(ask)
        found: list[Request] = []
        for same, process in zip(groups.values(), processes, strict=False):
            found += _of_process(same, process, asked, len(found))
        return found

    def loaded_ns(self, processes: Sequence[Process]) -> int | None:
        """The first mark of a run: it follows the loading of the model and the making of a context."""
        marks = _marks(processes[0]) if processes else []
        return marks[0].t_ns if marks else None

    def identity(self, log: str) -> dict[str, str]:
        """Accelerator, build and devices out of its last row; without a row nothing is known of them.

        A row does not say how many layers a model has: a number of layers that was set is told as ``CUDA ngl=12``.
        """
        rows = [row for line in log.splitlines() if (row := _row(line)) is not None]
        if not rows:
            return {"accelerator": "unknown"}
        row = rows[-1]
        said = {"accelerator": accelerator_of(row)}
        if isinstance(row.get("build_number"), int) and row["build_number"] > 0:
            said["version"] = f"{row['build_number']} ({_name(row.get('build_commit'))})"
        return said | {key: row[key][:200] for key in ("backends", "gpu_info") if isinstance(row.get(key), str)}


def _words(cell: Point, repeat: int) -> dict[str, str]:
    both = cell.prefill and cell.generate
    return {
        "n_prompt": "0" if both else str(cell.prefill),
        "n_gen": "0" if both else str(cell.generate),
        "n_prompt_gen": f"{cell.prefill},{cell.generate}" if both else "none",
        "n_depth": str(cell.depth) if cell.depth else "none",
        "repeat": str(repeat),
    }


def _row(line: str | bytes) -> dict[str, Any] | None:
    """A row of results; None for any other line."""
    if not line.strip().startswith("{" if isinstance(line, str) else b"{"):  # type: ignore[arg-type]
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("samples_ns"), list) else None


def _name(said: object) -> str:
    """A name that an engine gives, where it is one: it becomes part of a key and of every table."""
    return said if isinstance(said, str) and _NAME.fullmatch(said) else "unknown"


def marked(backends: str, mode: str) -> str:
    """``backends`` of a row that we write for a tool whose rows have no mode: by that column figures of another mode
    than llama-bench's are never joined with its own."""
    return backends if mode == "bench" else f"{backends} (meltbench, mode {mode})"


def unmarked(backends: str) -> tuple[str, str | None]:
    """Backends and mode of a row that ``marked`` wrote; None where it did not."""
    found = _MARKED.fullmatch(backends)
    return (backends, None) if found is None else (found[1], found[2])


def accelerator_of(row: Mapping[str, Any]) -> str:
    """What a row says that computed: CPU, CUDA ..., with the layers on it where they were set."""
    names = [name.strip() for name in str(row.get("backends") or "")[:200].split(",")]
    devices = [name for name in names if name not in _ACCELERATES_CPU]
    # A build may bring a backend whose device is not here: then no device has a name.
    if not names or not devices or not row.get("gpu_info"):
        return "CPU"
    layers = row.get("n_gpu_layers")
    name = llama_log.known_as(_name(devices[0]))
    some = isinstance(layers, int) and not isinstance(layers, bool) and 0 <= layers < 99
    return f"{name} ngl={layers}" if some else name


def _marks(process: Process) -> list[_Mark]:
    found = []
    for t_ns, raw in zip(process.err.t0_ns, process.err.raw, strict=True):
        if match := _MARK.fullmatch(raw):
            found.append(_Mark(int(t_ns), match["what"].decode(), bool(match["warm"]), bool(match["cached"])))
    return found


def _of_process(asks: Sequence[Ask], process: Process, asked: Mapping[str, Any], index: int) -> list[Request]:
    cell = point(asks[0].item)
    rows = [
        (int(t_ns), row)
        for t_ns, raw in zip(process.out.t0_ns, process.out.raw, strict=True)
        if (row := _row(raw)) is not None
    ]
    row_ns, row = rows[0] if rows else (process.t_exit_ns, None)
    wrong = "" if row is None else _disagrees(row, cell, asked)
    samples = row["samples_ns"] if row is not None else []
    out: list[Request] = []
    timed = 0
    for one in _repetitions(_marks(process), cell, row_ns):
        blank = _blank(one, cell, asks[0], index + len(out))
        if blank.role == "timed":
            sample = samples[timed] if timed < len(samples) else None
            out.append(
                _timed(blank, one, cell, sample, wrong if timed < len(asks) else "more runs than were asked for")
            )
            timed += 1
        else:
            out.append(blank)
    return out


def _repetitions(marks: Sequence[_Mark], cell: Point, end_ns: int | None) -> list[_Repetition]:
    """Marks to runs: the generation of a pp+tg repetition belongs to the prompt before it."""
    out: list[_Repetition] = []
    at = 0
    while at < len(marks):
        mark, after, split = marks[at], at + 1, None
        paired = mark.what == "prompt" and not mark.warm and cell.generate
        if paired and after < len(marks) and marks[after].what == "generation" and not marks[after].warm:
            split, after = marks[after].t_ns, after + 1
        out.append(_Repetition(mark, split, marks[after].t_ns if after < len(marks) else end_ns))
        at = after
    return out


def _blank(one: _Repetition, cell: Point, ask: Ask, index: int) -> Request:
    """A run with its place in time and what it is for; as ok as its end is known."""
    mark = one.first
    role: Literal["setup", "warmup", "timed"] = "warmup" if mark.warm else "setup" if mark.what == "depth" else "timed"
    prompt = {"prompt": cell.prefill, "depth": cell.depth}.get(mark.what, 0)
    made = 1 if mark.warm and mark.what == "generation" else 0
    end_ns = one.end_ns if one.end_ns is not None and one.end_ns >= mark.t_ns else None
    return Request(
        index=index,
        item=ask.item,
        role=role,
        status="ok" if end_ns is not None else "unfinished",
        t_send_ns=mark.t_ns,
        t_end_ns=mark.t_ns if end_ns is None else end_ns,
        n_in=prompt,
        n_cached=prompt if mark.cached else 0,
        n_out=made,
        detail="" if end_ns is not None else "nothing was printed after it began",
        point=ask.point,
    )


def _timed(blank: Request, one: _Repetition, cell: Point, sample: object, wrong: str) -> Request:
    """A repetition with its rates: the engine's own time, held against the marks around it."""
    request = replace(blank, n_in=cell.depth + cell.prefill, n_cached=cell.depth, n_out=cell.generate)
    if wrong:
        return replace(request, status="wrong_row", detail=wrong)
    if blank.status != "ok" or not isinstance(sample, int) or isinstance(sample, bool) or not 0 < sample < _MAX_NS:
        return replace(request, status="no_sample", detail="llama-bench printed no time for it")
    send_ns = request.t_send_ns
    apart_s = abs(request.t_end_ns - send_ns - sample) / 1e9
    prefill_ns = sample if not cell.generate else 0 if one.split_ns is None else one.split_ns - send_ns
    if apart_s > SLACK_S + SLACK_SHARE * sample / 1e9 or not 0 <= prefill_ns <= sample:
        said = (
            f"its sample of {sample / 1e9:.3g} s does not fit {(request.t_end_ns - send_ns) / 1e9:.3g} s between marks"
        )
        return replace(request, status="inconsistent", detail=said)
    if cell.prefill and cell.generate and not 0 < prefill_ns < sample:
        return replace(request, status="inconsistent", detail="no mark tells its generation from its prompt")
    # The next mark ends it where a late line of its own would let it reach into what follows.
    end_ns = min(send_ns + sample, request.t_end_ns)
    return replace(
        request,
        t_end_ns=end_ns,
        t_first_ns=min(send_ns + prefill_ns, end_ns),
        e2e_s=sample / 1e9,
        prefill_tps=cell.prefill / (prefill_ns / 1e9) if cell.prefill else None,
        prefill_source=None if not cell.prefill else "samples_ns" if not cell.generate else "progress marks",
        decode_tps=cell.generate / ((sample - prefill_ns) / 1e9) if cell.generate else None,
    )


def _disagrees(row: Mapping[str, Any], cell: Point, asked: Mapping[str, Any]) -> str:
    """What a row says that is not what was asked; empty where all agrees."""
    wanted = {"n_prompt": cell.prefill, "n_gen": cell.generate, "n_depth": cell.depth}
    wanted |= {field: asked[knob] for knob, field in _FIELDS.items() if isinstance(asked.get(knob), int)}
    for field, value in wanted.items():
        if row.get(field) != value and not (field == "n_depth" and field not in row and value == 0):
            return f"asked {field} = {value}, llama-bench says {str(row.get(field))[:40]}"
    file, model = PurePath(str(row.get("model_filename"))[:4096]).name, asked.get("model")
    if isinstance(model, str) and file != model:
        return f"asked for the model {model}, llama-bench says {file[:80]}"
    return ""
