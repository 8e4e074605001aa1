"""Prompts that begin as earlier ones, and servers that may have kept what these came to and do not say so.

The time to the first token of such a prompt is that of what was not in the cache, so that n_in / ttft is no rate of a
prefill: of the same prompt twice it comes out many times too high. What a chat's template puts before the messages is
not seen here; it counts for nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from meltbench.records import CACHE_UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.engines.prompts import Ask
    from meltbench.records import Request


P = TypeVar("P", str, tuple[int, ...])  # a prompt in words, or in token ids

MOST_REPEATED = 0.05  # what a rate may be off by: a share x from the cache makes it 1 / (1 - x) times as high


def with_repeats(asks: Sequence[Ask]) -> list[Ask]:
    """The requests in the order of their sending, each with the share of its prompt that an earlier one begins with.

    Those about a token's log-probability are left as they are: nobody makes a rate of their prefill.
    """
    texts: list[str] = []  # sorted, as is the other: of all that came before, a neighbour has the most in common
    ids: list[tuple[int, ...]] = []
    out = []
    for ask in asks:
        if ask.target is not None:
            out.append(ask)
        elif ask.tokens is not None:
            out.append(replace(ask, repeats=_begun(ids, ask.tokens)))
        else:
            words = ask.prompt if ask.messages is None else "\0".join(str(one["content"]) for one in ask.messages)
            out.append(replace(ask, repeats=_begun(texts, words or "")))
    return out


def _begun(earlier: list[P], prompt: P) -> float:
    """The largest share of this prompt that one of the earlier begins with; it is put among them."""
    at = bisect_left(earlier, prompt)
    common = max((_common(prompt, one) for one in earlier[max(at - 1, 0) : at + 1]), default=0)
    earlier.insert(at, prompt)
    return common / len(prompt) if prompt else 0.0


def _common(one: P, other: P) -> int:
    """How many characters, or tokens, two prompts begin with together; by halves, for prompts are long and many."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def without_reused(ask: Ask, request: Request, *, again: bool) -> Request:
    """The request without a prefill rate that may be one of the cache. ``again``: the server may have been asked the
    very same before, in this run or in another."""
    if request.prefill_source != "client_side" or request.n_cached is not None:
        return request
    if not again and ask.repeats <= MOST_REPEATED:
        return request
    return replace(request, prefill_tps=None, prefill_source=CACHE_UNKNOWN)
