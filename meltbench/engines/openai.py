"""Any server that speaks OpenAI's API: MLC, vLLM, Ollama, LM Studio, a cloud, and the servers of our own recipes.

Fields are those of OpenAI's API reference (POST /v1/chat/completions and /v1/completions with ``stream`` and
``stream_options``). Beside them is read: ``usage.extra`` as MLC has it (``prefill_tokens``, ``prefill_tokens_per_s``,
``decode_tokens_per_s``, ``ttft_s``), a ``usage`` in every event as vLLM has it with ``continuous_usage_stats``, and
``{"meltbench": {"completion_tokens": N}}``, the event that our relay appends where a tokenizer counts.

A server of ours sends one event a token, also where a token has no text yet (``"content": ""``), so that each token's
arrival is known; it writes ``meltbench: accelerator NAME`` on stderr.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from meltbench.engines import llama_log
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
from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection

    from meltbench.engines import Dialect
    from meltbench.engines.http import Answer
    from meltbench.engines.prompts import Ask, Sent
    from meltbench.records import Readings, Request

_MAX_COUNT = 10**9
_STANDARD = ("temperature", "top_p")  # ways to draw a token that every server knows
_PENALTIES = ("repeat_penalty", "repetition_penalty")  # two names of one thing: llama.cpp's, and most others'
# What else a server may have to know; the last two are fields of the same name, as vLLM has them.
TOKEN_IDS, LOGPROB, ALLOWED, THINKS = "token_ids", "logprob", "structured_outputs", "chat_template_kwargs"
_WORDS = {
    TOKEN_IDS: "token ids, which a grid is made of",
    LOGPROB: "a question about a token's log-probability",
    ALLOWED: "the only answers that it may give",
    THINKS: "whether a model is to think",
}
_ACCELERATOR = re.compile(r"^meltbench: accelerator (\S{1,40})", re.MULTILINE)


@dataclass(frozen=True)
class OpenAI:
    """Requests to /chat/completions (messages) and /completions (words, token ids), streamed."""

    dialect: Dialect
    model: str

    @property
    def words(self) -> tuple[str, ...]:
        """The model's path or served name, the port to listen on, the slots, and the context of them together; the
        server behind a relay."""
        return ("model", "port", "parallel", "ctx_all", "upstream")

    @property
    def health_path(self) -> str:
        """What answers 200 once the model is loaded."""
        return self.dialect.health or f"{self.dialect.path}/models"

    def check(self, wanted: Collection[str]) -> None:
        """Raise UserError where a workload wants what the server does not know: ways to draw tokens by their names,
        and the others by those of TOKEN_IDS, LOGPROB, ALLOWED and THINKS."""
        known = {*_STANDARD, *self.dialect.fields, *([TOKEN_IDS] if self.dialect.token_ids else [])}
        if known.intersection(_PENALTIES):
            known.update(_PENALTIES)
        if unknown := sorted(set(wanted) - known):
            what = _WORDS.get(unknown[0], unknown[0])
            hint = "--runner llamacpp" if unknown[0] in (TOKEN_IDS, LOGPROB, ALLOWED) else "leave it out"
            raise UserError(f"this server is not known to take {what}", hint=f"{hint}, or say so in its recipe")

    def request(self, ask: Ask) -> bytes:
        """One HTTP/1.1 request, seeded, greedy unless it says how to draw, on a connection of its own."""
        self.check(_wanted(ask))
        extensions = self.dialect.fields
        options = {"include_usage": True}
        if "continuous_usage_stats" in extensions:
            options["continuous_usage_stats"] = True
        body: dict[str, Any] = {
            "model": self.model,
            "stream": True,
            "stream_options": options,
            "max_tokens": max(ask.n_out, 1),  # a prefill ends with a token, and no server makes less
            "temperature": 0,
            "seed": ask.seed,
        }
        body |= {_name(key, extensions): value for key, value in ask.sampling.items()}
        if ask.ignore_eos:
            whole = {"ignore_eos": True, "min_tokens": max(ask.n_out, 1), "debug_config": {"ignore_eos": True}}
            body |= {key: value for key, value in whole.items() if key in extensions}
        if ask.stop:
            body["stop"] = list(ask.stop)
        if ask.allowed:
            body[ALLOWED] = {"choice": list(ask.allowed)}
        if ask.thinks is not None:
            body[THINKS] = {"enable_thinking": ask.thinks}
        if "cache_prompt" in extensions:
            body["cache_prompt"] = ask.keep_cache
        if ask.messages is not None:
            path = f"{self.dialect.path}/chat/completions"
            body["messages"] = list(ask.messages)
        else:
            path = f"{self.dialect.path}/completions"
            body["prompt"] = list(ask.tokens) if ask.tokens is not None else ask.prompt
            if "return_token_ids" in extensions:  # so a token without text is seen arriving, as llama.cpp's are
                body["return_token_ids"] = True
        return post(path, body)

    def answer(self, ask: Ask, sent: Sent, chunks: Readings) -> Request:
        """Observed times from the chunks' arrival, the server's own beside them, and who counted the tokens."""
        blank, answer = begun(ask, sent), decode(chunks)
        if answer.status != 200:
            return refused(blank, sent, answer)
        stream = _Stream.read(answer, max(ask.n_out, 1) + SPARE_TOKENS)
        status, detail = _judged(ask, sent, answer, stream)
        counted = stream.counted if status == "ok" else None
        request = replace(blank, status=status, detail=detail, answer=stream.text, stop_reason=stream.stop or None)
        if status == "ok":
            request = _reported(request, ask, stream)
            if request.n_cached is None and not ask.keep_cache and "cache_prompt" in self.dialect.fields:
                request = replace(request, n_cached=0)  # told not to look into its cache, it did not
        tokens = stream.arrivals(counted)
        if tokens:
            n_out = request.n_out
            request = observed(request, tokens)
            # Chunks whose tokens nobody counted are no count.
            request = request if n_out is not None else replace(request, n_out=None)
        return with_prefill(request)

    def identity(self, log: str) -> dict[str, str]:
        """What a server of ours, or llama.cpp inside another, writes of its device; unknown of most."""
        own = _ACCELERATOR.search(log)
        return {"accelerator": own[1] if own else llama_log.accelerator(log)}


def _wanted(ask: Ask) -> set[str]:
    """What a request needs beside OpenAI's own fields."""
    more = {TOKEN_IDS: ask.tokens is not None, LOGPROB: ask.target is not None}
    more |= {ALLOWED: bool(ask.allowed), THINKS: ask.thinks is not None}
    return {*ask.sampling, *(name for name, wanted in more.items() if wanted)}


def _name(key: str, extensions: Collection[str]) -> str:
    """A way to draw tokens by the name that the server has for it."""
    return next((name for name in _PENALTIES if name in extensions), key) if key in _PENALTIES else key


@dataclass(frozen=True)
class _Piece:
    """One event of a choice. ``has_text``: or an id; ``opening``: the first, which only says whose turn it is;
    ``closing``: why it ends.

    ``counted``: how many tokens the server had counted by then.
    """

    t_ns: int
    has_text: bool
    opening: bool
    closing: bool
    counted: int | None


@dataclass
class _Stream:
    """The events of one streamed answer; more chunks of text than ``limit`` are an error."""

    limit: int
    pieces: list[_Piece] = field(default_factory=list)
    n_text: int = 0
    text: str = ""
    thinks: bool = False
    stop: str = ""
    done: bool = False
    error: str = ""
    events: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    by_tokenizer: int | None = None

    @classmethod
    def read(cls, answer: Answer, limit: int) -> _Stream:
        stream = cls(limit)
        for offset, data in server_sent_events(answer.body):
            stream.events += 1
            if data == DONE:
                stream.done = True
                continue
            event = event_object(data)
            if isinstance(event, str):
                stream.error = event
                break
            stream._take(event, answer.arrival_ns(offset))
            if stream.error:
                break
        return stream

    def _take(self, event: dict[str, Any], t_ns: int) -> None:
        if event.get("error") is not None or event.get("object") == "error":
            self.error = said(event.get("error") or event) or "an error without words"
            return
        own = event.get("meltbench")
        if isinstance(own, dict):
            self.by_tokenizer = _count(own.get("completion_tokens"))
        usage = event.get("usage")
        if isinstance(usage, dict):
            self.usage = usage
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        delta = choice.get("delta")
        if isinstance(delta, dict):
            text, self.thinks = spoken(delta, self.thinks)
        else:
            text = str(choice.get("text") or "")
        stop = choice.get("finish_reason")
        self.stop = str(stop)[:40] if stop else self.stop
        counted = _count(usage.get("completion_tokens")) if isinstance(usage, dict) else None
        opening = isinstance(delta, dict) and "role" in delta and not text and not self.pieces
        ids = choice.get("token_ids")
        has_token = bool(text) or (isinstance(ids, list) and bool(ids))
        self.pieces.append(_Piece(t_ns, has_token, opening, bool(stop), counted))
        self.n_text += has_token
        if self.n_text > self.limit:
            self.error = (
                f"more than {self.limit} chunks of text came, {self.limit - SPARE_TOKENS} tokens were asked for"
            )
        if len(self.text) < MAX_ANSWER_CHARS:
            self.text += text[:MAX_ANSWER_CHARS]

    @property
    def counted(self) -> tuple[int, str] | None:
        """The tokens of the answer and who counted them: a tokenizer that was given, else the server; None: nobody."""
        if self.by_tokenizer is not None:
            return self.by_tokenizer, "tokenizer"
        by_server = _count(self.usage.get("completion_tokens"))
        return None if by_server is None else (by_server, "server")

    @property
    def prompt(self) -> tuple[int | None, int | None]:
        """Tokens of the prompt, and how many of them were cached: by the server's word, or by how many it evaluated."""
        n_in, details = _count(self.usage.get("prompt_tokens")), self.usage.get("prompt_tokens_details")
        n_cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
        evaluated = numbers(self.usage.get("extra")).get("prefill_tokens")
        if n_cached is None and n_in is not None and evaluated is not None:
            n_cached = max(n_in - int(evaluated), 0)
        return n_in, n_cached

    def arrivals(self, counted: tuple[int, str] | None) -> list[tuple[int, int]]:
        """When tokens arrived and how many: 0 where nobody knows. Those before the first text arrive with it."""
        shares = self._shares(counted)
        out: list[tuple[int, int]] = []
        waiting = 0
        for piece, share in zip(self.pieces, shares, strict=True):
            if piece.has_text:
                out.append((piece.t_ns, share + waiting))
                waiting = 0
            elif share and out:
                out.append((piece.t_ns, share))
            else:
                waiting += share
        return out

    def _shares(self, counted: tuple[int, str] | None) -> list[int]:
        """How many tokens each piece brought. Where pieces carry no count this is known only if there are as many of
        them as tokens: those with text, with those without, or with the last one, which stands for the token that ends
        the text."""
        nothing = [0] * len(self.pieces)
        if counted is None:
            return nothing
        total, source = counted
        running = [piece.counted for piece in self.pieces]
        if source == "server" and running and all(count is not None for count in running):
            steps = [(now or 0) - (before or 0) for before, now in pairwise([0, *running])]
            return steps if min(steps) >= 0 and sum(steps) == total else nothing
        for empty, last in ((False, False), (True, False), (False, True), (True, True)):
            marks = [
                piece.has_text or (last if piece.closing else empty and not piece.opening) for piece in self.pieces
            ]
            if sum(marks) == total:
                return [int(mark) for mark in marks]
        return nothing


def _judged(ask: Ask, sent: Sent, answer: Answer, stream: _Stream) -> tuple[str, str]:
    """Status and detail of an answer that began well."""
    ended = stream.done or bool(stream.stop)
    asked = max(ask.n_out, 1)
    if stream.error:
        return sent.error or "engine_error", stream.error
    if not stream.events:
        return sent.error or ("not_streamed" if _is_whole(answer) else "garbage"), (
            "one answer came in place of a stream, so no token was seen arriving"
            if _is_whole(answer)
            else answer.problem or "the answer holds no event"
        )
    if sent.error or answer.problem or not ended:
        status = sent.error or ("truncated" if stream.pieces else "garbage")
        return status, answer.problem or "the answer ended without saying why"
    if stream.counted is None:
        return "ok", f"nobody counted its tokens: at least {stream.n_text}, one a chunk of text"
    total, who = stream.counted
    if who == "server" and total < stream.n_text:
        return "miscounted", f"the server counts {total} tokens, {stream.n_text} chunks of text came"
    n_in, n_cached = stream.prompt
    if n_in is not None and n_cached is not None and n_cached > n_in:
        return "miscounted", f"the server counts {n_in} tokens of the prompt, {n_cached} of them cached"
    if who == "server" and total > asked + SPARE_TOKENS:
        return "miscounted", f"the server counts {total} tokens, {asked} were asked for"
    return "ok", ""


def _is_whole(answer: Answer) -> bool:
    """Whether it is an answer as a server gives that was not asked to stream."""
    told = event_object(answer.body)
    return isinstance(told, dict) and isinstance(told.get("choices"), list)


def _reported(request: Request, ask: Ask, stream: _Stream) -> Request:
    """Add what the server says of itself."""
    extra = numbers(stream.usage.get("extra"))
    n_in, n_cached = stream.prompt
    total, who = stream.counted or (None, None)
    n_out = 0 if ask.n_out == 0 and total is not None else total
    decoded = n_out is not None and n_out >= 2
    return replace(
        request,
        n_in=n_in,
        n_cached=n_cached,
        n_out=n_out,
        count_source=who or "chunks",
        engine_ttft_s=extra.get("ttft_s") or None,
        engine_prefill_tps=extra.get("prefill_tokens_per_s") or None,
        engine_decode_tps=(extra.get("decode_tokens_per_s") or None) if decoded else None,
    )


def _count(value: object) -> int | None:
    """A number of tokens that can be one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_COUNT else None
