"""A plain model inside a Python process: tensors in, tensors out, a line of JSON an inference.

Lines on stdout are JSON objects: ``{"event": "loaded"}``, and ``{"event": "inference", "file": F, "t0", "t1"}`` with
the script's own stamps before and after, for a pipe delays a line by more than a small model takes. They are of the
clock that the probe stamps with (CLOCK_BOOTTIME of one machine), so each has to lie between the end of the one before
and the probe's stamp of its line. The first line of an item also tells what went ``in`` and came ``out``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meltbench.engines import Command, script
from meltbench.errors import UserError
from meltbench.records import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.engines import Process
    from meltbench.engines.prompts import Ask

_LINE_BYTES, _ITEM_BYTES = 160, 4096
_MAX_TEXT = 2000
_PROVIDER = re.compile(r"^onnxruntime \S{1,40}: provider ([A-Za-z]{1,40}?)(?:ExecutionProvider)?$", re.MULTILINE)


@dataclass(frozen=True)
class Inference:
    """All inferences in one process, one after the other."""

    @property
    def words(self) -> tuple[str, ...]:
        """The model's path and the file of what it is given."""
        return ("model", "asks")

    def commands(self, asks: Sequence[Ask], folder: str) -> list[Command]:
        """One process; what it is given goes along as a file."""
        if not asks or any(ask.prompt is None for ask in asks):
            raise UserError("a plain model is given tensors, no texts", hint="--workload infer")
        given = {ask.item: json.loads(ask.prompt or "") for ask in asks}
        told = {
            "seed": asks[0].seed,
            "items": given,
            "order": [[ask.file, ask.item] for ask in asks],
        }
        body = json.dumps(told, separators=(",", ":")).encode()
        size = len(asks) * _LINE_BYTES + len(given) * _ITEM_BYTES
        return [Command({"asks": f"{folder}/{script.ASKS_FILE}"}, tuple(asks), {script.ASKS_FILE: body}, size)]

    def requests(self, asks: Sequence[Ask], processes: Sequence[Process], asked: Mapping[str, Any]) -> list[Request]:
        """The inferences whose line came; one whose times cannot be is not ok."""
        del asked  # the script takes its settings or ends with an error
        by_file = {ask.file: ask for ask in asks}
        found: list[Request] = []
        earliest = 0
        for t_ns, line in script.events(processes):
            ask = by_file.pop(str(line.get("file")), None)
            if line.get("event") != "inference" or ask is None:
                continue
            found.append(_request(len(found), ask, line, earliest, t_ns))
            earliest = found[-1].t_end_ns
        return found

    def loaded_ns(self, processes: Sequence[Process]) -> int | None:
        """When the script said that the model was loaded."""
        return script.loaded_ns(processes)

    def identity(self, log: str) -> dict[str, str]:
        """The execution provider that the script named."""
        match = _PROVIDER.search(log)
        return {"accelerator": match[1] if match else "unknown"}


def _request(index: int, ask: Ask, line: Mapping[str, Any], earliest: int, t_ns: int) -> Request:
    """One inference of which a line came at ``t_ns``; none began before ``earliest``."""
    t0, t1 = line.get("t0"), line.get("t1")
    if not (isinstance(t0, int) and isinstance(t1, int) and earliest <= t0 < t1 <= t_ns):
        said = f"it tells of {str(t0)[:24]} to {str(t1)[:24]} ns"
        return Request(index, ask.item, ask.role, "garbage", max(earliest, t_ns), max(earliest, t_ns), detail=said)
    lasted_s, out, given = (t1 - t0) / 1e9, _text(line, "out"), _text(line, "in")
    return Request(index, ask.item, ask.role, "ok", t0, t1, e2e_s=lasted_s, answer=out, detail=given)


def _text(line: Mapping[str, Any], key: str) -> str:
    value = line.get(key)
    return value[:_MAX_TEXT] if isinstance(value, str) else ""
