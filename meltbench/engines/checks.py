"""What is alike of every answer, whatever engine gave it: its bounds, its observed times, its marks of thinking, and
whether it is what was asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from meltbench.records import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.engines.http import Answer
    from meltbench.engines.prompts import Ask, Sent

MAX_ANSWER_CHARS = 65536
THINK, THOUGHT = "<think>", "</think>"  # what a model that reasons writes around it, before its answer
# More than an engine can say by mistake of one token; a count beyond it would fill the memory of whoever believes it.
SPARE_TOKENS = 16


def begun(ask: Ask, sent: Sent) -> Request:
    """A request as it was sent, before anything of its answer is known."""
    return Request(
        index=sent.index,
        item=ask.item,
        role=ask.role,
        status="ok",
        t_send_ns=sent.t_send_ns,
        t_end_ns=sent.t_end_ns,
        point=ask.point,
    )


def refused(request: Request, sent: Sent, answer: Answer) -> Request:
    """A request that a server did not answer with 200. What it said comes before how the connection ended: it may
    refuse early and hang up."""
    status = f"http_{answer.status}" if answer.status else sent.error or "http_garbage"
    return replace(request, status=status, detail=complaint(answer))


def spoken(delta: Mapping[str, Any], thinking: bool) -> tuple[str, bool]:
    """The text of a delta of a chat, with the marks that a server takes out around what a model thinks, and whether it
    still thinks; ``thinking``: whether it did before."""
    thought = "".join(str(delta.get(key) or "") for key in ("reasoning_content", "reasoning"))
    text = str(delta.get("content") or "")
    if thought and not thinking:
        thought = THINK + thought
    thinking = bool(thought or thinking)
    if text and thinking:
        text = THOUGHT + text
    return thought + text, thinking and not text


def observed(request: Request, tokens: Sequence[tuple[int, int]]) -> Request:
    """Add what the arrival of its tokens says: (ns, how many came then), one or more; a count that the engine told
    stays."""
    first, last = tokens[0][0], tokens[-1][0]
    n_out = request.n_out if request.n_out is not None else sum(n for _, n in tokens)
    span_s = (last - first) / 1e9
    timed = n_out >= 2 and span_s > 0
    return replace(
        request,
        n_out=n_out,
        t_first_ns=first,
        ttft_s=(first - request.t_send_ns) / 1e9,
        e2e_s=(last - request.t_send_ns) / 1e9,
        tpot_s=span_s / (n_out - 1) if timed else None,
        decode_tps=(n_out - 1) / span_s if timed else None,
        token_t_ns=tuple(t for t, _ in tokens),
        token_n=tuple(n for _, n in tokens),
    )


def with_prefill(request: Request) -> Request:
    """Add the prefill rate: the engine's own where it says one, else that of the tokens that were not cached to the
    first that came."""
    engine, ttft_s = request.engine_prefill_tps, request.ttft_s
    fresh = None if request.n_in is None else request.n_in - (request.n_cached or 0)
    rate = fresh / ttft_s if fresh and ttft_s and ttft_s > 0 else None
    return replace(
        request,
        prefill_tps=engine or rate,
        prefill_source="engine" if engine else "client_side" if rate is not None else None,
    )


def checked(ask: Ask, request: Request) -> Request:
    """The request, or its failure where a grid's prompt or context depth is not the one that was asked for."""
    if request.status != "ok" or ask.n_in is None or ask.target is not None:  # of which the answer tells by itself
        return request
    if request.n_in != ask.n_in:
        return replace(
            request, status="wrong_n_in", detail=f"asked {ask.n_in} prompt tokens, the engine saw {request.n_in}"
        )
    if request.n_cached != ask.n_cached:  # also when the engine does not say
        return replace(
            request,
            status="wrong_depth",
            detail=f"asked a depth of {ask.n_cached}, the engine had {request.n_cached} cached",
        )
    return request


def numbers(told: object) -> dict[str, float]:
    """Of an object the members that are finite numbers from 0 on; anything else is as if it were not said."""
    if not isinstance(told, dict):
        return {}
    return {
        str(key): float(value)
        for key, value in told.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15
    }


def complaint(answer: Answer) -> str:
    """What a server says of itself in an answer that is an error."""
    try:
        told = json.loads(answer.body)
        return said(told.get("error", told) if isinstance(told, dict) else told)
    except (ValueError, RecursionError):
        return answer.problem or answer.body[:200].decode("utf-8", "replace")


def said(error: object) -> str:
    """An error's message, bounded."""
    if isinstance(error, dict) and "message" in error:
        error = error["message"]
    return str(error)[:500]
