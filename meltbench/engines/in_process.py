"""An engine inside a Python process: a script of ours loads it, asks it, and prints a line an event.

Lines on stdout are JSON. An object is an event: ``{"event": "loaded"}``, ``{"event": "start", "file": F}`` and
``{"event": "end", "file": F, "n_in", "n_cached", "n_out", "prefill_ns", "decode_ns", "stop"}``; a list ``["text"]`` is
one token of the request under way. The probe stamps each line, so tokens are observed as those of a server are. What
the asks are, the script reads from a file beside the job.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from meltbench.engines import Command, llama_log, script
from meltbench.engines.checks import MAX_ANSWER_CHARS, SPARE_TOKENS, checked, observed
from meltbench.errors import UserError
from meltbench.records import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.engines import Process
    from meltbench.engines.prompts import Ask

_MAX_COUNT = 10**9
# Of a line of one token: its text, quotes and brackets; a token of more than this is rare, and few are.
_TOKEN_BYTES, _REQUEST_BYTES = 40, 1024


@dataclass(frozen=True)
class InProcess:
    """All requests in one process, one after the other."""

    @property
    def words(self) -> tuple[str, ...]:
        """The model's path and the file of the asks."""
        return ("model", "asks")

    def commands(self, asks: Sequence[Ask], folder: str) -> list[Command]:
        """One process; the asks go along as a file."""
        described = [
            {
                "file": ask.file,
                "n_out": ask.n_out,
                "ignore_eos": ask.ignore_eos,
                "keep_cache": ask.keep_cache,
                "messages": None if ask.messages is None else list(ask.messages),
                "prompt": ask.prompt,
                "tokens": None if ask.tokens is None else list(ask.tokens),
            }
            for ask in asks
        ]
        if not described:
            raise UserError("an engine in a process needs something to be asked", hint="use another workload")
        tokens = sum(ask.n_out + SPARE_TOKENS for ask in asks)
        return [
            Command(
                {"asks": f"{folder}/{script.ASKS_FILE}"},
                tuple(asks),
                {script.ASKS_FILE: json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()},
                tokens * _TOKEN_BYTES + len(asks) * _REQUEST_BYTES,
            )
        ]

    def requests(self, asks: Sequence[Ask], processes: Sequence[Process], asked: Mapping[str, Any]) -> list[Request]:
        """Requests as they were observed; one without its end is kept, and is not ok."""
        del asked  # the script takes its settings or ends with an error
        if not processes:
            return []
        by_file = {ask.file: ask for ask in asks}
        found: list[Request] = []
        seen: _Seen | None = None
        last_ns = processes[0].t_exit_ns
        for t_ns, line in script.printed(processes):
            if isinstance(line, list):
                if seen is not None:
                    seen.take(t_ns, line)
                continue
            kind, ask = line.get("event"), by_file.get(str(line.get("file")))
            if kind == "start" and ask is not None:
                found += [] if seen is None else [seen.request(len(found), None, t_ns)]
                seen = _Seen(ask, t_ns)
            elif kind == "end" and seen is not None and ask is seen.ask:
                found.append(seen.request(len(found), line, t_ns))
                seen = None
        if seen is not None:
            found.append(seen.request(len(found), None, last_ns if last_ns is not None else seen.t_send_ns))
        return found

    def loaded_ns(self, processes: Sequence[Process]) -> int | None:
        """When the script said that the model was loaded."""
        return script.loaded_ns(processes)

    def identity(self, log: str) -> dict[str, str]:
        """The device named by llama.cpp's log, which the binding passes on."""
        return {"accelerator": llama_log.accelerator(log)}


@dataclass
class _Seen:
    """A request under way: the tokens that arrived so far, one a line."""

    ask: Ask
    t_send_ns: int
    times: list[int] = field(default_factory=list)
    text: str = ""

    def take(self, t_ns: int, line: list[Any]) -> None:
        if len(self.times) >= self.ask.n_out + SPARE_TOKENS:  # of a prompt alone one token is made, and not counted
            return
        self.times.append(t_ns)
        if line and isinstance(line[0], str) and len(self.text) < MAX_ANSWER_CHARS:
            self.text += line[0]

    def request(self, index: int, end: Mapping[str, Any] | None, t_end_ns: int) -> Request:
        """What was seen and, where it ended, what the script says of it."""
        ask = self.ask
        request = Request(
            index=index,
            item=ask.item,
            role=ask.role,
            status="ok",
            t_send_ns=self.t_send_ns,
            t_end_ns=max(t_end_ns, self.t_send_ns),
            answer=self.text,
            point=ask.point,
        )
        if end is None:
            return replace(self._observed(request), status="truncated", detail="the process did not tell of its end")
        counts = {key: _count(end.get(key)) for key in ("n_in", "n_cached", "n_out", "prefill_ns", "decode_ns")}
        n_out, made = counts["n_out"], len(self.times)
        if None in counts.values() or n_out != (0 if ask.n_out == 0 else made):
            said = f"it tells of {str(end.get('n_out'))[:20]} tokens, {made} lines of tokens came"
            return replace(self._observed(request), status="garbage", detail=said)
        return checked(ask, self._observed(_reported(request, counts, str(end.get("stop") or "")[:40])))

    def _observed(self, request: Request) -> Request:
        """Add what the probe's stamps say; the arrival of the first token is the end of the prompt."""
        return observed(request, [(t, 1) for t in self.times]) if self.times else request


def _reported(request: Request, counts: Mapping[str, int | None], stop: str) -> Request:
    """Add what the script measured with the clock of its own process."""
    n_in, n_cached, n_out = counts["n_in"] or 0, counts["n_cached"] or 0, counts["n_out"] or 0
    prefill_s, decode_s = (counts["prefill_ns"] or 0) / 1e9, (counts["decode_ns"] or 0) / 1e9
    fresh = n_in - n_cached
    rate = fresh / prefill_s if fresh > 0 and prefill_s > 0 else None
    decoded = n_out >= 2 and decode_s > 0
    return replace(
        request,
        n_in=n_in,
        n_cached=n_cached,
        n_out=n_out,
        prefill_tps=rate,
        prefill_source="engine" if rate else None,
        engine_prefill_s=prefill_s or None,
        engine_prefill_tps=rate,
        engine_decode_s=decode_s if decoded else None,
        engine_decode_tps=(n_out - 1) / decode_s if decoded else None,
        stop_reason=stop or None,
    )


def _count(value: object) -> int | None:
    """A whole number of tokens or nanoseconds that can be one."""
    limit = _MAX_COUNT * 10**6
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit else None
