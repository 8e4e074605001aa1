"""llama-perplexity: one process that scores choices, or a text, by itself, and prints what they come to so far.

From tools/perplexity/perplexity.cpp: with ``--multiple-choice`` a line a task, its number and the right ones so far in
percent, in the file's order where all of it is asked; with ``--ppl-output-type 1`` a line a chunk: place, perplexity,
negative log-likelihood by token so far (six decimals), standard error. What one task or chunk adds is the difference.
Its file of tasks is little-endian: their number, their places (which it does not use), then of each the question, the
answers with a label (1: right) each, and a second such list, which it reads and leaves.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from meltbench.engines import Command, llama_log
from meltbench.errors import UserError
from meltbench.records import Request, Score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.engines import Process
    from meltbench.engines.prompts import Ask

_TASKS, _TEXT, _LOGITS = "tasks.bin", "text.txt", "logits"
_MAX_ANSWERS = 100
_WINDOW = 2048  # tokens that a task may have with all of its answers
_LINE_BYTES = 96
_TASK = re.compile(rb"(\d{1,9})\t(\d{1,3}\.\d{1,12})\s*")
_CHUNK = re.compile(rb"\s*(\d{1,12})\s+(\d{1,12}\.\d{1,6})\s+(-?\d{1,6}\.\d{1,9})\s+\S{1,24}\s*")
# The +/- of a line of --kl-divergence; against itself a model's is no number.
_PM = rb" \xc2\xb1 +(?:\d{1,9}\.\d{1,9}|-?nan)"
_NUMBER = rb" +(-?\d{1,12}\.\d{1,9})" + _PM
_DIVERGENCE = re.compile(rb" *\d{1,9}" + 3 * _NUMBER + rb" .{0,80}\s*")
_BEGUN = (b"calculating perplexity over", b"calculating TruthfulQA score", b"computing over")


@dataclass(frozen=True)
class LlamaPerplexity:
    """All items in one process."""

    @property
    def words(self) -> tuple[str, ...]:
        """The model's path, what is to be done, the file of it, and how a text is cut."""
        return ("model", "flags", "tasks", "text", "window", "chunks", "output", "logits")

    def commands(self, asks: Sequence[Ask], folder: str) -> list[Command]:
        """One process; the tasks or the text go along as a file. How a text is cut, whoever asks says."""
        if _are_choices(asks):
            words = {"flags": "--multiple-choice", "tasks": f"{folder}/{_TASKS}", "text": "none", "output": "none"}
            words |= {"window": str(_WINDOW), "chunks": "none", "logits": "none"}
            return [Command(words, tuple(asks), {_TASKS: _packed(asks)}, len(asks) * _LINE_BYTES)]
        words = {"flags": "none", "tasks": "none", "text": f"{folder}/{_TEXT}", "output": "1", "logits": "none"}
        text = (asks[0].prompt or "").encode()
        return [Command(words, tuple(asks), {_TEXT: text}, len(text))]

    def against(self, command: Command, reference: str, folder: str) -> list[Command]:
        """The same text, first by the model at ``reference``, whose every probability it writes down, then by the one
        under test, which is held against them."""
        logits = {"logits": f"{folder}/{_LOGITS}"}
        first = replace(command, words=command.words | logits | {"model": reference}, asks=())
        return [first, replace(command, words=command.words | logits | {"flags": "--kl-divergence"}, files={})]

    def requests(self, asks: Sequence[Ask], processes: Sequence[Process], asked: Mapping[str, Any]) -> list[Request]:
        """The whole process as one request, from when it begins to its end: what each task took it does not say."""
        del asked
        if not processes:
            return []
        process = processes[-1]  # before it there may be that of a reference
        begun, end = self.loaded_ns(processes), process.t_exit_ns
        if begun is None:
            return []
        done = len(_tasks(process)) or len(_chunks(process)) or len(_divergences(process))
        wanted = len(asks) if _are_choices(asks) else 1
        whole = done >= wanted and end is not None
        last = end if end is not None else begun
        return [
            Request(
                index=0,
                item="all",
                role="timed",
                status="ok" if whole else "truncated",
                t_send_ns=begun,
                t_end_ns=max(last, begun),
                e2e_s=(last - begun) / 1e9 if whole else None,
                detail="" if whole else f"it told of {done} of {wanted}",
            )
        ]

    def scores(self, asks: Sequence[Ask], processes: Sequence[Process], asked: Mapping[str, Any]) -> list[Score]:
        """What each task or chunk came to. ``asked``: the settings of the run, of which the chunk's length is one."""
        if not processes:
            return []
        if _are_choices(asks):
            return _of_tasks(asks, processes[-1])
        chunk = int(asked.get("chunk") or 512)
        return _of_chunks(processes[-1], chunk) or _of_divergences(processes[-1], chunk)

    def loaded_ns(self, processes: Sequence[Process]) -> int | None:
        """When it said that it begins."""
        if not processes:
            return None
        pairs = zip(processes[-1].err.t1_ns, processes[-1].err.raw, strict=True)
        return next((int(t) for t, raw in pairs if any(mark in raw for mark in _BEGUN)), None)

    def identity(self, log: str) -> dict[str, str]:
        """The device named by llama.cpp's log."""
        return {"accelerator": llama_log.accelerator(log)}


def _are_choices(asks: Sequence[Ask]) -> bool:
    """A text has no right answer."""
    return any(ask.answer is not None for ask in asks)


def _packed(asks: Sequence[Ask]) -> bytes:
    """The file of tasks."""
    tasks = []
    for ask in asks:
        if ask.prompt is None or not all(one.startswith(" ") for one in ask.allowed):
            raise UserError(
                f"llama-perplexity scores answers after one question, {ask.item} has several", hint="--runner llamacpp"
            )
        if len(ask.allowed) > _MAX_ANSWERS:
            raise UserError(f"llama-perplexity takes {_MAX_ANSWERS} answers, {ask.item} has {len(ask.allowed)}")
        labels = [int(str(at) == ask.answer) for at in range(len(ask.allowed))]
        tasks.append(_string(ask.prompt) + _answers([one[1:] for one in ask.allowed], labels) + _answers([], []))
    places = b"".join(struct.pack("<I", 0) for _ in tasks)
    return struct.pack("<I", len(tasks)) + places + b"".join(tasks)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<I", len(raw)) + raw


def _answers(texts: Sequence[str], labels: Sequence[int]) -> bytes:
    return struct.pack("<I", len(texts)) + b"".join(map(_string, texts)) + struct.pack(f"<{len(labels)}i", *labels)


def _tasks(process: Process) -> list[float]:
    """Right ones so far, in percent, task by task; a line out of order ends it."""
    found: list[float] = []
    for raw in process.out.raw:
        line = _TASK.fullmatch(raw)
        if line is not None and int(line[1]) == len(found) + 1 and float(line[2]) <= 100.0:
            found.append(float(line[2]))
    return found


def _of_tasks(asks: Sequence[Ask], process: Process) -> list[Score]:
    percents, right = _tasks(process), 0
    out = []
    for number, ask in enumerate(asks, 1):
        score = Score(
            ask.item, "loglik/tokens", None, parsed=False, gold=ask.answer or "", group=ask.group, requests="0"
        )
        if number > len(percents):
            out.append(replace(score, detail="truncated"))
            continue
        now = round(percents[number - 1] * number / 100)
        out.append(replace(score, correct=float(min(max(now - right, 0), 1)), parsed=True))
        right = now
    return out


def _chunks(process: Process) -> list[float]:
    """Negative log-likelihood by token so far, chunk by chunk."""
    lines = (_CHUNK.fullmatch(raw) for raw in process.out.raw)
    return [float(line[3]) for line in lines if line is not None]


def _of_chunks(process: Process, chunk: int) -> list[Score]:
    n = chunk - chunk // 2 - 1
    out, before = [], 0.0
    for number, mean in enumerate(_chunks(process), 1):
        now = mean * n * number
        if math.isfinite(now):
            score = Score(f"chunk{number}", "nll", None, parsed=True, value=-(now - before), n=n, requests="0")
            out.append(score)
        before = now
    return out


def _divergences(process: Process) -> list[tuple[float, float]]:
    """Log-perplexity and KL divergence by token so far, chunk by chunk."""
    lines = (_DIVERGENCE.fullmatch(raw) for raw in process.out.raw)
    return [(math.log(float(line[1])), float(line[3])) for line in lines if line is not None and float(line[1]) > 0]


def _of_divergences(process: Process, chunk: int) -> list[Score]:
    """Each chunk's nats of divergence, and its log-likelihood."""
    n = chunk - chunk // 2 - 1
    out, before = [], (0.0, 0.0)
    for number, means in enumerate(_divergences(process), 1):
        now = (means[0] * n * number, means[1] * n * number)
        blank = Score(f"chunk{number}", "nll", None, parsed=True, n=n, requests="0")
        out.append(replace(blank, value=-(now[0] - before[0])))
        out.append(replace(blank, method="kld", value=now[1] - before[1]))
        before = now
    return out
