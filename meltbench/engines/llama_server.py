"""llama.cpp's own HTTP server, stock or embedded by xllamacpp.

Fields are those of llama.cpp's tools/server/README.md: ``timings`` holds cache_n, prompt_n, prompt_ms,
predicted_n and predicted_ms; with ``timings_per_token`` every streamed event has them, so a chunk that carries
several tokens is counted rightly.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from meltbench.engines import llama_log, llama_logprob
from meltbench.engines.checks import (
    MAX_ANSWER_CHARS,
    SPARE_TOKENS,
    begun,
    numbers,
    observed,
    refused,
    said,
    spoken,
    with_prefill,
)
from meltbench.engines.http import DONE, decode, event_object, post, server_sent_events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.engines.http import Answer
    from meltbench.engines.prompts import Ask, Sent
    from meltbench.records import Readings, Request


@dataclass(frozen=True)
class LlamaServer:
    """Requests to /completion (token ids, plain prompts) and /v1/chat/completions (messages), streamed."""

    @property
    def words(self) -> tuple[str, ...]:
        """The model's path, the port to listen on, the slots, and the context of all of them together."""
        return ("model", "port", "parallel", "ctx_all")

    @property
    def health_path(self) -> str:
        """Answers 503 while the model is being loaded, then 200."""
        return "/health"

    def request(self, ask: Ask) -> bytes:
        """One HTTP/1.1 request, seeded, greedy unless it says how to draw, on a connection of its own."""
        if ask.target is not None:
            return post("/completion", llama_logprob.body(ask))
        body: dict[str, Any] = {
            "stream": True,
            "temperature": 0,
            "seed": ask.seed,
            "ignore_eos": ask.ignore_eos,
            "cache_prompt": ask.keep_cache,
            "timings_per_token": True,
            **ask.sampling,
        }
        if ask.stop:
            body["stop"] = list(ask.stop)
        if ask.thinks is not None:
            body["chat_template_kwargs"] = {"enable_thinking": ask.thinks}
        if ask.allowed:
            body["grammar"] = _one_of(ask.allowed)
        if ask.messages is not None:
            path = "/v1/chat/completions"
            body |= {"messages": list(ask.messages), "max_tokens": ask.n_out, "stream_options": {"include_usage": True}}
        else:
            path = "/completion"
            prompt = list(ask.tokens) if ask.tokens is not None else ask.prompt
            body |= {"prompt": prompt, "n_predict": ask.n_out, "return_tokens": True}
        return post(path, body)

    def answer(self, ask: Ask, sent: Sent, chunks: Readings) -> Request:
        """Observed times from the chunks' arrival, the engine's own beside them."""
        blank, answer = begun(ask, sent), decode(chunks)
        if answer.status != 200:
            return refused(blank, sent, answer)
        if ask.target is not None:
            return llama_logprob.read(ask, blank, answer)
        stream = _Stream.read(answer, ask.n_out + SPARE_TOKENS)
        if stream.error or not stream.timings or sent.error or answer.problem:
            status = sent.error or ("engine_error" if stream.error else "truncated" if stream.tokens else "garbage")
            detail = stream.error or answer.problem or "the answer ended without the engine's timings"
            return replace(_observed(blank, stream), status=status, detail=detail)
        return _observed(_reported(blank, ask, stream.timings), stream)

    def identity(self, log: str) -> dict[str, str]:
        """The device named by llama.cpp's log."""
        return {"accelerator": llama_log.accelerator(log)}


def _one_of(texts: Sequence[str]) -> str:
    """A grammar of llama.cpp (GBNF) for one of these texts: its strings are written as JSON's are."""
    return "root ::= " + " | ".join(json.dumps(text) for text in texts)


@dataclass
class _Stream:
    """The events of one streamed answer. A count of tokens above ``limit`` is an error of the engine."""

    limit: int
    tokens: list[tuple[int, int]]
    text: str
    timings: dict[str, float]
    stop: str
    error: str
    thinks: bool = False

    @classmethod
    def read(cls, answer: Answer, limit: int) -> _Stream:
        stream, seen = cls(limit, [], "", {}, "", ""), 0
        for offset, data in server_sent_events(answer.body):
            if data == DONE:
                continue
            event = event_object(data)
            if isinstance(event, str):
                stream.error = event
                break
            seen = stream._take(event, answer.arrival_ns(offset), seen)
        return stream

    def _take(self, event: dict[str, Any], t_ns: int, seen: int) -> int:
        if "error" in event:
            self.error = said(event["error"])
        text, ids, stop = self._piece(event)
        timings = numbers(event.get("timings"))
        counted = int(timings.get("predicted_n", 0))
        if counted > self.limit:
            self.error = f"the engine counts {counted} tokens, {self.limit - SPARE_TOKENS} were asked for"
            return seen
        self.timings = timings or self.timings
        self.stop = stop or self.stop
        if len(self.text) < MAX_ANSWER_CHARS:
            self.text += text[:MAX_ANSWER_CHARS]
        # After the first text a token may bring none: the end-of-text token is only counted, in the closing event.
        if not (text or ids or self.tokens):
            return seen
        now = counted if timings else seen + max(ids, 1) if text or ids else seen
        if now > seen:
            self.tokens.append((t_ns, now - seen))
        return max(now, seen)

    def _piece(self, event: dict[str, Any]) -> tuple[str, int, str]:
        """Text, number of token ids and stop reason of one event, of either route."""
        choices = event.get("choices")
        if isinstance(choices, list):
            choice = choices[0] if choices and isinstance(choices[0], dict) else {}
            delta = choice.get("delta")
            text, self.thinks = spoken(delta if isinstance(delta, dict) else {}, self.thinks)
            return text, 0, str(choice.get("finish_reason") or "")
        ids, text = event.get("tokens"), str(event.get("content") or "")
        return text, len(ids) if isinstance(ids, list) else 0, str(event.get("stop_type") or "")


def _reported(request: Request, ask: Ask, timings: dict[str, float]) -> Request:
    """Add what the engine says of itself."""
    n_prompt, n_cached = timings.get("prompt_n"), timings.get("cache_n")
    if n_cached is None and not ask.keep_cache:
        n_cached = 0.0  # told not to look into its cache, an engine that says nothing of it did not
    n_out = timings.get("predicted_n")
    if ask.n_out == 0:  # the server samples one token to end a prefill, and counts it
        n_out = 0.0
    prompt_s, predicted_s = timings.get("prompt_ms"), timings.get("predicted_ms")
    return replace(
        request,
        n_in=None if n_prompt is None or n_cached is None else int(n_prompt + n_cached),
        n_cached=None if n_cached is None else int(n_cached),
        n_out=None if n_out is None else int(n_out),
        count_source="server" if n_out is not None else None,
        engine_prefill_s=None if prompt_s is None else prompt_s / 1e3,
        engine_prefill_tps=timings.get("prompt_per_second") or None,
        engine_decode_s=predicted_s / 1e3 if predicted_s is not None and n_out and n_out >= 2 else None,
        engine_decode_tps=(timings.get("predicted_per_second") or None) if n_out and n_out >= 2 else None,
    )


def _observed(request: Request, stream: _Stream) -> Request:
    """Add what was seen on the wire."""
    request = replace(request, answer=stream.text, stop_reason=stream.stop or None)
    if not stream.tokens:
        return request
    return with_prefill(observed(request, stream.tokens))
